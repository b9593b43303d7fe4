//! The record: what a segment is made of.
//!
//! # Format
//! Integers are little endian; a record begins at a multiple of 16.
//! ```text
//!   0   4  magic "LRC1"
//!   4   1  kind: 1 portion of a blob, 2 change to the catalog
//!   5   3  zero
//!   8  16  segment
//!  24   8  epoch in which the segment was opened
//!  32   8  sequence number
//!  40   8  offset: where this record begins in the segment
//!  48   8  acked_through: all below this offset was acknowledged by every member when this record was placed
//!  56   4  payload length n
//!  60   4  CRC32C of bytes 0 to 59
//!  64   n  payload: ciphertext, and the wrapped key (`sealing`)
//!  64+n 4  CRC32C of the payload
//!          zeros up to the next multiple of 16
//! ```
//! Header and payload have a checksum each, so that the length is trusted before it is followed. A record says where
//! it belongs: one that was written to another place, or to another segment, is not taken for one of here.
//!
//! What comes from disk or network is an [`UncheckedRecord`]; only [`UncheckedRecord::check`] makes a [`Record`] of it.
//! Checksums find accidents; forgeries are found by the cipher's tags and the blob's hash, in the relay.

use crate::ids::{Epoch, SegmentId, Sequence};
use crate::limits::{PAYLOAD_LEN_MAX, RECORD_ALIGN};

/// Bytes of a record's header.
pub const RECORD_HEADER_LEN: usize = 64;
/// Bytes of the checksum behind the payload.
const PAYLOAD_CRC_LEN: usize = 4;
const MAGIC: [u8; 4] = *b"LRC1";
const HEADER_CRC_AT: usize = 60;

/// What a record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A portion of a blob; the last one has the blob's end.
    Portion,
    /// A change to the catalog.
    Catalog,
}

impl Kind {
    fn code(self) -> u8 {
        match self {
            Self::Portion => 1,
            Self::Catalog => 2,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Portion),
            2 => Some(Self::Catalog),
            _ => None,
        }
    }
}

/// What stands in front of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// What the payload is.
    pub kind: Kind,
    /// The segment that it is in.
    pub segment: SegmentId,
    /// The epoch in which that was opened.
    pub epoch: Epoch,
    /// The record's place in the line of all records.
    pub sequence: Sequence,
    /// Where it begins in its segment.
    pub offset: u64,
    /// What was acknowledged by every member when it was placed. `acked_through ≤ offset`.
    pub acked_through: u64,
    /// Bytes of the payload.
    pub payload_len: u32,
}

/// Why bytes are not the record that they should be. `at` counts from the first byte given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// They end within the record.
    #[error("cut off: {have} bytes of {need}")]
    CutOff {
        /// Bytes that there are.
        have: usize,
        /// Bytes that the record needs.
        need: usize,
    },
    /// No magic there: nothing was written, or something else.
    #[error("no record")]
    NoMagic,
    /// A checksum is wrong.
    #[error("wrong checksum at {at}")]
    Checksum {
        /// Where the checksum stands.
        at: usize,
    },
    /// A field has a value that it cannot have, under a right checksum.
    #[error("impossible value at {at}")]
    Field {
        /// Where the field stands.
        at: usize,
    },
    /// A sound record, but of another segment or another offset.
    #[error("a record of another place")]
    Misplaced,
}

/// Bytes of a whole record with a payload of `payload_len` bytes.
pub const fn record_len(payload_len: usize) -> usize {
    (RECORD_HEADER_LEN + payload_len + PAYLOAD_CRC_LEN).next_multiple_of(RECORD_ALIGN)
}

impl RecordHeader {
    /// Bytes of the whole record.
    pub fn record_len(&self) -> usize {
        record_len(self.payload_len as usize)
    }

    /// Where the next record begins.
    pub fn end(&self) -> u64 {
        self.offset + self.record_len() as u64
    }

