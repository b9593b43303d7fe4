//! What waits for stores: which deliveries are offered now, to whom, and which stores are looked for.
//!
//! A mailbox has a [`Line`] here while its store has a session, or is being looked for; otherwise its deliveries are
//! rows of the catalog, and cost nothing. A line keeps a window of deliveries on offer, each a
//! [`lighter_protocol::offer::Offering`], and asks for the next page when there is room. What is offered is told apart
//! by delivery, so nothing is offered twice at once; what falls out of memory is found again by the next session, the
//! next commit, or the sweep.
//!
//! Timers run only for what a store answered: offers, pulls, backoffs; for the sweep while there are sessions; and
//! for the pings of stores that may be there (SPEC A18). A store that is offline has none.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use lighter_protocol::offer::{Command as Step, Delivery, Offering, State};
use lighter_protocol::wire::{Offer, Response};
use lighter_protocol::{DeliveryId, Mailbox, Now, PeerId, UnixTime};
use rand::{Rng, RngExt};

use crate::limits::{
    LINES_MAX, ONLINE_HEAD_START, PAGE_LEN, PARKED_MAX, PING_INTERVAL, PROBES_MAX, REFUSED_MAX,
    SWEEP_INTERVAL, WINDOW,
};

/// What the location server says of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It can be reached.
    Online,
    /// It said that it goes, or was not heard of.
    Offline,
    /// The location server does not know: the store itself is asked (DESIGN §7).
    Unknown,
}

/// Where in the line of what waits for a mailbox: when the message came in, and which delivery.
pub type Cursor = (UnixTime, DeliveryId);

/// What came of looking for a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probed {
    /// It answered; its session is told by [`Deliveries::handle_session`].
    Reached,
    /// It did not.
    Unreachable,
    /// It was not looked for, since nothing waits for it, or there is no such store any more.
    Needless,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Ask the catalog for what waits for a mailbox, and hand it to [`Deliveries::handle_page`].
    Fetch {
        /// Whose.
        mailbox: Mailbox,
        /// Behind this one. None: from the beginning.
        after: Option<Cursor>,
        /// Deliveries at most.
        count_max: usize,
    },
    /// Send an offer on the store's session, and hand the response to [`Deliveries::handle_response`].
    Offer {
        /// On which session.
        session: u64,
        /// What to say.
        offer: Box<Offer>,
    },
    /// Where something waits for this mailbox: look its store up, connect, ping it; then [`Deliveries::handle_probed`].
    Probe {
        /// Whose store.
        mailbox: Mailbox,
    },
    /// Ask the catalog for whom something waits, and the location server about them; then
    /// [`Deliveries::handle_mailboxes`].
    FetchMailboxes {
        /// Behind this one. None: from the beginning.
        after: Option<Mailbox>,
    },
}

/// The scheduler of deliveries.
#[derive(Debug)]
pub struct Deliveries {
    lines: BTreeMap<Mailbox, Line>,
    active: BTreeMap<DeliveryId, Active>,
    timers: BTreeSet<(Instant, Timer)>,
    commands: VecDeque<Command>,
    sessions: usize,
    ping_interval: Duration,
    /// Whether presence is told of by nobody: then whom to ping is found in the catalog.
    presence_lost: bool,
}

/// One mailbox whose store is there, or looked for.
#[derive(Debug, Default)]
struct Line {
    session: Option<Session>,
    probe: Option<Probe>,
}

/// A store's session.
#[derive(Debug)]
struct Session {
    number: u64,
    store: PeerId,
    scan: Scan,
    /// Of this mailbox, whatever their state.
    active: BTreeSet<DeliveryId>,
    /// Those among them that wait for their backoff.
    parked: usize,
    /// Those among them whose backoff is over, in the order that it was.
    ripe: VecDeque<DeliveryId>,
    refused: BTreeSet<DeliveryId>,
}

/// How far a session is in what waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scan {
    /// All of it was looked at.
    Done,
    /// What is behind here was not yet.
    From(Option<Cursor>),
    /// The catalog is being asked, and perhaps again from the beginning afterwards.
    Running { again: bool },
}

