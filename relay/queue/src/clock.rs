//! Whether the wall clock may be believed when something is to expire (DESIGN §3 rule 9).

use std::time::Duration;

use lighter_protocol::Now;

use crate::limits::{CLOCK_DOUBT, CLOCK_SETTLES};

/// Watches the wall clock beside the monotonic one. A jump stands all expiry still until the clock has gone right for
/// [`CLOCK_SETTLES`]; a clock set right again at once is believed at once.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Both clocks when they were last agreed on.
    base: Now,
    /// Since when the wall clock has gone on, right but elsewhere.
    moved: Option<Now>,
}

impl Clock {
    /// Believes the wall clock as it is now.
    pub fn new(now: Now) -> Self {
        Self { base: now, moved: None }
    }

    /// Whether the wall clock may be believed now. Asked regularly, it sees each jump.
    pub fn is_sound(&mut self, now: Now) -> bool {
        if disagreement(self.base, now) <= CLOCK_DOUBT {
            self.moved = None;
            return true;
        }
        match self.moved {
            Some(since) if disagreement(since, now) <= CLOCK_DOUBT => {
                if now.instant.saturating_duration_since(since.instant) < CLOCK_SETTLES {
                    return false;
                }
                *self = Self::new(now);
                true
            }
            _ => {
                self.moved = Some(now);
                false
            }
        }
    }
}

/// By how much the two clocks have gone apart since `then`.
fn disagreement(then: Now, now: Now) -> Duration {
    let monotonic = now.instant.saturating_duration_since(then.instant).as_secs();
    let expected = then.wall.0.saturating_add(monotonic);
    Duration::from_secs(expected.abs_diff(now.wall.0))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use lighter_protocol::UnixTime;

    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn start() -> Now {
        Now { wall: UnixTime(1_800_000_000), instant: Instant::now() }
    }

    fn jumped(now: Now, by: i64) -> Now {
        Now { wall: UnixTime(now.wall.0.saturating_add_signed(by)), ..now }
    }

    #[test]
    fn bad_input_37_a_clock_that_jumps_a_day_is_not_believed() {
        for by in [86_400, -86_400, 365 * 86_400] {
            let mut clock = Clock::new(start());
            let later = start().plus(Duration::from_secs(600));
            assert!(clock.is_sound(later));
            assert!(!clock.is_sound(jumped(later, by)));
            assert!(!clock.is_sound(jumped(later.plus(DAY / 2), by)), "half a day later, still");
            assert!(clock.is_sound(later.plus(DAY / 2)), "set right again");
        }
    }

    #[test]
    fn a_clock_that_goes_right_for_a_day_is_believed_again() {
        let mut clock = Clock::new(start());
        assert!(!clock.is_sound(jumped(start(), 86_400)));
        assert!(!clock.is_sound(jumped(start().plus(CLOCK_SETTLES / 2), 86_400)));
        assert!(clock.is_sound(jumped(start().plus(CLOCK_SETTLES), 86_400)));
        assert!(!clock.is_sound(start().plus(CLOCK_SETTLES)), "and a jump back is a jump");
    }

    #[test]
    fn a_clock_that_is_a_little_off_is_believed() {
        let mut clock = Clock::new(start());
        for minutes in 1..100 {
            let now = start().plus(Duration::from_secs(minutes * 60));
            assert!(clock.is_sound(jumped(now, 30)));
        }
    }
}
