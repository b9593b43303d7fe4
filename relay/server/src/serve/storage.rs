//! The storage role: this machine's storage servers.

use std::collections::BTreeSet;

use lighter_storage::limits::SCRUB_DAYS_DEFAULT;
use lighter_storage::{LocalServers, ServerConfig, StorageServer, wall_clock};
use lighter_transport::Identity;

use super::{Addresses, StorageAddress};
use crate::commands::CommandError;
use crate::config::{Config, StorageServerConfig};
use crate::layout;

/// Starts every storage server of this process, and writes where it listens into `addresses`.
pub(super) async fn start(
    config: &Config,
    relay: &Identity,
    addresses: &mut Addresses,
) -> Result<Vec<StorageServer>, CommandError> {
    let writers =
        if config.storage.writers.is_empty() { vec![relay.peer()] } else { config.storage.writers.clone() };
    warn_of_shared_buckets(config);
    let mut servers = Vec::new();
    for server in layout::storage_servers(config) {
        let what = format!("storage server in {}", server.path.display());
        let store = server.object_store.as_ref().or(config.storage.object_store.as_ref());
        let depot = store.map(|store| store.depot()).transpose();
        let server_config = ServerConfig {
            depot: depot.map_err(|error| CommandError::failed(what.clone(), error))?,
            scrub_days: config.storage.scrub_days.unwrap_or(SCRUB_DAYS_DEFAULT),
            local: addresses.local.clone(),
            ..server_config(&server, writers.clone())?
        };
        let server =
            StorageServer::start(server_config).await.map_err(|error| CommandError::failed(what, error))?;
        addresses.storage.push(StorageAddress { peer: server.peer(), address: server.address() });
        servers.push(server);
    }
    Ok(servers)
}

/// Copies that lie in one bucket are lost together with it.
fn warn_of_shared_buckets(config: &Config) {
    let mut places = BTreeSet::new();
    for server in layout::storage_servers(config) {
        let Some(store) = server.object_store.as_ref().or(config.storage.object_store.as_ref()) else {
            continue;
        };
        let place = store.place();
        if !places.insert(place.clone()) {
            tracing::warn!(
                place,
                "two servers move their segments to one bucket: whoever loses it loses both copies; give each its own"
            );
        }
    }
}

fn server_config(
    server: &StorageServerConfig,
    writers: Vec<lighter_protocol::PeerId>,
) -> Result<ServerConfig, CommandError> {
    std::fs::create_dir_all(&server.path)
        .map_err(|error| CommandError::failed(format!("making {}", server.path.display()), error))?;
    let identity = Identity::load_or_create(&layout::storage_key(server))
        .map_err(|error| CommandError::failed("a storage server's key", error))?;
    Ok(ServerConfig {
        identity,
        listen: server.listen,
        units: layout::units(server),
        writers,
        clock: wall_clock(),
        scrub_days: SCRUB_DAYS_DEFAULT,
        depot: None,
        local: LocalServers::default(),
    })
}
