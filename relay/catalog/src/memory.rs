//! The engine that keeps everything in memory: for tests, and the first to pass the contract.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

use crate::tables::{Engine, Result, Table, Tables, TablesMut, Visit};
use crate::view::View;

/// A catalog in memory: gone with the process.
pub type MemoryCatalog = View<Memory>;

impl MemoryCatalog {
    /// An empty one.
    pub fn new() -> Self {
        Self::over(Memory::default())
    }
}

impl Default for MemoryCatalog {
    fn default() -> Self {
        Self::new()
    }
}

/// Rows of all tables, in order.
pub(crate) type Map = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

/// Tables in one ordered map.
#[derive(Default)]
pub struct Memory {
    map: RwLock<Map>,
}

impl Tables for Map {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(Self::get(self, &(table, key.to_vec())).cloned())
    }

    fn scan(&self, table: Table, from: &[u8], visit: &mut Visit<'_>) -> Result<()> {
        for ((_, key), row) in self.range((table, from.to_vec())..).take_while(|((of, _), _)| *of == table) {
            if visit(key, row)?.is_break() {
                break;
            }
        }
        Ok(())
    }
}

impl TablesMut for Map {
    fn put(&mut self, table: Table, key: &[u8], row: &[u8]) -> Result<()> {
        self.insert((table, key.to_vec()), row.to_vec());
        Ok(())
    }

    fn remove(&mut self, table: Table, key: &[u8]) -> Result<()> {
        Self::remove(self, &(table, key.to_vec()));
        Ok(())
    }
}

impl Engine for Memory {
    fn read<R>(&self, work: impl FnOnce(&dyn Tables) -> Result<R>) -> Result<R> {
        work(&*self.map.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<R>(&self, _sync: bool, work: impl FnOnce(&mut dyn TablesMut) -> Result<R>) -> Result<R> {
        let mut map = self.map.write().unwrap_or_else(PoisonError::into_inner);
        let mut next = map.clone();
        let result = work(&mut next)?;
        *map = next;
        Ok(result)
    }

    fn clear(&self) -> Result<()> {
        self.map.write().unwrap_or_else(PoisonError::into_inner).clear();
        Ok(())
    }
}
