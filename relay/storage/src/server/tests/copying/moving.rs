//! Sealed segments that are moved to an object store, simulated disks and stores failing as they can (SPEC D10).

use super::*;
use crate::ids::ObjectId;
use crate::keys::WrappedKey;
use crate::objects::sim::SimObjects;
use crate::objects::{DepotRules, ObjectName, marker_key};
use crate::segment::footer::{Hole, encode_holes};
use crate::segment::stub::{Stub, stub_name};
use crate::unit::UnitError;
use crate::wire::CopyState;

const RULES: DepotRules = DepotRules { after_days: 0, keep_local_bytes: 0 };

fn depot(objects: &SimObjects, rules: DepotRules) -> Option<Arc<Depot>> {
    Some(Arc::new(Depot::new(Arc::new(objects.clone()), "a simulated store".to_owned(), rules)))
}

/// Two servers, the first with a sealed segment and an object store, into which nothing was moved yet.
struct Moving {
    world: World,
    objects: SimObjects,
    /// The segment's file, before it was moved.
    file: Vec<u8>,
}

impl Moving {
    async fn new(records: u64, len: usize) -> Self {
        let world = World::new(records, len).await;
        let file = world.servers[0].disk.contents(&file_name(SEGMENT));
        let mut moving = Self { world, objects: SimObjects::new(), file };
        moving.restart(false);
        moving
    }

    async fn moved(records: u64, len: usize) -> Self {
        let moving = Self::new(records, len).await;
        assert!(moving.shared().move_now().await);
        moving
    }

    fn shared(&self) -> &Arc<Shared<SimDisk>> {
        &self.world.servers[0].shared
    }

    fn disk(&self) -> &SimDisk {
        &self.world.servers[0].disk
    }

    /// The first server's process ends and starts again; with `power`, its disk loses what was not synced.
    fn restart(&mut self, power: bool) {
        self.restart_with(power, &self.objects.clone(), RULES);
    }

    fn restart_with(&mut self, power: bool, objects: &SimObjects, rules: DepotRules) {
        let Server { peer, disk, .. } = &self.world.servers[0];
        let disk = if power { disk.crash() } else { disk.restart() };
        self.world.servers[0] = self.world.run(*peer, disk, depot(objects, rules));
    }

    /// Files of the first server's segments.
    fn files(&self) -> Vec<String> {
        let names = self.disk().list().unwrap();
        names.into_iter().filter(|name| !name.starts_with("unit.")).collect()
    }

    fn object_keys(&self) -> Vec<String> {
        let marker = marker_key(self.world.servers[0].unit);
        self.objects.keys().into_iter().filter(|key| *key != marker).collect()
    }

    async fn ask(&self, request: &Request) -> Result<Vec<u8>, Refusal> {
        match self.world.link(0).await.done(request, Vec::new(), TIME).await {
            Ok(bytes) => Ok(bytes.to_vec()),
            Err(LinkError::Refused(refusal)) => Err(refusal),
            Err(other) => panic!("{request:?}: {other:?}"),
        }
    }

    async fn read_sealed(&self, offset: u64, length: u32) -> Result<Vec<u8>, Refusal> {
        let unit = self.world.servers[0].unit;
        self.ask(&Request::ReadSealed { unit, segment: SEGMENT, offset, length }).await
    }

    /// Reads the segment whole, as a server that copies it does, and record by record, as a relay does.
    async fn read_all(&self) -> Result<(), Refusal> {
        let mut at = 0;
        while at < self.file.len() {
            let bytes = self.read_sealed(at as u64, RECEIVE_PIECE_LEN).await?;
            assert!(!bytes.is_empty() && bytes == self.file[at..at + bytes.len()], "at {at}");
            at += bytes.len();
        }
        let first = self.world.key();
        for index in 0..self.world.summary.records {
            let offset = first.offset + index * u64::from(first.length);
            let bytes = self.ask(&Request::Read { key: DataKey { offset, ..first } }).await?;
            let at = usize::try_from(offset).unwrap();
            assert!(bytes == self.file[at..at + bytes.len()], "record {index}");
        }
        Ok(())
    }