    /// The header's bytes.
    pub fn encode(&self) -> [u8; RECORD_HEADER_LEN] {
        let mut bytes = [0; RECORD_HEADER_LEN];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4] = self.kind.code();
        bytes[8..24].copy_from_slice(&self.segment.0);
        bytes[24..32].copy_from_slice(&self.epoch.0.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.sequence.0.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.offset.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.acked_through.to_le_bytes());
        bytes[56..60].copy_from_slice(&self.payload_len.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..HEADER_CRC_AT]);
        bytes[HEADER_CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads a header from the front of `bytes`: its checksum is right and each field is one that can be.
    ///
    /// # Errors
    /// See [`RecordError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let Some(header) = bytes.first_chunk::<RECORD_HEADER_LEN>() else {
            return Err(RecordError::CutOff { have: bytes.len(), need: RECORD_HEADER_LEN });
        };
        if header[..4] != MAGIC {
            return Err(RecordError::NoMagic);
        }
        if crc32c::crc32c(&header[..HEADER_CRC_AT]) != read_u32(header, HEADER_CRC_AT) {
            return Err(RecordError::Checksum { at: HEADER_CRC_AT });
        }
        let mut segment = [0; 16];
        segment.copy_from_slice(&header[8..24]);
        let decoded = Self {
            kind: Kind::from_code(header[4]).ok_or(RecordError::Field { at: 4 })?,
            segment: SegmentId(segment),
            epoch: Epoch(read_u64(header, 24)),
            sequence: Sequence(read_u64(header, 32)),
            offset: read_u64(header, 40),
            acked_through: read_u64(header, 48),
            payload_len: read_u32(header, 56),
        };
        if header[5..8] != [0; 3] {
            return Err(RecordError::Field { at: 5 });
        }
        if !decoded.offset.is_multiple_of(RECORD_ALIGN as u64) || decoded.offset > MAX_OFFSET {
            return Err(RecordError::Field { at: 40 });
        }
        if decoded.acked_through > decoded.offset {
            return Err(RecordError::Field { at: 48 });
        }
        if decoded.payload_len as usize > PAYLOAD_LEN_MAX {
            return Err(RecordError::Field { at: 56 });
        }
        Ok(decoded)
    }
}

/// Far beyond a segment: so that sums of offsets and lengths never overflow.
const MAX_OFFSET: u64 = 1 << 48;

/// Bytes that may be a record.
#[derive(Clone, Copy, Debug)]
pub struct UncheckedRecord<'a>(&'a [u8]);

/// A record whose checksums are right, at the place where it belongs.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Its header.
    pub header: RecordHeader,
    /// Its payload: still ciphertext.
    pub payload: &'a [u8],
    /// The two checksums, one behind the other: what digests are made of.
    sums: [u8; 8],
}

impl<'a> UncheckedRecord<'a> {
    /// `bytes` begin where a record should; what follows the record is not looked at.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The record, if it is a sound one of `segment` at `offset`.
    ///
    /// # Errors
    /// See [`RecordError`].
    pub fn check(self, segment: SegmentId, offset: u64) -> Result<Record<'a>, RecordError> {
        let header = RecordHeader::decode(self.0)?;
        if header.segment != segment || header.offset != offset {
            return Err(RecordError::Misplaced);
        }
        let need = header.record_len();
        let Some(bytes) = self.0.get(..need) else {
            return Err(RecordError::CutOff { have: self.0.len(), need });
        };
        let crc_at = RECORD_HEADER_LEN + header.payload_len as usize;
        let payload = &bytes[RECORD_HEADER_LEN..crc_at];
        if crc32c::crc32c(payload) != read_u32(bytes, crc_at) {
            return Err(RecordError::Checksum { at: crc_at });
        }
        let padding = &bytes[crc_at + PAYLOAD_CRC_LEN..];
        if padding.iter().any(|byte| *byte != 0) {
            return Err(RecordError::Field { at: crc_at + PAYLOAD_CRC_LEN });
        }
        let mut sums = [0; 8];
        sums[..4].copy_from_slice(&bytes[HEADER_CRC_AT..RECORD_HEADER_LEN]);
        sums[4..].copy_from_slice(&bytes[crc_at..crc_at + PAYLOAD_CRC_LEN]);
        Ok(Record { header, payload, sums })
    }
}

/// A digest of the records of one append: both sides make it from checksums that they computed anyway, and compare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AppendDigest(u32);

