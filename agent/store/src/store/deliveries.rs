//! Deliveries: taken on, proved durable, receipted, let go of; and those that go out.

use std::time::Duration;

use lighter_protocol::wire::Offer;
use lighter_protocol::{BlobId, DeliveryId, Mailbox, PeerId, Receipt, Signed, UnixTime};

use super::Store;
use crate::delivery::{Incoming, IncomingState, Outgoing};
use crate::error::StoreError;
use crate::limits::{DELIVERIES_MAX, DISK_RESERVE, SHARERS_MAX};

/// What the store knows about an offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It is new, and on record now.
    New(Incoming),
    /// It is known: go on with it, or give the receipt that was given.
    Known(Incoming),
    /// Its number is taken by another delivery: somebody lies, or draws badly.
    Conflict,
}

/// What there is room for, before anything more is promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes that the user's quota leaves for attachments.
    pub quota_left: u64,
    /// Bytes that may still be written to the disk.
    pub disk_left: u64,
}

/// Proof that manifest and all attachments of a delivery are durable here: the only way to a receipt.
#[derive(Debug)]
pub struct Durable {
    incoming: Incoming,
}

impl Durable {
    pub(super) fn into_incoming(self) -> Incoming {
        self.incoming
    }

    /// The delivery.
    pub fn incoming(&self) -> &Incoming {
        &self.incoming
    }

    /// What the store may sign now.
    pub fn receipt(&self, store: PeerId, now: UnixTime) -> Receipt {
        Receipt {
            delivery: self.incoming.delivery,
            mailbox: self.incoming.mailbox.clone(),
            store,
            manifest: self.incoming.manifest.id,
            time: now,
        }
    }
}

impl Store {
    /// What there is room for, as `delivery` finds it: what was promised to that one before is not held against it
    /// when it is offered again.
    ///
    /// # Errors
    /// What disk or index say.
    pub fn space(&self, delivery: DeliveryId) -> Result<Space, StoreError> {
        let disk_left = self.disk_free()?.saturating_sub(DISK_RESERVE);
        let Some(quota) = self.settings().quota else { return Ok(Space { quota_left: u64::MAX, disk_left }) };
        let mut promised = 0_u64;
        for part in self.0.index.incoming(delivery)?.iter().flat_map(|incoming| &incoming.blobs) {
            promised = promised.saturating_add(part.size - self.len_here(part.id, part.size)?.min(part.size));
        }
        let used = self.0.index.used()?.saturating_sub(promised);
        Ok(Space { quota_left: quota.saturating_sub(used), disk_left })
    }

    /// Takes an offer on record; one that is there already is given back as it stands, so that a replayed offer gets
    /// the same answer.
    ///
    /// # Errors
    /// [`StoreError::TooMany`] where the index is full; else what it says.
    pub fn admit(&self, offer: &Offer, from: PeerId, now: UnixTime) -> Result<Admission, StoreError> {
        if let Some(known) = self.0.index.incoming(offer.delivery)? {
            let is_same = self.is_same(&known, offer)?;
            return Ok(if is_same { Admission::Known(known) } else { Admission::Conflict });
        }
        if self.0.index.incoming_count()? >= DELIVERIES_MAX {
            return Err(StoreError::TooMany);
        }
        // What came for somebody who let go of it since did not come for this one.
        for part in std::iter::once(&offer.manifest).chain(&offer.blobs) {
            self.seal_if_waiting(&part.id, now)?;
        }
        let incoming = Incoming::new(offer, from, now);
        self.0.index.put_incoming(&incoming, true)?;
        Ok(Admission::New(incoming))
    }

    /// The proof that all of a delivery is durable here; none where parts are missing.
    ///
    /// # Errors
    /// [`StoreError::NoDelivery`] where it is not known; else what the index says.
    pub fn durable(&self, delivery: DeliveryId) -> Result<Option<Durable>, StoreError> {
        let incoming = self.0.index.incoming(delivery)?.ok_or(StoreError::NoDelivery(delivery))?;
        // The size is the stored blob's own from here on: what the offer claimed was only a claim.
        let missing = self.0.index.first_missing(incoming.parts().map(|(part, _)| (part.id, part.size)))?;
        Ok(missing.is_none().then_some(Durable { incoming }))
    }

