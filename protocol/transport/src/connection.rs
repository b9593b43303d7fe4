//! A connection between two peers that proved who they are: either side asks, either side answers.
//!
//! Each request is a bidirectional stream of its own ([`lighter_protocol::wire`]). [`Connection::request`] asks;
//! [`Connection::accept_request`] gives what the other side asks, with a [`Responder`] to answer it. `Ping` is answered
//! here and never seen by the program.
//!
//! One task for each connection reads requests, each in a task of its own, so that a stream that stalls holds up
//! nothing but itself. Their number is what QUIC allows the other side in streams; each has a limited time and a limited
//! length; a peer that sends too much that is malformed loses its connection.
//!
//! A connection is closed when the last clone of it, and the last responder of it, is dropped.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use lighter_protocol::PeerId;
use lighter_protocol::wire::{PushAnswer, Request, Response};
use quinn::{RecvStream, SendStream, VarInt};
use tokio::sync::{Mutex, Semaphore, mpsc};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tracing::debug;

use crate::carrier::Carrier;
use crate::endpoint::Permit;
use crate::error::{CloseCode, ExchangeError, GiveUp, Misbehaviour, PeerError};
use crate::limits::{
    CONNECTION_WINDOW, MALFORMED_REQUESTS_MAX, PULL_WINDOW, REQUEST_TIME_MAX, RESPONSE_TIME_MAX,
    SILENCE_PROBE_TIME, STREAMS_MAX,
};
use crate::message;
use crate::progress::Pace;
use crate::push::{Pushed, Pushes};
use crate::small::Known;

/// How long things on a connection may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// From opening a stream until the request on it has been read whole.
    pub request: Duration,
    /// From asking until the whole answer is here (the verified stream behind it left out).
    pub response: Duration,
    /// How fast verified streams must go.
    pub pace: Pace,
}

impl Default for Patience {
    fn default() -> Self {
        Self { request: REQUEST_TIME_MAX, response: RESPONSE_TIME_MAX, pace: Pace::default() }
    }
}

/// An open connection to a peer. Clones are the same connection.
#[derive(Clone)]
pub struct Connection {
    inner: Arc<Inner>,
}

struct Inner {
    quic: quinn::Connection,
    peer: PeerId,
    carrier: Carrier,
    first_address: SocketAddr,
    patience: Patience,
    requests: Mutex<mpsc::Receiver<Asked>>,
    reader: JoinHandle<()>,
    /// How many pulls are under way: the window is opened for them.
    pulls: std::sync::Mutex<u32>,
    pushes: Pushes,
    small: Known,
}

/// A request that came, and the way back; what follows on the stream, where something does.
type Asked = (Request, SendStream, Option<Pushed>);

impl Drop for Inner {
    fn drop(&mut self) {
        self.quic.close(CloseCode::Done.code(), b"");
        self.reader.abort();
    }
}

/// What the other side asks, and the way to answer it.
#[derive(Debug)]
pub struct IncomingRequest {
    /// What it asks. Well-formed and within its limits; nothing in it has been proved.
    pub request: Request,
    /// Takes the answer.
    pub responder: Responder,
}

impl Connection {
    /// A connection that both sides have opened.
    pub(crate) fn new(
        quic: quinn::Connection,
        peer: PeerId,
        carrier: Carrier,
        patience: Patience,
        large: Arc<Semaphore>,
        permit: Option<Permit>,
    ) -> Self {
        let (sender, receiver) = mpsc::channel(STREAMS_MAX as usize);
        let reader = RequestReader { quic: quic.clone(), peer, patience, large, sender, _permit: permit };
        let reader = tokio::spawn(reader.run());
        let (requests, pulls, pushes) = (Mutex::new(receiver), Default::default(), Pushes::default());
        let small = Known::default();
        let first_address = canonical(quic.remote_address());
        let inner =
            Inner { quic, peer, carrier, first_address, patience, requests, reader, pulls, pushes, small };
        Self { inner: Arc::new(inner) }
    }

    /// Who the other side is: proved in the handshake.
    pub fn peer(&self) -> PeerId {
        self.inner.peer
    }

    /// Whether `other` is this connection.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// What carries it.
    pub fn carrier(&self) -> Carrier {
        self.inner.carrier
    }

