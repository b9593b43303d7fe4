//! On real sockets: who gets in, who does not, and what becomes of those who break the rules.

use std::net::UdpSocket;

use data_encoding::HEXLOWER;
use lighter_protocol::wire::{self, Have, Request, Response};
use lighter_protocol::{BlobId, DeliveryId};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::*;
use crate::connection::IncomingRequest;
use crate::error::{ExchangeError, GiveUp, Misbehaviour};
use crate::tls::{self, ALPN};

const ANY_PORT: ([u8; 4], u16) = ([127, 0, 0, 1], 0);
/// Long enough for anything that is to happen on a loaded machine.
const LONG: Duration = Duration::from_secs(60);
/// For what is to be cut off.
const SHORT: Duration = Duration::from_secs(1);

fn endpoint_with(config: EndpointConfig) -> (Endpoint, SocketAddr) {
    let endpoint = Endpoint::bind(&Identity::generate(), ANY_PORT.into(), config).unwrap();
    let address = endpoint.local_addr().unwrap();
    (endpoint, address)
}

fn endpoint() -> (Endpoint, SocketAddr) {
    endpoint_with(EndpointConfig::default())
}

/// Opens a connection between two endpoints, and gives both sides of it: the client's and the server's.
async fn meet(client: &Endpoint, server: &Endpoint, addresses: &[SocketAddr]) -> (Connection, Connection) {
    let (ours, theirs) = tokio::join!(client.connect(server.peer(), addresses, LONG), server.accept());
    (ours.unwrap(), theirs.unwrap())
}

/// Two endpoints and an open connection between them, seen from both sides: the client's and the server's.
async fn connected(server: EndpointConfig) -> (Endpoint, Connection, Endpoint, Connection) {
    let (client, _) = endpoint();
    let (server, address) = endpoint_with(server);
    let (ours, theirs) = meet(&client, &server, &[address]).await;
    (client, ours, server, theirs)
}

/// A QUIC client that is not ours, with whatever TLS configuration.
async fn stranger(
    tls: rustls::ClientConfig,
    address: SocketAddr,
) -> Result<quinn::Connection, ConnectionError> {
    let crypto = QuicClientConfig::try_from(tls).unwrap();
    let endpoint = quinn::Endpoint::client(ANY_PORT.into()).unwrap();
    let config = quinn::ClientConfig::new(Arc::new(crypto));
    let connection = endpoint.connect_with(config, address, "127.0.0.1").unwrap().await?;
    tokio::spawn(async move { endpoint.wait_idle().await });
    Ok(connection)
}

/// How a connection ends; it must, before long.
async fn closed(connection: &quinn::Connection) -> ConnectionError {
    timeout(LONG, connection.closed()).await.unwrap()
}

/// A client with a proper identity that speaks QUIC, but nothing else yet.
async fn mute(address: SocketAddr) -> quinn::Connection {
    stranger(tls::client_config(&Identity::generate(), None, ALPN).unwrap(), address).await.unwrap()
}

fn have() -> Request {
    Request::Have(Have::Blob(BlobId([7; 32])))
}

/// Whether `endpoint` still serves: somebody new connects and asks.
async fn still_serves(server: &Endpoint, address: SocketAddr) {
    let (client, _) = endpoint();
    let (ours, theirs) = meet(&client, server, &[address]).await;
    let answering = async {
        let IncomingRequest { request, responder } = theirs.accept_request().await.unwrap();
        assert_eq!(request, have());
        responder.respond(&Response::Have(true)).await.unwrap();
    };
    let asked = have();
    let (answer, ()) = tokio::join!(ours.request(&asked), answering);
    assert_eq!(answer, Ok(Response::Have(true)));
}

// SPEC: A4, A18, A21
#[tokio::test]
async fn both_sides_know_each_other_and_either_side_asks() {
    let (client, ours, server, theirs) = connected(EndpointConfig::default()).await;
    assert_eq!((ours.peer(), theirs.peer()), (server.peer(), client.peer()));
    ours.ping(LONG).await.unwrap();
    theirs.ping(LONG).await.unwrap();

    for (asking, answering) in [(&ours, &theirs), (&theirs, &ours)] {
        let answer = async {
            let IncomingRequest { request, responder } = answering.accept_request().await.unwrap();
            assert_eq!(request, have());
            assert_eq!(responder.peer(), answering.peer());
            responder.respond(&Response::Refused).await.unwrap();
        };
        let asked = have();
        let (answered, ()) = tokio::join!(asking.request(&asked), answer);
        assert_eq!(answered, Ok(Response::Refused));
    }
}

