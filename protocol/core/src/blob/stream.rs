//! A blob that lies in portions, as `bao-tree` reads one: bytes and hashes, for sending a verified stream of it.
//!
//! Each portion is fetched once for its bytes and its pairs together, and one is held at a time: memory does not
//! depend on the blob's size, but for the upper tree (64 bytes a MiB). Nothing is hashed again for sending;
//! `encode_ranges_validated` checks each group on its way out.

use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bao_tree::io::fsm::{AsyncSliceReader, Outboard};
use bao_tree::{BaoTree, TreeNode};
use bytes::Bytes;

use super::portions::pair_at;
use super::{
    GROUP_CHUNKS, GROUP_LEN, PAIR_LEN, PORTION_CHUNKS, PORTION_LEN, PortionTree, portion_len,
    portion_pairs_len,
};

/// A portion as storage gives it: not trusted until the stream's own check.
#[derive(Clone, Debug)]
pub struct Portion {
    /// Its plaintext.
    pub bytes: Bytes,
    /// The pairs between it and its groups, in pre-order ([`super::HashedPortion::pairs`]).
    pub pairs: Bytes,
}

/// Where a blob's portions come from. The one who implements it may read ahead.
pub trait PortionSource: Send + Sync {
    /// The portion at `index`, from 0.
    fn portion(&self, index: u64) -> impl Future<Output = io::Result<Portion>> + Send;
}

/// A blob in portions: give one clone as the data and one as the outboard to `bao_tree::io::fsm::encode_ranges_validated`.
///
/// Clones share the portion that is held. One stream uses one pair of clones; another stream of the same blob makes
/// its own `PortionBlob` over the same tree and source, so that the two do not drive each other's portion out.
#[derive(Debug)]
pub struct PortionBlob<S> {
    tree: Arc<PortionTree>,
    source: Arc<S>,
    held: Arc<Mutex<Option<(u64, Portion)>>>,
}

impl<S> Clone for PortionBlob<S> {
    fn clone(&self) -> Self {
        Self { tree: Arc::clone(&self.tree), source: Arc::clone(&self.source), held: Arc::clone(&self.held) }
    }
}

impl<S: PortionSource> PortionBlob<S> {
    /// The blob that `tree` describes, read from `source`.
    pub fn new(tree: Arc<PortionTree>, source: Arc<S>) -> Self {
        Self { tree, source, held: Arc::default() }
    }

    /// The upper tree.
    pub fn portion_tree(&self) -> &PortionTree {
        &self.tree
    }

    async fn portion(&self, index: u64) -> io::Result<Portion> {
        if let Some(portion) = self.held(index) {
            return Ok(portion);
        }
        let portion = self.source.portion(index).await?;
        let len = portion_len(self.tree.size(), index);
        if portion.bytes.len() as u64 != len || portion.pairs.len() != portion_pairs_len(len) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a portion of the wrong length"));
        }
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = Some((index, portion.clone()));
        Ok(portion)
    }

    fn held(&self, index: u64) -> Option<Portion> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.as_ref().filter(|(at, _)| *at == index).map(|(_, portion)| portion.clone())
    }

    async fn pair(&self, node: TreeNode) -> io::Result<Option<[u8; PAIR_LEN]>> {
        let middle = node.mid().0;
        if !middle.is_multiple_of(GROUP_CHUNKS) {
            return Ok(None); // below a group: not kept, by design
        }
        if middle.is_multiple_of(PORTION_CHUNKS) {
            return Ok(self.tree.upper_pair(middle / PORTION_CHUNKS));
        }
        let index = middle / PORTION_CHUNKS;
        let groups = portion_len(self.tree.size(), index).div_ceil(GROUP_LEN);
        let middle = middle % PORTION_CHUNKS / GROUP_CHUNKS;
        if middle >= groups {
            return Ok(None); // no such node in this blob
        }
        Ok(pair_at(&self.portion(index).await?.pairs, groups, middle))
    }
}

impl<S: PortionSource> Outboard for PortionBlob<S> {
    fn root(&self) -> blake3::Hash {
        self.tree.id().hash()
    }

    fn tree(&self) -> BaoTree {
        super::tree(self.tree.size())
    }

    async fn load(&mut self, node: TreeNode) -> io::Result<Option<(blake3::Hash, blake3::Hash)>> {
        let Some(pair) = self.pair(node).await? else { return Ok(None) };
        let (left, right) = pair.split_at(PAIR_LEN / 2);
        let hash = |half: &[u8]| half.try_into().map(blake3::Hash::from_bytes).map_err(io::Error::other);
        Ok(Some((hash(left)?, hash(right)?)))
    }
}

impl<S: PortionSource> AsyncSliceReader for PortionBlob<S> {
    /// Gives at most what one portion holds; a group never lies in two.
    async fn read_at(&mut self, offset: u64, len: usize) -> io::Result<Bytes> {
        if offset >= self.tree.size() || len == 0 {
            return Ok(Bytes::new());
        }
        let bytes = self.portion(offset / PORTION_LEN).await?.bytes;
        let start = usize::try_from(offset % PORTION_LEN).map_err(io::Error::other)?;
        Ok(bytes.slice(start..start.saturating_add(len).min(bytes.len())))
    }

    async fn size(&mut self) -> io::Result<u64> {
        Ok(self.tree.size())
    }
}
