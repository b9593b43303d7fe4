//! The rows as they lie on disk. Each is an enum of its versions: a newer program reads what an older one wrote.

use lighter_protocol::UnixTime;
use lighter_protocol::blob::RangeSet;
use lighter_protocol::wire::OfferedBlob;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::delivery::{Incoming, LeftDrop, Outgoing};
use crate::error::IndexError;

/// A complete blob.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum BlobRow {
    V1 {
        size: u64,
        /// When it was placed.
        placed: UnixTime,
    },
    /// In a file with others.
    Packed {
        size: u64,
        /// When it was placed.
        placed: UnixTime,
        pack: u64,
        /// Of its first byte there.
        offset: u64,
    },
}

impl BlobRow {
    pub(super) fn new(size: u64, placed: UnixTime) -> Self {
        Self::V1 { size, placed }
    }

    pub(super) fn size(&self) -> u64 {
        match self {
            Self::V1 { size, .. } | Self::Packed { size, .. } => *size,
        }
    }
}

/// What of a partial blob is durable.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum PartialRow {
    /// As [`RangeSet::to_bytes`] writes it.
    V1(Vec<u8>),
}

impl PartialRow {
    pub(super) fn new(ranges: &RangeSet) -> Self {
        Self::V1(ranges.to_bytes())
    }

    /// The ranges; none where they cannot be read.
    pub(super) fn ranges(self) -> Option<RangeSet> {
        match self {
            Self::V1(bytes) => RangeSet::from_bytes(&bytes).ok(),
        }
    }
}

/// An incoming delivery.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum IncomingRow {
    V1(Incoming),
}

impl From<Incoming> for IncomingRow {
    fn from(incoming: Incoming) -> Self {
        Self::V1(incoming)
    }
}

impl From<IncomingRow> for Incoming {
    fn from(row: IncomingRow) -> Self {
        match row {
            IncomingRow::V1(incoming) => incoming,
        }
    }
}

/// An outgoing delivery.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum OutgoingRow {
    V1(Outgoing),
}

impl From<Outgoing> for OutgoingRow {
    fn from(outgoing: Outgoing) -> Self {
        Self::V1(outgoing)
    }
}

impl From<OutgoingRow> for Outgoing {
    fn from(row: OutgoingRow) -> Self {
        match row {
            OutgoingRow::V1(outgoing) => outgoing,
        }
    }
}

/// How an outgoing delivery is left with a relay.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum LeftRow {
    V1(LeftDrop),
}

/// What an incoming drop was sealed as.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum SealedRow {
    V1 { envelope: OfferedBlob, blobs: Vec<OfferedBlob> },
}

pub(super) fn encode(row: &impl Serialize) -> Vec<u8> {
    postcard::to_stdvec(row).expect("rows are plain data, which postcard always encodes")
}

pub(super) fn decode<T: DeserializeOwned>(table: &'static str, bytes: &[u8]) -> Result<T, IndexError> {
    postcard::from_bytes(bytes).map_err(|_| IndexError::Row { table })
}