    /// All is as after a move that nothing came in the way of.
    async fn assert_moved(&self, when: &str) {
        assert_eq!(self.read_all().await, Ok(()), "{when}");
        assert_eq!(self.files(), [stub_name(SEGMENT)], "{when}");
        let health = self.world.health(0).await.objects;
        assert_eq!((health.segments, health.strays), (1, 0), "{when}");
        let keys = self.object_keys();
        assert_eq!((keys.len(), self.objects.uploads()), (1, 0), "{when}: {keys:?}");
        let length = usize::try_from(self.world.summary.length).unwrap();
        assert!(self.objects.contents(&keys[0]).unwrap() == self.file[4096..length], "{when}");
    }
}

// SPEC: D10
#[tokio::test(start_paused = true)]
async fn a_sealed_segment_is_moved_and_read_by_range_as_before() {
    let mut moving = Moving::moved(12, 1_000_000).await;
    let summary = moving.world.summary;
    assert!(summary.length - 4096 > crate::limits::OBJECT_PART_LEN as u64, "in parts");
    moving.assert_moved("moved").await;
    assert!(moving.disk().contents(&stub_name(SEGMENT)).len() < 8192, "little stays");
    // The day key never leaves the unit: the object is the records and nothing else.
    let keys = moving.object_keys();
    assert_eq!(blake3::hash(&moving.objects.contents(&keys[0]).unwrap()), summary.root);
    let unit = moving.world.servers[0].unit;
    assert!(keys[0].starts_with(&format!("{unit}/{SEGMENT}-")), "{keys:?}");
    // Nothing but records needs the store.
    moving.objects.set_away(true);
    let before = moving.objects.requests();
    let link = moving.world.link(0).await;
    let index = Request::Index { unit, segment: SEGMENT, from: 0 };
    let (index, _) = link.call(&index, Vec::new(), TIME).await.unwrap();
    assert!(matches!(index, Response::Index { total: 0, .. }), "{index:?}");
    let stat = Request::Stat { unit, segment: SEGMENT };
    let (stat, data) = link.call(&stat, Vec::new(), TIME).await.unwrap();
    assert!(
        matches!(&stat, Response::Segments(infos) if infos[0].state == CopyState::Sealed(summary)),
        "{stat:?}"
    );
    assert_eq!(data, moving.file[..4096]);
    assert_eq!(moving.read_sealed(0, 4096).await.unwrap(), moving.file[..4096]);
    assert_eq!(moving.objects.requests(), before);
    moving.objects.set_away(false);
    // Across the borders between stub and object.
    let length = usize::try_from(summary.length).unwrap();
    for (from, to) in [(4000, 4200), (0, 5000), (length - 10, length + 10), (length - 3, moving.file.len())] {
        let bytes = moving.read_sealed(from as u64, u32::try_from(to - from).unwrap()).await.unwrap();
        assert_eq!(bytes, moving.file[from..to], "{from}..{to}");
    }
    let beyond = Request::ReadRange { unit, segment: SEGMENT, offset: summary.length - 16, length: 4096 };
    assert_eq!(moving.ask(&beyond).await.unwrap(), moving.file[length - 16..length]);
    moving.restart(true);
    moving.assert_moved("after a restart").await;
    assert!(moving.shared().move_now().await, "nothing more to do");
    moving.assert_moved("again").await;
}

