//! An S3 store: Amazon's, or one that speaks like it (Garage, Ceph, MinIO, SeaweedFS).
//!
//! Requests are made by `object_store`; they travel over the HTTP client and the TLS provider that the rest of the
//! programs use, with HTTP/1.1 over kept-alive connections.

mod http;
mod uploads;

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use object_store::aws::{AmazonS3, AmazonS3Builder, S3ConditionalPut};
use object_store::client::HttpConnector;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, ObjectStoreExt, PutPayload, RetryConfig};

use super::{Asking, ObjectError, Objects};
use crate::ids::UnitId;
use crate::limits::PAGE_MAX;

/// Where an S3 store is, and who we are there.
#[derive(Clone, Debug)]
pub struct S3Config {
    /// `https://HOST[:PORT]`. `None`: Amazon's in that region.
    pub endpoint: Option<String>,
    /// The region that requests are signed for.
    pub region: String,
    /// The bucket: it must be there.
    pub bucket: String,
    /// What all keys begin with; empty for nothing.
    pub prefix: String,
    /// Who we are.
    pub credentials: S3Credentials,
    /// `ENDPOINT/BUCKET/KEY` rather than `BUCKET.ENDPOINT/KEY`.
    pub path_style: bool,
    /// Whether `http://` will do: secrets do not travel, but who listens sees which objects are read.
    pub allow_http: bool,
    /// A PEM file with the issuers whose certificates count. `None`: the system's.
    pub tls_ca: Option<PathBuf>,
}

/// An access key.
#[derive(Clone)]
pub struct S3Credentials {
    /// Its name.
    pub key_id: String,
    /// The secret that belongs to it.
    pub secret: String,
    /// The token of a session, where the key is one of a session.
    pub token: Option<String>,
}

/// The secret is nobody's to log.
impl fmt::Debug for S3Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Credentials").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

/// Why a store cannot be asked at all.
#[derive(Debug, thiserror::Error)]
pub enum S3ConfigError {
    /// The endpoint is no address that we may use.
    #[error("object store: `{endpoint}`: {reason}")]
    Endpoint {
        /// As configured.
        endpoint: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The issuers' file cannot be used.
    #[error("object store: cannot read certificates from {}: {reason}", path.display())]
    Issuers {
        /// The file.
        path: PathBuf,
        /// What was wrong.
        reason: String,
    },
    /// The access key is not of the characters that one has.
    #[error(
        "object store: the access key, its secret or its token has characters that none has: are they right?"
    )]
    Credentials,
    /// Something else that the store's client does not take.
    #[error("object store: {0}")]
    Client(#[from] object_store::Error),
}

/// An S3 store.
#[derive(Debug)]
pub struct S3Objects {
    store: AmazonS3,
    prefix: String,
    uploads: uploads::Uploads,
}

/// Tries of one request, before whoever asked is told: a read has another copy, a move another day.
const RETRIES_MAX: usize = 2;
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(100);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(1);
/// No further try begins after this.
const RETRY_TIME_MAX: Duration = Duration::from_secs(10);

impl S3Config {
    /// Where the bucket is.
    fn bucket_url(&self) -> String {
        let Self { endpoint, region, bucket, path_style, .. } = self;
        let amazon = format!("https://s3.{region}.amazonaws.com");
        let endpoint = endpoint.as_deref().unwrap_or(&amazon).trim_end_matches('/');
        match endpoint.split_once("://") {
            Some((scheme, host)) if !path_style => format!("{scheme}://{bucket}.{host}"),
            _ => format!("{endpoint}/{bucket}"),
        }
    }
}

impl S3Objects {
    /// Asks nothing yet.
    ///
    /// # Errors
    /// See [`S3ConfigError`].
    pub fn new(config: &S3Config) -> Result<Self, S3ConfigError> {
        let endpoint = config.endpoint.as_deref();
        let bad = |endpoint: &str, reason| S3ConfigError::Endpoint { endpoint: endpoint.to_owned(), reason };
        match endpoint {
            Some(at) if at.starts_with("http://") && !config.allow_http => {
                return Err(bad(at, "without TLS: use https://, or set allow_http"));
            }
            Some(at) if !at.starts_with("http://") && !at.starts_with("https://") => {
                return Err(bad(at, "must begin with https:// (or http://)"));
            }
            Some(_) | None => {}
        }
        let issuers = http::issuers(config.tls_ca.as_deref())?;
        let S3Credentials { key_id, secret, token } = &config.credentials;
        let is_sound = |text: &String| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        if ![Some(key_id), Some(secret), token.as_ref()].into_iter().flatten().all(is_sound) {
            return Err(S3ConfigError::Credentials);
        }
        let bucket_url = config.bucket_url();
        if bucket_url.parse::<hyper::Uri>().is_err() {
            return Err(bad(&bucket_url, "not a URL"));
        }
        let connector = http::Connector::new(issuers);
        let client = connector.connect(&ClientOptions::new())?;
        let mut builder = AmazonS3Builder::new()
            .with_http_connector(connector)
            .with_region(&config.region)
            .with_bucket_name(&config.bucket)
            .with_access_key_id(key_id)
            .with_secret_access_key(secret)
            .with_virtual_hosted_style_request(!config.path_style)
            .with_allow_http(config.allow_http)
            // What not every store has, and nothing here needs.
            .with_conditional_put(S3ConditionalPut::Disabled)
            .with_disable_tagging(true)
            .with_disable_bulk_delete(true)
            .with_retry(RetryConfig {
                backoff: BackoffConfig {
                    init_backoff: RETRY_PAUSE_MIN,
                    max_backoff: RETRY_PAUSE_MAX,
                    base: 2.0,
                },
                max_retries: RETRIES_MAX,
                retry_timeout: RETRY_TIME_MAX,
            });
        if let Some(endpoint) = endpoint {
            // With the bucket in the host's name, the client wants it there already.
            let endpoint = if config.path_style { endpoint.trim_end_matches('/') } else { &bucket_url };
            builder = builder.with_endpoint(endpoint);
        }
        if let Some(token) = token {
            builder = builder.with_token(token);
        }
        let store = builder.build()?;
        let uploads = uploads::Uploads::new(client, bucket_url, config.region.clone());
        Ok(Self { store, prefix: config.prefix.trim_matches('/').to_owned(), uploads })
    }

