//! From the log to the view at the start: what the view lacks, or everything.

use std::ops::ControlFlow;

use lighter_storage::Sequence;

use super::{Log, OpenError};
use crate::limits::BATCH_LEN_MAX;
use crate::{Catalog, CatalogError, Change, Checkpoint, Mark};

/// Replays what the view lacks, or everything. Returns the last change of the log.
pub(super) async fn catch_up<L: Log>(log: &L, catalog: &dyn Catalog) -> Result<Checkpoint, OpenError> {
    let from = match catalog.checkpoint() {
        Ok(from) => from,
        Err(CatalogError::Damaged(_)) => Checkpoint::BEGIN,
        Err(error) => return Err(error.into()),
    };
    if from.last.is_some() {
        match replay(log, catalog, from).await? {
            Replayed::To(last) => return Ok(last),
            Replayed::Elsewhere => tracing::warn!("the catalog's view does not fit the log, made again"),
        }
    }
    catalog.clear()?;
    match replay(log, catalog, Checkpoint::BEGIN).await? {
        Replayed::To(last) => Ok(last),
        Replayed::Elsewhere => Err(CatalogError::Damaged("a cleared view has a checkpoint").into()),
    }
}

/// How a replay ended.
enum Replayed {
    /// The view has everything up to here.
    To(Checkpoint),
    /// The log does not have the change that the view's checkpoint names.
    Elsewhere,
}

async fn replay<L: Log>(log: &L, catalog: &dyn Catalog, from: Checkpoint) -> Result<Replayed, OpenError> {
    let mut replay = Replay { catalog, expected: from.last, last: from, batch: Vec::new(), outcome: Ok(()) };
    let start = from.last.map_or(Sequence(0), |(sequence, _)| sequence);
    log.replay(start, &mut |sequence, bytes| replay.visit(sequence, bytes)).await?;
    match replay.outcome {
        Err(Stop::Elsewhere) => return Ok(Replayed::Elsewhere),
        Err(Stop::Error(error)) => return Err(error),
        Ok(()) => {}
    }
    if replay.expected.is_some() {
        return Ok(Replayed::Elsewhere);
    }
    catalog.apply(&replay.batch, Some(&replay.last))?;
    Ok(Replayed::To(replay.last))
}

/// A replay under way.
struct Replay<'c> {
    catalog: &'c dyn Catalog,
    /// The change that must come first: the checkpoint's own.
    expected: Option<(Sequence, Mark)>,
    last: Checkpoint,
    batch: Vec<(Sequence, Change)>,
    outcome: Result<(), Stop>,
}

/// Why a replay stopped.
enum Stop {
    Elsewhere,
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
        let here = (sequence, Mark::of(bytes));
        match self.expected.take() {
            Some(expected) if expected == here => return Ok(()),
            Some(_) => return Err(Stop::Elsewhere),
            None => {}
        }
        let change =
            Change::decode(bytes).map_err(|error| Stop::Error(OpenError::Change(sequence, error)))?;
        self.batch.push((sequence, change));
        self.last = Checkpoint { last: Some(here) };
        if self.batch.len() >= BATCH_LEN_MAX {
            self.catalog.apply(&self.batch, None).map_err(|error| Stop::Error(error.into()))?;
            self.batch.clear();
        }
        Ok(())
    }
}
