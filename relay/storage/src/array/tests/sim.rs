//! Simulated servers: the same array, servers and units over simulated disks and connections, all in one thread and in
//! virtual time, driven from a seed. `LIGHTER_SEED=N` runs one seed, `LIGHTER_SEEDS=N` runs so many; with
//! `LIGHTER_TRACE=1` every step and every log line is printed.
//!
//! What is held against the reference model after every run: nothing acknowledged is missing or different; nothing
//! comes back that was surely refused; the chain of the log has no gap; in the end the copies are byte-identical.

mod faults;
mod going_on;
mod healing;
mod whatever;

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use lighter_protocol::Keypair;
use rand::{RngExt, SeedableRng};
use tokio::io::duplex;

use super::*;
use crate::disk::Disk;
use crate::disk::sim::{Fault, SimDisk};
use crate::link::{Dialing, PeerStream};
use crate::server::{self, welcome};
use crate::unit::Unit;
use crate::wire::{Frame, OutFrame, Response};

/// How a connection to a server lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    /// Acknowledges another digest.
    Digest,
    /// Acknowledges another length.
    Length,
    /// Acknowledges twice.
    Twice,
    /// Acknowledges after the writer's patience has ended.
    Late,
    /// Acknowledges nothing.
    Never,
}

impl Lie {
    const ALL: [Self; 5] = [Self::Digest, Self::Length, Self::Twice, Self::Late, Self::Never];
}

struct SimServer {
    peer: PeerId,
    disk: SimDisk,
    running: Option<Running>,
}

#[derive(Clone)]
struct Running {
    shared: Arc<server::Shared<SimDisk>>,
    tasks: Arc<Mutex<JoinSet<()>>>,
}

/// Who can be reached, and how truthfully.
#[derive(Default)]
struct Net {
    servers: BTreeMap<PeerId, Running>,
    lies: BTreeMap<PeerId, Lie>,
}

struct SimDial {
    net: Arc<Mutex<Net>>,
    from: PeerId,
}

impl Dial for SimDial {
    fn dial<'a>(&'a self, server: &'a ServerRecord) -> Dialing<'a> {
        let net = self.net.lock().unwrap();
        let found = net.servers.get(&server.peer).cloned();
        let lie = net.lies.get(&server.peer).copied();
        let from = self.from;
        Box::pin(async move {
            let Running { shared, tasks } = found.ok_or(io::ErrorKind::ConnectionRefused)?;
            let (ours, theirs) = duplex(256 * 1024);
            tasks.lock().unwrap().spawn(async move {
                if let Some(connection) = welcome(Box::new(theirs), from, &shared).await {
                    connection.serve().await;
                }
            });
            let Some(lie) = lie else { return Ok(Box::new(ours) as Box<dyn PeerStream>) };
            let (near, far) = duplex(256 * 1024);
            tasks.lock().unwrap().spawn(tell_lies(far, ours, lie));
            Ok(Box::new(near) as Box<dyn PeerStream>)
        })
    }
}

async fn tell_lies(writer: tokio::io::DuplexStream, server: tokio::io::DuplexStream, lie: Lie) {
    let (mut from_writer, mut to_writer) = tokio::io::split(writer);
    let (mut from_server, mut to_server) = tokio::io::split(server);
    let requests = async { tokio::io::copy(&mut from_writer, &mut to_server).await.map(|_| ()) };
    let answers = async {
        while let Ok(frame) = Frame::read(&mut from_server).await {
            let mut response: Response = frame.decode().unwrap();
            let mut times = 1;
            if let Response::Appended { keys, digest } = &mut response {
                match lie {
                    Lie::Digest => *digest ^= 1,
                    Lie::Length => keys[0].length += 16,
                    Lie::Twice => times = 2,
                    Lie::Late => tokio::time::sleep(Duration::from_secs(15)).await,
                    Lie::Never => times = 0,
                }
            }
            let answer = OutFrame::new(frame.id, &response, vec![frame.data]).unwrap();
            for _ in 0..times {
                answer.write(&mut to_writer).await?;
            }
        }
        Ok::<(), io::Error>(())
    };
    tokio::select! { _ = requests => {}, _ = answers => {} }
}

/// What must be true.
#[derive(Default)]
struct Model {
    /// Acknowledged, with the bytes.
    acked: BTreeMap<Sequence, (StoredBlob, Vec<u8>)>,
    /// What may come back: blobs whose record was in doubt.
    in_doubt: BTreeSet<[u8; 32]>,
}

struct World {
    chance: StdRng,
    net: Arc<Mutex<Net>>,
    servers: Vec<SimServer>,
    relay: PeerId,
    key: ArrayKey,
    array: Option<Array>,
    model: Model,
    stored: u64,
    trace: bool,
}

