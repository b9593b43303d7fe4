//! Reading: a record from whichever copy is right, and blobs from their records.
//!
//! A copy is asked with its DataKey; the answer counts only if its checksums, its place, the cipher's tags and, for
//! blobs, the hash of the portion are right. Otherwise the next copy is asked; one that is slow is overtaken by the next
//! (`hedge`). What is given out is right, or an error.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use lighter_protocol::PeerId;
use lighter_protocol::blob::{
    ChainingValue, HashedPortion, PORTION_LEN, Portion, PortionSource, PortionTree,
};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::ReadError;
use super::fellows::FellowRecord;
use super::hedge::Hedges;
use super::state::Shared;
use crate::ids::DataKey;
use crate::keys::DayKey;
use crate::limits::READ_AHEAD;
use crate::link::{Link, LinkError};
use crate::location::{BlobLocation, RecordPlace, StoredBlob};
use crate::record::{Record, UncheckedRecord};
use crate::sealing::{self, OpenedPortion};
use crate::unit::worker::{Stopped, off_reactor};
use crate::wire::{Refusal, Request};

impl Shared {
    /// The key of each copy of a record (SPEC C8).
    // SPEC: C8
    pub(super) fn keys_of(&self, place: &RecordPlace) -> Vec<DataKey> {
        let state = self.state();
        let RecordPlace { segment, offset, length, .. } = state.resolve(*place);
        let Some(entry) = state.segments.get(&segment) else { return Vec::new() };
        let deletion_day = entry.header.deletion_day;
        let holders = state.holders_to_read(entry).into_iter();
        holders
            .map(|member| DataKey {
                server: member.peer,
                unit: member.unit,
                segment,
                offset,
                length,
                deletion_day,
            })
            .collect()
    }

    /// Reads a record from the first copy that `open` finds right, and gives what `open` made of it.
    // SPEC: C9, B17
    pub(super) async fn read_record<T: Send + 'static>(
        &self,
        place: RecordPlace,
        open: impl Fn(&Record<'_>, &DayKey) -> Option<T> + Clone + Send + 'static,
    ) -> Result<T, ReadError> {
        if place.deletion_day.end() <= (self.clock)() {
            return Err(ReadError::Expired);
        }
        let own = {
            let state = self.state();
            let place = state.resolve(place);
            match state.segments.get(&place.segment) {
                Some(entry) => Some((place, entry.day_key.clone().ok_or(ReadError::Damaged)?)),
                None if !state.table.readers.is_empty() => None,
                None if state.live_peers().len() < state.servers.len() => {
                    return Err(ReadError::Unavailable);
                }
                None => return Err(ReadError::Damaged),
            }
        };
        let Some((place, day_key)) = own else { return self.read_of_fellow(place, open).await };
        let keys = self.keys_of(&place);
        self.read_copies(place, keys, &day_key, open, Writer::Own).await
    }

    /// Reads a record that another relay stored. Where it is not found where it was the last time, it is looked for anew.
    async fn read_of_fellow<T: Send + 'static>(
        &self,
        place: RecordPlace,
        open: impl Fn(&Record<'_>, &DayKey) -> Option<T> + Clone + Send + 'static,
    ) -> Result<T, ReadError> {
        let mut failed = ReadError::Unavailable;
        for anew in [false, true] {
            let read = match self.find_of_fellow(place, anew).await {
                Ok(FellowRecord { place, keys, day_key }) => {
                    self.read_copies(place, keys, &day_key, open.clone(), Writer::Fellow).await
                }
                Err(error) => Err(error),
            };
            match read {
                Err(error @ (ReadError::Damaged | ReadError::Unavailable)) => failed = error,
                read => return read,
            }
        }
        Err(failed)
    }

    async fn read_copies<T: Send + 'static>(
        &self,
        place: RecordPlace,
        mut keys: Vec<DataKey>,
        day_key: &Arc<DayKey>,
        open: impl Fn(&Record<'_>, &DayKey) -> Option<T> + Clone + Send + 'static,
        writer: Writer,
    ) -> Result<T, ReadError> {
        // Portions are spread over the copies; one record is always asked of the same one first, if that is well.
        let count = keys.len().max(1);
        keys.rotate_left(usize::try_from(place.offset / PORTION_LEN % count as u64).unwrap_or(0));
        let live = self.state().live_peers();
        self.hedges.order(&mut keys, |key| key.server, |server| live.contains(server));
        self.probe(&keys, &live);
        self.race(place, keys, writer, |bytes| {
            let (open, day_key) = (open.clone(), Arc::clone(day_key));
            off_reactor(move || {
                let record = UncheckedRecord::new(&bytes).check(place.segment, place.offset).ok()?;
                open(&record, &day_key)
            })
        })
        .await
    }

