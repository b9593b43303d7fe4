//! Copies between simulated servers, and those who would like some.

mod moving;
mod real;

use std::collections::BTreeMap;

use lighter_protocol::Day;

use super::*;
use crate::disk::sim::Fault;
use crate::ids::{Class, DataKey, Sequence};
use crate::keys::WRAPPED_LEN;
use crate::limits::{GROUP_LEN_MAX, GUEST_TIME, GUESTS_MAX, RECEIVE_LEN_MAX, RECEIVE_PIECE_LEN};
use crate::link::{Dialing, LinkError};
use crate::record::{AppendDigest, Kind, RECORD_HEADER_LEN, UnplacedRecord};
use crate::segment::file_name;
use crate::segment::footer::Summary;
use crate::segment::header::{Member, SegmentHeader};
use crate::wire::{Hop, UnitHealth};

const SEGMENT: SegmentId = SegmentId([7; 16]);
const START: UnixTime = UnixTime(1_795_260_000);
const TIME: Duration = Duration::from_secs(60);

/// Servers that reach each other within the process.
#[derive(Clone, Default)]
struct Net(Arc<Mutex<BTreeMap<PeerId, Arc<Shared<SimDisk>>>>>);

struct From {
    net: Net,
    peer: PeerId,
}

impl Dial for From {
    fn dial<'a>(&'a self, server: &'a ServerRecord) -> Dialing<'a> {
        let found = self.net.0.lock().unwrap().get(&server.peer).cloned();
        Box::pin(async move {
            let shared = found.ok_or(io::ErrorKind::ConnectionRefused)?;
            let (near, far) = duplex(256 * 1024);
            let peer = self.peer;
            tokio::spawn(async move {
                if let Some(connection) = welcome(Box::new(far), peer, &shared).await {
                    connection.serve().await;
                }
            });
            Ok(Box::new(near) as Box<dyn PeerStream>)
        })
    }
}

struct Server {
    peer: PeerId,
    unit: UnitId,
    disk: SimDisk,
    shared: Arc<Shared<SimDisk>>,
}

struct World {
    net: Net,
    writer: PeerId,
    now: Arc<Mutex<UnixTime>>,
    /// The first holds a sealed segment, the second nothing.
    servers: Vec<Server>,
    summary: Summary,
}

impl World {
    /// `len` bytes of payload in each of `records` records.
    async fn new(records: u64, len: usize) -> Self {
        let now = Arc::new(Mutex::new(START));
        let (net, writer) = (Net::default(), PeerId::random());
        let mut world = Self { net, writer, now, servers: Vec::new(), summary: empty() };
        world.start(SimDisk::new(1));
        world.start(SimDisk::new(2));
        for server in 0..2 {
            let link = world.link(server).await;
            link.done(&Request::Fence { epoch: Epoch(3) }, Vec::new(), TIME).await.unwrap();
        }
        world.fill(records, len).await;
        world
    }

    fn start(&mut self, disk: SimDisk) {
        let server = self.run(PeerId::random(), disk, None);
        self.servers.push(server);
    }

    /// Runs a server, in place of one of that name.
    fn run(&self, peer: PeerId, disk: SimDisk, depot: Option<Arc<Depot>>) -> Server {
        let mut chance: StdRng = rand::make_rng();
        let (unit, _) = Unit::open(disk.clone(), peer, START, &mut chance).unwrap();
        let id = unit.id();
        let now = Arc::clone(&self.now);
        let clock: Clock = Arc::new(move || *now.lock().unwrap());
        let dial = Arc::new(From { net: self.net.clone(), peer });
        let shared = Shared::with_depot(peer, vec![unit], vec![self.writer], clock, dial, depot);
        self.net.0.lock().unwrap().insert(peer, Arc::clone(&shared));
        Server { peer, unit: id, disk, shared }
    }

    async fn fill(&mut self, records: u64, len: usize) {
        let Server { peer, unit, .. } = self.servers[0];
        let link = self.link(0).await;
        self.summary = seal_segment(&link, self.writer, Member { peer, unit }, START, (records, len)).await;
    }

    fn target(&self, server: usize) -> Target {
        let unit = self.servers[server].unit;
        Target { unit, segment: SEGMENT, writer: self.writer, epoch: Epoch(3) }
    }

