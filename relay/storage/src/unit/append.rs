//! Appending: a group is written, each file synced once, and each append answered.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::sync::Arc;

use bytes::Bytes;
use lighter_protocol::PeerId;
use tokio::time::Instant;

use super::kept::Kept;
use super::{Phase, Shelved, Unit, UnitError};
use crate::disk::{Disk, DiskFile};
use crate::ids::{Epoch, SegmentId, Sequence};
use crate::limits::{FILL_BELOW_LEN, FILL_LEN, SEGMENT_LEN_MAX, SEGMENT_RECORDS_MAX};
use crate::record::{AppendDigest, UncheckedRecord};

/// What only the owner needs to know of a segment that takes appends.
///
/// Invariant: `RECORDS_AT ≤ shelved.readable() = next ≤ filled`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Writing {
    /// Where the next record begins.
    pub(super) next: u64,
    /// The file has its bytes, zeros, up to here.
    pub(super) filled: u64,
    pub(super) records: u64,
    pub(super) last: Sequence,
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
    /// Appends a group: writes all of it, syncs each file once, and says for each append how it went, in order.
    ///
    /// What is said to be good is on stable storage. After a failure in one file, what came before in that file is
    /// still synced, what comes behind is refused.
    pub fn commit(&mut self, group: &[CheckedAppend]) -> Vec<Result<(), UnitError>> {
        let mut results: Vec<_> = group.iter().map(|_| Ok(())).collect();
        // Where what was written to each segment ends; then, whether that is durable.
        let mut written_to: BTreeMap<SegmentId, u64> = BTreeMap::new();
        let group_len: usize = group.iter().map(CheckedAppend::len).sum();
        let mut of_segment: BTreeMap<SegmentId, Vec<usize>> = BTreeMap::new();
        for (at, append) in group.iter().enumerate() {
            of_segment.entry(append.segment).or_default().push(at);
        }
        for (segment, places) in of_segment {
            let appends: Vec<&CheckedAppend> = places.iter().map(|at| &group[*at]).collect();
            if appends.len() > 1 && self.write_together(&appends, group_len).is_ok() {
                written_to.extend(appends.last().map(|last| (segment, last.end)));
                continue;
            }
            // One of them is wrong, or the disk is: each by itself, so that those before it count.
            for (at, append) in places.into_iter().zip(appends) {
                results[at] = self.write(append, group_len);
                if results[at].is_ok() {
                    written_to.insert(segment, append.end);
                }
            }
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

    /// Writes several appends to one segment, one behind the other, in one go; not yet synced. After an error nothing of
    /// them counts.
    fn write_together(&mut self, appends: &[&CheckedAppend], group_len: usize) -> Result<(), UnitError> {
        let [first, others @ ..] = appends else { return Ok(()) };
        let (shelved, mut writing) = self.may_append(first)?;
        writing.advance(first)?;
        for append in others {
            self.may_append(append)?;
            writing.advance(append)?;
        }
        let pieces: Vec<IoSlice<'_>> = appends.iter().map(|append| IoSlice::new(&append.bytes)).collect();
        shelved.file.write_gathered_at(first.offset, &pieces)?;
        self.written(&shelved, writing, group_len);
        Ok(())
    }

    /// Writes one append where it belongs; not yet synced.
    fn write(&mut self, append: &CheckedAppend, group_len: usize) -> Result<(), UnitError> {
        let (shelved, mut writing) = self.may_append(append)?;
        writing.advance(append)?;
        if let Err(error) = shelved.file.write_at(append.offset, &append.bytes) {
            let segment = append.segment;
            tracing::error!(%segment, %error, "a write failed: the segment takes no more records for now");
            self.fail(&shelved, false);
            return Err(error.into());
        }
        self.written(&shelved, writing, group_len);
        Ok(())
    }

    /// The segment that it is for, if that takes appends of its writer now.
    fn may_append(&self, append: &CheckedAppend) -> Result<(Arc<Shelved<D>>, Writing), UnitError> {
        let shelved = self.shelf.get(append.segment).ok_or(UnitError::NoSegment)?;
        if shelved.header.writer != append.writer {
            return Err(UnitError::NoSegment);
        }
        self.check_epoch(&append.writer, append.epoch)?;
        let writing = self.writing.get(&append.segment).copied();
        let Some(writing) = writing.filter(|_| shelved.phase().is_open()) else {
            return Err(UnitError::State("the segment takes no appends"));
        };
        if append.records_epoch != shelved.header.epoch {
            return Err(UnitError::Unsound("records of another epoch"));
        }
        Ok((shelved, writing))
    }

    /// What was written up to `writing.next` stands in the file; zeros follow it where they pay.
    fn written(&mut self, shelved: &Arc<Shelved<D>>, mut writing: Writing, group_len: usize) {
        let end = writing.next;
        writing.filled = writing.filled.max(end);
        if end == writing.filled && group_len < FILL_BELOW_LEN {
            writing.filled = self.fill_ahead(shelved, end);
        }
        self.writing.insert(shelved.header.segment, writing);
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
        let began = Instant::now();
        match shelved.file.sync_data() {
            Ok(()) => {
                self.shelf.sync_times().add(began.elapsed());
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
    pub(super) fn fail(&mut self, shelved: &Shelved<D>, in_sync: bool) {
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
}

impl Writing {
    pub(super) fn new(end: u64) -> Self {
        Self { next: end, filled: end, records: 0, last: Sequence::ZERO }
    }

    /// How it stands behind `append`, if that is what comes next and there is room for it.
    fn advance(&mut self, append: &CheckedAppend) -> Result<(), UnitError> {
        if append.offset != self.next {
            return Err(UnitError::Offset { next: self.next });
        }
        if append.first <= self.last && self.records > 0 {
            return Err(UnitError::Unsound("records out of order"));
        }
        if append.end > SEGMENT_LEN_MAX || self.records + append.records > SEGMENT_RECORDS_MAX {
            return Err(UnitError::State("the segment is full"));
        }
        self.next = append.end;
        self.records += append.records;
        self.last = append.last;
        Ok(())
    }
}

const _: () = assert!(FILL_LEN < SEGMENT_LEN_MAX);