    /// Asks one copy after the other: the next one as soon as an answer is bad, or, beside those that are out, when the
    /// answer has taken too long. The first answer that `verify` finds right counts; what is still out then is dropped.
    async fn race<T, V>(
        &self,
        place: RecordPlace,
        keys: Vec<DataKey>,
        writer: Writer,
        verify: impl Fn(Bytes) -> V,
    ) -> Result<T, ReadError>
    where
        V: Future<Output = Result<Option<T>, Stopped>>,
    {
        let (mut is_away, mut is_expired, mut has_failed) = (false, false, false);
        let mut rest = VecDeque::from(keys);
        let mut asked = FuturesUnordered::new();
        // Copies whose answer is out, in the order in which they were asked.
        let mut out: Vec<DataKey> = Vec::new();
        loop {
            if out.is_empty() {
                let Some(key) = rest.pop_front() else { break };
                out.push(key);
                asked.push(self.ask(key));
            }
            let patience = out.last().map(|key| self.hedges.delay(&key.server)).unwrap_or_default();
            let (key, answer) = tokio::select! {
                biased;
                Some(answered) = asked.next() => answered,
                () = sleep(patience), if !rest.is_empty() => {
                    if let (Some(slow), Some(next)) = (out.last(), rest.front())
                        && self.hedges.may_hedge(&slow.server, &next.server)
                        && let Some(key) = rest.pop_front()
                    {
                        self.counters.hedged.fetch_add(1, Ordering::Relaxed);
                        out.push(key);
                        asked.push(self.ask(key));
                    }
                    continue;
                }
            };
            let turn = out.iter().position(|asked| *asked == key).unwrap_or(0);
            match answer {
                Ok(bytes) => {
                    if let Some(opened) = verify(bytes).await.map_err(|_| ReadError::Unavailable)? {
                        let now = Instant::now();
                        out.drain(..turn).for_each(|slow| self.hedges.overtaken(slow.server, now));
                        if has_failed {
                            self.counters.fallovers.fetch_add(1, Ordering::Relaxed);
                        }
                        return Ok(opened);
                    }
                    if writer == Writer::Own && self.may_lack(&place, &key.server) {
                        is_away = true;
                    } else {
                        self.count_bad_copy(place.segment, key.server, "a record that does not verify");
                    }
                }
                Err(LinkError::Refused(Refusal::Expired)) => is_expired = true,
                Err(LinkError::Refused(Refusal::Away)) => is_away = true,
                // Its writer may have moved it: it is looked for anew.
                Err(LinkError::Refused(_)) if writer == Writer::Fellow => {}
                Err(LinkError::Refused(_)) if self.may_lack(&place, &key.server) => is_away = true,
                Err(LinkError::Refused(refusal)) => {
                    tracing::warn!(segment = %place.segment, server = %key.server, %refusal, "a copy is missing");
                    self.count_bad_copy(place.segment, key.server, "a record that is not there");
                }
                Err(LinkError::Closed | LinkError::TimedOut | LinkError::Wrong) => is_away = true,
            }
            has_failed = true;
            out.remove(turn);
            // What is out beside is slow: the copy that comes after the bad one is not made to wait for it.
            if let Some(key) = rest.pop_front() {
                out.push(key);
                asked.push(self.ask(key));
            }
        }
        Err(match (is_expired, is_away) {
            (true, _) => ReadError::Expired,
            (_, true) => ReadError::Unavailable,
            _ => ReadError::Damaged,
        })
    }

    /// Asks one copy, and remembers how long it took.
    async fn ask(&self, key: DataKey) -> (DataKey, Result<Bytes, LinkError>) {
        let link = self.state().live(&key.server).map(|live| Arc::clone(&live.reads));
        let answer = match link {
            Some(link) => read_copy(&link, &key, self.config.write_time_max, &self.hedges).await,
            None => Err(LinkError::Closed),
        };
        (key, answer)
    }

    /// Reads from a server that others are preferred to, beside the read that is wanted and without waiting for it, when
    /// that is due: so it is noticed that it is well again.
    fn probe(&self, keys: &[DataKey], live: &[PeerId]) {
        let servers: Vec<_> = keys.iter().map(|key| key.server).filter(|peer| live.contains(peer)).collect();
        if servers.len() < 2 {
            return;
        }
        let due = self.hedges.probe(&servers, Instant::now());
        let Some(key) = keys.iter().find(|key| Some(key.server) == due).copied() else { return };
        let Some(link) = self.state().live(&key.server).map(|live| Arc::clone(&live.reads)) else { return };
        let (time_max, hedges) = (self.config.write_time_max, Arc::clone(&self.hedges));
        tokio::spawn(async move { read_copy(&link, &key, time_max, &hedges).await });
    }

