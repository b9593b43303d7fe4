//! The embedded engine: redb, one file.
//!
//! # Format
//! One redb table of bytes for each of [`Table`]; the file's name carries the version of the rows. Another version is
//! another file: the old one is removed, and the view made again.
//!
//! # Sync
//! The log is the truth, so the view may be behind it: transactions between checkpoints are not synced, and a crash
//! loses them whole, back to the last checkpoint. That one is synced with its rows.
//!
//! # Recovery
//! A file that redb does not open, whose checksums do not hold, or in which a row turned out damaged, is set aside as
//! `NAME.damaged` (the one before it is dropped) and counted in the log; the next start replays the whole log.

use std::fs;
use std::path::{Path, PathBuf};

use redb::{
    Database, DatabaseError, Durability, ReadableTable, StorageError, TableDefinition, WriteTransaction,
};

use crate::limits::{CACHE_BYTES, VERIFY_ON_OPEN_BYTES_MAX};
use crate::tables::{CatalogError, Engine, Result, Table, Tables, TablesMut, Visit};
use crate::view::View;

/// A catalog in one redb file.
pub type EmbeddedCatalog = View<Embedded>;

/// Version of keys and rows, in the file's name.
const FILE_NAME: &str = "catalog-2.redb";
/// Names of files of earlier versions.
const FORMER_NAMES: [&str; 1] = ["catalog-1.redb"];

impl EmbeddedCatalog {
    /// Opens the view in `folder`, or begins an empty one where there is none, or a damaged one.
    ///
    /// # Errors
    /// [`CatalogError::InUse`], or the disk's.
    pub fn open(folder: &Path) -> Result<Self> {
        Embedded::open(folder).map(Self::over)
    }
}

/// Tables in a redb file.
pub struct Embedded {
    database: Database,
    path: PathBuf,
}

impl Embedded {
    fn open(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).map_err(engine)?;
        let path = folder.join(FILE_NAME);
        if marker(&path).exists() {
            set_aside(&path, "a row was damaged")?;
        }
        let database = match open_file(&path) {
            Ok(database) => database,
            Err(DatabaseError::DatabaseAlreadyOpen) => return Err(CatalogError::InUse),
            Err(DatabaseError::Storage(StorageError::Io(error))) if !is_damage(&error) => {
                return Err(engine(error));
            }
            Err(error) => {
                set_aside(&path, &error.to_string())?;
                open_file(&path).map_err(engine)?
            }
        };
        let embedded = Self { database, path };
        embedded.write(true, |_| Ok(()))?; // every table exists from here on
        for former in FORMER_NAMES {
            let _ = fs::remove_file(folder.join(former)); // it can be made again, and nobody reads it any more
        }
        Ok(embedded)
    }

    /// Leaves a mark for the next start where `result` says that the file is damaged.
    fn noting<R>(&self, result: Result<R>) -> Result<R> {
        if matches!(result, Err(CatalogError::Damaged(_))) {
            let _ = fs::write(marker(&self.path), b"");
        }
        result
    }
}

/// Opens a file, verified where that does not take long. redb may panic on a file whose inner structure is broken;
/// that, too, means that it is damaged.
fn open_file(path: &Path) -> std::result::Result<Database, DatabaseError> {
    let verify = fs::metadata(path).is_ok_and(|meta| meta.len() <= VERIFY_ON_OPEN_BYTES_MAX);
    let open =
        || Database::builder().set_cache_size(CACHE_BYTES).set_check_integrity_on_open(verify).create(path);
    std::panic::catch_unwind(open).unwrap_or_else(|_| {
        Err(DatabaseError::Storage(StorageError::Corrupted("structure of the file".to_owned())))
    })
}

/// A file cut short, or one that is no redb file, shows as an I/O error of these kinds.
fn is_damage(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof)
}

fn marker(path: &Path) -> PathBuf {
    path.with_extension("redb.is-damaged")
}

fn set_aside(path: &Path, why: &str) -> Result<()> {
    let aside = path.with_extension("redb.damaged");
    tracing::warn!(file = %path.display(), aside = %aside.display(), why, "view of the catalog set aside, made again");
    if path.exists() {
        fs::rename(path, &aside).map_err(engine)?;
    }
    match fs::remove_file(marker(path)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(engine(error)),
        _ => Ok(()),
    }
}

