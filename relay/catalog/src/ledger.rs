//! The log and its view together: how a change is made, and how a start finds everything again.
//!
//! # Order
//! Changes are appended side by side, so that the array commits them in groups, and may come back in another order
//! than the log's. Each is applied as it comes back: those that depend on each other do so through an answer that was
//! awaited. The checkpoint moves only up to where nothing is open ([`Open`]).
//!
//! # Sync
//! [`Ledger::commit`] returns when the log has the change on as many copies as promised; it never waits for the
//! view's file, which is synced every few thousand changes or seconds, on a thread for blocking work.
//!
//! # With a database
//! Where the catalog is in a database ([`Ledger::open_database`]), that is the truth, and the log holds bytes only: blobs
//! are made durable there first, then the change is, by its transaction (`database`). The view is the truth itself, so
//! there is no checkpoint, and nothing is replayed.
//!
//! # Doubt
//! Where the log cannot tell whether a change is in it, the caller is told so and must not answer (DESIGN §3 rule 2).
//! The ledger then settles it by itself: it writes that the message is void, or the same change again, until that is
//! durable.
//!
//! # Recovery
//! [`Ledger::open`] replays the log behind the view's checkpoint. Where the change that the checkpoint names is not in
//! the log (the log lost its end, or is another one), the view is cleared and everything is replayed.

use std::collections::BTreeMap;
use std::future::Future;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lighter_storage::unit::worker::off_reactor;
use lighter_storage::{Class, ReplayAlarms, Sequence, StoredBlob};
use tokio::sync::{OwnedRwLockReadGuard, RwLock, mpsc, oneshot, watch};

use crate::leases::Fence;
use crate::limits::{APPLY_QUEUE_LEN_MAX, DOUBT_RETRY_MS, DOUBTS_MAX};
use crate::one_copy::{BlobLocks, Claims, Gone, named};
use crate::{
    Catalog, CatalogError, Change, ChangeError, Checkpoint, EmbeddedCatalog, Mark, Message, PostgresCatalog,
};

mod alive;
mod applier;
mod audit;
mod database;
mod replay;

use applier::Applier;
pub use audit::{Audit, AuditError};
use database::Request;
use replay::catch_up;
pub use replay::rebuild;

/// The log of changes: the array, or a simulated one.
pub trait Log: Send + Sync + 'static {
    /// A blob that a change names, placed in the log before it.
    type Blob: Send + Sync + 'static;

    /// Appends a change, to be kept as long as `class` says; returns when it and `blobs` are durable on all their
    /// copies.
    fn append(
        &self,
        change: Vec<u8>,
        class: Class,
        blobs: Vec<Self::Blob>,
    ) -> impl Future<Output = Result<Sequence, LogError>> + Send;

    /// Returns when `blobs` are durable on all their copies, though no change in the log names them.
    fn make_durable(&self, blobs: &[Self::Blob]) -> impl Future<Output = Result<(), LogError>> + Send;

    /// What a change says of `blob`.
    fn stored(blob: &Self::Blob) -> &StoredBlob;

    /// Whether all promised copies of what lies there are there, as far as is known without reading.
    fn is_kept(&self, blob: &StoredBlob) -> impl Future<Output = bool> + Send;

    /// Whether it can be read: a look at one of its copies.
    fn is_readable(&self, blob: &StoredBlob) -> impl Future<Output = bool> + Send;

    /// Visits the changes with sequence numbers from `from` on (included), in their order, until `visit` breaks. Gives
    /// what was found to be wrong with the log on the way.
    fn replay(
        &self,
        from: Sequence,
        visit: &mut (dyn FnMut(Sequence, &[u8]) -> ControlFlow<()> + Send),
    ) -> impl Future<Output = Result<ReplayAlarms, LogError>> + Send;
}

