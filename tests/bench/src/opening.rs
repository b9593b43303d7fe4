//! Opening a unit with very many small records, as a storage server does when it starts: all segments sealed but one,
//! which is read from its start.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use lighter_protocol::UnixTime;
use lighter_storage::disk::RealDisk;
use lighter_storage::limits::{GROUP_LEN_MAX, SEGMENT_RECORDS_MAX};
use lighter_storage::record::{AppendDigest, Kind, RECORD_HEADER_LEN, UnplacedRecord};
use lighter_storage::segment::RECORDS_AT;
use lighter_storage::segment::header::{Member, SegmentHeader};
use lighter_storage::unit::{CheckedAppend, Unit};
use lighter_storage::{Class, Epoch, SegmentId, Sequence};
use lighter_transport::Identity;
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::measure::{Comparison, Pair, Side, Work, compare};
use crate::settings::{Settings, amount};

/// Bytes of a record's payload.
const PAYLOAD_LEN: usize = 64;
/// What the opening of ten million records may take.
const BOUND: Duration = Duration::from_secs(2);
/// Records of that bound.
const BOUND_RECORDS: u64 = 10_000_000;
const EPOCH: Epoch = Epoch(1);

pub(crate) fn run(settings: &Settings) -> Result<Vec<Comparison>> {
    let folder = settings.temporary()?;
    let identity = Identity::generate();
    fill(folder.path(), &identity, settings.opened_records)?;
    let share = amount(settings.opened_records) / amount(BOUND_RECORDS);
    let sides = vec![
        Side::timed(format!("opening a unit of {} records", settings.opened_records), || {
            let disk = RealDisk::open(folder.path())?;
            let (unit, report) =
                Unit::open(disk, identity.peer(), UnixTime::now(), &mut StdRng::seed_from_u64(2))?;
            ensure!(report.damaged == 0 && report.open == 1, "not as it was filled: {report:?}");
            drop(unit);
            Ok(())
        }),
        Side::new("10 million in 2 s", || Ok(BOUND.mul_f64(share))),
    ];
    let work = Work { amount: amount(settings.opened_records), unit: "records/s" };
    compare(settings.rounds, work, sides, &[Pair { ours: 0, peer: 1, aim: Some(1.0) }])
}

/// Fills a unit: as many records in each segment as there may be; all of them sealed but the last.
fn fill(folder: &Path, server: &Identity, records: u64) -> Result<()> {
    let (writer, mut chance) = (Identity::generate().peer(), StdRng::seed_from_u64(1));
    let now = UnixTime::now();
    let (mut unit, _) = Unit::open(RealDisk::open(folder)?, server.peer(), now, &mut chance)?;
    unit.fence(writer, EPOCH)?;
    let (mut sequence, mut left) = (Sequence::first_of(EPOCH), records);
    while left > 0 {
        let count = left.min(SEGMENT_RECORDS_MAX);
        left -= count;
        let header = SegmentHeader {
            segment: SegmentId::draw(&mut chance),
            class: Class::Days30,
            storage_day: now.day(),
            deletion_day: Class::Days30.deletion_day(now.day()),
            epoch: EPOCH,
            writer,
            members: vec![Member { peer: server.peer(), unit: unit.id() }],
            acknowledged_after: 1,
            day_key: Some([0; _]), // no record is encrypted here
            closed: Vec::new(),
        };
        let segment = header.segment;
        unit.create(header, EPOCH, false, now)?;
        let (mut group, mut group_at, mut end) = (Vec::new(), RECORDS_AT, RECORDS_AT);
        for number in 0..count {
            let record = UnplacedRecord::new(Kind::Portion, vec![0x5a; RECORD_HEADER_LEN + PAYLOAD_LEN], 0);
            let placed =
                record.place(segment, EPOCH, sequence, end, group_at, &[], &mut AppendDigest::default());
            sequence = sequence.next();
            end += placed.len() as u64;
            group.extend_from_slice(&placed);
            if group.len() + placed.len() > GROUP_LEN_MAX || number + 1 == count {
                let bytes = std::mem::take(&mut group).into();
                let append = CheckedAppend::check(segment, group_at, bytes, writer, EPOCH)?;
                unit.commit(&[append]).into_iter().collect::<Result<Vec<()>, _>>()?;
                group_at = end;
            }
        }
        if left > 0 {
            match unit.begin_seal(segment, &writer, EPOCH, end)? {
                Ok(job) => unit.finish_seal(segment, job.run())?,
                Err(report) => report,
            };
        }
    }
    Ok(())
}
