//! A relay's whole memory in simulation: ledger and queue over the array, over servers whose disks tear, lose, delay and
//! refuse writes, all killed at random points. `LIGHTER_SEED=N` runs one seed, `LIGHTER_SEEDS=N` so many.
//!
//! What is held against the reference model, after each start and in the end, always with a view made from the log
//! alone or from what the view of before had:
//! - what was acknowledged is there, whole; what was surely refused never comes back;
//! - the next hop gets each recipient's mail, and again only where the relay did not learn that it was written down;
//! - what a store has receipted is offered no more, and nothing is let go of without a receipt;
//! - in the end everything that was acknowledged was handed over, pulled, receipted and let go of.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, helpers included")]

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lighter_catalog::{
    Catalog, CatalogError, Change, Checkpoint, CommitError, Counts, Deadline, Delivery, DeliveryState,
    DueHandOver, Envelope, Form, HandOver, HandOverState, Ledger, Log, LogError, MemoryCatalog, Message,
    Notify, Part, Position, Purged, Recipient, Summary,
};
use lighter_message::Totals;
use lighter_message::line_end::LineEnds;
use lighter_protocol::offer::Delivery as Offered;
use lighter_protocol::wire::{Answer, OfferedBlob, Response};
use lighter_protocol::{
    BlobId, Day, DeliveryId, Keypair, Mailbox, MessageId, Now, Receipt, Signed, TicketHash, TicketKey,
    UnixTime,
};
use lighter_queue::{Command, Deliveries, HandOvers, Retry, Task};
use lighter_storage::disk::sim::Fault;
use lighter_storage::sim::{NOW, SimServers, run, seeds};
use lighter_storage::{Array, Class, PlacedBlob, ReadError, Sequence, StoredBlob, WriteError};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The array as the log of one life of the relay: when that ends, nothing of it writes any more.
#[derive(Clone)]
struct MortalLog {
    array: Arc<Mutex<Option<Array>>>,
    dead: watch::Receiver<bool>,
}

impl MortalLog {
    fn array(&self) -> Option<Array> {
        self.array.lock().unwrap().clone()
    }

    /// What `work` gives; never, once the relay is dead.
    async fn while_alive<T>(&self, work: impl Future<Output = T>) -> T {
        let mut dead = self.dead.clone();
        let death = async move { dead.wait_for(|dead| *dead).await.is_ok() };
        tokio::select! {
            biased;
            _ = death => std::future::pending().await,
            done = work => done,
        }
    }
}

impl Log for MortalLog {
    type Blob = PlacedBlob;

    async fn append(
        &self,
        change: Vec<u8>,
        class: Class,
        blobs: Vec<PlacedBlob>,
    ) -> Result<Sequence, LogError> {
        let Some(array) = self.array() else { return std::future::pending().await };
        self.while_alive(async move { array.append(change, class, blobs).await }).await
    }

    async fn replay(
        &self,
        from: Sequence,
        visit: &mut (dyn FnMut(Sequence, &[u8]) -> ControlFlow<()> + Send),
    ) -> Result<(), LogError> {
        let Some(array) = self.array() else { return std::future::pending().await };
        Log::replay(&array, from, visit).await
    }
}

/// The view as one life of the relay changes it: what of that is still at work when it ends changes nothing any more.
struct MortalView {
    view: Arc<MemoryCatalog>,
    is_dead: Arc<Mutex<bool>>,
}

impl MortalView {
    fn while_alive<T>(
        &self,
        change: impl FnOnce(&MemoryCatalog) -> Result<T, CatalogError>,
    ) -> Result<T, CatalogError> {
        let is_dead = self.is_dead.lock().unwrap();
        if *is_dead { Err(CatalogError::InUse) } else { change(&self.view) }
    }
}

/// The ledger changes the view and asks for its checkpoint; questions go to the view itself.
impl Catalog for MortalView {
    fn checkpoint(&self) -> Result<Checkpoint, CatalogError> {
        self.view.checkpoint()
    }

