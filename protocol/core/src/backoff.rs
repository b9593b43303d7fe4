//! How long to wait after a store that answered, and failed.
//!
//! Twice as long after each failure, up to [`BACKOFF_MAX`], with the upper half of each wait drawn: a relay that was
//! down does not call all its stores back in one second. Nothing waits so for a store that is simply offline: its
//! coming online makes its deliveries due (DESIGN §8).

use std::time::Duration;

use crate::limits::{BACKOFF_FIRST, BACKOFF_MAX};

/// The wait after the `failures`-th failure in a row, from 1. `seed` is the delivery's own number, drawn when it was
/// made: the same seed waits the same.
pub fn backoff(failures: u32, seed: u64) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let longest = BACKOFF_FIRST.saturating_mul(1 << doublings).min(BACKOFF_MAX);
    let half = longest / 2;
    half + half.mul_f64(unit_interval(seed, failures))
}

/// A number from 0 to 1 that `seed` and `turn` make: the same ones give the same.
fn unit_interval(seed: u64, turn: u32) -> f64 {
    // SplitMix64 (Steele, Lea, Flood 2014): one step of it is a good mixer, and no secret hangs on it.
    let mut x = seed.wrapping_add(u64::from(turn).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^= x >> 31;
    let top = u32::try_from(x >> 32).unwrap_or(u32::MAX);
    f64::from(top) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wait_is_longer_until_the_longest() {
        for seed in 0..100 {
            assert!(backoff(1, seed) <= BACKOFF_FIRST && backoff(1, seed) >= BACKOFF_FIRST / 2);
            for failures in 1..8 {
                assert!(backoff(failures + 1, seed) >= backoff(failures, seed));
            }
            for failures in [12, 100, u32::MAX] {
                let wait = backoff(failures, seed);
                assert!(wait <= BACKOFF_MAX && wait >= BACKOFF_MAX / 2);
            }
        }
    }

    #[test]
    fn deliveries_that_failed_together_do_not_come_back_together() {
        let mut waits: Vec<_> = (0..1_000).map(|seed| backoff(4, seed).as_millis()).collect();
        waits.sort_unstable();
        waits.dedup();
        assert!(waits.len() > 900);
    }
}