    /// Opens the blob's last record: its upper tree, and the last portion.
    pub(super) async fn read_end(
        &self,
        blob: &StoredBlob,
    ) -> Result<(PortionTree, OpenedPortion), ReadError> {
        if !blob.location.is_sound() {
            return Err(ReadError::Range);
        }
        let last = blob.location.len() - 1;
        let place = blob.location.place(last).ok_or(ReadError::Range)?;
        let blob = blob.clone();
        self.read_record(place, move |record, day_key| open_end(&blob, record, day_key)).await
    }
}

/// Who wrote a segment.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Writer {
    /// This relay: it knows where the copies are.
    Own,
    /// Another one.
    Fellow,
}

/// One copy's bytes, not yet verified.
async fn read_copy(
    link: &Link,
    key: &DataKey,
    time_max: Duration,
    hedges: &Hedges,
) -> Result<Bytes, LinkError> {
    let asked = Instant::now();
    let answer = link.done(&Request::Read { key: *key }, Vec::new(), time_max).await;
    match &answer {
        Ok(bytes) if bytes.len() != key.length as usize => return Err(LinkError::Wrong),
        Ok(_) => hedges.answered(key.server, asked.elapsed()),
        Err(LinkError::TimedOut) => hedges.overtaken(key.server, Instant::now()),
        Err(_) => {}
    }
    answer
}

/// What a blob's last record proves: its upper tree, and the last portion. None where it proves nothing.
pub(super) fn open_end(
    blob: &StoredBlob,
    record: &Record<'_>,
    day_key: &DayKey,
) -> Option<(PortionTree, OpenedPortion)> {
    let opened = sealing::open_portion(record.payload, day_key).ok()?;
    let end = opened.end.as_ref()?;
    if opened.index + 1 != blob.location.len() || end.id != blob.id || end.size != blob.size {
        return None;
    }
    let tree = PortionTree::new(blob.id, blob.size, end.portions.clone()).ok()?;
    let is_right = opened.data.is_empty() && blob.size == 0 || opened.is_proved_by(&tree);
    is_right.then_some((tree, opened))
}

/// How a portion is found to be right.
#[derive(Clone)]
pub(super) enum Verify {
    /// By the blob's tree.
    Tree(Arc<PortionTree>),
    /// The blob is still being written, and its portions hash to these.
    Written(Arc<[ChainingValue]>),
}

impl Verify {
    fn open(&self, index: u64, record: &Record<'_>, day_key: &DayKey) -> Option<Bytes> {
        let opened = sealing::open_portion(record.payload, day_key).ok()?;
        if opened.index != index {
            return None;
        }
        let is_right = match self {
            Self::Tree(tree) => opened.is_proved_by(tree),
            Self::Written(portions) => {
                let known = usize::try_from(index).ok().and_then(|index| portions.get(index));
                HashedPortion::of(index, &opened.data).ok().map(|hashed| hashed.cv).as_ref() == known
            }
        };
        is_right.then_some(opened.data)
    }
}

/// Verified bytes of a blob, in order, in pieces of at most a portion (1 MiB).
pub struct BlobReader {
    shared: Arc<Shared>,
    location: BlobLocation,
    verify: Option<Verify>,
    /// For a blob whose tree has yet to be read.
    blob: Option<StoredBlob>,
    range: Range<u64>,
    /// The next portion to ask for.
    ask: u64,
    /// Portions on their way, in order.
    ahead: VecDeque<JoinHandle<Result<Bytes, ReadError>>>,
    /// The end of a blob that is still being written: where it begins, and its bytes.
    rest: Option<(u64, Bytes)>,
    failed: Option<ReadError>,
}

impl BlobReader {
    pub(super) fn new(
        shared: Arc<Shared>,
        location: BlobLocation,
        verify: Verify,
        range: Range<u64>,
        rest: Option<(u64, Bytes)>,
    ) -> Self {
        let ask = range.start / PORTION_LEN;
        let (verify, blob, ahead) = (Some(verify), None, VecDeque::new());
        Self { shared, location, verify, blob, range, ask, ahead, rest, failed: None }
    }

    pub(super) fn of_stored(shared: Arc<Shared>, blob: &StoredBlob, range: Range<u64>) -> Self {
        let is_within = range.start <= range.end && range.end <= blob.size;
        Self {
            shared,
            location: blob.location.clone(),
            verify: None,
            blob: Some(blob.clone()),
            ask: range.start / PORTION_LEN,
            range,
            ahead: VecDeque::new(),
            rest: None,
            failed: (!is_within).then_some(ReadError::Range),
        }
    }

