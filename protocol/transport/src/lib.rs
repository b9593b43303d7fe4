//! How peers of Lighter reach each other: keys, TLS in which both sides are PeerIds, connections, verified pulls.
//!
//! [`identity`] is a peer's key; [`tls`] makes both sides of a connection prove theirs; [`tcp`] is that over TCP, for
//! relays and storage servers.

pub mod identity;
pub mod limits;
pub mod tcp;
pub mod tls;

pub use identity::{Identity, IdentityError};
