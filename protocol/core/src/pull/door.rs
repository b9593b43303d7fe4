//! Who may tell this store to pull: the one place where that is decided (DESIGN §4: four proofs, never merged).
//!
//! That the peer owns its key was proved by the connection. Here it is asked whether the mailbox is this store's, and
//! whether the peer is a relay that the store's own attestation names, or a sender with an introduction from the store's
//! own location server. Everyone else gets the same answer, whatever was wrong.

use std::collections::{BTreeMap, HashMap};

use crate::limits::{
    BLOB_SIZE_MAX, HOSTED_INTRODUCTIONS_MAX, INTRODUCTION_CLOCK_GRACE, INTRODUCTION_DELIVERIES_MAX,
    INTRODUCTIONS_MAX, OFFER_BLOBS_MAX,
};
use crate::wire::{Answer, Check, Invalid, NewDrop, Offer};
use crate::{
    Attestation, AttestationError, DeliveryId, Introduction, IntroductionError, PeerId, Signed, UnixTime,
    blob,
};

/// What the store knows of itself.
#[derive(Clone, Copy, Debug)]
pub struct Own<'a> {
    /// Its attestation, verified when it came: which mailbox it acts for, and its domain's relays.
    pub attestation: &'a Attestation,
    /// Its location server.
    pub location: &'a PeerId,
}

/// What a peer that may offer is to this store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// A relay of the own domain.
    OwnRelay,
    /// A sender, by the location server's word.
    Introduced(Introduction),
}

impl Standing {
    /// What it hears of a blob that is here already: strangers cannot ask what a user owns (DESIGN §4).
    pub(super) fn had(&self) -> Answer {
        match self {
            Self::OwnRelay => Answer::Have,
            Self::Introduced(_) => Answer::Pull,
        }
    }

    /// What it hears where another was answered so.
    pub(super) fn hears(&self, answer: Answer) -> Answer {
        if answer == Answer::Have { self.had() } else { answer }
    }
}

