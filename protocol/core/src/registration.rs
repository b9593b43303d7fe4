//! A store's signed record of where it can be reached (SPEC A12, A13; DESIGN §4).

use std::net::SocketAddr;

use libp2p_identity::PeerId;
use serde::{Deserialize, Serialize};

use crate::limits::ADDRESSES_MAX;
use crate::signed::{Signed, SignedError};
use crate::{Mailbox, Statement, UnixTime};

/// Where a mailbox's store can be reached, signed by the store. The location server can withhold one; it can neither
/// forge one nor replay an older one, since the sequence number only grows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// Whose store.
    pub mailbox: Mailbox,
    /// The store's own key; the statement is signed with it.
    pub peer: PeerId,
    /// UDP addresses of the store's bulk endpoint, best first; at most [`crate::limits::ADDRESSES_MAX`]. May be empty:
    /// a store that only dials out is offered things on the session that it keeps with its relay.
    pub addresses: Vec<SocketAddr>,
    /// Grows with every registration of this store; an older one is refused.
    pub sequence: u64,
    /// From here on it says nothing any more.
    pub expires: UnixTime,
}

impl Statement for Registration {
    const CONTEXT: &'static str = "lighter registration 1";

    fn within_limits(&self) -> bool {
        self.addresses.len() <= ADDRESSES_MAX
    }
}

/// Why a registration is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistrationError {
    /// It is not signed by the store that it names, or malformed.
    #[error("registration: {0}")]
    Signed(#[from] SignedError),
    /// It is another store's, or for another mailbox.
    #[error("registration of another store or mailbox")]
    Another,
    /// It says nothing any more.
    #[error("registration expired")]
    Expired,
    /// A later one, or this one, is known already.
    #[error("registration not newer than number {known}")]
    Sequence {
        /// The sequence number that is known.
        known: u64,
    },
}

impl Registration {
    /// The registration, if the store `peer` signed it for `mailbox`, it has not expired, and its sequence number is
    /// above `known`, the last one that was taken from this store. A replayed or older one is refused so.
    ///
    /// # Errors
    /// Says which check failed; nothing of it may be used then.
    pub fn verify(
        signed: &Signed<Self>,
        peer: &PeerId,
        mailbox: &Mailbox,
        known: Option<u64>,
        now: UnixTime,
    ) -> Result<Self, RegistrationError> {
        let registration = signed.verify(peer)?;
        if registration.peer != *peer || registration.mailbox != *mailbox {
            return Err(RegistrationError::Another);
        }
        if registration.expires <= now {
            return Err(RegistrationError::Expired);
        }
        match known {
            Some(known) if registration.sequence <= known => Err(RegistrationError::Sequence { known }),
            _ => Ok(registration),
        }
    }
}
