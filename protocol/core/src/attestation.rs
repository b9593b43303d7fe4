//! A domain's word that a PeerId may act for a mailbox, and which relays are the domain's own (DESIGN §4).

use std::net::SocketAddr;

use libp2p_identity::PeerId;
use serde::{Deserialize, Serialize};

use crate::{Mailbox, Statement, UnixTime};

/// A domain's statement, signed by its location server's key: this PeerId belongs to this mailbox, until a date.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attestation {
    /// The mailbox that the store may act for.
    pub mailbox: Mailbox,
    /// The store.
    pub peer: PeerId,
    /// Whether its receipts release (DESIGN §4: one store of a mailbox is primary).
    pub primary: bool,
    /// The domain's relays: who may tell this store to pull, and whom it dials.
    pub relays: Vec<RelayRecord>,
    /// When it was made.
    pub issued: UnixTime,
    /// At most 24 hours after `issued`.
    pub expires: UnixTime,
}

/// One relay of a domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayRecord {
    /// The relay's key.
    pub peer: PeerId,
    /// UDP addresses of its QUIC endpoint, best first; at most [`crate::limits::ADDRESSES_MAX`].
    pub addresses: Vec<SocketAddr>,
    /// Where it hands out attachments by ticket: `https://host` or `http://host:port`, no path, no trailing slash.
    pub retrieval_url: String,
}

impl Statement for Attestation {
    const CONTEXT: &'static str = "lighter attestation 1";
}
