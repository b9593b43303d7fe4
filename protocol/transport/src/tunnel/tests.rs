//! One suite for every carrier: what holds for a connection holds whatever carries it. Then, what a hostile other side of
//! a tunnel can do.

use std::fs::File;
use std::io::Write;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use bao_tree::io::outboard::PreOrderOutboard;
use bao_tree::io::sync::CreateOutboard;
use hyper::body::Incoming;
use hyper::http::{Request as HttpRequest, Response as HttpResponse, StatusCode};
use hyper_util::rt::TokioIo;
use lighter_protocol::blob::{self, GROUP};
use lighter_protocol::wire::{Have, Request, Response};
use lighter_protocol::{BlobId, DeliveryId, PeerId};
use tokio::io::{DuplexStream, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use super::*;
use crate::carrier::Carrier;
use crate::connection::IncomingRequest;
use crate::endpoint::{ConnectError, ConnectionLimits, EndpointConfig};
use crate::error::{ExchangeError, GiveUp, PeerError};
use crate::limits::{STREAMS_MAX, TUNNEL_DATAGRAM_LEN_MAX};
use crate::proxy::Proxies;
use crate::pull::{Piece, Pull, VerifiedSink};
use crate::serve::FileSlices;
use crate::websocket::{self, WebSockets};
use crate::{Connection, Endpoint, Identity};

/// Long enough for anything that is to happen on a loaded machine.
const LONG: Duration = Duration::from_secs(60);
/// For what is to be cut off.
const SHORT: Duration = Duration::from_secs(1);

/// A server, and where each carrier finds it.
struct Server {
    endpoint: Endpoint,
    listeners: [JoinHandle<()>; 2],
    tcp: SocketAddr,
    web: SocketAddr,
}

impl Server {
    async fn new(config: EndpointConfig) -> Self {
        let endpoint = Endpoint::bind(&Identity::generate(), ([127, 0, 0, 1], 0).into(), config).unwrap();
        let (tcp, web) = (listener().await, listener().await);
        let (tcp_address, web_address) = (tcp.local_addr().unwrap(), web.local_addr().unwrap());
        let (on_tcp, on_web) = (endpoint.clone(), endpoint.clone());
        let listeners = [
            tokio::spawn(async move { listen::tcp(&on_tcp, tcp).await.unwrap() }),
            tokio::spawn(serve_web(on_web, web)),
        ];
        Self { endpoint, listeners, tcp: tcp_address, web: web_address }
    }

    async fn connect(
        &self,
        client: &Endpoint,
        carrier: Carrier,
        expected: PeerId,
    ) -> Result<Connection, ConnectError> {
        match carrier {
            Carrier::Quic => client.connect(expected, &[self.endpoint.local_addr().unwrap()], LONG).await,
            Carrier::Tcp => client.connect_tcp(expected, &[self.tcp], LONG).await,
            Carrier::WebSocket => {
                let web = WebSockets::new(Proxies::none(), None);
                let (halves, address) = web.connect(&format!("http://{}", self.web), |_| true).await.unwrap();
                client.connect_in(expected, halves, address, carrier, LONG).await
            }
        }
    }

    /// An open connection from both sides: the client's and the server's.
    async fn meet(&self, client: &Endpoint, carrier: Carrier) -> (Connection, Connection) {
        let connecting = self.connect(client, carrier, self.endpoint.peer());
        let (ours, theirs) = tokio::join!(connecting, self.endpoint.accept());
        (ours.unwrap(), theirs.unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.listeners.iter().for_each(JoinHandle::abort);
    }
}

async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

/// As a relay's web server does it.
async fn serve_web(endpoint: Endpoint, listener: TcpListener) {
    let mut connections = JoinSet::new();
    loop {
        let (socket, address) = listener.accept().await.unwrap();
        let endpoint = endpoint.clone();
        let service = hyper::service::service_fn(move |mut request: HttpRequest<Incoming>| {
            let endpoint = endpoint.clone();
            async move {
                let nothing = |status| HttpResponse::builder().status(status).body(String::new());
                let agreed =
                    websocket::agree(&mut request).filter(|_| request.uri().path() == websocket::PATH);
                let Some((response, upgrading)) = agreed else { return nothing(StatusCode::NOT_FOUND) };
                let Some(place) = endpoint.place(address) else {
                    return nothing(StatusCode::SERVICE_UNAVAILABLE);
                };
                tokio::spawn(async move {
                    if let Some(halves) = upgrading.halves().await {
                        endpoint.accept_in(halves, place, Carrier::WebSocket, None).await;
                    }
                });
                Ok(response.map(|()| String::new()))
            }
        });
        let serving = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(socket), service)
            .with_upgrades();
        connections.spawn(serving);
    }
}

fn client() -> Endpoint {
    Endpoint::bind(&Identity::generate(), ([127, 0, 0, 1], 0).into(), EndpointConfig::default()).unwrap()
}

fn have() -> Request {
    Request::Have(Have::Blob(BlobId([7; 32])))
}

/// A blob in files, that may be pulled.
struct OnDisk {
    id: BlobId,
    size: u64,
    data: Arc<File>,
    outboard: Arc<File>,
}

impl OnDisk {
    fn new(len: usize) -> Self {
        let bytes: Vec<u8> =
            (0..len as u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40).to_le_bytes()[0]).collect();
        let outboard = PreOrderOutboard::<Vec<u8>>::create(io::Cursor::new(&bytes), GROUP).unwrap();
        let id = BlobId::from(outboard.root);
        Self { id, size: len as u64, data: file_of(&bytes), outboard: file_of(&outboard.data) }
    }

    /// Answers everything that is asked on `connection`, until it ends.
    async fn give(&self, connection: &Connection) {
        let mut answers = JoinSet::new();
        while let Some(IncomingRequest { request, responder }) = connection.accept_request().await {
            let Request::Get(get) = request else {
                responder.respond(&Response::Refused).await.unwrap();
                continue;
            };
            let data = FileSlices::of_blob(Arc::clone(&self.data), self.size);
            let outboard = PreOrderOutboard {
                root: get.blob.hash(),
                tree: blob::tree(self.size),
                data: FileSlices::of_outboard(Arc::clone(&self.outboard), self.size),
            };
            let size = self.size;
            answers.spawn(async move { responder.serve(&get, size, data, outboard).await });
        }
    }

    fn pull(&self) -> Pull {
        Pull::of(DeliveryId([9; 16]), self.id, self.size)
    }
}

