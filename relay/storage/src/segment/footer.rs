//! What sealing adds behind a segment's records.
//!
//! ```text
//!   0  16n  for each catalog record, in order: sequence (8), offset (4), length of the whole record (4)
//! 16n   8m  for each stretch that was given back, in order: offset (4), length (4)
//!  the summary, the file's last 128 bytes:
//!   0    8  magic "LTRSEAL1"
//!   8   16  segment
//!  24    8  length: where the records end, and the footer begins
//!  32    8  number of records, without those that were given back
//!  40    8  sequence number of the first record (0: there is none)
//!  48    8  sequence number of the last record
//!  56   32  BLAKE3 hash of the records' bytes, 4096 to length; of zeros where they were given back
//!  88    4  n
//!  92    4  CRC32C of the index and the stretches
//!  96    4  m
//! 100    8  bytes of the stretches
//! 108   16  zero
//! 124    4  CRC32C of bytes 0 to 123
//! ```
//! The summary is found from the file's end, so that opening a unit costs one small read for each sealed segment,
//! whatever it holds. A file whose end is no sound summary is an open segment.
//!
//! A segment most of which is dead is *thinned*: stretches of dead records become holes of a sparse file, which read as
//! zeros. All other records stay where they are, and so do first and last number.

use crate::ids::{SegmentId, Sequence};
use crate::limits::{
    HOLE_LEN_MIN, HOLES_MAX, RECORD_ALIGN, RECORD_LEN_MAX, SEGMENT_LEN_MAX, SEGMENT_RECORDS_MAX,
};
use crate::record::{read_u32, read_u64};

/// Bytes of the summary.
pub const SUMMARY_LEN: usize = 128;
/// Bytes of one entry of the index.
pub const ENTRY_LEN: usize = 16;
/// Bytes of what is said of one hole.
pub const HOLE_LEN: usize = 8;

/// What is known of a sealed segment without its index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Summary {
    /// The segment.
    pub segment: SegmentId,
    /// Where its records end.
    pub length: u64,
    /// How many there are; those that were given back are not counted.
    pub records: u64,
    /// The first one's number; 0 where there is none. As it was when the segment was closed, as the last one's.
    pub first: Sequence,
    /// The last one's number.
    pub last: Sequence,
    /// BLAKE3 over the records, and the zeros of holes: equal on all copies with the same holes.
    pub root: [u8; 32],
    /// Entries of the index: how many records are the catalog's.
    pub catalog_records: u32,
    /// CRC32C of the index and the holes.
    pub index_crc: u32,
    /// Stretches that were given back.
    pub holes: u32,
    /// Bytes of those.
    pub hole_bytes: u64,
}

/// A stretch of dead records that was given back: it reads as zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Hole {
    /// Where the first of the records began.
    pub offset: u32,
    /// Bytes of them all.
    pub length: u32,
}

impl Hole {
    /// Where the next record begins.
    pub fn end(&self) -> u64 {
        u64::from(self.offset) + u64::from(self.length)
    }
}

/// Where one catalog record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct IndexEntry {
    /// Its number.
    pub sequence: Sequence,
    /// Where it begins.
    pub offset: u32,
    /// Bytes of the whole record.
    pub length: u32,
}

/// Why bytes are no footer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FooterError {
    /// Too short, or of a length that does not go with what it says.
    #[error("a footer of the wrong length")]
    Length,
    /// No magic at the end: the segment is open.
    #[error("no footer")]
    NoMagic,
    /// A checksum is wrong.
    #[error("a footer with a wrong checksum")]
    Checksum,
    /// A field has a value that it cannot have, under a right checksum.
    #[error("impossible value at {at}")]
    Field {
        /// Where the field stands, in the summary or in the index.
        at: usize,
    },
}

const MAGIC: [u8; 8] = *b"LTRSEAL1";
const CRC_AT: usize = SUMMARY_LEN - 4;

