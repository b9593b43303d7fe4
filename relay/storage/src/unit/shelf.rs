//! What readers of a unit share with its owner: which segments are there, and up to where they are durable.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bytes::Bytes;
use lighter_protocol::PeerId;
use tokio::sync::Notify;

use super::UnitError;
use super::sync_times::SyncTimes;
use crate::buffers::Buffer;
use crate::disk::{Disk, DiskFile};
use crate::ids::{SegmentId, Sequence, UnitId};
use crate::limits::{DAMAGED_MAX, GROUP_LEN_MAX, RECORD_LEN_MAX};
use crate::record::{RECORD_HEADER_LEN, RecordHeader, UncheckedRecord};
use crate::segment::footer::{IndexEntry, Summary};
use crate::segment::header::SegmentHeader;
use crate::segment::stub::{ObjectPlace, stub_name};
use crate::segment::{RECORDS_AT, file_name};

/// A unit's segments. Clones of the `Arc` around it are readers.
pub struct Shelf<D: Disk> {
    unit: UnitId,
    segments: RwLock<BTreeMap<SegmentId, Arc<Shelved<D>>>>,
    set_aside: AtomicU64,
    /// Sealed segments in which a read found something wrong: to be re-read soon. A bounded number.
    suspects: Mutex<BTreeSet<SegmentId>>,
    suspected: Notify,
    /// There may be something to move, or to remove from the object store.
    stirred: Notify,
    sync_times: SyncTimes,
}

/// One segment of a unit.
pub struct Shelved<D: Disk> {
    /// What it is.
    pub header: SegmentHeader,
    /// The segment's file, or its stub where its records were moved.
    pub(super) file: D::File,
    moved: Option<ObjectPlace>,
    phase: Mutex<Phase>,
    /// Records up to here are synced: what may be read.
    readable: AtomicU64,
    /// Bad stretches found by its last reading.
    damaged: AtomicU64,
}

/// Where a stretch of a segment's file is to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stretched {
    /// In the unit's own file, from this offset on.
    Here(u64),
    /// In the object, this range.
    Moved(Range<u64>),
}

/// What may be done with a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Takes appends.
    Open,
    /// Being read for its footer.
    Sealing,
    /// Never changes again, unless its writer cuts it.
    Sealed(Summary),
    /// A write failed, for want of room perhaps: it takes no appends until its writer has cut it.
    Short,
    /// A sync failed: it never takes appends again.
    Failed,
}

impl Phase {
    /// Whether it takes appends.
    pub fn is_open(&self) -> bool {
        *self == Self::Open
    }
}

impl<D: Disk> Shelf<D> {
    pub(super) fn new(unit: UnitId) -> Self {
        Self {
            unit,
            segments: RwLock::default(),
            set_aside: AtomicU64::new(0),
            suspects: Mutex::default(),
            suspected: Notify::new(),
            stirred: Notify::new(),
            sync_times: SyncTimes::default(),
        }
    }

    /// Whose it is.
    pub fn unit(&self) -> UnitId {
        self.unit
    }

