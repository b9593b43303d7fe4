//! Rows in memory: for tests, and to show what an engine must do.

use std::collections::BTreeMap;

use super::{Engine, EngineError, Loaded};
use crate::rows::{Change, Kind, Row};

/// Keeps rows for as long as it lives.
#[derive(Debug, Default)]
pub struct MemoryEngine {
    rows: BTreeMap<(Kind, Vec<u8>), Row>,
}

impl Engine for MemoryEngine {
    fn load(&self, each: &mut dyn FnMut(Row)) -> Result<Loaded, EngineError> {
        self.rows.values().cloned().for_each(each);
        Ok(Loaded { rows: self.rows.len() as u64, damaged: 0 })
    }

    fn commit(&mut self, changes: &[Change]) -> Result<(), EngineError> {
        for change in changes {
            match change {
                Change::Put(row) => {
                    let key = row.key();
                    self.rows.insert((key.kind(), key.encode()), row.clone());
                }
                Change::Remove(key) => {
                    self.rows.remove(&(key.kind(), key.encode()));
                }
            }
        }
        Ok(())
    }
}
