//! The agent's configuration (TOML) and its folders. `setup` writes the file; everything in it but mailbox and location
//! server has a default.
//!
//! Here: the whole of it, read and written. Its tables lie in the files below by what they are about, and are used by their
//! names here:
//!
//! - `network`: `[location]`, `[key]`, `[quic]`, `[network]`;
//! - `mail`: `[smtp]`, `[submission]`, `[outgoing]`;
//! - `send`: `[send]`, `[outbox]`, `[address_books]`;
//! - `store`: `[store]`, `[hosted]`;
//! - `paths`: where all files are.
//!
//! `[finding]` is `lighter_transport::location`'s, `[guest]` is [`crate::guest`]'s.

mod mail;
mod network;
mod paths;
mod send;
mod store;

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use lighter_protocol::Mailbox;
use lighter_transport::location::FindingConfig;
use serde::{Deserialize, Serialize};

use crate::guest::decide::GuestConfig;
use crate::limits::CONFIG_LEN_MAX;
pub use mail::{OutgoingConfig, SmtpConfig, SmtpTls, SubmissionConfig};
pub use network::{KeyConfig, LocationConfig, NetworkConfig, QuicConfig};
pub use paths::Paths;
pub use send::{AddressBooksConfig, OutboxConfig, SendConfig};
pub use store::{HostedConfig, StoreConfig};

/// Bytes in the unit that sizes are written in.
const MIB: u64 = 1024 * 1024;

/// Why there is no usable configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// `setup` has not been run, or with another `--config`.
    #[error("{} is not there: run `lighter-agent setup` first", .0.display())]
    Missing(PathBuf),
    /// The file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("{}: {source}", path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// The file is larger than any configuration is.
    #[error("{} is no configuration: larger than {CONFIG_LEN_MAX} bytes", .0.display())]
    TooLong(PathBuf),
    /// The user has no home folder.
    #[error("no home folder: give --config and --data")]
    NoHome,
}

/// What the agent is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Whose agent it is.
    pub mailbox: Mailbox,
    /// The location server.
    pub location: LocationConfig,
    /// How the location servers of other domains are found.
    #[serde(default, skip_serializing_if = "FindingConfig::is_default")]
    pub finding: FindingConfig,
    /// Where the key is.
    #[serde(default)]
    pub key: KeyConfig,
    /// The endpoint for other peers.
    #[serde(default)]
    pub quic: QuicConfig,
    /// Ways to other peers.
    #[serde(default, skip_serializing_if = "NetworkConfig::is_default")]
    pub network: NetworkConfig,
    /// Where `send` hands mail to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub smtp: Option<SmtpConfig>,
    /// The mail server on this machine that mail clients send through.
    #[serde(default, skip_serializing_if = "SubmissionConfig::is_default")]
    pub submission: SubmissionConfig,
    /// The mail server that takes mail of other mail servers, and sends it for all their users.
    #[serde(default, skip_serializing_if = "OutgoingConfig::is_default")]
    pub outgoing: OutgoingConfig,
    /// How `send` decides.
    #[serde(default)]
    pub send: SendConfig,
    /// The folder that is watched for what is to be sent.
    #[serde(default, skip_serializing_if = "OutboxConfig::is_default")]
    pub outbox: OutboxConfig,
    /// What is kept.
    #[serde(default)]
    pub store: StoreConfig,
    /// Where groups are looked up.
    #[serde(default, skip_serializing_if = "AddressBooksConfig::is_default")]
    pub address_books: AddressBooksConfig,
    /// Where this agent is the store of a mail service's users; absent: of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hosted: Option<HostedConfig>,
    /// How much of line, battery and time transfers may use.
    #[serde(default, skip_serializing_if = "GuestConfig::is_default")]
    pub guest: GuestConfig,
}

impl Config {
    /// Reads the file.
    ///
    /// # Errors
    /// [`ConfigError`] says which file, and where in it.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let failed = |source| ConfigError::Io { path: path.to_owned(), source };
        let file = match std::fs::File::open(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(ConfigError::Missing(path.to_owned()));
            }
            opened => opened.map_err(failed)?,
        };
        let mut text = String::new();
        file.take(CONFIG_LEN_MAX + 1).read_to_string(&mut text).map_err(failed)?;
        if text.len() as u64 > CONFIG_LEN_MAX {
            return Err(ConfigError::TooLong(path.to_owned()));
        }
        toml::from_str(&text)
            .map_err(|source| ConfigError::Malformed { path: path.to_owned(), source: Box::new(source) })
    }

    /// The domains whose users are sent for, as mailboxes have them.
    pub fn outgoing_domains(&self) -> Vec<String> {
        match self.outgoing.domains.as_slice() {
            [] => vec![self.mailbox.domain().to_owned()],
            named => named.iter().map(|domain| domain.to_lowercase()).collect(),
        }
    }

    /// Whether messages of `sender` are sent for them.
    pub fn speaks_for(&self, sender: &Mailbox) -> bool {
        self.outgoing.listen.is_some()
            && self.outgoing_domains().iter().any(|domain| domain == sender.domain())
    }

    /// Writes the file, readable by its owner only; one that is there is replaced as a whole.
    ///
    /// # Errors
    /// [`ConfigError::Io`].
    pub fn write(&self, path: &Path) -> Result<(), ConfigError> {
        let failed = |source| ConfigError::Io { path: path.to_owned(), source };
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
        }
        let text = toml::to_string_pretty(self).map_err(|error| failed(std::io::Error::other(error)))?;
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".new");
        let temporary = PathBuf::from(temporary);
        let mut options = OpenOptions::new();
        let mut file =
            options.write(true).create(true).truncate(true).mode(0o600).open(&temporary).map_err(failed)?;
        file.write_all(HEADING.as_bytes()).map_err(failed)?;
        file.write_all(text.as_bytes()).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        std::fs::rename(&temporary, path).map_err(failed)
    }
}

