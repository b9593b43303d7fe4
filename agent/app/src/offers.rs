//! What this agent sent and serves until it is receipted (SPEC A6, A7, D4): each outgoing delivery is a task that
//! drives the machine of `lighter_protocol::offer`. The deliveries are on record in the store, so whichever process
//! runs next goes on with them.

mod driver;
mod push;
mod whole;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lighter_protocol::offer::Delivery;
use lighter_protocol::wire::{Get, Response};
use lighter_protocol::{BlobId, DeliveryId, PeerId, Receipt, Releaser, Signed, VerifiedReceipt};
use lighter_store::{Outgoing, OutgoingState, StoreError};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::AbortHandle;

use crate::shared::{Handle, now};
use crate::sharing::tell;
use crate::ways::Way;

pub use driver::Attempt;
pub use whole::cancel;
pub(crate) use whole::mail as mail_whole;

/// Seconds after which a store whose receipt could not be recorded is asked to send it again.
const LATER_S: u32 = 5;
/// Things that happened to a delivery and were not looked at yet; more of the same kind say nothing new.
const EVENTS_MAX: usize = 16;

/// The deliveries being offered.
#[derive(Debug, Default)]
pub struct Offers {
    running: Mutex<HashMap<DeliveryId, Running>>,
}

#[derive(Debug)]
struct Running {
    events: mpsc::Sender<Event>,
    progress: watch::Sender<Stage>,
    /// There may be something to tell its store of others who have it.
    others: Arc<Notify>,
    task: AbortHandle,
}

impl Running {
    /// To be called with the list locked: only then is what it sees of the queue still so when it sends.
    fn tell(&self, event: Event) {
        // The last place is kept for the end: nothing says that again. Of the others, a full queue has enough.
        if matches!(event, Event::Released) || self.events.capacity() > 1 {
            let _ = self.events.try_send(event);
        }
    }
}

/// What happens to a delivery besides what its task does itself.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// The store pulled something.
    Progress,
    /// Its receipt is recorded.
    Released,
    /// It is to be offered now: the store has room for it again, or this side may send it again.
    Wanted,
}

/// How far an outgoing delivery is, for who waits for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stage {
    /// Blobs that were served to their end, and their bytes.
    pub served: HashMap<BlobId, u64>,
    /// Where it is.
    pub attempt: Attempt,
    /// How its store is reached, while it is connected.
    pub way: Option<Way>,
}

impl Offers {
    fn lock(&self) -> MutexGuard<'_, HashMap<DeliveryId, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, delivery: &DeliveryId, event: Event) {
        if let Some(running) = self.lock().get(delivery) {
            running.tell(event);
        }
    }

    /// Others have it by now, perhaps.
    fn tell_of_others(&self, delivery: &DeliveryId) {
        if let Some(running) = self.lock().get(delivery) {
            running.others.notify_one();
        }
    }

    /// Stops offering a delivery: its message goes another way.
    pub fn cancel(&self, delivery: &DeliveryId) {
        if let Some(running) = self.lock().remove(delivery) {
            running.task.abort();
        }
    }

    /// Stops offering anything: what is on record is gone on with by the next start.
    pub fn stop(&self) {
        self.lock().drain().for_each(|(_, running)| running.task.abort());
    }

    /// How a delivery's store is reached, if it is connected.
    pub fn way_of(&self, delivery: &DeliveryId) -> Option<Way> {
        self.lock().get(delivery)?.progress.borrow().way
    }

    /// Why a delivery waits, if it is being offered and does.
    pub fn waits_for(&self, delivery: &DeliveryId) -> Option<String> {
        match &self.lock().get(delivery)?.progress.borrow().attempt {
            Attempt::Waiting { why } => Some(why.clone()),
            _ => None,
        }
    }
}

/// Goes on with every delivery on record that is not receipted yet.
///
/// # Errors
/// What the index says.
pub async fn resume(shared: &Handle) -> Result<(), StoreError> {
    let all = shared.blocking(lighter_store::Store::all_outgoing).await?;
    for outgoing in all {
        let delivery = outgoing.delivery;
        match outgoing.state {
            OutgoingState::Waiting => {
                // What a relay has is followed there (`drops`).
                if shared.blocking(move |store| store.left(delivery)).await?.is_none() {
                    begin(shared, outgoing);
                }
            }
            // The process ended before its message was mailed: whoever sent it was told nothing, or sends it again.
            OutgoingState::Preparing => {
                shared.blocking(move |store| store.remove_outgoing(outgoing.delivery)).await?;
            }
            OutgoingState::Released(_) | OutgoingState::Failed { .. } | OutgoingState::MailedWhole(_) => {}
        }
    }
    Ok(())
}

/// Offers a delivery that is on record, until it is receipted, refused or expired. `outgoing` may be older than the record: an
/// earlier task may have seen it to its end in the meantime.
pub fn begin(shared: &Handle, outgoing: Outgoing) -> watch::Receiver<Stage> {
    let mut running = shared.offers.lock();
    if let Some(already) = running.get(&outgoing.delivery) {
        return already.progress.subscribe();
    }
    let (events, receiver) = mpsc::channel(EVENTS_MAX);
    let (progress, stages) = watch::channel(Stage::default());
    let (delivery, others) = (outgoing.delivery, Arc::new(Notify::new()));
    let task = tokio::spawn({
        let (shared, progress, others) = (shared.clone(), progress.clone(), Arc::clone(&others));
        async move {
            driver::run(&shared, outgoing, receiver, progress.clone(), others).await;
            // Unless it was cancelled just then, and another one began.
            let mut running = shared.offers.lock();
            if running.get(&delivery).is_some_and(|on_list| on_list.progress.same_channel(&progress)) {
                running.remove(&delivery);
            }
        }
    });
    // The task waits for this lock before it can take itself off the list.
    running.insert(delivery, Running { events, progress, others, task: task.abort_handle() });
    stages
}

