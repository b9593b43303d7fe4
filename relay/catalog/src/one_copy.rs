//! One copy (SPEC D8): a message that brings an attachment that is here already refers to the copy that is here.
//!
//! # When a copy is good enough
//! It is kept at least as long as the one that the message brought itself, and it is there: as far as the log knows, all
//! copies that were promised of it can be read ([`Log::is_kept`]). Otherwise the message keeps its own. So a reference
//! never outlives its copy, and nobody is answered `250` for fewer copies than were promised.
//!
//! # Order
//! Whoever finds no copy makes one, and holds the blob's lock until the view has it, or until it surely was not made;
//! whoever finds one shares the lock until the view has the reference. So of many messages that bring the same
//! attachment at once, one makes the copy, and the others wait for it and refer to it. A copy is found in the view only,
//! and the view has only what is durable: a record never names what may still be lost. Locks are taken in the order of
//! the blobs, so nobody waits for each other.
//!
//! Nothing takes a copy away that a message on its way has claimed: what is dead is let go of only as it is at a moment
//! without claims (`ledger::alive`). A message that left a part out, since a copy was found before, claims that copy when
//! it is accepted: where nothing refers to it any more by then, it is refused for the moment, and brings the part the next
//! time.
//!
//! # What it costs
//! For a message without attachments nothing. Locks are kept while somebody has them, in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lighter_protocol::{BlobId, Day};
use lighter_storage::StoredBlob;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

use crate::limits::{COPIES_LOOKED_AT_MAX, COPY_READ_TIME_MAX_MS};
use crate::references::CopyKey;
use crate::{Ledger, Log, Message};

/// The locks of the blobs that messages on their way name.
#[derive(Clone, Debug, Default)]
pub(crate) struct BlobLocks {
    locks: Arc<Mutex<BTreeMap<BlobId, Arc<RwLock<()>>>>>,
    /// Shared by all claims: who has it alone finds none.
    claiming: Arc<RwLock<()>>,
}

/// What a message holds until the view has it.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    held: Vec<Held>,
    /// Taken before the first one, and held to the end.
    _claiming: Option<OwnedRwLockReadGuard<()>>,
}

/// A part was left out of what was stored, since there was a copy, and that is dead now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gone;

#[derive(Debug)]
struct Held {
    blob: BlobId,
    locks: BlobLocks,
    guard: Option<Guard>,
}

#[derive(Debug)]
#[expect(dead_code, reason = "held for what their end does")]
enum Guard {
    /// The message refers to a copy that was there.
    Referring(OwnedRwLockReadGuard<()>),
    /// The message brings the copy.
    Making(OwnedRwLockWriteGuard<()>),
}

impl BlobLocks {
    fn of(&self, blob: &BlobId) -> Arc<RwLock<()>> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(locks.entry(*blob).or_default())
    }

    /// What all claims share.
    pub(crate) fn claiming(&self) -> &Arc<RwLock<()>> {
        &self.claiming
    }

    /// Forgets a lock that nobody has, or is waiting for.
    fn forget(&self, blob: &BlobId) {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        if locks.get(blob).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            locks.remove(blob);
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.locks.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.guard = None;
        self.locks.forget(&self.blob);
    }
}

impl<L: Log> Ledger<L> {
    /// A copy of `blob` that a message may name which is kept to the end of `until`: it was found to be readable just
    /// now. None where there is none, or where it cannot be found out in a short time: then it is written again.
    ///
    /// How long this takes tells whether there is one: who may not learn that must not wait for it.
    // SPEC: D8
    pub async fn find_copy(&self, blob: BlobId, until: Day) -> Option<StoredBlob> {
        let copy = self.known_copy(blob, until).await?;
        let reading = self.log().is_readable(&copy);
        let time_max = Duration::from_millis(COPY_READ_TIME_MAX_MS);
        let is_readable = tokio::time::timeout(time_max, reading).await.unwrap_or(false);
        is_readable.then_some(copy)
    }

    /// Sees to it that `message` names copies that were there before, where there are any; gives what must be held until
    /// the view has the message. `blobs` are what it has stored.
    pub(crate) async fn claim(&self, message: &mut Message, blobs: &[L::Blob]) -> Result<Claims, Gone> {
        let placed: Vec<CopyKey> = blobs.iter().map(|blob| CopyKey::of(L::stored(blob))).collect();
        let mut brought: BTreeMap<BlobId, StoredBlob> = BTreeMap::new();
        for part in &message.parts {
            brought.entry(part.blob.id).or_insert_with(|| part.blob.clone());
        }
        if brought.is_empty() {
            return Ok(Claims::default());
        }
        let claiming = Arc::clone(self.locks().claiming()).read_owned().await;
        let mut claims = Claims { held: Vec::new(), _claiming: Some(claiming) };
        for (id, own) in &mut brought {
            let Some(until) = own.location.deletion_day() else { continue };
            // First of the two, and so the last to be dropped: the lock is forgotten also where nobody waits to the end.
            let mut held = Held { blob: *id, locks: self.locks().clone(), guard: None };
            let lock = self.locks().of(id);
            let sharing = Arc::clone(&lock).read_owned().await;
            let guard = if let Some(copy) = self.known_copy(*id, until).await {
                *own = copy;
                Guard::Referring(sharing)
            } else {
                drop(sharing);
                let making = lock.write_owned().await;
                match self.known_copy(*id, until).await {
                    Some(copy) => {
                        *own = copy;
                        Guard::Referring(making.downgrade())
                    }
                    None => Guard::Making(making),
                }
            };
            if matches!(guard, Guard::Making(_)) && !placed.contains(&CopyKey::of(own)) {
                return Err(Gone);
            }
            held.guard = Some(guard);
            claims.held.push(held);
        }
        for part in &mut message.parts {
            if let Some(named) = brought.get(&part.blob.id) {
                part.blob.clone_from(named);
            }
        }
        Ok(claims)
    }

    /// A copy that the view knows, that is kept long enough, and that is there as far as the log knows.
    async fn known_copy(&self, blob: BlobId, until: Day) -> Option<StoredBlob> {
        let found = self.read(move |catalog| catalog.copies_of(&blob, until, COPIES_LOOKED_AT_MAX)).await;
        match found {
            Ok(copies) => {
                for copy in copies {
                    if self.log().is_kept(&copy).await {
                        return Some(copy);
                    }
                }
                None
            }
            Err(error) => {
                tracing::warn!(%error, "the catalog does not say what is there: it is stored again");
                None
            }
        }
    }
}

/// Those of `placed` that `message` names: the others are orphans, and go with their segment.
pub(crate) fn named<L: Log>(message: &Message, placed: Vec<L::Blob>) -> Vec<L::Blob> {
    let names: Vec<CopyKey> = message.blobs().map(CopyKey::of).collect();
    placed.into_iter().filter(|blob| names.contains(&CopyKey::of(L::stored(blob)))).collect()
}
