//! What the array's tasks share: the servers, the table of segments, the epoch and the next sequence number.
//!
//! One mutex holds all that changes; nothing waits while it is held. Who changes what:
//! - a server's *keeper* (`join`) says whether it is live, and what its copies are;
//! - a class's *lane* (`lane`) owns the segment that it writes: opens it, moves its length, gives it up;
//! - the *settler* (`settle`) owns every segment that no lane writes any more, until it is sealed on all members.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lighter_protocol::PeerId;
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::hedge::Hedges;
use super::{ArrayConfig, Clock, ServerRecord};
use crate::ids::{Class, Epoch, SegmentId, Sequence};
use crate::keys::{ArrayKey, DayKey};
use crate::link::{Dial, Link};
use crate::sealing;
use crate::segment::RECORDS_AT;
use crate::segment::footer::Summary;
use crate::segment::header::{Member, SegmentHeader};
use crate::wire::{CopyState, SegmentInfo, Target, UnitInfo};

/// What the array's tasks share.
pub(super) struct Shared {
    pub(super) config: ArrayConfig,
    /// The writer: this relay.
    pub(super) peer: PeerId,
    pub(super) key: ArrayKey,
    pub(super) clock: Clock,
    pub(super) dial: Arc<dyn Dial>,
    chance: Mutex<StdRng>,
    state: Mutex<State>,
    /// Something changed that the settler may want to act upon.
    pub(super) changed: Notify,
    /// Another writer has taken over.
    fenced: AtomicBool,
    pub(super) counters: Counters,
    /// Who is asked first, and when the next is asked as well.
    pub(super) hedges: Arc<Hedges>,
}

#[derive(Default)]
pub(super) struct Counters {
    pub(super) fallovers: AtomicU64,
    pub(super) hedged: AtomicU64,
    pub(super) bad_copies: AtomicU64,
    pub(super) written_bytes: AtomicU64,
    pub(super) read_bytes: AtomicU64,
}

pub(super) struct State {
    pub(super) epoch: Epoch,
    next_sequence: Sequence,
    /// As in the configuration.
    pub(super) servers: Vec<Server>,
    pub(super) segments: BTreeMap<SegmentId, Entry>,
    pub(super) classes: BTreeMap<Class, ClassState>,
    /// A chain broke: groups go to each member directly until then.
    pub(super) chain_after: Option<Instant>,
}

