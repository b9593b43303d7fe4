//! What a crash can leave between two steps, and how it is mended: at the start, and when a blob is next wanted.
//!
//! | the crash came | what is there | what is done |
//! |---|---|---|
//! | while a blob was written | partial files, some groups on record | the pull goes on ([`crate::partial`]) |
//! | after the outboard got its final place | outboard in `blobs/`, data in `partial/` | taken back when the blob is wanted |
//! | after the data got its place, before the row | both in `blobs/`, no row | re-read and taken over when the blob is wanted |
//! | after a row was removed, before its files | files that nothing refers to | removed at the start |
//! | before a pack was sealed | a pack that the index does not know | what proves true in it, and is referred to, is taken over at the start |
//! | after a pack's last row was removed, before it | the same | the same |
//! | while the user's file was taken in | `partial/import-N` | removed at the start |
//! | while a message was being sent | blobs that only a hold refers to | removed at the start |

use std::io;
use std::sync::Arc;

use lighter_protocol::{BlobId, UnixTime};

use super::Store;
use crate::disk::DiskFile;
use crate::error::StoreError;
use crate::layout::{self, Pair};
use crate::tree::{self, Files};

/// What was found and mended at a start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Rows of blobs that no delivery refers to.
    pub rows: usize,
    /// Files that nothing refers to.
    pub files: usize,
}

impl Store {
    /// Removes what nothing refers to.
    pub(super) fn recover(&self) -> Result<Recovered, StoreError> {
        let dropped = self.0.index.drop_unreferenced()?;
        self.0.remove_files(&dropped);
        let mut recovered = Recovered { rows: dropped.len(), files: 0 };
        let listing = |folder| self.0.disk.list(folder).map_err(StoreError::io("listing the store"));
        for name in listing(layout::BLOBS)? {
            let blob = layout::complete_from_name(&name);
            recovered.files += self.remove_stray(layout::BLOBS, &name, blob)?;
        }
        for name in listing(layout::PARTIAL)? {
            let blob = layout::partial_from_name(&name).map(|(blob, _)| blob);
            // One that came complete by another way, as small ones do, needs no part of itself.
            let blob = match blob {
                Some(blob) if self.0.index.blob_size(blob)?.is_some() => None,
                blob => blob,
            };
            recovered.files += self.remove_stray(layout::PARTIAL, &name, blob)?;
        }
        recovered.files += self.recover_packs(UnixTime::now())?;
        Ok(recovered)
    }

    fn remove_stray(&self, folder: &str, name: &str, blob: Option<BlobId>) -> Result<usize, StoreError> {
        if let Some(blob) = blob
            && self.0.index.is_referenced(blob)?
        {
            return Ok(0);
        }
        self.0.disk.remove(&format!("{folder}/{name}")).map_err(StoreError::io("removing a stray file"))?;
        Ok(1)
    }

    /// Takes over files that got their final place before a crash; true where the blob is held now. Half of a pair, or
    /// one that does not prove true, is taken back to where the pull can go on with it.
    pub(super) fn adopt(&self, blob: BlobId, size: u64, now: UnixTime) -> Result<bool, StoreError> {
        let names = Pair::complete(blob);
        let _placing = self.0.placing();
        let (data, outboard) = (self.open_if_there(&names.data)?, self.open_if_there(&names.tree)?);
        if data.is_none() && outboard.is_none() {
            return Ok(false);
        }
        if let Some(data) = data
            && is_whole(&*data, outboard.as_deref(), blob, size)
                .map_err(StoreError::io("re-reading a blob"))?
        {
            // The renames may have reached the disk or not; the data was synced before them.
            self.0.sync_places(&[(blob, size)])?;
            self.0.index.place(&[(blob, size)], None, now)?;
            return Ok(true);
        }
        self.0.index.forget_partial(blob, size)?;
        let partial = Pair::partial(blob, size);
        for (from, to) in [(&names.data, &partial.data), (&names.tree, &partial.tree)] {
            if self.open_if_there(from)?.is_some() {
                self.0.disk.rename(from, to).map_err(StoreError::io("taking a file back"))?;
            }
        }
        Ok(false)
    }

    fn open_if_there(&self, name: &str) -> Result<Option<Arc<dyn DiskFile>>, StoreError> {
        match self.0.disk.open(name, false) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::io("looking for a blob")(error)),
        }
    }
}

fn is_whole(
    data: &dyn DiskFile,
    outboard: Option<&dyn DiskFile>,
    blob: BlobId,
    size: u64,
) -> io::Result<bool> {
    Ok(data.len()? == size && tree::is_whole(Files { data, outboard }, blob, size)?)
}