/// A store asks what waits for it: that is offered to it now. Gives how much that is.
pub async fn wanted(shared: &Handle, store: PeerId) -> u64 {
    let all = shared.blocking(lighter_store::Store::all_outgoing).await.unwrap_or_default();
    let its =
        all.iter().filter(|outgoing| outgoing.state == OutgoingState::Waiting && outgoing.store == store);
    let mut count = 0;
    for outgoing in its {
        shared.offers.tell(&outgoing.delivery, Event::Wanted);
        count += 1;
    }
    count
}

/// Offers everything now: this side may send again what it did not.
pub fn offer_again(shared: &Handle) {
    shared.offers.lock().values().for_each(|running| running.tell(Event::Wanted));
}

/// The facts of a delivery, as the machine takes them.
pub fn facts(outgoing: &Outgoing) -> Delivery {
    Delivery {
        id: outgoing.delivery,
        mailbox: outgoing.recipient.clone(),
        manifest: outgoing.manifest.clone(),
        blobs: outgoing.blobs.clone(),
        sources: Vec::new(),
        expires: outgoing.expires,
    }
}

/// A receipt came: what counts is who signed it. Recorded durably before the answer (SPEC D4).
pub async fn receipted(shared: &Handle, receipt: &Signed<Receipt>, peer: &PeerId) -> Response {
    let Ok(claim) = receipt.claim() else { return Response::Refused };
    let delivery = claim.delivery;
    let outgoing = match shared.blocking(move |store| store.outgoing(delivery)).await {
        Ok(Some(outgoing)) => outgoing,
        Ok(None) => return Response::Refused,
        Err(error) => {
            tracing::warn!(%delivery, %error, "the index cannot be read");
            return Response::Later(LATER_S);
        }
    };
    let now = now().wall;
    // The store was looked up at the location server when the delivery was made, and again for each offer.
    let until = now.plus(std::time::Duration::from_secs(1));
    let releaser = Releaser::looked_up(outgoing.recipient.clone(), outgoing.store, until);
    let verified = match VerifiedReceipt::verify(receipt, &releaser, &facts(&outgoing).expected(), now) {
        Ok(verified) => verified,
        Err(reason) => {
            tracing::info!(%peer, %delivery, %reason, "receipt refused");
            return Response::Refused;
        }
    };
    if matches!(outgoing.state, OutgoingState::Released(_)) {
        // Who offered it again did not know.
        shared.offers.tell(&delivery, Event::Released);
        return Response::Released;
    }
    let released = OutgoingState::Released(verified.signed().clone());
    let changed =
        shared.blocking(move |store| store.change_outgoing(delivery, |outgoing| outgoing.state = released));
    match changed.await {
        Ok(_) => {
            tracing::info!(%delivery, store = %peer, "receipted, released");
            shared.offers.tell(&delivery, Event::Released);
            for other in tell::others(shared, &outgoing).await {
                shared.offers.tell_of_others(&other.delivery);
            }
            Response::Released
        }
        Err(error) => {
            tracing::warn!(%delivery, %error, "a receipt could not be recorded");
            Response::Later(LATER_S)
        }
    }
}

/// Tells a delivery's task that it is being pulled, or pushed.
#[derive(Debug)]
pub struct Progress<'a> {
    shared: &'a Handle,
    delivery: DeliveryId,
}

impl<'a> Progress<'a> {
    /// A stream begins.
    pub fn begin(shared: &'a Handle, delivery: DeliveryId) -> Self {
        shared.offers.tell(&delivery, Event::Progress);
        Self { shared, delivery }
    }

    /// A stream of a blob of `size` bytes was served to its end.
    pub fn served(&self, get: &Get, size: u64) {
        let len = match get.ranges.as_slice() {
            [] => size,
            ranges => ranges.iter().map(|(start, end)| end.min(&size).saturating_sub(*start)).sum(),
        };
        self.sent(get.blob, len, size);
    }

    /// These blobs were sent, all of each: with their sizes.
    pub fn sent_all(&self, blobs: impl Iterator<Item = (BlobId, u64)>) {
        self.note(blobs.map(|(blob, size)| (blob, size, size)));
    }

    /// So many bytes of a blob of `size` bytes were sent, asked for or pushed.
    pub fn sent(&self, blob: BlobId, len: u64, size: u64) {
        self.note(std::iter::once((blob, len, size)));
    }

    fn note(&self, sent: impl Iterator<Item = (BlobId, u64, u64)>) {
        if let Some(running) = self.shared.offers.lock().get(&self.delivery) {
            running.progress.send_modify(|stage| {
                for (blob, len, size) in sent {
                    let served = stage.served.entry(blob).or_default();
                    *served = served.saturating_add(len).min(size);
                }
            });
        }
        self.shared.offers.tell(&self.delivery, Event::Progress);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_end_is_told_however_much_was_not_looked_at_yet() {
        let (events, mut told) = mpsc::channel(EVENTS_MAX);
        let task = tokio::spawn(async {}).abort_handle();
        let running = Running { events, progress: watch::Sender::default(), others: Arc::default(), task };
        for event in [Event::Progress, Event::Wanted].into_iter().cycle().take(3 * EVENTS_MAX) {
            running.tell(event);
        }
        running.tell(Event::Released);
        let mut all = Vec::new();
        while let Ok(event) = told.try_recv() {
            all.push(event);
        }
        assert!(all.len() == EVENTS_MAX && matches!(all.last(), Some(Event::Released)), "{all:?}");
    }
}
