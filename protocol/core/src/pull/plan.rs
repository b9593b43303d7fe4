//! What is still to be fetched of each blob, and which piece of it a free stream asks for next.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::BlobId;
use crate::blob::RangeSet;
use crate::limits::{GET_RANGES_MAX, PIECE_LEN_MAX, PIECE_LEN_MIN};

use super::StreamId;

/// How far one blob is.
#[derive(Clone, Debug)]
pub(super) struct BlobPlan {
    pub(super) id: BlobId,
    pub(super) size: u64,
    /// Verified, and written.
    have: RangeSet,
    /// What is asked for, by stream. Invariant: apart from each other, and from `have` but for what has come since.
    asked: BTreeMap<StreamId, RangeSet>,
    /// All is in the index, but not read again yet.
    rereading: bool,
}

impl BlobPlan {
    pub(super) fn new(id: BlobId, size: u64, have: RangeSet) -> Self {
        Self { id, size, have, asked: BTreeMap::new(), rereading: false }
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

    /// Adds what is on disk now, and says whether it was new.
    pub(super) fn verified(&mut self, range: Range<u64>) -> bool {
        let before = self.have.len();
        self.have.insert(range.start..range.end.min(self.size));
        self.have.len() > before
    }

    /// The next piece for `stream`, when `free` streams are to share what is left; `None` where all is had or asked
    /// for.
    pub(super) fn ask(&mut self, stream: StreamId, free: usize) -> Option<RangeSet> {
        if self.rereading {
            return None;
        }
        let mut missing = self.have.missing(self.size);
        for asked in self.asked.values() {
            missing.subtract(asked);
        }
        let share = missing.len().div_ceil(free.max(1) as u64);
        let piece = missing.take(share.clamp(PIECE_LEN_MIN, PIECE_LEN_MAX), GET_RANGES_MAX);
        if piece.is_empty() {
            return None;
        }
        self.asked.insert(stream, piece.clone());
        Some(piece)
    }

    /// `stream` is over: what it did not bring is missing again.
    pub(super) fn ended(&mut self, stream: StreamId) {
        self.asked.remove(&stream);
    }
}
