//! An object store for sealed segments: where it is, who we are there, and what is moved when (SPEC D10).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lighter_storage::limits::MOVE_AFTER_DAYS_DEFAULT;
use lighter_storage::objects::s3::{S3Config, S3ConfigError, S3Credentials, S3Objects};
use lighter_storage::objects::{Depot, DepotRules};
use serde::{Deserialize, Serialize};

/// An S3 store, and what is moved there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObjectStoreConfig {
    /// `https://HOST[:PORT]`. None: Amazon's, in `region`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The region that requests are signed for: what the store calls itself.
    #[serde(default = "default_region")]
    pub region: String,
    /// The bucket. It must be there, and needs no lifecycle rule and no versions.
    pub bucket: String,
    /// What all keys begin with; several servers may have the same, each unit has its own folder below.
    #[serde(default = "default_prefix")]
    pub prefix: String,
    /// A file with `access_key_id = …`, `secret_access_key = …` and perhaps `session_token = …`, one on a line. None: the
    /// variables AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_file: Option<PathBuf>,
    /// Whether the bucket is named in the path rather than in the host's name. None: with an endpoint, it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_style: Option<bool>,
    /// Whether `http://` will do.
    #[serde(default)]
    pub allow_http: bool,
    /// A PEM file with the issuers whose certificates count. None: the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_ca: Option<PathBuf>,
    /// Whole days after a segment's storage day before it is moved; 0: as soon as it is sealed.
    #[serde(default = "default_after_days")]
    pub after_days: u32,
    /// MiB of sealed segments that each unit keeps on its own disk: the newest.
    #[serde(default)]
    pub keep_local_mib: u64,
}

/// Why the store cannot be used as it is configured.
#[derive(Debug, thiserror::Error)]
pub enum ObjectStoreError {
    /// The credentials' file cannot be read.
    #[error("the object store's credentials_file {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Something is missing in it.
    #[error("the object store's credentials_file {}: no `{field} = …` in it", path.display())]
    Field {
        /// The file.
        path: PathBuf,
        /// What.
        field: &'static str,
    },
    /// There are no credentials at all.
    #[error(
        "the object store has no credentials: set credentials_file, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    )]
    NoCredentials,
    /// The store's own.
    #[error(transparent)]
    Store(#[from] S3ConfigError),
}

impl ObjectStoreConfig {
    /// The store, to be used by one server. Nothing is asked of it yet.
    ///
    /// # Errors
    /// See [`ObjectStoreError`].
    pub fn depot(&self) -> Result<Arc<Depot>, ObjectStoreError> {
        let objects = S3Objects::new(&S3Config {
            endpoint: self.endpoint.clone(),
            region: self.region.clone(),
            bucket: self.bucket.clone(),
            prefix: self.prefix.clone(),
            credentials: self.credentials()?,
            path_style: self.path_style.unwrap_or(self.endpoint.is_some()),
            allow_http: self.allow_http,
            tls_ca: self.tls_ca.clone(),
        })?;
        let keep_local_bytes = self.keep_local_mib.saturating_mul(1024 * 1024);
        let rules = DepotRules { after_days: self.after_days, keep_local_bytes };
        Ok(Arc::new(Depot::new(Arc::new(objects), self.place(), rules)))
    }

    /// Which bucket: two configurations that say the same mean the same one.
    pub fn place(&self) -> String {
        let endpoint = self.endpoint.as_deref().unwrap_or("Amazon S3").trim_end_matches('/');
        format!("{endpoint} bucket {}", self.bucket)
    }

    fn credentials(&self) -> Result<S3Credentials, ObjectStoreError> {
        let Some(path) = &self.credentials_file else {
            let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
            let key_id = variable("AWS_ACCESS_KEY_ID").ok_or(ObjectStoreError::NoCredentials)?;
            let secret = variable("AWS_SECRET_ACCESS_KEY").ok_or(ObjectStoreError::NoCredentials)?;
            return Ok(S3Credentials { key_id, secret, token: variable("AWS_SESSION_TOKEN") });
        };
        let text = std::fs::read_to_string(path)
            .map_err(|source| ObjectStoreError::Read { path: path.clone(), source })?;
        read_credentials(&text, path)
    }
}

/// Reads `NAME = VALUE` lines; the names may begin with `aws_`, as in the files of other programs. Other lines, such as
/// `[default]`, and empty ones do not matter.
fn read_credentials(text: &str, path: &Path) -> Result<S3Credentials, ObjectStoreError> {
    let value_of = |field: &str| {
        text.lines().find_map(|line| {
            let (name, value) = line.split_once('=')?;
            let name = name.trim();
            let is_it = name == field || name.strip_prefix("aws_") == Some(field);
            is_it.then(|| value.trim().trim_matches('"').to_owned()).filter(|value| !value.is_empty())
        })
    };
    let needed = |field: &'static str| {
        value_of(field).ok_or_else(|| ObjectStoreError::Field { path: path.to_owned(), field })
    };
    Ok(S3Credentials {
        key_id: needed("access_key_id")?,
        secret: needed("secret_access_key")?,
        token: value_of("session_token"),
    })
}

fn default_region() -> String {
    "us-east-1".to_owned()
}

fn default_prefix() -> String {
    "lighter".to_owned()
}

fn default_after_days() -> u32 {
    MOVE_AFTER_DAYS_DEFAULT
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::StorageConfig;

    #[test]
    fn a_bucket_is_enough_and_the_rest_has_defaults() {
        let config: StorageConfig = toml::from_str("[object_store]\nbucket = \"mail\"").unwrap();
        let store = config.object_store.unwrap();
        assert_eq!((store.region.as_str(), store.prefix.as_str()), ("us-east-1", "lighter"));
        assert_eq!((store.after_days, store.keep_local_mib, store.allow_http), (1, 0, false));
        assert_eq!(store.place(), "Amazon S3 bucket mail");
        assert!(toml::from_str::<StorageConfig>("[object_store]\nbuckt = \"mail\"").is_err());
        assert!(toml::from_str::<StorageConfig>("[object_store]\nregion = \"x\"").is_err(), "no bucket");
    }

    #[test]
    fn credentials_are_read_from_the_files_that_other_programs_have_too() {
        let path = Path::new("key");
        let text = "[default]\n# mail\naws_access_key_id = GK1\naws_secret_access_key=\"s3cr=et\"\n";
        let read = read_credentials(text, path).unwrap();
        assert_eq!((read.key_id.as_str(), read.secret.as_str(), read.token), ("GK1", "s3cr=et", None));
        let missing = read_credentials("access_key_id = GK1\nsecret_access_key =\n", path).unwrap_err();
        assert!(missing.to_string().contains("secret_access_key"), "{missing}");
    }
}
