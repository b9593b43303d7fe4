//! How the client reaches the server: kept-alive HTTP/1.1 over TCP, with TLS where the address says `https`.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use rustls::{ClientConfig, RootCertStore};

use super::error::LocationSetupError;
use super::finding::resolve::HostResolver;
use super::limits::{CA_FILE_LEN_MAX, CONNECT_TIMEOUT, IDLE_CONNECTIONS_MAX, IDLE_TIMEOUT};
use crate::proxy::{Proxies, ProxyConnector};

/// An HTTP client: cheap to clone, connections are kept and shared.
pub type HttpClient = Client<HttpsConnector<ProxyConnector>, Full<Bytes>>;

/// As [`http_client_through`], with the proxies that the environment names.
///
/// # Errors
/// Where nothing can be trusted.
pub fn http_client(https: bool, ca_file: Option<&Path>) -> Result<HttpClient, LocationSetupError> {
    http_client_through(https, ca_file, &Proxies::of_environment())
}

/// A client for `http` and `https`, through `proxies`. Roots are read only for `https`: a laptop without any can still use
/// loopback. With `ca_file`, its certificates are trusted instead of the system's.
///
/// # Errors
/// Where nothing can be trusted.
pub fn http_client_through(
    https: bool,
    ca_file: Option<&Path>,
    proxies: &Proxies,
) -> Result<HttpClient, LocationSetupError> {
    http_client_with(https, ca_file, HostResolver::system(), proxies)
}

/// The same, with a resolver of its own. Redirects are never followed.
pub(super) fn http_client_with(
    https: bool,
    ca_file: Option<&Path>,
    resolver: HostResolver,
    proxies: &Proxies,
) -> Result<HttpClient, LocationSetupError> {
    let roots = if https { roots(ca_file)? } else { RootCertStore::empty() };
    let mut tcp = HttpConnector::new_with_resolver(resolver);
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls(roots)?)
        .https_or_http()
        .enable_http1()
        .wrap_connector(ProxyConnector::new(tcp, proxies.clone()));
    Ok(Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
        .build(connector))
}

/// TLS to web servers: the system's roots, or those in `ca_file`.
pub(crate) fn web_tls(ca_file: Option<&Path>) -> Result<ClientConfig, LocationSetupError> {
    tls(roots(ca_file)?)
}

fn tls(roots: RootCertStore) -> Result<ClientConfig, LocationSetupError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(LocationSetupError::Tls)?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

fn roots(ca_file: Option<&Path>) -> Result<RootCertStore, LocationSetupError> {
    let mut roots = RootCertStore::empty();
    match ca_file {
        Some(path) => {
            for certificate in read_certificates(path).map_err(LocationSetupError::CaFile)? {
                roots.add(certificate).map_err(LocationSetupError::Tls)?;
            }
            if roots.is_empty() {
                let empty = io::Error::new(io::ErrorKind::InvalidData, "no certificate in it");
                return Err(LocationSetupError::CaFile(empty));
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(LocationSetupError::NoRoots);
            }
        }
    }
    Ok(roots)
}

fn read_certificates(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let mut pem = Vec::new();
    File::open(path)?.take(CA_FILE_LEN_MAX).read_to_end(&mut pem)?;
    CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))
}
