//! Simulated storage servers (feature `sim`): real units and real servers over simulated disks ([`crate::disk::sim`]), a
//! simulated net and simulated clocks, to be stopped, killed, cut off, slowed down, set wrong and healed. `cargo sim`
//! (crate `lighter-sim`) and tests of crates above are built on them.
//!
//! All of it runs in one thread and in virtual time (see [`run`]), and is drawn from a seed: the same seed, the same run,
//! to the last step. What ships has none of it: nothing but tests asks for the feature.

mod clocks;
mod lies;
mod net;
mod run;
mod stream;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lighter_protocol::{Keypair, PeerId, UnixTime};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

pub use clocks::Clocks;
pub use lies::Lie;
pub use net::SimNet;
pub use run::{Limits, Stuck, run, run_within, seeds, steps};

use crate::array::{Array, ArrayConfig, OpenError, ServerRecord};
use crate::disk::Disk;
use crate::disk::sim::SimDisk;
use crate::keys::{ArrayKey, ArrayKeys};
use crate::server::{Shared, expire};
use crate::unit::Unit;
use crate::unit::expiry::ClockWatch;
use net::{Running, SimDial};
pub(crate) use run::count_step;

/// When every simulation begins: 2026-11-21, some time in the day.
pub const NOW: UnixTime = UnixTime(1_795_260_000);

/// Filled beforehand: a little, since the disks are in memory.
const FILL_LEN: u64 = 8 * 1024;

/// Servers with a simulated disk each, the net between them and a relay, and all their clocks.
pub struct SimServers {
    chance: StdRng,
    net: Arc<SimNet>,
    clocks: Arc<Clocks>,
    servers: Vec<Server>,
    writer: PeerId,
    keys: ArrayKeys,
    segment_len_max: u64,
    acknowledge_after: Option<usize>,
    given_up: BTreeSet<PeerId>,
}

struct Server {
    peer: PeerId,
    disk: SimDisk,
}

impl SimServers {
    /// So many servers, running on empty disks, whose misfortunes are drawn from `seed`. Within [`run`].
    pub fn new(seed: u64, count: u8) -> Self {
        let mut chance = StdRng::seed_from_u64(seed);
        let keys = ArrayKey::draw(&mut chance).into();
        let writer = peer(&mut chance);
        let servers = (0..count).map(|index| Server {
            peer: peer(&mut chance),
            disk: SimDisk::new(seed ^ (u64::from(index) << 56)),
        });
        let servers: Vec<Server> = servers.collect();
        let (net, clocks) = (Arc::default(), Clocks::new());
        let segment_len_max = 8 * 1024 * 1024;
        let (acknowledge_after, given_up) = (None, BTreeSet::new());
        let mut servers =
            Self { chance, net, clocks, servers, writer, keys, segment_len_max, acknowledge_after, given_up };
        for index in 0..servers.servers.len() {
            servers.start(index);
        }
        servers
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.servers.len()
    }

    /// What lies between them and the relay.
    pub fn net(&self) -> &SimNet {
        &self.net
    }

    /// The time, and what each takes it for.
    pub fn clocks(&self) -> &Arc<Clocks> {
        &self.clocks
    }

    /// The relay.
    pub fn writer(&self) -> PeerId {
        self.writer
    }

    /// A server's name.
    ///
    /// # Panics
    /// Where there is no such server.
    pub fn peer(&self, index: usize) -> PeerId {
        self.servers[index].peer
    }

    /// A server's disk.
    ///
    /// # Panics
    /// Where there is no such server.
    pub fn disk(&self, index: usize) -> &SimDisk {
        &self.servers[index].disk
    }

    /// Puts another disk into a server that does not run.
    ///
    /// # Panics
    /// Where there is no such server, or it runs.
    pub fn replace_disk(&mut self, index: usize, disk: SimDisk) {
        assert!(!self.is_running(index), "disks are replaced while the machine is off");
        self.servers[index].disk = disk;
    }

    /// Whether a server's process runs.
    ///
    /// # Panics
    /// Where there is no such server.
    pub fn is_running(&self, index: usize) -> bool {
        self.net.running(&self.servers[index].peer).is_some()
    }

    /// Starts a server on what its disk holds, if it does not run; whether it runs then.
    ///
    /// # Panics
    /// Where there is no such server.
    pub fn start(&mut self, index: usize) -> bool {
        if self.is_running(index) {
            return true;
        }
        let Server { peer, disk } = &self.servers[index];
        let (peer, clock) = (*peer, self.clocks.clock_of(*peer));
        let now = clock();
        let Ok((mut unit, report)) = Unit::open(disk.clone(), peer, now, &mut self.chance) else {
            return false;
        };
        tracing::info!(index, ?report, "a server starts");
        unit.set_fill_len(FILL_LEN);
        // What expired while the server was away is gone before anything is served.
        if ClockWatch::new(unit.latest(), now, Duration::ZERO).believes(now, Duration::ZERO)
            && let Err(error) = unit.sweep(now)
        {
            tracing::error!(index, %error, "expiry failed");
        }
        let dial = Arc::new(SimDial { net: Arc::downgrade(&self.net), from: peer });
        let shared = Shared::new(peer, vec![unit], vec![self.writer], clock, dial);
        let running = Running { shared: Arc::clone(&shared), tasks: Arc::default() };
        lock(&running.tasks).spawn(expire(shared));
        self.net.has_started(peer, running);
        true
    }

