//! Re-reading sealed copies.

use std::time::Duration;

use super::copies::{adopt, receive, sealed_unit};
use super::*;
use crate::limits::{SCRUB_RATE_MAX, SCRUB_RATE_MIN, SCRUB_STORE_INTERVAL};
use crate::segment::verify::{Verified, Verifier};
use crate::unit::scrub::{Scrubbed, rate};
use crate::wire::ScrubProgress;

const DAY: u64 = 86_400;

/// Reads what the unit hands out at `now`; whether it handed out something.
fn scrub_one(unit: &mut Unit<SimDisk>, now: UnixTime) -> bool {
    let Some(mut job) = unit.next_scrub(30, now) else { return false };
    let damaged = loop {
        if let Scrubbed::Whole(damaged) = job.step() {
            break damaged;
        }
    };
    unit.finish_scrub(&job, damaged, now);
    true
}

fn scrub_all(unit: &mut Unit<SimDisk>, now: UnixTime) {
    unit.begin_round(now);
    while scrub_one(unit, now) {}
}

fn progress(unit: &Unit<SimDisk>) -> ScrubProgress {
    unit.scrub_position().progress(unit.shelf())
}

fn damaged(unit: &Unit<SimDisk>) -> u64 {
    unit.shelf().get(SEGMENT).unwrap().damaged()
}

#[test]
fn a_wrong_record_is_found_remembered_and_mended_from_the_mirror() {
    let disk = SimDisk::new(1);
    let (mut first, summary) = sealed_unit(&disk);
    let (name, whole) = (file_name(SEGMENT), disk.contents(&file_name(SEGMENT)));
    scrub_all(&mut first, now());
    assert_eq!(damaged(&first), 0);
    disk.flip(&name, 4300);
    scrub_all(&mut first, now());
    assert_eq!(damaged(&first), 1);
    assert_eq!(first.shelf().damaged_of(&peer(1), 9), [(SEGMENT, 1)]);
    assert_eq!(first.shelf().damaged_of(&peer(9), 9), [], "another writer's business");
    drop(first);
    let disk = disk.crash();
    let (mut unit, _) = open(&disk).unwrap();
    assert_eq!((damaged(&unit), unit.shelf().damaged_count()), (1, 1), "also after a restart");
    let length = record(1, 4096, 4096, 300).len() as u64;
    let read =
        |at: u64| unit.shelf().read_record(SEGMENT, 4096 + at * length, u32::try_from(length).unwrap());
    assert!(read(0).is_err());
    assert!(read(1).is_ok() && read(2).is_ok(), "what is good is read on");
    unit.set_aside(SEGMENT, &peer(1), Epoch(3)).unwrap();
    receive(&mut unit, 0, &whole).unwrap();
    adopt(&mut unit, summary).unwrap();
    assert_eq!(damaged(&unit), 0);
    drop(unit);
    let (mut unit, _) = open(&disk.crash()).unwrap();
    assert_eq!(damaged(&unit), 0, "another copy in its place is another");
    scrub_all(&mut unit, now());
    assert_eq!(damaged(&unit), 0);
}

#[test]
fn every_changed_byte_of_a_sealed_segment_is_found() {
    let disk = SimDisk::new(1);
    let (unit, summary) = sealed_unit(&disk);
    let shelved = unit.shelf().get(SEGMENT).unwrap();
    let judge = || {
        let mut verifier = Verifier::new(shelved.header.clone(), summary);
        loop {
            // Pieces that end within records.
            match verifier.step(&shelved.file, 256).unwrap() {
                Verified::Piece(len) => assert!(len > 0 && len <= 256),
                Verified::Whole { damaged } => {
                    assert_eq!(verifier.done(), summary.file_len());
                    return damaged;
                }
            }
        }
    };
    assert_eq!(judge(), 0);
    let name = file_name(SEGMENT);
    for at in 0..summary.file_len() {
        disk.flip(&name, at);
        assert_eq!(judge(), 1, "at {at}");
        disk.flip(&name, at);
    }
    // Two stretches with a good record between them, and one of two records.
    let length = record(1, 4096, 4096, 300).len() as u64;
    for (bad, count) in [([0, 2], 2), ([0, 1], 1), ([1, 2], 1)] {
        bad.iter().for_each(|index| disk.flip(&name, 4200 + index * length));
        assert_eq!(judge(), count, "{bad:?}");
        bad.iter().for_each(|index| disk.flip(&name, 4200 + index * length));
    }
}

#[test]
fn a_file_that_ends_too_early_is_damaged() {
    let disk = SimDisk::new(1);
    let (mut unit, summary) = sealed_unit(&disk);
    let shelved = unit.shelf().get(SEGMENT).unwrap();
    shelved.file.truncate(summary.length - 100).unwrap();
    scrub_all(&mut unit, now());
    assert_eq!(damaged(&unit), 1);
}

