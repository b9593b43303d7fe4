//! `lighter-relay serve`: puts the roles together, runs them until SIGTERM, and stops them in the order in which mail
//! flows, so that nothing is taken in that could not be stored.

mod answers;
pub(crate) mod catalog;
mod key_change;
mod location;
pub(crate) mod lock;
mod mail;
pub(crate) mod offline;
mod storage;

use std::net::SocketAddr;

use lighter_protocol::PeerId;
use lighter_shell::stop;
use lighter_storage::LocalServers;
use lighter_transport::Identity;
use serde::Serialize;

use crate::commands::CommandError;
use crate::config::{Config, Role};
use crate::layout;

/// Where everything listens: what `addresses.json` says.
#[derive(Debug, Default, Serialize)]
struct Addresses {
    /// Who this relay is.
    peer: Option<PeerId>,
    smtp: Vec<SocketAddr>,
    lmtp: Vec<SocketAddr>,
    /// QUIC for agents.
    quic: Option<SocketAddr>,
    /// The same over TLS on TCP.
    tcp: Option<SocketAddr>,
    /// Pages and downloads.
    web: Option<SocketAddr>,
    /// The location server inside this process.
    location: Option<SocketAddr>,
    /// The storage servers inside this process.
    storage: Vec<StorageAddress>,
    /// Where these find each other, and the relay them, without a socket.
    #[serde(skip)]
    local: LocalServers,
}

/// A storage server as another relay's `array.servers` names it.
#[derive(Clone, Debug, Serialize)]
struct StorageAddress {
    peer: PeerId,
    address: SocketAddr,
}

/// Runs what the configuration says until told to stop.
pub(crate) async fn run(config: Config) -> Result<(), CommandError> {
    make_folder(&config)?;
    let _lock = lock::take(&config.data)?;
    let identity = Identity::load_or_create(&layout::identity(&config.data))
        .map_err(|error| CommandError::failed("the relay's key", error))?;
    let mut addresses = Addresses { peer: Some(identity.peer()), ..Addresses::default() };
    let has = |role| config.roles.contains(&role);

    let location = if has(Role::Location) { Some(location::start(&config).await?) } else { None };
    addresses.location = location.as_ref().map(|server| server.address());
    let storage = if has(Role::Storage) {
        storage::start(&config, &identity, &mut addresses).await?
    } else {
        Vec::new()
    };
    let mail = if config.roles.iter().any(|role| role.is_mail()) {
        Some(mail::Mail::start(&config, &identity, location.as_ref(), &mut addresses).await?)
    } else {
        None
    };

    let stop = stop::requested().map_err(|error| CommandError::failed("listening for signals", error))?;
    lighter_shell::ready(&config.data, &addresses)
        .map_err(|error| CommandError::failed("writing down the addresses", error))?;
    tracing::info!(peer = %identity.peer(), roles = ?config.roles, "relay runs");
    // Stopped cleanly whatever the reason: what is on its way may still be acknowledged.
    let outcome = wait(mail.as_ref(), stop).await;
    if let Err(error) = &outcome {
        tracing::error!(%error, "relay stops by itself");
    }

    tracing::info!("relay stops");
    if let Some(mail) = mail {
        mail.stop().await;
    }
    for server in storage {
        server.stop().await;
    }
    if let Some(server) = location {
        server.stop().await;
    }
    outcome
}

/// Until told to stop, or until the catalog's view fails: a start makes it again, going on would not.
async fn wait(mail: Option<&mail::Mail>, stop: impl Future<Output = ()>) -> Result<(), CommandError> {
    let failed = async {
        match mail {
            Some(mail) => mail.failed().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = stop => Ok(()),
        () = failed => Err(CommandError::Relay("the catalog failed, the log says why: a view is made again by the next start".to_owned())),
    }
}

/// The data folder, for its owner only: keys lie in it.
fn make_folder(config: &Config) -> Result<(), CommandError> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&config.data)
        .map_err(|error| CommandError::failed(format!("making {}", config.data.display()), error))
}