impl Summary {
    /// The summary's bytes.
    pub fn encode(&self) -> [u8; SUMMARY_LEN] {
        let mut bytes = [0; SUMMARY_LEN];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..24].copy_from_slice(&self.segment.0);
        bytes[24..32].copy_from_slice(&self.length.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.records.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.first.0.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.last.0.to_le_bytes());
        bytes[56..88].copy_from_slice(&self.root);
        bytes[88..92].copy_from_slice(&self.catalog_records.to_le_bytes());
        bytes[92..96].copy_from_slice(&self.index_crc.to_le_bytes());
        bytes[96..100].copy_from_slice(&self.holes.to_le_bytes());
        bytes[100..108].copy_from_slice(&self.hole_bytes.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..CRC_AT]);
        bytes[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads the summary at the end of the file of `segment`, which has `file_len` bytes.
    ///
    /// # Errors
    /// See [`FooterError`].
    pub fn decode(bytes: &[u8], segment: SegmentId, file_len: u64) -> Result<Self, FooterError> {
        if bytes.len() != SUMMARY_LEN {
            return Err(FooterError::Length);
        }
        if bytes[..8] != MAGIC {
            return Err(FooterError::NoMagic);
        }
        if crc32c::crc32c(&bytes[..CRC_AT]) != read_u32(bytes, CRC_AT) {
            return Err(FooterError::Checksum);
        }
        let mut root = [0; 32];
        root.copy_from_slice(&bytes[56..88]);
        let summary = Self {
            segment,
            length: read_u64(bytes, 24),
            records: read_u64(bytes, 32),
            first: Sequence(read_u64(bytes, 40)),
            last: Sequence(read_u64(bytes, 48)),
            root,
            catalog_records: read_u32(bytes, 88),
            index_crc: read_u32(bytes, 92),
            holes: read_u32(bytes, 96),
            hole_bytes: read_u64(bytes, 100),
        };
        if bytes[8..24] != segment.0 {
            return Err(FooterError::Field { at: 8 });
        }
        if summary.length < super::RECORDS_AT
            || summary.length > SEGMENT_LEN_MAX
            || !summary.length.is_multiple_of(RECORD_ALIGN as u64)
        {
            return Err(FooterError::Field { at: 24 });
        }
        if summary.records > SEGMENT_RECORDS_MAX || u64::from(summary.catalog_records) > summary.records {
            return Err(FooterError::Field { at: 32 });
        }
        if summary.first > summary.last {
            return Err(FooterError::Field { at: 40 });
        }
        let hole_bytes_min = u64::from(summary.holes) * u64::from(HOLE_LEN_MIN);
        let hole_bytes_max = if summary.holes == 0 { 0 } else { summary.length - super::RECORDS_AT };
        if summary.holes as usize > HOLES_MAX
            || !(hole_bytes_min..=hole_bytes_max).contains(&summary.hole_bytes)
        {
            return Err(FooterError::Field { at: 96 });
        }
        if bytes[108..CRC_AT].iter().any(|byte| *byte != 0) {
            return Err(FooterError::Field { at: 108 });
        }
        if summary.length + summary.index_len() + SUMMARY_LEN as u64 != file_len {
            return Err(FooterError::Length);
        }
        Ok(summary)
    }

    /// Bytes of the whole file: header block, records, footer.
    pub fn file_len(&self) -> u64 {
        self.length.saturating_add(self.index_len()).saturating_add(SUMMARY_LEN as u64)
    }

    /// Bytes of the index and the holes, which begin at `length`.
    pub fn index_len(&self) -> u64 {
        self.entries_len() + u64::from(self.holes) * HOLE_LEN as u64
    }

    fn entries_len(&self) -> u64 {
        u64::from(self.catalog_records) * ENTRY_LEN as u64
    }

    /// Bytes of records that are there.
    pub fn stored_len(&self) -> u64 {
        self.length.saturating_sub(super::RECORDS_AT).saturating_sub(self.hole_bytes)
    }

    /// Whether the copies that say this and that are of the same log, whichever of its dead records were given back.
    pub fn is_same_log(&self, other: &Self) -> bool {
        let log = |summary: &Self| {
            let Self { segment, length, first, last, catalog_records, .. } = *summary;
            (segment, length, first, last, catalog_records)
        };
        let have_same_holes = (self.holes, self.hole_bytes) == (other.holes, other.hole_bytes);
        log(self) == log(other) && (self == other || !have_same_holes)
    }

    /// Reads the holes: `bytes` are the whole of index and holes.
    ///
    /// # Errors
    /// See [`FooterError`].
    pub fn decode_holes(&self, bytes: &[u8]) -> Result<Vec<Hole>, FooterError> {
        let holes = decode_holes(self.split_index(bytes)?.1);
        let sum = holes.iter().map(|hole| u64::from(hole.length)).sum::<u64>();
        if !are_holes(&holes, self.length) || sum != self.hole_bytes {
            return Err(FooterError::Field { at: 96 });
        }
        Ok(holes)
    }

    /// The index's entries, and the holes.
    fn split_index<'b>(&self, bytes: &'b [u8]) -> Result<(&'b [u8], &'b [u8]), FooterError> {
        if bytes.len() as u64 != self.index_len() {
            return Err(FooterError::Length);
        }
        if crc32c::crc32c(bytes) != self.index_crc {
            return Err(FooterError::Checksum);
        }
        let entries_len = usize::try_from(self.entries_len()).map_err(|_| FooterError::Length)?;
        bytes.split_at_checked(entries_len).ok_or(FooterError::Length)
    }

    /// Reads the index: `bytes` are the whole of index and holes.
    ///
    /// # Errors
    /// See [`FooterError`].
    pub fn decode_index(&self, bytes: &[u8]) -> Result<Vec<IndexEntry>, FooterError> {
        let (entries, _) = self.split_index(bytes)?.0.as_chunks::<ENTRY_LEN>();
        let mut end = super::RECORDS_AT;
        let decoded = entries.iter().enumerate().map(|(index, entry)| {
            let entry = IndexEntry {
                sequence: Sequence(read_u64(entry, 0)),
                offset: read_u32(entry, 8),
                length: read_u32(entry, 12),
            };
            let sound = u64::from(entry.offset) >= end
                && entry.length > 0
                && entry.length as usize <= RECORD_LEN_MAX
                && u64::from(entry.offset) + u64::from(entry.length) <= self.length;
            end = u64::from(entry.offset) + u64::from(entry.length);
            if sound { Ok(entry) } else { Err(FooterError::Field { at: index * ENTRY_LEN }) }
        });
        decoded.collect()
    }
}

