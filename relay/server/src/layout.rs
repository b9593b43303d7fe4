//! Where things lie in the relay's data folder.

use std::path::{Path, PathBuf};

use crate::config::{Config, StorageServerConfig};

/// The relay's own key: who it is to agents and storage servers.
pub fn identity(data: &Path) -> PathBuf {
    data.join("relay.key")
}

/// The array key: the only thing to back up.
pub fn array_key(data: &Path) -> PathBuf {
    data.join("array.key")
}

/// The table of the array's servers, as this relay last had it in force. The servers have the same.
pub fn array_table(data: &Path) -> PathBuf {
    data.join("array.table")
}

/// The catalog's view: may be thrown away while the relay is stopped.
pub fn catalog(data: &Path) -> PathBuf {
    data.join("catalog")
}

/// The view that takes its place when it was made anew.
pub fn catalog_next(data: &Path) -> PathBuf {
    data.join("catalog.next")
}

/// The view that it is held against while that is done.
pub fn catalog_check(data: &Path) -> PathBuf {
    data.join("catalog.check")
}

/// Says by being there that the catalog is in a database: the log knows nothing of what came since.
pub fn catalog_elsewhere(data: &Path) -> PathBuf {
    data.join("catalog.in-database")
}

/// What the location server inside this process keeps.
pub fn location(data: &Path) -> PathBuf {
    data.join("location")
}

/// The token by which the relay asks the location server inside this process.
pub fn location_token(data: &Path) -> PathBuf {
    data.join("location.token")
}

/// A storage server's key.
pub fn storage_key(server: &StorageServerConfig) -> PathBuf {
    server.path.join("server.key")
}

/// A storage server's units: those that are named, or one below its path.
pub fn units(server: &StorageServerConfig) -> Vec<PathBuf> {
    if server.units.is_empty() { vec![server.path.join("unit-0")] } else { server.units.clone() }
}

/// The storage servers of this process: those that are named, or two below the data folder.
pub fn storage_servers(config: &Config) -> Vec<StorageServerConfig> {
    if !config.storage.servers.is_empty() {
        return config.storage.servers.clone();
    }
    let server = |number: usize| StorageServerConfig {
        path: config.data.join(format!("storage-{number}")),
        listen: ([127, 0, 0, 1], 0).into(),
        units: Vec::new(),
        host: None,
        disk: None,
        zone: None,
        group: None,
        object_store: None,
    };
    (1..=config.array.copies).map(server).collect()
}

/// Says by being there that the array key was exported once.
pub fn array_key_exported(data: &Path) -> PathBuf {
    data.join("array.key.exported")
}