fn peer(seed: u8) -> PeerId {
    Keypair::ed25519_from_bytes([seed; 32]).unwrap().public().to_peer_id()
}

fn clock() -> Clock {
    Arc::new(|| NOW)
}

impl World {
    fn new(seed: u64, servers: u8) -> Self {
        let server = |index: u8| SimServer {
            peer: peer(index + 2),
            disk: SimDisk::new(seed ^ u64::from(index) << 56),
            running: None,
        };
        let trace = std::env::var_os("LIGHTER_TRACE").is_some();
        if trace {
            let _ = tracing_subscriber::fmt().with_test_writer().without_time().with_ansi(false).try_init();
        }
        let mut chance = StdRng::seed_from_u64(seed);
        let key = ArrayKey::draw(&mut chance);
        Self {
            chance,
            net: Arc::default(),
            servers: (0..servers).map(server).collect(),
            relay: peer(1),
            key,
            array: None,
            model: Model::default(),
            stored: 0,
            trace,
        }
    }

    fn say(&self, what: impl std::fmt::Debug) {
        if self.trace {
            println!("{what:?}");
        }
    }

    /// Starts a server on what its disk holds; `false` where the disk fails at once.
    fn start_server(&mut self, index: usize) -> bool {
        let server = &mut self.servers[index];
        let opened = Unit::open(server.disk.clone(), server.peer, NOW, &mut self.chance);
        let Ok((mut unit, report)) = opened else { return false };
        self.say(("start", index, report));
        let server = &mut self.servers[index];
        unit.set_fill_len(8 * 1024);
        let dial = Arc::new(SimDial { net: Arc::clone(&self.net), from: server.peer });
        let shared = server::Shared::new(server.peer, vec![unit], vec![self.relay], clock(), dial);
        let tasks = Arc::new(Mutex::new(JoinSet::new()));
        let running = Running { shared, tasks };
        self.net.lock().unwrap().servers.insert(server.peer, running.clone());
        server.running = Some(running);
        true
    }

    /// Ends a server's process; with `power`, its machine loses what was not synced.
    async fn stop_server(&mut self, index: usize, power: bool) {
        self.say(("stop", index, power));
        let server = &mut self.servers[index];
        self.net.lock().unwrap().servers.remove(&server.peer);
        server.disk = if power { server.disk.crash() } else { server.disk.restart() };
        if let Some(Running { shared, tasks }) = server.running.take() {
            let mut tasks = std::mem::take(&mut *tasks.lock().unwrap());
            tasks.shutdown().await;
            drop(shared);
        }
        tokio::task::yield_now().await;
    }

    /// All connections to a server break.
    fn cut(&self, index: usize) {
        self.say(("cut", index));
        if let Some(running) = &self.servers[index].running {
            running.tasks.lock().unwrap().abort_all();
        }
    }

    /// From now on, what a server acknowledges arrives otherwise than it was said.
    fn lie(&self, index: usize, lie: Lie) {
        self.say(("lie", index, lie));
        self.net.lock().unwrap().lies.insert(self.servers[index].peer, lie);
        self.cut(index);
    }

    /// Servers whose disk died are gone; the others run, and all are well.
    async fn heal(&mut self) {
        for index in 0..self.servers.len() {
            self.servers[index].disk.heal();
            if self.servers[index].disk.is_dead() {
                self.stop_server(index, true).await;
            }
            while self.servers[index].running.is_none() {
                assert!(self.start_server(index), "a healed disk opens");
            }
        }
        let lies = std::mem::take(&mut self.net.lock().unwrap().lies);
        for index in 0..self.servers.len() {
            if lies.contains_key(&self.servers[index].peer) {
                self.cut(index);
            }
        }
    }

    fn config(&self) -> ArrayConfig {
        let record =
            |server: &SimServer| ServerRecord { peer: server.peer, address: "127.0.0.1:1".parse().unwrap() };
        ArrayConfig {
            segment_len_max: 8 * 1024 * 1024,
            write_time_max: Duration::from_secs(10),
            ..ArrayConfig::new(self.servers.iter().map(record).collect())
        }
    }

    async fn open(&mut self) -> Result<(), OpenError> {
        let dial = Arc::new(SimDial { net: Arc::clone(&self.net), from: self.relay });
        let chance = StdRng::seed_from_u64(self.chance.random());
        let opened =
            Array::open_over(self.config(), self.relay, self.key.clone(), clock(), dial, chance).await;
        self.say(("open", opened.as_ref().err()));
        self.array = Some(opened?);
        Ok(())
    }

    /// The relay's process ends.
    async fn crash_relay(&mut self) {
        self.say("relay crashes");
        self.array = None;
        tokio::task::yield_now().await;
    }

