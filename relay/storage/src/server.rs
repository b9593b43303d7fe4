//! A storage server: its units behind a listener (SPEC C2).
//!
//! Who may speak: writers named in the configuration, for their own segments; and servers that share a segment with
//! this one, to pass on appends of that segment along a chain; and servers that a segment's writer allowed to copy it,
//! for that. All are known by the PeerId that their TLS handshake proved, or are in this process. Everyone else is refused at
//! the first request.

mod connection;
mod copying;
mod health;
mod moved;
mod moving;
mod refusals;
mod scrub;
mod tables;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lighter_protocol::{Day, PeerId, UnixTime};
use lighter_transport::Identity;
use lighter_transport::tcp::TcpTls;
use lighter_transport::tls::STORAGE_ALPN;
use rand::rngs::StdRng;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use crate::array::Clock;
use crate::disk::{Disk, RealDisk};
use crate::ids::UnitId;
use crate::limits::{CONNECTIONS_MAX, EXPIRY_INTERVAL, NEWCOMERS_MAX, RECEIVES_MAX, UNITS_MAX};
use crate::link::{Dial, Link};
use crate::local::{Arrival, LocalOrTls, LocalServers};
use crate::objects::{Depot, DepotCounters};
use crate::unit::expiry::ClockWatch;
use crate::unit::worker::UnitHandle;
use crate::unit::{OpenReport, Unit};
pub(crate) use connection::welcome;
use copying::Allowed;
use tables::Readers;

/// What a storage server is made of.
pub struct ServerConfig {
    /// Its key: its PeerId is its name in the array.
    pub identity: Identity,
    /// Where it listens.
    pub listen: SocketAddr,
    /// Its units: folders, each on a disk of its own in earnest.
    pub units: Vec<PathBuf>,
    /// The relays that may write here.
    pub writers: Vec<PeerId>,
    /// Tells the time.
    pub clock: Clock,
    /// Days within which each unit re-reads what it has.
    pub scrub_days: u32,
    /// Where sealed segments are moved. `None`: they stay on their units.
    pub depot: Option<Arc<Depot>>,
    /// Other servers of this process, and where its relay finds this one.
    pub local: LocalServers,
}

/// A running storage server. Dropping it stops it at once, as a crash would.
pub struct StorageServer {
    address: SocketAddr,
    peer: PeerId,
    reports: Vec<OpenReport>,
    shared: Arc<Shared<RealDisk>>,
    tasks: JoinSet<()>,
}

impl StorageServer {
    /// Opens the units and listens.
    ///
    /// # Errors
    /// The disks' and the listener's; [`io::ErrorKind::InvalidInput`] for a configuration without units.
    pub async fn start(config: ServerConfig) -> io::Result<Self> {
        if config.units.is_empty() || config.units.len() > UNITS_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a server has 1 to 256 units"));
        }
        let tls = TcpTls::new(&config.identity, STORAGE_ALPN).map_err(io::Error::other)?;
        let peer = config.identity.peer();
        let mut opening = JoinSet::new();
        for path in config.units {
            let now = (config.clock)();
            opening.spawn_blocking(move || {
                let mut chance: StdRng = rand::make_rng();
                let disk = RealDisk::open(&path);
                let opened = disk.and_then(|disk| Unit::open(disk, peer, now, &mut chance));
                opened.map_err(|error| {
                    io::Error::new(error.kind(), format!("unit in {}: {error}", path.display()))
                })
            });
        }
        let (mut units, mut reports) = (Vec::new(), Vec::new());
        while let Some(opened) = opening.join_next().await {
            let (unit, report) = opened.map_err(io::Error::other)??;
            units.push(unit);
            reports.push(report);
        }
        let listener = TcpListener::bind(config.listen).await?;
        let address = listener.local_addr()?;
        let depot = config.depot;
        for unit in units.iter().filter(|unit| unit.shelf().moved().0 > 0 && depot.is_none()) {
            let (segments, ..) = unit.shelf().moved();
            tracing::error!(unit = %unit.id(), segments, "segments are in an object store, and none is configured");
        }
        let arrivals = config.local.open_door(peer);
        let dial = Arc::new(LocalOrTls { local: config.local, tls: tls.clone() });
        let shared = Shared::with_depot(peer, units, config.writers, config.clock, dial, depot);
        let mut tasks = JoinSet::new();
        // What expired while the server was away is gone before anything is served.
        shared.sweep().await;
        tasks.spawn(expire(Arc::clone(&shared)));
        for unit in shared.units.values() {
            let days = config.scrub_days.max(1);
            tasks.spawn(scrub::scrub_always(Arc::clone(&shared), unit.clone(), days));
            if let Some(depot) = &shared.depot {
                tasks.spawn(moving::move_always(Arc::clone(&shared), unit.clone(), Arc::clone(depot)));
            }
        }
        tasks.spawn(accept(listener, tls, Arc::clone(&shared)));
        tasks.spawn(accept_local(arrivals, Arc::clone(&shared)));
        tracing::info!(%peer, %address, units = reports.len(), "storage server listens");
        Ok(Self { address, peer, reports, shared, tasks })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Who it is.
    pub fn peer(&self) -> PeerId {
        self.peer
    }

