//! A line between UDP sockets, in userland: it loses, doubles, delays and reorders packets, carries so many bytes a second
//! and no longer packets than so, and its far end changes its port, as a router does that forgot its mappings.
//!
//! What happens to a packet is drawn from a seed. [`Line`] says how the line is, [`Direction`] decides on each packet and
//! says when it arrives; [`Wire`] is the sockets around two of them, on a thread of their own: where both ends of a
//! connection keep all processors busy, the line must not become slower for it.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustix::net::sockopt;
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::sleep_until;

/// Bytes of the longest UDP packet.
const PACKET_LEN_MAX: usize = 65_535;
/// Packets that are taken from a socket before the due ones are sent on.
const TAKEN_AT_ONCE: usize = 64;
/// What is asked of the system for a socket's buffers: a burst must not be lost here, where nobody meant it to be.
const SOCKET_BUFFER_LEN: usize = 4 * 1024 * 1024;

/// How a line is, in either direction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Line {
    /// Of each packet, how likely it is lost: 0 to 1.
    pub loss: f64,
    /// Of each packet, how likely it arrives twice.
    pub doubled: f64,
    /// How long every packet takes: half of a round trip.
    pub delay: Duration,
    /// What a packet takes longer than that, at most: packets overtake each other.
    pub jitter: Duration,
    /// Bytes a second; none is no bound.
    pub rate: Option<u64>,
    /// How long a packet waits for those before it, at most: what would wait longer is lost.
    pub queue: Duration,
    /// Bytes of the longest packet that it carries: longer ones are lost.
    pub packet_len_max: usize,
}

impl Default for Line {
    /// One of the internet's, with nothing wrong, and nothing in its way.
    fn default() -> Self {
        Self {
            loss: 0.0,
            doubled: 0.0,
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            rate: None,
            queue: Duration::from_millis(100),
            packet_len_max: 1_452,
        }
    }
}

/// One direction of a line: what becomes of each packet, and when it arrives.
#[derive(Debug)]
pub struct Direction<T> {
    chance: StdRng,
    /// When all that was taken is on its way.
    free_at: Instant,
    taken: u64,
    under_way: BinaryHeap<Reverse<UnderWay<T>>>,
}

/// A packet; the order is that of arriving, and for the same moment that of setting out.
#[derive(Debug)]
struct UnderWay<T> {
    at: Instant,
    number: u64,
    packet: T,
}

impl<T> PartialEq for UnderWay<T> {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl<T> Eq for UnderWay<T> {}

impl<T> PartialOrd for UnderWay<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for UnderWay<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl<T: Clone> Direction<T> {
    /// With nothing on its way.
    pub fn new(seed: u64, now: Instant) -> Self {
        let chance = StdRng::seed_from_u64(seed);
        Self { chance, free_at: now, taken: 0, under_way: BinaryHeap::new() }
    }

    /// Takes a packet of `len` bytes. False where it is lost.
    pub fn take(&mut self, packet: &T, len: usize, line: &Line, now: Instant) -> bool {
        // All that is drawn is drawn for every packet: the next one's luck does not hang on this one's.
        let (lost, doubled) = (self.chance.random::<f64>(), self.chance.random::<f64>());
        let late: [f64; 2] = self.chance.random();
        let starts = self.free_at.max(now);
        if lost < line.loss || len > line.packet_len_max || starts - now > line.queue {
            return false;
        }
        let takes = line
            .rate
            .map_or(Duration::ZERO, |rate| Duration::from_nanos(len as u64 * 1_000_000_000 / rate.max(1)));
        self.free_at = starts + takes;
        let copies = if doubled < line.doubled { 2 } else { 1 };
        for late in late.iter().take(copies) {
            self.taken += 1;
            let at = self.free_at + line.delay + line.jitter.mul_f64(*late);
            self.under_way.push(Reverse(UnderWay { at, number: self.taken, packet: packet.clone() }));
        }
        true
    }

    /// When the next one arrives.
    pub fn next(&self) -> Option<Instant> {
        self.under_way.peek().map(|Reverse(next)| next.at)
    }

