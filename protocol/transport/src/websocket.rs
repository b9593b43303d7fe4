//! A byte stream in a WebSocket (RFC 6455): the way in where nothing but the web gets through (SPEC A30).
//!
//! Whoever ends the outer TLS — a proxy that looks into it, a web server in front of the relay — sees a tunnel's datagrams,
//! which are encrypted from one PeerId to the other. So nothing here proves anything, and nothing has to: a certificate
//! that a company's proxy makes up is as good as any, as long as this machine trusts it.
//!
//! Binary messages are pieces of the byte stream, wherever it is cut; text ends it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, future};
use hyper::http::{Request, Response};
use hyper::upgrade::OnUpgrade;
use hyper::{Uri, upgrade};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as WebSocketError, Message};
use tokio_util::io::{CopyToBytes, SinkWriter, StreamReader};
use tower_service::Service;

use crate::limits::{
    OPEN_TIME_MAX, TLS_READ_LEN, TUNNEL_WRITE_LEN, WEB_ADDRESSES_TRIED_MAX, WEBSOCKET_CONNECT_TIME_MAX,
    WEBSOCKET_MESSAGE_LEN_MAX, WEBSOCKET_WRITE_LEN_MAX,
};
use crate::location::finding::resolve::HostResolver;
use crate::location::{LocationSetupError, web_tls};
use crate::proxy::{Proxies, ProxyConnector};
use crate::tunnel::listen::keep_little_unsent;

/// Where a relay's web server takes WebSockets, behind its `retrieval_url`.
pub const PATH: &str = "/lighter";
/// What both sides say that the messages are (RFC 6455 §1.9).
pub const SUBPROTOCOL: &str = "lighter-tunnel-1";
const SUBPROTOCOL_FIELD: &str = "sec-websocket-protocol";

/// Both halves of a byte stream.
pub type Halves = (Pin<Box<dyn AsyncRead + Send>>, Pin<Box<dyn AsyncWrite + Send>>);

