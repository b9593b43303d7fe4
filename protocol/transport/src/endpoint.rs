//! A peer's place on the network: one UDP socket, from which it connects and on which it is connected to.
//!
//! A connection counts as open once the server has checked the client's certificate, too: the client's handshake ends
//! before that (TLS 1.3), so it sends a Ping first and waits for the Pong. [`Endpoint::connect`] and
//! [`Endpoint::accept`] give open connections only.
//!
//! Strangers may knock: [`admission`](ConnectionLimits) bounds how many handshakes and connections there are, from one
//! network and of one peer; everything has a time limit.

mod admission;
mod quic;
mod tunnels;

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use lighter_protocol::PeerId;
use quinn::{ConnectionError, Incoming};
use rustls::AlertDescription;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tracing::{debug, info};

pub use admission::ConnectionLimits;
pub(crate) use admission::Permit;
pub use quic::{Congestion, Manner};
pub use tunnels::Place;

use crate::carrier::Carrier;
use crate::connection::{self, Connection, Patience};
use crate::error::{CloseCode, PeerError};
use crate::identity::Identity;
use crate::limits::{
    ACCEPTED_QUEUE_MAX, CLOSE_TIME_MAX, IDLE_TIME_MAX, KEEP_ALIVE, LARGE_REQUESTS_MAX, OPEN_TIME_MAX,
    TUNNELS_MAX,
};
use crate::tls::TlsError;
use crate::tunnel::Tunnels;
use admission::{Admission, Network, Verdict};

/// How an endpoint behaves. The default is right for agents and relays.
#[derive(Clone, Debug)]
pub struct EndpointConfig {
    /// Whom it lets in.
    pub connections: ConnectionLimits,
    /// From the first packet until a connection that somebody else opens is open.
    pub open_time_max: Duration,
    /// Silence after which a connection counts as dead.
    pub idle_time_max: Duration,
    /// How often a sign of life is sent on connections that this endpoint opened: shorter than half of
    /// `idle_time_max`. `None`: never, and connections without traffic end when they have been idle.
    pub keep_alive: Option<Duration>,
    /// What paces the sender.
    pub congestion: Congestion,
    /// How long things on a connection may take.
    pub patience: Patience,
}

impl Default for EndpointConfig {
    fn default() -> Self {
        Self {
            connections: ConnectionLimits::default(),
            open_time_max: OPEN_TIME_MAX,
            idle_time_max: IDLE_TIME_MAX,
            keep_alive: Some(KEEP_ALIVE),
            congestion: Congestion::default(),
            patience: Patience::default(),
        }
    }
}

/// Why there is no endpoint.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The system gave no such socket.
    #[error("cannot listen on {address}")]
    Socket {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The key makes no certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// QUIC refused the configuration.
    #[error("QUIC cannot be configured")]
    Quic,
}

/// Why a peer could not be connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum ConnectError {
    /// There is no address to try.
    #[error("no address of the peer is known")]
    NoAddress,
    /// This endpoint is closed, or cannot reach addresses of this kind.
    #[error("no way from here to the peer's addresses")]
    Unreachable,
    /// Nobody answered in time.
    #[error("the peer did not answer in time")]
    TimedOut,
    /// Somebody answered that takes no connection now: too many, or not from here.
    #[error("the peer is busy")]
    Busy,
    /// Somebody answered that does not speak this protocol, or did not accept who we are.
    #[error("the peer refused")]
    Refused,
    /// Somebody else than the expected peer answered.
    #[error("another peer answered")]
    WrongPeer,
}

/// One UDP socket with its connections, and those through tunnels. Clones are the same endpoint; it is closed by [`Endpoint::close`], or when the
/// last clone is dropped.
#[derive(Clone)]
pub struct Endpoint {
    inner: Arc<Inner>,
}

struct Inner {
    quic: quinn::Endpoint,
    identity: Identity,
    config: EndpointConfig,
    large: Arc<Semaphore>,
    admission: Arc<Mutex<Admission>>,
    tunnels: Tunnels,
    tunnel_places: Arc<Semaphore>,
    tunnel_server: Arc<quinn::ServerConfig>,
    /// Weak: with the acceptor gone, there is nothing more to be accepted.
    opened: mpsc::WeakSender<Connection>,
    accepted: tokio::sync::Mutex<mpsc::Receiver<Connection>>,
    acceptor: JoinHandle<()>,
}

