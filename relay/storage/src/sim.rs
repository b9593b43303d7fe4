//! Simulated storage servers for tests of crates above: real units and real servers over simulated disks
//! ([`crate::disk::sim`]) and connections within the process, to be stopped, killed, slowed down and healed.
//!
//! All of it runs in one thread and in virtual time; see [`run`].

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lighter_protocol::{PeerId, UnixTime};
use lighter_transport::Identity;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::task::JoinSet;

use crate::array::{Array, ArrayConfig, Clock, OpenError, ServerRecord};
use crate::disk::sim::SimDisk;
use crate::keys::{ArrayKey, ArrayKeys};
use crate::link::{Dial, Dialing, PeerStream};
use crate::server::{Shared, welcome};
use crate::unit::Unit;

/// The time in every simulation: 2026-11-21, some time in the day.
pub const NOW: UnixTime = UnixTime(1_795_260_000);

/// Bytes that a connection holds on their way.
const PIPE_LEN: usize = 256 * 1024;
/// Filled beforehand: a little, since the disks are in memory.
const FILL_LEN: u64 = 8 * 1024;

/// Servers with a simulated disk each, and the connections to them.
pub struct SimServers {
    chance: StdRng,
    net: Arc<Mutex<Net>>,
    servers: Vec<Server>,
    writer: PeerId,
    keys: ArrayKeys,
}

struct Server {
    peer: PeerId,
    disk: SimDisk,
}

/// Who can be reached, and how slowly.
#[derive(Default)]
struct Net {
    running: BTreeMap<PeerId, Running>,
    delays: BTreeMap<PeerId, Duration>,
}

#[derive(Clone)]
struct Running {
    shared: Arc<Shared<SimDisk>>,
    tasks: Arc<Mutex<JoinSet<()>>>,
}

struct SimDial {
    net: Arc<Mutex<Net>>,
    from: PeerId,
}

impl SimServers {
    /// So many servers, running on empty disks, whose misfortunes are drawn from `seed`.
    pub fn new(seed: u64, count: u8) -> Self {
        let mut chance = StdRng::seed_from_u64(seed);
        let keys = ArrayKey::draw(&mut chance).into();
        let server = |index: u8| Server {
            peer: Identity::generate().peer(),
            disk: SimDisk::new(seed ^ (u64::from(index) << 56)),
        };
        let mut servers = Self {
            chance,
            net: Arc::default(),
            servers: (0..count).map(server).collect(),
            writer: Identity::generate().peer(),
            keys,
        };
        for index in 0..servers.servers.len() {
            servers.start(index);
        }
        servers
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.servers.len()
    }

    /// A server's disk.
    ///
    /// # Panics
    /// Where there is no such server.
    pub fn disk(&self, index: usize) -> &SimDisk {
        &self.servers[index].disk
    }

    /// Starts a server on what its disk holds, if it does not run; whether it runs then.
    ///
    /// # Panics
    /// Where there is no such server.
    pub fn start(&mut self, index: usize) -> bool {
        let Server { peer, disk } = &self.servers[index];
        if lock(&self.net).running.contains_key(peer) {
            return true;
        }
        let Ok((mut unit, _)) = Unit::open(disk.clone(), *peer, NOW, &mut self.chance) else { return false };
        unit.set_fill_len(FILL_LEN);
        let dial = Arc::new(SimDial { net: Arc::clone(&self.net), from: *peer });
        let shared = Shared::new(*peer, vec![unit], vec![self.writer], clock(), dial);
        let running = Running { shared, tasks: Arc::default() };
        lock(&self.net).running.insert(*peer, running);
        true
    }

    /// Ends a server's process; with `power`, its machine loses what was not synced.
    ///
    /// # Panics
    /// Where there is no such server.
    pub async fn stop(&mut self, index: usize, power: bool) {
        let server = &mut self.servers[index];
        let running = lock(&self.net).running.remove(&server.peer);
        server.disk = if power { server.disk.crash() } else { server.disk.restart() };
        if let Some(Running { shared, tasks }) = running {
            let mut tasks = std::mem::take(&mut *lock(&tasks));
            tasks.shutdown().await;
            drop(shared);
        }
        tokio::task::yield_now().await;
    }

    /// From now on, everything that a server answers is late by `delay`: on new connections, and on those that were made
    /// since it was called first. A very long one is a server that hangs.
    ///
    /// # Panics
    /// Where there is no such server.
    pub fn delay(&mut self, index: usize, delay: Duration) {
        lock(&self.net).delays.insert(self.servers[index].peer, delay);
    }