/// A server, as the array knows it now.
pub(super) struct Server {
    pub(super) record: ServerRecord,
    /// Present while it is connected, fenced and listed.
    pub(super) live: Option<Live>,
    /// This instance has fenced it: a higher epoch there now is a successor's.
    pub(super) was_fenced: bool,
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

/// A segment, as the array knows it.
pub(super) struct Entry {
    pub(super) header: Arc<SegmentHeader>,
    /// `None` where it does not open: then nothing of the segment can be read.
    pub(super) day_key: Option<Arc<DayKey>>,
    /// What each member said of its copy; `None`: nothing yet, or that it has none.
    pub(super) copies: Vec<Option<SegmentInfo>>,
    /// What counts: records below are the log, whatever a copy has beyond.
    pub(super) length: u64,
    pub(super) stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Found at opening; its length is still what the longest copy says.
    Found,
    /// A lane writes it.
    Active,
    /// Its length is fixed; it is not yet sealed on all members.
    Closing,
    /// Sealed on all members, or as well as it can be.
    Settled,
}

#[derive(Default)]
pub(super) struct ClassState {
    /// Segments that must be settled before the class may be written again.
    pub(super) blockers: BTreeSet<SegmentId>,
    /// What the next catalog record links to.
    pub(super) tail: sealing::Link,
}

impl Shared {
    pub(super) fn new(
        config: ArrayConfig,
        peer: PeerId,
        key: ArrayKey,
        clock: Clock,
        dial: Arc<dyn Dial>,
        chance: StdRng,
    ) -> Self {
        let server = |record: &ServerRecord| Server { record: record.clone(), live: None, was_fenced: false };
        let state = State {
            epoch: Epoch(0),
            next_sequence: Sequence::ZERO,
            servers: config.servers.iter().map(server).collect(),
            segments: BTreeMap::new(),
            classes: Class::ALL.into_iter().map(|class| (class, ClassState::default())).collect(),
            chain_after: None,
        };
        Self {
            config,
            peer,
            key,
            clock,
            dial,
            chance: Mutex::new(chance),
            state: Mutex::new(state),
            changed: Notify::new(),
            fenced: AtomicBool::new(false),
            counters: Counters::default(),
            hedges: Arc::default(),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn chance(&self) -> MutexGuard<'_, StdRng> {
        self.chance.lock().unwrap_or_else(PoisonError::into_inner)
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

    pub(super) fn class_of(&self, segment: SegmentId) -> Option<Class> {
        self.state().segments.get(&segment).map(|entry| entry.header.class)
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
        self.next_sequence = self.next_sequence.max(Sequence::first_of(epoch));
    }

    pub(super) fn next_sequence(&mut self) -> Sequence {
        self.next_sequence = self.next_sequence.next();
        self.next_sequence
    }

    pub(super) fn server(&self, peer: &PeerId) -> Option<&Server> {
        self.servers.iter().find(|server| server.record.peer == *peer)
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

    /// Members for a new segment: servers at random among the live ones (SPEC C6), on each the unit with most room.
    pub(super) fn pick_members(&self, copies: usize, chance: &mut StdRng) -> Option<Vec<Member>> {
        let mut candidates = Vec::new();
        for server in &self.servers {
            if let Some(live) = server.live.as_ref().filter(|live| !live.is_closed())
                && let Some(info) = live.units.iter().max_by_key(|info| info.free)
            {
                candidates.push(Member { peer: server.record.peer, unit: info.unit });
            }
        }
        let mut members = Vec::with_capacity(copies);
        while members.len() < copies && !candidates.is_empty() {
            members.push(candidates.swap_remove(chance.random_range(0..candidates.len())));
        }
        (members.len() == copies).then_some(members)
    }

    /// Whether `class` may be written: enough servers, and nothing of before that is not settled.
    pub(super) fn is_writable(&self, class: Class, copies: usize) -> bool {
        let blocked = self.classes.get(&class).is_none_or(|state| !state.blockers.is_empty());
        !blocked && self.live_peers().len() >= copies
    }

    /// Takes in what `server` says of its copy of a segment.
    pub(super) fn see_copy(
        &mut self,
        server: &PeerId,
        header: SegmentHeader,
        info: SegmentInfo,
        key: &ArrayKey,
    ) {
        let Some(position) = header.members.iter().position(|member| member.peer == *server) else { return };
        let segment = header.segment;
        if let Some(entry) = self.segments.get_mut(&segment) {
            // The header that was seen first counts; copies that differ in it are told when they are settled.
            entry.copies[position] = Some(info);
            if entry.stage == Stage::Found {
                entry.length = entry.length.max(info.length);
            }
            return;
        }
        let day_key = header
            .day_key
            .as_ref()
            .and_then(|wrapped| key.unwrap_day_key(header.deletion_day, wrapped).ok())
            .map(Arc::new);
        let mut copies = vec![None; header.members.len()];
        copies[position] = Some(info);
        let entry =
            Entry { header: Arc::new(header), day_key, copies, length: info.length, stage: Stage::Found };
        self.segments.insert(segment, entry);
    }
}

impl Entry {
    /// Where its records end, as far as a footer says; and the footer.
    pub(super) fn summary(&self) -> Option<Summary> {
        self.copies.iter().flatten().find_map(|info| match info.state {
            CopyState::Sealed(summary) if summary.length == self.length => Some(summary),
            _ => None,
        })
    }

    /// The number of its first record, as far as known.
    pub(super) fn first(&self) -> Sequence {
        let known = self.copies.iter().flatten().map(|info| info.first).find(|first| *first > Sequence::ZERO);
        known.unwrap_or(Sequence::first_of(self.header.epoch))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.length <= RECORDS_AT
    }

    /// Whether every member has it, sealed at its length.
    pub(super) fn is_sealed_everywhere(&self) -> bool {
        self.copies.iter().all(|copy| {
            copy.is_some_and(
                |info| matches!(info.state, CopyState::Sealed(summary) if summary.length == self.length),
            )
        })
    }
}
