//! The segment: an append-only file of records with one deletion day.
//!
//! # Format
//! ```text
//!       0  header block, 4096 bytes       `header`: who wrote it, when it is deleted, who has it, the wrapped day key
//!    4096  records, each at a multiple of 16   `record`
//!  length  while open: zeros, to the end of the file
//!          once sealed: footer              `footer`: index of the catalog records, and a summary as the last 128 bytes
//! ```
//! The copies of a segment are byte-identical, header and footer included: only the writer decides what stands in
//! them. A file is named `SEGMENT.seg`, 32 hexadecimal digits.
//!
//! # Sync
//! The header block and the directory entry are durable before the segment takes a record. Records are durable when
//! their append is acknowledged: one `fdatasync` for all that a group commit gathered. A footer is durable when the seal
//! is acknowledged. A sync that failed is never tried again: the file takes no more appends, and counts up to where the
//! last good sync left it, also after a restart (`unit::meta`).
//!
//! # Pruning
//! At the end of its deletion day the unit overwrites the wrapped day key in the header block, syncs that, then removes
//! the file and syncs the directory (`expiry`). Nothing else removes records.
//!
//! # Recovery
//! A sealed segment is known by its summary and not read on start. An open one is scanned (`scan`): the first bad record
//! at or above `acked_through` ends the log and is cut; a bad one below is damage, told apart and served from another
//! copy. The segment is then closed to its old epoch; the writer brings all copies to one length and seals it.

pub mod footer;
pub mod header;
pub mod scan;
pub mod stub;
pub mod verify;

use crate::ids::SegmentId;

/// Where the records begin.
pub const RECORDS_AT: u64 = crate::limits::SEGMENT_HEADER_LEN as u64;

/// The name of the file of `segment`.
pub fn file_name(segment: SegmentId) -> String {
    format!("{segment}{SUFFIX}")
}

/// The segment whose file has this name; `None` for other files.
pub fn segment_of(file_name: &str) -> Option<SegmentId> {
    SegmentId::from_hex(file_name.strip_suffix(SUFFIX)?)
}

const SUFFIX: &str = ".seg";

#[cfg(test)]
mod tests;
