//! A segment gives the room of dead records back, whatever happens meanwhile.

use super::*;
use crate::limits::HOLE_LEN_MIN;
use crate::segment::footer::{Hole, Summary};

/// Where the records of [`sealed`] begin, and where they end.
struct Places {
    starts: Vec<u64>,
    end: u64,
}

impl Places {
    fn hole(&self, from: usize, to: usize) -> Hole {
        let offset = u32::try_from(self.starts[from]).unwrap();
        let end = self.starts.get(to).copied().unwrap_or(self.end);
        Hole { offset, length: u32::try_from(end).unwrap() - offset }
    }
}

/// A sealed segment: a catalog record, three portions of 80 KiB, a catalog record, a portion.
fn sealed(disk: &SimDisk) -> (Unit<SimDisk>, Summary, Places) {
    let mut unit = unit(disk);
    let (mut starts, mut end) = (Vec::new(), 4096);
    let kinds = [Kind::Catalog, Kind::Portion, Kind::Portion, Kind::Portion, Kind::Catalog, Kind::Portion];
    for (sequence, kind) in (1..).zip(kinds) {
        let len = if kind == Kind::Catalog { 100 } else { 80 * 1024 };
        let mut bytes = vec![0; RECORD_HEADER_LEN];
        bytes.resize(RECORD_HEADER_LEN + len, u8::try_from(sequence).unwrap());
        let bytes = UnplacedRecord::new(kind, bytes, 0).place(
            SEGMENT,
            Epoch(3),
            Sequence(sequence),
            end,
            end,
            &[],
            &mut AppendDigest::default(),
        );
        let len = bytes.len() as u64;
        commit(&mut unit, append_at(end, bytes, 3).unwrap()).unwrap();
        starts.push(end);
        end += len;
    }
    let job = unit.begin_seal(SEGMENT, &peer(1), Epoch(3), end).unwrap().unwrap_or_else(|_| panic!("open"));
    let report = unit.finish_seal(SEGMENT, job.run()).unwrap();
    (unit, report.summary, Places { starts, end })
}

fn thin(unit: &mut Unit<SimDisk>, holes: &[Hole]) -> Result<SealReport, UnitError> {
    let job = match unit.begin_thin(SEGMENT, &peer(1), Epoch(3), holes.to_vec(), now())? {
        Ok(job) => job,
        Err(report) => return Ok(report),
    };
    let number = job.number();
    unit.finish_thin(SEGMENT, number, Epoch(3), job.run())
}

fn reads(unit: &Unit<SimDisk>, places: &Places, index: usize) -> bool {
    let start = places.starts[index];
    let end = places.starts.get(index + 1).copied().unwrap_or(places.end);
    unit.shelf().read_record(SEGMENT, start, u32::try_from(end - start).unwrap()).is_ok()
}

fn scrubbed(unit: &mut Unit<SimDisk>) -> u64 {
    unit.begin_round(now());
    let mut job = unit.next_scrub(7, now()).unwrap();
    loop {
        if let scrub::Scrubbed::Whole(damaged) = job.step() {
            return damaged;
        }
    }
}

// SPEC: D8
#[test]
fn what_is_dead_goes_and_what_is_alive_stays_where_it_is() {
    let disk = SimDisk::new(1);
    let (mut unit, before, places) = sealed(&disk);
    let report = thin(&mut unit, &[places.hole(1, 3)]).unwrap();
    let summary = report.summary;
    assert_eq!((summary.holes, summary.hole_bytes), (1, u64::from(places.hole(1, 3).length)));
    assert_eq!((summary.records, summary.catalog_records), (4, 2));
    assert_eq!((summary.first, summary.last, summary.length), (before.first, before.last, before.length));
    assert!(summary.is_same_log(&before) && summary.root != before.root);
    for (index, is_alive) in [true, false, false, true, true, true].into_iter().enumerate() {
        assert_eq!(reads(&unit, &places, index), is_alive, "record {index}");
    }
    assert_eq!(unit.shelf().index(SEGMENT).unwrap().0.len(), 2);
    assert_eq!(scrubbed(&mut unit), 0, "holes are no damage");
    assert_eq!(thin(&mut unit, &[places.hole(1, 3)]).unwrap(), report, "again is as once");
    // More of it has died since; what was given back stays so.
    let second = thin(&mut unit, &[places.hole(1, 4), places.hole(5, 6)]).unwrap().summary;
    assert_eq!((second.holes, second.records), (2, 2));
    let third = thin(&mut unit, &[places.hole(5, 6)]);
    assert!(matches!(third, Err(UnitError::Unsound(_))), "what is gone does not come back: {third:?}");
    drop(unit);
    let (mut unit, report) = open(&disk.crash()).unwrap();
    assert_eq!((report.sealed, report.damaged, report.removed), (1, 0, 0));
    assert_eq!(unit.shelf().get(SEGMENT).unwrap().phase(), Phase::Sealed(second));
    assert!(reads(&unit, &places, 0) && reads(&unit, &places, 4) && !reads(&unit, &places, 5));
    assert_eq!(scrubbed(&mut unit), 0);
}

#[test]
fn a_damaged_byte_of_a_thinned_segment_is_found_wherever_it_is() {
    let disk = SimDisk::new(1);
    let (mut unit, _, places) = sealed(&disk);
    let summary = thin(&mut unit, &[places.hole(1, 3)]).unwrap().summary;
    let hole = u64::from(places.hole(1, 3).offset);
    let index = summary.length;
    for at in [10, 4100, hole + 5_000, places.starts[3] + 50, index + 3, index + 34, summary.file_len() - 20]
    {
        disk.flip(&file_name(SEGMENT), at);
        assert!(scrubbed(&mut unit) > 0, "at {at}");
        disk.flip(&file_name(SEGMENT), at);
        // The copy was marked: a round that finds nothing says so again.
        assert_eq!(scrubbed(&mut unit), 0, "at {at}");
    }
}