    fn apply(
        &self,
        changes: &[(Sequence, Change)],
        checkpoint: Option<&Checkpoint>,
    ) -> Result<(), CatalogError> {
        self.while_alive(|view| view.apply(changes, checkpoint))
    }

    fn clear(&self) -> Result<(), CatalogError> {
        self.while_alive(Catalog::clear)
    }

    fn message(&self, id: &MessageId) -> Result<Option<Message>, CatalogError> {
        self.view.message(id)
    }

    fn hand_overs(&self, id: &MessageId) -> Result<Vec<(HandOver, HandOverState)>, CatalogError> {
        self.view.hand_overs(id)
    }

    fn delivery(&self, id: &DeliveryId) -> Result<Option<Delivery>, CatalogError> {
        self.view.delivery(id)
    }

    fn by_ticket(&self, ticket: &TicketHash) -> Result<Option<Delivery>, CatalogError> {
        self.view.by_ticket(ticket)
    }

    fn waiting(
        &self,
        of: &Mailbox,
        after: Option<Position>,
        count_max: usize,
    ) -> Result<Vec<Delivery>, CatalogError> {
        self.view.waiting(of, after, count_max)
    }

    fn waiting_mailboxes(
        &self,
        after: Option<&Mailbox>,
        count_max: usize,
    ) -> Result<Vec<Mailbox>, CatalogError> {
        self.view.waiting_mailboxes(after, count_max)
    }

    fn due(
        &self,
        now: UnixTime,
        count_max: usize,
        except: &BTreeSet<MessageId>,
    ) -> Result<Vec<DueHandOver>, CatalogError> {
        self.view.due(now, count_max, except)
    }

    fn next_due(&self, now: UnixTime) -> Result<Option<UnixTime>, CatalogError> {
        self.view.next_due(now)
    }

    fn postpone(
        &self,
        message: &MessageId,
        which: &[HandOver],
        attempts: u32,
        next: UnixTime,
    ) -> Result<(), CatalogError> {
        self.while_alive(|view| view.postpone(message, which, attempts, next))
    }

    fn deadlines(&self, now: UnixTime, count_max: usize) -> Result<Vec<(Delivery, Deadline)>, CatalogError> {
        self.view.deadlines(now, count_max)
    }

    fn purge(&self, today: Day, count_max: usize) -> Result<Purged, CatalogError> {
        self.while_alive(|view| view.purge(today, count_max))
    }

    fn counts(&self) -> Result<Counts, CatalogError> {
        self.view.counts()
    }
}

/// One life of the relay.
struct Relay {
    is_dead: Arc<Mutex<bool>>,
    log: MortalLog,
    kill: watch::Sender<bool>,
    ledger: Ledger<MortalLog>,
    view: Arc<MemoryCatalog>,
}

/// A message as it was sent.
#[derive(Clone, Debug)]
struct Sent {
    manifest: Vec<u8>,
    part: Vec<u8>,
}

/// What must be true.
#[derive(Default)]
struct Model {
    sent: BTreeMap<MessageId, Sent>,
    /// Answered well: there for good.
    acknowledged: BTreeSet<MessageId>,
    /// Not answered, and found by a start all the same.
    found: BTreeSet<MessageId>,
    /// Surely refused: never there.
    refused: BTreeSet<MessageId>,
    /// How often the next hop took what.
    taken: BTreeMap<(MessageId, HandOver), u32>,
    /// How often the relay did not learn that this was written down.
    windows: BTreeMap<(MessageId, HandOver), u32>,
    /// Written down as taken.
    handed_over: BTreeSet<(MessageId, HandOver)>,
    /// What the store has, and said so.
    receipts: BTreeSet<DeliveryId>,
    /// Those that are written down.
    receipted: BTreeSet<DeliveryId>,
    /// Let go of.
    released: BTreeSet<DeliveryId>,
}

