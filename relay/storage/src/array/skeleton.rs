use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use lighter_protocol::blob::{Portion, PortionSource, PortionTree};
use lighter_protocol::{Day, PeerId};
use lighter_transport::Identity;

use super::{ArrayConfig, Clock, OpenError, ReadError, WriteError};
use crate::ids::{Class, DataKey, Sequence};
use crate::keys::ArrayKey;
use crate::location::{BlobLocation, StoredBlob};

/// The storage array as its writer holds it. Clones are handles of the same array.
#[derive(Clone)]
pub struct Array {
    inner: Arc<()>,
}

impl Array {
    /// Takes the array over: fences every server that can be reached (at least servers − copies + 1 of them), brings
    /// the segments that were open to one length, and is ready to read and replay. Writing is possible as soon as
    /// enough servers are there; until then it fails with [`WriteError::Unavailable`], and servers that are away are
    /// taken in, in the background, when they come back.
    ///
    /// # Errors
    /// [`OpenError::TooFewServers`] where too few answer: try again.
    pub async fn open(
        config: ArrayConfig,
        identity: &Identity,
        key: ArrayKey,
        clock: Clock,
    ) -> Result<Self, OpenError> {
        let _ = (config, identity, key, clock);
        Err(OpenError::TooFewServers { reached: 0, needed: 1 })
    }

    /// A writer for a new blob that is kept for `class`. Nothing is sent before there is a whole portion.
    pub fn create_blob(&self, class: Class) -> BlobWriter {
        let _ = (class, &self.inner);
        BlobWriter { _p: () }
    }

    /// Appends a record to the catalog's log and returns when it *and the blobs that it names* are on stable storage
    /// on all promised copies. In the log it stands behind the records of `blobs`; where they share its class, one
    /// sync on each copy does for all of them.
    ///
    /// # Errors
    /// See [`WriteError`]: only after [`WriteError::InDoubt`] may the record come back in a later replay.
    pub async fn append_catalog(
        &self,
        record: Vec<u8>,
        class: Class,
        blobs: &[&PlacedBlob],
    ) -> Result<Sequence, WriteError> {
        let _ = (record, class, blobs);
        Err(WriteError::Unavailable)
    }

    /// All catalog records after `after`, in order ([`Sequence::ZERO`]: from the start). Records whose day is over
    /// are left out.
    pub fn replay(&self, after: Sequence) -> Replay {
        let _ = after;
        Replay { _p: () }
    }

    /// The sequence number of the last catalog record that the log holds. A view that is ahead of it has seen
    /// something that was never acknowledged and is gone: it must be built again from the start.
    pub fn last_catalog_sequence(&self) -> Sequence {
        Sequence::ZERO
    }

    /// Reads `range` of a blob. Every byte is verified before it is given out: record checksum, cipher tag and BLAKE3
    /// tree up to the blob's id; what is wrong or missing on one copy is read from another.
    pub fn read_blob(&self, blob: &StoredBlob, range: Range<u64>) -> BlobReader {
        let _ = (blob, range);
        BlobReader { _p: () }
    }

    /// The blob's upper tree, verified against its id; with [`Array::portions`] all that a verified stream needs.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn blob_tree(&self, blob: &StoredBlob) -> Result<PortionTree, ReadError> {
        let _ = blob;
        Err(ReadError::Unavailable)
    }

    /// The blob's portions with the tree beside each, for [`lighter_protocol::blob::PortionBlob`]. Each is verified
    /// (checksum and cipher tag) and read ahead.
    pub fn portions(&self, blob: &StoredBlob) -> BlobPortions {
        let _ = blob;
        BlobPortions { _p: () }
    }

    /// The key of each copy of each of the blob's records, in the blob's order (SPEC C8).
    pub fn data_keys(&self, location: &BlobLocation) -> Vec<DataKey> {
        let _ = location;
        Vec::new()
    }

    /// How the array is.
    pub fn status(&self) -> ArrayStatus {
        ArrayStatus::default()
    }

    /// Waits for what is on its way, and stops the array's tasks. Afterwards every call says `Unavailable`.
    pub async fn close(&self) {}
}

