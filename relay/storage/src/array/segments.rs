//! What each segment is, where its copies are, and whether what lies in it is there on as many as were promised.

use std::collections::BTreeMap;

use lighter_protocol::{Day, PeerId};

use super::entry::{Entry, Stage};
use super::read::open_end;
use super::state::{Shared, State};
use super::{Array, ReadError};
use crate::ids::{Class, DataKey, SegmentId, UnitId};
use crate::link::LinkError;
use crate::location::{BlobLocation, RecordPlace, StoredBlob};
use crate::record::UncheckedRecord;
use crate::segment::RECORDS_AT;
use crate::segment::header::Member;
use crate::unit::worker::off_reactor;
use crate::wire::{CopyState, Refusal, Request};

/// A segment, as the array knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentStatus {
    /// Which.
    pub segment: SegmentId,
    /// The retention class of what lies in it.
    pub class: Class,
    /// The day on which it was opened.
    pub storage_day: Day,
    /// At the end of this day it is deleted.
    pub deletion_day: Day,
    /// Bytes of its records, on each copy.
    pub records_len: u64,
    /// Bytes of them that a copy stores at most: less than that once dead records were given back.
    pub stored_len: u64,
    /// How many of them are portions of blobs. None: that is known once it is sealed.
    pub portions: Option<u64>,
    /// Whether it is still written.
    pub state: SegmentState,
    /// Its copies, also those that are away.
    pub copies: Vec<CopyStatus>,
}

impl SegmentStatus {
    /// Where its records end.
    pub fn records_end(&self) -> u64 {
        RECORDS_AT + self.records_len
    }
}

/// Whether a segment is still written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentState {
    /// It is being written.
    Open,
    /// Nothing is added any more; it is not yet sealed on all members.
    Closing,
    /// It never changes again.
    Sealed,
}

/// One copy of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyStatus {
    /// The server that has it, or should have it.
    pub server: PeerId,
    /// The server's unit.
    pub unit: UnitId,
    /// Whether the server is there and the copy has all records that count.
    pub whole: bool,
    /// Whether it is sealed.
    pub sealed: bool,
}

/// What is wrong with one copy of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CopyFault {
    /// Its server is away, or did not answer in time.
    #[error("its server is away")]
    Away,
    /// Its day is over.
    #[error("expired")]
    Expired,
    /// It is on its way there: it was acknowledged before all copies were made (SPEC B12, where so set).
    #[error("on its way")]
    Behind,
    /// The server does not have it.
    #[error("missing")]
    Missing,
    /// It does not verify.
    #[error("damaged")]
    Damaged,
}

impl Array {
    /// All segments, in the order of their ids.
    pub fn segments(&self) -> Vec<SegmentStatus> {
        let state = self.inner.shared.state();
        state.segments.values().map(|entry| entry.status(&state)).collect()
    }

    /// Where the records of a blob lie now, in its order: those that were placed again, as their segment was closed below
    /// them, are found where they went.
    pub fn places(&self, location: &BlobLocation) -> Vec<RecordPlace> {
        let state = self.inner.shared.state();
        location.places().map(|place| state.resolve(place)).collect()
    }

    /// Whether as many copies as are promised of what lies there are there: as far as is known without reading.
    pub fn is_whole(&self, location: &BlobLocation) -> bool {
        let shared = &self.inner.shared;
        if location.is_empty() || !location.is_sound() {
            return false;
        }
        let places = self.places(location);
        let state = shared.state();
        let mut ends: BTreeMap<SegmentId, u64> = BTreeMap::new();
        for place in places {
            let end = ends.entry(place.segment).or_default();
            *end = (*end).max(place.offset + u64::from(place.length));
        }
        ends.iter().all(|(segment, end)| {
            let Some(entry) = state.segments.get(segment) else { return false };
            let copies = entry.copies(&state, *end).iter().filter(|copy| copy.whole).count();
            *end <= entry.length && entry.day_key.is_some() && copies >= shared.config.copies
        })
    }