    /// The next one that has arrived.
    pub fn arrived(&mut self, now: Instant) -> Option<T> {
        if self.next()? > now {
            return None;
        }
        self.under_way.pop().map(|Reverse(next)| next.packet)
    }
}

/// Packets that went over a wire, in both directions.
#[derive(Debug, Default)]
struct Counts {
    passed: AtomicU64,
    lost: AtomicU64,
}

/// A line in front of a server.
#[derive(Debug)]
pub struct Wire {
    /// Where to connect instead of to the server.
    pub address: SocketAddr,
    line: watch::Sender<Line>,
    rebinds: mpsc::UnboundedSender<()>,
    counts: Arc<Counts>,
    thread: Option<JoinHandle<()>>,
}

impl Wire {
    /// A line in front of `server`, on this machine's loopback.
    ///
    /// # Errors
    /// Where the kernel has no port or no thread.
    pub fn start(server: SocketAddr, line: Line, seed: u64) -> Result<Self> {
        let near = socket()?;
        let address = near.local_addr()?;
        let counts = Arc::new(Counts::default());
        let (rebinds, rebound) = mpsc::unbounded_channel();
        let (line, lines) = watch::channel(line);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let ends = Ends { server, seed, line: lines, counts: Arc::clone(&counts) };
        let thread = std::thread::Builder::new().name("wire".to_owned()).spawn(move || {
            if let Err(error) = runtime.block_on(ends.run(near, rebound)) {
                eprintln!("the wire broke: {error:#}");
            }
        });
        Ok(Self { address, line, rebinds, counts, thread: Some(thread.context("a thread")?) })
    }

    /// From now on the line is so.
    pub fn set(&self, line: Line) {
        self.line.send_replace(line);
    }

    /// The far end forgets who spoke through which port: what comes next goes out through a new one, and what is sent
    /// to the old one is lost.
    pub fn rebind(&self) {
        // The thread ends with this value only.
        let _ = self.rebinds.send(());
    }

    /// Packets that were passed on, in both directions.
    pub fn passed(&self) -> u64 {
        self.counts.passed.load(Ordering::Relaxed)
    }

