//! What two parties of Lighter must agree on: ids, signed statements, messages on the wire, and the machines that
//! take a delivery from offer to receipt.
//!
//! Nothing here does I/O, reads a clock or draws a random number: `now` and generators are arguments
//! (DESIGN §10, rule 8), so that a whole cluster can be run from a seed.
//!
//! The story in order: [`ids`] name things; [`mailbox`] names people; [`signed`] makes a statement that cannot be
//! forged; [`registration`], [`attestation`], [`introduction`],
//! [`sealing_key`], [`receipt`] and [`sharing`] are those statements; [`wire`] holds
//! the messages that peers exchange and the bounded codec they travel in; [`blob`] says which bytes are verified and which
//! are missing. Two machines take a delivery from offer to receipt: [`offer`] for the holder, [`pull`] for the store; a
//! holder that pushes has [`push`] beside it.
//! [`ticket`] is the other way to an attachment, over HTTP.

pub mod attestation;
pub mod backoff;
pub mod blob;
pub mod ids;
pub mod introduction;
pub mod limits;
pub mod mailbox;
pub mod offer;
pub mod pull;
pub mod push;
pub mod receipt;
pub mod registration;
pub mod sealing_key;
pub mod sharing;
pub mod signed;
pub mod succession;
pub mod ticket;
pub mod time;
pub mod wire;

#[cfg(test)]
mod fixtures;

pub use attestation::{Attestation, AttestationError, RelayRecord};
pub use ids::{BlobId, DeliveryId, MessageId};
pub use introduction::{Introduction, IntroductionError};
pub use libp2p_identity::{Keypair, PeerId};
pub use mailbox::Mailbox;
pub use receipt::{Expected, Receipt, ReceiptError, Releaser, VerifiedReceipt};
pub use registration::{Registration, RegistrationError};
pub use sealing_key::{SealingKey, SealingKeyError};
pub use sharing::{Sharing, SharingError};
pub use signed::{Signed, SignedError, Statement};
pub use succession::{Succession, SuccessionError};
pub use ticket::{Ticket, TicketHash, TicketKey};
pub use time::{Day, Now, UnixTime};