impl Inner {
    fn opening(&self, carrier: Carrier) -> Opening {
        Opening { carrier, patience: self.config.patience, large: Arc::clone(&self.large) }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.acceptor.abort();
        self.tunnels.abandon();
        self.quic.close(CloseCode::Done.code(), b"");
    }
}

impl Endpoint {
    /// An endpoint on `address`: port 0 lets the system choose; `[::]` is for IPv4 as well. Must be called within a
    /// tokio runtime.
    ///
    /// # Errors
    /// [`BindError`] says what is missing.
    pub fn bind(identity: &Identity, address: SocketAddr, config: EndpointConfig) -> Result<Self, BindError> {
        let socket_error = |source| BindError::Socket { address, source };
        let socket = quic::socket(address).map_err(socket_error)?;
        let server = quic::server(identity, &config)?;
        let runtime = Arc::new(quinn::TokioRuntime);
        let port = socket.local_addr().map_err(socket_error)?.port();
        let endpoint_config = quic::endpoint_config(identity, port).map_err(|_| BindError::Quic)?;
        let quic =
            quinn::Endpoint::new(endpoint_config, Some(server.internet.as_ref().clone()), socket, runtime)
                .map_err(socket_error)?;

        let large = Arc::new(Semaphore::new(LARGE_REQUESTS_MAX));
        let admission = Arc::new(Mutex::new(Admission::new(config.connections)));
        let (opened, receiver) = mpsc::channel(ACCEPTED_QUEUE_MAX);
        let tunnel_server = Arc::clone(&server.tunnel);
        let carrier = Carrier::Quic;
        let acceptor = Acceptor {
            quic: quic.clone(),
            server,
            admission: Arc::clone(&admission),
            opening: Opening { carrier, patience: config.patience, large: Arc::clone(&large) },
            opened: opened.clone(),
            open_time_max: config.open_time_max,
        };
        let acceptor = tokio::spawn(acceptor.run());
        let (identity, accepted) = (identity.clone(), tokio::sync::Mutex::new(receiver));
        let tunnel_places = Arc::new(Semaphore::new(TUNNELS_MAX));
        let inner = Inner {
            quic,
            identity,
            config,
            large,
            admission,
            tunnels: Tunnels::default(),
            tunnel_places,
            tunnel_server,
            opened: opened.downgrade(),
            accepted,
            acceptor,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// As [`Endpoint::bind`] on all addresses of this machine: of both families, or of IPv4 where there is no IPv6.
    ///
    /// # Errors
    /// As [`Endpoint::bind`].
    pub fn bind_any(identity: &Identity, port: u16, config: EndpointConfig) -> Result<Self, BindError> {
        let both = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port);
        let ipv4 = SocketAddr::new(IpAddr::from([0, 0, 0, 0]), port);
        match Self::bind(identity, both, config.clone()) {
            Err(BindError::Socket { source, .. }) if source.kind() != io::ErrorKind::AddrInUse => {
                Self::bind(identity, ipv4, config)
            }
            bound_or_failed => bound_or_failed,
        }
    }

    /// Where it listens: the port that the system chose.
    ///
    /// # Errors
    /// What the system says of the socket.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.quic.local_addr()
    }

    /// Goes on with another UDP socket, on a port that the system chooses: connections that were opened over the old one
    /// go on from there, as after a change of networks (RFC 9000 §9).
    ///
    /// # Errors
    /// What the system says of the socket.
    pub fn move_to(&self, address: SocketAddr) -> io::Result<()> {
        self.inner.quic.rebind(quic::socket(address)?)
    }

    /// Who it is.
    pub fn peer(&self) -> PeerId {
        self.inner.identity.peer()
    }

    /// Its key.
    pub fn identity(&self) -> &Identity {
        &self.inner.identity
    }

    /// An open connection to `expected`, at one of `addresses`, within `limit`.
    ///
    /// Addresses are tried in order, each with a head start of 250 ms before the next is tried beside it; the first that
    /// opens is taken, the others are dropped. No more than [`crate::limits::ADDRESSES_TRIED_MAX`] are tried.
    ///
    /// Which addresses may be dialled at all is for the caller to decide (DESIGN §4).
    ///
    /// # Errors
    /// What says most of what the addresses answered: another peer before a refusal, a refusal before silence.
    pub async fn connect(
        &self,
        expected: PeerId,
        addresses: &[SocketAddr],
        limit: Duration,
    ) -> Result<Connection, ConnectError> {
        let racing = self.race_with(addresses, |endpoint, address| async move {
            endpoint.attempt(expected, address, Manner::Usual).await
        });
        timeout(limit, racing).await.unwrap_or(Err(ConnectError::TimedOut))
    }

