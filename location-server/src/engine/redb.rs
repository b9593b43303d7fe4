//! Rows in one redb file.
//!
//! # Format
//! A table for each kind of row (keys and values: [`crate::rows`]), and `meta`, with the file's format number.
//!
//! # Sync
//! A commit is durable when it returns (`Durability::Immediate`): redb syncs the file. The file's directory entry is
//! synced when it is made.
//!
//! # Recovery
//! redb's copy-on-write trees: after a crash the last commit that was durable is there, whole. `quick_repair` keeps
//! opening short after a crash. A row that does not read as one is left where it is, counted, and said in the log.

use std::fs::File;
use std::path::Path;

use redb::{Database, DatabaseError, Durability, ReadableDatabase, ReadableTable, TableDefinition};

use super::{Engine, EngineError, Loaded};
use crate::rows::{Change, Kind, Row};

type Table = TableDefinition<'static, &'static [u8], &'static [u8]>;

const META: TableDefinition<'static, &'static str, u64> = TableDefinition::new("meta");
const META_FORMAT: &str = "format";
/// The format that is written, and the latest that is read.
const FORMAT: u64 = 1;

fn table_of(kind: Kind) -> Table {
    TableDefinition::new(match kind {
        Kind::Enrolment => "enrolments",
        Kind::Registration => "registrations",
        Kind::Token => "tokens",
        Kind::Invitation => "invitations",
        Kind::Relay => "relays",
        Kind::SealingKey => "sealing-keys",
        Kind::Policy => "policies",
        Kind::Correspondent => "correspondents",
        Kind::Pin => "pins",
        Kind::KeyChange => "key-changes",
        Kind::Succession => "successions",
        Kind::Revocation => "revocations",
    })
}

/// Keeps rows in one file.
#[derive(Debug)]
pub struct RedbEngine {
    database: Database,
}

impl RedbEngine {
    /// Opens the file at `path`, or makes it.
    ///
    /// # Errors
    /// [`EngineError::InUse`] where another process has it open.
    pub fn open(path: &Path) -> Result<Self, EngineError> {
        let is_new = !path.exists();
        let database = Database::create(path).map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => EngineError::InUse,
            error => failed(error),
        })?;
        let engine = Self { database };
        engine.prepare()?;
        if is_new && let Some(folder) = path.parent() {
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
        }
        Ok(engine)
    }

    /// Makes sure that all tables are there, and that the format is one that is known.
    fn prepare(&self) -> Result<(), EngineError> {
        let transaction = self.begin()?;
        {
            let mut meta = transaction.open_table(META).map_err(failed)?;
            let found = meta.get(META_FORMAT).map_err(failed)?.map(|value| value.value());
            match found {
                Some(found) if found > FORMAT => return Err(EngineError::Later { found, known: FORMAT }),
                Some(_) => {}
                None => {
                    meta.insert(META_FORMAT, FORMAT).map_err(failed)?;
                }
            }
            for kind in Kind::ALL {
                transaction.open_table(table_of(kind)).map_err(failed)?;
            }
        }
        transaction.commit().map_err(failed)
    }

    fn begin(&self) -> Result<redb::WriteTransaction, EngineError> {
        let mut transaction = self.database.begin_write().map_err(failed)?;
        transaction.set_durability(Durability::Immediate).map_err(failed)?;
        transaction.set_quick_repair(true);
        Ok(transaction)
    }
}

impl Engine for RedbEngine {
    fn load(&self, each: &mut dyn FnMut(Row)) -> Result<Loaded, EngineError> {
        let transaction = self.database.begin_read().map_err(failed)?;
        let mut loaded = Loaded::default();
        for kind in Kind::ALL {
            let table = transaction.open_table(table_of(kind)).map_err(failed)?;
            for entry in table.iter().map_err(failed)? {
                let (key, value) = entry.map_err(failed)?;
                match Row::decode(kind, key.value(), value.value()) {
                    Ok(row) => {
                        loaded.rows += 1;
                        each(row);
                    }
                    Err(_) => loaded.damaged += 1,
                }
            }
        }
        Ok(loaded)
    }

    fn commit(&mut self, changes: &[Change]) -> Result<(), EngineError> {
        let transaction = self.begin()?;
        for kind in Kind::ALL {
            let mut ours = changes.iter().filter(|change| change.kind() == kind).peekable();
            if ours.peek().is_none() {
                continue;
            }
            let mut table = transaction.open_table(table_of(kind)).map_err(failed)?;
            for change in ours {
                match change {
                    Change::Put(row) => {
                        let (key, value) = (row.key().encode(), row.encode_value());
                        table.insert(key.as_slice(), value.as_slice()).map_err(failed)?;
                    }
                    Change::Remove(key) => {
                        table.remove(key.encode().as_slice()).map_err(failed)?;
                    }
                }
            }
        }
        transaction.commit().map_err(failed)
    }
}

fn failed(error: impl Into<redb::Error>) -> EngineError {
    EngineError::Failed(Box::new(error.into()))
}