/// Why an offer is not taken: for the log. The peer hears [`crate::wire::Response::Refused`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAdmitted {
    /// It breaks a bound.
    #[error("{0}")]
    Invalid(#[from] Invalid),
    /// It is for another mailbox.
    #[error("offer for another mailbox")]
    Mailbox,
    /// The store's own attestation does not count any more, so it does not know its relays.
    #[error("own {0}")]
    Attestation(#[from] AttestationError),
    /// The holder would let go of it right away, or has.
    #[error("the offer has expired")]
    Expired,
    /// A blob of no bytes with another hash than that of no bytes.
    #[error("an empty blob with another blob's id")]
    EmptyBlob,
    /// The peer is neither an own relay, nor shows an introduction.
    #[error("a stranger without an introduction")]
    Stranger,
    /// Its introduction does not count.
    #[error("{0}")]
    Introduction(#[from] IntroductionError),
    /// So many introductions are remembered that this one could not be counted.
    #[error("too many introductions at a time")]
    Crowded,
    /// The delivery is known, with other contents, or for another mailbox.
    #[error("a known delivery with other contents")]
    OtherContents,
}

/// The door: remembers what was offered with each introduction, until it expires.
///
/// That memory is lost in a crash; then an introduction is good for its bytes once more, within its ten minutes.
#[derive(Clone, Debug, Default)]
pub struct Door {
    /// By the statement's fingerprint. At most [`INTRODUCTIONS_MAX`], or [`HOSTED_INTRODUCTIONS_MAX`].
    used: HashMap<[u8; 32], Used>,
    /// Whether it is the door of a store of many mailboxes.
    is_of_many: bool,
}

#[derive(Clone, Debug)]
struct Used {
    until: UnixTime,
    /// Bytes by delivery: an offer that is made again is not counted again. At most [`INTRODUCTION_DELIVERIES_MAX`].
    bytes: BTreeMap<DeliveryId, u64>,
}

impl Door {
    /// A door that nobody came to.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same for a store of many mailboxes (SPEC A29): it remembers more introductions.
    pub fn of_many() -> Self {
        Self { is_of_many: true, ..Self::default() }
    }

    /// Whether `peer`, the other end of the connection, may make `offer` to this store.
    ///
    /// # Errors
    /// The first reason why not.
    pub fn admit(
        &mut self,
        offer: &Offer,
        peer: &PeerId,
        own: Own<'_>,
        now: UnixTime,
    ) -> Result<Standing, NotAdmitted> {
        offer.check()?;
        if offer.mailbox != own.attestation.mailbox {
            return Err(NotAdmitted::Mailbox);
        }
        own.attestation.in_date(now)?;
        if offer.expires <= now {
            return Err(NotAdmitted::Expired);
        }
        let mut all = std::iter::once(&offer.manifest).chain(&offer.blobs);
        if all.any(|offered| offered.size == 0 && offered.id != blob::empty_id()) {
            return Err(NotAdmitted::EmptyBlob);
        }
        if own.attestation.names_relay(peer) {
            return Ok(Standing::OwnRelay);
        }
        let signed = offer.introduction.as_ref().ok_or(NotAdmitted::Stranger)?;
        let bytes = total_bytes(offer);
        let introduction = Introduction::verify(signed, own.location, peer, &offer.mailbox, bytes, now)?;
        self.count(signed, &introduction, offer.delivery, bytes, now)?;
        Ok(Standing::Introduced(introduction))
    }

    /// Whether `peer`, the other end of the connection, may leave `new` with a relay of the domain whose location server
    /// is `location`: it has an introduction that covers it.
    ///
    /// # Errors
    /// The first reason why not.
    pub fn admit_drop(
        &mut self,
        new: &NewDrop,
        peer: &PeerId,
        location: &PeerId,
        now: UnixTime,
    ) -> Result<Introduction, NotAdmitted> {
        new.check()?;
        if new.expires <= now {
            return Err(NotAdmitted::Expired);
        }
        let (signed, bytes) = (&new.introduction, new.bytes());
        let introduction = Introduction::verify(signed, location, peer, &new.recipient, bytes, now)?;
        self.count(signed, &introduction, new.delivery, bytes, now)?;
        Ok(introduction)
    }

    fn count(
        &mut self,
        signed: &Signed<Introduction>,
        introduction: &Introduction,
        delivery: DeliveryId,
        bytes: u64,
        now: UnixTime,
    ) -> Result<(), NotAdmitted> {
        let key = signed.fingerprint();
        let introductions_max = if self.is_of_many { HOSTED_INTRODUCTIONS_MAX } else { INTRODUCTIONS_MAX };
        if self.used.len() >= introductions_max && !self.used.contains_key(&key) {
            self.used.retain(|_, used| now < used.until);
            if self.used.len() >= introductions_max {
                return Err(NotAdmitted::Crowded);
            }
        }
        let until = introduction.expires.plus(INTRODUCTION_CLOCK_GRACE);
        let used = self.used.entry(key).or_insert(Used { until, bytes: BTreeMap::new() });
        let others: u64 = used.bytes.iter().filter(|(id, _)| **id != delivery).map(|(_, bytes)| bytes).sum();
        let known = used.bytes.get(&delivery).copied().unwrap_or(0);
        let too_many = used.bytes.len() >= INTRODUCTION_DELIVERIES_MAX && !used.bytes.contains_key(&delivery);
        if too_many || others.saturating_add(bytes.max(known)) > introduction.bytes_max {
            return Err(IntroductionError::TooManyBytes.into());
        }
        used.bytes.insert(delivery, bytes.max(known));
        Ok(())
    }
}

/// The bytes of all blobs, manifest and all. (Cannot overflow: both factors are bounded by [`Offer::check`].)
fn total_bytes(offer: &Offer) -> u64 {
    offer.blobs.iter().fold(offer.manifest.size, |sum, offered| sum.saturating_add(offered.size))
}

const _: () = assert!(OFFER_BLOBS_MAX as u64 + 1 < u64::MAX / BLOB_SIZE_MAX);
