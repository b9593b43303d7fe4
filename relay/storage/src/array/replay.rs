//! Replaying the catalog's log: all records of all segments, merged into their one line.
//!
//! Segments of one class follow each other; segments of different classes lie beside each other. So only a few are
//! merged at a time, and the index of a segment is fetched when the line reaches it. Each record links to the one before
//! it in its class: where that is missing and has not expired, something was taken out, and that is an alarm.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use lighter_protocol::Day;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::ReadError;
use super::entry::Stage;
use super::state::Shared;
use crate::ids::{Class, SegmentId, Sequence};
use crate::limits::{ANSWER_TIME_MAX, REPLAY_AHEAD, SEGMENT_RECORDS_MAX};
use crate::link::LinkError;
use crate::location::RecordPlace;
use crate::record::Kind;
use crate::sealing::{self, Link};
use crate::segment::footer::IndexEntry;
use crate::wire::{Refusal, Request, Response};

/// One record of the catalog's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogEntry {
    /// Its place in the line.
    pub sequence: Sequence,
    /// The class that it was filed under.
    pub class: Class,
    /// It is gone at the end of this day.
    pub deletion_day: Day,
    /// What was given to [`Array::append_catalog`](super::Array::append_catalog).
    pub record: Vec<u8>,
}

/// What a replay found that should not be. All zero in a sound array.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplayAlarms {
    /// Places where a record is missing that is not expired: the chain is broken there.
    pub gaps: u64,
    /// Records, or indexes of whole segments, that are right on no copy; each was left out.
    pub unreadable: u64,
}

/// Catalog records, in order.
pub struct Replay {
    shared: Arc<Shared>,
    after: Sequence,
    /// Segments that the line has not reached: the last is the next.
    waiting: Vec<(Sequence, SegmentId)>,
    /// Segments that it runs through.
    merging: Vec<Cursor>,
    /// Records on their way, in order.
    ahead: VecDeque<Fetch>,
    /// The last record seen of each class.
    seen: BTreeMap<Class, (Sequence, [u8; 16])>,
    alarms: ReplayAlarms,
}

struct Cursor {
    segment: SegmentId,
    class: Class,
    deletion_day: Day,
    entries: VecDeque<IndexEntry>,
}

/// Where a segment's catalog records lie.
pub(super) struct Index {
    class: Class,
    deletion_day: Day,
    pub(super) entries: Vec<IndexEntry>,
    /// It lacks nothing up to the segment's length.
    pub(super) is_whole: bool,
}

struct Fetch {
    sequence: Sequence,
    class: Class,
    place: RecordPlace,
    opened: JoinHandle<Result<Opened, ReadError>>,
}

/// A record, with its link and its tag.
type Opened = (Link, Vec<u8>, [u8; 16]);

impl Replay {
    pub(super) fn new(shared: Arc<Shared>, after: Sequence) -> Self {
        let mut waiting: Vec<_> = {
            let state = shared.state();
            let entries = state.segments.values().filter(|entry| !entry.is_empty());
            // A copy that was sealed with damage in it may lack records: what its footer says leaves nothing out.
            let wanted = entries.filter(|entry| {
                entry
                    .sound_summary()
                    .is_none_or(|summary| summary.last > after && summary.catalog_records > 0)
            });
            wanted.map(|entry| (entry.first(), entry.header.segment)).collect()
        };
        waiting.sort_unstable();
        waiting.reverse();
        Self {
            shared,
            after,
            waiting,
            merging: Vec::new(),
            ahead: VecDeque::new(),
            seen: BTreeMap::new(),
            alarms: ReplayAlarms::default(),
        }
    }

    /// The next record; `None` when all were given.
    ///
    /// # Errors
    /// [`ReadError::Unavailable`] where no copy of the next one can be reached; calling again tries again.
    pub async fn next(&mut self) -> Result<Option<CatalogEntry>, ReadError> {
        loop {
            self.fetch_ahead().await?;
            let Some(next) = self.ahead.front_mut() else { return Ok(None) };
            let opened = (&mut next.opened).await.unwrap_or(Err(ReadError::Unavailable));
            if opened == Err(ReadError::Unavailable) {
                let again = fetch(&self.shared, next.sequence, next.place);
                next.opened = again;
                return Err(ReadError::Unavailable);
            }
            let Some(Fetch { sequence, class, place, .. }) = self.ahead.pop_front() else { return Ok(None) };
            match opened {
                Ok((link, record, tag)) => {
                    self.check_link(class, sequence, &link);
                    self.seen.insert(class, (sequence, tag));
                    let deletion_day = place.deletion_day;
                    return Ok(Some(CatalogEntry { sequence, class, deletion_day, record }));
                }
                Err(ReadError::Expired) => {}
                Err(_) => {
                    self.alarms.unreadable += 1;
                    tracing::error!(?sequence, segment = %place.segment, "a catalog record is right on no copy");
                }
            }
        }
    }

