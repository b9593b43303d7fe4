//! What a server is asked of tables: each of its units keeps the latest one of each writer.

use bytes::Bytes;

use super::connection::{Answer, Session};
use crate::disk::Disk;
use crate::ids::Epoch;
use crate::table::Table;
use crate::wire::{Refusal, Response};

impl<D: Disk> Session<D> {
    /// The latest table that any unit has of the asker's; no data where there is none.
    pub(super) async fn table(&self) -> Answer {
        let (peer, mut latest) = (self.peer, None::<Table>);
        for unit in self.shared.units.values() {
            let found = unit.call(move |unit| unit.table(&peer)).await?;
            match found {
                Ok(Some(table)) if latest.as_ref().is_none_or(|latest| latest.stamp() < table.stamp()) => {
                    latest = Some(table);
                }
                Ok(_) => {}
                Err(error) => tracing::error!(%error, "a unit does not tell its table"),
            }
        }
        let data = latest.map_or_else(Bytes::new, |table| table.encode().into());
        Ok((Response::Done, vec![data]))
    }

    /// Keeps the asker's table on every unit.
    pub(super) async fn put_table(&self, epoch: Epoch, data: &Bytes) -> Answer {
        let peer = self.peer;
        let table = Table::decode(data).map_err(|_| Refusal::Unsound)?;
        for unit in self.shared.units.values() {
            let table = table.clone();
            unit.call(move |unit| unit.put_table(&peer, epoch, &table)).await??;
        }
        Ok((Response::Done, Vec::new()))
    }
}
