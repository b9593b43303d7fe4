//! Scrub: a unit re-reads its sealed segments, one after the other in the order of their names, round after round, and
//! remembers which are damaged.
//!
//! Reading is not the unit's own: [`Unit::next_scrub`] hands out a segment, any thread reads it piece by piece at the
//! pace of [`rate`], and [`Unit::finish_scrub`] takes in what was found. Nothing is locked: a copy that changed or left
//! meanwhile is found by that, and what was read of it is not counted.
//!
//! How far it is stands in `unit.scrub` (its form: `kept`), written every minute and whenever damage was found or went.
//! Where that file is lost or damaged, a round begins anew, which finds again what was known.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use lighter_protocol::UnixTime;
use serde::{Deserialize, Serialize};

use super::kept::Kept;
use super::{Phase, Shelf, Shelved, Unit};
use crate::disk::{Disk, DiskFile};
use crate::ids::SegmentId;
use crate::limits::{
    DAMAGED_SEGMENTS_MAX, OBJECT_PIECE_LEN, SCRUB_PIECE_LEN, SCRUB_RATE_MAX, SCRUB_RATE_MIN,
    SCRUB_STORE_INTERVAL,
};
use crate::segment::RECORDS_AT;
use crate::segment::verify::{Verified, Verifier};
use crate::wire::ScrubProgress;

/// What is kept of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ScrubState {
    /// When the round began; 0 before the first.
    begun: UnixTime,
    /// All segments up to this one were read in this round.
    behind: Option<SegmentId>,
    /// The round is over: the next one begins when it is due.
    is_over: bool,
    /// When the last whole round ended; 0 before the first.
    last_ended: UnixTime,
    /// Bad stretches of damaged segments.
    damaged: BTreeMap<SegmentId, u64>,
}

impl Kept for ScrubState {
    const NAME: &'static str = "unit.scrub";
    const MAGIC: [u8; 8] = *b"LTRSCRB1";
}

/// The state, and when it was last written down.
pub(super) struct Scrub {
    state: ScrubState,
    stored: UnixTime,
}

/// A sealed segment to be read.
pub struct ScrubJob<D: Disk> {
    shelved: Arc<Shelved<D>>,
    phase: Phase,
    verifier: Verifier,
    /// Not in its turn: somebody found something wrong in it.
    is_suspect: bool,
}

/// How far a round is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrubPosition {
    /// When it began; 0 before the first.
    pub begun: UnixTime,
    behind: Option<SegmentId>,
    is_over: bool,
    last_ended: UnixTime,
}

impl ScrubPosition {
    /// In bytes. Those of the segment that is being read now are not counted yet.
    pub fn progress<D: Disk>(&self, shelf: &Shelf<D>) -> ScrubProgress {
        let Self { begun, behind, is_over, last_ended } = *self;
        let (read, total) = shelf.sealed_bytes(behind);
        ScrubProgress { begun, done: if is_over { total } else { read }, total, last_ended }
    }
}

/// How far a segment is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scrubbed {
    /// So many bytes more; it goes on.
    Piece(u64),
    /// All of it: so many bad stretches.
    Whole(u64),
}

impl<D: Disk> ScrubJob<D> {
    /// Reads the next piece, from the disk and not from a cache, and leaves none of it there. What cannot be read is
    /// damaged.
    pub fn step(&mut self) -> Scrubbed {
        let (file, at) = (&self.shelved.file, self.verifier.done());
        file.drop_cached(at, SCRUB_PIECE_LEN as u64);
        let verified = self.verifier.step(file, SCRUB_PIECE_LEN);
        file.drop_cached(at, SCRUB_PIECE_LEN as u64);
        match verified {
            Ok(Verified::Piece(len)) => Scrubbed::Piece(len),
            Ok(Verified::Whole { damaged }) => Scrubbed::Whole(damaged),
            Err(error) => {
                tracing::error!(segment = %self.shelved.header.segment, %error, "a sealed segment cannot be read");
                Scrubbed::Whole(1)
            }
        }
    }

    /// The segment, where its records were moved: it is read by its pieces ([`Self::next_piece`]), not by steps.
    pub fn moved(&self) -> Option<&Arc<Shelved<D>>> {
        self.shelved.moved().map(|_| &self.shelved)
    }

    /// Where the next piece is; `None` where all was read.
    pub fn next_piece(&self) -> Option<Range<u64>> {
        self.verifier.next_piece(OBJECT_PIECE_LEN)
    }

    /// Takes a piece in.
    pub fn take_piece(&mut self, piece: &Range<u64>, bytes: &[u8]) {
        if piece.start >= RECORDS_AT && !self.verifier.knows_index() {
            let summary = self.verifier.summary();
            let index = summary.length..summary.length.saturating_add(summary.index_len());
            // Where the stub cannot be read, the index is found to be wrong when it is its turn.
            self.verifier.know_index(&self.shelved.read_here(index).unwrap_or_default());
        }
        self.verifier.take_piece(piece, bytes);
    }

    /// Bad stretches, once all was read.
    pub fn finish(&self) -> u64 {
        match self.verifier.finish() {
            Verified::Whole { damaged } => damaged,
            Verified::Piece(_) => 0,
        }
    }

    /// Bytes read so far.
    pub fn done(&self) -> u64 {
        self.verifier.done()
    }
}

/// Bytes per second for reading `rest` bytes in what is left, at `now`, of nine tenths of a round that began at `begun`
/// and may take `days`.
pub fn rate(rest: u64, begun: UnixTime, days: u32, now: UnixTime) -> u64 {
    let whole = u64::from(days) * DAY_SECONDS;
    let left = begun.0.saturating_add(whole - whole / 10).saturating_sub(now.0).max(1);
    (rest / left).clamp(SCRUB_RATE_MIN, SCRUB_RATE_MAX)
}

