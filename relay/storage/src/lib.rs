//! The storage array: what the relay keeps mail in (DESIGN §8, `docs/STORAGE.md`).
//!
//! A relay is the one *writer*; storage servers are the *members*. The story from the bottom up:
//! - [`record`], [`segment`]: the format on disk, and reading it back after a crash;
//! - [`disk`]: the seam below; [`mod@unit`]: one folder with its segments, its group commit and its expiry;
//! - [`wire`], [`server`], [`link`]: the storage protocol, and both its ends; `local`: where both are in one process;
//! - [`table`], [`placing`]: which servers there are, and which of them take a new segment's copies;
//! - [`objects`]: the seam to an object store, where sealed segments may lie;
//! - [`keys`], `sealing`: what is encrypted before it leaves the relay;
//! - [`mod@array`]: the writer: placing, acknowledging, settling after failures, reading, replaying;
//! - [`location`]: what the catalog keeps to find a blob again;
//! - `sim` (feature `sim`): simulated servers, for tests of crates above.

pub mod array;
mod buffers;
pub mod disk;
pub mod ids;
pub mod keys;
pub mod limits;
pub mod link;
mod local;
pub mod location;
pub mod objects;
pub mod placing;
pub mod record;
mod sealing;
pub mod segment;
pub mod server;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
pub mod table;
pub mod unit;
mod watch;
pub mod wire;

pub use array::*;
pub use ids::{Class, DataKey, Epoch, SegmentId, Sequence, UnitId};
pub use keys::{ArrayKey, ArrayKeyError, ArrayKeys};
pub use local::LocalServers;
pub use location::{BlobLocation, RecordPlace, StoredBlob};
pub use placing::Policy;
pub use server::{ServerConfig, ServerCounters, StorageServer};
pub use table::{Change, ChangeError, Label, Place, ServerEntry, ServerState, Shared, Table, TableError};
