//! Hostile and broken peers at a server's listener.

mod copying;

use std::time::Duration;

use lighter_transport::Identity;
use lighter_transport::tcp::TcpTls;
use lighter_transport::tls::STORAGE_ALPN;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::*;
use crate::array::{ServerRecord, wall_clock};
use crate::disk::sim::SimDisk;
use crate::ids::{Epoch, SegmentId};
use crate::limits::{CONNECTION_REQUESTS_MAX, DATA_LEN_MAX, HELLO_TIME_MAX, IDLE_TIME_MAX, MESSAGE_LEN_MAX};
use crate::link::PeerStream;
use crate::local::LocalServers;
use crate::wire::{Frame, OutFrame, Refusal, Request, Response, Target, VERSION};

struct Fixture {
    _folder: TempDir,
    server: StorageServer,
    writer: Identity,
}

impl Fixture {
    async fn start() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let writer = Identity::generate();
        let config = ServerConfig {
            identity: Identity::generate(),
            listen: "127.0.0.1:0".parse().unwrap(),
            units: vec![folder.path().join("unit")],
            writers: vec![writer.peer()],
            clock: wall_clock(),
            scrub_days: crate::limits::SCRUB_DAYS_DEFAULT,
            depot: None,
            local: LocalServers::default(),
        };
        let server = StorageServer::start(config).await.unwrap();
        Self { _folder: folder, server, writer }
    }

    fn record(&self) -> ServerRecord {
        ServerRecord { peer: self.server.peer(), address: self.server.address() }
    }

    async fn tcp(&self) -> TcpStream {
        TcpStream::connect(self.server.address()).await.unwrap()
    }

    async fn tls_as(&self, who: &Identity) -> Box<dyn PeerStream> {
        let tls = TcpTls::new(who, STORAGE_ALPN).unwrap();
        tls.dial(&self.record()).await.unwrap()
    }

    /// The writer comes in as if nothing were.
    async fn is_unharmed(&self) {
        let tls = TcpTls::new(&self.writer, STORAGE_ALPN).unwrap();
        let record = self.record();
        let connecting = Link::connect(&tls, &record, (wall_clock())());
        let (link, greeting) = timeout(Duration::from_secs(60), connecting).await.unwrap().unwrap();
        assert_eq!(greeting.units.len(), 1);
        link.done(&Request::Ping, Vec::new(), Duration::from_secs(60)).await.unwrap();
    }
}

/// Whether the server ended the connection, whatever it said before.
async fn is_ended(stream: &mut (impl AsyncReadExt + Unpin)) -> bool {
    let mut rest = Vec::new();
    timeout(Duration::from_secs(20), stream.read_to_end(&mut rest)).await.is_ok()
}

async fn bytes_of<M: serde::Serialize>(id: u64, message: &M) -> Vec<u8> {
    let mut bytes = Vec::new();
    OutFrame::new(id, message, Vec::new()).unwrap().write(&mut bytes).await.unwrap();
    bytes
}

fn hello() -> Request {
    Request::Hello { version: VERSION, now: (wall_clock())() }
}

#[tokio::test]
async fn garbage_instead_of_tls_ends_the_connection_and_nothing_else() {
    let fixture = Fixture::start().await;
    let client_hello_of_nonsense = [&[22, 3, 1, 0x40, 0][..], &[7; 0x4000]].concat();
    let garbage: [&[u8]; 4] =
        [b"GET / HTTP/1.1\r\n\r\n", &[0; 4096], &[0xFF; 4096], &client_hello_of_nonsense];
    for bytes in garbage {
        let mut socket = fixture.tcp().await;
        let _ = socket.write_all(bytes).await;
        let _ = socket.shutdown().await;
        assert!(is_ended(&mut socket).await);
        fixture.is_unharmed().await;
    }
}

#[tokio::test]
async fn another_protocol_within_tls_is_refused() {
    let fixture = Fixture::start().await;
    let tls = TcpTls::new(&fixture.writer, b"lighter/1").unwrap();
    let connected = tls.connect(fixture.server.address(), fixture.server.peer()).await;
    if let Ok(mut stream) = connected {
        let mut byte = [0];
        assert!(!matches!(stream.read(&mut byte).await, Ok(1..)));
    }
    fixture.is_unharmed().await;
}

#[tokio::test]
async fn a_writer_does_not_talk_to_a_server_that_is_not_who_it_should_be() {
    let fixture = Fixture::start().await;
    let tls = TcpTls::new(&fixture.writer, STORAGE_ALPN).unwrap();
    let someone_else = ServerRecord { peer: PeerId::random(), ..fixture.record() };
    assert!(Link::connect(&tls, &someone_else, (wall_clock())()).await.is_err());
}

