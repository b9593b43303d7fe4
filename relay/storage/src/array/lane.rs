//! A lane: the one task that writes the segments of a class.
//!
//! Order of its loop: first what is known of the groups on their way, from the oldest on; then, while not too many are,
//! what was submitted: gathered up to 4 MiB, placed (offset, sequence number, `acked_through`), sent. Being placed is
//! answered at once, being durable through the group's outcome.
//!
//! Invariants:
//! - Groups on their way are all of one segment and go the same way, one behind the other. So a record is durable only if all records
//!   before it in its segment are, and a catalog record that stands behind the blobs that it names needs no wait of its
//!   own.
//! - A group is *kept* once as many members as promised have it: all of them, or fewer where so set (SPEC B12). The kept
//!   ones are always the first. Only those that are still on their way to some member are held in memory.
//! - A segment in which a write failed takes no other: it is closed behind the last group that is kept, which
//!   the header of the next one says durably before that has a record. What was on its way is placed again there
//!   ([`go_on`]), so that this order stays.

mod go_on;
mod open;

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesOrdered;
use lighter_protocol::Day;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use open::Plan;

use super::WriteError;
use super::entry::{Entry, Stage};
use super::group::{Acknowledged, Durability, Failed, Group, Outcome};
use super::state::{Continued, Shared};
use crate::ids::{Class, Epoch, SegmentId, Sequence};
use crate::keys::{BlobKey, DayKey, WrappedKey};
use crate::limits::{
    CLOSED_MAX, GROUP_LEN_MAX, LANE_GROUPS_BEHIND_MAX, LANE_GROUPS_MAX, SEGMENT_RECORDS_MAX,
};
use crate::link::LinkError;
use crate::location::RecordPlace;
use crate::record::{AppendDigest, RECORD_HEADER_LEN, RecordHeader, UnplacedRecord, record_len};
use crate::sealing;
use crate::segment::RECORDS_AT;
use crate::segment::header::{Closed, Member, SegmentHeader};
use crate::wire::{Refusal, Request};

/// Something to be placed.
pub(super) struct Submission {
    pub(super) item: Item,
    /// Gets the place.
    pub(super) placed: oneshot::Sender<Result<Placed, WriteError>>,
    /// Counts its bytes until its group is known to be durable, or not.
    pub(super) room: OwnedSemaphorePermit,
}

pub(super) enum Item {
    /// A portion, and the key that it was sealed with.
    Portion(UnplacedRecord, Arc<WriteKey>),
    /// A change to the catalog, and the blobs that must be durable with it.
    Catalog(Vec<u8>, Vec<Durability>),
}

/// What is known once a record has its place.
#[derive(Debug)]
pub(super) struct Placed {
    pub(super) place: RecordPlace,
    pub(super) sequence: Sequence,
    pub(super) durability: Durability,
}

/// The key of one write of a blob, wrapped once for each segment that the blob is in.
pub(super) struct WriteKey {
    pub(super) key: BlobKey,
    wrapped: Mutex<Option<(SegmentId, WrappedKey)>>,
}

impl WriteKey {
    pub(super) fn new(key: BlobKey) -> Self {
        Self { key, wrapped: Mutex::new(None) }
    }

    fn wrapped_for(&self, segment: SegmentId, day: &DayKey, shared: &Shared) -> WrappedKey {
        let mut cached = self.wrapped.lock().unwrap_or_else(PoisonError::into_inner);
        match *cached {
            Some((of, wrapped)) if of == segment => wrapped,
            _ => {
                let wrapped = day.wrap_blob_key(&self.key, &mut *shared.chance());
                *cached = Some((segment, wrapped));
                wrapped
            }
        }
    }
}

/// The segment that a lane writes.
struct Active {
    header: Arc<SegmentHeader>,
    day_key: Arc<DayKey>,
    /// Where the next record goes.
    next: u64,
    records: u64,
    /// All members acknowledged what is below.
    acked: u64,
    /// As many members as promised acknowledged what is below: it counts.
    kept: u64,
    /// What the next catalog record links to, once everything placed is durable.
    tail: sealing::Link,
}

