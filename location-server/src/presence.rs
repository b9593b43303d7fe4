//! Whether each store can be reached now: a value with no I/O (SPEC A13, A14).
//!
//! It lives in memory only. After a restart every store is `unknown` until it pings again, and unknown means 'ping the
//! store', never 'send whole' (DESIGN §7). Events come out in the order in which they happened.
//!
//! Deadlines: a heap with at most one entry for each store. A ping only moves the store's own deadline, in O(1); when
//! the heap's entry comes up and the deadline has moved, the entry goes back in at the new one. So a store costs
//! O(log n) once in a TTL, however often it pings.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::{Duration, Instant};

use lighter_protocol::UnixTime;
use lighter_protocol::time::Now;
use lighter_transport::location::Presence;

use crate::directory::StoreId;
use crate::limits::TIMEOUTS_PER_STEP_MAX;

/// A store's presence changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PresenceChange {
    /// Which store's.
    pub store: StoreId,
    /// What it is now.
    pub presence: Presence,
}

/// The presence of all stores.
#[derive(Debug)]
pub struct Presences {
    ttl: Duration,
    /// When this value was made: since when `unknown` is known.
    started: UnixTime,
    /// By [`StoreId`]; one that is not here, or forgotten, is unknown.
    stores: Vec<State>,
    /// Invariant: `queued` of exactly the stores in it is true.
    deadlines: BinaryHeap<Reverse<(Instant, StoreId)>>,
    changes: VecDeque<PresenceChange>,
    online: usize,
}

#[derive(Clone, Copy, Debug)]
struct State {
    presence: Presence,
    since: UnixTime,
    /// While online: when it goes offline unless it pings.
    deadline: Option<Instant>,
    queued: bool,
}

impl Presences {
    /// All unknown. A store that has not pinged for `ttl` goes offline.
    pub fn new(ttl: Duration, now: Now) -> Self {
        let stores = Vec::new();
        let deadlines = BinaryHeap::new();
        Self { ttl, started: now.wall, stores, deadlines, changes: VecDeque::new(), online: 0 }
    }

    /// The store pinged, or registered: it is online, for another TTL.
    pub fn handle_ping(&mut self, store: StoreId, now: Now) {
        let deadline = now.instant + self.ttl;
        let state = self.state_mut(store);
        state.deadline = Some(deadline);
        let queue = !std::mem::replace(&mut state.queued, true);
        if queue {
            self.deadlines.push(Reverse((deadline, store)));
        }
        self.change(store, Presence::Online, now.wall);
    }

    /// The store said that it goes.
    pub fn handle_offline(&mut self, store: StoreId, now: Now) {
        self.change(store, Presence::Offline, now.wall);
    }

    /// The store is no longer enrolled.
    pub fn forget(&mut self, store: StoreId, now: Now) {
        self.change(store, Presence::Offline, now.wall);
        let started = self.started;
        let state = self.state_mut(store);
        (state.presence, state.since) = (Presence::Unknown, started);
    }

    /// Time has passed. Handles a bounded number of stores: where [`Presences::poll_timeout`] is still due, call again.
    pub fn handle_timeout(&mut self, now: Now) {
        for _ in 0..TIMEOUTS_PER_STEP_MAX {
            match self.deadlines.peek() {
                Some(Reverse((due, _))) if *due <= now.instant => {}
                _ => return,
            }
            let Some(Reverse((_, store))) = self.deadlines.pop() else { return };
            let state = self.state_mut(store);
            match state.deadline {
                Some(deadline) if deadline > now.instant => {
                    self.deadlines.push(Reverse((deadline, store)));
                }
                Some(_) => {
                    state.queued = false;
                    self.change(store, Presence::Offline, now.wall);
                }
                None => state.queued = false,
            }
        }
    }

