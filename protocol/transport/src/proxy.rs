//! HTTP proxies: which one leads to a web server, and the way through it by CONNECT (RFC 9110 §9.3.6; SPEC A30).
//!
//! They are the ones that the environment names, as curl reads it (`HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`),
//! or one that is set. A name and a password in its address are sent as Basic (RFC 7617); it is connected to without
//! TLS, since what goes through it is TLS itself. Loopback is never asked for through a proxy.

use std::error::Error;
use std::fmt;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::Uri;
use hyper::http::uri::Scheme;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower_service::Service;

use crate::location::finding::resolve::HostResolver;

/// Which proxy leads to what. Clones are cheap.
#[derive(Clone)]
pub struct Proxies {
    matcher: Arc<Matcher>,
}

/// Not the address of a proxy that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a proxy is http://[NAME:PASSWORD@]HOST:PORT")]
pub struct NotAProxy;

impl Proxies {
    /// Those that the environment names.
    pub fn of_environment() -> Self {
        Self { matcher: Arc::new(Matcher::from_env()) }
    }

    /// None: everything is reached directly.
    pub fn none() -> Self {
        Self { matcher: Arc::new(Matcher::builder().build()) }
    }

    /// This one for everything but `except`: names, which stand for what is below them as well, addresses and networks,
    /// with commas between.
    ///
    /// # Errors
    /// [`NotAProxy`].
    pub fn all(proxy: &str, except: &str) -> Result<Self, NotAProxy> {
        let matcher = Matcher::builder().all(proxy).no(except).build();
        let proxies = Self { matcher: Arc::new(matcher) };
        // Any name that is not excepted shows whether it was understood.
        let unexcepted = Matcher::builder().all(proxy).build();
        let found = unexcepted.intercept(&Uri::from_static("https://example.org"));
        if found.is_some_and(|found| is_usable(&found)) { Ok(proxies) } else { Err(NotAProxy) }
    }

    /// Which one leads to `uri`; none where it is reached directly.
    fn intercept(&self, uri: &Uri) -> Option<Intercept> {
        if uri.host().is_some_and(is_loopback) {
            return None;
        }
        let found = self.matcher.intercept(uri)?;
        if is_usable(&found) {
            return Some(found);
        }
        tracing::warn!(proxy = %found.uri(), "not a proxy that can be used (http://HOST:PORT): nothing goes through it");
        None
    }

    /// Whether a proxy leads to `uri`.
    pub fn is_used_for(&self, uri: &Uri) -> bool {
        self.intercept(uri).is_some()
    }
}

impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The matcher's own leaves names and passwords out.
        self.matcher.fmt(f)
    }
}

fn is_usable(proxy: &Intercept) -> bool {
    proxy.uri().scheme() == Some(&Scheme::HTTP) && proxy.uri().host().is_some()
}

fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

/// Connects to web servers, through a proxy where one leads there.
#[derive(Clone, Debug)]
pub struct ProxyConnector {
    http: HttpConnector<HostResolver>,
    proxies: Proxies,
}

impl ProxyConnector {
    /// `http` connects to servers and to proxies.
    pub fn new(http: HttpConnector<HostResolver>, proxies: Proxies) -> Self {
        Self { http, proxies }
    }
}

/// Why there is no connection.
pub type ProxyError = Box<dyn Error + Send + Sync>;

impl Service<Uri> for ProxyConnector {
    type Response = TokioIo<TcpStream>;
    type Error = ProxyError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ProxyError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ProxyError>> {
        self.http.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let Some(proxy) = self.proxies.intercept(&uri) else {
            let connecting = self.http.call(uri);
            return Box::pin(async move { connecting.await.map_err(Into::into) });
        };
        let mut tunnel = Tunnel::new(proxy.uri().clone(), self.http.clone());
        if let Some(authorization) = proxy.basic_auth() {
            tunnel = tunnel.with_auth(authorization.clone());
        }
        // The port is said for `http`, too: CONNECT takes it for 443 otherwise.
        let connecting = tunnel.call(with_port(uri));
        Box::pin(async move { connecting.await.map_err(Into::into) })
    }
}

fn with_port(uri: Uri) -> Uri {
    let (Some(host), None, Some("http")) = (uri.host(), uri.port(), uri.scheme_str()) else { return uri };
    let with = Uri::builder().scheme("http").authority(format!("{host}:80")).path_and_query("/").build();
    with.unwrap_or(uri)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    fn uri(text: &str) -> Uri {
        text.parse().unwrap()
    }

    #[test]
    fn a_proxy_is_for_everything_but_what_is_excepted_and_this_machine() {
        let proxies = Proxies::all("http://proxy.example:3128", "b.example, 10.0.0.0/8").unwrap();
        for through in
            ["https://a.example", "http://a.example:7080/x", "https://11.0.0.1", "https://notb.example"]
        {
            assert!(proxies.is_used_for(&uri(through)), "{through}");
        }
        for directly in [
            "https://b.example",
            "https://mail.b.example",
            "https://10.2.3.4:7443",
            "http://127.0.0.1:7080",
            "http://[::1]:7080",
            "https://localhost",
        ] {
            assert!(!proxies.is_used_for(&uri(directly)), "{directly}");
        }
        assert!(!Proxies::none().is_used_for(&uri("https://a.example")));
    }

    #[test]
    fn what_is_no_proxy_is_said_and_a_password_is_not() {
        for not in ["", "socks5://proxy:1080", "https://proxy:3128", "http://", "ftp://proxy:1"] {
            assert_eq!(Proxies::all(not, "").unwrap_err(), NotAProxy, "{not}");
        }
        // Everything may be excepted.
        assert!(Proxies::all("proxy.example:3128", "*").is_ok());
        let proxies = Proxies::all("http://alice:secret@proxy.example:3128", "").unwrap();
        assert!(!format!("{proxies:?}").contains("secret"));
    }

    #[tokio::test]
    async fn connect_is_asked_of_the_proxy_with_name_and_password() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let proxies = Proxies::all(&format!("http://alice:sec%3Aret@{address}"), "").unwrap();
        for (asked, named) in
            [("https://b.example/lighter", "b.example:443"), ("http://b.example", "b.example:80")]
        {
            let mut connector = ProxyConnector::new(
                HttpConnector::new_with_resolver(HostResolver::system()),
                proxies.clone(),
            );
            let serving = async {
                let (mut socket, _) = listener.accept().await.unwrap();
                let mut said = [0; 256];
                let len = socket.read(&mut said).await.unwrap();
                socket.write_all(b"HTTP/1.1 200 yes\r\n\r\n").await.unwrap();
                String::from_utf8(said[..len].to_vec()).unwrap()
            };
            let (connected, said) = tokio::join!(connector.call(uri(asked)), serving);
            connected.unwrap();
            assert!(said.starts_with(&format!("CONNECT {named} HTTP/1.1\r\n")), "{said}");
            assert!(said.contains("Proxy-Authorization: Basic YWxpY2U6c2VjOnJldA==\r\n"), "{said}");
        }
    }
}