#[tokio::test]
async fn ipv6_and_ipv4_work_on_one_socket() {
    let server = Endpoint::bind_any(&Identity::generate(), 0, EndpointConfig::default()).unwrap();
    let port = server.local_addr().unwrap().port();
    let client = Endpoint::bind_any(&Identity::generate(), 0, EndpointConfig::default()).unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let (ours, theirs) = meet(&client, &server, &[address]).await;
    assert_eq!(ours.remote_address(), address);
    assert_eq!(theirs.remote_address().ip(), address.ip());
}

#[tokio::test]
async fn another_peer_than_expected_is_refused() {
    let (client, _) = endpoint();
    let (server, address) = endpoint();
    let wrong = client.connect(Identity::generate().peer(), &[address], LONG).await;
    assert_eq!(wrong.unwrap_err(), ConnectError::WrongPeer);
    still_serves(&server, address).await;
}

#[tokio::test]
async fn the_address_that_answers_is_found_among_those_that_do_not() {
    let (client, _) = endpoint();
    let (server, address) = endpoint();
    let silent = UdpSocket::bind(SocketAddr::from(ANY_PORT)).unwrap();
    let (other, other_address) = endpoint();
    let addresses = [silent.local_addr().unwrap(), other_address, address];
    let (ours, theirs) = meet(&client, &server, &addresses).await;
    assert_eq!(ours.remote_address(), address);
    drop((theirs, other));
}

#[tokio::test]
async fn nobody_there_is_told_apart_from_nowhere_to_go() {
    let (client, _) = endpoint();
    let silent = UdpSocket::bind(SocketAddr::from(ANY_PORT)).unwrap();
    let peer = Identity::generate().peer();
    let nobody = client.connect(peer, &[silent.local_addr().unwrap()], SHORT).await;
    assert_eq!(nobody.unwrap_err(), ConnectError::TimedOut);
    assert_eq!(client.connect(peer, &[], SHORT).await.unwrap_err(), ConnectError::NoAddress);
    client.close().await;
    let closed = client.connect(peer, &[silent.local_addr().unwrap()], LONG).await;
    assert_eq!(closed.unwrap_err(), ConnectError::Unreachable);
}

#[tokio::test]
async fn bad_input_34_a_client_whose_certificate_proves_no_peer_is_refused() {
    let (server, address) = endpoint();
    let mut tls = tls::client_config(&Identity::generate(), None, ALPN).unwrap();
    let key = tls.crypto_provider().key_provider.load_private_key(stranger_key()).unwrap();
    let shown = rustls::sign::CertifiedKey::new(vec![stranger_certificate()], key);
    tls.client_auth_cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(shown));
    // The client's own handshake may end before the server has refused.
    if let Ok(connection) = stranger(tls, address).await {
        assert!(matches!(closed(&connection).await, ConnectionError::ConnectionClosed(_)));
    }
    still_serves(&server, address).await;
}

#[tokio::test]
async fn bad_input_34_a_server_whose_certificate_proves_no_peer_is_refused() {
    let mut tls = tls::server_config(&Identity::generate(), ALPN).unwrap();
    let key = tls.crypto_provider().key_provider.load_private_key(stranger_key()).unwrap();
    let shown = rustls::sign::CertifiedKey::new(vec![stranger_certificate()], key);
    tls.cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(shown));
    let crypto = QuicServerConfig::try_from(tls).unwrap();
    let config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    let server = quinn::Endpoint::server(config, ANY_PORT.into()).unwrap();
    let address = server.local_addr().unwrap();
    let accepting = tokio::spawn(async move { server.accept().await.unwrap().await.is_err() });

    let (client, _) = endpoint();
    let refused = client.connect(Identity::generate().peer(), &[address], LONG).await;
    assert_eq!(refused.unwrap_err(), ConnectError::Refused);
    assert!(accepting.await.unwrap());
}

#[tokio::test]
async fn another_protocol_is_refused() {
    let (server, address) = endpoint();
    for alpn in [vec![b"h3".to_vec()], vec![]] {
        let mut tls = tls::client_config(&Identity::generate(), None, ALPN).unwrap();
        tls.alpn_protocols = alpn;
        assert!(stranger(tls, address).await.is_err());
    }
    still_serves(&server, address).await;
}

