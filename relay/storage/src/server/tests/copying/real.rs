//! The same over real sockets and real folders.

use lighter_harness::peers::Garage;

use super::*;
use crate::array::Clock;
use crate::limits::CLOCK_LEAP;
use crate::objects::s3::{S3Config, S3Credentials, S3Objects};
use crate::objects::{Depot, DepotRules, Objects};

/// The real thing: three identities, TLS, two folders, a restart.
// SPEC: B14
#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_segment_goes_from_one_real_server_to_another_and_is_read_after_a_restart() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let folder = tempfile::tempdir().unwrap();
    let writer = Identity::generate();
    let identities = [Identity::generate(), Identity::generate()];
    let config = |index: usize| ServerConfig {
        identity: identities[index].clone(),
        listen: "127.0.0.1:0".parse().unwrap(),
        units: vec![folder.path().join(format!("unit-{index}"))],
        writers: vec![writer.peer()],
        clock: wall_clock(),
        scrub_days: 30,
        depot: None,
        local: LocalServers::default(),
    };
    let tls = TcpTls::new(&writer, STORAGE_ALPN).unwrap();
    let connect = async |server: &StorageServer| {
        let record = ServerRecord { peer: server.peer(), address: server.address() };
        let (link, greeting) = Link::connect(&tls, &record, (wall_clock())()).await.unwrap();
        link.done(&Request::Fence { epoch: Epoch(3) }, Vec::new(), TIME).await.unwrap();
        (link, greeting.units[0].unit)
    };
    let source = StorageServer::start(config(0)).await.unwrap();
    let destination = StorageServer::start(config(1)).await.unwrap();
    let (from, source_unit) = connect(&source).await;
    let (to, unit) = connect(&destination).await;
    let member = Member { peer: source.peer(), unit: source_unit };
    let summary = seal_segment(&from, writer.peer(), member, (wall_clock())(), (40, 1_000_000)).await;

    let allow = Request::Allow { segment: SEGMENT, peer: destination.peer() };
    from.done(&allow, Vec::new(), TIME).await.unwrap();
    let hop = Hop { peer: source.peer(), address: source.address(), unit: source_unit };
    let length = 16 << 20;
    let mut offset = 0;
    while offset < summary.file_len() {
        let receive =
            Request::Receive { unit, epoch: Epoch(3), segment: SEGMENT, source: hop, offset, length };
        offset = received(&to, &receive).await;
    }
    let adopt = Request::Adopt { unit, epoch: Epoch(3), segment: SEGMENT, summary };
    to.call(&adopt, Vec::new(), TIME).await.unwrap();
    assert_eq!(destination.counters().received_bytes, summary.file_len());
    source.stop().await;
    drop(to);
    destination.stop().await;

    let file = |index: usize| {
        std::fs::read(folder.path().join(format!("unit-{index}")).join(file_name(SEGMENT))).unwrap()
    };
    assert!(file(0) == file(1), "byte for byte");
    let destination = start_again(config(1)).await;
    assert_eq!(destination.reports()[0].sealed, 1);
    let (to, _) = connect(&destination).await;
    let range = Request::ReadRange { unit, segment: SEGMENT, offset: 4096, length: 64 };
    assert_eq!(to.done(&range, Vec::new(), TIME).await.unwrap()[..4], *b"LRC1");
}

