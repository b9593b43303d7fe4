//! What is mapped, for how long, and when the router is asked next: a value with no I/O; `now` is an argument.
//!
//! ```text
//!  asked ── granted ──▶ asked again at half its life, at least every 15 min
//!                        (a router that was restarted has forgotten it)
//!        ── refused ──▶ asked again after 1 min, then twice as long each time, up to 1 h;
//!                        what was granted before counts until its life is over
//! ```

use std::net::{Ipv4Addr, SocketAddrV4};
use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use crate::limits::{PORT_RENEW_MAX, PORT_RENEW_MIN, PORT_RETRY_MAX, PORT_RETRY_MIN};

/// What is to be mapped, and by whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The store, in its own network.
    pub(super) host: SocketAddrV4,
    /// The router; none where it is not known.
    pub(super) router: Option<Ipv4Addr>,
}

/// A mapping, as whoever keeps it needs to know it.
pub(super) trait Mapping {
    /// The address outside.
    fn address(&self) -> SocketAddrV4;
}

/// What is mapped now.
#[derive(Debug)]
pub(super) struct Keeping<L> {
    place: Option<Place>,
    kept: Option<Kept<L>>,
    /// The port outside that there was last: asked for again, so that others' knowledge stays true.
    port: Option<NonZeroU16>,
    /// Refusals in a row, and why the last one was.
    refusals: u32,
    problem: Option<String>,
}

#[derive(Debug)]
struct Kept<L> {
    lease: L,
    /// When it was granted, and when it is over.
    since: Instant,
    until: Instant,
}

impl<L> Default for Keeping<L> {
    fn default() -> Self {
        Self { place: None, kept: None, port: None, refusals: 0, problem: None }
    }
}

impl<L: Mapping> Keeping<L> {
    /// The place that the mapping is of, if a router is in between.
    pub(super) fn place(&self) -> Option<Place> {
        self.place
    }

    /// The mapping, for the router that granted it.
    pub(super) fn lease(&self) -> Option<&L> {
        self.kept.as_ref().map(|kept| &kept.lease)
    }

    /// Why there is none.
    pub(super) fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// The port outside that is to be asked for.
    pub(super) fn port(&self) -> Option<NonZeroU16> {
        self.port.or_else(|| NonZeroU16::new(self.place?.host.port()))
    }

    /// The address outside that leads here now.
    pub(super) fn address(&self, now: Instant) -> Option<SocketAddrV4> {
        self.kept.as_ref().filter(|kept| now < kept.until).map(|kept| kept.lease.address())
    }

    /// The machine is here now: gives the mapping that is of another place, or is over.
    pub(super) fn handle_place(&mut self, place: Option<Place>, now: Instant) -> Option<L> {
        if self.place != place {
            let left = self.kept.take();
            *self = Self { place, ..Self::default() };
            return left.map(|kept| kept.lease);
        }
        let over = self.kept.take_if(|kept| kept.until <= now);
        over.map(|kept| kept.lease)
    }

    /// The router granted it, for so long.
    pub(super) fn handle_granted(&mut self, lease: L, lifetime: Duration, now: Instant) {
        self.port = NonZeroU16::new(lease.address().port());
        self.kept = Some(Kept { lease, since: now, until: now + lifetime });
        (self.refusals, self.problem) = (0, None);
    }

    /// The router did not grant it, or there was no answer.
    pub(super) fn handle_refused(&mut self, why: String, now: Instant) {
        self.refusals = self.refusals.saturating_add(1);
        self.kept.take_if(|kept| kept.until <= now);
        self.problem = Some(why);
    }