#[test]
fn damage_never_gets_a_hash_that_makes_it_look_right() {
    for at in [4100, 90_000, 200_000] {
        let disk = SimDisk::new(1);
        let (mut unit, before, places) = sealed(&disk);
        disk.flip(&file_name(SEGMENT), at);
        let refused = thin(&mut unit, &[places.hole(1, 3)]);
        assert!(matches!(refused, Err(UnitError::Unsound(_))), "{refused:?}");
        assert_eq!(unit.shelf().get(SEGMENT).unwrap().phase(), Phase::Sealed(before));
        assert!(disk.list().unwrap().iter().all(|name| !name.ends_with(".part")), "nothing is left behind");
    }
}

#[test]
fn holes_that_cannot_be_are_refused() {
    let disk = SimDisk::new(1);
    let (mut unit, before, places) = sealed(&disk);
    let good = places.hole(1, 3);
    let bad = [
        vec![places.hole(0, 3)],                          // a catalog record
        vec![places.hole(3, 5)],                          // another one
        vec![Hole { offset: good.offset + 16, ..good }],  // in the midst of a record
        vec![Hole { length: good.length - 16, ..good }],  // to the midst of one
        vec![Hole { length: HOLE_LEN_MIN - 16, ..good }], // not worth it
        vec![good, good],                                 // twice
        vec![Hole { length: u32::MAX - 15, ..good }],     // beyond the end
        vec![Hole { offset: 0, length: 1 << 17 }],        // the header block
        vec![Hole { offset: good.offset + 1, ..good }],   // at no record's place
    ];
    for holes in bad {
        let refused = thin(&mut unit, &holes);
        assert!(matches!(refused, Err(UnitError::Unsound(_))), "{holes:?}: {refused:?}");
    }
    let fenced = unit.begin_thin(SEGMENT, &peer(1), Epoch(2), vec![good], now());
    assert!(matches!(fenced, Err(UnitError::Fenced { .. })));
    let stranger = unit.begin_thin(SEGMENT, &peer(5), Epoch(3), vec![good], now());
    assert!(stranger.is_err());
    assert_eq!(unit.shelf().get(SEGMENT).unwrap().phase(), Phase::Sealed(before));
}

#[test]
fn a_copy_that_leaves_or_changes_while_it_is_thinned_is_not_brought_back() {
    let disk = SimDisk::new(1);
    let (mut unit, _, places) = sealed(&disk);
    let holes = vec![places.hole(1, 3)];
    let begin = |unit: &mut Unit<SimDisk>| {
        unit.begin_thin(SEGMENT, &peer(1), Epoch(3), holes.clone(), now())
            .unwrap()
            .unwrap_or_else(|_| panic!())
    };
    let job = begin(&mut unit);
    assert!(unit.begin_thin(SEGMENT, &peer(1), Epoch(3), holes.clone(), now()).is_err(), "one at a time");
    unit.rewrap(SEGMENT, &peer(1), Epoch(3), [2; WRAPPED_LEN], now()).unwrap();
    let number = job.number();
    assert!(unit.finish_thin(SEGMENT, number, Epoch(3), job.run()).is_err());
    assert_eq!(unit.shelf().get(SEGMENT).unwrap().header.day_key, Some([2; WRAPPED_LEN]));
    let job = begin(&mut unit);
    let number = job.number();
    let thinned = job.run();
    unit.drop_copy(SEGMENT, &peer(1), Epoch(3)).unwrap();
    assert!(matches!(unit.finish_thin(SEGMENT, number, Epoch(3), thinned), Err(UnitError::State(_))));
    assert!(unit.shelf().is_empty());
    drop(unit);
    assert!(open(&disk.crash()).unwrap().0.shelf().is_empty());
}

#[test]
fn bad_input_32_power_lost_at_any_step_of_thinning_costs_no_record() {
    let mut outcomes = [0, 0];
    for seed in 0..20 {
        for step in 0.. {
            let disk = SimDisk::new(seed);
            let (mut unit, before, places) = sealed(&disk);
            disk.inject(step, Fault::Crash);
            let done = thin(&mut unit, &[places.hole(1, 3)]);
            drop(unit);
            let (mut unit, report) = open(&disk.crash()).unwrap();
            assert_eq!((report.sealed, report.damaged, report.set_aside), (1, 0, 0), "{seed} {step}");
            let Phase::Sealed(summary) = unit.shelf().get(SEGMENT).unwrap().phase() else { panic!("sealed") };
            outcomes[usize::from(summary.holes > 0)] += 1;
            assert!(summary.is_same_log(&before));
            assert!([0, 3, 4, 5].into_iter().all(|index| reads(&unit, &places, index)), "{seed} {step}");
            assert_eq!(reads(&unit, &places, 1), summary.holes == 0);
            assert_eq!(scrubbed(&mut unit), 0);
            if let Ok(done) = done {
                assert_eq!(summary, done.summary, "durable once it was said");
                break;
            }
            thin(&mut unit, &[places.hole(1, 3)]).unwrap();
        }
    }
    assert!(outcomes.iter().all(|count| *count > 0), "{outcomes:?}");
}
