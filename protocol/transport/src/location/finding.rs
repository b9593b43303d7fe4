//! Finding a mail domain's location server (DESIGN §4): set by hand; else `_lighter._tcp.DOMAIN` SRV, whose server's
//! certificate must be valid for the mail domain itself; else `https://DOMAIN/.well-known/lighter`, which may name any host.
//!
//! - [`cache`]: what is known of domains, and how long it counts: a value;
//! - [`service`]: in which order SRV records are tried: a value;
//! - [`well_known`]: what `.well-known` says, not believed before it is checked;
//! - `dns`: the questions to name servers; `resolve`: which addresses are dialled;
//! - [`Finder`]: the loop around them. Each domain is asked for once, however many want to know.
//!
//! Sound because the domain is proved by TLS each time: by a certificate for the domain's own name, from whose owner the
//! name of another host comes. DNS is believed only as to where to ask. A host that a foreign domain named is dialled at
//! addresses that everybody can route to, or in networks that the admin named (bad input 36); each address is looked at
//! when it is dialled, so a name that changes its address meanwhile gains nothing.

pub mod cache;
mod config;
mod dns;
mod fetch;
pub(crate) mod resolve;
pub mod service;
pub mod well_known;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::address::Network;
use super::api::DomainAnswer;
use super::client::LocationClient;
use super::error::{LocationError, LocationSetupError};
use super::limits::{
    FINDING_AT_ONCE_MAX, FINDING_TIME_MAX, FOUND_DOMAINS_MAX, NONE_FRESH_MAX, SRV_TRIED_MAX, WELL_KNOWN_FRESH,
};
use cache::{Cache, Hit};
pub use config::FindingConfig;
use dns::{Dns, DnsError};
use resolve::Guarded;
use service::Services;
use well_known::WellKnownError;

/// A domain's location server, as it was found.
#[derive(Clone, Debug)]
pub struct Server {
    /// The mail domain.
    pub domain: Arc<str>,
    /// A client for it: whoever answers it has proved to be the domain's.
    pub client: LocationClient,
    /// What it says of itself.
    pub answer: Arc<DomainAnswer>,
    /// How it was found.
    pub by: By,
    /// When.
    pub asked: Instant,
}

/// How a location server was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum By {
    /// It is in the configuration.
    Hand,
    /// By an SRV record.
    Srv,
    /// By `.well-known`.
    WellKnown,
}

/// Why no location server was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotFound {
    /// The domain has none: it names none, or is not one that could.
    #[error("the domain has no location server")]
    None,
    /// It could not be asked now.
    #[error("the domain's location server cannot be found now")]
    Failed,
}

/// Finds location servers: cheap to clone, all clones know the same.
#[derive(Clone, Debug)]
pub struct Finder(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    by_hand: HashMap<String, LocationClient>,
    dns: Arc<Dns>,
    networks: Arc<[Network]>,
    ca_file: Option<PathBuf>,
    known: Mutex<Cache<Server>>,
    /// Domains that are being asked for.
    flights: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
    /// Domains that may be asked for at a time.
    slots: Semaphore,
}

/// What asking led to, and how long it counts.
type Asked = Result<(Server, Duration), Failure>;