/// A store that may be there.
#[derive(Debug)]
struct Probe {
    presence: Presence,
    failures: u32,
    /// None: it is being tried.
    at: Option<Instant>,
}

#[derive(Debug)]
struct Active {
    offering: Offering,
    timer: Option<Instant>,
}

/// What a timer is for. One enum, one set, one loop.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Offering(DeliveryId),
    Probe(Mailbox),
    Sweep,
    Mailboxes,
}

impl Deliveries {
    /// A scheduler that knows of nothing. `ping_interval`: how often stores are pinged whose presence is not known;
    /// None: [`PING_INTERVAL`].
    pub fn new(ping_interval: Option<Duration>) -> Self {
        Self {
            lines: BTreeMap::new(),
            active: BTreeMap::new(),
            timers: BTreeSet::new(),
            commands: VecDeque::new(),
            sessions: 0,
            ping_interval: ping_interval.unwrap_or(PING_INTERVAL),
            presence_lost: false,
        }
    }

    /// The store of a mailbox, one whose receipts release, has a session: everything that waits for it is due now. A
    /// session of the same mailbox before is over.
    pub fn handle_session(&mut self, mailbox: &Mailbox, store: PeerId, session: u64, now: Now) {
        self.end_session(mailbox);
        self.stop_probe(mailbox);
        let (active, refused) = (BTreeSet::new(), BTreeSet::new());
        let scan = Scan::From(None);
        let line = self.lines.entry(mailbox.clone()).or_default();
        line.session =
            Some(Session { number: session, store, scan, active, parked: 0, ripe: VecDeque::new(), refused });
        self.sessions += 1;
        if self.sessions == 1 {
            self.timers.insert((now.instant + SWEEP_INTERVAL, Timer::Sweep));
        }
        self.pump(mailbox, now);
    }

    /// A session is over. Gives whether it was the mailbox's current one.
    pub fn handle_session_closed(&mut self, mailbox: &Mailbox, session: u64) -> bool {
        let current = self.lines.get(mailbox).and_then(|line| line.session.as_ref());
        let was_current = current.is_some_and(|current| current.number == session);
        if was_current {
            self.end_session(mailbox);
            self.forget_if_idle(mailbox);
        }
        was_current
    }

    /// The location server said something about a store. Without a session, one that may be there is looked for.
    pub fn handle_presence(
        &mut self,
        mailbox: &Mailbox,
        presence: Presence,
        now: Now,
        chance: &mut impl Rng,
    ) {
        if self.lines.get(mailbox).is_some_and(|line| line.session.is_some()) {
            return; // its connection says more
        }
        self.stop_probe(mailbox);
        match presence {
            Presence::Offline => self.forget_if_idle(mailbox),
            Presence::Online => self.probe(mailbox, presence, now.instant + ONLINE_HEAD_START),
            // Spread: a location server that restarts knows of nobody.
            Presence::Unknown => {
                let wait = self.ping_interval.mul_f64(chance.random_range(0.0..=1.0));
                self.probe(mailbox, presence, now.instant + wait);
            }
        }
    }

    /// Presence is told from now on (all before is not known: everybody for whom something waits is asked about), or it
    /// is told no more (then they are asked about at the ping interval).
    pub fn handle_presence_stream(&mut self, live: bool, now: Now) {
        self.presence_lost = !live;
        self.timers.retain(|(_, timer)| *timer != Timer::Mailboxes);
        if live {
            self.commands.push_back(Command::FetchMailboxes { after: None });
        } else {
            self.timers.insert((now.instant + self.ping_interval, Timer::Mailboxes));
        }
    }

    /// Commits were not told, since there were too many: everything is looked at again.
    pub fn handle_overrun(&mut self, now: Now) {
        self.timers.retain(|(_, timer)| *timer != Timer::Sweep);
        self.sweep(now);
        self.commands.push_back(Command::FetchMailboxes { after: None });
    }

