//! Which copy is asked first, and when the next one is asked as well: a slow copy is overtaken by another (SPEC C9).
//!
//! A server that has answered well so far may hang, swap, or sit behind a disk that is dying; a reader who waited for it
//! to fail would wait seconds for each portion. So, as long as the answer to a read is out: once it takes much longer
//! than that server's reads have taken lately, the next copy is asked as well, and whichever right answer comes first
//! counts. What was overtaken is asked last from then on, until it has answered a probe quickly: nobody waits for it again.
//!
//! What it costs is bounded: one more request for each ten reads, so that an array that is slow because it is busy is not
//! made busier. Only a server that was overtaken just now can be overtaken by more than that.
//!
//! Here is only what is decided, with `now` and the measured times as arguments; `read` does the asking.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lighter_protocol::PeerId;
use tokio::time::Instant;

use crate::limits::{
    HEDGE_BURST, HEDGE_DELAY_MAX, HEDGE_DELAY_MIN, HEDGE_DELAY_UNKNOWN, HEDGE_READS, HEDGE_SAMPLES,
    HEDGE_SAMPLES_MIN, PROBE_PAUSE,
};

/// How quick each server was lately, and how many reads may still be sent twice.
#[derive(Debug, Default)]
pub(super) struct Hedges(Mutex<Paces>);

#[derive(Debug)]
struct Paces {
    /// Of servers that were ever read from: as many as the array has had.
    servers: BTreeMap<PeerId, Pace>,
    /// Each read adds one, each hedge within the budget takes [`HEDGE_READS`]; at most [`HEDGE_BURST`] hedges' worth.
    credit: u32,
}

/// How quick one server was lately.
#[derive(Clone, Debug, Default)]
struct Pace {
    /// The last reads' times in microseconds, in a ring.
    times: Vec<u32>,
    next: usize,
    /// It was overtaken, and has not answered quickly since.
    is_lagging: bool,
    /// When it was last probed, or overtaken.
    probed: Option<Instant>,
}

/// How good a server is to ask first: the lesser the better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Good,
    /// Much slower than another that has a copy.
    Slow,
    /// Overtaken.
    Lagging,
    /// Not connected.
    Away,
}

impl Default for Paces {
    fn default() -> Self {
        Self { servers: BTreeMap::new(), credit: HEDGE_BURST * HEDGE_READS }
    }
}

impl Hedges {
    fn paces(&self) -> MutexGuard<'_, Paces> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts the copies in the order in which they are to be asked; among equals the order stays. Counts one read.
    pub(super) fn order<K>(
        &self,
        copies: &mut [K],
        server_of: impl Fn(&K) -> PeerId,
        is_live: impl Fn(&PeerId) -> bool,
    ) {
        let mut paces = self.paces();
        paces.credit = (paces.credit + 1).min(HEDGE_BURST * HEDGE_READS);
        let best = copies.iter().filter_map(|copy| paces.servers.get(&server_of(copy))?.typical()).min();
        copies.sort_by_cached_key(|copy| {
            let server = server_of(copy);
            if is_live(&server) {
                paces.servers.get(&server).map_or(Rank::Good, |pace| pace.rank(best))
            } else {
                Rank::Away
            }
        });
    }

    /// How long an answer of `server` is waited for before another copy is asked as well.
    pub(super) fn delay(&self, server: &PeerId) -> Duration {
        self.paces().servers.get(server).map_or(HEDGE_DELAY_UNKNOWN, Pace::delay)
    }

    /// Whether `next` may be asked as well as `asked`, which has not answered in time. Where not, it is asked again after
    /// another delay: somebody else may have found out meanwhile that `asked` lags.
    pub(super) fn may_hedge(&self, asked: &PeerId, next: &PeerId) -> bool {
        let mut paces = self.paces();
        let lags = |server| paces.servers.get(server).is_some_and(|pace| pace.is_lagging);
        // Not more work for a server, but work that it gets instead of the other.
        if lags(asked) && !lags(next) {
            return true;
        }
        match paces.credit.checked_sub(HEDGE_READS) {
            Some(credit) => {
                paces.credit = credit;
                true
            }
            None => false,
        }
    }

    /// `server` answered a read after `took`.
    pub(super) fn answered(&self, server: PeerId, took: Duration) {
        let mut paces = self.paces();
        let pace = paces.servers.entry(server).or_default();
        // Measured against what it took before it lagged: those times are not in the ring.
        if took <= pace.delay() {
            pace.is_lagging = false;
        }
        pace.add(took);
    }

    /// `server` was overtaken by another that was asked later, or did not answer at all.
    pub(super) fn overtaken(&self, server: PeerId, now: Instant) {
        let mut paces = self.paces();
        let pace = paces.servers.entry(server).or_default();
        if !pace.is_lagging {
            pace.is_lagging = true;
            pace.probed = Some(now);
            tracing::info!(%server, "a storage server is slow: others are read from first");
        }
    }

    /// One of `servers` that is asked last, and is to be probed now: with a read whose answer nobody waits for.
    pub(super) fn probe(&self, servers: &[PeerId], now: Instant) -> Option<PeerId> {
        let mut paces = self.paces();
        let best = servers.iter().filter_map(|server| paces.servers.get(server)?.typical()).min();
        let due = servers.iter().find(|server| {
            let Some(pace) = paces.servers.get(server) else { return false };
            let is_pause_over = pace.probed.is_none_or(|probed| now >= probed + PROBE_PAUSE);
            pace.rank(best) > Rank::Good && is_pause_over
        });
        let due = *due?;
        paces.servers.get_mut(&due)?.probed = Some(now);
        Some(due)
    }

    /// How many of the servers read from lag.
    pub(super) fn lagging(&self) -> usize {
        self.paces().servers.values().filter(|pace| pace.is_lagging).count()
    }
}

