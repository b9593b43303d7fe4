//! Reading what other relays have stored: those that share this one's array key, storage servers and database (SPEC D10).
//!
//! Each relay writes segments of its own, and no other changes them. Where a record lies that another relay placed, this
//! one does not know by itself: it asks all servers, which answer it where the writer's table names it among its readers
//! (`Table::readers`). What was found is remembered, and asked anew when a read of it fails: copies move, and records of
//! a segment that was closed below them go on in another (`Request::Successors`).
//!
//! What is read is checked as with one's own: checksum, place, cipher tag under the array key, BLAKE3.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use lighter_protocol::{Day, PeerId};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, timeout_at};

use super::join::list_page;
use super::state::Shared;
use super::{Array, ReadError, TableChangeError};
use crate::ids::{DataKey, SegmentId, UnitId};
use crate::keys::DayKey;
use crate::limits::{FELLOW_SEGMENTS_MAX, SUCCESSORS_MAX};
use crate::link::Link;
use crate::location::{BlobLocation, RecordPlace};
use crate::segment::RECORDS_AT;
use crate::segment::header::{Member, SegmentHeader};
use crate::table::{Change, ChangeError};
use crate::wire::{CopyState, Request, SegmentInfo};

/// Segments of other relays that were looked for, the latest ones.
#[derive(Default)]
pub(super) struct Fellows {
    known: Mutex<Found>,
    /// One is looked for at a time: the readers of a blob want the same ones.
    looking: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Found {
    segments: BTreeMap<SegmentId, Arc<FellowSegment>>,
    /// In the order in which they were found.
    order: VecDeque<SegmentId>,
}

/// A segment that another relay wrote.
pub(super) struct FellowSegment {
    deletion_day: Day,
    day_key: Option<Arc<DayKey>>,
    copies: Vec<(Member, SegmentInfo)>,
    /// Where its records go on that were placed at this length or above.
    next: Option<(u64, SegmentId)>,
}

/// A record of another relay: where it lies, who has copies, and what opens it.
pub(super) struct FellowRecord {
    pub(super) place: RecordPlace,
    pub(super) keys: Vec<DataKey>,
    pub(super) day_key: Arc<DayKey>,
}

impl Fellows {
    fn get(&self, segment: &SegmentId) -> Option<Arc<FellowSegment>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).segments.get(segment).cloned()
    }

    fn put(&self, segment: SegmentId, found: FellowSegment) -> Arc<FellowSegment> {
        let found = Arc::new(found);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.segments.insert(segment, Arc::clone(&found)).is_none() {
            known.order.push_back(segment);
        }
        if known.order.len() > FELLOW_SEGMENTS_MAX
            && let Some(oldest) = known.order.pop_front()
        {
            known.segments.remove(&oldest);
        }
        found
    }
}

impl FellowSegment {
    /// The length at which it was closed, where a copy says so. Nothing is sealed before its length is decided.
    fn end(&self) -> Option<u64> {
        self.copies.iter().find_map(|(_, info)| match info.state {
            CopyState::Sealed(summary) => Some(summary.length),
            _ => None,
        })
    }

    fn keys(&self, place: &RecordPlace) -> Vec<DataKey> {
        let RecordPlace { segment, offset, length, .. } = *place;
        let key = |member: &Member| DataKey {
            server: member.peer,
            unit: member.unit,
            segment,
            offset,
            length,
            deletion_day: self.deletion_day,
        };
        self.copies.iter().map(|(member, _)| key(member)).collect()
    }

    /// Servers whose copy has everything up to `end`.
    fn whole_on(&self, end: u64) -> BTreeSet<PeerId> {
        let is_whole =
            |info: &SegmentInfo| info.length >= end && info.damaged == 0 && info.state != CopyState::Failed;
        self.copies.iter().filter(|(_, info)| is_whole(info)).map(|(member, _)| member.peer).collect()
    }
}

impl Shared {
    /// Where a record lies that another relay placed there. With `anew`, nothing remembered counts.
    pub(super) async fn find_of_fellow(
        &self,
        place: RecordPlace,
        anew: bool,
    ) -> Result<FellowRecord, ReadError> {
        let (place, found) = self.find_segment_of_fellow(place, anew).await?;
        let day_key = found.day_key.clone().ok_or(ReadError::Damaged)?;
        Ok(FellowRecord { place, keys: found.keys(&place), day_key })
    }

    async fn find_segment_of_fellow(
        &self,
        mut place: RecordPlace,
        anew: bool,
    ) -> Result<(RecordPlace, Arc<FellowSegment>), ReadError> {
        for _ in 0..SUCCESSORS_MAX {
            let found = match self.fellows.get(&place.segment).filter(|_| !anew) {
                Some(found) => found,
                None => {
                    let _one_at_a_time = self.fellows.looking.lock().await;
                    match self.fellows.get(&place.segment).filter(|_| !anew) {
                        Some(found) => found,
                        None => self.ask_for_segment(place, anew).await,
                    }
                }
            };
            match found.next {
                Some((length, segment)) if place.offset >= length => {
                    let offset = place.offset - length + RECORDS_AT;
                    place = RecordPlace { segment, offset, ..place };
                }
                _ if found.copies.is_empty() => {
                    let state = self.state();
                    let all_answer = state.live_peers().len() == state.servers.len();
                    return Err(if all_answer { ReadError::Damaged } else { ReadError::Unavailable });
                }
                _ => return Ok((place, found)),
            }
        }
        Err(ReadError::Damaged)
    }

