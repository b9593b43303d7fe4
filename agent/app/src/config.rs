//! The agent's configuration (TOML) and its folders. `setup` writes the file; everything in it but mailbox and location
//! server has a default.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use etcetera::{BaseStrategy, choose_base_strategy};
use lighter_protocol::{Mailbox, PeerId};
use lighter_store::Settings;
use lighter_transport::location::FindingConfig;
use lighter_transport::location::address::Network;
use serde::{Deserialize, Serialize};

use crate::address_books::carddav::{self, CardDavConfig};
use crate::guest::decide::GuestConfig;
use crate::limits::{CONFIG_LEN_MAX, RETRY_HOURS_DEFAULT, RETRY_HOURS_MAX};
use crate::outbox::{self, Outbox};
use crate::send::unreachable::{Rules, Unreachable};
use crate::sharing::Share;

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

/// Where groups are looked up, besides `DATA/address-books`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AddressBooksConfig {
    /// Files, and folders of files: each is one address book. A relative path starts at the configuration's folder.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<PathBuf>,
    /// CardDAV servers, whose address books are fetched.
    #[serde(deserialize_with = "carddav::servers", skip_serializing_if = "Vec::is_empty")]
    pub carddav: Vec<CardDavConfig>,
}

impl AddressBooksConfig {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// How `send` decides what goes to a recipient's store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SendConfig {
    /// Smaller attachments stay in the message.
    pub size_bytes_min: usize,
    /// Whether the location server's word that a store is online is enough; otherwise the store itself is pinged first
    /// (SPEC A4).
    pub trust_presence: bool,
    /// Whether attachments are pushed to stores that take that, instead of waiting to be asked for them (SPEC A6).
    pub push: bool,
    /// Between which recipients of a message, of those whom its header shows, its attachments may be shared (SPEC D3).
    pub share: Share,
    /// MiB of a message's attachments up to which they are pushed; absent: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub push_mib_max: Option<u64>,
    /// What happens to attachments whose recipient has a store that cannot be reached now (SPEC A7, A8).
    pub unreachable: Unreachable,
    /// How many hours such attachments wait here; then the message goes whole by mail. At most [`RETRY_HOURS_MAX`].
    #[serde(deserialize_with = "retry_hours")]
    pub retry_hours: u32,
    /// Bytes of one message's attachments that may wait here; with more, the message goes whole at once. Absent: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_bytes_max: Option<u64>,
    /// `unreachable` for single recipients.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub to: BTreeMap<Mailbox, Unreachable>,
}

impl Default for SendConfig {
    fn default() -> Self {
        Self {
            size_bytes_min: lighter_message::Policy::default().min_size,
            trust_presence: false,
            share: Share::default(),
            push: false,
            push_mib_max: None,
            unreachable: Unreachable::default(),
            retry_hours: RETRY_HOURS_DEFAULT,
            retry_bytes_max: None,
            to: BTreeMap::new(),
        }
    }
}

impl SendConfig {
    /// Bytes of a delivery up to which it is pushed; none: nothing is.
    pub fn push_bytes_max(&self) -> Option<u64> {
        self.push.then(|| self.push_mib_max.map_or(u64::MAX, |mib| mib.saturating_mul(MIB)))
    }

    /// What it says of recipients whose store cannot be reached.
    pub fn rules(&self) -> Rules<'_> {
        Rules {
            general: self.unreachable,
            to: &self.to,
            retry_hours: self.retry_hours,
            retry_bytes_max: self.retry_bytes_max.unwrap_or(u64::MAX),
        }
    }
}

fn retry_hours<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let hours = u32::deserialize(deserializer)?;
    if (1..=RETRY_HOURS_MAX).contains(&hours) {
        Ok(hours)
    } else {
        Err(serde::de::Error::custom(format!("retry_hours is 1 to {RETRY_HOURS_MAX}, not {hours}")))
    }
}

/// The folder that is watched for what is to be sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OutboxConfig {
    /// Whether there is one.
    pub enabled: bool,
    /// Where; absent: `Lighter Outbox` in the home folder, or, with a data folder of its own, `outbox` in that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub folder: Option<PathBuf>,
    /// Seconds that a file stays as it is before it counts as complete.
    pub settle_s: u16,
    /// The same for a folder that is sent as one message.
    pub settle_folder_s: u16,
}

impl Default for OutboxConfig {
    fn default() -> Self {
        Self { enabled: true, folder: None, settle_s: 2, settle_folder_s: 10 }
    }
}

impl OutboxConfig {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// The location server, as enrolment found it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocationConfig {
    /// `https://host[:port]` or `http://host[:port]`.
    pub url: String,
    /// Its key: only what it signed is believed.
    pub peer: PeerId,
    /// Certificates to trust instead of the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
}

