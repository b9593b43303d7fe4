//! A unit: one folder of a storage server, with the segments in it.
//!
//! [`Unit`] has one owner, its worker (`worker`), and is the only one that changes the folder; readers share its
//! [`Shelf`] and never wait for a write. All of it is plain calls on a [`Disk`]: the same code runs on a real folder and
//! on the simulated one.
//!
//! What it refuses, whoever asks: appends at any other place than the next, or under any other than the present epoch
//! of the segment's writer; appends to what is sealed, failed or expired.

pub mod expiry;
pub mod meta;
mod open;
mod seal;
pub mod shelf;
mod tables;
pub mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use lighter_protocol::{Day, PeerId, UnixTime};

use crate::disk::{Disk, DiskFile, Space};
use crate::ids::{Epoch, SegmentId, Sequence, UnitId};
use crate::limits::{FILL_BELOW_LEN, FILL_LEN, SEGMENT_LEN_MAX, SEGMENT_RECORDS_MAX, UNIT_SEGMENTS_MAX};
use crate::record::{AppendDigest, UncheckedRecord};
use crate::segment::header::SegmentHeader;
use crate::segment::{RECORDS_AT, file_name};

pub use open::OpenReport;
pub use seal::{SealJob, SealReport, Sealed};
pub use shelf::{Phase, Shelf, Shelved};

use meta::UnitMeta;

/// A unit, as its one owner holds it.
pub struct Unit<D: Disk> {
    disk: D,
    server: PeerId,
    meta: UnitMeta,
    shelf: Arc<Shelf<D>>,
    writing: BTreeMap<SegmentId, Writing>,
    fill_len: u64,
}

/// What only the owner needs to know of a segment that takes appends.
///
/// Invariant: `RECORDS_AT ≤ shelved.readable() = next ≤ filled`.
#[derive(Clone, Copy, Debug)]
struct Writing {
    /// Where the next record begins.
    next: u64,
    /// The file has its bytes, zeros, up to here.
    filled: u64,
    records: u64,
    last: Sequence,
}

/// Why a unit refused. The text is for logs; over the wire go the kinds.
#[derive(Debug, thiserror::Error)]
pub enum UnitError {
    /// A later writer has been here.
    #[error("fenced: the present epoch is {present:?}")]
    Fenced {
        /// The epoch that counts.
        present: Epoch,
    },
    /// No such segment here.
    #[error("no such segment")]
    NoSegment,
    /// Its deletion day is over.
    #[error("expired")]
    Expired,
    /// Not the next place.
    #[error("the next record begins at {next}")]
    Offset {
        /// The next place.
        next: u64,
    },
    /// Not possible in the state that the segment is in: sealed, failed, not empty, and the like.
    #[error("not in this state: {0}")]
    State(&'static str),
    /// The records are not sound, or not in order.
    #[error("unsound: {0}")]
    Unsound(&'static str),
    /// No room.
    #[error("no room")]
    NoSpace,
    /// The disk failed.
    #[error("disk")]
    Disk(#[source] io::Error),
}

impl From<io::Error> for UnitError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::StorageFull { Self::NoSpace } else { Self::Disk(error) }
    }
}

/// Records to append, found sound: whole, of one segment and epoch, one behind the other, in ascending order.
#[derive(Clone, Debug)]
pub struct CheckedAppend {
    segment: SegmentId,
    records_epoch: Epoch,
    offset: u64,
    end: u64,
    records: u64,
    first: Sequence,
    last: Sequence,
    bytes: Bytes,
    digest: AppendDigest,
    /// Who asks, and under which epoch.
    writer: PeerId,
    epoch: Epoch,
}

impl CheckedAppend {
    /// Checks `bytes` as records of `segment` from `offset` on: what comes from the network is not trusted before.
    ///
    /// # Errors
    /// [`UnitError::Unsound`].
    pub fn check(
        segment: SegmentId,
        offset: u64,
        bytes: Bytes,
        writer: PeerId,
        epoch: Epoch,
    ) -> Result<Self, UnitError> {
        let mut digest = AppendDigest::default();
        let (mut at, mut records) = (offset, 0);
        let (mut first, mut last, mut records_epoch) = (Sequence::ZERO, Sequence::ZERO, epoch);
        let mut rest: &[u8] = &bytes;
        while !rest.is_empty() {
            let record = UncheckedRecord::new(rest)
                .check(segment, at)
                .map_err(|_| UnitError::Unsound("a record is not sound"))?;
            if records == 0 {
                (first, records_epoch) = (record.header.sequence, record.header.epoch);
            } else if record.header.sequence <= last || record.header.epoch != records_epoch {
                return Err(UnitError::Unsound("records out of order"));
            }
            digest.add(&record);
            last = record.header.sequence;
            at = record.header.end();
            records += 1;
            rest = &rest[record.header.record_len()..];
        }
        if records == 0 {
            return Err(UnitError::Unsound("no records"));
        }
        Ok(Self {
            segment,
            records_epoch,
            offset,
            end: at,
            records,
            first,
            last,
            bytes,
            digest,
            writer,
            epoch,
        })
    }

