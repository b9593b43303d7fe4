//! A message that a mail client made, offered to its recipients' stores (SPEC A2 to A6): the same look-ups, offers, drops and
//! records as for `send`. Who mails what, and when, is the caller's: the mail goes over the client's own connection.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use lighter_protocol::{DeliveryId, Mailbox};
use lighter_store::{Outgoing, OutgoingState};
use lighter_transport::location::StoreRecord;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::compose::Draft;
use super::identity::Identity;
use super::made::Made;
use super::mail::{self, Content};
use super::spool::{self, Spooled};
use super::unreachable::{Unreachable, Wanted};
use super::{EVENTS_MAX, Found, SendEvent, Sending, Way};
use crate::config::SmtpConfig;
use crate::drops;
use crate::limits::OUTGOING_LEAVE_TIME_MAX;
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
    /// Whose store cannot be reached now, and may get them by a relay.
    to_leave: Vec<ToLeave>,
}

/// One recipient whose store takes the attachments, or gets them from a relay that has them.
pub(crate) struct OfferedStore {
    pub(crate) recipient: Mailbox,
    delivery: DeliveryId,
    /// How the store's pull goes; none: a relay has everything.
    stages: Option<watch::Receiver<Stage>>,
}

impl OfferedStore {
    /// Whether the attachments were left with a relay of the recipient's domain.
    pub(crate) fn is_left(&self) -> bool {
        self.stages.is_none()
    }
}

/// What is to be left for one recipient.
struct ToLeave {
    recipient: Mailbox,
    record: Box<StoreRecord>,
    /// Why their store does not take it.
    why: String,
}

/// The machinery of `send`, around a message that is there already.
pub(crate) struct Submission {
    sending: Arc<Sending>,
}

impl Submission {
    /// Attachments may wait here for a store that cannot be reached where the configuration says so, and only if the agent
    /// could mail the message whole in the end: `needs_password` says that it could not.
    pub(crate) async fn new(
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
        let of = draft.clone();
        let shown = shared.blocking(move |_| of.shown()).await;
        let shared = shared.clone();
        Self { sending: Arc::new(Sending { shared, smtp, draft, identity, shown, wanted, events }) }
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
                    let is_left = outgoing.delivery == sending.identity.dropped(&recipient);
                    let way = if is_left {
                        Way::Relay { record: None, why: String::new() }
                    } else {
                        sending.go_on(outgoing.clone())
                    };
                    offering.spawn(async move { (recipient, way) });
                }
                (_, Some(store)) => {
                    let Found { peer, unreached, leave, .. } = store.clone();
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
        let (mut stores, mut to_leave) = (Vec::new(), Vec::new());
        while let Some(offered) = offering.join_next().await {
            match offered {
                Ok((recipient, Way::Store { delivery, stages } | Way::Kept { delivery, stages, .. })) => {
                    stores.push(OfferedStore { recipient, delivery, stages: Some(stages) });
                }
                Ok((recipient, Way::Relay { record: None, .. })) => {
                    let delivery = sending.identity.dropped(&recipient);
                    stores.push(OfferedStore { recipient, delivery, stages: None });
                }
                Ok((recipient, Way::Relay { record: Some(record), why })) => {
                    to_leave.push(ToLeave { recipient, record, why });
                }
                Ok((recipient, Way::Whole { why })) => tracing::debug!(%recipient, %why, "goes whole"),
                Err(_) => {}
            }
        }
        Some(Offered { sending: Arc::clone(sending), spooled, stores, to_leave })
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
    /// Leaves the attachments with relays of those recipients' domains whose stores cannot be reached (SPEC A7). Sealing and
    /// leaving takes its time; what is not there within `time_max` is not waited for, and these messages go whole. A mail
    /// client waits for less than that, and nothing is left for it.
    pub(crate) async fn leave(&mut self, time_max: Duration) {
        let mut leaving = JoinSet::new();
        for ToLeave { recipient, record, why } in std::mem::take(&mut self.to_leave) {
            let (sending, spooled) = (Arc::clone(&self.sending), Arc::clone(&self.spooled));
            let (told, tells) = oneshot::channel();
            // In a task of its own, which ends what it began: what nobody waits for any more is taken back.
            let left = recipient.clone();
            if let Ok(place) = sending.shared.drops.place_to_leave() {
                tokio::spawn(async move {
                    leave(&sending, &left, &record, &spooled, told).await;
                    drop(place);
                });
            }
            leaving.spawn(async move {
                let left = timeout(time_max, tells).await;
                let why_not = match left {
                    Ok(Ok(Ok(delivery))) => return Some(OfferedStore { recipient, delivery, stages: None }),
                    Ok(Ok(Err(why_not))) => why_not,
                    Ok(Err(_)) => "too much is being left with relays just now".to_owned(),
                    Err(_) => "it took too long to leave it with a relay".to_owned(),
                };
                tracing::info!(%recipient, %why, %why_not, "goes whole");
                None
            });
        }
        while let Some(left) = leaving.join_next().await {
            self.stores.extend(left.ok().flatten());
        }
    }

    /// Whose stores take it, in a defined order.
    pub(crate) fn take_stores(&mut self) -> Vec<OfferedStore> {
        let mut stores = std::mem::take(&mut self.stores);
        stores.sort_by(|one, other| one.recipient.cmp(&other.recipient));
        stores
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
        let OfferedStore { recipient, stages, .. } = store;
        let Some(stages) = stages else { return self.sending.shared.drops.tell_left() };
        let (sending, spooled) = (Arc::clone(&self.sending), Arc::clone(&self.spooled));
        tokio::spawn(async move {
            tokio::select! {
                () = sending.follow(recipient, stages, &spooled) => {}
                () = sending.shared.stop.cancelled() => {}
            }
        });
    }
}

/// Leaves one recipient's attachments with a relay of their domain; the delivery's number. Where it is not left, or nobody
/// waits for it any more, nothing of it stays on record.
async fn leave(
    sending: &Sending,
    recipient: &Mailbox,
    record: &StoreRecord,
    spooled: &Spooled,
    mut told: oneshot::Sender<Result<DeliveryId, String>>,
) {
    let delivery = sending.identity.dropped(recipient);
    let mut leaving = pin!(sending.put_and_leave(delivery, recipient, record, spooled));
    let left = tokio::select! {
        left = &mut leaving => left,
        // Nobody waits any more. What is being sealed is not to be broken off, since that goes on all the same; a relay that
        // takes for ever is.
        () = told.closed() => match timeout(OUTGOING_LEAVE_TIME_MAX, leaving).await {
            Ok(left) => left,
            Err(_) => Err("it took too long".to_owned()),
        },
    };
    let left = left.map(|_| delivery);
    if left.is_err() {
        drops::take_back(&sending.shared, delivery).await;
    }
    if let Err(Ok(_unheard)) = told.send(left) {
        drops::take_back(&sending.shared, delivery).await;
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
