//! Checks a verified stream, group by group, against the blob's id: a value, no I/O.
//!
//! A stream is the tree's nodes in pre-order, as far as the asked ranges touch them: a pair of hashes for a node above
//! the groups, the bytes for a group ([`lighter_protocol::blob`]). What is expected next is known at every point, so the
//! stream has no framing, and neither a length in it nor its end is believed.
//!
//! Invariant: every hash on the stack has been proved to be a part of the blob, and of its claimed size, up to the root.

use std::ops::Range;

use bao_tree::TreeNode;
use blake3::Hasher;
use blake3::hazmat::{ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};
use lighter_protocol::BlobId;
use lighter_protocol::blob::{self, GROUP_LEN, PAIR_LEN};

/// BLAKE3 chunks in a group.
const GROUP_CHUNKS: u64 = GROUP_LEN / 1024;

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The pair of this node: [`PAIR_LEN`] bytes.
    Pair(TreeNode),
    /// A group of the blob's bytes.
    Group {
        /// Where it begins.
        offset: u64,
        /// Its bytes: the last group of a blob may be shorter.
        len: usize,
    },
}

/// A part of the tree whose hash is proved and whose content has not come yet.
#[derive(Clone, Copy, Debug)]
struct Subtree {
    /// Its groups.
    start: u64,
    len: u64,
    hash: ChainingValue,
    /// What `bao-tree` calls it; `None` only for single groups.
    node: Option<TreeNode>,
}

impl Subtree {
    /// The group that its right half starts with (BLAKE3 paper §2.1: the left half is the largest power of two).
    fn middle(&self) -> u64 {
        self.start + self.len.next_power_of_two() / 2
    }

    /// The two halves, with their hashes.
    fn split(self, left: ChainingValue, right: ChainingValue) -> (Self, Self) {
        let (middle, end) = (self.middle(), self.start + self.len);
        let node = self.node.and_then(|node| node.left_child());
        let left = Self { start: self.start, len: middle - self.start, hash: left, node };
        let node = self.node.and_then(|node| node.right_child());
        let mut right = Self { start: middle, len: end - middle, hash: right, node };
        // The right half may be less high than the left one: its node is the one below whose middle is its own.
        while let Some(node) = right.node.filter(|node| node.mid().0 > right.middle() * GROUP_CHUNKS) {
            right.node = node.left_child();
        }
        (left, right)
    }
}

/// What has been proved, and what is still to come.
#[derive(Debug)]
pub struct Verifier {
    size: u64,
    groups: u64,
    /// Groups that were asked for: ascending and apart, those that are through left out.
    wanted: std::iter::Peekable<std::vec::IntoIter<Range<u64>>>,
    /// The next subtree is the last one. Two for each level at most.
    stack: Vec<Subtree>,
}

impl Verifier {
    /// For the blob `id`, claimed to have `size` bytes, of which `ranges` were asked for (ascending; not empty).
    pub fn new(id: BlobId, size: u64, ranges: &[(u64, u64)]) -> Self {
        let groups = size.div_ceil(GROUP_LEN).max(1);
        let mut wanted: Vec<Range<u64>> = Vec::with_capacity(ranges.len());
        for &(start, end) in ranges {
            let end = end.min(size);
            if start >= end {
                continue;
            }
            let (start, end) = (start / GROUP_LEN, end.div_ceil(GROUP_LEN));
            match wanted.last_mut() {
                Some(last) if start <= last.end => last.end = last.end.max(end),
                _ => wanted.push(start..end),
            }
        }
        let root = Subtree {
            start: 0,
            len: groups,
            hash: id.0,
            node: blob::tree(size).pre_order_nodes_iter().next(),
        };
        Self { size, groups, wanted: wanted.into_iter().peekable(), stack: vec![root] }
    }

    /// What comes next; `None` at the end.
    pub fn poll_next(&mut self) -> Option<Next> {
        loop {
            let subtree = *self.stack.last()?;
            while self.wanted.next_if(|range| range.end <= subtree.start).is_some() {}
            let wanted = self.wanted.peek()?;
            if wanted.start >= subtree.start + subtree.len {
                self.stack.pop();
                continue;
            }
            return Some(if subtree.len == 1 {
                let offset = subtree.start * GROUP_LEN;
                let len = usize::try_from((self.size - offset).min(GROUP_LEN)).unwrap_or(0);
                Next::Group { offset, len }
            } else {
                Next::Pair(subtree.node?)
            });
        }
    }

