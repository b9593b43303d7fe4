//! A lane: the one task that writes the segments of a class.
//!
//! Order of its loop: first the outcome of the oldest group on its way; then, while not too many are, what was
//! submitted: gathered up to 4 MiB, placed (offset, sequence number, `acked_through`), sent. Being placed is answered
//! at once, being durable through the group's outcome.
//!
//! Invariants:
//! - Groups on their way are all of one segment and go the same way, one behind the other. So a record is durable only if all records
//!   before it in its segment are, and a catalog record that stands behind the blobs that it names needs no wait of its
//!   own.
//! - A segment in which a write failed takes no other: it is closed at the length that all members acknowledged, and
//!   the class is not written again before that is so on all of them (`settle`).

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesOrdered;
use lighter_protocol::Day;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::Instant;

use super::WriteError;
use super::group::{CHAIN_PAUSE, Durability, Failed, Group, Outcome};
use super::state::{Entry, Shared, Stage};
use crate::ids::{Class, DataKey, Epoch, SegmentId, Sequence};
use crate::keys::{BlobKey, DayKey, WrappedKey};
use crate::limits::{ANSWER_TIME_MAX, GROUP_LEN_MAX, LANE_GROUPS_MAX, SEGMENT_RECORDS_MAX};
use crate::link::LinkError;
use crate::location::RecordPlace;
use crate::record::{AppendDigest, UnplacedRecord, record_len};
use crate::sealing;
use crate::segment::RECORDS_AT;
use crate::segment::header::SegmentHeader;
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
    /// What the next catalog record links to, once everything placed is durable.
    tail: sealing::Link,
}

