//! Opening a unit: what a start finds, and what it does about it.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use lighter_protocol::{PeerId, UnixTime};
use rand::Rng;

use super::kept::Kept;
use super::leave::{object_aside, part_of, stub_aside_name};
use super::meta::UnitMeta;
use super::moving::is_next;
use super::scrub::Scrub;
use super::strays::{Strays, stray_of};
use super::{Phase, Shelf, Shelved, Unit, Writing};
use crate::disk::{Disk, DiskFile};
use crate::ids::{Class, SegmentId, UnitId};
use crate::limits::{FILL_LEN, SEGMENT_HEADER_LEN, SEGMENT_LEN_MAX};
use crate::segment::footer::{SUMMARY_LEN, Summary};
use crate::segment::header::SegmentHeader;
use crate::segment::scan::scan;
use crate::segment::stub::{STUB_LEN_MAX, Stub, segment_of_stub};
use crate::segment::{RECORDS_AT, file_name, segment_of};

/// What a start found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// Sealed segments.
    pub sealed: u64,
    /// Open ones, scanned.
    pub open: u64,
    /// Of those, how many had a torn end that was cut.
    pub cut: u64,
    /// Stretches of acknowledged records that are damaged.
    pub damaged: u64,
    /// Files that are no segments any more, and were put out of the way.
    pub set_aside: u64,
    /// Beginnings of segments and of copies that never came to be, removed.
    pub removed: u64,
    /// Sealed segments whose records are in an object store.
    pub moved: u64,
}

