//! One life of the relay: its log and its view, which nothing of it changes any more when it has ended.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

use lighter_catalog::{
    Catalog, CatalogError, Change, Checkpoint, CopyKey, Counts, Deadline, Delivery, Disagreement,
    DueHandOver, EmbeddedCatalog, HandOver, HandOverState, KeptCopy, Ledger, Log, LogError, MemoryCatalog,
    Message, Position, Purged,
};
use lighter_protocol::{BlobId, Day, DeliveryId, Mailbox, MessageId, Receipt, Signed, TicketHash, UnixTime};
use lighter_storage::{Array, Class, PlacedBlob, ReplayAlarms, Sequence, StoredBlob};
use tokio::sync::watch;

/// The array as the log of one life of the relay: when that ends, nothing of it writes any more.
#[derive(Clone)]
pub(crate) struct MortalLog {
    pub(crate) array: Arc<Mutex<Option<Array>>>,
    pub(crate) dead: watch::Receiver<bool>,
}

impl MortalLog {
    pub(crate) fn array(&self) -> Option<Array> {
        self.array.lock().unwrap().clone()
    }

    /// What `work` gives; never, once the relay is dead.
    pub(crate) async fn while_alive<T>(&self, work: impl Future<Output = T>) -> T {
        let mut dead = self.dead.clone();
        let death = async move { dead.wait_for(|dead| *dead).await.is_ok() };
        tokio::select! {
            biased;
            _ = death => std::future::pending().await,
            done = work => done,
        }
    }
}

impl Log for MortalLog {
    type Blob = PlacedBlob;

    async fn append(
        &self,
        change: Vec<u8>,
        class: Class,
        blobs: Vec<PlacedBlob>,
    ) -> Result<Sequence, LogError> {
        let Some(array) = self.array() else { return std::future::pending().await };
        self.while_alive(async move { array.append(change, class, blobs).await }).await
    }

    fn stored(blob: &PlacedBlob) -> &StoredBlob {
        blob.stored()
    }

    async fn make_durable(&self, blobs: &[PlacedBlob]) -> Result<(), LogError> {
        let Some(array) = self.array() else { return std::future::pending().await };
        self.while_alive(async move { array.make_durable(blobs).await }).await
    }

    async fn is_kept(&self, blob: &StoredBlob) -> bool {
        let Some(array) = self.array() else { return false };
        array.is_kept(blob).await
    }

    async fn is_readable(&self, blob: &StoredBlob) -> bool {
        let Some(array) = self.array() else { return std::future::pending().await };
        self.while_alive(async move { array.is_readable(blob).await }).await
    }

    async fn replay(
        &self,
        from: Sequence,
        visit: &mut (dyn FnMut(Sequence, &[u8]) -> ControlFlow<()> + Send),
    ) -> Result<ReplayAlarms, LogError> {
        let Some(array) = self.array() else { return std::future::pending().await };
        Log::replay(&array, from, visit).await
    }
}

/// The view as one life of the relay changes it: what of that is still at work when it ends changes nothing any more.
pub(crate) struct MortalView {
    pub(crate) view: Arc<MemoryCatalog>,
    pub(crate) is_dead: Arc<Mutex<bool>>,
}

impl MortalView {
    fn while_alive<T>(
        &self,
        change: impl FnOnce(&MemoryCatalog) -> Result<T, CatalogError>,
    ) -> Result<T, CatalogError> {
        let is_dead = self.is_dead.lock().unwrap();
        if *is_dead { Err(CatalogError::InUse) } else { change(&self.view) }
    }
}

/// The ledger changes the view and asks for its checkpoint; questions go to the view itself.
impl Catalog for MortalView {
    fn checkpoint(&self) -> Result<Checkpoint, CatalogError> {
        self.view.checkpoint()
    }

    fn apply(
        &self,
        changes: &[(Sequence, Change)],
        checkpoint: Option<&Checkpoint>,
    ) -> Result<(), CatalogError> {
        self.while_alive(|view| view.apply(changes, checkpoint))
    }

