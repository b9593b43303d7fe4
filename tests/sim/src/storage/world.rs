//! A relay with its array among simulated servers, and the model of what it said.

use std::time::Duration;

use lighter_protocol::BlobId;
use lighter_storage::disk::sim::SimDisk;
use lighter_storage::sim::{Lie, SimServers};
use lighter_storage::{Array, Class, OpenError, ReadError, ReplayAlarms};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::model::{Model, bytes, read, replayed, store};

pub(crate) struct World {
    pub(crate) chance: StdRng,
    pub(crate) servers: SimServers,
    pub(crate) array: Option<Array>,
    pub(crate) model: Model,
    stored: u64,
}

impl World {
    /// So many servers, all well, and a relay that has begun its array.
    pub(crate) async fn new(seed: u64, servers: u8) -> Self {
        let mut world = Self::unopened(seed, servers);
        world.open().await.expect("an array begins where all servers are there");
        world
    }

    /// As [`World::new`], with a relay that acknowledges after the first copy.
    pub(crate) async fn mirrored_later(seed: u64, servers: u8) -> Self {
        let mut world = Self::unopened(seed, servers);
        world.servers.set_acknowledge_after(1);
        world.open().await.expect("an array begins where all servers are there");
        world
    }

    /// As [`World::new`]; the relay has not been there yet.
    pub(crate) fn unopened(seed: u64, servers: u8) -> Self {
        tracing::info!(servers, "a world");
        Self {
            chance: StdRng::seed_from_u64(seed),
            servers: SimServers::new(seed, servers),
            array: None,
            model: Model::default(),
            stored: 0,
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.servers.count()
    }

    /// Some server.
    pub(crate) fn any(&mut self) -> usize {
        let count = self.count();
        self.chance.random_range(0..count)
    }

    /// The array, which is open.
    pub(crate) fn array(&self) -> Array {
        self.array.clone().expect("it is open")
    }

    pub(crate) fn disk(&self, index: usize) -> &SimDisk {
        self.servers.disk(index)
    }

    pub(crate) async fn stop(&mut self, index: usize, power: bool) {
        self.servers.stop(index, power).await;
    }

    pub(crate) fn cut(&self, index: usize) {
        tracing::info!(index, "all its connections break");
        self.servers.net().cut(self.servers.peer(index));
    }

    pub(crate) fn lie(&self, index: usize, lie: Lie) {
        tracing::info!(index, ?lie, "it lies");
        self.servers.net().lie(self.servers.peer(index), lie);
    }

    /// Servers whose disk died start again; all run, and are well.
    pub(crate) async fn heal(&mut self) {
        tracing::info!("all is well");
        self.servers.heal().await;
    }

    /// The relay starts.
    pub(crate) async fn open(&mut self) -> Result<(), OpenError> {
        let opened = self.servers.open().await;
        tracing::info!(error = ?opened.as_ref().err(), "the relay starts");
        self.array = Some(opened?);
        Ok(())
    }

    /// The relay's process ends.
    pub(crate) async fn crash_relay(&mut self) {
        tracing::info!("the relay dies");
        self.array = None;
        tokio::task::yield_now().await;
    }

    /// Stores `count` blobs at once, and takes down what was said of each.
    pub(crate) async fn store(&mut self, count: u64) {
        let Some(array) = self.array.clone() else { return };
        let mut tasks = JoinSet::new();
        for _ in 0..count {
            let len = match self.chance.random_range(0..10) {
                0 => 0,
                1 => self.chance.random_range(250_000..400_000),
                2 if self.stored.is_multiple_of(4) => 1_100_000,
                _ => self.chance.random_range(1..20_000),
            };
            let class = if self.chance.random_range(0..4) == 0 { Class::Days7 } else { Class::Days30 };
            self.begin(&mut tasks, &array, class, len);
        }
        self.take_down(tasks).await;
    }

    /// Begins to store a blob of `len` bytes that is like no other.
    pub(crate) fn begin(&mut self, tasks: &mut Storing, array: &Array, class: Class, len: usize) {
        self.stored += 1;
        let (data, array) = (bytes(self.stored, len), array.clone());
        tasks.spawn(async move {
            let stored = store(&array, class, &data).await;
            let keys = stored.as_ref().map(|(_, blob)| array.data_keys(&blob.location));
            let until = keys.unwrap_or_default().iter().map(|key| key.deletion_day).min();
            (stored.map(|(sequence, blob)| (sequence, blob, until)), data)
        });
    }

    /// Waits for what was begun, and takes down what was said of each.
    pub(crate) async fn take_down(&mut self, tasks: Storing) {
        for (stored, data) in tasks.join_all().await {
            tracing::info!(len = data.len(), stored = ?stored.as_ref().map(|(sequence, ..)| *sequence), "stored");
            match stored {
                Ok((sequence, blob, until)) => self.model.acknowledge(sequence, blob, data, until),
                Err(error) => self.model.refuse(&data, error),
            }
        }
    }

    /// What can be read now is right, and what was acknowledged is not said to be gone; with `all_well`, all of it is
    /// there. For after every step: what is away is not waited for.
    pub(crate) async fn look(&mut self, all_well: bool) {
        let Some(array) = self.array.clone() else { return };
        let now = self.servers.clocks().now();
        let mut reads = JoinSet::new();
        for (sequence, acked) in &self.model.acked {
            let (sequence, blob, array) = (*sequence, acked.blob.clone(), array.clone());
            reads.spawn(async move { (sequence, read(&array, &blob).await) });
        }
        for (sequence, read) in reads.join_all().await {
            self.model.judge(sequence, read, now, all_well);
        }
        match replayed(&array).await {
            Ok((found, alarms)) => {
                // Who takes an old day for a later one misses its records.
                let is_judged = !self.model.clocks_differ;
                assert!(!is_judged || alarms == ReplayAlarms::default(), "the log has gaps: {alarms:?}");
                self.model.judge_log(&found, now);
            }
            Err(error) => assert!(!all_well, "the log cannot be read: {error}"),
        }
    }

    /// Everything acknowledged is in the log and reads right; nothing is there that was surely refused. Servers whose
    /// connections break now and then are waited for.
    pub(crate) async fn check(&mut self) {
        let array = self.array();
        let mut replay = replayed(&array).await;
        for _ in 0..50 {
            if replay.is_ok() {
                break;
            }
            sleep(Duration::from_millis(100)).await;
            replay = replayed(&array).await;
        }
        let (found, alarms) = replay.expect("a replay with a quorum");
        assert_eq!(alarms, ReplayAlarms::default(), "the log has gaps");
        let now = self.servers.clocks().now();
        self.model.judge_log(&found, now);
        for (sequence, acked) in self.model.acked.clone() {
            let read = read(&array, &acked.blob).await;
            self.model.judge(sequence, read, self.servers.clocks().now(), true);
        }
        for (sequence, blob) in found {
            if !self.model.acked.contains_key(&sequence) {
                // It came back, so it counts: from now on it must stay. Its blob is whole, too.
                match read(&array, &blob).await {
                    Ok(data) => {
                        assert_eq!(BlobId::of(&data), blob.id);
                        let until = array.data_keys(&blob.location).iter().map(|key| key.deletion_day).min();
                        self.model.acknowledge(sequence, blob, data, until);
                    }
                    Err(ReadError::Expired) => {}
                    Err(error) => panic!("the blob of a record that came back: {error}"),
                }
            }
        }
    }

    pub(crate) async fn until_writable(&self) {
        let array = self.array();
        for _ in 0..600 {
            if array.status().writable && array.status().unsealed == 0 {
                return;
            }
            sleep(Duration::from_millis(100)).await;
        }
        panic!("not writable again: {:?}", array.status());
    }

    /// Everything is sealed: what was open is, once it was opened again.
    pub(crate) async fn seal_all(&mut self) {
        self.crash_relay().await;
        self.open().await.expect("all servers are there");
        self.until_writable().await;
    }

    /// As many copies as promised of everything, and no more.
    pub(crate) async fn until_healed(&self) {
        // By then the array has asked each unit for its damage.
        sleep(Duration::from_secs(30)).await;
        for _ in 0..1200 {
            sleep(Duration::from_secs(5)).await;
            let status = self.array().status();
            let is_surplus = self.servers.copies().values().any(|copies| copies.len() > 2);
            if status.under_replicated == 0 && status.heal.copies_left == 0 && !is_surplus {
                return;
            }
        }
        panic!("not healed: {:?}", self.array().status());
    }

    /// In the end, with everything well again: all there, on all members, byte for byte.
    pub(crate) async fn finish(&mut self) {
        self.heal().await;
        self.seal_all().await;
        self.check().await;
        self.store(1).await;
        // Closed and opened again, everything is sealed.
        self.seal_all().await;
        self.check().await;
        // Copies that are lacking are made, surplus ones dropped.
        for _ in 0..1000 {
            if self.servers.copies().values().all(|copies| copies.len() == 2) {
                break;
            }
            sleep(Duration::from_secs(5)).await;
        }
        for (name, contents) in self.servers.copies() {
            assert_eq!(contents.len(), 2, "{name} is on two servers");
            assert!(contents[0] == contents[1], "the copies of {name} are byte-identical");
        }
    }
}

/// Blobs on their way: what was said of each, with its deletion day, and its bytes.
pub(crate) type Storing = JoinSet<(super::model::Said, Vec<u8>)>;
