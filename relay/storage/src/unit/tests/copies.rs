//! Receiving, adopting, dropping and setting aside sealed copies.

use super::*;
use crate::disk::sim::Fault;
use crate::limits::{PARTIAL_IDLE_MAX, PARTIALS_MAX, RESERVE_MAX};
use crate::segment::footer::Summary;

/// A sealed segment on another server: its file, and its summary.
pub(super) fn sealed_file() -> (Vec<u8>, Summary) {
    let disk = SimDisk::new(1);
    let (_, summary) = sealed_unit(&disk);
    (disk.contents(&file_name(SEGMENT)), summary)
}

/// A unit with a sealed segment of three records.
pub(super) fn sealed_unit(disk: &SimDisk) -> (Unit<SimDisk>, Summary) {
    let mut unit = unit(disk);
    let mut end = 4096;
    for sequence in 1..=3 {
        let bytes = record(sequence, end, end, 300);
        let len = bytes.len() as u64;
        commit(&mut unit, append_at(end, bytes, 3).unwrap()).unwrap();
        end += len;
    }
    let job = unit.begin_seal(SEGMENT, &peer(1), Epoch(3), end).unwrap().unwrap_or_else(|_| panic!("open"));
    let report = unit.finish_seal(SEGMENT, job.run()).unwrap();
    (unit, report.summary)
}

/// A unit of a server that the segment's header does not name.
fn elsewhere(disk: &SimDisk) -> io::Result<Unit<SimDisk>> {
    let (mut unit, _) = Unit::open(disk.clone(), peer(3), now(), &mut StdRng::seed_from_u64(2))?;
    match unit.fence(peer(1), Epoch(3)) {
        Ok(()) => Ok(unit),
        Err(error) => Err(io::Error::other(error)),
    }
}

fn stretch(offset: u64, length: usize) -> Stretch {
    let length = u32::try_from(length).unwrap();
    Stretch { segment: SEGMENT, writer: peer(1), epoch: Epoch(3), offset, length }
}

/// Receives `bytes` from `offset` on, as a server does.
pub(super) fn receive(unit: &mut Unit<SimDisk>, offset: u64, bytes: &[u8]) -> Result<u64, UnitError> {
    let mut partial = unit.begin_receive(&stretch(offset, bytes.len()), now())?;
    let number = partial.number();
    let written = partial.write(bytes, now()).and_then(|()| partial.sync());
    let end = partial.end();
    unit.end_receive(SEGMENT, number, written.is_ok().then_some(partial));
    written.map(|()| end)
}

pub(super) fn adopt(unit: &mut Unit<SimDisk>, summary: Summary) -> Result<SealReport, UnitError> {
    let job = match unit.begin_adopt(SEGMENT, &peer(1), Epoch(3), summary)? {
        Ok(job) => job,
        Err(report) => return Ok(report),
    };
    let number = job.number();
    unit.finish_adopt(SEGMENT, number, Epoch(3), job.run(), now())
}

fn drop_copy(unit: &mut Unit<SimDisk>) -> Result<(), UnitError> {
    unit.drop_copy(SEGMENT, &peer(1), Epoch(3))
}

/// All files but those that a unit keeps for itself.
fn files(disk: &SimDisk) -> Vec<String> {
    disk.list().unwrap().into_iter().filter(|name| !name.starts_with("unit.")).collect()
}

