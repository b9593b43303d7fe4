//! The agent that runs: its tasks, started together and stopped together.

use std::path::{Path, PathBuf};

use lighter_protocol::UnixTime;
use lighter_shell::control::Listener;
use lighter_store::{Store, StoreError};
use lighter_transport::location::{Finder, LocationClient, LocationSetupError};
use lighter_transport::proxy::NotAProxy;
use lighter_transport::{BindError, Endpoint, EndpointConfig};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

use crate::address_books::carddav;
use crate::carriers::Carriers;
use crate::config::{Config, Paths};
use crate::failure::Failure;
use crate::guest::{self, Guest};
use crate::key::{self, Keys};
use crate::limits::{EXPIRE_INTERVAL, OUTGOING_LISTED, STOP_TIME_MAX};
use crate::outbox::Outbox;
use crate::shared::{Handle, Shared};
use crate::{
    carriers, control, drops, offers, outbox, port_mapping, registration, serve, sessions, sharing,
    submission, wake, ways,
};

/// Why the agent does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The endpoint.
    #[error("{0}")]
    Bind(#[from] BindError),
    /// The location server's address or certificates.
    #[error("{0}")]
    Location(#[from] LocationSetupError),
    /// The store.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// The configuration's proxy is none.
    #[error("network.proxy: {0}")]
    Proxy(NotAProxy),
    /// The control socket.
    #[error("the control socket: {0}")]
    Control(std::io::Error),
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Location(_) | StartError::Proxy(_) => Self::wrong_use(error),
            error => Self::failed(error),
        }
    }
}

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    shared: Handle,
    /// Says offline at the end: it is waited for.
    registration: JoinHandle<()>,
    /// Gives the router's port back at the end.
    port_mapping: JoinHandle<()>,
    tasks: JoinSet<()>,
}

impl Agent {
    /// Starts everything; with `control`, it listens for commands there.
    ///
    /// # Errors
    /// [`StartError`] says what is missing. A location server that cannot be reached is no reason not to start.
    pub async fn start(
        config: Config,
        keys: Keys,
        store: Store,
        control: Option<&Path>,
    ) -> Result<Self, StartError> {
        let proxies = carriers::proxies(&config).map_err(StartError::Proxy)?;
        let (url, ca_file) = (&config.location.url, config.location.ca_file.as_deref());
        let location = LocationClient::new_through(url, ca_file, proxies)?;
        // Beside the control socket, in the data folder.
        let data = control.and_then(Path::parent);
        let guest = Guest::new(config.guest.clone(), data);
        let remembered = data.map(|data| data.join("networks.json"));
        let carriers = Carriers::new(&config, remembered).map_err(StartError::Proxy)?;
        let finder = Finder::new(&config.finding)?;
        let listen = config.quic.listen;
        let endpoint = if listen.ip().is_unspecified() {
            Endpoint::bind_any(&keys.identity, listen.port(), EndpointConfig::default())?
        } else {
            Endpoint::bind(&keys.identity, listen, EndpointConfig::default())?
        };
        let listener = control.map(Listener::bind).transpose().map_err(StartError::Control)?;
        let shared = Shared::new(config, keys, store, endpoint, location, carriers, finder, guest);
        offers::resume(&shared).await?;
        let registration = tokio::spawn(registration::run(shared.clone()));
        let port_mapping = tokio::spawn(port_mapping::run(shared.clone()));
        let mut tasks = JoinSet::new();
        tasks.spawn(sessions::run(shared.clone()));
        tasks.spawn(serve::run(shared.clone()));
        tasks.spawn(wake::run(shared.clone()));
        tasks.spawn(ways::mdns::run(shared.clone()));
        tasks.spawn(drops::run(shared.clone()));
        tasks.spawn(sharing::keep::run(shared.clone()));
        tasks.spawn(tidy(shared.clone()));
        tasks.spawn(guest::run(shared.clone()));
        if let Some(listener) = listener {
            tasks.spawn(control::run(shared.clone(), listener));
        }
        Ok(Self { shared, registration, port_mapping, tasks })
    }

    /// What its tasks share.
    pub fn shared(&self) -> &Handle {
        &self.shared
    }

    /// Follows the configuration file as well, until it stops: limits and quota hold as they are written.
    pub fn follow(&mut self, config: PathBuf) {
        self.tasks.spawn(guest::follow::run(self.shared.clone(), config));
    }

    /// Goes on with a change of the key that was interrupted as well, until it stops.
    pub fn finish_rotation(&mut self) {
        self.tasks.spawn(key::rotation::run(self.shared.clone()));
    }

    /// Looks after an outbox as well, until it stops.
    pub fn watch(&mut self, outbox: Outbox) {
        self.tasks.spawn(outbox::run(self.shared.clone(), outbox));
    }

    /// Keeps the copies of address books on servers fresh as well, until it stops.
    pub fn fetch_address_books(&mut self, paths: Paths) {
        self.tasks.spawn(carddav::run(self.shared.clone(), paths));
    }

    /// Takes messages of mail clients on this machine as well, until it stops.
    pub fn take_submissions(&mut self, listener: submission::Listener) {
        self.tasks.spawn(listener.run(self.shared.clone()));
    }

    /// Stops cleanly: says offline, puts on record what has come of what is being pulled, tells the peers, ends.
    pub async fn stop(mut self) {
        self.shared.stop.cancel();
        let ended =
            async { tokio::join!(&mut self.registration, &mut self.port_mapping, self.shared.pulls.ended()) };
        if timeout(STOP_TIME_MAX, ended).await.is_err() {
            self.registration.abort();
            self.port_mapping.abort();
        }
        self.tasks.shutdown().await;
        self.shared.offers.stop();
        self.shared.endpoint.close().await;
    }
}

/// Lets go of what is past its retention, and forgets what is over for long.
async fn tidy(shared: Handle) {
    loop {
        let done = shared
            .blocking(|store| {
                let now = UnixTime::now();
                for outgoing in store.all_outgoing()? {
                    let is_over = !outgoing.is_held();
                    if is_over && outgoing.created.plus(OUTGOING_LISTED) < now {
                        store.remove_outgoing(outgoing.delivery)?;
                    }
                }
                store.expire(now)
            })
            .await;
        match done {
            Ok(0) => {}
            Ok(count) => {
                shared.hosted.let_go();
                tracing::info!(count, "deliveries let go of by age");
                shared.guest.there_is_room();
            }
            Err(error) => tracing::warn!(%error, "the store could not be tidied up"),
        }
        sleep(EXPIRE_INTERVAL).await;
    }
}
