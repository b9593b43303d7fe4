//! The location server's configuration: TOML on disk, checked values inside.
//!
//! The default, with no file at all, runs on a laptop: loopback only, data below the user's data folder.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use lighter_protocol::limits::ADDRESSES_MAX;
use lighter_protocol::{Mailbox, PeerId};
use lighter_transport::location::FindingConfig;
use lighter_transport::location::limits::HOSTED_MAILBOXES_MAX;
use serde::{Deserialize, Serialize};

use crate::address::Network;
use crate::limits::{ATTESTATION_LIFETIME_MAX, CONFIG_LEN_MAX, HOSTED_FILES_MAX, HOSTED_STORES_MAX};

/// The whole configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the API is served; port 0 takes one from the kernel.
    pub listen: SocketAddr,
    /// Where key, database and control socket lie.
    pub data: PathBuf,
    /// Domains whose mailboxes may be invited. Empty: any, as the admin sees fit.
    pub domains: Vec<String>,
    /// The certificate for HTTPS. None: plain HTTP, for loopback or behind a proxy that speaks TLS.
    pub tls: Option<TlsConfig>,
    /// Seconds between a store's pings.
    pub ping_interval_s: u32,
    /// A store that has not pinged for so many seconds counts as unavailable (SPEC A14).
    pub ttl_s: u32,
    /// Seconds that an attestation is good for; at most a day (DESIGN §4).
    pub attestation_lifetime_s: u32,
    /// Networks that stores may register addresses of although they are not globally routable. None: on a server that
    /// listens on loopback only, loopback and private networks; otherwise none.
    pub allowed_networks: Option<Vec<Network>>,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<Network>,
    /// Who may do how much.
    pub rates: RatesConfig,
    /// How connections are bounded.
    pub connections: ConnectionsConfig,
    /// How the location servers of other domains are found, whose stores ask here.
    pub finding: FindingConfig,
    /// Outgoing mail servers: by the mailbox of each one's agent, the domains whose users it sends for (SPEC A26). Such an
    /// agent learns whatever these users would.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub outgoing: BTreeMap<Mailbox, Vec<String>>,
    /// Hosted stores: of many mailboxes each (SPEC A29).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosted: Vec<HostedConfig>,
    /// Where stores and senders behind home routers are helped to find each other: for a domain without a relay, which helps
    /// as well. None: not here.
    pub helper: Option<HelperConfig>,
}

/// A hosted store, which a mail service runs for its users.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostedConfig {
    /// Its key. It enrols for a mailbox of its own, like any store.
    pub peer: PeerId,
    /// Whose store it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mailboxes: Vec<Mailbox>,
    /// Files that name more, one in each line, up to the first colon or white space: a plain list, a passwd-file of Dovecot, a map of
    /// Postfix's. They are read again when they change.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<PathBuf>,
    /// The domain of names in the files that have none. None: such a name is a mistake.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
}

/// The helper (PROTOCOL.md §8).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HelperConfig {
    /// Its UDP address.
    pub listen: SocketAddr,
    /// Where others reach it; needed where `listen` is not one address. Empty: `listen`.
    #[serde(default)]
    pub advertise: Vec<SocketAddr>,
}

/// Certificate and key, PEM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// The chain, leaf first.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Who may do how much; each with a burst of ten seconds' worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RatesConfig {
    /// Names that one API token may look up a second: its holder is a mail server that the admin trusts.
    pub token_names_per_s: u32,
    /// Names that one store may look up a second, for its user's own sending.
    pub session_names_per_s: u32,
    /// Other calls of one store's session a second.
    pub session_calls_per_s: u32,
    /// Registrations from one network a second: a company's stores behind one address come back at once.
    pub registrations_per_s: u32,
    /// Enrolments, wrong tokens and public calls from one network a second.
    pub strangers_per_s: u32,
    /// Names that the stores of one other domain may look up a second, all of them together: one that somebody can
    /// register, with all that is below it.
    pub foreign_domain_names_per_s: u32,
    /// The same for all other domains together.
    pub foreign_names_per_s: u32,
}

