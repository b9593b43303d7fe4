//! The same over real sockets and real folders.

use super::*;

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
    let ServerConfig { identity, listen, units, writers, clock, scrub_days } = config;
    loop {
        let config = ServerConfig {
            identity: identity.clone(),
            listen,
            units: units.clone(),
            writers: writers.clone(),
            clock: Arc::clone(&clock),
            scrub_days,
        };
        match StorageServer::start(config).await {
            Ok(server) => return server,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
}