// SPEC: B14
#[test]
fn a_sealed_segment_is_received_in_stretches_and_adopted_byte_for_byte() {
    let (file, summary) = sealed_file();
    let disk = SimDisk::new(2);
    let mut unit = elsewhere(&disk).unwrap();
    assert_eq!(summary.file_len(), file.len() as u64);
    assert_eq!(receive(&mut unit, 0, &file[..4096]).unwrap(), 4096);
    assert_eq!(receive(&mut unit, 4096, &file[4096..5000]).unwrap(), 5000);
    for wrong in [4096, 5001] {
        let refused = receive(&mut unit, wrong, &file[5000..]);
        assert!(matches!(refused, Err(UnitError::Offset { next: 5000 })), "{refused:?}");
    }
    assert!(matches!(adopt(&mut unit, summary), Err(UnitError::Offset { next: 5000 })), "not all is there");
    assert!(unit.shelf().is_empty());
    receive(&mut unit, 5000, &file[5000..]).unwrap();
    let report = adopt(&mut unit, summary).unwrap();
    assert_eq!((report.summary, report.damaged), (summary, 0));
    assert_eq!(adopt(&mut unit, summary).unwrap(), report, "again is as once");
    assert!(matches!(receive(&mut unit, 0, &file), Err(UnitError::State(_))), "a copy is not replaced");
    let cut = unit.truncate(SEGMENT, &peer(1), Epoch(3), 4096);
    assert!(matches!(cut, Err(UnitError::State(_))), "nor opened again: {cut:?}");
    drop(unit);
    let disk = disk.crash();
    let unit = elsewhere(&disk).unwrap();
    assert_eq!(files(&disk), [file_name(SEGMENT)]);
    assert_eq!(disk.contents(&file_name(SEGMENT)), file);
    assert_eq!(unit.shelf().get(SEGMENT).unwrap().phase(), Phase::Sealed(summary));
    assert_eq!(unit.shelf().index(SEGMENT).unwrap().0.len(), 3);
    let length = u32::try_from(record(1, 4096, 4096, 300).len()).unwrap();
    assert!(unit.shelf().read_record(SEGMENT, 4096, length).is_ok());
}

#[test]
fn bad_input_35_what_is_not_what_was_sealed_is_removed_and_no_copy() {
    let (file, summary) = sealed_file();
    let disk = SimDisk::new(2);
    let mut unit = elsewhere(&disk).unwrap();
    // Class, key, a record's header, payload, checksum, the index, the summary.
    let length = usize::try_from(summary.length).unwrap();
    for at in [24, 60, 4090, 4097, 4200, length - 10, length + 3, file.len() - 60, file.len() - 1] {
        let mut bad = file.clone();
        bad[at] ^= 1;
        let refused = receive(&mut unit, 0, &bad).and_then(|_| adopt(&mut unit, summary).map(|_| 0));
        assert!(matches!(refused, Err(UnitError::Unsound(_))), "at {at}: {refused:?}");
        assert_eq!(files(&disk), Vec::<String>::new(), "at {at}");
    }
    let longer = [&file[..], b"more"].concat();
    receive(&mut unit, 0, &longer).unwrap();
    assert!(adopt(&mut unit, summary).is_err(), "longer than it was sealed");
    receive(&mut unit, 0, &file).unwrap();
    for other in [
        Summary { records: 2, ..summary },
        Summary { root: [1; 32], ..summary },
        Summary { length: u64::MAX - 15, ..summary },
        Summary { segment: SegmentId([9; 16]), ..summary },
        Summary { index_crc: 0, ..summary },
    ] {
        assert!(adopt(&mut unit, other).is_err(), "{other:?}");
        let _ = receive(&mut unit, 0, &file);
    }
    assert!(unit.shelf().is_empty());
    adopt(&mut unit, summary).unwrap();
}

#[test]
fn bad_input_34_a_foreign_writer_an_older_epoch_and_a_header_of_another_are_refused() {
    let (file, summary) = sealed_file();
    let disk = SimDisk::new(2);
    let mut unit = elsewhere(&disk).unwrap();
    let older = Stretch { epoch: Epoch(2), ..stretch(0, 4096) };
    assert!(matches!(unit.begin_receive(&older, now()), Err(UnitError::Fenced { .. })));
    receive(&mut unit, 0, &file).unwrap();
    unit.fence(peer(9), Epoch(3)).unwrap();
    let foreign = Stretch { writer: peer(9), ..stretch(4096, 10) };
    assert!(matches!(unit.begin_receive(&foreign, now()), Err(UnitError::NoSegment)));
    let foreign = Stretch { offset: 0, ..foreign };
    assert!(matches!(unit.begin_receive(&foreign, now()), Err(UnitError::NoSegment)));
    assert!(unit.begin_adopt(SEGMENT, &peer(9), Epoch(3), summary).is_err());
    assert!(unit.begin_adopt(SEGMENT, &peer(1), Epoch(2), summary).is_err());
    assert!(unit.drop_copy(SEGMENT, &peer(9), Epoch(3)).is_err());
    adopt(&mut unit, summary).unwrap();
    assert!(matches!(unit.drop_copy(SEGMENT, &peer(9), Epoch(3)), Err(UnitError::NoSegment)));
    assert!(matches!(unit.drop_copy(SEGMENT, &peer(1), Epoch(2)), Err(UnitError::Fenced { .. })));
    // What says that it is another's is not begun.
    drop_copy(&mut unit).unwrap();
    let mut partial = unit.begin_receive(&Stretch { writer: peer(9), ..stretch(0, 4096) }, now()).unwrap();
    assert!(matches!(partial.write(&file[..4096], now()), Err(UnitError::Unsound(_))));
}

