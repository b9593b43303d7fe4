//! The way of one recipient's attachments: offered to their store, kept here until that can be reached, or, with the
//! message, whole by mail; and the delivery on record before any of it (SPEC A5 to A8).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use lighter_protocol::{DeliveryId, Mailbox, PeerId, UnixTime};
use lighter_store::{Outgoing, OutgoingState};
use lighter_transport::location::StoreRecord;
use tokio::sync::watch;
use tokio::time::timeout;

use super::Sending;
use super::spool::Spooled;
use super::unreachable::Next;
use crate::limits::{DIAL_TIME_MAX, OFFER_ANSWER_TIME_MAX, OUTGOING_LIFE};
use crate::offers::{self, Attempt, Stage};
use crate::sharing;

/// How a recipient's message goes.
pub(super) enum Way {
    Store {
        delivery: DeliveryId,
        stages: watch::Receiver<Stage>,
    },
    /// The attachments wait here until their store takes them.
    Kept {
        delivery: DeliveryId,
        stages: watch::Receiver<Stage>,
        until: UnixTime,
        why: String,
    },
    /// The attachments are to be left with a relay of the recipient's domain; none: an earlier try has left them.
    Relay {
        record: Option<Box<StoreRecord>>,
        why: String,
    },
    Whole {
        why: String,
    },
}

impl Sending {
    /// The deliveries that an earlier try of the same message put on record as mailed: their stubs may have arrived, so
    /// they stay the way to these recipients.
    pub(super) async fn earlier(&self, recipients: &[Mailbox]) -> HashMap<Mailbox, Outgoing> {
        let wanted: Vec<(Mailbox, DeliveryId)> = recipients
            .iter()
            .flat_map(|recipient| {
                let deliveries = [self.identity.delivery(recipient), self.identity.dropped(recipient)];
                deliveries.map(|delivery| (recipient.clone(), delivery))
            })
            .collect();
        let found = self.shared.blocking(move |store| {
            let mut found = HashMap::new();
            for (recipient, delivery) in wanted {
                if let Some(outgoing) = store.outgoing(delivery)?
                    && matches!(outgoing.state, OutgoingState::Waiting | OutgoingState::Released(_))
                {
                    found.insert(recipient, outgoing);
                }
            }
            Ok::<_, lighter_store::StoreError>(found)
        });
        found.await.unwrap_or_else(|error| {
            tracing::warn!(%error, "earlier tries of this message cannot be looked at");
            HashMap::new()
        })
    }

    /// Goes on with a delivery that an earlier try began.
    pub(super) fn go_on(&self, outgoing: Outgoing) -> Way {
        let delivery = outgoing.delivery;
        let stages = match outgoing.state {
            OutgoingState::Released(_) => {
                watch::channel(Stage { attempt: Attempt::Released, ..Stage::default() }).1
            }
            _ => offers::begin(&self.shared, outgoing),
        };
        Way::Store { delivery, stages }
    }

    /// Puts a delivery on record, not mailed yet.
    ///
    /// # Errors
    /// Why it goes whole.
    async fn prepare(
        &self,
        recipient: &Mailbox,
        store: PeerId,
        spooled: &Spooled,
        life: Duration,
    ) -> Result<Outgoing, String> {
        // The same for each try: a store that took an earlier one goes on with it.
        let delivery = self.identity.delivery(recipient);
        let known = self.shared.blocking(move |store| store.outgoing(delivery)).await;
        if !matches!(known, Ok(None)) {
            return Err("an earlier try of it did not get to their store".to_owned());
        }
        let share = self.shared.config.send.share;
        let is_shown = sharing::shown::may_share(&self.shown, recipient, share);
        self.put(delivery, recipient, store, spooled, life, is_shown).await
    }

    /// Puts a delivery of this number on record; `is_shown`: with the recipient as one who may share it.
    pub(super) async fn put(
        &self,
        delivery: DeliveryId,
        recipient: &Mailbox,
        store: PeerId,
        spooled: &Spooled,
        life: Duration,
        is_shown: bool,
    ) -> Result<Outgoing, String> {
        let now = UnixTime::now();
        let outgoing = Outgoing {
            delivery,
            sender: self.draft.from.clone(),
            recipient: recipient.clone(),
            store,
            manifest: spooled.manifest.clone(),
            blobs: spooled.blobs.clone(),
            introduction: None,
            subject: spooled.summary.subject.clone().unwrap_or_default(),
            created: now,
            expires: now.plus(life),
            state: OutgoingState::Preparing,
        };
        let recorded = outgoing.clone();
        let put = self.shared.blocking(move |store| match is_shown {
            true => store.put_outgoing_shown(&recorded),
            false => store.put_outgoing(&recorded),
        });
        let put = put.await;
        put.map_err(|error| format!("it could not be recorded: {error}"))?;
        Ok(outgoing)
    }

