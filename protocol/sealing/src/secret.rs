//! A store's key pair for HPKE.
//!
//! It is made from the secret of the store's identity, so there is nothing more to keep or to lose: an identity that was
//! restored from a backup opens what waits for it. The two uses of that secret (Ed25519 signatures, X25519 agreement) meet
//! in the derivation only: BLAKE3's key derivation with a context of its own.

use aws_lc_rs::agreement::{PrivateKey, X25519};
use lighter_protocol::{Mailbox, PeerId, SealingKey, UnixTime};
use zeroize::Zeroizing;

/// The derivation's context (BLAKE3 `derive_key`).
const CONTEXT: &str = "lighter 2026-11 sealing secret 1";

/// A store's X25519 key pair (RFC 7748).
pub struct SealingSecret {
    private: Zeroizing<[u8; 32]>,
    public: [u8; 32],
}

/// The library did not take the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the sealing key cannot be made")]
pub struct SecretError;

impl SealingSecret {
    /// The one that belongs to an identity.
    ///
    /// # Errors
    /// [`SecretError`]: the library takes any 32 bytes; it may fail for want of memory.
    pub fn derive(identity_secret: &[u8; 32]) -> Result<Self, SecretError> {
        Self::from_private(Zeroizing::new(blake3::derive_key(CONTEXT, identity_secret)))
    }

    /// The one whose secret was kept by itself ([`SealingSecret::to_private`]): that of an identity that is no more.
    ///
    /// # Errors
    /// As [`SealingSecret::derive`].
    pub fn from_private(private: Zeroizing<[u8; 32]>) -> Result<Self, SecretError> {
        let key = PrivateKey::from_private_key(&X25519, &private[..]).map_err(|_| SecretError)?;
        let public = key.compute_public_key().map_err(|_| SecretError)?;
        let public = public.as_ref().try_into().map_err(|_| SecretError)?;
        Ok(Self { private, public })
    }

    /// What others seal to.
    pub fn public(&self) -> &[u8; 32] {
        &self.public
    }

    /// What the store says of it: to be signed with the store's key.
    pub fn statement(&self, mailbox: Mailbox, peer: PeerId, issued: UnixTime) -> SealingKey {
        SealingKey { mailbox, peer, key: self.public, issued }
    }

    /// The X25519 secret (RFC 7748 §5), to be kept without the identity that it was made from: nothing leads back to that.
    pub fn to_private(&self) -> Zeroizing<[u8; 32]> {
        self.private.clone()
    }

    pub(crate) fn private(&self) -> &[u8; 32] {
        &self.private
    }
}

impl std::fmt::Debug for SealingSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealingSecret(…)")
    }
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;

    use super::*;

    /// What waits at a relay was sealed to this: another derivation would open none of it.
    #[test]
    fn golden_sealing_key() {
        let secret = SealingSecret::derive(&[7; 32]).unwrap();
        assert_eq!(HEXLOWER.encode(secret.public()), GOLDEN);
        assert_ne!(secret.public(), SealingSecret::derive(&[8; 32]).unwrap().public());
        assert_eq!(SealingSecret::from_private(secret.to_private()).unwrap().public(), secret.public());
    }

    const GOLDEN: &str = "f8a0bd57827a4c2651e2e8875ba87eece5b474e36fd9055fd9fcdb66b5abe910";

    #[test]
    fn a_secret_does_not_show_itself() {
        let secret = SealingSecret::derive(&[7; 32]).unwrap();
        assert_eq!(format!("{secret:?}"), "SealingSecret(…)");
    }
}
