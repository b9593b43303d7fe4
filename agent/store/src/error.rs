//! What can go wrong in the store, told apart by what a caller does about it.

use std::io;

use lighter_protocol::{BlobId, DeliveryId};

use crate::disk::TakeError;

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it: speak to the agent that runs.
    #[error("another process uses this store")]
    InUse,
    /// Its folder or files cannot be used.
    #[error("the store's folder cannot be used: {0}")]
    Io(#[from] io::Error),
    /// Its index cannot be read.
    #[error("the store's index cannot be opened: {0}")]
    Index(#[from] IndexError),
    /// What a crash left could not be mended.
    #[error("the store cannot be brought up: {0}")]
    Recovery(#[from] StoreError),
    /// It was written by a newer version.
    #[error("the store's format is {found}, this program knows {known}")]
    Format {
        /// What the store says.
        found: u64,
        /// The newest that this program knows.
        known: u64,
    },
}

impl From<TakeError> for OpenError {
    fn from(error: TakeError) -> Self {
        match error {
            TakeError::InUse => Self::InUse,
            TakeError::Io { path, source } => {
                Self::Io(io::Error::new(source.kind(), format!("{}: {source}", path.display())))
            }
        }
    }
}

/// Why something could not be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk, or the user's share of it, is full (ENOSPC, EDQUOT): later there may be room.
    #[error("the disk is full")]
    Full,
    /// A sync failed: what was written to that blob is given up and must be pulled anew (rule 1: never retried).
    #[error("blob {blob}: a sync failed, what was written is given up: {source}")]
    SyncFailed {
        /// Whose data is lost.
        blob: BlobId,
        /// What the system said.
        source: io::Error,
    },
    /// The disk failed otherwise.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The index failed.
    #[error("the store's index: {0}")]
    Index(#[from] IndexError),
    /// What is on disk is not what its hash says; it was set aside, and is no longer held.
    #[error("blob {0} is damaged on disk and was set aside")]
    Damaged(BlobId),
    /// Parts of the blob are missing.
    #[error("blob {0} is not complete")]
    Incomplete(BlobId),
    /// Data that does not fit the blob: an offset or length that no group of it has.
    #[error("blob {0}: data outside its groups")]
    OutOfPlace(BlobId),
    /// The store does not hold it.
    #[error("blob {0} is not held here")]
    NoBlob(BlobId),
    /// The store does not know it.
    #[error("delivery {0} is not known here")]
    NoDelivery(DeliveryId),
    /// Larger than what is taken.
    #[error("{size} bytes are more than is taken")]
    TooLarge {
        /// What was asked for.
        size: u64,
    },
    /// As many deliveries as the index takes are on record.
    #[error("too many deliveries on record")]
    TooMany,
}

impl StoreError {
    /// Sorts an error of the system: a full disk is told from a broken one.
    pub(crate) fn io(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| if is_full(&source) { Self::Full } else { Self::Io { doing, source } }
    }

    /// Whether trying again later may help without anybody mending anything.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Full => true,
            Self::Index(IndexError::Storage(error)) => {
                matches!(&**error, redb::StorageError::Io(source) if is_full(source))
            }
            _ => false,
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Why the index failed.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The database could not be opened.
    #[error("{0}")]
    Open(#[from] Box<redb::DatabaseError>),
    /// Reading or writing it failed; nothing of the change was kept.
    #[error("{0}")]
    Storage(#[from] Box<redb::StorageError>),
    /// A transaction could not be begun or ended for another reason than the disk.
    #[error("{0}")]
    Transaction(Box<redb::Error>),
    /// A table has another type than it should.
    #[error("{0}")]
    Table(Box<redb::TableError>),
    /// A row cannot be read by this version.
    #[error("a row of table {table} cannot be read")]
    Row {
        /// Whose row.
        table: &'static str,
    },
}

impl From<redb::StorageError> for IndexError {
    fn from(error: redb::StorageError) -> Self {
        Self::Storage(Box::new(error))
    }
}

impl From<redb::DatabaseError> for IndexError {
    fn from(error: redb::DatabaseError) -> Self {
        Self::Open(Box::new(error))
    }
}

impl From<redb::TransactionError> for IndexError {
    fn from(error: redb::TransactionError) -> Self {
        match error {
            redb::TransactionError::Storage(error) => error.into(),
            other => Self::Transaction(Box::new(other.into())),
        }
    }
}

impl From<redb::CommitError> for IndexError {
    fn from(error: redb::CommitError) -> Self {
        match error {
            redb::CommitError::Storage(error) => error.into(),
            other => Self::Transaction(Box::new(other.into())),
        }
    }
}

impl From<redb::TableError> for IndexError {
    fn from(error: redb::TableError) -> Self {
        match error {
            redb::TableError::Storage(error) => error.into(),
            other => Self::Table(Box::new(other)),
        }
    }
}