    /// The next piece; `None` at the end of the range.
    ///
    /// # Errors
    /// See [`ReadError`]; the pieces before were right, and there are no further ones.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ReadError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let read = self.read_next().await;
        self.failed = read.as_ref().err().copied();
        read
    }

    async fn read_next(&mut self) -> Result<Option<Bytes>, ReadError> {
        let Range { start, end } = self.range;
        if start >= end {
            // Even of no bytes it is said only after a look that the blob is there.
            return self.read_tree().await.map(|()| None);
        }
        if let Some((rest_at, rest)) = &self.rest
            && start >= *rest_at
        {
            let piece = cut(rest, *rest_at, &self.range)?;
            self.range.start = end;
            return Ok(Some(piece));
        }
        self.read_tree().await?;
        self.ask_ahead();
        let index = start / PORTION_LEN;
        let Some(fetching) = self.ahead.pop_front() else { return Err(ReadError::Range) };
        let portion = fetching.await.map_err(|_| ReadError::Unavailable)??;
        let piece = cut(&portion, index * PORTION_LEN, &self.range)?;
        self.range.start = start + piece.len() as u64;
        self.shared.counters.read_bytes.fetch_add(piece.len() as u64, Ordering::Relaxed);
        Ok(Some(piece))
    }

    /// Reads the blob's tree, once; its last portion comes with it.
    async fn read_tree(&mut self) -> Result<(), ReadError> {
        let Some(blob) = self.blob.take() else { return Ok(()) };
        let (tree, last) = self.shared.read_end(&blob).await?;
        let is_only_portion_asked = self.range.start / PORTION_LEN == last.index;
        self.verify = Some(Verify::Tree(Arc::new(tree)));
        if is_only_portion_asked && !self.range.is_empty() {
            self.ahead.push_back(tokio::spawn(std::future::ready(Ok(last.data))));
            self.ask = last.index + 1;
        }
        Ok(())
    }

    fn ask_ahead(&mut self) {
        let Some(verify) = &self.verify else { return };
        while self.ahead.len() < READ_AHEAD && self.ask * PORTION_LEN < self.range.end {
            let Some(place) = self.location.place(self.ask) else { return };
            let (shared, verify, index) = (Arc::clone(&self.shared), verify.clone(), self.ask);
            self.ahead.push_back(tokio::spawn(async move {
                let open = move |record: &Record<'_>, key: &DayKey| verify.open(index, record, key);
                shared.read_record(place, open).await
            }));
            self.ask += 1;
        }
    }
}

impl Drop for BlobReader {
    fn drop(&mut self) {
        self.ahead.iter().for_each(JoinHandle::abort);
    }
}

/// The part of `bytes`, which begin at `at`, that lies in `range`; at least one byte.
fn cut(bytes: &Bytes, at: u64, range: &Range<u64>) -> Result<Bytes, ReadError> {
    let place = |offset: u64| usize::try_from(offset.saturating_sub(at)).unwrap_or(usize::MAX);
    let (start, end) = (place(range.start), place(range.end).min(bytes.len()));
    if start < end { Ok(bytes.slice(start..end)) } else { Err(ReadError::Damaged) }
}

/// A portion on its way.
type Fetching = JoinHandle<Result<Portion, ReadError>>;

/// A stored blob's portions with the tree beside each.
pub struct BlobPortions {
    pub(super) shared: Arc<Shared>,
    pub(super) location: BlobLocation,
    /// The portion after the last one asked for is fetched ahead.
    pub(super) ahead: tokio::sync::Mutex<Option<(u64, Fetching)>>,
}

impl BlobPortions {
    fn fetch(&self, index: u64) -> Option<Fetching> {
        let place = self.location.place(index)?;
        let shared = Arc::clone(&self.shared);
        Some(tokio::spawn(async move {
            shared
                .read_record(place, move |record, day_key| {
                    let opened = sealing::open_portion(record.payload, day_key).ok()?;
                    let OpenedPortion { index: found, data: bytes, pairs, .. } = opened;
                    (found == index).then_some(Portion { bytes, pairs })
                })
                .await
        }))
    }
}

impl PortionSource for BlobPortions {
    async fn portion(&self, index: u64) -> std::io::Result<Portion> {
        let mut ahead = self.ahead.lock().await;
        let fetching = match ahead.take() {
            Some((at, fetching)) if at == index => Some(fetching),
            _ => self.fetch(index),
        };
        *ahead = self.fetch(index + 1).map(|fetching| (index + 1, fetching));
        drop(ahead);
        let fetching = fetching.ok_or(ReadError::Range)?;
        let portion = fetching.await.map_err(|_| ReadError::Unavailable)??;
        self.shared.counters.read_bytes.fetch_add(portion.bytes.len() as u64, Ordering::Relaxed);
        Ok(portion)
    }
}