    /// When to call [`Presences::handle_timeout`] next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.peek().map(|Reverse((due, _))| *due)
    }

    /// What changed, in order; take all after each call that changes something.
    pub fn poll_change(&mut self) -> Option<PresenceChange> {
        self.changes.pop_front()
    }

    /// A store's presence, and since when it is known.
    pub fn get(&self, store: StoreId) -> (Presence, UnixTime) {
        match self.stores.get(store.index()) {
            Some(state) => (state.presence, state.since),
            None => (Presence::Unknown, self.started),
        }
    }

    /// How many stores are online.
    pub fn online(&self) -> usize {
        self.online
    }

    fn change(&mut self, store: StoreId, presence: Presence, since: UnixTime) {
        let state = self.state_mut(store);
        let before = std::mem::replace(&mut state.presence, presence);
        if presence != Presence::Online {
            state.deadline = None;
        }
        if before == presence {
            return;
        }
        state.since = since;
        match (before, presence) {
            (_, Presence::Online) => self.online += 1,
            (Presence::Online, _) => self.online -= 1,
            _ => {}
        }
        self.changes.push_back(PresenceChange { store, presence });
    }

    fn state_mut(&mut self, store: StoreId) -> &mut State {
        let unknown =
            State { presence: Presence::Unknown, since: self.started, deadline: None, queued: false };
        if self.stores.len() <= store.index() {
            self.stores.resize(store.index() + 1, unknown);
        }
        &mut self.stores[store.index()]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TTL_S: u64 = 150;
    const ALICE: StoreId = StoreId::new(0);
    const BOB: StoreId = StoreId::new(1);

    fn start() -> Now {
        Now { instant: Instant::now(), wall: UnixTime(1_000_000) }
    }

    fn after(now: Now, seconds: u64) -> Now {
        now.plus(Duration::from_secs(seconds))
    }

    fn presences(now: Now) -> Presences {
        Presences::new(Duration::from_secs(TTL_S), now)
    }

    fn changes(presences: &mut Presences) -> Vec<(StoreId, Presence)> {
        std::iter::from_fn(|| presences.poll_change()).map(|change| (change.store, change.presence)).collect()
    }

    #[test]
    fn a_store_is_unknown_until_it_pings() {
        let now = start();
        assert_eq!(presences(now).get(ALICE), (Presence::Unknown, now.wall));
    }

    #[test]
    fn a_store_that_pings_in_time_stays_online_and_says_so_once() {
        let now = start();
        let mut presences = presences(now);
        for minute in 0..60 {
            presences.handle_timeout(after(now, minute * 60));
            presences.handle_ping(ALICE, after(now, minute * 60));
        }
        assert_eq!(changes(&mut presences), [(ALICE, Presence::Online)]);
        assert_eq!(presences.get(ALICE), (Presence::Online, now.wall));
        assert_eq!(presences.deadlines.len(), 1);
    }

    #[test]
    fn a_store_that_has_not_pinged_for_the_ttl_counts_as_unavailable() {
        // SPEC: A14
        let now = start();
        let mut presences = presences(now);
        presences.handle_ping(ALICE, now);
        presences.handle_timeout(after(now, TTL_S - 1));
        assert_eq!(presences.get(ALICE).0, Presence::Online);
        assert_eq!(presences.poll_timeout(), Some(after(now, TTL_S).instant));
        presences.handle_timeout(after(now, TTL_S));
        assert_eq!(presences.get(ALICE), (Presence::Offline, after(now, TTL_S).wall));
        assert_eq!(changes(&mut presences), [(ALICE, Presence::Online), (ALICE, Presence::Offline)]);
        assert_eq!((presences.poll_timeout(), presences.online()), (None, 0));
    }

    #[test]
    fn a_store_that_goes_and_comes_back_at_once_is_not_timed_out_early() {
        // SPEC: A13
        let now = start();
        let mut presences = presences(now);
        presences.handle_ping(ALICE, now);
        presences.handle_offline(ALICE, after(now, 10));
        presences.handle_ping(ALICE, after(now, 20));
        presences.handle_timeout(after(now, TTL_S));
        assert_eq!(presences.get(ALICE).0, Presence::Online);
        presences.handle_timeout(after(now, 20 + TTL_S));
        assert_eq!(presences.get(ALICE).0, Presence::Offline);
    }

    #[test]
    fn one_step_handles_a_bounded_number_and_says_that_more_are_due() {
        let now = start();
        let mut presences = presences(now);
        let stores = u32::try_from(TIMEOUTS_PER_STEP_MAX).unwrap() + 1;
        for store in 0..stores {
            presences.handle_ping(StoreId::new(store), now);
        }
        let later = after(now, TTL_S);
        presences.handle_timeout(later);
        assert_eq!(presences.online(), 1);
        assert!(presences.poll_timeout().is_some_and(|due| due <= later.instant));
    }

    #[test]
    fn a_forgotten_store_goes_offline_for_those_who_watch() {
        let now = start();
        let mut presences = presences(now);
        presences.handle_ping(BOB, now);
        presences.forget(BOB, after(now, 1));
        assert_eq!(changes(&mut presences), [(BOB, Presence::Online), (BOB, Presence::Offline)]);
        assert_eq!(presences.get(BOB).0, Presence::Unknown);
    }

    proptest! {
        /// The reference: for each store, when it last pinged since it last said offline.
        #[test]
        fn presence_is_what_the_last_ping_says(steps in prop::collection::vec((0_u32..4, 0_u8..3, 0_u64..100), 1..200)) {
            let mut now = start();
            let mut presences = presences(now);
            let mut reference = [None::<Option<Now>>; 4];
            for (store, action, wait_s) in steps {
                now = after(now, wait_s);
                presences.handle_timeout(now);
                match action {
                    0 => {
                        presences.handle_ping(StoreId::new(store), now);
                        reference[store as usize] = Some(Some(now));
                    }
                    1 => {
                        presences.handle_offline(StoreId::new(store), now);
                        reference[store as usize] = Some(None);
                    }
                    _ => {}
                }
                let mut online = 0;
                for (store, pinged) in reference.iter().enumerate() {
                    let expected = match pinged {
                        None => Presence::Unknown,
                        Some(Some(at)) if now.instant - at.instant < Duration::from_secs(TTL_S) => Presence::Online,
                        Some(_) => Presence::Offline,
                    };
                    online += usize::from(expected == Presence::Online);
                    let store = StoreId::new(u32::try_from(store).unwrap());
                    prop_assert_eq!(presences.get(store).0, expected);
                }
                prop_assert_eq!(presences.online(), online);
                prop_assert!(presences.deadlines.len() <= 4);
            }
        }
    }
}
