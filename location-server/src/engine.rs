//! Where rows are kept: a small seam, so that another database can stand behind it (DESIGN §7).
//!
//! The server reads everything once, when it starts, and afterwards only writes: questions are answered from memory.

mod memory;
mod redb;

use crate::rows::{Change, Row};

pub use memory::MemoryEngine;
pub use redb::RedbEngine;

/// Keeps rows.
pub trait Engine: Send {
    /// Gives every row to `each`, in the order of [`crate::rows::Kind`]. Rows that do not read as one stay where they
    /// are and are counted.
    ///
    /// # Errors
    /// [`EngineError`].
    fn load(&self, each: &mut dyn FnMut(Row)) -> Result<Loaded, EngineError>;

    /// Makes all of `changes` durable, in their order, or none. After an error nothing more is committed.
    ///
    /// # Errors
    /// [`EngineError`].
    fn commit(&mut self, changes: &[Change]) -> Result<(), EngineError>;
}

/// What [`Engine::load`] found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Good rows.
    pub rows: u64,
    /// Rows that do not read as one.
    pub damaged: u64,
}

/// Why an engine cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Another process has the database open.
    #[error("the database is open in another process")]
    InUse,
    /// The database is of a later version.
    #[error("the database has format {found}, this program knows formats up to {known}")]
    Later {
        /// Its format.
        found: u64,
        /// The latest that this program knows.
        known: u64,
    },
    /// The database, or the disk below it, failed.
    #[error("the database failed")]
    Failed(#[source] Box<::redb::Error>),
}

#[cfg(test)]
mod tests;
