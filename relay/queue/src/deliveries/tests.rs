use lighter_protocol::wire::{Answer, LaterReason, NoReason, OfferedBlob};
use lighter_protocol::{BlobId, Keypair};
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;

fn mailbox(name: &str) -> Mailbox {
    format!("{name}@example.org").parse().unwrap()
}

fn peer(number: u8) -> PeerId {
    Keypair::ed25519_from_bytes([number.max(1); 32]).unwrap().public().to_peer_id()
}

fn blob(size: u64) -> OfferedBlob {
    OfferedBlob { id: BlobId::of(&size.to_le_bytes()), size, name: String::new(), media_type: String::new() }
}

fn delivery(number: u32, of: &Mailbox) -> Delivery {
    let mut id = [0; 16];
    id[..4].copy_from_slice(&number.to_be_bytes());
    Delivery {
        id: DeliveryId(id),
        mailbox: of.clone(),
        manifest: blob(100),
        blobs: vec![blob(1_000)],
        sources: Vec::new(),
        expires: UnixTime(u64::MAX),
    }
}

fn start() -> Now {
    Now { wall: UnixTime(1_800_000_000), instant: Instant::now() }
}

fn chance() -> StdRng {
    StdRng::seed_from_u64(1)
}

fn all(queue: &mut Deliveries) -> Vec<Command> {
    std::iter::from_fn(|| queue.poll()).collect()
}

/// Answers every fetch from `rows`, until there is something else to do.
fn offers(queue: &mut Deliveries, rows: &BTreeMap<Cursor, Delivery>, now: Now) -> Vec<(u64, Offer)> {
    let mut found = Vec::new();
    while let Some(command) = queue.poll() {
        match command {
            Command::Fetch { mailbox, after, count_max } => {
                let (page, more) = page(rows, &mailbox, after, count_max);
                queue.handle_page(&mailbox, page, more, now, &mut chance());
            }
            Command::Offer { session, offer } => found.push((session, *offer)),
            other => panic!("{other:?}"),
        }
    }
    found
}

fn page(
    rows: &BTreeMap<Cursor, Delivery>,
    of: &Mailbox,
    after: Option<Cursor>,
    count_max: usize,
) -> (Vec<(Cursor, Delivery)>, bool) {
    let behind = rows.iter().filter(|(at, row)| row.mailbox == *of && after.is_none_or(|after| **at > after));
    let mut page: Vec<_> = behind.map(|(at, row)| (*at, row.clone())).take(count_max + 1).collect();
    let more = page.len() > count_max;
    page.truncate(count_max);
    (page, more)
}

fn rows(count: u32, of: &Mailbox) -> BTreeMap<Cursor, Delivery> {
    (0..count).map(|number| delivery(number, of)).map(|row| ((UnixTime(1), row.id), row)).collect()
}

// SPEC: D5
#[test]
fn a_store_that_comes_online_is_offered_what_waits_a_window_at_a_time() {
    let (alice, now) = (mailbox("alice"), start());
    let mut waiting = rows(100, &alice);
    let mut queue = Deliveries::new(None);
    queue.handle_session(&alice, peer(1), 7, now);
    let mut done = BTreeSet::new();
    let mut open = offers(&mut queue, &waiting, now);
    assert_eq!(open.len(), WINDOW);
    while let Some((session, offer)) = open.pop() {
        assert_eq!(session, 7);
        assert!(done.insert(offer.delivery), "offered twice");
        queue.handle_response(&offer.delivery, &Response::Answer(vec![Answer::Pull]), now);
        waiting.retain(|_, row| row.id != offer.delivery);
        queue.handle_ended(&offer.delivery, now);
        open.extend(offers(&mut queue, &waiting, now));
        assert!(open.len() <= WINDOW);
    }
    assert_eq!(done.len(), 100);
}

// SPEC: D5
#[test]
fn a_store_that_is_offline_has_no_timer_and_no_memory() {
    let (alice, now) = (mailbox("alice"), start());
    let mut queue = Deliveries::new(None);
    for _ in 0..1_000 {
        queue.handle_committed(&alice, Presence::Offline, now);
    }
    queue.handle_presence(&alice, Presence::Offline, now, &mut chance());
    queue.handle_session(&alice, peer(1), 1, now);
    queue.handle_session_closed(&alice, 1);
    all(&mut queue);
    assert_eq!((queue.next_time(), queue.lines.len(), queue.active.len()), (None, 0, 0));
}

#[test]
fn a_delivery_committed_in_a_session_is_offered_at_once() {
    let (alice, now) = (mailbox("alice"), start());
    let mut queue = Deliveries::new(None);
    queue.handle_session(&alice, peer(1), 1, now);
    assert_eq!(offers(&mut queue, &BTreeMap::new(), now), []);
    queue.handle_committed(&alice, Presence::Unknown, now);
    assert_eq!(offers(&mut queue, &rows(1, &alice), now).len(), 1);
}

