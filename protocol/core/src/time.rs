//! Promised times: wall-clock seconds and UTC days. Waiting is done with monotonic clocks, in the shells.

use std::fmt;
use std::time::Duration;

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
