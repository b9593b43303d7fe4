//! Serving HTTP/1.1 over TCP, with or without TLS, within bounds: what every listener of ours that speaks HTTP does
//! alike (the location server here, retrieval in the relay).
//!
//! Bounded are connections, all of them and those from one network; the time for a TLS handshake, for a request's
//! header, and for a reader who takes nothing; the size and number of header lines. What a handler does is its own to
//! bound. On a stop, requests under way are answered, and idle connections closed.

mod stalled;
mod tls;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::lock::lock;
use crate::rate::network_of;

pub use tls::{TlsError, tls_config};

/// The other end of a connection: an extension of every request.
#[derive(Clone, Copy, Debug)]
pub struct ClientAddress(pub SocketAddr);

/// How connections are bounded.
#[derive(Clone, Copy, Debug)]
pub struct HttpLimits {
    /// Connections at once; more wait in the system's queue.
    pub connections_max: usize,
    /// Connections at once from one network (an IPv4 address, an IPv6 /64); more are closed. Loopback is not counted:
    /// a proxy.
    pub per_network_max: usize,
    /// A request's whole header must have come in so long; so long may an idle connection stay open as well.
    pub header_time_max: Duration,
    /// A client that takes nothing of an answer for so long is disconnected.
    pub stall_max: Duration,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            connections_max: 10_000,
            per_network_max: 200,
            // Longer than our own clients keep an idle connection (90 s), so that they close first.
            header_time_max: Duration::from_secs(120),
            stall_max: Duration::from_secs(30),
        }
    }
}

/// Bytes of a request's line and header together; the system allocates half of it to begin with, at most.
const HEADER_LEN_MAX: usize = 32 * 1024;
/// Header lines of a request.
const HEADER_LINES_MAX: usize = 64;
/// A TLS handshake must be done in so long.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);
/// After accept(2) failed (too many open files), wait so long before the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// On a stop, requests under way have so long.
const STOP_TIME_MAX: Duration = Duration::from_secs(5);

/// Serves `app` on `listener` until `stopping`, then answers what is under way and returns.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    app: Router,
    limits: HttpLimits,
    stopping: CancellationToken,
) {
    let server = Arc::new(Server {
        app,
        tls: tls.map(tokio_rustls::TlsAcceptor::from),
        limits,
        networks: Mutex::default(),
        stopping: stopping.clone(),
    });
    let slots = Arc::new(Semaphore::new(limits.connections_max));
    let mut connections = JoinSet::new();
    loop {
        let slot = tokio::select! {
            // Never closed.
            slot = slots.clone().acquire_owned() => slot,
            () = stopping.cancelled() => break,
        };
        let (stream, address) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "no connection can be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
            () = stopping.cancelled() => break,
        };
        let Some(place) = server.clone().take_place(address.ip()) else {
            tracing::debug!(%address, "too many connections from this network");
            continue;
        };
        let server = server.clone();
        connections.spawn(async move {
            server.connection(stream, address).await;
            drop((place, slot));
        });
        while connections.try_join_next().is_some() {}
    }
    // Closing alone does not end it while a process that is just being started has a copy of everything that is open.
    let _ = rustix::net::shutdown(&listener, rustix::net::Shutdown::Both);
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(STOP_TIME_MAX, drained).await.is_err() {
        tracing::debug!("requests were still under way at the stop");
    }
}

struct Server {
    app: Router,
    tls: Option<tokio_rustls::TlsAcceptor>,
    limits: HttpLimits,
    /// Connections by network; loopback is not in it.
    networks: Mutex<HashMap<IpAddr, usize>>,
    stopping: CancellationToken,
}

/// A connection's place among those of its network, given back when dropped.
struct Place {
    server: Arc<Server>,
    network: Option<IpAddr>,
}

impl Server {
    fn take_place(self: Arc<Self>, address: IpAddr) -> Option<Place> {
        if address.to_canonical().is_loopback() {
            return Some(Place { server: self, network: None });
        }
        let network = network_of(address);
        {
            let mut networks = lock(&self.networks);
            let count = networks.entry(network).or_default();
            if *count >= self.limits.per_network_max {
                return None;
            }
            *count += 1;
        }
        Some(Place { server: self, network: Some(network) })
    }

    async fn connection(&self, stream: TcpStream, address: SocketAddr) {
        // An answer is one write; waiting to fill a segment gains nothing.
        let _ = stream.set_nodelay(true);
        let stream = stalled::StalledWrites::new(stream, self.limits.stall_max);
        let Some(tls) = &self.tls else {
            return self.requests(stream, address).await;
        };
        match tokio::time::timeout(HANDSHAKE_TIME_MAX, tls.accept(stream)).await {
            Ok(Ok(stream)) => self.requests(stream, address).await,
            Ok(Err(error)) => tracing::debug!(%address, %error, "TLS handshake failed"),
            Err(_) => tracing::debug!(%address, "TLS handshake took too long"),
        }
    }

    async fn requests(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        address: SocketAddr,
    ) {
        let app = TowerToHyperService::new(self.app.clone());
        let app = service_fn(move |mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(ClientAddress(address));
            app.call(request)
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.header_time_max)
            .max_buf_size(HEADER_LEN_MAX)
            .max_headers(HEADER_LINES_MAX)
            .serve_connection(TokioIo::new(stream), app)
            // Where the application agrees to one; the connection is its own from then on.
            .with_upgrades();
        let mut connection = std::pin::pin!(connection);
        let result = tokio::select! {
            result = connection.as_mut() => result,
            () = self.stopping.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = result {
            tracing::debug!(%address, %error, "connection broken off");
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(network) = self.network else { return };
        let mut networks = lock(&self.server.networks);
        if let Some(count) = networks.get_mut(&network) {
            *count -= 1;
            if *count == 0 {
                networks.remove(&network);
            }
        }
    }
}
