//! The location role: a location server inside this process (SPEC A16). The relay asks it over HTTP like any other.

use lighter_location::{LocationServer, config::Config as LocationServerConfig};
use tokio_util::sync::CancellationToken;

use crate::commands::CommandError;
use crate::config::Config;
use crate::layout;

/// Where it listens when nothing is said.
const LISTEN: std::net::SocketAddr =
    std::net::SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7080);

/// Starts it.
pub(super) async fn start(config: &Config) -> Result<LocationServer, CommandError> {
    let server = LocationServerConfig {
        listen: config.location.listen.unwrap_or(LISTEN),
        data: layout::location(&config.data),
        domains: config.domains.clone(),
        ..LocationServerConfig::default()
    };
    LocationServer::start(server, CancellationToken::new())
        .await
        .map_err(|error| CommandError::failed("the location server", error))
}
