//! A bad line for any program: two hosts in network namespaces, joined by a line in userland that delays, loses and is slow.
//!
//! Each host has one interface, a TUN device, whose packets the line takes and brings to the other: whatever a program sends, by
//! UDP or TCP, goes over it. (The kernel's own way, netem, is not in every kernel.) What becomes of each packet is drawn from a seed, by
//! the same [`Direction`] that [`wire`](crate::wire) uses; here a packet is one of IP, and the queue is that of the line's near end.
//!
//! Namespace and device belong to a socat (Debian: socat) for each host, which hands packets between the device and a socket of
//! ours; opening a device takes an `ioctl`, and so unsafe code, which this workspace has none of. Both die with the program that started
//! them; nothing has a name that another run could meet. It takes root, and /dev/net/tun.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::net::UnixDatagram;
use tokio::sync::{oneshot, watch};

pub use crate::wire::Line;
use crate::wire::{Direction, arrival};

/// Bytes of the longest packet: the devices' MTU.
const PACKET_LEN_MAX: usize = 1_500;
/// Packets that are taken from a device before the due ones are sent on.
const TAKEN_AT_ONCE: usize = 64;
/// Packets that the kernel keeps for the line until it takes them: the line alone is to lose any.
const KERNEL_QUEUE: u32 = 10_000;
/// In a network of its own, and dies with whoever started it.
const KEEPER: [&str; 6] = ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "socat"];
/// Until a device is there.
const START_TIME_MAX: Duration = Duration::from_secs(60);

/// Two hosts with a line between them.
#[derive(Debug)]
pub struct JoinedHosts {
    /// Both.
    pub hosts: [LineHost; 2],
    line: watch::Sender<Line>,
    lost: Arc<AtomicU64>,
    /// Ends the thread.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// One of two hosts.
#[derive(Debug)]
pub struct LineHost {
    /// The socat that the namespace is of.
    keeper: Child,
    number: u8,
}

impl JoinedHosts {
    /// Two hosts, joined by this line. What it does to a packet is drawn from `seed`; the same in both directions, not to the same packets.
    ///
    /// # Errors
    /// Where the kernel makes no namespaces or no devices for us: not root, as a rule.
    pub fn start(line: Line, seed: u64) -> Result<Self> {
        ensure!(rustix::process::getuid().is_root(), "network namespaces take root");
        let ((first, near), (second, far)) = (LineHost::start(1)?, LineHost::start(2)?);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (near, far) = {
            let _within = runtime.enter();
            (Arc::new(UnixDatagram::from_std(near)?), Arc::new(UnixDatagram::from_std(far)?))
        };
        let (line, lines) = watch::channel(line);
        let (stop, stopped) = oneshot::channel();
        let lost = Arc::new(AtomicU64::new(0));
        let way = |from: &Arc<UnixDatagram>, to: &Arc<UnixDatagram>, seed| Way {
            from: Arc::clone(from),
            to: Arc::clone(to),
            direction: Direction::new(seed, Instant::now()),
            waiting: None,
            line: lines.clone(),
            lost: Arc::clone(&lost),
        };
        let (there, back) = (way(&near, &far, seed), way(&far, &near, !seed));
        let thread = std::thread::Builder::new().name("line".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    ended = there.run() => eprintln!("the line broke: {ended:?}"),
                    ended = back.run() => eprintln!("the line broke: {ended:?}"),
                    _ = stopped => {}
                }
            });
        });
        Ok(Self {
            hosts: [first, second],
            line,
            lost,
            stop: Some(stop),
            thread: Some(thread.context("a thread")?),
        })
    }

    /// From now on the line is so.
    pub fn set(&self, line: Line) {
        self.line.send_replace(line);
    }

    /// Packets that were lost, in both directions.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Drop for JoinedHosts {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl LineHost {
    /// With the end of its line: what is read from it, the host has sent.
    fn start(number: u8) -> Result<(Self, std::os::unix::net::UnixDatagram)> {
        let (ours, its) = std::os::unix::net::UnixDatagram::pair()?;
        ours.set_nonblocking(true)?;
        let [program, arguments @ ..] = KEEPER;
        let device = format!("TUN:{}/24,tun-name=line,iff-no-pi,iff-up", address(number));
        let mut command = Command::new(program);
        command.args(arguments).args(["-b", "65536", &device, "STDIO"]);
        command.stdin(OwnedFd::from(its.try_clone()?)).stdout(OwnedFd::from(its)).stderr(Stdio::piped());
        let keeper = command.spawn().context("setpriv and unshare (Debian: util-linux)")?;
        let mut host = Self { keeper, number };
        let began = Instant::now();
        // There is nothing to wait for but the device itself.
        while host
            .command(&format!("ip link set line mtu {PACKET_LEN_MAX} txqueuelen {KERNEL_QUEUE}"))
            .is_err()
        {
            let is_gone = host.keeper.try_wait()?.is_some();
            ensure!(!is_gone && began.elapsed() < START_TIME_MAX, "{}", host.complaint());
            std::thread::sleep(Duration::from_millis(5));
        }
        host.command("ip link set lo up")?;
        Ok((host, ours))
    }

    /// What the keeper said, which is ended.
    fn complaint(&mut self) -> String {
        let _ = self.keeper.kill();
        let mut said = String::new();
        if let Some(mut errors) = self.keeper.stderr.take() {
            let _ = io::Read::read_to_string(&mut errors, &mut said);
        }
        format!("socat (Debian: socat) made no device: {}", said.trim())
    }

    /// Its address: one of a documentation network that exists only in here.
    pub fn address(&self) -> IpAddr {
        address(self.number)
    }

    /// What a program's command begins with that is to run on it.
    pub fn through(&self) -> Vec<String> {
        ["nsenter", "--net", "--target", &self.keeper.id().to_string()].map(ToOwned::to_owned).to_vec()
    }

    fn command(&self, words: &str) -> Result<()> {
        command(&format!("{} {words}", self.through().join(" ")))
    }
}