/// Writes one blob, portion by portion. Memory does not depend on the blob's size. Dropping it leaves what was
/// written to expire with its segment, unreferenced.
pub struct BlobWriter {
    _p: (),
}

impl BlobWriter {
    /// Adds bytes. Returns when they are buffered; waits while too much is on its way.
    ///
    /// # Errors
    /// See [`WriteError`]; the writer is of no use afterwards.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        let _ = bytes;
        Err(WriteError::Unavailable)
    }

    /// Bytes written so far.
    pub fn size(&self) -> u64 {
        0
    }

    /// Reads back what was written so far: `range` must lie within [`BlobWriter::size`]. Pieces of at most a portion.
    pub fn read_back(&self, range: Range<u64>) -> BlobReader {
        let _ = range;
        BlobReader { _p: () }
    }

    /// Ends the blob: its last record is placed in the log.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub async fn finish(self) -> Result<PlacedBlob, WriteError> {
        Err(WriteError::Unavailable)
    }
}

/// A blob that has its place in the log, but is *not yet durable*: it is, once [`PlacedBlob::durable`] or
/// [`Array::append_catalog`] returned well.
#[derive(Debug)]
pub struct PlacedBlob {
    stored: StoredBlob,
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
        Err(WriteError::Unavailable)
    }
}

/// Verified bytes of a blob, in order, in pieces of at most a portion (1 MiB).
pub struct BlobReader {
    _p: (),
}

impl BlobReader {
    /// The next piece; `None` at the end of the range.
    ///
    /// # Errors
    /// See [`ReadError`]; the pieces before were right.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ReadError> {
        Err(ReadError::Unavailable)
    }
}

/// A stored blob's portions.
pub struct BlobPortions {
    _p: (),
}

impl PortionSource for BlobPortions {
    async fn portion(&self, _index: u64) -> std::io::Result<Portion> {
        Err(ReadError::Unavailable.into())
    }
}

/// Catalog records, in order.
pub struct Replay {
    _p: (),
}

/// One record of the catalog's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogEntry {
    /// Its place in the line.
    pub sequence: Sequence,
    /// The class that it was filed under.
    pub class: Class,
    /// It is gone at the end of this day.
    pub deletion_day: Day,
    /// What was given to [`Array::append_catalog`].
    pub record: Vec<u8>,
}

impl Replay {
    /// The next record; `None` when all were given.
    ///
    /// # Errors
    /// [`ReadError::Unavailable`] where no copy of the next one can be reached; calling again tries again.
    pub async fn next(&mut self) -> Result<Option<CatalogEntry>, ReadError> {
        Err(ReadError::Unavailable)
    }

    /// What was wrong with the log so far.
    pub fn alarms(&self) -> ReplayAlarms {
        ReplayAlarms::default()
    }
}

/// What a replay found that should not be. All zero in a sound array.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplayAlarms {
    /// Places where a record is missing that is not expired: the chain is broken there.
    pub gaps: u64,
    /// Records that are right on no copy; each was left out.
    pub unreadable: u64,
}

/// How the array is.
#[derive(Clone, Debug, Default)]
pub struct ArrayStatus {
    /// Its servers, in the order of the configuration.
    pub servers: Vec<ServerStatus>,
    /// Whether a write would be taken now.
    pub writable: bool,
    /// Segments known.
    pub segments: usize,
    /// Segments that wait for a server before they can be sealed.
    pub unsealed: usize,
    /// Copies that are missing or found damaged.
    pub bad_copies: u64,
    /// Reads that were answered from another copy than the first one asked, because that was wrong, missing or away.
    pub fallovers: u64,
    /// Bytes of records written and acknowledged on all copies since the start, counted once.
    pub written_bytes: u64,
    /// Bytes of blobs read and verified since the start.
    pub read_bytes: u64,
}

/// How one server is.
#[derive(Clone, Debug)]
pub struct ServerStatus {
    /// Which one.
    pub peer: PeerId,
    /// Whether it is connected, fenced, and up to date.
    pub live: bool,
}
