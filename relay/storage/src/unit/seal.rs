//! Sealing: reading a segment once more, and writing what was found behind it.
//!
//! Three steps, so that a unit goes on with its other segments: [`Unit::begin_seal`] cuts the segment to the length
//! that the writer says and closes it; [`SealJob::run`], on any thread, reads it; [`Unit::finish_seal`] writes the
//! footer and syncs.

use std::sync::Arc;

use lighter_protocol::PeerId;

use super::{Phase, Shelved, Unit, UnitError};
use crate::disk::{Disk, DiskFile};
use crate::ids::{Epoch, SegmentId};
use crate::limits::GROUP_LEN_MAX;
use crate::record::Kind;
use crate::segment::RECORDS_AT;
use crate::segment::footer::{IndexEntry, Summary, encode_index};
use crate::segment::scan::{Scan, scan};

/// A segment to be read for its footer.
pub struct SealJob<D: Disk> {
    shelved: Arc<Shelved<D>>,
    length: u64,
}

/// A footer, not yet written.
pub struct Sealed<D: Disk> {
    shelved: Arc<Shelved<D>>,
    summary: Summary,
    index: Vec<u8>,
    damaged: usize,
}

/// How a seal went: the writer compares the summaries of all members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SealReport {
    /// What was written behind the records.
    pub summary: Summary,
    /// Bad stretches among them.
    pub damaged: u64,
}

impl<D: Disk> Unit<D> {
    /// Closes a segment at `length`. What lies beyond was acknowledged by nobody and is cut.
    ///
    /// Gives either the job to run, or, where the segment is sealed at that length, the report again.
    ///
    /// # Errors
    /// [`UnitError::Offset`] where it is shorter; see [`UnitError`].
    pub fn begin_seal(
        &mut self,
        segment: SegmentId,
        writer: &PeerId,
        epoch: Epoch,
        length: u64,
    ) -> Result<Result<SealJob<D>, SealReport>, UnitError> {
        let shelved = self.owned(segment, writer, epoch)?;
        match shelved.phase() {
            Phase::Sealed(summary) if summary.length == length => {
                return Ok(Err(SealReport { summary, damaged: shelved.damaged() }));
            }
            Phase::Sealed(_) => return Err(UnitError::State("sealed at another length")),
            Phase::Sealing | Phase::Short | Phase::Failed => {
                return Err(UnitError::State("failed, or being sealed"));
            }
            Phase::Open => {}
        }
        if !(RECORDS_AT..=shelved.readable()).contains(&length) {
            return Err(UnitError::Offset { next: shelved.readable() });
        }
        self.writing.remove(&segment);
        shelved.set_readable(length);
        shelved.set_phase(Phase::Sealing);
        Ok(Ok(SealJob { shelved, length }))
    }

    /// Writes the footer that [`SealJob::run`] made. A segment whose job came to nothing is failed.
    ///
    /// # Errors
    /// See [`UnitError`]: the segment is failed then, or, where only the footer could not be written, takes nothing
    /// until it was cut. Its records can still be read.
    pub fn finish_seal(
        &mut self,
        segment: SegmentId,
        sealed: Result<Sealed<D>, UnitError>,
    ) -> Result<SealReport, UnitError> {
        let sealed = match sealed {
            Ok(sealed) => sealed,
            Err(error) => {
                self.shelf.get(segment).inspect(|shelved| shelved.set_phase(Phase::Failed));
                return Err(error);
            }
        };
        let Sealed { shelved, summary, mut index, damaged } = sealed;
        index.extend_from_slice(&summary.encode());
        let file = &shelved.file;
        let written = file.truncate(summary.length).and_then(|()| file.write_at(summary.length, &index));
        if let Err(error) = written {
            self.fail(&shelved, false);
            return Err(error.into());
        }
        if let Err(error) = file.sync_data() {
            self.fail(&shelved, true);
            return Err(error.into());
        }
        if damaged as u64 != shelved.damaged() || damaged as u64 != self.scrub.damage(segment) {
            self.remember_damage(&shelved, damaged as u64, self.meta.latest);
        }
        shelved.set_phase(Phase::Sealed(summary));
        self.complete(segment);
        self.shelf.stirred();
        Ok(SealReport { summary, damaged: damaged as u64 })
    }
}

impl<D: Disk> SealJob<D> {
    /// Reads the segment from its start. Memory: its index, and one piece of it.
    ///
    /// # Errors
    /// The disk's.
    pub fn run(self) -> Result<Sealed<D>, UnitError> {
        let (index, found) = collect_index(&self.shelved, self.length)?;
        let root = hash(&self.shelved.file, self.length)?;
        let bytes = encode_index(&index);
        let summary = Summary {
            segment: self.shelved.header.segment,
            length: self.length,
            records: found.records,
            first: found.first,
            last: found.last,
            root,
            catalog_records: u32::try_from(index.len()).unwrap_or(u32::MAX),
            index_crc: crc32c::crc32c(&bytes),
            holes: 0,
            hole_bytes: 0,
        };
        let damaged = found.damaged.len() + usize::from(found.end != self.length);
        Ok(Sealed { shelved: self.shelved, summary, index: bytes, damaged })
    }
}

/// Where the catalog records of a segment's first `length` bytes lie.
pub(super) fn collect_index<D: Disk>(
    shelved: &Shelved<D>,
    length: u64,
) -> Result<(Vec<IndexEntry>, Scan), UnitError> {
    let mut entries = Vec::new();
    let header = &shelved.header;
    let found = scan(&shelved.file, header.segment, header.epoch, length, |record| {
        if record.header.kind == Kind::Catalog {
            entries.push(IndexEntry {
                sequence: record.header.sequence,
                offset: u32::try_from(record.header.offset).unwrap_or(u32::MAX),
                length: u32::try_from(record.header.record_len()).unwrap_or(u32::MAX),
            });
        }
    })?;
    Ok((entries, found))
}

fn hash<F: DiskFile>(file: &F, length: u64) -> Result<[u8; 32], UnitError> {
    let mut hasher = blake3::Hasher::new();
    let mut piece = vec![0; GROUP_LEN_MAX];
    let mut at = RECORDS_AT;
    while at < length {
        let len = usize::try_from(length - at).unwrap_or(usize::MAX).min(piece.len());
        file.read_at(at, &mut piece[..len])?;
        hasher.update(&piece[..len]);
        at += len as u64;
    }
    Ok(*hasher.finalize().as_bytes())
}
