//! Who has a store: asked of the location server, for all recipients of a message at once (SPEC A2, A3, A17).

use std::collections::BTreeSet;
use std::time::Duration;

use lighter_mail::RcptTo;
use lighter_protocol::Mailbox;
use lighter_transport::location::LocationClient;
use lighter_transport::location::api::Secret;
use tokio::time::timeout;

/// How long the location server may take to answer: the sender waits meanwhile.
const LOOKUP_TIME_MAX: Duration = Duration::from_secs(5);

/// Decides for each recipient on their own (SPEC A10).
#[derive(Clone, Debug)]
pub struct Decide {
    client: LocationClient,
    token: Secret,
    domains: BTreeSet<String>,
}

impl Decide {
    /// Asks `client`, with a `token` of scope `lookup`, about recipients in `domains`; about all where it is empty.
    pub fn new(client: LocationClient, token: Secret, domains: &[String]) -> Self {
        let domains = domains.iter().map(|domain| domain.to_lowercase()).collect();
        Self { client, token, domains }
    }

    /// For each recipient: the mailbox whose store the attachments wait for, or `None` for who gets the message whole:
    /// who has no store, and everybody while the location server cannot be asked (DESIGN §3 rule 5).
    ///
    /// Presence plays no part: a store that is offline, or of which nothing is known, is waited for.
    pub(super) async fn endowed(&self, recipients: &[RcptTo]) -> Vec<Option<Mailbox>> {
        let mailboxes: Vec<Option<Mailbox>> = recipients.iter().map(|rcpt| self.mailbox(rcpt)).collect();
        let asked: Vec<Mailbox> = mailboxes.iter().flatten().cloned().collect();
        if asked.is_empty() {
            return mailboxes;
        }
        let answer = match timeout(LOOKUP_TIME_MAX, self.client.lookup(&self.token, &asked)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                tracing::warn!(%error, "location server cannot be asked: the message goes whole");
                return vec![None; recipients.len()];
            }
            Err(_) => {
                tracing::warn!("location server does not answer: the message goes whole");
                return vec![None; recipients.len()];
            }
        };
        let mut stores = answer.into_iter();
        mailboxes.into_iter().map(|mailbox| mailbox.filter(|_| stores.next().flatten().is_some())).collect()
    }

    /// The recipient's mailbox, where it is one of ours.
    fn mailbox(&self, rcpt: &RcptTo) -> Option<Mailbox> {
        let mailbox: Mailbox = rcpt.address.to_string().parse().ok()?;
        (self.domains.is_empty() || self.domains.contains(mailbox.domain())).then_some(mailbox)
    }
}
