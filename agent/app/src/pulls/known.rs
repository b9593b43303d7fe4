//! What the store knows of a delivery before the machine starts.

use std::collections::HashMap;

use lighter_protocol::pull::{Held, Room};
use lighter_protocol::wire::{LaterReason, Offer};
use lighter_protocol::{BlobId, Receipt, Signed, UnixTime};
use lighter_store::limits::MANIFEST_SIZE_MAX;
use lighter_store::{Here, IncomingState, Store, StoreError};

/// What is known of a delivery before the machine starts.
pub(super) enum Known {
    Receipted(Box<Signed<Receipt>>),
    Held { held: HashMap<BlobId, Held>, room: Room },
    OtherContents,
}

/// Looks up what there is of a delivery. Blocks on the disk.
pub(super) fn look(store: &Store, offer: &Offer, closed: Option<LaterReason>) -> Result<Known, StoreError> {
    if let Some(incoming) = store.incoming(offer.delivery)? {
        let is_rejected = matches!(incoming.state, IncomingState::Rejected { .. });
        if is_rejected || !store.is_same(&incoming, offer)? {
            return Ok(Known::OtherContents);
        }
        if let Some(receipt) = incoming.receipt() {
            return Ok(Known::Receipted(Box::new(receipt.clone())));
        }
    }
    let mut held = HashMap::new();
    for part in std::iter::once(&offer.manifest).chain(&offer.blobs) {
        held.insert(
            part.id,
            match store.here(part.id, part.size, UnixTime::now())? {
                Here::Whole => Held::Whole,
                Here::Part(ranges) => Held::Some(ranges),
            },
        );
    }
    let space = store.space(offer.delivery)?;
    let room = Room {
        blob_size_max: store.settings().blob_size_max,
        manifest_size_max: MANIFEST_SIZE_MAX,
        quota_left: space.quota_left,
        disk_left: space.disk_left,
        closed,
    };
    Ok(Known::Held { held, room })
}