/// A group on its way.
struct OnItsWay {
    outcome: Outcome,
    /// As many members as promised have it, and its writers know.
    is_kept: bool,
    /// The records as they were sent.
    records: Vec<Bytes>,
    end: u64,
    /// The catalog's end, once this group is durable.
    tail: sealing::Link,
    _rooms: Vec<OwnedSemaphorePermit>,
}

pub(super) struct Lane {
    shared: Arc<Shared>,
    class: Class,
    submissions: mpsc::Receiver<Submission>,
    /// Gathered, not yet placed.
    gathered: VecDeque<Submission>,
    active: Option<Active>,
    on_their_way: VecDeque<OnItsWay>,
    /// How those go.
    is_chained: bool,
    acknowledgements: FuturesOrdered<BoxFuture<'static, Result<Acknowledged, Failed>>>,
    /// For each, where it ends, once it is kept. Empty where that is the same as being acknowledged.
    keepings: FuturesOrdered<BoxFuture<'static, Option<u64>>>,
    /// Since when no group was kept although some were sent.
    failing_since: Option<Instant>,
    /// Segments in which those on their way were placed before: the one being opened takes their records over.
    unfinished: Vec<Closed>,
}

impl Lane {
    pub(super) fn new(shared: Arc<Shared>, class: Class, submissions: mpsc::Receiver<Submission>) -> Self {
        Self {
            shared,
            class,
            submissions,
            gathered: VecDeque::new(),
            active: None,
            on_their_way: VecDeque::new(),
            is_chained: false,
            acknowledgements: FuturesOrdered::new(),
            keepings: FuturesOrdered::new(),
            failing_since: None,
            unfinished: Vec::new(),
        }
    }

    /// Runs until nobody can submit any more and nothing is on its way.
    pub(super) async fn run(mut self) {
        let mut table_changed = self.shared.table_changed.subscribe();
        let copies = self.shared.config.copies;
        let waits_for_all = self.shared.config.acknowledged_after(copies) == copies;
        let groups_max = if waits_for_all { LANE_GROUPS_MAX } else { LANE_GROUPS_BEHIND_MAX };
        loop {
            let has_room = self.on_their_way.len() < groups_max;
            tokio::select! {
                biased;
                Ok(()) = table_changed.changed() => self.leave_members().await,
                Some(kept) = self.keepings.next() => self.take_kept(kept),
                Some(acknowledged) = self.acknowledgements.next() => self.take_outcome(acknowledged).await,
                submitted = self.submissions.recv(), if has_room => match submitted {
                    Some(submission) => self.take(submission).await,
                    None if self.on_their_way.is_empty() => return,
                    None => self.drain().await,
                },
            }
        }
    }

    async fn take(&mut self, first: Submission) {
        let mut len = first.len();
        self.gathered.push_back(first);
        while len < GROUP_LEN_MAX
            && let Ok(next) = self.submissions.try_recv()
        {
            len += next.len();
            self.gathered.push_back(next);
        }
        while !self.gathered.is_empty() {
            if let Err(error) = self.make_ready().await {
                self.refuse_gathered(error);
                return;
            }
            self.choose_way().await;
            self.place_and_send().await;
        }
    }

    /// Small groups go to each member directly, large ones along the chain; never both ways at once: on two ways they
    /// would overtake each other. So small ones ride along while the chain is used, and a large one waits for small
    /// ones that are on their way.
    async fn choose_way(&mut self) {
        let len: usize = self.gathered.iter().map(Submission::len).sum();
        let wants_chain = len >= self.shared.config.chain_from_len && self.shared.may_chain();
        if wants_chain && !self.is_chained {
            self.drain().await;
        }
        if self.on_their_way.is_empty() {
            self.is_chained = wants_chain;
        }
    }

    /// Sees to an active segment of today that has room for the next record.
    async fn make_ready(&mut self) -> Result<(), WriteError> {
        if self.shared.is_fenced() {
            return Err(WriteError::Fenced);
        }
        let need = self.gathered.front().map_or(0, Submission::len) as u64;
        let today = (self.shared.clock)().day();
        if let Some(active) = &self.active {
            let fits = active.next + need <= self.shared.config.segment_len_max;
            let has_room = fits && active.records < SEGMENT_RECORDS_MAX;
            if has_room && active.header.storage_day == today && self.shared.state().lets(&active.header) {
                return Ok(());
            }
            // Everything is known to be durable, or not, before the next segment begins.
            self.drain().await;
            self.retire(None);
        }
        let (tail, deletion_day) = {
            let tail = self.shared.state().tails.get(&self.class).copied().unwrap_or_default();
            (tail, self.class.deletion_day(today))
        };
        let day_key = Arc::new(DayKey::draw(deletion_day, &mut *self.shared.chance()));
        let plan = Plan { storage_day: today, deletion_day, day_key, tail, until: Instant::now() };
        self.open_segment(plan).await
    }

