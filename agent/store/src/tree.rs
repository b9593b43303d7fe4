//! The BLAKE3 tree of a blob on disk: its outboard (the inner hashes), and the proof that bytes on disk are the blob's.
//!
//! **Format of an outboard file**: the hash pairs (left, right: 32 bytes each) of every inner node whose children are
//! chunk groups or larger, in pre-order, nothing before or after. A subtree of `g` groups takes `g - 1` pairs, so the
//! left child of the node at index `i` is at `i + 1`, and the right child at `i + left groups`. A blob of one group has
//! no outboard. It is the layout of `bao_tree`'s `PreOrderOutboard` at [`GROUP`](lighter_protocol::blob::GROUP).

use std::io;
use std::ops::Range;

use blake3::hazmat::{
    ChainingValue, HasherExt, Mode, left_subtree_len, merge_subtrees_non_root, merge_subtrees_root,
};
use lighter_protocol::BlobId;
use lighter_protocol::blob::{self, GROUP_LEN, PAIR_LEN, RangeSet};

use crate::disk::DiskFile;

/// Bytes of the outboard of a blob of `size` bytes.
pub fn outboard_len(size: u64) -> u64 {
    (group_count(size) - 1) * PAIR_LEN as u64
}

/// Chunk groups of a blob of `size` bytes; the empty blob has one, of no bytes.
fn group_count(size: u64) -> u64 {
    size.div_ceil(GROUP_LEN).max(1)
}

/// A blob's two files, as they lie on disk.
#[derive(Clone, Copy, Debug)]
pub struct Files<'a> {
    /// The bytes.
    pub data: &'a dyn DiskFile,
    /// The inner hashes; none for a blob of one group.
    pub outboard: Option<&'a dyn DiskFile>,
}

/// Re-reads those groups that `wanted` touches and proves them against `id`: what verifies is given back. What is not
/// there, torn or rotten is simply not in the answer.
///
/// # Errors
/// Only where the disk fails to read; `UnexpectedEof` is a group that is not there.
pub fn verified(files: Files<'_>, id: BlobId, size: u64, wanted: &RangeSet) -> io::Result<RangeSet> {
    let mut proof = Proof::new(files, size, wanted);
    proof.prove(&Subtree::root(size), id.as_bytes())?;
    Ok(proof.proved)
}

/// Re-reads all of it; true where every byte is what `id` says.
///
/// # Errors
/// As [`verified`].
pub fn is_whole(files: Files<'_>, id: BlobId, size: u64) -> io::Result<bool> {
    if size == 0 {
        return Ok(id == blob::empty_id());
    }
    Ok(verified(files, id, size, &RangeSet::whole(size))?.is_whole(size))
}

/// The bytes of `range`, which begins and ends at groups' edges, each group proved against `id`.
///
/// # Errors
/// `InvalidData` where one of them is missing or not what `id` says; else what the disk says.
pub fn read(files: Files<'_>, id: BlobId, size: u64, range: Range<u64>) -> io::Result<Vec<u8>> {
    let wanted = RangeSet::from_iter([range.clone()]);
    let len = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
    let mut proof = Proof::new(files, size, &wanted);
    proof.bytes = Some(Vec::with_capacity(len));
    proof.prove(&Subtree::root(size), id.as_bytes())?;
    let bytes = proof.bytes.unwrap_or_default();
    if !proof.proved.contains(&range) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "data on disk is not what its hash says"));
    }
    Ok(bytes)
}

/// Reads `data` once and gives its id and size; with `outboard`, writes the inner hashes there.
///
/// # Errors
/// What the disk says.
pub fn build(data: &dyn DiskFile, size: u64, outboard: Option<&dyn DiskFile>) -> io::Result<BlobId> {
    let mut build = Build { data, size, outboard, buffer: vec![0; group_len_usize()] };
    Ok(BlobId(build.hash(&Subtree::root(size))?))
}

fn group_len_usize() -> usize {
    usize::try_from(GROUP_LEN).expect("a group is 16 KiB")
}

/// A node of the tree: the groups under it, and where its pair lies.
#[derive(Debug)]
struct Subtree {
    groups: Range<u64>,
    index: u64,
    is_root: bool,
}

impl Subtree {
    fn root(size: u64) -> Self {
        Self { groups: 0..group_count(size), index: 0, is_root: true }
    }

    /// The bytes under it, in a blob of `size` bytes.
    fn bytes(&self, size: u64) -> Range<u64> {
        (self.groups.start * GROUP_LEN).min(size)..(self.groups.end * GROUP_LEN).min(size)
    }

    fn is_group(&self) -> bool {
        self.groups.end - self.groups.start == 1
    }

