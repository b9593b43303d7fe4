//! Up to where the log is in the view.

use lighter_storage::Sequence;
use serde::{Deserialize, Serialize};

/// A place in the log, with a mark of the change that stands there: a view whose mark is not found in the log at
/// this place belongs to another log, or is ahead of a damaged one, and is made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The sequence number of the last change that the view has for certain. None: it has nothing.
    pub last: Option<(Sequence, Mark)>,
}

/// The first 16 bytes of a change's BLAKE3 hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark([u8; 16]);

impl Mark {
    /// The mark of an encoded change.
    pub fn of(change: &[u8]) -> Self {
        let mut mark = [0; 16];
        mark.copy_from_slice(&blake3::hash(change).as_bytes()[..16]);
        Self(mark)
    }
}

impl Checkpoint {
    /// Where a view begins.
    pub const BEGIN: Self = Self { last: None };

    /// Whether the change with this number is in the view for certain.
    pub fn covers(&self, sequence: Sequence) -> bool {
        self.last.is_some_and(|(last, _)| sequence <= last)
    }
}