/// One fault at each operation of receiving and adopting: what was said to be a copy is one after a crash, whole; and
/// nothing else is.
fn adopt_with_one_fault(fault: Fault) {
    let (file, summary) = sealed_file();
    let all = |unit: &mut Unit<SimDisk>| {
        receive(unit, 0, &file[..4500])?;
        receive(unit, 4500, &file[4500..])?;
        adopt(unit, summary)
    };
    let disk = SimDisk::new(0);
    let mut unit = elsewhere(&disk).unwrap();
    let before = disk.operations();
    all(&mut unit).unwrap();
    let operations = disk.operations() - before;
    assert!(operations > 5);
    for (at, seed) in (0..operations).flat_map(|at| (0..8).map(move |seed| (at, seed))) {
        let disk = SimDisk::new(seed);
        let mut unit = elsewhere(&disk).unwrap();
        disk.inject(at, fault);
        let adopted = all(&mut unit).is_ok();
        if !disk.is_dead() && !adopted {
            // It goes on, and is begun anew.
            let _ = all(&mut unit);
        }
        drop(unit);
        let disk = if seed % 2 == 0 { disk.crash() } else { disk.restart() };
        let mut unit = elsewhere(&disk).unwrap();
        let found = unit.shelf().get(SEGMENT).is_some();
        assert!(found || !adopted, "{fault:?} {at} {seed}: adopted, and gone");
        assert_eq!(unit.incomplete(), 0, "{fault:?} {at} {seed}");
        assert!(files(&disk).iter().all(|name| *name == file_name(SEGMENT)), "{fault:?} {at} {seed}");
        if found {
            assert_eq!(disk.contents(&file_name(SEGMENT)), file, "{fault:?} {at} {seed}");
        } else {
            all(&mut unit).unwrap();
        }
    }
}

#[test]
fn bad_input_32_power_lost_at_every_operation_of_adopting() {
    adopt_with_one_fault(Fault::Crash);
}

#[test]
fn bad_input_31_eio_at_every_operation_of_adopting() {
    adopt_with_one_fault(Fault::Eio);
}

#[test]
fn bad_input_31_enospc_at_every_operation_of_adopting() {
    adopt_with_one_fault(Fault::NoSpace);
}

#[test]
fn bad_input_32_a_copy_that_is_dropped_is_there_whole_or_not_at_all() {
    let (file, _) = sealed_file();
    for fault in [Fault::Crash, Fault::Eio] {
        for (at, seed) in (0..12).flat_map(|at| (0..8).map(move |seed| (at, seed))) {
            let disk = SimDisk::new(seed);
            let (mut unit, _) = sealed_unit(&disk);
            disk.inject(at, fault);
            let dropped = drop_copy(&mut unit).is_ok();
            drop(unit);
            let disk = disk.crash();
            let (mut unit, _) = open(&disk).unwrap();
            assert!(!dropped || unit.shelf().is_empty(), "{fault:?} {at} {seed}: dropped, and there again");
            if unit.shelf().get(SEGMENT).is_some() {
                assert_eq!(disk.contents(&file_name(SEGMENT)), file, "{fault:?} {at} {seed}");
            }
            drop_copy(&mut unit).unwrap();
            drop_copy(&mut unit).unwrap();
            assert_eq!(unit.incomplete(), 0);
            assert_eq!(files(&disk), Vec::<String>::new(), "{fault:?} {at} {seed}");
        }
    }
}

#[test]
fn a_dropped_copy_leaves_no_key_behind() {
    let disk = SimDisk::new(1);
    let (mut unit, _) = sealed_unit(&disk);
    disk.inject(4, Fault::Crash); // rename, folder, overwrite, sync, then the removal
    assert!(drop_copy(&mut unit).is_err());
    let disk = disk.restart();
    assert_eq!(files(&disk), [format!("{SEGMENT}.part")]);
    assert_eq!(disk.contents(&format!("{SEGMENT}.part"))[..4096], [0; 4096]);
}

