//! Statements that cannot be forged: a payload, and its Ed25519 signature under the key that a [`PeerId`] names.
//!
//! The PeerId of an Ed25519 key holds the public key itself (libp2p peer-id spec, identity multihash), so nothing but
//! the PeerId is needed to verify. Each kind of statement signs with a context of its own in front of the payload:
//! a signature for one kind is never good for another.

use std::marker::PhantomData;

use libp2p_identity::{Keypair, PeerId, PublicKey};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::limits::STATEMENT_LEN_MAX;

/// A kind of signed statement.
pub trait Statement: Serialize + DeserializeOwned {
    /// What stands before the payload when it is signed: one text for each kind, with its version.
    const CONTEXT: &'static str;

    /// Whether its lists and texts are within [`crate::limits`]: looked at before it is signed and after it verified.
    fn within_limits(&self) -> bool {
        true
    }
}

/// A statement with its signature, *not yet verified*: [`Signed::verify`] is the only way to its content that trusts it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Signed<T> {
    payload: Vec<u8>,
    signature: Vec<u8>,
    #[serde(skip)]
    kind: PhantomData<T>,
}

/// Why a signed statement was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignedError {
    /// The payload is longer than [`STATEMENT_LEN_MAX`].
    #[error("statement over its size limit")]
    TooLong,
    /// The payload is not a statement of this kind, or has bytes left over.
    #[error("malformed statement")]
    Malformed,
    /// A list or a text in it is longer than allowed ([`Statement::within_limits`]).
    #[error("statement beyond its limits")]
    Limits,
    /// The PeerId holds no Ed25519 key.
    #[error("signer's PeerId holds no Ed25519 key")]
    Signer,
    /// The signature is not that of the expected signer over this payload.
    #[error("signature does not verify")]
    Signature,
    /// The key cannot sign.
    #[error("the key cannot sign")]
    Key,
}

impl<T> Signed<T> {
    /// Bytes of its payload and of its signature.
    pub(crate) fn lens(&self) -> (usize, usize) {
        (self.payload.len(), self.signature.len())
    }
}

impl<T: Statement> Signed<T> {
    /// Signs `statement` with `key`.
    ///
    /// # Errors
    /// [`SignedError::TooLong`] where it encodes to more than [`STATEMENT_LEN_MAX`] bytes; [`SignedError::Limits`]
    /// where something in it is too long; [`SignedError::Key`] where the key cannot sign.
    pub fn sign(statement: &T, key: &Keypair) -> Result<Self, SignedError> {
        if !statement.within_limits() {
            return Err(SignedError::Limits);
        }
        let payload = postcard::to_stdvec(statement).map_err(|_| SignedError::Malformed)?;
        if payload.len() > STATEMENT_LEN_MAX {
            return Err(SignedError::TooLong);
        }
        let signature = key.sign(&Self::signed_bytes(&payload)).map_err(|_| SignedError::Key)?;
        Ok(Self { payload, signature, kind: PhantomData })
    }

    /// The statement, if `signer` signed it.
    ///
    /// # Errors
    /// Says which check failed; nothing of the statement may be used then.
    pub fn verify(&self, signer: &PeerId) -> Result<T, SignedError> {
        if self.payload.len() > STATEMENT_LEN_MAX {
            return Err(SignedError::TooLong);
        }
        let key = public_key(signer)?;
        if !key.verify(&Self::signed_bytes(&self.payload), &self.signature) {
            return Err(SignedError::Signature);
        }
        let statement = self.claim()?;
        if statement.within_limits() { Ok(statement) } else { Err(SignedError::Limits) }
    }

    /// The statement as it claims to be, *unverified*: only to learn whose signature to ask for.
    ///
    /// # Errors
    /// [`SignedError::Malformed`] or [`SignedError::TooLong`].
    pub fn claim(&self) -> Result<T, SignedError> {
        if self.payload.len() > STATEMENT_LEN_MAX {
            return Err(SignedError::TooLong);
        }
        let (statement, rest) =
            postcard::take_from_bytes(&self.payload).map_err(|_| SignedError::Malformed)?;
        if rest.is_empty() { Ok(statement) } else { Err(SignedError::Malformed) }
    }