    async fn link_as(&self, peer: PeerId, server: usize) -> Result<Link, LinkError> {
        let record = ServerRecord { peer: self.servers[server].peer, address: ([127, 0, 0, 1], 1).into() };
        let dial = From { net: self.net.clone(), peer };
        let now = *self.now.lock().unwrap();
        Link::connect(&dial, &record, now).await.map(|(link, _)| link)
    }

    async fn link(&self, server: usize) -> Link {
        self.link_as(self.writer, server).await.unwrap()
    }

    async fn allow(&self) {
        let allow = Request::Allow { segment: SEGMENT, peer: self.servers[1].peer };
        self.link(0).await.done(&allow, Vec::new(), TIME).await.unwrap();
    }

    fn receive(&self, offset: u64, length: u32) -> Request {
        let Server { peer, unit, .. } = self.servers[0];
        let source = Hop { peer, address: ([127, 0, 0, 1], 1).into(), unit };
        let unit = self.servers[1].unit;
        Request::Receive { unit, epoch: Epoch(3), segment: SEGMENT, source, offset, length }
    }

    fn adopt(&self) -> Request {
        let unit = self.servers[1].unit;
        Request::Adopt { unit, epoch: Epoch(3), segment: SEGMENT, summary: self.summary }
    }

    async fn health(&self, server: usize) -> UnitHealth {
        let health = Request::Health { unit: self.servers[server].unit };
        match self.link(server).await.call(&health, Vec::new(), TIME).await.unwrap() {
            (Response::Health(health), _) => health,
            other => panic!("{other:?}"),
        }
    }

    fn key(&self) -> DataKey {
        let Server { peer: server, unit, .. } = self.servers[0];
        let length =
            u32::try_from(self.summary.length - 4096).unwrap() / u32::try_from(self.summary.records).unwrap();
        DataKey { server, unit, segment: SEGMENT, offset: 4096, length, deletion_day: deletion_day() }
    }
}

/// Writes a segment of `records` records with `len` bytes of payload each to one member, and seals it.
async fn seal_segment(
    link: &Link,
    writer: PeerId,
    member: Member,
    now: UnixTime,
    (records, len): (u64, usize),
) -> Summary {
    let Member { unit, .. } = member;
    let target = Target { unit, segment: SEGMENT, writer, epoch: Epoch(3) };
    let header = SegmentHeader {
        segment: SEGMENT,
        class: Class::Days7,
        storage_day: now.day(),
        deletion_day: Class::Days7.deletion_day(now.day()),
        epoch: Epoch(3),
        writer,
        members: vec![member],
        acknowledged_after: 1,
        day_key: Some([1; WRAPPED_LEN]),
        closed: Vec::new(),
    };
    let open = Request::Open { unit, epoch: Epoch(3), is_anew: false };
    link.done(&open, vec![header.encode().into()], TIME).await.unwrap();
    let mut offset = 4096;
    for sequence in 1..=records {
        let payload = vec![u8::try_from(sequence % 251).unwrap(); RECORD_HEADER_LEN + len];
        let bytes = UnplacedRecord::new(Kind::Portion, payload, 0).place(
            SEGMENT,
            Epoch(3),
            Sequence(sequence),
            offset,
            offset,
            &[],
            &mut AppendDigest::default(),
        );
        let append = Request::Append { target, offset, forward: None };
        offset += bytes.len() as u64;
        link.call(&append, vec![bytes.into()], TIME).await.unwrap();
    }
    let seal = Request::Seal { target, length: offset };
    match link.call(&seal, Vec::new(), TIME).await.unwrap() {
        (Response::Sealed(report), _) => report.summary,
        other => panic!("{other:?}"),
    }
}

fn empty() -> Summary {
    Summary {
        segment: SEGMENT,
        length: 4096,
        records: 0,
        first: Sequence::ZERO,
        last: Sequence::ZERO,
        root: [0; 32],
        catalog_records: 0,
        index_crc: 0,
        holes: 0,
        hole_bytes: 0,
    }
}

fn deletion_day() -> Day {
    Class::Days7.deletion_day(START.day())
}

async fn refused(link: &Link, request: &Request) -> Refusal {
    match link.call(request, Vec::new(), TIME).await {
        Err(LinkError::Refused(refusal)) => refusal,
        other => panic!("{request:?}: {other:?}"),
    }
}