#[test]
fn a_delivery_committed_while_the_catalog_is_asked_is_not_missed() {
    let (alice, now) = (mailbox("alice"), start());
    let mut queue = Deliveries::new(None);
    queue.handle_session(&alice, peer(1), 1, now);
    assert!(matches!(queue.poll(), Some(Command::Fetch { .. })));
    queue.handle_committed(&alice, Presence::Online, now);
    queue.handle_page(&alice, Vec::new(), false, now, &mut chance());
    assert_eq!(offers(&mut queue, &rows(1, &alice), now).len(), 1);
}

#[test]
fn a_store_that_answers_later_is_asked_again_after_a_backoff_and_holds_up_no_other() {
    let (alice, mut now) = (mailbox("alice"), start());
    let waiting = rows(20, &alice);
    let mut queue = Deliveries::new(None);
    queue.handle_session(&alice, peer(1), 1, now);
    let mut seen = BTreeSet::new();
    let mut open = offers(&mut queue, &waiting, now);
    while let Some((_, offer)) = open.pop() {
        assert!(seen.insert(offer.delivery), "asked again without a wait");
        let later = Response::Answer(vec![Answer::Later(LaterReason::Quota)]);
        queue.handle_response(&offer.delivery, &later, now);
        open.extend(offers(&mut queue, &waiting, now));
    }
    assert_eq!(seen.len(), 20);
    let next = queue.next_time().unwrap();
    now = now.plus(next - now.instant);
    queue.handle_time(now);
    let again = offers(&mut queue, &waiting, now).len();
    assert!((1..=WINDOW).contains(&again), "{again} at once");
}

#[test]
fn what_a_store_does_not_take_is_not_offered_again_in_its_session() {
    let (alice, mut now) = (mailbox("alice"), start());
    let waiting = rows(1, &alice);
    let mut queue = Deliveries::new(None);
    queue.handle_session(&alice, peer(1), 1, now);
    let (_, offer) = offers(&mut queue, &waiting, now).remove(0);
    queue.handle_response(&offer.delivery, &Response::Answer(vec![Answer::No(NoReason::TooLarge)]), now);
    now = now.plus(SWEEP_INTERVAL);
    queue.handle_time(now);
    assert_eq!(offers(&mut queue, &waiting, now), []);
    queue.handle_session(&alice, peer(1), 2, now);
    assert_eq!(offers(&mut queue, &waiting, now).len(), 1, "a new session is asked again");
}

#[test]
fn the_end_of_an_older_session_does_not_end_the_new_one() {
    let (alice, now) = (mailbox("alice"), start());
    let waiting = rows(1, &alice);
    let mut queue = Deliveries::new(None);
    queue.handle_session(&alice, peer(1), 1, now);
    assert_eq!(offers(&mut queue, &waiting, now)[0].0, 1);
    queue.handle_session(&alice, peer(1), 2, now);
    queue.handle_session_closed(&alice, 1);
    assert_eq!(offers(&mut queue, &waiting, now)[0].0, 2, "offered again, on the session that lives");
    assert_eq!(queue.counts(), (1, 1));
}

// SPEC: A18
#[test]
fn a_store_said_to_be_online_is_pinged_at_once_and_one_not_known_at_the_interval() {
    let (alice, bob, mut now) = (mailbox("alice"), mailbox("bob"), start());
    let mut queue = Deliveries::new(None);
    queue.handle_presence(&alice, Presence::Online, now, &mut chance());
    queue.handle_presence(&bob, Presence::Unknown, now, &mut chance());
    now = now.plus(ONLINE_HEAD_START);
    queue.handle_time(now);
    assert_eq!(all(&mut queue), [Command::Probe { mailbox: alice.clone() }]);
    queue.handle_probed(&alice, Probed::Needless, now, &mut chance());
    let mut pings = Vec::new();
    while pings.len() < 10 {
        let next = queue.next_time().expect("it is pinged until something is known");
        now = now.plus(next.saturating_duration_since(now.instant) + Duration::from_millis(1));
        queue.handle_time(now);
        assert_eq!(all(&mut queue), [Command::Probe { mailbox: bob.clone() }]);
        queue.handle_probed(&bob, Probed::Unreachable, now, &mut chance());
        pings.push(now.instant);
    }
    for pair in pings.windows(2) {
        let wait = pair[1] - pair[0];
        assert!(wait > PING_INTERVAL / 2 && wait < PING_INTERVAL * 2, "{wait:?}");
    }
    queue.handle_presence(&bob, Presence::Offline, now, &mut chance());
    assert_eq!(queue.next_time(), None);
}