    /// Closes the active segment where one of its members is to take no more: also where nothing is written.
    async fn leave_members(&mut self) {
        if self.is_to_be_left() {
            self.drain().await;
        }
        // Where a member failed meanwhile, another segment is the active one.
        if self.is_to_be_left() {
            self.retire(None);
        }
    }

    fn is_to_be_left(&self) -> bool {
        self.active.as_ref().is_some_and(|active| !self.shared.state().lets(&active.header))
    }

    async fn drain(&mut self) {
        loop {
            tokio::select! {
                biased;
                Some(kept) = self.keepings.next() => self.take_kept(kept),
                Some(acknowledged) = self.acknowledgements.next() => self.take_outcome(acknowledged).await,
                else => return,
            }
        }
    }

    /// Gives the active segment to the settler: closed behind what is kept. Where a group failed, a member may have more;
    /// those that are to blame may have less.
    fn retire(&mut self, failed: Option<&[Member]>) {
        let Some(active) = self.active.take() else { return };
        let segment = active.header.segment;
        let mut state = self.shared.state();
        if let Some(entry) = state.segments.get_mut(&segment) {
            entry.stage = Stage::Closing;
            entry.length = active.kept;
            entry.is_decided = failed.is_none();
            if active.acked < active.kept {
                failed.into_iter().flatten().for_each(|member| entry.falls_short(member, active.acked));
            }
        }
        if failed.is_some() {
            state.blockers.insert(segment);
        }
        drop(state);
        self.shared.changed.notify_one();
    }

    /// Places what fits into the active segment and one group, and sends it.
    async fn place_and_send(&mut self) {
        let Some(active) = &mut self.active else { return };
        let header = Arc::clone(&active.header);
        let (outcome, durability) = Durability::new(header.segment, self.class);
        let offset = active.next;
        let (mut records, mut rooms, mut digest) = (Vec::new(), Vec::new(), AppendDigest::default());
        let mut len = 0;
        while let Some(next) = self.gathered.front() {
            let need = next.len();
            let fits = active.next + need as u64 <= self.shared.config.segment_len_max;
            if len + need > GROUP_LEN_MAX || !fits || active.records >= SEGMENT_RECORDS_MAX {
                break;
            }
            let Some(Submission { item, placed, room }) = self.gathered.pop_front() else { break };
            let Some((sequence, bytes)) = active.place(item, &self.shared, &mut digest) else {
                let _ = placed.send(Err(WriteError::NotDurable));
                continue;
            };
            let place = RecordPlace {
                segment: header.segment,
                offset: active.next - bytes.len() as u64,
                length: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
                deletion_day: header.deletion_day,
            };
            // Nobody may wait for it any more: the record has its place all the same.
            let _ = placed.send(Ok(Placed { place, sequence, durability: durability.clone() }));
            len += bytes.len();
            records.push(Bytes::from(bytes));
            rooms.push(room);
        }
        if records.is_empty() {
            return;
        }
        let (end, tail) = (active.next, active.tail);
        let group = Group { header, offset, len, digest: digest.value(), records: records.clone() };
        self.on_their_way.push_back(OnItsWay { outcome, is_kept: false, records, end, tail, _rooms: rooms });
        self.send(group, self.is_chained, end).await;
    }

    /// Sends a group that ends there: what becomes of it is heard of in the loop.
    async fn send(&mut self, group: Group, is_chained: bool, end: u64) {
        let is_mirrored_later = group.header.is_mirrored_later();
        let mut sent = self.shared.send_group(group, is_chained).await;
        if is_mirrored_later {
            let kept = sent.kept();
            self.keepings.push_back(Box::pin(async move { kept.await.ok().map(|()| end) }));
        }
        self.acknowledgements.push_back(Box::pin(sent.acknowledged()));
    }