impl Pace {
    fn add(&mut self, took: Duration) {
        let micros = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        match self.times.get_mut(self.next) {
            Some(time) => *time = micros,
            None => self.times.push(micros),
        }
        self.next = (self.next + 1) % HEDGE_SAMPLES;
    }

    /// The time within which `percent` of the last reads were answered; `None` while there were too few.
    fn within(&self, percent: usize) -> Option<Duration> {
        if self.times.len() < HEDGE_SAMPLES_MIN {
            return None;
        }
        let mut times = self.times.clone();
        let at = (times.len() * percent / 100).min(times.len() - 1);
        let (_, time, _) = times.select_nth_unstable(at);
        Some(Duration::from_micros(u64::from(*time)))
    }

    fn typical(&self) -> Option<Duration> {
        self.within(50)
    }

    fn delay(&self) -> Duration {
        let usual = self.within(95).map(|time| time.saturating_mul(3));
        usual.unwrap_or(HEDGE_DELAY_UNKNOWN).clamp(HEDGE_DELAY_MIN, HEDGE_DELAY_MAX)
    }

    fn rank(&self, best: Option<Duration>) -> Rank {
        let is_slow = match (self.typical(), best) {
            // Less than a hedge's least delay apart makes no difference to anybody.
            (Some(typical), Some(best)) => typical > best.saturating_mul(3) + HEDGE_DELAY_MIN / 4,
            _ => false,
        };
        match (self.is_lagging, is_slow) {
            (true, _) => Rank::Lagging,
            (false, true) => Rank::Slow,
            (false, false) => Rank::Good,
        }
    }
}

#[cfg(test)]
mod tests {
    use lighter_transport::Identity;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn peers<const N: usize>() -> [PeerId; N] {
        std::array::from_fn(|_| Identity::generate().peer())
    }

    fn order(hedges: &Hedges, servers: &[PeerId]) -> Vec<PeerId> {
        let mut copies = servers.to_vec();
        hedges.order(&mut copies, |server| *server, |_| true);
        copies
    }

    fn answered(hedges: &Hedges, server: PeerId, times: usize, took: Duration) {
        (0..times).for_each(|_| hedges.answered(server, took));
    }

    #[test]
    fn the_wait_follows_what_the_server_usually_takes_within_bounds() {
        let [server] = peers();
        let hedges = Hedges::default();
        assert_eq!(hedges.delay(&server), HEDGE_DELAY_UNKNOWN, "nothing is known");
        answered(&hedges, server, 64, MS);
        assert_eq!(hedges.delay(&server), HEDGE_DELAY_MIN);
        answered(&hedges, server, 64, 50 * MS);
        assert_eq!(hedges.delay(&server), 150 * MS);
        answered(&hedges, server, 2, 400 * MS);
        assert_eq!(hedges.delay(&server), 150 * MS, "two of 64 change nothing");
        answered(&hedges, server, 10, 400 * MS);
        assert_eq!(hedges.delay(&server), HEDGE_DELAY_MAX);
    }

    #[test]
    fn who_was_overtaken_is_asked_last_until_a_probe_was_quick() {
        let [a, b] = peers();
        let hedges = Hedges::default();
        let start = Instant::now();
        answered(&hedges, a, 20, MS);
        answered(&hedges, b, 20, 2 * MS);
        assert_eq!(order(&hedges, &[a, b]), [a, b], "about as quick: the order stays");
        assert_eq!(order(&hedges, &[b, a]), [b, a]);

        hedges.overtaken(a, start);
        assert_eq!(order(&hedges, &[a, b]), [b, a]);
        assert_eq!(hedges.probe(&[a, b], start), None, "just overtaken");
        assert_eq!(hedges.probe(&[a, b], start + PROBE_PAUSE), Some(a));
        assert_eq!(hedges.probe(&[a, b], start + PROBE_PAUSE), None, "one at a time");
        hedges.answered(a, Duration::from_secs(5));
        assert_eq!((order(&hedges, &[a, b]), hedges.lagging()), (vec![b, a], 1), "still slow");
        hedges.answered(a, 2 * MS);
        assert_eq!((order(&hedges, &[a, b]), hedges.lagging()), (vec![a, b], 0));
    }

    #[test]
    fn who_is_much_slower_is_asked_after_the_others_and_who_is_away_last() {
        let [a, b, c] = peers();
        let hedges = Hedges::default();
        answered(&hedges, a, 20, 40 * MS);
        answered(&hedges, b, 20, 2 * MS);
        assert_eq!(order(&hedges, &[a, b, c]), [b, c, a]);
        hedges.overtaken(a, Instant::now());
        let mut copies = [c, a, b];
        hedges.order(&mut copies, |server| *server, |server| *server != c);
        assert_eq!(copies, [b, a, c]);
        answered(&hedges, a, 64, MS);
        assert_eq!(order(&hedges, &[a, b]), [a, b], "quick again");
    }

    #[test]
    fn an_array_that_is_slow_as_a_whole_is_not_asked_twice_for_everything() {
        let [a, b] = peers();
        let hedges = Hedges::default();
        let mut hedged = 0;
        for _ in 0..1000 {
            order(&hedges, &[a, b]);
            hedged += u32::from(hedges.may_hedge(&a, &b));
        }
        assert!(hedged <= 100 + HEDGE_BURST, "{hedged} of 1000");
        assert!(!hedges.may_hedge(&a, &b));
        hedges.overtaken(a, Instant::now());
        assert!(hedges.may_hedge(&a, &b), "what lags is overtaken by all who wait for it");
        hedges.overtaken(b, Instant::now());
        assert!(!hedges.may_hedge(&a, &b), "two that lag are two that are busy");
    }
}
