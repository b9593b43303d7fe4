//! One unit alone: records placed, checked, written and synced; neither encrypted nor sent anywhere.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use lighter_protocol::UnixTime;
use lighter_storage::disk::RealDisk;
use lighter_storage::record::{AppendDigest, Kind, RECORD_HEADER_LEN, UnplacedRecord};
use lighter_storage::segment::RECORDS_AT;
use lighter_storage::segment::header::{Member, SegmentHeader};
use lighter_storage::unit::worker::UnitHandle;
use lighter_storage::unit::{CheckedAppend, Unit};
use lighter_storage::{Class, Epoch, SegmentId, Sequence};
use lighter_transport::Identity;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::Mutex;

use super::{APPEND_LEN, Load, Room, data};

/// A segment that takes appends, and where the next one goes.
pub(super) struct Appending {
    unit: UnitHandle<RealDisk>,
    header: SegmentHeader,
    next: Mutex<Next>,
}

struct Next {
    offset: u64,
    sequence: Sequence,
}

const EPOCH: Epoch = Epoch(1);

pub(super) async fn run(folder: &Path, load: Load, room: Room) -> Result<Duration> {
    let appending = Appending::start(folder, room)?;
    load.run(appending, |appending| async move { appending.append().await }).await
}

impl Appending {
    pub(super) fn start(folder: &Path, room: Room) -> Result<Self> {
        let (server, writer) = (Identity::generate().peer(), Identity::generate().peer());
        let (now, mut chance) = (UnixTime::now(), StdRng::seed_from_u64(1));
        let disk = RealDisk::open(&folder.join("unit"))?;
        let (mut unit, _) = Unit::open(disk, server, now, &mut chance)?;
        unit.fence(writer, EPOCH)?;
        if room == Room::Extending {
            unit.set_fill_len(0);
        }
        let header = SegmentHeader {
            segment: SegmentId::draw(&mut chance),
            class: Class::Days30,
            storage_day: now.day(),
            deletion_day: Class::Days30.deletion_day(now.day()),
            epoch: EPOCH,
            writer,
            members: vec![Member { peer: server, unit: unit.id() }],
            acknowledged_after: 1,
            // No record is encrypted here.
            day_key: Some([0; _]),
            closed: Vec::new(),
        };
        unit.create(header.clone(), EPOCH, false, now)?;
        let next = Mutex::new(Next { offset: RECORDS_AT, sequence: Sequence::first_of(EPOCH) });
        Ok(Self { unit: UnitHandle::start(unit), header, next })
    }

    /// As a lane does for a writer, and a server for a lane.
    pub(super) async fn append(&self) -> Result<()> {
        let mut bytes = Vec::with_capacity(RECORD_HEADER_LEN + APPEND_LEN + 64);
        bytes.resize(RECORD_HEADER_LEN, 0);
        bytes.extend_from_slice(&data());
        let record = UnplacedRecord::new(Kind::Portion, bytes, 0);
        let SegmentHeader { segment, epoch, writer, .. } = self.header;
        let answer = {
            let mut next = self.next.lock().await;
            let (offset, sequence) = (next.offset, next.sequence);
            next.offset += record.record_len() as u64;
            next.sequence = sequence.next();
            let mut digest = AppendDigest::default();
            let placed = record.place(segment, epoch, sequence, offset, RECORDS_AT, &[], &mut digest);
            let checked = CheckedAppend::check(segment, offset, placed.into(), writer, EPOCH)?;
            self.unit.append(checked).await?
        };
        answer.await.context("the unit has stopped")??;
        Ok(())
    }
}
