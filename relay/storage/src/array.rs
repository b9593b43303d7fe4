//! The writer's side of the storage array: what the relay keeps mail in.
//!
//! ```no_run
//! # async fn example(config: lighter_storage::ArrayConfig, identity: &lighter_transport::Identity,
//! #     key: lighter_storage::ArrayKey) -> Result<(), Box<dyn std::error::Error>> {
//! use lighter_storage::{Array, Class, Sequence, wall_clock};
//!
//! let array = Array::open(config, identity, key, wall_clock()).await?;
//!
//! let mut writer = array.create_blob(Class::Days30);
//! writer.write(b"a file, in as many pieces as it comes").await?;
//! let blob = writer.finish().await?; // placed, not yet durable
//!
//! let record = b"the message that has it".to_vec(); // names blob.stored()
//! let sequence = array.append_catalog(record, Class::Days30, &[&blob]).await?;
//! // Now, and not before, record and blob are on stable storage on as many copies as promised.
//!
//! let mut reader = array.read_blob(blob.stored(), 0..blob.stored().size);
//! while let Some(verified) = reader.next().await? {
//!     assert!(!verified.is_empty());
//! }
//!
//! let mut replay = array.replay(Sequence::ZERO);
//! while let Some(entry) = replay.next().await? {
//!     assert_eq!(entry.sequence, sequence);
//! }
//! # Ok(()) }
//! ```

mod blob;
mod config;
mod entry;
mod errors;
mod fellows;
mod group;
mod heal;
mod health;
mod hedge;
mod join;
mod lane;
mod membership;
mod read;
mod replay;
mod rewrap;
mod segments;
mod settle;
mod state;
mod status;
mod thin;
mod unmirrored;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use lighter_protocol::PeerId;
use lighter_protocol::blob::PortionTree;
use lighter_transport::Identity;
use lighter_transport::tcp::TcpTls;
use lighter_transport::tls::STORAGE_ALPN;
use rand::rngs::StdRng;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

pub use blob::{BlobWriter, PlacedBlob};
pub use config::{ArrayConfig, Clock, ServerRecord, wall_clock};
pub use errors::{OpenError, ReadError, TableChangeError, WriteError};
pub use heal::HealStatus;
pub use read::{BlobPortions, BlobReader};
pub use replay::{CatalogEntry, Replay, ReplayAlarms};
pub use segments::{CopyFault, CopyStatus, SegmentState, SegmentStatus};
pub use status::{ArrayStatus, ServerStatus};
pub use thin::ThinError;

use crate::ids::{Class, DataKey, Sequence};
use crate::keys::ArrayKeys;
use crate::limits::{CATALOG_RECORD_LEN_MAX, LANE_DATA_MAX};
use crate::link::Dial;
use crate::local::LocalOrTls;
use crate::location::{BlobLocation, StoredBlob};
use crate::table::{Change, Table};
use blob::LaneHandle;
use lane::{Item, Lane, Placed, catalog_record_len};
use state::Shared;

/// The storage array as its writer holds it. Clones are handles of the same array; its tasks end with the last one.
#[derive(Clone)]
pub struct Array {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    lanes: Mutex<BTreeMap<Class, LaneHandle>>,
    /// Keepers and settler, and the lanes: aborted with the last handle.
    background: Mutex<JoinSet<()>>,
    writing: Mutex<JoinSet<()>>,
}

impl Array {
    /// Takes the array over: fences every server that can be reached (at least servers − copies + 1 of them), brings
    /// the segments that were open to one length, and is ready to read and replay. Writing is possible as soon as
    /// enough servers are there; until then it fails with [`WriteError::Unavailable`], and servers that are away are
    /// taken in, in the background, when they come back.
    ///
    /// # Errors
    /// [`OpenError::TooFewServers`] where too few answer, [`OpenError::Unmirrored`] where a certain one does not: try again. [`OpenError::WrongKey`] where everything that is
    /// there was written under another array key.
    pub async fn open(
        config: ArrayConfig,
        identity: &Identity,
        keys: impl Into<ArrayKeys>,
        clock: Clock,
    ) -> Result<Self, OpenError> {
        let tls = TcpTls::new(identity, STORAGE_ALPN).map_err(OpenError::Tls)?;
        let dial = Arc::new(LocalOrTls { local: config.local.clone(), tls });
        Self::open_over(config, identity.peer(), keys, clock, dial, rand::make_rng()).await
    }