    fn path(&self, key: &str) -> Path {
        Path::from_iter(self.prefix.split('/').chain(key.split('/')).filter(|part| !part.is_empty()))
    }

    /// The key in a path; `None` where it is none of ours.
    fn key(&self, path: &Path) -> Option<String> {
        let path: &str = path.as_ref();
        Some(path.strip_prefix(self.path("").as_ref())?.trim_start_matches('/').to_owned())
    }
}

impl Objects for S3Objects {
    fn read<'a>(&'a self, key: &'a str, range: Range<u64>) -> Asking<'a, Bytes> {
        Box::pin(async move { self.store.get_range(&self.path(key), range).await.map_err(read_error) })
    }

    fn size<'a>(&'a self, key: &'a str) -> Asking<'a, u64> {
        Box::pin(async move {
            match self.store.head(&self.path(key)).await {
                Ok(meta) => Ok(meta.size),
                // To a HEAD there is no text that could tell a missing object from a missing bucket.
                Err(object_store::Error::NotFound { .. }) => Err(ObjectError::NotFound),
                Err(error) => Err(other_error(&error)),
            }
        })
    }

    fn put<'a>(&'a self, key: &'a str, bytes: Bytes) -> Asking<'a, ()> {
        Box::pin(async move {
            let put = self.store.put(&self.path(key), PutPayload::from(bytes)).await;
            put.map(drop).map_err(|error| other_error(&error))
        })
    }

    fn begin<'a>(&'a self, key: &'a str) -> Asking<'a, String> {
        Box::pin(async move {
            self.store.create_multipart(&self.path(key)).await.map_err(|error| other_error(&error))
        })
    }

    fn put_part<'a>(
        &'a self,
        key: &'a str,
        upload: &'a str,
        index: usize,
        bytes: Bytes,
    ) -> Asking<'a, String> {
        Box::pin(async move {
            let (path, upload) = (self.path(key), upload.to_owned());
            let part = self.store.put_part(&path, &upload, index, PutPayload::from(bytes)).await;
            part.map(|part| part.content_id).map_err(|error| other_error(&error))
        })
    }

    fn complete<'a>(&'a self, key: &'a str, upload: &'a str, parts: Vec<String>) -> Asking<'a, ()> {
        Box::pin(async move {
            let parts = parts.into_iter().map(|content_id| PartId { content_id }).collect();
            let (path, upload) = (self.path(key), upload.to_owned());
            let completed = self.store.complete_multipart(&path, &upload, parts).await;
            completed.map(drop).map_err(|error| other_error(&error))
        })
    }

    fn abort<'a>(&'a self, key: &'a str, upload: &'a str) -> Asking<'a, ()> {
        Box::pin(async move {
            gone_or_not_there(self.store.abort_multipart(&self.path(key), &upload.to_owned()).await)
        })
    }

    fn remove<'a>(&'a self, key: &'a str) -> Asking<'a, ()> {
        Box::pin(async move { gone_or_not_there(self.store.delete(&self.path(key)).await) })
    }

    fn uploads(&self, unit: UnitId) -> Asking<'_, Vec<(String, String)>> {
        Box::pin(async move {
            let prefix = self.path(&unit.to_string());
            let credential =
                self.store.credentials().get_credential().await.map_err(|error| other_error(&error))?;
            let found = self.uploads.list(prefix.as_ref(), &credential).await?;
            let own = found
                .into_iter()
                .filter_map(|(path, upload)| Some((self.key(&Path::parse(path).ok()?)?, upload)));
            Ok(own.collect())
        })
    }

    fn list<'a>(&'a self, unit: UnitId, after: Option<&'a str>) -> Asking<'a, Vec<String>> {
        Box::pin(async move {
            let prefix = self.path(&unit.to_string());
            let listed = match after {
                Some(after) => self.store.list_with_offset(Some(&prefix), &self.path(after)),
                None => self.store.list(Some(&prefix)),
            };
            let page: Vec<_> =
                listed.take(PAGE_MAX).try_collect().await.map_err(|error| other_error(&error))?;
            Ok(page.iter().filter_map(|meta| self.key(&meta.location)).collect())
        })
    }
}

