//! What can go wrong with the other side, told by the party at fault, and the codes in which the two sides tell each
//! other (chosen numbers, never an inner error's words).

use lighter_protocol::wire::WireError;
use quinn::{ConnectionError, ReadError, VarInt, WriteError};

/// Why an exchange with a peer did not come to its end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// The connection is closed or dead. Nothing is wrong with the peer: try again when it is back.
    #[error("the peer is gone")]
    Gone,
    /// The peer did not answer, or sent nothing, for longer than allowed.
    #[error("the peer took too long")]
    TimedOut,
    /// The peer has as many connections as it takes.
    #[error("the peer is busy")]
    Busy,
    /// The peer gave this exchange up, and said why.
    #[error("the peer gave up: {0}")]
    GaveUp(GiveUp),
    /// The peer broke the protocol.
    #[error("the peer misbehaved: {0}")]
    Misbehaved(Misbehaviour),
}

/// Why a message was not exchanged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExchangeError {
    /// What this side wanted to say breaks a bound of the protocol; nothing was sent.
    #[error("not sent: {0}")]
    Invalid(#[source] WireError),
    /// It failed at the other side.
    #[error(transparent)]
    Peer(#[from] PeerError),
}

/// How a peer broke the protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misbehaviour {
    /// Bytes that are no message, or one beyond its limits.
    #[error("{0}")]
    Message(#[from] WireError),
    /// An answer that does not go with the question.
    #[error("an answer to another question")]
    Answer,
    /// Something else than a Ping came first on a new connection.
    #[error("no Ping at the beginning")]
    NoPing,
    /// Bytes that do not hash to what they should.
    #[error("bytes that are not the blob's, at {offset}")]
    WrongBytes {
        /// Where in the blob.
        offset: u64,
    },
    /// The stream ended before everything that was asked for had come.
    #[error("too few bytes")]
    TooFew,
    /// More came than was asked for.
    #[error("too many bytes")]
    TooMany,
    /// The blob is said to have another size than what was offered, or a size beyond all limits.
    #[error("a blob of {claimed} bytes, where {expected} were offered")]
    Size {
        /// The size in the offer.
        expected: u64,
        /// The size in the answer.
        claimed: u64,
    },
    /// It sends or takes bytes, but fewer than the least that is accepted.
    #[error("too slow")]
    TooSlow,
    /// QUIC itself was violated.
    #[error("QUIC violated")]
    Quic,
}

/// Why one side gives an exchange up: the error code of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GiveUp {
    /// Not needed any more.
    #[error("not needed any more")]
    Cancelled,
    /// What the other side sent was malformed.
    #[error("malformed message")]
    Malformed,
    /// The other side was too slow.
    #[error("too slow")]
    TooSlow,
    /// What was to be sent cannot be read, or is damaged.
    #[error("the source is damaged")]
    Damaged,
    /// No answer was made.
    #[error("no answer")]
    NoAnswer,
    /// What came did not verify.
    #[error("verification failed")]
    Unverified,
    /// A number of another version.
    #[error("reason {0}")]
    Other(u64),
}

impl GiveUp {
    pub(crate) fn code(self) -> VarInt {
        match self {
            Self::Cancelled => VarInt::from_u32(0),
            Self::Malformed => VarInt::from_u32(1),
            Self::TooSlow => VarInt::from_u32(2),
            Self::Damaged => VarInt::from_u32(3),
            Self::NoAnswer => VarInt::from_u32(4),
            Self::Unverified => VarInt::from_u32(5),
            Self::Other(code) => VarInt::from_u64(code).unwrap_or(VarInt::MAX),
        }
    }

    pub(crate) fn of_code(code: VarInt) -> Self {
        match code.into_inner() {
            0 => Self::Cancelled,
            1 => Self::Malformed,
            2 => Self::TooSlow,
            3 => Self::Damaged,
            4 => Self::NoAnswer,
            5 => Self::Unverified,
            other => Self::Other(other),
        }
    }
}

/// Why a connection is closed: the application's error code (RFC 9000 §20.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CloseCode {
    /// Nothing is wrong: done, or stopping.
    Done,
    /// A limit is reached.
    Busy,
    /// The protocol was broken.
    Protocol,
    /// The connection was not opened in time.
    TooSlow,
}

impl CloseCode {
    pub(crate) fn code(self) -> VarInt {
        match self {
            Self::Done => VarInt::from_u32(0),
            Self::Busy => VarInt::from_u32(1),
            Self::Protocol => VarInt::from_u32(2),
            Self::TooSlow => VarInt::from_u32(3),
        }
    }
}

impl From<ConnectionError> for PeerError {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::ApplicationClosed(close) if close.error_code == CloseCode::Busy.code() => {
                Self::Busy
            }
            ConnectionError::TransportError(_) => Self::Misbehaved(Misbehaviour::Quic),
            ConnectionError::ApplicationClosed(_)
            | ConnectionError::ConnectionClosed(_)
            | ConnectionError::Reset
            | ConnectionError::TimedOut
            | ConnectionError::LocallyClosed
            | ConnectionError::VersionMismatch
            | ConnectionError::CidsExhausted => Self::Gone,
        }
    }
}

impl From<ReadError> for PeerError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Reset(code) => Self::GaveUp(GiveUp::of_code(code)),
            ReadError::ConnectionLost(error) => error.into(),
            ReadError::ClosedStream | ReadError::IllegalOrderedRead | ReadError::ZeroRttRejected => {
                Self::Gone
            }
        }
    }
}

impl From<WriteError> for PeerError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Stopped(code) => Self::GaveUp(GiveUp::of_code(code)),
            WriteError::ConnectionLost(error) => error.into(),
            WriteError::ClosedStream | WriteError::ZeroRttRejected => Self::Gone,
        }
    }
}

impl From<Misbehaviour> for PeerError {
    fn from(kind: Misbehaviour) -> Self {
        Self::Misbehaved(kind)
    }
}

impl From<WireError> for PeerError {
    fn from(error: WireError) -> Self {
        Self::Misbehaved(Misbehaviour::Message(error))
    }
}
