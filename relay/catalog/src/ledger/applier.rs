//! From the log to the view: changes applied as they become durable, the checkpoint moved behind them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use lighter_storage::Sequence;
use lighter_storage::unit::worker::off_reactor;
use tokio::sync::{OwnedRwLockReadGuard, mpsc, oneshot, watch};
use tokio::time::Instant;

use super::{Entry, Observer, Open, lock};
use crate::limits::{BATCH_LEN_MAX, CHECKPOINT_CHANGES_MAX, CHECKPOINT_INTERVAL_MS};
use crate::one_copy::Claims;
use crate::{Catalog, CatalogError, Checkpoint, Mark};

/// Takes changes from the log to the view, in batches, and syncs that now and then.
pub(super) struct Applier {
    pub(super) catalog: Arc<dyn Catalog>,
    pub(super) open: Arc<Mutex<Open>>,
    pub(super) observer: Arc<Observer>,
}

impl Applier {
    pub(super) async fn run(self, mut entries: mpsc::Receiver<Entry>, fail: watch::Sender<bool>) {
        let mut batch = Vec::with_capacity(BATCH_LEN_MAX);
        let mut unsynced = 0_u64;
        let mut sync_at = None;
        loop {
            // In this order: changes that are there, then the time to sync, then the end.
            let ended = tokio::select! {
                biased;
                count = entries.recv_many(&mut batch, BATCH_LEN_MAX) => count == 0,
                () = sleep_until(sync_at) => false,
            };
            let due = sync_at.is_some_and(|at| at <= Instant::now());
            let sync = ended || due || unsynced >= CHECKPOINT_CHANGES_MAX;
            unsynced = if sync { 0 } else { unsynced + batch.len() as u64 };
            if let Err(error) = self.apply(&mut batch, sync).await {
                tracing::error!(error = &error as &dyn std::error::Error, "the catalog's view failed");
                fail.send_replace(true);
                return;
            }
            if ended {
                return;
            }
            let later = || Instant::now() + Duration::from_millis(CHECKPOINT_INTERVAL_MS);
            sync_at = if sync && unsynced == 0 { None } else { sync_at.or_else(|| Some(later())) };
        }
    }

    /// Applies `batch` and empties it. With `sync`, moves the checkpoint as well, up to what was in the view before.
    async fn apply(&self, batch: &mut Vec<Entry>, sync: bool) -> Result<(), CatalogError> {
        let mut changes = Vec::with_capacity(batch.len());
        let mut done = Vec::with_capacity(batch.len());
        for entry in batch.drain(..) {
            changes.push((entry.sequence, entry.change));
            done.push(Done {
                number: entry.number,
                sequence: entry.sequence,
                mark: entry.mark,
                _held: (entry.claims, entry.under_way),
                applied: entry.applied,
            });
        }
        let catalog = Arc::clone(&self.catalog);
        let to = sync.then(|| self.safe_with(&done));
        let work = off_reactor(move || {
            catalog.apply(&changes, to.as_ref())?;
            Ok(changes)
        });
        let changes = work.await.unwrap_or(Err(CatalogError::Damaged("applying did not end")))?;
        let mut open = lock(&self.open);
        for entry in &done {
            open.applied(entry.number, entry.sequence, entry.mark);
        }
        drop(open);
        for ((_, change), entry) in changes.iter().zip(done) {
            (self.observer)(change);
            if let Some(applied) = entry.applied {
                let _ = applied.send(());
            }
        }
        Ok(())
    }

    /// The checkpoint as it is once `done` is in the view.
    fn safe_with(&self, done: &[Done]) -> Checkpoint {
        let open = lock(&self.open);
        let mut after = Open { floors: open.floors.clone(), last: open.last, next: open.next };
        drop(open);
        for entry in done {
            after.applied(entry.number, entry.sequence, entry.mark);
        }
        after.safe()
    }
}

/// What is left of an entry when its change is in the view.
struct Done {
    number: u64,
    sequence: Sequence,
    mark: Mark,
    /// Others that name the same blobs may go on now: they find what this message brought.
    _held: (Claims, OwnedRwLockReadGuard<()>),
    applied: Option<oneshot::Sender<()>>,
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
