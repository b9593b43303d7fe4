//! Transfers in virtual time: QUIC as it is, on a line that is a value. All of a test's transfers share that line.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use quinn::congestion::ControllerFactory;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, EndpointConfig, MtuDiscoveryConfig, ServerConfig, TransportConfig, VarInt};
use quinn_proto::{Connection, ConnectionHandle, DatagramEvent, Dir, Endpoint, Event, StreamEvent, StreamId};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::super::{Adaptive, Mode};
use crate::identity::Identity;
use crate::limits::{DATAGRAM_LEN_INTERNET_MAX, PULL_STREAMS_MAX, PULL_WINDOW, SEND_WINDOW, STREAM_WINDOW};
use crate::tls::{self, ALPN};

/// A line, both ways.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    /// Bytes a second.
    pub(super) rate: u64,
    /// There and back, with nothing in the queue.
    pub(super) round_trip: Duration,
    /// What a packet waits at most.
    pub(super) queue: Duration,
    /// Of each packet, how likely it is lost though the queue has room.
    pub(super) loss: f64,
}

impl Line {
    /// One with a queue of 100 ms that loses nothing.
    pub(super) fn new(mbit: u64, round_trip_ms: u64) -> Self {
        let round_trip = Duration::from_millis(round_trip_ms);
        Self { rate: mbit * 125_000, round_trip, queue: Duration::from_millis(100), loss: 0.0 }
    }
}

/// One direction of it.
struct Direction {
    free_at: Instant,
    chance: StdRng,
    /// In the order of arriving: to which transfer's side.
    under_way: VecDeque<(Instant, usize, BytesMut)>,
}

impl Direction {
    fn take(&mut self, transfer: usize, packet: &[u8], line: &Line, now: Instant) {
        let is_lost = self.chance.random::<f64>() < line.loss;
        let starts = self.free_at.max(now);
        if is_lost || starts - now > line.queue {
            return;
        }
        self.free_at = starts + Duration::from_nanos(packet.len() as u64 * 1_000_000_000 / line.rate);
        self.under_way.push_back((self.free_at + line.round_trip / 2, transfer, packet.into()));
    }
}

/// One end of a transfer.
struct End {
    endpoint: Endpoint,
    connection: Option<(ConnectionHandle, Connection)>,
    other: SocketAddr,
}

impl End {
    /// The connection's, if there is one.
    fn timeout(&mut self) -> Option<Instant> {
        self.connection.as_mut()?.1.poll_timeout()
    }

    fn handle(&mut self, now: Instant, packet: BytesMut) {
        let mut answer = Vec::new();
        match self.endpoint.handle(now, self.other, None, None, packet, &mut answer) {
            Some(DatagramEvent::NewConnection(incoming)) => {
                self.connection = self.endpoint.accept(incoming, now, &mut answer, None).ok();
            }
            Some(DatagramEvent::ConnectionEvent(_, event)) => {
                if let Some((_, connection)) = &mut self.connection {
                    connection.handle_event(event);
                }
            }
            Some(DatagramEvent::Response(_)) | None => {}
        }
    }

    /// Gives each packet that it sends now to `send`.
    fn drive(&mut self, now: Instant, mut send: impl FnMut(&[u8])) {
        let Some((handle, connection)) = &mut self.connection else { return };
        if connection.poll_timeout().is_some_and(|at| at <= now) {
            connection.handle_timeout(now);
        }
        while let Some(event) = connection.poll_endpoint_events() {
            if let Some(event) = self.endpoint.handle_event(*handle, event) {
                connection.handle_event(event);
            }
        }
        let mut buffer = Vec::new();
        while let Some(transmit) = connection.poll_transmit(now, 10, &mut buffer) {
            buffer[..transmit.size]
                .chunks(transmit.segment_size.unwrap_or(transmit.size))
                .for_each(&mut send);
            buffer.clear();
        }
    }
}