#[tokio::test]
async fn garbage_datagrams_harm_nobody() {
    let (server, address) = endpoint();
    let socket = UdpSocket::bind(SocketAddr::from(ANY_PORT)).unwrap();
    // A long header of version 1 with lengths that lie; an unknown version; a short header; nothing; noise.
    let mut initial = vec![0xc3, 0, 0, 0, 1, 20];
    initial.resize(1_200, 0xff);
    let mut version = vec![0x80, 0xba, 0xba, 0xba, 0xba, 8];
    version.resize(1_200, 0);
    let noise: Vec<u8> =
        (0..6_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24).to_le_bytes()[0]).collect();
    for datagram in
        [&initial, &version, &vec![0x40; 60], &vec![], &noise, &vec![0xc0], &b"GET / HTTP/1.1\r\n".to_vec()]
    {
        for len in [datagram.len(), datagram.len() / 2, datagram.len().min(1)] {
            socket.send_to(&datagram[..len], address).unwrap();
        }
    }
    still_serves(&server, address).await;
}

#[tokio::test]
async fn bad_input_11_a_client_that_says_nothing_is_closed_in_time() {
    let config = EndpointConfig { open_time_max: SHORT, ..EndpointConfig::default() };
    let (server, address) = endpoint_with(config);
    let connection = mute(address).await;
    let reason = closed(&connection).await;
    let told = matches!(&reason, ConnectionError::ApplicationClosed(close)
        if close.error_code == CloseCode::TooSlow.code());
    assert!(told, "{reason:?}");
    still_serves(&server, address).await;
}

#[tokio::test]
async fn something_else_than_a_ping_at_the_beginning_is_refused() {
    let (server, address) = endpoint();
    for first in [wire::encode(&have()).unwrap(), vec![0xff; 64], vec![]] {
        let connection = mute(address).await;
        let (mut send, _recv) = connection.open_bi().await.unwrap();
        // An empty write opens no stream on the wire, but the end does.
        send.write_all(&first).await.unwrap();
        send.finish().unwrap();
        let reason = closed(&connection).await;
        let told = matches!(&reason, ConnectionError::ApplicationClosed(close)
            if close.error_code == CloseCode::Protocol.code());
        assert!(told, "{reason:?}");
    }
    still_serves(&server, address).await;
}

#[tokio::test]
async fn bad_input_11_one_peer_cannot_hold_more_connections_than_allowed() {
    let limits = ConnectionLimits { per_peer: 2, ..ConnectionLimits::default() };
    let (server, address) =
        endpoint_with(EndpointConfig { connections: limits, ..EndpointConfig::default() });
    let (client, _) = endpoint();
    let mut held = Vec::new();
    for _ in 0..2 {
        let (ours, theirs) = meet(&client, &server, &[address]).await;
        held.push((ours, theirs));
    }
    assert_eq!(client.connect(server.peer(), &[address], LONG).await.unwrap_err(), ConnectError::Busy);
    still_serves(&server, address).await;

    // A connection that ends gives its place back.
    let (ours, theirs) = held.pop().unwrap();
    ours.close();
    assert_eq!(theirs.closed().await, PeerError::Gone);
    let (again, theirs) = tokio::join!(until_not_busy(&client, server.peer(), address), server.accept());
    assert_eq!((again.peer(), theirs.unwrap().peer()), (server.peer(), client.peer()));
}

/// The place of a connection that ended is free as soon as its task has seen the end: a moment after its peer has.
async fn until_not_busy(client: &Endpoint, peer: PeerId, address: SocketAddr) -> Connection {
    loop {
        match client.connect(peer, &[address], LONG).await {
            Err(ConnectError::Busy) => tokio::task::yield_now().await,
            connected => return connected.unwrap(),
        }
    }
}

#[tokio::test]
async fn bad_input_11_one_network_cannot_hold_more_connections_than_allowed() {
    let limits = ConnectionLimits { per_network: 2, ..ConnectionLimits::default() };
    let (server, address) =
        endpoint_with(EndpointConfig { connections: limits, ..EndpointConfig::default() });
    let mut held = Vec::new();
    for _ in 0..2 {
        let (client, _) = endpoint();
        let (ours, theirs) = meet(&client, &server, &[address]).await;
        held.push((client, ours, theirs));
    }
    let (client, _) = endpoint();
    assert_eq!(client.connect(server.peer(), &[address], LONG).await.unwrap_err(), ConnectError::Busy);
}