#[test]
fn only_sealed_copies_are_dropped() {
    let disk = SimDisk::new(1);
    let mut unit = unit(&disk);
    assert!(matches!(drop_copy(&mut unit), Err(UnitError::State(_))));
    assert!(unit.shelf().get(SEGMENT).is_some());
}

#[test]
fn a_damaged_sealed_copy_is_set_aside_and_adopted_anew_or_not_needed_any_more() {
    let disk = SimDisk::new(1);
    let (mut first, summary) = sealed_unit(&disk);
    let file = disk.contents(&file_name(SEGMENT));
    disk.flip(&file_name(SEGMENT), 4300);
    first.set_aside(SEGMENT, &peer(1), Epoch(3)).unwrap();
    assert_eq!(first.incomplete(), 1);
    drop(first);
    let disk = disk.crash();
    let (mut unit, _) = open(&disk).unwrap();
    assert_eq!(unit.incomplete(), 1, "also after a restart");
    assert!(unit.shelf().is_empty());
    receive(&mut unit, 0, &file).unwrap();
    assert_eq!(unit.incomplete(), 1);
    adopt(&mut unit, summary).unwrap();
    assert_eq!(unit.incomplete(), 0);
    // Set aside again, and copied to another server instead.
    unit.set_aside(SEGMENT, &peer(1), Epoch(3)).unwrap();
    assert_eq!(unit.incomplete(), 1);
    drop_copy(&mut unit).unwrap();
    assert_eq!(unit.incomplete(), 0);
    let day = Class::Days7.deletion_day(TODAY);
    assert_eq!(files(&disk), [format!("{SEGMENT}.seg.{}.aside", day.0)], "kept until its day");
    assert_eq!(unit.sweep(day.end()).unwrap(), 1);
    assert_eq!(files(&disk), Vec::<String>::new());
}

// SPEC: C11
#[test]
fn what_is_being_received_and_what_was_set_aside_goes_on_its_day() {
    let (file, summary) = sealed_file();
    let day = Class::Days7.deletion_day(TODAY);
    let disk = SimDisk::new(2);
    let mut unit = elsewhere(&disk).unwrap();
    receive(&mut unit, 0, &file).unwrap();
    let late = unit.begin_receive(&stretch(file.len() as u64, 10), day.end());
    assert!(matches!(late, Err(UnitError::Expired)));
    assert_eq!(files(&disk), Vec::<String>::new());
    let mut partial = unit.begin_receive(&stretch(0, 4096), day.end()).unwrap();
    assert!(matches!(partial.write(&file, day.end()), Err(UnitError::Expired)), "nor is it begun");
    unit.end_receive(SEGMENT, partial.number(), None);
    receive(&mut unit, 0, &file).unwrap();
    let job = unit.begin_adopt(SEGMENT, &peer(1), Epoch(3), summary).unwrap().unwrap_or_else(|_| panic!());
    let number = job.number();
    let late = unit.finish_adopt(SEGMENT, number, Epoch(3), job.run(), day.end());
    assert!(matches!(late, Err(UnitError::Expired)), "nor adopted");
    receive(&mut unit, 0, &file).unwrap();
    unit.sweep(day.end()).unwrap();
    assert_eq!(files(&disk), Vec::<String>::new(), "a sweep finds it");

    // A file whose header block tells no day any more.
    let disk = SimDisk::new(3);
    drop(sealed_unit(&disk));
    disk.flip(&file_name(SEGMENT), 30);
    let (mut unit, report) = open(&disk.restart()).unwrap();
    assert_eq!(report.set_aside, 1);
    let latest = Class::Days365.deletion_day(TODAY);
    assert_eq!(unit.sweep(UnixTime(latest.end().0 - 1)).unwrap(), 0);
    assert_eq!(unit.sweep(latest.end()).unwrap(), 1);
}

#[test]
fn one_file_that_cannot_be_erased_does_not_keep_the_others() {
    let (file, summary) = sealed_file();
    let day = Class::Days7.deletion_day(TODAY);
    let disk = SimDisk::new(3);
    let mut unit = unit(&disk);
    unit.set_aside(SEGMENT, &peer(1), Epoch(3)).unwrap();
    receive(&mut unit, 0, &file).unwrap();
    adopt(&mut unit, summary).unwrap();
    disk.inject(0, Fault::Eio);
    assert!(unit.sweep(day.end()).is_err());
    assert_eq!(files(&disk), [file_name(SEGMENT)], "the one set aside is gone");
    assert_eq!(unit.sweep(day.end()).unwrap(), 1);
    assert_eq!(files(&disk), Vec::<String>::new());
}