    /// What an acknowledgement repeats: the writer compares.
    pub fn digest(&self) -> u32 {
        self.digest.value()
    }

    /// Which segment.
    pub fn segment(&self) -> SegmentId {
        self.segment
    }

    /// Where the first record begins.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Bytes of all of them.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there are none: never.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

impl<D: Disk> Unit<D> {
    /// What readers share.
    pub fn shelf(&self) -> &Arc<Shelf<D>> {
        &self.shelf
    }

    /// Its name.
    pub fn id(&self) -> UnitId {
        self.meta.unit
    }

    /// Writes so many zeros ahead of small appends; 0 for none.
    pub fn set_fill_len(&mut self, fill_len: u64) {
        self.fill_len = fill_len;
    }

    /// Room on its disk; none where the disk does not say.
    pub fn space(&self) -> Space {
        self.disk.space().unwrap_or_default()
    }

    /// The epoch that counts for `writer`.
    pub fn epoch(&self, writer: &PeerId) -> Epoch {
        self.meta.epochs.get(writer).copied().unwrap_or_default()
    }

    /// Raises the epoch of `writer`, durably. The present epoch again changes nothing.
    ///
    /// # Errors
    /// [`UnitError::Fenced`] where it is higher already.
    pub fn fence(&mut self, writer: PeerId, epoch: Epoch) -> Result<(), UnitError> {
        let present = self.epoch(&writer);
        if epoch < present {
            return Err(UnitError::Fenced { present });
        }
        if epoch > present {
            let mut next = self.meta.clone();
            next.epochs.insert(writer, epoch);
            next.store(&self.disk)?;
            self.meta = next;
        }
        Ok(())
    }

    fn check_epoch(&self, writer: &PeerId, epoch: Epoch) -> Result<(), UnitError> {
        let present = self.epoch(writer);
        if epoch == present { Ok(()) } else { Err(UnitError::Fenced { present }) }
    }

    /// Opens a segment: its header block and its name are durable when this returns well. Opening again what is
    /// there and empty changes nothing. One that is opened anew has records elsewhere, and counts as incomplete until it
    /// is sealed.
    ///
    /// # Errors
    /// See [`UnitError`].
    pub fn create(
        &mut self,
        header: SegmentHeader,
        epoch: Epoch,
        is_anew: bool,
        now: UnixTime,
    ) -> Result<(), UnitError> {
        self.check_epoch(&header.writer, epoch)?;
        if header.epoch > epoch || header.unit_of(&self.server) != Some(self.meta.unit) {
            return Err(UnitError::Unsound("a header that is not for this unit"));
        }
        if header.day_key.is_none() || header.deletion_day.end() <= now {
            return Err(UnitError::Expired);
        }
        if let Some(there) = self.shelf.get(header.segment) {
            let is_same = there.header == header && there.phase().is_open() && there.readable() == RECORDS_AT;
            return if is_same { Ok(()) } else { Err(UnitError::State("the segment exists")) };
        }
        if self.shelf.len() >= UNIT_SEGMENTS_MAX {
            return Err(UnitError::NoSpace);
        }
        if is_anew {
            self.miss(header.segment, header.deletion_day)?;
        }
        let name = file_name(header.segment);
        match self.create_file(&name, &header) {
            Ok(file) => {
                self.writing.insert(header.segment, Writing::new(RECORDS_AT));
                self.shelf.put(Shelved::new(header, file, Phase::Open, RECORDS_AT));
                Ok(())
            }
            Err(error) => {
                // Best effort: what is left of it is an empty segment that nobody asks for.
                let _ = self.disk.remove(&name);
                Err(error.into())
            }
        }
    }

    fn create_file(&self, name: &str, header: &SegmentHeader) -> io::Result<D::File> {
        // A file that is not on the shelf is what an earlier try left behind.
        gone_or_not_there(self.disk.remove(name))?;
        let file = self.disk.create(name)?;
        file.write_at(0, &header.encode())?;
        file.sync_data()?;
        self.disk.sync_dir()?;
        Ok(file)
    }

