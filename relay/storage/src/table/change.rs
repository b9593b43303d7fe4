//! Changes of the table: each a value that makes the next table, or says why not.

use std::collections::{BTreeMap, BTreeSet};

use lighter_protocol::PeerId;
use serde::{Deserialize, Serialize};

use super::{Gone, Place, ServerEntry, ServerState, Shared, Table, TableError};
use crate::limits::GONE_MAX;

/// What an operator may change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// Takes a server in. One that is there already gets this address, these names and this group, and does not drain
    /// any more.
    Add(ServerEntry),
    /// Gives a server no new segments, and copies what it has elsewhere.
    Drain(PeerId),
    /// Takes a server out: one that drains, and that nothing needs any more.
    Remove(PeerId),
    /// Gives a server up, with what it had: its copies are made again from their mirrors.
    Lose(PeerId),
    /// Takes a server in in place of another one, which drains or, where it is lost, is given up.
    Replace {
        /// The one that goes.
        old: PeerId,
        /// The one that comes.
        new: ServerEntry,
        /// The old one will not come back.
        is_lost: bool,
    },
    /// Says where a relay's copies may be; empty: everywhere.
    Mirror {
        /// Whose.
        writer: PeerId,
        /// Where.
        places: Vec<Place>,
    },
    /// Lets two copies share something.
    Allow(Shared),
    /// Lets them not share it any more. What is there stays where it is.
    Forbid(Shared),
    /// Says which other relays may read what this one stores: these, and no others.
    // SPEC: D10
    Readers(BTreeSet<PeerId>),
    /// All copies of lost servers were made again.
    Restored,
}

/// What is known of the array when a change is decided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// For each server, how many segments would have fewer copies than promised without it.
    pub needed: BTreeMap<PeerId, u64>,
}

/// Why a table is not changed. The text says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// It is so already.
    #[error("nothing to change: it is so already")]
    Unchanged,
    /// There is no such server.
    #[error("{0} is no server of the array: `array status` shows them")]
    NoSuchServer(PeerId),
    /// A lost server would come back.
    #[error(
        "{0} was given up as lost, and must not come back with what it had: start it with an empty folder, so that it gets a new key"
    )]
    Lost(PeerId),
    /// A server that does not drain cannot be taken out.
    #[error(
        "{0} takes new segments: `array drain` it first, or say `--lost` if it is gone for good with its data"
    )]
    NotDraining(PeerId),
    /// What it has is needed.
    #[error(
        "{segments} segments still need the copy on {peer}: wait until it is drained (`array status`), or say `--lost` if it is gone for good with its data"
    )]
    StillNeeded {
        /// Which server.
        peer: PeerId,
        /// How many segments.
        segments: u64,
    },
    /// The next table could not be in force.
    #[error(transparent)]
    Table(#[from] TableError),
}

impl Table {
    /// The table after `change`: the next version, or why there is none.
    ///
    /// # Errors
    /// See [`ChangeError`].
    // SPEC: B11, B14
    pub fn change(&self, change: &Change, facts: &Facts) -> Result<Self, ChangeError> {
        let mut next = self.clone();
        match change {
            Change::Add(entry) => next.add(entry)?,
            Change::Drain(peer) => next.entry(peer)?.state = ServerState::Draining,
            Change::Remove(peer) => next.remove(peer, facts)?,
            Change::Lose(peer) => next.lose(peer, facts)?,
            Change::Replace { old, new, is_lost } => {
                next.entry(old)?;
                if next.server(&new.peer).is_some() {
                    return Err(TableError::Twice(new.peer).into());
                }
                for places in next.mirrors.values_mut() {
                    if places.iter().any(|place| place.server == *old) {
                        places.push(Place { server: new.peer, unit: None });
                    }
                }
                // In this order: a server at the same address may come in the place of a lost one.
                if *is_lost {
                    next.lose(old, facts)?;
                } else {
                    next.entry(old)?.state = ServerState::Draining;
                }
                next.add(new)?;
            }
            Change::Mirror { writer, places } if places.is_empty() => {
                next.mirrors.remove(writer);
            }
            Change::Mirror { writer, places } => {
                let mut places = places.clone();
                places.sort_unstable();
                places.dedup();
                next.mirrors.insert(*writer, places);
            }
            Change::Allow(shared) => {
                next.allowed_together.insert(shared.clone());
            }
            Change::Forbid(shared) => {
                next.allowed_together.remove(shared);
            }
            Change::Readers(readers) => next.readers.clone_from(readers),
            Change::Restored => next.lacking = 0,
        }
        if next == *self {
            return Err(ChangeError::Unchanged);
        }
        next.version = self.version + 1;
        next.check()?;
        Ok(next)
    }

    fn entry(&mut self, peer: &PeerId) -> Result<&mut ServerEntry, ChangeError> {
        let found = self.servers.iter_mut().find(|server| server.peer == *peer);
        found.ok_or(ChangeError::NoSuchServer(*peer))
    }

    fn add(&mut self, entry: &ServerEntry) -> Result<(), ChangeError> {
        if self.gone.iter().any(|gone| gone.peer == entry.peer && gone.is_lost) {
            return Err(ChangeError::Lost(entry.peer));
        }
        let entry = ServerEntry { state: ServerState::Active, ..entry.clone() };
        if self.servers.iter().any(|other| other.address == entry.address && other.peer != entry.peer) {
            return Err(TableError::SameAddress(entry.address).into());
        }
        self.allowed_together.extend(entry.own_machine());
        match self.entry(&entry.peer) {
            Ok(there) => *there = entry,
            Err(_) => {
                self.gone.retain(|gone| gone.peer != entry.peer);
                self.servers.push(entry);
            }
        }
        Ok(())
    }

    fn remove(&mut self, peer: &PeerId, facts: &Facts) -> Result<(), ChangeError> {
        if self.entry(peer)?.state != ServerState::Draining {
            return Err(ChangeError::NotDraining(*peer));
        }
        if let Some(segments) = facts.needed.get(peer).copied().filter(|segments| *segments > 0) {
            return Err(ChangeError::StillNeeded { peer: *peer, segments });
        }
        self.forget(*peer, false);
        Ok(())
    }

    fn lose(&mut self, peer: &PeerId, facts: &Facts) -> Result<(), ChangeError> {
        self.entry(peer)?;
        if facts.needed.get(peer).is_some_and(|segments| *segments > 0) {
            // Where as many are lost as there are copies, some records are gone; all servers must then be there to know
            // what is left.
            self.lacking = (self.lacking + 1).min(self.copies - 1);
        }
        self.forget(*peer, true);
        Ok(())
    }

    /// Takes it out, and out of the mirroring table (where it was the last one named, the table says so when it is
    /// checked); what is known of the earliest one that went orderly is forgotten
    /// where too many are gone.
    fn forget(&mut self, peer: PeerId, is_lost: bool) {
        self.servers.retain(|server| server.peer != peer);
        for places in self.mirrors.values_mut() {
            places.retain(|place| place.server != peer);
        }
        if self.gone.len() >= GONE_MAX {
            let orderly = self.gone.iter().position(|gone| !gone.is_lost).unwrap_or(0);
            self.gone.remove(orderly);
        }
        self.gone.push_back(Gone { peer, is_lost });
    }
}