struct World {
    chance: StdRng,
    servers: SimServers,
    relay: Option<Relay>,
    /// The view of the life before.
    view: Option<Arc<MemoryCatalog>>,
    model: Model,
    now: Now,
    store: Keypair,
    next: u64,
    sessions: u64,
}

fn alice() -> Mailbox {
    "alice@example.org".parse().unwrap()
}

fn tickets() -> TicketKey {
    TicketKey::derive(&[7; 32])
}

fn message_id(number: u64) -> MessageId {
    MessageId((u128::from(number) << 8).to_be_bytes())
}

/// Alice's delivery of a message.
fn delivery_of(message: &MessageId) -> DeliveryId {
    DeliveryId(message.0)
}

fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    let mut bytes = vec![0; len];
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

/// For Alice, who has a store, and for Carol, who has none.
fn message(id: MessageId, manifest: &StoredBlob, part: &StoredBlob) -> Message {
    let delivery = delivery_of(&id);
    let recipient = |name: &str, form| Recipient {
        address: format!("{name}@example.org"),
        mailbox: Some(format!("{name}@example.org").parse().unwrap()),
        notify: Notify::Default,
        orcpt: None,
        form,
    };
    let stub = Form::Stub { delivery, generation: 0, ticket: tickets().ticket(&delivery, 0).hash() };
    Message {
        id,
        accepted: NOW,
        envelope: Envelope { reverse_path: "bob@example.net".into(), ..Envelope::default() },
        original: Totals { length: 2_000, hash: [3; 32], parts: 1, line_ends: LineEnds::CrLf },
        summary: Summary::default(),
        trace: String::new(),
        manifest: manifest.clone(),
        parts: vec![Part { blob: part.clone(), name: "a.pdf".into(), media_type: "application/pdf".into() }],
        recipients: vec![recipient("alice", stub), recipient("carol", Form::Whole)],
        class: Class::Days30,
        expires: NOW.day().plus(30),
        cause: None,
    }
}

async fn write(array: &Array, data: &[u8]) -> Result<PlacedBlob, WriteError> {
    let mut writer = array.create_blob(Class::Days30);
    for piece in data.chunks(100_000) {
        writer.write(piece).await?;
    }
    writer.finish().await
}

async fn read(array: &Array, blob: &StoredBlob) -> Result<Vec<u8>, ReadError> {
    let mut reader = array.read_blob(blob, 0..blob.size);
    let mut all = Vec::new();
    while let Some(piece) = reader.next().await? {
        all.extend_from_slice(&piece);
    }
    Ok(all)
}

/// What the sender is told. None: nothing.
async fn take(relay: &(MortalLog, Ledger<MortalLog>), id: MessageId, sent: &Sent) -> Option<bool> {
    let (log, ledger) = relay;
    let placed = async {
        let array = log.array().ok_or(WriteError::Unavailable)?;
        Ok::<_, WriteError>((write(&array, &sent.manifest).await?, write(&array, &sent.part).await?))
    };
    // No record names these blobs yet: whatever became of them, the message surely is not there.
    let Ok((manifest, part)) = log.while_alive(placed).await else { return Some(false) };
    let message = message(id, manifest.stored(), part.stored());
    match ledger.accept(message, vec![manifest, part]).await {
        Ok(()) => Some(true),
        Err(CommitError::InDoubt(_)) => None,
        Err(_) => Some(false),
    }
}

impl World {
    async fn new(seed: u64) -> Self {
        let servers = if seed % 5 == 4 { 3 } else { 2 };
        let mut world = Self {
            chance: StdRng::seed_from_u64(seed),
            servers: SimServers::new(seed, servers),
            relay: None,
            view: None,
            model: Model::default(),
            now: Now { wall: NOW, instant: Instant::now() },
            store: Keypair::ed25519_from_bytes([9; 32]).unwrap(),
            next: 1,
            sessions: 0,
        };
        assert!(world.start().await, "a healthy array opens");
        world
    }