impl<D: Disk> Unit<D> {
    /// Opens the unit on `disk`, which becomes a new unit of `server` where it is none yet.
    ///
    /// # Errors
    /// The disk's; [`io::ErrorKind::InvalidData`] where the unit belongs to another server, or does not know itself: it is
    /// left as it is.
    pub fn open(
        disk: D,
        server: PeerId,
        now: UnixTime,
        chance: &mut impl Rng,
    ) -> io::Result<(Self, OpenReport)> {
        let meta = match UnitMeta::load(&disk)? {
            Some(meta) if meta.server != server => return Err(io::ErrorKind::InvalidData.into()),
            Some(meta) => meta,
            // Segments come after the file that says whose they are: it is lost, and with it what was fenced.
            None if disk
                .list()?
                .iter()
                .any(|name| segment_of(name).is_some() || segment_of_stub(name).is_some()) =>
            {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "segments, but no unit.meta"));
            }
            None => {
                let meta = UnitMeta {
                    unit: UnitId::draw(chance),
                    server,
                    epochs: BTreeMap::new(),
                    latest: now,
                    suspects: BTreeMap::new(),
                    incomplete: BTreeMap::new(),
                };
                meta.store(&disk)?;
                meta
            }
        };
        let shelf = Arc::new(Shelf::new(meta.unit));
        let scrub = Scrub::load(&disk, now);
        let mut unit = Self {
            disk,
            server,
            meta,
            shelf,
            writing: BTreeMap::new(),
            partials: BTreeMap::new(),
            next_partial: 0,
            scrub,
            strays: Strays::default(),
            fill_len: FILL_LEN,
        };
        let mut report = OpenReport::default();
        unit.finish_rewraps()?;
        unit.open_moved(now, &mut report)?;
        for name in unit.disk.list()? {
            if let Some(segment) = segment_of(&name) {
                unit.open_segment(&name, segment, now, &mut report)?;
            } else if let Some(segment) = part_of(&name) {
                // Not a copy, whatever stands in it. One that does not go now goes at a sweep.
                if let Err(error) = unit.wipe_part(segment) {
                    tracing::warn!(%segment, %error, "what was received in vain could not be removed yet");
                }
                report.removed += 1;
            }
        }
        unit.disk.sync_dir()?;
        unit.settle_suspects()?;
        unit.settle_damage()?;
        Ok((unit, report))
    }

    /// Takes in stubs, and removes what moves left behind. What is here and what is in the store may not be told apart by
    /// names that a crash could undo: they are durable before anything goes by them.
    fn open_moved(&mut self, now: UnixTime, report: &mut OpenReport) -> io::Result<()> {
        let names = self.disk.list()?;
        let is_any = |name: &String| {
            segment_of_stub(name).is_some()
                || stray_of(name).is_some()
                || is_next(name)
                || object_aside(name).is_some()
        };
        if !names.iter().any(is_any) {
            return Ok(());
        }
        self.disk.sync_dir()?;
        for (name, segment) in names.iter().filter_map(|name| Some((name, segment_of_stub(name)?))) {
            self.open_stub(name, segment, now, report)?;
        }
        for name in names.iter().filter_map(|name| stray_of(name)) {
            self.open_stray(name)?;
        }
        if let Err(error) = self.sweep_moved(&names) {
            tracing::warn!(%error, "what a move left behind could not be removed yet");
        }
        Ok(())
    }

    fn open_stub(
        &mut self,
        name: &str,
        segment: SegmentId,
        now: UnixTime,
        report: &mut OpenReport,
    ) -> io::Result<()> {
        let file = self.disk.open(name)?;
        // One that another unit made is none of ours, whoever copied it.
        let stub = read_stub(&file, segment)?.filter(|stub| stub.place.unit == self.meta.unit);
        let Some(stub) = stub else {
            if self.has_sealed_file(segment)? {
                // It never counted: the file is the copy.
                return self.wipe(name);
            }
            let day = Class::Days365.deletion_day(now.day());
            self.miss(segment, day)?;
            self.put_aside(name, &stub_aside_name(segment, day))?;
            self.shelf.count_set_aside();
            report.set_aside += 1;
            tracing::error!(%segment, "the stub of a moved segment is damaged: it was set aside");
            return Ok(());
        };
        report.sealed += 1;
        report.moved += 1;
        self.complete(segment);
        let shelved = Shelved::moved_to(stub.header, file, stub.summary, stub.place);
        shelved.set_damaged(self.scrub.damage(segment));
        self.shelf.put(shelved);
        Ok(())
    }

    /// Whether the file of a segment is there, with a sound header block and a sound summary.
    fn has_sealed_file(&self, segment: SegmentId) -> io::Result<bool> {
        let file = match self.disk.open(&file_name(segment)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            other => other?,
        };
        let file_len = file.len()?;
        let header = read_header(&file, file_len)?.filter(|header| header.segment == segment);
        Ok(header.is_some() && read_summary(&file, file_len, segment)?.is_some())
    }

    fn open_segment(
        &mut self,
        name: &str,
        segment: SegmentId,
        now: UnixTime,
        report: &mut OpenReport,
    ) -> io::Result<()> {
        if self.shelf.get(segment).is_some() {
            return Ok(()); // moved: what is left of the file goes at a sweep
        }
        let file = self.disk.open(name)?;
        let file_len = file.len()?;
        let summary = read_summary(&file, file_len, segment)?;
        // A sealed copy may have come from another server; an open one is a member's.
        let header = read_header(&file, file_len)?
            .filter(|header| header.segment == segment && (summary.is_some() || self.is_member(header)));
        let Some(header) = header else {
            // Not acknowledged where it has no room for a record; otherwise it may be all that is left of something.
            if file_len <= RECORDS_AT {
                self.disk.remove(name)?;
                report.removed += 1;
            } else {
                // Which day it had is not known: no day is later than that of a year's class begun today.
                let day = Class::Days365.deletion_day(now.day());
                self.miss(segment, day)?;
                self.rename_aside(segment, day)?;
                self.shelf.count_set_aside();
                report.set_aside += 1;
                tracing::error!(%segment, "a segment's header block is damaged: the file was set aside");
            }
            return Ok(());
        };
        if let Some(summary) = summary {
            report.sealed += 1;
            self.complete(segment);
            let shelved = Shelved::new(header, file, Phase::Sealed(summary), summary.length);
            shelved.set_damaged(self.scrub.damage(segment));
            self.shelf.put(shelved);
            return Ok(());
        }
        report.open += 1;
        let limit = self.meta.suspects.get(&segment).copied().unwrap_or(SEGMENT_LEN_MAX);
        let found = scan(&file, segment, header.epoch, limit, |_| {})?;
        if found.torn || limit < file_len {
            file.truncate(found.end)?;
            report.cut += 1;
        }
        // What a page cache showed is durable from here on, or the unit does not open.
        file.sync_data()?;
        report.damaged += found.damaged.len() as u64;
        let shelved = Shelved::new(header, file, Phase::Open, found.end);
        shelved.set_damaged(found.damaged.len() as u64);
        self.shelf.put(shelved);
        let writing =
            Writing { next: found.end, filled: found.end, records: found.records, last: found.last };
        self.writing.insert(segment, writing);
        Ok(())
    }

    fn is_member(&self, header: &SegmentHeader) -> bool {
        header.unit_of(&self.server) == Some(self.meta.unit)
    }

    /// Cut and synced, or gone: nothing is in suspicion any more.
    fn settle_suspects(&mut self) -> io::Result<()> {
        if !self.meta.suspects.is_empty() {
            self.meta.suspects.clear();
            self.meta.store(&self.disk)?;
        }
        Ok(())
    }
}

/// The stub; `None` where it is not sound.
fn read_stub<F: DiskFile>(file: &F, segment: SegmentId) -> io::Result<Option<Stub>> {
    let len = file.len()?;
    if len > STUB_LEN_MAX {
        return Ok(None);
    }
    let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
    file.read_at(0, &mut bytes)?;
    Ok(Stub::decode(&bytes, segment).ok())
}

/// The header block; `None` where there is no sound one.
pub(super) fn read_header<F: DiskFile>(file: &F, file_len: u64) -> io::Result<Option<SegmentHeader>> {
    if file_len < RECORDS_AT {
        return Ok(None);
    }
    let mut block = vec![0; SEGMENT_HEADER_LEN];
    file.read_at(0, &mut block)?;
    Ok(SegmentHeader::decode(&block).ok())
}

/// The summary at the file's end; `None` where the segment is open.
fn read_summary<F: DiskFile>(file: &F, file_len: u64, segment: SegmentId) -> io::Result<Option<Summary>> {
    let Some(at) = file_len.checked_sub(SUMMARY_LEN as u64).filter(|at| *at >= RECORDS_AT) else {
        return Ok(None);
    };
    let mut bytes = [0; SUMMARY_LEN];
    file.read_at(at, &mut bytes)?;
    Ok(Summary::decode(&bytes, segment, file_len).ok())
}
