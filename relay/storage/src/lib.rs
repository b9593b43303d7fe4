//! The storage array: mirrored, append-only segments on storage servers, written by a relay.
//!
//! Under construction.

pub mod array;
pub mod ids;
pub mod keys;
pub mod limits;
pub mod location;

pub use array::*;
pub use ids::{Class, DataKey, Epoch, SegmentId, Sequence, UnitId};
pub use keys::{ArrayKey, ArrayKeyError};
pub use location::{BlobLocation, RecordPlace, StoredBlob};