    /// Where the other side is now: for logs and counts. It may move. In a tunnel it is where the byte stream goes, which
    /// a web server or a proxy may be at.
    pub fn remote_address(&self) -> SocketAddr {
        canonical(self.inner.quic.remote_address())
    }

    /// Where the other side's UDP socket is now, as seen from here: what a hole can be opened to. A connection through a
    /// tunnel says nothing of that.
    pub fn udp_address(&self) -> Option<SocketAddr> {
        (self.inner.carrier == Carrier::Quic).then(|| self.remote_address())
    }

    /// Where the other side's UDP socket was when the connection was opened: the handshake proved that it could be reached
    /// there. None in a tunnel.
    pub fn first_udp_address(&self) -> Option<SocketAddr> {
        (self.inner.carrier == Carrier::Quic).then_some(self.inner.first_address)
    }

    /// How many datagrams have come in: while it grows, the other side is there.
    pub fn datagrams_received(&self) -> u64 {
        self.inner.quic.stats().udp_rx.datagrams
    }

    /// Asks, and waits for the whole answer.
    ///
    /// [`Response::Refused`] and [`Response::Later`] are answers like others. A `Get` is not asked this way but by
    /// [`Connection::pull`].
    ///
    /// # Errors
    /// [`ExchangeError::Invalid`] where `request` breaks a bound; otherwise what went wrong with the peer.
    pub async fn request(&self, request: &Request) -> Result<Response, ExchangeError> {
        self.request_within(request, self.inner.patience.response).await
    }

    /// As [`Connection::request`], with another time limit.
    ///
    /// # Errors
    /// As [`Connection::request`].
    pub async fn request_within(
        &self,
        request: &Request,
        limit: Duration,
    ) -> Result<Response, ExchangeError> {
        let mut exchange = pin!(timeout(limit, exchange(&self.inner.quic, request)));
        loop {
            match timeout(SILENCE_PROBE_TIME, &mut exchange).await {
                Ok(ended) => return ended.unwrap_or(Err(ExchangeError::Peer(PeerError::TimedOut))),
                Err(_) => probe(&self.inner.quic),
            }
        }
    }

    /// Whether the other side answers now (SPEC A4, A18, A21).
    ///
    /// # Errors
    /// As [`Connection::request`].
    pub async fn ping(&self, limit: Duration) -> Result<(), PeerError> {
        match self.request_within(&Request::Ping, limit).await {
            Ok(_) => Ok(()),
            Err(ExchangeError::Peer(error)) => Err(error),
            // A Ping breaks no bound.
            Err(ExchangeError::Invalid(error)) => Err(error.into()),
        }
    }

    /// What the other side asks next; `None` when the connection is closed. It may be called by several tasks.
    pub async fn accept_request(&self) -> Option<IncomingRequest> {
        let (request, send, pushed) = self.inner.requests.lock().await.recv().await?;
        let stream = AnswerStream { send, ended: false };
        let responder = Responder { connection: self.clone(), stream, pushed };
        Some(IncomingRequest { request, responder })
    }

    /// Waits until the connection is closed, by whichever side, or dead; says why.
    pub async fn closed(&self) -> PeerError {
        self.inner.quic.closed().await.into()
    }

    /// Whether it is closed or dead.
    pub fn is_closed(&self) -> bool {
        self.inner.quic.close_reason().is_some()
    }

    /// Closes the connection, whatever is under way on it.
    pub fn close(&self) {
        self.inner.quic.close(CloseCode::Done.code(), b"");
    }

    pub(crate) fn quic(&self) -> &quinn::Connection {
        &self.inner.quic
    }

    pub(crate) fn patience(&self) -> Patience {
        self.inner.patience
    }

    pub(crate) fn small(&self) -> &Known {
        &self.inner.small
    }

    pub(crate) fn pushes(&self) -> &Pushes {
        &self.inner.pushes
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("peer", &self.peer())
            .field("carrier", &self.carrier())
            .field("remote", &self.remote_address())
            .finish()
    }
}

/// Takes the answer to one request. Dropped without one, it tells the other side that there is none.
#[derive(Debug)]
pub struct Responder {
    pub(crate) connection: Connection,
    pub(crate) stream: AnswerStream,
    /// What follows on the asker's side, behind a `Push`. Dropped, it is stopped.
    pub(crate) pushed: Option<Pushed>,
}

