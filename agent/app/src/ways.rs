//! Ways to a peer (DESIGN §6), and the choice between them: its address on the local network, one that it registered, or
//! a hole that both sides open at once with the help of a relay of its domain.
//!
//! - [`plan`]: what is tried when: a value;
//! - [`reach`](fn@reach): the loop around it;
//! - `punch`: the hole, from the side of the one who wants to connect;
//! - [`knock`]: the same from the side of the store that is told of it;
//! - [`mdns`] and [`nearby`]: who is on the local network;
//! - `expected`: connections that stores open towards this agent because it asked for them.
//!
//! Each connection is looked for anew, so a better way that has appeared meanwhile is used by the next one.
//!
//! Sound because no way is a right: whoever answers proves the PeerId in the handshake, whatever led there.

mod expected;
pub mod knock;
pub mod mdns;
pub mod nearby;
pub mod plan;
mod punch;
mod reach;

use std::fmt;
use std::sync::Mutex;

use lighter_transport::Connection;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

pub use expected::Expected;
pub use reach::{NotFound, reach};

use crate::limits::MEETINGS_AT_ONCE_MAX;
use knock::Knocks;
use nearby::Nearby;

/// How a peer was reached, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// At an address on the same network.
    Lan,
    /// At an address that it registered.
    Direct,
    /// Through a hole that both sides opened.
    Punched,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lan => "on the local network",
            Self::Direct => "directly",
            Self::Punched => "through a hole that both sides opened",
        })
    }
}

/// A peer that was reached.
#[derive(Clone, Debug)]
pub struct Reached {
    /// The open connection: whoever asked for it closes it.
    pub connection: Connection,
    /// How.
    pub way: Way,
}

/// What finding ways needs to remember.
#[derive(Debug)]
pub struct Ways {
    /// Connections that others are to open.
    pub expected: Expected,
    /// Who knocked.
    pub knocks: Mutex<Knocks>,
    /// Who is on the local network.
    pub nearby: Mutex<Nearby>,
    /// Helpers that may be asked at a time.
    meetings: Semaphore,
}

impl Default for Ways {
    fn default() -> Self {
        Self {
            expected: Expected::default(),
            knocks: Mutex::default(),
            nearby: Mutex::default(),
            meetings: Semaphore::new(MEETINGS_AT_ONCE_MAX),
        }
    }
}
