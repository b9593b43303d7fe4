//! How peers of Lighter reach each other: keys, TLS in which both sides are PeerIds, connections, verified pulls.
//!
//! [`identity`] is a peer's key; [`tls`] makes both sides of a connection prove theirs; [`tcp`] is that over TCP, for
//! relays and storage servers; [`location`] is the location server as its clients see it.

pub mod identity;
pub mod limits;
pub mod location;
pub mod tcp;
pub mod tls;

pub use identity::{Identity, IdentityError};