impl Default for RatesConfig {
    fn default() -> Self {
        Self {
            token_names_per_s: 1_000_000,
            session_names_per_s: 100,
            session_calls_per_s: 5,
            registrations_per_s: 200,
            strangers_per_s: 10,
            foreign_domain_names_per_s: 20,
            foreign_names_per_s: 1_000,
        }
    }
}

/// How connections are bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConnectionsConfig {
    /// Connections at once. Stores keep theirs open between pings.
    pub max: usize,
    /// Connections at once from one network (an IPv4 address, an IPv6 /64); loopback is a proxy and not counted.
    pub per_network_max: usize,
}

impl Default for ConnectionsConfig {
    fn default() -> Self {
        Self { max: 120_000, per_network_max: 2_000 }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7080)),
            data: PathBuf::from("lighter-location"),
            domains: Vec::new(),
            tls: None,
            ping_interval_s: 60,
            ttl_s: 150,
            attestation_lifetime_s: 24 * 3600,
            allowed_networks: None,
            trusted_proxies: Vec::new(),
            rates: RatesConfig::default(),
            connections: ConnectionsConfig::default(),
            finding: FindingConfig::default(),
            outgoing: BTreeMap::new(),
            hosted: Vec::new(),
            helper: None,
        }
    }
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{} cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The file is not TOML, or holds something that is no setting.
    #[error("{} is not a configuration", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Kind and position.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A value, or two together, make no sense.
    #[error("{0}")]
    Value(&'static str),
}

impl Config {
    /// Reads a file. What it leaves out keeps its default.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let read = |source| ConfigError::Read { path: path.to_owned(), source };
        let mut text = String::new();
        std::fs::File::open(path)
            .and_then(|file| file.take(CONFIG_LEN_MAX + 1).read_to_string(&mut text))
            .map_err(read)?;
        if text.len() as u64 > CONFIG_LEN_MAX {
            return Err(ConfigError::Value("the file is too long to be a configuration"));
        }
        toml::from_str(&text)
            .map_err(|source| ConfigError::Parse { path: path.to_owned(), source: Box::new(source) })
    }

    /// Checks what types cannot, and brings domains into the form that mailboxes have.
    ///
    /// # Errors
    /// [`ConfigError::Value`].
    pub fn checked(mut self) -> Result<Self, ConfigError> {
        if self.ping_interval_s == 0 || self.ttl_s <= self.ping_interval_s {
            return Err(ConfigError::Value("ttl_s must be more than ping_interval_s, and that more than 0"));
        }
        let lifetime = u64::from(self.attestation_lifetime_s);
        if lifetime < 2 * u64::from(self.ping_interval_s) || lifetime > ATTESTATION_LIFETIME_MAX.as_secs() {
            return Err(ConfigError::Value(
                "attestation_lifetime_s must be at least two ping intervals and at most a day",
            ));
        }
        let rates = &self.rates;
        let per_second = [
            rates.token_names_per_s,
            rates.session_names_per_s,
            rates.session_calls_per_s,
            rates.registrations_per_s,
            rates.strangers_per_s,
            rates.foreign_domain_names_per_s,
            rates.foreign_names_per_s,
        ];
        if per_second.contains(&0) {
            return Err(ConfigError::Value("rates must be at least 1 a second"));
        }
        if self.connections.max == 0 || self.connections.per_network_max == 0 {
            return Err(ConfigError::Value("connections must be at least 1"));
        }
        if let Some(helper) = &self.helper {
            if helper.advertise.is_empty() && helper.listen.ip().is_unspecified() {
                return Err(ConfigError::Value(
                    "helper.advertise: say at which addresses others reach the helper",
                ));
            }
            if helper.advertise.len() > ADDRESSES_MAX {
                return Err(ConfigError::Value("helper.advertise: too many addresses"));
            }
        }
        for domain in &mut self.domains {
            *domain = normal(domain).ok_or(ConfigError::Value("domains: not a domain"))?;
        }
        for domain in self.outgoing.values_mut().flatten() {
            *domain = normal(domain).ok_or(ConfigError::Value("outgoing: not a domain"))?;
            // Nobody would believe a word about others'.
            if !self.domains.is_empty() && !self.domains.contains(domain) {
                return Err(ConfigError::Value("outgoing: a domain that is not in `domains`"));
            }
        }
        self.check_hosted()?;
        Ok(self)
    }

    fn check_hosted(&mut self) -> Result<(), ConfigError> {
        let Self { hosted, domains, .. } = self;
        if hosted.len() > HOSTED_STORES_MAX {
            return Err(ConfigError::Value("hosted: too many hosted stores"));
        }
        let is_ours = |domain: &str| domains.is_empty() || domains.iter().any(|known| known == domain);
        let mut peers = BTreeSet::new();
        let mut mailboxes = BTreeSet::new();
        for store in hosted {
            if !peers.insert(store.peer.to_bytes()) {
                return Err(ConfigError::Value("hosted: the same peer twice"));
            }
            if store.files.len() > HOSTED_FILES_MAX || store.mailboxes.len() > HOSTED_MAILBOXES_MAX {
                return Err(ConfigError::Value("hosted: too many files or mailboxes of one store"));
            }
            if let Some(domain) = &mut store.domain {
                *domain = normal(domain).ok_or(ConfigError::Value("hosted.domain: not a domain"))?;
                if !is_ours(domain) {
                    return Err(ConfigError::Value("hosted.domain: not in `domains`"));
                }
            }
            for mailbox in &store.mailboxes {
                if !is_ours(mailbox.domain()) {
                    return Err(ConfigError::Value("hosted: a mailbox that is in none of `domains`"));
                }
                if !mailboxes.insert(mailbox.clone()) {
                    return Err(ConfigError::Value("hosted: the same mailbox twice"));
                }
            }
        }
        Ok(())
    }

    /// The networks that stores may register addresses of although they are not globally routable.
    pub fn networks(&self) -> Vec<Network> {
        match &self.allowed_networks {
            Some(networks) => networks.clone(),
            None if self.listen.ip().is_loopback() => Network::local(),
            None => Vec::new(),
        }
    }
}