    fn clear(&self) -> Result<(), CatalogError> {
        self.while_alive(Catalog::clear)
    }

    fn message(&self, id: &MessageId) -> Result<Option<Message>, CatalogError> {
        self.view.message(id)
    }

    fn hand_overs(&self, id: &MessageId) -> Result<Vec<(HandOver, HandOverState)>, CatalogError> {
        self.view.hand_overs(id)
    }

    fn delivery(&self, id: &DeliveryId) -> Result<Option<Delivery>, CatalogError> {
        self.view.delivery(id)
    }

    fn receipt_of_drop(&self, id: &DeliveryId) -> Result<Option<Signed<Receipt>>, CatalogError> {
        self.view.receipt_of_drop(id)
    }

    fn by_ticket(&self, ticket: &TicketHash) -> Result<Option<Delivery>, CatalogError> {
        self.view.by_ticket(ticket)
    }

    fn waiting(
        &self,
        of: &Mailbox,
        after: Option<Position>,
        count_max: usize,
    ) -> Result<Vec<Delivery>, CatalogError> {
        self.view.waiting(of, after, count_max)
    }

    fn waiting_mailboxes(
        &self,
        after: Option<&Mailbox>,
        count_max: usize,
    ) -> Result<Vec<Mailbox>, CatalogError> {
        self.view.waiting_mailboxes(after, count_max)
    }

    fn due(
        &self,
        now: UnixTime,
        count_max: usize,
        except: &BTreeSet<MessageId>,
    ) -> Result<Vec<DueHandOver>, CatalogError> {
        self.view.due(now, count_max, except)
    }

    fn next_due(&self, now: UnixTime) -> Result<Option<UnixTime>, CatalogError> {
        self.view.next_due(now)
    }

    fn postpone(
        &self,
        message: &MessageId,
        which: &[HandOver],
        attempts: u32,
        next: UnixTime,
    ) -> Result<(), CatalogError> {
        self.while_alive(|view| view.postpone(message, which, attempts, next))
    }

    fn deadlines(&self, now: UnixTime, count_max: usize) -> Result<Vec<(Delivery, Deadline)>, CatalogError> {
        self.view.deadlines(now, count_max)
    }

    fn purge(&self, today: Day, count_max: usize) -> Result<Purged, CatalogError> {
        self.while_alive(|view| view.purge(today, count_max))
    }

    fn messages(
        &self,
        after: Option<&MessageId>,
        count_max: usize,
    ) -> Result<Vec<(Message, bool)>, CatalogError> {
        self.view.messages(after, count_max)
    }

    fn copies_of(
        &self,
        blob: &BlobId,
        until: Day,
        count_max: usize,
    ) -> Result<Vec<StoredBlob>, CatalogError> {
        self.view.copies_of(blob, until, count_max)
    }

    fn copies(&self, after: Option<&CopyKey>, count_max: usize) -> Result<Vec<KeptCopy>, CatalogError> {
        self.view.copies(after, count_max)
    }

    fn alive(
        &self,
        looked: &mut dyn FnMut(),
        visit: &mut dyn FnMut(&StoredBlob),
    ) -> Result<(), CatalogError> {
        self.view.alive(looked, visit)
    }

    fn compare(
        &self,
        log: &EmbeddedCatalog,
        today: Day,
        looked: &mut dyn FnMut() -> bool,
        found: &mut dyn FnMut(Disagreement),
    ) -> Result<(), CatalogError> {
        self.view.compare(log, today, looked, found)
    }

    fn counts(&self) -> Result<Counts, CatalogError> {
        self.view.counts()
    }
}

/// One life of the relay.
pub(crate) struct Relay {
    pub(crate) is_dead: Arc<Mutex<bool>>,
    pub(crate) log: MortalLog,
    pub(crate) kill: watch::Sender<bool>,
    pub(crate) ledger: Ledger<MortalLog>,
    pub(crate) view: Arc<MemoryCatalog>,
}
