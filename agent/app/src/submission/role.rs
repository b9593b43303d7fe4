//! For whom mail is taken: one user's mail clients, or a whole mail server.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use lighter_protocol::Mailbox;
use lighter_transport::location::address::{Network, in_any};

use crate::config::Config;
use crate::failure::Failure;
use crate::limits::{
    OUTGOING_CONNECTIONS_MAX, OUTGOING_RECORD_LIFE, SUBMISSION_CONNECTIONS_MAX, SUBMISSION_RECORD_LIFE,
};

/// For whom mail is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// One user's mail clients, on this machine.
    Submission {
        /// Whose messages are looked at.
        senders: Vec<Mailbox>,
    },
    /// A mail server (SPEC A26), which has asked its users for their passwords itself.
    Outgoing {
        /// The domains whose users' messages are looked at.
        domains: Vec<String>,
        /// From where it may connect.
        clients: Vec<Network>,
    },
}

impl Role {
    /// What the configuration asks for, and where to listen; none where it asks for nothing.
    ///
    /// # Errors
    /// Where it asks for both, or for what cannot be.
    pub(super) fn of(config: &Config) -> Result<Option<(Self, SocketAddr)>, Failure> {
        let (submission, outgoing) = (&config.submission, &config.outgoing);
        match (submission.listen, outgoing.listen) {
            (None, None) => Ok(None),
            (Some(_), Some(_)) => Err(Failure::wrong_use(
                "[submission] and [outgoing] in one agent: a mail server has an agent of its own",
            )),
            (Some(listen), None) => {
                super::check(listen, config.smtp.is_some())?;
                let senders =
                    [config.mailbox.clone()].into_iter().chain(submission.senders.clone()).collect();
                Ok(Some((Self::Submission { senders }, listen)))
            }
            (None, Some(listen)) => {
                let smtp = config.smtp.as_ref().ok_or_else(|| {
                    Failure::wrong_use("[outgoing] needs a mail server to hand mail to: set [smtp]")
                })?;
                if smtp.server.parse() == Ok(listen) && listen.port() != 0 {
                    let why = format!("[outgoing] listens on {listen}, where [smtp] hands mail to: a loop");
                    return Err(Failure::wrong_use(why));
                }
                let (domains, clients) = (config.outgoing_domains(), outgoing.clients.clone());
                Ok(Some((Self::Outgoing { domains, clients }, listen)))
            }
        }
    }

