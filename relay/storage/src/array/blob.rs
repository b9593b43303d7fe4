//! Writing a blob: portions are cut, hashed, sealed and submitted as the bytes come.

use std::ops::Range;
use std::sync::Arc;

use lighter_protocol::blob::{BlobHasher, HashedPortion, PORTION_LEN, PortionTree};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::WriteError;
use super::group::Durability;
use super::lane::{Item, Placed, Submission, WriteKey};
use super::read::{BlobReader, Verify};
use super::state::Shared;
use crate::keys::BlobKey;
use crate::limits::STORED_BLOB_SIZE_MAX;
use crate::location::{BlobLocation, StoredBlob};
use crate::record::UnplacedRecord;
use crate::sealing;
use crate::unit::worker::off_reactor;

/// Where a class's records are submitted.
#[derive(Clone)]
pub(super) struct LaneHandle {
    pub(super) submissions: mpsc::Sender<Submission>,
    /// Bytes that may be on their way.
    pub(super) room: Arc<Semaphore>,
}

impl LaneHandle {
    /// Waits for room, submits, and gives what will get the place. Submissions of one caller keep their order.
    pub(super) async fn submit(
        &self,
        item: Item,
        len: usize,
    ) -> Result<oneshot::Receiver<Result<Placed, WriteError>>, WriteError> {
        let len = u32::try_from(len).map_err(|_| WriteError::TooLarge)?;
        let room = Arc::clone(&self.room).acquire_many_owned(len).await;
        let room = room.map_err(|_| WriteError::Unavailable)?;
        let (placed, place) = oneshot::channel();
        let submission = Submission { item, placed, room };
        self.submissions.send(submission).await.map_err(|_| WriteError::Unavailable)?;
        Ok(place)
    }
}

/// Writes one blob, portion by portion. Memory does not depend on the blob's size. Dropping it leaves what was
/// written to expire with its segment, unreferenced.
pub struct BlobWriter {
    shared: Arc<Shared>,
    lane: LaneHandle,
    key: Arc<WriteKey>,
    hasher: BlobHasher,
    /// The portion that is not yet full, or not yet known not to be the last.
    portion: Vec<u8>,
    location: BlobLocation,
    durability: Vec<Durability>,
    failed: Option<WriteError>,
}

impl BlobWriter {
    pub(super) fn new(shared: Arc<Shared>, lane: LaneHandle) -> Self {
        let key = Arc::new(WriteKey::new(BlobKey::draw(&mut *shared.chance())));
        Self {
            shared,
            lane,
            key,
            hasher: BlobHasher::new(),
            portion: Vec::new(),
            location: BlobLocation::default(),
            durability: Vec::new(),
            failed: None,
        }
    }

    /// Adds bytes. Returns when they are buffered or on their way; waits while too much is.
    ///
    /// # Errors
    /// See [`WriteError`]; the writer is of no use afterwards. Nothing of the blob is ever seen then.
    pub async fn write(&mut self, mut bytes: &[u8]) -> Result<(), WriteError> {
        self.check()?;
        while !bytes.is_empty() {
            if self.portion.len() == PORTION_BYTES {
                self.send_portion(None).await?;
            }
            let (now, later) = bytes.split_at(bytes.len().min(PORTION_BYTES - self.portion.len()));
            self.portion.extend_from_slice(now);
            bytes = later;
        }
        Ok(())
    }

    /// Bytes written so far.
    pub fn size(&self) -> u64 {
        self.hasher.size() + self.portion.len() as u64
    }

    /// Reads back what was written so far, in pieces of at most a portion. A range that goes beyond
    /// [`BlobWriter::size`] ends there. Waits for what is on its way.
    ///
    /// # Errors
    /// See [`WriteError`]: where something on its way is lost, so is the blob.
    pub async fn read_back(&self, range: Range<u64>) -> Result<BlobReader, WriteError> {
        for durability in &self.durability {
            durability.clone().known().await?;
        }
        let verify = Verify::Written(self.hasher.portions().into());
        let range = range.start.min(self.size())..range.end.min(self.size());
        let rest = (self.hasher.size(), self.portion.clone().into());
        Ok(BlobReader::new(Arc::clone(&self.shared), self.location.clone(), verify, range, Some(rest)))
    }

