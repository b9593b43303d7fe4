//! How much may be under way on UDP: Cubic, and where a line loses packets without being full, as much as that line carries.
//!
//! Cubic (RFC 9438) takes every loss for a full queue and sends less. On a line that loses one packet in a thousand for
//! other reasons (radio, a bad cable), at 100 ms, that leaves a twentieth of 100 Mbit/s. [`Adaptive`] begins as quinn's Cubic and
//! looks at each round trip ([`Round`]):
//!
//! 1. **Cubic**, until the [`Judge`] has seen several losses that no queue explains: the round trip took hardly longer than it does
//!    at its best, and less was under way than the line has carried before. Where a queue shows, Cubic stays: there it shares
//!    fairly with everybody else.
//! 2. **[`Steady`]**: what was delivered, and how long a round trip takes at its best, say how much the line holds (the model
//!    of BBR, draft-ietf-ccwg-bbr); so much is sent, whatever is lost of it.
//! 3. **Back to Cubic** ([`Leave`]) where that brought nothing, where a queue builds up and stays (somebody else wants the line, too),
//!    where more is lost than before, or where routers mark packets (ECN). The next try waits, longer each time.
//!
//! Why not quinn's own BBR for 2: it takes the rate from the distance of two packets, so that acknowledgements that come in
//! bunches make it far too large, and keeps twice the line's contents under way, which fills or overflows every queue (a
//! controller is asked for a window only; quinn's pacer does not ask for a rate). A sender that fills queues itself cannot
//! tell whether others do.
//!
//! All of it is decided by values that are told of packets and of the time; nothing in here has a clock.

mod judge;
mod rounds;
mod steady;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::congestion::{Controller, ControllerFactory, Cubic, CubicConfig};
use quinn_proto::RttEstimator;
use tracing::debug;

use crate::limits::LOSSY_WINDOW_MIN;
use judge::Judge;
use rounds::{Round, Rounds};
use steady::{Leave, Steady};

/// Makes a congestion control that is Cubic, except on lines that lose packets without being full.
#[derive(Debug, Default)]
pub(crate) struct AdaptiveConfig;

impl ControllerFactory for AdaptiveConfig {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(Adaptive::new(now, current_mtu))
    }
}

/// See the [module](self).
#[derive(Clone, Debug)]
struct Adaptive {
    mode: Mode,
    rounds: Rounds,
    judge: Judge,
    mtu: u16,
    initial_window: u64,
}

#[derive(Clone, Debug)]
enum Mode {
    Cubic(Cubic),
    Steady(Steady),
}

impl Adaptive {
    fn new(now: Instant, mtu: u16) -> Self {
        let cubic = Cubic::new(Arc::default(), now, mtu);
        let initial_window = cubic.initial_window();
        let mode = Mode::Cubic(cubic);
        Self { mode, rounds: Rounds::new(now), judge: Judge::default(), mtu, initial_window }
    }

    /// A round trip has ended, of which the best took `best`.
    fn handle_round(&mut self, now: Instant, round: &Round, best: Duration) {
        match &mut self.mode {
            Mode::Cubic(_) => {
                if let Some(before) = self.judge.handle_round(round, best) {
                    debug!(
                        ?best,
                        rate = before.rate,
                        loss = before.loss,
                        "the line loses without being full"
                    );
                    self.mode = Mode::Steady(Steady::new(before, best));
                }
            }
            Mode::Steady(steady) => {
                if let Some(reason) = steady.handle_round(round, best) {
                    self.leave(now, round.rate(), best, reason);
                }
            }
        }
    }

    /// Goes on as Cubic, from where it is: `rate` bytes a second.
    fn leave(&mut self, now: Instant, rate: u64, best: Duration, reason: Leave) {
        debug!(?reason, rate, "back to Cubic");
        self.judge.handle_leave();
        let mut config = CubicConfig::default();
        config.initial_window(steady::contents(rate, best).max(LOSSY_WINDOW_MIN));
        let mut cubic = Cubic::new(Arc::new(config), now, self.mtu);
        // As after a loss: no slow start, which would double what is under way on a line that is full.
        cubic.on_congestion_event(now, now, false, 0);
        self.mode = Mode::Cubic(cubic);
    }
}

impl Controller for Adaptive {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        if let Mode::Cubic(cubic) = &mut self.mode {
            cubic.on_sent(now, bytes, last_packet_number);
        }
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        self.rounds.handle_ack(now, sent, bytes, app_limited);
        if let Mode::Cubic(cubic) = &mut self.mode {
            cubic.on_ack(now, sent, bytes, app_limited, rtt);
        }
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, largest: Option<u64>) {
        if let Mode::Cubic(cubic) = &mut self.mode {
            cubic.on_end_acks(now, in_flight, app_limited, largest);
        }
        if let Some((round, best)) = self.rounds.end(now) {
            self.handle_round(now, &round, best);
        }
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, is_persistent: bool, lost: u64) {
        self.rounds.handle_loss(now, sent, lost, self.window());
        match &mut self.mode {
            Mode::Cubic(cubic) => cubic.on_congestion_event(now, sent, is_persistent, lost),
            // Nothing came through for long: what was known of the line counts no more.
            Mode::Steady(_) if is_persistent => {
                self.judge.handle_leave();
                self.mode = Mode::Cubic(Cubic::new(Arc::default(), now, self.mtu));
            }
            Mode::Steady(_) => {}
        }
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.mtu = new_mtu;
        if let Mode::Cubic(cubic) = &mut self.mode {
            cubic.on_mtu_update(new_mtu);
        }
    }

    fn window(&self) -> u64 {
        match &self.mode {
            Mode::Cubic(cubic) => cubic.window(),
            Mode::Steady(steady) => steady.window(),
        }
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        self.initial_window
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