    /// A message with a delivery for this mailbox is durable. `presence`: what was said when its store was looked up.
    pub fn handle_committed(&mut self, mailbox: &Mailbox, presence: Presence, now: Now) {
        match self.lines.get_mut(mailbox) {
            Some(Line { session: Some(session), .. }) => {
                session.look_again();
                self.pump(mailbox, now);
            }
            Some(Line { probe: Some(_), .. }) => {}
            _ if presence == Presence::Offline => {}
            _ => self.probe(mailbox, presence, now.instant),
        }
    }

    /// Something waits for this mailbox that another relay has seen to: of interest where its store has a session here.
    pub fn handle_waiting(&mut self, mailbox: &Mailbox, now: Now) {
        if let Some(session) = self.session(mailbox) {
            session.look_again();
            self.pump(mailbox, now);
        }
    }

    /// What the catalog said to a [`Command::Fetch`], and whether there is more behind it.
    pub fn handle_page(
        &mut self,
        mailbox: &Mailbox,
        page: Vec<(Cursor, Delivery)>,
        more: bool,
        now: Now,
        chance: &mut impl Rng,
    ) {
        let Some(session) = self.session(mailbox) else { return };
        let Scan::Running { again } = session.scan else { return };
        let store = session.store;
        let mut rest = if more { page.last().map(|(cursor, _)| Scan::From(Some(*cursor))) } else { None };
        let mut last = None;
        for (cursor, delivery) in page {
            let Some(session) = self.session(mailbox) else { return };
            if session.active.contains(&delivery.id) || session.refused.contains(&delivery.id) {
                last = Some(cursor);
                continue;
            }
            if !session.has_room() {
                rest = Some(Scan::From(last));
                break;
            }
            last = Some(cursor);
            let id = delivery.id;
            session.active.insert(id);
            let offering = Offering::new(delivery, None, chance.random());
            self.active.insert(id, Active { offering, timer: None });
            self.step(&id, now, |offering| offering.handle_online(store, now));
        }
        if let Some(session) = self.session(mailbox) {
            session.scan = if again { Scan::From(None) } else { rest.unwrap_or(Scan::Done) };
        }
        self.pump(mailbox, now);
    }

    /// The catalog could not be asked: the sweep asks again.
    pub fn handle_page_lost(&mut self, mailbox: &Mailbox) {
        if let Some(session) = self.session(mailbox) {
            session.scan = Scan::Done;
        }
    }

    /// The store answered an offer.
    pub fn handle_response(&mut self, delivery: &DeliveryId, response: &Response, now: Now) {
        self.step(delivery, now, |offering| offering.handle_response(response, now));
    }

    /// An offer, or a stream of the pull, broke, while the session lives.
    pub fn handle_lost(&mut self, delivery: &DeliveryId, now: Now) {
        self.step(delivery, now, |offering| offering.handle_lost(now));
    }

    /// The store pulls something of a delivery.
    pub fn handle_progress(&mut self, delivery: &DeliveryId, now: Now) {
        self.step(delivery, now, |offering| offering.handle_progress(now));
    }

    /// A delivery is receipted, durably, or ended otherwise: it is offered no more.
    pub fn handle_ended(&mut self, delivery: &DeliveryId, now: Now) {
        if let Some(mailbox) = self.remove(delivery) {
            self.pump(&mailbox, now);
        }
    }

    /// What came of a [`Command::Probe`].
    pub fn handle_probed(&mut self, mailbox: &Mailbox, probed: Probed, now: Now, chance: &mut impl Rng) {
        let interval = self.ping_interval;
        let Some(Line { probe: Some(probe), .. }) = self.lines.get_mut(mailbox) else { return };
        if probe.at.is_some() {
            return; // of a probe before
        }
        probe.failures = probe.failures.saturating_add(1);
        let over = probed != Probed::Unreachable
            || (probe.presence == Presence::Online && probe.failures >= PROBES_MAX);
        if over {
            self.stop_probe(mailbox);
            self.forget_if_idle(mailbox);
            return;
        }
        // Said to be there: soon, then later and later. Not known: at the set interval. Neither with all the others.
        let first = match probe.presence {
            Presence::Online => (interval / 32).saturating_mul(1 << probe.failures.min(5)),
            _ => interval,
        };
        let at = now.instant + first.min(interval).mul_f64(chance.random_range(0.8..=1.2));
        probe.at = Some(at);
        self.timers.insert((at, Timer::Probe(mailbox.clone())));
    }

