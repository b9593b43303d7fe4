//! A server on a port from the kernel, and stores that talk to it.

use std::path::Path;
use std::time::Duration;

use lighter_location::{Config, LocationServer};
use lighter_protocol::{Mailbox, Registration, Signed, UnixTime};
use lighter_transport::Identity;
use lighter_transport::location::api::{EnrolAnswer, RegisterAnswer};
use lighter_transport::location::{LocationClient, LocationError, Scope, Secret};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// A running server, its data, and a client.
pub(crate) struct World {
    pub(crate) server: LocationServer,
    pub(crate) client: LocationClient,
    pub(crate) folder: TempDir,
}

/// A store of somebody's.
pub(crate) struct Store {
    pub(crate) identity: Identity,
    pub(crate) mailbox: Mailbox,
}

pub(crate) fn config(folder: &Path) -> Config {
    Config { listen: "127.0.0.1:0".parse().unwrap(), data: folder.to_owned(), ..Config::default() }
}

pub(crate) fn mailbox(text: &str) -> Mailbox {
    text.parse().unwrap()
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(folder.path());
        change(&mut config);
        let server = LocationServer::start(config, CancellationToken::new()).await.unwrap();
        let client = LocationClient::new(&server.url(), None).unwrap();
        Self { server, client, folder }
    }

    /// Stops the server and starts another on the same data.
    pub(crate) async fn restart(self) -> Self {
        self.restart_with(|_| {}).await
    }

    /// The same, with another configuration.
    pub(crate) async fn restart_with(self, change: impl FnOnce(&mut Config)) -> Self {
        self.server.stop().await;
        let mut config = config(self.folder.path());
        change(&mut config);
        let server = LocationServer::start(config, CancellationToken::new()).await.unwrap();
        let client = LocationClient::new(&server.url(), None).unwrap();
        Self { server, client, folder: self.folder }
    }

    pub(crate) async fn token(&self, scopes: &[Scope]) -> Secret {
        self.server.create_token("test", scopes).await.unwrap()
    }

    /// A store of `name`, invited and enrolled.
    pub(crate) async fn enrolled(&self, name: &str) -> Store {
        let store = Store::new(name);
        store.enrol(self).await.unwrap();
        store
    }

    /// A store of `name`, invited, enrolled and registered; its session.
    pub(crate) async fn online(&self, name: &str) -> (Store, Secret) {
        let store = self.enrolled(name).await;
        let session = store.register(self, 1).await.unwrap().session;
        (store, session)
    }
}

impl Store {
    pub(crate) fn new(name: &str) -> Self {
        Self { identity: Identity::generate(), mailbox: mailbox(name) }
    }

    pub(crate) async fn enrol(&self, world: &World) -> Result<EnrolAnswer, LocationError> {
        let token = world.server.invite(&self.mailbox).await.unwrap();
        world.client.enrol(self.identity.keypair(), &token, &self.mailbox).await
    }

    pub(crate) fn registration(&self, sequence: u64) -> Registration {
        Registration {
            mailbox: self.mailbox.clone(),
            peer: self.identity.peer(),
            addresses: vec!["127.0.0.1:4001".parse().unwrap()],
            sequence,
            expires: UnixTime::now().plus(Duration::from_secs(3600)),
        }
    }

    pub(crate) fn sign(&self, registration: &Registration) -> Signed<Registration> {
        Signed::sign(registration, self.identity.keypair()).unwrap()
    }

    pub(crate) async fn register(
        &self,
        world: &World,
        sequence: u64,
    ) -> Result<RegisterAnswer, LocationError> {
        world.client.register(&self.sign(&self.registration(sequence))).await
    }
}