    /// As [`Array::open`], over other connections and with a given generator: for tests and simulations. Keys are
    /// drawn from `chance`.
    ///
    /// # Errors
    /// As [`Array::open`].
    pub async fn open_over(
        config: ArrayConfig,
        writer: PeerId,
        keys: impl Into<ArrayKeys>,
        clock: Clock,
        dial: Arc<dyn Dial>,
        chance: StdRng,
    ) -> Result<Self, OpenError> {
        config.check().map_err(OpenError::Config)?;
        let shared = Arc::new(Shared::new(config, writer, keys.into(), clock, dial, chance));
        shared.take_over().await?;
        shared.check_key()?;
        shared.check_unmirrored()?;
        shared.sort_found();
        // Where all members are there, everything is settled before anything is written; otherwise when they are.
        shared.settle_due().await;
        let reached = shared.state().live_peers().len();
        for class in Class::ALL {
            let found = shared.find_tail(class).await;
            let needed = shared.state().table.quorum();
            let tail = found.map_err(|_| OpenError::TooFewServers { reached, needed })?;
            shared.state().tails.insert(class, tail);
        }
        Ok(Self { inner: Arc::new(Inner::start(shared)) })
    }

    /// A writer for a new blob that is kept for `class`. Nothing is sent before there is a whole portion.
    pub fn create_blob(&self, class: Class) -> BlobWriter {
        BlobWriter::new(Arc::clone(&self.inner.shared), self.inner.lane(class))
    }

    /// Appends a record to the catalog's log and returns when it *and the blobs that it names* are on stable storage
    /// on all promised copies (fewer at first, where so set: [`ArrayConfig::acknowledge_after`]). In the log it stands behind the records of `blobs`; where they share its class, one
    /// sync on each copy does for all of them.
    ///
    /// # Errors
    /// See [`WriteError`]: only after [`WriteError::InDoubt`] may the record come back in a later replay.
    // SPEC: B12
    pub async fn append_catalog(
        &self,
        record: Vec<u8>,
        class: Class,
        blobs: &[&PlacedBlob],
    ) -> Result<Sequence, WriteError> {
        if record.len() > CATALOG_RECORD_LEN_MAX {
            return Err(WriteError::TooLarge);
        }
        let mut needs = Vec::new();
        for blob in blobs {
            for durability in blob.durability() {
                // Only within a class does the order of records do: its lane makes them durable in that order.
                if durability.class != class {
                    durability.clone().known().await.map_err(|_| WriteError::NotDurable)?;
                }
                needs.push(durability.clone());
            }
        }
        let len = catalog_record_len(record.len());
        let placing = self.inner.lane(class).submit(Item::Catalog(record, needs), len).await?;
        let placed = placing.await.unwrap_or(Err(WriteError::Unavailable))?;
        let Placed { sequence, mut durability, .. } = placed;
        durability.known().await.map(|()| sequence)
    }

    /// All catalog records after `after`, in order ([`Sequence::ZERO`]: from the start), as the log was when this was
    /// called. Records whose day is over are left out.
    pub fn replay(&self, after: Sequence) -> Replay {
        Replay::new(Arc::clone(&self.inner.shared), after)
    }

    /// The sequence number of the last catalog record that the log holds. A view that is ahead of it has seen
    /// something that was never acknowledged and is gone: it must be built again from the start.
    pub fn last_catalog_sequence(&self) -> Sequence {
        let state = self.inner.shared.state();
        state.tails.values().map(|tail| tail.sequence).max().unwrap_or_default()
    }

    /// Reads `range` of a blob. Every byte is verified before it is given out: record checksum, cipher tag and BLAKE3
    /// tree up to the blob's id; what is wrong or missing on one copy is read from another.
    // SPEC: C9
    pub fn read_blob(&self, blob: &StoredBlob, range: Range<u64>) -> BlobReader {
        BlobReader::of_stored(Arc::clone(&self.inner.shared), blob, range)
    }

