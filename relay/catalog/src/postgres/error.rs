//! What went wrong with the database, and whether it may go well the next time.

use tokio_postgres::error::SqlState;

use crate::tables::CatalogError;

/// Why the database did not do it.
#[derive(Debug, thiserror::Error)]
pub(super) enum DbError {
    /// The connection broke, or none was to be had: the server may be restarting, or another one taking over.
    #[error("the database cannot be reached now")]
    Lost(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The server asks for another try: two transactions were in each other's way, or it is short of something.
    #[error("the database did not come to it")]
    Again(#[source] tokio_postgres::Error),
    /// It will not do it the next time either: rights, a table that is not there, a setting.
    #[error("the database refused: {}", said(.0))]
    Refused(#[source] tokio_postgres::Error),
    /// The transaction was sent off to be committed, and no answer came.
    #[error("whether the database committed is not known")]
    InDoubt(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Another process with this relay's key took its place.
    #[error("another process with this relay's key uses the database")]
    Replaced,
    /// The relay's last transaction is another one than it knows: this one.
    #[error("the database is not where it was left")]
    Elsewhere(i64),
    /// What came out of the rows.
    #[error(transparent)]
    Rows(#[from] CatalogError),
}

impl DbError {
    /// Whether another try may bring it.
    pub(super) fn is_temporary(&self) -> bool {
        matches!(self, Self::Lost(_) | Self::Again(_) | Self::InDoubt(_) | Self::Elsewhere(_))
    }

    /// Something that took too long.
    pub(super) fn late(what: &'static str) -> Self {
        Self::Lost(what.into())
    }
}

impl From<tokio_postgres::Error> for DbError {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(state) = error.code() else {
            // Not the server's word: the connection's. A configuration that makes no sense is found when it is read.
            return Self::Lost(Box::new(error));
        };
        match state.code() {
            // Connection; shutdown, and a server that is starting.
            code if code.starts_with("08") => Self::Lost(Box::new(error)),
            "57P01" | "57P02" | "57P03" | "57P05" => Self::Lost(Box::new(error)),
            // A server that became a standby: the connection is to be made anew, to whoever is the primary then.
            "25006" => Self::Lost(Box::new(error)),
            // Conflicts, lock and statement timeouts, too little of something, its disk.
            code if code.starts_with("40") || code.starts_with("53") || code.starts_with("58") => {
                Self::Again(error)
            }
            "55P03" | "57014" => Self::Again(error),
            // Two relays put in the same row: the next try finds it.
            code if code == SqlState::UNIQUE_VIOLATION.code()
                || code == SqlState::FOREIGN_KEY_VIOLATION.code() =>
            {
                Self::Again(error)
            }
            _ => Self::Refused(error),
        }
    }
}

impl From<DbError> for CatalogError {
    fn from(error: DbError) -> Self {
        match error {
            DbError::Rows(error) => error,
            error if error.is_temporary() => Self::Unavailable(Box::new(error)),
            error => Self::Engine(Box::new(error)),
        }
    }
}

/// What the server said, in its words: for whoever runs it.
fn said(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(error) => format!("{} (SQLSTATE {})", error.message(), error.code().code()),
        None => error.to_string(),
    }
}
