//! How much may be under way in a tunnel: as much as does not wait in queues beneath it.
//!
//! The byte stream beneath loses nothing and has a congestion control of its own, so loss says nothing here. What says
//! something is delay: where a round trip takes longer than at its best, the difference was spent in queues (the system's,
//! those of proxies, of routers). The window grows while that is less than [`TUNNEL_DELAY_MAX`], the slower the nearer,
//! and shrinks beyond it, as LEDBAT does it (RFC 6817 §2.4.2); so a ping never waits long behind a large file.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::congestion::{Controller, ControllerFactory};
use quinn_proto::RttEstimator;

use crate::limits::{TUNNEL_BEST_RTT_TIME, TUNNEL_DELAY_MAX, TUNNEL_WINDOW_MAX, TUNNEL_WINDOW_MIN};

/// Makes [`Delay`]s.
#[derive(Debug, Default)]
pub(crate) struct DelayConfig;

impl ControllerFactory for DelayConfig {
    fn build(self: Arc<Self>, now: Instant, _current_mtu: u16) -> Box<dyn Controller> {
        Box::new(Delay::new(now))
    }
}

/// The window, and the best round trip that is known.
#[derive(Clone, Debug)]
struct Delay {
    window: u64,
    /// The best round trip of the time before, and of this one since it began.
    best_before: Option<Duration>,
    best: Option<Duration>,
    began: Instant,
    /// Whether the line has been full once: until then the window may double with each round trip.
    was_full: bool,
}

impl Delay {
    fn new(now: Instant) -> Self {
        Self { window: TUNNEL_WINDOW_MIN, best_before: None, best: None, began: now, was_full: false }
    }

    /// `bytes` arrived, after a round trip of `rtt`; `was_used`: they were all that the window let go.
    fn handle_ack(&mut self, now: Instant, bytes: u64, was_used: bool, rtt: Duration) {
        if now.saturating_duration_since(self.began) >= TUNNEL_BEST_RTT_TIME {
            (self.best_before, self.best, self.began) = (self.best, None, now);
        }
        self.best = Some(self.best.map_or(rtt, |best| best.min(rtt)));
        let best = self.best_before.into_iter().chain(self.best).min().unwrap_or(rtt);
        let waited = rtt.saturating_sub(best);
        if waited > TUNNEL_DELAY_MAX {
            self.was_full = true;
        } else if !was_used {
            return;
        }
        // In thousandths, from -1,000 (twice the delay, or more) to 1,000 (none).
        let delay = TUNNEL_DELAY_MAX.as_micros().max(1);
        let share = (waited.as_micros().min(2 * delay) * 1_000 / delay).min(2_000);
        let share = u64::try_from(share).unwrap_or(2_000);
        let gain = if self.was_full { 4 } else { 1 };
        self.window = if share <= 1_000 {
            self.window + bytes * (1_000 - share) / 1_000 / gain
        } else {
            self.window.saturating_sub(bytes * (share - 1_000) / 1_000 / gain)
        };
        self.window = self.window.clamp(TUNNEL_WINDOW_MIN, TUNNEL_WINDOW_MAX);
    }
}

impl Controller for Delay {
    fn on_ack(&mut self, now: Instant, _sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        self.handle_ack(now, bytes, !app_limited, rtt.get());
    }

    /// Nothing is lost in a byte stream; what seems so is late.
    fn on_congestion_event(&mut self, _now: Instant, _sent: Instant, _is_persistent: bool, _lost: u64) {}

    fn on_mtu_update(&mut self, _new_mtu: u16) {}

    fn window(&self) -> u64 {
        self.window
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        TUNNEL_WINDOW_MIN
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line of so many bytes a second with so much delay and a queue without end: what is in flight beyond what the line
    /// holds waits. Gives the windows and delays after each of so many round trips.
    fn run(bytes_per_s: u64, best: Duration, trips: u32) -> Vec<(u64, Duration)> {
        let mut now = Instant::now();
        let mut delay = Delay::new(now);
        let mut seen = Vec::new();
        for _ in 0..trips {
            let holds = bytes_per_s * u64::try_from(best.as_micros()).unwrap() / 1_000_000;
            let queued = delay.window.saturating_sub(holds);
            let waits = Duration::from_micros(queued * 1_000_000 / bytes_per_s);
            now += best + waits;
            let window = delay.window;
            for _ in 0..8 {
                delay.handle_ack(now, window / 8, true, best + waits);
            }
            seen.push((delay.window, waits));
        }
        seen
    }

    #[test]
    fn a_fast_line_is_filled_and_what_waits_for_a_slow_one_waits_before_the_queues() {
        for (bytes_per_s, best_ms) in
            [(12_500_000, 100_u64), (12_500_000, 5), (1_250_000, 30), (125_000_000, 50), (2_500_000, 250)]
        {
            let best = Duration::from_millis(best_ms);
            let seen = run(bytes_per_s, best, 200);
            let holds = bytes_per_s * best_ms / 1_000;
            for (window, waits) in &seen[100..] {
                let least = holds.min(TUNNEL_WINDOW_MAX) * 8 / 10;
                assert!(*window >= least, "{bytes_per_s} B/s, {best_ms} ms: a window of {window}");
                let most = TUNNEL_DELAY_MAX.mul_f64(1.6)
                    + Duration::from_micros(TUNNEL_WINDOW_MIN * 1_000_000 / bytes_per_s);
                assert!(*waits <= most, "{bytes_per_s} B/s, {best_ms} ms: {waits:?}");
            }
        }
    }

    #[test]
    fn what_is_not_used_does_not_grow_and_the_best_round_trip_is_measured_anew() {
        let mut now = Instant::now();
        let mut delay = Delay::new(now);
        let (near, far) = (Duration::from_millis(10), Duration::from_millis(300));
        delay.handle_ack(now, 1_000_000, false, near);
        assert_eq!(delay.window, TUNNEL_WINDOW_MIN);
        delay.handle_ack(now, 1_000_000, true, near);
        let before = delay.window;
        delay.handle_ack(now, 100_000, true, far);
        assert!(delay.window < before);
        // The way has become longer for good: two periods later that is its best.
        for _ in 0..3 {
            now += TUNNEL_BEST_RTT_TIME;
            delay.handle_ack(now, 100_000, true, far);
        }
        let before = delay.window;
        delay.handle_ack(now, 100_000, true, far);
        assert!(delay.window > before);
    }
}
