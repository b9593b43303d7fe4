//! The table: which servers the array has, where each is, and which of them may hold whose copies (SPEC B11, B15, C7).
//!
//! It is a value. The writer has one in force; a [`Change`] makes the next one, or says why not. Every unit of every
//! server keeps the latest one that it was given, so that a relay that knows one server finds them all; the relay keeps
//! one in its data folder, too.
//!
//! # Which of two is the later
//! The greater [`Stamp`]: the epoch of the writer that put it in force, then its version. A writer that takes the array
//! over puts the table that it found in force again under its own epoch, so that what an earlier one had begun to change,
//! and had not brought to enough servers, never comes back.
//!
//! # How many servers must have it
//! Taking over fences and reads [`Table::quorum`] = servers − copies + 1 of them. So that one of those has the latest
//! table, a change must be on at least `copies` servers of the old table and of the new one: [`Table::change_quorum`] is
//! the greater of both numbers. (The design says servers − copies + 1; that is enough from 2 × copies − 1 servers on.)
//! A server that is lost for good is in neither count: it must never come back, and its key is remembered for that.
//!
//! # Format
//! ```text
//! 0  8  magic "LTRTABL1"
//! 8  n  postcard encoding of `Table`
//!    4  CRC32C of everything before
//! ```

mod change;
mod file;
mod label;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;

use lighter_protocol::PeerId;
use serde::{Deserialize, Serialize};

pub use change::{Change, ChangeError, Facts};
pub use label::{Label, LabelError, Shared, SharedError};

use crate::array::ServerRecord;
use crate::ids::{Epoch, UnitId};
use crate::limits::{
    ALLOWED_MAX, GONE_MAX, GROUPS_MAX, MEMBERS_MAX, MIRRORS_MAX, READERS_MAX, SERVERS_MAX, TABLE_LEN_MAX,
};
use crate::placing;
use crate::record::read_u32;
use crate::segment::header::Member;

/// Which servers there are, and who may hold whose copies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// The epoch of the writer that put it in force; zero where none has yet.
    pub epoch: Epoch,
    /// Counts the changes.
    pub version: u64,
    /// On how many servers each record is before it is acknowledged.
    pub copies: u8,
    /// Servers lost for good whose copies have not all been made again: so many copies fewer may be left of what was
    /// acknowledged. Below `copies`.
    pub lacking: u8,
    /// The servers, in the order in which they came.
    pub servers: Vec<ServerEntry>,
    /// The mirroring table: for each relay, the servers or units that hold its copies. One that is not named here has
    /// them on all servers.
    // SPEC: B11
    pub mirrors: BTreeMap<PeerId, Vec<Place>>,
    /// What two copies of a segment may share.
    pub allowed_together: BTreeSet<Shared>,
    /// Other relays that may read what this table's writer stores, and change nothing: those that share its array key.
    // SPEC: D10
    pub readers: BTreeSet<PeerId>,
    /// Servers that were here, the earliest first.
    pub gone: VecDeque<Gone>,
}

/// Which of two tables is the later one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Stamp {
    /// The epoch of the writer that put it in force.
    pub epoch: Epoch,
    /// The version.
    pub version: u64,
}

/// One server of the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerEntry {
    /// Who it is.
    pub peer: PeerId,
    /// Where it listens: its connection path.
    pub address: SocketAddr,
    /// The machine that it runs on.
    pub host: Label,
    /// The disk below all its units, where it is one that other servers may have, too. None: its own.
    pub disk: Option<Label>,
    /// The network path to it, where others may have the same. None: a path of its own.
    pub zone: Option<Label>,
    /// Which group: writes go to the first one, and to a later one where it does not take them.
    // SPEC: C5
    pub group: u8,
    /// Whether it gets new segments.
    pub state: ServerState,
}

/// Whether a server gets new segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServerState {
    /// It does.
    Active,
    /// It does not, and what it has is copied elsewhere.
    Draining,
}

/// A server that was here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gone {
    /// Who it was.
    pub peer: PeerId,
    /// It was given up with what it had: it must not come back with that.
    pub is_lost: bool,
}

