mod copies;
mod rewrap;
mod scrubbing;
mod thinning;

use std::io;

use lighter_protocol::{Day, Keypair};
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;
use crate::disk::sim::{Fault, SimDisk};
use crate::ids::{Class, Sequence};
use crate::keys::WRAPPED_LEN;
use crate::record::{AppendDigest, Kind, RECORD_HEADER_LEN, UnplacedRecord};
use crate::segment::header::Member;

fn peer(seed: u8) -> PeerId {
    Keypair::ed25519_from_bytes([seed; 32]).unwrap().public().to_peer_id()
}

const SEGMENT: SegmentId = SegmentId([7; 16]);
const TODAY: Day = Day(20_000);

fn now() -> UnixTime {
    UnixTime(TODAY.end().0 - 1)
}

fn open(disk: &SimDisk) -> io::Result<(Unit<SimDisk>, OpenReport)> {
    let (mut unit, report) = Unit::open(disk.clone(), peer(2), now(), &mut StdRng::seed_from_u64(1))?;
    unit.set_fill_len(4096);
    Ok((unit, report))
}

/// A unit with one open segment, under epoch 3.
fn unit(disk: &SimDisk) -> Unit<SimDisk> {
    let (mut unit, _) = open(disk).unwrap();
    unit.fence(peer(1), Epoch(3)).unwrap();
    unit.create(header(&unit), Epoch(3), false, now()).unwrap();
    unit
}

fn header(unit: &Unit<SimDisk>) -> SegmentHeader {
    SegmentHeader {
        segment: SEGMENT,
        class: Class::Days7,
        storage_day: TODAY,
        deletion_day: Class::Days7.deletion_day(TODAY),
        epoch: Epoch(3),
        writer: peer(1),
        members: vec![Member { peer: peer(2), unit: unit.id() }],
        acknowledged_after: 1,
        day_key: Some([1; WRAPPED_LEN]),
        closed: Vec::new(),
    }
}

/// A record of `len` bytes of payload at `offset`.
fn record(sequence: u64, offset: u64, acked: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; RECORD_HEADER_LEN];
    bytes.resize(RECORD_HEADER_LEN + len, 0xAB);
    let unplaced = UnplacedRecord::new(Kind::Catalog, bytes, 0);
    unplaced.place(SEGMENT, Epoch(3), Sequence(sequence), offset, acked, &[], &mut AppendDigest::default())
}

fn append_at(offset: u64, bytes: Vec<u8>, epoch: u64) -> Result<CheckedAppend, UnitError> {
    CheckedAppend::check(SEGMENT, offset, bytes.into(), peer(1), Epoch(epoch))
}

fn commit(unit: &mut Unit<SimDisk>, append: CheckedAppend) -> Result<(), UnitError> {
    unit.commit(&[append]).pop().unwrap()
}

#[test]
fn records_are_taken_at_the_next_place_only() {
    let disk = SimDisk::new(1);
    let mut unit = unit(&disk);
    let first = record(1, 4096, 4096, 100);
    let end = 4096 + first.len() as u64;
    commit(&mut unit, append_at(4096, first.clone(), 3).unwrap()).unwrap();
    let again = commit(&mut unit, append_at(4096, first, 3).unwrap());
    assert!(matches!(again, Err(UnitError::Offset { next }) if next == end));
    let beyond = record(2, end + 16, 4096, 100);
    assert!(matches!(
        commit(&mut unit, append_at(end + 16, beyond, 3).unwrap()),
        Err(UnitError::Offset { .. })
    ));
    let older = record(1, end, end, 100);
    assert!(matches!(commit(&mut unit, append_at(end, older, 3).unwrap()), Err(UnitError::Unsound(_))));
    commit(&mut unit, append_at(end, record(2, end, end, 100), 3).unwrap()).unwrap();
}

#[test]
fn bytes_that_are_no_records_are_refused_before_they_reach_the_disk() {
    let mut bytes = record(1, 4096, 4096, 100);
    assert!(append_at(4096, Vec::new(), 3).is_err());
    assert!(append_at(4112, bytes.clone(), 3).is_err(), "another place");
    bytes[80] ^= 1;
    assert!(append_at(4096, bytes.clone(), 3).is_err(), "a flipped bit");
    bytes[80] ^= 1;
    bytes.truncate(100);
    assert!(append_at(4096, bytes, 3).is_err(), "cut off");
    let mut two = record(2, 4096, 4096, 100);
    two.extend(record(1, 4096 + two.len() as u64, 4096, 100));
    assert!(append_at(4096, two, 3).is_err(), "out of order");
}