    /// For whom something waits, and what is said of their stores.
    pub fn handle_mailboxes(
        &mut self,
        page: &[(Mailbox, Presence)],
        more: bool,
        now: Now,
        chance: &mut impl Rng,
    ) {
        for (mailbox, presence) in page {
            if !self.lines.contains_key(mailbox) {
                self.handle_presence(mailbox, *presence, now, chance);
            }
        }
        if let Some((last, _)) = page.last()
            && more
        {
            self.commands.push_back(Command::FetchMailboxes { after: Some(last.clone()) });
        }
    }

    /// Time has passed.
    pub fn handle_time(&mut self, now: Now) {
        while let Some((at, timer)) = self.timers.first().cloned() {
            if at > now.instant {
                return;
            }
            self.timers.pop_first();
            match timer {
                Timer::Offering(id) => {
                    self.handle_timer(&id, now);
                }
                Timer::Probe(mailbox) => {
                    if let Some(Line { probe: Some(probe), .. }) = self.lines.get_mut(&mailbox) {
                        probe.at = None;
                        self.commands.push_back(Command::Probe { mailbox });
                    }
                }
                Timer::Sweep => self.sweep(now),
                Timer::Mailboxes => {
                    self.commands.push_back(Command::FetchMailboxes { after: None });
                    self.timers.insert((now.instant + self.ping_interval, Timer::Mailboxes));
                }
            }
        }
    }

