//! Copying sealed segments from server to server (SPEC B14): the writer drives, the bytes go directly.
//!
//! The writer tells the source who may read ([`Allowed`]), then the destination what to fetch from it, a stretch at a
//! time, and in the end to adopt it. A destination dials the source with its own key, as along a chain; what it gets is
//! believed only once all of it was checked against what the writer says that it must be.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use lighter_protocol::PeerId;
use tokio::time::{Instant, timeout};

use super::connection::{Answer, Session, done};
use crate::array::ServerRecord;
use crate::disk::Disk;
use crate::ids::{Epoch, SegmentId, UnitId};
use crate::limits::{
    ANSWER_TIME_MAX, GROUP_LEN_MAX, GUEST_TIME, GUESTS_MAX, RECEIVE_AHEAD, RECEIVE_LEN_MAX,
    RECEIVE_PIECE_LEN, SEALED_LEN_MAX, SEGMENT_HEADER_LEN,
};
use crate::link::{Link, LinkError, Pending};
use crate::segment::footer::Summary;
use crate::unit::worker::off_reactor;
use crate::unit::{Partial, Phase, Stretch};
use crate::wire::{Hop, Refusal, Request, Response};

/// Who may read which sealed segment, and until when: in memory only, so a restart forgets it.
#[derive(Default)]
pub(super) struct Allowed(Mutex<BTreeMap<(PeerId, SegmentId), Instant>>);

impl Allowed {
    /// `peer` may read `segment` for a while.
    fn allow(&self, peer: PeerId, segment: SegmentId, now: Instant) -> Result<(), Refusal> {
        let mut until = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        until.retain(|_, until| *until > now);
        if until.len() >= GUESTS_MAX && !until.contains_key(&(peer, segment)) {
            return Err(Refusal::NoSpace);
        }
        until.insert((peer, segment), now + GUEST_TIME);
        Ok(())
    }

    fn may_read(&self, peer: &PeerId, segment: SegmentId, now: Instant) -> bool {
        let until = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        until.get(&(*peer, segment)).is_some_and(|until| *until > now)
    }

    /// Whether `peer` may read anything.
    pub(super) fn is_guest(&self, peer: &PeerId, now: Instant) -> bool {
        let until = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let first = (*peer, SegmentId([0; 16]));
        let own = until.range(first..).take_while(|((guest, _), _)| guest == peer);
        own.into_iter().any(|(_, until)| *until > now)
    }
}

impl<D: Disk> Session<D> {
    pub(super) fn allow(&self, segment: SegmentId, peer: PeerId) -> Answer {
        let mut copies = self.shared.units.values().filter_map(|unit| unit.shelf().get(segment));
        let own = copies
            .find(|copy| copy.header.writer == self.peer && matches!(copy.phase(), Phase::Sealed(_)))
            .ok_or(Refusal::NoSegment)?;
        if self.shared.is_over(own.header.deletion_day) {
            return Err(Refusal::Expired);
        }
        self.shared.allowed.allow(peer, segment, Instant::now())?;
        done()
    }

    pub(super) async fn read_sealed(
        &self,
        unit: UnitId,
        segment: SegmentId,
        offset: u64,
        length: u32,
    ) -> Answer {
        // Who is not allowed does not learn what is here.
        let may_read = self.is_writer || self.shared.allowed.may_read(&self.peer, segment, Instant::now());
        if !may_read {
            return Err(Refusal::NotAllowed);
        }
        if length == 0 || length as usize > GROUP_LEN_MAX {
            return Err(Refusal::Malformed);
        }
        let shelf = Arc::clone(self.unit(unit)?.shelf());
        let shelved = shelf.get(segment).ok_or(Refusal::NoSegment)?;
        if self.is_writer && shelved.header.writer != self.peer {
            return Err(Refusal::NoSegment);
        }
        if self.shared.is_over(shelved.header.deletion_day) {
            return Err(Refusal::Expired);
        }
        let range = shelved.sealed_range(offset, length)?;
        let bytes = self.shared.read_of(&shelved, range).await??;
        Ok((Response::Done, vec![bytes]))
    }

    /// Fetches a stretch. What was begun is finished, also where the connection of who asked has ended.
    pub(super) async fn receive(&self, unit: UnitId, source: Hop, stretch: Stretch) -> Answer {
        let Stretch { offset, length, .. } = stretch;
        let has_header = offset > 0 || length as usize >= SEGMENT_HEADER_LEN;
        let is_within = offset.checked_add(u64::from(length)).is_some_and(|end| end <= SEALED_LEN_MAX);
        if length == 0 || length > RECEIVE_LEN_MAX || !has_header || !is_within {
            return Err(Refusal::Malformed);
        }
        self.unit(unit)?;
        let session = self.clone();
        let receiving = tokio::spawn(async move { session.receive_stretch(unit, source, stretch).await });
        let next = receiving.await.map_err(|_| Refusal::Disk)??;
        Ok((Response::Received { next }, Vec::new()))
    }

