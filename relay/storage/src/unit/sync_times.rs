//! How long a unit's last syncs took: for choosing the faster unit, and for noticing a disk that is getting slow.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::limits::SYNC_TIMES;

/// The times of the last syncs, a bounded number of them.
#[derive(Debug, Default)]
pub struct SyncTimes(Mutex<Ring>);

#[derive(Debug, Default)]
struct Ring {
    micros: Vec<u32>,
    next: usize,
}

impl SyncTimes {
    /// Adds one, in place of the oldest.
    pub(super) fn add(&self, time: Duration) {
        let micros = u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        let mut ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let next = ring.next;
        match ring.micros.get_mut(next) {
            Some(oldest) => *oldest = micros,
            None => ring.micros.push(micros),
        }
        ring.next = (next + 1) % SYNC_TIMES;
    }

    /// Microseconds that 99 in 100 of them stayed at or below; 0 where there was none.
    pub fn p99_us(&self) -> u32 {
        let mut micros = self.0.lock().unwrap_or_else(PoisonError::into_inner).micros.clone();
        micros.sort_unstable();
        let rank = (micros.len() * 99).div_ceil(100);
        rank.checked_sub(1).and_then(|index| micros.get(index)).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_of_the_last_hundred_does_not_count_and_old_ones_are_forgotten() {
        let times = SyncTimes::default();
        assert_eq!(times.p99_us(), 0);
        times.add(Duration::from_secs(9));
        assert_eq!(times.p99_us(), 9_000_000);
        (0..SYNC_TIMES as u64).for_each(|_| times.add(Duration::from_micros(300)));
        times.add(Duration::from_secs(9));
        assert_eq!(times.p99_us(), 300);
        times.add(Duration::MAX);
        assert_eq!(times.p99_us(), 9_000_000);
    }
}
