//! The key that drops for a store are sealed to (DESIGN §6): said by the store itself, given out by its location server.
//!
//! A drop waits at a relay that shall see neither bytes nor names, so the sender needs a key of each store that may open
//! it. The store signs its own; that the store is the mailbox's is the location server's word, which gives out the keys of
//! attested stores only and stops with the store that is revoked.

use libp2p_identity::PeerId;
use serde::{Deserialize, Serialize};

use crate::limits::CLOCK_GRACE;
use crate::signed::{Signed, SignedError};
use crate::{Mailbox, Statement, UnixTime};

/// A store's X25519 key for HPKE (RFC 9180), signed by the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealingKey {
    /// Whose store.
    pub mailbox: Mailbox,
    /// The store; the statement is signed with its key.
    pub peer: PeerId,
    /// The X25519 public key (RFC 7748 §6.1).
    pub key: [u8; 32],
    /// When it was made: of two keys of one store the later one counts.
    pub issued: UnixTime,
}

impl Statement for SealingKey {
    const CONTEXT: &'static str = "lighter sealing key 1";
}

/// Why nothing is sealed to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealingKeyError {
    /// It is not signed by the store that it names, or malformed.
    #[error("sealing key: {0}")]
    Signed(#[from] SignedError),
    /// It is a key for another mailbox.
    #[error("sealing key for another mailbox")]
    OtherMailbox,
    /// It is from a future beyond what clocks may differ ([`CLOCK_GRACE`]).
    #[error("sealing key from the future")]
    Future,
}

impl SealingKey {
    /// The key, if the store that it names signed it, for `mailbox`. Whether that store is the mailbox's is for the
    /// location server to say, which gave the key out.
    ///
    /// # Errors
    /// Says which check failed; nothing may be sealed to it then.
    pub fn verify(signed: &Signed<Self>, mailbox: &Mailbox, now: UnixTime) -> Result<Self, SealingKeyError> {
        let key = signed.verify(&signed.claim()?.peer)?;
        if key.mailbox != *mailbox {
            return Err(SealingKeyError::OtherMailbox);
        }
        if key.issued > now.plus(CLOCK_GRACE) {
            return Err(SealingKeyError::Future);
        }
        Ok(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{MALLORY, STORE, bob, carol, hours, now, peer, signed};

    fn key() -> SealingKey {
        SealingKey { mailbox: bob(), peer: peer(STORE), key: [9; 32], issued: now().wall }
    }

    #[test]
    fn a_key_that_its_store_signed_is_sealed_to() {
        assert_eq!(SealingKey::verify(&signed(&key(), STORE), &bob(), now().wall), Ok(key()));
    }

    #[test]
    fn bad_input_34_a_key_that_another_peer_signed_or_for_another_mailbox_or_of_the_future_is_not() {
        let verify = |key: &SealingKey, by| SealingKey::verify(&signed(key, by), &bob(), now().wall);
        assert_eq!(
            verify(&key(), MALLORY),
            Err(SealingKeyError::Signed(SignedError::Signature)),
            "said to be the store's"
        );
        let other = SealingKey { mailbox: carol(), ..key() };
        assert_eq!(verify(&other, STORE), Err(SealingKeyError::OtherMailbox));
        let future = SealingKey { issued: now().wall.plus(hours(2)), ..key() };
        assert_eq!(verify(&future, STORE), Err(SealingKeyError::Future));
    }
}
