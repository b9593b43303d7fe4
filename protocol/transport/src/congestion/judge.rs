//! Whether Cubic is held back by losses that no full queue explains.

use std::time::Duration;

use super::rounds::Round;
use super::steady::contents;
use crate::limits::LOSSY_RTT_MIN;

/// Rounds with such losses until it is believed, …
const EVIDENCE_MIN: u8 = 2;
/// … with less under way than this, in percent of what the line has held before: a line that is full loses where it holds most.
const WINDOW_PERCENT_MAX: u64 = 85;
/// The best rate is forgotten by this part in each round: half of it after 90 rounds.
const FORGOTTEN: u64 = 128;
/// Rounds until the next try after the first that brought nothing, …
const PAUSE: u64 = 32;
/// … and twice as many after each further one, until it is this many doublings.
const PAUSE_DOUBLINGS_MAX: u32 = 6;

/// Lost and delivered bytes, those of the latest 16 rounds or so.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Share {
    lost: u64,
    acked: u64,
}

impl Share {
    pub(super) fn handle_round(&mut self, round: &Round) {
        // In 16ths of a byte, so that a single packet does not vanish at once.
        self.lost = self.lost - self.lost / 16 + round.lost * 16;
        self.acked = self.acked - self.acked / 16 + round.acked * 16;
    }

    /// What is lost, of a thousand.
    pub(super) fn per_mille(self) -> u64 {
        self.lost * 1_000 / (self.lost + self.acked).max(1)
    }
}

/// What a line did under Cubic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Before {
    /// Bytes a second.
    pub(super) rate: u64,
    /// Lost, of a thousand.
    pub(super) loss: u64,
}

/// Looks on while Cubic sends.
#[derive(Clone, Debug, Default)]
pub(super) struct Judge {
    /// Bytes a second at its best.
    best_rate: u64,
    /// Bytes a second, smoothed over eight rounds.
    rate: u64,
    share: Share,
    evidence: u8,
    rounds: u64,
    not_before: u64,
    leaves: u32,
}

/// How much longer than at its best a round trip takes where a queue shows.
pub(super) fn queue_shows(best: Duration) -> Duration {
    best / 8 + Duration::from_millis(4)
}

impl Judge {
    /// A round has ended; the shortest round trip of all is `best`. Where the line loses without being full: what it did until now.
    pub(super) fn handle_round(&mut self, round: &Round, best: Duration) -> Option<Before> {
        self.rounds += 1;
        self.share.handle_round(round);
        if round.is_marked {
            self.evidence = 0;
        }
        if round.is_limited {
            return None;
        }
        let rate = round.rate();
        self.rate = if self.rate == 0 { rate } else { self.rate - self.rate / 8 + rate / 8 };
        if let Some(rtt) = round.rtt_at_loss {
            let is_full = round.window_at_loss > contents(self.best_rate, best) / 100 * WINDOW_PERCENT_MAX;
            let is_queued = rtt > best + queue_shows(best);
            self.evidence =
                if is_full || is_queued || round.is_marked { 0 } else { self.evidence.saturating_add(1) };
        }
        self.best_rate = (self.best_rate - self.best_rate / FORGOTTEN).max(rate);
        let is_lossy = self.evidence >= EVIDENCE_MIN && self.rounds >= self.not_before;
        // On shorter ways Cubic recovers faster than anybody notices.
        let is_far = best >= LOSSY_RTT_MIN;
        (is_lossy && is_far).then(|| Before { rate: self.rate, loss: self.share.per_mille() })
    }

    /// How often it was left.
    #[cfg(test)]
    pub(super) fn leaves(&self) -> u32 {
        self.leaves
    }

    /// It was tried, and came to nothing, or to an end.
    pub(super) fn handle_leave(&mut self) {
        (self.evidence, self.rate, self.share) = (0, 0, Share::default());
        self.not_before = self.rounds + (PAUSE << self.leaves.min(PAUSE_DOUBLINGS_MAX));
        self.leaves = self.leaves.saturating_add(1);
    }
}