async fn received(link: &Link, request: &Request) -> u64 {
    match link.call(request, Vec::new(), TIME).await {
        Ok((Response::Received { next }, _)) => next,
        other => panic!("{request:?}: {other:?}"),
    }
}

// SPEC: B14
#[tokio::test(start_paused = true)]
async fn a_sealed_segment_goes_from_server_to_server_and_is_a_copy_there() {
    let world = World::new(12, 1_000_000).await;
    let file_len = world.summary.file_len();
    let link = world.link(1).await;
    assert_eq!(refused(&link, &world.receive(0, RECEIVE_LEN_MAX)).await, Refusal::Source, "not allowed yet");
    world.allow().await;
    let first = 5 * RECEIVE_PIECE_LEN + 77;
    assert_eq!(received(&link, &world.receive(0, first)).await, u64::from(first));
    let next = u64::from(first);
    assert_eq!(refused(&link, &world.receive(4096, first)).await, Refusal::Offset { next });
    assert_eq!(refused(&link, &world.adopt()).await, Refusal::Offset { next });
    assert_eq!(received(&link, &world.receive(next, RECEIVE_LEN_MAX)).await, file_len, "up to its end");
    assert_eq!(received(&link, &world.receive(file_len, RECEIVE_LEN_MAX)).await, file_len, "nothing more");
    for _ in 0..2 {
        let (adopted, _) = link.call(&world.adopt(), Vec::new(), TIME).await.unwrap();
        assert!(matches!(adopted, Response::Sealed(report) if report.summary == world.summary));
    }
    let name = file_name(SEGMENT);
    assert_eq!(world.servers[0].disk.contents(&name), world.servers[1].disk.contents(&name));
    let copy = DataKey { server: world.servers[1].peer, unit: world.servers[1].unit, ..world.key() };
    link.done(&Request::Read { key: copy }, Vec::new(), TIME).await.unwrap();
    // The first copy is surplus then.
    let source = world.link(0).await;
    for _ in 0..2 {
        source.done(&Request::Drop { target: world.target(0) }, Vec::new(), TIME).await.unwrap();
    }
    assert_eq!(refused(&source, &Request::Read { key: world.key() }).await, Refusal::NoSegment);
    assert_eq!(world.health(1).await.segments, 1);
    assert_eq!(world.health(0).await.segments, 0);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_goes_in_the_middle_costs_only_what_was_on_its_way() {
    let world = World::new(12, 1_000_000).await;
    world.allow().await;
    let link = world.link(1).await;
    assert_eq!(received(&link, &world.receive(0, 3 << 20)).await, 3 << 20);
    let source = world.net.0.lock().unwrap().remove(&world.servers[0].peer).unwrap();
    world.servers[1].shared.sources.lock().await.values().for_each(|link| link.close());
    assert_eq!(refused(&link, &world.receive(3 << 20, 1 << 20)).await, Refusal::Source);
    world.net.0.lock().unwrap().insert(world.servers[0].peer, source);
    let rest = received(&link, &world.receive(3 << 20, RECEIVE_LEN_MAX)).await;
    assert_eq!(rest, world.summary.file_len());
    link.call(&world.adopt(), Vec::new(), TIME).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_fails_while_receiving_keeps_nothing_and_the_next_try_begins_anew() {
    let world = World::new(3, 1_000_000).await;
    world.allow().await;
    let link = world.link(1).await;
    world.servers[1].disk.inject(2, Fault::NoSpace);
    assert_eq!(refused(&link, &world.receive(0, RECEIVE_LEN_MAX)).await, Refusal::NoSpace);
    assert_eq!(refused(&link, &world.receive(4096, 4096)).await, Refusal::Offset { next: 0 });
    received(&link, &world.receive(0, RECEIVE_LEN_MAX)).await;
    link.call(&world.adopt(), Vec::new(), TIME).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn bad_input_34_who_was_not_allowed_reads_nothing_and_who_was_only_that() {
    let mut world = World::new(2, 100).await;
    world.start(SimDisk::new(3));
    let (unit, guest) = (world.servers[0].unit, world.servers[1].peer);
    let read = |segment, offset, length| Request::ReadSealed { unit, segment, offset, length };
    assert!(world.link_as(guest, 0).await.is_err(), "a stranger");
    world.allow().await;
    let link = world.link_as(guest, 0).await.unwrap();
    let bytes = link.done(&read(SEGMENT, 0, 4096), Vec::new(), TIME).await.unwrap();
    assert_eq!(bytes[..8], *b"LTRSEG1\n");
    assert_eq!(refused(&link, &read(SegmentId([9; 16]), 0, 4096)).await, Refusal::NotAllowed);
    for other in [
        Request::Health { unit },
        Request::Drop { target: world.target(0) },
        Request::Allow { segment: SEGMENT, peer: world.servers[2].peer },
        Request::Read { key: world.key() },
        Request::ReadRange { unit, segment: SEGMENT, offset: 4096, length: 100 },
        Request::SetAside { target: world.target(0) },
        world.receive(0, 4096),
        world.adopt(),
    ] {
        assert_eq!(refused(&link, &other).await, Refusal::NotAllowed, "{other:?}");
    }
    assert!(world.link_as(world.servers[2].peer, 0).await.is_err(), "another stranger");
    // It ends by itself, for those who are connected, too.
    tokio::time::sleep(GUEST_TIME).await;
    assert_eq!(refused(&link, &read(SEGMENT, 0, 4096)).await, Refusal::NotAllowed);
    assert!(world.link_as(guest, 0).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn bad_input_34_stretches_and_segments_that_cannot_be_are_refused() {
    let world = World::new(2, 100).await;
    world.allow().await;
    let (source, link) = (world.link(0).await, world.link(1).await);
    let unit = world.servers[0].unit;
    let file_len = world.summary.file_len();
    let too_long = u32::try_from(GROUP_LEN_MAX).unwrap() + 1;
    let read = |offset, length| Request::ReadSealed { unit, segment: SEGMENT, offset, length };
    assert_eq!(refused(&source, &read(0, too_long)).await, Refusal::Malformed);
    assert_eq!(refused(&source, &read(0, 0)).await, Refusal::Malformed);
    assert_eq!(refused(&source, &read(file_len + 1, 1)).await, Refusal::Unsound);
    assert_eq!(refused(&source, &read(u64::MAX, 1)).await, Refusal::Unsound);
    assert_eq!(source.done(&read(file_len, 9), Vec::new(), TIME).await.unwrap().len(), 0);
    let bad = [(0, 0), (0, 4095), (0, RECEIVE_LEN_MAX + 1), (u64::MAX, 4096), (1 << 40, 4096)];
    for (offset, length) in bad {
        assert_eq!(refused(&link, &world.receive(offset, length)).await, Refusal::Malformed);
    }
    // Of one that is not there, and of one that is open.
    let nothing = Request::Allow { segment: SegmentId([9; 16]), peer: world.writer };
    assert_eq!(refused(&source, &nothing).await, Refusal::NoSegment);
    let truncate = Request::Truncate { target: world.target(0), length: 4096 };
    source.done(&truncate, Vec::new(), TIME).await.unwrap();
    assert_eq!(refused(&source, &read(0, 4096)).await, Refusal::State);
    let open = Request::Allow { segment: SEGMENT, peer: world.writer };
    assert_eq!(refused(&source, &open).await, Refusal::NoSegment);
    assert_eq!(refused(&source, &Request::Drop { target: world.target(0) }).await, Refusal::State);
    assert_eq!(refused(&link, &world.receive(0, 4096)).await, Refusal::Source);
}

#[tokio::test(start_paused = true)]
async fn bad_input_34_only_so_many_are_allowed_at_once() {
    let world = World::new(1, 100).await;
    let link = world.link(0).await;
    let peers: Vec<PeerId> = (0..=GUESTS_MAX).map(|_| PeerId::random()).collect();
    let allow = |peer: PeerId| Request::Allow { segment: SEGMENT, peer };
    for peer in &peers[..GUESTS_MAX] {
        link.done(&allow(*peer), Vec::new(), TIME).await.unwrap();
    }
    assert_eq!(refused(&link, &allow(peers[GUESTS_MAX])).await, Refusal::NoSpace);
    link.done(&allow(peers[0]), Vec::new(), TIME).await.unwrap();
    tokio::time::sleep(GUEST_TIME).await;
    link.done(&allow(peers[GUESTS_MAX]), Vec::new(), TIME).await.unwrap();
}

// SPEC: C11
#[tokio::test(start_paused = true)]
async fn what_expired_says_so_before_and_after_it_was_erased_and_is_not_copied() {
    let world = World::new(2, 100).await;
    world.allow().await;
    let (source, link) = (world.link(0).await, world.link(1).await);
    let read = Request::Read { key: world.key() };
    received(&link, &world.receive(0, 4096)).await;
    source.done(&read, Vec::new(), TIME).await.unwrap();
    // The clocks go on for as long as they say.
    tokio::time::sleep(Duration::from_secs(deletion_day().end().0 - START.0)).await;
    *world.now.lock().unwrap() = deletion_day().end();
    let (source, link) = (world.link(0).await, world.link(1).await);
    assert_eq!(refused(&source, &read).await, Refusal::Expired);
    let allow = Request::Allow { segment: SEGMENT, peer: world.servers[1].peer };
    assert_eq!(refused(&source, &allow).await, Refusal::Expired);
    assert_eq!(refused(&link, &world.receive(4096, 4096)).await, Refusal::Expired);
    world.servers[0].shared.sweep().await;
    world.servers[1].shared.sweep().await;
    assert_eq!(refused(&source, &read).await, Refusal::Expired);
    for server in &world.servers {
        let files = server.disk.list().unwrap();
        assert!(files.iter().all(|name| name.starts_with("unit.")), "{files:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn bad_input_37_a_clock_that_jumped_expires_nothing() {
    let world = World::new(2, 100).await;
    let link = world.link(0).await;
    *world.now.lock().unwrap() = deletion_day().end();
    world.servers[0].shared.sweep().await;
    link.done(&Request::Read { key: world.key() }, Vec::new(), TIME).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_scrub_finds_damage_in_time_and_says_so_in_health_and_lists() {
    let world = World::new(4, 1_000_000).await;
    let Server { shared, disk, unit, .. } = &world.servers[0];
    disk.flip(&file_name(SEGMENT), 5000);
    let handle = shared.units[unit].clone();
    let scrubbing = tokio::spawn(scrub::scrub_always(Arc::clone(shared), handle, 30));
    // Four megabytes at the least rate.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let health = world.health(0).await;
    assert_eq!((health.damaged_segments, health.damaged), (1, vec![(SEGMENT, 1)]));
    assert_eq!(health.scrub.done, world.summary.file_len());
    let read = shared.counters.scrubbed_bytes.load(Ordering::Relaxed);
    assert_eq!(read, world.summary.file_len());
    // Damage that a read meets is looked at in a moment, without a round.
    let target = world.target(0);
    let link = world.link(0).await;
    let stat = Request::Stat { unit: *unit, segment: SEGMENT };
    let (found, _) = link.call(&stat, Vec::new(), TIME).await.unwrap();
    assert!(matches!(found, Response::Segments(infos) if infos[0].damaged == 1));
    disk.flip(&file_name(SEGMENT), 2_100_000);
    let key = DataKey { offset: 4096 + 2 * u64::from(world.key().length), ..world.key() };
    assert_eq!(refused(&link, &Request::Read { key }).await, Refusal::Unsound);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(world.health(0).await.damaged, [(SEGMENT, 2)]);
    link.done(&Request::SetAside { target }, Vec::new(), TIME).await.unwrap();
    let health = world.health(0).await;
    assert_eq!((health.damaged_segments, health.incomplete, health.set_aside), (0, 1, 1));
    scrubbing.abort();
}

#[tokio::test(start_paused = true)]
async fn health_tells_of_room_and_of_rounds() {
    let world = World::new(1, 100).await;
    let health = world.health(1).await;
    let reserve = crate::limits::RESERVE_MAX;
    assert_eq!((health.total, health.free, health.free_for_copies), (1 << 40, 1 << 39, (1 << 39) - reserve));
    assert_eq!((health.scrub.begun, health.queue, health.segments), (UnixTime(0), 0, 0));
    world.servers[0].shared.scrub_round().await.unwrap();
    let scrub = world.health(0).await.scrub;
    assert_eq!((scrub.begun, scrub.done, scrub.last_ended), (START, world.summary.file_len(), START));
    let nowhere = Request::Health { unit: UnitId([9; 16]) };
    assert_eq!(refused(&world.link(0).await, &nowhere).await, Refusal::NoSegment);
}