/// Where the key is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "storage", rename_all = "lowercase", deny_unknown_fields)]
pub enum KeyConfig {
    /// In `DATA/key`, which only its owner can read.
    #[default]
    File,
    /// In the OS keyring, under this name.
    Keyring {
        /// The entry's user name.
        entry: String,
    },
}

/// The endpoint for other peers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QuicConfig {
    /// UDP address to listen on; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// What to register instead of the address that is found: behind a router that forwards a port.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub advertise: Vec<SocketAddr>,
}

impl Default for QuicConfig {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([0_u16; 8], 0)), advertise: Vec::new() }
    }
}

/// Ways to other peers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NetworkConfig {
    /// Whether peers on the local network are found by multicast DNS, and find this one.
    pub mdns: bool,
    /// Whether a home router is asked (PCP, NAT-PMP, UPnP) for a port that leads to this store. Not where `quic.advertise`
    /// says which addresses do.
    pub port_mapping: bool,
    /// The HTTP proxy that web servers are reached through, the location server and relays among them:
    /// `http://[NAME:PASSWORD@]HOST:PORT`. Absent: what `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` say; empty: none at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy: Option<String>,
    /// What is reached without `proxy`: names, addresses and networks, with commas between.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub no_proxy: String,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self { mdns: true, port_mapping: true, proxy: None, no_proxy: String::new() }
    }
}

impl NetworkConfig {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Where `send` hands mail to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SmtpConfig {
    /// `host:port`.
    pub server: String,
    /// Whether the connection is encrypted.
    #[serde(default)]
    pub tls: SmtpTls,
    /// Certificates to trust instead of the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
}

impl SmtpConfig {
    /// A mail server with the defaults: encrypted if it offers that, or, at the port of "submissions", from the first
    /// byte on (RFC 8314 §3.3).
    pub fn new(server: String) -> Self {
        let tls = if server.ends_with(":465") { SmtpTls::Implicit } else { SmtpTls::default() };
        Self { server, tls, ca_file: None }
    }
}

/// The mail server on this machine that mail clients send through (RFC 6409).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SubmissionConfig {
    /// Loopback address to listen on; port 0 lets the system choose; absent: there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
    /// Further senders whose attachments go to stores; other senders' messages go on untouched.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub senders: Vec<Mailbox>,
}

impl SubmissionConfig {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Sending for all users of domains: mail servers hand their users' mail in, and it goes on to `[smtp]` (SPEC A26).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OutgoingConfig {
    /// Address to listen on; port 0 lets the system choose; absent: there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
    /// Networks that mail is taken from; nobody else is let in.
    pub clients: Vec<Network>,
    /// The domains whose users' attachments go to stores; other senders' messages go on untouched. Empty: that of `mailbox`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub domains: Vec<String>,
}

impl Default for OutgoingConfig {
    fn default() -> Self {
        Self { listen: None, clients: Network::loopback().into(), domains: Vec::new() }
    }
}

impl OutgoingConfig {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// The store of many (SPEC A29): whose it is, the location server says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HostedConfig {
    /// MiB that the attachments of one mailbox may take; absent: any. All together: `store.quota_mib`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota_mib: Option<u64>,
    /// The same for single mailboxes.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub quotas_mib: BTreeMap<Mailbox, u64>,
}

impl HostedConfig {
    /// Bytes that the attachments of `mailbox` may take; none: any.
    pub fn quota_of(&self, mailbox: &Mailbox) -> Option<u64> {
        self.quotas_mib.get(mailbox).copied().or(self.quota_mib).map(|mib| mib.saturating_mul(MIB))
    }
}

/// Whether the connection to the mail server is encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SmtpTls {
    /// Never.
    Off,
    /// If the server offers it.
    #[default]
    IfOffered,
    /// Or nothing is sent.
    Required,
    /// From the first byte on: port 465.
    Implicit,
}

/// What is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StoreConfig {
    /// MiB that attachments may take; absent: as much as the disk has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota_mib: Option<u64>,
    /// Days that attachments are kept; absent: until they are removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention_days: Option<u32>,
    /// MiB of the largest attachment that is taken; absent: 1 TiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blob_mib_max: Option<u64>,
    /// Whether holders that would push may. What they push is what would be pulled from them, and only then.
    pub accept_push: bool,
    /// With which other recipients of a message its attachments are shared: given to them, and taken from them (SPEC D3).
    pub share: Share,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            quota_mib: None,
            retention_days: None,
            blob_mib_max: None,
            accept_push: true,
            share: Share::default(),
        }
    }
}

const MIB: u64 = 1024 * 1024;
const DAY: Duration = Duration::from_hours(24);

