//! How well a server does, as its writer sees it: how long its writes usually take, and whether it has failed of late.

use std::time::Duration;

use tokio::time::Instant;

/// Measured of one server's writes.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// How long the latest writes took, in a ring.
    latest: Vec<Duration>,
    next: usize,
    /// When the latest of them was acknowledged.
    latest_at: Option<Instant>,
    /// Failures in a row, each within [`FORGET_AFTER`] of the one before.
    failures: u32,
    failed_at: Option<Instant>,
    avoid_until: Option<Instant>,
}

impl Health {
    /// A write was acknowledged after `time`.
    pub(super) fn took(&mut self, time: Duration, now: Instant) {
        self.latest_at = Some(now);
        if self.latest.len() < LATEST_LEN {
            self.latest.push(time);
        } else {
            self.latest[self.next % LATEST_LEN] = time;
        }
        self.next = (self.next + 1) % LATEST_LEN;
    }

    /// It did not do what was asked of it, or not in time: for a while, and longer each time, others are preferred.
    pub(super) fn fail(&mut self, now: Instant) {
        if self.failed_at.is_none_or(|at| now.duration_since(at) > FORGET_AFTER) {
            self.failures = 0;
        }
        self.failed_at = Some(now);
        let pause = AVOID_FOR.saturating_mul(1 << self.failures.min(AVOID_DOUBLINGS_MAX));
        self.avoid_until = Some(now + pause);
        self.failures += 1;
    }

    /// Whether others are preferred now.
    pub(super) fn is_avoided(&self, now: Instant) -> bool {
        !self.avoided_for(now).is_zero()
    }

    /// For how long yet.
    pub(super) fn avoided_for(&self, now: Instant) -> Duration {
        self.avoid_until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    /// What half of the writes did not exceed lately. `None` where nothing is known: too few, or a while ago.
    pub(super) fn latency(&self, now: Instant) -> Option<Duration> {
        let is_known = self.latest.len() >= LATEST_LEN_MIN
            && self.latest_at.is_some_and(|at| now.duration_since(at) < LATENCY_COUNTS);
        let mut sorted = self.latest.clone();
        is_known.then(|| *sorted.select_nth_unstable(self.latest.len() / 2).1)
    }

    /// What 99 of 100 writes did not exceed lately; a careful guess as long as there were only a few.
    pub(super) fn usual(&self) -> Duration {
        if self.latest.len() < LATEST_LEN_MIN {
            return USUAL_AT_FIRST;
        }
        let mut sorted = self.latest.clone();
        let at = (sorted.len() * 99 / 100).min(sorted.len() - 1);
        *sorted.select_nth_unstable(at).1
    }
}

/// Writes that are remembered: few enough that one slow disk counts, and forgets.
const LATEST_LEN: usize = 128;
/// With fewer than this, nothing is known.
const LATEST_LEN_MIN: usize = 16;
/// Taken for usual as long as nothing is known; three times this is waited for.
const USUAL_AT_FIRST: Duration = Duration::from_millis(700);
/// How long the latency of a server counts that is not written to: then it is tried again.
const LATENCY_COUNTS: Duration = Duration::from_secs(600);
/// A server that failed is avoided for this long (DESIGN §8: at most one seal per member set in 10 s), doubling.
const AVOID_FOR: Duration = Duration::from_secs(10);
/// Up to 10 min 40 s.
const AVOID_DOUBLINGS_MAX: u32 = 6;
/// After this long without a failure, the next one counts as the first.
const FORGET_AFTER: Duration = Duration::from_secs(1800);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_server_that_was_slow_and_is_not_written_to_is_tried_again() {
        let (mut health, now) = (Health::default(), Instant::now());
        assert_eq!(health.latency(now), None);
        (0..LATEST_LEN_MIN).for_each(|_| health.took(Duration::from_millis(80), now));
        assert_eq!(health.latency(now), Some(Duration::from_millis(80)));
        assert_eq!(health.latency(now + LATENCY_COUNTS), None);
    }

    #[test]
    fn what_is_usual_is_what_nearly_all_writes_took() {
        let (mut health, now) = (Health::default(), Instant::now());
        assert_eq!(health.usual(), USUAL_AT_FIRST);
        for _ in 0..126 {
            health.took(Duration::from_millis(4), now);
        }
        health.took(Duration::from_secs(3), now);
        assert_eq!(health.usual(), Duration::from_millis(4), "one of many does not count");
        for _ in 0..3 {
            health.took(Duration::from_secs(3), now);
        }
        assert_eq!(health.usual(), Duration::from_secs(3));
        for _ in 0..LATEST_LEN {
            health.took(Duration::from_millis(5), now);
        }
        assert_eq!(health.usual(), Duration::from_millis(5), "and is forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn who_fails_again_is_avoided_for_longer_and_who_does_well_is_forgiven() {
        let mut health = Health::default();
        let start = Instant::now();
        assert!(!health.is_avoided(start));
        health.fail(start);
        assert!(health.is_avoided(start + Duration::from_secs(9)));
        assert!(!health.is_avoided(start + Duration::from_secs(10)));
        health.fail(start + Duration::from_secs(11));
        assert!(health.is_avoided(start + Duration::from_secs(30)));
        assert!(!health.is_avoided(start + Duration::from_secs(31)));
        let later = start + Duration::from_secs(7200);
        health.fail(later);
        assert!(!health.is_avoided(later + Duration::from_secs(10)));
    }
}