/// An object is missing only where the store says just that: it may as well be the bucket.
fn read_error(error: object_store::Error) -> ObjectError {
    match error {
        object_store::Error::NotFound { .. } if said(&error).contains("NoSuchKey") => ObjectError::NotFound,
        // A range that begins behind the end: the object is shorter than it was.
        error if said(&error).contains("InvalidRange") || said(&error).contains("416") => {
            ObjectError::NotFound
        }
        error => other_error(&error),
    }
}

fn other_error(error: &object_store::Error) -> ObjectError {
    let said = said(error);
    match error {
        object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
            ObjectError::Refused(format!(
                "{said}; look at the access key, its secret and its rights on the bucket"
            ))
        }
        object_store::Error::NotFound { .. } => {
            ObjectError::Refused(format!("{said}; look at the bucket's name and the endpoint"))
        }
        _ if [
            "InvalidAccessKeyId",
            "SignatureDoesNotMatch",
            "AuthorizationHeaderMalformed",
            "AccessDenied",
        ]
        .iter()
        .any(|code| said.contains(code)) =>
        {
            ObjectError::Refused(format!(
                "{said}; look at the access key, its secret, the region and the clock"
            ))
        }
        _ => ObjectError::Away(said),
    }
}

/// The error and what lies below it, in one line of bounded length.
fn said(error: &object_store::Error) -> String {
    let mut said = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        let text = inner.to_string();
        if !said.contains(&text) {
            said = format!("{said}: {text}");
        }
        source = inner.source();
    }
    let line: String =
        said.chars().map(|char| if char.is_control() { ' ' } else { char }).take(SAID_MAX).collect();
    line
}

/// Characters of a store's error that go into a log.
const SAID_MAX: usize = 600;

fn gone_or_not_there(done: Result<(), object_store::Error>) -> Result<(), ObjectError> {
    match done {
        Ok(()) => Ok(()),
        Err(error @ object_store::Error::NotFound { .. }) if !said(&error).contains("NoSuchBucket") => Ok(()),
        Err(error) => Err(other_error(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> S3Config {
        S3Config {
            endpoint: Some("https://s3.example.org/".to_owned()),
            region: "garage".to_owned(),
            bucket: "mail".to_owned(),
            prefix: "/lighter/".to_owned(),
            credentials: S3Credentials {
                key_id: "GK1".to_owned(),
                secret: "very-secret".to_owned(),
                token: None,
            },
            path_style: true,
            allow_http: false,
            tls_ca: None,
        }
    }

    #[test]
    fn keys_lie_below_the_prefix_and_come_back_from_a_list() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let objects = S3Objects::new(&config()).unwrap();
        let path = objects.path("0505/1f-a0");
        assert_eq!(path.as_ref(), "lighter/0505/1f-a0");
        assert_eq!(objects.key(&path).as_deref(), Some("0505/1f-a0"));
        let bare = S3Objects::new(&S3Config { prefix: String::new(), ..config() }).unwrap();
        assert_eq!(bare.path("0505/here").as_ref(), "0505/here");
        assert_eq!(bare.key(&bare.path("0505/here")).as_deref(), Some("0505/here"));
    }

    #[test]
    fn an_endpoint_without_tls_is_used_only_where_that_was_said() {
        let plain = S3Config { endpoint: Some("http://127.0.0.1:3900".to_owned()), ..config() };
        assert!(S3Objects::new(&plain).unwrap_err().to_string().contains("allow_http"));
        S3Objects::new(&S3Config { allow_http: true, ..plain }).unwrap();
        let no_url = S3Config { endpoint: Some("s3.example.org".to_owned()), ..config() };
        assert!(S3Objects::new(&no_url).unwrap_err().to_string().contains("https://"));
    }

    #[test]
    fn the_bucket_is_in_the_path_or_in_the_hosts_name() {
        assert_eq!(config().bucket_url(), "https://s3.example.org/mail");
        assert_eq!(S3Config { path_style: false, ..config() }.bucket_url(), "https://mail.s3.example.org");
        let amazon =
            S3Config { endpoint: None, region: "eu-central-1".to_owned(), path_style: false, ..config() };
        assert_eq!(amazon.bucket_url(), "https://mail.s3.eu-central-1.amazonaws.com");
    }

    #[test]
    fn a_key_that_can_be_none_is_refused_before_it_is_sent() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        for secret in ["", "with a blank", "line\n"] {
            let credentials = S3Credentials { secret: secret.to_owned(), ..config().credentials };
            let refused = S3Objects::new(&S3Config { credentials, ..config() });
            assert!(matches!(refused, Err(S3ConfigError::Credentials)), "{secret:?}");
        }
    }

    #[test]
    fn a_secret_is_never_in_a_debug_text() {
        let objects = S3Objects::new(&config()).unwrap();
        assert!(!format!("{:?} {objects:?}", config()).contains("very-secret"));
    }
}