#[tokio::test]
async fn a_stranger_is_told_no_and_nothing_more() {
    let fixture = Fixture::start().await;
    let mut stream = fixture.tls_as(&Identity::generate()).await;
    stream.write_all(&bytes_of(1, &hello()).await).await.unwrap();
    let answer = Frame::read(&mut stream).await.unwrap();
    assert_eq!(answer.decode::<Response>().unwrap(), Response::Refused(Refusal::NotAllowed));
    assert!(is_ended(&mut stream).await);
    fixture.is_unharmed().await;
}

#[tokio::test]
async fn what_is_no_hello_of_this_version_ends_the_connection() {
    let fixture = Fixture::start().await;
    let other_version = Request::Hello { version: VERSION + 1, now: (wall_clock())() };
    for first in [Request::Ping, Request::Fence { epoch: Epoch(9) }, other_version] {
        let mut stream = fixture.tls_as(&fixture.writer).await;
        stream.write_all(&bytes_of(1, &first).await).await.unwrap();
        assert!(is_ended(&mut stream).await, "{first:?}");
    }
    fixture.is_unharmed().await;
}

#[tokio::test]
async fn frames_that_are_too_long_or_none_end_the_connection() {
    let fixture = Fixture::start().await;
    let length = |message: usize, data: usize| {
        let lens = [message, data].map(|len| u32::try_from(len).unwrap().to_le_bytes());
        [&lens.concat()[..], &[0; 8]].concat()
    };
    let no_message = [&length(3, 0)[..], &[0xFF; 3]].concat();
    let bad = [
        length(MESSAGE_LEN_MAX + 1, 0),
        length(5, DATA_LEN_MAX + 1),
        vec![0xFF; 16],
        length(0, 0),
        no_message,
    ];
    for bytes in bad {
        let mut stream = fixture.tls_as(&fixture.writer).await;
        stream.write_all(&bytes_of(1, &hello()).await).await.unwrap();
        Frame::read(&mut stream).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        assert!(is_ended(&mut stream).await, "{:?}", &bytes[..16]);
        fixture.is_unharmed().await;
    }
}

#[tokio::test]
async fn a_connection_may_break_anywhere() {
    let fixture = Fixture::start().await;
    let unit = greeting(&fixture).await.units[0].unit;
    let target = Target { unit, segment: SegmentId([1; 16]), writer: fixture.writer.peer(), epoch: Epoch(1) };
    let append = Request::Append { target, offset: 4096, forward: None };
    let all = [bytes_of(1, &hello()).await, bytes_of(2, &append).await].concat();
    for cut in 0..all.len() {
        let mut stream = fixture.tls_as(&fixture.writer).await;
        stream.write_all(&all[..cut]).await.unwrap();
        // Half of them say that they end, half just break.
        if cut % 2 == 0 {
            stream.shutdown().await.unwrap();
        }
    }
    fixture.is_unharmed().await;
}

async fn greeting(fixture: &Fixture) -> crate::link::Greeting {
    let tls = TcpTls::new(&fixture.writer, STORAGE_ALPN).unwrap();
    Link::connect(&tls, &fixture.record(), (wall_clock())()).await.unwrap().1
}

#[tokio::test]
async fn any_number_of_silent_strangers_keeps_nobody_out() {
    let fixture = Fixture::start().await;
    let mut silent = Vec::new();
    for number in 0..2 * NEWCOMERS_MAX + 100 {
        silent.push(fixture.tcp().await);
        if number % 200 == 0 {
            fixture.is_unharmed().await;
        }
    }
    fixture.is_unharmed().await;
    // The first of them had to go.
    assert!(is_ended(&mut silent[0]).await);
}

#[tokio::test]
async fn requests_for_what_is_another_writers_or_not_there_are_refused_one_by_one() {
    let fixture = Fixture::start().await;
    let tls = TcpTls::new(&fixture.writer, STORAGE_ALPN).unwrap();
    let (link, greeting) = Link::connect(&tls, &fixture.record(), (wall_clock())()).await.unwrap();
    let unit = greeting.units[0].unit;
    let segment = SegmentId([1; 16]);
    let own = Target { unit, segment, writer: fixture.writer.peer(), epoch: Epoch(1) };
    let foreign = Target { writer: PeerId::random(), ..own };
    let nowhere = Target { unit: UnitId([9; 16]), ..own };
    let requests = [
        Request::Append { target: own, offset: 4096, forward: None },
        Request::Append { target: foreign, offset: 4096, forward: None },
        Request::Append { target: nowhere, offset: 4096, forward: None },
        Request::Seal { target: foreign, length: 4096 },
        Request::Seal { target: own, length: 4096 },
        Request::Truncate { target: own, length: 0 },
        Request::SetAside { target: foreign },
        Request::Discard { target: nowhere },
        Request::ReadRange { unit, segment, offset: 0, length: u32::MAX },
        Request::Index { unit, segment, from: u32::MAX },
        Request::Open { unit, epoch: Epoch(1), is_anew: false },
        hello(),
    ];
    let count = requests.len() as u64;
    for request in requests {
        let refused = link.call(&request, Vec::new(), Duration::from_secs(60)).await;
        assert!(matches!(refused, Err(crate::link::LinkError::Refused(_))), "{request:?}: {refused:?}");
    }
    assert_eq!(fixture.server.counters().refused, count);
    link.done(&Request::Ping, Vec::new(), Duration::from_secs(60)).await.unwrap();
}