    /// The pair that [`Next::Pair`] asked for. Says whether it is the right one.
    #[must_use]
    pub fn take_pair(&mut self, pair: &[u8; PAIR_LEN]) -> bool {
        let Some(subtree) = self.stack.pop() else { return false };
        let (left, right) = halves(pair);
        let hash = if self.is_root(&subtree) {
            *merge_subtrees_root(&left, &right, Mode::Hash).as_bytes()
        } else {
            merge_subtrees_non_root(&left, &right, Mode::Hash)
        };
        if hash != subtree.hash {
            self.stack.clear();
            return false;
        }
        let (left, right) = subtree.split(left, right);
        self.stack.push(right);
        self.stack.push(left);
        true
    }

    /// The bytes that [`Next::Group`] asked for. Says whether they are the right ones.
    #[must_use]
    pub fn take_group(&mut self, bytes: &[u8]) -> bool {
        let Some(subtree) = self.stack.pop() else { return false };
        let hash = if self.is_root(&subtree) {
            *blake3::hash(bytes).as_bytes()
        } else {
            Hasher::new().set_input_offset(subtree.start * GROUP_LEN).update(bytes).finalize_non_root()
        };
        if hash != subtree.hash {
            self.stack.clear();
            return false;
        }
        true
    }

    fn is_root(&self, subtree: &Subtree) -> bool {
        subtree.len == self.groups
    }
}

/// The two hashes of a pair.
pub(crate) fn halves(pair: &[u8; PAIR_LEN]) -> (ChainingValue, ChainingValue) {
    let (mut left, mut right) = ([0; 32], [0; 32]);
    left.copy_from_slice(&pair[..32]);
    right.copy_from_slice(&pair[32..]);
    (left, right)
}

#[cfg(test)]
mod tests {
    use std::io;

    use bao_tree::io::outboard::PreOrderOutboard;
    use bao_tree::io::sync::{CreateOutboard, encode_ranges_validated};
    use lighter_protocol::blob::{GROUP, chunk_ranges};
    use proptest::prelude::*;

    use super::*;