    /// The blob's upper tree, verified against its id; with [`Array::portions`] all that a verified stream needs.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn blob_tree(&self, blob: &StoredBlob) -> Result<PortionTree, ReadError> {
        self.inner.shared.read_end(blob).await.map(|(tree, _)| tree)
    }

    /// The blob's portions with the tree beside each, for [`lighter_protocol::blob::PortionBlob`]. Checksum and cipher
    /// tag of each are verified; the stream itself checks each group against the tree.
    pub fn portions(&self, blob: &StoredBlob) -> BlobPortions {
        BlobPortions {
            shared: Arc::clone(&self.inner.shared),
            location: blob.location.clone(),
            ahead: tokio::sync::Mutex::new(None),
        }
    }

    /// The key of each copy of each of the blob's records, in the blob's order (SPEC C8).
    // SPEC: C8
    pub fn data_keys(&self, location: &BlobLocation) -> Vec<DataKey> {
        location.places().flat_map(|place| self.inner.shared.keys_of(&place)).collect()
    }

    /// The table that is in force.
    pub fn table(&self) -> Arc<Table> {
        Arc::clone(&self.inner.shared.state().table)
    }

    /// Changes the table while everything goes on: gives the new one, once it is on as many servers as a change needs,
    /// of the old ones and of the new ones, and in force. A new server gets segments from then on; one that drains gets
    /// none.
    ///
    /// # Errors
    /// See [`TableChangeError`].
    // SPEC: B11, B14
    pub async fn change_table(&self, change: &Change) -> Result<Arc<Table>, TableChangeError> {
        let changed = self.inner.shared.change_table(change).await?;
        for peer in changed.new {
            let mut background = self.inner.background.lock().unwrap_or_else(PoisonError::into_inner);
            background.spawn(Arc::clone(&self.inner.shared).keep(peer));
        }
        Ok(changed.table)
    }

    /// From now on, these keys count: the array's own with a new array key ([`ArrayKeys::rotated`]), or without the former
    /// one ([`ArrayKeys::settled`]) once [`Array::rewrapped`] has returned. They must be in the file before.
    pub fn set_keys(&self, keys: ArrayKeys) {
        self.inner.shared.set_keys(keys);
    }

    /// Returns when every copy on every server of the array has its day key wrapped under the present array key. Servers
    /// that are away are waited for.
    pub async fn rewrapped(&self) {
        self.inner.shared.rewrapped().await;
    }

    /// The servers that [`Array::rewrapped`] waits for.
    pub fn servers_to_rewrap(&self) -> Vec<PeerId> {
        self.inner.shared.servers_to_rewrap()
    }

    /// How the array is.
    pub fn status(&self) -> ArrayStatus {
        self.inner.shared.status()
    }

    /// Waits for what is on its way, and stops the array's tasks. Afterwards every write says `Unavailable`.
    pub async fn close(&self) {
        self.inner.lanes.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let mut writing =
            std::mem::take(&mut *self.inner.writing.lock().unwrap_or_else(PoisonError::into_inner));
        while writing.join_next().await.is_some() {}
        let mut background =
            std::mem::take(&mut *self.inner.background.lock().unwrap_or_else(PoisonError::into_inner));
        background.shutdown().await;
        self.inner.shared.disconnect();
    }
}

impl Inner {
    fn start(shared: Arc<Shared>) -> Self {
        let (mut background, mut writing) = (JoinSet::new(), JoinSet::new());
        let mut lanes = BTreeMap::new();
        for server in shared.state().table.servers.iter() {
            background.spawn(Arc::clone(&shared).keep(server.peer));
        }
        background.spawn(Arc::clone(&shared).settle_always());
        background.spawn(Arc::clone(&shared).restore_always());
        background.spawn(Arc::clone(&shared).heal_always());
        background.spawn(Arc::clone(&shared).watch_health());
        background.spawn(Arc::clone(&shared).rewrap_always());
        for class in Class::ALL {
            let (submissions, queue) = mpsc::channel(LANE_QUEUE_MAX);
            writing.spawn(Lane::new(Arc::clone(&shared), class, queue).run());
            lanes.insert(class, LaneHandle { submissions, room: Arc::new(Semaphore::new(LANE_DATA_MAX)) });
        }
        let (background, writing) = (Mutex::new(background), Mutex::new(writing));
        Self { shared, lanes: Mutex::new(lanes), background, writing }
    }

    /// The lane of `class`; one that takes nothing, once the array was closed.
    fn lane(&self, class: Class) -> LaneHandle {
        let lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.get(&class).cloned().unwrap_or_else(|| LaneHandle {
            submissions: mpsc::channel(1).0,
            room: Arc::new(Semaphore::new(LANE_DATA_MAX)),
        })
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.disconnect();
    }
}

/// Records that wait for a lane; their bytes have a bound of their own.
const LANE_QUEUE_MAX: usize = 1024;

#[cfg(test)]
mod tests;