    /// The two subtrees below (BLAKE3 §2.1: the left one is the largest power of two that leaves something right).
    fn split(&self, size: u64) -> (Self, Self) {
        let bytes = self.bytes(size);
        let left = left_subtree_len(bytes.end - bytes.start) / GROUP_LEN;
        let middle = self.groups.start + left;
        (
            Self { groups: self.groups.start..middle, index: self.index + 1, is_root: false },
            Self { groups: middle..self.groups.end, index: self.index + left, is_root: false },
        )
    }
}

fn hash_group(data: &[u8], offset: u64, is_root: bool) -> ChainingValue {
    let mut hasher = blake3::Hasher::new();
    if is_root {
        return *hasher.update(data).finalize().as_bytes();
    }
    hasher.set_input_offset(offset).update(data).finalize_non_root()
}

fn merge(left: &ChainingValue, right: &ChainingValue, is_root: bool) -> ChainingValue {
    if is_root {
        *merge_subtrees_root(left, right, Mode::Hash).as_bytes()
    } else {
        merge_subtrees_non_root(left, right, Mode::Hash)
    }
}

/// The two hashes of a pair.
pub(crate) fn pair_from(bytes: &[u8; PAIR_LEN]) -> (ChainingValue, ChainingValue) {
    let (mut left, mut right) = ([0; 32], [0; 32]);
    left.copy_from_slice(&bytes[..32]);
    right.copy_from_slice(&bytes[32..]);
    (left, right)
}

/// Walks down the tree from the root; goes only where something is wanted and everything above verified.
struct Proof<'a> {
    files: Files<'a>,
    size: u64,
    wanted: &'a RangeSet,
    buffer: Vec<u8>,
    proved: RangeSet,
    /// Where the proved bytes are gathered, if somebody wants them.
    bytes: Option<Vec<u8>>,
}

impl<'a> Proof<'a> {
    fn new(files: Files<'a>, size: u64, wanted: &'a RangeSet) -> Self {
        Self { files, size, wanted, buffer: vec![0; group_len_usize()], proved: RangeSet::new(), bytes: None }
    }

    fn prove(&mut self, subtree: &Subtree, expected: &ChainingValue) -> io::Result<()> {
        if !touches(self.wanted, &subtree.bytes(self.size)) {
            return Ok(());
        }
        if subtree.is_group() {
            return self.prove_group(subtree, expected);
        }
        let mut bytes = [0; PAIR_LEN];
        let Some(outboard) = self.files.outboard else { return Ok(()) };
        if !present(outboard.read_at(&mut bytes, subtree.index * PAIR_LEN as u64))? {
            return Ok(());
        }
        let (left, right) = pair_from(&bytes);
        if merge(&left, &right, subtree.is_root) != *expected {
            return Ok(());
        }
        let (left_tree, right_tree) = subtree.split(self.size);
        self.prove(&left_tree, &left)?;
        self.prove(&right_tree, &right)
    }

    fn prove_group(&mut self, subtree: &Subtree, expected: &ChainingValue) -> io::Result<()> {
        let range = subtree.bytes(self.size);
        let len = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        let buffer = &mut self.buffer[..len];
        if present(self.files.data.read_at(buffer, range.start))?
            && hash_group(buffer, range.start, subtree.is_root) == *expected
        {
            self.proved.insert(range);
            if let Some(bytes) = &mut self.bytes {
                bytes.extend_from_slice(buffer);
            }
        }
        Ok(())
    }
}

/// Whether any byte of `range` is in the set.
fn touches(set: &RangeSet, range: &Range<u64>) -> bool {
    set.iter().any(|held| held.start < range.end && range.start < held.end)
}

/// Whether a read found what it was to read; the end of the file is 'not there', not a failure.
fn present(read: io::Result<()>) -> io::Result<bool> {
    match read {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

struct Build<'a> {
    data: &'a dyn DiskFile,
    size: u64,
    outboard: Option<&'a dyn DiskFile>,
    buffer: Vec<u8>,
}

impl Build<'_> {
    fn hash(&mut self, subtree: &Subtree) -> io::Result<ChainingValue> {
        if subtree.is_group() {
            let range = subtree.bytes(self.size);
            let len = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
            let buffer = &mut self.buffer[..len];
            self.data.read_at(buffer, range.start)?;
            return Ok(hash_group(buffer, range.start, subtree.is_root));
        }
        let (left_tree, right_tree) = subtree.split(self.size);
        let left = self.hash(&left_tree)?;
        let right = self.hash(&right_tree)?;
        if let Some(outboard) = self.outboard {
            outboard.write_at(&[left, right].concat(), subtree.index * PAIR_LEN as u64)?;
        }
        Ok(merge(&left, &right, subtree.is_root))
    }
}