    /// Starts the relay, with the view of before or none; whether it could.
    async fn start(&mut self) -> bool {
        let Ok(array) = self.servers.open().await else { return false };
        let (kill, dead) = watch::channel(false);
        let log = MortalLog { array: Arc::new(Mutex::new(Some(array))), dead };
        let kept = self.view.take().filter(|_| self.chance.random());
        let view = kept.unwrap_or_default();
        let is_dead = Arc::<Mutex<bool>>::default();
        let mortal = MortalView { view: Arc::clone(&view), is_dead: Arc::clone(&is_dead) };
        let Ok(ledger) = Ledger::open(log.clone(), Arc::new(mortal), Box::new(|_| {})).await else {
            return false;
        };
        self.relay = Some(Relay { is_dead, log, kill, ledger, view });
        self.check();
        true
    }

    /// `kill -9`.
    async fn kill(&mut self) {
        if let Some(Relay { is_dead, log, kill, ledger, view }) = self.relay.take() {
            kill.send_replace(true);
            *is_dead.lock().unwrap() = true;
            log.array.lock().unwrap().take();
            drop(ledger);
            self.view = Some(view);
        }
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }

    /// What a start finds. What nobody heard of and is there all the same counts from now on, but only where all
    /// servers took part: with one of them away, what the others have need not be on two.
    fn check(&mut self) {
        let Some(Relay { view, log, .. }) = &self.relay else { return };
        let status = log.array().expect("it lives").status();
        let is_settled = status.unsealed == 0 && status.servers.iter().all(|server| server.live);
        let model = &mut self.model;
        for id in model.sent.keys() {
            let found = view.message(id).unwrap();
            assert!(
                found.is_some() || !model.acknowledged.contains(id),
                "{id} was acknowledged, and is lost"
            );
            assert!(found.is_none() || !model.refused.contains(id), "{id} was refused, and came back");
            if found.is_none() {
                continue;
            }
            let known = delivery_of(id);
            let state = view.delivery(&known).unwrap().expect("a delivery goes with its message").state;
            let is_released = matches!(state, DeliveryState::Released { .. });
            let is_receipted = is_released || matches!(state, DeliveryState::Receipted { .. });
            assert!(!is_receipted || model.receipts.contains(&known), "{id}: a receipt that nobody gave");
            assert!(is_receipted || !model.receipted.contains(&known), "{id}: a receipt is lost");
            assert!(is_released || !model.released.contains(&known), "{id}: let go of, and here again");
            let hand_overs = view.hand_overs(id).unwrap().into_iter();
            let taken = hand_overs.filter(|(_, state)| matches!(state, HandOverState::HandedOver { .. }));
            let taken: Vec<_> = taken.map(|(hand_over, _)| (*id, hand_over)).collect();
            assert!(taken.iter().all(|key| model.taken.contains_key(key)), "{id}: nobody took it");
            if is_settled {
                model.acknowledged.insert(*id);
                model.handed_over.extend(taken);
                model.receipted.extend(is_receipted.then_some(known));
                model.released.extend(is_released.then_some(known));
            } else if !model.acknowledged.contains(id) {
                model.found.insert(*id);
            }
        }
        for due in view.due(UnixTime(u64::MAX), 10_000, &BTreeSet::new()).unwrap() {
            let key = (due.message, due.hand_over);
            assert!(!model.handed_over.contains(&key), "{key:?}: written down, and due again");
        }
    }

