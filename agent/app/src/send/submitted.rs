//! A message that a mail client made, offered to its recipients' stores (SPEC A2 to A6): the same look-ups, offers and
//! records as for `send`. Who mails what, and when, is the caller's: the mail goes over the client's own connection.

use std::sync::Arc;

use lighter_protocol::{DeliveryId, Mailbox};
use lighter_store::{Outgoing, OutgoingState};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::compose::Draft;
use super::identity::Identity;
use super::made::Made;
use super::mail::{self, Content};
use super::spool::{self, Spooled};
use super::unreachable::{Unreachable, Wanted};
use super::{EVENTS_MAX, Found, SendEvent, Sending, Way};
use crate::config::SmtpConfig;
use crate::offers::Stage;
use crate::shared::Handle;

/// A message as it was submitted.
#[derive(Debug)]
pub(crate) struct Submitted {
    pub(crate) from: Mailbox,
    pub(crate) made: Made,
}

/// A message whose attachments some recipients' stores take.
pub(crate) struct Offered {
    sending: Arc<Sending>,
    spooled: Arc<Spooled>,
    stores: Vec<OfferedStore>,
}

/// One recipient whose store takes the attachments.
pub(crate) struct OfferedStore {
    pub(crate) recipient: Mailbox,
    delivery: DeliveryId,
    stages: watch::Receiver<Stage>,
}

/// The machinery of `send`, around a message that is there already.
pub(crate) struct Submission {
    sending: Arc<Sending>,
}

impl Submission {
    /// Attachments may wait here for a store that cannot be reached where the configuration says so, and only if the agent
    /// could mail the message whole in the end: `needs_password` says that it could not.
    pub(crate) fn new(
        shared: &Handle,
        smtp: SmtpConfig,
        message: Submitted,
        identity: Identity,
        needs_password: bool,
    ) -> Self {
        let unreachable = needs_password.then_some(Unreachable::Whole);
        let wanted = Wanted { unreachable, ..Wanted::default() };
        let (events, told) = mpsc::channel(EVENTS_MAX);
        tokio::spawn(tell(told));
        let draft = Draft::made(message.from, message.made);
        Self { sending: Arc::new(Sending { shared: shared.clone(), smtp, draft, identity, wanted, events }) }
    }

    /// Offers to the stores of `recipients`. None: nobody's store takes it, and all of it goes by mail (DESIGN §3 rule 5).
    pub(crate) async fn offer(&self, recipients: &[Mailbox]) -> Option<Offered> {
        let sending = &self.sending;
        let earlier = sending.earlier(recipients).await;
        let found = sending.look_up(recipients).await.found;
        if earlier.is_empty() && !found.iter().any(|(recipient, store)| sending.may_go_to(recipient, store)) {
            return None;
        }
        let spooled = sending.spool().await?.ok()?;
        let mut offering = JoinSet::new();
        for recipient in recipients {
            let (sending, spooled) = (Arc::clone(sending), Arc::clone(&spooled));
            let recipient = recipient.clone();
            match (earlier.get(&recipient), found.get(&recipient)) {
                (Some(outgoing), _) if spooled.is_of(outgoing) => {
                    let way = sending.go_on(outgoing.clone());
                    offering.spawn(async move { (recipient, way) });
                }
                (_, Some(store)) => {
                    let Found { peer, unreached, leave } = store.clone();
                    offering.spawn(async move {
                        let way = match unreached {
                            None => sending.offer(&recipient, peer, &spooled).await,
                            Some(why) => sending.keep(&recipient, peer, leave, &spooled, why).await,
                        };
                        (recipient, way)
                    });
                }
                _ => {}
            }
        }
        let mut stores = Vec::new();
        while let Some(offered) = offering.join_next().await {
            match offered {
                Ok((recipient, Way::Store { delivery, stages } | Way::Kept { delivery, stages, .. })) => {
                    stores.push(OfferedStore { recipient, delivery, stages });
                }
                // Sealing and leaving may take longer than a mail client waits: such a message goes whole.
                Ok((recipient, Way::Whole { why } | Way::Relay { why, .. })) => {
                    tracing::debug!(%recipient, %why, "goes whole");
                }
                Err(_) => {}
            }
        }
        stores.sort_by(|one, other| one.recipient.cmp(&other.recipient));
        Some(Offered { sending: Arc::clone(sending), spooled, stores })
    }

