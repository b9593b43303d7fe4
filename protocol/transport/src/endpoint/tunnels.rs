//! Connections through tunnels ([`crate::tunnel`]): opened from here, and taken in among the others.

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use lighter_protocol::PeerId;
use lighter_protocol::wire::Request;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::admission::{Network, Permit};
use super::{ConnectError, Endpoint, NotOpened, connect_error, quic};
use crate::carrier::Carrier;
use crate::connection::{self, Connection};
use crate::error::{ExchangeError, PeerError};
use crate::limits::{ADDRESS_HEAD_START, ADDRESSES_TRIED_MAX};
use crate::tcp::{TcpTls, TcpTlsError};
use crate::tunnel::{TUNNEL_ALPN, listen};

/// Room for a tunnel that somebody else opens, and for the connection in it. Dropped, it is given back.
#[derive(Debug)]
pub struct Place {
    permit: Permit,
    tunnel: OwnedSemaphorePermit,
    address: SocketAddr,
    until: Instant,
}

impl Place {
    /// Who it is for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How long its connection may still take to open.
    pub fn time_left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }
}

impl Endpoint {
    /// Whether somebody at `address` may open a tunnel now. From here on it has as long to open its connection as one
    /// that comes through UDP.
    pub fn place(&self, address: SocketAddr) -> Option<Place> {
        let inner = &self.inner;
        let tunnel = Arc::clone(&inner.tunnel_places).try_acquire_owned().ok()?;
        let network = Network::of(address.ip());
        let now = Instant::now();
        let mut admission = inner.admission.lock().unwrap_or_else(PoisonError::into_inner);
        if !admission.handle_tunnel(now, network) {
            return None;
        }
        drop(admission);
        let permit = Permit::of_handshake(Arc::clone(&inner.admission), network);
        Some(Place { permit, tunnel, address, until: now + inner.config.open_time_max })
    }

    /// Takes in the connection that somebody opens in a byte stream: [`Endpoint::accept`] gives it. `proved`: who the
    /// other side of the byte stream has proved to be; the connection must be of the same.
    ///
    /// Returns when the connection is open, or will not be.
    pub async fn accept_in(
        &self,
        stream: (impl AsyncRead + Send + 'static, impl AsyncWrite + Send + 'static),
        place: Place,
        carrier: Carrier,
        proved: Option<PeerId>,
    ) {
        let address = place.address;
        let opening = timeout(place.time_left(), async {
            let connection = self.open_in(stream, place, carrier, proved).await?;
            let opened = self.inner.opened.upgrade().ok_or(NotOpened::Closing)?;
            opened.send(connection).await.map_err(|_| NotOpened::Closing)
        });
        if let Err(why) = opening.await.unwrap_or(Err(NotOpened::TooSlow)) {
            debug!(%address, %carrier, ?why, "did not open");
        }
    }

    async fn open_in(
        &self,
        stream: (impl AsyncRead + Send + 'static, impl AsyncWrite + Send + 'static),
        place: Place,
        carrier: Carrier,
        proved: Option<PeerId>,
    ) -> Result<Connection, NotOpened> {
        let inner = &self.inner;
        let Place { permit, tunnel: place, address, .. } = place;
        let config = quic::endpoint_config_in_tunnel().map_err(|_| NotOpened::Closing)?;
        let server = inner.tunnel_server.as_ref().clone();
        let tunnel = inner.tunnels.open(stream, address, config, Some(server)).map_err(NotOpened::Tunnel)?;
        let incoming = tunnel.quic.accept().await.ok_or(NotOpened::Closing)?;
        // One tunnel, one connection.
        tunnel.quic.set_server_config(None);
        let opening = inner.opening(carrier);
        let permit = permit.with_tunnel(place);
        let (quic, connection) = opening.handshake(incoming, None, permit, proved).await?;
        tunnel.carry(&quic);
        Ok(connection)
    }

    /// An open connection to `expected` through a tunnel in `stream`, which leads to `address`, within `limit`.
    ///
    /// # Errors
    /// As [`Endpoint::connect`].
    pub async fn connect_in(
        &self,
        expected: PeerId,
        stream: (impl AsyncRead + Send + 'static, impl AsyncWrite + Send + 'static),
        address: SocketAddr,
        carrier: Carrier,
        limit: Duration,
    ) -> Result<Connection, ConnectError> {
        let connecting = self.attempt_in(expected, stream, address, carrier);
        timeout(limit, connecting).await.unwrap_or(Err(ConnectError::TimedOut))
    }

