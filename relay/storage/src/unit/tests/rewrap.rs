//! A segment's day key is wrapped anew, whatever happens meanwhile.

use super::*;
use crate::keys::WrappedKey;

const OLD: WrappedKey = [1; WRAPPED_LEN];
const NEW: WrappedKey = [2; WRAPPED_LEN];

/// A unit whose segment has two records; sealed or not.
fn with_records(disk: &SimDisk, is_sealed: bool) -> Unit<SimDisk> {
    let mut unit = unit(disk);
    let first = record(1, 4096, 4096, 100);
    let between = 4096 + first.len() as u64;
    let second = record(2, between, between, 5_000);
    let end = between + second.len() as u64;
    commit(&mut unit, append_at(4096, first, 3).unwrap()).unwrap();
    commit(&mut unit, append_at(between, second, 3).unwrap()).unwrap();
    if is_sealed {
        seal(&mut unit, end);
    }
    unit
}

fn seal(unit: &mut Unit<SimDisk>, end: u64) -> SealReport {
    let job = unit.begin_seal(SEGMENT, &peer(1), Epoch(3), end).unwrap().unwrap_or_else(|_| panic!("open"));
    unit.finish_seal(SEGMENT, job.run()).unwrap()
}

fn rewrap(unit: &mut Unit<SimDisk>, wrapped: WrappedKey) -> Result<(), UnitError> {
    unit.rewrap(SEGMENT, &peer(1), Epoch(3), wrapped, now())
}

fn key_of(unit: &Unit<SimDisk>) -> WrappedKey {
    unit.shelf().get(SEGMENT).unwrap().header.day_key.unwrap()
}

/// What is in the file behind the header block, and nothing is left beside it.
fn records(disk: &SimDisk) -> Vec<u8> {
    let names = disk.list().unwrap();
    assert_eq!(
        names,
        [file_name(SEGMENT), meta::META_NAME.to_owned()].map(String::from),
        "nothing is left beside"
    );
    let mut bytes = disk.contents(&file_name(SEGMENT)).split_off(4096);
    // An open segment's zeros are cut by a start.
    bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
    bytes
}

#[test]
fn a_key_that_is_wrapped_anew_takes_the_old_ones_place_and_nothing_else_changes() {
    for is_sealed in [false, true] {
        let disk = SimDisk::new(1);
        let mut unit = with_records(&disk, is_sealed);
        let before = (records(&disk), unit.shelf().get(SEGMENT).unwrap().phase());
        rewrap(&mut unit, NEW).unwrap();
        rewrap(&mut unit, NEW).unwrap();
        assert_eq!(key_of(&unit), NEW);
        assert_eq!((records(&disk), unit.shelf().get(SEGMENT).unwrap().phase()), before);
        if !is_sealed {
            let end = unit.shelf().get(SEGMENT).unwrap().readable();
            let third = record(3, end, end, 50);
            let length = end + third.len() as u64;
            commit(&mut unit, append_at(end, third, 3).unwrap()).unwrap();
            assert_eq!(seal(&mut unit, length).damaged, 0, "it goes on as if nothing had been");
        }
        drop(unit);
        let (unit, report) = open(&disk.crash()).unwrap();
        assert_eq!((key_of(&unit), report.sealed, report.set_aside), (NEW, 1, 0));
    }
}

#[test]
fn bad_input_32_power_lost_at_any_step_of_wrapping_anew_costs_no_key_and_no_record() {
    for is_sealed in [false, true] {
        let mut outcomes = BTreeMap::new();
        for seed in 0..60 {
            for step in 0.. {
                let disk = SimDisk::new(seed);
                let mut unit = with_records(&disk, is_sealed);
                let before = records(&disk);
                disk.inject(step, Fault::Crash);
                let done = rewrap(&mut unit, NEW);
                drop(unit);
                let is_through = done.is_ok();
                let disk = disk.crash();
                let (mut unit, report) = open(&disk).unwrap();
                assert_eq!((report.set_aside, report.removed, report.damaged), (0, 0, 0), "{seed} {step}");
                let key = key_of(&unit);
                assert!(key == NEW || key == OLD && !is_through, "{seed} {step}");
                assert_eq!(records(&disk), before, "{seed} {step}");
                *outcomes.entry(key == NEW).or_insert(0) += 1;
                // And it can be done again.
                rewrap(&mut unit, NEW).unwrap();
                assert_eq!(key_of(&unit), NEW);
                if is_through {
                    assert!(step >= 6, "every step was lost once");
                    break;
                }
            }
        }
        assert_eq!(outcomes.len(), 2, "power goes before and after it counts: {outcomes:?}");
    }
}

#[test]
fn bad_input_31_an_error_at_any_step_of_wrapping_anew_costs_no_key_and_no_record() {
    for fault in [Fault::Eio, Fault::NoSpace] {
        for is_sealed in [false, true] {
            for seed in 0..20 {
                for step in 0..12 {
                    let disk = SimDisk::new(seed);
                    let mut unit = with_records(&disk, is_sealed);
                    let before = records(&disk);
                    disk.inject(step, fault);
                    let done = rewrap(&mut unit, NEW);
                    disk.heal();
                    if done.is_ok() {
                        assert_eq!(key_of(&unit), NEW);
                    }
                    let there = unit.shelf().get(SEGMENT).unwrap();
                    assert!(there.readable() > 5_000, "its records can still be read");
                    drop((unit, there));
                    let disk = if seed % 2 == 0 { disk.crash() } else { disk.restart() };
                    let (unit, report) = open(&disk).unwrap();
                    assert_eq!((report.set_aside, report.damaged), (0, 0), "{seed} {step}");
                    assert!([OLD, NEW].contains(&key_of(&unit)), "{seed} {step}");
                    assert_eq!(records(&disk), before, "{seed} {step}");
                }
            }
        }
    }
}

#[test]
fn only_its_writer_wraps_a_key_anew_under_its_epoch_and_before_its_day_is_over() {
    let disk = SimDisk::new(1);
    let mut unit = with_records(&disk, false);
    let mut ask = |writer, epoch, now| unit.rewrap(SEGMENT, &peer(writer), Epoch(epoch), NEW, now);
    assert!(matches!(ask(9, 0, now()), Err(UnitError::NoSegment)));
    assert!(matches!(ask(1, 2, now()), Err(UnitError::Fenced { .. })));
    let day = Class::Days7.deletion_day(TODAY);
    assert!(matches!(ask(1, 3, day.end()), Err(UnitError::Expired)));
    let end = unit.shelf().get(SEGMENT).unwrap().readable();
    let job = unit.begin_seal(SEGMENT, &peer(1), Epoch(3), end).unwrap();
    assert!(matches!(rewrap(&mut unit, NEW), Err(UnitError::State(_))));
    let job = job.unwrap_or_else(|_| panic!("open"));
    unit.finish_seal(SEGMENT, job.run()).unwrap();
    rewrap(&mut unit, NEW).unwrap();
}

// SPEC: C11
#[test]
fn what_was_left_beside_an_expired_segment_goes_with_it() {
    let disk = SimDisk::new(3);
    let mut unit = with_records(&disk, true);
    disk.inject(4, Fault::Eio); // in place: what stands beside stays
    assert!(rewrap(&mut unit, NEW).is_err());
    assert_eq!(disk.list().unwrap().len(), 3);
    unit.sweep(Class::Days7.deletion_day(TODAY).end()).unwrap();
    assert_eq!(disk.list().unwrap(), [meta::META_NAME]);
}
