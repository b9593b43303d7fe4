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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{MALLORY, STORE, bob, carol, hours, now, peer, registration, signed};

    #[test]
    fn a_newer_registration_of_the_store_is_taken() {
        let verify = |known| {
            Registration::verify(&signed(&registration(), STORE), &peer(STORE), &bob(), known, now().wall)
        };
        assert_eq!(verify(None), Ok(registration()));
        assert_eq!(verify(Some(4)), Ok(registration()));
    }

    // SPEC: A13
    #[test]
    fn bad_input_34_a_registration_forged_replayed_expired_or_of_somebody_else_is_refused() {
        use RegistrationError as E;
        let start = now().wall;
        let case = |change: &dyn Fn(&mut Registration), by: u8, known: Option<u64>, now: UnixTime| {
            let mut registration = registration();
            change(&mut registration);
            Registration::verify(&signed(&registration, by), &peer(STORE), &bob(), known, now).unwrap_err()
        };
        assert_eq!(case(&|_| {}, MALLORY, None, start), E::Signed(SignedError::Signature), "forged");
        assert_eq!(case(&|r| r.peer = peer(MALLORY), STORE, None, start), E::Another);
        assert_eq!(case(&|r| r.mailbox = carol(), STORE, None, start), E::Another);
        assert_eq!(case(&|_| {}, STORE, None, start.plus(hours(1))), E::Expired);
        assert_eq!(case(&|_| {}, STORE, Some(5), start), E::Sequence { known: 5 }, "replayed");
        assert_eq!(case(&|_| {}, STORE, Some(6), start), E::Sequence { known: 6 }, "older");
    }

    #[test]
    fn bad_input_34_a_statement_changed_in_any_bit_does_not_verify() {
        let bytes = signed(&registration(), STORE).to_bytes();
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let verified =
                Signed::<Registration>::from_bytes(&changed).and_then(|signed| signed.verify(&peer(STORE)));
            assert!(verified.is_err(), "bit {bit}");
        }
    }

    #[test]
    fn bad_input_35_a_statement_with_too_much_in_it_is_neither_signed_nor_taken() {
        let addresses = vec!["192.0.2.1:1".parse().unwrap(); ADDRESSES_MAX + 1];
        let long = Registration { addresses, ..registration() };
        let key = crate::fixtures::key(STORE);
        assert_eq!(Signed::sign(&long, &key), Err(SignedError::Limits));
    }
}