    /// Bytes of the catalog's own records in a segment.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn catalog_len(&self, segment: SegmentId) -> Result<u64, ReadError> {
        let index = self.inner.shared.catalog_index(segment).await?;
        let entries = index.map(|index| index.entries).unwrap_or_default();
        Ok(entries.iter().map(|entry| u64::from(entry.length)).sum())
    }

    /// Reads the last record of a blob, which proves its id, from each of its copies, and says what is wrong with each.
    ///
    /// # Errors
    /// [`ReadError::Range`] for a location that cannot be.
    pub async fn verify_copies(
        &self,
        blob: &StoredBlob,
    ) -> Result<Vec<(DataKey, Result<(), CopyFault>)>, ReadError> {
        let last = blob.location.len().checked_sub(1).filter(|_| blob.location.is_sound());
        let place =
            last.and_then(|last| self.places(&blob.location).get(usize::try_from(last).ok()?).copied());
        let place = place.ok_or(ReadError::Range)?;
        let mut verdicts = Vec::new();
        for key in self.inner.shared.keys_of(&place) {
            verdicts.push((key, self.inner.shared.verify_copy(blob, place, key).await));
        }
        Ok(verdicts)
    }
}

impl Shared {
    async fn verify_copy(
        &self,
        blob: &StoredBlob,
        place: RecordPlace,
        key: DataKey,
    ) -> Result<(), CopyFault> {
        let (link, day_key) = {
            let state = self.state();
            let link = state.live(&key.server).map(|live| live.reads.clone());
            (link, state.segments.get(&place.segment).and_then(|entry| entry.day_key.clone()))
        };
        if place.deletion_day.end() <= (self.clock)() {
            return Err(CopyFault::Expired);
        }
        let (link, day_key) = (link.ok_or(CopyFault::Away)?, day_key.ok_or(CopyFault::Damaged)?);
        let read = link.done(&Request::Read { key }, Vec::new(), self.config.write_time_max).await;
        let bytes = read.map_err(|error| match error {
            LinkError::Refused(Refusal::Expired) => CopyFault::Expired,
            LinkError::Refused(_) if self.may_lack(&place, &key.server) => CopyFault::Behind,
            LinkError::Refused(Refusal::NoSegment) => CopyFault::Missing,
            LinkError::Refused(Refusal::Away) => CopyFault::Away,
            LinkError::Refused(_) | LinkError::Wrong => CopyFault::Damaged,
            LinkError::Closed | LinkError::TimedOut => CopyFault::Away,
        })?;
        let blob = blob.clone();
        let is_right = off_reactor(move || {
            let record = UncheckedRecord::new(&bytes).check(place.segment, place.offset).ok()?;
            open_end(&blob, &record, &day_key).map(drop)
        });
        is_right.await.map_err(|_| CopyFault::Away)?.ok_or(CopyFault::Damaged)
    }
}

impl Entry {
    fn status(&self, state: &State) -> SegmentStatus {
        let header = &self.header;
        SegmentStatus {
            segment: header.segment,
            class: header.class,
            storage_day: header.storage_day,
            deletion_day: header.deletion_day,
            records_len: self.length.saturating_sub(RECORDS_AT),
            stored_len: self.stored_len(),
            portions: self.summary().map(|footer| footer.records - u64::from(footer.catalog_records)),
            state: match self.stage {
                Stage::Active => SegmentState::Open,
                Stage::Found | Stage::Closing => SegmentState::Closing,
                Stage::Settled => SegmentState::Sealed,
            },
            copies: self.copies(state, self.length),
        }
    }

    fn stored_len(&self) -> u64 {
        let all = self.length.saturating_sub(RECORDS_AT);
        let mut known = self.copies.iter().flatten().chain(self.moved.values()).peekable();
        if known.peek().is_none() {
            return all;
        }
        let stored = known.filter(|info| !info.is_moved).map(|info| match info.state {
            CopyState::Sealed(summary) => summary.stored_len(),
            _ => all,
        });
        stored.max().unwrap_or_default()
    }

    /// Its copies, and which of them have everything up to `end`.
    fn copies(&self, state: &State, end: u64) -> Vec<CopyStatus> {
        let members = self.header.members.iter().zip(&self.copies).map(|(member, info)| (member, *info));
        let moved = self.moved.iter().map(|(holder, info)| (holder, Some(*info)));
        let is_member = |holder: &Member| self.header.members.contains(holder);
        let copies = members.chain(moved).map(|(holder, info)| {
            let sealed = info.is_some_and(
                |info| matches!(info.state, CopyState::Sealed(summary) if summary.length == self.length),
            );
            let has_all = sealed || (self.stage == Stage::Active && is_member(holder) && end <= self.on_all);
            let whole = has_all && state.live(&holder.peer).is_some();
            CopyStatus { server: holder.peer, unit: holder.unit, whole, sealed }
        });
        copies.collect()
    }
}