    /// What its start found in each unit.
    pub fn reports(&self) -> &[OpenReport] {
        &self.reports
    }

    /// Figures since the start.
    pub fn counters(&self) -> ServerCounters {
        self.shared.counters.read(&self.shared)
    }

    /// Stops taking connections and requests. What was acknowledged is durable anyway.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

/// Figures of a server since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerCounters {
    /// Appends acknowledged.
    pub appends: u64,
    /// Their bytes.
    pub append_bytes: u64,
    /// Of those, appends that were passed on to the next in a chain, and acknowledged for both.
    pub passed_on: u64,
    /// Records read.
    pub reads: u64,
    /// Requests refused.
    pub refused: u64,
    /// Segments that expired.
    pub expired: u64,
    /// Bytes received as copies from other servers.
    pub received_bytes: u64,
    /// Copies adopted.
    pub adopted: u64,
    /// Bytes of sealed segments re-read.
    pub scrubbed_bytes: u64,
    /// Segments in which bad stretches are known now.
    pub damaged: u64,
    /// Segments here now.
    pub segments: u64,
    /// Of those, how many have their records in the object store.
    pub moved_segments: u64,
    /// Their bytes there.
    pub moved_bytes: u64,
    /// The object store's own; zeros where there is none.
    pub depot: DepotCounters,
}

/// What all connections of a server share.
pub(crate) struct Shared<D: Disk> {
    peer: PeerId,
    units: BTreeMap<UnitId, UnitHandle<D>>,
    writers: BTreeSet<PeerId>,
    clock: Clock,
    started: Instant,
    watch: Mutex<ClockWatch>,
    dial: Arc<dyn Dial>,
    /// Links to the next in a chain.
    chains: tokio::sync::Mutex<BTreeMap<PeerId, Arc<Link>>>,
    /// Links to sources of copies: apart, so that no append waits for one.
    sources: tokio::sync::Mutex<BTreeMap<PeerId, Arc<Link>>>,
    /// For requests that copy.
    receives: Semaphore,
    /// Who may read what.
    allowed: Allowed,
    readers: Readers,
    /// Where moved segments are.
    depot: Option<Arc<Depot>>,
    /// For connections whose peer is known.
    places: Arc<Semaphore>,
    counters: Counters,
}

#[derive(Default)]
struct Counters {
    appends: AtomicU64,
    append_bytes: AtomicU64,
    passed_on: AtomicU64,
    reads: AtomicU64,
    refused: AtomicU64,
    expired: AtomicU64,
    received_bytes: AtomicU64,
    adopted: AtomicU64,
    scrubbed_bytes: AtomicU64,
}

impl<D: Disk> Shared<D> {
    /// Must be called within a runtime: the units' workers start here.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn new(
        peer: PeerId,
        units: Vec<Unit<D>>,
        writers: Vec<PeerId>,
        clock: Clock,
        dial: Arc<dyn Dial>,
    ) -> Arc<Self> {
        Self::with_depot(peer, units, writers, clock, dial, None)
    }

    /// With an object store for sealed segments, or none. Must be called within a runtime: the units' workers start here.
    pub(crate) fn with_depot(
        peer: PeerId,
        units: Vec<Unit<D>>,
        writers: Vec<PeerId>,
        clock: Clock,
        dial: Arc<dyn Dial>,
        depot: Option<Arc<Depot>>,
    ) -> Arc<Self> {
        let latest = units.iter().map(Unit::latest).max().unwrap_or(UnixTime(0));
        let units = units.into_iter().map(|unit| (unit.id(), UnitHandle::start(unit))).collect();
        let watch = ClockWatch::new(latest, clock(), Duration::ZERO);
        Arc::new(Self {
            peer,
            units,
            writers: writers.into_iter().collect(),
            clock,
            started: Instant::now(),
            watch: Mutex::new(watch),
            dial,
            chains: tokio::sync::Mutex::default(),
            sources: tokio::sync::Mutex::default(),
            receives: Semaphore::new(RECEIVES_MAX),
            allowed: Allowed::default(),
            readers: Readers::default(),
            depot,
            places: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            counters: Counters::default(),
        })
    }

    /// The time, if it can be believed.
    fn believed(&self) -> Option<UnixTime> {
        let (wall, monotonic) = ((self.clock)(), self.started.elapsed());
        let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        watch.believes(wall, monotonic).then_some(wall)
    }

    /// Whether `day` is over, by a clock that can be believed: what has not been erased yet is not given out then.
    fn is_over(&self, day: Day) -> bool {
        day.end() <= (self.clock)() && self.believed().is_some()
    }

    /// Deletes what has had its day, if the clock can be believed.
    pub(crate) async fn sweep(&self) {
        let Some(wall) = self.believed() else {
            tracing::warn!("the clock is in doubt: nothing expires");
            return;
        };
        for (unit, handle) in &self.units {
            match handle.call(move |unit| unit.sweep(wall)).await {
                Ok(Ok(gone)) => {
                    self.counters.expired.fetch_add(gone, Ordering::Relaxed);
                }
                Ok(Err(error)) => tracing::error!(%unit, %error, "expiry failed"),
                Err(error) => tracing::error!(%unit, %error, "expiry failed"),
            }
        }
    }
}

