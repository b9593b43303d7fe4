//! What the array's tasks share: the servers, the table of segments, the epoch and the next sequence number.
//!
//! One mutex holds all that changes; nothing waits while it is held. Who changes what:
//! - a server's *keeper* (`join`) says whether it is live, and what its copies are;
//! - a class's *lane* (`lane`) owns the segment that it writes: opens it, moves its length, gives it up;
//! - the *settler* (`settle`) owns every segment that no lane writes any more, until it is sealed on all members.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lighter_protocol::PeerId;
use rand::rngs::StdRng;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::entry::{Entry, Stage};
use super::fellows::Fellows;
use super::heal::Healing;
use super::health::Health;
use super::hedge::Hedges;
use super::rewrap::Rewraps;
use super::{ArrayConfig, Clock, ServerRecord};
use crate::ids::{Class, Epoch, SegmentId, Sequence, UnitId};
use crate::keys::ArrayKeys;
use crate::limits::{CLOSED_MAX, UNIT_FREE_MIN};
use crate::link::{Dial, Link};
use crate::location::RecordPlace;
use crate::placing::{Candidate, PlacingError, Policy, Rules, Turns, choose};
use crate::sealing;
use crate::segment::RECORDS_AT;
use crate::segment::header::{Closed, Member, SegmentHeader};
use crate::table::{ServerState, Stamp, Table};
use crate::watch;
use crate::wire::{ObjectsHealth, SegmentInfo, Target, UnitInfo};

/// What the array's tasks share.
pub(super) struct Shared {
    pub(super) config: ArrayConfig,
    /// The writer: this relay.
    pub(super) peer: PeerId,
    pub(super) keys: Mutex<ArrayKeys>,
    pub(super) clock: Clock,
    pub(super) dial: Arc<dyn Dial>,
    chance: Mutex<StdRng>,
    state: Mutex<State>,
    healing: Mutex<Healing>,
    /// Something changed that the settler may want to act upon.
    pub(super) changed: Notify,
    /// A server was taken in.
    pub(super) joined: Notify,
    /// One change of the table at a time.
    pub(super) changing: tokio::sync::Mutex<()>,
    /// The table that is in force has changed.
    pub(super) table_changed: watch::Sender<Stamp>,
    /// There may be day keys to be wrapped anew; a server has been seen to.
    pub(super) rewrap_due: Notify,
    pub(super) rewrapped: Notify,
    /// Another writer has taken over.
    fenced: AtomicBool,
    pub(super) counters: Counters,
    /// Who is asked first, and when the next is asked as well.
    pub(super) hedges: Arc<Hedges>,
    /// Where segments of other relays are.
    pub(super) fellows: Fellows,
}

#[derive(Default)]
pub(super) struct Counters {
    pub(super) fallovers: AtomicU64,
    pub(super) hedged: AtomicU64,
    pub(super) bad_copies: AtomicU64,
    pub(super) went_on: AtomicU64,
    pub(super) copies_made: AtomicU64,
    pub(super) copy_bytes: AtomicU64,
    pub(super) copies_dropped: AtomicU64,
    pub(super) thinned_bytes: AtomicU64,
    pub(super) written_bytes: AtomicU64,
    pub(super) read_bytes: AtomicU64,
}

pub(super) struct State {
    pub(super) epoch: Epoch,
    next_sequence: Sequence,
    /// The table that is in force.
    pub(super) table: Arc<Table>,
    /// As in the table.
    pub(super) servers: Vec<Server>,
    /// Who was chosen when.
    turns: Turns,
    pub(super) segments: BTreeMap<SegmentId, Entry>,
    /// What the next catalog record of each class links to.
    pub(super) tails: BTreeMap<Class, sealing::Link>,
    /// Segments of which a member may have more than counts: the header of each new segment closes them, until that of
    /// one that stays as long does, or they are settled.
    pub(super) blockers: BTreeSet<SegmentId>,
    /// Where the records lie that were placed in a segment at a length or above, and are not there.
    pub(super) continued: BTreeMap<SegmentId, Continued>,
    /// Servers that are not in the table, and that this instance has fenced all the same: adding them came to nothing.
    pub(super) fenced_besides: BTreeSet<PeerId>,
    /// A chain broke: groups go to each member directly until then.
    pub(super) chain_after: Option<Instant>,
    /// Where day keys are to be wrapped anew.
    pub(super) rewraps: Rewraps,
}

