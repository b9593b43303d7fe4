//! Looking after the catalog: is the view what the log says, can everything that is referred to be read, and what lies in
//! the array that nothing refers to (SPEC D8).
//!
//! All of it runs beside the relay's work, and none of it changes anything but [`thin`], which gives room back. It is done by the process that has the array
//! open: the relay that runs ([`Jobs`], asked over the control socket), or the command itself while none does.

mod check;
mod jobs;
mod orphans;
mod survey;
mod thin;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lighter_catalog::{AuditError, CatalogError};
use lighter_shell::count;
use lighter_storage::ReadError;

pub(crate) use check::check;
pub(crate) use jobs::Jobs;
pub(crate) use orphans::orphans;
pub(crate) use thin::thin;

/// How far a task is: for a person who waits. Clones show the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    counters: Arc<Counters>,
}

#[derive(Debug, Default)]
struct Counters {
    changes: AtomicU64,
    blobs: AtomicU64,
}

impl Progress {
    /// In a few words.
    pub(crate) fn text(&self) -> String {
        let Counters { changes, blobs } = &*self.counters;
        let (changes, blobs) = (changes.load(Ordering::Relaxed), blobs.load(Ordering::Relaxed));
        let (changes, blobs) = (count(changes, "change", "changes"), count(blobs, "blob", "blobs"));
        format!("{changes} replayed, {blobs} looked at")
    }

    /// Changes that were replayed.
    pub(crate) fn changes(&self) -> &AtomicU64 {
        &self.counters.changes
    }

    fn count_blob(&self) {
        self.counters.blobs.fetch_add(1, Ordering::Relaxed);
    }
}

/// Why a task did not come to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpkeepError {
    /// The view was not held against the log.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The view cannot be read.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The array cannot be read.
    #[error("a segment cannot be read: {0}")]
    Array(#[from] ReadError),
    /// The folder for the view that is made to compare with.
    #[error("the folder for the comparison: {0}")]
    Folder(#[from] std::io::Error),
}

impl UpkeepError {
    /// Whether it may go well the next time.
    pub(crate) fn is_temporary(&self) -> bool {
        matches!(self, Self::Audit(AuditError::Busy) | Self::Array(ReadError::Unavailable))
    }
}