#[tokio::test]
async fn bad_input_11_one_network_cannot_connect_faster_than_allowed() {
    let limits = ConnectionLimits { burst: 2, interval: LONG, ..ConnectionLimits::default() };
    let (server, address) =
        endpoint_with(EndpointConfig { connections: limits, ..EndpointConfig::default() });
    let (client, _) = endpoint();
    for _ in 0..2 {
        meet(&client, &server, &[address]).await;
    }
    assert_eq!(client.connect(server.peer(), &[address], LONG).await.unwrap_err(), ConnectError::Busy);
}

#[tokio::test]
async fn when_many_knock_at_once_whoever_proves_its_address_gets_in() {
    let limits = ConnectionLimits { handshakes: 2, ..ConnectionLimits::default() };
    let (server, address) =
        endpoint_with(EndpointConfig { connections: limits, ..EndpointConfig::default() });
    let silent = mute(address).await;
    let (client, _) = endpoint();
    let (ours, theirs) = meet(&client, &server, &[address]).await;
    ours.ping(LONG).await.unwrap();
    drop((silent, theirs));
}

#[tokio::test]
async fn a_connection_without_traffic_is_kept_alive_by_the_one_who_opened_it() {
    // A busy machine may hold up both sides for a while.
    let idle_time_max = SHORT * 4;
    let keep_alive = Some(SHORT / 10);
    let config = EndpointConfig { idle_time_max, keep_alive, ..EndpointConfig::default() };
    let ((client, _), (server, address)) = (endpoint_with(config.clone()), endpoint_with(config));
    let (ours, theirs) = meet(&client, &server, &[address]).await;
    // Nothing is said for more than two idle times.
    assert!(timeout(idle_time_max * 9 / 4, theirs.closed()).await.is_err());
    ours.ping(LONG).await.unwrap();
}

#[tokio::test]
async fn handshakes_that_do_not_end_use_up_their_own_places_only_for_a_time() {
    let limits = ConnectionLimits { handshakes: 4, ..ConnectionLimits::default() };
    let config = EndpointConfig { connections: limits, open_time_max: SHORT, ..EndpointConfig::default() };
    let (server, address) = endpoint_with(config);
    let mut silent = Vec::new();
    for _ in 0..4 {
        silent.push(mute(address).await);
    }
    for connection in silent {
        closed(&connection).await;
    }
    let (client, _) = endpoint();
    let (ours, theirs) = tokio::join!(until_not_busy(&client, server.peer(), address), server.accept());
    ours.ping(LONG).await.unwrap();
    drop(theirs);
}

/// One stream with these bytes, finished or not; what the other side says to it.
async fn say(connection: &Connection, bytes: &[u8], finish: bool) -> Result<Vec<u8>, PeerError> {
    let (mut send, mut recv) = connection.quic().open_bi().await.map_err(PeerError::from)?;
    // The other side may stop the stream before all is written: its reset tells why.
    let _ = send.write_all(bytes).await;
    if finish {
        let _ = send.finish();
    }
    match recv.read_to_end(1_000).await {
        Ok(answer) => Ok(answer),
        Err(quinn::ReadToEndError::Read(error)) => Err(error.into()),
        Err(quinn::ReadToEndError::TooLong) => unreachable!("answers are short"),
    }
}

