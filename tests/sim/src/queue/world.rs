//! The relay among its servers, and what befalls them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lighter_catalog::{Catalog, CopyKey, DeliveryState, HandOver, HandOverState, Ledger, MemoryCatalog};
use lighter_protocol::{BlobId, Keypair, Now, UnixTime};
use lighter_storage::ReadError;
use lighter_storage::disk::sim::Fault;
use lighter_storage::sim::{NOW, SimServers};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::model::{Model, Sent, bytes, delivery_of, message_id, read, take};
use super::mortal::{MortalLog, MortalView, Relay};

pub(crate) struct World {
    pub(crate) chance: StdRng,
    pub(crate) servers: SimServers,
    pub(crate) relay: Option<Relay>,
    /// The view of the life before.
    pub(crate) view: Option<Arc<MemoryCatalog>>,
    pub(crate) model: Model,
    begun: Now,
    pub(crate) store: Keypair,
    pub(crate) next: u64,
    pub(crate) sessions: u64,
}

impl World {
    pub(super) async fn new(seed: u64) -> Self {
        let servers = if seed % 5 == 4 { 3 } else { 2 };
        let mut world = Self {
            chance: StdRng::seed_from_u64(seed),
            servers: SimServers::new(seed, servers),
            relay: None,
            view: None,
            model: Model::default(),
            begun: Now { wall: NOW, instant: Instant::now() },
            store: Keypair::ed25519_from_bytes([9; 32]).unwrap(),
            next: 1,
            sessions: 0,
        };
        assert!(world.start().await, "a healthy array opens");
        world
    }

    /// Starts the relay, with the view of before or none; whether it could.
    pub(super) async fn start(&mut self) -> bool {
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
        self.check_copies().await;
        true
    }

    /// `kill -9`.
    pub(super) async fn kill(&mut self) {
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
    pub(super) fn check(&mut self) {
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

    /// What refers to what is what the messages say; and where all servers are there, each copy can be read, the
    /// manifests with them.
    async fn check_copies(&mut self) {
        let Some(Relay { view, log, .. }) = &self.relay else { return };
        let (mut expected, mut named) = (BTreeMap::new(), Vec::new());
        for (message, refers) in view.messages(None, 1_000).unwrap() {
            if refers {
                for part in &message.parts {
                    expected.entry(CopyKey::of(&part.blob)).or_insert((part.blob.clone(), 0)).1 += 1;
                }
                named.push(message.manifest);
            }
        }
        let copies = view.copies(None, 1_000).unwrap();
        let found: Vec<_> = copies.iter().map(|copy| (copy.blob.clone(), copy.references)).collect();
        assert_eq!(found, expected.into_values().collect::<Vec<_>>(), "references are what the messages say");
        let references: u64 = copies.iter().map(|copy| copy.references).sum();
        let counts = view.counts().unwrap();
        assert_eq!((counts.references, counts.copies), (references, copies.len() as u64));
        self.model.shared += counts.references - counts.copies;
        let array = log.array().expect("it lives");
        for blob in copies.into_iter().map(|copy| copy.blob).chain(named) {
            match read(&array, &blob).await {
                Ok(bytes) => assert_eq!(BlobId::of(&bytes), blob.id),
                Err(ReadError::Unavailable) => {} // servers are away
                Err(error) => panic!("{blob:?} is referred to, and gone: {error}"),
            }
        }
    }

    /// So many messages at once.
    pub(super) async fn accept(&mut self, count: u64) {
        let Some(Relay { log, ledger, .. }) = &self.relay else { return };
        let mut tasks = JoinSet::new();
        for _ in 0..count {
            let number = self.next;
            self.next += 1;
            let len = if self.chance.random_range(0..6) == 0 { 300_000 } else { 3_000 };
            // Every other attachment has come before, or comes again.
            let part = if self.chance.random() { self.chance.random_range(0..3) } else { number };
            let sent = Sent { manifest: bytes(number, 900), part: bytes(part << 32, len) };
            let (id, may_skip) = (message_id(number), self.chance.random());
            self.model.sent.insert(id, sent.clone());
            let relay = (log.clone(), ledger.clone());
            let now = self.now().wall;
            tasks.spawn(async move { (id, take(&relay, id, &sent, may_skip, now).await) });
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

    pub(super) async fn step(&mut self) {
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
                sleep(Duration::from_secs(600)).await;
            }
        }
        self.servers.bury().await;
        if self.relay.is_none() && self.chance.random_range(0..3) != 0 {
            self.start().await;
        }
    }

    /// What the relay's clocks say.
    pub(super) fn now(&self) -> Now {
        let passed = self.servers.clocks().now().0 - NOW.0;
        self.begun.plus(Duration::from_secs(passed))
    }

    /// With everything well again, all of it comes to its end.
    pub(super) async fn finish(&mut self) {
        self.servers.heal().await;
        self.kill().await;
        for _ in 0..50 {
            if self.relay.is_none() {
                assert!(self.start().await, "all servers are there");
            }
            sleep(Duration::from_secs(4_000)).await;
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
        // A view made from the log alone may find one that no view had before, and that nobody was told of.
        let acknowledged = self.model.acknowledged.clone();
        assert!(self.start().await, "all servers are there");
        for (message, refers) in self.relay.as_ref().unwrap().view.messages(None, 1_000).unwrap() {
            assert!(
                !refers || !acknowledged.contains(&message.id),
                "{}: its references are left",
                message.id
            );
        }
        let Model { sent, found, taken, windows, released, .. } = &self.model;
        for id in &acknowledged {
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