// ---- in virtual time ----

fn simulated(writer: PeerId) -> Arc<Shared<SimDisk>> {
    struct Nowhere;
    impl Dial for Nowhere {
        fn dial<'a>(&'a self, _: &'a ServerRecord) -> crate::link::Dialing<'a> {
            Box::pin(async { Err(io::ErrorKind::ConnectionRefused.into()) })
        }
    }
    let peer = PeerId::random();
    let mut chance: StdRng = rand::make_rng();
    let (unit, _) = Unit::open(SimDisk::new(1), peer, UnixTime(1_000_000), &mut chance).unwrap();
    let clock: Clock = Arc::new(|| UnixTime(1_000_000));
    Shared::new(peer, vec![unit], vec![writer], clock, Arc::new(Nowhere))
}

/// A connection to `shared`, and the task that serves it.
fn connection(shared: &Arc<Shared<SimDisk>>, peer: PeerId) -> (DuplexStream, tokio::task::JoinHandle<bool>) {
    let (near, far) = duplex(1024 * 1024);
    let shared = Arc::clone(shared);
    let serving = tokio::spawn(async move {
        match welcome(Box::new(far), peer, &shared).await {
            None => false,
            Some(connection) => {
                connection.serve().await;
                true
            }
        }
    });
    (near, serving)
}

#[tokio::test(start_paused = true)]
async fn bad_input_11_one_who_says_nothing_or_a_byte_at_a_time_is_sent_away_in_time() {
    let writer = PeerId::random();
    let shared = simulated(writer);
    let started = Instant::now();
    let (_silent, serving) = connection(&shared, writer);
    assert!(!serving.await.unwrap());
    assert!(started.elapsed() <= HELLO_TIME_MAX * 3);

    let (mut slow, serving) = connection(&shared, writer);
    slow.write_all(&bytes_of(1, &hello()).await).await.unwrap();
    Frame::read(&mut slow).await.unwrap();
    let started = Instant::now();
    let dripping = tokio::spawn(async move {
        for byte in bytes_of(2, &Request::Ping).await {
            tokio::time::sleep(Duration::from_secs(20)).await;
            if slow.write_all(&[byte]).await.is_err() {
                break;
            }
        }
    });
    assert!(serving.await.unwrap());
    assert!(started.elapsed() <= IDLE_TIME_MAX + Duration::from_secs(1), "{:?}", started.elapsed());
    dripping.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn one_who_takes_no_answers_is_sent_away_and_holds_no_more_than_its_places() {
    let writer = PeerId::random();
    let shared = simulated(writer);
    let (mut near, serving) = connection(&shared, writer);
    near.write_all(&bytes_of(1, &hello()).await).await.unwrap();
    let asking = tokio::spawn(async move {
        let ping = bytes_of(2, &Request::Ping).await;
        let mut asked = 0_usize;
        while near.write_all(&ping).await.is_ok() {
            asked += 1;
        }
        asked
    });
    let started = Instant::now();
    assert!(serving.await.unwrap());
    assert!(started.elapsed() <= crate::limits::ANSWER_TIME_MAX * 3, "{:?}", started.elapsed());
    assert!(asking.await.unwrap() > CONNECTION_REQUESTS_MAX);
}

#[tokio::test(start_paused = true)]
async fn there_are_only_so_many_connections() {
    let writer = PeerId::random();
    let shared = simulated(writer);
    let mut connected = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        let (mut near, _) = connection(&shared, writer);
        near.write_all(&bytes_of(1, &hello()).await).await.unwrap();
        Frame::read(&mut near).await.unwrap();
        connected.push(near);
    }
    let (mut near, serving) = connection(&shared, writer);
    near.write_all(&bytes_of(1, &hello()).await).await.unwrap();
    assert!(!serving.await.unwrap(), "one too many");
    // Where one goes, another finds its place.
    drop(connected.pop());
    tokio::time::sleep(Duration::from_millis(1)).await;
    let (mut near, serving) = connection(&shared, writer);
    near.write_all(&bytes_of(1, &hello()).await).await.unwrap();
    Frame::read(&mut near).await.unwrap();
    drop(near);
    assert!(serving.await.unwrap());
}