impl AppendDigest {
    /// Takes in the next record.
    pub fn add(&mut self, record: &Record<'_>) {
        self.0 = crc32c::crc32c_append(self.0, &record.sums);
    }

    /// As a number, for the wire.
    pub fn value(self) -> u32 {
        self.0
    }
}

/// A record before it has its place: its payload is complete but for the first `open_len` bytes, which depend on the
/// segment (the wrapped key). Everything costly is done by whoever makes one; placing it writes a few bytes.
#[derive(Debug)]
pub struct UnplacedRecord {
    /// Room for the header, the payload, room for checksum and padding.
    bytes: Vec<u8>,
    kind: Kind,
    payload_len: usize,
    open_len: usize,
    /// CRC32C of the payload behind its first `open_len` bytes.
    rest_crc: u32,
}

impl UnplacedRecord {
    /// Makes one of `bytes`, which have [`RECORD_HEADER_LEN`] bytes of room in front and the payload behind.
    pub fn new(kind: Kind, mut bytes: Vec<u8>, open_len: usize) -> Self {
        let payload_len = bytes.len() - RECORD_HEADER_LEN;
        debug_assert!(payload_len <= PAYLOAD_LEN_MAX && open_len <= payload_len);
        let rest_crc = crc32c::crc32c(&bytes[RECORD_HEADER_LEN + open_len..]);
        bytes.resize(record_len(payload_len), 0);
        Self { bytes, kind, payload_len, open_len, rest_crc }
    }

    /// Bytes of the whole record.
    pub fn record_len(&self) -> usize {
        self.bytes.len()
    }

    /// Gives it its place and the first bytes of its payload; also adds its checksums to `digest`.
    pub fn place(
        mut self,
        segment: SegmentId,
        epoch: Epoch,
        sequence: Sequence,
        offset: u64,
        acked_through: u64,
        open: &[u8],
        digest: &mut AppendDigest,
    ) -> Vec<u8> {
        debug_assert_eq!(open.len(), self.open_len);
        let header = RecordHeader {
            kind: self.kind,
            segment,
            epoch,
            sequence,
            offset,
            acked_through,
            payload_len: u32::try_from(self.payload_len).unwrap_or(u32::MAX),
        };
        let encoded = header.encode();
        let crc_at = RECORD_HEADER_LEN + self.payload_len;
        let crc = self.payload_crc(open).to_le_bytes();
        self.bytes[..RECORD_HEADER_LEN].copy_from_slice(&encoded);
        self.bytes[RECORD_HEADER_LEN..RECORD_HEADER_LEN + self.open_len].copy_from_slice(open);
        self.bytes[crc_at..crc_at + PAYLOAD_CRC_LEN].copy_from_slice(&crc);
        let mut sums = [0; 8];
        sums[..4].copy_from_slice(&encoded[HEADER_CRC_AT..]);
        sums[4..].copy_from_slice(&crc);
        digest.0 = crc32c::crc32c_append(digest.0, &sums);
        self.bytes
    }

    /// The payload's checksum, now that its beginning is known, by the cheapest way: two sums are put together in about the
    /// time in which 150 KiB are read.
    fn payload_crc(&self, open: &[u8]) -> u32 {
        let rest = &self.bytes[RECORD_HEADER_LEN + self.open_len..RECORD_HEADER_LEN + self.payload_len];
        if open.is_empty() {
            self.rest_crc
        } else if rest.len() <= COMBINE_FROM_LEN {
            crc32c::crc32c_append(crc32c::crc32c(open), rest)
        } else {
            crc32c::crc32c_combine(crc32c::crc32c(open), self.rest_crc, rest.len())
        }
    }
}

/// Bytes from which on two checksums are put together rather than one taken of all.
const COMBINE_FROM_LEN: usize = 128 * 1024;

/// Little-endian integer at `at`, which must lie within `bytes`.
pub(crate) fn read_u32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |chunk| u32::from_le_bytes(*chunk))
}

/// As [`read_u32`].
pub(crate) fn read_u64(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |chunk| u64::from_le_bytes(*chunk))
}

#[cfg(test)]
mod tests;