/// Why there is no WebSocket.
#[derive(Debug, thiserror::Error)]
pub enum NoWebSocket {
    /// The address of the web server is not one.
    #[error("not the address of a web server")]
    Address,
    /// The web server's name has no address that may be dialled.
    #[error("the web server has no address that can be dialled from here")]
    NoAddress,
    /// No connection: neither to the server nor to the proxy, or not through it.
    #[error("cannot connect")]
    Connect(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The certificate is not trusted, or the like.
    #[error("TLS handshake failed")]
    Tls(#[source] io::Error),
    /// Nothing is trusted.
    #[error(transparent)]
    Roots(#[from] LocationSetupError),
    /// It does not take WebSockets there, or not for this.
    #[error("no WebSocket is there")]
    Refused(#[source] Box<WebSocketError>),
    /// It took too long.
    #[error("the web server did not answer in time")]
    TimedOut,
}

fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(TUNNEL_WRITE_LEN)
        .write_buffer_size(TUNNEL_WRITE_LEN)
        .max_write_buffer_size(WEBSOCKET_WRITE_LEN_MAX)
        .max_message_size(Some(WEBSOCKET_MESSAGE_LEN_MAX))
        .max_frame_size(Some(WEBSOCKET_MESSAGE_LEN_MAX))
}

/// How WebSockets are made from here.
#[derive(Clone, Debug)]
pub struct WebSockets {
    proxies: Proxies,
    ca_file: Option<Arc<Path>>,
}

impl WebSockets {
    /// Through these proxies; the certificates in `ca_file` are trusted instead of the system's.
    pub fn new(proxies: Proxies, ca_file: Option<&Path>) -> Self {
        Self { proxies, ca_file: ca_file.map(Arc::from) }
    }

    /// A byte stream to [`PATH`] of the web server at `origin` (`https://host` or `http://host:port`), and which address it
    /// leads to. `allowed` says which addresses may be dialled; where a proxy leads there, it looks names up itself.
    ///
    /// # Errors
    /// Says which step failed.
    pub async fn connect(
        &self,
        origin: &str,
        allowed: impl Fn(&SocketAddr) -> bool,
    ) -> Result<(Halves, SocketAddr), NoWebSocket> {
        let connecting = self.connect_now(origin, allowed);
        timeout(WEBSOCKET_CONNECT_TIME_MAX, connecting).await.unwrap_or(Err(NoWebSocket::TimedOut))
    }

    async fn connect_now(
        &self,
        origin: &str,
        allowed: impl Fn(&SocketAddr) -> bool,
    ) -> Result<(Halves, SocketAddr), NoWebSocket> {
        let uri: Uri = format!("{origin}{PATH}").parse().map_err(|_| NoWebSocket::Address)?;
        let host = uri.host().ok_or(NoWebSocket::Address)?;
        let is_https = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        let bare_host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        // An address is judged whoever connects to it.
        let literal: Option<IpAddr> = bare_host.parse().ok();
        if literal.is_some_and(|ip| !allowed(&SocketAddr::new(ip, port))) {
            return Err(NoWebSocket::NoAddress);
        }
        let socket = if self.proxies.is_used_for(&uri) {
            let mut http = HttpConnector::new_with_resolver(HostResolver::system());
            http.enforce_http(false);
            http.set_nodelay(true);
            let mut connector = ProxyConnector::new(http, self.proxies.clone());
            connector.call(uri.clone()).await.map_err(NoWebSocket::Connect)?.into_inner()
        } else {
            connect_directly(&bare_host, port, allowed).await?
        };
        keep_little_unsent(&socket);
        let address = socket.peer_addr().map_err(|error| NoWebSocket::Connect(error.into()))?;
        let halves = if is_https {
            let name = ServerName::try_from(bare_host).map_err(|_| NoWebSocket::Address)?;
            let mut tls = web_tls(self.ca_file.as_deref())?;
            tls.alpn_protocols = vec![b"http/1.1".to_vec()];
            let socket = tokio::io::BufReader::with_capacity(TLS_READ_LEN, socket);
            let stream = TlsConnector::from(Arc::new(tls)).connect(name, socket).await;
            upgrade_client(uri, stream.map_err(NoWebSocket::Tls)?).await?
        } else {
            upgrade_client(uri, socket).await?
        };
        Ok((halves, address))
    }
}

/// Connects to one of the host's addresses that may be dialled, in the order in which the system names them.
async fn connect_directly(
    host: &str,
    port: u16,
    allowed: impl Fn(&SocketAddr) -> bool,
) -> Result<TcpStream, NoWebSocket> {
    let found = lookup_host((host, port)).await.map_err(|error| NoWebSocket::Connect(error.into()))?;
    let mut failed = NoWebSocket::NoAddress;
    for address in found.filter(allowed).take(WEB_ADDRESSES_TRIED_MAX) {
        match timeout(ADDRESS_TIME_MAX, TcpStream::connect(address)).await {
            Ok(Ok(socket)) => {
                // Where it cannot be said, messages come later, and come.
                let _ = socket.set_nodelay(true);
                return Ok(socket);
            }
            Ok(Err(error)) => failed = NoWebSocket::Connect(error.into()),
            Err(_) => failed = NoWebSocket::TimedOut,
        }
    }
    Err(failed)
}

/// One of several addresses is given so long.
const ADDRESS_TIME_MAX: Duration = Duration::from_secs(4);

async fn upgrade_client<S>(uri: Uri, stream: S) -> Result<Halves, NoWebSocket>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let scheme = if uri.scheme_str() == Some("https") { "wss" } else { "ws" };
    let mut parts = uri.into_parts();
    parts.scheme = scheme.parse().ok();
    let uri = Uri::from_parts(parts).map_err(|_| NoWebSocket::Address)?;
    let mut request = uri.into_client_request().map_err(|error| NoWebSocket::Refused(Box::new(error)))?;
    request.headers_mut().insert(SUBPROTOCOL_FIELD, HeaderValue::from_static(SUBPROTOCOL));
    let upgraded = tokio_tungstenite::client_async_with_config(request, stream, Some(config())).await;
    // Another subprotocol than was asked for is an error there (RFC 6455 §4.1).
    let (socket, _response) = upgraded.map_err(|error| NoWebSocket::Refused(Box::new(error)))?;
    Ok(halves(socket))
}

/// The server's side of an upgrade that has been agreed to.
#[derive(Debug)]
pub struct Upgrading(OnUpgrade);

/// Agrees to `request`, if it asks for a WebSocket for this: what to answer, and what to wait for then.
///
/// # Errors
/// `None`: it asks for something else.
pub fn agree<B>(request: &mut Request<B>) -> Option<(Response<()>, Upgrading)> {
    let fields = request.headers().get_all(SUBPROTOCOL_FIELD).iter();
    let mut named = fields.filter_map(|field| field.to_str().ok()).flat_map(|field| field.split(','));
    if !named.any(|name| name.trim() == SUBPROTOCOL) {
        return None;
    }
    let mut response = create_response_with_body(request, || ()).ok()?;
    response.headers_mut().insert(SUBPROTOCOL_FIELD, HeaderValue::from_static(SUBPROTOCOL));
    Some((response, Upgrading(upgrade::on(request))))
}

impl Upgrading {
    /// The byte stream; none where the client has gone meanwhile.
    pub async fn halves(self) -> Option<Halves> {
        let upgraded = timeout(OPEN_TIME_MAX, self.0).await.ok()?.ok()?;
        let stream = TokioIo::new(upgraded);
        Some(halves(WebSocketStream::from_raw_socket(stream, Role::Server, Some(config())).await))
    }
}

/// Binary messages as a byte stream.
fn halves<S>(socket: WebSocketStream<S>) -> Halves
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sink, stream) = socket.split();
    let pieces = stream.filter_map(|message| {
        future::ready(match message {
            Ok(Message::Binary(bytes)) => Some(Ok(bytes)),
            // Pings are answered beneath; after a Close the stream is at its end.
            Ok(Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_)) => None,
            Ok(Message::Text(_)) => Some(Err(io::Error::from(io::ErrorKind::InvalidData))),
            Err(error) => Some(Err(into_io(error))),
        })
    });
    let sink = sink
        .sink_map_err(into_io)
        .with(|bytes: Bytes| future::ready(Ok::<_, io::Error>(Message::Binary(bytes))));
    (Box::pin(StreamReader::new(pieces)), Box::pin(SinkWriter::new(CopyToBytes::new(sink))))
}

fn into_io(error: WebSocketError) -> io::Error {
    match error {
        WebSocketError::Io(error) => error,
        other => io::Error::new(io::ErrorKind::InvalidData, other),
    }
}

#[cfg(test)]
mod tests;
