//! The manifest: a message as it was taken in, as literal bytes and parts in order.
//!
//! It is what an array keeps of a message beside the blobs, and what a store gets first. It is written while the
//! message streams by, so that what is known only at the end stands at the end. **Format**, all numbers little endian:
//!
//! ```text
//! manifest = magic frame* end
//! magic    = "LGHTMAN" %x01               seven letters and the version
//! frame    = literal / part
//! literal  = %x01 length:u32 bytes        1 to 65,536 bytes of the message
//! part     = %x02 length:u32 entry        a detached part; postcard encoding of `PartEntry`
//! end      = %x03 length:u32 totals       postcard encoding of `Totals`; nothing follows it
//! ```
//!
//! A part's entry stands for its header block (verbatim in the entry) and its body (made from the blob by the recipe).
//! The lengths of all frames add up to the totals' length; a reader refuses a manifest where they do not.

mod reader;
mod writer;

use lighter_protocol::BlobId;
use serde::{Deserialize, Serialize};

pub use reader::{Entry, ManifestError, ManifestReader};
pub(crate) use writer::ManifestWriter;

use crate::line_end::LineEnds;
use crate::recipe::Recipe;

/// The first bytes of every manifest: name and version.
pub const MAGIC: &[u8; 8] = b"LGHTMAN\x01";

const TAG_LITERAL: u8 = 1;
const TAG_PART: u8 = 2;
const TAG_END: u8 = 3;
/// Bytes of a frame before its content: tag and length.
const FRAME_HEAD_LEN: usize = 5;

/// A detached part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartEntry {
    /// The blob.
    pub blob: BlobId,
    /// Its size in bytes.
    pub size: u64,
    /// How it becomes the part's body again.
    pub recipe: Recipe,
    /// The part's file name, made harmless ([`crate::name::sanitize_name`]).
    pub name: String,
    /// The part's media type, made harmless.
    pub media_type: String,
    /// The part's header block as it stood, blank line included.
    pub header: Vec<u8>,
}

/// What proves that a message came back as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Bytes in the original message.
    pub length: u64,
    /// BLAKE3 of the original message.
    pub hash: [u8; 32],
    /// Parts that were detached from it.
    pub parts: u32,
    /// How the lines end of all that was not carried off.
    pub line_ends: LineEnds,
}

#[cfg(test)]
mod tests;
