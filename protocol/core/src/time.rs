//! Promised times: wall-clock seconds and UTC days. Waiting is done with monotonic clocks; [`Now`] carries both.

use std::fmt;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Seconds since 1970-01-01 00:00 UTC. For promises (expiry, deletion day), never for measuring a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UnixTime(pub u64);

impl UnixTime {
    /// The wall clock now. Only shells call this; deciding code takes `now` as an argument.
    ///
    /// A clock before 1970 reads as 1970.
    pub fn now() -> Self {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Self(since.map_or(0, |elapsed| elapsed.as_secs()))
    }

    /// This time plus `duration` (whole seconds, saturating).
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration.as_secs()))
    }

    /// How long from `earlier` to this time; zero where `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_secs(self.0.saturating_sub(earlier.0))
    }

    /// The UTC day that this time is in.
    pub fn day(self) -> Day {
        Day(u32::try_from(self.0 / SECONDS_PER_DAY).unwrap_or(u32::MAX))
    }
}

impl fmt::Display for UnixTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The two clocks at one moment, as deciding code takes them: the wall for promises, the monotonic one for waits. A
/// wall clock that jumps delays no retry, and a laptop that slept through a wait finds it over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// For promises: expiry, dates of statements.
    pub wall: UnixTime,
    /// For waits: deadlines, backoff.
    pub instant: Instant,
}

impl Now {
    /// Both clocks now. Only shells call this.
    pub fn read() -> Self {
        Self { wall: UnixTime::now(), instant: Instant::now() }
    }

    /// Both clocks `duration` later: for tests and simulations.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self { wall: self.wall.plus(duration), instant: self.instant + duration }
    }
}

/// A UTC day: days since 1970-01-01. What expires on a day is gone at its end (DESIGN §3 rule 9).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Day(pub u32);

impl Day {
    /// The first second after this day: from here on, what was to be deleted on it is gone.
    pub fn end(self) -> UnixTime {
        UnixTime((u64::from(self.0) + 1) * SECONDS_PER_DAY)
    }

    /// The day `days` later (saturating).
    #[must_use]
    pub fn plus(self, days: u32) -> Self {
        Self(self.0.saturating_add(days))
    }
}

/// Seconds in a UTC day; leap seconds are not counted in Unix time.
const SECONDS_PER_DAY: u64 = 86_400;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_ends_when_the_next_one_starts() {
        assert_eq!(UnixTime(86_399).day(), Day(0));
        assert_eq!(Day(0).end(), UnixTime(86_400));
        assert_eq!(Day(0).end().day(), Day(1));
    }

    #[test]
    fn bad_input_37_times_at_the_end_of_their_range_saturate() {
        assert_eq!(UnixTime(u64::MAX).plus(Duration::from_secs(1)), UnixTime(u64::MAX));
        assert_eq!(UnixTime(5).since(UnixTime(9)), Duration::ZERO);
        assert_eq!(UnixTime(u64::MAX).day(), Day(u32::MAX));
        assert_eq!(Day(u32::MAX).plus(1), Day(u32::MAX));
        assert_eq!(Day(u32::MAX).end(), UnixTime((u64::from(u32::MAX) + 1) * 86_400));
        let year_2106 = UnixTime(u64::from(u32::MAX) + 1);
        assert_eq!(
            year_2106.day().end().since(year_2106),
            Duration::from_secs(86_400 - year_2106.0 % 86_400)
        );
    }
}
