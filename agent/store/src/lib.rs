//! The recipient's attachment storage (SPEC D3, D4): what the agent keeps for its user, apart from their mail server.
//!
//! A blob comes in as verified groups ([`partial`]), gets its final place once all of it is durable ([`store`]), and
//! is read back proved ([`blob`]). A delivery ([`delivery`]) is receipted only with the proof that all of it is
//! durable ([`Durable`]). Files of the user's own come in through [`import`] and stay until whoever they were sent to
//! has receipted them.
//!
//! One process owns a store at a time. Calls block on the disk; nothing here knows of networks or of `async`.
//! The layout of the folder is in `layout.rs`, the index's tables are in `index.rs`, what a crash can leave is in
//! `store/recovery.rs`.

pub mod blob;
pub mod delivery;
pub mod disk;
pub mod error;
pub mod import;
mod index;
mod layout;
pub mod limits;
mod packs;
pub mod partial;
pub mod store;
pub mod tree;

pub use blob::{BlobReader, StoredBlob};
pub use delivery::{Incoming, IncomingState, LeftDrop, Outgoing, OutgoingState};
pub use error::{IndexError, OpenError, StoreError};
pub use import::{Import, ImportReader};
pub use partial::Partial;
pub use store::{Admission, BlobFiles, Durable, Here, Hold, Settings, Space, Store, Wanted};
