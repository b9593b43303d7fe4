//! A file of the user's on its way into the store, to be sent: copied while it is hashed, since the user may change or
//! remove the file before everybody pulled it.

use std::io::{self, Read, Write};
use std::sync::Arc;

use lighter_protocol::{BlobId, UnixTime};

use crate::disk::DiskFile;
use crate::error::StoreError;
use crate::layout::Pair;
use crate::limits::BLOB_SIZE_MAX;
use crate::store::{Hold, Inner};
use crate::tree;

/// A file on its way in: written through [`io::Write`], ended by [`finish`](Import::finish). Dropped before that, it
/// leaves nothing behind.
#[derive(Debug)]
pub struct Import {
    store: Arc<Inner>,
    names: Pair,
    data: Arc<dyn DiskFile>,
    size: u64,
    /// A write failed, or it is finished: nothing more goes in.
    closed: bool,
}

impl Import {
    pub(crate) fn begin(store: &Arc<Inner>, number: u64) -> Result<Self, StoreError> {
        let names = Pair::import(number);
        let data =
            store.disk.open(&names.data, true).map_err(StoreError::io("creating a file in the store"))?;
        data.set_len(0).map_err(StoreError::io("creating a file in the store"))?;
        Ok(Self { store: Arc::clone(store), names, data, size: 0, closed: false })
    }

    /// Bytes written so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Gives up the import, and its bytes back, from the first.
    pub fn into_reader(self) -> ImportReader {
        ImportReader { import: self, position: 0 }
    }

    /// Gives the blob its final place, durable. It stays as long as it is held, and after that if a delivery refers to
    /// it.
    ///
    /// # Errors
    /// [`StoreError::Full`] and what else the disk says; nothing is left behind then.
    pub fn finish(mut self, hold: &Hold, now: UnixTime) -> Result<(BlobId, u64), StoreError> {
        if self.closed {
            return Err(StoreError::Io {
                doing: "ending an import",
                source: io::ErrorKind::BrokenPipe.into(),
            });
        }
        self.closed = true;
        let failed = || StoreError::io("hashing a file in the store");
        let outboard = if tree::outboard_len(self.size) == 0 {
            None
        } else {
            Some(self.store.disk.open(&self.names.tree, true).map_err(failed())?)
        };
        let blob = tree::build(&*self.data, self.size, outboard.as_deref()).map_err(failed())?;
        let outboard_synced = outboard.as_ref().map_or(Ok(()), |outboard| outboard.sync());
        outboard_synced
            .and_then(|()| self.data.sync())
            .map_err(|source| StoreError::SyncFailed { blob, source })?;
        hold.add(blob, self.size);
        self.store.place(&[(blob, self.size, self.names.clone())], Some(hold.id()), now)?;
        Ok((blob, self.size))
    }
}

impl Write for Import {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.closed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if self.size + data.len() as u64 > BLOB_SIZE_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        // A failed write may have left a part of it; the file is of no use any more.
        self.data.write_at(data, self.size).inspect_err(|_| self.closed = true)?;
        self.size += data.len() as u64;
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The bytes of an import that was given up; it is gone when this is dropped.
#[derive(Debug)]
pub struct ImportReader {
    import: Import,
    position: u64,
}

impl Read for ImportReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.import.size - self.position).unwrap_or(usize::MAX);
        let len = buffer.len().min(left);
        self.import.data.read_at(&mut buffer[..len], self.position)?;
        self.position += len as u64;
        Ok(len)
    }
}

impl Drop for Import {
    fn drop(&mut self) {
        // After the final place was given, these names are gone already.
        for name in [&self.names.data, &self.names.tree] {
            if let Err(error) = self.store.disk.remove(name) {
                tracing::debug!(%name, %error, "left for the next start to remove");
            }
        }
    }
}
