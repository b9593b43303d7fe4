//! What is tried when, to reach a relay: a value with no I/O; `now` is an argument.
//!
//! ```text
//!  0 ms    QUIC ─────────────────▶        what worked in this network last time goes first, otherwise the best;
//!  600       TLS on TCP ─────────▶        the next when the one before has failed, or 600 ms later
//!  1,200       WebSocket ────────▶
//! ```
//! The first that opens is used. Everything that was begun goes on beside it until then.

use std::collections::VecDeque;
use std::time::Instant;

use lighter_transport::Carrier;

use crate::limits::CARRIER_HEAD_START;

/// One try to reach a relay.
#[derive(Clone, Debug)]
pub struct Plan {
    waiting: VecDeque<Carrier>,
    next: Instant,
    running: Vec<Carrier>,
    failures: Vec<(Carrier, String)>,
}

impl Plan {
    /// A try that begins now, of those in `known`; `worked`: what worked in this network before.
    pub fn new(known: &[Carrier], worked: Option<Carrier>, now: Instant) -> Self {
        let mut carriers: Vec<_> =
            Carrier::ALL.into_iter().filter(|carrier| known.contains(carrier)).collect();
        carriers.sort_by_key(|carrier| (Some(*carrier) != worked, *carrier));
        Self { waiting: carriers.into(), next: now, running: Vec::new(), failures: Vec::new() }
    }

    /// What is to be begun now, if anything; call it until there is nothing more.
    pub fn poll(&mut self, now: Instant) -> Option<Carrier> {
        if self.next > now {
            return None;
        }
        let carrier = self.waiting.pop_front()?;
        self.next = now + CARRIER_HEAD_START;
        self.running.push(carrier);
        Some(carrier)
    }

    /// When to poll again at the latest; none where nothing more is to be begun.
    pub fn next_time(&self) -> Option<Instant> {
        (!self.waiting.is_empty()).then_some(self.next)
    }

    /// Something that was begun did not work.
    pub fn handle_failed(&mut self, carrier: Carrier, why: impl Into<String>, now: Instant) {
        let Some(position) = self.running.iter().position(|running| *running == carrier) else { return };
        self.running.swap_remove(position);
        self.failures.push((carrier, why.into()));
        self.next = now;
    }

    /// Whether nothing runs, and nothing is left to be tried.
    pub fn is_over(&self) -> bool {
        self.running.is_empty() && self.waiting.is_empty()
    }

    /// What did not work. What still runs did not answer in time.
    pub fn into_failures(mut self) -> Vec<(Carrier, String)> {
        let silent = self.running.drain(..).map(|carrier| (carrier, "no answer in time".to_owned()));
        self.failures.extend(silent);
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn polled(plan: &mut Plan, now: Instant) -> Vec<Carrier> {
        std::iter::from_fn(|| plan.poll(now)).collect()
    }

    #[test]
    fn each_has_a_head_start_before_the_next() {
        let now = Instant::now();
        let mut plan = Plan::new(&Carrier::ALL, None, now);
        assert_eq!(polled(&mut plan, now), [Carrier::Quic]);
        assert_eq!(plan.next_time(), Some(now + CARRIER_HEAD_START));
        let later = now + CARRIER_HEAD_START;
        assert_eq!(polled(&mut plan, later), [Carrier::Tcp]);
        // One that fails makes room for the next at once.
        plan.handle_failed(Carrier::Tcp, "refused", later);
        assert_eq!(polled(&mut plan, later), [Carrier::WebSocket]);
        assert!(plan.next_time().is_none() && !plan.is_over());
        plan.handle_failed(Carrier::WebSocket, "no such page", later);
        let failures = plan.into_failures();
        let tried: Vec<_> = failures.iter().map(|(carrier, _)| *carrier).collect();
        assert_eq!(tried, [Carrier::Tcp, Carrier::WebSocket, Carrier::Quic]);
    }

    #[test]
    fn what_worked_goes_first_and_what_is_not_known_is_not_tried() {
        let now = Instant::now();
        let all = now + 9 * CARRIER_HEAD_START;
        let order = |known: &[Carrier], worked| {
            let mut plan = Plan::new(known, worked, now);
            let mut order = Vec::new();
            let mut at = now;
            while at < all {
                order.extend(plan.poll(at));
                at += CARRIER_HEAD_START;
            }
            order
        };
        assert_eq!(
            order(&Carrier::ALL, Some(Carrier::WebSocket)),
            [Carrier::WebSocket, Carrier::Quic, Carrier::Tcp]
        );
        assert_eq!(order(&[Carrier::WebSocket], Some(Carrier::Tcp)), [Carrier::WebSocket]);
        assert!(Plan::new(&[], None, now).is_over());
    }
}