const DAY_SECONDS: u64 = 86_400;

impl Scrub {
    /// What was kept; where that is of no use, a new beginning.
    pub(super) fn load<D: Disk>(disk: &D, now: UnixTime) -> Self {
        let state = ScrubState::load(disk).unwrap_or_else(|error| {
            tracing::warn!(%error, "where the scrub was is not known: a round begins anew");
            None
        });
        let state = state.unwrap_or(ScrubState {
            begun: UnixTime(0),
            behind: None,
            is_over: true,
            last_ended: UnixTime(0),
            damaged: BTreeMap::new(),
        });
        Self { state, stored: now }
    }

    /// Bad stretches that were found in a segment.
    pub(super) fn damage(&self, segment: SegmentId) -> u64 {
        self.state.damaged.get(&segment).copied().unwrap_or(0)
    }

    fn is_due(&self, days: u32, now: UnixTime) -> bool {
        // One that began in the future began under a wrong clock.
        let next = self.state.begun.plus(Duration::from_secs(u64::from(days) * DAY_SECONDS));
        self.state.begun == UnixTime(0) || next <= now || self.state.begun > now
    }
}

impl<D: Disk> Unit<D> {
    /// The next segment to be read, at a pace for rounds of `days`; `None` where there is none now.
    pub fn next_scrub(&mut self, days: u32, now: UnixTime) -> Option<ScrubJob<D>> {
        if let Some(job) = self.shelf.take_suspect().and_then(|segment| self.job(segment, true)) {
            return Some(job);
        }
        if self.scrub.state.is_over {
            if !self.scrub.is_due(days, now) {
                return None;
            }
            self.begin_round(now);
        }
        let next =
            self.shelf.next_sealed(self.scrub.state.behind).and_then(|segment| self.job(segment, false));
        if next.is_none() {
            self.scrub.state.is_over = true;
            self.scrub.state.last_ended = now;
            self.store_scrub(now);
        }
        next
    }

    /// Begins a round, whether it is due or not.
    pub fn begin_round(&mut self, now: UnixTime) {
        let state = &mut self.scrub.state;
        (state.begun, state.behind, state.is_over) = (now, None, false);
        self.store_scrub(now);
    }

    fn job(&self, segment: SegmentId, is_suspect: bool) -> Option<ScrubJob<D>> {
        let shelved = self.shelf.get(segment)?;
        let phase = shelved.phase();
        let Phase::Sealed(summary) = phase else { return None };
        let verifier = Verifier::new(shelved.header.clone(), summary);
        Some(ScrubJob { shelved, phase, verifier, is_suspect })
    }

    /// Takes in that all of a segment was read, and how many bad stretches were found.
    pub fn finish_scrub(&mut self, job: &ScrubJob<D>, damaged: u64, now: UnixTime) {
        let segment = job.shelved.header.segment;
        if !job.is_suspect {
            self.scrub.state.behind = Some(segment);
        }
        let is_the_same = self.shelf.get(segment).is_some_and(|there| Arc::ptr_eq(&there, &job.shelved));
        if is_the_same && job.shelved.phase() == job.phase && job.shelved.damaged() != damaged {
            if damaged > 0 {
                tracing::error!(%segment, damaged, "a sealed segment is damaged");
            }
            self.remember_damage(&job.shelved, damaged, now);
        } else if self.scrub.stored.plus(SCRUB_STORE_INTERVAL) <= now {
            self.store_scrub(now);
        }
    }

    /// Goes on behind a segment that could not be read now, and of which nothing is known therefore.
    pub fn skip_scrub(&mut self, job: &ScrubJob<D>) {
        if !job.is_suspect {
            self.scrub.state.behind = Some(job.shelved.header.segment);
        }
    }

    /// Writes down that a sealed copy is damaged, or is not any more.
    pub(super) fn remember_damage(&mut self, shelved: &Shelved<D>, damaged: u64, now: UnixTime) {
        shelved.set_damaged(damaged);
        let (segment, known) = (shelved.header.segment, &mut self.scrub.state.damaged);
        if damaged == 0 {
            known.remove(&segment);
        } else if known.len() < DAMAGED_SEGMENTS_MAX || known.contains_key(&segment) {
            known.insert(segment, damaged);
        }
        self.store_scrub(now);
    }

    /// The copy is not there any more: one that takes its place is another.
    pub(super) fn forget_damage(&mut self, segment: SegmentId) {
        if self.scrub.state.damaged.remove(&segment).is_some() {
            self.store_scrub(self.scrub.stored);
        }
    }

    /// Best effort: what is not written down is read again.
    fn store_scrub(&mut self, now: UnixTime) {
        self.scrub.stored = now;
        if let Err(error) = self.scrub.state.store(&self.disk) {
            tracing::warn!(%error, "how far the scrub is could not be written down");
        }
    }

    /// How far the round is.
    pub fn scrub_position(&self) -> ScrubPosition {
        let ScrubState { begun, behind, is_over, last_ended, .. } = self.scrub.state;
        ScrubPosition { begun, behind, is_over, last_ended }
    }

    /// Damage that no segment here has any more is forgotten: what was known when the unit opened.
    pub(super) fn settle_damage(&mut self) -> io::Result<()> {
        let shelf = Arc::clone(&self.shelf);
        let before = self.scrub.state.damaged.len();
        self.scrub.state.damaged.retain(|segment, _| shelf.get(*segment).is_some());
        if self.scrub.state.damaged.len() < before { self.scrub.state.store(&self.disk) } else { Ok(()) }
    }
}
