//! What an array is made of, and how patient its writer is.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lighter_protocol::{PeerId, UnixTime};
use serde::{Deserialize, Serialize};

use crate::limits::{GROUP_LEN_MAX, SEGMENT_LEN_MAX};
use crate::local::LocalServers;
use crate::placing::Policy;
use crate::table::{ServerEntry, Shared, Table};

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
    /// Storage servers: where the table is looked for. Of an array that has none yet they are the first table; later,
    /// what is said here of a server that the table has counts, and one that it does not have is not taken in.
    pub servers: Vec<ServerEntry>,
    /// Servers that are given up: what only they have is not waited for when the array is opened.
    pub given_up: BTreeSet<PeerId>,
    /// Where the writer keeps a table of its own: a file, replaced whole. None: it has the servers' only.
    pub table_file: Option<PathBuf>,
    /// What copies of a segment may share, besides what the table allows.
    pub allowed_together: BTreeSet<Shared>,
    /// In which order servers are chosen for new segments.
    pub policy: Policy,
    /// On how many servers each record is kept. 2 by default; 1 is allowed, and said plainly: a laptop with one disk.
    pub copies: usize,
    /// A record is acknowledged once so many of its copies are on stable storage; the others are made in the
    /// background, as fast as they can be (SPEC B12). `None`, the default: all of them.
    pub acknowledge_after: Option<usize>,
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
    /// A server that is away for longer is taken for lost: what it had is copied to others.
    pub rebuild_after: Duration,
    /// Bytes a second that are copied at most to make up for lost copies; `None`: as fast as it goes.
    pub heal_rate: Option<NonZeroU64>,
    /// How often the units are asked how they are, and what is lacking is looked for.
    pub heal_interval: Duration,
    /// How long opening waits for servers that do not answer, once enough of them do.
    pub join_time_max: Duration,
    /// The longest pause between two tries to reach a server that is away.
    pub reconnect_delay_max: Duration,
    /// Servers of this process, which are spoken to without a socket.
    pub local: LocalServers,
}

impl ArrayConfig {
    /// An array of `servers` with two copies and the default times.
    pub fn new(servers: Vec<ServerRecord>) -> Self {
        Self {
            servers: servers.into_iter().map(ServerEntry::from).collect(),
            given_up: BTreeSet::new(),
            table_file: None,
            allowed_together: BTreeSet::new(),
            policy: Policy::default(),
            copies: 2,
            acknowledge_after: None,
            chain_from_len: 256 * 1024,
            segment_len_max: SEGMENT_LEN_MAX,
            write_time_max: Duration::from_secs(10),
            write_time_min: Duration::from_millis(250),
            go_on_time_max: Duration::from_secs(5),
            rebuild_after: Duration::from_secs(30 * 60),
            heal_rate: NonZeroU64::new(64 << 20),
            heal_interval: Duration::from_secs(10),
            join_time_max: Duration::from_secs(3),
            reconnect_delay_max: Duration::from_secs(5),
            local: LocalServers::default(),
        }
    }

    /// After how many of `members` members' acknowledgements a record is acknowledged.
    pub(crate) fn acknowledged_after(&self, members: usize) -> usize {
        self.acknowledge_after.unwrap_or(members).clamp(1, members.max(1))
    }

    /// The table of an array that has none yet.
    pub(crate) fn first_table(&self) -> Table {
        let copies = u8::try_from(self.copies).unwrap_or(u8::MAX);
        Table::first(self.servers.clone(), copies, self.allowed_together.clone())
    }

    /// Says what is wrong with it, if something is.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        if self.copies == 0 || self.copies > crate::limits::MEMBERS_MAX {
            Err("the number of copies must be from 1 to 8")
        } else if self.acknowledge_after.is_some_and(|after| after == 0 || after > self.copies) {
            Err("writes are acknowledged after at least one copy, and at most all of them")
        } else if self.segment_len_max > SEGMENT_LEN_MAX || self.segment_len_max < 2 * GROUP_LEN_MAX as u64 {
            Err("the segment length must be from 8 MiB to 1 GiB")
        } else {
            Ok(())
        }
    }
}