/// The folder is free once the last task of the server before has ended.
async fn start_again(config: ServerConfig) -> StorageServer {
    let ServerConfig { identity, listen, units, writers, clock, scrub_days, depot, local } = config;
    loop {
        let config = ServerConfig {
            identity: identity.clone(),
            listen,
            units: units.clone(),
            writers: writers.clone(),
            clock: Arc::clone(&clock),
            scrub_days,
            depot: depot.clone(),
            local: local.clone(),
        };
        match StorageServer::start(config).await {
            Ok(server) => return server,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
}

/// A time that a test sets.
fn set_clock(at: &Arc<Mutex<UnixTime>>) -> Clock {
    let at = Arc::clone(at);
    Arc::new(move || *at.lock().unwrap())
}

/// Looks until `is_so`; what is looked for comes by itself.
async fn until<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) {
    let looking = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(timeout(Duration::from_secs(60), looking).await.is_ok(), "waited too long: {what}");
}

/// The real thing: a server on a folder, a real S3 server, restarts, damage, the last day.
// SPEC: D10, C11
#[tokio::test(flavor = "multi_thread")]
async fn a_segment_lives_in_a_real_s3_server_from_its_sealing_to_its_last_day() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let (folder, garage_folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut garage = Garage::start(garage_folder.path()).await.unwrap();
    let s3_config = crate::objects::contract::config(&garage);
    let now = Arc::new(Mutex::new(START));
    let (writer, identity) = (Identity::generate(), Identity::generate());
    let config = |s3_config: &S3Config| ServerConfig {
        identity: identity.clone(),
        listen: "127.0.0.1:0".parse().unwrap(),
        units: vec![folder.path().join("unit")],
        writers: vec![writer.peer()],
        clock: set_clock(&now),
        scrub_days: 30,
        depot: Some(Arc::new(Depot::new(
            Arc::new(S3Objects::new(s3_config).unwrap()),
            "a real store".to_owned(),
            DepotRules { after_days: 0, keep_local_bytes: 0 },
        ))),
        local: LocalServers::default(),
    };
    let tls = TcpTls::new(&writer, STORAGE_ALPN).unwrap();
    let connect = async |server: &StorageServer| {
        let record = ServerRecord { peer: server.peer(), address: server.address() };
        let time = *now.lock().unwrap();
        let (link, greeting) = Link::connect(&tls, &record, time).await.unwrap();
        link.done(&Request::Fence { epoch: Epoch(3) }, Vec::new(), TIME).await.unwrap();
        (link, greeting.units[0].unit)
    };
    // With a wrong secret nothing is moved, and nothing else suffers.
    let credentials = S3Credentials { secret: "0".repeat(64), ..s3_config.credentials.clone() };
    let wrong = StorageServer::start(config(&S3Config { credentials, ..s3_config.clone() })).await.unwrap();
    let (link, unit) = connect(&wrong).await;
    let member = Member { peer: wrong.peer(), unit };
    // Four parts.
    let summary = seal_segment(&link, writer.peer(), member, START, (30, 1_000_000)).await;
    let name = |end: &str| folder.path().join("unit").join(format!("{SEGMENT}{end}"));
    let file = std::fs::read(name(".seg")).unwrap();
    until("a refusal", async || !wrong.counters().depot.is_well).await;
    assert_eq!(wrong.counters().moved_segments, 0);
    let record = Request::ReadRange { unit, segment: SEGMENT, offset: 4096, length: 4096 };
    assert_eq!(link.done(&record, Vec::new(), TIME).await.unwrap(), file[4096..8192]);
    drop(link);
    wrong.stop().await;

    let server = start_again(config(&s3_config)).await;
    until("the move", async || server.counters().depot.moved_bytes == summary.length - 4096).await;
    assert_eq!(server.counters().moved_segments, 1);
    until("the file to go", async || !name(".seg").exists()).await;
    assert!(std::fs::metadata(name(".obj")).unwrap().len() < 8192);
    let objects = S3Objects::new(&s3_config).unwrap();
    let keys = async || objects.list(unit, None).await.unwrap();
    assert_eq!(keys().await.len(), 2, "the object and the marker");
    assert_eq!(objects.uploads(unit).await.unwrap(), []);
    server.stop().await;

    // Read whole after a restart.
    let server = start_again(config(&s3_config)).await;
    assert_eq!((server.reports()[0].sealed, server.reports()[0].moved), (1, 1));
    let (link, _) = connect(&server).await;
    let mut at = 0;
    while at < file.len() {
        let length = RECEIVE_PIECE_LEN;
        let piece = Request::ReadSealed { unit, segment: SEGMENT, offset: at as u64, length };
        let bytes = link.done(&piece, Vec::new(), TIME).await.unwrap();
        assert!(bytes == file[at..at + bytes.len()], "at {at}");
        at += bytes.len();
    }
    // Away, and back.
    garage.stop();
    assert_eq!(refused(&link, &record).await, Refusal::Away);
    garage.go_on().await.unwrap();
    let back =
        async || link.done(&record, Vec::new(), TIME).await.is_ok_and(|bytes| bytes == file[4096..8192]);
    until("the store to be read again", back).await;

    // Changed behind our back: a read finds it, and the scrub says so.
    let key = keys().await.into_iter().find(|key| key.contains('-')).unwrap();
    let mut bytes = objects.read(&key, 0..summary.length - 4096).await.unwrap().to_vec();
    bytes[500] ^= 1;
    objects.put(&key, bytes.into()).await.unwrap();
    let length = u32::try_from((summary.length - 4096) / summary.records).unwrap();
    let server_peer = server.peer();
    let key_of = DataKey {
        server: server_peer,
        unit,
        segment: SEGMENT,
        offset: 4096,
        length,
        deletion_day: deletion_day(),
    };
    assert_eq!(refused(&link, &Request::Read { key: key_of }).await, Refusal::Unsound);
    until("the scrub", async || server.counters().damaged == 1).await;
    drop(link);
    server.stop().await;

    // Its day is over while the server is away: gone before anything is served, and from the store soon.
    for time in [START.plus(CLOCK_LEAP), START.plus(CLOCK_LEAP * 2), deletion_day().end()] {
        *now.lock().unwrap() = time;
        let server = start_again(config(&s3_config)).await;
        assert_eq!(server.counters().segments, u64::from(time != deletion_day().end()));
        server.stop().await;
    }
    let server = start_again(config(&s3_config)).await;
    assert!(!name(".obj").exists());
    until("the object to go", async || keys().await.len() == 1).await;
    server.stop().await;
}