    /// What it is called in `addresses.json`, and its folder of records.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Submission { .. } => "submission",
            Self::Outgoing { .. } => "outgoing",
        }
    }

    /// Whether messages of `sender` are looked at; others' go on untouched.
    pub(super) fn looks_at(&self, sender: &Mailbox) -> bool {
        match self {
            Self::Submission { senders } => senders.contains(sender),
            Self::Outgoing { domains, .. } => domains.iter().any(|domain| domain == sender.domain()),
        }
    }

    /// Whether mail is taken from there. Mail clients are on this machine, since nothing else is listened on.
    pub(super) fn lets_in(&self, address: IpAddr) -> bool {
        match self {
            Self::Submission { .. } => true,
            Self::Outgoing { clients, .. } => in_any(clients, address),
        }
    }

    /// Whether who sends says so here: a mail server has asked its users already, and its own password is nobody's here.
    pub(super) fn passes_passwords(&self) -> bool {
        matches!(self, Self::Submission { .. })
    }

    /// Whether attachments are left with a relay while the client waits: a mail server waits as long as that takes.
    pub(super) fn waits_for_relays(&self) -> bool {
        matches!(self, Self::Outgoing { .. })
    }

    /// The name that is said to who connects. Not the mail server's own: it would take that for a loop.
    pub(super) fn host_name(&self, own_domain: &str) -> String {
        match self {
            Self::Submission { .. } => "localhost".to_owned(),
            Self::Outgoing { .. } => format!("lighter.{own_domain}"),
        }
    }

    /// Connections at a time.
    pub(super) fn connections_max(&self) -> usize {
        match self {
            Self::Submission { .. } => SUBMISSION_CONNECTIONS_MAX,
            Self::Outgoing { .. } => OUTGOING_CONNECTIONS_MAX,
        }
    }

    /// How long the same message in the same envelope is the same message.
    pub(super) fn record_life(&self) -> Duration {
        match self {
            Self::Submission { .. } => SUBMISSION_RECORD_LIFE,
            Self::Outgoing { .. } => OUTGOING_RECORD_LIFE,
        }
    }

    /// The domains whose users are sent for; none of them where it is one user's.
    pub(super) fn domains(&self) -> &[String] {
        match self {
            Self::Submission { .. } => &[],
            Self::Outgoing { domains, .. } => domains,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(more: &str) -> Config {
        let peer = lighter_protocol::Keypair::ed25519_from_bytes([1; 32]).unwrap().public().to_peer_id();
        let text = format!(
            "mailbox = \"out@example.org\"\n{more}\n[location]\nurl = \"http://127.0.0.1:1\"\npeer = \"{peer}\"\n"
        );
        toml::from_str(&text).unwrap()
    }

    const SMTP: &str = "smtp = { server = \"127.0.0.1:10026\" }";

    fn outgoing(more: &str) -> Config {
        config(&format!("{SMTP}\noutgoing = {{ listen = \"0.0.0.0:10025\"{more} }}"))
    }

    // SPEC: A26
    #[test]
    fn mail_is_taken_from_the_networks_that_were_named_and_from_this_machine_where_none_was() {
        let lets_in =
            |config: &Config, from: &str| Role::of(config).unwrap().unwrap().0.lets_in(from.parse().unwrap());
        let usual = outgoing("");
        for (from, expected) in [
            ("127.0.0.1", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("10.0.0.1", false),
            ("::2", false),
        ] {
            assert_eq!(lets_in(&usual, from), expected, "{from}");
        }
        let named = outgoing(", clients = [\"192.0.2.0/28\", \"2001:db8::/64\"]");
        for (from, expected) in [
            ("192.0.2.15", true),
            ("::ffff:192.0.2.1", true),
            ("2001:db8::9", true),
            ("192.0.2.16", false),
            ("127.0.0.1", false),
            ("2001:db8:0:1::9", false),
        ] {
            assert_eq!(lets_in(&named, from), expected, "{from}");
        }
        assert!(!lets_in(&outgoing(", clients = []"), "127.0.0.1"), "nobody was named");
    }

    // SPEC: A26
    #[test]
    fn messages_of_the_domains_that_were_named_are_looked_at_and_of_the_own_where_none_was() {
        let looks_at = |config: &Config, sender: &str| {
            let is = Role::of(config).unwrap().unwrap().0.looks_at(&sender.parse().unwrap());
            assert_eq!(is, config.speaks_for(&sender.parse().unwrap()), "{sender}: asked for and looked at");
            is
        };
        let usual = outgoing("");
        assert!(looks_at(&usual, "Sam@Example.ORG"));
        assert!(!looks_at(&usual, "sam@sub.example.org") && !looks_at(&usual, "sam@example.com"));
        let named = outgoing(", domains = [\"Example.COM\", \"example.net\"]");
        assert!(looks_at(&named, "sam@example.com") && looks_at(&named, "sam@example.net"));
        assert!(!looks_at(&named, "sam@example.org"));
        let own = config(&format!("{SMTP}\nsubmission = {{ listen = \"127.0.0.1:5870\" }}"));
        let (role, _) = Role::of(&own).unwrap().unwrap();
        assert!(role.looks_at(&own.mailbox) && !own.speaks_for(&own.mailbox));
        assert!(!role.looks_at(&"sam@example.org".parse().unwrap()));
    }

    #[test]
    fn what_cannot_be_is_said() {
        for (wrong, word) in [
            (config("outgoing = { listen = \"127.0.0.1:10025\" }"), "[smtp]"),
            (
                config("smtp = { server = \"127.0.0.1:25\" }\noutgoing = { listen = \"127.0.0.1:25\" }"),
                "a loop",
            ),
            (
                config(&format!(
                    "{SMTP}\noutgoing = {{ listen = \"127.0.0.1:1\" }}\nsubmission = {{ listen = \"127.0.0.1:2\" }}"
                )),
                "of its own",
            ),
        ] {
            let error = Role::of(&wrong).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
        assert_eq!(Role::of(&config("")).unwrap(), None);
    }
}