#[tokio::test]
async fn malformed_requests_are_refused_one_by_one_and_then_altogether() {
    let (_client, ours, server, theirs) = connected(EndpointConfig::default()).await;
    let frame = wire::encode(&have()).unwrap();
    let mut left_over = frame.clone();
    left_over.push(0);
    let mut two = frame.clone();
    two.extend_from_slice(&frame);
    let mut unknown_kind = frame.clone();
    unknown_kind[4] = 200;
    let malformed: Vec<Vec<u8>> = vec![
        vec![],                            // nothing at all
        frame[..3].to_vec(),               // cut off in the length
        frame[..frame.len() - 1].to_vec(), // cut off in the message
        left_over,                         // one byte too many
        two,                               // two requests on one stream
        unknown_kind,
        vec![0, 0, 0, 0],                           // a length of nothing
        vec![0xff; 64],                             // a length of 4 GiB
        [&[0, 0, 16, 0][..], &[2; 64]].concat(),    // an offer of 1 MiB that ends early
        [&[0xff, 0, 0, 0][..], &[1; 255]].concat(), // a question longer than its kind may be
    ];
    let mut said = 0;
    for bytes in &malformed {
        assert_eq!(say(&ours, bytes, true).await, Err(PeerError::GaveUp(GiveUp::Malformed)), "{bytes:x?}");
        said += 1;
    }
    assert!(said < crate::limits::MALFORMED_REQUESTS_MAX);
    theirs.ping(LONG).await.unwrap();
    while say(&ours, &[0xff; 64], true).await == Err(PeerError::GaveUp(GiveUp::Malformed)) {
        said += 1;
        assert!(said <= crate::limits::MALFORMED_REQUESTS_MAX);
    }
    assert_eq!(ours.closed().await, PeerError::Gone);
    still_serves(&server, server.local_addr().unwrap()).await;
}

#[tokio::test]
async fn bad_input_11_a_request_that_is_never_finished_is_given_up_and_holds_up_nobody() {
    let patience = Patience { request: SHORT, ..Patience::default() };
    let config = EndpointConfig { patience, ..EndpointConfig::default() };
    let (_client, ours, _server, theirs) = connected(config).await;
    let frame = wire::encode(&have()).unwrap();
    let stalled = async {
        for bytes in [&frame[..1], &frame[..20], &frame[..]] {
            assert_eq!(say(&ours, bytes, false).await, Err(PeerError::GaveUp(GiveUp::TooSlow)));
        }
    };
    let answering = async {
        theirs.accept_request().await.unwrap().responder.respond(&Response::Have(false)).await.unwrap();
    };
    let asked = have();
    let ((), (), answered) = tokio::join!(stalled, answering, ours.request(&asked));
    assert_eq!(answered, Ok(Response::Have(false)));
}

