//! Drops (DESIGN §6): deliveries that wait sealed at a relay, on the side of who leaves them and of who opens them.
//!
//! **Leaving.** The sealed blobs are kept beside the delivery's own until the relay has them; the delivery itself stays
//! what it is, and is kept until the recipient's receipt.
//!
//! **Opening.** A drop comes in as what it is sealed as. Opened, its own blobs take the place of the sealed ones in one
//! step with the receipt: a crash before that leaves the sealed ones, whole, to be opened again; after it, nothing of them
//! is kept but their names, by which the relay offers them again.

use lighter_protocol::wire::{Offer, OfferedBlob};
use lighter_protocol::{DeliveryId, Receipt, Signed};

use super::deliveries::Durable;
use super::{Hold, Store};
use crate::delivery::{Incoming, IncomingState, LeftDrop};
use crate::error::StoreError;

impl Store {
    /// Puts on record how a delivery of ours is left with a relay, or its new state; `hold` has the sealed blobs that are
    /// new. They are let go of once the relay has them.
    ///
    /// # Errors
    /// What the index says.
    pub fn put_left(&self, delivery: DeliveryId, left: &LeftDrop) -> Result<(), StoreError> {
        let _placing = self.0.placing();
        let dropped = self.0.index.put_left(delivery, left)?;
        self.0.remove_files(&dropped);
        Ok(())
    }

    /// How a delivery of ours is left with a relay; none where it is not.
    ///
    /// # Errors
    /// What the index says.
    pub fn left(&self, delivery: DeliveryId) -> Result<Option<LeftDrop>, StoreError> {
        Ok(self.0.index.left(delivery)?)
    }

    /// Whether `offer` is the delivery `incoming` again: as it is, or as it was sealed.
    ///
    /// # Errors
    /// What the index says.
    pub fn is_same(&self, incoming: &Incoming, offer: &Offer) -> Result<bool, StoreError> {
        if incoming.is_same(offer) {
            return Ok(true);
        }
        let sealed = self.0.index.sealed(incoming.delivery)?;
        Ok(sealed
            .is_some_and(|(manifest, blobs)| Incoming { manifest, blobs, ..incoming.clone() }.is_same(offer)))
    }

    /// As [`Store::settle`], for a drop that was opened: `manifest` and `blobs`, which `hold` keeps, take the place of
    /// what they were sealed as. The receipt is for the sealed ones, which is what its holder has.
    ///
    /// # Errors
    /// As [`Store::settle`].
    pub fn settle_opened(
        &self,
        durable: Durable,
        manifest: OfferedBlob,
        blobs: Vec<OfferedBlob>,
        _hold: &Hold,
        receipt: Signed<Receipt>,
    ) -> Result<Signed<Receipt>, StoreError> {
        let sealed = durable.into_incoming();
        let delivery = sealed.delivery;
        let _placing = self.0.placing();
        let parts = std::iter::once(&manifest).chain(&blobs).map(|part| (part.id, part.size));
        if let Some(missing) = self.0.index.first_missing(parts)? {
            return Err(StoreError::NoBlob(missing));
        }
        let known = self.0.index.incoming(delivery)?.ok_or(StoreError::NoDelivery(delivery))?;
        if let Some(given) = known.receipt() {
            return Ok(given.clone());
        }
        let state = IncomingState::Receipted(receipt.clone());
        let opened = Incoming { manifest, blobs, state, ..sealed.clone() };
        let dropped = self.0.index.put_opened(&sealed, &opened)?;
        self.0.remove_files(&dropped);
        Ok(receipt)
    }

    /// A delivery that cannot be used, and why: nothing of it is kept, and it is not taken again.
    ///
    /// # Errors
    /// [`StoreError::NoDelivery`] where it is not known; else what the index says.
    pub fn reject(&self, delivery: DeliveryId, reason: &str) -> Result<(), StoreError> {
        let mut incoming = self.0.index.incoming(delivery)?.ok_or(StoreError::NoDelivery(delivery))?;
        if incoming.receipt().is_some() {
            return Ok(());
        }
        incoming.state = IncomingState::Rejected { reason: reason.to_owned() };
        let _placing = self.0.placing();
        let dropped = self.0.index.put_incoming(&incoming, false)?;
        self.0.remove_files(&dropped);
        Ok(())
    }
}
