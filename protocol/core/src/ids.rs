//! Names of things: blobs by their hash, deliveries and messages by 128 random bits.

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER_PERMISSIVE;
use serde::{Deserialize, Serialize};

/// A text that is not an id: wrong length, or not hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an id: expected {expected} hexadecimal digits")]
pub struct ParseIdError {
    /// How many hexadecimal digits the id has.
    expected: usize,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $bytes:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub [u8; $bytes]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $bytes;

            /// The id as bytes.
            pub fn as_bytes(&self) -> &[u8; $bytes] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&HEXLOWER_PERMISSIVE.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let error = ParseIdError { expected: $bytes * 2 };
                let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).map_err(|_| error.clone())?;
                Ok(Self(bytes.try_into().map_err(|_| error)?))
            }
        }
    };
}

id! {
    /// The BLAKE3-256 hash of a blob's bytes. It names, and proves, the attachment *decoded*; it is never a right to
    /// read (DESIGN §4).
    BlobId, 32
}

id! {
    /// One recipient's blobs of one message, on their way (DESIGN §2): 128 random bits, drawn by whoever holds the
    /// blobs. Text form: 32 hexadecimal digits.
    DeliveryId, 16
}

id! {
    /// One accepted message on a relay: 128 random bits. Deliveries of one message share nothing that shows it.
    MessageId, 16
}

impl BlobId {
    /// The id of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// The id as the hash type of the `blake3` crate.
    pub fn hash(&self) -> blake3::Hash {
        blake3::Hash::from_bytes(self.0)
    }
}

impl From<blake3::Hash> for BlobId {
    fn from(hash: blake3::Hash) -> Self {
        Self(*hash.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_written_in_hexadecimal_and_read_back() {
        let id = BlobId::of(b"");
        assert_eq!(id.to_string(), "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.to_string().to_uppercase().parse(), Ok(id));
        assert_eq!(BlobId::from(id.hash()), id);
        let delivery = DeliveryId([0xab; DeliveryId::LEN]);
        assert_eq!(delivery.to_string().parse(), Ok(delivery));
    }

    #[test]
    fn bad_input_34_a_text_that_is_no_id_is_refused() {
        for text in ["", "0", "zz", &"0".repeat(31), &"0".repeat(33), &"0".repeat(64), &"é".repeat(16)] {
            assert_eq!(text.parse::<DeliveryId>(), Err(ParseIdError { expected: 32 }), "{text}");
        }
    }
}
