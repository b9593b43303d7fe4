//! The relay's configuration: TOML on disk, checked values inside.
//!
//! The default, with no file at all, runs everything on one laptop: a location server, two storage servers, SMTP and
//! LMTP on loopback, mail handed over to Maildirs. Every field has a default; every `None` says what it means.

mod array;
mod catalog;
mod drops;
mod object_store;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use lighter_location::address::Network;
use serde::{Deserialize, Serialize};

pub use array::{ArrayConfig, ArrayServerConfig, StorageConfig, StorageServerConfig};
pub use catalog::{CatalogConfig, CatalogEngine, CatalogTls};
pub use drops::DropsConfig;
pub use object_store::{ObjectStoreConfig, ObjectStoreError};

use crate::limits::CONFIG_LEN_MAX;

/// What one process of `lighter-relay serve` does.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Takes mail by SMTP.
    Smtp,
    /// Takes mail by LMTP.
    Lmtp,
    /// Runs storage servers on this machine's units.
    Storage,
    /// Gives attachments out over HTTP by ticket.
    Web,
    /// Runs a location server inside this process (SPEC A16).
    Location,
}

impl Role {
    /// Every role: what runs where none is named.
    pub const ALL: [Self; 5] = [Self::Smtp, Self::Lmtp, Self::Storage, Self::Web, Self::Location];

    /// Whether this role needs the array, the catalog and the delivery queue: everything but serving storage or
    /// locations does.
    pub fn is_mail(self) -> bool {
        matches!(self, Self::Smtp | Self::Lmtp | Self::Web)
    }
}

/// The whole configuration of `lighter-relay`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where keys, the catalog's view and, by default, storage units and Maildirs lie.
    pub data: PathBuf,
    /// The name that this relay says in SMTP greetings and writes in the fields it adds (RFC 5321 §2.3.5).
    pub hostname: String,
    /// Domains whose recipients are served: mail for them is taken from everybody, and they are looked up. Empty: every
    /// recipient is looked up, whatever the domain, and mail is taken from `trusted` only.
    pub domains: Vec<String>,
    /// Networks that may send to every domain: mail servers of one's own. Loopback by default.
    pub trusted: Vec<Network>,
    /// What this process does; `--role` overrides it.
    pub roles: Vec<Role>,
    /// SMTP in.
    pub smtp: MailListener,
    /// LMTP in.
    pub lmtp: MailListener,
    /// Where mail goes on to.
    pub next_hop: NextHopConfig,
    /// The location server.
    pub location: LocationConfig,
    /// Storage servers that this process runs.
    pub storage: StorageConfig,
    /// The storage array as this relay's writer sees it.
    pub array: ArrayConfig,
    /// Where the catalog is.
    pub catalog: CatalogConfig,
    /// The QUIC endpoint for agents.
    pub quic: QuicConfig,
    /// The same for agents where UDP is blocked: TLS on TCP.
    pub tcp: TcpConfig,
    /// Retrieval by ticket over HTTP.
    pub web: WebConfig,
    /// What is taken out of a message.
    pub detach: DetachConfig,
    /// How long things are kept.
    pub retention: RetentionConfig,
    /// How the queue behaves.
    pub queue: QueueConfig,
    /// What senders may leave for stores that are not there.
    pub drops: DropsConfig,
}

/// One mail listener.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MailListener {
    /// Addresses to listen on; port 0 takes one from the kernel.
    pub listen: Vec<SocketAddr>,
    /// Certificate chain for STARTTLS, PEM. None: STARTTLS is not offered.
    pub tls_certificate: Option<PathBuf>,
    /// Its key, PEM. None: STARTTLS is not offered.
    pub tls_key: Option<PathBuf>,
    /// Bytes in a message, at most (RFC 1870); larger ones are refused with 552.
    pub message_bytes_max: u64,
}

impl Default for MailListener {
    fn default() -> Self {
        Self { listen: Vec::new(), tls_certificate: None, tls_key: None, message_bytes_max: 2 << 30 }
    }
}

/// Where the stub, or the whole message, goes.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum NextHopConfig {
    /// One Maildir for each mailbox: `PATH/DOMAIN/LOCAL`. The embedded default.
    Maildir {
        /// None: `maildir` below the data folder.
        path: Option<PathBuf>,
    },
    /// A mail server that speaks SMTP.
    Smtp {
        /// `HOST:PORT`.
        address: String,
        /// Whether the connection is encrypted.
        #[serde(default)]
        tls: NextHopTls,
        /// With `tls = "required"`: a PEM file with the issuers whose certificates count. None: the system's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tls_ca: Option<PathBuf>,
    },
    /// A mail server that speaks LMTP (RFC 2033), Dovecot for one.
    Lmtp {
        /// `HOST:PORT`.
        address: String,
        /// Whether the connection is encrypted.
        #[serde(default)]
        tls: NextHopTls,
        /// With `tls = "required"`: a PEM file with the issuers whose certificates count. None: the system's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tls_ca: Option<PathBuf>,
    },
}

