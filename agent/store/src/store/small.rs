//! Small blobs ([`crate::packs`]): taken in, made durable together, let go of.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use lighter_protocol::{BlobId, UnixTime, blob};

use super::{Inner, Store, data_of};
use crate::disk::DiskFile;
use crate::error::StoreError;
use crate::index::Place;
use crate::layout;
use crate::packs::{self, Pack};

impl Store {
    /// Takes in small blobs ([`blob::is_small`]), each verified and whole. They are on the disk as far as a killed process is concerned; to make
    /// them durable is [`Store::seal`]'s part, and true says that it is due. One that is here already is here once.
    ///
    /// # Errors
    /// [`StoreError::OutOfPlace`] where one is not small, or not what its id says; else what the disk says. None of them is
    /// taken in then.
    pub fn keep<B: AsRef<[u8]>>(&self, blobs: &[(BlobId, B)]) -> Result<bool, StoreError> {
        self.0.packs.append(&*self.0.disk, blobs)
    }

    /// Reads small blobs, in this order, for who verifies what they read.
    ///
    /// # Errors
    /// [`StoreError::NoBlob`] where one is not here, or not small; else what index and disk say.
    pub fn read_small(&self, blobs: &[BlobId]) -> Result<Vec<Bytes>, StoreError> {
        let rows = self.0.index.blobs(blobs)?;
        let mut last: Option<(String, Arc<dyn DiskFile>)> = None;
        let mut read = Vec::with_capacity(blobs.len());
        for (blob, row) in blobs.iter().zip(rows) {
            let (size, place) =
                row.filter(|(size, _)| blob::is_small(*size)).ok_or(StoreError::NoBlob(*blob))?;
            let (name, offset) = data_of(*blob, place);
            let file = match &last {
                Some((open, file)) if *open == name => Arc::clone(file),
                _ => self.open_file(*blob, &name)?,
            };
            last = Some((name, Arc::clone(&file)));
            let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
            file.read_at(&mut bytes, offset).map_err(StoreError::io("reading a small blob"))?;
            read.push(bytes.into());
        }
        Ok(read)
    }

    /// Makes the small blobs that were taken in durable and complete, those that a delivery refers to; the others are let go of.
    /// A blob that another thread is just sealing is complete when this returns.
    ///
    /// # Errors
    /// [`StoreError::SyncFailed`] where a sync failed: what was in that file is given up (rule 1). What the index says leaves
    /// them to be sealed another time.
    pub fn seal(&self, now: UnixTime) -> Result<(), StoreError> {
        let _one_at_a_time = self.0.packs.sealing();
        while let Some(pack) = self.0.packs.take() {
            if let Err(source) = self.0.sync_pack(&pack) {
                self.0.packs.is_over(&pack);
                self.0.remove_pack(pack.number);
                let blob = pack.blobs.first().map_or(BlobId([0; 32]), |packed| packed.blob);
                return Err(StoreError::SyncFailed { blob, source });
            }
            let _placing = self.0.placing();
            match self.0.index.place_packed(pack.number, &pack.blobs, now) {
                Ok(0) => self.0.remove_pack(pack.number),
                Ok(_) => {}
                Err(error) => {
                    self.0.packs.put_back(pack);
                    return Err(error.into());
                }
            }
            self.0.packs.is_over(&pack);
        }
        Ok(())
    }

    /// A blob that is written and not complete yet is made so.
    pub(super) fn seal_if_waiting(&self, blob: &BlobId, now: UnixTime) -> Result<(), StoreError> {
        if self.0.packs.is_waiting(blob) { self.seal(now) } else { Ok(()) }
    }

    /// What an earlier process left: packs that nothing refers to are removed, and what proves true in one that was never
    /// sealed is taken over. Gives how many files are gone.
    pub(super) fn recover_packs(&self, now: UnixTime) -> Result<usize, StoreError> {
        let listed = self.0.disk.list(layout::PACKS).map_err(StoreError::io("listing the store"))?;
        let (known, mut removed) = (self.0.index.packs()?, 0);
        let listed: Vec<_> = listed.iter().filter_map(|name| layout::pack_from_name(name)).collect();
        self.0.packs.number_from(known.iter().chain(&listed).max().map_or(0, |last| last + 1));
        for number in listed.into_iter().filter(|number| known.binary_search(number).is_err()) {
            let name = layout::pack(number);
            let file = self.0.disk.open(&name, false).map_err(StoreError::io("opening a pack"))?;
            let blobs = packs::read(&*file).map_err(StoreError::io("reading a pack"))?;
            let pack = Pack::found(number, file, blobs);
            let is_durable = pack.blobs.is_empty() || self.0.sync_pack(&pack).is_ok();
            if !is_durable || self.0.index.place_packed(number, &pack.blobs, now)? == 0 {
                self.0.disk.remove(&name).map_err(StoreError::io("removing a stray file"))?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

impl Inner {
    /// Content and name.
    fn sync_pack(&self, pack: &Pack) -> io::Result<()> {
        pack.file.sync()?;
        self.disk.sync_folder(layout::PACKS)
    }

    /// A failure leaves a file that nothing refers to, for the next start.
    pub(super) fn remove_pack(&self, number: u64) {
        let name = layout::pack(number);
        if let Err(error) = self.disk.remove(&name) {
            tracing::warn!(%name, %error, "a file that nothing refers to stays until the next start");
        }
    }

    /// Where the others in its pack are still needed, a blob leaves a hole.
    pub(super) fn free_packed(&self, place: Place) {
        let name = layout::pack(place.pack);
        if let Err(error) = self.disk.free_range(&name, place.offset..place.offset + place.size) {
            tracing::debug!(%name, %error, "the space of a small blob comes back with that of its file");
        }
    }

    /// What is damaged in a pack is kept apart, to be looked at; where that fails it is only gone.
    pub(super) fn copy_out(&self, place: Place, to: &str) {
        let copied = self.disk.open(&layout::pack(place.pack), false).and_then(|from| {
            let mut bytes = vec![0; usize::try_from(place.size).unwrap_or(0)];
            from.read_at(&mut bytes, place.offset)?;
            self.disk.open(to, true)?.write_at(&bytes, 0)
        });
        if let Err(error) = copied {
            tracing::warn!(%to, %error, "a damaged blob could not be set aside");
        }
    }
}
