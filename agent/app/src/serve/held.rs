//! What of a delivery somebody may read here, whoever made it: one that is offered, one that came, one that is left with a
//! relay.

use lighter_protocol::offer::Delivery;
use lighter_protocol::wire::{Get, GetBlobs};
use lighter_protocol::{BlobId, DeliveryId, PeerId, UnixTime};
use lighter_store::{LeftDrop, Outgoing, StoreError};
use lighter_transport::limiter::Transfer;

use crate::shared::Handle;
use crate::{guest, hosted};

/// A delivery that is here.
pub(super) enum Held {
    /// Left with a relay, which reads what is sealed; nobody reads anything else of it.
    Left(DeliveryId, LeftDrop),
    /// Offered to this store by this agent, or here (`None`) for a mailbox of its own.
    Delivery(Delivery, Option<PeerId>),
}

impl Held {
    /// None where nothing of it is anybody's to read.
    pub(super) async fn find(shared: &Handle, delivery: DeliveryId) -> Option<Self> {
        let found = shared
            .blocking(move |store| {
                if let Some(left) = store.left(delivery)? {
                    return Ok((Some(left), None, None));
                }
                let outgoing = store.outgoing(delivery)?.filter(Outgoing::is_held);
                let incoming = if outgoing.is_none() { store.incoming(delivery)? } else { None };
                Ok::<_, StoreError>((None, outgoing, incoming))
            })
            .await;
        let found = found.inspect_err(|error| tracing::warn!(%error, "the index cannot be read"));
        match found.ok()? {
            (Some(left), ..) => Some(Self::Left(delivery, left)),
            (_, Some(outgoing), _) => {
                let offered_to = outgoing.store;
                let facts = Delivery {
                    id: delivery,
                    mailbox: outgoing.recipient,
                    manifest: outgoing.manifest,
                    blobs: outgoing.blobs,
                    sources: Vec::new(),
                    expires: outgoing.expires,
                };
                Some(Self::Delivery(facts, Some(offered_to)))
            }
            (_, _, incoming) => {
                // What is here for a mailbox that is hosted no more is nobody's to read.
                let incoming = incoming.filter(|incoming| hosted::is_served(shared, &incoming.mailbox))?;
                let facts = Delivery {
                    id: delivery,
                    mailbox: incoming.mailbox,
                    manifest: incoming.manifest,
                    blobs: incoming.blobs,
                    sources: Vec::new(),
                    expires: incoming.expires,
                };
                Some(Self::Delivery(facts, None))
            }
        }
    }

    /// The size of what `get` asks for, if `peer` may read it.
    pub(super) fn admits(&self, shared: &Handle, get: &Get, peer: &PeerId) -> Option<u64> {
        match self {
            Self::Left(_, left) => {
                let is_its = left.relay == *peer && left.taken.is_none();
                left.parts().find(|part| is_its && part.id == get.blob).map(|part| part.size)
            }
            Self::Delivery(facts, offered_to) => {
                facts.admits(get, peer, offered_to.as_ref(), &shared.location_peer(), UnixTime::now())
            }
        }
    }

    /// The same of small blobs. A relay asks for what is left with it one by one.
    pub(super) fn admits_blobs(&self, shared: &Handle, get: &GetBlobs, peer: &PeerId) -> Option<Vec<u64>> {
        match self {
            Self::Left(..) => None,
            Self::Delivery(facts, offered_to) => {
                facts.admits_blobs(get, peer, offered_to.as_ref(), &shared.location_peer(), UnixTime::now())
            }
        }
    }

    /// What it is to the line.
    pub(super) fn transfer(&self, blob: &BlobId) -> Transfer {
        match self {
            // Somebody waits until it is there: only then the message goes.
            Self::Left(delivery, _) => guest::asked(*delivery),
            Self::Delivery(facts, _) => guest::transfer(facts.id, facts.manifest.id == *blob, &facts.blobs),
        }
    }
}
