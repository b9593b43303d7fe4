//! What opens a drop: its content key, sealed to each store, and the table of what the sealed blobs are.
//!
//! # Format
//! ```text
//!  0   8  magic: "LGHTDRP" and the version, 1
//!  8   1  n: slots, 1 to 16
//!  9 96n  slots, each: which key (16), encapsulated key (32), the content key sealed to it (48)
//!         the table: AES-256-GCM ciphertext, and its tag of 16 bytes
//! ```
//! A slot is HPKE in base mode (RFC 9180 §5.1.1): DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM; `info` is
//! `lighter drop 1`, a zero byte, the delivery (16) and the recipient's mailbox; no associated data. "Which key" is the
//! first 16 bytes of BLAKE3's key derivation over the public key, so that a store finds its slot without trying all.
//! The table's key is made from the content key, its nonce is zero, its associated data is everything in front of it.
//! Its plaintext is postcard: a byte 0 (the first form of tables), the sender's mailbox, and for the manifest and each attachment: BlobId, size, name,
//! media type, and the hash of the sealed blob.
//!
//! Nobody but the named stores can open it; that it was *this sender* who sealed it, it does not prove.

use aws_lc_rs::aead::{Aad, Nonce};
use lighter_protocol::limits::{BLOB_SIZE_MAX, NAME_LEN_MAX, OFFER_BLOBS_MAX, SEALING_KEYS_MAX};
use lighter_protocol::{BlobId, DeliveryId, Mailbox, SealingKey};
use rustls::crypto::aws_lc_rs::hpke::DH_KEM_X25519_HKDF_SHA256_AES_256 as SUITE;
use rustls::crypto::hpke::{EncapsulatedSecret, Hpke, HpkePrivateKey, HpkePublicKey};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::frames::{TAG_LEN, sealed_size};
use crate::{ContentKey, NotOpened, SealingSecret};

/// Bytes of an envelope: a table with the most and longest names fits.
pub const ENVELOPE_LEN_MAX: usize = 1024 * 1024;

const MAGIC: &[u8; 8] = b"LGHTDRP\x01";
const INFO: &[u8] = b"lighter drop 1\0";
const WHICH_CONTEXT: &str = "lighter 2026-11 sealing key name 1";
const WHICH_LEN: usize = 16;
const ENC_LEN: usize = 32;
const SLOT_LEN: usize = WHICH_LEN + ENC_LEN + 32 + TAG_LEN;
const HEAD_LEN: usize = MAGIC.len() + 1;

/// What a drop holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Who says to have sent it: shown, never believed.
    pub sender: Mailbox,
    /// The message's manifest, then its attachments.
    pub parts: Vec<Part>,
}

/// One blob of a drop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The blob's hash.
    pub id: BlobId,
    /// Its size in bytes.
    pub size: u64,
    /// The attachment's name, as the message gave it; empty for the manifest.
    pub name: String,
    /// Its media type, likewise.
    pub media_type: String,
    /// The hash of the sealed blob.
    pub sealed: BlobId,
}

/// The table as it is written.
#[derive(Serialize, Deserialize)]
enum Written {
    V1 { sender: Mailbox, parts: Vec<Part> },
}

/// Why nothing was sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// There is no store to seal it to, or there are more than [`SEALING_KEYS_MAX`].
    #[error("sealed to 1 to {SEALING_KEYS_MAX} stores, not to {0}")]
    Stores(usize),
    /// The table breaks a bound.
    #[error("more attachments, or longer names, than a drop can hold")]
    Table,
    /// A key is none, or the system gave no random bytes.
    #[error("a store's key cannot be sealed to")]
    Key,
}

/// Why an envelope does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// It is no envelope, or one of a version that is not known here.
    #[error("not an envelope of this version")]
    Malformed,
    /// It was not sealed to this store.
    #[error("not sealed to this store: it came into being, or got its key, after the drop was made")]
    NotForUs,
    /// It, or its slot for this store, was changed, or made for another delivery or mailbox.
    #[error("sealed for another delivery, or changed since")]
    Changed,
    /// The table breaks a bound.
    #[error("a table beyond its limits")]
    Limits,
}

/// An envelope that hangs together; nothing of it has been opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    bytes: Vec<u8>,
    /// Bytes in front of the table.
    head_len: usize,
}

/// What an envelope held.
#[derive(Debug)]
pub struct Opened {
    /// What there is.
    pub table: Table,
    /// What opens it.
    pub key: ContentKey,
}

impl Table {
    fn is_within_limits(&self) -> bool {
        let part = |part: &Part| {
            part.name.len() <= NAME_LEN_MAX
                && part.media_type.len() <= NAME_LEN_MAX
                && sealed_size(part.size) <= BLOB_SIZE_MAX
        };
        (1..=OFFER_BLOBS_MAX).contains(&self.parts.len()) && self.parts.iter().all(part)
    }
}

