//! What can go wrong between a client and a location server, so that callers can match on it.

use std::time::Duration;

use super::api::{ErrorAnswer, ErrorCode};

/// Why a call to the location server gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum LocationError {
    /// No connection, no TLS, no answer in time, or the connection broke: mail goes on as it did before (DESIGN §3
    /// rule 5).
    #[error("location server cannot be reached")]
    Unreachable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It is there but cannot do this now (5xx).
    #[error("location server cannot answer now")]
    Unavailable,
    /// The token or session is not known (any more): register again, or ask the admin for a token.
    #[error("token or session not accepted")]
    Unauthorised,
    /// Refused: a wrong, used or expired enrolment token, a signature or a mailbox that is not this store's.
    #[error("refused")]
    Refused,
    /// The registration's sequence number is not above the last one.
    #[error("an older registration: the next sequence number must exceed {sequence}")]
    Stale {
        /// The last sequence number that the server holds.
        sequence: u64,
    },
    /// An address that nobody may be told to dial.
    #[error("an address is not globally routable, nor in a network that the admin named")]
    Address,
    /// As many as the server keeps: relays, or stores of one mailbox.
    #[error("as many as the server keeps")]
    Full,
    /// Too many requests.
    #[error("too many requests, again in {} s", retry_after.as_secs())]
    TooMany {
        /// When to come again.
        retry_after: Duration,
    },
    /// The answer is not what the API says: another version, or another program.
    #[error("the answer is not one of a location server")]
    Malformed,
    /// The server calls the request malformed: another version, most likely.
    #[error("the location server does not understand the request")]
    NotUnderstood,
}

impl LocationError {
    /// Whether the same call may well succeed later, unchanged.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Unavailable | Self::TooMany { .. })
    }

    pub(super) fn unreachable(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Unreachable(cause.into())
    }

    /// The error that a status other than 2xx stands for; `body` is believed only for details.
    pub(super) fn from_answer(status: u16, retry_after: Option<Duration>, body: &[u8]) -> Self {
        let answer: Option<ErrorAnswer> = serde_json::from_slice(body).ok();
        let code = answer.as_ref().map(|answer| answer.error);
        match (status, code) {
            (401, _) => Self::Unauthorised,
            (429, _) => Self::TooMany { retry_after: retry_after.unwrap_or(Duration::from_secs(1)) },
            (409, Some(ErrorCode::Stale)) => match answer.and_then(|answer| answer.sequence) {
                Some(sequence) => Self::Stale { sequence },
                None => Self::Malformed,
            },
            (403, _) => Self::Refused,
            (422, Some(ErrorCode::Address)) => Self::Address,
            (507, _) => Self::Full,
            (400..=499, Some(_)) => Self::NotUnderstood,
            (500..=599, _) => Self::Unavailable,
            _ => Self::Malformed,
        }
    }
}

/// Why a client could not be made.
#[derive(Debug, thiserror::Error)]
pub enum LocationSetupError {
    /// Not `http://host[:port]` or `https://host[:port]`.
    #[error("location server address must be http://host[:port] or https://host[:port], without a path")]
    Url,
    /// The CA file cannot be read, or holds no certificate.
    #[error("CA file cannot be used")]
    CaFile(#[source] std::io::Error),
    /// The system has no certificates to trust, and no CA file was given.
    #[error("the system's trusted certificates cannot be read, and no CA file was given")]
    NoRoots,
    /// TLS could not be set up.
    #[error("TLS could not be set up")]
    Tls(#[source] rustls::Error),
}