    /// What was wrong with the log so far.
    pub fn alarms(&self) -> ReplayAlarms {
        self.alarms
    }

    fn check_link(&mut self, class: Class, sequence: Sequence, link: &Link) {
        let follows = match self.seen.get(&class) {
            Some(seen) => *seen == (link.sequence, link.tag),
            None => link.sequence <= self.after,
        };
        let is_expired = Day(link.deletion_day).end() <= (self.shared.clock)();
        if !follows && !is_expired {
            self.alarms.gaps += 1;
            tracing::error!(?sequence, missing = ?link.sequence, "a catalog record is missing");
        }
    }

    /// Keeps so many records on their way.
    async fn fetch_ahead(&mut self) -> Result<(), ReadError> {
        while self.ahead.len() < REPLAY_AHEAD {
            self.reach_segments().await?;
            let heads = self.merging.iter().enumerate();
            let next = heads.filter_map(|(at, cursor)| Some((cursor.entries.front()?.sequence, at))).min();
            let Some((sequence, at)) = next else { return Ok(()) };
            let cursor = &mut self.merging[at];
            let Some(entry) = cursor.entries.pop_front() else { return Ok(()) };
            let place = RecordPlace {
                segment: cursor.segment,
                offset: u64::from(entry.offset),
                length: entry.length,
                deletion_day: cursor.deletion_day,
            };
            let opened = fetch(&self.shared, sequence, place);
            self.ahead.push_back(Fetch { sequence, class: cursor.class, place, opened });
            if cursor.entries.is_empty() {
                self.merging.swap_remove(at);
            }
        }
        Ok(())
    }

    /// Takes in the segments that begin before the next record.
    async fn reach_segments(&mut self) -> Result<(), ReadError> {
        while let Some((first, segment)) = self.waiting.last().copied() {
            let head = self.merging.iter().filter_map(|cursor| Some(cursor.entries.front()?.sequence)).min();
            if head.is_some_and(|head| head < first) {
                return Ok(());
            }
            match self.shared.catalog_index(segment).await {
                Ok(Some(Index { class, deletion_day, mut entries, is_whole })) => {
                    self.alarms.unreadable += u64::from(!is_whole);
                    entries.retain(|entry| entry.sequence > self.after);
                    if !entries.is_empty() {
                        let entries = entries.into();
                        self.merging.push(Cursor { segment, class, deletion_day, entries });
                    }
                }
                Ok(None) | Err(ReadError::Expired) => {}
                Err(ReadError::Unavailable) => return Err(ReadError::Unavailable),
                Err(_) => self.alarms.unreadable += 1,
            }
            self.waiting.pop();
        }
        Ok(())
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        self.ahead.iter().for_each(|fetch| fetch.opened.abort());
    }
}

fn fetch(
    shared: &Arc<Shared>,
    sequence: Sequence,
    place: RecordPlace,
) -> JoinHandle<Result<Opened, ReadError>> {
    let shared = Arc::clone(shared);
    tokio::spawn(async move { shared.read_catalog(sequence, place).await })
}

