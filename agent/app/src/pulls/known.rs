//! What the store knows of a delivery before the machine starts.

use std::collections::HashMap;

use lighter_protocol::pull::{Held, Room};
use lighter_protocol::wire::{LaterReason, Offer};
use lighter_protocol::{BlobId, Receipt, Signed, UnixTime};
use lighter_store::limits::MANIFEST_SIZE_MAX;
use lighter_store::{Here, IncomingState, Store, StoreError};
use lighter_transport::Identity;

use crate::shared::Handle;

/// What is known of a delivery before the machine starts.
pub(super) enum Known {
    Receipted(Box<Signed<Receipt>>),
    Held { held: HashMap<BlobId, Held>, room: Room },
    OtherContents,
}

/// Looks up what there is of a delivery. Blocks on the disk. For the store of many (SPEC A29): with the mailbox's quota, and,
/// where `hides`, without what is here for others only.
pub(super) fn look_as(
    shared: &Handle,
    store: &Store,
    offer: &Offer,
    closed: Option<LaterReason>,
    hides: bool,
) -> Result<Known, StoreError> {
    let mut known = look(store, offer, closed)?;
    if let Known::Receipted(receipt) = &mut known {
        renew(receipt, &shared.identity);
    }
    let Known::Held { held, room } = &mut known else { return Ok(known) };
    if hides {
        for part in std::iter::once(&offer.manifest).chain(&offer.blobs) {
            if store.is_others(part.id, &offer.mailbox)? {
                held.insert(part.id, Held::Some(Default::default()));
            }
        }
    }
    if let Some(left) = shared.hosted.reserve(offer, store)? {
        room.quota_left = room.quota_left.min(left);
        let size = offer.blobs.iter().fold(0_u64, |sum, part| sum.saturating_add(part.size));
        if size > left {
            // Each counts in full, whoever else has it.
            for part in &offer.blobs {
                held.insert(part.id, Held::Some(Default::default()));
            }
        }
    }
    Ok(known)
}

/// A receipt that this store signed with a former key says the same with its present one: who has not heard of it yet asks
/// for the store's that is.
fn renew(receipt: &mut Signed<Receipt>, identity: &Identity) {
    let own = identity.peer();
    if let Ok(claim) = receipt.claim()
        && claim.store != own
        && let Ok(signed) = Signed::sign(&Receipt { store: own, ..claim }, identity.keypair())
    {
        *receipt = signed;
    }
}

fn look(store: &Store, offer: &Offer, closed: Option<LaterReason>) -> Result<Known, StoreError> {
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
