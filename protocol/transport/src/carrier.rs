//! What carries a connection: the same protocol on each of them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What carries a connection, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Carrier {
    /// QUIC in UDP.
    Quic,
    /// A tunnel in TLS on TCP.
    Tcp,
    /// A tunnel in a WebSocket on a web server.
    WebSocket,
}

impl Carrier {
    /// All of them, best first.
    pub const ALL: [Self; 3] = [Self::Quic, Self::Tcp, Self::WebSocket];

    /// Its name in status and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::Tcp => "tcp",
            Self::WebSocket => "websocket",
        }
    }
}

impl fmt::Display for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Quic => "QUIC",
            Self::Tcp => "TLS on TCP",
            Self::WebSocket => "WebSocket",
        })
    }
}

/// Not the name of a carrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no such carrier: quic, tcp or websocket")]
pub struct NoCarrier;

impl FromStr for Carrier {
    type Err = NoCarrier;

    fn from_str(name: &str) -> Result<Self, NoCarrier> {
        Self::ALL.into_iter().find(|carrier| carrier.name() == name).ok_or(NoCarrier)
    }
}