/// Why the log did not do it.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// It cannot be done now, and the change is not in the log.
    #[error("the log cannot be written or read now")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The change may be in the log, or not.
    #[error("the log does not know whether the change is in it")]
    InDoubt(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// It was not, and may be tried again: a temporary error may be answered.
    #[error("the change cannot be made now")]
    Unavailable(#[source] Option<LogError>),
    /// It may have been, and is being undone, or done again: nothing may be answered.
    #[error("whether the change was made is not known")]
    InDoubt(#[source] Option<LogError>),
    /// It breaks a bound: it never will be made.
    #[error(transparent)]
    Refused(#[from] ChangeError),
    /// Another relay has claimed the work that it is the end of: that one says what became of it.
    #[error("another relay has claimed the work meanwhile")]
    Stale,
}

/// Why a ledger cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The log holds what is no change, at this number: it was written by a later version, or something is badly wrong.
    #[error("change {} of the log cannot be read", .0.0)]
    Change(Sequence, #[source] ChangeError),
    /// The view cannot be read or written.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}

/// Told of each change when the view has it.
pub type Observer = dyn Fn(&Change) + Send + Sync;

/// The log and its view. Cheap to clone; all clones are the same ledger.
pub struct Ledger<L> {
    shared: Arc<Shared<L>>,
}

impl<L> Clone for Ledger<L> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

/// What makes a change durable.
enum Truth {
    /// The log: changes go on from there to the view.
    Log(mpsc::Sender<Entry>),
    /// The database.
    Database(Arc<PostgresCatalog>, mpsc::Sender<Request>),
}

struct Shared<L> {
    log: L,
    catalog: Arc<dyn Catalog>,
    open: Arc<Mutex<Open>>,
    truth: Truth,
    doubts: Mutex<Vec<Doubt>>,
    locks: BlobLocks,
    /// Shared by each change from its beginning until the view has it; who has it alone finds nothing under way.
    gate: Arc<RwLock<()>>,
    settling: AtomicBool,
    failed: watch::Receiver<bool>,
}

/// A change on its way from the log to the view.
struct Entry {
    number: u64,
    sequence: Sequence,
    mark: Mark,
    change: Change,
    claims: Claims,
    under_way: OwnedRwLockReadGuard<()>,
    applied: Option<oneshot::Sender<()>>,
}

/// What goes with a change on its way to the log.
struct Submission<B> {
    /// Placed in the log before it, and named by it.
    blobs: Vec<B>,
    /// Held until the view has it.
    claims: Claims,
    /// Told when the view has it.
    applied: Option<oneshot::Sender<()>>,
    /// Claims under which it is made.
    fences: Vec<Fence>,
}

impl<B> Submission<B> {
    /// Nothing goes with it.
    fn alone() -> Self {
        Self { blobs: Vec::new(), claims: Claims::default(), applied: None, fences: Vec::new() }
    }
}

/// A change whose fate is not known, and what settles it.
struct Doubt {
    number: u64,
    settled_by: Change,
    class: Class,
}

/// Changes that were begun and that the view does not have yet.
///
/// Invariant: a change that is open has a sequence number above the floor it was begun at, since numbers only grow;
/// so everything at or below the least floor of those open is in the view.
#[derive(Debug)]
struct Open {
    /// For each open change, the last change in the view when it was begun.
    floors: BTreeMap<u64, Checkpoint>,
    /// The last change in the view, by sequence number.
    last: Checkpoint,
    next: u64,
}

impl Open {
    fn begin(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        self.floors.insert(number, self.last);
        number
    }

    fn applied(&mut self, number: u64, sequence: Sequence, mark: Mark) {
        self.floors.remove(&number);
        if !self.last.covers(sequence) {
            self.last = Checkpoint { last: Some((sequence, mark)) };
        }
    }

    fn abandon(&mut self, number: u64) {
        self.floors.remove(&number);
    }

    /// Up to where everything is in the view. Floors only grow from one change to the next, so the first is the least.
    fn safe(&self) -> Checkpoint {
        self.floors.first_key_value().map_or(self.last, |(_, floor)| *floor)
    }
}

impl<L: Log> Ledger<L> {
    /// Opens the log with its view in a file in `folder`; a file that turns out damaged is set aside, once.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open_embedded(log: L, folder: &Path, observer: Box<Observer>) -> Result<Self, OpenError> {
        let mut catalog = Arc::new(EmbeddedCatalog::open(folder)?);
        let last = match catch_up(&log, &*catalog).await {
            Err(OpenError::Catalog(CatalogError::Damaged(_))) => {
                drop(catalog);
                catalog = Arc::new(EmbeddedCatalog::open(folder)?);
                catch_up(&log, &*catalog).await?
            }
            result => result?,
        };
        Ok(Self::start(log, catalog, last, observer))
    }

    /// Opens the log with `catalog` as its view: on return, that has everything that the log has.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(log: L, catalog: Arc<dyn Catalog>, observer: Box<Observer>) -> Result<Self, OpenError> {
        let last = catch_up(&log, &*catalog).await?;
        Ok(Self::start(log, catalog, last, observer))
    }

    fn start(log: L, catalog: Arc<dyn Catalog>, last: Checkpoint, observer: Box<Observer>) -> Self {
        let (queue, entries) = mpsc::channel(APPLY_QUEUE_LEN_MAX);
        let (fail, failed) = watch::channel(false);
        let open = Arc::new(Mutex::new(Open { floors: BTreeMap::new(), last, next: 0 }));
        let applier =
            Applier { catalog: Arc::clone(&catalog), open: Arc::clone(&open), observer: observer.into() };
        tokio::spawn(applier.run(entries, fail));
        let shared = Shared {
            log,
            catalog,
            open,
            truth: Truth::Log(queue),
            doubts: Mutex::default(),
            locks: BlobLocks::default(),
            gate: Arc::default(),
            settling: AtomicBool::new(false),
            failed,
        };
        Self { shared: Arc::new(shared) }
    }

    /// With what makes changes durable, and tells when it cannot any more.
    fn over(log: L, catalog: Arc<dyn Catalog>, truth: Truth, failed: watch::Receiver<bool>) -> Self {
        let open = Open { floors: BTreeMap::new(), last: Checkpoint::BEGIN, next: 0 };
        let shared = Shared {
            log,
            catalog,
            open: Arc::new(Mutex::new(open)),
            truth,
            doubts: Mutex::default(),
            locks: BlobLocks::default(),
            gate: Arc::default(),
            settling: AtomicBool::new(false),
            failed,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Makes a change: it is durable on return. `class` must not end before what the change speaks of.
    ///
    /// It goes on to its end when the caller stops waiting.
    ///
    /// # Errors
    /// Says what may be answered.
    pub async fn commit(&self, change: Change, class: Class) -> Result<(), CommitError> {
        self.submit(change, class, Submission::alone()).await
    }

    /// Makes a message exist, with the blobs that it names: all of it is durable on return, by one sync on each copy
    /// where they share a class. Of a part that is here already, and kept as long, that copy is named instead of the one
    /// in `blobs`, which is an orphan then (SPEC D8).
    ///
    /// # Errors
    /// As with [`Self::commit`].
    pub async fn accept(&self, message: Message, blobs: Vec<L::Blob>) -> Result<(), CommitError> {
        self.accept_with(message, blobs, None, Vec::new()).await
    }

    /// Makes a message exist as [`Self::accept`] does, and returns when the view has it and what it settles: who asks
    /// what is due sees that it no longer is.
    ///
    /// # Errors
    /// As with [`Self::commit`].
    pub async fn accept_applied(&self, message: Message, blobs: Vec<L::Blob>) -> Result<(), CommitError> {
        self.accept_held(message, blobs, Vec::new()).await
    }

    /// Makes a message exist as [`Self::accept_applied`] does, under `fences`: claims of what it settles.
    ///
    /// # Errors
    /// As with [`Self::commit`]; [`CommitError::Stale`] where a claim is over.
    pub async fn accept_held(
        &self,
        message: Message,
        blobs: Vec<L::Blob>,
        fences: Vec<Fence>,
    ) -> Result<(), CommitError> {
        let (applied, wait) = oneshot::channel();
        self.accept_with(message, blobs, Some(applied), fences).await?;
        // Where the view failed meanwhile, the change is made all the same: the next start replays it.
        let _ = wait.await;
        Ok(())
    }

    /// Makes a change as [`Self::commit`] does, and returns when the view has it.
    ///
    /// # Errors
    /// As with [`Self::commit`].
    pub async fn commit_applied(&self, change: Change, class: Class) -> Result<(), CommitError> {
        self.commit_held(change, class, Vec::new()).await
    }

    /// Makes a change as [`Self::commit_applied`] does, under `fences`: the end of work that was claimed.
    ///
    /// # Errors
    /// As with [`Self::commit`]; [`CommitError::Stale`] where a claim is over.
    pub async fn commit_held(
        &self,
        change: Change,
        class: Class,
        fences: Vec<Fence>,
    ) -> Result<(), CommitError> {
        let (applied, wait) = oneshot::channel();
        let with = Submission { applied: Some(applied), fences, ..Submission::alone() };
        self.submit(change, class, with).await?;
        let _ = wait.await; // as above
        Ok(())
    }

    async fn accept_with(
        &self,
        mut message: Message,
        blobs: Vec<L::Blob>,
        applied: Option<oneshot::Sender<()>>,
        fences: Vec<Fence>,
    ) -> Result<(), CommitError> {
        let class = message.class;
        // In a database, the message chooses when it is made: other relays bring the same attachments.
        let (claims, blobs) = match &self.shared.truth {
            Truth::Log(_) => {
                // A part that was left out has no copy any more: the next try brings it.
                let claims = self.claim(&mut message, &blobs).await;
                let claims = claims.map_err(|Gone| CommitError::Unavailable(None))?;
                (claims, named::<L>(&message, blobs))
            }
            Truth::Database(..) => (Claims::default(), blobs),
        };
        let change = Change::Accepted(Box::new(message));
        self.submit(change, class, Submission { blobs, claims, applied, fences }).await
    }

    async fn submit(
        &self,
        change: Change,
        class: Class,
        with: Submission<L::Blob>,
    ) -> Result<(), CommitError> {
        let bytes = change.encode()?;
        if *self.shared.failed.borrow() || lock(&self.shared.doubts).len() >= DOUBTS_MAX {
            return Err(CommitError::Unavailable(None));
        }
        let this = self.clone();
        // A task of its own: a caller that goes away must not leave a change in the log that the view lacks.
        let task = tokio::spawn(async move {
            match &this.shared.truth {
                Truth::Log(_) => this.append(change, bytes, class, with).await,
                Truth::Database(database, requests) => {
                    // The caller is told when the database has it, and so has the view.
                    database::propose(&this, database, requests, change, with).await
                }
            }
        });
        task.await.unwrap_or(Err(CommitError::Unavailable(None)))
    }

    async fn append(
        &self,
        change: Change,
        bytes: Vec<u8>,
        class: Class,
        with: Submission<L::Blob>,
    ) -> Result<(), CommitError> {
        let Submission { blobs, claims, applied, .. } = with;
        // Room in the view's queue first: once the change is durable, nothing is waited for.
        let Truth::Log(queue) = &self.shared.truth else { return Err(CommitError::Unavailable(None)) };
        let room = queue.reserve().await.map_err(|_| CommitError::Unavailable(None))?;
        let under_way = Arc::clone(&self.shared.gate).read_owned().await;
        let number = lock(&self.shared.open).begin();
        let mark = Mark::of(&bytes);
        match self.shared.log.append(bytes, class, blobs).await {
            Ok(sequence) => {
                room.send(Entry { number, sequence, mark, change, claims, under_way, applied });
                Ok(())
            }
            Err(error @ LogError::Unavailable(_)) => {
                lock(&self.shared.open).abandon(number);
                Err(CommitError::Unavailable(Some(error)))
            }
            Err(error @ LogError::InDoubt(_)) => {
                let settled_by = match change {
                    Change::Accepted(message) => Change::Voided(message.id),
                    change => change,
                };
                lock(&self.shared.doubts).push(Doubt { number, settled_by, class });
                self.settle_doubts();
                Err(CommitError::InDoubt(Some(error)))
            }
        }
    }

    /// Sees to it that somebody works on the doubts.
    fn settle_doubts(&self) {
        if !self.shared.settling.swap(true, Ordering::AcqRel) {
            let this = self.clone();
            tokio::spawn(async move { this.settle().await });
        }
    }

    async fn settle(&self) {
        loop {
            let next = lock(&self.shared.doubts).first().map(|doubt| (doubt.settled_by.clone(), doubt.class));
            let Some((change, class)) = next else {
                self.shared.settling.store(false, Ordering::Release);
                // One may have come in between the look and the store.
                if lock(&self.shared.doubts).is_empty() || self.shared.settling.swap(true, Ordering::AcqRel) {
                    return;
                }
                continue;
            };
            if self.append_once(change, class).await {
                let doubt = lock(&self.shared.doubts).remove(0);
                lock(&self.shared.open).abandon(doubt.number);
            } else {
                tokio::time::sleep(Duration::from_millis(DOUBT_RETRY_MS)).await;
            }
        }
    }

    /// Appends a change that settles a doubt; a further doubt about it is settled by the next try.
    async fn append_once(&self, change: Change, class: Class) -> bool {
        let Ok(bytes) = change.encode() else { return true };
        let Truth::Log(queue) = &self.shared.truth else { return false };
        let Ok(room) = queue.reserve().await else { return false };
        let under_way = Arc::clone(&self.shared.gate).read_owned().await;
        let number = lock(&self.shared.open).begin();
        let mark = Mark::of(&bytes);
        match self.shared.log.append(bytes, class, Vec::new()).await {
            Ok(sequence) => {
                let claims = Claims::default();
                room.send(Entry { number, sequence, mark, change, claims, under_way, applied: None });
                true
            }
            Err(_) => {
                // The doubt that is being settled holds the checkpoint below this one, too.
                lock(&self.shared.open).abandon(number);
                false
            }
        }
    }

    /// Asks the view, where waiting for its disk holds up nobody else.
    ///
    /// # Errors
    /// What `query` gives.
    pub async fn read<R: Send + 'static>(
        &self,
        query: impl FnOnce(&dyn Catalog) -> Result<R, CatalogError> + Send + 'static,
    ) -> Result<R, CatalogError> {
        let catalog = Arc::clone(&self.shared.catalog);
        off_reactor(move || query(&*catalog))
            .await
            .unwrap_or(Err(CatalogError::Damaged("a query did not end")))
    }

    /// Returns when the view has failed: nothing more is taken, and a restart is needed.
    pub async fn failed(&self) {
        let mut failed = self.shared.failed.clone();
        let _ = failed.wait_for(|failed| *failed).await;
    }

    /// The locks of the blobs that messages on their way name.
    pub(crate) fn locks(&self) -> &BlobLocks {
        &self.shared.locks
    }

    /// The log.
    pub fn log(&self) -> &L {
        &self.shared.log
    }

    /// The database, where the catalog is in one.
    pub fn database(&self) -> Option<&Arc<PostgresCatalog>> {
        match &self.shared.truth {
            Truth::Log(_) => None,
            Truth::Database(database, _) => Some(database),
        }
    }

    /// Changes begun that the view does not have yet, and those whose fate is not known: for metrics.
    pub fn backlog(&self) -> (usize, usize) {
        if let Truth::Database(_, requests) = &self.shared.truth {
            return (requests.max_capacity() - requests.capacity(), lock(&self.shared.doubts).len());
        }
        (lock(&self.shared.open).floors.len(), lock(&self.shared.doubts).len())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
