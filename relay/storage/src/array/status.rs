//! How an array is: for `status`, metrics and alarms.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lighter_protocol::PeerId;
use tokio::time::Instant;

use super::entry::{Entry, Stage};
use super::heal::HealStatus;
use super::state::Shared;
use crate::ids::{Class, Epoch};
use crate::limits::UNIT_FREE_MIN;
use crate::table::{ServerEntry, ServerState};
use crate::wire::ObjectsHealth;

/// How the array is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArrayStatus {
    /// Its servers, in the order in which they came.
    pub servers: Vec<ServerStatus>,
    /// The version of the table that is in force.
    pub table_version: u64,
    /// The writer's epoch.
    pub epoch: Epoch,
    /// Copies promised.
    pub copies: usize,
    /// After how many of them a write is acknowledged: all, unless mirroring in the background is set (SPEC B12).
    pub acknowledge_after: usize,
    /// Bytes of records that were acknowledged and that some of their copies do not have yet: they are on their way. What a
    /// server that failed lacks is told as `under_replicated`.
    pub behind_bytes: u64,
    /// Servers lost for good whose copies are still being made again.
    pub lacking: usize,
    /// Segments of which fewer good copies are known than promised: an alarm, if for long.
    pub under_replicated: usize,
    /// Segments of each class.
    pub classes: BTreeMap<Class, usize>,
    /// Whether a write would be taken now: enough servers are there, and have room for a new segment. (With less room,
    /// what still fits into an open one is taken.)
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
    /// Copies that are lacking, and how far they are made.
    pub heal: HealStatus,
    /// Servers with copies whose day keys are to be wrapped under another array key.
    pub rewraps_due: usize,
    /// Bytes of records written and acknowledged on all copies since the start, counted once.
    pub written_bytes: u64,
    /// Bytes of blobs read and verified since the start.
    pub read_bytes: u64,
    /// Bytes of dead records given back since the start, counted once for all copies.
    pub thinned_bytes: u64,
}

/// How one server is: what a name server may publish of it, and more (SPEC C7).
// SPEC: C7
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerStatus {
    /// Which one.
    pub peer: PeerId,
    /// As the table has it: path, machine, group, whether it drains.
    pub entry: ServerEntry,
    /// Whether it is connected, fenced and up to date.
    pub live: bool,
    /// It failed or was slow a short while ago: others are preferred.
    pub quarantined: bool,
    /// Requests that it has not answered yet.
    pub queue: usize,
    /// How long half of its writes took, at most. `None` where none were lately.
    pub latency: Option<Duration>,
    /// Segments of which it has a copy, or should have.
    pub segments: u64,
    /// Segments that would have fewer copies than promised without it.
    pub needed: u64,
    /// Bytes of its units' disks, as it said when it was taken in.
    pub total: u64,
    /// Bytes free on them.
    pub free: u64,
    /// Whether one of them has room for a new segment.
    pub has_room: bool,
    /// What of it is in an object store, all units together; `None` where it has none.
    pub objects: Option<ObjectsHealth>,
}

impl Shared {
    pub(super) fn status(&self) -> ArrayStatus {
        let heal = self.heal_status();
        let rewraps_due = self.servers_to_rewrap().len();
        let state = self.state();
        let live = state.live_peers();
        let (now, clock) = (Instant::now(), (self.clock)());
        let facts = state.facts(clock);
        let mut held: BTreeMap<PeerId, u64> = BTreeMap::new();
        let mut classes: BTreeMap<Class, usize> = BTreeMap::new();
        for entry in state.segments.values() {
            *classes.entry(entry.header.class).or_default() += 1;
            entry.holders().for_each(|member| *held.entry(member.peer).or_default() += 1);
        }
        let servers = state.servers.iter().filter_map(|server| {
            let units = server.live.iter().flat_map(|live| &live.units);
            let has_room = units.clone().any(|unit| unit.free >= UNIT_FREE_MIN);
            let (total, free) =
                units.fold((0, 0), |(total, free), unit| (total + unit.total, free + unit.free));
            let peer = server.record.peer;
            let count = |counts: &BTreeMap<PeerId, u64>| counts.get(&peer).copied().unwrap_or(0);
            Some(ServerStatus {
                peer,
                entry: state.table.server(&peer)?.clone(),
                live: live.contains(&peer),
                quarantined: server.health.is_avoided(now),
                queue: server.live.as_ref().map_or(0, |live| live.writes.waiting_len()),
                latency: server.health.latency(now),
                segments: count(&held),
                needed: count(&facts.needed),
                total,
                free,
                has_room,
                objects: server
                    .objects
                    .values()
                    .copied()
                    .filter(|unit| unit.has_store)
                    .reduce(ObjectsHealth::and),
            })
        });
        let servers: Vec<ServerStatus> = servers.collect();
        let takes = |server: &&ServerStatus| {
            server.live && server.has_room && server.entry.state == ServerState::Active
        };
        let is_roomy = servers.iter().filter(takes).count() >= usize::from(state.table.copies);
        let is_unsealed = |stage: Stage| matches!(stage, Stage::Found | Stage::Closing);
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ArrayStatus {
            servers,
            table_version: state.table.version,
            epoch: state.epoch,
            copies: usize::from(state.table.copies),
            acknowledge_after: self.config.acknowledged_after(usize::from(state.table.copies)),
            behind_bytes: state.segments.values().map(Entry::behind).sum(),
            lacking: usize::from(state.table.lacking),
            under_replicated: state.under_replicated(clock),
            classes,
            writable: !self.is_fenced() && is_roomy && state.is_writable(self.config.copies),
            fenced: self.is_fenced(),
            segments: state.segments.len(),
            unsealed: state.segments.values().filter(|entry| is_unsealed(entry.stage)).count(),
            bad_copies: get(&self.counters.bad_copies),
            fallovers: get(&self.counters.fallovers),
            hedged: get(&self.counters.hedged),
            lagging: self.hedges.lagging(),
            rewraps_due,
            went_on: get(&self.counters.went_on),
            heal,
            written_bytes: get(&self.counters.written_bytes),
            read_bytes: get(&self.counters.read_bytes),
            thinned_bytes: get(&self.counters.thinned_bytes),
        }
    }
}
