//! What the rest of the relay asks of a catalog, whatever engine keeps it.

use std::collections::BTreeSet;

use lighter_protocol::{BlobId, Day, DeliveryId, Mailbox, MessageId, Receipt, Signed, TicketHash, UnixTime};
use lighter_storage::{Sequence, StoredBlob};

use crate::leases::{Claim, ClaimedDeliveries, ClaimedHandOvers, Fence};
use crate::message::{HandOver, Message};
use crate::references::CopyKey;
use crate::rows::{Counts, Deadline, Delivery, HandOverState, Position};
use crate::tables::Result;
use crate::{Change, Checkpoint, Disagreement, EmbeddedCatalog};

/// The view of the log: which messages exist, who waits for them, what is due.
///
/// An engine keeps the rows on disk and nothing in memory but a bounded cache: a million waiting deliveries cost
/// disk. Calls may wait for that disk, or for a database: a task calls them through [`Ledger::read`](crate::Ledger::read).
///
/// Every engine passes one suite of tests (`contract.rs`), the memory one first.
pub trait Catalog: Send + Sync + 'static {
    /// Up to where the log is in the view for certain: everything at or before it has been applied and synced.
    ///
    /// # Errors
    /// [`CatalogError`](crate::CatalogError), as with every call here.
    fn checkpoint(&self) -> Result<Checkpoint>;

    /// Applies changes of the log, in its order. Those at or before the checkpoint are ignored, and any may be
    /// applied again. With `checkpoint`, that becomes the checkpoint, and the view is synced on return; without, what
    /// is applied may be lost until then.
    ///
    /// # Errors
    /// Nothing of the call was applied.
    fn apply(&self, changes: &[(Sequence, Change)], checkpoint: Option<&Checkpoint>) -> Result<()>;

    /// Forgets everything, the checkpoint too: the log will be replayed from its beginning.
    ///
    /// # Errors
    /// The view may be half forgotten; its checkpoint is gone.
    fn clear(&self) -> Result<()>;

    /// A message.
    ///
    /// # Errors
    /// As above.
    fn message(&self, id: &MessageId) -> Result<Option<Message>>;

    /// All hand-overs of a message.
    ///
    /// # Errors
    /// As above.
    fn hand_overs(&self, id: &MessageId) -> Result<Vec<(HandOver, HandOverState)>>;

    /// A delivery.
    ///
    /// # Errors
    /// As above.
    fn delivery(&self, id: &DeliveryId) -> Result<Option<Delivery>>;

    /// What the store of a delivery that was dropped here said: kept for its sender.
    ///
    /// # Errors
    /// As above.
    fn receipt_of_drop(&self, id: &DeliveryId) -> Result<Option<Signed<Receipt>>>;

    /// The delivery that a ticket opens.
    ///
    /// # Errors
    /// As above.
    fn by_ticket(&self, ticket: &TicketHash) -> Result<Option<Delivery>>;

    /// Deliveries that wait for a mailbox's store, oldest first, behind `after`; at most `count_max`.
    ///
    /// # Errors
    /// As above.
    fn waiting(&self, mailbox: &Mailbox, after: Option<Position>, count_max: usize) -> Result<Vec<Delivery>>;

    /// Mailboxes that have deliveries waiting, in order, behind `after`; at most `count_max`.
    ///
    /// # Errors
    /// As above.
    fn waiting_mailboxes(&self, after: Option<&Mailbox>, count_max: usize) -> Result<Vec<Mailbox>>;

    /// Hand-overs whose time has come, those first that have waited longest, without those of the messages in
    /// `except`; at most `count_max`.
    ///
    /// # Errors
    /// As above.
    fn due(&self, now: UnixTime, count_max: usize, except: &BTreeSet<MessageId>) -> Result<Vec<DueHandOver>>;

    /// When the next hand-over is due that is not due by `now`. None: there is none.
    ///
    /// # Errors
    /// As above.
    fn next_due(&self, now: UnixTime) -> Result<Option<UnixTime>>;

    /// Puts off hand-overs that the next hop did not take just now. Only the view knows; where it is lost, they are
    /// due at once.
    ///
    /// # Errors
    /// As above.
    fn postpone(&self, message: &MessageId, which: &[HandOver], attempts: u32, next: UnixTime) -> Result<()>;

    /// Takes hand-overs whose time has come, for this relay alone: another one on the same database does not get them as
    /// long as this one is alive. Without those of the messages in `except`; at most `count_max`.
    ///
    /// # Errors
    /// As above.
    fn claim_due(
        &self,
        now: UnixTime,
        count_max: usize,
        except: &BTreeSet<MessageId>,
    ) -> Result<ClaimedHandOvers> {
        let claim = |due: DueHandOver| Claim {
            due,
            fence: Fence { message: due.message, hand_over: due.hand_over, number: 0 },
        };
        let claims = self.due(now, count_max, except)?.into_iter().map(claim).collect();
        Ok(ClaimedHandOvers { claims, next: self.next_due(now)? })
    }

    /// Puts off hand-overs that were claimed, and gives them back; those that another relay has claimed meanwhile are left
    /// as they are.
    ///
    /// # Errors
    /// As above.
    fn postpone_claimed(&self, fences: &[Fence], attempts: u32, next: UnixTime) -> Result<()> {
        for fence in fences {
            self.postpone(&fence.message, &[fence.hand_over], attempts, next)?;
        }
        Ok(())
    }

    /// Takes deliveries that wait for a mailbox's store, oldest first, behind `after`, to be offered by this relay alone;
    /// at most `count_max` are looked at.
    ///
    /// # Errors
    /// As above.
    fn claim_waiting(
        &self,
        mailbox: &Mailbox,
        after: Option<Position>,
        count_max: usize,
    ) -> Result<ClaimedDeliveries> {
        let rows = self.waiting(mailbox, after, count_max)?;
        Ok(ClaimedDeliveries { last: rows.last().map(Delivery::position), rows, free_in: None })
    }

    /// Gives back the deliveries of a mailbox that this relay has claimed: its store's session is over.
    ///
    /// # Errors
    /// As above.
    fn give_back(&self, _mailbox: &Mailbox) -> Result<()> {
        Ok(())
    }

    /// Gives back everything that this relay has claimed: it stops.
    ///
    /// # Errors
    /// As above.
    fn give_back_all(&self) -> Result<()> {
        Ok(())
    }

    /// Deliveries for which something is to be done by `now`, most urgent first; at most `count_max`.
    ///
    /// # Errors
    /// As above.
    fn deadlines(&self, now: UnixTime, count_max: usize) -> Result<Vec<(Delivery, Deadline)>>;

    /// Forgets messages whose records the storage servers have dropped by `today`, at most `count_max`.
    ///
    /// # Errors
    /// As above.
    fn purge(&self, today: Day, count_max: usize) -> Result<Purged>;

    /// Messages in the order of their ids, behind `after`, and for each whether it still refers to its blobs; at most
    /// `count_max`.
    ///
    /// # Errors
    /// As above.
    fn messages(&self, after: Option<&MessageId>, count_max: usize) -> Result<Vec<(Message, bool)>>;

    /// Copies of a blob that messages refer to and that are kept at least to the end of `until`, those first that go
    /// first; at most `count_max`.
    ///
    /// # Errors
    /// As above.
    fn copies_of(&self, blob: &BlobId, until: Day, count_max: usize) -> Result<Vec<StoredBlob>>;

    /// All copies of attachments that messages refer to, in the order of their keys, behind `after`; at most
    /// `count_max`.
    ///
    /// # Errors
    /// As above.
    fn copies(&self, after: Option<&CopyKey>, count_max: usize) -> Result<Vec<KeptCopy>>;

    /// Shows each blob that messages refer to, as it is at one moment: manifests of messages that are not over, and each
    /// copy of an attachment once. `looked` is called when that moment is fixed.
    ///
    /// # Errors
    /// As above.
    fn alive(&self, looked: &mut dyn FnMut(), visit: &mut dyn FnMut(&StoredBlob)) -> Result<()>;

    /// Compares this view with one that was made from the log alone. `looked` is called when a moment of this view is
    /// fixed that is compared, and returns when `log` has everything up to then; where it says no, nothing is compared.
    ///
    /// # Errors
    /// As above; not for a single row that cannot be read, which is a disagreement.
    fn compare(
        &self,
        log: &EmbeddedCatalog,
        today: Day,
        looked: &mut dyn FnMut() -> bool,
        found: &mut dyn FnMut(Disagreement),
    ) -> Result<()>;

    /// How many of what there are.
    ///
    /// # Errors
    /// As above.
    fn counts(&self) -> Result<Counts>;
}

/// A copy of an attachment that messages refer to; its mirrors are the same copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptCopy {
    /// What it is, and where it lies.
    pub blob: StoredBlob,
    /// How often messages name it.
    pub references: u64,
}

/// A hand-over whose time has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DueHandOver {
    /// Of which message.
    pub message: MessageId,
    /// Which.
    pub hand_over: HandOver,
    /// Since when it is due.
    pub since: UnixTime,
    /// Tries so far.
    pub attempts: u32,
}

/// What [`Catalog::purge`] forgot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    /// Messages forgotten.
    pub count: usize,
    /// Those among them that the next hop had not taken: somebody should look.
    pub open: Vec<MessageId>,
}