    /// Asks all servers for the segment of `place`, and, where the record cannot be in it or `and_successors`, for those
    /// that it may lie in instead.
    async fn ask_for_segment(&self, place: RecordPlace, and_successors: bool) -> Arc<FellowSegment> {
        let segment = place.segment;
        let units = self.live_servers().into_iter().flat_map(|(peer, link, units)| {
            let members = units.into_iter().map(move |unit| Member { peer, unit });
            members.map(move |member| {
                (Arc::clone(&link), Some(member), Request::Stat { unit: member.unit, segment })
            })
        });
        let copies = self.ask_all(units).await;
        let header = copies.first().map(|(_, header, _)| header);
        let deletion_day = header.map_or(place.deletion_day, |header| header.deletion_day);
        let day_key = header.and_then(|header| {
            let unwrapped = self.keys().unwrap_day_key(header.deletion_day, header.day_key.as_ref()?);
            unwrapped.map(|(key, _)| Arc::new(key))
        });
        let copies: Vec<_> =
            copies.into_iter().filter_map(|(member, _, info)| member.map(|member| (member, info))).collect();
        let mut found = FellowSegment { deletion_day, day_key, copies, next: None };
        let is_behind = found.end().is_some_and(|end| place.offset >= end);
        if and_successors || is_behind || found.copies.is_empty() {
            found.next = self.ask_for_successor(segment).await;
        }
        if found.copies.is_empty() && found.next.is_none() {
            // It may be there the next time that is asked.
            return Arc::new(found);
        }
        self.fellows.put(segment, found)
    }

    /// Where the records of a closed segment go on, and from which length on. Where several later ones say so, all but
    /// one were never written.
    async fn ask_for_successor(&self, segment: SegmentId) -> Option<(u64, SegmentId)> {
        let servers = self.live_servers().into_iter();
        let found =
            self.ask_all(servers.map(|(_, link, _)| (link, None, Request::Successors { segment }))).await;
        let written = found.into_iter().filter(|(_, _, info)| info.length > RECORDS_AT);
        let (_, latest, _) = written.max_by_key(|(_, header, _)| header.epoch)?;
        let closed = latest.closed.iter().find(|closed| closed.segment == segment && closed.goes_on)?;
        Some((closed.length, latest.segment))
    }

    fn live_servers(&self) -> Vec<(PeerId, Arc<Link>, Vec<UnitId>)> {
        let state = self.state();
        let live = state.servers.iter().filter_map(|server| {
            let live = server.live.as_ref().filter(|live| !live.is_closed())?;
            let units = live.units.iter().map(|unit| unit.unit).collect();
            Some((server.record.peer, Arc::clone(&live.reads), units))
        });
        live.collect()
    }

    /// Asks all at once. Once something was found, those that have not answered are not waited for much longer.
    async fn ask_all(
        &self,
        asked: impl Iterator<Item = (Arc<Link>, Option<Member>, Request)>,
    ) -> Vec<Answer> {
        let mut out: FuturesUnordered<_> =
            asked.map(async |(link, member, request)| (member, list_page(&link, &request).await)).collect();
        let mut deadline = Instant::now() + self.config.write_time_max;
        let mut found = Vec::new();
        while let Ok(Some((member, answer))) = timeout_at(deadline, out.next()).await {
            let Ok(answer) = answer else { continue };
            found.extend(answer.into_iter().map(|(header, info)| (member, header, info)));
            if !found.is_empty() {
                deadline = deadline.min(Instant::now() + self.config.write_time_min);
            }
        }
        found
    }

    /// Servers that have all of what another relay placed in a segment up to there.
    async fn whole_of_fellow(&self, end: RecordPlace) -> usize {
        let found = self.find_segment_of_fellow(end, true).await;
        found.map_or(0, |(place, found)| found.whole_on(place.offset + u64::from(place.length)).len())
    }
}

/// What a server said of a segment; with whose copy it is, where a unit was asked.
type Answer = (Option<Member>, SegmentHeader, SegmentInfo);

impl Array {
    /// Says which other relays share this one's array key and servers: from now on those read what this one stores, and
    /// this one what they store. It is in the table, on enough servers, on return; and stays until it is said anew.
    ///
    /// # Errors
    /// See [`TableChangeError`].
    // SPEC: D10
    pub async fn set_fellows(&self, fellows: BTreeSet<PeerId>) -> Result<(), TableChangeError> {
        match self.change_table(&Change::Readers(fellows)).await {
            Ok(_) | Err(TableChangeError::Refused(ChangeError::Unchanged)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Whether as many copies as are promised of what lies there are there, also where another relay stored it: of that,
    /// the servers are asked.
    // SPEC: D8, D10
    pub async fn has_all_copies(&self, location: &BlobLocation) -> bool {
        if self.is_whole(location) {
            return true;
        }
        let shared = &self.inner.shared;
        if location.is_empty() || !location.is_sound() {
            return false;
        }
        let mut last: BTreeMap<SegmentId, RecordPlace> = BTreeMap::new();
        for place in location.places() {
            let last = last.entry(place.segment).or_insert(place);
            if last.offset < place.offset {
                *last = place;
            }
        }
        for place in last.into_values() {
            let is_own = shared.state().segments.contains_key(&place.segment);
            if is_own || shared.whole_of_fellow(place).await < shared.config.copies {
                return false;
            }
        }
        true
    }
}
