//! One CardDAV server, asked over HTTP (RFC 4918, RFC 6352). Name and password go to the host that the user named and to
//! no other, over TLS or within this machine.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use data_encoding::BASE64;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, LOCATION, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode, Uri, body::Incoming};
use lighter_transport::location::{HttpClient, LocationSetupError, http_client_through};
use lighter_transport::proxy::Proxies;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::multistatus::{MultistatusError, Resource, parse};
use crate::limits::{CARDDAV_ANSWER_LEN_MAX, CARDDAV_ANSWER_TIME_MAX, CARDDAV_REDIRECTS_MAX};

/// Why an address book could not be fetched. All of them leave what was fetched before as it is.
#[derive(Debug, thiserror::Error)]
pub enum CardDavError {
    /// The address in the configuration is none.
    #[error("`url` = “{0}” is no address such as https://dav.example.org")]
    NotAnAddress(String),
    /// The password would be readable on its way.
    #[error("`url` must begin with https: a password does not go over the network unencrypted")]
    Unencrypted,
    /// No certificate can be trusted.
    #[error(transparent)]
    Setup(#[from] LocationSetupError),
    /// There is no password yet.
    #[error("there is no password for it: run `lighter-agent carddav login {0}`")]
    NoPassword(String),
    /// The keyring, or the password's file.
    #[error("its password cannot be read: {0}")]
    Password(String),
    /// Name or password is wrong.
    #[error("the server refuses name and password: run `lighter-agent carddav login {0}`")]
    Refused(String),
    /// It does not answer, or stops in the middle.
    #[error("the server at {host} cannot be reached: {why}")]
    Unreachable {
        /// Which.
        host: String,
        /// What the system or the library says.
        why: String,
    },
    /// It answers with an error.
    #[error("{uri} answered {status}")]
    Status {
        /// What was asked.
        uri: Uri,
        /// What it said.
        status: StatusCode,
    },
    /// It sends somewhere else, where the password does not go by itself.
    #[error("the server sends on to {0}: if that is right, make it the `url`")]
    Elsewhere(String),
    /// It sends from here to there without end.
    #[error("{0} leads nowhere: the server sends on more than {CARDDAV_REDIRECTS_MAX} times")]
    Redirects(Uri),
    /// More than any address book.
    #[error("{uri} answered with more than {} MiB", CARDDAV_ANSWER_LEN_MAX / (1024 * 1024))]
    TooLong {
        /// What was asked.
        uri: Uri,
    },
    /// What it answers is no CardDAV.
    #[error("{uri} does not speak CardDAV: {why}")]
    Answer {
        /// What was asked.
        uri: Uri,
        /// What is wrong.
        why: MultistatusError,
    },
    /// There is a server, but no address book.
    #[error("the server at {0} has no address book of this user's")]
    NoBooks(String),
    /// More books than are looked at.
    #[error(
        "the server has more than {} address books: name one of them in `url`",
        crate::limits::CARDDAV_BOOKS_MAX
    )]
    TooManyBooks,
    /// It was asked for cards that it told of, and does not answer for one.
    #[error("the server told of {0} and does not give it")]
    Missing(String),
    /// The copy on this machine.
    #[error("{path}: {source}")]
    Copy {
        /// Which file.
        path: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// All of it together takes too long.
    #[error("it was not fetched within {} s", .0.as_secs())]
    TooSlow(Duration),
}

impl CardDavError {
    /// Whether it may be over by itself.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::TooSlow(_) => true,
            Self::Status { status, .. } => {
                status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS
            }
            _ => false,
        }
    }
}

/// How much of what lies below a resource an answer tells of (RFC 4918 §10.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Depth {
    /// The resource alone.
    Zero,
    /// What is in it, as well.
    One,
}

/// A server, and who asks it.
pub(super) struct Client {
    name: String,
    http: HttpClient,
    authorization: HeaderValue,
    base: Uri,
}

