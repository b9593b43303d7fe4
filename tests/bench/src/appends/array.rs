//! The array as a relay uses it: blobs of 64 KiB, encrypted, over TLS, durable on two storage servers, each with a folder
//! of its own. Relay and servers run in one process here.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use lighter_storage::{Array, ArrayConfig, ArrayKey, Class, LocalServers, ServerConfig, ServerRecord};
use lighter_storage::{StorageServer, wall_clock};
use lighter_transport::Identity;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::{Load, data};

/// How the relay reaches the servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// As servers of its own process, which `lighter-relay serve` runs by default.
    Inside,
    /// Over TLS, as if they were elsewhere.
    Tls,
}

pub(super) async fn run(folder: &Path, load: Load, way: Way) -> Result<Duration> {
    let local = LocalServers::default();
    let relay = Identity::generate();
    let mut servers = Vec::new();
    for index in 0..2 {
        let config = ServerConfig {
            identity: Identity::generate(),
            listen: ([127, 0, 0, 1], 0).into(),
            units: vec![folder.join(format!("server-{index}")).join("unit")],
            writers: vec![relay.peer()],
            clock: wall_clock(),
            scrub_days: lighter_storage::limits::SCRUB_DAYS_DEFAULT,
            depot: None,
            local: if way == Way::Inside { local.clone() } else { LocalServers::default() },
        };
        servers.push(StorageServer::start(config).await?);
    }
    let records =
        servers.iter().map(|server| ServerRecord { peer: server.peer(), address: server.address() });
    let key = ArrayKey::draw(&mut StdRng::seed_from_u64(1));
    let config = ArrayConfig { local, ..ArrayConfig::new(records.collect()) };
    let array = Array::open(config, &relay, key, wall_clock()).await?;
    // The first append opens the segment.
    append(&array).await?;
    let time = load.run(array.clone(), |array| async move { append(&array).await }).await?;
    array.close().await;
    for server in servers {
        server.stop().await;
    }
    Ok(time)
}

async fn append(array: &Array) -> Result<()> {
    let mut blob = array.create_blob(Class::Days30);
    blob.write(&data()).await?;
    blob.finish().await?.durable().await?;
    Ok(())
}