    /// Offers to one recipient's store on the location server's word that it is online (SPEC A4): the message does not wait for the
    /// store's answer. Where that does not come, the attachments wait here as long as any that are retried, and then the
    /// message goes whole.
    pub(super) async fn trust(&self, recipient: &Mailbox, store: PeerId, spooled: &Arc<Spooled>) -> Way {
        let life = self.wanted.time(&self.shared.config.send.rules());
        match self.prepare(recipient, store, spooled, life).await {
            Ok(outgoing) => {
                let delivery = outgoing.delivery;
                Way::Store { delivery, stages: offers::begin(&self.shared, outgoing) }
            }
            Err(why) => Way::Whole { why },
        }
    }

    /// Offers to one recipient's store, and waits for its answer.
    pub(super) async fn offer(&self, recipient: &Mailbox, store: PeerId, spooled: &Arc<Spooled>) -> Way {
        let outgoing = match self.prepare(recipient, store, spooled, OUTGOING_LIFE).await {
            Ok(outgoing) => outgoing,
            Err(why) => return Way::Whole { why },
        };
        let delivery = outgoing.delivery;
        let mut stages = offers::begin(&self.shared, outgoing);
        let answered = stages.wait_for(|stage| stage.attempt != Attempt::Looking);
        let attempt = match timeout(DIAL_TIME_MAX + OFFER_ANSWER_TIME_MAX, answered).await {
            Ok(Ok(stage)) => stage.attempt.clone(),
            Ok(Err(_)) | Err(_) => {
                Attempt::Waiting { why: "the recipient's store did not answer in time".to_owned() }
            }
        };
        match attempt {
            Attempt::Pulling | Attempt::Released => Way::Store { delivery, stages },
            Attempt::Looking => {
                self.keep_on(recipient, delivery, spooled, "the recipient's store did not answer".to_owned())
                    .await
            }
            Attempt::Waiting { why } => self.keep_on(recipient, delivery, spooled, why).await,
            Attempt::Failed { why } | Attempt::MailedWhole { why } => self.withdraw(delivery, why).await,
        }
    }

    /// For a recipient whose store cannot be reached: the attachments are left with a relay of theirs, or wait here, if they
    /// may (SPEC A7).
    pub(super) async fn keep(
        &self,
        recipient: &Mailbox,
        store: PeerId,
        leave: Option<Box<StoreRecord>>,
        spooled: &Spooled,
        why: String,
    ) -> Way {
        let life = match self.decide(recipient, spooled.bytes()) {
            Next::Retry(life) => life,
            Next::Drop => {
                return match leave {
                    Some(record) => Way::Relay { record: Some(record), why },
                    None => Way::Whole { why },
                };
            }
            Next::Whole { too_large } => return Way::Whole { why: because(why, too_large) },
        };
        match self.prepare(recipient, store, spooled, life).await {
            Ok(outgoing) => {
                let (delivery, until) = (outgoing.delivery, outgoing.expires);
                Way::Kept { delivery, stages: offers::begin(&self.shared, outgoing), until, why }
            }
            Err(why) => Way::Whole { why },
        }
    }

    /// The same for a delivery that was offered, and not answered.
    async fn keep_on(
        &self,
        recipient: &Mailbox,
        delivery: DeliveryId,
        spooled: &Spooled,
        why: String,
    ) -> Way {
        let life = match self.decide(recipient, spooled.bytes()) {
            Next::Retry(life) => life,
            // The store may have begun on it: what it knows is not left elsewhere under another number.
            Next::Drop => return self.withdraw(delivery, why).await,
            Next::Whole { too_large } => return self.withdraw(delivery, because(why, too_large)).await,
        };
        self.shared.offers.cancel(&delivery);
        let until = UnixTime::now().plus(life);
        let changed = move |store: &lighter_store::Store| {
            store.change_outgoing(delivery, |outgoing| outgoing.expires = until)
        };
        match self.shared.blocking(changed).await {
            Ok(outgoing) => Way::Kept { delivery, stages: offers::begin(&self.shared, outgoing), until, why },
            Err(error) => Way::Whole { why: format!("it could not be recorded: {error}") },
        }
    }

    /// The delivery is not offered any more: its message goes whole. It stays on record until that is done.
    async fn withdraw(&self, delivery: DeliveryId, why: String) -> Way {
        self.shared.offers.cancel(&delivery);
        Way::Whole { why }
    }
}

/// Why a message goes whole whose recipient's store cannot be reached.
fn because(why: String, too_large: bool) -> String {
    if too_large { format!("{why}, and its attachments are larger than may wait for it") } else { why }
}