impl Responder {
    /// The connection that the request came on.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Who asks.
    pub fn peer(&self) -> PeerId {
        self.connection.peer()
    }

    /// Answers. A `Get` that is granted is answered by [`Responder::serve`](crate::serve) instead.
    ///
    /// # Errors
    /// [`ExchangeError::Invalid`] where `response` breaks a bound; otherwise what went wrong with the peer. That the
    /// answer was sent does not say that it arrived.
    pub async fn respond(mut self, response: &Response) -> Result<(), ExchangeError> {
        let limit = self.connection.patience().response;
        let written = timeout(limit, message::write_last(&mut self.stream.send, response)).await;
        written.unwrap_or(Err(ExchangeError::Peer(PeerError::TimedOut)))?;
        self.stream.ended = true;
        Ok(())
    }

    /// For an answer that is longer than a message.
    pub(crate) fn into_parts(self) -> (Connection, AnswerStream) {
        (self.connection, self.stream)
    }
}

/// The sending side of a request's stream. Dropped before its end, it is reset: a cut answer never looks like a whole
/// one.
#[derive(Debug)]
pub(crate) struct AnswerStream {
    pub(crate) send: SendStream,
    pub(crate) ended: bool,
}

impl Responder {
    /// Gives no answer, and tells the other side why: what was to be sent is damaged, say.
    pub fn give_up(self, why: GiveUp) {
        self.stream.give_up(why);
    }
}

impl AnswerStream {
    /// Gives up, and tells the other side why.
    pub(crate) fn give_up(mut self, why: GiveUp) {
        // An error would say that the stream has ended already.
        let _ = self.send.reset(why.code());
        self.ended = true;
    }
}

impl Drop for AnswerStream {
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.send.reset(GiveUp::NoAnswer.code());
        }
    }
}

/// Opens a stream, asks, and reads the answer and the end behind it.
pub(crate) async fn exchange(quic: &quinn::Connection, request: &Request) -> Result<Response, ExchangeError> {
    let (mut send, mut recv) = quic.open_bi().await.map_err(PeerError::from)?;
    message::write_last(&mut send, request).await?;
    // Answers are short, but for that to an offer (2 KiB): no turn to wait for.
    let response = message::read_last(&mut recv, &Semaphore::const_new(1)).await?;
    if answers(request, &response) { Ok(response) } else { Err(PeerError::from(Misbehaviour::Answer).into()) }
}

/// Asks a silent peer whether it is there. Its answer does not matter: where it has no such connection any more, this is
/// what makes it say so, and whoever waits on the connection learns of it.
pub(crate) fn probe(quic: &quinn::Connection) {
    let quic = quic.clone();
    tokio::spawn(async move { timeout(SILENCE_PROBE_TIME, exchange(&quic, &Request::Ping)).await });
}

/// Whether `response` is of a kind that answers `request`.
fn answers(request: &Request, response: &Response) -> bool {
    match (request, response) {
        (Request::Offer(offer) | Request::PushOffer(offer), Response::Answer(answers))
        | (Request::PushOffer(offer), Response::PushAnswer(PushAnswer { answers, .. })) => {
            answers.len() == offer.blobs.len()
        }
        (Request::Ping, Response::Pong)
        | (Request::Have(_), Response::Have(_))
        | (Request::Get(_) | Request::GetShared(_) | Request::GetBlobs(_), Response::Data { .. })
        | (Request::Sources(_) | Request::Succession(_), Response::Noted)
        | (Request::Receipt(_), Response::Released)
        | (Request::Waiting(_), Response::Waiting(_))
        | (Request::Meet(_), Response::Met(_))
        | (Request::Knock(_) | Request::Here(_), Response::Coming)
        | (Request::Drop(_), Response::Dropped(_))
        | (Request::DropState(_), Response::DropState(_)) => true,
        (Request::Ping, _) => false,
        (_, Response::Refused | Response::Later(_)) => true,
        _ => false,
    }
}