const HEADING: &str = "# Written by `lighter-agent setup`; see docs/OPERATING.md for what can be set.\n\n";

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use lighter_store::Settings;

    use super::*;

    fn example() -> Config {
        Config {
            mailbox: "alice@example.org".parse().unwrap(),
            location: LocationConfig {
                url: "https://location.example.org".to_owned(),
                peer: lighter_protocol::Keypair::ed25519_from_bytes([1; 32]).unwrap().public().to_peer_id(),
                ca_file: None,
            },
            finding: FindingConfig {
                domains: [("example.com".to_owned(), "https://location.example.com".to_owned())].into(),
                name_servers: vec!["192.0.2.53:53".parse().unwrap()],
                allowed_networks: vec!["10.0.0.0/8".parse().unwrap()],
                ca_file: None,
            },
            key: KeyConfig::Keyring { entry: "alice@example.org 1".to_owned() },
            quic: QuicConfig { advertise: vec!["192.0.2.1:7443".parse().unwrap()], ..QuicConfig::default() },
            network: NetworkConfig {
                port_mapping: false,
                mdns: false,
                proxy: Some("http://proxy.example.org:3128".to_owned()),
                no_proxy: "example.org".to_owned(),
            },
            smtp: Some(SmtpConfig {
                tls: SmtpTls::Required,
                ca_file: Some("ca.pem".into()),
                ..SmtpConfig::new("mx.example.org:25".to_owned())
            }),
            submission: SubmissionConfig {
                listen: Some("127.0.0.1:5870".parse().unwrap()),
                senders: vec!["sales@example.org".parse().unwrap()],
            },
            hosted: Some(HostedConfig { quota_mib: Some(9), quotas_mib: BTreeMap::new() }),
            outgoing: OutgoingConfig {
                listen: Some("192.0.2.1:10025".parse().unwrap()),
                clients: vec!["192.0.2.0/28".parse().unwrap()],
                domains: vec!["example.net".to_owned()],
            },
            send: SendConfig { trust_presence: true, ..SendConfig::default() },
            outbox: OutboxConfig {
                settle_s: 1,
                folder: Some("/srv/outbox".into()),
                ..OutboxConfig::default()
            },
            store: StoreConfig { quota_mib: Some(100), retention_days: Some(30), ..StoreConfig::default() },
            address_books: toml::from_str(
                "paths = ['contacts.vcf']\n\
                 [[carddav]]\nname = 'office'\nurl = 'https://dav.example.org'\nusername = 'alice'\nrefresh_minutes = 5\n\
                 [[carddav]]\nname = 'home'\nurl = 'https://dav.example.com/a/'\nusername = 'a'\npassword_file = 'p'\n",
            )
            .unwrap(),
            guest: toml::from_str(
                "download = '2 MiB/s'\nmetered = 'limited'\nmetered_rate = '100 KiB/s'\nbattery_percent_min = 5\n\
                 [[schedule]]\ndays = ['mon', 'fri']\nfrom = '22:00'\nto = '06:00'\noff = true\n\
                 [[schedule]]\nfrom = '08:00'\nto = '18:00'\nupload = '20 Mbit/s'\n",
            )
            .unwrap(),
        }
    }

    #[test]
    fn a_configuration_that_was_written_is_read_again() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new").join("agent.toml");
        for config in [example(), Config { key: KeyConfig::File, smtp: None, ..example() }] {
            config.write(&path).unwrap();
            assert_eq!(Config::read(&path).unwrap(), config);
        }
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn mailbox_and_location_server_are_enough() {
        let peer = example().location.peer;
        let text =
            format!("mailbox = \"a@b.c\"\n[location]\nurl = \"http://127.0.0.1:7080\"\npeer = \"{peer}\"\n");
        let config: Config = toml::from_str(&text).unwrap();
        assert_eq!((config.key, config.quic), (KeyConfig::File, QuicConfig::default()));
        assert_eq!(config.store.settings(), Settings::default());
    }

    #[test]
    fn what_is_not_known_is_refused_with_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.toml");
        std::fs::write(&path, "mailbox = \"a@b.c\"\nmialbox = 1\n").unwrap();
        let error = Config::read(&path).unwrap_err().to_string();
        assert!(error.contains("agent.toml") && error.contains("mialbox"), "{error}");
        assert!(matches!(Config::read(&folder.path().join("none")), Err(ConfigError::Missing(_))));
        std::fs::write(&path, vec![b'#'; 100_000]).unwrap();
        assert!(matches!(Config::read(&path), Err(ConfigError::TooLong(_))));
    }
}