    /// When the router is to be asked again.
    pub(super) fn next_time(&self, now: Instant) -> Instant {
        match &self.kept {
            Some(kept) if self.refusals == 0 => {
                let half = (kept.until - kept.since) / 2;
                kept.since + half.clamp(PORT_RENEW_MIN, PORT_RENEW_MAX)
            }
            kept => {
                let doubled = PORT_RETRY_MIN * 2_u32.saturating_pow(self.refusals.saturating_sub(1).min(16));
                let retry = now + doubled.min(PORT_RETRY_MAX);
                kept.as_ref().map_or(retry, |kept| retry.min(kept.until.max(now + PORT_RENEW_MIN)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug)]
    struct Port(u16);

    impl Mapping for Port {
        fn address(&self) -> SocketAddrV4 {
            SocketAddrV4::new(Ipv4Addr::new(11, 0, 0, 9), self.0)
        }
    }

    const HOUR: Duration = Duration::from_hours(1);

    fn home(last: u8) -> Option<Place> {
        let host = SocketAddrV4::new(Ipv4Addr::new(192, 168, 1, last), 7_443);
        Some(Place { host, router: Some(Ipv4Addr::new(192, 168, 1, 1)) })
    }

    #[test]
    fn a_mapping_is_renewed_at_half_its_life_or_sooner_and_asks_for_the_same_port() {
        let (start, mut keeping) = (Instant::now(), Keeping::default());
        assert!(keeping.handle_place(home(2), start).is_none());
        assert_eq!(keeping.port(), NonZeroU16::new(7_443), "as inside, at first");
        keeping.handle_granted(Port(9_000), HOUR, start);
        assert_eq!(keeping.next_time(start), start + PORT_RENEW_MAX);
        keeping.handle_granted(Port(9_000), PORT_RENEW_MAX, start);
        assert_eq!(keeping.next_time(start), start + PORT_RENEW_MAX / 2);
        assert_eq!(keeping.port(), NonZeroU16::new(9_000));
    }

    #[test]
    fn what_was_granted_counts_until_its_life_is_over_though_the_router_does_not_answer_any_more() {
        let (start, mut keeping) = (Instant::now(), Keeping::default());
        keeping.handle_place(home(2), start);
        keeping.handle_granted(Port(9_000), HOUR, start);
        keeping.handle_refused("no answer".to_owned(), start + HOUR / 2);
        assert!(keeping.address(start + HOUR - Duration::from_secs(1)).is_some());
        assert_eq!(keeping.next_time(start + HOUR / 2), start + HOUR / 2 + PORT_RETRY_MIN);
        assert_eq!(keeping.address(start + HOUR), None);
        assert!(keeping.handle_place(home(2), start + HOUR).is_some(), "it is over");
        assert_eq!(keeping.port(), NonZeroU16::new(9_000), "and would be asked for again");
    }

    #[test]
    fn another_network_leaves_the_mapping_of_the_one_before() {
        let (start, mut keeping) = (Instant::now(), Keeping::default());
        keeping.handle_place(home(2), start);
        keeping.handle_granted(Port(9_000), HOUR, start);
        assert!(keeping.handle_place(home(2), start).is_none());
        assert!(keeping.handle_place(home(3), start).is_some());
        assert_eq!((keeping.address(start), keeping.port()), (None, NonZeroU16::new(7_443)));
        assert!(keeping.handle_place(None, start).is_none());
    }

    proptest! {
        #[test]
        fn the_router_is_never_asked_in_a_rush_and_never_left_alone_for_long(
            events in prop::collection::vec((any::<bool>(), 0_u64..8_000), 1..60)
        ) {
            let (mut now, mut keeping) = (Instant::now(), Keeping::default());
            keeping.handle_place(home(2), now);
            for (is_granted, lifetime) in events {
                if is_granted {
                    keeping.handle_granted(Port(9_000), Duration::from_secs(lifetime), now);
                } else {
                    keeping.handle_refused("no".to_owned(), now);
                }
                let next = keeping.next_time(now);
                prop_assert!(next >= now + PORT_RENEW_MIN, "{:?}", next - now);
                prop_assert!(next <= now + PORT_RETRY_MAX, "{:?}", next - now);
                now = next;
                keeping.handle_place(home(2), now);
            }
        }
    }
}
