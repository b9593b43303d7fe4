//! A location server, a relay that holds deliveries in memory, a mail server that keeps what it gets, and agents: all
//! on loopback, all over real sockets.

pub(crate) mod mail_sink;
pub(crate) mod programs;
pub(crate) mod recorder;
pub(crate) mod relay;
pub(crate) mod web;

use std::path::PathBuf;
use std::time::Duration;

use lighter_agent::access::Access;
use lighter_agent::agent::Agent;
use lighter_agent::config::{Config, Paths};
use lighter_agent::key::Keys;
use lighter_agent::setup::{self, SetupRequest};
use lighter_agent::shared::Handle;
use lighter_location::LocationServer;
use lighter_protocol::Mailbox;
use lighter_transport::location::{LocationClient, Scope, Secret};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// What everybody in a test has in common.
pub(crate) struct World {
    pub(crate) folder: TempDir,
    pub(crate) location: LocationServer,
    pub(crate) token: Secret,
}

/// How long something may take that takes a moment: for a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

impl World {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&mut lighter_location::Config)) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let mut config = lighter_location::config::Config {
            listen: "127.0.0.1:0".parse().unwrap(),
            data: folder.path().join("location"),
            ..Default::default()
        };
        change(&mut config);
        let location = LocationServer::start(config, CancellationToken::new()).await.unwrap();
        let token = location.create_token("test", &Scope::ALL).await.unwrap();
        Self { folder, location, token }
    }

    pub(crate) fn client(&self) -> LocationClient {
        LocationClient::new(&self.location.url(), None).unwrap()
    }

    pub(crate) fn paths(&self, name: &str) -> Paths {
        Paths { config: self.folder.path().join(format!("{name}.toml")), data: self.folder.path().join(name) }
    }

    /// Sets up `name@example.org`, as `lighter-agent setup` does.
    pub(crate) async fn set_up(&self, name: &str, smtp: Option<String>) -> Paths {
        self.set_up_as(name, mailbox(name), smtp).await
    }

    /// Sets up an agent of `mailbox` in the folder `name`.
    pub(crate) async fn set_up_as(&self, name: &str, mailbox: Mailbox, smtp: Option<String>) -> Paths {
        let token = self.location.invite(&mailbox).await.unwrap();
        let paths = self.paths(name);
        let request = SetupRequest {
            mailbox,
            location: self.location.url(),
            ca_file: None,
            token,
            smtp,
            submission: None,
            key_file: true,
        };
        setup::run(request, &paths).await.unwrap();
        paths
    }

    /// Sets up and starts an agent, and waits until it is registered.
    pub(crate) async fn agent(&self, name: &str, smtp: Option<String>) -> Agent {
        start(&self.set_up(name, smtp).await).await
    }
}

/// Changes an agent's configuration, before it starts.
pub(crate) fn change(paths: &Paths, change: impl FnOnce(&mut Config)) {
    let mut config = Config::read(&paths.config).unwrap();
    change(&mut config);
    config.write(&paths.config).unwrap();
}

/// Starts an agent that was set up, and waits until it is registered.
pub(crate) async fn start(paths: &Paths) -> Agent {
    let agent = start_unregistered(paths).await;
    registered(agent.shared()).await;
    agent
}

pub(crate) async fn start_unregistered(paths: &Paths) -> Agent {
    let config = Config::read(&paths.config).unwrap();
    let keys = Keys::load(&config.key, paths).await.unwrap();
    let store = Access::take(&config, paths).await.unwrap();
    Agent::start(config, keys, store, Some(&paths.control())).await.unwrap()
}

pub(crate) async fn registered(shared: &Handle) {
    let mut membership = shared.membership.subscribe();
    let registered = membership.wait_for(|membership| membership.session.is_some());
    tokio::time::timeout(PATIENCE, registered).await.unwrap().unwrap();
}

pub(crate) fn mailbox(name: &str) -> Mailbox {
    format!("{name}@example.org").parse().unwrap()
}

/// Looks until it is so.
pub(crate) async fn eventually(what: &str, mut look: impl AsyncFnMut() -> bool) {
    let found = async {
        while !look().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, found).await.is_ok(), "waited too long: {what}");
}

/// Bytes that no two seeds have in common.
pub(crate) fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.extend_from_slice(&(state ^ (state >> 29)).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// A file with such bytes.
pub(crate) fn file(folder: &std::path::Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}
