//! A file, read ahead in large pieces, for sending a verified stream of it.

use std::fs::File;
use std::io;
use std::sync::Arc;

use bao_tree::io::fsm::AsyncSliceReader;
use bytes::Bytes;
use rustix::buffer::spare_capacity;

use crate::limits::{OUTBOARD_READ_AHEAD_LEN, READ_AHEAD_LEN};

/// A file that gives slices of itself; one large piece is held at a time. Each stream uses its own: those of one blob can
/// share the file.
#[derive(Clone, Debug)]
pub struct FileSlices {
    file: Arc<File>,
    /// Where in the file they begin.
    start: u64,
    /// Bytes of the file that count: what is behind them is not read.
    len: u64,
    read_ahead: usize,
    held_at: u64,
    held: Bytes,
}

impl FileSlices {
    /// The file of a blob of `size` bytes.
    pub fn of_blob(file: impl Into<Arc<File>>, size: u64) -> Self {
        Self {
            file: file.into(),
            start: 0,
            len: size,
            read_ahead: READ_AHEAD_LEN,
            held_at: 0,
            held: Bytes::new(),
        }
    }

    /// The same where the blob begins at `start` of the file, for who opens it where one may block: what fits into one piece
    /// is read at once, and not waited for later.
    ///
    /// # Errors
    /// What the system says.
    pub fn of_blob_read(file: impl Into<Arc<File>>, start: u64, size: u64) -> io::Result<Self> {
        let mut slices = Self { start, ..Self::of_blob(file, size) };
        if let Ok(len) = usize::try_from(size)
            && len <= slices.read_ahead
        {
            slices.held = read_up_to(&slices.file, start, len)?;
        }
        Ok(slices)
    }

    /// The file of its outboard: pairs of hashes, in pre-order or in post-order, nothing in front.
    pub fn of_outboard(file: impl Into<Arc<File>>, size: u64) -> Self {
        let len = lighter_protocol::blob::tree(size).outboard_size();
        Self { len, read_ahead: OUTBOARD_READ_AHEAD_LEN, ..Self::of_blob(file, size) }
    }

    /// What is held of the range, from its start on.
    fn held(&self, offset: u64, len: usize) -> Option<Bytes> {
        let start = usize::try_from(offset.checked_sub(self.held_at)?).ok()?;
        let end = start.checked_add(len)?;
        (end <= self.held.len()).then(|| self.held.slice(start..end))
    }
}

impl AsyncSliceReader for FileSlices {
    async fn read_at(&mut self, offset: u64, len: usize) -> io::Result<Bytes> {
        let left = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let len = len.min(left);
        if let Some(bytes) = self.held(offset, len) {
            return Ok(bytes);
        }
        let wanted = len.max(self.read_ahead.min(left));
        let (file, at) = (Arc::clone(&self.file), self.start.saturating_add(offset));
        let read = tokio::task::spawn_blocking(move || read_up_to(&file, at, wanted));
        self.held = read.await.map_err(io::Error::other)??;
        self.held_at = offset;
        // A file that is shorter than it should be gives less than was asked for: `bao-tree` takes it for damage.
        Ok(self.held.slice(..len.min(self.held.len())))
    }

    async fn size(&mut self) -> io::Result<u64> {
        Ok(self.len)
    }
}

/// `len` bytes from `offset` on, or what there is of them.
fn read_up_to(file: &File, offset: u64, len: usize) -> io::Result<Bytes> {
    let mut bytes = Vec::with_capacity(len);
    while bytes.len() < len {
        let at = offset + bytes.len() as u64;
        match rustix::io::pread(file, spare_capacity(&mut bytes), at) {
            Ok(0) => break,
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    // The allocation may be a little larger than asked for.
    bytes.truncate(len);
    Ok(bytes.into())
}
