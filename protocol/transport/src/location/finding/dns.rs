//! Questions to name servers: those of the configuration, else the system's (`/etc/resolv.conf`).

use std::net::{IpAddr, SocketAddr};
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError as Answered, NetError};
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use tokio::time::timeout;

use super::service::{Record, Services, order};
use crate::location::limits::{DNS_TIME_MAX, FOUND_FRESH_MIN};

/// Why a question has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DnsError {
    /// There is no such name, or it has no such records; how long that counts.
    #[error("there is no such name in DNS")]
    None {
        /// By the name server's word.
        fresh: Duration,
    },
    /// Its addresses are none that may be dialled.
    #[error("its addresses in DNS are not dialled from here")]
    Address,
    /// No name server is known, or none answered.
    #[error("the name servers do not answer")]
    Failed,
}

/// Where questions go.
#[derive(Debug)]
pub(super) struct Dns {
    name_servers: Vec<SocketAddr>,
    resolver: RwLock<Option<Resolver>>,
}

#[derive(Clone)]
struct Resolver(TokioResolver);

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Resolver")
    }
}

impl Dns {
    /// Asks `name_servers`, or, where there are none, the system's. Nothing is asked or read yet.
    pub(super) fn new(name_servers: &[SocketAddr]) -> Self {
        Self { name_servers: name_servers.to_vec(), resolver: RwLock::default() }
    }

    /// What is known is forgotten, the system's configuration among it.
    pub(super) fn forget(&self) {
        *self.resolver.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The servers of `_lighter._tcp` at `domain`.
    pub(super) async fn services(&self, domain: &str) -> Result<Services, DnsError> {
        let name = Name::from_ascii(format!("_lighter._tcp.{domain}.")).map_err(|_| DnsError::Failed)?;
        let resolver = self.resolver()?;
        let answer = timeout(DNS_TIME_MAX, resolver.lookup(name, RecordType::SRV)).await;
        let lookup = answer.map_err(|_| DnsError::Failed)?.map_err(|error| failed(&error))?;
        let records = lookup.answers().iter().filter_map(|record| match &record.data {
            RData::SRV(srv) => Some(Record {
                priority: srv.priority,
                weight: srv.weight,
                port: srv.port,
                host: srv.target.to_ascii().trim_end_matches('.').to_owned(),
            }),
            _ => None,
        });
        let targets = order(records.collect(), &mut rand::rng());
        Ok(Services { targets, fresh: lookup.valid_until().saturating_duration_since(Instant::now()) })
    }

    /// The addresses of a host.
    pub(super) async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, DnsError> {
        let name =
            Name::from_ascii(format!("{}.", host.trim_end_matches('.'))).map_err(|_| DnsError::Failed)?;
        let resolver = self.resolver()?;
        let answer = timeout(DNS_TIME_MAX, resolver.lookup_ip(name)).await;
        let lookup = answer.map_err(|_| DnsError::Failed)?.map_err(|error| failed(&error))?;
        Ok(lookup.iter().collect())
    }

    fn resolver(&self) -> Result<TokioResolver, DnsError> {
        if let Some(resolver) = &*self.resolver.read().unwrap_or_else(PoisonError::into_inner) {
            return Ok(resolver.0.clone());
        }
        let made = make(&self.name_servers).map_err(|error| {
            tracing::warn!(%error, "no name server is known");
            DnsError::Failed
        })?;
        *self.resolver.write().unwrap_or_else(PoisonError::into_inner) = Some(Resolver(made.clone()));
        Ok(made)
    }
}

fn make(name_servers: &[SocketAddr]) -> Result<TokioResolver, NetError> {
    let mut builder = if name_servers.is_empty() {
        TokioResolver::builder_tokio()?
    } else {
        let server = |address: &SocketAddr| {
            let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
            connections.iter_mut().for_each(|connection| connection.port = address.port());
            NameServerConfig::new(address.ip(), true, connections)
        };
        let config = ResolverConfig::from_parts(None, Vec::new(), name_servers.iter().map(server).collect());
        TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
    };
    let options = builder.options_mut();
    options.timeout = DNS_TIME_MAX / 4;
    options.attempts = 2;
    // What was found is remembered by the finder, within its own bounds.
    options.cache_size = 256;
    builder.build()
}

fn failed(error: &NetError) -> DnsError {
    match error {
        NetError::Dns(Answered::NoRecordsFound(none)) => {
            let fresh =
                none.negative_ttl.map_or(FOUND_FRESH_MIN, |seconds| Duration::from_secs(seconds.into()));
            DnsError::None { fresh }
        }
        error => {
            tracing::debug!(%error, "no answer from name servers");
            DnsError::Failed
        }
    }
}

/// Names that no name server is asked for (RFC 6761, RFC 6762, RFC 7686).
const NOT_IN_DNS: [&str; 6] = ["localhost", "local", "invalid", "onion", "arpa", "internal"];

/// `domain` as DNS and certificates write it; none where it cannot be a mail domain with a location server.
pub(super) fn host_name(domain: &str) -> Option<String> {
    let name = Name::from_utf8(domain).ok()?.to_ascii().to_ascii_lowercase();
    let name = name.trim_end_matches('.');
    let last = name.rsplit('.').next()?;
    let is_name = name.len() <= 253
        && name.contains('.')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '.' || c == '-')
        && last.starts_with(|c: char| c.is_ascii_alphabetic())
        && !NOT_IN_DNS.contains(&last);
    is_name.then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_a_mail_domain_is_not_asked_for() {
        for domain in [
            "localhost",
            "x.localhost",
            "10.0.0.1",
            "x.local",
            "a.onion",
            "",
            ".",
            "nodot",
            "a..b",
            "a_b.example",
            "[::1]",
        ] {
            assert_eq!(host_name(domain), None, "{domain}");
        }
        assert_eq!(host_name("Example.ORG").as_deref(), Some("example.org"));
        assert_eq!(host_name("bücher.example").as_deref(), Some("xn--bcher-kva.example"));
    }

    #[tokio::test]
    async fn name_servers_that_do_not_answer_are_given_up_in_time() {
        // A socket that hears and says nothing.
        let silent = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let dns = Dns::new(&[silent.local_addr().unwrap()]);
        let start = Instant::now();
        assert_eq!(dns.services("example.org").await, Err(DnsError::Failed));
        assert!(start.elapsed() <= DNS_TIME_MAX + Duration::from_secs(20), "{:?}", start.elapsed());
    }
}