    /// Appends a group: writes all of it, syncs each file once, and says for each append how it went, in order.
    ///
    /// What is said to be good is on stable storage. After a failure in one file, what came before in that file is
    /// still synced, what comes behind is refused.
    pub fn commit(&mut self, group: &[CheckedAppend]) -> Vec<Result<(), UnitError>> {
        let mut results = Vec::with_capacity(group.len());
        // Where what was written to each segment ends; then, whether that is durable.
        let mut written_to: BTreeMap<SegmentId, u64> = BTreeMap::new();
        let group_len: usize = group.iter().map(CheckedAppend::len).sum();
        for append in group {
            let written = self.write(append, group_len);
            if written.is_ok() {
                written_to.insert(append.segment, append.end);
            }
            results.push(written);
        }
        let failed: BTreeSet<SegmentId> = written_to
            .into_iter()
            .filter_map(|(segment, end)| self.sync(segment, end).is_err().then_some(segment))
            .collect();
        for (append, result) in group.iter().zip(&mut results) {
            if result.is_ok() && failed.contains(&append.segment) {
                *result = Err(UnitError::Disk(io::Error::other("sync failed")));
            }
        }
        results
    }

    /// Writes one append where it belongs; not yet synced.
    fn write(&mut self, append: &CheckedAppend, group_len: usize) -> Result<(), UnitError> {
        let shelved = self.shelf.get(append.segment).ok_or(UnitError::NoSegment)?;
        if shelved.header.writer != append.writer {
            return Err(UnitError::NoSegment);
        }
        self.check_epoch(&append.writer, append.epoch)?;
        let writing = self.writing.get(&append.segment).copied();
        let Some(mut writing) = writing.filter(|_| shelved.phase().is_open()) else {
            return Err(UnitError::State("the segment takes no appends"));
        };
        if append.records_epoch != shelved.header.epoch {
            return Err(UnitError::Unsound("records of another epoch"));
        }
        if append.offset != writing.next {
            return Err(UnitError::Offset { next: writing.next });
        }
        if append.first <= writing.last && writing.records > 0 {
            return Err(UnitError::Unsound("records out of order"));
        }
        if append.end > SEGMENT_LEN_MAX || writing.records + append.records > SEGMENT_RECORDS_MAX {
            return Err(UnitError::State("the segment is full"));
        }
        if let Err(error) = shelved.file.write_at(append.offset, &append.bytes) {
            self.fail(&shelved, false);
            return Err(error.into());
        }
        writing.filled = writing.filled.max(append.end);
        if append.end == writing.filled && group_len < FILL_BELOW_LEN {
            writing.filled = self.fill_ahead(&shelved, append.end);
        }
        writing.next = append.end;
        writing.records += append.records;
        writing.last = append.last;
        self.writing.insert(append.segment, writing);
        Ok(())
    }

    /// Writes zeros from `end` on, so that the next small appends change no file length. Gives where they end.
    /// Where there is no room for zeros, there may still be for records.
    fn fill_ahead(&self, shelved: &Shelved<D>, end: u64) -> u64 {
        let upto = (end + self.fill_len).min(SEGMENT_LEN_MAX);
        let zeros = vec![0; usize::try_from(upto.saturating_sub(end)).unwrap_or(0)];
        match shelved.file.write_at(end, &zeros) {
            Ok(()) => end + zeros.len() as u64,
            Err(_) => end,
        }
    }

    /// Makes what was written up to `end` durable, and so readable. A later write may have failed meanwhile.
    fn sync(&mut self, segment: SegmentId, end: u64) -> Result<(), ()> {
        let shelved = self.shelf.get(segment).ok_or(())?;
        match shelved.file.sync_data() {
            Ok(()) => {
                shelved.set_readable(end);
                Ok(())
            }
            Err(error) => {
                tracing::error!(%segment, %error, "sync failed: the segment takes no more records");
                self.fail(&shelved, true);
                Err(())
            }
        }
    }

    /// A write or a sync failed: the file takes no more appends. What a failed sync should have made durable is not
    /// believed after a restart either, although a page cache may show it: that is written down.
    fn fail(&mut self, shelved: &Shelved<D>, in_sync: bool) {
        let segment = shelved.header.segment;
        self.writing.remove(&segment);
        shelved.set_phase(if in_sync { Phase::Failed } else { Phase::Short });
        if in_sync {
            self.meta.suspects.insert(segment, shelved.readable());
            if let Err(error) = self.meta.store(&self.disk) {
                tracing::error!(%segment, %error, "the failure could not be written down");
            }
        }
    }

