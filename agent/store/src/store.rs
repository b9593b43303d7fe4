//! The store: one owner of files and index, shared through cloneable handles. Its calls block on the disk: from async
//! code they go to a blocking thread.

mod deliveries;
mod drops;
mod hold;
mod recovery;
mod sharings;
mod small;

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Take};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::Duration;

use lighter_protocol::blob::RangeSet;
use lighter_protocol::{BlobId, DeliveryId, UnixTime};
use serde::{Deserialize, Serialize};

use crate::blob::{InMemory, StoredBlob};
use crate::disk::{Disk, DiskFile, OsDisk};
use crate::error::{OpenError, StoreError};
use crate::import::Import;
use crate::index::{Dropped, FORMAT, Index, Place};
use crate::layout::{self, Pair};
use crate::limits::BLOB_SIZE_MAX;
use crate::packs::Packs;
use crate::partial::Partial;
use crate::tree;

pub use deliveries::{Admission, Durable, Space};
pub use hold::Hold;
pub use recovery::Recovered;

/// What the user decides about their store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Bytes that attachments may take; `None`: as much as the disk has.
    pub quota: Option<u64>,
    /// How long attachments are kept after they were receipted; `None`: until the user removes them.
    pub retention: Option<Duration>,
    /// The largest attachment that is taken, in bytes.
    pub blob_size_max: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { quota: None, retention: None, blob_size_max: BLOB_SIZE_MAX }
    }
}

/// The recipient's attachment storage; a cloneable handle.
#[derive(Clone, Debug)]
pub struct Store(pub(crate) Arc<Inner>);

/// What all handles share.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) index: Index,
    /// Behind the index: the folder's lock ends with it, and the index's file is still written to while that is closed.
    pub(crate) disk: Arc<dyn Disk>,
    settings: RwLock<Settings>,
    /// Blobs on their way in that somebody holds: one handle each, shared.
    partials: Mutex<HashMap<(BlobId, u64), Weak<Partial>>>,
    /// Held while a blob gets its final place or is removed from it: files and rows change as one.
    placing: Mutex<()>,
    pub(crate) packs: Packs,
    imports: AtomicU64,
    holds: AtomicU64,
}

/// A blob that somebody wants to have here.
#[derive(Clone, Debug)]
pub enum Wanted {
    /// It is complete.
    Held,
    /// It is on its way in: pull what is missing.
    Partial(Arc<Partial>),
}

/// What of a blob is here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Here {
    /// All of it, durable.
    Whole,
    /// These bytes, verified when they were written.
    Part(RangeSet),
}

/// Where a complete blob lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobFiles {
    /// Bytes in it.
    pub size: u64,
    /// The file that the bytes are in.
    pub data: PathBuf,
    /// Where they begin in it: small blobs are many to a file.
    pub offset: u64,
    /// The inner hashes, as `bao-tree`'s `PreOrderOutboard` has them; none for a blob of one group.
    pub outboard: Option<PathBuf>,
}

impl BlobFiles {
    /// Opens the bytes for reading from the first to the last, *unverified*.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(&self) -> io::Result<Take<File>> {
        let mut file = File::open(&self.data)?;
        file.seek(SeekFrom::Start(self.offset))?;
        Ok(file.take(self.size))
    }
}

impl Store {
    /// Opens the store in `folder`, made where it is missing, and mends what a crash left.
    ///
    /// # Errors
    /// [`OpenError::InUse`] where another process has it: speak to the agent that runs.
    pub fn open(folder: &Path, settings: Settings) -> Result<Self, OpenError> {
        let disk = OsDisk::take(folder, &[layout::BLOBS, layout::PARTIAL, layout::PACKS, layout::DAMAGED])?;
        Self::open_on(Arc::new(disk), settings)
    }