/// So many bytes from a server to a client.
pub(super) struct Transfer {
    client: End,
    server: End,
    starts: Instant,
    /// Bytes that the server has still to write, of each stream.
    unwritten: Vec<(StreamId, u64)>,
    len: u64,
    /// Bytes that arrived, in order.
    pub(super) received: u64,
    /// When the last of them did.
    pub(super) ended: Option<Instant>,
}

impl Transfer {
    pub(super) fn new(
        congestion: Arc<dyn ControllerFactory + Send + Sync>,
        len: u64,
        starts: Instant,
        seed: u8,
    ) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let mut transport = TransportConfig::default();
        transport.stream_receive_window(VarInt::from_u32(STREAM_WINDOW));
        transport.receive_window(VarInt::from_u32(PULL_WINDOW));
        transport.send_window(SEND_WINDOW);
        transport.congestion_controller_factory(congestion);
        let mut discovery = MtuDiscoveryConfig::default();
        discovery.upper_bound(DATAGRAM_LEN_INTERNET_MAX);
        transport.mtu_discovery_config(Some(discovery));
        let transport = Arc::new(transport);

        let identity = Identity::generate();
        let crypto = QuicServerConfig::try_from(tls::server_config(&identity, ALPN).unwrap()).unwrap();
        let mut server = ServerConfig::with_crypto(Arc::new(crypto));
        server.transport_config(Arc::clone(&transport));
        let crypto = QuicClientConfig::try_from(tls::client_config(&identity, None, ALPN).unwrap()).unwrap();
        let mut client = ClientConfig::new(Arc::new(crypto));
        client.transport_config(transport);

        let (there, here) = (([10, 0, 0, 1], 1).into(), ([10, 0, 0, 2], 2).into());
        let endpoint = |server, part| {
            let mut config = EndpointConfig::default();
            config.rng_seed(Some([seed ^ part; 32]));
            Endpoint::new(Arc::new(config), server, true, None)
        };
        let mut client_endpoint = endpoint(None, 1);
        let connection = client_endpoint.connect(starts, client, there, "server").unwrap();
        Self {
            client: End { endpoint: client_endpoint, connection: Some(connection), other: there },
            server: End { endpoint: endpoint(Some(Arc::new(server)), 2), connection: None, other: here },
            starts,
            unwritten: Vec::new(),
            len,
            received: 0,
            ended: None,
        }
    }

    /// How its sender decides by now.
    pub(super) fn congestion(&self) -> Adaptive {
        let (_, connection) = self.server.connection.as_ref().unwrap();
        *connection.congestion_state().clone_box().into_any().downcast().unwrap()
    }

    /// How often its sender has left Cubic, and whether it has now.
    pub(super) fn switches(&self) -> (u32, bool) {
        let congestion = self.congestion();
        let is_steady = matches!(congestion.mode, Mode::Steady(_));
        (congestion.judge.leaves() + u32::from(is_steady), is_steady)
    }

    /// Packets that were sent, and those that were lost.
    pub(super) fn packets(&self) -> (u64, u64) {
        let (_, connection) = self.server.connection.as_ref().unwrap();
        let path = connection.stats().path;
        (path.sent_packets, path.lost_packets)
    }

    /// Bytes a second from its start to its end.
    pub(super) fn rate(&self) -> u64 {
        let took = self.ended.expect("it has not ended") - self.starts;
        self.len * 1_000 / u64::try_from(took.as_millis()).unwrap()
    }

    /// What both programs do with what has happened.
    fn act(&mut self, now: Instant) {
        if let Some((_, client)) = &mut self.client.connection {
            while let Some(event) = client.poll() {
                match event {
                    Event::Connected => {
                        for _ in 0..PULL_STREAMS_MAX {
                            let id = client.streams().open(Dir::Bi).unwrap();
                            client.send_stream(id).write(b"?").unwrap();
                        }
                    }
                    Event::Stream(StreamEvent::Readable { id }) => self.received += read(client, id),
                    Event::ConnectionLost { reason } => panic!("{reason}"),
                    _ => {}
                }
            }
        }
        if self.received == self.len && self.ended.is_none() {
            self.ended = Some(now);
        }
        let Some((_, server)) = &mut self.server.connection else { return };
        while let Some(event) = server.poll() {
            match event {
                Event::Stream(StreamEvent::Opened { .. }) => {
                    while let Some(id) = server.streams().accept(Dir::Bi) {
                        self.unwritten.push((id, self.len / PULL_STREAMS_MAX as u64));
                    }
                    self.unwritten.iter_mut().for_each(|stream| write(server, stream));
                }
                Event::Stream(StreamEvent::Writable { id }) => {
                    self.unwritten
                        .iter_mut()
                        .filter(|stream| stream.0 == id)
                        .for_each(|stream| write(server, stream));
                }
                _ => {}
            }
        }
    }
}