    /// Puts the signed receipt on record, durable before it is sent. Where there is one already, that one stays, and
    /// is what must be sent.
    ///
    /// # Errors
    /// [`StoreError::NoBlob`] where a part was let go of, or found to be damaged, since the proof; else what the index
    /// says.
    pub fn settle(&self, durable: Durable, receipt: Signed<Receipt>) -> Result<Signed<Receipt>, StoreError> {
        let mut incoming = durable.incoming;
        let delivery = incoming.delivery;
        // Nothing is set aside or removed while the proof becomes a receipt.
        let _placing = self.0.placing();
        let parts = incoming.parts().map(|(part, _)| (part.id, part.size));
        if let Some(missing) = self.0.index.first_missing(parts)? {
            return Err(StoreError::NoBlob(missing));
        }
        let known = self.0.index.incoming(delivery)?.ok_or(StoreError::NoDelivery(delivery))?;
        if let Some(given) = known.receipt() {
            return Ok(given.clone());
        }
        incoming.state = IncomingState::Receipted(receipt.clone());
        self.0.index.put_incoming(&incoming, true)?;
        Ok(receipt)
    }

    /// An incoming delivery.
    ///
    /// # Errors
    /// What the index says.
    pub fn incoming(&self, delivery: DeliveryId) -> Result<Option<Incoming>, StoreError> {
        Ok(self.0.index.incoming(delivery)?)
    }

    /// Whether a blob is here, or a part of it, for other mailboxes' deliveries, and `mailbox` has not received it itself: a
    /// store of many mailboxes keeps equal blobs once, and lets nobody notice.
    ///
    /// # Errors
    /// What the index says.
    pub fn is_others(&self, blob: BlobId, mailbox: &Mailbox) -> Result<bool, StoreError> {
        let mut is_others = false;
        let deliveries = self.0.index.deliveries_of(blob, SHARERS_MAX)?;
        // With more than are looked at, it is others'.
        let is_cut = deliveries.len() >= SHARERS_MAX;
        for delivery in deliveries {
            let Some(incoming) = self.0.index.incoming(delivery)? else { continue };
            match (incoming.mailbox == *mailbox, &incoming.state) {
                (true, IncomingState::Receipted(_)) => return Ok(false),
                (true, _) => {}
                (false, _) => is_others = true,
            }
        }
        Ok(is_others || is_cut)
    }

    /// All incoming deliveries, newest first.
    ///
    /// # Errors
    /// What the index says.
    pub fn all_incoming(&self) -> Result<Vec<Incoming>, StoreError> {
        let mut all = self.0.index.all_incoming()?;
        all.sort_by_key(|incoming| (std::cmp::Reverse(incoming.offered), incoming.delivery));
        Ok(all)
    }

    /// Bytes of a part that are here, complete or on record; what a running pull wrote since its last checkpoint is
    /// counted as well.
    ///
    /// # Errors
    /// What the index says.
    pub fn len_here(&self, blob: BlobId, size: u64) -> Result<u64, StoreError> {
        if self.holds(blob)? {
            return Ok(size);
        }
        if self.0.packs.is_waiting(&blob) {
            return Ok(size);
        }
        let running = self.0.partials().get(&(blob, size)).and_then(std::sync::Weak::upgrade);
        if let Some(partial) = running {
            return Ok(partial.len_here());
        }
        Ok(self.0.index.partial(blob, size)?.len())
    }

    /// Lets go of a delivery: its blobs are removed unless another one needs them. One that was receipted keeps its
    /// receipt until nobody can offer it again.
    ///
    /// # Errors
    /// [`StoreError::NoDelivery`] where it is not known; else what the index says.
    pub fn remove(&self, delivery: DeliveryId) -> Result<(), StoreError> {
        let mut incoming = self.0.index.incoming(delivery)?.ok_or(StoreError::NoDelivery(delivery))?;
        let _placing = self.0.placing();
        let dropped = match incoming.receipt().cloned() {
            Some(receipt) => {
                incoming.state = IncomingState::LetGo(receipt);
                self.0.index.put_incoming(&incoming, false)?
            }
            None => self.0.index.remove_incoming(&incoming)?,
        };
        self.0.remove_files(&dropped);
        Ok(())
    }

    /// Lets go of what the user's retention says, and forgets what can never come any more: deliveries whose holder
    /// let go of them before all was here, and the receipts of those that nobody can offer again. Gives how many.
    ///
    /// # Errors
    /// What the index says.
    pub fn expire(&self, now: UnixTime) -> Result<usize, StoreError> {
        self.0.index.expire_sharings(now)?;
        let mut count = 0;
        for incoming in self.0.index.all_incoming()? {
            match &incoming.state {
                IncomingState::Receipted(receipt) => {
                    if self.is_past_retention(receipt, now) {
                        self.remove(incoming.delivery)?;
                        count += 1;
                    }
                }
                IncomingState::Pulling | IncomingState::LetGo(_) | IncomingState::Rejected { .. }
                    if incoming.expires < now =>
                {
                    let _placing = self.0.placing();
                    let dropped = self.0.index.remove_incoming(&incoming)?;
                    self.0.remove_files(&dropped);
                    count += 1;
                }
                IncomingState::Pulling | IncomingState::LetGo(_) | IncomingState::Rejected { .. } => {}
            }
        }
        Ok(count)
    }