impl StoreConfig {
    /// The same, as the store takes it.
    pub fn settings(&self) -> Settings {
        let default = Settings::default();
        Settings {
            quota: self.quota_mib.map(|mib| mib.saturating_mul(MIB)),
            retention: self.retention_days.map(|days| DAY * days),
            blob_size_max: self
                .blob_mib_max
                .map_or(default.blob_size_max, |mib| mib.saturating_mul(MIB).min(default.blob_size_max)),
        }
    }
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

/// The agent's folder in each of the user's base folders.
const FOLDER: &str = "lighter-agent";

/// Where things are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// The configuration file.
    pub config: PathBuf,
    /// The data folder: store, key file, control socket.
    pub data: PathBuf,
}

impl Paths {
    /// The folders given, or those of the XDG base directory specification.
    ///
    /// # Errors
    /// [`ConfigError::NoHome`].
    pub fn find(config: Option<&Path>, data: Option<&Path>) -> Result<Self, ConfigError> {
        let base = || choose_base_strategy().map_err(|_| ConfigError::NoHome);
        Ok(Self {
            config: match config {
                Some(path) => path.to_owned(),
                None => base()?.config_dir().join(FOLDER).join("agent.toml"),
            },
            data: match data {
                Some(path) => path.to_owned(),
                None => base()?.data_dir().join(FOLDER),
            },
        })
    }

    /// The attachment storage.
    pub fn store(&self) -> PathBuf {
        self.data.join("store")
    }

    /// The key file.
    pub fn key(&self) -> PathBuf {
        self.data.join("key")
    }

    /// The outbox, if there is one.
    pub fn outbox(&self, config: &OutboxConfig) -> Option<Outbox> {
        let base = choose_base_strategy().ok();
        let usual = base.as_ref().map(|base| base.data_dir().join(FOLDER));
        let home = base.as_ref().map(BaseStrategy::home_dir);
        let folder = config.folder.clone();
        config.enabled.then(|| Outbox {
            paths: self.clone(),
            folder: folder.unwrap_or_else(|| outbox::default_folder(&self.data, usual.as_deref(), home)),
            records: self.data.join("outbox-records"),
            settle: Duration::from_secs(config.settle_s.into()),
            settle_folder: Duration::from_secs(config.settle_folder_s.into()),
        })
    }

    /// The folder in which each file, and each folder of files, is an address book.
    pub fn address_books(&self) -> PathBuf {
        self.data.join("address-books")
    }

    /// What was fetched from CardDAV servers.
    pub fn carddav(&self) -> PathBuf {
        self.data.join("carddav")
    }

    /// A path in the configuration: a relative one starts at the configuration's folder.
    pub fn beside_config(&self, path: &Path) -> PathBuf {
        self.config.parent().unwrap_or(Path::new("")).join(path)
    }

    /// What is on record about messages of mail clients.
    pub fn submissions(&self) -> PathBuf {
        self.data.join("submissions")
    }

    /// The same for messages of mail servers.
    pub fn outgoing(&self) -> PathBuf {
        self.data.join("outgoing")
    }

    /// The socket of a running agent.
    pub fn control(&self) -> PathBuf {
        self.data.join("control")
    }

    /// Makes the data folder, for its owner only.
    ///
    /// # Errors
    /// [`ConfigError::Io`].
    pub fn make_data(&self) -> Result<(), ConfigError> {
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.data);
        made.map_err(|source| ConfigError::Io { path: self.data.clone(), source })
    }
}

#[cfg(test)]
mod tests {
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
    fn a_mail_server_at_the_port_of_submissions_is_encrypted_from_the_first_byte_on() {
        assert_eq!(SmtpConfig::new("smtp.example.org:465".to_owned()).tls, SmtpTls::Implicit);
        assert_eq!(SmtpConfig::new("smtp.example.org:587".to_owned()).tls, SmtpTls::IfOffered);
        let text = "server = \"smtp.example.org:1465\"\ntls = \"implicit\"\n";
        assert_eq!(toml::from_str::<SmtpConfig>(text).unwrap().tls, SmtpTls::Implicit);
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
    fn the_outbox_is_where_its_user_finds_it_and_can_be_elsewhere_or_off() {
        let paths = Paths { config: "x".into(), data: "/data/agent".into() };
        let outbox = paths.outbox(&OutboxConfig::default()).unwrap();
        assert_eq!(outbox.folder, Path::new("/data/agent/outbox"));
        let usual = outbox::default_folder(&paths.data, Some(&paths.data), Some(Path::new("/home/bob")));
        assert_eq!(usual, Path::new("/home/bob/Lighter Outbox"));
        let elsewhere = OutboxConfig { folder: Some("/srv/outbox".into()), ..OutboxConfig::default() };
        assert_eq!(paths.outbox(&elsewhere).unwrap().folder, Path::new("/srv/outbox"));
        assert_eq!(paths.outbox(&OutboxConfig { enabled: false, ..elsewhere }), None);
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
