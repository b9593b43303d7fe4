//! A domain's word that a PeerId may act for a mailbox, and which relays are the domain's own (DESIGN §4).

use std::net::SocketAddr;

use libp2p_identity::PeerId;
use serde::{Deserialize, Serialize};

use crate::limits::{ADDRESSES_MAX, ATTESTATION_LIFE_MAX, CLOCK_GRACE, RELAYS_MAX, RETRIEVAL_URL_LEN_MAX};
use crate::signed::{Signed, SignedError};
use crate::{Mailbox, Statement, UnixTime};

/// A domain's statement, signed by its location server's key: this PeerId belongs to this mailbox, until a date.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attestation {
    /// The mailbox that the store may act for.
    pub mailbox: Mailbox,
    /// The store.
    pub peer: PeerId,
    /// Whether its receipts release (DESIGN §4: one store of a mailbox is primary).
    pub primary: bool,
    /// The domain's relays: who may tell this store to pull, and whom it dials.
    pub relays: Vec<RelayRecord>,
    /// When it was made.
    pub issued: UnixTime,
    /// At most 24 hours after `issued`.
    pub expires: UnixTime,
}

/// One relay of a domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayRecord {
    /// The relay's key.
    pub peer: PeerId,
    /// UDP addresses of its QUIC endpoint, best first; at most [`crate::limits::ADDRESSES_MAX`].
    pub addresses: Vec<SocketAddr>,
    /// Where it hands out attachments by ticket: `https://host` or `http://host:port`, no path, no trailing slash. Empty: it
    /// is no more than a helper (PROTOCOL.md §8): nothing waits there, and nothing can be left there.
    pub retrieval_url: String,
}

impl RelayRecord {
    /// Whether it only helps to meet.
    pub fn is_only_helper(&self) -> bool {
        self.retrieval_url.is_empty()
    }
}

impl Statement for Attestation {
    const CONTEXT: &'static str = "lighter attestation 1";

    fn within_limits(&self) -> bool {
        let relay = |relay: &RelayRecord| {
            relay.addresses.len() <= ADDRESSES_MAX && relay.retrieval_url.len() <= RETRIEVAL_URL_LEN_MAX
        };
        self.relays.len() <= RELAYS_MAX && self.relays.iter().all(relay)
    }
}

/// Why an attestation does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttestationError {
    /// It is not the domain's, or malformed.
    #[error("attestation: {0}")]
    Signed(#[from] SignedError),
    /// It would live longer than [`ATTESTATION_LIFE_MAX`], or end before it starts.
    #[error("attestation with a life that is not allowed")]
    Life,
    /// It is from a future beyond what clocks may differ ([`CLOCK_GRACE`]).
    #[error("attestation not yet valid")]
    NotYet,
    /// It has expired, by more than clocks may differ.
    #[error("attestation expired")]
    Expired,
    /// It is another store's.
    #[error("attestation of another store")]
    OtherPeer,
    /// It is for another mailbox.
    #[error("attestation for another mailbox")]
    OtherMailbox,
    /// It is in order, but the store is not the mailbox's primary one: its receipts do not release.
    #[error("attestation of a store that is not primary")]
    NotPrimary,
}

impl Attestation {
    /// The attestation, if the location server `location` signed it and it is in date.
    ///
    /// # Errors
    /// Says which check failed; nothing of it may be used then.
    pub fn verify(signed: &Signed<Self>, location: &PeerId, now: UnixTime) -> Result<Self, AttestationError> {
        let attestation = signed.verify(location)?;
        attestation.in_date(now)?;
        Ok(attestation)
    }

    /// The same, for `peer` only: the one at the other end of the connection that it was shown on.
    ///
    /// # Errors
    /// As [`Attestation::verify`]; [`AttestationError::OtherPeer`] where somebody else shows it.
    pub fn verify_of(
        signed: &Signed<Self>,
        location: &PeerId,
        peer: &PeerId,
        now: UnixTime,
    ) -> Result<Self, AttestationError> {
        let attestation = Self::verify(signed, location, now)?;
        if attestation.peer == *peer { Ok(attestation) } else { Err(AttestationError::OtherPeer) }
    }

    /// Whether it counts at `now`: `issued - grace ≤ now < expires + grace`, and a life of at most a day.
    ///
    /// # Errors
    /// [`AttestationError::Life`], [`AttestationError::NotYet`] or [`AttestationError::Expired`].
    pub fn in_date(&self, now: UnixTime) -> Result<(), AttestationError> {
        if self.expires < self.issued || self.expires > self.issued.plus(ATTESTATION_LIFE_MAX) {
            return Err(AttestationError::Life);
        }
        if now.plus(CLOCK_GRACE) < self.issued {
            return Err(AttestationError::NotYet);
        }
        if now >= self.expires.plus(CLOCK_GRACE) {
            return Err(AttestationError::Expired);
        }
        Ok(())
    }

    /// Whether `peer` is one of the domain's relays.
    pub fn names_relay(&self, peer: &PeerId) -> bool {
        self.relays.iter().any(|relay| relay.peer == *peer)
    }
}
