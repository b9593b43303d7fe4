//! Thinning (SPEC D8): a sealed segment of which little is alive gives the room of its dead records back, on each copy.
//!
//! Nothing moves: what is alive keeps its place, and so do the catalog's records, all of which stay. So no reference and
//! no link of the log changes, and a crash at any moment leaves each copy as it was or thinned. Only settled segments are
//! thinned, with all their copies there: none is left that would have to be brought up from a thinned one.

use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::entry::Stage;
use super::join::list_page;
use super::state::{Live, Shared};
use super::{Array, ReadError};
use crate::ids::SegmentId;
use crate::limits::{HOLE_LEN_MIN, HOLES_MAX, SEAL_TIME_MAX};
use crate::link::LinkError;
use crate::segment::RECORDS_AT;
use crate::segment::footer::{Hole, encode_holes};
use crate::segment::header::Member;
use crate::wire::{CopyState, Refusal, Request, Response};

/// Why a segment was not thinned. It is as it was, on all copies or on some.
#[derive(Debug, thiserror::Error)]
pub enum ThinError {
    /// It is not sealed on all members, a copy is not sound or its server is away, its day is over, or a server's clock says that
    /// it is not old enough: later, perhaps.
    #[error("not all of its copies are there, and as they should be")]
    NotNow,
    /// Its catalog records are not known.
    #[error("its catalog records cannot be read")]
    Catalog(#[source] ReadError),
    /// A server did not do it.
    #[error("a server did not do it: {0}")]
    Server(#[source] LinkError),
    /// The copies are not alike afterwards.
    #[error("the copies differ")]
    Differ,
}

impl Array {
    /// Gives back what is dead of a segment. `alive` are all records of it that are referred to, or may be from now on,
    /// each with its offset (see [`Array::places`]) and its bytes; those of the catalog stay without being named. Gives the
    /// bytes that each copy has less now.
    ///
    /// # Errors
    /// See [`ThinError`].
    // SPEC: D8
    pub async fn thin(&self, segment: SegmentId, alive: Vec<(u64, u64)>) -> Result<u64, ThinError> {
        self.inner.shared.thin(segment, alive).await
    }
}

impl Shared {
    async fn thin(&self, segment: SegmentId, alive: Vec<(u64, u64)>) -> Result<u64, ThinError> {
        let Settled { length, stored, copies } = self.settled(segment).ok_or(ThinError::NotNow)?;
        let index = self.catalog_index(segment).await.map_err(ThinError::Catalog)?;
        // What the index lacks would be taken for dead.
        let index = index.filter(|index| index.is_whole).ok_or(ThinError::NotNow)?;
        let own = index.entries.iter().map(|entry| (u64::from(entry.offset), u64::from(entry.length)));
        let holes = holes_between(alive.into_iter().chain(own).collect(), length);
        if holes.is_empty() {
            return Ok(0);
        }
        let mut summaries = Vec::new();
        for (holder, live) in copies {
            if self.is_moved(segment, &holder, &live).await? {
                continue;
            }
            let target = self.state().target(self.peer, segment, &holder);
            let data = vec![Bytes::from(encode_holes(&holes))];
            let thinned = live.writes.call(&Request::Thin { target }, data, SEAL_TIME_MAX).await;
            let (response, _) = thinned.map_err(not_done)?;
            let Response::Sealed(report) = response else { return Err(ThinError::Server(LinkError::Wrong)) };
            if report.summary.length != length || report.damaged > 0 {
                return Err(ThinError::Server(LinkError::Wrong));
            }
            if let Some(info) =
                self.state().segments.get_mut(&segment).and_then(|entry| entry.copy_mut(&holder))
            {
                info.state = CopyState::Sealed(report.summary);
            }
            summaries.push(report.summary);
        }
        if summaries.windows(2).any(|pair| pair[0] != pair[1]) {
            return Err(ThinError::Differ);
        }
        let Some(left) = summaries.first().map(|summary| summary.stored_len()) else { return Ok(0) };
        let given_back = stored.saturating_sub(left);
        self.counters.thinned_bytes.fetch_add(given_back, Ordering::Relaxed);
        Ok(given_back)
    }

    /// Whether a copy's records are in an object store: its server moves them by itself, and says so when asked. An object goes on
    /// its day, whole.
    async fn is_moved(&self, segment: SegmentId, holder: &Member, live: &Live) -> Result<bool, ThinError> {
        let stat = Request::Stat { unit: holder.unit, segment };
        let found = list_page(&live.writes, &stat).await.map_err(not_done)?;
        let is_moved = found.first().is_some_and(|(_, info)| info.is_moved);
        let mut state = self.state();
        if let Some(known) = state.segments.get_mut(&segment).and_then(|entry| entry.copy_mut(holder)) {
            known.is_moved = is_moved;
        }
        Ok(is_moved)
    }

    /// All copies of a segment that is as it should be.
    fn settled(&self, segment: SegmentId) -> Option<Settled> {
        let state = self.state();
        let entry = state.segments.get(&segment)?;
        let is_over = entry.header.deletion_day.end() <= (self.clock)();
        if entry.stage != Stage::Settled || entry.day_key.is_none() || is_over {
            return None;
        }
        let (mut copies, mut stored) = (Vec::new(), 0);
        for holder in entry.holders() {
            // One that is lost for good never comes back with what it had.
            if state.server(&holder.peer).is_none() {
                continue;
            }
            let info = entry.copy(&holder)?;
            let CopyState::Sealed(summary) = info.state else { return None };
            if summary.length != entry.length || info.damaged > 0 {
                return None;
            }
            if !info.is_moved {
                stored = stored.max(summary.stored_len());
            }
            copies.push((holder, state.live(&holder.peer)?.clone()));
        }
        (!copies.is_empty()).then_some(Settled { length: entry.length, stored, copies })
    }
}

/// A refusal that says 'not as it is', or 'not yet', is no fault of the server's.
fn not_done(error: LinkError) -> ThinError {
    match error {
        LinkError::Refused(Refusal::State) => ThinError::NotNow,
        other => ThinError::Server(other),
    }
}

/// A segment that may be thinned.
struct Settled {
    /// Where its records end.
    length: u64,
    /// The most that a copy stores of them on its unit's own disk.
    stored: u64,
    /// All that have a copy.
    copies: Vec<(Member, Live)>,
}

/// The stretches between what stays, from the first record to `length`: those that are long enough, and, where they are too
/// many, the longest.
fn holes_between(mut kept: Vec<(u64, u64)>, length: u64) -> Vec<Hole> {
    kept.sort_unstable();
    let (mut holes, mut end) = (Vec::new(), RECORDS_AT);
    for (at, len) in kept.into_iter().chain([(length, 0)]) {
        if let (Ok(offset), Ok(between)) = (u32::try_from(end), u32::try_from(at.saturating_sub(end)))
            && between >= HOLE_LEN_MIN
        {
            holes.push(Hole { offset, length: between });
        }
        end = end.max(at.saturating_add(len));
    }
    if holes.len() > HOLES_MAX {
        holes.sort_unstable_by_key(|hole| std::cmp::Reverse(hole.length));
        holes.truncate(HOLES_MAX);
        holes.sort_unstable_by_key(|hole| hole.offset);
    }
    holes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::segment::footer::are_holes;

    #[test]
    fn between_what_stays_only_long_stretches_are_holes() {
        let long = u64::from(HOLE_LEN_MIN);
        let kept = vec![(RECORDS_AT + long, 96), (RECORDS_AT, 16), (RECORDS_AT + 2 * long + 96, 16)];
        let length = RECORDS_AT + 4 * long;
        let holes: Vec<_> =
            holes_between(kept, length).iter().map(|hole| (u64::from(hole.offset), hole.length)).collect();
        let first = RECORDS_AT + long + 96;
        let last = RECORDS_AT + 2 * long + 112;
        assert_eq!(holes, [(first, HOLE_LEN_MIN), (last, u32::try_from(length - last).unwrap())]);
    }

    proptest! {
        #[test]
        fn whatever_stays_is_in_no_hole(
            kept in proptest::collection::vec((0_u64..4000, 1_u64..70), 0..60),
            units in 1_u64..4000,
        ) {
            let scale = |at: u64| at * 1024;
            let length = RECORDS_AT + scale(units);
            let kept: Vec<_> = kept
                .into_iter()
                .map(|(at, len)| (RECORDS_AT + scale(at), scale(len)))
                .filter(|(at, len)| at + len <= length)
                .collect();
            let holes = holes_between(kept.clone(), length);
            prop_assert!(are_holes(&holes, length));
            for (at, len) in kept {
                prop_assert!(holes.iter().all(|hole| hole.end() <= at || at + len <= u64::from(hole.offset)));
            }
        }
    }
}