    /// As many members as promised have everything up to there: whoever waits for it hears so. `None`: one group never
    /// got so far, of which is heard elsewhere.
    // SPEC: B12
    fn take_kept(&mut self, end: Option<u64>) {
        let (Some(end), Some(active)) = (end, &mut self.active) else { return };
        let kept = self.on_their_way.iter_mut().filter(|group| !group.is_kept && group.end <= end);
        for group in kept {
            {
                let mut state = self.shared.state();
                if let Some(entry) = state.segments.get_mut(&active.header.segment) {
                    entry.length = group.end;
                }
                state.tails.insert(self.class, group.tail);
            }
            (group.is_kept, active.kept) = (true, group.end);
            group.outcome.send_replace(Some(Ok(())));
            self.failing_since = None;
            self.unfinished.clear();
        }
    }

    async fn take_outcome(&mut self, acknowledged: Result<Acknowledged, Failed>) {
        let Some(end) = self.on_their_way.front().map(|group| group.end) else { return };
        match acknowledged {
            Ok(Acknowledged { took }) => {
                self.take_kept(Some(end));
                self.on_their_way.pop_front();
                let mut state = self.shared.state();
                for (member, time) in took {
                    if let Some(server) = state.server_mut(&member.peer) {
                        server.health.took(time, Instant::now());
                    }
                }
                if let Some(active) = &mut self.active {
                    let written = end - active.acked;
                    if active.acked == RECORDS_AT {
                        state.keep_closed(&active.header);
                    }
                    active.acked = end;
                    self.shared.counters.written_bytes.fetch_add(written, Ordering::Relaxed);
                    if let Some(entry) = state.segments.get_mut(&active.header.segment) {
                        entry.on_all = end;
                    }
                }
            }
            Err(failed) => self.go_on(failed).await,
        }
    }

    fn refuse_gathered(&mut self, error: WriteError) {
        for submission in self.gathered.drain(..) {
            let _ = submission.placed.send(Err(error));
        }
    }
}

impl Active {
    /// Gives an item its place; `None` where a blob that it needs is lost.
    fn place(
        &mut self,
        item: Item,
        shared: &Shared,
        digest: &mut AppendDigest,
    ) -> Option<(Sequence, Vec<u8>)> {
        let Self { header, day_key, next, acked, tail, .. } = self;
        let bytes = match item {
            Item::Portion(record, key) => {
                let sequence = shared.state().next_sequence();
                let open = key.wrapped_for(header.segment, day_key, shared);
                let placed =
                    record.place(header.segment, header.epoch, sequence, *next, *acked, &open, digest);
                (sequence, placed)
            }
            Item::Catalog(record, needs) => {
                // On its way in this lane, and so before it; or durable; or lost.
                let is_kept = |need: &Durability| match need.now() {
                    Some(outcome) => outcome.is_ok(),
                    None => need.class == header.class,
                };
                if !needs.iter().all(is_kept) {
                    return None;
                }
                let sequence = shared.state().next_sequence();
                let (key, wrapped) = {
                    let chance = &mut *shared.chance();
                    let key = BlobKey::draw(chance);
                    let wrapped = day_key.wrap_blob_key(&key, chance);
                    (key, wrapped)
                };
                let (unplaced, tag) = sealing::seal_catalog(&key, &wrapped, sequence, tail, &record);
                *tail = sealing::Link { sequence, tag, deletion_day: header.deletion_day.0 };
                let placed =
                    unplaced.place(header.segment, header.epoch, sequence, *next, *acked, &[], digest);
                (sequence, placed)
            }
        };
        *next += bytes.1.len() as u64;
        self.records += 1;
        Some(bytes)
    }
}

impl Submission {
    /// Bytes of the whole record, at most.
    fn len(&self) -> usize {
        match &self.item {
            Item::Portion(record, _) => record.record_len(),
            Item::Catalog(record, _) => catalog_record_len(record.len()),
        }
    }
}

/// Bytes of a catalog record with `len` bytes of plaintext.
pub(super) fn catalog_record_len(len: usize) -> usize {
    record_len(sealing::catalog_payload_len(len))
}

impl Shared {
    /// A server spoke of an epoch above ours: a successor's.
    pub(super) fn saw_fence(&self, present: Epoch) {
        if present > self.state().epoch {
            self.set_fenced();
        }
    }
}