    /// Ends a server's process; with `power`, its machine loses what was not synced.
    ///
    /// # Panics
    /// Where there is no such server.
    pub async fn stop(&mut self, index: usize, power: bool) {
        tracing::info!(index, power, "a server stops");
        let server = &mut self.servers[index];
        let running = self.net.has_stopped(&server.peer);
        server.disk = if power { server.disk.crash() } else { server.disk.restart() };
        if let Some(Running { shared, tasks }) = running {
            let mut tasks = std::mem::take(&mut *lock(&tasks));
            tasks.shutdown().await;
            drop(shared);
        }
        tokio::task::yield_now().await;
    }

    /// From now on, everything that a server answers is late by `delay`. A very long one is a server that hangs.
    ///
    /// # Panics
    /// Where there is no such server.
    pub fn delay(&mut self, index: usize, delay: Duration) {
        self.net.slow(self.servers[index].peer, delay);
    }

    /// Ends the servers whose disk has died: they are away until they are started.
    pub async fn bury(&mut self) {
        for index in 0..self.servers.len() {
            if self.servers[index].disk.is_dead() {
                self.stop(index, true).await;
            }
        }
    }

    /// All servers run, on disks that do as they are told, and everybody reaches everybody and knows the time.
    ///
    /// # Panics
    /// Where a healed disk does not open: that is what tests look for.
    pub async fn heal(&mut self) {
        self.net.open_paths();
        self.clocks.heal();
        for server in &self.servers {
            server.disk.heal();
        }
        self.bury().await;
        for index in 0..self.servers.len() {
            assert!(self.start(index), "a healed disk opens");
        }
        self.net.end_lies();
    }

    /// The array's keys, as its relay has them.
    pub fn keys(&self) -> &ArrayKeys {
        &self.keys
    }

    /// With these keys the relay starts from now on.
    pub fn set_keys(&mut self, keys: ArrayKeys) {
        self.keys = keys;
    }

    /// With segments of at most this length the relay starts from now on.
    pub fn set_segment_len_max(&mut self, len: u64) {
        self.segment_len_max = len;
    }

    /// Acknowledging after so many copies the relay starts from now on; the others are made in the background.
    pub fn set_acknowledge_after(&mut self, copies: usize) {
        self.acknowledge_after = Some(copies);
    }

    /// From now on, the relay starts without waiting for what only that server has.
    ///
    /// # Panics
    /// Where there is no such server.
    pub fn give_up(&mut self, index: usize) {
        self.given_up.insert(self.servers[index].peer);
    }

    /// A running server re-reads all its sealed segments.
    ///
    /// # Panics
    /// Where there is no such server.
    pub async fn scrub(&self, index: usize) {
        let running = self.net.running(&self.servers[index].peer);
        if let Some(running) = running {
            // One whose units have stopped finds nothing.
            let _ = running.shared.scrub_round().await;
        }
    }

    /// The files of segments, with their contents on each running server that has one.
    pub fn copies(&self) -> BTreeMap<String, Vec<Vec<u8>>> {
        let mut copies: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
        for index in (0..self.servers.len()).filter(|index| self.is_running(*index)) {
            let disk = &self.servers[index].disk;
            let names = disk.list().unwrap_or_default().into_iter().filter(|name| name.ends_with(".seg"));
            for name in names {
                let contents = disk.contents(&name);
                copies.entry(name).or_default().push(contents);
            }
        }
        copies
    }

    /// Takes the array over, as a relay does when it starts.
    ///
    /// # Errors
    /// As [`Array::open`].
    pub async fn open(&mut self) -> Result<Array, OpenError> {
        let all: Vec<_> = (0..self.servers.len()).collect();
        self.open_from(&all).await
    }

    /// As [`SimServers::open`], by a relay whose configuration names only these servers.
    ///
    /// # Errors
    /// As [`Array::open`].
    ///
    /// # Panics
    /// Where there is no such server.
    pub async fn open_from(&mut self, seeds: &[usize]) -> Result<Array, OpenError> {
        let config = ArrayConfig {
            segment_len_max: self.segment_len_max,
            acknowledge_after: self.acknowledge_after,
            given_up: self.given_up.clone(),
            ..ArrayConfig::new(seeds.iter().map(|index| self.record(*index)).collect())
        };
        let dial = Arc::new(SimDial { net: Arc::downgrade(&self.net), from: self.writer });
        let chance = StdRng::seed_from_u64(self.chance.random());
        let clock = self.clocks.clock_of(self.writer);
        Array::open_over(config, self.writer, self.keys.clone(), clock, dial, chance).await
    }

    /// A server as tables name it. Its address is never dialled: servers are found by their keys.
    ///
    /// # Panics
    /// Where there is no such server.
    pub fn record(&self, index: usize) -> ServerRecord {
        let port = u16::try_from(index + 1).expect("few servers");
        ServerRecord { peer: self.servers[index].peer, address: ([127, 0, 0, 1], port).into() }
    }
}

/// A name drawn by chance.
fn peer(chance: &mut StdRng) -> PeerId {
    let keypair = Keypair::ed25519_from_bytes(chance.random::<[u8; 32]>()).expect("32 bytes are a key");
    keypair.public().to_peer_id()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
