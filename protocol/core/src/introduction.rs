//! A location server's word to one of its stores that a sender may tell it to pull (DESIGN §4).

use libp2p_identity::PeerId;
use serde::{Deserialize, Serialize};

use crate::limits::{INTRODUCTION_CLOCK_GRACE, INTRODUCTION_LIFE_MAX};
use crate::signed::{Signed, SignedError};
use crate::{Mailbox, Statement, UnixTime};

/// Signed by the recipient's location server, shown by the sender with its offer: good for ten minutes and so many
/// bytes, for this sender and this mailbox only.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
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
    /// Drawn at random: two introductions are never one, even for the same bytes in the same second.
    pub number: u64,
}

impl Statement for Introduction {
    const CONTEXT: &'static str = "lighter introduction 1";
}

/// Why an introduction does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IntroductionError {
    /// It is not the store's own location server's, or malformed.
    #[error("introduction: {0}")]
    Signed(#[from] SignedError),
    /// It has expired, by more than clocks may differ.
    #[error("introduction expired")]
    Expired,
    /// It would live longer than [`INTRODUCTION_LIFE_MAX`].
    #[error("introduction with a life that is not allowed")]
    Life,
    /// Somebody else shows it.
    #[error("introduction of another sender")]
    OtherSender,
    /// It is for another mailbox's store.
    #[error("introduction to another mailbox")]
    OtherMailbox,
    /// More bytes are offered than it is good for.
    #[error("more bytes offered than the introduction allows")]
    TooManyBytes,
}

impl Introduction {
    /// The introduction, if the store's own location server `location` signed it, it is in date, for `sender` (the
    /// other end of the connection) and for `recipient` (the store's mailbox), and covers `bytes`.
    ///
    /// That several offers with one introduction do not sum up to more than it allows is for the one who takes them
    /// to count.
    ///
    /// # Errors
    /// Says which check failed; nothing of it may be used then.
    pub fn verify(
        signed: &Signed<Self>,
        location: &PeerId,
        sender: &PeerId,
        recipient: &Mailbox,
        bytes: u64,
        now: UnixTime,
    ) -> Result<Self, IntroductionError> {
        let introduction = signed.verify(location)?;
        if introduction.sender != *sender {
            return Err(IntroductionError::OtherSender);
        }
        if introduction.recipient != *recipient {
            return Err(IntroductionError::OtherMailbox);
        }
        if now >= introduction.expires.plus(INTRODUCTION_CLOCK_GRACE) {
            return Err(IntroductionError::Expired);
        }
        if introduction.expires > now.plus(INTRODUCTION_LIFE_MAX + INTRODUCTION_CLOCK_GRACE) {
            return Err(IntroductionError::Life);
        }
        if bytes > introduction.bytes_max {
            return Err(IntroductionError::TooManyBytes);
        }
        Ok(introduction)
    }
}
