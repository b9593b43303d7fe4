//! One connection of a storage server.
//!
//! Order of the loop: read a frame (bounded in size and time); take a place for it (bounded in number and bytes);
//! appends are queued before the next frame is read, so that they keep their order; everything else runs beside.
//! Answers go out as they come.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use lighter_protocol::PeerId;
use tokio::io::{AsyncWriteExt, BufWriter, ReadHalf, WriteHalf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::Shared;
use crate::array::ServerRecord;
use crate::disk::Disk;
use crate::ids::{DataKey, SegmentId, UnitId};
use crate::keys::WrappedKey;
use crate::limits::{
    ANSWER_TIME_MAX, CONNECTION_DATA_MAX, CONNECTION_REQUESTS_MAX, GROUP_LEN_MAX, HELLO_TIME_MAX, HOLES_MAX,
    IDLE_TIME_MAX, INDEX_PAGE_MAX, PAGE_MAX, THIN_AGE_DAYS,
};
use crate::link::{Link, LinkError, PeerStream, Pending};
use crate::segment::footer::{HOLE_LEN, decode_holes};
use crate::segment::header::SegmentHeader;
use crate::unit::worker::{UnitHandle, off_reactor};
use crate::unit::{CheckedAppend, Phase, Shelved, Stretch, UnitError};
use crate::wire::{
    CopyState, Frame, Hop, OutFrame, Refusal, Request, Response, SegmentInfo, Target, UnitInfo, VERSION,
};

pub(super) type Answer = Result<(Response, Vec<Bytes>), Refusal>;

/// A connection whose peer was told that it may go on.
pub(crate) struct Welcomed<D: Disk> {
    read: ReadHalf<Box<dyn PeerStream>>,
    answers: mpsc::Sender<OutFrame>,
    tasks: JoinSet<()>,
    session: Session<D>,
    _place: OwnedSemaphorePermit,
}

/// Hears a connection's first request; `None` where its peer may not go on, or says nothing in time, or where there are
/// too many connections.
pub(crate) async fn welcome<D: Disk>(
    stream: Box<dyn PeerStream>,
    peer: PeerId,
    shared: &Arc<Shared<D>>,
) -> Option<Welcomed<D>> {
    let (mut read, write) = tokio::io::split(stream);
    let (answers, queue) = mpsc::channel(CONNECTION_REQUESTS_MAX);
    let mut tasks = JoinSet::new();
    tasks.spawn(send_answers(write, queue));
    let session = Session { peer, is_writer: shared.writers.contains(&peer), shared: Arc::clone(shared) };
    let greeted = timeout(HELLO_TIME_MAX, session.greet(&mut read, &answers)).await;
    if !matches!(greeted, Ok(true)) {
        tracing::debug!(%peer, "refused, or no hello");
        // What was answered is sent before the connection ends.
        drop(answers);
        let _ = timeout(HELLO_TIME_MAX, tasks.join_next()).await;
        return None;
    }
    let Ok(place) = Arc::clone(&shared.places).try_acquire_owned() else {
        tracing::warn!(%peer, "too many connections: one was ended");
        return None;
    };
    Some(Welcomed { read, answers, tasks, session, _place: place })
}

impl<D: Disk> Welcomed<D> {
    /// Serves the connection to its end.
    pub(crate) async fn serve(self) {
        let Self { mut read, answers, mut tasks, session, _place } = self;
        let places = Arc::new(Semaphore::new(CONNECTION_REQUESTS_MAX));
        let bytes = Arc::new(Semaphore::new(CONNECTION_DATA_MAX));
        loop {
            while tasks.try_join_next().is_some() {}
            let Ok(Ok(frame)) = timeout(IDLE_TIME_MAX, Frame::read(&mut read)).await else { break };
            let Ok(request) = frame.decode::<Request>() else { break };
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { break };
            let data_len = u32::try_from(frame.data.len()).unwrap_or(u32::MAX);
            let data_len = data_len.max(answer_len(&request));
            let Ok(room) = Arc::clone(&bytes).acquire_many_owned(data_len).await else { break };
            // Nobody takes answers any more.
            if answers.is_closed() {
                break;
            }
            let work = session.begin(request, frame.data).await;
            tasks.spawn(answer(session.clone(), frame.id, work, answers.clone(), (place, room)));
        }
    }
}

/// Bytes of data that the answer may have: what it holds counts until it is sent.
fn answer_len(request: &Request) -> u32 {
    match request {
        Request::ReadRange { length, .. } | Request::ReadSealed { length, .. } => {
            (*length).min(u32::try_from(GROUP_LEN_MAX).unwrap_or(u32::MAX))
        }
        _ => 0,
    }
}

async fn send_answers(write: WriteHalf<Box<dyn PeerStream>>, mut queue: mpsc::Receiver<OutFrame>) {
    let mut write = BufWriter::with_capacity(64 * 1024, write);
    while let Some(frame) = queue.recv().await {
        let sending = async {
            frame.write(&mut write).await?;
            if queue.is_empty() { write.flush().await } else { Ok(()) }
        };
        // One that does not take its answers does not get more.
        if !matches!(timeout(ANSWER_TIME_MAX, sending).await, Ok(Ok(()))) {
            return;
        }
    }
}

async fn answer<D: Disk>(
    session: Session<D>,
    id: u64,
    work: Work,
    answers: mpsc::Sender<OutFrame>,
    _place: (OwnedSemaphorePermit, OwnedSemaphorePermit),
) {
    let (response, data) = session.finish(work).await.unwrap_or_else(|refusal| {
        session.shared.counters.refused.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(peer = %session.peer, %refusal, "refused");
        (Response::Refused(refusal), Vec::new())
    });
    if let Ok(frame) = OutFrame::new(id, &response, data) {
        let _ = answers.send(frame).await;
    }
}

/// A request that is under way, or to be done.
enum Work {
    Appending {
        local: tokio::sync::oneshot::Receiver<Result<(), UnitError>>,
        next: Option<(Pending, Hop)>,
        key: DataKey,
        digest: u32,
    },
    Refused(Refusal),
    ToDo(Request, Bytes),
}

pub(super) struct Session<D: Disk> {
    pub(super) peer: PeerId,
    pub(super) is_writer: bool,
    pub(super) shared: Arc<Shared<D>>,
}

impl<D: Disk> Clone for Session<D> {
    fn clone(&self) -> Self {
        Self { peer: self.peer, is_writer: self.is_writer, shared: Arc::clone(&self.shared) }
    }
}

impl<D: Disk> Session<D> {
    /// The first request: whether the peer may go on.
    async fn greet(
        &self,
        read: &mut (impl tokio::io::AsyncRead + Unpin),
        answers: &mpsc::Sender<OutFrame>,
    ) -> bool {
        let Ok(frame) = Frame::read(read).await else { return false };
        let Ok(Request::Hello { version, now }) = frame.decode() else { return false };
        let response = if version != VERSION {
            Response::Refused(Refusal::Version)
        } else if self.is_writer {
            let wall = (self.shared.clock)();
            self.shared.watch.lock().unwrap_or_else(std::sync::PoisonError::into_inner).hear(wall, now);
            self.hello().await
        } else if self.is_fellow_member() || self.shared.allowed.is_guest(&self.peer, Instant::now()) {
            Response::Hello { now: (self.shared.clock)(), epoch: Default::default(), units: Vec::new() }
        } else {
            tracing::warn!(peer = %self.peer, "a stranger was refused");
            Response::Refused(Refusal::NotAllowed)
        };
        let is_welcome = matches!(response, Response::Hello { .. });
        let Ok(frame) = OutFrame::new(frame.id, &response, Vec::new()) else { return false };
        answers.send(frame).await.is_ok() && is_welcome
    }

    async fn hello(&self) -> Response {
        let peer = self.peer;
        let (mut epoch, mut units) = (Default::default(), Vec::new());
        for (id, handle) in &self.shared.units {
            let asked = handle.call(move |unit| (unit.epoch(&peer), unit.space(), unit.incomplete())).await;
            let Ok((unit_epoch, space, incomplete)) = asked else {
                continue; // a unit that has stopped is none
            };
            epoch = unit_epoch.max(epoch);
            let set_aside = handle.shelf().set_aside_count();
            let (total, free) = (space.total, space.free);
            units.push(UnitInfo { unit: *id, epoch: unit_epoch, total, free, set_aside, incomplete });
        }
        Response::Hello { now: (self.shared.clock)(), epoch, units }
    }

    /// Whether the peer is a member of a segment that is here.
    fn is_fellow_member(&self) -> bool {
        self.shared.units.values().any(|unit| unit.shelf().has_member(&self.peer))
    }

    /// What has to keep its order.
    async fn begin(&self, request: Request, data: Bytes) -> Work {
        let Request::Append { target, offset, forward } = request else {
            return Work::ToDo(request, data);
        };
        match self.begin_append(target, offset, forward, data).await {
            Ok(work) => work,
            Err(refusal) => Work::Refused(refusal),
        }
    }

    async fn begin_append(
        &self,
        target: Target,
        offset: u64,
        forward: Option<Hop>,
        data: Bytes,
    ) -> Result<Work, Refusal> {
        let unit = self.unit(target.unit)?;
        let shelved = unit.shelf().get(target.segment).ok_or(Refusal::NoSegment)?;
        let is_own = self.is_writer && target.writer == self.peer;
        let is_passed_on = forward.is_none()
            && self.shared.writers.contains(&target.writer)
            && shelved.header.unit_of(&self.peer).is_some();
        if !is_own && !is_passed_on {
            return Err(Refusal::NotAllowed);
        }
        let checked =
            CheckedAppend::check(target.segment, offset, data.clone(), target.writer, target.epoch)?;
        let key = DataKey {
            server: self.shared.peer,
            unit: target.unit,
            segment: target.segment,
            offset,
            length: u32::try_from(data.len()).unwrap_or(u32::MAX),
            deletion_day: shelved.header.deletion_day,
        };
        let digest = checked.digest();
        let local = unit.append(checked).await?;
        let next = match forward {
            Some(hop) => {
                let passed_on = self.pass_on(hop, target, offset, data).await.map_err(|error| {
                    tracing::warn!(next = %hop.peer, %error, "the next in the chain cannot be reached");
                    Refusal::Chain
                })?;
                Some((passed_on, hop))
            }
            None => None,
        };
        Ok(Work::Appending { local, next, key, digest })
    }

    /// Sends an append on to the next member (SPEC C4).
    // SPEC: C4
    async fn pass_on(
        &self,
        hop: Hop,
        target: Target,
        offset: u64,
        data: Bytes,
    ) -> Result<Pending, LinkError> {
        let link = self.chain_to(&hop).await?;
        let target = Target { unit: hop.unit, ..target };
        link.send(&Request::Append { target, offset, forward: None }, vec![data]).await
    }

    async fn chain_to(&self, hop: &Hop) -> Result<Arc<Link>, LinkError> {
        let mut chains = self.shared.chains.lock().await;
        if let Some(link) = chains.get(&hop.peer).filter(|link| !link.is_closed()) {
            return Ok(Arc::clone(link));
        }
        let record = ServerRecord { peer: hop.peer, address: hop.address };
        let (link, _) = Link::connect(&*self.shared.dial, &record, (self.shared.clock)()).await?;
        let link = Arc::new(link);
        chains.insert(hop.peer, Arc::clone(&link));
        Ok(link)
    }

    async fn finish(&self, work: Work) -> Answer {
        match work {
            Work::Refused(refusal) => Err(refusal),
            Work::Appending { local, next, key, digest } => {
                let next = match next {
                    None => None,
                    Some((pending, hop)) => {
                        let expected = vec![DataKey { server: hop.peer, unit: hop.unit, ..key }];
                        Some((timeout(ANSWER_TIME_MAX, pending.answer()).await, expected))
                    }
                };
                local.await.map_err(|_| Refusal::Disk)??;
                let mut keys = vec![key];
                match next {
                    None => {}
                    // Anything else is no acknowledgement: it is said who did not give one.
                    Some((
                        Ok(Ok((Response::Appended { keys: theirs, digest: their_digest }, _))),
                        expected,
                    )) if their_digest == digest && theirs == expected => {
                        keys.extend(theirs);
                        self.shared.counters.passed_on.fetch_add(1, Ordering::Relaxed);
                    }
                    Some(_) => return Err(Refusal::Chain),
                }
                self.shared.counters.appends.fetch_add(1, Ordering::Relaxed);
                self.shared.counters.append_bytes.fetch_add(u64::from(key.length), Ordering::Relaxed);
                Ok((Response::Appended { keys, digest }, Vec::new()))
            }
            Work::ToDo(Request::Ping, _) => done(),
            Work::ToDo(Request::ReadSealed { unit, segment, offset, length }, _) => {
                self.read_sealed(unit, segment, offset, length).await
            }
            Work::ToDo(_, _) if !self.is_writer => Err(Refusal::NotAllowed),
            Work::ToDo(request, data) => self.perform(request, data).await,
        }
    }

    async fn perform(&self, request: Request, data: Bytes) -> Answer {
        match request {
            Request::Fence { epoch } => {
                let peer = self.peer;
                for unit in self.shared.units.values() {
                    unit.call(move |unit| unit.fence(peer, epoch)).await??;
                }
                done()
            }
            Request::List { unit, after } => {
                let page = self.unit(unit)?.shelf().page(&self.peer, after, PAGE_MAX);
                Ok(off_reactor(move || list(&page)).await?)
            }
            Request::Stat { unit, segment } => {
                let mut found = self.unit(unit)?.shelf().get(segment);
                if let Some(shelved) = &found
                    && !self.may_read(&shelved.header.writer).await
                {
                    found = None;
                }
                Ok(off_reactor(move || list(found.as_slice())).await?)
            }
            Request::Successors { segment } => {
                let mut found = Vec::new();
                for unit in self.shared.units.values() {
                    for shelved in unit.shelf().successors(segment, PAGE_MAX) {
                        if self.may_read(&shelved.header.writer).await {
                            found.push(shelved);
                        }
                    }
                }
                found.truncate(PAGE_MAX);
                Ok(off_reactor(move || list(&found)).await?)
            }
            Request::Open { unit, epoch, is_anew } => {
                let header = SegmentHeader::decode(&data).map_err(|_| Refusal::Unsound)?;
                if header.writer != self.peer {
                    return Err(Refusal::NotAllowed);
                }
                let now = (self.shared.clock)();
                self.unit(unit)?.call(move |unit| unit.create(header, epoch, is_anew, now)).await??;
                done()
            }
            Request::Read { key } => self.read(key).await,
            Request::ReadRange { unit, segment, offset, length } => {
                self.owns(unit, segment)?;
                let shelved = self.unit(unit)?.shelf().get(segment).ok_or(Refusal::NoSegment)?;
                let range = shelved.records_range(offset, length)?;
                let bytes = self.shared.read_of(&shelved, range).await??;
                Ok((Response::Done, vec![bytes]))
            }
            Request::Index { unit, segment, from } => {
                self.owns(unit, segment)?;
                let shelf = Arc::clone(self.unit(unit)?.shelf());
                let (entries, length) = off_reactor(move || shelf.index(segment)).await??;
                let total = u32::try_from(entries.len()).unwrap_or(u32::MAX);
                let from = usize::try_from(from).unwrap_or(usize::MAX);
                let entries = entries.into_iter().skip(from).take(INDEX_PAGE_MAX).collect();
                Ok((Response::Index { entries, total, length }, Vec::new()))
            }
            Request::Seal { target, length } => {
                let unit = self.owned(&target)?;
                let report = unit.seal(target.segment, target.writer, target.epoch, length).await??;
                Ok((Response::Sealed(report), Vec::new()))
            }
            Request::Truncate { target, length } => {
                let Target { segment, writer, epoch, .. } = target;
                let unit = self.owned(&target)?;
                unit.call(move |unit| unit.truncate(segment, &writer, epoch, length)).await??;
                done()
            }
            Request::Discard { target } => {
                let Target { segment, writer, epoch, .. } = target;
                self.owned(&target)?.call(move |unit| unit.discard(segment, &writer, epoch)).await??;
                done()
            }
            Request::SetAside { target } => {
                let Target { segment, writer, epoch, .. } = target;
                self.owned(&target)?.call(move |unit| unit.set_aside(segment, &writer, epoch)).await??;
                done()
            }
            Request::GetTable => self.table().await,
            Request::PutTable { epoch } => self.put_table(epoch, &data).await,
            Request::Allow { segment, peer } => self.allow(segment, peer),
            Request::Receive { unit, epoch, segment, source, offset, length } => {
                let writer = self.peer;
                let stretch = Stretch { segment, writer, epoch, offset, length };
                self.receive(unit, source, stretch).await
            }
            Request::Adopt { unit, epoch, segment, summary } => {
                self.adopt(unit, epoch, segment, summary).await
            }
            Request::Drop { target } => {
                let Target { segment, writer, epoch, .. } = target;
                self.owned(&target)?.call(move |unit| unit.drop_copy(segment, &writer, epoch)).await??;
                done()
            }
            Request::Health { unit } => self.health(unit).await,
            Request::Rewrap { target } => {
                let wrapped = WrappedKey::try_from(&data[..]).map_err(|_| Refusal::Malformed)?;
                let (Target { segment, writer, epoch, .. }, now) = (target, (self.shared.clock)());
                let unit = self.owned(&target)?;
                unit.call(move |unit| unit.rewrap(segment, &writer, epoch, wrapped, now)).await??;
                done()
            }
            Request::Thin { target } => {
                if data.len() > HOLES_MAX * HOLE_LEN || !data.len().is_multiple_of(HOLE_LEN) {
                    return Err(Refusal::Malformed);
                }
                let (unit, Target { segment, writer, epoch, .. }) = (self.owned(&target)?, target);
                let _turn = self.shared.receives.acquire().await.map_err(|_| Refusal::Disk)?;
                // Not by the writer's clock alone: to a writer in the future, all that is on its way in is old, and dead.
                let now = self.shared.believed().ok_or(Refusal::State)?;
                let shelved = unit.shelf().get(segment).ok_or(Refusal::NoSegment)?;
                if shelved.header.storage_day.plus(THIN_AGE_DAYS) > now.day() {
                    return Err(Refusal::State);
                }
                let report = unit.thin(segment, writer, epoch, decode_holes(&data), now).await??;
                Ok((Response::Sealed(report), Vec::new()))
            }
            Request::Hello { .. } | Request::Ping | Request::Append { .. } | Request::ReadSealed { .. } => {
                Err(Refusal::Malformed)
            }
        }
    }

    async fn read(&self, key: DataKey) -> Answer {
        if key.server != self.shared.peer {
            return Err(Refusal::NotAllowed);
        }
        // What is not there any more has expired if its day is over, by whatever clock; what is there, only by one
        // that is believed.
        let missing = || {
            let is_over = key.deletion_day.end() <= (self.shared.clock)();
            if is_over { Refusal::Expired } else { Refusal::NoSegment }
        };
        let shelf = Arc::clone(self.unit(key.unit).map_err(|_| missing())?.shelf());
        let shelved = shelf.get(key.segment).ok_or_else(missing)?;
        if self.shared.is_over(shelved.header.deletion_day) {
            return Err(Refusal::Expired);
        }
        if shelved.header.deletion_day != key.deletion_day || !self.may_read(&shelved.header.writer).await {
            return Err(Refusal::NoSegment);
        }
        let bytes =
            self.shared.read_record(&shelved, key.offset, key.length).await?.inspect_err(|error| {
                if !matches!(error, UnitError::Away) {
                    shelf.suspect(key.segment);
                }
            })?;
        self.shared.counters.reads.fetch_add(1, Ordering::Relaxed);
        Ok((Response::Done, vec![bytes]))
    }

    pub(super) fn unit(&self, unit: UnitId) -> Result<&UnitHandle<D>, Refusal> {
        self.shared.units.get(&unit).ok_or(Refusal::NoSegment)
    }

    /// Another writer's segment is none.
    fn owns(&self, unit: UnitId, segment: SegmentId) -> Result<(), Refusal> {
        let found = self.unit(unit)?.shelf().get(segment);
        let own = found.filter(|shelved| shelved.header.writer == self.peer).ok_or(Refusal::NoSegment)?;
        if self.shared.is_over(own.header.deletion_day) { Err(Refusal::Expired) } else { Ok(()) }
    }

    fn owned(&self, target: &Target) -> Result<&UnitHandle<D>, Refusal> {
        if target.writer == self.peer { self.unit(target.unit) } else { Err(Refusal::NotAllowed) }
    }
}

fn list<D: Disk>(page: &[Arc<Shelved<D>>]) -> (Response, Vec<Bytes>) {
    let infos = page.iter().map(|shelved| {
        let state = match shelved.phase() {
            Phase::Open => CopyState::Open,
            Phase::Sealed(summary) => CopyState::Sealed(summary),
            Phase::Sealing => CopyState::Sealing,
            Phase::Short => CopyState::Short,
            Phase::Failed => CopyState::Failed,
        };
        let (length, first) = (shelved.readable(), shelved.first());
        let is_moved = shelved.moved().is_some();
        SegmentInfo { length, first, state, damaged: shelved.damaged(), is_moved }
    });
    let infos = infos.collect();
    (Response::Segments(infos), page.iter().map(|shelved| shelved.header.encode().into()).collect())
}

pub(super) fn done() -> Answer {
    Ok((Response::Done, Vec::new()))
}
