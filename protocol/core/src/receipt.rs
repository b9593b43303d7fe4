//! A store's signed word that a whole delivery is durable there (SPEC D4; DESIGN §6): the only thing that releases.

use libp2p_identity::PeerId;
use serde::{Deserialize, Serialize};

use crate::{BlobId, DeliveryId, Mailbox, Statement, UnixTime};

/// Manifest and all blobs of a delivery are durable at this store. Replaying it changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// What was delivered.
    pub delivery: DeliveryId,
    /// Whose delivery it was.
    pub mailbox: Mailbox,
    /// The store; the statement is signed with its key.
    pub store: PeerId,
    /// The delivery's manifest: ties the receipt to the content, not only to a number.
    pub manifest: BlobId,
    /// The store's clock when the last sync was done.
    pub time: UnixTime,
}

impl Statement for Receipt {
    const CONTEXT: &'static str = "lighter receipt 1";
}