/// A group on its way.
struct OnItsWay {
    outcome: Outcome,
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
    acknowledgements: FuturesOrdered<BoxFuture<'static, Result<Vec<DataKey>, Failed>>>,
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
        }
    }

    /// Runs until nobody can submit any more and nothing is on its way.
    pub(super) async fn run(mut self) {
        loop {
            let has_room = self.on_their_way.len() < LANE_GROUPS_MAX;
            tokio::select! {
                biased;
                Some(acknowledged) = self.acknowledgements.next() => self.take_outcome(acknowledged),
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
            if fits && active.records < SEGMENT_RECORDS_MAX && active.header.storage_day == today {
                return Ok(());
            }
            // Everything is known to be durable, or not, before the next segment begins.
            self.drain().await;
            self.retire(false);
        }
        self.open_segment(today).await
    }

    async fn drain(&mut self) {
        while let Some(acknowledged) = self.acknowledgements.next().await {
            self.take_outcome(acknowledged);
        }
    }

    /// Gives the active segment to the settler: closed at what was acknowledged.
    fn retire(&mut self, blocks: bool) {
        let Some(active) = self.active.take() else { return };
        let segment = active.header.segment;
        let mut state = self.shared.state();
        if let Some(entry) = state.segments.get_mut(&segment) {
            entry.stage = Stage::Closing;
            entry.length = active.acked;
        }
        if let Some(class) = state.classes.get_mut(&self.class) {
            class.tail = active.tail;
            if blocks {
                class.blockers.insert(segment);
            }
        }
        drop(state);
        self.shared.changed.notify_one();
    }

    async fn open_segment(&mut self, today: Day) -> Result<(), WriteError> {
        let (epoch, members, tail) = {
            let state = self.shared.state();
            if !state.is_writable(self.class, self.shared.config.copies) {
                return Err(WriteError::Unavailable);
            }
            let members = state.pick_members(self.shared.config.copies, &mut self.shared.chance());
            let tail = state.classes.get(&self.class).map(|class| class.tail).unwrap_or_default();
            (state.epoch, members.ok_or(WriteError::Unavailable)?, tail)
        };
        let deletion_day = self.class.deletion_day(today);
        let (segment, (day_key, wrapped)) = {
            let chance = &mut *self.shared.chance();
            (SegmentId::draw(chance), self.shared.key.draw_day_key(deletion_day, chance))
        };
        let header = Arc::new(SegmentHeader {
            segment,
            class: self.class,
            storage_day: today,
            deletion_day,
            epoch,
            writer: self.shared.peer,
            members,
            day_key: Some(wrapped),
        });
        let day_key = Arc::new(day_key);
        let entry = Entry {
            header: Arc::clone(&header),
            day_key: Some(Arc::clone(&day_key)),
            copies: vec![None; header.members.len()],
            length: RECORDS_AT,
            stage: Stage::Active,
        };
        self.shared.state().segments.insert(segment, entry);
        let opened = self.shared.open_on_members(&header, epoch).await;
        let active = Active { header, day_key, next: RECORDS_AT, records: 0, acked: RECORDS_AT, tail };
        self.active = Some(active);
        if opened.is_err() {
            self.retire(true);
        }
        opened
    }

    /// Places what fits into the active segment and one group, and sends it.
    async fn place_and_send(&mut self) {
        let Some(active) = &mut self.active else { return };
        let header = Arc::clone(&active.header);
        let (outcome, durability) = Durability::new(header.segment);
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
            records.push(bytes.into());
            rooms.push(room);
        }
        if records.is_empty() {
            return;
        }
        let on_its_way = OnItsWay { outcome, end: active.next, tail: active.tail, _rooms: rooms };
        self.on_their_way.push_back(on_its_way);
        let group = Group { header, offset, len, digest: digest.value(), records };
        let sent = self.shared.send_group(group, self.is_chained).await;
        self.acknowledgements.push_back(Box::pin(sent.acknowledged()));
    }

    fn take_outcome(&mut self, acknowledged: Result<Vec<DataKey>, Failed>) {
        let Some(group) = self.on_their_way.pop_front() else { return };
        match acknowledged {
            Ok(_keys) => {
                if let Some(active) = &mut self.active {
                    let written = group.end - active.acked;
                    active.acked = group.end;
                    self.shared.counters.written_bytes.fetch_add(written, Ordering::Relaxed);
                    if let Some(entry) = self.shared.state().segments.get_mut(&active.header.segment) {
                        entry.length = group.end;
                    }
                    let class = self.class;
                    if let Some(class) = self.shared.state().classes.get_mut(&class) {
                        class.tail = group.tail;
                    }
                }
                group.outcome.send_replace(Some(Ok(())));
            }
            Err(failed) => self.give_up(group, &failed),
        }
    }

    /// A member failed: everything on its way is in doubt, and the segment is closed at what was acknowledged.
    fn give_up(&mut self, first: OnItsWay, failed: &Failed) {
        // In doubt also where a member refused: another may have written it.
        for group in std::iter::once(first).chain(self.on_their_way.drain(..)) {
            group.outcome.send_replace(Some(Err(WriteError::InDoubt)));
        }
        if let Some(present) = failed.fenced_by {
            self.shared.saw_fence(present);
        }
        self.acknowledgements = FuturesOrdered::new();
        let mut state = self.shared.state();
        if failed.is_chain {
            state.chain_after = Some(Instant::now() + CHAIN_PAUSE);
        }
        for member in &failed.members {
            // Taken in again by its keeper, if it is there: with nothing of this connection still on its way.
            if let Some(live) = state.live(&member.peer) {
                live.close();
            }
        }
        if let Some(class) = state.classes.get(&self.class)
            && let Some(active) = &mut self.active
        {
            active.tail = class.tail; // what was placed and not acknowledged is cut
        }
        drop(state);
        self.retire(true);
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
                // On its way in this segment, and so before it; or durable; or lost.
                let is_kept = |need: &Durability| match need.now() {
                    Some(outcome) => outcome.is_ok(),
                    None => need.segment == header.segment,
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
    /// The header block, with the day's key, is durable on all members before the first record (SPEC C10).
    async fn open_on_members(&self, header: &SegmentHeader, epoch: Epoch) -> Result<(), WriteError> {
        let block: bytes::Bytes = header.encode().into();
        let opens = header.members.iter().map(async |member| {
            let link = self.state().live(&member.peer).map(|live| Arc::clone(&live.writes));
            let request = Request::Open { unit: member.unit, epoch, is_anew: false };
            let time_max = self.config.write_time_max.min(ANSWER_TIME_MAX);
            let opened = match &link {
                None => Err(LinkError::Closed),
                Some(link) => link.done(&request, vec![block.clone()], time_max).await,
            };
            opened.map_err(|error| {
                tracing::warn!(server = %member.peer, %error, "a segment was not opened");
                match error {
                    LinkError::Refused(Refusal::Fenced { present }) => {
                        self.saw_fence(present);
                    }
                    LinkError::Refused(_) => {}
                    _ => link.iter().for_each(|link| link.close()),
                }
            })
        });
        let opened = futures_util::future::join_all(opens).await;
        if opened.iter().all(Result::is_ok) { Ok(()) } else { Err(WriteError::Unavailable) }
    }

    /// A server spoke of an epoch above ours: a successor's.
    pub(super) fn saw_fence(&self, present: Epoch) {
        if present > self.state().epoch {
            self.set_fenced();
        }
    }
}