#[test]
fn a_store_said_to_be_online_that_never_answers_is_left_alone_in_the_end() {
    let (alice, mut now) = (mailbox("alice"), start());
    let mut queue = Deliveries::new(None);
    queue.handle_presence(&alice, Presence::Online, now, &mut chance());
    let mut tries = 0;
    while let Some(next) = queue.next_time() {
        now = now.plus(next.saturating_duration_since(now.instant) + Duration::from_millis(1));
        queue.handle_time(now);
        assert_eq!(all(&mut queue).len(), 1);
        queue.handle_probed(&alice, Probed::Unreachable, now, &mut chance());
        tries += 1;
    }
    assert_eq!((tries, queue.lines.len()), (PROBES_MAX, 0));
}

#[test]
fn while_nobody_tells_of_presence_those_with_something_waiting_are_asked_about() {
    let mut now = start();
    let mut queue = Deliveries::new(None);
    queue.handle_presence_stream(false, now);
    now = now.plus(PING_INTERVAL);
    queue.handle_time(now);
    assert_eq!(all(&mut queue), [Command::FetchMailboxes { after: None }]);
    let page = [(mailbox("alice"), Presence::Unknown), (mailbox("bob"), Presence::Offline)];
    queue.handle_mailboxes(&page, true, now, &mut chance());
    assert_eq!(all(&mut queue), [Command::FetchMailboxes { after: Some(mailbox("bob")) }]);
    queue.handle_presence_stream(true, now);
    assert_eq!(all(&mut queue), [Command::FetchMailboxes { after: None }], "what was missed");
    now = now.plus(PING_INTERVAL);
    queue.handle_time(now);
    assert_eq!(
        all(&mut queue),
        [Command::Probe { mailbox: mailbox("alice") }],
        "and no more at the interval"
    );
}