/// A server, as the array knows it now.
pub(super) struct Server {
    pub(super) record: ServerRecord,
    /// Present while it is connected, fenced and listed.
    pub(super) live: Option<Live>,
    /// This instance has fenced it: a higher epoch there now is a successor's.
    pub(super) was_fenced: bool,
    /// When it was last there; the start, where it never was.
    pub(super) last_seen: Instant,
    /// What waited at each unit when it was asked last.
    pub(super) queues: BTreeMap<UnitId, u32>,
    /// What of its units is in an object store, as they said last.
    pub(super) objects: BTreeMap<UnitId, ObjectsHealth>,
    /// How well it does: who fails is left alone for a while, who is slow has failed.
    pub(super) health: Health,
}

/// See [`State::continued`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Continued {
    pub(super) length: u64,
    pub(super) segment: SegmentId,
}

/// A connected server: one connection for changes, one for reading, so that neither waits for the other.
#[derive(Clone)]
pub(super) struct Live {
    pub(super) writes: Arc<Link>,
    pub(super) reads: Arc<Link>,
    pub(super) units: Vec<UnitInfo>,
}

impl Live {
    pub(super) fn is_closed(&self) -> bool {
        self.writes.is_closed() || self.reads.is_closed()
    }

    pub(super) fn close(&self) {
        self.writes.close();
        self.reads.close();
    }
}

