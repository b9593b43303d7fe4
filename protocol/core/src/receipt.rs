//! A store's signed word that a whole delivery is durable there (SPEC D4; DESIGN §6): the only thing that releases.

use libp2p_identity::PeerId;
use serde::{Deserialize, Serialize};

use crate::limits::CLOCK_GRACE;
use crate::signed::{Signed, SignedError};
use crate::{Attestation, AttestationError, BlobId, DeliveryId, Mailbox, Statement, UnixTime};

/// Manifest and all blobs of a delivery are durable at this store. Replaying it changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Receipt {
    /// What was delivered.
    pub delivery: DeliveryId,
    /// Whose delivery it was.
    pub mailbox: Mailbox,
    /// The store; the statement is signed with its key.
    pub store: PeerId,
    /// The delivery's manifest: ties the receipt to the content, not only to a number.
    pub manifest: BlobId,
    /// The store's clock when the last sync was done.
    pub time: UnixTime,
}

impl Statement for Receipt {
    const CONTEXT: &'static str = "lighter receipt 1";
}

/// A store whose receipts release a mailbox's deliveries, and until when that is known.
///
/// It is made of a verified attestation ([`Releaser::attested`]), or of what the recipient's own location server said
/// over its authenticated connection ([`Releaser::looked_up`]); there is no third way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Releaser {
    mailbox: Mailbox,
    store: PeerId,
    until: UnixTime,
}

impl Releaser {
    /// The store that `attestation`, signed by its domain's location server `location`, says is `mailbox`'s primary.
    ///
    /// # Errors
    /// As [`Attestation::verify`]; [`AttestationError::OtherMailbox`] where it is for another mailbox;
    /// [`AttestationError::NotPrimary`] where the store may pull, but not release.
    pub fn attested(
        attestation: &Signed<Attestation>,
        location: &PeerId,
        mailbox: &Mailbox,
        now: UnixTime,
    ) -> Result<Self, AttestationError> {
        let attestation = Attestation::verify(attestation, location, now)?;
        if attestation.mailbox != *mailbox {
            return Err(AttestationError::OtherMailbox);
        }
        if !attestation.primary {
            return Err(AttestationError::NotPrimary);
        }
        Ok(Self {
            mailbox: attestation.mailbox,
            store: attestation.peer,
            until: attestation.expires.plus(CLOCK_GRACE),
        })
    }

    /// The store that the recipient's location server named as `mailbox`'s primary one in a look-up, just now: good
    /// until `until`.
    pub fn looked_up(mailbox: Mailbox, store: PeerId, until: UnixTime) -> Self {
        Self { mailbox, store, until }
    }

    /// The store.
    pub fn store(&self) -> &PeerId {
        &self.store
    }

    /// Whose store it is.
    pub fn mailbox(&self) -> &Mailbox {
        &self.mailbox
    }
}

/// What a receipt must speak of to release a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The delivery.
    pub delivery: DeliveryId,
    /// Whose it is.
    pub mailbox: Mailbox,
    /// Its manifest.
    pub manifest: BlobId,
}

/// A receipt that was checked in full: the only thing that releases (DESIGN §3 rule 3).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VerifiedReceipt {
    receipt: Receipt,
    signed: Signed<Receipt>,
}

/// Why a receipt releases nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// It is not signed by the store that may release, or malformed.
    #[error("receipt: {0}")]
    Signed(#[from] SignedError),
    /// It names another store than the one that signed it.
    #[error("receipt of another store")]
    OtherStore,
    /// It is for another mailbox, or the store may release for another mailbox only.
    #[error("receipt for another mailbox")]
    OtherMailbox,
    /// It is for another delivery.
    #[error("receipt for another delivery")]
    OtherDelivery,
    /// The store has another manifest.
    #[error("receipt for another manifest")]
    OtherManifest,
    /// What is known of the store's right has expired.
    #[error("the store's right to release has expired")]
    Expired,
    /// It is from a future beyond what clocks may differ.
    #[error("receipt from the future")]
    Future,
}

impl VerifiedReceipt {
    /// Checks `signed` against the store that may release and against the delivery.
    ///
    /// # Errors
    /// Says which check failed; nothing may be released then.
    pub fn verify(
        signed: &Signed<Receipt>,
        releaser: &Releaser,
        expected: &Expected,
        now: UnixTime,
    ) -> Result<Self, ReceiptError> {
        if now >= releaser.until {
            return Err(ReceiptError::Expired);
        }
        let receipt = signed.verify(&releaser.store)?;
        if receipt.store != releaser.store {
            return Err(ReceiptError::OtherStore);
        }
        if receipt.mailbox != expected.mailbox || releaser.mailbox != expected.mailbox {
            return Err(ReceiptError::OtherMailbox);
        }
        if receipt.delivery != expected.delivery {
            return Err(ReceiptError::OtherDelivery);
        }
        if receipt.manifest != expected.manifest {
            return Err(ReceiptError::OtherManifest);
        }
        if receipt.time > now.plus(CLOCK_GRACE) {
            return Err(ReceiptError::Future);
        }
        Ok(Self { receipt, signed: signed.clone() })
    }

    /// What it says.
    pub fn receipt(&self) -> &Receipt {
        &self.receipt
    }

    /// The receipt with its signature, to keep as proof.
    pub fn signed(&self) -> &Signed<Receipt> {
        &self.signed
    }
}
