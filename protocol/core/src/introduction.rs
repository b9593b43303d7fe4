//! A location server's word to one of its stores that a sender may tell it to pull (DESIGN §4).

use libp2p_identity::PeerId;
use serde::{Deserialize, Serialize};

use crate::{Mailbox, Statement, UnixTime};

/// Signed by the recipient's location server, shown by the sender with its offer: good for ten minutes and so many
/// bytes, for this sender and this mailbox only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Introduction {
    /// Who may offer.
    pub sender: PeerId,
    /// The mailbox that the sender acts for: shown to the recipient, and what `known` is decided on.
    pub sender_mailbox: Mailbox,
    /// To whose store.
    pub recipient: Mailbox,
    /// Bytes that may be offered with it, all blobs together.
    pub bytes_max: u64,
    /// At most ten minutes after it was made.
    pub expires: UnixTime,
}

impl Statement for Introduction {
    const CONTEXT: &'static str = "lighter introduction 1";
}