impl Client {
    /// For the server that `url` leads to; `name` is what the configuration calls it.
    ///
    /// # Errors
    /// [`CardDavError`] for an address, a password or certificates that cannot be used.
    pub(super) fn new(
        name: &str,
        url: &str,
        ca_file: Option<&Path>,
        proxies: &Proxies,
        username: &str,
        password: &str,
    ) -> Result<Self, CardDavError> {
        let not_an_address = || CardDavError::NotAnAddress(url.to_owned());
        let base: Uri = url.parse().map_err(|_| not_an_address())?;
        let host = base.host().ok_or_else(not_an_address)?;
        match base.scheme_str() {
            Some("https") => {}
            Some("http") if is_this_machine(host) => {}
            Some("http") => return Err(CardDavError::Unencrypted),
            _ => return Err(not_an_address()),
        }
        let pair = Zeroizing::new(format!("{username}:{password}"));
        let basic = Zeroizing::new(format!("Basic {}", BASE64.encode(pair.as_bytes())));
        let mut authorization = HeaderValue::from_str(&basic).map_err(|_| not_an_address())?;
        authorization.set_sensitive(true);
        let http = http_client_through(base.scheme_str() == Some("https"), ca_file, proxies)?;
        Ok(Self { name: name.to_owned(), http, authorization, base })
    }

    /// Where it begins.
    pub(super) fn base(&self) -> &Uri {
        &self.base
    }

    /// The server's name, for people.
    pub(super) fn host(&self) -> String {
        self.base.authority().map_or(String::new(), ToString::to_string)
    }

    /// The address of a resource that an answer to `asked` names.
    ///
    /// # Errors
    /// [`CardDavError::Elsewhere`] where it lies on another server.
    pub(super) fn at(&self, asked: &Uri, href: &str) -> Result<Uri, CardDavError> {
        let elsewhere = || CardDavError::Elsewhere(href.to_owned());
        if href.starts_with('/') && !href.starts_with("//") {
            let mut parts = asked.clone().into_parts();
            parts.path_and_query = Some(href.parse().map_err(|_| elsewhere())?);
            return Uri::from_parts(parts).map_err(|_| elsewhere());
        }
        let uri: Uri = href.parse().map_err(|_| elsewhere())?;
        if self.is_own(&uri) { Ok(uri) } else { Err(elsewhere()) }
    }

    /// Whether the password may go there: the same host and port, and no less encrypted.
    fn is_own(&self, uri: &Uri) -> bool {
        let port =
            |uri: &Uri| uri.port_u16().unwrap_or(if uri.scheme_str() == Some("http") { 80 } else { 443 });
        let is_host =
            uri.host().zip(self.base.host()).is_some_and(|(one, other)| one.eq_ignore_ascii_case(other));
        is_host && uri.scheme_str() == self.base.scheme_str() && port(uri) == port(&self.base)
    }

    /// Asks for properties (RFC 4918 §9.1).
    ///
    /// # Errors
    /// [`CardDavError`].
    pub(super) async fn properties(
        &self,
        at: &Uri,
        depth: Depth,
        properties: &str,
    ) -> Result<(Uri, Vec<Resource>), CardDavError> {
        let body =
            format!("<?xml version=\"1.0\"?><propfind {NAMESPACES}><prop>{properties}</prop></propfind>");
        self.ask("PROPFIND", at, depth, body).await
    }

    /// Asks for cards by their addresses (RFC 6352 §8.7).
    ///
    /// # Errors
    /// [`CardDavError`].
    pub(super) async fn cards(&self, book: &Uri, hrefs: &[&str]) -> Result<Vec<Resource>, CardDavError> {
        let mut body = format!(
            "<?xml version=\"1.0\"?><c:addressbook-multiget {NAMESPACES}><prop><getetag/><c:address-data/></prop>"
        );
        for href in hrefs {
            body.push_str("<href>");
            body.push_str(&quick_xml::escape::escape(*href));
            body.push_str("</href>");
        }
        body.push_str("</c:addressbook-multiget>");
        Ok(self.ask("REPORT", book, Depth::Zero, body).await?.1)
    }

    /// Asks, and follows where the server sends on to, as long as it stays there.
    async fn ask(
        &self,
        method: &'static str,
        at: &Uri,
        depth: Depth,
        body: String,
    ) -> Result<(Uri, Vec<Resource>), CardDavError> {
        let mut uri = at.clone();
        for _ in 0..=CARDDAV_REDIRECTS_MAX {
            let response = self.send(method, &uri, depth, &body).await?;
            let status = response.status();
            if status.is_redirection() {
                let location = response.headers().get(LOCATION).and_then(|to| to.to_str().ok());
                let location = location.ok_or_else(|| CardDavError::Status { uri: uri.clone(), status })?;
                uri = self.at(&uri, location)?;
                continue;
            }
            return match status {
                StatusCode::MULTI_STATUS => {
                    let text = self.text(&uri, response).await?;
                    let resources = parse(&text);
                    let resources =
                        resources.map_err(|why| CardDavError::Answer { uri: uri.clone(), why })?;
                    Ok((uri, resources))
                }
                StatusCode::UNAUTHORIZED => Err(CardDavError::Refused(self.name.clone())),
                status => Err(CardDavError::Status { uri, status }),
            };
        }
        Err(CardDavError::Redirects(at.clone()))
    }

