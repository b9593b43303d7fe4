//! What a server is asked of tables: each of its units keeps the latest one of each writer. They also say which other
//! relays may read what a writer stores ([`Readers`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use lighter_protocol::PeerId;

use super::connection::{Answer, Session};
use crate::disk::Disk;
use crate::ids::Epoch;
use crate::table::Table;
use crate::wire::{Refusal, Response};

/// For each writer whose table was looked at: who may read what it stores. As many as there are writers, at most.
#[derive(Default)]
pub(super) struct Readers(Mutex<BTreeMap<PeerId, Arc<BTreeSet<PeerId>>>>);

impl Readers {
    fn known(&self, writer: &PeerId) -> Option<Arc<BTreeSet<PeerId>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(writer).cloned()
    }

    /// What the units say; a table that was put meanwhile is later.
    fn found(&self, writer: PeerId, readers: BTreeSet<PeerId>) -> Arc<BTreeSet<PeerId>> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(known.entry(writer).or_insert_with(|| Arc::new(readers)))
    }

    fn put(&self, writer: PeerId, readers: BTreeSet<PeerId>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(writer, Arc::new(readers));
    }
}

impl<D: Disk> Session<D> {
    /// Whether the asker may read what `writer` stores: it is its own, or `writer` says so in its table.
    // SPEC: D10
    pub(super) async fn may_read(&self, writer: &PeerId) -> bool {
        if *writer == self.peer {
            return true;
        }
        if !self.is_writer || !self.shared.writers.contains(writer) {
            return false;
        }
        let readers = match self.shared.readers.known(writer) {
            Some(readers) => readers,
            None => match self.latest_table(*writer).await {
                Ok(table) => {
                    let readers = table.map(|table| table.readers).unwrap_or_default();
                    self.shared.readers.found(*writer, readers)
                }
                Err(_) => return false,
            },
        };
        readers.contains(&self.peer)
    }

    /// The latest table that any unit has of the asker's; no data where there is none.
    pub(super) async fn table(&self) -> Answer {
        let latest = self.latest_table(self.peer).await?;
        let data = latest.map_or_else(Bytes::new, |table| table.encode().into());
        Ok((Response::Done, vec![data]))
    }

    async fn latest_table(&self, writer: PeerId) -> Result<Option<Table>, Refusal> {
        let mut latest = None::<Table>;
        for unit in self.shared.units.values() {
            let found = unit.call(move |unit| unit.table(&writer)).await?;
            match found {
                Ok(Some(table)) if latest.as_ref().is_none_or(|latest| latest.stamp() < table.stamp()) => {
                    latest = Some(table);
                }
                Ok(_) => {}
                Err(error) => tracing::error!(%error, "a unit does not tell its table"),
            }
        }
        Ok(latest)
    }

    /// Keeps the asker's table on every unit.
    pub(super) async fn put_table(&self, epoch: Epoch, data: &Bytes) -> Answer {
        let peer = self.peer;
        let table = Table::decode(data).map_err(|_| Refusal::Unsound)?;
        for unit in self.shared.units.values() {
            let table = table.clone();
            unit.call(move |unit| unit.put_table(&peer, epoch, &table)).await??;
        }
        self.shared.readers.put(peer, table.readers);
        Ok((Response::Done, Vec::new()))
    }
}