    /// So many messages at once.
    async fn accept(&mut self, count: u64) {
        let Some(Relay { log, ledger, .. }) = &self.relay else { return };
        let mut tasks = JoinSet::new();
        for _ in 0..count {
            let number = self.next;
            self.next += 1;
            let len = if self.chance.random_range(0..6) == 0 { 300_000 } else { 3_000 };
            let sent = Sent { manifest: bytes(number, 900), part: bytes(number << 32, len) };
            self.model.sent.insert(message_id(number), sent.clone());
            let relay = (log.clone(), ledger.clone());
            tasks.spawn(async move { (message_id(number), take(&relay, message_id(number), &sent).await) });
        }
        // One life in four ends in the middle of it, or a server does.
        let steps = self.chance.random_range(0..200);
        let mut answers = Vec::new();
        match self.chance.random_range(0..8) {
            0 => {
                for _ in 0..steps {
                    tokio::task::yield_now().await;
                }
                self.kill().await;
                // What was answered before is answered; of the rest nobody ever hears.
                while let Some(Ok(answer)) = tasks.try_join_next() {
                    answers.push(answer);
                }
                tasks.abort_all();
            }
            1 => {
                for _ in 0..steps {
                    tokio::task::yield_now().await;
                }
                let index = self.chance.random_range(0..self.servers.count());
                let power = self.chance.random();
                self.servers.stop(index, power).await;
                answers.extend(tasks.join_all().await);
            }
            _ => answers.extend(tasks.join_all().await),
        }
        for (id, answer) in answers {
            match answer {
                Some(true) => drop(self.model.acknowledged.insert(id)),
                Some(false) => drop(self.model.refused.insert(id)),
                None => {}
            }
        }
    }

    /// Everything that is due goes to the next hop, as the relay does it.
    async fn hand_over(&mut self) {
        let mut queue = HandOvers::<DueHandOver>::default();
        while let Some(task) = queue.poll() {
            let Some(relay) = &self.relay else { return };
            // What cannot be written down is not handed over.
            if !relay.log.array().expect("it lives").status().writable {
                return;
            }
            match task {
                Task::Fetch { count_max, except } => {
                    let now = self.now.wall;
                    let page = relay.view.due(now, count_max, &except).unwrap();
                    queue.handle_page(page.into_iter().map(|due| (due.message, due)).collect(), None);
                }
                Task::HandOver { message, due } => {
                    if !self.hand_over_one(message, due).await {
                        return;
                    }
                    queue.handle_done(&message);
                }
            }
        }
    }

    /// Whether the queue may go on.
    async fn hand_over_one(&mut self, id: MessageId, due: Vec<DueHandOver>) -> bool {
        let mut taken = Vec::new();
        for due in due {
            let key = (id, due.hand_over);
            assert!(!self.model.handed_over.contains(&key), "{key:?}: handed over, and again");
            if self.chance.random_range(0..5) == 0 {
                let attempts = due.attempts + 1;
                let retry = Retry::after(attempts, NOW, None, self.now.wall, &mut self.chance);
                let Retry::At(next) = retry else { panic!("given up after minutes") };
                let Some(relay) = &self.relay else { return false };
                relay.view.postpone(&id, &[due.hand_over], attempts, next).unwrap();
                continue;
            }
            *self.model.taken.entry(key).or_default() += 1;
            taken.push(due.hand_over);
        }
        if taken.is_empty() {
            return true;
        }
        let change = Change::HandedOver { message: id, hand_overs: taken.clone(), at: self.now.wall };
        let written = self.commit(change).await;
        for hand_over in taken {
            if written {
                self.model.handed_over.insert((id, hand_over));
            } else {
                *self.model.windows.entry((id, hand_over)).or_default() += 1;
            }
        }
        written
    }

    /// Whether the relay heard that it is written down; sometimes it is killed while it waits for that.
    async fn commit(&mut self, change: Change) -> bool {
        let Some(relay) = &self.relay else { return false };
        let ledger = relay.ledger.clone();
        let committing = async move { ledger.commit_applied(change, Class::Days30).await };
        if self.chance.random_range(0..12) != 0 {
            return committing.await.is_ok();
        }
        let task = tokio::spawn(committing);
        for _ in 0..self.chance.random_range(0..100) {
            tokio::task::yield_now().await;
        }
        self.kill().await;
        task.abort();
        matches!(task.await, Ok(Ok(())))
    }

