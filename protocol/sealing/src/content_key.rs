//! The key of one drop, and the keys that are made from it.

use aws_lc_rs::aead::{AES_256_GCM, LessSafeKey, UnboundKey};
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use lighter_protocol::DeliveryId;
use zeroize::Zeroizing;

use crate::NotOpened;

/// The context of a blob's key (BLAKE3 `derive_key`).
const BLOB_CONTEXT: &str = "lighter 2026-11 drop blob key 1";
/// The context of the table's key.
const TABLE_CONTEXT: &str = "lighter 2026-11 drop table key 1";

/// 256 random bits, drawn for one drop: everything in it is sealed under keys made from them.
#[derive(Clone)]
pub struct ContentKey(pub(crate) Zeroizing<[u8; 32]>);

impl ContentKey {
    /// A new one, from the system's generator.
    ///
    /// # Errors
    /// [`NotOpened`] where the system gives no random bytes: nothing is sealed then.
    pub fn generate() -> Result<Self, NotOpened> {
        let mut key = Zeroizing::new([0; 32]);
        SystemRandom::new().fill(&mut key[..]).map_err(|_| NotOpened)?;
        Ok(Self(key))
    }

    /// These bits.
    pub fn from_bytes(key: Zeroizing<[u8; 32]>) -> Self {
        Self(key)
    }

    /// The key of the blob at `index` of a delivery, for its frames.
    pub(crate) fn blob_key(&self, delivery: &DeliveryId, index: u32) -> Result<LessSafeKey, NotOpened> {
        let index = index.to_le_bytes();
        self.derived(BLOB_CONTEXT, &[&delivery.0, &index])
    }

    /// The key of the table, used once.
    pub(crate) fn table_key(&self, delivery: &DeliveryId) -> Result<LessSafeKey, NotOpened> {
        self.derived(TABLE_CONTEXT, &[&delivery.0])
    }

    fn derived(&self, context: &str, of: &[&[u8]]) -> Result<LessSafeKey, NotOpened> {
        let mut hasher = blake3::Hasher::new_derive_key(context);
        hasher.update(&self.0[..]);
        for part in of {
            hasher.update(part);
        }
        let key = Zeroizing::new(*hasher.finalize().as_bytes());
        UnboundKey::new(&AES_256_GCM, &key[..]).map(LessSafeKey::new).map_err(|_| NotOpened)
    }
}

impl std::fmt::Debug for ContentKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ContentKey(…)")
    }
}