#[tokio::test]
async fn a_request_without_an_answer_is_told_so_and_one_with_a_wrong_answer_is_not_believed() {
    let (_client, ours, _server, theirs) = connected(EndpointConfig::default()).await;
    let answering = tokio::spawn(async move {
        drop(theirs.accept_request().await.unwrap());
        theirs.accept_request().await.unwrap().responder.respond(&Response::Released).await.unwrap();
        theirs
    });
    let none = ours.request(&have()).await;
    assert_eq!(none, Err(ExchangeError::Peer(PeerError::GaveUp(GiveUp::NoAnswer))));
    let wrong = ours.request(&have()).await;
    assert_eq!(wrong, Err(ExchangeError::Peer(PeerError::Misbehaved(Misbehaviour::Answer))));
    answering.await.unwrap();
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_not_waited_for_beyond_the_limit() {
    let (_client, ours, _server, theirs) = connected(EndpointConfig::default()).await;
    let late = ours.request_within(&have(), SHORT).await;
    assert_eq!(late, Err(ExchangeError::Peer(PeerError::TimedOut)));
    drop(theirs);
}

#[tokio::test]
async fn a_message_beyond_its_limits_is_not_sent() {
    let (_client, ours, _server, _theirs) = connected(EndpointConfig::default()).await;
    let get = wire::Get {
        delivery: DeliveryId([0; 16]),
        blob: BlobId([0; 32]),
        ranges: vec![(0, 1); lighter_protocol::limits::GET_RANGES_MAX + 1],
        attestation: None,
    };
    assert!(matches!(ours.request(&Request::Get(get)).await, Err(ExchangeError::Invalid(_))));
    ours.ping(LONG).await.unwrap();
}

#[tokio::test]
async fn a_clean_close_is_told_and_a_dead_peer_is_noticed() {
    let (client, ours, server, theirs) = connected(EndpointConfig::default()).await;
    let asking = tokio::spawn(async move { ours.request(&have()).await });
    let held = theirs.accept_request().await.unwrap();
    server.close().await;
    assert_eq!(asking.await.unwrap(), Err(ExchangeError::Peer(PeerError::Gone)));
    assert!(server.accept().await.is_none());
    assert_eq!(theirs.closed().await, PeerError::Gone);
    assert!(theirs.accept_request().await.is_none());
    drop((held, client));

    // A peer that is killed says nothing: the datagrams of a relay in between just stop.
    let config = EndpointConfig { idle_time_max: SHORT * 4, keep_alive: None, ..EndpointConfig::default() };
    let (_client, ours, _server, theirs) = connected(config).await;
    assert_eq!(theirs.closed().await, PeerError::Gone);
    assert_eq!(ours.closed().await, PeerError::Gone);
}

#[tokio::test]
async fn a_peer_that_was_killed_and_came_back_is_noticed_by_who_waits_for_it() {
    let identity = Identity::generate();
    let bind = |address| Endpoint::bind(&identity, address, EndpointConfig::default()).unwrap();
    let (client, _) = endpoint();
    // The first life of the server has a runtime of its own, which is taken away from it.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let entered = runtime.enter();
    let server = bind(ANY_PORT.into());
    drop(entered);
    let address = server.local_addr().unwrap();
    let (ours, theirs) = meet(&client, &server, &[address]).await;
    // What is asked before its death is not answered after it.
    let asking = tokio::spawn(async move { ours.request(&have()).await });
    let asked = theirs.accept_request().await.unwrap();
    runtime.shutdown_background();
    drop((asked, theirs, server));

    let again = until_bound(&identity, address).await;
    // Long before the connection would have been idle for too long.
    let ended = timeout(IDLE_TIME_MAX / 2, asking).await.unwrap().unwrap();
    assert_eq!(ended, Err(ExchangeError::Peer(PeerError::Gone)));
    still_serves(&again, address).await;
}

/// The port of a runtime that is being taken down is free a moment later.
async fn until_bound(identity: &Identity, address: SocketAddr) -> Endpoint {
    loop {
        match Endpoint::bind(identity, address, EndpointConfig::default()) {
            Ok(endpoint) => return endpoint,
            Err(BindError::Socket { source, .. }) if source.kind() == io::ErrorKind::AddrInUse => {
                tokio::task::yield_now().await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn dropping_the_last_handle_closes_the_connection() {
    let (_client, ours, _server, theirs) = connected(EndpointConfig::default()).await;
    let clone = ours.clone();
    drop(ours);
    theirs.ping(LONG).await.unwrap();
    drop(clone);
    assert_eq!(theirs.closed().await, PeerError::Gone);
}

/// A self-signed certificate of a P-256 key, as any web server's, and its key: made with
/// `openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 20000 -subj /CN=stranger`.
fn stranger_certificate() -> CertificateDer<'static> {
    const HEX: &str = "\
        3082017c30820123a0030201020214320a0fb20d180f0b49f2ce672d77ff4c86e92e8b300a06082a8648ce3d04030230133111300f06035504\
        030c08737472616e6765723020170d3236313132313131343935355a180f32303831303832343131343935355a30133111300f06035504030c\
        08737472616e6765723059301306072a8648ce3d020106082a8648ce3d030107034200041988d4938023cc8e2ad54385390c54fde780fa9257\
        6cb236d6c2b286b3b67c78b2860a002d71f69eba24e1f014debf21a61a3ec54a7d6fd7932417ebc378bff7a3533051301d0603551d0e041604\
        14e0644cfbb4813b6343db878764be686f2a00841d301f0603551d23041830168014e0644cfbb4813b6343db878764be686f2a00841d300f06\
        03551d130101ff040530030101ff300a06082a8648ce3d040302034700304402206deb6752ca40b9e8dc71242083531957450ce42ab648ce0d\
        5d4e496420a9d39602204711070c6b75a3a0e0eb5bdeb5885bf72ba8fca96ac72682e18359a23d337ff2";
    CertificateDer::from(HEXLOWER.decode(HEX.as_bytes()).unwrap())
}

fn stranger_key() -> PrivateKeyDer<'static> {
    const HEX: &str = "\
        308187020100301306072a8648ce3d020106082a8648ce3d030107046d306b0201010420ad4a112d2f9b17ab42259ebe929dfd15384dd2d3a5\
        dcc231b7186df25132b136a144034200041988d4938023cc8e2ad54385390c54fde780fa92576cb236d6c2b286b3b67c78b2860a002d71f69e\
        ba24e1f014debf21a61a3ec54a7d6fd7932417ebc378bff7";
    PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(HEXLOWER.decode(HEX.as_bytes()).unwrap()))
}