#[test]
fn a_writer_of_an_older_epoch_is_refused_also_after_a_restart() {
    let disk = SimDisk::new(1);
    let mut first = unit(&disk);
    first.fence(peer(1), Epoch(4)).unwrap();
    let append = append_at(4096, record(1, 4096, 4096, 100), 3).unwrap();
    let refused = commit(&mut first, append.clone());
    assert!(matches!(refused, Err(UnitError::Fenced { present: Epoch(4) })));
    assert!(matches!(first.fence(peer(1), Epoch(3)), Err(UnitError::Fenced { .. })));
    drop(first);
    let (mut again, _) = open(&disk.crash()).unwrap();
    assert_eq!(again.epoch(&peer(1)), Epoch(4));
    assert!(matches!(commit(&mut again, append), Err(UnitError::Fenced { .. })));
    // The successor may go on with what the older one began.
    let append = append_at(4096, record(1, 4096, 4096, 100), 4).unwrap();
    commit(&mut again, append).unwrap();
}

#[test]
fn a_failed_sync_ends_the_segment_and_is_not_believed_after_a_restart() {
    let disk = SimDisk::new(5);
    let mut first = unit(&disk);
    let one = record(1, 4096, 4096, 100);
    let end = 4096 + one.len() as u64;
    commit(&mut first, append_at(4096, one, 3).unwrap()).unwrap();
    disk.inject(1, Fault::Eio); // the write, then the sync
    let two = record(2, end, end, 100);
    assert!(commit(&mut first, append_at(end, two.clone(), 3).unwrap()).is_err());
    let more = commit(&mut first, append_at(end, two, 3).unwrap());
    assert!(matches!(more, Err(UnitError::State(_))), "never retried");
    assert_eq!(first.shelf().get(SEGMENT).unwrap().readable(), end);
    drop(first);
    // The process restarts; the page cache still shows the record that the disk never got.
    let (again, report) = open(&disk.restart()).unwrap();
    assert_eq!((report.open, report.cut), (1, 1));
    assert_eq!(again.shelf().get(SEGMENT).unwrap().readable(), end);
}

#[test]
fn a_segment_that_found_no_room_goes_on_once_it_was_cut() {
    let disk = SimDisk::new(5);
    let mut unit = unit(&disk);
    disk.inject(0, Fault::NoSpace);
    let one = record(1, 4096, 4096, 100);
    let refused = commit(&mut unit, append_at(4096, one.clone(), 3).unwrap());
    assert!(matches!(refused, Err(UnitError::NoSpace)));
    assert!(commit(&mut unit, append_at(4096, one.clone(), 3).unwrap()).is_err());
    unit.truncate(SEGMENT, &peer(1), Epoch(3), 4096).unwrap();
    commit(&mut unit, append_at(4096, one, 3).unwrap()).unwrap();
}

#[test]
fn what_a_group_wrote_before_it_found_no_room_counts_and_what_was_there_stays() {
    let disk = SimDisk::new(5);
    let mut unit = unit(&disk);
    let ends: Vec<u64> =
        (1..=3).map(|count| 4096 + count * record(1, 4096, 4096, 100).len() as u64).collect();
    commit(&mut unit, append_at(4096, record(1, 4096, 4096, 100), 3).unwrap()).unwrap();
    let group = [(2, ends[0]), (3, ends[1])]
        .map(|(sequence, offset)| append_at(offset, record(sequence, offset, 4096, 100), 3).unwrap());
    disk.inject(1, Fault::NoSpace); // the second write, when both go together
    disk.inject(3, Fault::NoSpace); // and when each goes by itself
    let results = unit.commit(&group);
    assert!(matches!(results[..], [Ok(()), Err(UnitError::NoSpace)]), "{results:?}");
    assert_eq!(unit.shelf().get(SEGMENT).unwrap().readable(), ends[1]);
    drop(unit);
    let (unit, _) = open(&disk.crash()).unwrap();
    assert_eq!(unit.shelf().get(SEGMENT).unwrap().readable(), ends[1]);
}

#[test]
fn appends_of_a_group_are_told_of_one_by_one_and_a_wrong_one_costs_the_others_nothing() {
    let mut unit = unit(&SimDisk::new(5));
    let len = record(1, 4096, 4096, 100).len() as u64;
    // The third is of a place that is not reached when the second is refused; the fourth is that second one's place.
    let group = [(1, 0), (2, 7), (3, 8), (4, 1)].map(|(sequence, place)| {
        let offset = 4096 + place * len;
        append_at(offset, record(sequence, offset, 4096, 100), 3).unwrap()
    });
    let results = unit.commit(&group);
    let next = 4096 + len;
    assert!(
        matches!(results[..], [Ok(()), Err(UnitError::Offset { next: a }), Err(UnitError::Offset { next: b }), Ok(())]
            if (a, b) == (next, next)),
        "{results:?}"
    );
    assert_eq!(unit.shelf().get(SEGMENT).unwrap().readable(), 4096 + 2 * len);
}

