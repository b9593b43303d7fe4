//! Hashing a blob portion by portion, and the upper tree over its portions.
//!
//! The relay reads a blob once, from the front, without knowing its size: each portion is hashed into its pairs and
//! its chaining value as it fills ([`BlobHasher::push`]), and stored with the pairs. What is left to keep until the end
//! is 32 bytes a portion; [`BlobHasher::finish`] makes the root of them.

use blake3::Hasher;
use blake3::hazmat::{ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};

use super::{GROUP_LEN, PAIR_LEN, PORTION_LEN, portion_count};
use crate::BlobId;
use crate::limits::{BLOB_SIZE_MAX, PORTIONS_MAX};

/// What hashing a portion gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashedPortion {
    /// Its hash as a part of a larger blob.
    pub cv: ChainingValue,
    /// The nodes between it and its groups, in pre-order: [`super::portion_pairs_len`] bytes.
    pub pairs: Vec<u8>,
    /// The BlobId of the blob that is this portion and nothing else; `None` for a portion that is not the first.
    pub alone: Option<BlobId>,
}

impl HashedPortion {
    /// Hashes `bytes` as the portion at `index`.
    ///
    /// # Errors
    /// [`TreeError::PortionLen`] where `bytes` are none, or more than a portion has; [`TreeError::TooLarge`] where the
    /// largest blob has no portion of this index.
    pub fn of(index: u64, bytes: &[u8]) -> Result<Self, TreeError> {
        if index >= PORTIONS_MAX {
            return Err(TreeError::TooLarge);
        }
        if bytes.is_empty() || bytes.len() as u64 > PORTION_LEN {
            return Err(TreeError::PortionLen { index, len: bytes.len() });
        }
        let start = index * PORTION_LEN;
        let mut groups = Vec::with_capacity(bytes.len().div_ceil(GROUP));
        let mut offset = start;
        for group in bytes.chunks(GROUP) {
            groups.push(Hasher::new().set_input_offset(offset).update(group).finalize_non_root());
            offset += GROUP_LEN;
        }
        let mut pairs = Vec::with_capacity((groups.len() - 1) * PAIR_LEN);
        let cv = pairs_pre_order(&groups, &mut pairs);
        let alone = (index == 0).then(|| root_of_pairs(&pairs).unwrap_or_else(|| BlobId::of(bytes)));
        Ok(Self { cv, pairs, alone })
    }
}

/// Hashes a blob whose portions come one after the other.
#[derive(Clone, Debug, Default)]
pub struct BlobHasher {
    size: u64,
    portions: Vec<ChainingValue>,
    alone: Option<BlobId>,
}

impl BlobHasher {
    /// A hasher at the start of a blob.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The chaining values of the portions so far.
    pub fn portions(&self) -> &[ChainingValue] {
        &self.portions
    }

    /// Takes the next portion: a whole one, unless it is the blob's last.
    ///
    /// # Errors
    /// As [`HashedPortion::of`]; [`TreeError::AfterLast`] where a shorter portion came before.
    pub fn push(&mut self, bytes: &[u8]) -> Result<HashedPortion, TreeError> {
        if !self.size.is_multiple_of(PORTION_LEN) {
            return Err(TreeError::AfterLast);
        }
        let portion = HashedPortion::of(self.size / PORTION_LEN, bytes)?;
        self.size += bytes.len() as u64;
        self.alone = self.alone.or(portion.alone);
        self.portions.push(portion.cv);
        Ok(portion)
    }

    /// The blob's tree, with its id.
    pub fn finish(self) -> PortionTree {
        let mut upper = Vec::new();
        pairs_pre_order(&self.portions, &mut upper);
        let id = root_of_pairs(&upper).or(self.alone).unwrap_or_else(super::empty_id);
        PortionTree { id, size: self.size, portions: self.portions, upper }
    }
}

/// The upper tree of a blob: what stands above its portions. It is at most 96 bytes for each of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortionTree {
    id: BlobId,
    size: u64,
    portions: Vec<ChainingValue>,
    /// In pre-order; one pair less than portions, none for one portion or no portion.
    upper: Vec<u8>,
}

/// Why portions make no blob, or not this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// Bytes that cannot be a portion.
    #[error("portion {index} of {len} bytes")]
    PortionLen {
        /// Which portion.
        index: u64,
        /// Its bytes.
        len: usize,
    },
    /// A portion behind one that was not whole.
    #[error("a portion behind the last one")]
    AfterLast,
    /// Over [`BLOB_SIZE_MAX`].
    #[error("larger than the largest blob")]
    TooLarge,
    /// The size asks for another number of portions.
    #[error("{got} portions, where the size asks for {wanted}")]
    Count {
        /// Portions that the size asks for.
        wanted: u64,
        /// Portions that there are.
        got: u64,
    },
    /// The portions are those of another blob.
    #[error("the portions do not hash to the blob's id")]
    Mismatch,
}

