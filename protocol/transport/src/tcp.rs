//! TLS over TCP between two PeerIds: what relays and storage servers speak (DESIGN §8).
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use lighter_transport::{Identity, tcp::TcpTls, tls::STORAGE_ALPN};
//!
//! let server = TcpTls::new(&Identity::generate(), STORAGE_ALPN)?;
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! let (socket, _) = listener.accept().await?;
//! let (stream, peer) = server.accept(socket).await?; // in a task of its own
//!
//! let client = TcpTls::new(&Identity::generate(), STORAGE_ALPN)?;
//! let stream = client.connect(listener.local_addr()?, peer).await?;
//! # drop(stream);
//! # Ok(()) }
//! ```
//!
//! Both calls end within a time limit, whatever the other side does or does not do. A client's [`TcpTls::connect`] may
//! return before the server has checked the client's certificate: an error of the first read tells that it refused.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use lighter_protocol::PeerId;
use rustls::pki_types::ServerName;
use tokio::io::BufReader;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use crate::identity::Identity;
use crate::limits::{TCP_CONNECT_TIME_MAX, TLS_HANDSHAKE_TIME_MAX, TLS_READ_LEN};
use crate::tls::{self, TlsError};

/// What is below TLS: rustls asks for 4 KiB at a time, and each of these would be a system call.
pub type Socket = BufReader<TcpStream>;

/// Makes TLS connections as one identity and for one protocol, as client and as server. Clones are cheap.
#[derive(Clone)]
pub struct TcpTls {
    identity: Identity,
    alpn: Arc<[u8]>,
    acceptor: TlsAcceptor,
    handshake_time_max: Duration,
}

/// Why a connection was not made.
#[derive(Debug, thiserror::Error)]
pub enum TcpTlsError {
    /// The address did not answer, or refused.
    #[error("cannot connect")]
    Connect(#[source] io::Error),
    /// Connecting or the handshake took too long.
    #[error("connecting took too long")]
    TimedOut,
    /// The handshake failed: not TLS, no common protocol, a certificate that proves nothing, or not the expected PeerId.
    #[error("TLS handshake failed")]
    Handshake(#[source] io::Error),
    /// The handshake ended, and yet the other side did not agree to this protocol.
    #[error("the other side does not speak this protocol")]
    Alpn,
    /// No configuration or no PeerId.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl TcpTls {
    /// Connections that show `identity` and speak `alpn`.
    ///
    /// # Errors
    /// As [`tls::server_config`].
    pub fn new(identity: &Identity, alpn: &[u8]) -> Result<Self, TlsError> {
        Ok(Self {
            identity: identity.clone(),
            alpn: alpn.into(),
            acceptor: TlsAcceptor::from(Arc::new(tls::server_config(identity, alpn)?)),
            handshake_time_max: TLS_HANDSHAKE_TIME_MAX,
        })
    }

    /// The same with another time limit for handshakes.
    #[must_use]
    pub fn with_handshake_time_max(self, handshake_time_max: Duration) -> Self {
        Self { handshake_time_max, ..self }
    }

    /// Who connections of this show themselves as.
    pub fn peer(&self) -> PeerId {
        self.identity.peer()
    }

    /// A connection to `address`, where `expected` answers and nobody else.
    ///
    /// # Errors
    /// Says which step failed.
    pub async fn connect(
        &self,
        address: SocketAddr,
        expected: PeerId,
    ) -> Result<client::TlsStream<Socket>, TcpTlsError> {
        let connecting = timeout(TCP_CONNECT_TIME_MAX, TcpStream::connect(address)).await;
        let socket = connecting.map_err(|_| TcpTlsError::TimedOut)?.map_err(TcpTlsError::Connect)?;
        socket.set_nodelay(true).map_err(TcpTlsError::Connect)?;

        let config = tls::client_config(&self.identity, Some(expected), &self.alpn)?;
        // An address as the name: it is not sent, and the certificate proves a PeerId, not a name.
        let name = ServerName::from(address.ip());
        let handshake = TlsConnector::from(Arc::new(config)).connect(name, buffered(socket));
        let stream = self.in_time(handshake).await?;
        if stream.get_ref().1.alpn_protocol() != Some(&*self.alpn) {
            return Err(TcpTlsError::Alpn);
        }
        Ok(stream)
    }

    /// The handshake on an accepted `socket`, and who the client is. Run it in a task of its own, of which there is a
    /// bounded number.
    ///
    /// # Errors
    /// Says which step failed.
    pub async fn accept(
        &self,
        socket: TcpStream,
    ) -> Result<(server::TlsStream<Socket>, PeerId), TcpTlsError> {
        socket.set_nodelay(true).map_err(TcpTlsError::Connect)?;
        let stream = self.in_time(self.acceptor.accept(buffered(socket))).await?;
        let session = stream.get_ref().1;
        if session.alpn_protocol() != Some(&*self.alpn) {
            return Err(TcpTlsError::Alpn);
        }
        let peer = tls::peer_id_of(session.peer_certificates().unwrap_or_default())?;
        Ok((stream, peer))
    }

    async fn in_time<T>(&self, handshake: impl Future<Output = io::Result<T>>) -> Result<T, TcpTlsError> {
        let ended = timeout(self.handshake_time_max, handshake).await;
        ended.map_err(|_| TcpTlsError::TimedOut)?.map_err(TcpTlsError::Handshake)
    }
}

fn buffered(socket: TcpStream) -> Socket {
    BufReader::with_capacity(TLS_READ_LEN, socket)
}

#[cfg(test)]
mod tests;