    /// Stores `count` blobs at once, and takes down what was said of each.
    async fn store(&mut self, count: u64) {
        let Some(array) = self.array.clone() else { return };
        let mut tasks = JoinSet::new();
        for _ in 0..count {
            self.stored += 1;
            let len = match self.chance.random_range(0..10) {
                0 => 0,
                1 => self.chance.random_range(250_000..400_000),
                2 if self.stored.is_multiple_of(4) => 1_100_000,
                _ => self.chance.random_range(1..20_000),
            };
            let data = bytes(self.stored, len);
            let class = if self.chance.random_range(0..4) == 0 { Class::Days7 } else { Class::Days30 };
            let array = array.clone();
            tasks.spawn(async move {
                let result = store(&array, class, &data).await;
                (result, data)
            });
        }
        for (result, data) in tasks.join_all().await {
            self.say(("stored", data.len(), result.as_ref().map(|(sequence, _)| *sequence)));
            match result {
                Ok((sequence, blob)) => {
                    assert!(self.model.acked.insert(sequence, (blob, data)).is_none());
                }
                Err(error) if error.is_certain() => {}
                Err(_) => {
                    self.model.in_doubt.insert(BlobId::of(&data).0);
                }
            }
        }
    }

    /// Everything acknowledged is in the log and reads right; nothing is there that was surely refused.
    async fn check(&mut self) {
        let array = self.array.clone().unwrap();
        let mut replay = replayed(&array).await;
        for _ in 0..50 {
            if replay.is_ok() {
                break;
            }
            // A server whose connections break now and then is there again in a moment.
            tokio::time::sleep(Duration::from_millis(100)).await;
            replay = replayed(&array).await;
        }
        let (found, alarms) = replay.expect("a replay with a quorum");
        assert_eq!(alarms, ReplayAlarms::default());
        let found: BTreeMap<_, _> = found.into_iter().collect();
        for (sequence, (blob, data)) in &self.model.acked {
            assert_eq!(found.get(sequence), Some(blob), "an acknowledged record is lost");
            let all = read(&array, blob).await;
            assert!(all.as_ref() == Ok(data), "{sequence:?}: {:?}", all.map(|all| all.len()));
        }
        for (sequence, blob) in &found {
            if !self.model.acked.contains_key(sequence) {
                assert!(self.model.in_doubt.contains(&blob.id.0), "a refused record came back");
                // It came back, so it counts: from now on it must stay. Its blob is whole, too.
                let data = read(&array, blob).await.expect("the blob of a record that came back");
                assert_eq!(BlobId::of(&data), blob.id);
                self.model.acked.insert(*sequence, (blob.clone(), data));
            }
        }
    }

    async fn until_writable(&self) {
        let array = self.array.as_ref().unwrap();
        for _ in 0..600 {
            if array.status().writable && array.status().unsealed == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("not writable again: {:?}", array.status());
    }

    /// The files of segments, and their contents on each running server that has one.
    fn copies(&self) -> BTreeMap<String, Vec<Vec<u8>>> {
        let mut copies: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
        for server in self.servers.iter().filter(|server| server.running.is_some()) {
            for name in server.disk.list().unwrap().into_iter().filter(|name| name.ends_with(".seg")) {
                let contents = server.disk.contents(&name);
                copies.entry(name).or_default().push(contents);
            }
        }
        copies
    }

    /// In the end, with everything well again: all there, on all members, byte for byte.
    async fn finish(&mut self) {
        self.heal().await;
        self.crash_relay().await;
        self.open().await.expect("all servers are there");
        self.until_writable().await;
        self.check().await;
        self.store(1).await;
        // Closed and opened again, everything is sealed.
        self.crash_relay().await;
        self.open().await.expect("all servers are there");
        self.until_writable().await;
        self.check().await;
        // Copies that are lacking are made, surplus ones dropped.
        for _ in 0..1000 {
            if self.copies().values().all(|copies| copies.len() == 2) {
                break;
            }
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
        let copies = self.copies();
        for (name, contents) in copies {
            assert_eq!(contents.len(), 2, "{name} is on two servers");
            assert!(contents[0] == contents[1], "the copies of {name} are byte-identical");
        }
    }
}

fn run<F: Future<Output = ()>>(what: F) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(what);
}

/// Runs `world` for many seeds, or for the one in `LIGHTER_SEED`; says which seed failed.
fn seeds(default_count: u64, mut world: impl FnMut(u64)) {
    if let Some(seed) = std::env::var("LIGHTER_SEED").ok().and_then(|seed| seed.parse().ok()) {
        return world(seed);
    }
    let count =
        std::env::var("LIGHTER_SEEDS").ok().and_then(|count| count.parse().ok()).unwrap_or(default_count);
    for seed in 0..count {
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world(seed)));
        if let Err(panic) = ran {
            println!("LIGHTER_SEED={seed} LIGHTER_TRACE=1 replays this");
            std::panic::resume_unwind(panic);
        }
    }
}
