//! As much under way as the line holds, whatever is lost of it.
//!
//! What a line holds is what it delivers in its shortest round trip. The rate is the best of the latest rounds; that it could be higher is
//! found by sending more for one round in each [`TURNS`], that a queue of our own goes away by sending less for the next.

use std::time::Duration;

use super::judge::{Before, Share, queue_shows};
use super::rounds::Round;
use crate::limits::{LOSSY_WINDOW_MAX, LOSSY_WINDOW_MIN};

/// Rounds of which the best rate counts: a turn of all gains, and some.
const RATES: usize = 10;
/// Under way beside what the line holds, of a hundred, round after round: one that tries for more, one that lets the queue run dry,
/// and others with a little more than the line holds, since acknowledgements come in bunches.
const TURNS: [u64; 6] = [125, 90, 106, 106, 106, 106];
/// Under way beside what was delivered while the line is not full yet, of a hundred.
const FILLING: u64 = 200;
/// What a round must bring more than the best one before, of a hundred, for the line not to be full; …
const GROWTH_MIN: u64 = 120;
/// … without it in so many rounds, it is.
const WITHOUT_GROWTH_MAX: u8 = 3;
/// What a round must bring more than the best of the latest, of a hundred, for a line that was full to be so no more.
const MORE: u64 = 112;
/// What it must bring in the end, of a hundred of what Cubic brought.
const GAIN_MIN: u64 = 125;
/// Rounds after the line was full until losses count: what was too much is found to be lost meanwhile.
const SETTLING: u8 = 4;
/// Rounds in a row with a queue that is not our own.
const QUEUED_MAX: u8 = 8;
/// Lost beyond twice what was lost under Cubic, of a thousand.
const LOSS_MAX: u64 = 50;

/// Why Cubic goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leave {
    /// The line carries no more than it did.
    NoGain,
    /// A queue stays: somebody else's.
    Queue,
    /// More is lost than before.
    Loss,
    /// A router says that its queue grows.
    Marked,
}

/// Bytes that a line holds: at so many bytes a second, with that round trip.
pub(super) fn contents(rate: u64, best: Duration) -> u64 {
    u64::try_from(u128::from(rate) * best.as_micros() / 1_000_000).unwrap_or(u64::MAX)
}

/// Sends so.
#[derive(Clone, Debug)]
pub(super) struct Steady {
    before: Before,
    rates: [u64; RATES],
    next: usize,
    phase: Phase,
    share: Share,
    settling: u8,
    queued: u8,
    window: u64,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// The line is not full yet.
    Filling { best: u64, without_growth: u8 },
    /// It is, in this turn.
    Full(usize),
}

impl Steady {
    pub(super) fn new(before: Before, best: Duration) -> Self {
        let rates = [before.rate; RATES];
        let phase = Phase::Filling { best: before.rate, without_growth: 0 };
        let mut steady = Self {
            before,
            rates,
            next: 0,
            phase,
            share: Share::default(),
            settling: 0,
            queued: 0,
            window: 0,
        };
        steady.set_window(best, FILLING);
        steady
    }

    /// Bytes that may be under way.
    pub(super) fn window(&self) -> u64 {
        self.window
    }

    /// A round has ended; the shortest round trip of all is `best`. Why to leave it, if so.
    pub(super) fn handle_round(&mut self, round: &Round, best: Duration) -> Option<Leave> {
        let (rate, known) = (round.rate(), self.rate());
        // What was sent while there was little to send says that the line carries that at least.
        if !round.is_limited || rate > known {
            self.rates[self.next] = rate;
            self.next = (self.next + 1) % RATES;
        }
        self.share.handle_round(round);
        let loses = self.share.per_mille() > 2 * self.before.loss + LOSS_MAX;
        if round.is_marked {
            return Some(Leave::Marked);
        }
        let is_queued = round.rtt > best + queue_shows(best);
        let gain = match self.phase {
            Phase::Filling { best: best_rate, without_growth } => {
                let grew = rate >= best_rate / 100 * GROWTH_MIN;
                let without_growth = if grew { 0 } else { without_growth + u8::from(!round.is_limited) };
                let is_full = is_queued || loses;
                if is_full || without_growth >= WITHOUT_GROWTH_MAX {
                    if self.rate() < self.before.rate / 100 * GAIN_MIN {
                        return Some(Leave::NoGain);
                    }
                    self.settling = SETTLING;
                    self.phase = Phase::Full(1);
                    TURNS[1]
                } else {
                    self.phase = Phase::Filling { best: best_rate.max(rate), without_growth };
                    FILLING
                }
            }
            Phase::Full(turn) => {
                if self.settling > 0 {
                    self.settling -= 1;
                    self.share = Share::default();
                } else if loses {
                    return Some(Leave::Loss);
                }
                self.queued =
                    if round.rtt > best + best / 2 + queue_shows(best) { self.queued + 1 } else { 0 };
                if self.queued >= QUEUED_MAX {
                    return Some(Leave::Queue);
                }
                if rate > known / 100 * MORE && !is_queued {
                    self.phase = Phase::Filling { best: rate, without_growth: 0 };
                    FILLING
                } else {
                    let turn = (turn + 1) % TURNS.len();
                    self.phase = Phase::Full(turn);
                    TURNS[turn]
                }
            }
        };
        self.set_window(best, gain);
        None
    }

    /// Bytes a second that the line carries.
    fn rate(&self) -> u64 {
        self.rates.into_iter().max().unwrap_or(0)
    }

    fn set_window(&mut self, best: Duration, gain: u64) {
        let window = contents(self.rate(), best) / 100 * gain;
        self.window = window.clamp(LOSSY_WINDOW_MIN, LOSSY_WINDOW_MAX);
    }
}