/// A place for copies: a server, or one unit of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Place {
    /// The server.
    pub server: PeerId,
    /// Its unit. None: any.
    pub unit: Option<UnitId>,
}

impl Place {
    /// Whether a unit of a server is in it.
    pub fn has(&self, member: &Member) -> bool {
        self.server == member.peer && self.unit.is_none_or(|unit| unit == member.unit)
    }
}

/// Why a table cannot be in force. The text says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// Not 1 to 8 copies.
    #[error("{0} copies: 1 to {MEMBERS_MAX} can be kept")]
    Copies(u8),
    /// Fewer servers than copies.
    #[error("{servers} servers that take new segments, for {copies} copies: add servers first")]
    TooFew {
        /// Active ones.
        servers: usize,
        /// Copies.
        copies: u8,
    },
    /// Something over its bound.
    #[error("{what}: more than {max}")]
    TooMany {
        /// What.
        what: &'static str,
        /// How many there may be.
        max: usize,
    },
    /// A server stands there twice.
    #[error("server {0} stands there twice: name it once")]
    Twice(PeerId),
    /// Two servers at one address.
    #[error("two servers at {0}: each listens at an address of its own")]
    SameAddress(SocketAddr),
    /// A group that there is not.
    #[error("server {peer}: group {group}: groups are numbered from 1 to {GROUPS_MAX}")]
    Group {
        /// Which server.
        peer: PeerId,
        /// Its group.
        group: u8,
    },
    /// All servers share machines, disks or paths, so that no choice of them may hold a segment's copies.
    #[error(
        "no {copies} of the servers may hold copies of the same segment: they share {shared}. Add servers elsewhere, or allow it by name if losing both at once is acceptable"
    )]
    Together {
        /// Copies.
        copies: u8,
        /// What they share, the most shared first.
        shared: SharedList,
    },
    /// A mirroring table names a server that there is not.
    #[error("the mirroring table names {0}, which is no server of the array: add it first")]
    NoSuchServer(PeerId),
    /// A mirroring table names too few servers.
    #[error(
        "the servers named for {writer} in the mirroring table cannot hold {copies} copies: name more of them"
    )]
    Mirrors {
        /// Whose copies.
        writer: PeerId,
        /// How many.
        copies: u8,
    },
    /// More lacks than there can be.
    #[error("{lacking} lost servers for {copies} copies: not a table")]
    Lacking {
        /// Lost servers.
        lacking: u8,
        /// Copies.
        copies: u8,
    },
}

/// Some of what servers share, for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedList(Vec<Shared>);

