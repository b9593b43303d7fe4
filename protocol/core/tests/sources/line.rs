//! A source as the puller sees it: bytes that come at a rate, in order, and what goes wrong with it.

use std::ops::Range;
use std::time::Duration;

use lighter_protocol::blob::{PORTION_LEN, RangeSet};
use lighter_protocol::pull::Role;
use lighter_protocol::{BlobId, PeerId};
use rand::RngExt;
use rand::rngs::StdRng;

use super::MIB;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Its connection is gone.
    Dies,
    /// Nothing comes any more.
    Stalls,
    /// Nothing comes for so long.
    Pauses(Duration),
    /// What comes does not verify.
    Lies,
    /// A byte a millisecond from now on.
    Crawls,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Line {
    /// Bytes a second.
    pub(crate) rate: u64,
    /// When it joins.
    pub(crate) begins: Duration,
    /// What happens to it, and when.
    pub(crate) fault: Option<(Duration, Fault)>,
    /// A blob that it has not.
    pub(crate) lacks: Option<BlobId>,
    /// What it is, where it did not offer.
    pub(crate) role: Role,
    pub(crate) is_there: bool,
    pub(crate) is_banned: bool,
    /// It was told to push, and does not.
    pub(crate) is_silent: bool,
}

impl Line {
    pub(crate) fn steady(rate: u64) -> Self {
        Self {
            rate,
            begins: Duration::ZERO,
            fault: None,
            lacks: None,
            role: Role::Relay,
            is_there: false,
            is_banned: false,
            is_silent: false,
        }
    }

    pub(crate) fn random(rng: &mut StdRng, number: usize, is_good: bool) -> Self {
        let role = [Role::Relay, Role::Device, Role::Recipient][rng.random_range(0..3)];
        let rate = MIB / 4 + rng.random_range(0..8_u64).pow(2) * rng.random_range(0..MIB);
        if is_good {
            return Self { role, ..Self::steady(rate) };
        }
        let some_time = |rng: &mut StdRng| Duration::from_millis(rng.random_range(0..15_000));
        let fault = match rng.random_range(0..7) {
            0 => Some(Fault::Dies),
            1 => Some(Fault::Stalls),
            2 => Some(Fault::Pauses(some_time(rng))),
            3 => Some(Fault::Lies),
            4 => Some(Fault::Crawls),
            _ => None,
        };
        Self {
            begins: if number == 0 { Duration::ZERO } else { some_time(rng) },
            fault: fault.map(|fault| (some_time(rng), fault)),
            // Who offers has all of it.
            lacks: (number > 0 && rng.random_bool(0.3)).then_some(BlobId([2; 32])),
            role,
            ..Self::steady(rate)
        }
    }

    pub(crate) fn fault_at(&self, passed: Duration) -> Option<Fault> {
        self.fault.filter(|(at, _)| *at <= passed).map(|(_, fault)| fault)
    }

    /// Whether it is gone before it came.
    pub(crate) fn is_over(&self, passed: Duration) -> bool {
        self.fault_at(passed) == Some(Fault::Dies)
    }

    /// Whether it pushes what it is told to.
    pub(crate) fn pushes_at(&self, passed: Duration) -> bool {
        !self.is_silent && !self.is_banned && self.begins <= passed && self.fault_at(passed).is_none()
    }

    /// Bytes that come in the step that ends when so much has passed.
    pub(crate) fn bytes_in(&self, passed: Duration, step: Duration) -> u64 {
        let millis = u64::try_from(step.as_millis()).unwrap();
        let usual = self.rate * millis / 1_000;
        match self.fault {
            Some((at, Fault::Stalls)) if at <= passed => 0,
            Some((at, Fault::Pauses(pause))) if at <= passed && passed < at + pause => 0,
            Some((at, Fault::Crawls)) if at <= passed => millis,
            _ => usual,
        }
    }
}

/// A stream as its source sends it.
#[derive(Clone, Debug)]
pub(crate) struct Sending {
    pub(crate) from: PeerId,
    pub(crate) blob: BlobId,
    /// What was asked for and not sent yet.
    rest: RangeSet,
    /// What is still wanted of it: less, once its end was given to another.
    pub(crate) wanted: RangeSet,
    /// Came, and is not a whole piece yet.
    pending: Range<u64>,
    pub(crate) sent: u64,
    size: u64,
}

impl Sending {
    pub(crate) fn new(from: PeerId, blob: BlobId, size: u64, ranges: RangeSet) -> Self {
        Self { from, blob, rest: ranges.clone(), wanted: ranges, pending: 0..0, sent: 0, size }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.rest.is_empty() && self.pending.is_empty()
    }

    /// What has come of the piece that is not whole, whole groups of it.
    pub(crate) fn gathered(&self) -> Range<u64> {
        let end = self.pending.end;
        let end = if end == self.size { end } else { end / 16_384 * 16_384 };
        self.pending.start..end.max(self.pending.start)
    }

    /// So many bytes come: the pieces that are whole now, as the transport hands them on at portions' edges.
    pub(crate) fn send(&mut self, mut budget: u64) -> Vec<Range<u64>> {
        let mut pieces = Vec::new();
        while budget > 0 {
            let Some(next) = self.rest.iter().next() else { break };
            if !self.pending.is_empty() && self.pending.end != next.start {
                pieces.push(std::mem::replace(&mut self.pending, 0..0));
            }
            let edge = (next.start + 1).next_multiple_of(PORTION_LEN).min(next.end);
            let end = edge.min(next.start + budget);
            budget -= end - next.start;
            self.sent += end - next.start;
            let start = if self.pending.is_empty() { next.start } else { self.pending.start };
            self.pending = start..end;
            self.rest.subtract(&std::iter::once(next.start..end).collect());
            if end % PORTION_LEN == 0 {
                pieces.push(std::mem::replace(&mut self.pending, 0..0));
            }
        }
        if self.rest.is_empty() && !self.pending.is_empty() {
            pieces.push(std::mem::replace(&mut self.pending, 0..0));
        }
        pieces
    }
}