#[test]
fn a_round_begins_when_it_is_due_and_goes_on_where_it_was_after_a_restart() {
    let disk = SimDisk::new(1);
    let mut unit = unit(&disk);
    let segments: Vec<_> = (1..=4).map(|number| SegmentId([number; 16])).collect();
    for segment in &segments {
        let other = SegmentHeader { segment: *segment, ..header(&unit) };
        unit.create(other, Epoch(3), false, now()).unwrap();
        let job = unit.begin_seal(*segment, &peer(1), Epoch(3), 4096).unwrap();
        unit.finish_seal(*segment, job.unwrap_or_else(|_| panic!("open")).run()).unwrap();
    }
    let len = 4096 + 128;
    let at = |seconds: u64| UnixTime(now().0 + seconds);
    assert!(scrub_one(&mut unit, at(0)) && scrub_one(&mut unit, at(1)));
    let half = ScrubProgress { begun: at(0), done: 2 * len, total: 4 * len, last_ended: UnixTime(0) };
    assert_eq!(progress(&unit), half);
    // It is written down once a minute, and at the beginning.
    assert!(scrub_one(&mut unit, at(SCRUB_STORE_INTERVAL.as_secs())));
    drop(unit);
    let disk = disk.crash();
    let (mut unit, _) = open(&disk).unwrap();
    assert_eq!(progress(&unit).done, 3 * len, "where it was");
    assert!(scrub_one(&mut unit, at(100)));
    assert!(!scrub_one(&mut unit, at(200)), "the open one is none of it");
    let all = ScrubProgress { begun: at(0), done: 4 * len, total: 4 * len, last_ended: at(200) };
    assert_eq!(progress(&unit), all);
    assert!(!scrub_one(&mut unit, at(30 * DAY - 1)));
    assert!(scrub_one(&mut unit, at(30 * DAY)), "the next round");
    assert_eq!(progress(&unit).done, len);
    drop(unit);
    // What cannot be read begins anew.
    let disk = disk.restart();
    disk.flip("unit.scrub", 12);
    let (mut unit, _) = open(&disk).unwrap();
    assert_eq!(progress(&unit).begun, UnixTime(0));
    assert!(scrub_one(&mut unit, at(0)));
    assert_eq!(progress(&unit).done, len);
}

#[test]
fn bad_input_37_a_round_that_began_in_the_future_keeps_no_other_from_beginning() {
    let disk = SimDisk::new(1);
    let (mut unit, _) = sealed_unit(&disk);
    scrub_all(&mut unit, UnixTime(now().0 + 100 * 365 * DAY));
    assert!(scrub_one(&mut unit, now()));
}

#[test]
fn what_changed_while_it_was_read_is_not_counted() {
    let disk = SimDisk::new(1);
    let (mut unit, summary) = sealed_unit(&disk);
    let whole = disk.contents(&file_name(SEGMENT));
    let mut job = unit.next_scrub(30, now()).unwrap();
    unit.set_aside(SEGMENT, &peer(1), Epoch(3)).unwrap();
    receive(&mut unit, 0, &whole).unwrap();
    adopt(&mut unit, summary).unwrap();
    while matches!(job.step(), Scrubbed::Piece(_)) {}
    unit.finish_scrub(&job, 5, now());
    assert_eq!(damaged(&unit), 0);
    drop(unit);
    let (unit, _) = open(&disk.crash()).unwrap();
    assert_eq!(damaged(&unit), 0, "nor after a restart");
}

#[test]
fn a_segment_in_which_a_read_found_something_wrong_is_read_before_others() {
    let disk = SimDisk::new(1);
    let (mut unit, _) = sealed_unit(&disk);
    scrub_all(&mut unit, now());
    disk.flip(&file_name(SEGMENT), 4300);
    assert!(!scrub_one(&mut unit, now()), "no round is due");
    unit.shelf().suspect(SEGMENT);
    unit.shelf().suspect(SegmentId([9; 16]));
    assert!(scrub_one(&mut unit, now()));
    assert_eq!(damaged(&unit), 1);
    assert!(!scrub_one(&mut unit, now()));
}

#[test]
fn the_pace_is_what_is_left_to_read_in_the_time_that_is_left() {
    let begun = UnixTime(1_000_000);
    let after = |days: u64| begun.plus(Duration::from_secs(days * DAY));
    let terabytes = 27 * DAY * 10_000_000;
    assert_eq!(rate(terabytes, begun, 30, begun), 10_000_000);
    assert_eq!(rate(terabytes, begun, 30, after(18)), 30_000_000);
    assert_eq!(rate(1000, begun, 30, begun), SCRUB_RATE_MIN);
    assert_eq!(rate(terabytes, begun, 30, after(40)), SCRUB_RATE_MAX);
    assert_eq!(rate(u64::MAX, UnixTime(u64::MAX), u32::MAX, UnixTime(0)), SCRUB_RATE_MIN);
}
