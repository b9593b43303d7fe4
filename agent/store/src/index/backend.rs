//! redb's file, through the store's own seam to the disk: the index fails and crashes in tests like everything else.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::StorageBackend;

use crate::disk::{Disk, DiskFile};
use crate::limits::COPY_LEN;

/// The index's file.
const INDEX: &str = "index.redb";
/// Where it is copied to after a failed sync.
const INDEX_COPY: &str = "index.redb.copy";

/// The database's file on a [`Disk`]. It has no lock of its own: the folder's lock keeps other processes out.
#[derive(Debug)]
pub(crate) struct Backend {
    file: Arc<dyn DiskFile>,
    sync_failed: Arc<AtomicBool>,
}

impl Backend {
    pub(crate) fn open(disk: &dyn Disk, sync_failed: Arc<AtomicBool>) -> io::Result<Self> {
        let file = disk.open(INDEX, true)?;
        disk.sync_folder("")?;
        Ok(Self { file, sync_failed })
    }
}

/// Writes the index anew, page by page, after a sync of it failed: what is copied is what the system still shows, and
/// the copy's own sync says whether it is on the disk.
pub(crate) fn copy_afresh(disk: &dyn Disk) -> io::Result<()> {
    let (from, to) = (disk.open(INDEX, false)?, disk.open(INDEX_COPY, true)?);
    to.set_len(0)?;
    let len = from.len()?;
    let mut buffer = vec![0; COPY_LEN];
    let mut at = 0;
    while at < len {
        let part = usize::try_from((len - at).min(COPY_LEN as u64)).unwrap_or(COPY_LEN);
        from.read_at(&mut buffer[..part], at)?;
        to.write_at(&buffer[..part], at)?;
        at += part as u64;
    }
    to.sync()?;
    disk.rename(INDEX_COPY, INDEX)?;
    disk.sync_folder("")
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync().inspect_err(|_| self.sync_failed.store(true, Ordering::Release))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_at(data, offset)
    }
}
