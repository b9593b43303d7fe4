//! Blobs that somebody works on: as long as a [`Hold`] lives, what was imported under it stays, whoever else lets go of
//! the same blobs. A message that is being sent needs its attachments until the last recipient's copy is mailed, though
//! the first recipient's store has long receipted them.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use lighter_protocol::{BlobId, DeliveryId};

use super::{Inner, Store};

/// Keeps what is imported under it. Dropped, it lets go of what nothing else refers to; it blocks on the disk then.
#[derive(Debug)]
pub struct Hold {
    store: Arc<Inner>,
    /// Its place in the index's references, beside those of deliveries (told apart by their role).
    id: DeliveryId,
    blobs: Mutex<Vec<(BlobId, u64)>>,
}

impl Store {
    /// A hold on nothing yet.
    pub fn hold(&self) -> Hold {
        let number = self.0.holds.fetch_add(1, Ordering::Relaxed);
        let id = DeliveryId(u128::from(number).to_be_bytes());
        Hold { store: Arc::clone(&self.0), id, blobs: Mutex::default() }
    }
}

impl Hold {
    pub(crate) fn id(&self) -> DeliveryId {
        self.id
    }

    /// Notes a blob that is about to be placed.
    pub(crate) fn add(&self, blob: BlobId, size: u64) {
        self.blobs.lock().unwrap_or_else(PoisonError::into_inner).push((blob, size));
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let blobs = std::mem::take(self.blobs.get_mut().unwrap_or_else(PoisonError::into_inner));
        if blobs.is_empty() {
            return;
        }
        let _placing = self.store.placing();
        match self.store.index.release(self.id, &blobs) {
            Ok(dropped) => self.store.remove_files(&dropped),
            Err(error) => tracing::warn!(%error, "what was held stays until the next start"),
        }
    }
}
