//! What an engine of the view must be able to do: ordered tables of bytes, read and written in transactions.
//!
//! Everything that means something (rows, indexes, transitions, queries) is built on this seam once, so that engines
//! differ in where bytes lie and in nothing else.
//!
//! # Format
//! Keys are ids and big-endian numbers, so that their order is the order that queries want; rows are postcard.
//!
//! | table | key | row |
//! |---|---|---|
//! | Meta | name | checkpoint, counts |
//! | Messages | message | [`Message`](crate::Message) |
//! | Progress | message | how much of it is open |
//! | HandOvers | message, recipient u32, lapsed u8 | state of a hand-over |
//! | Deliveries | delivery | state of a delivery |
//! | Waiting | mailbox, 0, accepted u64, delivery | nothing: an index |
//! | Tickets | ticket's hash | delivery |
//! | Deadlines | time u64, delivery | nothing: an index |
//! | Due | time u64, message, recipient u32, lapsed u8 | nothing: an index |
//! | Purge | day u32, message | nothing: an index |
//! | References | blob, deletion day u32, segment, offset u64 of its first record, message | how often it is named u32 |
//! | Receipts | delivery | the store's word, of a drop |

use std::ops::ControlFlow;

/// The tables of the view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Table {
    Meta,
    Messages,
    Progress,
    HandOvers,
    Deliveries,
    Waiting,
    Tickets,
    Deadlines,
    Due,
    Purge,
    References,
    Receipts,
}

impl Table {
    /// All of them.
    pub(crate) const ALL: [Self; 12] = [
        Self::Meta,
        Self::Messages,
        Self::Progress,
        Self::HandOvers,
        Self::Deliveries,
        Self::Waiting,
        Self::Tickets,
        Self::Deadlines,
        Self::Due,
        Self::Purge,
        Self::References,
        Self::Receipts,
    ];
}

/// Why the view cannot answer.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The view's file is damaged. It is set aside at the next start, and the view made again from the log.
    #[error("the catalog's view is damaged: {0}")]
    Damaged(&'static str),
    /// Another process has the view open.
    #[error("the catalog's view is in use by another process")]
    InUse,
    /// With a database there is no view that the log could be held against: the database is the truth.
    #[error("the catalog is the database itself: the log holds bytes only, and tells nothing of it")]
    NoView,
    /// The database cannot be asked just now.
    #[error("the catalog's database cannot be asked now")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The disk, or the engine, failed.
    #[error("the catalog's view cannot be read or written")]
    Engine(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Short for results of the view.
pub(crate) type Result<T> = std::result::Result<T, CatalogError>;

/// What `scan` calls for each row: key, row, and whether to go on.
pub(crate) type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>> + 'a;

/// One moment of the tables.
pub(crate) trait Tables {
    /// The row at `key`.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>>;
    /// Visits rows in key order, from `from` on (included), until `visit` breaks.
    fn scan(&self, table: Table, from: &[u8], visit: &mut Visit<'_>) -> Result<()>;
}

/// The tables within one writing transaction.
pub(crate) trait TablesMut: Tables {
    /// Puts `row` at `key`, in place of any before.
    fn put(&mut self, table: Table, key: &[u8], row: &[u8]) -> Result<()>;
    /// Removes the row at `key`, if there is one.
    fn remove(&mut self, table: Table, key: &[u8]) -> Result<()>;
}

/// Where tables are kept.
pub(crate) trait Engine: Send + Sync + 'static {
    /// Runs `work` on one moment of the tables.
    fn read<R>(&self, work: impl FnOnce(&dyn Tables) -> Result<R>) -> Result<R>;
    /// Runs `work` as one transaction: all of it is seen afterwards, or, where it fails, nothing. With `sync`, this
    /// and everything before it is on stable storage on return; without, it may be lost until then, never torn.
    fn write<R>(&self, sync: bool, work: impl FnOnce(&mut dyn TablesMut) -> Result<R>) -> Result<R>;
    /// Forgets every row of every table.
    fn clear(&self) -> Result<()>;
}
