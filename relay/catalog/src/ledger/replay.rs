//! From the log to the view at the start: what the view lacks, or everything.

use std::ops::ControlFlow;
use std::path::Path;

use lighter_storage::{ReplayAlarms, Sequence};

use super::{Log, OpenError};
use crate::limits::BATCH_LEN_MAX;
use crate::{Catalog, CatalogError, Change, Checkpoint, Counts, EmbeddedCatalog, Mark};

/// Replays what the view lacks, or everything. Returns the last change of the log.
pub(super) async fn catch_up<L: Log>(log: &L, catalog: &dyn Catalog) -> Result<Checkpoint, OpenError> {
    let from = match catalog.checkpoint() {
        Ok(from) => from,
        Err(CatalogError::Damaged(_)) => Checkpoint::BEGIN,
        Err(error) => return Err(error.into()),
    };
    if from.last.is_some() {
        match replay(log, catalog, from, None, &|_| ()).await? {
            Replayed::To(last, _) => return Ok(last),
            Replayed::Elsewhere => tracing::warn!("the catalog's view does not fit the log, made again"),
        }
    }
    catalog.clear()?;
    match replay(log, catalog, Checkpoint::BEGIN, None, &|_| ()).await? {
        Replayed::To(last, _) => Ok(last),
        Replayed::Elsewhere => Err(CatalogError::Damaged("a cleared view has a checkpoint").into()),
    }
}

/// Makes the view in `folder`, an empty one, from the log alone; `visited` is told of each change. Gives what it holds
/// then, and what is wrong with the log.
///
/// # Errors
/// See [`OpenError`].
pub async fn rebuild<L: Log>(
    log: &L,
    folder: &Path,
    visited: &(dyn Fn(Sequence) + Send + Sync),
) -> Result<(Counts, ReplayAlarms), OpenError> {
    let catalog = EmbeddedCatalog::open(folder)?;
    catalog.clear()?;
    match replay(log, &catalog, Checkpoint::BEGIN, None, visited).await? {
        Replayed::To(_, alarms) => Ok((catalog.counts()?, alarms)),
        Replayed::Elsewhere => Err(CatalogError::Damaged("a cleared view has a checkpoint").into()),
    }
}

/// How a replay ended.
pub(super) enum Replayed {
    /// The view has everything up to here; what is wrong with the log.
    To(Checkpoint, ReplayAlarms),
    /// The log does not have the change that the view's checkpoint names.
    Elsewhere,
}

/// Replays the log behind `from` into `catalog`, as far as `until`; `visited` is told of each change.
pub(super) async fn replay<L: Log>(
    log: &L,
    catalog: &dyn Catalog,
    from: Checkpoint,
    until: Option<Sequence>,
    visited: &(dyn Fn(Sequence) + Send + Sync),
) -> Result<Replayed, OpenError> {
    let (expected, last, batch, outcome) = (from.last, from, Vec::new(), Ok(()));
    let mut replay = Replay { catalog, expected, until, visited, last, batch, outcome };
    let start = from.last.map_or(Sequence(0), |(sequence, _)| sequence);
    let alarms = log.replay(start, &mut |sequence, bytes| replay.visit(sequence, bytes)).await?;
    match replay.outcome {
        Err(Stop::Elsewhere) => return Ok(Replayed::Elsewhere),
        Err(Stop::Error(error)) => return Err(error),
        Err(Stop::Far) | Ok(()) => {}
    }
    if replay.expected.is_some() {
        return Ok(Replayed::Elsewhere);
    }
    catalog.apply(&replay.batch, Some(&replay.last))?;
    Ok(Replayed::To(replay.last, alarms))
}

/// A replay under way.
struct Replay<'c> {
    catalog: &'c dyn Catalog,
    /// The change that must come first: the checkpoint's own.
    expected: Option<(Sequence, Mark)>,
    until: Option<Sequence>,
    visited: &'c (dyn Fn(Sequence) + Send + Sync),
    last: Checkpoint,
    batch: Vec<(Sequence, Change)>,
    outcome: Result<(), Stop>,
}

/// Why a replay stopped.
enum Stop {
    Elsewhere,
    /// What is wanted has been replayed.
    Far,
    Error(OpenError),
}

impl Replay<'_> {
    fn visit(&mut self, sequence: Sequence, bytes: &[u8]) -> ControlFlow<()> {
        match self.take(sequence, bytes) {
            Ok(()) => ControlFlow::Continue(()),
            Err(stop) => {
                self.outcome = Err(stop);
                ControlFlow::Break(())
            }
        }
    }

    fn take(&mut self, sequence: Sequence, bytes: &[u8]) -> Result<(), Stop> {
        if self.until.is_some_and(|until| sequence > until) {
            return Err(Stop::Far);
        }
        let here = (sequence, Mark::of(bytes));
        match self.expected.take() {
            Some(expected) if expected == here => return Ok(()),
            Some(_) => return Err(Stop::Elsewhere),
            None => {}
        }
        let change =
            Change::decode(bytes).map_err(|error| Stop::Error(OpenError::Change(sequence, error)))?;
        self.batch.push((sequence, change));
        (self.visited)(sequence);
        self.last = Checkpoint { last: Some(here) };
        if self.batch.len() >= BATCH_LEN_MAX {
            self.catalog.apply(&self.batch, None).map_err(|error| Stop::Error(error.into()))?;
            self.batch.clear();
        }
        Ok(())
    }
}