#[test]
fn a_sealed_segment_takes_nothing_and_is_known_after_a_restart_without_a_scan() {
    let disk = SimDisk::new(5);
    let mut unit = unit(&disk);
    let one = record(1, 4096, 4096, 100);
    let end = 4096 + one.len() as u64;
    commit(&mut unit, append_at(4096, one, 3).unwrap()).unwrap();
    let job = unit.begin_seal(SEGMENT, &peer(1), Epoch(3), end).unwrap().unwrap_or_else(|_| panic!("open"));
    assert!(commit(&mut unit, append_at(end, record(2, end, end, 9), 3).unwrap()).is_err());
    let report = unit.finish_seal(SEGMENT, job.run()).unwrap();
    assert_eq!((report.summary.records, report.summary.catalog_records, report.damaged), (1, 1, 0));
    assert!(commit(&mut unit, append_at(end, record(2, end, end, 9), 3).unwrap()).is_err());
    let again = unit.begin_seal(SEGMENT, &peer(1), Epoch(3), end).unwrap();
    assert_eq!(again.err(), Some(report), "sealing again says the same");
    drop(unit);
    let (unit, found) = open(&disk.crash()).unwrap();
    assert_eq!((found.sealed, found.open), (1, 0));
    let (index, _) = unit.shelf().index(SEGMENT).unwrap();
    assert_eq!(index.len(), 1);
    let length = index[0].length;
    assert!(unit.shelf().read_record(SEGMENT, 4096, length).is_ok());
    for (offset, length) in [(4096, length + 16), (4112, length), (0, 64), (u64::MAX, 16), (end, 64)] {
        assert!(
            unit.shelf().read_record(SEGMENT, offset, length).is_err(),
            "bad_input_34: {offset} {length}"
        );
    }
}

// SPEC: C11
#[test]
fn on_its_day_the_key_goes_first_and_then_the_file() {
    let disk = SimDisk::new(5);
    let mut unit = unit(&disk);
    let day = Class::Days7.deletion_day(TODAY);
    let name = file_name(SEGMENT);
    assert_eq!(unit.sweep(UnixTime(day.end().0 - 1)).unwrap(), 0);
    disk.inject(2, Fault::Crash); // overwrite, sync, then the removal
    assert!(unit.sweep(day.end()).is_err());
    drop(unit);
    let disk = disk.crash();
    assert!(!disk.contents(&name)[48..108].contains(&1), "the key is gone, the file is not yet");
    let (mut unit, _) = open(&disk).unwrap();
    assert_eq!(unit.sweep(day.end()).unwrap(), 1);
    assert!(unit.shelf().is_empty());
    assert!(matches!(unit.create(header(&unit), Epoch(3), false, day.end()), Err(UnitError::Expired)));
    assert_eq!(unit.latest(), day.end());
}

#[test]
fn a_disk_put_into_another_server_is_refused() {
    let disk = SimDisk::new(5);
    drop(unit(&disk));
    let other = Unit::open(disk.restart(), peer(9), now(), &mut StdRng::seed_from_u64(1));
    assert_eq!(other.err().unwrap().kind(), io::ErrorKind::InvalidData);
}

#[test]
fn a_unit_that_lost_its_own_file_is_refused_and_left_as_it_is() {
    let disk = SimDisk::new(5);
    drop(unit(&disk));
    disk.lose(meta::META_NAME);
    let before = disk.list().unwrap();
    let refused = open(&disk.restart());
    assert_eq!(refused.err().unwrap().kind(), io::ErrorKind::InvalidData);
    assert_eq!(disk.restart().list().unwrap(), before);
}

#[test]
fn a_copy_that_was_put_aside_counts_as_incomplete_until_it_is_sealed_again() {
    let disk = SimDisk::new(5);
    let mut first = unit(&disk);
    let one = record(1, 4096, 4096, 100);
    let end = 4096 + one.len() as u64;
    commit(&mut first, append_at(4096, one.clone(), 3).unwrap()).unwrap();
    assert_eq!(first.incomplete(), 0);
    first.set_aside(SEGMENT, &peer(1), Epoch(3)).unwrap();
    drop(first);
    let (mut unit, _) = open(&disk.crash()).unwrap();
    assert_eq!(unit.incomplete(), 1, "also after a restart");
    unit.create(header(&unit), Epoch(3), true, now()).unwrap();
    commit(&mut unit, append_at(4096, one, 3).unwrap()).unwrap();
    assert_eq!(unit.incomplete(), 1);
    let job = unit.begin_seal(SEGMENT, &peer(1), Epoch(3), end).unwrap().unwrap_or_else(|_| panic!("open"));
    unit.finish_seal(SEGMENT, job.run()).unwrap();
    assert_eq!(unit.incomplete(), 0);
}