    /// Encodes for storage or for a text field (hexadecimal or base64 is the caller's).
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.payload.len() + self.signature.len() + 4);
        for field in [&self.signature, &self.payload] {
            let len = u16::try_from(field.len()).unwrap_or(u16::MAX);
            bytes.extend_from_slice(&len.to_le_bytes());
            bytes.extend_from_slice(field);
        }
        bytes
    }

    /// Decodes what [`Signed::to_bytes`] gave.
    ///
    /// # Errors
    /// [`SignedError::Malformed`] where the lengths do not fill `bytes` exactly.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SignedError> {
        let (signature, rest) = take_field(bytes)?;
        let (payload, rest) = take_field(rest)?;
        if !rest.is_empty() {
            return Err(SignedError::Malformed);
        }
        Ok(Self { payload: payload.to_vec(), signature: signature.to_vec(), kind: PhantomData })
    }

    /// A name for this very statement, signature and all: to know it again, as when it is shown twice.
    pub fn fingerprint(&self) -> [u8; 32] {
        *blake3::hash(&self.to_bytes()).as_bytes()
    }

    fn signed_bytes(payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(T::CONTEXT.len() + 1 + payload.len());
        bytes.extend_from_slice(T::CONTEXT.as_bytes());
        bytes.push(0);
        bytes.extend_from_slice(payload);
        bytes
    }
}

/// The Ed25519 key inside a PeerId (libp2p peer-id spec: identity multihash of the protobuf-encoded key).
///
/// # Errors
/// [`SignedError::Signer`] where the PeerId is the hash of a longer key.
pub fn public_key(peer: &PeerId) -> Result<PublicKey, SignedError> {
    let bytes = peer.to_bytes();
    let encoded = bytes.strip_prefix(&IDENTITY_MULTIHASH).ok_or(SignedError::Signer)?;
    PublicKey::try_decode_protobuf(encoded).map_err(|_| SignedError::Signer)
}

/// How the multihash of an Ed25519 PeerId begins: code 0 (identity: "these are the bytes themselves"), length 36 (the
/// key's protobuf: 4 bytes of tags and lengths, 32 of key).
const IDENTITY_MULTIHASH: [u8; 2] = [0x00, 36];

fn take_field(bytes: &[u8]) -> Result<(&[u8], &[u8]), SignedError> {
    let (len, rest) = bytes.split_first_chunk::<2>().ok_or(SignedError::Malformed)?;
    let len = usize::from(u16::from_le_bytes(*len));
    if rest.len() < len {
        return Err(SignedError::Malformed);
    }
    Ok(rest.split_at(len))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{LOCATION, MALLORY, STORE, key, peer, receipt, signed};
    use crate::{Attestation, Receipt};

    #[test]
    fn a_statement_comes_back_as_it_was_signed() {
        let signed = signed(&receipt(), STORE);
        assert_eq!(signed.verify(&peer(STORE)), Ok(receipt()));
        assert_eq!(Signed::from_bytes(&signed.to_bytes()), Ok(signed));
    }

    #[test]
    fn bad_input_34_a_statement_counts_for_its_signer_only() {
        let signed = signed(&receipt(), MALLORY);
        assert_eq!(signed.claim(), Ok(receipt()), "what it claims");
        assert_eq!(signed.verify(&peer(STORE)), Err(SignedError::Signature), "is not what it proves");
        assert_eq!(signed.verify(&peer(LOCATION)), Err(SignedError::Signature));
    }

    #[test]
    fn bad_input_34_a_signer_without_an_ed25519_key_in_its_name_proves_nothing() {
        // A PeerId that is the SHA-256 of a longer key: multihash code 0x12, length 32.
        let hashed = PeerId::from_bytes(&[&[0x12, 0x20][..], &[7; 32]].concat()).unwrap();
        assert_eq!(signed(&receipt(), STORE).verify(&hashed), Err(SignedError::Signer));
        // An identity multihash of something that is no key.
        let short = PeerId::from_bytes(&[0x00, 0x02, 0x08, 0x01]).unwrap();
        assert_eq!(signed(&receipt(), STORE).verify(&short), Err(SignedError::Signer));
    }

    #[test]
    fn bad_input_34_a_signature_over_a_statement_with_more_behind_it_is_refused() {
        let mut payload = postcard::to_stdvec(&receipt()).unwrap();
        payload.push(0);
        let signature = key(STORE).sign(&Signed::<Receipt>::signed_bytes(&payload)).unwrap();
        let signed = Signed::<Receipt> { payload, signature, kind: PhantomData };
        assert_eq!(signed.verify(&peer(STORE)), Err(SignedError::Malformed));
    }

    #[test]
    fn bad_input_35_stored_statements_with_lengths_that_lie_are_refused() {
        let good = signed(&receipt(), STORE).to_bytes();
        for len in 0..good.len() {
            assert_eq!(
                Signed::<Receipt>::from_bytes(&good[..len]),
                Err(SignedError::Malformed),
                "cut at {len}"
            );
        }
        let longer = [&good[..], &[0]].concat();
        assert_eq!(Signed::<Receipt>::from_bytes(&longer), Err(SignedError::Malformed));
        let long = Signed::<Attestation> {
            payload: vec![0; STATEMENT_LEN_MAX + 1],
            signature: vec![0; 64],
            kind: PhantomData,
        };
        assert_eq!(long.verify(&peer(STORE)), Err(SignedError::TooLong));
        assert_eq!(long.claim(), Err(SignedError::TooLong));
    }
}
