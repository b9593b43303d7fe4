//! What can go wrong between a relay and its array: one enum for each operation.

use std::net::SocketAddr;

use lighter_protocol::PeerId;

use crate::link::LinkError;
use crate::table::{ChangeError, TableError};

/// Why an array did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The configuration makes no array.
    #[error("array configuration: {0}")]
    Config(&'static str),
    /// The servers make no array.
    #[error("the array's servers: {0}")]
    Table(#[from] TableError),
    /// Fewer servers answered than are needed to know what was acknowledged: try again when more are there. A server
    /// that has never heard of this writer, or has lost some of what it had, counts only where all servers answered.
    #[error("{reached} storage servers that know what there is answered, {needed} are needed")]
    TooFewServers {
        /// Servers that answered, know this writer and were fenced.
        reached: usize,
        /// Servers that are needed.
        needed: usize,
    },
    /// What was acknowledged before all copies were made (SPEC B12, where so set) may be on these servers only, and they
    /// do not answer: try again when they are there. Where one is lost for good, say so ([`ArrayConfig::given_up`]): what
    /// only it had is gone then.
    ///
    /// [`ArrayConfig::given_up`]: super::ArrayConfig::given_up
    #[error(
        "what was acknowledged before it was mirrored may be only on {}: start it, or give it up (array.given_up)",
        servers.iter().map(PeerId::to_string).collect::<Vec<_>>().join(", ")
    )]
    Unmirrored {
        /// Who.
        servers: Vec<PeerId>,
    },
    /// The array key opens nothing of what is there: it is another array's. Nothing was written.
    #[error("the array key opens none of the segments that are there: is it another array's?")]
    WrongKey,
    /// No TLS with this identity.
    #[error("TLS with this identity")]
    Tls(#[source] lighter_transport::tls::TlsError),
}

/// Why a write was not acknowledged.
///
/// What the relay owes for each (DESIGN §3 rule 2): [`WriteError::is_certain`] errors can be answered with a `4xx` at
/// once; after [`WriteError::InDoubt`] a `4xx` needs a durable void record first, otherwise the connection is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// Too few servers for the promised copies: nothing was written. It goes on by itself when they are back.
    #[error("too few storage servers for the promised copies")]
    Unavailable,
    /// A write failed, and nothing of it will ever come back.
    #[error("the write failed; nothing of it was kept")]
    NotDurable,
    /// A write failed, and what it wrote may or may not come back after a restart.
    #[error("the write failed; whether it was kept is in doubt")]
    InDoubt,
    /// Larger than the array takes.
    #[error("larger than the array takes")]
    TooLarge,
    /// Another writer has taken the array over: this one must stop.
    #[error("another writer has taken the array over")]
    Fenced,
}

impl WriteError {
    /// Whether surely nothing of the write was kept.
    pub fn is_certain(self) -> bool {
        self != Self::InDoubt
    }
}

/// Why a blob, or part of it, was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Its deletion day is over.
    #[error("expired")]
    Expired,
    /// No server that may have a good copy answers now: try again.
    #[error("no copy can be reached now")]
    Unavailable,
    /// Every copy was reached, and none is right.
    #[error("no copy is right")]
    Damaged,
    /// The range is not within the blob, or the location is none.
    #[error("no such range")]
    Range,
}

impl From<ReadError> for std::io::Error {
    fn from(error: ReadError) -> Self {
        use std::io::ErrorKind;
        let kind = match error {
            ReadError::Expired => ErrorKind::NotFound,
            ReadError::Unavailable => ErrorKind::NotConnected,
            ReadError::Damaged => ErrorKind::InvalidData,
            ReadError::Range => ErrorKind::InvalidInput,
        };
        Self::new(kind, error)
    }
}

/// Why the table was not changed. The text says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableChangeError {
    /// It cannot be changed so.
    #[error(transparent)]
    Refused(#[from] ChangeError),
    /// The server that is to be taken in cannot be.
    #[error(
        "{peer} at {address} cannot be taken in: {reason}. Is it running, is this its address, and does it name this relay as a writer?"
    )]
    Unreachable {
        /// Which server.
        peer: PeerId,
        /// Where it was looked for.
        address: SocketAddr,
        /// Why not.
        reason: LinkError,
    },
    /// Too few servers took the new table. It is not in force; whoever takes the array over may find it, and put it in
    /// force.
    #[error(
        "{had} servers took the change, {needed} are needed: try again when more of them are there (`array status`)"
    )]
    TooFewServers {
        /// Those that took it.
        had: usize,
        /// Those that are needed.
        needed: usize,
    },
    /// Another writer has taken the array over: this one must stop.
    #[error("another relay has taken the array over")]
    Fenced,
}
