//! What a relay holds, and for whom.
//!
//! The truth is the array's log: every [`Change`] is a record in it, filed no earlier than what it speaks of. What is
//! asked is a view of it, a [`Catalog`], which an engine keeps: [`EmbeddedCatalog`] in a redb file, [`MemoryCatalog`]
//! for tests. The [`Ledger`] joins the two: it appends a change, answers once that is durable, applies it to the view
//! in the background, and at the start replays what the view lacks; all of it where the view is lost, damaged, of
//! another log, or ahead of a log that was damaged itself.
//!
//! What a crash can lose of the view is what was not checkpointed, and that is replayed. What it can lose of the log
//! is nothing that was answered.

mod apply;
mod array;
mod catalog;
mod change;
mod checkpoint;
mod compare;
#[cfg(test)]
mod contract;
mod embedded;
mod leases;
mod ledger;
pub mod limits;
mod memory;
pub mod message;
mod one_copy;
mod postgres;
mod references;
mod rows;
mod tables;
mod view;

pub use catalog::{Catalog, DueHandOver, KeptCopy, Purged};
pub use change::{Change, ChangeError};
pub use checkpoint::{Checkpoint, Mark};
pub use compare::{Difference, Disagreement, Subject};
pub use embedded::{Embedded, EmbeddedCatalog};
pub use leases::{Claim, ClaimedDeliveries, ClaimedHandOvers, Fence};
pub use ledger::{Audit, AuditError, CommitError, Ledger, Log, LogError, Observer, OpenError, rebuild};
pub use memory::{Memory, MemoryCatalog};
pub use message::{Body, Cause, Envelope, Form, HandOver, Message, Notify, Part, Recipient, Ret, Summary};
pub use postgres::{
    CommitFailure, DatabaseConfigError, DatabaseCounters, DatabaseState, DatabaseTls, Imported, KnownRelay,
    News, Outcome, PostgresCatalog, PostgresConfig, PostgresOpenError, Proposal,
};
pub use references::CopyKey;
pub use rows::{Counts, Deadline, Delivery, DeliveryState, HandOverState, Position};
pub use tables::CatalogError;
pub use view::View;
