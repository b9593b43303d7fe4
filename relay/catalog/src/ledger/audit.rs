//! Holding the view against the log: the log is replayed into a view of its own, and the two are compared.
//!
//! # One moment of both
//! Changes come to the view in another order than the log's, so in the midst of work it is no beginning of the log. So
//! for a moment no change is begun, and those under way come to their end; then the view is what the log says up to its
//! last change, and is looked at as it is at that moment (a snapshot, where the engine has them). Everything slow is
//! done before, or after: the log's replay, but for its last stretch, and the comparison.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use lighter_protocol::Day;
use lighter_storage::ReplayAlarms;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::replay::{Replayed, replay};
use super::{Ledger, Log, OpenError, lock};
use crate::compare::Disagreement;
use crate::limits::{AUDIT_PAUSE_MAX_MS, AUDIT_TRIES_MAX, DISAGREEMENTS_MAX, PAGE_LEN_MAX};
use crate::{Catalog, CatalogError, Checkpoint, EmbeddedCatalog};

/// What holding the view against the log brought out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// Changes that the log holds.
    pub changes: u64,
    /// What is wrong with the log itself.
    pub alarms: ReplayAlarms,
    /// How many disagreements there are.
    pub disagreements: u64,
    /// The first of them.
    pub first: Vec<Disagreement>,
}

/// Why the view was not held against the log.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// Changes were under way all the time, or one whose fate is not known.
    #[error("changes are under way that do not come to an end: try again")]
    Busy,
    /// The log, or one of the views, cannot be read.
    #[error(transparent)]
    Open(#[from] OpenError),
}

impl From<CatalogError> for AuditError {
    fn from(error: CatalogError) -> Self {
        Self::Open(error.into())
    }
}

impl<L: Log> Ledger<L> {
    /// Holds the view against the log, which is replayed into a view in `folder`: an empty one, that the caller removes
    /// afterwards. What is over by `today` need not be told alike. `replayed` counts the changes as they go by.
    ///
    /// # Errors
    /// See [`AuditError`].
    pub async fn audit(&self, folder: &Path, today: Day, replayed: &AtomicU64) -> Result<Audit, AuditError> {
        let fresh = Arc::new(EmbeddedCatalog::open(folder)?);
        let count = |_| {
            replayed.fetch_add(1, Ordering::Relaxed);
        };
        let first = match replay(self.log(), &*fresh, Checkpoint::BEGIN, None, &count).await? {
            Replayed::To(_, alarms) => alarms,
            Replayed::Elsewhere => return Err(CatalogError::Damaged("an empty view has a checkpoint").into()),
        };
        let (end, go, comparing) = self.look_at_once(&fresh, today).await?;
        // What came while the log was replayed.
        let from = fresh.checkpoint()?;
        let rest = replay(self.log(), &*fresh, from, end.last.map(|(last, _)| last), &count).await?;
        let Replayed::To(_, rest) = rest else {
            return Err(CatalogError::Damaged("the log lost its end meanwhile").into());
        };
        while fresh.purge(today, PAGE_LEN_MAX)?.count == PAGE_LEN_MAX {}
        let _ = go.send(());
        let compared = comparing.await.unwrap_or(Err(CatalogError::Damaged("comparing did not end")))?;
        let alarms =
            ReplayAlarms { gaps: first.gaps + rest.gaps, unreadable: first.unreadable + rest.unreadable };
        let (disagreements, first) = compared;
        Ok(Audit { changes: replayed.load(Ordering::Relaxed), alarms, disagreements, first })
    }

    /// Looks at the view when nothing is under way. Gives the log's end at that moment, what sets the comparison going,
    /// and what it will bring.
    async fn look_at_once(&self, fresh: &Arc<EmbeddedCatalog>, today: Day) -> Result<Look, AuditError> {
        let pause_max = Duration::from_millis(AUDIT_PAUSE_MAX_MS);
        for _ in 0..AUDIT_TRIES_MAX {
            let gate = timeout(pause_max, Arc::clone(&self.shared.gate).write_owned()).await;
            if let Ok(_paused) = gate
                && lock(&self.shared.doubts).is_empty()
            {
                let (looked, looking) = oneshot::channel();
                let (go, wait) = mpsc::channel();
                let (view, fresh) = (Arc::clone(&self.shared.catalog), Arc::clone(fresh));
                let comparing = tokio::task::spawn_blocking(move || {
                    let (mut looked, mut count, mut first) = (Some(looked), 0, Vec::new());
                    view.compare(
                        &fresh,
                        today,
                        &mut || {
                            let _ = looked.take().map(|looked| looked.send(()));
                            wait.recv().is_ok()
                        },
                        &mut |disagreement| {
                            count += 1;
                            if first.len() < DISAGREEMENTS_MAX {
                                first.push(disagreement);
                            }
                        },
                    )?;
                    Ok((count, first))
                });
                let _ = looking.await; // where it does not come, comparing tells why
                return Ok((lock(&self.shared.open).last, go, comparing));
            }
            sleep(pause_max).await;
        }
        Err(AuditError::Busy)
    }
}

type Compared = Result<(u64, Vec<Disagreement>), CatalogError>;
type Look = (Checkpoint, mpsc::Sender<()>, tokio::task::JoinHandle<Compared>);
