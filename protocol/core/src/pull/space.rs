//! What a store answers to each blob of an offer that it takes: by what it has, and by what it has room for.

use super::Standing;
use crate::wire::{Answer, LaterReason, NoReason, Offer, OfferedBlob};
use crate::{BlobId, blob::RangeSet};

/// What the store has of a blob already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// Nothing, or these bytes, verified when they were written.
    Some(RangeSet),
    /// All of it, as far as the index says: it is read again before it is receipted.
    Whole,
}

/// What the store has room for, as its policy and its disk say now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes of the largest attachment that is taken at all.
    pub blob_size_max: u64,
    /// Bytes of the largest manifest that is taken. It is outside the quota, and so needs a bound of its own.
    pub manifest_size_max: u64,
    /// Bytes that the quota leaves.
    pub quota_left: u64,
    /// Bytes that may still be written to the disk.
    pub disk_left: u64,
    /// Why nothing is pulled now, where that is so.
    pub closed: Option<LaterReason>,
}

/// The answers, one for each of the offer's blobs. `held` says what there is of a blob.
pub(super) fn answers(
    offer: &Offer,
    standing: &Standing,
    room: &Room,
    held: impl Fn(&BlobId) -> Held,
) -> Vec<Answer> {
    if offer.manifest.size > room.manifest_size_max {
        return vec![Answer::No(NoReason::TooLarge); offer.blobs.len()];
    }
    let missing = |offered: &OfferedBlob| match held(&offered.id) {
        Held::Whole => 0,
        Held::Some(ranges) => offered.size.saturating_sub(ranges.len()),
    };
    // Of what is left, each blob that is taken leaves less to the next.
    let mut quota = room.quota_left;
    let Some(mut disk) = room.disk_left.checked_sub(missing(&offer.manifest)) else {
        return vec![Answer::Later(LaterReason::Disk); offer.blobs.len()];
    };
    let answer = |offered: &OfferedBlob| {
        let bytes = missing(offered);
        if offered.size > room.blob_size_max {
            Answer::No(NoReason::TooLarge)
        } else if held(&offered.id) == Held::Whole {
            standing.had()
        } else if let Some(reason) = room.closed {
            Answer::Later(reason)
        } else if bytes > quota {
            Answer::Later(LaterReason::Quota)
        } else if bytes > disk {
            Answer::Later(LaterReason::Disk)
        } else {
            quota -= bytes;
            disk -= bytes;
            Answer::Pull
        }
    };
    offer.blobs.iter().map(answer).collect()
}
