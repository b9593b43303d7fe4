//! The HTTP client below `object_store`: hyper, with rustls on aws-lc-rs.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector as TcpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse,
    HttpResponseBody, HttpService,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use super::S3ConfigError;
use crate::limits::OBJECT_CONNECT_TIME_MAX;

/// Makes clients that believe these issuers.
#[derive(Debug)]
pub(super) struct Connector {
    issuers: RootCertStore,
}

impl Connector {
    pub(super) fn new(issuers: RootCertStore) -> Self {
        Self { issuers }
    }
}

impl HttpConnector for Connector {
    /// Times are set by whoever asks, for whole requests; options are those of [`super::S3Objects::new`] alone.
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| object_store::Error::Generic { store: "S3", source: Box::new(error) })?
            .with_root_certificates(self.issuers.clone())
            .with_no_client_auth();
        let mut tcp = TcpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(OBJECT_CONNECT_TIME_MAX));
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(https);
        Ok(HttpClient::new(Service { client }))
    }
}

#[derive(Debug)]
struct Service {
    client: Client<HttpsConnector<TcpConnector>, HttpRequestBody>,
}

#[async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let response = self.client.request(request).await.map_err(|error| {
            let kind = if error.is_connect() { HttpErrorKind::Connect } else { HttpErrorKind::Request };
            HttpError::new(kind, error)
        })?;
        let (parts, body) = response.into_parts();
        Ok(HttpResponse::from_parts(parts, HttpResponseBody::new(body_of(body))))
    }
}

fn body_of(
    body: Incoming,
) -> impl hyper::body::Body<Data = bytes::Bytes, Error = HttpError> + Send + Sync + 'static {
    http_body_util::BodyExt::map_err(body, |error| HttpError::new(HttpErrorKind::Interrupted, error))
}

/// The issuers in a PEM file, or the system's.
pub(super) fn issuers(file: Option<&Path>) -> Result<RootCertStore, S3ConfigError> {
    let mut roots = RootCertStore::empty();
    let Some(path) = file else {
        // Some of a system's may be of a kind that is not understood; where none are, nothing verifies, which is said then.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return Ok(roots);
    };
    let unusable = |reason: String| S3ConfigError::Issuers { path: path.to_owned(), reason };
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| unusable(error.to_string()))?;
    for certificate in certificates {
        let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
        roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
    }
    if roots.is_empty() { Err(unusable("no certificate in it".to_owned())) } else { Ok(roots) }
}
