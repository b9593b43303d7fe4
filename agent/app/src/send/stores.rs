//! The recipients' stores: where they are, and which of them can be relied on now (SPEC A2 to A4).

use std::collections::HashMap;

use lighter_protocol::{Mailbox, PeerId};
use lighter_transport::location::{Presence, StoreRecord};
use tokio::task::JoinSet;

use super::Sending;
use super::unreachable::{self, Next};
use crate::{drops, finding};

/// A recipient's store.
#[derive(Clone)]
pub(super) struct Found {
    pub(super) peer: PeerId,
    /// Whether the location server's word that it is online is enough (SPEC A4): it was not asked itself.
    pub(super) trusted: bool,
    /// Why it cannot be relied on now.
    pub(super) unreached: Option<String>,
    /// What the location server says of it, where it cannot and a relay of its domain may take things for it.
    pub(super) leave: Option<Box<StoreRecord>>,
}

/// What look-ups gave.
#[derive(Default)]
pub(super) struct LookedUp {
    pub(super) found: HashMap<Mailbox, Found>,
    /// Who could not be asked about, and why.
    pub(super) unasked: HashMap<Mailbox, String>,
}

impl Sending {
    /// Whether the attachments may go to a recipient's store, now or later.
    pub(super) fn may_go_to(&self, recipient: &Mailbox, store: &Found) -> bool {
        store.unreached.is_none()
            || match self.decide(recipient, 0) {
                Next::Retry(_) => true,
                Next::Drop => store.leave.is_some(),
                Next::Whole { .. } => false,
            }
    }

    /// What is done where a recipient's store cannot be reached.
    pub(super) fn decide(&self, recipient: &Mailbox, bytes: u64) -> Next {
        unreachable::decide(&self.shared.config.send.rules(), self.wanted, recipient, bytes)
    }

    /// The recipients' stores, and which of them can be relied on now (SPEC A2 to A4). Whatever fails, the message goes
    /// whole (DESIGN §3 rule 5).
    pub(super) async fn look_up(&self, recipients: &[Mailbox]) -> LookedUp {
        let mut looked_up = LookedUp::default();
        if !self.draft.has_attachments() {
            return looked_up;
        }
        let mut pings = JoinSet::new();
        for (recipient, record) in finding::look_up(&self.shared, &self.draft.from, recipients).await {
            let record = match record {
                Ok(Some(record)) => record,
                Ok(None) => continue,
                Err(why) => {
                    looked_up.unasked.insert(recipient, why);
                    continue;
                }
            };
            let found = &mut looked_up.found;
            if self.shared.config.send.trust_presence && record.presence == Presence::Online {
                let found_it = Found { peer: record.peer, trusted: true, unreached: None, leave: None };
                found.insert(recipient.clone(), found_it);
                continue;
            }
            let (shared, sender) = (self.shared.clone(), self.draft.from.clone());
            pings.spawn(async move {
                let reached = crate::ways::reach(&shared, &sender, &recipient, &record).await;
                (recipient, record, reached)
            });
        }
        let found = &mut looked_up.found;
        while let Some(pinged) = pings.join_next().await {
            match pinged {
                Ok((recipient, record, Ok(reached))) => {
                    reached.connection.close();
                    let peer = record.peer;
                    found.insert(recipient, Found { peer, trusted: false, unreached: None, leave: None });
                }
                Ok((recipient, record, Err(why))) => {
                    tracing::info!(%recipient, %why, "the store is not relied on");
                    let (peer, unreached) = (record.peer, Some(why.to_string()));
                    let leave = drops::is_possible(&self.shared, &record).then(|| Box::new(record));
                    found.insert(recipient, Found { peer, trusted: false, unreached, leave });
                }
                Err(_) => {}
            }
        }
        looked_up
    }
}