    /// Opens the store on a given disk.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_on(disk: Arc<dyn Disk>, settings: Settings) -> Result<Self, OpenError> {
        let index = Index::open(Arc::clone(&disk))?;
        let found = index.format()?;
        if found > FORMAT {
            return Err(OpenError::Format { found, known: FORMAT });
        }
        let store = Self(Arc::new(Inner {
            disk,
            index,
            settings: RwLock::new(settings),
            partials: Mutex::default(),
            placing: Mutex::default(),
            packs: Packs::default(),
            imports: AtomicU64::new(0),
            holds: AtomicU64::new(0),
        }));
        let recovered = store.recover()?;
        if recovered != Recovered::default() {
            tracing::info!(?recovered, "what a crash left was mended");
        }
        Ok(store)
    }

    /// What the user decided.
    pub fn settings(&self) -> Settings {
        *self.0.settings.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The user has decided otherwise: it holds from now on. What is here already stays.
    pub fn change_settings(&self, settings: Settings) {
        *self.0.settings.write().unwrap_or_else(PoisonError::into_inner) = settings;
    }

    /// A number that only grows, durable: at least `floor`, and higher than the last one given under this name.
    ///
    /// # Errors
    /// What the index says.
    pub fn next_number(&self, name: &str, floor: u64) -> Result<u64, StoreError> {
        // The user's counters are kept apart from the store's own numbers.
        Ok(self.0.index.next(&format!("counter {name}"), floor)?)
    }

    /// Begins, or goes on with, a blob of `size` bytes.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`] over the settings' bound; else what the disk says.
    pub fn want(&self, blob: BlobId, size: u64, now: UnixTime) -> Result<Wanted, StoreError> {
        if size > self.settings().blob_size_max.max(crate::limits::MANIFEST_SIZE_MAX) {
            return Err(StoreError::TooLarge { size });
        }
        self.seal_if_waiting(&blob, now)?;
        if self.holds(blob)? || self.adopt(blob, size, now)? {
            return Ok(Wanted::Held);
        }
        let mut partials = self.0.partials();
        partials.retain(|_, partial| partial.strong_count() > 0);
        if let Some(partial) = partials.get(&(blob, size)).and_then(Weak::upgrade)
            && !partial.is_given_up()
        {
            return Ok(Wanted::Partial(partial));
        }
        let partial = Arc::new(Partial::open(&self.0, blob, size)?);
        partials.insert((blob, size), Arc::downgrade(&partial));
        Ok(Wanted::Partial(partial))
    }

    /// Gives complete blobs their final place, durable; several cost hardly more than one.
    ///
    /// # Errors
    /// [`StoreError::Incomplete`] where one is not all here; [`StoreError::SyncFailed`] where a sync failed: that one
    /// is given up. None of them has its place then, and those that are whole can be given again.
    pub fn finish(&self, partials: &[Arc<Partial>], now: UnixTime) -> Result<(), StoreError> {
        let mut whole = Vec::with_capacity(partials.len());
        let mut seen = HashSet::with_capacity(partials.len());
        for partial in partials {
            // Shared by two pulls, it may have been finished by the other one.
            if seen.insert(partial.blob()) && !self.holds(partial.blob())? {
                partial.prove()?;
                whole.push(partial);
            }
        }
        let files: Vec<_> = whole.iter().flat_map(|partial| partial.files()).collect();
        let mut synced = self.0.disk.sync_files(&files).into_iter();
        let mut failed = None;
        for partial in &whole {
            let mut result = Ok(());
            for _ in partial.files() {
                result = result.and(synced.next().unwrap_or_else(|| Err(io::Error::other("not synced"))));
            }
            failed = result.map_err(|source| partial.give_up(source)).err().or(failed);
        }
        if let Some(failed) = failed {
            return Err(failed);
        }
        let placing = |partial: &&Arc<Partial>| {
            (partial.blob(), partial.size(), Pair::partial(partial.blob(), partial.size()))
        };
        self.0.place(&whole.iter().map(placing).collect::<Vec<_>>(), None, now)
    }

    /// Whether the blob is complete here. Says nothing about what the disk did to it since: [`Store::recheck`] does.
    ///
    /// # Errors
    /// What the index says.
    pub fn holds(&self, blob: BlobId) -> Result<bool, StoreError> {
        Ok(self.0.index.blob_size(blob)?.is_some())
    }

    /// Re-reads a blob that is complete here, before anybody is told that it is (rule 4). A damaged one is set aside
    /// and no longer held.
    ///
    /// # Errors
    /// What the disk says.
    pub fn recheck(&self, blob: BlobId) -> Result<bool, StoreError> {
        let stored = match self.open_blob(blob) {
            Ok(stored) => stored,
            Err(StoreError::NoBlob(_)) => return Ok(false),
            Err(error) => return Err(error),
        };
        if stored.is_intact().map_err(StoreError::io("re-reading a blob"))? {
            return Ok(true);
        }
        self.set_aside(blob)?;
        Ok(false)
    }

    /// Opens a complete blob for reading.
    ///
    /// # Errors
    /// [`StoreError::NoBlob`] where it is not here.
    pub fn open_blob(&self, blob: BlobId) -> Result<StoredBlob, StoreError> {
        let (size, packed) = self.0.index.blob(blob)?.ok_or(StoreError::NoBlob(blob))?;
        let (name, offset) = data_of(blob, packed);
        let data = self.open_file(blob, &name)?;
        if packed.is_some() {
            let data = InMemory::read(&*data, offset, size);
            let data = data.map_err(StoreError::io("reading a small blob"))?;
            return Ok(StoredBlob::new(blob, size, Arc::new(data), None));
        }
        let outboard = match tree::outboard_len(size) {
            0 => None,
            _ => Some(self.open_file(blob, &Pair::complete(blob).tree)?),
        };
        Ok(StoredBlob::new(blob, size, data, outboard))
    }

    /// Opens a file that a complete blob, or some of it, lies in.
    fn open_file(&self, blob: BlobId, name: &str) -> Result<Arc<dyn DiskFile>, StoreError> {
        match self.0.disk.open(name, false) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(StoreError::NoBlob(blob)),
            result => result.map_err(StoreError::io("opening a blob")),
        }
    }

    /// The files of a complete blob, for who reads them with their own means and verifies what they read.
    ///
    /// # Errors
    /// [`StoreError::NoBlob`] where it is not here.
    pub fn files_of(&self, blob: BlobId) -> Result<BlobFiles, StoreError> {
        let (size, packed) = self.0.index.blob(blob)?.ok_or(StoreError::NoBlob(blob))?;
        let (name, offset) = data_of(blob, packed);
        let path = |name: &str| self.0.disk.path(name).ok_or(StoreError::NoBlob(blob));
        let outboard = match tree::outboard_len(size) {
            0 => None,
            _ => Some(path(&Pair::complete(blob).tree)?),
        };
        Ok(BlobFiles { size, data: path(&name)?, offset, outboard })
    }

    /// What of a blob is here: complete, or verified in part. It is asked without making any file.
    ///
    /// # Errors
    /// What disk or index say.
    pub fn here(&self, blob: BlobId, size: u64, now: UnixTime) -> Result<Here, StoreError> {
        self.seal_if_waiting(&blob, now)?;
        if self.holds(blob)? {
            return Ok(Here::Whole);
        }
        let exists = |name: &str| match self.0.disk.open(name, false) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(StoreError::io("looking for a blob")(error)),
        };
        if !exists(&Pair::partial(blob, size).data)? && !exists(&Pair::complete(blob).data)? {
            return Ok(Here::Part(RangeSet::new()));
        }
        Ok(match self.want(blob, size, now)? {
            Wanted::Held => Here::Whole,
            Wanted::Partial(partial) => Here::Part(partial.here()),
        })
    }

    /// Begins to take in a file of the user's.
    ///
    /// # Errors
    /// What the disk says.
    pub fn import(&self) -> Result<Import, StoreError> {
        Import::begin(&self.0, self.0.imports.fetch_add(1, Ordering::Relaxed))
    }

    /// Bytes that can still be written to the disk.
    ///
    /// # Errors
    /// What the system says.
    pub fn disk_free(&self) -> Result<u64, StoreError> {
        self.0.disk.free().map_err(StoreError::io("asking for free space"))
    }

    fn set_aside(&self, blob: BlobId) -> Result<(), StoreError> {
        tracing::warn!(%blob, "a blob is damaged on disk; it is set aside");
        let _placing = self.0.placing();
        let packed = self.0.index.blob(blob)?.and_then(|(_, packed)| packed);
        if let Some(place) = packed {
            self.0.copy_out(place, &Pair::damaged(blob).data);
        }
        let dropped = self.0.index.unplace(blob)?;
        if packed.is_some() {
            self.0.remove_files(dropped.as_slice());
            return Ok(());
        }
        let (from, to) = (Pair::complete(blob), Pair::damaged(blob));
        for (from, to) in [(&from.data, &to.data), (&from.tree, &to.tree)] {
            if let Err(error) = self.0.disk.rename(from, to)
                && error.kind() != io::ErrorKind::NotFound
            {
                return Err(StoreError::io("setting a damaged blob aside")(error));
            }
        }
        Ok(())
    }
}