/// The index's bytes.
pub fn encode_index(entries: &[IndexEntry]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(entries.len() * ENTRY_LEN);
    for entry in entries {
        bytes.extend_from_slice(&entry.sequence.0.to_le_bytes());
        bytes.extend_from_slice(&entry.offset.to_le_bytes());
        bytes.extend_from_slice(&entry.length.to_le_bytes());
    }
    bytes
}

/// The holes' bytes.
pub fn encode_holes(holes: &[Hole]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(holes.len() * HOLE_LEN);
    for hole in holes {
        bytes.extend_from_slice(&hole.offset.to_le_bytes());
        bytes.extend_from_slice(&hole.length.to_le_bytes());
    }
    bytes
}

/// The holes that stand in `bytes`, whatever they are: see [`are_holes`]. A rest shorter than one is left out.
pub fn decode_holes(bytes: &[u8]) -> Vec<Hole> {
    let (holes, _) = bytes.as_chunks::<HOLE_LEN>();
    holes.iter().map(|hole| Hole { offset: read_u32(hole, 0), length: read_u32(hole, 4) }).collect()
}

/// Whether these can be the holes of a segment whose records end at `length`: in order, apart from each other, each long
/// enough to be worth it, and not too many.
pub fn are_holes(holes: &[Hole], length: u64) -> bool {
    let mut end = None;
    holes.len() <= HOLES_MAX
        && holes.iter().all(|hole| {
            let is_behind = match end {
                None => u64::from(hole.offset) >= super::RECORDS_AT,
                Some(end) => u64::from(hole.offset) > end,
            };
            end = Some(hole.end());
            is_behind
                && hole.length >= HOLE_LEN_MIN
                && hole.end() <= length
                && (hole.offset as usize).is_multiple_of(RECORD_ALIGN)
                && (hole.length as usize).is_multiple_of(RECORD_ALIGN)
        })
}