    /// Ends the servers whose disk has died: they are away until they are started.
    pub async fn bury(&mut self) {
        for index in 0..self.servers.len() {
            if self.servers[index].disk.is_dead() {
                self.stop(index, true).await;
            }
        }
    }

    /// All servers run, on disks that do as they are told.
    ///
    /// # Panics
    /// Where a healed disk does not open: that is what tests look for.
    pub async fn heal(&mut self) {
        lock(&self.net).delays.clear();
        for server in &self.servers {
            server.disk.heal();
        }
        self.bury().await;
        for index in 0..self.servers.len() {
            assert!(self.start(index), "a healed disk opens");
        }
    }

    /// The array's keys, as its relay has them.
    pub fn keys(&self) -> &ArrayKeys {
        &self.keys
    }

    /// With these keys the relay starts from now on.
    pub fn set_keys(&mut self, keys: ArrayKeys) {
        self.keys = keys;
    }

    /// A running server re-reads all its sealed segments.
    ///
    /// # Panics
    /// Where there is no such server.
    pub async fn scrub(&self, index: usize) {
        let running = lock(&self.net).running.get(&self.servers[index].peer).cloned();
        if let Some(running) = running {
            // One whose units have stopped finds nothing.
            let _ = running.shared.scrub_round().await;
        }
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
            segment_len_max: 8 * 1024 * 1024,
            ..ArrayConfig::new(seeds.iter().map(|index| self.record(*index)).collect())
        };
        let dial = Arc::new(SimDial { net: Arc::clone(&self.net), from: self.writer });
        let chance = StdRng::seed_from_u64(self.chance.random());
        Array::open_over(config, self.writer, self.keys.clone(), clock(), dial, chance).await
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

impl Dial for SimDial {
    fn dial<'a>(&'a self, server: &'a ServerRecord) -> Dialing<'a> {
        let net = lock(&self.net);
        let found = net.running.get(&server.peer).cloned();
        let is_delayed = net.delays.contains_key(&server.peer);
        let (from, peer, net) = (self.from, server.peer, Arc::clone(&self.net));
        Box::pin(async move {
            let Running { shared, tasks } = found.ok_or(io::ErrorKind::ConnectionRefused)?;
            let (ours, theirs) = duplex(PIPE_LEN);
            let mut tasks = lock(&tasks);
            tasks.spawn(async move {
                if let Some(connection) = welcome(Box::new(theirs), from, &shared).await {
                    connection.serve().await;
                }
            });
            if !is_delayed {
                return Ok(Box::new(ours) as Box<dyn PeerStream>);
            }
            let (near, far) = duplex(PIPE_LEN);
            tasks.spawn(pass_on_late(far, ours, move || {
                lock(&net).delays.get(&peer).copied().unwrap_or_default()
            }));
            Ok(Box::new(near) as Box<dyn PeerStream>)
        })
    }
}

/// Joins the two; what comes from the server comes late.
async fn pass_on_late(client: DuplexStream, server: DuplexStream, delay: impl Fn() -> Duration) {
    let (mut from_client, to_client) = split(client);
    let (from_server, mut to_server) = split(server);
    tokio::select! {
        _ = tokio::io::copy(&mut from_client, &mut to_server) => {}
        _ = copy_late(from_server, to_client, delay) => {}
    }
}

async fn copy_late(
    mut from: ReadHalf<DuplexStream>,
    mut to: WriteHalf<DuplexStream>,
    delay: impl Fn() -> Duration,
) -> io::Result<()> {
    let mut piece = vec![0; PIPE_LEN];
    loop {
        let len = from.read(&mut piece).await?;
        if len == 0 {
            return Ok(());
        }
        let delay = delay();
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        to.write_all(piece.get(..len).unwrap_or_default()).await?;
    }
}

/// Runs a simulation: one thread, and time passes when nothing else is to be done.
///
/// # Panics
/// Where the runtime cannot be made.
pub fn run<F: Future<Output = ()>>(what: F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime without I/O").block_on(what);
}

/// Runs `world` for `count` seeds from 0 on (`LIGHTER_SEEDS`: another number), or for `LIGHTER_SEED` alone; says which
/// seed failed.
pub fn seeds(count: u64, mut world: impl FnMut(u64)) {
    let number = |name: &str| std::env::var(name).ok()?.parse().ok();
    let range = match number("LIGHTER_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("LIGHTER_SEEDS").unwrap_or(count),
    };
    for seed in range {
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world(seed)));
        if let Err(panic) = ran {
            eprintln!("LIGHTER_SEED={seed} runs this one again");
            std::panic::resume_unwind(panic);
        }
    }
}

fn clock() -> Clock {
    Arc::new(|| NOW)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