fn file_of(bytes: &[u8]) -> Arc<File> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    Arc::new(file)
}

/// Counts what it is given.
#[derive(Default)]
struct Counted(Mutex<u64>);

impl VerifiedSink for Counted {
    async fn write(&self, piece: Piece) -> io::Result<()> {
        *self.0.lock().unwrap() += piece.bytes.len() as u64;
        Ok(())
    }
}

/// Runs each test of the suite on each carrier.
macro_rules! on_each_carrier {
    ($($test:ident),* $(,)?) => {
        mod on_quic { $(#[tokio::test] async fn $test() { super::$test(super::Carrier::Quic).await })* }
        mod on_tcp { $(#[tokio::test] async fn $test() { super::$test(super::Carrier::Tcp).await })* }
        mod on_websocket { $(#[tokio::test] async fn $test() { super::$test(super::Carrier::WebSocket).await })* }
    };
}

on_each_carrier!(
    both_sides_know_each_other_and_either_side_asks,
    blobs_are_pulled_in_both_directions_at_once,
    another_peer_than_expected_is_refused,
    a_peer_with_too_many_connections_hears_that_it_is_busy,
    no_answer_is_told_from_a_broken_connection,
    more_requests_than_streams_wait_their_turn,
    a_clean_stop_is_heard_by_the_other_side_at_once,
    a_connection_ends_with_its_last_clone,
    a_ping_does_not_wait_behind_a_large_blob,
);

// SPEC: A30
async fn both_sides_know_each_other_and_either_side_asks(carrier: Carrier) {
    let (server, client) = (Server::new(EndpointConfig::default()).await, client());
    let (ours, theirs) = server.meet(&client, carrier).await;
    assert_eq!((ours.peer(), theirs.peer()), (server.endpoint.peer(), client.peer()));
    assert_eq!((ours.carrier(), theirs.carrier()), (carrier, carrier));
    // Only UDP shows where a hole could be opened.
    let is_udp = carrier == Carrier::Quic;
    assert!([&ours, &theirs].iter().all(|side| side.udp_address().is_some() == is_udp));
    assert!([&ours, &theirs].iter().all(|side| side.first_udp_address().is_some() == is_udp));
    assert!(theirs.remote_address().ip().is_loopback());
    for (asking, answering) in [(&ours, &theirs), (&theirs, &ours)] {
        asking.ping(LONG).await.unwrap();
        let answer = async {
            let IncomingRequest { request, responder } = answering.accept_request().await.unwrap();
            assert_eq!(request, have());
            responder.respond(&Response::Have(true)).await.unwrap();
        };
        let asked = have();
        let (answered, ()) = tokio::join!(asking.request(&asked), answer);
        assert_eq!(answered, Ok(Response::Have(true)));
    }
}

// SPEC: A6, A30
async fn blobs_are_pulled_in_both_directions_at_once(carrier: Carrier) {
    let (server, client) = (Server::new(EndpointConfig::default()).await, client());
    let (ours, theirs) = server.meet(&client, carrier).await;
    let (one, other) = (OnDisk::new(9_000_001), OnDisk::new(5_000_003));
    let (sink, other_sink) = (Arc::<Counted>::default(), Arc::<Counted>::default());
    let (pull, other_pull) = (one.pull(), other.pull());
    let pulling = async { tokio::join!(ours.pull(&pull, &sink), theirs.pull(&other_pull, &other_sink)) };
    let giving = async { tokio::join!(one.give(&theirs), other.give(&ours)) };
    let (pulled, other_pulled) = tokio::select! {
        pulled = pulling => pulled,
        _ = giving => panic!("the connection broke"),
    };
    assert_eq!((pulled.unwrap().verified, other_pulled.unwrap().verified), (one.size, other.size));
    assert_eq!((*sink.0.lock().unwrap(), *other_sink.0.lock().unwrap()), (one.size, other.size));
}

async fn another_peer_than_expected_is_refused(carrier: Carrier) {
    let (server, client) = (Server::new(EndpointConfig::default()).await, client());
    let wrong = server.connect(&client, carrier, Identity::generate().peer()).await;
    assert_eq!(wrong.unwrap_err(), ConnectError::WrongPeer);
    server.meet(&client, carrier).await;
}

async fn a_peer_with_too_many_connections_hears_that_it_is_busy(carrier: Carrier) {
    let connections = ConnectionLimits { per_peer: 1, ..ConnectionLimits::default() };
    let server = Server::new(EndpointConfig { connections, ..EndpointConfig::default() }).await;
    let client = client();
    let (ours, theirs) = server.meet(&client, carrier).await;
    let second = server.connect(&client, carrier, server.endpoint.peer()).await;
    assert_eq!(second.unwrap_err(), ConnectError::Busy);
    // The place is given back.
    drop((ours, theirs));
    let began = Instant::now();
    while server.connect(&client, carrier, server.endpoint.peer()).await.is_err() {
        assert!(began.elapsed() < LONG, "the place is not given back");
        sleep(Duration::from_millis(20)).await;
    }
}

async fn no_answer_is_told_from_a_broken_connection(carrier: Carrier) {
    let (server, client) = (Server::new(EndpointConfig::default()).await, client());
    let (ours, theirs) = server.meet(&client, carrier).await;
    let dropping = async { drop(theirs.accept_request().await.unwrap()) };
    let asked = have();
    let (answered, ()) = tokio::join!(ours.request(&asked), dropping);
    assert_eq!(answered, Err(ExchangeError::Peer(PeerError::GaveUp(GiveUp::NoAnswer))));
    ours.ping(LONG).await.unwrap();
    let closing = async {
        let incoming = theirs.accept_request().await.unwrap();
        theirs.close();
        drop(incoming);
    };
    let (answered, ()) = tokio::join!(ours.request(&asked), closing);
    assert_eq!(answered, Err(ExchangeError::Peer(PeerError::Gone)));
}

async fn more_requests_than_streams_wait_their_turn(carrier: Carrier) {
    let (server, client) = (Server::new(EndpointConfig::default()).await, client());
    let (ours, theirs) = server.meet(&client, carrier).await;
    let mut asking = JoinSet::new();
    for _ in 0..3 * STREAMS_MAX {
        let ours = ours.clone();
        asking.spawn(async move { ours.request(&have()).await });
    }
    // As many as there may be, and no more; of those that have ended (the first Ping), the places come back in batches.
    let most = usize::try_from(STREAMS_MAX).unwrap();
    let mut held = Vec::new();
    while held.len() < most - most / 8 {
        held.push(timeout(LONG, theirs.accept_request()).await.unwrap().unwrap());
    }
    while let Ok(incoming) = timeout(SHORT, theirs.accept_request()).await {
        held.push(incoming.unwrap());
    }
    assert!((most - most / 8..=most).contains(&held.len()), "{} at once", held.len());
    let mut answered = 0;
    for incoming in held {
        incoming.responder.respond(&Response::Have(true)).await.unwrap();
        answered += 1;
    }
    while answered < 3 * STREAMS_MAX {
        let incoming = timeout(LONG, theirs.accept_request()).await.unwrap().unwrap();
        incoming.responder.respond(&Response::Have(true)).await.unwrap();
        answered += 1;
    }
    while let Some(ended) = asking.join_next().await {
        assert_eq!(ended.unwrap(), Ok(Response::Have(true)));
    }
}

async fn a_clean_stop_is_heard_by_the_other_side_at_once(carrier: Carrier) {
    let (server, client) = (Server::new(EndpointConfig::default()).await, client());
    let (ours, theirs) = server.meet(&client, carrier).await;
    let began = Instant::now();
    let (closed, ()) = tokio::join!(timeout(LONG, ours.closed()), server.endpoint.close());
    assert_eq!(closed, Ok(PeerError::Gone));
    assert!(began.elapsed() < Duration::from_secs(5), "a stop took {:?}", began.elapsed());
    assert!(ours.is_closed() && theirs.is_closed() && theirs.accept_request().await.is_none());
}

async fn a_connection_ends_with_its_last_clone(carrier: Carrier) {
    let (server, client) = (Server::new(EndpointConfig::default()).await, client());
    let (ours, theirs) = server.meet(&client, carrier).await;
    let clone = ours.clone();
    drop(ours);
    clone.ping(LONG).await.unwrap();
    drop(clone);
    assert_eq!(timeout(LONG, theirs.closed()).await, Ok(PeerError::Gone));
}

async fn a_ping_does_not_wait_behind_a_large_blob(carrier: Carrier) {
    let (server, client) = (Server::new(EndpointConfig::default()).await, client());
    let (ours, theirs) = server.meet(&client, carrier).await;
    let blob = OnDisk::new(24_000_000);
    let sink = Arc::<Counted>::default();
    let pull = blob.pull();
    let pinging = async {
        loop {
            theirs.ping(Duration::from_secs(5)).await.unwrap();
            ours.ping(Duration::from_secs(5)).await.unwrap();
        }
    };
    tokio::select! {
        pulled = ours.pull(&pull, &sink) => assert_eq!(pulled.unwrap().verified, blob.size),
        () = blob.give(&theirs) => panic!("the connection broke"),
        () = pinging => {}
    }
}

// ---- What the other side of a tunnel can do.

fn quick() -> EndpointConfig {
    let connections = ConnectionLimits { handshakes: 4, ..ConnectionLimits::default() };
    EndpointConfig { open_time_max: SHORT, connections, ..EndpointConfig::default() }
}

/// Whether `server` still takes tunnels: somebody new connects before long.
async fn still_serves(server: &Server) {
    let (client, began) = (client(), Instant::now());
    loop {
        match server.connect(&client, Carrier::Tcp, server.endpoint.peer()).await {
            Ok(ours) => return ours.ping(LONG).await.unwrap(),
            // Places that were given up a moment ago may not be free yet.
            Err(error) => assert!(began.elapsed() < LONG, "{error}"),
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// TLS on TCP with a proper identity, and nothing said in it yet.
async fn mute(server: &Server) -> impl AsyncRead + AsyncWrite + Unpin + Send + 'static {
    let tls = crate::tcp::TcpTls::new(&Identity::generate(), TUNNEL_ALPN).unwrap();
    let began = Instant::now();
    loop {
        // Places that were given up a moment ago may not be free yet.
        match tls.connect(server.tcp, server.endpoint.peer()).await {
            Ok(stream) => return stream,
            Err(error) => assert!(began.elapsed() < LONG, "{error}"),
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until the other side ends the byte stream.
async fn ended(mut stream: impl AsyncRead + Unpin) {
    let mut buffer = [0; 1024];
    let ending = async { while matches!(stream.read(&mut buffer).await, Ok(1..)) {} };
    timeout(LONG, ending).await.expect("the byte stream is held open");
}

#[tokio::test]
async fn half_open_handshakes_are_cut_and_no_more_are_held_than_allowed() {
    let server = Server::new(quick()).await;
    let mut sockets = Vec::new();
    for _ in 0..8 {
        sockets.push(TcpStream::connect(server.tcp).await.unwrap());
    }
    // Those beyond the limit are let go at once, the others when their time is up.
    for socket in sockets {
        ended(socket).await;
    }
    let (mut silent, mut speaking) = (Vec::new(), Vec::new());
    silent.push(mute(&server).await);
    speaking.push(mute(&server).await);
    for stream in silent {
        ended(stream).await;
    }
    for mut stream in speaking {
        // Datagrams that are none: QUIC takes no notice, and the time runs out all the same.
        let mut framed = bytes::BytesMut::new();
        frames::put(&mut framed, &[0x42; TUNNEL_DATAGRAM_LEN_MAX as usize]);
        while stream.write_all(&framed).await.is_ok() {
            tokio::task::yield_now().await;
        }
    }
    still_serves(&server).await;
}

#[tokio::test]
async fn bad_input_34_a_frame_that_is_none_ends_the_tunnel_at_once() {
    let server = Server::new(EndpointConfig::default()).await;
    for bytes in [&[0, 0][..], &[0xff; 64], &[0x10, 0x01]] {
        let mut stream = mute(&server).await;
        stream.write_all(bytes).await.unwrap();
        let began = Instant::now();
        ended(stream).await;
        assert!(began.elapsed() < Duration::from_secs(8), "not before its time was up");
    }
    still_serves(&server).await;
}

#[tokio::test]
async fn who_proves_one_identity_outside_and_another_inside_is_refused() {
    let server = Server::new(EndpointConfig::default()).await;
    let stream = mute(&server).await;
    let liar = client();
    let connecting =
        liar.connect_in(server.endpoint.peer(), tokio::io::split(stream), server.tcp, Carrier::Tcp, LONG);
    assert_eq!(connecting.await.unwrap_err(), ConnectError::Refused);
    still_serves(&server).await;
}

#[tokio::test]
async fn text_and_giant_messages_end_a_websocket() {
    use futures_util::SinkExt;
    use tokio_tungstenite::tungstenite::Message;
    use tokio_tungstenite::tungstenite::client::IntoClientRequest;

    let server = Server::new(EndpointConfig::default()).await;
    for message in [Message::text("hello"), Message::binary(vec![0; 70_000])] {
        let mut request = format!("ws://{}{}", server.web, websocket::PATH).into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", websocket::SUBPROTOCOL.parse().unwrap());
        let socket = TcpStream::connect(server.web).await.unwrap();
        let (mut socket, _) = tokio_tungstenite::client_async(request, socket).await.unwrap();
        socket.send(message).await.unwrap();
        ended(socket.into_inner()).await;
    }
    // Who does not ask for this gets nothing.
    let request = format!("ws://{}{}", server.web, websocket::PATH).into_client_request().unwrap();
    let socket = TcpStream::connect(server.web).await.unwrap();
    assert!(tokio_tungstenite::client_async(request, socket).await.is_err());
    still_serves(&server).await;
}

/// Both ends of a byte stream of little room, with an endpoint on each.
async fn over_duplex(
    client: &Endpoint,
    server: &Endpoint,
    stream: (DuplexStream, DuplexStream),
) -> (Connection, Connection) {
    let address = ([127, 0, 0, 1], 9).into();
    let place = server.place(address).unwrap();
    let accepting = server.accept_in(tokio::io::split(stream.1), place, Carrier::Tcp, None);
    let connecting =
        client.connect_in(server.peer(), tokio::io::split(stream.0), address, Carrier::Tcp, LONG);
    let (ours, theirs, ()) = tokio::join!(connecting, server.accept(), accepting);
    (ours.unwrap(), theirs.unwrap())
}

#[tokio::test]
async fn who_reads_nothing_is_given_up_and_little_waits_for_it() {
    let config = || EndpointConfig {
        idle_time_max: 4 * SHORT,
        keep_alive: Some(SHORT / 2),
        ..EndpointConfig::default()
    };
    let bind = || Endpoint::bind(&Identity::generate(), ([127, 0, 0, 1], 0).into(), config()).unwrap();
    let (client, server) = (bind(), bind());
    // A line that stops when told to.
    let (near, mut near_end) = duplex(4_096);
    let (mut far_end, far) = duplex(4_096);
    let line = tokio::spawn(async move { tokio::io::copy_bidirectional(&mut near_end, &mut far_end).await });
    let (ours, theirs) = over_duplex(&client, &server, (near, far)).await;
    ours.ping(LONG).await.unwrap();
    line.abort();
    let blob = OnDisk::new(12_000_000);
    let began = Instant::now();
    let sink = Arc::<Counted>::default();
    let pull = blob.pull();
    let (pulled, (), closed) = tokio::join!(ours.pull(&pull, &sink), blob.give(&theirs), theirs.closed());
    assert!(pulled.is_err());
    assert_eq!(closed, PeerError::Gone);
    assert!(began.elapsed() < LONG);
}

#[tokio::test]
async fn what_waits_in_a_tunnel_is_bounded_in_both_directions() {
    let queues = Arc::new(Queues::default());
    let socket = Arc::new(TunnelSocket::new(([127, 0, 0, 1], 9).into(), Arc::clone(&queues)));
    let datagram = vec![7; TUNNEL_DATAGRAM_LEN_MAX as usize];
    let transmit = quinn::udp::Transmit {
        destination: ([127, 0, 0, 1], 9).into(),
        ecn: None,
        contents: &datagram,
        segment_size: None,
        src_ip: None,
    };
    let mut sent = 0;
    while quinn::AsyncUdpSocket::try_send(&*socket, &transmit).is_ok() {
        sent += datagram.len();
        assert!(sent <= crate::limits::TUNNEL_SEND_LEN + datagram.len());
    }
    // Who waits is woken when it has been written.
    let mut poller = quinn::AsyncUdpSocket::create_io_poller(Arc::clone(&socket));
    let mut writable = std::pin::pin!(std::future::poll_fn(|cx| poller.as_mut().poll_writable(cx)));
    assert!(timeout(SHORT / 10, writable.as_mut()).await.is_err());
    assert_eq!(queues.next_batch().await.unwrap().len(), sent / datagram.len() * (datagram.len() + 2));
    timeout(LONG, writable).await.unwrap().unwrap();
    // And coming in: the byte stream is not read on until QUIC has taken something.
    let (mut far, near) = duplex(1024);
    let reading = tokio::spawn({
        let queues = Arc::clone(&queues);
        async move { read(near, &queues).await.map_err(|ended| ended.to_string()) }
    });
    let mut framed = bytes::BytesMut::new();
    frames::put(&mut framed, &[1]);
    let mut written = 0_usize;
    while timeout(SHORT / 2, far.write_all(&framed)).await.is_ok() {
        written += 1;
        assert!(
            written * crate::limits::TUNNEL_DATAGRAM_COST < 4 * crate::limits::TUNNEL_RECEIVE_LEN,
            "no end to it"
        );
    }
    reading.abort();
}