    /// Forgets what [`Submission::offer`] began and nobody was promised.
    pub(crate) async fn give_up(&self, recipients: &[Mailbox]) {
        for recipient in recipients {
            let delivery = self.sending.identity.delivery(recipient);
            forget(&self.sending.shared, delivery).await;
        }
    }
}

impl Offered {
    /// Whose stores take it, in a defined order.
    pub(crate) fn take_stores(&mut self) -> Vec<OfferedStore> {
        std::mem::take(&mut self.stores)
    }

    /// Bytes of its attachments.
    pub(crate) fn bytes(&self) -> u64 {
        self.spooled.bytes()
    }

    /// Puts a delivery on record as one whose message goes out: a stub without its delivery would never be whole.
    ///
    /// # Errors
    /// Where it cannot be recorded, the message is to go whole: no stub may be mailed.
    pub(crate) async fn promise(&self, store: &OfferedStore) -> Result<(), String> {
        let delivery = store.delivery;
        let waiting = |outgoing: &mut Outgoing| {
            if outgoing.state == OutgoingState::Preparing {
                outgoing.state = OutgoingState::Waiting;
            }
        };
        let recorded =
            self.sending.shared.blocking(move |store| store.change_outgoing(delivery, waiting)).await;
        recorded.map(drop).map_err(|error| error.to_string())
    }

    /// The message with placeholders for one recipient.
    pub(crate) fn stub(&self, store: &OfferedStore) -> Content {
        let delivery = store.delivery;
        let (store, spooled) = (self.sending.shared.store.clone(), Arc::clone(&self.spooled));
        mail::content(move |writer| spool::write_stub(&store, &spooled, delivery, writer))
    }

    /// The stub did not go: the delivery is of no use to anybody.
    pub(crate) async fn withdraw(&self, store: &OfferedStore) {
        let (shared, delivery) = (&self.sending.shared, store.delivery);
        shared.offers.cancel(&delivery);
        let removed = shared.blocking(move |store| store.remove_outgoing(delivery)).await;
        if let Err(error) = removed {
            tracing::warn!(%delivery, %error, "a delivery without a message stays on record");
        }
    }

    /// The stub went. Who does not take the attachments after all gets the message whole, where the mail server takes it
    /// without the client.
    pub(crate) fn follow(&self, store: OfferedStore) {
        let (sending, spooled) = (Arc::clone(&self.sending), Arc::clone(&self.spooled));
        tokio::spawn(async move {
            let OfferedStore { recipient, stages, .. } = store;
            tokio::select! {
                () = sending.follow(recipient, stages, &spooled) => {}
                () = sending.shared.stop.cancelled() => {}
            }
        });
    }
}

/// Stops an offer that led to nothing.
async fn forget(shared: &Handle, delivery: DeliveryId) {
    let preparing = shared.blocking(move |store| {
        let is_preparing = |outgoing: &Outgoing| outgoing.state == OutgoingState::Preparing;
        if store.outgoing(delivery)?.as_ref().is_some_and(is_preparing) {
            store.remove_outgoing(delivery)?;
            return Ok(true);
        }
        Ok::<_, lighter_store::StoreError>(false)
    });
    match preparing.await {
        Ok(true) => shared.offers.cancel(&delivery),
        Ok(false) => {}
        Err(error) => {
            tracing::warn!(%delivery, %error, "an offer that led to nothing stays until the next start");
        }
    }
}

/// Logs what becomes of a message after its client was answered.
async fn tell(mut told: mpsc::Receiver<SendEvent>) {
    while let Some(event) = told.recv().await {
        match event {
            SendEvent::Failed { recipient, why, .. } => {
                tracing::warn!(%recipient, %why, "a store did not take a submitted message, nor did the mail server");
            }
            SendEvent::Receipted { recipient } => tracing::debug!(%recipient, "receipted"),
            SendEvent::Waiting { recipient, why } => tracing::debug!(%recipient, %why, "waits for the store"),
            _ => {}
        }
    }
}