    async fn attempt_in(
        &self,
        expected: PeerId,
        stream: (impl AsyncRead + Send + 'static, impl AsyncWrite + Send + 'static),
        address: SocketAddr,
        carrier: Carrier,
    ) -> Result<Connection, ConnectError> {
        let inner = &self.inner;
        let config = quic::endpoint_config_in_tunnel().map_err(|_| ConnectError::Unreachable)?;
        let client = quic::client_in_tunnel(&inner.identity, expected, &inner.config);
        let client = client.map_err(|_| ConnectError::Unreachable)?;
        let tunnel =
            inner.tunnels.open(stream, address, config, None).map_err(|_| ConnectError::Unreachable)?;
        let name = address.ip().to_string();
        let connecting = tunnel.quic.connect_with(client, address, &name);
        let quic = connecting.map_err(|_| ConnectError::Unreachable)?;
        let quic = quic.await.map_err(|error| {
            debug!(%address, %carrier, %error, "did not connect");
            connect_error(&error)
        })?;
        tunnel.carry(&quic);
        self.greet(quic, expected, address, carrier).await
    }

    /// The client's Ping and Pong on a new connection.
    pub(super) async fn greet(
        &self,
        quic: quinn::Connection,
        expected: PeerId,
        address: SocketAddr,
        carrier: Carrier,
    ) -> Result<Connection, ConnectError> {
        let inner = &self.inner;
        if let Err(error) = connection::exchange(&quic, &Request::Ping).await {
            debug!(%address, %carrier, %error, "did not open");
            return Err(match (quic.close_reason(), error) {
                (Some(reason), _) => connect_error(&reason),
                (None, ExchangeError::Peer(PeerError::Busy)) => ConnectError::Busy,
                (None, _) => ConnectError::Refused,
            });
        }
        let large = Arc::clone(&inner.large);
        Ok(Connection::new(quic, expected, carrier, inner.config.patience, large, None))
    }

    /// As [`Endpoint::connect`], through a tunnel in TLS on TCP. By convention a peer listens on the TCP port of the same
    /// number as its UDP port.
    ///
    /// # Errors
    /// As [`Endpoint::connect`].
    pub async fn connect_tcp(
        &self,
        expected: PeerId,
        addresses: &[SocketAddr],
        limit: Duration,
    ) -> Result<Connection, ConnectError> {
        let racing = self.race_with(addresses, |endpoint, address| async move {
            endpoint.attempt_tcp(expected, address).await
        });
        timeout(limit, racing).await.unwrap_or(Err(ConnectError::TimedOut))
    }

    async fn attempt_tcp(&self, expected: PeerId, address: SocketAddr) -> Result<Connection, ConnectError> {
        let tls = TcpTls::new(&self.inner.identity, TUNNEL_ALPN).map_err(|_| ConnectError::Unreachable)?;
        let stream = tls.connect(address, expected).await.map_err(|error| {
            debug!(%address, %error, "did not connect (TCP)");
            match error {
                TcpTlsError::TimedOut => ConnectError::TimedOut,
                TcpTlsError::Connect(_) | TcpTlsError::Tls(_) => ConnectError::Unreachable,
                TcpTlsError::Alpn => ConnectError::Refused,
                TcpTlsError::Handshake(error) if is_wrong_peer(&error) => ConnectError::WrongPeer,
                TcpTlsError::Handshake(_) => ConnectError::Refused,
            }
        })?;
        listen::keep_little_unsent(stream.get_ref().0.get_ref());
        self.attempt_in(expected, tokio::io::split(stream), address, Carrier::Tcp).await
    }

    /// Tries addresses in order, each with a head start before the next is tried beside it.
    pub(super) async fn race_with<F>(
        &self,
        addresses: &[SocketAddr],
        attempt: impl Fn(Self, SocketAddr) -> F,
    ) -> Result<Connection, ConnectError>
    where
        F: Future<Output = Result<Connection, ConnectError>> + Send + 'static,
    {
        let mut waiting = addresses.iter().take(ADDRESSES_TRIED_MAX).copied();
        let mut attempts = JoinSet::new();
        let mut worst = ConnectError::NoAddress;
        let mut more = true;
        while more || !attempts.is_empty() {
            if more {
                match waiting.next() {
                    Some(address) => {
                        attempts.spawn(attempt(self.clone(), address));
                    }
                    None => more = false,
                }
            }
            tokio::select! {
                Some(ended) = attempts.join_next() => match ended {
                    Ok(Ok(connection)) => return Ok(connection),
                    Ok(Err(error)) => worst = worst.max(error),
                    Err(_) => worst = worst.max(ConnectError::Unreachable), // the runtime is shutting down
                },
                () = sleep(ADDRESS_HEAD_START), if more => {}
                else => {}
            }
        }
        Err(worst)
    }
}

/// Whether our own check of the certificate said that it is another peer (`tls`).
fn is_wrong_peer(error: &std::io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(
        inner,
        Some(rustls::Error::InvalidCertificate(rustls::CertificateError::ApplicationVerificationFailure))
    )
}
