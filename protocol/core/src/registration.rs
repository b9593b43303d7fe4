//! A store's signed record of where it can be reached (SPEC A12, A13; DESIGN §4).

use std::net::SocketAddr;

use libp2p_identity::PeerId;
use serde::{Deserialize, Serialize};

use crate::{Mailbox, Statement, UnixTime};

/// Where a mailbox's store can be reached, signed by the store. The location server can withhold one; it can neither
/// forge one nor replay an older one, since the sequence number only grows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// Whose store.
    pub mailbox: Mailbox,
    /// The store's own key; the statement is signed with it.
    pub peer: PeerId,
    /// UDP addresses of the store's bulk endpoint, best first; at most [`crate::limits::ADDRESSES_MAX`]. May be empty:
    /// a store that only dials out is offered things on the session that it keeps with its relay.
    pub addresses: Vec<SocketAddr>,
    /// Grows with every registration of this store; an older one is refused.
    pub sequence: u64,
    /// From here on it says nothing any more.
    pub expires: UnixTime,
}

impl Statement for Registration {
    const CONTEXT: &'static str = "lighter registration 1";
}
