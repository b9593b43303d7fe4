//! Whose mail is taken, and for whom: nobody relays through here to where the next hop would not let them.
//!
//! The relay stands before or behind a mail server that trusts it. So it must not pass on what that server would have
//! refused: from strangers, mail for the configured domains is taken and nothing else. A recipient in these who has no
//! store, or does not exist, is the next hop's to judge; mail for them goes there whole.

use std::collections::BTreeSet;
use std::net::IpAddr;

use lighter_location::address::Network;
use lighter_mail::{Address, Reply};

/// RFC 3463: X.7.1, delivery not authorized.
const NO_RELAYING: Reply = Reply::fixed(550, 7, 1, "no relaying: mail for this domain is not taken here");

/// Whose mail is taken, and for whom.
#[derive(Clone, Debug)]
pub struct Admit {
    domains: BTreeSet<String>,
    trusted: Vec<Network>,
}

impl Admit {
    /// From networks in `trusted` everything is taken, from elsewhere mail for `domains`.
    pub fn new(domains: &[String], trusted: &[Network]) -> Self {
        let domains = domains.iter().map(|domain| domain.to_lowercase()).collect();
        Self { domains, trusted: trusted.to_vec() }
    }

    /// Whether mail from `peer` for `recipient` is taken; an `Err` is what the peer is told. `postmaster` without a
    /// domain is everybody's (RFC 5321 §4.5.1).
    pub(super) fn recipient(&self, peer: IpAddr, recipient: &Address) -> Result<(), Reply> {
        let domain = recipient.domain().to_lowercase();
        let is_ours = domain.is_empty() || self.domains.contains(&domain);
        if is_ours || self.trusts(peer) { Ok(()) } else { Err(NO_RELAYING) }
    }

    /// Whether `peer` is a mail server in front of this one, whose senders have their answers from it.
    pub(super) fn trusts(&self, peer: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(peer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(domains: &[&str], peer: &str, recipient: &str) -> bool {
        let domains: Vec<String> = domains.iter().map(|&domain| domain.to_owned()).collect();
        let admit = Admit::new(&domains, &["127.0.0.0/8".parse().unwrap(), "10.1.0.0/16".parse().unwrap()]);
        admit.recipient(peer.parse().unwrap(), &recipient.parse().unwrap()).is_ok()
    }

    #[test]
    fn strangers_reach_the_configured_domains_only() {
        assert!(taken(&["Example.org"], "198.51.100.7", "alice@EXAMPLE.org"));
        for recipient in ["alice@example.net", "alice@mail.example.org", "alice@xexample.org"] {
            assert!(!taken(&["example.org"], "198.51.100.7", recipient), "{recipient}");
        }
        assert!(!taken(&["example.org"], "2001:db8::7", "alice@example.net"));
        assert!(taken(&["example.org"], "2001:db8::7", "postmaster"));
    }

    #[test]
    fn without_domains_only_trusted_networks_send() {
        assert!(!taken(&[], "198.51.100.7", "alice@example.org"));
        assert!(taken(&[], "127.0.0.1", "alice@example.org"));
        assert!(taken(&[], "::ffff:10.1.2.3", "alice@example.org"));
        assert!(!taken(&[], "10.2.2.3", "alice@example.org"));
    }

    #[test]
    fn an_address_that_hides_another_domain_in_its_local_part_is_judged_by_its_own() {
        assert!(!taken(&["example.org"], "198.51.100.7", "\"alice@example.org\"@example.net"));
        assert!(!taken(&["example.org"], "198.51.100.7", "alice%example.org@example.net"));
    }
}