impl Shared {
    pub(super) fn new(
        config: ArrayConfig,
        peer: PeerId,
        keys: ArrayKeys,
        clock: Clock,
        dial: Arc<dyn Dial>,
        chance: StdRng,
    ) -> Self {
        let state = State {
            epoch: Epoch(0),
            next_sequence: Sequence::ZERO,
            table: Arc::new(config.first_table()),
            servers: Vec::new(),
            turns: Turns::default(),
            segments: BTreeMap::new(),
            tails: BTreeMap::new(),
            blockers: BTreeSet::new(),
            continued: BTreeMap::new(),
            fenced_besides: BTreeSet::new(),
            chain_after: None,
            rewraps: Rewraps::new(&keys),
        };
        Self {
            config,
            peer,
            keys: Mutex::new(keys),
            clock,
            dial,
            chance: Mutex::new(chance),
            state: Mutex::new(state),
            healing: Mutex::default(),
            changed: Notify::new(),
            joined: Notify::new(),
            changing: tokio::sync::Mutex::new(()),
            table_changed: watch::Sender::new(Stamp::default()),
            rewrap_due: Notify::new(),
            rewrapped: Notify::new(),
            fenced: AtomicBool::new(false),
            counters: Counters::default(),
            hedges: Arc::default(),
            fellows: Fellows::default(),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn chance(&self) -> MutexGuard<'_, StdRng> {
        self.chance.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn healing(&self) -> MutexGuard<'_, Healing> {
        self.healing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_fenced(&self) -> bool {
        self.fenced.load(Ordering::Relaxed)
    }

    /// A successor has taken over: this instance writes nothing any more.
    pub(super) fn set_fenced(&self) {
        if !self.fenced.swap(true, Ordering::Relaxed) {
            tracing::error!("another writer has taken the array over");
        }
    }

    /// Ends all connections.
    pub(super) fn disconnect(&self) {
        for server in &mut self.state().servers {
            if let Some(live) = server.live.take() {
                live.close();
            }
        }
    }

    pub(super) fn count_bad_copy(&self, segment: SegmentId, server: PeerId, what: &'static str) {
        self.counters.bad_copies.fetch_add(1, Ordering::Relaxed);
        tracing::error!(%segment, %server, what, "a copy is not as it should be");
    }
}

impl State {
    /// Makes `epoch` the present one: all numbers from here on are ahead of everything written under an older one.
    pub(super) fn set_epoch(&mut self, epoch: Epoch) {
        self.epoch = epoch;
        // What is in force is in force under our epoch: nothing that an earlier writer had begun comes back.
        Arc::make_mut(&mut self.table).epoch = epoch;
        self.next_sequence = self.next_sequence.max(Sequence::first_of(epoch));
    }

    /// Puts `table` in force: servers that are no more in it are let go, new ones are to be joined.
    pub(super) fn put_in_force(&mut self, table: Table) {
        for server in self.servers.extract_if(.., |server| table.server(&server.record.peer).is_none()) {
            if let Some(live) = server.live {
                live.close();
            }
        }
        for entry in &table.servers {
            match self.server_mut(&entry.peer) {
                Some(server) => server.record = entry.record(),
                None => {
                    self.rewraps.see_server(entry.peer);
                    self.servers.push(Server {
                        record: entry.record(),
                        live: None,
                        was_fenced: false,
                        last_seen: Instant::now(),
                        queues: BTreeMap::new(),
                        objects: BTreeMap::new(),
                        health: Health::default(),
                    });
                }
            }
        }
        self.table = Arc::new(table);
    }

    pub(super) fn next_sequence(&mut self) -> Sequence {
        self.next_sequence = self.next_sequence.next();
        self.next_sequence
    }

    pub(super) fn server(&self, peer: &PeerId) -> Option<&Server> {
        self.servers.iter().find(|server| server.record.peer == *peer)
    }

    pub(super) fn server_mut(&mut self, peer: &PeerId) -> Option<&mut Server> {
        self.servers.iter_mut().find(|server| server.record.peer == *peer)
    }

    /// Whether a server is to have nothing in the end.
    pub(super) fn is_draining(&self, peer: &PeerId) -> bool {
        self.table.server(peer).is_none_or(|server| server.state == ServerState::Draining)
    }

    pub(super) fn live(&self, peer: &PeerId) -> Option<&Live> {
        self.server(peer)?.live.as_ref().filter(|live| !live.is_closed())
    }

    pub(super) fn live_peers(&self) -> Vec<PeerId> {
        let is_live = |server: &&Server| server.live.as_ref().is_some_and(|live| !live.is_closed());
        self.servers.iter().filter(is_live).map(|server| server.record.peer).collect()
    }

    pub(super) fn target(&self, writer: PeerId, segment: SegmentId, member: &Member) -> Target {
        Target { unit: member.unit, segment, writer, epoch: self.epoch }
    }

    /// Members for a new segment of `writer`, as the policy and the table say. Those that failed a short time ago are
    /// taken only where there are no others.
    pub(super) fn pick_members(
        &mut self,
        writer: &PeerId,
        policy: Policy,
        now: Instant,
        chance: &mut StdRng,
    ) -> Result<Vec<Member>, PlacingError> {
        let table = Arc::clone(&self.table);
        let mut candidates = Vec::new();
        for server in &self.servers {
            let live = server.live.as_ref().filter(|live| !live.is_closed());
            let (Some(live), Some(entry)) = (live, table.server(&server.record.peer)) else { continue };
            let (on_their_way, latency) = (live.writes.waiting_len(), server.health.latency(now));
            for unit in &live.units {
                let member = Member { peer: entry.peer, unit: unit.unit };
                let queue = server.queues.get(&unit.unit).copied().unwrap_or(0) as usize + on_their_way;
                candidates.push(Candidate {
                    server: entry,
                    unit: unit.unit,
                    total: unit.total,
                    free: unit.free,
                    queue,
                    // One of which nothing is known is tried.
                    latency: latency.unwrap_or_default(),
                    quarantined_for: server.health.avoided_for(now),
                    last_chosen: self.turns.last(&member),
                });
            }
        }
        let rules = Rules {
            policy,
            allowed_together: &table.allowed_together,
            mirrors: table.mirrors_of(writer),
            room_min: UNIT_FREE_MIN,
        };
        let members = choose(&candidates, &rules, usize::from(table.copies), chance)?;
        self.turns.took(&members);
        Ok(members)
    }

    /// Whether a segment may take more: none of its members drains, is no more, or is not where its writer's copies
    /// are to be.
    pub(super) fn lets(&self, header: &SegmentHeader) -> bool {
        let mirrors = self.table.mirrors_of(&header.writer);
        let takes = |member: &Member| {
            let server = self.table.server(&member.peer);
            server.is_some_and(|server| server.state == ServerState::Active)
                && (mirrors.is_empty() || mirrors.iter().any(|place| place.has(member)))
        };
        header.members.iter().all(takes)
    }

    /// Whether a segment could be opened: enough servers, and not more to close than its header can say.
    pub(super) fn is_writable(&self, copies: usize) -> bool {
        self.blockers.len() < CLOSED_MAX && self.live_peers().len() >= copies
    }

    /// What the header of a new segment closes: everything of which a member may have more, and, with their records
    /// going on in the new one, `unfinished`.
    pub(super) fn to_close(&self, unfinished: &[Closed]) -> Vec<Closed> {
        let is_unfinished = |segment: &SegmentId| unfinished.iter().any(|closed| closed.segment == *segment);
        let others = self.blockers.iter().filter(|segment| !is_unfinished(segment)).filter_map(|segment| {
            let length = self.segments.get(segment)?.length;
            Some(Closed { segment: *segment, length, goes_on: false })
        });
        unfinished.iter().copied().chain(others).collect()
    }

    /// A segment has records: it stays until its day, and so what its header says of others that go no later.
    pub(super) fn keep_closed(&mut self, header: &SegmentHeader) {
        for closed in &header.closed {
            let day = self.segments.get(&closed.segment).map(|entry| entry.header.deletion_day);
            if day.is_none_or(|day| day <= header.deletion_day) {
                self.blockers.remove(&closed.segment);
            }
        }
    }

    /// Where a record lies that was given that place: it may have been placed again, as its segment was closed below.
    pub(super) fn resolve(&self, mut place: RecordPlace) -> RecordPlace {
        while let Some(next) = self.continued.get(&place.segment)
            && place.offset >= next.length
        {
            place.offset = place.offset - next.length + RECORDS_AT;
            place.segment = next.segment;
        }
        place
    }

    /// Units that have a copy, or may have one, to be read. A member whose copy was dropped, as there were others, is none
    /// of them: who is there and has none said so.
    pub(super) fn holders_to_read(&self, entry: &Entry) -> Vec<Member> {
        let has_none = |holder: &Member| {
            entry.stage == Stage::Settled && entry.copy(holder).is_none() && self.live(&holder.peer).is_some()
        };
        let holders: Vec<Member> = entry.holders().filter(|holder| !has_none(holder)).collect();
        if holders.is_empty() { entry.holders().collect() } else { holders }
    }

    /// Whether there are so many live servers that did not fail of late.
    pub(super) fn has_others(&self, count: usize, now: Instant) -> bool {
        let well = |server: &&Server| {
            let entry = self.table.server(&server.record.peer);
            server.live.as_ref().is_some_and(|live| !live.is_closed())
                && !server.health.is_avoided(now)
                && entry.is_some_and(|entry| entry.state == ServerState::Active)
        };
        self.servers.iter().filter(well).count() >= count
    }

    /// How long the members of a segment may take for a write: where others could take their place, three times what
    /// they usually take.
    pub(super) fn patience(&self, members: &[Member], config: &ArrayConfig, now: Instant) -> Duration {
        if !self.has_others(config.copies + 1, now) {
            return config.write_time_max;
        }
        let usual = members.iter().filter_map(|member| self.server(&member.peer));
        let usual = usual.map(|server| server.health.usual()).max().unwrap_or_default();
        (usual * 3).clamp(config.write_time_min, config.write_time_max)
    }

    /// Takes in what a unit says of its copy of a segment.
    pub(super) fn see_copy(
        &mut self,
        holder: Member,
        header: SegmentHeader,
        info: SegmentInfo,
        keys: &ArrayKeys,
    ) {
        let segment = header.segment;
        // The header that was seen first counts; copies that differ in it are told when they are settled.
        if let Some(entry) = self.segments.get_mut(&segment) {
            entry.see_copy(holder, info);
            return;
        }
        let day_key = header
            .day_key
            .as_ref()
            .and_then(|wrapped| keys.unwrap_day_key(header.deletion_day, wrapped))
            .map(|(key, _)| Arc::new(key));
        let mut entry = Entry {
            copies: vec![None; header.members.len()],
            moved: BTreeMap::new(),
            header: Arc::new(header),
            day_key,
            length: RECORDS_AT,
            on_all: RECORDS_AT,
            is_decided: false,
            stage: Stage::Found,
        };
        entry.see_copy(holder, info);
        self.segments.insert(segment, entry);
    }
}