    /// Cuts a segment to `length`, a record's end at or below its own: it is open again, also where it was sealed.
    ///
    /// # Errors
    /// See [`UnitError`].
    pub fn truncate(
        &mut self,
        segment: SegmentId,
        writer: &PeerId,
        epoch: Epoch,
        length: u64,
    ) -> Result<(), UnitError> {
        let shelved = self.owned(segment, writer, epoch)?;
        if matches!(shelved.phase(), Phase::Failed | Phase::Sealing) {
            return Err(UnitError::State("failed, or being sealed"));
        }
        if !(RECORDS_AT..=shelved.readable()).contains(&length) {
            return Err(UnitError::Offset { next: shelved.readable() });
        }
        self.writing.remove(&segment);
        if let Err(error) = shelved.file.truncate(length).and_then(|()| shelved.file.sync_data()) {
            shelved.set_readable(length);
            self.fail(&shelved, true);
            return Err(error.into());
        }
        let found = crate::segment::scan::scan(&shelved.file, segment, shelved.header.epoch, length, |_| {})?;
        shelved.set_readable(length);
        shelved.set_phase(Phase::Open);
        let writing = Writing { next: length, filled: length, records: found.records, last: found.last };
        self.writing.insert(segment, writing);
        Ok(())
    }

    /// Removes a segment that has no records. One that is not there is removed already.
    ///
    /// # Errors
    /// [`UnitError::State`] where it has records.
    pub fn discard(&mut self, segment: SegmentId, writer: &PeerId, epoch: Epoch) -> Result<(), UnitError> {
        let shelved = match self.owned(segment, writer, epoch) {
            // What an opening that failed may have left behind goes, too; what is another writer's stays.
            Err(UnitError::NoSegment) if self.shelf.get(segment).is_none() => {
                gone_or_not_there(self.disk.remove(&file_name(segment)))?;
                self.disk.sync_dir()?;
                self.complete(segment);
                return Ok(());
            }
            Err(UnitError::NoSegment) => return Ok(()),
            other => other?,
        };
        if shelved.readable() > RECORDS_AT || shelved.phase() == Phase::Sealing {
            return Err(UnitError::State("the segment has records"));
        }
        gone_or_not_there(self.disk.remove(&file_name(segment)))?;
        self.disk.sync_dir()?;
        self.forget(segment);
        self.complete(segment);
        Ok(())
    }

    /// Puts a damaged or failed copy out of the way, so that it can be copied anew from a mirror. The file stays, with
    /// another name, until its deletion day.
    ///
    /// # Errors
    /// See [`UnitError`].
    pub fn set_aside(&mut self, segment: SegmentId, writer: &PeerId, epoch: Epoch) -> Result<(), UnitError> {
        let shelved = match self.owned(segment, writer, epoch) {
            Err(UnitError::NoSegment) => return Ok(()),
            other => other?,
        };
        if shelved.phase() == Phase::Sealing {
            return Err(UnitError::State("being sealed"));
        }
        self.miss(segment, shelved.header.deletion_day)?;
        let name = file_name(segment);
        gone_or_not_there(self.disk.rename(&name, &format!("{name}{ASIDE}")))?;
        self.disk.sync_dir()?;
        self.forget(segment);
        self.shelf.count_set_aside();
        Ok(())
    }

    /// How many segments have had more here than they have: as long as there are any, this unit does not tell what was
    /// acknowledged.
    pub fn incomplete(&self) -> u64 {
        self.meta.incomplete.len() as u64
    }

    /// Writes down that there was more of a segment here, before it goes.
    fn miss(&mut self, segment: SegmentId, deletion_day: Day) -> io::Result<()> {
        if self.meta.incomplete.contains_key(&segment) {
            return Ok(());
        }
        let mut next = self.meta.clone();
        next.incomplete.insert(segment, deletion_day);
        next.store(&self.disk)?;
        self.meta = next;
        Ok(())
    }

    /// The segment has everything again, or never had anything.
    fn complete(&mut self, segment: SegmentId) {
        if self.meta.incomplete.remove(&segment).is_some()
            && let Err(error) = self.meta.store(&self.disk)
        {
            tracing::warn!(%segment, %error, "a complete segment is still written down as incomplete");
        }
    }

    fn forget(&mut self, segment: SegmentId) {
        self.writing.remove(&segment);
        self.shelf.take(segment);
        if self.meta.suspects.remove(&segment).is_some()
            && let Err(error) = self.meta.store(&self.disk)
        {
            tracing::warn!(%segment, %error, "a settled failure is still written down");
        }
    }

    /// The segment, if `writer` owns it and `epoch` is its present one.
    fn owned(&self, segment: SegmentId, writer: &PeerId, epoch: Epoch) -> Result<Arc<Shelved<D>>, UnitError> {
        self.check_epoch(writer, epoch)?;
        self.shelf.get(segment).filter(|shelved| shelved.header.writer == *writer).ok_or(UnitError::NoSegment)
    }
}

impl Writing {
    fn new(end: u64) -> Self {
        Self { next: end, filled: end, records: 0, last: Sequence::ZERO }
    }
}

/// Trying again what was done but not synced finds it done.
fn gone_or_not_there(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// The end of the name of a file that was set aside.
const ASIDE: &str = ".aside";

const _: () = assert!(FILL_LEN < SEGMENT_LEN_MAX);

#[cfg(test)]
mod tests;