/// Whether a connection to the next hop is encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NextHopTls {
    /// Where the next hop offers STARTTLS; any certificate will do (RFC 7435).
    #[default]
    Opportunistic,
    /// Always, with a certificate that verifies; otherwise mail waits.
    Required,
    /// Never: for a next hop on the same machine.
    Off,
}

/// The location server that this relay asks, and the one that it runs where it has that role.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LocationConfig {
    /// `http://HOST:PORT` or `https://HOST`. None: the one in this process.
    pub url: Option<String>,
    /// A file with the API token (scopes `lookup`, `presence`, `relay`). None: the one in this process makes one.
    pub token_file: Option<PathBuf>,
    /// Where the one in this process listens. None: 127.0.0.1:7080.
    pub listen: Option<SocketAddr>,
}

/// The QUIC endpoint for agents.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QuicConfig {
    /// UDP address to listen on.
    pub listen: SocketAddr,
    /// Addresses that agents are told. Empty: the one listened on; where that is a wildcard, loopback.
    pub advertise: Vec<SocketAddr>,
}

impl Default for QuicConfig {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 7443)), advertise: Vec::new() }
    }
}

/// The way in for agents where UDP is blocked (SPEC A30).
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TcpConfig {
    /// Whether there is one.
    pub enabled: bool,
    /// TCP address to listen on. None: the same as `quic.listen`. Agents dial the port that they know of QUIC: another one
    /// here is for a router in front that passes that one on.
    pub listen: Option<SocketAddr>,
}

impl Default for TcpConfig {
    fn default() -> Self {
        Self { enabled: true, listen: None }
    }
}

/// Retrieval by ticket over HTTP.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebConfig {
    /// TCP address to listen on.
    pub listen: SocketAddr,
    /// What links in placeholders begin with: `https://files.example.org`. None: `http://` and the address listened on.
    pub url: Option<String>,
    /// Networks of web servers in front of this one: what they say in `X-Forwarded-For` is believed. Loopback by default.
    pub proxies: Vec<Network>,
}

impl Default for WebConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7081)),
            url: None,
            proxies: Network::loopback().to_vec(),
        }
    }
}

/// What is taken out of a message (DESIGN §5).
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DetachConfig {
    /// Bytes, decoded: smaller parts stay in the message.
    pub size_bytes_min: u64,
    /// Also take out what is left alone by default: signed and encrypted mail, calendar parts, inline pictures.
    pub everything: bool,
}

impl Default for DetachConfig {
    fn default() -> Self {
        Self { size_bytes_min: 256 * 1024, everything: false }
    }
}

/// How long things are kept.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetentionConfig {
    /// Days that a delivery waits for its store; rounded up to a class of 7, 30, 90 or 365 (DESIGN §8).
    pub days: u32,
    /// Days that a copy stays after its receipt, for the landing page and other devices; 0 frees it at once.
    pub keep_after_receipt_days: u32,
}

impl Default for RetentionConfig {
    fn default() -> Self {
        Self { days: 30, keep_after_receipt_days: 14 }
    }
}

/// How the queue behaves.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QueueConfig {
    /// Seconds between pings of a store whose presence is unknown (SPEC A18).
    pub ping_interval_s: u64,
    /// Hours after which a message that the next hop does not take goes back to its sender (RFC 5321 §4.5.4.1: 4 to 5 days).
    pub give_up_hours: u64,
    /// Whether attachments are pushed to stores that take that, instead of waiting to be asked for them (SPEC A19).
    pub push: bool,
    /// MiB of a delivery's attachments up to which they are pushed. None: any.
    pub push_mib_max: Option<u64>,
}

impl QueueConfig {
    /// Bytes of a delivery up to which it is pushed. None: nothing is.
    pub fn push_bytes_max(&self) -> Option<u64> {
        self.push.then(|| self.push_mib_max.map_or(u64::MAX, |mib| mib.saturating_mul(1024 * 1024)))
    }
}

impl Default for QueueConfig {
    fn default() -> Self {
        Self { ping_interval_s: 300, give_up_hours: 120, push: false, push_mib_max: None }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data: default_data(),
            hostname: default_hostname(),
            domains: Vec::new(),
            trusted: Network::loopback().to_vec(),
            roles: Role::ALL.to_vec(),
            smtp: MailListener {
                listen: vec![SocketAddr::from(([127, 0, 0, 1], 2525))],
                ..MailListener::default()
            },
            lmtp: MailListener {
                listen: vec![SocketAddr::from(([127, 0, 0, 1], 2424))],
                ..MailListener::default()
            },
            next_hop: NextHopConfig::Maildir { path: None },
            location: LocationConfig::default(),
            storage: StorageConfig::default(),
            array: ArrayConfig::default(),
            catalog: CatalogConfig::default(),
            quic: QuicConfig::default(),
            tcp: TcpConfig::default(),
            web: WebConfig::default(),
            detach: DetachConfig::default(),
            retention: RetentionConfig::default(),
            queue: QueueConfig::default(),
            drops: DropsConfig::default(),
        }
    }
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is far too large to be a configuration.
    #[error("{path} is over {CONFIG_LEN_MAX} bytes: is it a configuration file?")]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// It is not TOML, or has a field that does not exist.
    #[error("{path}: {source}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and what.
        source: Box<toml::de::Error>,
    },
    /// Values that do not go together.
    #[error("{0}")]
    Value(&'static str),
}