impl Drop for LineHost {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

/// RFC 5737. Not a private network's: programs are to take the line for one of the internet's.
fn address(number: u8) -> IpAddr {
    Ipv4Addr::new(198, 51, 100, number).into()
}

fn command(words: &str) -> Result<()> {
    let mut split = words.split(' ');
    let output = Command::new(split.next().context("no command")?).args(split).output();
    let output = output.with_context(|| words.to_owned())?;
    ensure!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

/// One way over the line.
struct Way {
    from: Arc<UnixDatagram>,
    to: Arc<UnixDatagram>,
    direction: Direction<Vec<u8>>,
    /// Has arrived, and is not taken yet. (Nothing is waited for while the other side waits for us.)
    waiting: Option<Vec<u8>>,
    line: watch::Receiver<Line>,
    lost: Arc<AtomicU64>,
}

impl Way {
    /// Until a host is gone.
    async fn run(mut self) -> io::Result<()> {
        let mut buffer = vec![0; PACKET_LEN_MAX];
        loop {
            let is_waiting = self.waiting.is_some();
            tokio::select! {
                biased;
                writable = self.to.writable(), if is_waiting => {
                    writable?;
                    self.bring()?;
                }
                () = arrival(self.direction.next()), if !is_waiting => self.bring()?,
                readable = self.from.readable() => {
                    readable?;
                    for _ in 0..TAKEN_AT_ONCE {
                        match self.from.try_recv(&mut buffer) {
                            Ok(len) => self.take(&buffer[..len]),
                            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                            Err(error) => return Err(error),
                        }
                    }
                }
            }
        }
    }

    /// Brings what has arrived, as far as it is taken.
    fn bring(&mut self) -> io::Result<()> {
        let now = Instant::now();
        while let Some(packet) = self.waiting.take().or_else(|| self.direction.arrived(now)) {
            match self.to.try_send(&packet) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.waiting = Some(packet);
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn take(&mut self, packet: &[u8]) {
        let line = *self.line.borrow();
        if !self.direction.take(&packet.to_vec(), packet.len(), &line, Instant::now()) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::time::Duration;

    use super::*;

    /// A socket on a host. (A socket stays in the network that it was made in, whoever uses it.)
    fn socket(host: &LineHost) -> UdpSocket {
        let network = std::fs::File::open(format!("/proc/{}/ns/net", host.keeper.id())).unwrap();
        let address = host.address();
        let made = std::thread::spawn(move || {
            rustix::thread::move_into_link_name_space(rustix::fd::AsFd::as_fd(&network), None).unwrap();
            UdpSocket::bind((address, 0)).unwrap()
        });
        let socket = made.join().unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        socket
    }

    #[test]
    fn packets_take_as_long_as_said_and_as_many_are_lost_as_said() {
        // As many as a socket of the usual size holds: on a busy machine nobody may read for a while.
        const PACKETS: usize = 60;
        let rate = Some(100_000);
        let queue = Duration::from_secs(2);
        let line = Line { delay: Duration::from_millis(20), rate, queue, ..Line::default() };
        let joined = match JoinedHosts::start(line, 1) {
            Ok(joined) => joined,
            Err(reason) => return eprintln!("NOT TESTED: {reason:#}"),
        };
        let [near, far] = [0, 1].map(|index| socket(&joined.hosts[index]));
        let mut buffer = [0; 2_000];
        let packet = [7; 1_000 - 28];
        let to = far.local_addr().unwrap();

        let began = Instant::now();
        near.send_to(&packet, to).unwrap();
        far.recv_from(&mut buffer).unwrap();
        assert!(began.elapsed() >= line.delay, "{:?}", began.elapsed());

        let began = Instant::now();
        for _ in 0..PACKETS {
            near.send_to(&packet, to).unwrap();
        }
        for _ in 0..PACKETS {
            assert_eq!(far.recv_from(&mut buffer).unwrap(), (packet.len(), near.local_addr().unwrap()));
        }
        // 60 kB at 100 kB/s.
        assert!(began.elapsed() >= Duration::from_millis(600), "{:?}", began.elapsed());
        assert_eq!(joined.lost(), 0);

        joined.set(Line { loss: 0.2, ..line });
        for _ in 0..PACKETS {
            near.send_to(&packet, to).unwrap();
        }
        // After that long without one, none is on its way any more.
        far.set_read_timeout(Some(Duration::from_secs(4))).unwrap();
        let came = std::iter::from_fn(|| far.recv_from(&mut buffer).ok()).count();
        assert!((PACKETS / 2..PACKETS).contains(&came), "{came}");
        assert!(joined.lost() + came as u64 >= PACKETS as u64, "{} lost, {came} came", joined.lost());
    }
}
