//! The table that a writer keeps in its data folder: a file, replaced whole.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use super::Table;
use crate::limits::TABLE_LEN_MAX;

impl Table {
    /// Reads the one that a writer keeps at `path`; `None` where there is none.
    ///
    /// # Errors
    /// The disk's; [`io::ErrorKind::InvalidData`] where it is damaged.
    pub fn load(path: &Path) -> io::Result<Option<Self>> {
        match std::fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
            Ok(metadata) if metadata.len() > TABLE_LEN_MAX as u64 => {
                return Err(io::ErrorKind::InvalidData.into());
            }
            Ok(_) => {}
        }
        let table = Self::decode(&std::fs::read(path)?);
        table.map(Some).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// Writes it durably, in one step: after a crash there is the old file or the new one.
    ///
    /// # Errors
    /// The disk's.
    pub fn store(&self, path: &Path) -> io::Result<()> {
        let next = path.with_extension("next");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(&next)?;
        file.write_all(&self.encode())?;
        file.sync_data()?;
        std::fs::rename(&next, path)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::SocketAddr;

    use lighter_protocol::PeerId;

    use super::*;
    use crate::table::ServerEntry;

    #[test]
    fn a_table_is_kept_and_a_damaged_file_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("array.table");
        assert!(Table::load(&path).unwrap().is_none());
        let server =
            |number: u8| ServerEntry::new(PeerId::random(), SocketAddr::from(([10, 0, 0, number], 1)));
        let mut table = Table::first(vec![server(1), server(2)], 2, BTreeSet::new());
        table.store(&path).unwrap();
        table.version += 1;
        table.store(&path).unwrap();
        assert_eq!(Table::load(&path).unwrap(), Some(table));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[9] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(Table::load(&path).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