/// One fault at each operation of the disk while a segment is moved; gives how many there were.
async fn move_with_one_fault(fault: Fault) -> u64 {
    for after in 0.. {
        let mut moving = Moving::new(9, 1_000_000).await;
        moving.disk().inject(after, fault);
        let went_well = moving.shared().move_now().await;
        let when = format!("{fault:?} at {after}");
        if moving.disk().is_dead() {
            moving.restart(true);
        } else if went_well && moving.files() == [stub_name(SEGMENT)] && after > 60 {
            return after;
        }
        // What is promised holds at once, and also where the power goes then.
        assert_eq!(moving.read_all().await, Ok(()), "{when}");
        moving.disk().heal();
        moving.restart(true);
        assert_eq!(moving.read_all().await, Ok(()), "{when}, and without power then");
        assert!(moving.shared().move_now().await, "{when}");
        moving.assert_moved(&when).await;
    }
    0
}

#[tokio::test(start_paused = true)]
async fn bad_input_32_power_lost_at_every_step_of_a_move_costs_no_copy_and_leaves_nothing_behind() {
    move_with_one_fault(Fault::Crash).await;
}

#[tokio::test(start_paused = true)]
async fn bad_input_31_an_error_at_every_step_of_a_move_costs_no_copy_and_leaves_nothing_behind() {
    move_with_one_fault(Fault::Eio).await;
    move_with_one_fault(Fault::NoSpace).await;
}