#[test]
fn bad_input_31_a_unit_that_is_nearly_full_takes_no_copies_and_goes_on_with_appends() {
    let (file, _) = sealed_file();
    let disk = SimDisk::new(2);
    let mut unit = unit(&disk);
    let total = 1 << 40;
    let len = file.len() as u64;
    let other = Stretch { segment: SegmentId([8; 16]), ..stretch(0, file.len()) };
    disk.set_space(Space { total, free: RESERVE_MAX + len - 1 });
    let before = disk.operations();
    assert!(matches!(unit.begin_receive(&other, now()), Err(UnitError::NoSpace)));
    assert_eq!(disk.operations(), before, "nothing was written");
    commit(&mut unit, append_at(4096, record(1, 4096, 4096, 100), 3).unwrap()).unwrap();
    disk.set_space(Space { total, free: RESERVE_MAX + len });
    assert!(unit.begin_receive(&other, now()).is_ok());
    disk.set_space(Space::default());
    assert_eq!(unit.room_for_copies(), 0, "nor where the disk does not say");
}

#[test]
fn begun_copies_are_bounded_in_number_and_in_time() {
    let disk = SimDisk::new(2);
    let mut unit = elsewhere(&disk).unwrap();
    let begin = |unit: &mut Unit<SimDisk>, number: usize| {
        let segment = SegmentId([u8::try_from(number).unwrap(); 16]);
        let at = UnixTime(now().0 + number as u64);
        let partial = unit.begin_receive(&Stretch { segment, ..stretch(0, 4096) }, at);
        partial.map(|partial| (segment, partial))
    };
    for number in 0..PARTIALS_MAX + 5 {
        let (segment, partial) = begin(&mut unit, number).unwrap();
        unit.end_receive(segment, partial.number(), Some(partial));
    }
    assert_eq!(files(&disk).len(), PARTIALS_MAX);
    assert!(!files(&disk).contains(&format!("{}.part", SegmentId([0; 16]))), "the first had to go");
    let idle = now().plus(PARTIAL_IDLE_MAX).0 + PARTIALS_MAX as u64;
    unit.sweep(UnixTime(idle)).unwrap();
    assert_eq!(files(&disk).len(), 5, "those that were touched later");
    // Where all of them are being worked on, there is no place for more.
    unit.sweep(UnixTime(idle + 100)).unwrap();
    let out: Vec<_> = (0..PARTIALS_MAX).map(|number| begin(&mut unit, number).unwrap()).collect();
    assert!(matches!(begin(&mut unit, PARTIALS_MAX), Err(UnitError::State(_))));
    assert!(matches!(begin(&mut unit, 0), Err(UnitError::State(_))), "one at a time");
    drop(out);
}

#[test]
fn what_was_given_up_meanwhile_does_not_come_back() {
    let (file, summary) = sealed_file();
    let disk = SimDisk::new(2);
    let mut unit = elsewhere(&disk).unwrap();
    receive(&mut unit, 0, &file).unwrap();
    let job = unit.begin_adopt(SEGMENT, &peer(1), Epoch(3), summary).unwrap().unwrap_or_else(|_| panic!());
    drop_copy(&mut unit).unwrap();
    let number = job.number();
    let late = unit.finish_adopt(SEGMENT, number, Epoch(3), job.run(), now());
    assert!(matches!(late, Err(UnitError::State(_))));
    assert!(unit.shelf().is_empty());
    // The successor finds what an adoption under the older epoch left.
    receive(&mut unit, 0, &file).unwrap();
    let job = unit.begin_adopt(SEGMENT, &peer(1), Epoch(3), summary).unwrap().unwrap_or_else(|_| panic!());
    unit.fence(peer(1), Epoch(4)).unwrap();
    let number = job.number();
    let late = unit.finish_adopt(SEGMENT, number, Epoch(3), job.run(), now());
    assert!(matches!(late, Err(UnitError::Fenced { present: Epoch(4) })));
    let job = unit.begin_adopt(SEGMENT, &peer(1), Epoch(4), summary).unwrap().unwrap_or_else(|_| panic!());
    let number = job.number();
    unit.finish_adopt(SEGMENT, number, Epoch(4), job.run(), now()).unwrap();
}