/// Why a step led to nothing.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// There is none; how long that counts.
    #[error("none")]
    None(Duration),
    #[error("{0}")]
    Dns(#[from] DnsError),
    #[error("{0}")]
    WellKnown(#[from] WellKnownError),
    #[error("{0}")]
    Location(#[from] LocationError),
    #[error("{0}")]
    Setup(#[from] LocationSetupError),
    #[error("the server does not speak for this domain")]
    OtherDomain,
    #[error("no answer in time")]
    Time,
}

impl Finder {
    /// A finder with nothing known.
    ///
    /// # Errors
    /// Where a server that is set by hand has no usable address.
    pub fn new(config: &FindingConfig) -> Result<Self, LocationSetupError> {
        let mut by_hand = HashMap::new();
        for (domain, url) in &config.domains {
            let client = LocationClient::new(url, config.ca_file.as_deref())?;
            by_hand.insert(domain.to_lowercase(), client);
        }
        Ok(Self(Arc::new(Inner {
            by_hand,
            dns: Arc::new(Dns::new(&config.name_servers)),
            networks: config.allowed_networks.as_slice().into(),
            ca_file: config.ca_file.clone(),
            known: Mutex::new(Cache::new(FOUND_DOMAINS_MAX)),
            flights: Mutex::default(),
            slots: Semaphore::new(FINDING_AT_ONCE_MAX),
        })))
    }

    /// The location server of `domain`.
    ///
    /// # Errors
    /// [`NotFound`].
    pub async fn find(&self, domain: &str) -> Result<Server, NotFound> {
        if let Some(known) = self.known(domain) {
            return known;
        }
        let flight = self.flight(domain);
        let _turn = flight.lock().await;
        // Whoever was before has asked.
        if let Some(known) = self.known(domain) {
            return known;
        }
        let asked = match self.0.slots.acquire().await {
            Ok(_slot) => timeout(FINDING_TIME_MAX, self.ask(domain)).await.unwrap_or(Err(Failure::Time)),
            Err(_) => Err(Failure::Time),
        };
        let now = Instant::now();
        let mut cache = self.cache();
        match asked {
            Ok((server, fresh)) => {
                tracing::info!(domain, by = ?server.by, url = server.client.url(), "location server found");
                cache.learned(domain, Some(server.clone()), fresh, now);
                Ok(server)
            }
            Err(Failure::None(fresh)) => {
                cache.learned(domain, None, fresh, now);
                Err(NotFound::None)
            }
            Err(failure) => {
                tracing::info!(domain, %failure, "location server not found");
                cache.failed(domain, now).ok_or(NotFound::Failed)
            }
        }
    }

    /// What was found is not to be relied on: it did not answer as it should. It is asked for again by the next one.
    pub fn forget(&self, domain: &str) {
        self.cache().forget(domain);
    }

    /// This machine is on another network: name servers are read anew, connections let go of, failures forgotten.
    pub fn network_changed(&self) {
        self.0.dns.forget();
        let mut cache = self.cache();
        cache.forget_failures();
        for server in cache.values() {
            server.client.forget_connections();
        }
    }

    /// The domains that have a location server, or could not be asked of late, in order.
    pub fn domains(&self) -> Vec<(String, Result<Server, NotFound>)> {
        let all = self.cache().all(Instant::now());
        all.into_iter()
            .filter_map(|(domain, hit)| match hit {
                Hit::Found(server) => Some((domain, Ok(server))),
                Hit::Failed => Some((domain, Err(NotFound::Failed))),
                Hit::None | Hit::Unknown => None,
            })
            .collect()
    }

    fn known(&self, domain: &str) -> Option<Result<Server, NotFound>> {
        match self.cache().look(domain, Instant::now()) {
            Hit::Found(server) => Some(Ok(server)),
            Hit::None => Some(Err(NotFound::None)),
            Hit::Failed => Some(Err(NotFound::Failed)),
            Hit::Unknown => None,
        }
    }

    fn cache(&self) -> MutexGuard<'_, Cache<Server>> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lock of those who want to know of one domain.
    fn flight(&self, domain: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut flights = self.0.flights.lock().unwrap_or_else(PoisonError::into_inner);
        flights.retain(|_, flight| flight.strong_count() > 0);
        if let Some(flight) = flights.get(domain).and_then(Weak::upgrade) {
            return flight;
        }
        let flight = Arc::default();
        flights.insert(domain.to_owned(), Arc::downgrade(&flight));
        flight
    }

    async fn ask(&self, domain: &str) -> Asked {
        if let Some(client) = self.0.by_hand.get(domain) {
            let server = self.meet(domain, client.clone(), By::Hand).await?;
            return Ok((server, WELL_KNOWN_FRESH));
        }
        let name = dns::host_name(domain).ok_or(Failure::None(NONE_FRESH_MAX))?;
        let by_srv = self.ask_srv(domain, &name).await;
        let by_srv = match by_srv {
            Ok(found) => return Ok(found),
            Err(failure) => failure,
        };
        let by_well_known = match self.ask_well_known(domain, &name).await {
            Ok(found) => return Ok(found),
            Err(failure) => failure,
        };
        Err(match (by_srv, by_well_known) {
            (Failure::None(one), Failure::None(other)) => Failure::None(one.min(other)),
            (Failure::None(_), failure) | (failure, _) => failure,
        })
    }

    async fn ask_srv(&self, domain: &str, name: &str) -> Asked {
        let Services { targets, fresh } = match self.0.dns.services(name).await {
            Ok(services) => services,
            Err(DnsError::None { fresh }) => return Err(Failure::None(fresh)),
            Err(error) => return Err(error.into()),
        };
        let mut failure = Failure::None(fresh);
        for target in targets.into_iter().take(SRV_TRIED_MAX) {
            // The URL's host is the mail domain, for which the certificate must be valid; dialled is the target.
            let url = format!("https://{name}:{}", target.port);
            let guarded = self.guarded(Some(target.host));
            let client = LocationClient::guarded(&url, self.0.ca_file.as_deref(), guarded)?;
            match self.meet(domain, client, By::Srv).await {
                Ok(server) => return Ok((server, fresh)),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    async fn ask_well_known(&self, domain: &str, name: &str) -> Asked {
        let ca_file = self.0.ca_file.as_deref();
        let text = match fetch::well_known(name, ca_file, self.guarded(None)).await {
            Ok(Some(text)) => text,
            Ok(None) => return Err(Failure::None(NONE_FRESH_MAX)),
            // A domain without a host of its name has no web server that could say something.
            Err(WellKnownError::Dns(DnsError::None { fresh })) => return Err(Failure::None(fresh)),
            Err(error) => return Err(error.into()),
        };
        let url = well_known::parse(&text, &self.0.networks)?;
        let client = LocationClient::guarded(&url, ca_file, self.guarded(None))?;
        let server = self.meet(domain, client, By::WellKnown).await?;
        Ok((server, WELL_KNOWN_FRESH))
    }

    /// Asks the server who it is.
    async fn meet(&self, domain: &str, client: LocationClient, by: By) -> Result<Server, Failure> {
        let answer = client.domain().await?;
        if !(answer.domains.is_empty() || answer.domains.iter().any(|own| own == domain)) {
            return Err(Failure::OtherDomain);
        }
        Ok(Server { domain: domain.into(), client, answer: Arc::new(answer), by, asked: Instant::now() })
    }

    fn guarded(&self, host: Option<String>) -> Guarded {
        Guarded { dns: self.0.dns.clone(), networks: self.0.networks.clone(), host: host.map(Into::into) }
    }
}

#[cfg(test)]
mod tests;