// SPEC: D10
#[tokio::test(start_paused = true)]
async fn a_store_that_goes_at_any_request_of_a_move_costs_no_copy_and_leaves_nothing_behind() {
    for is_done in [false, true] {
        for power in [false, true] {
            for after in 0.. {
                let mut moving = Moving::new(9, 1_000_000).await;
                let before = moving.objects.requests();
                moving.objects.cut(after, is_done);
                let went_well = moving.shared().move_now().await;
                let when = format!("at {after}, done: {is_done}, power lost: {power}");
                let is_over = moving.objects.requests() - before <= after;
                assert_eq!(went_well, is_over, "{when}");
                moving.objects.set_away(false);
                moving.restart(power);
                assert_eq!(moving.read_all().await, Ok(()), "{when}");
                assert!(moving.shared().move_now().await, "{when}");
                moving.assert_moved(&when).await;
                if is_over {
                    assert!(after > 8, "{after} requests: marker, begin, parts, complete, size, reads");
                    break;
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_cannot_be_reached_or_is_another_is_away_and_never_missing_or_damaged() {
    let mut moving = Moving::moved(2, 1000).await;
    let asks = Request::Read { key: moving.world.key() };
    let away = async |moving: &Moving, how: &str| {
        assert_eq!(moving.ask(&asks).await, Err(Refusal::Away), "{how}");
        assert_eq!(moving.read_sealed(4096, 100).await, Err(Refusal::Away), "{how}");
        moving.shared().scrub_round().await.unwrap();
        let health = moving.world.health(0).await;
        assert_eq!((health.damaged_segments, health.set_aside), (0, 0), "{how}");
        assert_eq!((health.objects.has_store, health.objects.is_well), (true, false), "{how}");
        assert_eq!(health.scrub.last_ended, START, "the round goes on behind it: {how}");
    };
    moving.objects.set_away(true);
    away(&moving, "not reached").await;
    moving.objects.set_away(false);
    moving.objects.set_hanging(true);
    let asked = Instant::now();
    away(&moving, "hangs").await;
    assert!(asked.elapsed() < Duration::from_secs(60), "each read has its time");
    moving.objects.set_hanging(false);
    // Another bucket: nothing is there, not even the marker; and it is not given one.
    let other = SimObjects::new();
    moving.restart_with(false, &other, RULES);
    assert_eq!(moving.ask(&asks).await, Err(Refusal::Away));
    assert_eq!(moving.world.health(0).await.damaged_segments, 0);
    assert!(!moving.shared().move_now().await);
    assert_eq!(other.keys(), Vec::<String>::new());
    moving.restart(false);
    moving.assert_moved("back again").await;
    // None at all.
    let Server { peer, disk, .. } = &moving.world.servers[0];
    moving.world.servers[0] = moving.world.run(*peer, disk.restart(), None);
    assert_eq!(moving.ask(&asks).await, Err(Refusal::Away));
}

// SPEC: D10, B14
#[tokio::test(start_paused = true)]
async fn bad_input_33_an_object_that_was_changed_or_lost_is_a_damaged_copy_and_made_anew_from_the_mirror() {
    for is_lost in [false, true] {
        let mut moving = Moving::moved(3, 1000).await;
        // The second server has a mirror.
        mirror(&moving, 0, 1).await;
        let key = moving.object_keys().pop().unwrap();
        if is_lost {
            moving.objects.lose(&key);
        } else {
            moving.objects.flip(&key, 500);
        }
        let read = Request::Read { key: moving.world.key() };
        assert_eq!(moving.ask(&read).await, Err(Refusal::Unsound));
        moving.shared().scrub_round().await.unwrap();
        assert_eq!(moving.world.health(0).await.damaged, [(SEGMENT, 1)]);
        moving.restart(true);
        assert_eq!(moving.world.health(0).await.damaged, [(SEGMENT, 1)], "remembered");
        let link = moving.world.link(0).await;
        link.done(&Request::SetAside { target: moving.world.target(0) }, Vec::new(), TIME).await.unwrap();
        let health = moving.world.health(0).await;
        assert_eq!((health.incomplete, health.set_aside, health.objects.segments), (1, 1, 0));
        mirror(&moving, 1, 0).await;
        assert!(moving.shared().move_now().await);
        assert_eq!(moving.read_all().await, Ok(()));
        // What was set aside keeps its object until its day.
        assert_eq!(moving.object_keys().len(), if is_lost { 1 } else { 2 });
        *moving.world.now.lock().unwrap() = deletion_day().end();
        let shared = Arc::clone(moving.shared());
        shared.units[&moving.world.servers[0].unit]
            .call(|unit| unit.sweep(deletion_day().end()))
            .await
            .unwrap()
            .unwrap();
        assert!(shared.move_now().await);
        assert_eq!(moving.object_keys(), Vec::<String>::new());
        assert_eq!(moving.files(), Vec::<String>::new());
    }
}

/// Copies the segment from one server to another, as a writer does.
async fn mirror(moving: &Moving, from: usize, to: usize) {
    let world = &moving.world;
    let (source, target) = (&world.servers[from], &world.servers[to]);
    let allow = Request::Allow { segment: SEGMENT, peer: target.peer };
    world.link(from).await.done(&allow, Vec::new(), TIME).await.unwrap();
    let link = world.link(to).await;
    let hop = Hop { peer: source.peer, address: ([127, 0, 0, 1], 1).into(), unit: source.unit };
    let (unit, epoch, length) = (target.unit, Epoch(3), RECEIVE_LEN_MAX);
    let receive = Request::Receive { unit, epoch, segment: SEGMENT, source: hop, offset: 0, length };
    assert_eq!(received(&link, &receive).await, world.summary.file_len());
    let adopt = Request::Adopt { unit, epoch, segment: SEGMENT, summary: world.summary };
    link.call(&adopt, Vec::new(), TIME).await.unwrap();
}

// SPEC: B14
#[tokio::test(start_paused = true)]
async fn a_moved_segment_is_copied_to_another_server_byte_for_byte() {
    let moving = Moving::moved(12, 1_000_000).await;
    mirror(&moving, 0, 1).await;
    assert!(moving.world.servers[1].disk.contents(&file_name(SEGMENT)) == moving.file);
}

// SPEC: C11, D10
#[tokio::test(start_paused = true)]
async fn on_its_day_the_key_goes_first_and_the_object_as_soon_as_the_store_is_there() {
    let mut moving = Moving::moved(2, 1000).await;
    moving.objects.set_away(true);
    *moving.world.now.lock().unwrap() = deletion_day().end();
    let sweep = async |moving: &Moving| {
        let handle = moving.shared().units[&moving.world.servers[0].unit].clone();
        handle.call(|unit| unit.sweep(deletion_day().end())).await.unwrap().unwrap()
    };
    assert_eq!(sweep(&moving).await, 1);
    let read = Request::Read { key: moving.world.key() };
    assert_eq!(moving.ask(&read).await, Err(Refusal::Expired));
    let [stray] = &moving.files()[..] else { panic!("{:?}", moving.files()) };
    let key_of = |bytes: &[u8]| bytes[48..48 + WRAPPED_LEN].to_vec();
    assert_eq!(key_of(&moving.disk().contents(stray)), [0; WRAPPED_LEN], "the key is nowhere");
    assert_eq!(moving.object_keys().len(), 1, "the store is away");
    assert!(!moving.shared().move_now().await);
    moving.restart(true);
    assert_eq!(moving.world.health(0).await.objects.strays, 1, "remembered");
    assert!(!moving.shared().move_now().await);
    moving.objects.set_away(false);
    assert!(moving.shared().move_now().await);
    assert_eq!((moving.object_keys(), moving.files()), (Vec::new(), Vec::new()));
    assert_eq!(moving.shared().counters.read(moving.shared()).depot.removed, 1);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_copy_takes_its_object_with_it_whatever_step_the_power_goes_at() {
    for after in 0..40 {
        let mut moving = Moving::moved(2, 1000).await;
        moving.disk().inject(after, Fault::Crash);
        let drop_copy = Request::Drop { target: moving.world.target(0) };
        let dropped = moving.ask(&drop_copy).await;
        let was_hit = moving.disk().is_dead();
        moving.restart(true);
        assert!(moving.shared().move_now().await);
        match moving.world.health(0).await.segments {
            // Either all of it is there, or none; what was said to be gone is.
            1 => assert!(was_hit && dropped.is_err() && moving.read_all().await.is_ok(), "at {after}"),
            _ => assert_eq!((moving.object_keys(), moving.files()), (Vec::new(), Vec::new()), "at {after}"),
        }
        if !was_hit {
            dropped.unwrap();
            assert_eq!(moving.world.health(0).await.segments, 0);
            return;
        }
    }
    panic!("more steps than there can be");
}

#[tokio::test(start_paused = true)]
async fn wrapping_the_day_key_of_a_moved_segment_anew_is_a_local_write_and_lasts() {
    for after in 0..40 {
        let mut moving = Moving::moved(2, 1000).await;
        moving.objects.set_away(true);
        moving.disk().inject(after, Fault::Crash);
        let wrapped: WrappedKey = [9; WRAPPED_LEN];
        let rewrap = Request::Rewrap { target: moving.world.target(0) };
        let link = moving.world.link(0).await;
        let done = link.done(&rewrap, vec![wrapped.to_vec().into()], TIME).await;
        let was_hit = moving.disk().is_dead();
        moving.restart(true);
        let header = SegmentHeader::decode(&moving.read_sealed(0, 4096).await.unwrap()).unwrap();
        let key = header.day_key.unwrap();
        assert!(key == wrapped || (done.is_err() && key == [1; WRAPPED_LEN]), "at {after}");
        moving.file[..4096].copy_from_slice(&header.encode());
        moving.objects.set_away(false);
        assert_eq!(moving.read_all().await, Ok(()));
        assert_eq!(moving.files(), [stub_name(SEGMENT)], "at {after}");
        if !was_hit {
            assert_eq!(key, wrapped);
            return;
        }
    }
    panic!("more steps than there can be");
}

#[tokio::test(start_paused = true)]
async fn what_changes_while_a_segment_is_moved_is_in_the_stub_or_ends_the_move() {
    let moving = Moving::new(2, 1000).await;
    let handle = moving.shared().units[&moving.world.servers[0].unit].clone();
    let begin = async |object: u8| {
        let begun = handle
            .call(move |unit| unit.begin_move(RULES, ObjectId([object; 16]), &Default::default(), START));
        begun.await.unwrap().unwrap().unwrap()
    };
    let job = begin(1).await;
    let writer = moving.world.writer;
    let rewrapped = handle.call(move |unit| unit.rewrap(SEGMENT, &writer, Epoch(3), [9; WRAPPED_LEN], START));
    rewrapped.await.unwrap().unwrap();
    handle.call(move |unit| unit.finish_move(&job, START)).await.unwrap().unwrap();
    let stub = Stub::decode(&moving.disk().contents(&stub_name(SEGMENT)), SEGMENT).unwrap();
    assert_eq!(stub.header.day_key, Some([9; WRAPPED_LEN]));

    let moving = Moving::new(2, 1000).await;
    let handle = moving.shared().units[&moving.world.servers[0].unit].clone();
    let begun = handle.call(|unit| unit.begin_move(RULES, ObjectId([2; 16]), &Default::default(), START));
    let job = begun.await.unwrap().unwrap().unwrap();
    let writer = moving.world.writer;
    handle.call(move |unit| unit.set_aside(SEGMENT, &writer, Epoch(3))).await.unwrap().unwrap();
    let finished = handle.call(move |unit| unit.finish_move(&job, START)).await.unwrap();
    assert!(matches!(finished, Err(UnitError::State(_))), "{finished:?}");
    assert!(moving.files().iter().all(|name| name != &stub_name(SEGMENT)));
}

#[tokio::test(start_paused = true)]
async fn a_damaged_file_is_not_moved_and_found_by_the_scrub() {
    let moving = Moving::new(3, 1000).await;
    moving.disk().flip(&file_name(SEGMENT), 5000);
    assert!(!moving.shared().move_now().await);
    assert_eq!(moving.object_keys(), Vec::<String>::new());
    moving.shared().scrub_round().await.unwrap();
    assert_eq!(moving.world.health(0).await.damaged, [(SEGMENT, 1)]);
    assert!(moving.shared().move_now().await, "it waits to be mended, and nothing else does");
    assert_eq!(moving.object_keys(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_store_that_keeps_other_bytes_than_it_was_given_gets_no_segment() {
    for (records, len) in [(2, 1000), (9, 1_000_000)] {
        let moving = Moving::new(records, len).await;
        let unit = moving.world.servers[0].unit;
        moving.objects.plant(&marker_key(unit), b"here");
        moving.objects.corrupt_next();
        assert!(!moving.shared().move_now().await);
        assert!(moving.files().contains(&file_name(SEGMENT)), "{:?}", moving.files());
        assert_eq!(moving.read_all().await, Ok(()));
        assert!(moving.shared().move_now().await);
        moving.assert_moved("at the next try").await;
        assert_eq!(moving.shared().counters.read(moving.shared()).depot.failed_moves, 1);
    }
}

// SPEC: D8, D10
#[tokio::test(start_paused = true)]
async fn a_thinned_segment_is_moved_with_its_holes_and_a_moved_one_is_not_thinned() {
    let mut moving = Moving::new(3, 100_000).await;
    // Old enough, by a clock that has not jumped.
    *moving.world.now.lock().unwrap() = START.plus(Duration::from_hours(48));
    moving.restart(false);
    let first = moving.world.key();
    let hole =
        |from: u32, count: u32| Hole { offset: 4096 + from * first.length, length: count * first.length };
    let thin = async |moving: &Moving, hole: Hole| {
        let thin = Request::Thin { target: moving.world.target(0) };
        moving.world.link(0).await.call(&thin, vec![encode_holes(&[hole]).into()], TIME).await
    };
    let (thinned, _) = thin(&moving, hole(1, 1)).await.unwrap();
    assert!(matches!(thinned, Response::Sealed(report) if report.summary.holes == 1), "{thinned:?}");
    let file = moving.disk().contents(&file_name(SEGMENT));
    moving.restart(true);
    assert!(moving.shared().move_now().await);
    assert_eq!(moving.files(), [stub_name(SEGMENT)]);
    let mut whole = Vec::new();
    while whole.len() < file.len() {
        whole.extend(moving.read_sealed(whole.len() as u64, RECEIVE_PIECE_LEN).await.unwrap());
    }
    assert!(whole == file);
    let read = |index: u64| Request::Read {
        key: DataKey { offset: 4096 + index * u64::from(first.length), ..first },
    };
    assert!(moving.ask(&read(0)).await.is_ok() && moving.ask(&read(2)).await.is_ok());
    moving.shared().scrub_round().await.unwrap();
    assert_eq!(moving.world.health(0).await.damaged_segments, 0, "holes are no damage");
    let refused = thin(&moving, hole(1, 2)).await;
    assert!(matches!(refused, Err(LinkError::Refused(Refusal::State))), "{refused:?}");
    moving.restart(true);
    assert!(moving.ask(&read(2)).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn objects_that_no_segment_has_are_found_removed_and_counted_and_others_are_left_alone() {
    let moving = Moving::moved(2, 1000).await;
    let unit = moving.world.servers[0].unit;
    let orphan = ObjectName { segment: SEGMENT, object: ObjectId([3; 16]) };
    let (other, foreign) = (orphan.key(UnitId([8; 16])), format!("{unit}/notes.txt"));
    for key in [&orphan.key(unit), &other, &foreign] {
        moving.objects.plant(key, b"bytes");
    }
    assert!(moving.shared().move_now().await);
    let keys = moving.objects.keys();
    assert!(
        keys.contains(&other) && keys.contains(&foreign) && !keys.contains(&orphan.key(unit)),
        "{keys:?}"
    );
    assert_eq!(moving.shared().counters.read(moving.shared()).depot.orphans, 1);
    assert_eq!(moving.read_all().await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn what_is_young_or_within_what_is_kept_or_soon_over_stays_on_the_disk() {
    let mut moving = Moving::new(2, 1000).await;
    let len = moving.world.summary.file_len();
    let day = |days: u64| UnixTime(START.day().end().0 + days * 86_400);
    let cases = [
        (DepotRules { after_days: 2, keep_local_bytes: 0 }, day(2).0 - 1, false),
        (DepotRules { after_days: 2, keep_local_bytes: 0 }, day(2).0, true),
        (DepotRules { after_days: 0, keep_local_bytes: len }, START.0, false),
        (DepotRules { after_days: 0, keep_local_bytes: len - 1 }, START.0, true),
        (RULES, deletion_day().end().0 - 3600, false),
    ];
    for (rules, now, is_moved) in cases {
        let due = moving.shared().units[&moving.world.servers[0].unit]
            .call(move |unit| unit.is_move_due(rules, &Default::default(), UnixTime(now)));
        assert_eq!(due.await.unwrap(), is_moved, "{rules:?} at {now}");
    }
    moving.restart(false);
    assert_eq!(moving.files(), [file_name(SEGMENT)]);
}

#[tokio::test(start_paused = true)]
async fn a_stub_that_is_damaged_or_of_another_unit_is_set_aside_and_the_copy_counts_as_missing() {
    for at in [5, 60, 4100, 4096 + 128 + 30, 4096 + 128 + 45] {
        let mut moving = Moving::moved(2, 1000).await;
        moving.disk().flip(&stub_name(SEGMENT), at);
        moving.restart(false);
        let health = moving.world.health(0).await;
        assert_eq!((health.segments, health.set_aside, health.incomplete), (0, 1, 1), "at {at}");
        let read = Request::Read { key: moving.world.key() };
        assert_eq!(moving.ask(&read).await, Err(Refusal::NoSegment));
    }
}
