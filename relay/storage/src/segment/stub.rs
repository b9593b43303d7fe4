//! What stays on a unit of a sealed segment whose records were moved to an object store: `SEGMENT.obj`.
//!
//! ```text
//!    0  4096  header block, as in the segment's file, day key included
//! 4096        index of the catalog records, and holes, as in the footer
//! then   128  summary, as in the footer
//! then   128  where the records are, the file's last 128 bytes:
//!   0     8   magic "LTROBJ1\n"
//!   8    16   segment
//!  24    16   unit that moved it
//!  40    16   object: with unit and segment, its name (`objects`)
//!  56     8   bytes of the object: the records, 4096 to the summary's length
//!  64     8   when it was moved, seconds since 1970
//!  72     4   CRC32C of the index and the summary
//!  76    48   zero
//! 124     4   CRC32C of bytes 0 to 123
//! ```
//! So listing, indexes, opening a unit, wrapping a key anew and erasing it need no network; only records do.
//!
//! # Sync
//! A stub is written beside, synced and renamed only after the object was read back whole and found to have the summary's
//! root; the local file goes after the rename is durable (`unit::moving`). It counts for as much as the file did.
//!
//! # Recovery
//! A stub that is sound wins over a segment's file that is there, too: that one was about to go. A stub that is not is put
//! aside as a damaged copy.

use super::RECORDS_AT;
use super::footer::{SUMMARY_LEN, Summary};
use super::header::SegmentHeader;
use crate::ids::{ObjectId, SegmentId, UnitId};
use crate::limits::{FOOTER_LEN_MAX, SEGMENT_HEADER_LEN};
use crate::objects::ObjectName;
use crate::record::{read_u32, read_u64};
use lighter_protocol::UnixTime;

/// Bytes of the last part.
pub const WHERE_LEN: usize = 128;
/// Bytes of the longest stub.
pub const STUB_LEN_MAX: u64 = (SEGMENT_HEADER_LEN + FOOTER_LEN_MAX + WHERE_LEN) as u64;

const MAGIC: [u8; 8] = *b"LTROBJ1\n";
const CRC_AT: usize = WHERE_LEN - 4;
const SUFFIX: &str = ".obj";

/// A segment whose records are an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stub {
    /// Its header block.
    pub header: SegmentHeader,
    /// Its footer's summary.
    pub summary: Summary,
    /// Its index and holes, as they stand in the footer.
    pub index: Vec<u8>,
    /// Where its records are.
    pub place: ObjectPlace,
}

/// Where the records of a segment are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectPlace {
    /// The unit that moved them.
    pub unit: UnitId,
    /// The object's name.
    pub name: ObjectName,
    /// When they were moved.
    pub moved: UnixTime,
}

/// Why bytes are no stub.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StubError {
    /// Too short, too long, or not as long as its summary says.
    #[error("a stub of the wrong length")]
    Length,
    /// Not a stub, or one of another version.
    #[error("no stub")]
    NoMagic,
    /// A checksum is wrong.
    #[error("a stub with a wrong checksum")]
    Checksum,
    /// Header block, summary and place do not belong together, or one of them is not sound.
    #[error("a stub whose parts do not fit")]
    Part,
}

impl Stub {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.header.encode();
        bytes.extend_from_slice(&self.index);
        bytes.extend_from_slice(&self.summary.encode());
        let footer_crc = crc32c::crc32c(&bytes[SEGMENT_HEADER_LEN..]);
        let mut place = [0; WHERE_LEN];
        place[..8].copy_from_slice(&MAGIC);
        place[8..24].copy_from_slice(&self.place.name.segment.0);
        place[24..40].copy_from_slice(&self.place.unit.0);
        place[40..56].copy_from_slice(&self.place.name.object.0);
        place[56..64].copy_from_slice(&object_len(&self.summary).to_le_bytes());
        place[64..72].copy_from_slice(&self.place.moved.0.to_le_bytes());
        place[72..76].copy_from_slice(&footer_crc.to_le_bytes());
        let crc = crc32c::crc32c(&place[..CRC_AT]);
        place[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        bytes.extend_from_slice(&place);
        bytes
    }

    /// Reads the stub of `segment`.
    ///
    /// # Errors
    /// See [`StubError`].
    pub fn decode(bytes: &[u8], segment: SegmentId) -> Result<Self, StubError> {
        let place_at = bytes.len().checked_sub(WHERE_LEN).ok_or(StubError::Length)?;
        let summary_at = place_at.checked_sub(SUMMARY_LEN).filter(|at| *at >= SEGMENT_HEADER_LEN);
        let summary_at =
            summary_at.filter(|_| bytes.len() as u64 <= STUB_LEN_MAX).ok_or(StubError::Length)?;
        let place = &bytes[place_at..];
        if place[..8] != MAGIC {
            return Err(StubError::NoMagic);
        }
        let footer = &bytes[SEGMENT_HEADER_LEN..place_at];
        if crc32c::crc32c(&place[..CRC_AT]) != read_u32(place, CRC_AT)
            || crc32c::crc32c(footer) != read_u32(place, 72)
        {
            return Err(StubError::Checksum);
        }
        let header = SegmentHeader::decode(&bytes[..SEGMENT_HEADER_LEN]).map_err(|_| StubError::Part)?;
        let index = bytes[SEGMENT_HEADER_LEN..summary_at].to_vec();
        let length = read_u64(&bytes[summary_at..place_at], 24);
        let file_len = length.saturating_add(footer.len() as u64);
        let summary =
            Summary::decode(&bytes[summary_at..place_at], segment, file_len).map_err(|_| StubError::Part)?;
        summary.decode_index(&index).map_err(|_| StubError::Part)?;
        summary.decode_holes(&index).map_err(|_| StubError::Part)?;
        let (mut unit, mut object) = (UnitId([0; 16]), ObjectId([0; 16]));
        unit.0.copy_from_slice(&place[24..40]);
        object.0.copy_from_slice(&place[40..56]);
        let name = ObjectName { segment, object };
        let place = ObjectPlace { unit, name, moved: UnixTime(read_u64(place, 64)) };
        let stub = Self { header, summary, index, place };
        // What stands where nothing does, or says something else than another part does, is not ours.
        if stub.header.segment != segment || stub.encode() != bytes {
            return Err(StubError::Part);
        }
        Ok(stub)
    }
}

/// Bytes of the object that has the records of a segment with this summary.
pub fn object_len(summary: &Summary) -> u64 {
    summary.length.saturating_sub(RECORDS_AT)
}

/// The name of the stub of `segment`.
pub fn stub_name(segment: SegmentId) -> String {
    format!("{segment}{SUFFIX}")
}

/// The segment whose stub has this name; `None` for other files.
pub fn segment_of_stub(file_name: &str) -> Option<SegmentId> {
    SegmentId::from_hex(file_name.strip_suffix(SUFFIX)?)
}