    /// Ends the blob: its last record is placed in the log.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub async fn finish(mut self) -> Result<PlacedBlob, WriteError> {
        self.check()?;
        let mut hasher = std::mem::take(&mut self.hasher);
        let portion = std::mem::take(&mut self.portion);
        let index = self.location.len();
        let (hasher, hashed) = if portion.is_empty() {
            (hasher, None)
        } else {
            let pushed = hasher.push(&portion).map_err(|_| WriteError::TooLarge)?;
            (hasher, Some(pushed))
        };
        let tree = hasher.finish();
        let (id, size) = (tree.id(), tree.size());
        self.submit(index, portion, hashed, Some(tree)).await?;
        let stored = StoredBlob { id, size, location: self.location };
        Ok(PlacedBlob { stored, durability: self.durability })
    }

    fn check(&mut self) -> Result<(), WriteError> {
        // The latest group says it for all before it in its segment.
        let lost = self.durability.iter().find_map(|durability| durability.now().and_then(Result::err));
        self.failed = self.failed.or(lost.map(|_| WriteError::NotDurable));
        self.failed.map_or(Ok(()), Err)
    }

    async fn send_portion(&mut self, end: Option<PortionTree>) -> Result<(), WriteError> {
        self.check()?;
        if self.size() >= STORED_BLOB_SIZE_MAX {
            return Err(self.fail(WriteError::TooLarge));
        }
        let index = self.location.len();
        let portion = std::mem::replace(&mut self.portion, Vec::with_capacity(PORTION_BYTES));
        let mut hasher = std::mem::take(&mut self.hasher);
        // Hashing a MiB takes a fraction of a millisecond, and the lanes go on meanwhile: off the reactor all the same.
        let hashed = off_reactor(move || {
            let hashed = hasher.push(&portion);
            (hasher, portion, hashed)
        });
        let (hasher, portion, hashed) = hashed.await.map_err(|_| self.fail(WriteError::Unavailable))?;
        self.hasher = hasher;
        let hashed = hashed.map_err(|_| self.fail(WriteError::TooLarge))?;
        self.submit(index, portion, Some(hashed), end).await
    }

    async fn submit(
        &mut self,
        index: u64,
        portion: Vec<u8>,
        hashed: Option<HashedPortion>,
        end: Option<PortionTree>,
    ) -> Result<(), WriteError> {
        let key = Arc::clone(&self.key);
        let index = u32::try_from(index).map_err(|_| self.fail(WriteError::TooLarge))?;
        let sealing = move || -> UnplacedRecord {
            let pairs = hashed.map(|hashed| hashed.pairs).unwrap_or_default();
            sealing::seal_portion(&key.key, index, &portion, &pairs, end.as_ref())
        };
        let sealed = off_reactor(sealing).await.map_err(|_| self.fail(WriteError::Unavailable))?;
        let len = sealed.record_len();
        let item = Item::Portion(sealed, Arc::clone(&self.key));
        let placing = self.lane.submit(item, len).await;
        let placed = match placing {
            Ok(place) => place.await.unwrap_or(Err(WriteError::Unavailable)),
            Err(error) => Err(error),
        };
        let Placed { place, durability, .. } = placed.map_err(|error| self.fail(error))?;
        self.location.push(place);
        self.durability.retain(|other| other.segment != durability.segment);
        self.durability.push(durability);
        Ok(())
    }

    fn fail(&mut self, error: WriteError) -> WriteError {
        self.failed = Some(error);
        error
    }
}

/// A blob that has its place in the log, but is *not yet durable*: it is, once [`PlacedBlob::durable`] or
/// [`Array::append_catalog`](super::Array::append_catalog) returned well.
#[derive(Debug)]
pub struct PlacedBlob {
    stored: StoredBlob,
    /// The last group in each segment that the blob is in.
    durability: Vec<Durability>,
}

impl PlacedBlob {
    /// Its id, size and location: what the catalog record names.
    pub fn stored(&self) -> &StoredBlob {
        &self.stored
    }

    /// Waits until it is on stable storage on all promised copies.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub async fn durable(&self) -> Result<(), WriteError> {
        for durability in &self.durability {
            durability.clone().known().await?;
        }
        Ok(())
    }

    pub(super) fn durability(&self) -> &[Durability] {
        &self.durability
    }
}

#[expect(clippy::cast_possible_truncation, reason = "1 MiB")]
const PORTION_BYTES: usize = PORTION_LEN as usize;