impl Counters {
    fn read<D: Disk>(&self, shared: &Shared<D>) -> ServerCounters {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ServerCounters {
            appends: get(&self.appends),
            append_bytes: get(&self.append_bytes),
            passed_on: get(&self.passed_on),
            reads: get(&self.reads),
            refused: get(&self.refused),
            expired: get(&self.expired),
            received_bytes: get(&self.received_bytes),
            adopted: get(&self.adopted),
            scrubbed_bytes: get(&self.scrubbed_bytes),
            damaged: shared.units.values().map(|unit| unit.shelf().damaged_count()).sum(),
            segments: shared.units.values().map(|unit| unit.shelf().len() as u64).sum(),
            moved_segments: shared.units.values().map(|unit| unit.shelf().moved().0).sum(),
            moved_bytes: shared.units.values().map(|unit| unit.shelf().moved().1).sum(),
            depot: shared.depot.as_ref().map(|depot| depot.counters()).unwrap_or_default(),
        }
    }
}

pub(crate) async fn expire<D: Disk>(shared: Arc<Shared<D>>) {
    let mut ticks = tokio::time::interval(EXPIRY_INTERVAL);
    loop {
        ticks.tick().await;
        shared.sweep().await;
    }
}

/// Takes connections. Strangers cost little: one that has not yet shown that it may be here is a newcomer, of which
/// there is a bounded number; where there are too many, the one that came first must go. Who has business here is done
/// with handshake and hello in a moment, so that no number of silent ones keeps it out.
async fn accept<D: Disk>(listener: TcpListener, tls: TcpTls, shared: Arc<Shared<D>>) {
    let mut connections = JoinSet::new();
    let mut newcomers: VecDeque<Newcomer> = VecDeque::new();
    loop {
        while connections.try_join_next().is_some() {}
        let socket = match listener.accept().await {
            Ok((socket, _)) => socket,
            Err(error) => {
                // Out of file descriptors, mostly: others are given back in a moment.
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        newcomers.retain(Newcomer::is_one);
        if newcomers.len() >= NEWCOMERS_MAX
            && let Some(first) = newcomers.pop_front()
        {
            first.task.abort();
        }
        let (tls, shared) = (tls.clone(), Arc::clone(&shared));
        let is_welcome = Arc::new(AtomicBool::new(false));
        let welcomed = Arc::clone(&is_welcome);
        let task = connections.spawn(async move {
            match tls.accept(socket).await {
                Ok((stream, peer)) => {
                    if let Some(connection) = welcome(Box::new(stream), peer, &shared).await {
                        welcomed.store(true, Ordering::Relaxed);
                        connection.serve().await;
                    }
                }
                Err(error) => tracing::debug!(%error, "no TLS connection"),
            }
        });
        newcomers.push_back(Newcomer { task, is_welcome });
    }
}

/// Takes connections from within the process.
async fn accept_local<D: Disk>(mut arrivals: mpsc::Receiver<Arrival>, shared: Arc<Shared<D>>) {
    let mut connections = JoinSet::new();
    while let Some(Arrival { stream, peer }) = arrivals.recv().await {
        while connections.try_join_next().is_some() {}
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            if let Some(connection) = welcome(stream, peer, &shared).await {
                connection.serve().await;
            }
        });
    }
}

/// A connection that may turn out to be a stranger's.
struct Newcomer {
    task: AbortHandle,
    is_welcome: Arc<AtomicBool>,
}

impl Newcomer {
    fn is_one(&self) -> bool {
        !self.task.is_finished() && !self.is_welcome.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests;
