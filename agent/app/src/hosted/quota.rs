//! How much is kept for each mailbox. Each delivery counts with all its bytes, whether others have the same attachment or
//! not: what a user may keep does not depend on what others have.

use std::collections::{BTreeMap, HashMap};

use lighter_protocol::wire::Offer;
use lighter_protocol::{DeliveryId, Mailbox};
use lighter_store::{IncomingState, Store, StoreError};

/// Bytes by mailbox and delivery. Made from the store's list, and kept as deliveries come.
#[derive(Debug, Default)]
pub(super) struct Usage {
    of: HashMap<Mailbox, BTreeMap<DeliveryId, u64>>,
    is_known: bool,
}

impl Usage {
    /// Reads the list where something was let go of since, or at the first time.
    pub(super) fn refresh(&mut self, store: &Store) -> Result<(), StoreError> {
        if self.is_known {
            return Ok(());
        }
        self.of.clear();
        for incoming in store.all_incoming()? {
            if matches!(incoming.state, IncomingState::Pulling | IncomingState::Receipted(_)) {
                let size = incoming.size();
                self.of.entry(incoming.mailbox).or_default().insert(incoming.delivery, size);
            }
        }
        self.is_known = true;
        Ok(())
    }

    /// It is not known any more.
    pub(super) fn forget(&mut self) {
        self.is_known = false;
    }

    /// Counts a delivery; gives what the mailbox's others take.
    pub(super) fn reserve(&mut self, offer: &Offer) -> u64 {
        let size = offer.blobs.iter().fold(0_u64, |sum, blob| sum.saturating_add(blob.size));
        let of = self.of.entry(offer.mailbox.clone()).or_default();
        of.insert(offer.delivery, size);
        let others = of.iter().filter(|(delivery, _)| **delivery != offer.delivery);
        others.fold(0, |sum, (_, size)| sum.saturating_add(*size))
    }

    /// Does not count it any more.
    pub(super) fn release(&mut self, mailbox: &Mailbox, delivery: DeliveryId) {
        if let Some(of) = self.of.get_mut(mailbox) {
            of.remove(&delivery);
            if of.is_empty() {
                self.of.remove(mailbox);
            }
        }
    }

    /// Bytes and deliveries of a mailbox.
    pub(super) fn of(&self, mailbox: &Mailbox) -> (u64, usize) {
        let of = self.of.get(mailbox);
        of.map_or((0, 0), |of| (of.values().fold(0, |sum, size| sum.saturating_add(*size)), of.len()))
    }

    /// The mailboxes that have any.
    pub(super) fn mailboxes(&self) -> Vec<Mailbox> {
        let mut mailboxes: Vec<_> = self.of.keys().cloned().collect();
        mailboxes.sort();
        mailboxes
    }
}
