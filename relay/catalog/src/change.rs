//! The changes that make up the catalog: each is one record of the array's log.
//!
//! # Format
//! One byte of version, then postcard. The order of [`Change`]'s variants and of every field is the format: it is
//! fixed by golden bytes in the tests, and a change of it is a new version beside the old one, since a log holds
//! records for up to a year.
//!
//! A decoded change is checked against every bound before anybody sees it.

use lighter_protocol::{DeliveryId, MessageId, Receipt, Signed, TicketHash, UnixTime};
use serde::{Deserialize, Serialize};

use crate::Message;
use crate::limits::{CHANGE_LEN_MAX, RECIPIENTS_MAX};
use crate::message::{HandOver, OutOfBounds};

/// The version that is written, and the only one that was ever written.
const VERSION: u8 = 1;

/// One change of the catalog.
///
/// Each says what is so from now on, never how it came about: applied again, or after some that came later, and then
/// followed by these, it leaves the same catalog.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// The message exists: written last, after everything it names is durable.
    Accepted(Box<Message>),
    /// The message does not exist, whatever was said before (DESIGN §3 rule 2).
    Voided(MessageId),
    /// The next hop has taken these.
    HandedOver {
        /// Of which message.
        message: MessageId,
        /// Which.
        hand_overs: Vec<HandOver>,
        /// When.
        at: UnixTime,
    },
    /// The next hop refused these, or was given up on, and nobody is to be told. Where the sender is told,
    /// [`Cause::Report`](crate::Cause::Report) does both at once.
    HandOverFailed {
        /// Of which message.
        message: MessageId,
        /// Which.
        hand_overs: Vec<HandOver>,
        /// When.
        at: UnixTime,
    },
    /// The store has it, durably, and signed for it; verified before it was written (SPEC D4).
    Receipted {
        /// Which delivery.
        delivery: DeliveryId,
        /// The store's word, kept as proof.
        receipt: Signed<Receipt>,
        /// From when on the relay's copy may go (`keep_after_receipt`, DESIGN §6).
        release: UnixTime,
    },
    /// The relay let go of the delivery: its blobs are handed out no more.
    Released {
        /// Which delivery.
        delivery: DeliveryId,
    },
    /// Nobody fetched the delivery in time: the message goes whole to the next hop for this recipient
    /// (DESIGN §3 rule 3).
    Expired {
        /// Which delivery.
        delivery: DeliveryId,
        /// When.
        at: UnixTime,
    },
    /// The delivery's ticket opens nothing any more.
    TicketRevoked {
        /// Which delivery.
        delivery: DeliveryId,
        /// Which of its tickets; a later one stays.
        generation: u32,
    },
    /// The delivery has another ticket; the one before opens nothing.
    TicketRenewed {
        /// Which delivery.
        delivery: DeliveryId,
        /// From which the token is made.
        generation: u32,
        /// The new token's hash.
        ticket: TicketHash,
    },
}

/// Why bytes are not a change, or a change cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// Over [`CHANGE_LEN_MAX`] bytes.
    #[error("change over its size limit")]
    TooLong,
    /// Written by a later version of this program.
    #[error("change of version {0}, which this program does not know")]
    Version(u8),
    /// Not a change, or bytes left over.
    #[error("malformed change")]
    Malformed,
    /// A field is over its bound.
    #[error(transparent)]
    OutOfBounds(#[from] OutOfBounds),
}

impl Change {
    /// The change as the log keeps it.
    ///
    /// # Errors
    /// [`ChangeError::OutOfBounds`] or [`ChangeError::TooLong`].
    pub fn encode(&self) -> Result<Vec<u8>, ChangeError> {
        self.check()?;
        let bytes = postcard::to_extend(self, vec![VERSION]).map_err(|_| ChangeError::Malformed)?;
        if bytes.len() > CHANGE_LEN_MAX { Err(ChangeError::TooLong) } else { Ok(bytes) }
    }

    /// The change in `bytes`.
    ///
    /// # Errors
    /// Says why it is none.
    pub fn decode(bytes: &[u8]) -> Result<Self, ChangeError> {
        if bytes.len() > CHANGE_LEN_MAX {
            return Err(ChangeError::TooLong);
        }
        let (version, rest) = bytes.split_first().ok_or(ChangeError::Malformed)?;
        if *version != VERSION {
            return Err(ChangeError::Version(*version));
        }
        let (change, rest): (Self, _) =
            postcard::take_from_bytes(rest).map_err(|_| ChangeError::Malformed)?;
        if !rest.is_empty() {
            return Err(ChangeError::Malformed);
        }
        change.check()?;
        Ok(change)
    }

    fn check(&self) -> Result<(), OutOfBounds> {
        match self {
            Self::Accepted(message) => message.check(),
            Self::HandedOver { hand_overs, .. } | Self::HandOverFailed { hand_overs, .. }
                if hand_overs.len() > RECIPIENTS_MAX =>
            {
                Err(OutOfBounds("hand-overs"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
