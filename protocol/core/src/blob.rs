//! BLAKE3 verified blobs: which bytes are there, which are missing, and the tree that proves each 16 KiB of them.
//!
//! A [`BlobId`] is the root of a binary tree over the blob's chunks of 1 KiB. Lighter cuts that tree at two heights:
//!
//! ```text
//!                        BlobId                     root: the only node hashed as such
//!                    ┌─────┴─────┐
//!                  pair         pair                upper: kept in memory, 64 bytes a MiB    (PortionTree)
//!                ┌──┴──┐       ┌─┴─
//!   portion      cv    cv      cv                   1 MiB of plaintext: what storage keeps   (HashedPortion)
//!             ┌──┴──┐                               lower: beside each portion, 63 pairs of 64 bytes
//!   group     cv    cv …                            16 KiB: what a verified stream proves at a time
//! ```
//!
//! A node is a *pair*: the chaining values of its two children. A chaining value (cv) is a subtree's hash where it is
//! not the root (BLAKE3 paper §2.1). Pairs are kept in pre-order: node, left subtree, right subtree.
//!
//! Streams are `bao-tree`'s: pairs and groups in pre-order, as far as the asked ranges touch them, without its 8-byte
//! size in front (the size travels in [`crate::wire::Response::Data`]). Ranges are rounded out to whole groups on both
//! sides ([`chunk_ranges`]), since no proof is kept below a group.
//!
//! A size is a claim until the blob's last group has been verified.

mod portions;
mod ranges;
mod stream;

use bao_tree::{BaoTree, ChunkNum};

pub use bao_tree::{BlockSize, ChunkRanges};
pub use blake3::hazmat::ChainingValue;
pub use portions::{BlobHasher, HashedPortion, PortionTree, TreeError};
pub use ranges::{RangeSet, RangeSetError};
pub use stream::{Portion, PortionBlob, PortionSource};

use crate::BlobId;

/// The chunk group: 2^4 chunks of 1 KiB.
pub const GROUP: BlockSize = BlockSize::from_chunk_log(4);
/// Bytes of a chunk group: the least that is verified by itself.
pub const GROUP_LEN: u64 = 16 * 1024;
/// Bytes of a portion, the last one of a blob excepted: what the storage array writes, seals and serves as one.
pub const PORTION_LEN: u64 = 1024 * 1024;
/// Bytes of a node: two chaining values.
pub const PAIR_LEN: usize = 64;

/// Chunks in a group, and in a portion: where the tree is cut.
const GROUP_CHUNKS: u64 = GROUP_LEN / CHUNK_LEN;
const PORTION_CHUNKS: u64 = PORTION_LEN / CHUNK_LEN;
/// Bytes of a BLAKE3 chunk.
const CHUNK_LEN: u64 = 1024;

const _: () = assert!(GROUP.bytes() as u64 == GROUP_LEN);
// A portion is a subtree: as many groups as a power of two says (blake3::hazmat::max_subtree_len).
const _: () = assert!((PORTION_LEN / GROUP_LEN).is_power_of_two());

/// The shape of the tree over a blob of `size` bytes, as `bao-tree` takes it.
pub fn tree(size: u64) -> BaoTree {
    BaoTree::new(size, GROUP)
}

/// What to encode or decode for the byte ranges of a [`crate::wire::Get`] on a blob of `size` bytes: rounded out to
/// whole groups. No range at all means the whole blob.
///
/// Both sides must call this with the same ranges and the same size: the stream holds nothing that says which
/// groups come next.
pub fn chunk_ranges(ranges: &[(u64, u64)], size: u64) -> ChunkRanges {
    if ranges.is_empty() {
        return ChunkRanges::all();
    }
    let mut chunks = ChunkRanges::empty();
    for &(start, end) in ranges {
        if start < end.min(size) {
            let first = start / GROUP_LEN * GROUP_CHUNKS;
            let end = end.min(size).div_ceil(GROUP_LEN) * GROUP_CHUNKS;
            chunks |= ChunkRanges::from(ChunkNum(first)..ChunkNum(end));
        }
    }
    chunks
}

/// Whether a blob of `size` bytes is small: 1 to [`GROUP_LEN`]. It is its own proof, so that many are given by one request
/// ([`crate::wire::GetBlobs`]), and a store keeps many in one file. The empty blob is asked for nowhere, and is not small.
pub fn is_small(size: u64) -> bool {
    (1..=GROUP_LEN).contains(&size)
}

/// How many portions a blob of `size` bytes has; the empty blob has none.
pub fn portion_count(size: u64) -> u64 {
    size.div_ceil(PORTION_LEN)
}

/// The bytes of the portion at `index` of a blob of `size` bytes; 0 where there is no such portion.
pub fn portion_len(size: u64, index: u64) -> u64 {
    index.checked_mul(PORTION_LEN).map_or(0, |start| size.saturating_sub(start).min(PORTION_LEN))
}

/// Bytes of the pairs that are kept beside a portion of `len` bytes.
pub fn portion_pairs_len(len: u64) -> usize {
    usize::try_from(len.div_ceil(GROUP_LEN).saturating_sub(1)).unwrap_or(usize::MAX).saturating_mul(PAIR_LEN)
}

/// The id of the empty blob.
pub fn empty_id() -> BlobId {
    BlobId::of(&[])
}

#[cfg(test)]
mod tests;