impl Config {
    /// Reads `file`, or takes the default where there is none, and checks it.
    ///
    /// # Errors
    /// Says which file, and what in it, cannot be used.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        let config = match file {
            None => Self::default(),
            Some(path) => Self::read(path)?,
        };
        config.check()?;
        Ok(config)
    }

    fn read(path: &Path) -> Result<Self, ConfigError> {
        let read_error = |source| ConfigError::Read { path: path.to_owned(), source };
        if std::fs::metadata(path).map_err(read_error)?.len() > CONFIG_LEN_MAX {
            return Err(ConfigError::TooLarge { path: path.to_owned() });
        }
        let text = std::fs::read_to_string(path).map_err(read_error)?;
        toml::from_str(&text)
            .map_err(|source| ConfigError::Syntax { path: path.to_owned(), source: Box::new(source) })
    }

    fn check(&self) -> Result<(), ConfigError> {
        for listener in [&self.smtp, &self.lmtp] {
            if listener.tls_certificate.is_some() != listener.tls_key.is_some() {
                return Err(ConfigError::Value(
                    "tls_certificate and tls_key go together: give both, or neither",
                ));
            }
        }
        if self.array.copies < 2 {
            return Err(ConfigError::Value(
                "array.copies: at least 2, mail is kept on two servers before it is acknowledged",
            ));
        }
        if self.array.acknowledge_after.is_some_and(|after| after == 0 || after > self.array.copies) {
            return Err(ConfigError::Value(
                "array.acknowledge_after: from 1 to array.copies; leave it out, and all copies are waited for",
            ));
        }
        if !self.array.servers.is_empty() && self.array.servers.len() < self.array.copies {
            return Err(ConfigError::Value("array.servers: fewer servers than copies"));
        }
        if self.location.url.is_some() != self.location.token_file.is_some() {
            return Err(ConfigError::Value(
                "location.url and location.token_file go together: give both, or neither",
            ));
        }
        self.catalog.check()?;
        self.drops.check()?;
        if self.retention.days == 0 || self.retention.days > RETENTION_DAYS_MAX {
            return Err(ConfigError::Value("retention.days: 1 to 365"));
        }
        Ok(())
    }

    /// Where Maildirs lie, for a next hop of that kind.
    pub fn maildir(&self) -> Option<PathBuf> {
        match &self.next_hop {
            NextHopConfig::Maildir { path } => {
                Some(path.clone().unwrap_or_else(|| self.data.join("maildir")))
            }
            NextHopConfig::Smtp { .. } | NextHopConfig::Lmtp { .. } => None,
        }
    }
}

/// The longest retention class, in days (DESIGN §2).
const RETENTION_DAYS_MAX: u32 = 365;

/// `$XDG_DATA_HOME/lighter-relay`, else `~/.local/share/lighter-relay`, else below the working folder.
fn default_data() -> PathBuf {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/share"));
    let base = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from).or_else(home).unwrap_or_default();
    base.join("lighter-relay")
}

/// The machine's node name; `localhost` where that is no text.
fn default_hostname() -> String {
    let name = rustix::system::uname();
    name.nodename().to_str().ok().filter(|name| !name.is_empty()).unwrap_or("localhost").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        let config: Config = toml::from_str(text).map_err(|error| error.to_string())?;
        config.check().map_err(|error| error.to_string())?;
        Ok(config)
    }

    #[test]
    fn an_empty_file_is_the_default() {
        let config = parse("").unwrap();
        assert_eq!(config.roles, Role::ALL);
        assert_eq!(config.array.copies, 2);
    }

    #[test]
    fn a_field_that_does_not_exist_is_refused_by_name() {
        let error = parse("hostnam = \"mx.example.org\"").unwrap_err();
        assert!(error.contains("hostnam"), "{error}");
    }

    #[test]
    fn what_is_written_out_reads_back_the_same() {
        let config = Config::default();
        let text = toml::to_string(&config).unwrap();
        assert_eq!(toml::to_string(&parse(&text).unwrap()).unwrap(), text);
    }

    #[test]
    fn one_copy_is_never_enough() {
        // SPEC: C1, B12
        assert!(parse("[array]\ncopies = 1").unwrap_err().contains("at least 2"));
    }

    #[test]
    fn mail_is_acknowledged_after_one_copy_at_least_and_no_more_than_there_are() {
        // SPEC: B12
        assert_eq!(parse("").unwrap().array.acknowledge_after, None);
        assert_eq!(parse("[array]\nacknowledge_after = 1").unwrap().array.acknowledge_after, Some(1));
        for wrong in ["acknowledge_after = 0", "acknowledge_after = 3"] {
            let error = parse(&format!("[array]\n{wrong}")).unwrap_err();
            assert!(error.contains("from 1 to array.copies"), "{error}");
        }
    }

    #[test]
    fn half_a_certificate_is_refused() {
        assert!(parse("[smtp]\ntls_key = \"k.pem\"").unwrap_err().contains("go together"));
    }
}