fn read(connection: &mut Connection, id: StreamId) -> u64 {
    let mut stream = connection.recv_stream(id);
    let Ok(mut chunks) = stream.read(true) else { return 0 };
    let mut len = 0;
    while let Ok(Some(chunk)) = chunks.next(usize::MAX) {
        len += chunk.bytes.len() as u64;
    }
    let _ = chunks.finalize();
    len
}

fn write(connection: &mut Connection, (id, len): &mut (StreamId, u64)) {
    static BLOCK: [u8; 65_536] = [7; 65_536];
    while *len > 0 {
        let block = usize::try_from(*len).unwrap().min(BLOCK.len());
        match connection.send_stream(*id).write(&BLOCK[..block]) {
            Ok(written) => *len -= written as u64,
            Err(_) => return,
        }
    }
}

/// A line with the transfers on it.
pub(super) struct World {
    pub(super) line: Line,
    pub(super) now: Instant,
    pub(super) transfers: Vec<Transfer>,
    there: Direction,
    back: Direction,
}

impl World {
    pub(super) fn new(line: Line, seed: u64) -> Self {
        let now = Instant::now();
        let direction = |seed| Direction {
            free_at: now,
            chance: StdRng::seed_from_u64(seed),
            under_way: VecDeque::new(),
        };
        Self { line, now, transfers: Vec::new(), there: direction(seed), back: direction(!seed) }
    }

    /// Adds a transfer that starts now.
    pub(super) fn start(&mut self, congestion: impl ControllerFactory + Send + Sync + 'static, mib: u64) {
        let seed = u8::try_from(self.transfers.len()).unwrap();
        self.transfers.push(Transfer::new(Arc::new(congestion), mib << 20, self.now, seed));
    }

    /// Until all have ended, or so long. Whether they have.
    pub(super) fn run(&mut self, time: Duration) -> bool {
        let until = self.now + time;
        while self.transfers.iter().any(|transfer| transfer.ended.is_none()) {
            self.step();
            let timeouts = self
                .transfers
                .iter_mut()
                .flat_map(|transfer| [transfer.client.timeout(), transfer.server.timeout()])
                .flatten();
            let arrivals = [&self.there, &self.back]
                .into_iter()
                .filter_map(|direction| direction.under_way.front().map(|(at, _, _)| *at));
            let Some(next) = timeouts.chain(arrivals).min() else { return false };
            if next > until {
                self.now = until;
                return false;
            }
            self.now = next.max(self.now);
        }
        true
    }

    fn step(&mut self) {
        let Self { line, now, transfers, there, back } = self;
        for (direction, is_there) in [(&mut *there, true), (&mut *back, false)] {
            while direction.under_way.front().is_some_and(|(at, _, _)| at <= now) {
                let Some((_, transfer, packet)) = direction.under_way.pop_front() else { break };
                let transfer = &mut transfers[transfer];
                let end = if is_there { &mut transfer.server } else { &mut transfer.client };
                end.handle(*now, packet);
            }
        }
        for (number, transfer) in transfers.iter_mut().enumerate() {
            transfer.act(*now);
            transfer.client.drive(*now, |packet| there.take(number, packet, line, *now));
            transfer.server.drive(*now, |packet| back.take(number, packet, line, *now));
            transfer.act(*now);
        }
    }
}
