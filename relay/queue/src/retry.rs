//! When the next hop is tried again, and when it is given up on (RFC 5321 §4.5.4.1).

use std::time::Duration;

use lighter_protocol::UnixTime;
use rand::{Rng, RngExt};

use crate::limits::{GIVE_UP_AFTER, RETRY_FIRST, RETRY_MAX};

/// What comes after a try that the next hop did not take just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Another one.
    At(UnixTime),
    /// None: the sender is told.
    GiveUp,
}

impl Retry {
    /// After the `attempts`-th try, from 1, of something that was due first at `since`: twice as long each time, the
    /// upper half of each wait drawn, until `give_up_after`.
    pub fn after(
        attempts: u32,
        since: UnixTime,
        give_up_after: Option<Duration>,
        now: UnixTime,
        chance: &mut impl Rng,
    ) -> Self {
        if now.since(since) >= give_up_after.unwrap_or(GIVE_UP_AFTER) {
            return Self::GiveUp;
        }
        let doublings = attempts.saturating_sub(1).min(16);
        let longest = RETRY_FIRST.saturating_mul(1 << doublings).min(RETRY_MAX);
        let wait = longest.mul_f64(chance.random_range(0.5..=1.0));
        Self::At(now.plus(wait.max(Duration::from_secs(1))))
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn waits_grow_up_to_the_longest_and_end_with_giving_up() {
        let mut chance = StdRng::seed_from_u64(1);
        let since = UnixTime(1_000_000);
        let (mut now, mut attempts, mut last) = (since, 0, 0);
        loop {
            attempts += 1;
            match Retry::after(attempts, since, None, now, &mut chance) {
                Retry::At(next) => {
                    let wait = next.since(now);
                    assert!(wait >= RETRY_FIRST / 2 && wait <= RETRY_MAX);
                    assert!(wait.as_secs() >= last || wait >= RETRY_MAX / 2, "shorter than the one before");
                    last = wait.as_secs();
                    now = next;
                }
                Retry::GiveUp => break,
            }
        }
        assert!(now.since(since) >= GIVE_UP_AFTER && now.since(since) < GIVE_UP_AFTER + RETRY_MAX);
        assert!(attempts < 200, "{attempts} tries in five days");
    }
}
