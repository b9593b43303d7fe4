//! What a call can be answered with other than what was asked for; [`crate::api`] maps it to HTTP, in one place.

use std::time::Duration;

use crate::directory::Refusal;
use crate::rate::TooMany;
use crate::writer::WriteError;

/// Why a call was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The request is not what the API takes; the text is for whoever wrote the client.
    #[error("{0}")]
    Malformed(&'static str),
    /// No token, an unknown one, or one without the scope.
    #[error("token or session not accepted")]
    Unauthorised,
    /// Wrong, used, expired, or for somebody else.
    #[error("refused")]
    Refused,
    /// An older registration.
    #[error("an older registration than the last")]
    Stale {
        /// The last one's sequence number.
        sequence: u64,
    },
    /// An address that nobody may be told to dial.
    #[error("an address may not be registered: not globally routable, nor in a network that the admin named")]
    Address,
    /// As many as are kept.
    #[error("as many as are kept")]
    Full,
    /// There is nothing of that name.
    #[error("not found")]
    NotFound,
    /// Too many requests.
    #[error("too many requests")]
    TooMany {
        /// When to come again.
        retry_after: Duration,
    },
    /// The disk failed, or the server stops.
    #[error("cannot be done now")]
    Unavailable,
}

impl From<TooMany> for CallError {
    fn from(error: TooMany) -> Self {
        Self::TooMany { retry_after: error.retry_after }
    }
}

impl From<WriteError> for CallError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Refused(refusal) => refusal.into(),
            WriteError::Unavailable => Self::Unavailable,
        }
    }
}

impl From<Refusal> for CallError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotAllowed => Self::Refused,
            Refusal::Stale { sequence } => Self::Stale { sequence },
            Refusal::Full => Self::Full,
            Refusal::Unknown => Self::NotFound,
        }
    }
}