    /// An open connection to `expected` at one address, opened in this manner, within `limit`.
    ///
    /// # Errors
    /// As [`Endpoint::connect`].
    pub async fn connect_to(
        &self,
        expected: PeerId,
        address: SocketAddr,
        manner: Manner,
        limit: Duration,
    ) -> Result<Connection, ConnectError> {
        timeout(limit, self.attempt(expected, address, manner)).await.unwrap_or(Err(ConnectError::TimedOut))
    }

    /// The next connection that another peer opened; `None` when the endpoint is closed. It may be called by several
    /// tasks.
    pub async fn accept(&self) -> Option<Connection> {
        self.inner.accepted.lock().await.recv().await
    }

    /// Closes all connections, tells the other sides, and stops listening. What is under way is cut off.
    pub async fn close(&self) {
        self.inner.acceptor.abort();
        self.inner.quic.close(CloseCode::Done.code(), b"");
        let all = async { tokio::join!(self.inner.quic.wait_idle(), self.inner.tunnels.close()) };
        if timeout(CLOSE_TIME_MAX, all).await.is_err() {
            info!("not every peer could be told of the close");
        }
    }

    /// One address: handshake, then Ping and Pong.
    async fn attempt(
        &self,
        expected: PeerId,
        address: SocketAddr,
        manner: Manner,
    ) -> Result<Connection, ConnectError> {
        let inner = &self.inner;
        let config = quic::client(&inner.identity, expected, address.ip(), manner, &inner.config);
        let config = config.map_err(|_| ConnectError::Unreachable)?;
        // An address as the name: it is not sent, and the certificate proves a PeerId, not a name.
        let name = address.ip().to_string();
        let connecting = inner.quic.connect_with(config, address, &name).map_err(|error| {
            debug!(%address, %error, "cannot be dialled");
            ConnectError::Unreachable
        })?;
        let quic = connecting.await.map_err(|error| {
            debug!(%address, %error, "did not connect");
            connect_error(&error)
        })?;
        self.greet(quic, expected, address, Carrier::Quic).await
    }
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint")
            .field("peer", &self.peer())
            .field("local", &self.local_addr().ok())
            .finish()
    }
}

/// What the end of a connection that was never open says.
fn connect_error(error: &ConnectionError) -> ConnectError {
    match error {
        ConnectionError::TimedOut | ConnectionError::Reset => ConnectError::TimedOut,
        ConnectionError::LocallyClosed | ConnectionError::CidsExhausted => ConnectError::Unreachable,
        ConnectionError::VersionMismatch => ConnectError::Refused,
        // Ours: the certificate check said that it is another peer (`tls`, RFC 9001 §4.8).
        ConnectionError::TransportError(error)
            if error.code == quinn::TransportErrorCode::crypto(AlertDescription::AccessDenied.into()) =>
        {
            ConnectError::WrongPeer
        }
        ConnectionError::TransportError(_) => ConnectError::Refused,
        ConnectionError::ConnectionClosed(close)
            if close.error_code == quinn::TransportErrorCode::CONNECTION_REFUSED =>
        {
            ConnectError::Busy
        }
        ConnectionError::ConnectionClosed(_) => ConnectError::Refused,
        ConnectionError::ApplicationClosed(close) if close.error_code == CloseCode::Busy.code() => {
            ConnectError::Busy
        }
        ConnectionError::ApplicationClosed(_) => ConnectError::Refused,
    }
}

/// Lets connections in.
struct Acceptor {
    quic: quinn::Endpoint,
    server: quic::Server,
    admission: Arc<Mutex<Admission>>,
    opening: Opening,
    opened: mpsc::Sender<Connection>,
    open_time_max: Duration,
}

impl Acceptor {
    async fn run(self) {
        // No more than `ConnectionLimits::handshakes`, and those that wait for the program to take them over.
        let mut handshakes = JoinSet::new();
        loop {
            tokio::select! {
                Some(_ended) = handshakes.join_next(), if !handshakes.is_empty() => {}
                incoming = self.quic.accept() => {
                    let Some(incoming) = incoming else { return };
                    self.knock(incoming, &mut handshakes);
                }
            }
        }
    }