impl Envelope {
    /// Seals `table` and `key` to `stores`, whose keys were verified.
    ///
    /// # Errors
    /// See [`SealError`].
    pub fn seal(
        table: &Table,
        key: &ContentKey,
        delivery: &DeliveryId,
        recipient: &Mailbox,
        stores: &[SealingKey],
    ) -> Result<Self, SealError> {
        let count = u8::try_from(stores.len())
            .ok()
            .filter(|count| (1..=SEALING_KEYS_MAX).contains(&usize::from(*count)));
        let count = count.ok_or(SealError::Stores(stores.len()))?;
        if !table.is_within_limits() {
            return Err(SealError::Table);
        }
        let mut bytes = [MAGIC.as_slice(), &[count]].concat();
        let info = info(delivery, recipient);
        for store in stores {
            let public = HpkePublicKey(store.key.to_vec());
            let sealed = SUITE.seal(&info, &[], &key.0[..], &public);
            let (EncapsulatedSecret(enc), sealed) = sealed.map_err(|_| SealError::Key)?;
            bytes.extend_from_slice(&which(&store.key));
            bytes.extend_from_slice(&enc);
            bytes.extend_from_slice(&sealed);
        }
        let head_len = bytes.len();
        let written = Written::V1 { sender: table.sender.clone(), parts: table.parts.clone() };
        let mut body = postcard::to_stdvec(&written).map_err(|_| SealError::Table)?;
        let aead = key.table_key(delivery).map_err(|_| SealError::Key)?;
        aead.seal_in_place_append_tag(zero_nonce(), Aad::from(&bytes), &mut body)
            .map_err(|_| SealError::Key)?;
        bytes.append(&mut body);
        if bytes.len() > ENVELOPE_LEN_MAX {
            return Err(SealError::Table);
        }
        Ok(Self { bytes, head_len })
    }

    /// The envelope in `bytes`.
    ///
    /// # Errors
    /// [`OpenError::Malformed`].
    pub fn parse(bytes: Vec<u8>) -> Result<Self, OpenError> {
        let head =
            bytes.get(..HEAD_LEN).filter(|head| head.starts_with(MAGIC)).ok_or(OpenError::Malformed)?;
        let count = usize::from(head[MAGIC.len()]);
        let head_len = HEAD_LEN + count * SLOT_LEN;
        if !(1..=SEALING_KEYS_MAX).contains(&count)
            || bytes.len() < head_len + TAG_LEN
            || bytes.len() > ENVELOPE_LEN_MAX
        {
            return Err(OpenError::Malformed);
        }
        Ok(Self { bytes, head_len })
    }

    /// As it is sent and kept.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Opens it as the store whose secret this is, for its mailbox.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(
        &self,
        secret: &SealingSecret,
        delivery: &DeliveryId,
        recipient: &Mailbox,
    ) -> Result<Opened, OpenError> {
        let (head, body) = self.bytes.split_at(self.head_len);
        let (slots, _) = head[HEAD_LEN..].as_chunks::<SLOT_LEN>();
        let which = which(secret.public());
        let slot = slots.iter().find(|slot| slot.starts_with(&which)).ok_or(OpenError::NotForUs)?;
        let (enc, sealed) = slot[WHICH_LEN..].split_at(ENC_LEN);
        let private = HpkePrivateKey::from(secret.private().to_vec());
        let enc = EncapsulatedSecret(enc.to_vec());
        let opened = SUITE.open(&enc, &info(delivery, recipient), &[], sealed, &private);
        let opened = Zeroizing::new(opened.map_err(|_| OpenError::Changed)?);
        let key: [u8; 32] = opened[..].try_into().map_err(|_| OpenError::Changed)?;
        let key = ContentKey::from_bytes(Zeroizing::new(key));
        let table = open_table(&key, delivery, head, body)?;
        Ok(Opened { table, key })
    }
}

fn open_table(key: &ContentKey, delivery: &DeliveryId, head: &[u8], body: &[u8]) -> Result<Table, OpenError> {
    let mut body = body.to_vec();
    let aead = key.table_key(delivery).map_err(|NotOpened| OpenError::Changed)?;
    let plain =
        aead.open_in_place(zero_nonce(), Aad::from(head), &mut body).map_err(|_| OpenError::Changed)?;
    let (written, rest) = postcard::take_from_bytes(plain).map_err(|_| OpenError::Limits)?;
    let Written::V1 { sender, parts } = written;
    let table = Table { sender, parts };
    if rest.is_empty() && table.is_within_limits() { Ok(table) } else { Err(OpenError::Limits) }
}

fn info(delivery: &DeliveryId, recipient: &Mailbox) -> Vec<u8> {
    [INFO, &delivery.0, recipient.as_str().as_bytes()].concat()
}

fn which(public: &[u8; 32]) -> [u8; WHICH_LEN] {
    let mut which = [0; WHICH_LEN];
    which.copy_from_slice(&blake3::derive_key(WHICH_CONTEXT, public)[..WHICH_LEN]);
    which
}

/// The table's key is used for the table alone.
fn zero_nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

const _: () = assert!(
    HEAD_LEN + SEALING_KEYS_MAX * SLOT_LEN + OFFER_BLOBS_MAX * (2 * (NAME_LEN_MAX + 2) + 80) + 512
        <= ENVELOPE_LEN_MAX
);

#[cfg(test)]
mod tests;