/// The server's side of opening: the first thing on a new connection is a Ping.
pub(crate) async fn await_first_ping(quic: &quinn::Connection, large: &Semaphore) -> Result<(), PeerError> {
    let (mut send, mut recv) = quic.accept_bi().await?;
    let request: Request = message::read_last(&mut recv, large).await?;
    if request != Request::Ping {
        return Err(Misbehaviour::NoPing.into());
    }
    match message::write_last(&mut send, &Response::Pong).await {
        Ok(()) => Ok(()),
        Err(ExchangeError::Peer(error)) => Err(error),
        Err(ExchangeError::Invalid(error)) => Err(error.into()), // a Pong breaks no bound
    }
}

/// Takes requests off a connection until it ends.
struct RequestReader {
    quic: quinn::Connection,
    peer: PeerId,
    patience: Patience,
    large: Arc<Semaphore>,
    sender: mpsc::Sender<Asked>,
    /// The connection's place among those that are allowed: given back when it has ended.
    _permit: Option<Permit>,
}

impl RequestReader {
    async fn run(self) {
        // No more than QUIC lets the peer open at once ([`STREAMS_MAX`]).
        let mut reading: JoinSet<Result<(), PeerError>> = JoinSet::new();
        let mut malformed = 0;
        loop {
            tokio::select! {
                Some(ended) = reading.join_next(), if !reading.is_empty() => {
                    let Ok(Err(error)) = ended else { continue };
                    debug!(peer = %self.peer, %error, "request not read");
                    if matches!(error, PeerError::Misbehaved(_)) {
                        malformed += 1;
                        if malformed >= MALFORMED_REQUESTS_MAX {
                            self.quic.close(CloseCode::Protocol.code(), b"");
                        }
                    }
                }
                stream = self.quic.accept_bi() => match stream {
                    Ok((send, recv)) => {
                        let (sender, large) = (self.sender.clone(), Arc::clone(&self.large));
                        reading.spawn(read_request(send, recv, sender, large, self.patience.request));
                    }
                    Err(error) => {
                        debug!(peer = %self.peer, %error, "connection ended");
                        return;
                    }
                },
            }
        }
    }
}

/// Reads one request and passes it on; a Ping is answered at once.
async fn read_request(
    mut send: SendStream,
    mut recv: RecvStream,
    sender: mpsc::Sender<Asked>,
    large: Arc<Semaphore>,
    limit: Duration,
) -> Result<(), PeerError> {
    let reading = timeout(limit, message::read_request(&mut recv, &large)).await;
    let error = match reading {
        Ok(Ok((Request::Ping, _))) => {
            let pong = timeout(limit, message::write_last(&mut send, &Response::Pong)).await;
            return match pong {
                Ok(Err(ExchangeError::Peer(error))) => Err(error),
                _ => Ok(()),
            };
        }
        Ok(Ok((request, rest))) => {
            let pushed = rest.map(|rest| Pushed { recv, rest });
            // Without a receiver the connection is closing: nobody is left to tell.
            let _ = sender.send((request, send, pushed)).await;
            return Ok(());
        }
        Ok(Err(error)) => error,
        Err(_) => PeerError::TimedOut,
    };
    let why = if error == PeerError::TimedOut { GiveUp::TooSlow } else { GiveUp::Malformed };
    // Errors here say that the stream is closed already.
    let _ = recv.stop(why.code());
    let _ = send.reset(why.code());
    Err(error)
}

/// An IPv4 address as such, where a socket for both families shows it as an IPv6 one.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Opens the connection's window for a pull, as long as it lives.
pub(crate) struct PullWindow {
    connection: Connection,
}

impl PullWindow {
    pub(crate) fn open(connection: &Connection) -> Self {
        let mut pulls = connection.inner.pulls.lock().unwrap_or_else(PoisonError::into_inner);
        *pulls += 1;
        connection.inner.quic.set_receive_window(VarInt::from_u32(PULL_WINDOW));
        drop(pulls);
        Self { connection: connection.clone() }
    }
}

impl Drop for PullWindow {
    fn drop(&mut self) {
        let mut pulls = self.connection.inner.pulls.lock().unwrap_or_else(PoisonError::into_inner);
        *pulls -= 1;
        if *pulls == 0 {
            self.connection.inner.quic.set_receive_window(VarInt::from_u32(CONNECTION_WINDOW));
        }
    }
}