impl std::fmt::Display for SharedList {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, shared) in self.0.iter().enumerate() {
            write!(f, "{}{shared}", if index == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// Bytes that are no table, or one that cannot be in force.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Too long or too short, another magic, or leftover bytes.
    #[error("not a table")]
    Malformed,
    /// The checksum is wrong.
    #[error("a table with a wrong checksum")]
    Checksum,
    /// Read, and impossible.
    #[error("a table that cannot be: {0}")]
    Impossible(#[from] TableError),
}

const MAGIC: &[u8; 8] = b"LTRTABL1";
/// What a refusal names of what is shared.
const SHARED_SHOWN_MAX: usize = 3;

impl ServerEntry {
    /// An active server of the first group: its address stands for its machine.
    pub fn new(peer: PeerId, address: SocketAddr) -> Self {
        Self {
            peer,
            address,
            host: host_of(address),
            disk: None,
            zone: None,
            group: 1,
            state: ServerState::Active,
        }
    }

    /// How to reach it.
    pub fn record(&self) -> ServerRecord {
        ServerRecord { peer: self.peer, address: self.address }
    }

    /// The machine, where it is this one: a loopback address, and no other name given.
    fn own_machine(&self) -> Option<Shared> {
        let is_own = self.address.ip().is_loopback() && self.host == host_of(self.address);
        is_own.then(|| Shared::Host(self.host.clone()))
    }

    /// What copies on it share with others of the same.
    pub fn shares(&self) -> impl Iterator<Item = Shared> {
        let host = Some(Shared::Host(self.host.clone()));
        let disk = self.disk.clone().map(Shared::Disk);
        let zone = self.zone.clone().map(Shared::Zone);
        [host, disk, zone].into_iter().flatten()
    }
}

impl From<ServerRecord> for ServerEntry {
    fn from(record: ServerRecord) -> Self {
        Self::new(record.peer, record.address)
    }
}

/// The machine at `address`, where nobody named it.
fn host_of(address: SocketAddr) -> Label {
    address.ip().to_string().parse().expect("an address is visible ASCII of at most 45 characters")
}

impl Table {
    /// The first table of an array. Servers on loopback are this machine's, and may be together: there is no other way
    /// to try an array on one machine. `check` and `status` say so.
    pub fn first(servers: Vec<ServerEntry>, copies: u8, allowed_together: BTreeSet<Shared>) -> Self {
        let own = servers.iter().filter_map(ServerEntry::own_machine);
        let allowed_together = own.chain(allowed_together).collect();
        Self {
            epoch: Epoch(0),
            version: 1,
            copies,
            lacking: 0,
            servers,
            mirrors: BTreeMap::new(),
            allowed_together,
            readers: BTreeSet::new(),
            gone: VecDeque::new(),
        }
    }

    /// Which of two is the later.
    pub fn stamp(&self) -> Stamp {
        Stamp { epoch: self.epoch, version: self.version }
    }

    /// A server by its key.
    pub fn server(&self, peer: &PeerId) -> Option<&ServerEntry> {
        self.servers.iter().find(|server| server.peer == *peer)
    }

    /// Servers that take new segments.
    pub fn active(&self) -> impl Iterator<Item = &ServerEntry> {
        self.servers.iter().filter(|server| server.state == ServerState::Active)
    }

    /// Where copies of what `writer` stores may be; empty: everywhere.
    pub fn mirrors_of(&self, writer: &PeerId) -> &[Place] {
        self.mirrors.get(writer).map_or(&[], Vec::as_slice)
    }

    /// Servers without which nothing can be known for certain: with so many of them fenced, at least one has each
    /// acknowledged record, and no other writer can reach enough. More, as long as copies are lacking.
    pub fn quorum(&self) -> usize {
        let copies_left = usize::from(self.copies.saturating_sub(self.lacking).max(1));
        (self.servers.len() + 1).saturating_sub(copies_left).max(1)
    }

    /// Servers that must have a change of the table before it is in force.
    pub fn change_quorum(&self) -> usize {
        self.quorum().max(usize::from(self.copies)).min(self.servers.len())
    }

    /// What is allowed, and shared by so many servers that all copies of something may be on it: losing it loses mail.
    pub fn all_may_be_on(&self) -> Vec<Shared> {
        let has_all = |shared: &&Shared| {
            let with = self.active().filter(|server| server.shares().any(|other| other == **shared));
            self.copies > 1 && with.count() >= usize::from(self.copies)
        };
        self.allowed_together.iter().filter(has_all).cloned().collect()
    }

    /// The same with what a configuration says: of servers that are here their addresses, names and groups; what is
    /// allowed; how many copies. `None` where it says the same. Servers that are not here do not come in this way.
    #[must_use]
    pub fn with_seeds(&self, seeds: &[ServerEntry], allowed: &BTreeSet<Shared>, copies: u8) -> Option<Self> {
        let mut next = self.clone();
        // With more copies than before, what is there has too few at first.
        next.copies = copies;
        next.lacking = copies.saturating_sub(self.copies.saturating_sub(self.lacking));
        next.allowed_together.extend(allowed.iter().cloned());
        for entry in &mut next.servers {
            if let Some(seed) = seeds.iter().find(|seed| seed.peer == entry.peer) {
                if seed.host != entry.host {
                    next.allowed_together.extend(seed.own_machine());
                }
                *entry = ServerEntry { state: entry.state, ..seed.clone() };
            }
        }
        (next != *self).then(|| Self { version: self.version + 1, ..next })
    }

    /// Whether it can be in force.
    ///
    /// # Errors
    /// Says what is wrong, and what to do.
    pub fn check(&self) -> Result<(), TableError> {
        self.check_bounds()?;
        let active: Vec<_> = self.active().collect();
        if active.len() < usize::from(self.copies) {
            return Err(TableError::TooFew { servers: active.len(), copies: self.copies });
        }
        let copies = usize::from(self.copies);
        if !placing::fits(&active, &self.allowed_together, copies) {
            return Err(TableError::Together { copies: self.copies, shared: self.shared(&active) });
        }
        for (writer, places) in &self.mirrors {
            if let Some(unknown) = places.iter().find(|place| self.server(&place.server).is_none()) {
                return Err(TableError::NoSuchServer(unknown.server));
            }
            let named = |server: &&ServerEntry| places.iter().any(|place| place.server == server.peer);
            let named: Vec<_> = active.iter().copied().filter(named).collect();
            if !placing::fits(&named, &self.allowed_together, copies) {
                return Err(TableError::Mirrors { writer: *writer, copies: self.copies });
            }
        }
        Ok(())
    }

    fn check_bounds(&self) -> Result<(), TableError> {
        if self.copies == 0 || usize::from(self.copies) > MEMBERS_MAX {
            return Err(TableError::Copies(self.copies));
        }
        if self.lacking >= self.copies {
            return Err(TableError::Lacking { lacking: self.lacking, copies: self.copies });
        }
        let mirrors = self.mirrors.values().map(|places| places.len() + 1).sum();
        for (what, count, max) in [
            ("servers", self.servers.len(), SERVERS_MAX),
            ("servers that are gone", self.gone.len(), GONE_MAX),
            ("entries of the mirroring table", mirrors, MIRRORS_MAX),
            ("names that are allowed together", self.allowed_together.len(), ALLOWED_MAX),
            ("relays that may read", self.readers.len(), READERS_MAX),
        ] {
            if count > max {
                return Err(TableError::TooMany { what, max });
            }
        }
        let mut peers = BTreeSet::new();
        for server in &self.servers {
            if server.group == 0 || server.group > GROUPS_MAX {
                return Err(TableError::Group { peer: server.peer, group: server.group });
            }
            if !peers.insert(server.peer) {
                return Err(TableError::Twice(server.peer));
            }
        }
        Ok(())
    }

    /// What is not allowed, and shared by two or more of `servers`: the most shared first.
    fn shared(&self, servers: &[&ServerEntry]) -> SharedList {
        let mut counts: BTreeMap<Shared, usize> = BTreeMap::new();
        for shared in servers.iter().flat_map(|server| server.shares()) {
            if !self.allowed_together.contains(&shared) {
                *counts.entry(shared).or_default() += 1;
            }
        }
        let mut shared: Vec<_> = counts.into_iter().filter(|(_, count)| *count > 1).collect();
        shared.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        shared.truncate(SHARED_SHOWN_MAX);
        SharedList(shared.into_iter().map(|(shared, _)| shared).collect())
    }

    /// The table as a file, or as data beside a message.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(postcard::to_stdvec(self).expect("lists and maps of plain values encode"));
        let crc = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads and checks it.
    ///
    /// # Errors
    /// See [`DecodeError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > TABLE_LEN_MAX {
            return Err(DecodeError::Malformed);
        }
        let body_len = bytes.len().checked_sub(4).ok_or(DecodeError::Malformed)?;
        let body = &bytes[..body_len];
        let encoded = body.strip_prefix(MAGIC).ok_or(DecodeError::Malformed)?;
        if crc32c::crc32c(body) != read_u32(bytes, body_len) {
            return Err(DecodeError::Checksum);
        }
        let (table, rest): (Self, _) =
            postcard::take_from_bytes(encoded).map_err(|_| DecodeError::Malformed)?;
        if !rest.is_empty() {
            return Err(DecodeError::Malformed);
        }
        table.check()?;
        Ok(table)
    }
}

#[cfg(test)]
mod tests;