impl Inner {
    fn partials(&self) -> MutexGuard<'_, HashMap<(BlobId, u64), Weak<Partial>>> {
        self.partials.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn placing(&self) -> MutexGuard<'_, ()> {
        self.placing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Renames synced files to their final place, makes that durable, and only then says so in the index.
    ///
    /// The outboard goes first: where a data file stands in `blobs/`, its outboard is there.
    pub(crate) fn place(
        &self,
        ready: &[(BlobId, u64, Pair)],
        hold: Option<DeliveryId>,
        now: UnixTime,
    ) -> Result<(), StoreError> {
        if ready.is_empty() {
            return Ok(());
        }
        let _placing = self.placing();
        let mut rows = Vec::with_capacity(ready.len());
        for (blob, size, from) in ready {
            // Two pulls share a partial blob: the other one may have placed it meanwhile. An import has its own file.
            if hold.is_none() && self.index.blob_size(*blob)?.is_some() {
                continue;
            }
            let to = Pair::complete(*blob);
            let failed = || StoreError::io("giving a blob its final place");
            if tree::outboard_len(*size) > 0 {
                self.disk.rename(&from.tree, &to.tree).map_err(failed())?;
            }
            self.disk.rename(&from.data, &to.data).map_err(failed())?;
            rows.push((*blob, *size));
        }
        if rows.is_empty() {
            return Ok(());
        }
        self.sync_places(&rows)?;
        let dropped = self.index.place(&rows, hold, now)?;
        self.remove_files(&dropped);
        Ok(())
    }