/// A domain in the form that mailboxes have; none where it is none.
fn normal(domain: &str) -> Option<String> {
    let mailbox: Mailbox = format!("x@{domain}").parse().ok()?;
    Some(mailbox.domain().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid_and_stays_on_loopback() {
        let config = Config::default().checked().unwrap();
        assert!(config.listen.ip().is_loopback());
        assert!(!config.networks().is_empty());
    }

    #[test]
    fn a_server_for_others_lets_nobody_register_private_addresses_unless_told() {
        let listen = "0.0.0.0:443".parse().unwrap();
        let open = Config { listen, ..Config::default() };
        assert!(open.networks().is_empty());
        let told = Config { allowed_networks: Some(vec!["10.0.0.0/8".parse().unwrap()]), ..open };
        assert_eq!(told.networks().len(), 1);
    }

    #[test]
    fn a_file_overrides_what_it_names_and_nothing_else() {
        let text = "domains = [\"Example.ORG\"]\nttl_s = 90\nallowed_networks = [\"192.168.0.0/16\"]\n";
        let config: Config = toml::from_str(text).unwrap();
        let config = config.checked().unwrap();
        assert_eq!(config.domains, ["example.org"]);
        assert_eq!((config.ttl_s, config.ping_interval_s), (90, 60));
    }

    #[test]
    fn outgoing_mail_servers_speak_for_domains_of_this_server() {
        let text = "domains = [\"Example.org\"]\n[outgoing]\n\"out@example.org\" = [\"EXAMPLE.ORG\"]\n";
        let config = toml::from_str::<Config>(text).unwrap().checked().unwrap();
        assert_eq!(config.outgoing[&"out@example.org".parse().unwrap()], ["example.org"]);
    }

    #[test]
    fn values_that_make_no_sense_are_refused() {
        for text in [
            "ttl_s = 60",
            "attestation_lifetime_s = 90000",
            "ping_interval_s = 0",
            "domains = [\"a b\"]",
            "outgoing = { \"out@a.example\" = [\"a b\"] }",
            "domains = [\"a.example\"]\noutgoing = { \"out@a.example\" = [\"b.example\"] }",
            "[helper]\nlisten = \"0.0.0.0:7443\"",
        ] {
            let config: Config = toml::from_str(text).unwrap();
            assert!(config.checked().is_err(), "{text}");
        }
        assert!(toml::from_str::<Config>("ttl = 60").is_err(), "an unknown setting is a mistake");
    }
}