    /// Decides on one attempt.
    fn knock(&self, incoming: Incoming, handshakes: &mut JoinSet<()>) {
        let address = incoming.remote_address();
        let network = Network::of(address.ip());
        let proved = incoming.remote_address_validated();
        let verdict = {
            let mut admission = self.admission.lock().unwrap_or_else(PoisonError::into_inner);
            admission.handle_incoming(Instant::now(), network, proved)
        };
        match verdict {
            Verdict::Accept => {
                let permit = Permit::of_handshake(Arc::clone(&self.admission), network);
                let config = Arc::clone(self.server.config_for(address.ip()));
                let opening = self.opening.clone();
                let handshake =
                    opening.open(incoming, config, permit, self.opened.clone(), self.open_time_max);
                handshakes.spawn(async move {
                    if let Err(why) = handshake.await {
                        debug!(%address, ?why, "did not open");
                    }
                });
            }
            Verdict::Retry => {
                if let Err(error) = incoming.retry() {
                    error.into_incoming().refuse();
                }
            }
            Verdict::Refuse => {
                debug!(%address, "connection refused: limit reached");
                incoming.refuse();
            }
        }
    }
}

/// What opening a connection that somebody else began needs.
#[derive(Clone)]
struct Opening {
    carrier: Carrier,
    patience: Patience,
    large: Arc<Semaphore>,
}

/// Why a connection that somebody else began was not opened.
#[derive(Debug)]
#[expect(dead_code, reason = "its Debug form goes to the log")]
enum NotOpened {
    Handshake(ConnectionError),
    Certificate,
    Tunnel(io::Error),
    Busy(PeerId),
    Ping(PeerId, PeerError),
    TooSlow,
    Closing,
}

impl Opening {
    async fn open(
        self,
        incoming: Incoming,
        config: Arc<quinn::ServerConfig>,
        permit: Permit,
        opened: mpsc::Sender<Connection>,
        limit: Duration,
    ) -> Result<(), NotOpened> {
        let opening = self.handshake(incoming, Some(config), permit, None);
        let (_, connection) = timeout(limit, opening).await.map_err(|_| NotOpened::TooSlow)??;
        opened.send(connection).await.map_err(|_| NotOpened::Closing)
    }

    /// Handshake, certificate, first Ping. `config`: another one than the endpoint's; `proved`: who it must be.
    async fn handshake(
        &self,
        incoming: Incoming,
        config: Option<Arc<quinn::ServerConfig>>,
        mut permit: Permit,
        proved: Option<PeerId>,
    ) -> Result<(quinn::Connection, Connection), NotOpened> {
        let connecting = match config {
            Some(config) => incoming.accept_with(config),
            None => incoming.accept(),
        };
        let quic = connecting.map_err(NotOpened::Handshake)?.await.map_err(NotOpened::Handshake)?;
        // Whatever fails from here on, the other side is told; where the time is up, too.
        let mut closing = CloseUnlessOpen { quic: quic.clone(), code: Some(CloseCode::TooSlow) };
        let peer = quic::peer_of(&quic).filter(|peer| proved.is_none_or(|proved| proved == *peer));
        let Some(peer) = peer else {
            closing.code = Some(CloseCode::Protocol);
            return Err(NotOpened::Certificate);
        };
        if !permit.prove(peer) {
            closing.code = Some(CloseCode::Busy);
            return Err(NotOpened::Busy(peer));
        }
        if let Err(error) = connection::await_first_ping(&quic, &self.large).await {
            closing.code = Some(CloseCode::Protocol);
            return Err(NotOpened::Ping(peer, error));
        }
        closing.code = None;
        let large = Arc::clone(&self.large);
        let connection =
            Connection::new(quic.clone(), peer, self.carrier, self.patience, large, Some(permit));
        Ok((quic, connection))
    }
}

/// Closes a connection that did not get as far as being open.
struct CloseUnlessOpen {
    quic: quinn::Connection,
    code: Option<CloseCode>,
}

impl Drop for CloseUnlessOpen {
    fn drop(&mut self) {
        if let Some(code) = self.code {
            self.quic.close(code.code(), b"");
        }
    }
}

#[cfg(test)]
mod tests;