impl PortionTree {
    /// The tree of the blob `id` of `size` bytes, from its portions' chaining values as storage kept them.
    ///
    /// # Errors
    /// [`TreeError::Mismatch`] where two or more portions do not hash to `id`. (One portion cannot be checked without
    /// its bytes: they are, as they are streamed.) [`TreeError::Count`] or [`TreeError::TooLarge`] where `size` does
    /// not go with them.
    pub fn new(id: BlobId, size: u64, portions: Vec<ChainingValue>) -> Result<Self, TreeError> {
        if size > BLOB_SIZE_MAX {
            return Err(TreeError::TooLarge);
        }
        let (wanted, got) = (portion_count(size), portions.len() as u64);
        if wanted != got {
            return Err(TreeError::Count { wanted, got });
        }
        let mut upper = Vec::with_capacity(portions.len().saturating_sub(1) * PAIR_LEN);
        pairs_pre_order(&portions, &mut upper);
        let known = root_of_pairs(&upper).or_else(|| portions.is_empty().then(super::empty_id));
        if known.is_some_and(|root| root != id) {
            return Err(TreeError::Mismatch);
        }
        Ok(Self { id, size, portions, upper })
    }

    /// The blob's id: the root.
    pub fn id(&self) -> BlobId {
        self.id
    }

    /// The blob's bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The portions' chaining values, in order: what storage keeps with the blob's last record.
    pub fn portions(&self) -> &[ChainingValue] {
        &self.portions
    }

    /// Whether `bytes` are the portion at `index`.
    pub fn is_portion(&self, index: u64, bytes: &[u8]) -> bool {
        let Ok(portion) = HashedPortion::of(index, bytes) else { return false };
        let known = usize::try_from(index).ok().and_then(|index| self.portions.get(index));
        bytes.len() as u64 == super::portion_len(self.size, index) && known == Some(&portion.cv)
    }

    /// The pair of the node whose right child starts with the portion at `middle`.
    pub(super) fn upper_pair(&self, middle: u64) -> Option<[u8; PAIR_LEN]> {
        pair_at(&self.upper, self.portions.len() as u64, middle)
    }
}

/// The pair, among `pairs` over `leaves` leaves in pre-order, of the node whose right child starts with leaf `middle`.
///
/// There is exactly one for each `middle` from 1 to `leaves - 1`: nodes of a binary tree stand between its leaves.
pub(super) fn pair_at(pairs: &[u8], leaves: u64, middle: u64) -> Option<[u8; PAIR_LEN]> {
    let (mut start, mut len, mut index) = (0, leaves, 0);
    // Invariant: the node is in the subtree of `len` leaves from `start`, whose own pair is the one at `index`.
    while len > 1 {
        let left = left_len(len);
        match middle.cmp(&(start + left)) {
            std::cmp::Ordering::Equal => {
                let at = usize::try_from(index).ok()?.checked_mul(PAIR_LEN)?;
                return pairs.get(at..at + PAIR_LEN)?.try_into().ok();
            }
            std::cmp::Ordering::Less => {
                len = left;
                index += 1;
            }
            std::cmp::Ordering::Greater => {
                start += left;
                len -= left;
                index += left;
            }
        }
    }
    None
}

/// Appends the pairs over `leaves` in pre-order, and gives the subtree's chaining value. (Zero for no leaves.)
fn pairs_pre_order(leaves: &[ChainingValue], pairs: &mut Vec<u8>) -> ChainingValue {
    match leaves {
        [] => [0; 32],
        [leaf] => *leaf,
        _ => {
            let at = pairs.len();
            pairs.resize(at + PAIR_LEN, 0);
            let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
            let left = pairs_pre_order(left, pairs);
            let right = pairs_pre_order(right, pairs);
            pairs[at..at + 32].copy_from_slice(&left);
            pairs[at + 32..at + PAIR_LEN].copy_from_slice(&right);
            merge_subtrees_non_root(&left, &right, Mode::Hash)
        }
    }
}

/// The root over the tree that `pairs` are; `None` where there is no pair.
fn root_of_pairs(pairs: &[u8]) -> Option<BlobId> {
    let (left, rest) = pairs.split_first_chunk::<32>()?;
    let (right, _) = rest.split_first_chunk::<32>()?;
    Some(merge_subtrees_root(left, right, Mode::Hash).into())
}

/// Leaves of the left child of a node over `len` of them: the largest power of two below (BLAKE3 paper §2.1).
fn left_len(len: u64) -> u64 {
    len.next_power_of_two() / 2
}

/// Bytes of a group, for slices.
const GROUP: usize = super::GROUP.bytes();
