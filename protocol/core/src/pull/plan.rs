//! What is still to be fetched of each blob, and which piece of it a free stream asks for next.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::BlobId;
use crate::blob::{GROUP_LEN, PORTION_LEN, RangeSet};
use crate::limits::GET_RANGES_MAX;

use super::StreamId;

/// How far one blob is.
#[derive(Clone, Debug, Hash)]
pub(super) struct BlobPlan {
    pub(super) id: BlobId,
    pub(super) size: u64,
    /// Verified, and written.
    have: RangeSet,
    /// What is asked for, by stream. Invariant: apart from each other, and from `have` but for what has come since.
    asked: BTreeMap<StreamId, RangeSet>,
    /// What somebody is to push, and has not begun to. Invariant: apart from `have` and from all that is asked for.
    promised: RangeSet,
    /// All is in the index, but not read again yet.
    rereading: bool,
}

impl BlobPlan {
    pub(super) fn new(id: BlobId, size: u64, have: RangeSet) -> Self {
        let (asked, promised) = (BTreeMap::new(), RangeSet::new());
        Self { id, size, have, asked, promised, rereading: false }
    }

    /// A blob that the store has, and reads again.
    pub(super) fn rereading(id: BlobId, size: u64) -> Self {
        Self { rereading: true, ..Self::new(id, size, RangeSet::whole(size)) }
    }

    pub(super) fn is_done(&self) -> bool {
        !self.rereading && self.have.is_whole(self.size)
    }

    pub(super) fn is_rereading(&self) -> bool {
        self.rereading
    }

    pub(super) fn have(&self) -> u64 {
        self.have.len()
    }

    /// It was read again: well, or not, and then all of it is to be fetched.
    pub(super) fn reread(&mut self, well: bool) {
        if std::mem::take(&mut self.rereading) && !well {
            self.have = RangeSet::new();
        }
    }

    /// Adds what is on disk now, and gives how much of it was new.
    pub(super) fn verified(&mut self, range: Range<u64>) -> u64 {
        let before = self.have.len();
        self.have.insert(range.start..range.end.min(self.size));
        self.have.len() - before
    }

    /// The next piece for `stream`: as long as `len` says of what is left; `None` where all is had or asked for.
    pub(super) fn ask(&mut self, stream: StreamId, len: impl FnOnce(u64) -> u64) -> Option<RangeSet> {
        if self.asked.values().any(|asked| asked.is_whole(self.size)) {
            return None;
        }
        let mut missing = self.free();
        missing.subtract(&self.promised);
        let piece = missing.take(len(missing.len()), GET_RANGES_MAX);
        if piece.is_empty() {
            return None;
        }
        self.asked.insert(stream, piece.clone());
        Some(piece)
    }

    /// What is missing, and asked for nowhere.
    fn free(&self) -> RangeSet {
        if self.rereading || self.is_done() {
            return RangeSet::new();
        }
        let mut missing = self.have.missing(self.size);
        for asked in self.asked.values() {
            missing.subtract(asked);
        }
        missing
    }

    /// What is free is to be pushed, in at most so many ranges: which.
    pub(super) fn promise(&mut self, ranges_max: usize) -> &RangeSet {
        self.promised = self.free().take(u64::MAX >> 1, ranges_max);
        &self.promised
    }

    /// Nothing is to be pushed any more.
    pub(super) fn release(&mut self) {
        self.promised = RangeSet::new();
    }

    pub(super) fn is_promised(&self) -> bool {
        !self.promised.is_empty()
    }

    /// `stream` pushes these ranges, if they are groups that it was to push.
    pub(super) fn begin_pushed(&mut self, stream: StreamId, ranges: &RangeSet) -> bool {
        let is_whole = |at: u64| at.is_multiple_of(GROUP_LEN) || at == self.size;
        let mut others = ranges.clone();
        others.subtract(&self.promised);
        if ranges.is_empty() || !others.is_empty() {
            return false;
        }
        if !ranges.iter().all(|range| is_whole(range.start) && is_whole(range.end)) {
            return false;
        }
        self.promised.subtract(ranges);
        self.asked.insert(stream, ranges.clone());
        true
    }

    /// Bytes that `stream` has still to bring.
    pub(super) fn rest_len(&self, stream: StreamId) -> u64 {
        self.rest(stream).len()
    }

    fn rest(&self, stream: StreamId) -> RangeSet {
        let mut rest = self.asked.get(&stream).cloned().unwrap_or_default();
        rest.subtract(&self.have);
        rest
    }

    /// Leaves about `keep` bytes of what `from` has still to bring to it (up to a portion's edge, where pieces end), and
    /// gives the rest to `to`; `None` where nothing is behind that.
    pub(super) fn cut(&mut self, from: StreamId, keep: u64, to: StreamId) -> Option<RangeSet> {
        let (mut tail, mut room) = (RangeSet::new(), keep);
        for range in self.rest(from).iter() {
            let edge = range.start.saturating_add(room).next_multiple_of(PORTION_LEN);
            let edge = if room == 0 { range.start } else { edge.min(range.end) };
            room = room.saturating_sub(edge - range.start);
            tail.insert(edge..range.end);
        }
        // What is too much for one request stays where it is.
        let tail = tail.take(u64::MAX >> 1, GET_RANGES_MAX);
        if tail.is_empty() {
            return None;
        }
        self.asked.get_mut(&from)?.subtract(&tail);
        self.asked.insert(to, tail.clone());
        Some(tail)
    }

    /// `stream` is over: what it did not bring is missing again.
    pub(super) fn ended(&mut self, stream: StreamId) {
        self.asked.remove(&stream);
    }
}