impl Shared {
    /// Reads and opens one catalog record.
    pub(super) async fn read_catalog(
        &self,
        sequence: Sequence,
        place: RecordPlace,
    ) -> Result<Opened, ReadError> {
        let open = move |record: &crate::record::Record<'_>, day_key: &crate::keys::DayKey| {
            if record.header.kind != Kind::Catalog || record.header.sequence != sequence {
                return None;
            }
            let (link, plain) = sealing::open_catalog(record.payload, sequence, day_key).ok()?;
            Some((link, plain, sealing::payload_tag(record.payload)))
        };
        self.read_record(place, open).await
    }

    /// Where a segment's catalog records lie, from the first member that has all of it; what lies beyond the segment's
    /// length is left out. A copy that ends before says nothing of what comes behind: it is being made, perhaps, and only
    /// where there is no other does it count. `None` where the segment is gone meanwhile.
    pub(super) async fn catalog_index(&self, segment: SegmentId) -> Result<Option<Index>, ReadError> {
        let (header, mut holders, length, is_unmirrored) = {
            let state = self.state();
            let Some(entry) = state.segments.get(&segment) else { return Ok(None) };
            if entry.day_key.is_none() {
                return Err(ReadError::Damaged);
            }
            // Not on all members yet: what one copy lacks may be on the disk that fails now, and on no other.
            let is_unmirrored = entry.header.is_mirrored_later() && entry.stage != Stage::Settled;
            (Arc::clone(&entry.header), state.holders_to_read(entry), entry.length, is_unmirrored)
        };
        if header.deletion_day.end() <= (self.clock)() {
            return Err(ReadError::Expired);
        }
        let (class, deletion_day) = (header.class, header.deletion_day);
        let (mut is_away, mut longest) = (false, None);
        let live = self.state().live_peers();
        self.hedges.order(&mut holders, |holder| holder.peer, |server| live.contains(server));
        for member in holders {
            let link = self.state().live(&member.peer).map(|live| Arc::clone(&live.reads));
            let Some(link) = link else {
                is_away = true;
                continue;
            };
            match fetch_index(&link, member.unit, segment).await {
                Ok((mut entries, reached)) => {
                    entries.retain(|entry| u64::from(entry.offset) + u64::from(entry.length) <= length);
                    let is_whole = reached >= length;
                    let index = Index { class, deletion_day, entries, is_whole };
                    if is_whole {
                        return Ok(Some(index));
                    }
                    if longest.as_ref().is_none_or(|(known, _)| *known < reached) {
                        longest = Some((reached, index));
                    }
                }
                Err(LinkError::Refused(
                    refusal @ (Refusal::NoSegment | Refusal::Unsound | Refusal::Disk),
                )) => {
                    is_away |= is_unmirrored && refusal == Refusal::Disk;
                    self.count_bad_copy(segment, member.peer, "no index");
                }
                Err(error) => {
                    if error == LinkError::TimedOut {
                        self.hedges.overtaken(member.peer, Instant::now());
                    }
                    is_away = true;
                }
            }
        }
        match longest {
            _ if is_away => Err(ReadError::Unavailable),
            Some((reached, index)) => {
                tracing::error!(%segment, length, reached, "no copy has all of a segment's index");
                Ok(Some(index))
            }
            None => Err(ReadError::Damaged),
        }
    }

    /// What the next catalog record of `class` links to: found from the log when the array is opened.
    pub(super) async fn find_tail(&self, class: Class) -> Result<Link, ReadError> {
        let mut segments: Vec<_> = {
            let state = self.state();
            let of_class = state.segments.values().filter(|entry| entry.header.class == class);
            of_class.map(|entry| (entry.first(), entry.header.segment)).collect()
        };
        segments.sort_unstable();
        while let Some((_, segment)) = segments.pop() {
            let (entries, deletion_day) = match self.catalog_index(segment).await {
                Ok(Some(Index { entries, deletion_day, .. })) => (entries, deletion_day),
                Ok(None) | Err(ReadError::Expired | ReadError::Damaged | ReadError::Range) => continue,
                Err(ReadError::Unavailable) => return Err(ReadError::Unavailable),
            };
            for entry in entries.iter().rev() {
                let (offset, length) = (u64::from(entry.offset), entry.length);
                let place = RecordPlace { segment, offset, length, deletion_day };
                match self.read_catalog(entry.sequence, place).await {
                    Ok((_, _, tag)) => {
                        let (sequence, deletion_day) = (entry.sequence, deletion_day.0);
                        return Ok(Link { sequence, tag, deletion_day });
                    }
                    Err(ReadError::Unavailable) => return Err(ReadError::Unavailable),
                    Err(_) => {}
                }
            }
        }
        Ok(Link::default())
    }
}

/// The catalog records of one copy, and up to where none is missing.
async fn fetch_index(
    link: &crate::link::Link,
    unit: crate::ids::UnitId,
    segment: SegmentId,
) -> Result<(Vec<IndexEntry>, u64), LinkError> {
    let (mut all, mut reached): (Vec<IndexEntry>, _) = (Vec::new(), u64::MAX);
    loop {
        let from = u32::try_from(all.len()).unwrap_or(u32::MAX);
        let request = Request::Index { unit, segment, from };
        let (response, _) = link.call(&request, Vec::new(), ANSWER_TIME_MAX).await?;
        let Response::Index { entries, total, length } = response else { return Err(LinkError::Wrong) };
        let is_ascending = entries.windows(2).all(|pair| pair[0].sequence < pair[1].sequence)
            && all.last().is_none_or(|last| entries.iter().all(|entry| entry.sequence > last.sequence));
        if u64::from(total) > SEGMENT_RECORDS_MAX || !is_ascending {
            return Err(LinkError::Wrong);
        }
        let is_page_empty = entries.is_empty();
        all.extend(entries);
        reached = reached.min(length);
        if all.len() >= total as usize {
            return Ok((all, reached));
        }
        if is_page_empty {
            return Err(LinkError::Wrong);
        }
    }
}
