//! What a sender leaves with the recipient's domain is sealed to the recipient's stores (SPEC A7, DESIGN §6 "drop"):
//! the relay keeps bytes that say neither what they are nor what they are called.
//!
//! - [`SealingSecret`]: a store's key pair for HPKE, made from the secret of its identity;
//! - [`ContentKey`]: drawn for each drop; every blob of it is sealed under a key made from it, in frames ([`frames`]);
//! - [`Envelope`]: the content key, sealed to each store, and the table of what the sealed blobs are.
//!
//! Sound because each layer names the one below: a store opens its slot with its own secret only; the table is
//! authenticated together with all slots and names each sealed blob by its hash; a frame is good at its one place of its
//! one blob only; and what comes out is compared with the table's hash and size by who keeps it. It says nothing of who
//! sealed it: that somebody may leave things for a mailbox is the relay's to check, before it takes them.
//!
//! Only lengths stay visible: how many blobs there are, and how long each is.

mod content_key;
mod envelope;
pub mod frames;
mod secret;

pub use content_key::ContentKey;
pub use envelope::{ENVELOPE_LEN_MAX, Envelope, OpenError, Opened, Part, SealError, Table};
pub use secret::{SealingSecret, SecretError};

/// What the AEAD says where something does not open, or could not be sealed: nothing more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it does not open with this key")]
pub struct NotOpened;
