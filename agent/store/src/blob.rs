//! A complete blob, open for reading: every group is proved against the blob's id before it is given out, so that a
//! disk that rots is found here and not by whoever asked.

use std::io;
use std::sync::Arc;

use bao_tree::TreeNode;
use lighter_protocol::BlobId;
use lighter_protocol::blob::{self, PAIR_LEN};

use crate::disk::DiskFile;
use crate::limits::COPY_LEN;
use crate::tree::{self, Files};

/// The bytes of a small blob, as they were when it was opened.
#[derive(Debug)]
pub(crate) struct InMemory(Vec<u8>);

impl InMemory {
    /// Reads them from where they lie.
    pub(crate) fn read(from: &dyn DiskFile, offset: u64, size: u64) -> io::Result<Self> {
        let mut bytes = vec![0; usize::try_from(size).map_err(io::Error::other)?];
        match from.read_at(&mut bytes, offset) {
            // What is not there any more is damage, and found as that.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => bytes.clear(),
            result => result?,
        }
        Ok(Self(bytes))
    }
}

impl DiskFile for InMemory {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let part = start.checked_add(buffer.len()).and_then(|end| self.0.get(start..end));
        buffer.copy_from_slice(part.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A complete blob. Stays readable while it is open, also after it was removed.
#[derive(Clone, Debug)]
pub struct StoredBlob {
    id: BlobId,
    size: u64,
    data: Arc<dyn DiskFile>,
    outboard: Option<Arc<dyn DiskFile>>,
}

impl StoredBlob {
    pub(crate) fn new(
        id: BlobId,
        size: u64,
        data: Arc<dyn DiskFile>,
        outboard: Option<Arc<dyn DiskFile>>,
    ) -> Self {
        Self { id, size, data, outboard }
    }

    /// Its id.
    pub fn id(&self) -> BlobId {
        self.id
    }

    /// Bytes in it.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Fills `buffer` from `offset` on, *unverified*: for an encoder that verifies what it sends, and for
    /// [`reader`](Self::reader).
    ///
    /// # Errors
    /// `UnexpectedEof` beyond the end; else what the disk says.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.data.read_at(buffer, offset)
    }

    /// A node's hash pair; none for nodes inside a group, which the outboard does not keep.
    ///
    /// # Errors
    /// What the disk says.
    pub fn pair(&self, node: TreeNode) -> io::Result<Option<(blake3::Hash, blake3::Hash)>> {
        let Some(outboard) = &self.outboard else { return Ok(None) };
        let Some(index) = blob::tree(self.size).pre_order_offset(node) else { return Ok(None) };
        let mut pair = [0; PAIR_LEN];
        outboard.read_at(&mut pair, index * PAIR_LEN as u64)?;
        let (left, right) = tree::pair_from(&pair);
        Ok(Some((left.into(), right.into())))
    }

    /// Re-reads all of it; true where every byte is what the id says.
    ///
    /// # Errors
    /// What the disk says.
    pub fn is_intact(&self) -> io::Result<bool> {
        tree::is_whole(self.files(), self.id, self.size)
    }

    /// Its bytes in order, each group proved before it is given out.
    pub fn reader(&self) -> BlobReader {
        BlobReader { blob: self.clone(), next: 0, window: Vec::new(), given: 0 }
    }

    fn files(&self) -> Files<'_> {
        Files { data: &*self.data, outboard: self.outboard.as_deref() }
    }
}

/// Reads a blob from its beginning to its end.
#[derive(Debug)]
pub struct BlobReader {
    blob: StoredBlob,
    /// The first byte that was not read yet.
    next: u64,
    /// Proved bytes; those before `given` were given out.
    window: Vec<u8>,
    given: usize,
}

impl BlobReader {
    fn fill(&mut self) -> io::Result<()> {
        let end = (self.next + COPY_LEN as u64).min(self.blob.size);
        self.window = tree::read(self.blob.files(), self.blob.id, self.blob.size, self.next..end)?;
        self.given = 0;
        self.next = end;
        Ok(())
    }
}

impl io::Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.given == self.window.len() && self.next < self.blob.size {
            self.fill()?;
        }
        let len = buffer.len().min(self.window.len() - self.given);
        buffer[..len].copy_from_slice(&self.window[self.given..self.given + len]);
        self.given += len;
        Ok(len)
    }
}