    async fn receive_stretch(&self, unit: UnitId, source: Hop, stretch: Stretch) -> Result<u64, Refusal> {
        let _turn = self.shared.receives.acquire().await.map_err(|_| Refusal::Disk)?;
        let link = self.link_to(&source).await.map_err(|error| {
            tracing::warn!(source = %source.peer, %error, "the source of a copy cannot be reached");
            Refusal::Source
        })?;
        let unit = self.unit(unit)?;
        let now = (self.shared.clock)();
        let partial = unit.call(move |unit| unit.begin_receive(&stretch, now)).await??;
        let (segment, number) = (stretch.segment, partial.number());
        let (partial, fetched) = self.fetch(&link, source.unit, &stretch, partial).await;
        unit.call(move |unit| unit.end_receive(segment, number, partial)).await?;
        fetched
    }

    /// Reads pieces from the source, several ahead, and puts them one behind the other; in the end all of it is synced,
    /// also where the source failed on the way. Without a partial where writing failed.
    async fn fetch(
        &self,
        link: &Link,
        unit: UnitId,
        stretch: &Stretch,
        mut partial: Partial<D>,
    ) -> (Option<Partial<D>>, Result<u64, Refusal>) {
        let end = stretch.offset + u64::from(stretch.length);
        let mut asked = stretch.offset;
        let mut pending: VecDeque<(u32, Pending)> = VecDeque::new();
        let mut failed = None;
        while partial.end() < end {
            while asked < end && pending.len() < RECEIVE_AHEAD && failed.is_none() {
                let length = u32::try_from(end - asked).unwrap_or(u32::MAX).min(RECEIVE_PIECE_LEN);
                let request = Request::ReadSealed { unit, segment: stretch.segment, offset: asked, length };
                match link.send(&request, Vec::new()).await {
                    Ok(piece) => pending.push_back((length, piece)),
                    Err(error) => failed = Some(error),
                }
                asked += u64::from(length);
            }
            let Some((length, piece)) = pending.pop_front() else { break };
            let bytes = match piece_of(piece, length).await {
                Ok(bytes) => bytes,
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            };
            let is_last = bytes.len() < length as usize;
            let now = (self.shared.clock)();
            let writing = off_reactor(move || partial.write(&bytes, now).map(|()| (partial, bytes.len())));
            partial = match writing.await {
                Ok(Ok((written, len))) => {
                    self.shared.counters.received_bytes.fetch_add(len as u64, Ordering::Relaxed);
                    written
                }
                Ok(Err(error)) => return (None, Err(error.into())),
                Err(stopped) => return (None, Err(stopped.into())),
            };
            if is_last {
                break;
            }
        }
        let syncing = off_reactor(move || partial.sync().map(|()| partial)).await;
        match (syncing, failed) {
            (Ok(Ok(partial)), None) => {
                let next = partial.end();
                (Some(partial), Ok(next))
            }
            (Ok(Ok(partial)), Some(error)) => {
                // One that refuses may be asked for something else; one that is silent or wrong is dialled anew.
                if !matches!(error, LinkError::Refused(_)) {
                    link.close();
                }
                tracing::warn!(segment = %stretch.segment, %error, "the source of a copy failed");
                (Some(partial), Err(Refusal::Source))
            }
            (Ok(Err(error)), _) => (None, Err(error.into())),
            (Err(stopped), _) => (None, Err(stopped.into())),
        }
    }

    /// The link to a copy's source.
    async fn link_to(&self, hop: &Hop) -> Result<Arc<Link>, LinkError> {
        let mut sources = self.shared.sources.lock().await;
        sources.retain(|_, link| !link.is_closed());
        if let Some(link) = sources.get(&hop.peer) {
            return Ok(Arc::clone(link));
        }
        let record = ServerRecord { peer: hop.peer, address: hop.address };
        let (link, _) = Link::connect(&*self.shared.dial, &record, (self.shared.clock)()).await?;
        let link = Arc::new(link);
        sources.insert(hop.peer, Arc::clone(&link));
        Ok(link)
    }

    pub(super) async fn adopt(
        &self,
        unit: UnitId,
        epoch: Epoch,
        segment: SegmentId,
        summary: Summary,
    ) -> Answer {
        let clock = Arc::clone(&self.shared.clock);
        let report = self.unit(unit)?.adopt(segment, self.peer, epoch, summary, clock).await??;
        self.shared.counters.adopted.fetch_add(1, Ordering::Relaxed);
        tracing::info!(%segment, %unit, "a copy was adopted");
        Ok((Response::Sealed(report), Vec::new()))
    }
}

/// A piece, as asked or shorter.
async fn piece_of(pending: Pending, length: u32) -> Result<Bytes, LinkError> {
    let answered = timeout(ANSWER_TIME_MAX, pending.answer()).await.map_err(|_| LinkError::TimedOut)?;
    match answered? {
        (Response::Done, bytes) if bytes.len() <= length as usize => Ok(bytes),
        _ => Err(LinkError::Wrong),
    }
}