    /// What is to be done next.
    pub fn poll(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// When to call [`Self::handle_time`]. None: nothing waits for time.
    pub fn next_time(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Sessions, and deliveries that are offered or pulled: for status and metrics.
    pub fn counts(&self) -> (usize, usize) {
        (self.sessions, self.active.len())
    }

    /// The time of an offering has come. One whose backoff is over waits for room like the others.
    fn handle_timer(&mut self, id: &DeliveryId, now: Now) {
        let Some(active) = self.active.get_mut(id) else { return };
        active.timer = None;
        if is_parked(&active.offering) {
            let mailbox = active.offering.delivery().mailbox.clone();
            if let Some(session) = self.session(&mailbox) {
                session.ripe.push_back(*id);
            }
            self.pump(&mailbox, now);
        } else {
            self.step(id, now, |offering| offering.handle_time(now));
        }
    }

    fn sweep(&mut self, now: Now) {
        let mut with_session = Vec::new();
        for (mailbox, line) in &mut self.lines {
            if let Some(session) = &mut line.session {
                session.look_again();
                with_session.push(mailbox.clone());
            }
        }
        if !with_session.is_empty() {
            self.timers.insert((now.instant + SWEEP_INTERVAL, Timer::Sweep));
        }
        for mailbox in with_session {
            self.pump(&mailbox, now);
        }
    }

    /// Asks for more where there is room for it.
    fn pump(&mut self, mailbox: &Mailbox, now: Now) {
        let Some(session) = self.session(mailbox) else { return };
        if session.has_room()
            && let Some(ripe) = session.ripe.pop_front()
        {
            // Takes the room, or leaves it: either way it comes back here.
            self.step(&ripe, now, |offering| offering.handle_time(now));
            return;
        }
        let Scan::From(after) = session.scan else { return };
        if session.has_room() {
            session.scan = Scan::Running { again: false };
            let mailbox = mailbox.clone();
            self.commands.push_back(Command::Fetch { mailbox, after, count_max: PAGE_LEN });
        }
    }

    /// Takes one delivery a step on.
    fn step(&mut self, id: &DeliveryId, now: Now, step: impl FnOnce(&mut Offering) -> Step) {
        let Some(active) = self.active.get_mut(id) else { return };
        let was_parked = is_parked(&active.offering);
        let said = step(&mut active.offering);
        let parked = is_parked(&active.offering);
        let mailbox = active.offering.delivery().mailbox.clone();
        self.set_timer(id);
        let Some(session) = self.session(&mailbox) else { return };
        session.parked = session.parked + usize::from(parked) - usize::from(was_parked);
        match said {
            Step::SendOffer { offer, .. } => {
                let session = session.number;
                self.commands.push_back(Command::Offer { session, offer });
            }
            Step::GiveUp(_) => {
                if session.refused.len() < REFUSED_MAX {
                    session.refused.insert(*id);
                }
                self.remove(id);
            }
            _ if parked && session.parked > PARKED_MAX => {
                self.remove(id);
            }
            _ => {}
        }
        self.pump(&mailbox, now);
    }

    fn set_timer(&mut self, id: &DeliveryId) {
        let Some(active) = self.active.get_mut(id) else { return };
        let at = active.offering.deadline();
        if at != active.timer {
            if let Some(before) = std::mem::replace(&mut active.timer, at) {
                self.timers.remove(&(before, Timer::Offering(*id)));
            }
            self.timers.extend(at.map(|at| (at, Timer::Offering(*id))));
        }
    }

    /// Forgets a delivery; its mailbox, where it was known.
    fn remove(&mut self, id: &DeliveryId) -> Option<Mailbox> {
        let active = self.active.remove(id)?;
        if let Some(at) = active.timer {
            self.timers.remove(&(at, Timer::Offering(*id)));
        }
        let mailbox = active.offering.delivery().mailbox.clone();
        if let Some(session) = self.session(&mailbox) {
            session.active.remove(id);
            session.ripe.retain(|ripe| ripe != id);
            session.parked -= usize::from(is_parked(&active.offering));
        }
        Some(mailbox)
    }

    fn session(&mut self, mailbox: &Mailbox) -> Option<&mut Session> {
        self.lines.get_mut(mailbox)?.session.as_mut()
    }

    fn end_session(&mut self, mailbox: &Mailbox) {
        let Some(session) = self.lines.get_mut(mailbox).and_then(|line| line.session.take()) else { return };
        for id in &session.active {
            self.remove(id);
        }
        self.sessions -= 1;
        if self.sessions == 0 {
            self.timers.retain(|(_, timer)| *timer != Timer::Sweep);
        }
    }

    fn probe(&mut self, mailbox: &Mailbox, presence: Presence, at: Instant) {
        if self.lines.len() >= LINES_MAX && !self.lines.contains_key(mailbox) {
            return; // its next event, or the sweep of the catalog, finds it
        }
        let line = self.lines.entry(mailbox.clone()).or_default();
        line.probe = Some(Probe { presence, failures: 0, at: Some(at) });
        self.timers.insert((at, Timer::Probe(mailbox.clone())));
    }

    fn stop_probe(&mut self, mailbox: &Mailbox) {
        let Some(probe) = self.lines.get_mut(mailbox).and_then(|line| line.probe.take()) else { return };
        if let Some(at) = probe.at {
            self.timers.remove(&(at, Timer::Probe(mailbox.clone())));
        }
    }

    fn forget_if_idle(&mut self, mailbox: &Mailbox) {
        if self.lines.get(mailbox).is_some_and(|line| line.session.is_none() && line.probe.is_none()) {
            self.lines.remove(mailbox);
        }
    }
}

impl Session {
    /// Whether one more may be offered.
    fn has_room(&self) -> bool {
        self.active.len() - self.parked < WINDOW
    }

    /// Something may wait that was not looked at.
    fn look_again(&mut self) {
        self.scan = match self.scan {
            Scan::Running { .. } => Scan::Running { again: true },
            Scan::Done | Scan::From(_) => Scan::From(None),
        };
    }
}

fn is_parked(offering: &Offering) -> bool {
    matches!(offering.state(), State::Backoff { .. })
}

#[cfg(test)]
mod tests;