    /// Alice's store comes, and pulls what it is offered.
    async fn session(&mut self) {
        let mut queue = Deliveries::new(None);
        self.sessions += 1;
        queue.handle_session(&alice(), self.store.public().to_peer_id(), self.sessions, self.now);
        while let Some(command) = queue.poll() {
            let Some(relay) = &self.relay else { return };
            match command {
                Command::Fetch { mailbox, after, count_max } => {
                    let after = after.map(|(accepted, delivery)| Position { accepted, delivery });
                    let rows = relay.view.waiting(&mailbox, after, count_max).unwrap();
                    let more = rows.len() == count_max;
                    let page = rows.iter().map(|row| ((row.accepted, row.id), self.facts(row))).collect();
                    queue.handle_page(&mailbox, page, more, self.now, &mut self.chance);
                }
                Command::Offer { offer, .. } => {
                    let id = offer.delivery;
                    assert!(!self.model.receipted.contains(&id), "{id}: receipted, and offered again");
                    let pull = Response::Answer(offer.blobs.iter().map(|_| Answer::Pull).collect());
                    queue.handle_response(&id, &pull, self.now);
                    // A store that goes away in the middle comes again with the next session.
                    if self.chance.random_range(0..10) == 0 || !self.pull(id, offer.manifest.id).await {
                        return;
                    }
                    queue.handle_ended(&id, self.now);
                }
                Command::Probe { .. } | Command::FetchMailboxes { .. } => {}
            }
        }
    }

    fn facts(&self, row: &Delivery) -> Offered {
        let view = &self.relay.as_ref().unwrap().view;
        let message = view.message(&row.message).unwrap().expect("a message goes with its delivery");
        let blob = |stored: &StoredBlob| OfferedBlob {
            id: stored.id,
            size: stored.size,
            name: String::new(),
            media_type: String::new(),
        };
        Offered {
            id: row.id,
            mailbox: row.mailbox.clone(),
            manifest: blob(&message.manifest),
            blobs: message.parts.iter().map(|part| blob(&part.blob)).collect(),
            sources: Vec::new(),
            expires: row.expires.end(),
        }
    }

    /// Pulls all of a delivery and brings the receipt; whether that was written down.
    async fn pull(&mut self, id: DeliveryId, manifest: BlobId) -> bool {
        let Some(relay) = &self.relay else { return false };
        let message = relay.view.message(&MessageId(id.0)).unwrap().expect("what is offered is there");
        let sent = self.model.sent[&message.id].clone();
        let array = relay.log.array().expect("it lives");
        for (blob, data) in [(&message.manifest, &sent.manifest), (&message.parts[0].blob, &sent.part)] {
            match read(&array, blob).await {
                Ok(found) => assert!(found == *data, "{id}: not what was sent"),
                Err(_) => return false, // servers are away
            }
        }
        drop(array);
        let receipt = Receipt {
            delivery: id,
            mailbox: alice(),
            store: self.store.public().to_peer_id(),
            manifest,
            time: self.now.wall,
        };
        let receipt = Signed::sign(&receipt, &self.store).unwrap();
        self.model.receipts.insert(id);
        let release = self.now.wall.plus(Duration::from_secs(60));
        let written = self.commit(Change::Receipted { delivery: id, receipt, release }).await;
        if written {
            self.model.receipted.insert(id);
        }
        written
    }

    /// What is receipted and has been kept long enough is let go of.
    async fn release(&mut self) {
        loop {
            let Some(relay) = &self.relay else { return };
            let due = relay.view.deadlines(self.now.wall, 10).unwrap();
            if due.is_empty() {
                return;
            }
            for (delivery, deadline) in due {
                assert_eq!(deadline, Deadline::Release, "nothing lapses within a day");
                assert!(self.model.receipts.contains(&delivery.id), "let go of without a receipt");
                if !self.commit(Change::Released { delivery: delivery.id }).await {
                    return;
                }
                self.model.released.insert(delivery.id);
            }
        }
    }