    fn bytes(size: u64) -> Vec<u8> {
        (0..size).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32).to_le_bytes()[0]).collect()
    }

    fn encoded(bytes: &[u8], ranges: &[(u64, u64)]) -> (BlobId, Vec<u8>) {
        let outboard = PreOrderOutboard::<Vec<u8>>::create(io::Cursor::new(bytes), GROUP).unwrap();
        let mut encoded = Vec::new();
        let chunks = chunk_ranges(ranges, bytes.len() as u64);
        encode_ranges_validated(bytes, &outboard, &chunks, &mut encoded).unwrap();
        (outboard.root.into(), encoded)
    }

    /// Runs a stream through a verifier: the verified bytes with their offsets, and the nodes; or where it failed.
    fn verify(
        id: BlobId,
        size: u64,
        ranges: &[(u64, u64)],
        mut stream: &[u8],
    ) -> Result<Vec<(u64, Vec<u8>)>, &'static str> {
        let mut verifier = Verifier::new(id, size, ranges);
        let mut groups = Vec::new();
        while let Some(next) = verifier.poll_next() {
            let len = if let Next::Group { len, .. } = next { len } else { PAIR_LEN };
            let (taken, rest) = stream.split_at_checked(len).ok_or("too few")?;
            stream = rest;
            let right = match next {
                Next::Pair(_) => verifier.take_pair(taken.try_into().unwrap()),
                Next::Group { offset, .. } => {
                    groups.push((offset, taken.to_vec()));
                    verifier.take_group(taken)
                }
            };
            if !right {
                assert_eq!(verifier.poll_next(), None);
                return Err("wrong");
            }
        }
        if stream.is_empty() { Ok(groups) } else { Err("too many") }
    }

    fn sizes() -> impl Strategy<Value = u64> {
        prop_oneof![
            1..200_000_u64,
            (1..20_u64, -1..=1_i64).prop_map(|(groups, off)| (groups * GROUP_LEN).saturating_add_signed(off)),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        // SPEC: D3
        #[test]
        fn what_bao_tree_encodes_is_verified_and_is_what_was_asked_for(
            size in sizes(),
            mut cuts in proptest::collection::vec(0..220_000_u64, 2..8),
        ) {
            cuts.sort_unstable();
            cuts.dedup();
            let ranges: Vec<(u64, u64)> = cuts.chunks_exact(2).map(|cut| (cut[0], cut[1])).collect();
            prop_assume!(!ranges.is_empty());
            let blob = bytes(size);
            let (id, stream) = encoded(&blob, &ranges);
            let groups = verify(id, size, &ranges, &stream).unwrap();
            for (offset, bytes) in &groups {
                let start = usize::try_from(*offset).unwrap();
                prop_assert_eq!(&blob[start..start + bytes.len()], &bytes[..]);
            }
            for group in 0..size.div_ceil(GROUP_LEN) {
                let start = group * GROUP_LEN;
                let end = (start + GROUP_LEN).min(size);
                let asked = ranges.iter().any(|range| range.0 < end && start < range.1.min(size));
                prop_assert_eq!(groups.iter().any(|(offset, _)| *offset == start), asked);
            }
        }

        #[test]
        fn bad_input_35_no_changed_byte_and_no_changed_length_gets_through(
            size in sizes(), at in any::<prop::sample::Index>(), bit in 0..8_u8, cut in any::<prop::sample::Index>(),
        ) {
            let (id, stream) = encoded(&bytes(size), &[(0, size)]);
            let mut wrong = stream.clone();
            let at = at.index(wrong.len());
            wrong[at] ^= 1 << bit;
            prop_assert_eq!(verify(id, size, &[(0, size)], &wrong), Err("wrong"));
            let short = &stream[..cut.index(stream.len())];
            prop_assert_eq!(verify(id, size, &[(0, size)], short), Err("too few"));
            let mut long = stream;
            long.push(0);
            prop_assert_eq!(verify(id, size, &[(0, size)], &long), Err("too many"));
        }

        #[test]
        fn bad_input_35_a_size_that_is_a_lie_never_verifies_as_a_whole(size in sizes(), other in sizes()) {
            prop_assume!(size != other);
            let (id, stream) = encoded(&bytes(size), &[(0, size)]);
            prop_assert!(verify(id, other, &[(0, other)], &stream).is_err());
        }
    }

    #[test]
    fn the_nodes_are_those_of_bao_tree() {
        let size = 37 * GROUP_LEN + 5;
        let tree = blob::tree(size);
        let bytes = bytes(size);
        let outboard = PreOrderOutboard::<Vec<u8>>::create(io::Cursor::new(&bytes), GROUP).unwrap();
        let mut verifier = Verifier::new(outboard.root.into(), size, &[(0, size)]);
        let mut offsets = Vec::new();
        while let Some(next) = verifier.poll_next() {
            match next {
                Next::Pair(node) => {
                    let offset = tree.pre_order_offset(node).unwrap();
                    let at = usize::try_from(offset).unwrap() * PAIR_LEN;
                    assert!(verifier.take_pair(outboard.data[at..at + PAIR_LEN].try_into().unwrap()));
                    offsets.push(offset);
                }
                Next::Group { offset, len } => {
                    let at = usize::try_from(offset).unwrap();
                    assert!(verifier.take_group(&bytes[at..at + len]));
                }
            }
        }
        assert_eq!(offsets, (0..tree.blocks() - 1).collect::<Vec<_>>());
    }

    #[test]
    fn the_empty_blob_and_ranges_beyond_the_end_have_nothing_to_send() {
        assert_eq!(Verifier::new(BlobId::of(b""), 0, &[(0, 10)]).poll_next(), None);
        assert_eq!(Verifier::new(BlobId::of(b"x"), 1, &[(1, 10)]).poll_next(), None);
    }

    #[test]
    fn the_largest_sizes_overflow_nothing() {
        for size in [1 << 40, (1 << 40) - 1, (1 << 50) + 1, u64::MAX >> 10] {
            let mut verifier = Verifier::new(BlobId([0; 32]), size, &[(0, u64::MAX)]);
            assert!(matches!(verifier.poll_next(), Some(Next::Pair(_))));
            assert!(!verifier.take_pair(&[0; PAIR_LEN]));
        }
    }
}