    /// Makes the final places of `blobs` durable. Where that fails, nobody knows under which name their files are on
    /// the disk, and asking again would be answered with a lie: they are removed, and fetched anew (rule 1).
    fn sync_places(&self, blobs: &[(BlobId, u64)]) -> Result<(), StoreError> {
        let Err(source) = self.disk.sync_folder(layout::BLOBS) else { return Ok(()) };
        for (blob, size) in blobs {
            self.remove_files(&[Dropped::Blob(*blob)]);
            self.discard_partial(*blob, *size);
        }
        Err(StoreError::SyncFailed { blob: blobs.first().map_or(BlobId([0; 32]), |(blob, _)| *blob), source })
    }

    /// Removes a partial blob that is given up; what cannot be removed now is removed at the next start.
    pub(crate) fn discard_partial(&self, blob: BlobId, size: u64) {
        if let Err(error) = self.index.forget_partial(blob, size) {
            tracing::warn!(%blob, %error, "a partial blob that is given up stays on record");
        }
        self.remove_files(&[Dropped::Partial(blob, size)]);
    }

    /// Removes the files of rows that are gone. A failure leaves a file that nothing refers to, for the next start.
    fn remove_files(&self, dropped: &[Dropped]) {
        for row in dropped {
            let names = match row {
                Dropped::Blob(blob) => Pair::complete(*blob),
                Dropped::Partial(blob, size) => Pair::partial(*blob, *size),
                Dropped::Packed(place) => {
                    self.free_packed(*place);
                    continue;
                }
                Dropped::Pack(number) => {
                    self.remove_pack(*number);
                    continue;
                }
            };
            for name in [&names.data, &names.tree] {
                if let Err(error) = self.disk.remove(name) {
                    tracing::warn!(%name, %error, "a file that nothing refers to stays until the next start");
                }
            }
        }
    }
}

/// Where the bytes of a complete blob lie, by its row: in which file, from where on.
fn data_of(blob: BlobId, packed: Option<Place>) -> (String, u64) {
    match packed {
        Some(place) => (layout::pack(place.pack), place.offset),
        None => (Pair::complete(blob).data, 0),
    }
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "what tests make is small")]
mod tests;
