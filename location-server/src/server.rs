//! A location server that runs: by itself, or as a role inside another program (SPEC A16).

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use lighter_protocol::{Mailbox, Now, PeerId};
use lighter_transport::location::{Scope, Secret};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, ConfigError};
use crate::error::CallError;
use crate::helper::{HelperError, HelperServer};
use crate::http::{HttpLimits, TlsError};
use crate::location::admin::{AdminAnswer, AdminCommand};
use crate::location::{Location, OpenError};
use crate::{api, control, http};

/// A server that runs, until it is stopped or dropped.
#[derive(Debug)]
pub struct LocationServer {
    location: Arc<Location>,
    address: SocketAddr,
    helper_addresses: Vec<SocketAddr>,
    is_https: bool,
    tasks: JoinSet<()>,
    stopping: CancellationToken,
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration makes no sense.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The data cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// There is no helper.
    #[error("helper: {0}")]
    Helper(#[from] HelperError),
    /// The control socket cannot be made.
    #[error("the control socket cannot be made in the data folder")]
    Control(#[source] io::Error),
}

impl LocationServer {
    /// Opens the data, listens, and serves until `stopping` or [`LocationServer::stop`].
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(config: Config, stopping: CancellationToken) -> Result<Self, StartError> {
        let config = config.checked()?;
        let tls = match &config.tls {
            Some(tls) => Some(http::tls_config(&tls.certificate, &tls.key)?),
            None => None,
        };
        let is_https = tls.is_some();
        let listen = config.listen;
        let listen_error = |source| StartError::Listen { address: listen, source };
        let limits = HttpLimits {
            connections_max: config.connections.max,
            per_network_max: config.connections.per_network_max,
            header_time_max: idle_time(&config),
            ..HttpLimits::default()
        };
        // Reading a million rows takes seconds, and blocks.
        let opened = tokio::task::spawn_blocking(move || Location::open(config)).await;
        let location = opened.map_err(|_| OpenError::Thread(io::ErrorKind::Other.into()))??;
        let listener = TcpListener::bind(listen).await.map_err(listen_error)?;
        let address = listener.local_addr().map_err(listen_error)?;
        let control = control::listen(&location.config().data).map_err(StartError::Control)?;
        let helper = location.config().helper.as_ref().map(|helper| HelperServer::bind(helper, &location));
        let helper = helper.transpose()?;
        let helper_addresses = helper.iter().flat_map(HelperServer::addresses).copied().collect();
        say_what_is_open(&location, address, is_https);

        let stopping = stopping.child_token();
        let mut tasks = JoinSet::new();
        if let Some(helper) = helper {
            tasks.spawn(helper.run(stopping.clone()));
        }
        tasks.spawn(http::serve(listener, tls, api::router(&location), limits, stopping.clone()));
        tasks.spawn(control::serve(control, location.clone(), stopping.clone()));
        let (watched, stopped) = (location.clone(), stopping.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = watched.watch_deadlines() => {}
                () = stopped.cancelled() => watched.stop(),
            }
        });
        let followed = location.clone();
        tasks.spawn(async move { followed.watch_hosted().await });
        Ok(Self { location, address, helper_addresses, is_https, tasks, stopping })
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where its helper can be reached; none where it has none.
    pub fn helper_addresses(&self) -> &[SocketAddr] {
        &self.helper_addresses
    }

    /// Where programs on this machine reach it. With HTTPS the certificate's name is what others must use.
    pub fn url(&self) -> String {
        let scheme = if self.is_https { "https" } else { "http" };
        let mut address = self.address;
        if address.ip().is_unspecified() {
            let loopback =
                if address.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() };
            address.set_ip(loopback);
        }
        format!("{scheme}://{address}")
    }

    /// The key that signs attestations and introductions.
    pub fn peer(&self) -> PeerId {
        self.location.peer()
    }

    /// Does what the admin says.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn administer(&self, command: AdminCommand) -> Result<AdminAnswer, CallError> {
        self.location.administer(command, Now::read()).await
    }

    /// Makes an API token: for a relay that runs this server inside itself.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn create_token(&self, name: &str, scopes: &[Scope]) -> Result<Secret, CallError> {
        let command =
            AdminCommand::TokenCreate { name: name.to_owned(), scopes: scopes.to_vec(), lifetime_s: None };
        match self.administer(command).await? {
            AdminAnswer::Token { token, .. } => Ok(token),
            _ => Err(CallError::Unavailable),
        }
    }

    /// Whether `token` is one of this server's, and good for all of `scopes`.
    pub fn is_good_for(&self, token: &Secret, scopes: &[Scope]) -> bool {
        let now = Now::read();
        scopes.iter().all(|scope| self.location.authorise(token, *scope, now).is_ok())
    }

    /// Makes an enrolment token for a mailbox.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn invite(&self, mailbox: &Mailbox) -> Result<Secret, CallError> {
        let command = AdminCommand::UserInvite { mailbox: mailbox.clone(), lifetime_s: None };
        match self.administer(command).await? {
            AdminAnswer::Invitation { token, .. } => Ok(token),
            _ => Err(CallError::Unavailable),
        }
    }

    /// Stops cleanly: requests under way are answered, and the database is closed when this returns.
    pub async fn stop(mut self) {
        self.location.stop();
        self.stopping.cancel();
        while self.tasks.join_next().await.is_some() {}
        self.location.close().await;
    }

    /// Returns when the server has ended, because it was told to stop.
    pub async fn ended(&mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}

/// An idle connection stays open over two pings.
fn idle_time(config: &Config) -> Duration {
    Duration::from_secs(2 * u64::from(config.ping_interval_s)).max(HttpLimits::default().header_time_max)
}

fn say_what_is_open(location: &Location, address: SocketAddr, is_https: bool) {
    tracing::info!(%address, peer = %location.peer(), https = is_https, "location server listens");
    if !is_https && !address.ip().is_loopback() {
        tracing::warn!(
            "plain HTTP on an address that others reach: tokens travel in the clear unless a proxy speaks TLS"
        );
    }
    if location.config().allowed_networks.is_none() && address.ip().is_loopback() {
        tracing::info!("loopback only: stores may register loopback and private addresses");
    }
}
