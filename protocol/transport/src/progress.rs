//! Whether the other side of a transfer goes fast enough: a value that is told of waits and bytes.
//!
//! Only time spent waiting for the other side counts: a slow disk on this side is not held against it.

use std::time::Duration;

use crate::limits::{PROGRESS_LEN_MIN, PROGRESS_TIME, SILENCE_TIME_MAX};

/// The least that the other side must do.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Time without a single byte after which it is given up.
    pub silence: Duration,
    /// Each time that this long was spent waiting, …
    pub window: Duration,
    /// … at least so many bytes must have moved.
    pub window_len_min: u64,
}

impl Default for Pace {
    fn default() -> Self {
        Self { silence: SILENCE_TIME_MAX, window: PROGRESS_TIME, window_len_min: PROGRESS_LEN_MIN }
    }
}

/// The progress of one stream.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    pace: Pace,
    /// Since the window began: time spent waiting, and bytes that moved.
    waited: Duration,
    moved: u64,
}

impl Progress {
    pub(crate) fn new(pace: Pace) -> Self {
        Self { pace, waited: Duration::ZERO, moved: 0 }
    }

    /// How long the next byte may take.
    pub(crate) fn patience(&self) -> Duration {
        self.pace.silence
    }

    /// `len` bytes moved after a wait of `waited`. Says whether that is enough so far.
    #[must_use]
    pub(crate) fn moved(&mut self, len: usize, waited: Duration) -> bool {
        self.waited += waited;
        self.moved += len as u64;
        if self.waited < self.pace.window {
            return true;
        }
        let enough = self.moved >= self.pace.window_len_min;
        self.waited = Duration::ZERO;
        self.moved = 0;
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress() -> Progress {
        let pace =
            Pace { silence: Duration::from_secs(30), window: Duration::from_secs(60), window_len_min: 1_000 };
        Progress::new(pace)
    }

    #[test]
    fn bad_input_35_a_byte_a_second_is_too_slow_within_a_window() {
        let mut progress = progress();
        let seconds = (1..).take_while(|_| progress.moved(1, Duration::from_secs(1))).count();
        assert_eq!(seconds, 59);
    }

    #[test]
    fn the_least_rate_is_enough_for_ever() {
        let mut progress = progress();
        assert!((0..10_000).all(|_| progress.moved(17, Duration::from_secs(1))));
    }

    #[test]
    fn a_fast_window_does_not_pay_for_a_slow_one() {
        let mut progress = progress();
        assert!(progress.moved(1_000_000, Duration::from_secs(60)));
        assert!(!progress.moved(1, Duration::from_secs(60)));
    }
}