    async fn step(&mut self) {
        let index = self.chance.random_range(0..self.servers.count());
        match self.chance.random_range(0..16) {
            0..=3 => {
                let count = self.chance.random_range(1..5);
                self.accept(count).await;
            }
            4 | 5 => self.hand_over().await,
            6 | 7 => self.session().await,
            8 => self.release().await,
            9 | 10 => {
                let fault = [Fault::Crash, Fault::Eio, Fault::NoSpace][self.chance.random_range(0..3)];
                let after = self.chance.random_range(0..20);
                self.servers.disk(index).inject(after, fault);
            }
            11 => {
                let power = self.chance.random();
                self.servers.stop(index, power).await;
            }
            12 => {
                let delay = Duration::from_millis(self.chance.random_range(1..12_000));
                self.servers.delay(index, delay);
                self.servers.stop(index, false).await;
                self.servers.start(index);
            }
            13 => self.kill().await,
            _ => {
                self.servers.heal().await;
                self.pass(Duration::from_secs(600)).await;
            }
        }
        self.servers.bury().await;
        if self.relay.is_none() && self.chance.random_range(0..3) != 0 {
            self.start().await;
        }
    }

    async fn pass(&mut self, time: Duration) {
        self.now = self.now.plus(time);
        tokio::time::sleep(time).await;
    }

    /// With everything well again, all of it comes to its end.
    async fn finish(&mut self) {
        self.servers.heal().await;
        self.kill().await;
        for _ in 0..50 {
            if self.relay.is_none() {
                assert!(self.start().await, "all servers are there");
            }
            self.pass(Duration::from_secs(4_000)).await;
            self.hand_over().await;
            self.session().await;
            self.release().await;
            if self.relay.as_ref().is_some_and(|relay| {
                let counts = relay.view.counts().unwrap();
                counts.hand_overs == 0 && counts.waiting == 0 && counts.receipted == 0
            }) {
                break;
            }
        }
        self.kill().await;
        self.view = None;
        assert!(self.start().await, "all servers are there");
        let Model { sent, acknowledged, found, taken, windows, released, .. } = &self.model;
        for id in acknowledged {
            assert!(released.contains(&delivery_of(id)), "{id}: not released");
            for key in [0, 1].map(|recipient| (*id, HandOver::first(recipient))) {
                let count = taken.get(&key).copied().unwrap_or_default();
                let allowed = 1 + windows.get(&key).copied().unwrap_or_default();
                assert!((1..=allowed).contains(&count), "{key:?}: {count} times, at most {allowed}");
            }
        }
        let strangers = taken.keys().filter(|(id, _)| !acknowledged.contains(id) && !found.contains(id));
        assert_eq!(strangers.count(), 0, "handed over, and never there");
        assert!(sent.len() >= acknowledged.len());
    }
}

// SPEC: B12, B13, C10, D4
#[test]
fn bad_input_31_32_nothing_acknowledged_is_lost_and_nothing_let_go_of_without_a_receipt() {
    let (mut sent, mut acknowledged, mut refused, mut again) = (0, 0, 0, 0);
    seeds(150, |seed| {
        run(async {
            let mut world = World::new(seed).await;
            for _ in 0..world.chance.random_range(5..30) {
                world.step().await;
            }
            world.finish().await;
            sent += world.model.sent.len();
            acknowledged += world.model.acknowledged.len();
            refused += world.model.refused.len();
            again += world.model.taken.values().filter(|count| **count > 1).count();
        });
    });
    println!("{sent} sent, {acknowledged} there, {refused} refused, {again} handed over again");
    // A simulation in which nothing succeeds, or nothing fails, shows nothing.
    assert!(std::env::var_os("LIGHTER_SEED").is_some() || (acknowledged * 3 > sent && refused > 0));
}
