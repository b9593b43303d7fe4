//! Where the catalog is: in a file of this relay's, or in a database that several relays share.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lighter_catalog::limits::{DATABASE_CONNECTIONS, LEASE_DEFAULT_S, LEASE_MAX_S, LEASE_MIN_S};
use lighter_catalog::{DatabaseTls, PostgresConfig};
use lighter_protocol::PeerId;
use serde::{Deserialize, Serialize};

use super::ConfigError;

/// Where the catalog is.
#[derive(Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CatalogConfig {
    /// What keeps it.
    pub engine: CatalogEngine,
    /// With `postgresql`: `postgresql://USER@HOST/NAME`, or `host=… user=… dbname=…`. Several hosts: the primary among
    /// them is used. None: it is in `url_file`.
    pub url: Option<String>,
    /// A file with the url, where it holds a password. None: it is in `url`.
    pub url_file: Option<PathBuf>,
    /// Whether the connection is encrypted.
    pub tls: CatalogTls,
    /// With `tls = "verified"`: a PEM file with the issuers whose certificates count. None: the system's.
    pub tls_ca: Option<PathBuf>,
    /// Connections at most.
    pub connections: usize,
    /// Seconds after which other relays take over what this one had under way when it was heard of last.
    pub lease_seconds: u64,
}

/// What keeps the catalog.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CatalogEngine {
    /// A file below the data folder, made from the array's log: one relay.
    #[default]
    Embedded,
    /// A database, shared by any number of relays.
    PostgreSql,
}

/// Whether the connection to the database is encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CatalogTls {
    /// Never: a Unix socket, or a network that is trusted.
    #[default]
    Off,
    /// Always, with whatever certificate the database shows.
    Unverified,
    /// Always, with a certificate that is valid for the database's name.
    Verified,
}

impl Default for CatalogConfig {
    fn default() -> Self {
        Self {
            engine: CatalogEngine::default(),
            url: None,
            url_file: None,
            tls: CatalogTls::default(),
            tls_ca: None,
            connections: DATABASE_CONNECTIONS,
            lease_seconds: LEASE_DEFAULT_S,
        }
    }
}

/// Without the url: it may hold a password.
impl fmt::Debug for CatalogConfig {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { engine, url, url_file, tls, tls_ca, connections, lease_seconds } = self;
        formatter
            .debug_struct("CatalogConfig")
            .field("engine", engine)
            .field("url", &url.as_ref().map(|_| "…"))
            .field("url_file", url_file)
            .field("tls", tls)
            .field("tls_ca", tls_ca)
            .field("connections", connections)
            .field("lease_seconds", lease_seconds)
            .finish()
    }
}

impl CatalogConfig {
    /// Whether its values go together.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let is_named = self.url.is_some() || self.url_file.is_some();
        match self.engine {
            CatalogEngine::Embedded if is_named => {
                Err(ConfigError::Value("catalog.url: goes with catalog.engine = \"postgresql\""))
            }
            CatalogEngine::PostgreSql if self.url.is_some() == self.url_file.is_some() => {
                Err(ConfigError::Value("catalog.url or catalog.url_file: give one of them"))
            }
            _ if self.tls_ca.is_some() && self.tls != CatalogTls::Verified => {
                Err(ConfigError::Value("catalog.tls_ca: goes with catalog.tls = \"verified\""))
            }
            _ if !(LEASE_MIN_S..=LEASE_MAX_S).contains(&self.lease_seconds) => {
                Err(ConfigError::Value("catalog.lease_seconds: 5 to 600"))
            }
            _ => Ok(()),
        }
    }

    /// How the database is reached, by relay `peer`. None: there is none, the catalog is in a file.
    ///
    /// # Errors
    /// The file with the url cannot be read.
    pub fn database(&self, peer: PeerId, name: &str) -> Result<Option<PostgresConfig>, ConfigError> {
        if self.engine == CatalogEngine::Embedded {
            return Ok(None);
        }
        let url = match (&self.url, &self.url_file) {
            (Some(url), _) => url.clone(),
            (None, Some(path)) => read(path)?,
            (None, None) => {
                return Err(ConfigError::Value("catalog.url or catalog.url_file: give one of them"));
            }
        };
        let tls = match self.tls {
            CatalogTls::Off => DatabaseTls::Off,
            CatalogTls::Unverified => DatabaseTls::Unverified,
            CatalogTls::Verified => DatabaseTls::Verified { issuers: self.tls_ca.clone() },
        };
        let lease = Duration::from_secs(self.lease_seconds);
        Ok(Some(PostgresConfig {
            tls,
            connections: self.connections,
            lease,
            ..PostgresConfig::new(url, peer, name)
        }))
    }
}

fn read(path: &Path) -> Result<String, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<CatalogConfig, String> {
        let config: CatalogConfig = toml::from_str(text).map_err(|error| error.to_string())?;
        config.check().map_err(|error| error.to_string())?;
        Ok(config)
    }

    #[test]
    fn the_catalog_is_in_a_file_unless_a_database_is_named() {
        let peer = lighter_transport::Identity::generate().peer();
        assert!(parse("").unwrap().database(peer, "mx").unwrap().is_none());
        let named = parse("engine = \"postgresql\"\nurl = \"postgresql://lighter:secret@db/mail\"").unwrap();
        let database = named.database(peer, "mx").unwrap().unwrap();
        assert_eq!((database.relay, database.name.as_str()), (peer, "mx"));
        assert!(!format!("{named:?}").contains("secret"));
    }

    #[test]
    fn a_url_in_a_file_is_read_from_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("url");
        std::fs::write(&path, "host=/run/postgresql dbname=mail\n").unwrap();
        let config = parse(&format!("engine = \"postgresql\"\nurl_file = {path:?}")).unwrap();
        let peer = lighter_transport::Identity::generate().peer();
        assert_eq!(config.database(peer, "mx").unwrap().unwrap().url, "host=/run/postgresql dbname=mail");
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        for text in [
            "url = \"host=db\"",
            "engine = \"postgresql\"",
            "engine = \"postgresql\"\nurl = \"a\"\nurl_file = \"b\"",
            "engine = \"postgresql\"\nurl = \"a\"\ntls_ca = \"b\"",
            "lease_seconds = 1",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
