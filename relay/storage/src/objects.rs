//! The seam to an object store: where the records of sealed segments may lie instead of on a unit's disk (SPEC D10).
//!
//! A storage server moves a segment there, one object each, and reads it by range; a relay notices nothing of it. The
//! object has the records alone, bytes 4096 to `length`, so that the footer's BLAKE3 root is the object's hash. What tells
//! what they are, and the day key without which they are nothing, stays on the unit (`segment::stub`).
//!
//! [`Objects`] is what is asked of a store; [`s3::S3Objects`] asks a real one, `sim::SimObjects` fails as a seed says.
//! [`Depot`] is what a server works with: one store, with times, bounds and figures around it.
//!
//! # What a store is believed
//! That an object is as it was is believed of no store: each record is checked when it is read, and all of them when an
//! object was written, and by each scrub. That an object is *not there* is believed only while the unit's own marker is
//! (`UNIT/here`, written before its first segment): where that is missing, too, this is another bucket, or an emptied one,
//! and what a wrong setting hides must not count as lost. It is then out of reach, which no copy is thrown away for.

#[cfg(test)]
pub(crate) mod contract;
mod depot;
pub mod s3;
#[cfg(any(test, feature = "sim"))]
pub mod sim;

use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::ids::{ObjectId, SegmentId, UnitId};

pub(crate) use depot::ReadFault;
pub use depot::{Depot, DepotCounters, DepotRules};

/// An answer of a store that is on its way.
pub type Asking<'a, T> = BoxFuture<'a, Result<T, ObjectError>>;

/// What is asked of an object store. Keys are plain ASCII, below a prefix that the store itself knows.
///
/// What a caller may rely on: an object whose [`Objects::put`] or [`Objects::complete`] returned well is there, whole, for
/// every later read. Keys are never used twice, so that no store's caching or versions matter.
pub trait Objects: Send + Sync + 'static {
    /// Reads a range; fewer bytes where the object ends before.
    fn read<'a>(&'a self, key: &'a str, range: Range<u64>) -> Asking<'a, Bytes>;
    /// Bytes of an object.
    fn size<'a>(&'a self, key: &'a str) -> Asking<'a, u64>;
    /// Writes a whole object.
    fn put<'a>(&'a self, key: &'a str, bytes: Bytes) -> Asking<'a, ()>;
    /// Begins an object that comes in parts. What is given names this upload, until it is completed or given up.
    fn begin<'a>(&'a self, key: &'a str) -> Asking<'a, String>;
    /// Writes the part number `index`, from 0. What is given is to be said in the end.
    fn put_part<'a>(
        &'a self,
        key: &'a str,
        upload: &'a str,
        index: usize,
        bytes: Bytes,
    ) -> Asking<'a, String>;
    /// Makes an object of its parts.
    fn complete<'a>(&'a self, key: &'a str, upload: &'a str, parts: Vec<String>) -> Asking<'a, ()>;
    /// Gives an upload up, and removes its parts. One that is not there is given up already.
    fn abort<'a>(&'a self, key: &'a str, upload: &'a str) -> Asking<'a, ()>;
    /// Removes an object. One that is not there is removed already.
    fn remove<'a>(&'a self, key: &'a str) -> Asking<'a, ()>;
    /// Uploads of a unit that are neither completed nor given up: keys, and what names each upload. A page of them.
    fn uploads(&self, unit: UnitId) -> Asking<'_, Vec<(String, String)>>;
    /// The keys of a unit that come behind `after`, in order: a page, empty behind the last.
    fn list<'a>(&'a self, unit: UnitId, after: Option<&'a str>) -> Asking<'a, Vec<String>>;
}

/// Why a store did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ObjectError {
    /// There is no such object, says the store.
    #[error("no such object")]
    NotFound,
    /// It does not let us: credentials, rights, the bucket's name or region. Somebody has to mend it.
    #[error("the store refuses: {0}")]
    Refused(String),
    /// It cannot be reached, is too slow, or fails.
    #[error("the store cannot be reached: {0}")]
    Away(String),
}

/// Names an object among those of its unit: each upload has a name of its own, so that what is to be removed is never what
/// came in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName {
    /// The segment whose records it has.
    pub segment: SegmentId,
    /// Which of the tries to move it.
    pub object: ObjectId,
}

impl ObjectName {
    /// Its key, below a store's prefix.
    pub fn key(&self, unit: UnitId) -> String {
        format!("{unit}/{self}")
    }

    /// Reads what [`fmt::Display`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        let (segment, object) = text.split_once('-')?;
        Some(Self { segment: SegmentId::from_hex(segment)?, object: ObjectId::from_hex(object)? })
    }

    /// The name in a key of `unit`; `None` for other keys.
    pub fn of_key(unit: UnitId, key: &str) -> Option<Self> {
        Self::parse(key.strip_prefix(&unit.to_string())?.strip_prefix('/')?)
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.segment, self.object)
    }
}

/// The key of the object that says that a unit keeps objects in this store.
pub fn marker_key(unit: UnitId) -> String {
    format!("{unit}/here")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_names_unit_segment_and_upload_and_is_read_back_by_that_unit_only() {
        let name = ObjectName { segment: SegmentId([0x1f; 16]), object: ObjectId([0xa0; 16]) };
        let (unit, other) = (UnitId([5; 16]), UnitId([6; 16]));
        let key = name.key(unit);
        assert_eq!(
            key,
            "05050505050505050505050505050505/1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f-a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0"
        );
        assert_eq!(ObjectName::of_key(unit, &key), Some(name));
        assert_eq!(ObjectName::of_key(other, &key), None);
        assert_eq!(ObjectName::of_key(unit, &marker_key(unit)), None);
        assert_eq!(ObjectName::parse("1f-a0"), None);
    }
}
