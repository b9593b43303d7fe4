//! How an array is: for `status`, metrics and alarms.

use std::sync::atomic::{AtomicU64, Ordering};

use lighter_protocol::PeerId;

use super::state::{Shared, Stage};

/// How the array is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArrayStatus {
    /// Its servers, in the order of the configuration.
    pub servers: Vec<ServerStatus>,
    /// Whether a write would be taken now.
    pub writable: bool,
    /// Whether another writer has taken the array over: this one must be stopped.
    pub fenced: bool,
    /// Segments known.
    pub segments: usize,
    /// Segments not written any more that wait to be sealed, mostly for a server that is away.
    pub unsealed: usize,
    /// How often a copy was found missing, damaged or different.
    pub bad_copies: u64,
    /// Reads that were answered from another copy than the first one asked, because that was wrong, missing or away.
    pub fallovers: u64,
    /// Reads for which another copy was asked as well, because the one asked first took too long.
    pub hedged: u64,
    /// Servers that were overtaken and have not answered quickly since: others are read from first.
    pub lagging: usize,
    /// Segments that were closed since a member failed while writing, and gone on with in another.
    pub went_on: u64,
    /// Bytes of records written and acknowledged on all copies since the start, counted once.
    pub written_bytes: u64,
    /// Bytes of blobs read and verified since the start.
    pub read_bytes: u64,
}

/// How one server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerStatus {
    /// Which one.
    pub peer: PeerId,
    /// Whether it is connected, fenced and up to date.
    pub live: bool,
    /// Bytes of its units' disks, as it said when it was taken in.
    pub total: u64,
    /// Bytes free on them.
    pub free: u64,
}

impl Shared {
    pub(super) fn status(&self) -> ArrayStatus {
        let state = self.state();
        let live = state.live_peers();
        let servers = state.servers.iter().map(|server| {
            let units = server.live.iter().flat_map(|live| &live.units);
            let (total, free) =
                units.fold((0, 0), |(total, free), unit| (total + unit.total, free + unit.free));
            let peer = server.record.peer;
            ServerStatus { peer, live: live.contains(&peer), total, free }
        });
        let is_unsealed = |stage: Stage| matches!(stage, Stage::Found | Stage::Closing);
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ArrayStatus {
            servers: servers.collect(),
            writable: !self.is_fenced() && state.is_writable(self.config.copies),
            fenced: self.is_fenced(),
            segments: state.segments.len(),
            unsealed: state.segments.values().filter(|entry| is_unsealed(entry.stage)).count(),
            bad_copies: get(&self.counters.bad_copies),
            fallovers: get(&self.counters.fallovers),
            hedged: get(&self.counters.hedged),
            lagging: self.hedges.lagging(),
            went_on: get(&self.counters.went_on),
            written_bytes: get(&self.counters.written_bytes),
            read_bytes: get(&self.counters.read_bytes),
        }
    }
}
