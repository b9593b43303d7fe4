//! Small blobs, many to a file: one sync for all of them, where a file for each would take one for each.
//!
//! A blob of one group (at most 16 KiB, so without an outboard) that comes in whole is written behind the last one, as
//! soon as it is verified, to the pack that is open. A pack is **sealed** by a sync of the file and one of its folder, and
//! one transaction that says of each blob where it lies. It never grows after that.
//!
//! **Format** of `packs/N` (N: 16 hexadecimal digits): records one behind the other, each the blob's id (32 bytes), its
//! size (u32, little-endian) and its bytes. Whoever reads goes by the index; the ids and sizes are there for a pack that
//! was not sealed.
//!
//! **Recovery.** A pack that the index does not know was open when the process ended: what proves true in it, and a
//! delivery refers to, is taken over at the next start, so that a kill costs nothing that was verified.
//!
//! **Space.** A blob that is let go of leaves a hole, which the file system gets back where it can; the file goes with its
//! last blob.

use std::collections::HashSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lighter_protocol::BlobId;
use lighter_protocol::blob;

use crate::disk::{Disk, DiskFile};
use crate::error::StoreError;
use crate::layout;
use crate::limits::PACK_LEN_MAX;

/// Bytes of an id, and of a size behind it.
const HEADER_LEN: usize = 32 + 4;

/// Where a blob lies in a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Packed {
    pub(crate) blob: BlobId,
    pub(crate) size: u64,
    /// Of its first byte.
    pub(crate) offset: u64,
}

/// A pack that is not sealed.
#[derive(Debug)]
pub(crate) struct Pack {
    pub(crate) number: u64,
    pub(crate) file: Arc<dyn DiskFile>,
    len: u64,
    pub(crate) blobs: Vec<Packed>,
}

impl Pack {
    /// One that an earlier process had open, and what proved true in it.
    pub(crate) fn found(number: u64, file: Arc<dyn DiskFile>, blobs: Vec<Packed>) -> Self {
        Self { number, file, len: PACK_LEN_MAX, blobs }
    }
}

/// The packs that are not sealed.
#[derive(Debug, Default)]
pub(crate) struct Packs {
    state: Mutex<State>,
    /// One sealing at a time: whoever waits for it finds what was being sealed in the index.
    sealing: Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    /// The last one takes what comes.
    open: Vec<Pack>,
    /// What is in those, and in those that are being sealed.
    waiting: HashSet<BlobId>,
    next: u64,
}

impl Packs {
    /// No number below this one is given.
    pub(crate) fn number_from(&self, next: u64) {
        self.state().next = next;
    }

    /// Whether a blob is written, and not in the index yet.
    pub(crate) fn is_waiting(&self, blob: &BlobId) -> bool {
        self.state().waiting.contains(blob)
    }

    /// Writes verified blobs behind the last ones; true where as much waits as a pack takes.
    ///
    /// # Errors
    /// [`StoreError::OutOfPlace`] where one is not what its id says; else what the disk says: none of them is here then.
    pub(crate) fn append<B: AsRef<[u8]>>(
        &self,
        disk: &dyn Disk,
        blobs: &[(BlobId, B)],
    ) -> Result<bool, StoreError> {
        let is_it = |(blob, bytes): &(BlobId, B)| {
            blob::is_small(bytes.as_ref().len() as u64) && blake3::hash(bytes.as_ref()) == blob.hash()
        };
        if let Some((blob, _)) = blobs.iter().find(|blob| !is_it(blob)) {
            return Err(StoreError::OutOfPlace(*blob));
        }
        let mut state = self.state();
        if state.open.last().is_none_or(|pack| pack.len >= PACK_LEN_MAX) {
            let number = state.next;
            let file = disk.open(&layout::pack(number), true).map_err(StoreError::io("creating a pack"))?;
            state.next += 1;
            state.open.push(Pack { number, file, len: 0, blobs: Vec::new() });
        }
        let State { open, waiting, .. } = &mut *state;
        let Some(pack) = open.last_mut() else { return Ok(false) };
        let (mut records, mut added) = (Vec::new(), Vec::with_capacity(blobs.len()));
        for (blob, bytes) in blobs {
            let bytes = bytes.as_ref();
            if waiting.contains(blob) || added.iter().any(|packed: &Packed| packed.blob == *blob) {
                continue;
            }
            records.extend_from_slice(&blob.0);
            records.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
            let offset = pack.len + records.len() as u64;
            records.extend_from_slice(bytes);
            added.push(Packed { blob: *blob, size: bytes.len() as u64, offset });
        }
        // What a failed write leaves is written over by the next one.
        pack.file.write_at(&records, pack.len).map_err(StoreError::io("writing a pack"))?;
        pack.len += records.len() as u64;
        waiting.extend(added.iter().map(|packed| packed.blob));
        pack.blobs.extend(added);
        Ok(pack.len >= PACK_LEN_MAX)
    }

    /// Until it is dropped, nobody else seals.
    pub(crate) fn sealing(&self) -> MutexGuard<'_, ()> {
        self.sealing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next pack to be sealed, which takes nothing more.
    pub(crate) fn take(&self) -> Option<Pack> {
        let mut state = self.state();
        (!state.open.is_empty()).then(|| state.open.remove(0))
    }

    /// It could not be put on record, and is sealed another time.
    pub(crate) fn put_back(&self, pack: Pack) {
        self.state().open.insert(0, Pack { len: pack.len.max(PACK_LEN_MAX), ..pack });
    }

    /// What was in this pack does not wait any more.
    pub(crate) fn is_over(&self, pack: &Pack) {
        let mut state = self.state();
        for packed in &pack.blobs {
            state.waiting.remove(&packed.blob);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What proves true of a pack that was not sealed, up to the first record that does not.
///
/// # Errors
/// What the disk says.
pub(crate) fn read(file: &dyn DiskFile) -> io::Result<Vec<Packed>> {
    let len = file.len()?;
    let (mut blobs, mut at) = (Vec::new(), 0);
    let mut header = [0; HEADER_LEN];
    let mut buffer = Vec::new();
    while at + (HEADER_LEN as u64) < len {
        file.read_at(&mut header, at)?;
        let (id, size) = header.split_at(32);
        let (mut blob, mut size_bytes) = (BlobId([0; 32]), [0; 4]);
        blob.0.copy_from_slice(id);
        size_bytes.copy_from_slice(size);
        let (size, offset) = (u64::from(u32::from_le_bytes(size_bytes)), at + HEADER_LEN as u64);
        if !blob::is_small(size) || offset + size > len {
            break;
        }
        buffer.resize(usize::try_from(size).unwrap_or(0), 0);
        file.read_at(&mut buffer, offset)?;
        if blake3::hash(&buffer) != blob.hash() {
            break;
        }
        blobs.push(Packed { blob, size, offset });
        at = offset + size;
    }
    Ok(blobs)
}
