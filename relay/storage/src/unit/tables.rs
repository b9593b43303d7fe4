//! The tables that a unit keeps for its writers: of each the latest (`crate::table`), in a file of its own.
//!
//! It is replaced in one step, durable when [`Unit::put_table`] returns well, and read when it is asked for. A damaged
//! one is none: other units and servers have the same. It is bound to the writer's present epoch as all changes are, so
//! that an older writer cannot put an older table in its place.

use std::io;

use lighter_protocol::PeerId;

use super::{Unit, UnitError};
use crate::disk::{Disk, DiskFile, replace};
use crate::ids::Epoch;
use crate::limits::TABLE_LEN_MAX;
use crate::table::Table;

impl<D: Disk> Unit<D> {
    /// The latest table that `writer` put here.
    ///
    /// # Errors
    /// The disk's.
    pub fn table(&self, writer: &PeerId) -> io::Result<Option<Table>> {
        let name = file_name(writer);
        let file = match self.disk.open(&name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let len = usize::try_from(file.len()?).unwrap_or(usize::MAX);
        if len > TABLE_LEN_MAX {
            tracing::error!(file = name, "the table is damaged: too long");
            return Ok(None);
        }
        let mut bytes = vec![0; len];
        file.read_at(0, &mut bytes)?;
        let table = Table::decode(&bytes);
        Ok(table.inspect_err(|error| tracing::error!(file = name, %error, "the table is damaged")).ok())
    }

    /// Keeps `table` for `writer` in place of an earlier one. Putting the same one again changes nothing.
    ///
    /// # Errors
    /// [`UnitError::Fenced`] under another epoch than the present one, or with a table of another;
    /// [`UnitError::State`] where a later table is here; the disk's.
    pub fn put_table(&mut self, writer: &PeerId, epoch: Epoch, table: &Table) -> Result<(), UnitError> {
        self.check_epoch(writer, epoch)?;
        if table.epoch != epoch {
            return Err(UnitError::Fenced { present: epoch });
        }
        if let Some(here) = self.table(writer)? {
            if here.stamp() > table.stamp() {
                return Err(UnitError::State("a later table is here"));
            }
            if here == *table {
                return Ok(());
            }
        }
        Ok(replace(&self.disk, &file_name(writer), &table.encode())?)
    }
}

/// One file for each writer: the name of a key can be long and in other letters than a file's.
fn file_name(writer: &PeerId) -> String {
    let hash = blake3::hash(&writer.to_bytes());
    format!("table-{}", &hash.to_hex()[..32])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::SocketAddr;

    use lighter_protocol::UnixTime;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;
    use crate::disk::sim::SimDisk;
    use crate::table::ServerEntry;

    const NOW: UnixTime = UnixTime(1_795_260_000);

    fn table(epoch: u64, version: u64) -> Table {
        let server =
            |number: u8| ServerEntry::new(PeerId::random(), SocketAddr::from(([10, 0, 0, number], 1)));
        let first = Table::first(vec![server(1), server(2)], 2, BTreeSet::new());
        Table { epoch: Epoch(epoch), version, ..first }
    }

    fn open(disk: &SimDisk, server: PeerId) -> Unit<SimDisk> {
        Unit::open(disk.clone(), server, NOW, &mut StdRng::seed_from_u64(1)).unwrap().0
    }

    #[test]
    fn the_latest_table_of_each_writer_is_there_after_a_power_loss() {
        let (disk, server, writer, other) =
            (SimDisk::new(1), PeerId::random(), PeerId::random(), PeerId::random());
        let mut unit = open(&disk, server);
        assert_eq!(unit.table(&writer).unwrap(), None);
        unit.fence(writer, Epoch(3)).unwrap();
        unit.fence(other, Epoch(1)).unwrap();
        let (first, second, theirs) = (table(3, 1), table(3, 2), table(1, 9));
        unit.put_table(&writer, Epoch(3), &first).unwrap();
        unit.put_table(&writer, Epoch(3), &second).unwrap();
        unit.put_table(&writer, Epoch(3), &second).unwrap();
        unit.put_table(&other, Epoch(1), &theirs).unwrap();
        drop(unit);
        let unit = open(&disk.crash(), server);
        assert_eq!(unit.table(&writer).unwrap(), Some(second));
        assert_eq!(unit.table(&other).unwrap(), Some(theirs));
    }

    #[test]
    fn an_earlier_table_and_an_earlier_writer_are_refused() {
        let (disk, writer) = (SimDisk::new(1), PeerId::random());
        let mut unit = open(&disk, PeerId::random());
        unit.fence(writer, Epoch(3)).unwrap();
        unit.put_table(&writer, Epoch(3), &table(3, 2)).unwrap();
        assert!(matches!(unit.put_table(&writer, Epoch(3), &table(3, 1)), Err(UnitError::State(_))));
        assert!(matches!(unit.put_table(&writer, Epoch(3), &table(2, 9)), Err(UnitError::Fenced { .. })));
        unit.fence(writer, Epoch(4)).unwrap();
        let refused = unit.put_table(&writer, Epoch(3), &table(3, 3));
        assert!(matches!(refused, Err(UnitError::Fenced { present: Epoch(4) })));
        // What an earlier writer had begun to change does not count against its successor.
        unit.put_table(&writer, Epoch(4), &table(4, 1)).unwrap();
        assert_eq!(unit.table(&writer).unwrap().unwrap().stamp(), table(4, 1).stamp());
    }

    #[test]
    fn a_damaged_table_is_none_and_can_be_replaced() {
        let (disk, writer) = (SimDisk::new(1), PeerId::random());
        let mut unit = open(&disk, PeerId::random());
        unit.fence(writer, Epoch(1)).unwrap();
        unit.put_table(&writer, Epoch(1), &table(1, 1)).unwrap();
        disk.flip(&file_name(&writer), 20);
        assert_eq!(unit.table(&writer).unwrap(), None);
        unit.put_table(&writer, Epoch(1), &table(1, 1)).unwrap();
        assert!(unit.table(&writer).unwrap().is_some());
    }
}