    fn is_past_retention(&self, receipt: &Signed<Receipt>, now: UnixTime) -> bool {
        let kept: Option<Duration> = self.settings().retention;
        // It is the store's own receipt, from its own index.
        match (kept, receipt.claim()) {
            (Some(kept), Ok(receipt)) => receipt.time.plus(kept) < now,
            _ => false,
        }
    }

    /// Puts an outgoing delivery on record, or its new state. Released, its blobs are let go of (rule 3: only the
    /// caller, who verified the receipt, may say so).
    ///
    /// # Errors
    /// What the index says.
    pub fn put_outgoing(&self, outgoing: &Outgoing) -> Result<(), StoreError> {
        self.put_outgoing_as(outgoing, false)
    }

    /// The same for one whose recipient the message's header shows: from then on [`Store::shown`] tells of it.
    ///
    /// # Errors
    /// As [`Store::put_outgoing`].
    pub fn put_outgoing_shown(&self, outgoing: &Outgoing) -> Result<(), StoreError> {
        self.put_outgoing_as(outgoing, true)
    }

    fn put_outgoing_as(&self, outgoing: &Outgoing, is_shown: bool) -> Result<(), StoreError> {
        let _placing = self.0.placing();
        let dropped = self.0.index.put_outgoing(outgoing, is_shown)?;
        self.0.remove_files(&dropped);
        Ok(())
    }

    /// The outgoing deliveries of the message with this manifest whose recipients its header shows, however far they are. At
    /// most [`SHOWN_MAX`](crate::limits::SHOWN_MAX).
    ///
    /// # Errors
    /// What the index says.
    pub fn shown(&self, manifest: BlobId) -> Result<Vec<Outgoing>, StoreError> {
        Ok(self.0.index.shown(manifest)?)
    }

    /// Whether a blob came here for this incoming delivery, and for no other one: nothing of it was here when the delivery
    /// named it, and nobody else named it, or put it here, until the delivery was receipted. Only then may it be given to
    /// others at its sender's word: the sender may have known no more of it than its hash.
    ///
    /// # Errors
    /// What the index says.
    pub fn is_brought(&self, delivery: DeliveryId, blob: BlobId) -> Result<bool, StoreError> {
        Ok(self.0.index.is_brought(delivery, blob)?)
    }

    /// Changes an outgoing delivery, as one step: whoever else changes it comes before or after. Gives it as it is then.
    ///
    /// # Errors
    /// [`StoreError::NoDelivery`] where it is not known; else what the index says.
    pub fn change_outgoing(
        &self,
        delivery: DeliveryId,
        change: impl FnOnce(&mut Outgoing),
    ) -> Result<Outgoing, StoreError> {
        let _placing = self.0.placing();
        let mut outgoing = self.0.index.outgoing(delivery)?.ok_or(StoreError::NoDelivery(delivery))?;
        change(&mut outgoing);
        let dropped = self.0.index.put_outgoing(&outgoing, false)?;
        self.0.remove_files(&dropped);
        Ok(outgoing)
    }

    /// An outgoing delivery.
    ///
    /// # Errors
    /// What the index says.
    pub fn outgoing(&self, delivery: DeliveryId) -> Result<Option<Outgoing>, StoreError> {
        Ok(self.0.index.outgoing(delivery)?)
    }

    /// All outgoing deliveries, newest first.
    ///
    /// # Errors
    /// What the index says.
    pub fn all_outgoing(&self) -> Result<Vec<Outgoing>, StoreError> {
        let mut all = self.0.index.all_outgoing()?;
        all.sort_by_key(|outgoing| (std::cmp::Reverse(outgoing.created), outgoing.delivery));
        Ok(all)
    }

    /// Removes an outgoing delivery and lets go of its blobs.
    ///
    /// # Errors
    /// [`StoreError::NoDelivery`] where it is not known; else what the index says.
    pub fn remove_outgoing(&self, delivery: DeliveryId) -> Result<(), StoreError> {
        let outgoing = self.0.index.outgoing(delivery)?.ok_or(StoreError::NoDelivery(delivery))?;
        let _placing = self.0.placing();
        let dropped = self.0.index.remove_outgoing(&outgoing)?;
        self.0.remove_files(&dropped);
        Ok(())
    }

    /// Bytes that attachments take of the quota.
    ///
    /// # Errors
    /// What the index says.
    pub fn used(&self) -> Result<u64, StoreError> {
        Ok(self.0.index.used()?)
    }
}