    /// Segments on it.
    pub fn len(&self) -> usize {
        self.segments.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A segment.
    pub fn get(&self, segment: SegmentId) -> Option<Arc<Shelved<D>>> {
        self.segments.read().unwrap_or_else(PoisonError::into_inner).get(&segment).cloned()
    }

    /// Up to `count` segments of `writer` behind `after`, in the order of their names.
    pub fn page(&self, writer: &PeerId, after: Option<SegmentId>, count: usize) -> Vec<Arc<Shelved<D>>> {
        use std::ops::Bound::{Excluded, Unbounded};
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        let from = after.map_or(Unbounded, Excluded);
        let behind = segments.range((from, Unbounded)).map(|(_, shelved)| shelved);
        behind.filter(|shelved| shelved.header.writer == *writer).take(count).cloned().collect()
    }

    /// Up to `count` segments whose header says that the records of `segment` go on there.
    pub fn successors(&self, segment: SegmentId, count: usize) -> Vec<Arc<Shelved<D>>> {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        let goes_on = |shelved: &&Arc<Shelved<D>>| {
            shelved.header.closed.iter().any(|closed| closed.segment == segment && closed.goes_on)
        };
        segments.values().filter(goes_on).take(count).cloned().collect()
    }

    /// The first sealed segment behind `behind`, in the order of their names.
    pub(super) fn next_sealed(&self, behind: Option<SegmentId>) -> Option<SegmentId> {
        use std::ops::Bound::{Excluded, Unbounded};
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        let mut rest = segments.range((behind.map_or(Unbounded, Excluded), Unbounded));
        rest.find(|(_, shelved)| shelved.sealed_len() > 0).map(|(segment, _)| *segment)
    }

    /// Bytes of the sealed segments up to `behind`, and of all.
    pub fn sealed_bytes(&self, behind: Option<SegmentId>) -> (u64, u64) {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        let lens = segments.iter().map(|(segment, shelved)| (Some(*segment) <= behind, shelved.sealed_len()));
        lens.fold((0, 0), |(before, all), (is_before, len)| {
            (before + if is_before { len } else { 0 }, all + len)
        })
    }

    /// Moved segments, and their bytes in the object store; bytes of sealed segments that are here.
    pub fn moved(&self) -> (u64, u64, u64) {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        segments.values().fold((0, 0, 0), |(count, there, here), shelved| match shelved.moved() {
            Some(_) => (count + 1, there + shelved.readable().saturating_sub(RECORDS_AT), here),
            None => (count, there, here + shelved.sealed_len()),
        })
    }

    /// The first damaged segments of `writer`, up to `count`, with their bad stretches.
    pub fn damaged_of(&self, writer: &PeerId, count: usize) -> Vec<(SegmentId, u64)> {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        let damaged = segments.iter().map(|(segment, shelved)| (*segment, shelved));
        let own = damaged.filter(|(_, shelved)| shelved.damaged() > 0 && shelved.header.writer == *writer);
        own.take(count).map(|(segment, shelved)| (segment, shelved.damaged())).collect()
    }

    /// Segments in which bad stretches are known.
    pub fn damaged_count(&self) -> u64 {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        segments.values().filter(|shelved| shelved.damaged() > 0).count() as u64
    }

    /// A read found something wrong in a segment: it will be re-read before others.
    pub fn suspect(&self, segment: SegmentId) {
        let mut suspects = self.suspects.lock().unwrap_or_else(PoisonError::into_inner);
        if suspects.len() < DAMAGED_MAX && suspects.insert(segment) {
            self.suspected.notify_one();
        }
    }

    /// Returns when a segment became suspect.
    pub async fn suspected(&self) {
        self.suspected.notified().await;
    }

    /// There may be something to move, or to remove from the object store.
    pub(super) fn stirred(&self) {
        self.stirred.notify_one();
    }

    /// Returns when there may be something to move, or to remove from the object store.
    pub async fn stirs(&self) {
        self.stirred.notified().await;
    }

    pub(super) fn take_suspect(&self) -> Option<SegmentId> {
        self.suspects.lock().unwrap_or_else(PoisonError::into_inner).pop_first()
    }

    /// How long its syncs took.
    pub fn sync_times(&self) -> &SyncTimes {
        &self.sync_times
    }

    /// All segments.
    pub(super) fn all(&self) -> Vec<Arc<Shelved<D>>> {
        self.segments.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Whether `peer` is a member of a segment that is here.
    pub fn has_member(&self, peer: &PeerId) -> bool {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        segments.values().any(|shelved| shelved.header.unit_of(peer).is_some())
    }

    /// Files that were put out of the way since the start.
    pub fn set_aside_count(&self) -> u64 {
        self.set_aside.load(Ordering::Relaxed)
    }

    pub(super) fn count_set_aside(&self) {
        self.set_aside.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn put(&self, shelved: Shelved<D>) {
        let mut segments = self.segments.write().unwrap_or_else(PoisonError::into_inner);
        segments.insert(shelved.header.segment, Arc::new(shelved));
    }

    pub(super) fn take(&self, segment: SegmentId) {
        self.segments.write().unwrap_or_else(PoisonError::into_inner).remove(&segment);
    }

    /// Reads one record with one `pread`. It is checked before it is given out; whoever gets it checks again.
    ///
    /// # Errors
    /// [`UnitError::Unsound`] where what is there is not that record.
    // SPEC: C9
    pub fn read_record(&self, segment: SegmentId, offset: u64, length: u32) -> Result<Bytes, UnitError> {
        let shelved = self.get(segment).ok_or(UnitError::NoSegment)?;
        let range = shelved.record_range(offset, length)?;
        let bytes = shelved.read_here(range)?;
        shelved.check_record(&bytes, offset)?;
        Ok(bytes)
    }

    /// Reads bytes from `offset` on, up to `length` or the end of the records: for bringing a copy up to another.
    ///
    /// # Errors
    /// See [`UnitError`].
    pub fn read_range(&self, segment: SegmentId, offset: u64, length: u32) -> Result<Bytes, UnitError> {
        let shelved = self.get(segment).ok_or(UnitError::NoSegment)?;
        shelved.read_here(shelved.records_range(offset, length)?)
    }

    /// Reads a sealed segment's file as it stands, up to `length` bytes from `offset` on or to its end: for copying it.
    ///
    /// # Errors
    /// See [`UnitError`].
    pub fn read_sealed(&self, segment: SegmentId, offset: u64, length: u32) -> Result<Bytes, UnitError> {
        let shelved = self.get(segment).ok_or(UnitError::NoSegment)?;
        shelved.read_here(shelved.sealed_range(offset, length)?)
    }

    /// The catalog records of a segment, and up to where none is missing in the list: at damage there may have been more,
    /// which another copy tells. From the footer where it is sealed, else by reading its headers.
    ///
    /// # Errors
    /// See [`UnitError`].
    pub fn index(&self, segment: SegmentId) -> Result<(Vec<IndexEntry>, u64), UnitError> {
        let shelved = self.get(segment).ok_or(UnitError::NoSegment)?;
        if let Phase::Sealed(summary) = shelved.phase() {
            let bytes =
                shelved.read_here(summary.length..summary.length.saturating_add(summary.index_len()))?;
            let index = summary.decode_index(&bytes);
            let index = index.map_err(|_| UnitError::Unsound("the index is damaged"))?;
            // One that was sealed with damage in it lacks what was damaged.
            return Ok((index, if shelved.damaged() > 0 { RECORDS_AT } else { summary.length }));
        }
        let (entries, found) = super::seal::collect_index(&shelved, shelved.readable())?;
        let damage = found.damaged.first().map(|bad| bad.start);
        Ok((entries, damage.unwrap_or(found.end)))
    }
}

impl<D: Disk> Shelved<D> {
    pub(super) fn new(header: SegmentHeader, file: D::File, phase: Phase, readable: u64) -> Self {
        let (readable, damaged) = (AtomicU64::new(readable), AtomicU64::new(0));
        Self { header, file, moved: None, phase: Mutex::new(phase), readable, damaged }
    }

    /// One whose records are an object; `file` is its stub.
    pub(super) fn moved_to(
        header: SegmentHeader,
        file: D::File,
        summary: Summary,
        place: ObjectPlace,
    ) -> Self {
        Self { moved: Some(place), ..Self::new(header, file, Phase::Sealed(summary), summary.length) }
    }

    /// The same with another header, read from another handle of its file.
    pub(super) fn with_header(&self, header: SegmentHeader, file: D::File) -> Self {
        let same = Self::new(header, file, self.phase(), self.readable());
        same.set_damaged(self.damaged());
        Self { moved: self.moved, ..same }
    }

    /// Where its records are, if they were moved.
    pub fn moved(&self) -> Option<&ObjectPlace> {
        self.moved.as_ref()
    }

    /// The name of what the unit itself has of it.
    pub(super) fn file_name(&self) -> String {
        let segment = self.header.segment;
        if self.moved.is_some() { stub_name(segment) } else { file_name(segment) }
    }

    /// The place of a record: within what may be read.
    pub(crate) fn record_range(&self, offset: u64, length: u32) -> Result<Range<u64>, UnitError> {
        let end = offset.checked_add(u64::from(length)).ok_or(UnitError::Unsound("no such place"))?;
        if offset < RECORDS_AT || end > self.readable() || length as usize > RECORD_LEN_MAX {
            return Err(UnitError::Unsound("no such place"));
        }
        Ok(offset..end)
    }

    /// What is read of the records from `offset` on.
    pub(crate) fn records_range(&self, offset: u64, length: u32) -> Result<Range<u64>, UnitError> {
        let readable = self.readable();
        if offset < RECORDS_AT || offset > readable {
            return Err(UnitError::Unsound("no such place"));
        }
        Ok(offset..offset + (readable - offset).min(u64::from(length)).min(GROUP_LEN_MAX as u64))
    }

    /// What is read of a sealed segment's file from `offset` on.
    pub(crate) fn sealed_range(&self, offset: u64, length: u32) -> Result<Range<u64>, UnitError> {
        let Phase::Sealed(summary) = self.phase() else {
            return Err(UnitError::State("not sealed"));
        };
        let rest = summary.file_len().checked_sub(offset).ok_or(UnitError::Unsound("no such place"))?;
        Ok(offset..offset + rest.min(u64::from(length)).min(GROUP_LEN_MAX as u64))
    }

    /// Whether `bytes` are the record at `offset`.
    pub(crate) fn check_record(&self, bytes: &[u8], offset: u64) -> Result<(), UnitError> {
        match UncheckedRecord::new(bytes).check(self.header.segment, offset) {
            Ok(record) if record.header.record_len() == bytes.len() => Ok(()),
            Ok(_) | Err(_) => Err(UnitError::Unsound("the record is damaged, or none")),
        }
    }

    /// Where the bytes of `range`, which begins within the file, are: of its first part that lies in one place.
    pub(crate) fn stretch(&self, range: &Range<u64>) -> (Stretched, u64) {
        let (start, end) = (range.start, range.end);
        let length = self.readable();
        if self.moved.is_none() {
            (Stretched::Here(start), end - start)
        } else if start < RECORDS_AT {
            (Stretched::Here(start), end.min(RECORDS_AT) - start)
        } else if start < length {
            let end = end.min(length);
            (Stretched::Moved(start - RECORDS_AT..end - RECORDS_AT), end - start)
        } else {
            // In the stub, the footer comes right behind the header block.
            (Stretched::Here(start - length + RECORDS_AT), end - start)
        }
    }

    /// Reads what the unit itself has.
    ///
    /// # Errors
    /// [`UnitError::Away`] where some of it was moved; the disk's.
    pub(crate) fn read_here(&self, mut range: Range<u64>) -> Result<Bytes, UnitError> {
        let len = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(0);
        let mut bytes = Buffer::take(len);
        let mut done = 0;
        while range.start < range.end {
            let (Stretched::Here(at), len) = self.stretch(&range) else { return Err(UnitError::Away) };
            let end = done + usize::try_from(len).unwrap_or(0);
            self.file.read_at(at, &mut bytes[done..end])?;
            (done, range.start) = (end, range.start + len);
        }
        Ok(bytes.freeze())
    }

    /// What may be done with it.
    pub fn phase(&self) -> Phase {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Up to where it may be read.
    pub fn readable(&self) -> u64 {
        self.readable.load(Ordering::Acquire)
    }

    /// The number of its first record; [`Sequence::ZERO`] where there is none, or it is damaged.
    pub fn first(&self) -> Sequence {
        if let Phase::Sealed(summary) = self.phase() {
            return summary.first;
        }
        let mut header = [0; RECORD_HEADER_LEN];
        if self.readable() == RECORDS_AT || self.file.read_at(RECORDS_AT, &mut header).is_err() {
            return Sequence::ZERO;
        }
        RecordHeader::decode(&header).map_or(Sequence::ZERO, |header| header.sequence)
    }

    /// Bytes of its file where it is sealed; 0 where it is not.
    fn sealed_len(&self) -> u64 {
        match self.phase() {
            Phase::Sealed(summary) => summary.file_len(),
            _ => 0,
        }
    }

    /// Bad stretches that its last reading found.
    pub fn damaged(&self) -> u64 {
        self.damaged.load(Ordering::Relaxed)
    }

    pub(super) fn set_phase(&self, phase: Phase) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = phase;
    }

    pub(super) fn set_readable(&self, readable: u64) {
        self.readable.store(readable, Ordering::Release);
    }

    pub(super) fn set_damaged(&self, damaged: u64) {
        self.damaged.store(damaged, Ordering::Relaxed);
    }
}