    /// Packets that were lost.
    pub fn lost(&self) -> u64 {
        self.counts.lost.load(Ordering::Relaxed)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        // With the sender gone, the thread ends.
        self.rebinds = mpsc::unbounded_channel().0;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn socket() -> Result<std::net::UdpSocket> {
    let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.set_nonblocking(true)?;
    // The system cuts these to what the administrator allows.
    let _ = sockopt::set_socket_recv_buffer_size(&socket, SOCKET_BUFFER_LEN);
    let _ = sockopt::set_socket_send_buffer_size(&socket, SOCKET_BUFFER_LEN);
    Ok(socket)
}

/// What both directions need.
#[derive(Clone)]
struct Ends {
    server: SocketAddr,
    seed: u64,
    line: watch::Receiver<Line>,
    counts: Arc<Counts>,
}

/// A client's way to the server: a port of its own.
struct Mapping {
    far: std::net::UdpSocket,
    /// Ends with this.
    _back: JoinSet<()>,
}

impl Ends {
    /// Everybody's packets to the server, until nobody wants the wire any more.
    async fn run(self, near: std::net::UdpSocket, mut rebound: mpsc::UnboundedReceiver<()>) -> Result<()> {
        // Sending waits for nothing: a full buffer loses packets, as it does anywhere.
        let (sender, near) = (Arc::new(near.try_clone()?), UdpSocket::from_std(near)?);
        let mut mappings: HashMap<SocketAddr, Mapping> = HashMap::new();
        let mut there: Direction<(SocketAddr, Vec<u8>)> = Direction::new(self.seed, Instant::now());
        let mut buffer = vec![0; PACKET_LEN_MAX];
        loop {
            tokio::select! {
                biased;
                rebind = rebound.recv() => match rebind {
                    Some(()) => mappings.clear(),
                    None => return Ok(()),
                },
                () = arrival(there.next()) => {
                    while let Some((client, packet)) = there.arrived(Instant::now()) {
                        let known = mappings.len() as u64;
                        let mapping = match mappings.entry(client) {
                            std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
                            std::collections::hash_map::Entry::Vacant(new) => {
                                let far = socket()?;
                                let receiver = UdpSocket::from_std(far.try_clone()?)?;
                                let ends = Self { seed: self.seed.wrapping_add(known + 1), ..self.clone() };
                                let mut back = JoinSet::new();
                                back.spawn(ends.back(receiver, Arc::clone(&sender), client));
                                new.insert(Mapping { far, _back: back })
                            }
                        };
                        let _ = mapping.far.send_to(&packet, self.server);
                    }
                }
                received = near.recv_from(&mut buffer) => {
                    let mut received = received;
                    for _ in 0..TAKEN_AT_ONCE {
                        let Ok((len, client)) = received else { break };
                        let packet = (client, buffer[..len].to_vec());
                        self.take(&mut there, &packet, len);
                        received = near.try_recv_from(&mut buffer);
                    }
                }
            }
        }
    }

    /// The server's packets to one client.
    async fn back(self, far: UdpSocket, near: Arc<std::net::UdpSocket>, client: SocketAddr) {
        let mut back: Direction<Vec<u8>> = Direction::new(!self.seed, Instant::now());
        let mut buffer = vec![0; PACKET_LEN_MAX];
        loop {
            tokio::select! {
                biased;
                () = arrival(back.next()) => {
                    while let Some(packet) = back.arrived(Instant::now()) {
                        let _ = near.send_to(&packet, client);
                    }
                }
                received = far.recv(&mut buffer) => {
                    let mut received: io::Result<usize> = received;
                    for _ in 0..TAKEN_AT_ONCE {
                        let Ok(len) = received else { break };
                        self.take(&mut back, &buffer[..len].to_vec(), len);
                        received = far.try_recv(&mut buffer);
                    }
                }
            }
        }
    }

    fn take<T: Clone>(&self, direction: &mut Direction<T>, packet: &T, len: usize) {
        let taken = direction.take(packet, len, &self.line.borrow(), Instant::now());
        let count = if taken { &self.counts.passed } else { &self.counts.lost };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// Until the next packet arrives; for ever where none is on its way.
pub(crate) async fn arrival(next: Option<Instant>) {
    match next {
        Some(at) => sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: usize = 1_000;

    /// The numbers of the packets that arrive, of 1,000 sent at once.
    fn arriving(line: Line, seed: u64) -> Vec<u32> {
        let now = Instant::now();
        let mut direction = Direction::new(seed, now);
        for number in 0..1_000 {
            direction.take(&number, LEN, &line, now);
        }
        std::iter::from_fn(|| direction.arrived(now + Duration::from_secs(1_000))).collect()
    }

    #[test]
    fn a_good_line_passes_everything_in_order_and_after_its_delay() {
        assert_eq!(arriving(Line::default(), 1), (0..1_000).collect::<Vec<_>>());
        let now = Instant::now();
        let mut direction = Direction::new(1, now);
        let line = Line { delay: Duration::from_millis(50), rate: Some(1_000_000), ..Line::default() };
        assert!(direction.take(&1, LEN, &line, now) && direction.take(&2, LEN, &line, now));
        assert_eq!(direction.next(), Some(now + Duration::from_millis(51)));
        assert_eq!(direction.arrived(now + Duration::from_millis(50)), None);
        assert_eq!(direction.arrived(now + Duration::from_millis(51)), Some(1));
        assert_eq!(direction.next(), Some(now + Duration::from_millis(52)));
    }

    #[test]
    fn a_bad_line_loses_doubles_and_reorders_as_its_seed_says() {
        let line = Line { loss: 0.1, doubled: 0.1, jitter: Duration::from_millis(5), ..Line::default() };
        let arrived = arriving(line, 7);
        assert_eq!(arrived, arriving(line, 7));
        assert_ne!(arrived, arriving(line, 8));
        assert!(!arrived.is_sorted());
        let mut once = arrived.clone();
        once.sort_unstable();
        once.dedup();
        assert!((850..950).contains(&once.len()), "{} of 1,000 arrived", once.len());
        assert!((50..150).contains(&(arrived.len() - once.len())));
    }

    #[test]
    fn what_does_not_fit_is_lost() {
        let line = Line { rate: Some(1_000_000), ..Line::default() };
        // 100 ms of queue at a packet a millisecond, and the one that sets out at once.
        assert_eq!(arriving(line, 1).len(), 101);
        assert!(arriving(Line { packet_len_max: LEN - 1, ..Line::default() }, 1).is_empty());
    }

    #[tokio::test]
    async fn a_wire_passes_both_ways_and_goes_out_through_a_new_port_when_it_was_rebound() {
        let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let wire = Wire::start(server.local_addr().unwrap(), Line::default(), 1).unwrap();
        let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let mut buffer = [0; 16];
        let mut ports = Vec::new();
        for question in [b"first", b"other"] {
            client.send_to(question, wire.address).await.unwrap();
            let (len, from) = server.recv_from(&mut buffer).await.unwrap();
            assert_eq!(&buffer[..len], question);
            ports.push(from.port());
            server.send_to(b"answer", from).await.unwrap();
            let (len, from) = client.recv_from(&mut buffer).await.unwrap();
            assert_eq!((&buffer[..len], from), (&b"answer"[..], wire.address));
            wire.rebind();
        }
        assert_ne!(ports[0], ports[1]);
        assert_eq!((wire.passed(), wire.lost()), (4, 0));
    }
}