/// A whole world from a seed: stores that come and go, answer and fail; a relay that forgets everything.
struct World {
    chance: StdRng,
    now: Now,
    queue: Deliveries,
    /// The catalog: what waits, and what was receipted.
    waiting: BTreeMap<Cursor, Delivery>,
    receipted: BTreeSet<DeliveryId>,
    committed: u32,
    /// For each mailbox its session, while its store is there.
    sessions: BTreeMap<Mailbox, u64>,
    next_session: u64,
    /// Offers and pulls that a store is at work on: session and delivery.
    open: BTreeMap<DeliveryId, u64>,
    behaved: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            chance: StdRng::seed_from_u64(seed),
            now: start(),
            queue: Deliveries::new(None),
            waiting: BTreeMap::new(),
            receipted: BTreeSet::new(),
            committed: 0,
            sessions: BTreeMap::new(),
            next_session: 0,
            open: BTreeMap::new(),
            behaved: false,
        }
    }

    fn mailboxes() -> [Mailbox; 3] {
        [mailbox("alice"), mailbox("bob"), mailbox("carol")]
    }

    fn any_mailbox(&mut self) -> Mailbox {
        Self::mailboxes()[self.chance.random_range(0..3)].clone()
    }

    fn step(&mut self) {
        match self.chance.random_range(0..20) {
            0..=3 => self.commit(),
            4 => self.come(),
            5 => self.go(),
            6 if self.chance.random_ratio(1, 20) => self.forget_everything(),
            7..=12 => self.work(),
            _ => self.pass_time(),
        }
        self.obey();
    }

    fn commit(&mut self) {
        let of = self.any_mailbox();
        self.committed += 1;
        let row = delivery(self.committed, &of);
        self.waiting.insert((self.now.wall, row.id), row);
        let presence = if self.sessions.contains_key(&of) { Presence::Online } else { Presence::Offline };
        self.queue.handle_committed(&of, presence, self.now);
    }

    fn come(&mut self) {
        let of = self.any_mailbox();
        self.come_as(&of);
    }

    fn come_as(&mut self, of: &Mailbox) {
        self.next_session += 1;
        if let Some(before) = self.sessions.insert(of.clone(), self.next_session) {
            self.open.retain(|_, session| *session != before);
        }
        self.queue.handle_session(of, peer(1), self.next_session, self.now);
    }

    fn go(&mut self) {
        let of = self.any_mailbox();
        if let Some(session) = self.sessions.remove(&of) {
            self.open.retain(|_, of| *of != session);
            self.queue.handle_session_closed(&of, session);
        }
    }

    /// The relay is killed and starts again: the catalog is all that it has; the stores come back by themselves.
    fn forget_everything(&mut self) {
        self.queue = Deliveries::new(None);
        self.open.clear();
        for of in std::mem::take(&mut self.sessions).into_keys() {
            self.come_as(&of);
        }
    }

    /// A store goes on with something.
    fn work(&mut self) {
        let open: Vec<_> = self.open.keys().copied().collect();
        if open.is_empty() {
            return;
        }
        let id = open[self.chance.random_range(0..open.len())];
        let good = self.behaved || self.chance.random_ratio(1, 2);
        if good {
            self.queue.handle_response(&id, &Response::Answer(vec![Answer::Pull]), self.now);
            self.queue.handle_progress(&id, self.now);
            self.open.remove(&id);
            assert!(self.receipted.insert(id), "delivered twice");
            self.waiting.retain(|_, row| row.id != id);
            self.queue.handle_ended(&id, self.now);
            return;
        }
        match self.chance.random_range(0..4) {
            0 => {
                let later = Response::Answer(vec![Answer::Later(LaterReason::Busy)]);
                self.queue.handle_response(&id, &later, self.now);
            }
            1 => self.queue.handle_lost(&id, self.now),
            2 => self.queue.handle_response(&id, &Response::Later(10), self.now),
            _ => return, // it says nothing at all
        }
        self.open.remove(&id);
    }

    fn pass_time(&mut self) {
        let step = match self.queue.next_time() {
            Some(next) if self.chance.random_ratio(1, 2) => next.saturating_duration_since(self.now.instant),
            _ => Duration::from_millis(self.chance.random_range(0..60_000)),
        };
        self.now = self.now.plus(step + Duration::from_millis(1));
        self.queue.handle_time(self.now);
    }

    fn obey(&mut self) {
        while let Some(command) = self.queue.poll() {
            match command {
                Command::Fetch { mailbox, after, count_max } => {
                    let (page, more) = page(&self.waiting, &mailbox, after, count_max);
                    self.queue.handle_page(&mailbox, page, more, self.now, &mut self.chance);
                }
                Command::Offer { session, offer } => {
                    assert!(!self.receipted.contains(&offer.delivery), "offered after its receipt");
                    let current = self.sessions.get(&offer.mailbox);
                    assert_eq!(current, Some(&session), "offered to a session that is over");
                    // A store that said nothing for too long is asked again; otherwise an offer is made once.
                    self.open.insert(offer.delivery, session);
                }
                Command::Probe { mailbox } => {
                    let probed = if self.sessions.contains_key(&mailbox) {
                        Probed::Reached
                    } else {
                        Probed::Unreachable
                    };
                    self.queue.handle_probed(&mailbox, probed, self.now, &mut self.chance);
                }
                Command::FetchMailboxes { .. } => {}
            }
        }
        for session in self.sessions.values() {
            let open = self.open.values().filter(|of| *of == session).count();
            assert!(open <= WINDOW + PARKED_MAX, "{open} open at once");
        }
        self.check_counts();
    }

    fn check_counts(&self) {
        let listed: usize =
            self.queue.lines.values().filter_map(|line| line.session.as_ref()).map(|s| s.active.len()).sum();
        assert_eq!(listed, self.queue.active.len());
        for session in self.queue.lines.values().filter_map(|line| line.session.as_ref()) {
            let parked =
                session.active.iter().filter(|id| is_parked(&self.queue.active[id].offering)).count();
            assert_eq!(parked, session.parked);
            assert!(parked <= PARKED_MAX && session.active.len() - parked <= WINDOW);
        }
    }

    /// Every store comes online and behaves: everything gets through, and then nothing runs but the sweep.
    fn settle(&mut self) {
        self.behaved = true;
        for of in Self::mailboxes() {
            self.come_as(&of);
        }
        self.obey();
        for _ in 0..100_000 {
            if self.waiting.is_empty() {
                break;
            }
            self.work();
            self.obey();
            if self.open.is_empty() {
                self.pass_time();
                self.obey();
            }
        }
        assert!(self.waiting.is_empty(), "lost: {} never offered", self.waiting.len());
        assert_eq!(self.receipted.len(), self.committed as usize);
        for of in Self::mailboxes() {
            let session = self.sessions[&of];
            self.queue.handle_session_closed(&of, session);
        }
        assert_eq!((self.queue.next_time(), self.queue.lines.len()), (None, 0), "timers with nobody there");
    }
}

#[test]
fn in_a_world_from_any_seed_nothing_is_lost_or_doubled_or_offered_after_its_receipt() {
    for seed in 0..150 {
        let mut world = World::new(seed);
        for _ in 0..800 {
            world.step();
        }
        world.settle();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30))]
    #[test]
    fn in_a_long_world_too(seed in any::<u64>()) {
        let mut world = World::new(seed);
        for _ in 0..3_000 {
            world.step();
        }
        world.settle();
    }
}