    async fn send(
        &self,
        method: &'static str,
        uri: &Uri,
        depth: Depth,
        body: &str,
    ) -> Result<Response<Incoming>, CardDavError> {
        let request = Request::builder()
            .method(Method::from_bytes(method.as_bytes()).unwrap_or_default())
            .uri(uri)
            .header(AUTHORIZATION, self.authorization.clone())
            .header(CONTENT_TYPE, "application/xml; charset=utf-8")
            .header(USER_AGENT, concat!("lighter-agent/", env!("CARGO_PKG_VERSION")))
            .header("Depth", if depth == Depth::Zero { "0" } else { "1" })
            .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))
            .map_err(|_| CardDavError::NotAnAddress(uri.to_string()))?;
        match timeout(CARDDAV_ANSWER_TIME_MAX, self.http.request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(self.unreachable(reason(&error))),
            Err(_) => Err(self.unreachable(no_answer(CARDDAV_ANSWER_TIME_MAX))),
        }
    }

    /// An answer's body. What is no UTF-8 is replaced: it is found out where it is looked at.
    async fn text(&self, uri: &Uri, response: Response<Incoming>) -> Result<String, CardDavError> {
        let body = Limited::new(response.into_body(), CARDDAV_ANSWER_LEN_MAX).collect();
        match timeout(CARDDAV_ANSWER_TIME_MAX, body).await {
            Ok(Ok(body)) => Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned()),
            Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
                Err(CardDavError::TooLong { uri: uri.clone() })
            }
            Ok(Err(error)) => Err(self.unreachable(error.to_string())),
            Err(_) => Err(self.unreachable(no_answer(CARDDAV_ANSWER_TIME_MAX))),
        }
    }

    fn unreachable(&self, why: String) -> CardDavError {
        CardDavError::Unreachable { host: self.host(), why }
    }
}

/// `DAV:` without a prefix.
const NAMESPACES: &str =
    "xmlns=\"DAV:\" xmlns:c=\"urn:ietf:params:xml:ns:carddav\" xmlns:s=\"http://calendarserver.org/ns/\"";

fn no_answer(waited: Duration) -> String {
    format!("no answer within {} s", waited.as_secs())
}

/// What is behind the library's “error sending request”.
fn reason(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

fn is_this_machine(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(url: &str) -> Result<Client, CardDavError> {
        Client::new("office", url, None, &Proxies::none(), "anna", "secret")
    }

    #[test]
    fn a_password_goes_over_tls_or_nowhere() {
        for url in ["http://127.0.0.1:5232", "http://localhost/dav", "http://[::1]:80"] {
            assert!(client(url).is_ok(), "{url}");
        }
        for url in ["http://dav.example.org", "http://127.0.0.1.example.org", "http://192.168.1.2"] {
            assert!(matches!(client(url), Err(CardDavError::Unencrypted)), "{url}");
        }
        for url in ["dav.example.org", "ftp://dav.example.org", "https://", ""] {
            assert!(matches!(client(url), Err(CardDavError::NotAnAddress(_))), "{url}");
        }
    }

    #[test]
    fn what_a_server_names_lies_on_it_or_is_not_asked() {
        let client = client("http://127.0.0.1:5232/dav/").unwrap();
        let at = |href: &str| client.at(client.base(), href);
        assert_eq!(at("/anna/").unwrap(), "http://127.0.0.1:5232/anna/");
        assert_eq!(at("http://127.0.0.1:5232/b").unwrap(), "http://127.0.0.1:5232/b");
        let others = [
            "//evil.example/",
            "http://evil.example/",
            "http://127.0.0.1:80/",
            "https://127.0.0.1:5232/",
            "anna",
            "",
            "http://127.0.0.1:5232@evil.example/",
            "/a b",
        ];
        for other in others {
            assert!(matches!(at(other), Err(CardDavError::Elsewhere(_))), "{other}");
        }
    }
}
