//! What an array is made of, and how patient its writer is.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use lighter_protocol::{PeerId, UnixTime};
use serde::{Deserialize, Serialize};

use crate::limits::{GROUP_LEN_MAX, SEGMENT_LEN_MAX};

/// Tells the wall clock's time: storage days and expiry come from it. Tests give their own.
pub type Clock = Arc<dyn Fn() -> UnixTime + Send + Sync>;

/// The machine's clock.
pub fn wall_clock() -> Clock {
    Arc::new(UnixTime::now)
}

/// One storage server, as the array's table has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerRecord {
    /// Who it is: nobody else is spoken to at its address.
    pub peer: PeerId,
    /// Where it listens.
    pub address: SocketAddr,
}

/// What an array is made of.
#[derive(Clone, Debug)]
pub struct ArrayConfig {
    /// The storage servers: at least as many as copies.
    pub servers: Vec<ServerRecord>,
    /// On how many servers each record is before it is acknowledged. 2 by default; 1 is allowed, and said plainly:
    /// a laptop with one disk.
    pub copies: usize,
    /// Groups of at least so many bytes go along the chain, smaller ones to each member directly (DESIGN §8).
    pub chain_from_len: usize,
    /// A segment takes records up to this length. At most [`SEGMENT_LEN_MAX`].
    pub segment_len_max: u64,
    /// A member that has not acknowledged a write within this time has failed, whatever there is to go on with.
    pub write_time_max: Duration,
    /// Where other servers could take its place, a member has failed after three times what it usually takes, but
    /// never before this (DESIGN §8: 250 ms).
    pub write_time_min: Duration,
    /// For how long a write whose segment failed looks for members to go on with. Whoever waits for it hears of
    /// nothing but a delay until then.
    pub go_on_time_max: Duration,
    /// How long opening waits for servers that do not answer, once enough of them do.
    pub join_time_max: Duration,
    /// The longest pause between two tries to reach a server that is away.
    pub reconnect_delay_max: Duration,
}

impl ArrayConfig {
    /// An array of `servers` with two copies and the default times.
    pub fn new(servers: Vec<ServerRecord>) -> Self {
        Self {
            servers,
            copies: 2,
            chain_from_len: 256 * 1024,
            segment_len_max: SEGMENT_LEN_MAX,
            write_time_max: Duration::from_secs(10),
            write_time_min: Duration::from_millis(250),
            go_on_time_max: Duration::from_secs(5),
            join_time_max: Duration::from_secs(3),
            reconnect_delay_max: Duration::from_secs(5),
        }
    }

    /// Servers without which nothing can be known for certain (DESIGN §8, fencing): with so many of them fenced, at
    /// least one has each acknowledged record, and no other writer can reach enough.
    pub(crate) fn quorum(&self) -> usize {
        self.servers.len() + 1 - self.copies
    }

    /// Says what is wrong with it, if something is.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        let mut peers: Vec<_> = self.servers.iter().map(|server| server.peer).collect();
        peers.sort_unstable();
        peers.dedup();
        if self.copies == 0 || self.copies > crate::limits::MEMBERS_MAX {
            Err("the number of copies must be from 1 to 8")
        } else if self.servers.len() < self.copies {
            Err("fewer servers than copies")
        } else if self.servers.len() > crate::limits::SERVERS_MAX {
            Err("too many servers")
        } else if peers.len() != self.servers.len() {
            Err("a server stands there twice")
        } else if self.segment_len_max > SEGMENT_LEN_MAX || self.segment_len_max < 2 * GROUP_LEN_MAX as u64 {
            Err("the segment length must be from 8 MiB to 1 GiB")
        } else {
            Ok(())
        }
    }
}