fn engine(error: impl std::error::Error + Send + Sync + 'static) -> CatalogError {
    CatalogError::Engine(Box::new(error))
}

fn storage(error: StorageError) -> CatalogError {
    match error {
        StorageError::Corrupted(_) => CatalogError::Damaged("file does not check out"),
        error => engine(error),
    }
}

type Definition = TableDefinition<'static, &'static [u8], &'static [u8]>;

fn definition(table: Table) -> Definition {
    TableDefinition::new(match table {
        Table::Meta => "meta",
        Table::Messages => "messages",
        Table::Progress => "progress",
        Table::HandOvers => "hand-overs",
        Table::Deliveries => "deliveries",
        Table::Waiting => "waiting",
        Table::Tickets => "tickets",
        Table::Deadlines => "deadlines",
        Table::Due => "due",
        Table::Purge => "purge",
        Table::References => "references",
        Table::Receipts => "receipts",
    })
}

impl Engine for Embedded {
    fn read<R>(&self, work: impl FnOnce(&dyn Tables) -> Result<R>) -> Result<R> {
        let transaction = redb::ReadableDatabase::begin_read(&self.database).map_err(engine)?;
        self.noting(work(&Reading(transaction)))
    }

    fn write<R>(&self, sync: bool, work: impl FnOnce(&mut dyn TablesMut) -> Result<R>) -> Result<R> {
        let mut transaction = self.database.begin_write().map_err(engine)?;
        transaction
            .set_durability(if sync { Durability::Immediate } else { Durability::None })
            .map_err(engine)?;
        transaction.set_quick_repair(sync);
        let mut writing = Writing::new(&transaction)?;
        let result = self.noting(work(&mut writing));
        drop(writing);
        match result {
            Ok(result) => transaction.commit().map_err(engine).map(|()| result),
            Err(error) => {
                transaction.abort().map_err(storage)?;
                Err(error)
            }
        }
    }

    fn clear(&self) -> Result<()> {
        let transaction = self.database.begin_write().map_err(engine)?;
        for table in Table::ALL {
            transaction.delete_table(definition(table)).map_err(engine)?;
            transaction.open_table(definition(table)).map_err(engine)?;
        }
        transaction.commit().map_err(engine)
    }
}

/// One moment of the file.
struct Reading(redb::ReadTransaction);

impl Tables for Reading {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let table = self.0.open_table(definition(table)).map_err(engine)?;
        get(&table, key)
    }

    fn scan(&self, table: Table, from: &[u8], visit: &mut Visit<'_>) -> Result<()> {
        let table = self.0.open_table(definition(table)).map_err(engine)?;
        scan(&table, from, visit)
    }
}

/// One writing transaction, with its tables open.
struct Writing<'t> {
    tables: Vec<redb::Table<'t, &'static [u8], &'static [u8]>>,
}

impl<'t> Writing<'t> {
    fn new(transaction: &'t WriteTransaction) -> Result<Self> {
        let tables =
            Table::ALL.iter().map(|table| transaction.open_table(definition(*table)).map_err(engine));
        Ok(Self { tables: tables.collect::<Result<_>>()? })
    }
}

impl Tables for Writing<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        get(&self.tables[table as usize], key)
    }

    fn scan(&self, table: Table, from: &[u8], visit: &mut Visit<'_>) -> Result<()> {
        scan(&self.tables[table as usize], from, visit)
    }
}

impl TablesMut for Writing<'_> {
    fn put(&mut self, table: Table, key: &[u8], row: &[u8]) -> Result<()> {
        self.tables[table as usize].insert(key, row).map(drop).map_err(storage)
    }

    fn remove(&mut self, table: Table, key: &[u8]) -> Result<()> {
        self.tables[table as usize].remove(key).map(drop).map_err(storage)
    }
}

fn get(table: &impl ReadableTable<&'static [u8], &'static [u8]>, key: &[u8]) -> Result<Option<Vec<u8>>> {
    Ok(table.get(key).map_err(storage)?.map(|row| row.value().to_vec()))
}

fn scan(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    from: &[u8],
    visit: &mut Visit<'_>,
) -> Result<()> {
    for entry in table.range(from..).map_err(storage)? {
        let (key, row) = entry.map_err(storage)?;
        if visit(key.value(), row.value())?.is_break() {
            break;
        }
    }
    Ok(())
}
