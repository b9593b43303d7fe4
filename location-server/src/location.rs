//! The location server without its sockets: what is known, and every call on it.
//!
//! Three parts, each behind a lock of its own, always taken in this order: the directory (durable; changed by the
//! writer alone), and what is only alive, presences and sessions. No lock is held across an await.

mod acceptance;
pub mod admin;
mod answers;
mod feed;
mod foreign;
mod hosting;
mod speaking;
mod stores;

use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, RwLock};
use std::time::Duration;

use bytes::Bytes;
use lighter_protocol::limits::RELAYS_MAX;
use lighter_protocol::time::Now;
use lighter_protocol::{PeerId, RelayRecord, UnixTime};
use lighter_transport::location::api::{DomainAnswer, EVENT_CHANGE, StorePresence};
use lighter_transport::location::{Finder, LocationSetupError};
use lighter_transport::{Identity, IdentityError};
use rand::RngExt;
use tokio::sync::{Notify, Semaphore, broadcast};
use tokio_util::sync::CancellationToken;

use crate::address::Network;
use crate::config::Config;
use crate::directory::{Directory, StoreId};
use crate::engine::{Engine, EngineError, RedbEngine};
use crate::hosted_files::{self, HostedFileError};
use crate::keyring::Keyring;
use crate::limits::{PRESENCE_BACKLOG_MAX, PRESENCE_CHANGES_AT_ONCE, PRESENCE_STREAMS_MAX, RATE_DOMAINS_MAX};
use crate::lock::{lock, read, write};
use crate::metrics::Metrics;
use crate::presence::Presences;
use crate::rate::{Allowance, KeyedRates, NetworkRates, Rate, TooMany};
use crate::rows::StoreKey;
use crate::sessions::Sessions;
use crate::writer::Writer;

use answers::is_confirmed;

pub use answers::Caller;
pub use feed::PresenceFeed;
pub use foreign::ForeignCall;

/// Name of the database in the data folder.
const DATABASE_FILE: &str = "location.redb";

/// A location server's knowledge, and every call on it. See the module.
#[derive(Debug)]
pub struct Location {
    config: Config,
    keyring: RwLock<Keyring>,
    networks: Vec<Network>,
    directory: Arc<RwLock<Directory>>,
    live: RwLock<Live>,
    writer: Writer,
    /// Finds the location servers of other domains.
    finder: Finder,
    /// The own helper, once it listens.
    helper: OnceLock<RelayRecord>,
    metrics: Arc<Metrics>,
    rates: Rates,
    /// Events of the presence stream, ready to be sent.
    changes: broadcast::Sender<Bytes>,
    presence_streams: Arc<Semaphore>,
    /// Drawn at the start, so that what was said before is not taken for what is said now.
    started_as: [u8; 16],
    /// Told when there is a deadline where there was none.
    deadline_set: Notify,
    stopping: CancellationToken,
}

/// What is gone after a restart.
#[derive(Debug)]
struct Live {
    presences: Presences,
    sessions: Sessions,
}

#[derive(Debug)]
struct Rates {
    token_names: Rate,
    session_names: Rate,
    session_calls: Rate,
    registrations: Mutex<NetworkRates>,
    strangers: Mutex<NetworkRates>,
    foreign_domains: Mutex<KeyedRates<String>>,
    foreign_names: Rate,
    foreign_taken: Allowance,
}

/// Why a location server cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The data folder cannot be made.
    #[error("the data folder cannot be used")]
    Folder(#[source] std::io::Error),
    /// The key cannot be read or made.
    #[error(transparent)]
    Key(#[from] IdentityError),
    /// The database cannot be opened or read.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A server that is set by hand has no usable address, or nothing can be trusted.
    #[error("finding other domains' location servers: {0}")]
    Finding(#[from] LocationSetupError),
    /// A file that names a hosted store's mailboxes.
    #[error("hosted: {0}")]
    Hosted(#[from] HostedFileError),
    /// The system gives no thread.
    #[error("the writer's thread cannot be started")]
    Thread(#[source] std::io::Error),
}

impl Location {
    /// Opens the data folder that `config` names, makes it where there is none, and reads everything.
    ///
    /// # Errors
    /// [`EngineError::InUse`] within, where a server runs on this folder.
    pub fn open(config: Config) -> Result<Arc<Self>, OpenError> {
        make_folder(&config.data).map_err(OpenError::Folder)?;
        let engine = RedbEngine::open(&config.data.join(DATABASE_FILE))?;
        Self::assemble(config, None, Box::new(engine))
    }

    /// A location server on another engine.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn with_engine(
        config: Config,
        identity: Identity,
        engine: Box<dyn Engine>,
    ) -> Result<Arc<Self>, OpenError> {
        Self::assemble(config, Some(identity), engine)
    }

    /// With the key given, or those in the data folder.
    fn assemble(
        config: Config,
        identity: Option<Identity>,
        mut engine: Box<dyn Engine>,
    ) -> Result<Arc<Self>, OpenError> {
        let now = Now::read();
        let metrics = Arc::new(Metrics::new());
        let mut directory = Directory::default();
        let loaded = engine.load(&mut |row| directory.load(row))?;
        if loaded.damaged > 0 {
            tracing::warn!(rows = loaded.damaged, "rows that do not read as one were left where they are");
        }
        metrics.rows_damaged.set(i64::try_from(loaded.damaged).unwrap_or(i64::MAX));
        let keyring = match identity {
            Some(identity) => Keyring::of(identity),
            None => Keyring::open(&config.data, directory.key_changes(), now.wall)?,
        };
        host_mailboxes(&config, &mut directory, engine.as_mut())?;
        let directory = Arc::new(RwLock::new(directory));
        let writer = Writer::start(engine, directory.clone(), metrics.clone()).map_err(OpenError::Thread)?;
        let ttl = Duration::from_secs(u64::from(config.ttl_s));
        let live = Live { presences: Presences::new(ttl, now), sessions: Sessions::default() };
        Ok(Arc::new(Self {
            networks: config.networks(),
            rates: Rates::new(&config, now),
            finder: Finder::new(&config.finding)?,
            helper: OnceLock::new(),
            config,
            keyring: RwLock::new(keyring),
            directory,
            live: RwLock::new(live),
            writer,
            metrics,
            changes: broadcast::Sender::new(PRESENCE_BACKLOG_MAX),
            presence_streams: Arc::new(Semaphore::new(PRESENCE_STREAMS_MAX)),
            started_as: rand::rng().random(),
            deadline_set: Notify::new(),
            stopping: CancellationToken::new(),
        }))
    }

    /// The key that signs attestations and introductions now.
    pub fn peer(&self) -> PeerId {
        self.signing(UnixTime::now()).peer()
    }

    /// The same, with its secret.
    fn signing(&self, now: UnixTime) -> Arc<Identity> {
        read(&self.keyring).signing(now).clone()
    }

    /// Has attestations and look-ups name the own helper from now on: once, before the server serves.
    pub fn name_helper(&self, record: RelayRecord) {
        let _ = self.helper.set(record);
    }

    /// Who helps the domain's stores: its relays, and the own helper where there is room for it.
    fn helpers(&self, relays: &[RelayRecord]) -> Vec<RelayRecord> {
        relays.iter().chain(self.helper.get()).take(RELAYS_MAX).cloned().collect()
    }

    /// Who this server is, and for whom it speaks.
    pub fn domain(&self) -> DomainAnswer {
        let key_changes = read(&self.directory).key_changes().to_vec();
        DomainAnswer { location: self.peer(), domains: self.config.domains.clone(), key_changes }
    }

    /// The configuration it runs with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What is counted.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The metrics as text, with what is only counted when it is asked for.
    pub fn metrics_text(&self) -> String {
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        self.metrics.stores.set(count(read(&self.directory).store_count()));
        self.metrics.stores_online.set(count(read(&self.live).presences.online()));
        self.metrics.text()
    }

    /// Whether changes can be made: false after a commit failed.
    pub fn is_healthy(&self) -> bool {
        !self.writer.has_failed()
    }

    /// Ends the presence streams and [`Location::watch_deadlines`].
    pub fn stop(&self) {
        self.stopping.cancel();
    }

    /// Makes durable what waits and closes the database; changes are refused from here on.
    pub async fn close(&self) {
        self.stop();
        self.writer.close().await;
    }

    /// Counts a call by somebody without a token, from the network of `address`.
    ///
    /// # Errors
    /// [`TooMany`].
    pub fn count_stranger(&self, address: std::net::IpAddr, now: Now) -> Result<(), TooMany> {
        lock(&self.rates.strangers).take(address, now.instant)
    }

    /// Counts a registration from the network of `address`.
    ///
    /// # Errors
    /// [`TooMany`].
    pub fn count_registration(&self, address: std::net::IpAddr, now: Now) -> Result<(), TooMany> {
        lock(&self.rates.registrations).take(address, now.instant)
    }

    /// Takes stores offline when their time is up, until [`Location::stop`].
    pub async fn watch_deadlines(&self) {
        loop {
            let due = read(&self.live).presences.poll_timeout();
            let wait = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due.into()).await,
                    None => self.deadline_set.notified().await,
                }
            };
            tokio::select! {
                () = wait => self.handle_timeout(Now::read()),
                () = self.stopping.cancelled() => return,
            }
        }
    }

    fn handle_timeout(&self, now: Now) {
        let directory = read(&self.directory);
        let mut live = write(&self.live);
        live.presences.handle_timeout(now);
        self.publish_all(&directory, &mut live);
    }

    /// The same for stores and for hosted stores' mailboxes.
    fn publish_all(&self, directory: &Directory, live: &mut Live) {
        while let Some(change) = live.presences.poll_change() {
            match directory.store(change.store) {
                Some(store) => self.tell([event(EVENT_CHANGE, &store_presence(&store.key, change.presence))]),
                None => {
                    let keys = hosting::keys_of(directory, change.store);
                    self.tell(presence_events(&keys, change.presence));
                }
            }
        }
    }

    fn tell(&self, events: impl IntoIterator<Item = Bytes>) {
        for event in events {
            // No stream is open: nobody to tell.
            let _ = self.changes.send(event);
        }
    }

    /// Sends what changed to the presence streams; called under the lock, so that they see it in order.
    fn publish<'a>(&self, live: &mut Live, key_of: impl Fn(StoreId) -> Option<&'a StoreKey>) {
        while let Some(change) = live.presences.poll_change() {
            let Some(key) = key_of(change.store) else { continue };
            self.tell([event(EVENT_CHANGE, &store_presence(key, change.presence))]);
        }
    }
}

impl Rates {
    fn new(config: &Config, now: Now) -> Self {
        let rate = |per_s| Rate::per_second(per_s, now.instant);
        let networks = |per_s| Mutex::new(NetworkRates::new(rate(per_s)));
        let rates = &config.rates;
        Self {
            token_names: rate(rates.token_names_per_s),
            session_names: rate(rates.session_names_per_s),
            session_calls: rate(rates.session_calls_per_s),
            registrations: networks(rates.registrations_per_s),
            strangers: networks(rates.strangers_per_s),
            foreign_domains: Mutex::new(KeyedRates::new(
                rate(rates.foreign_domain_names_per_s),
                RATE_DOMAINS_MAX,
            )),
            foreign_names: rate(rates.foreign_names_per_s),
            foreign_taken: Allowance::default(),
        }
    }
}

fn store_presence(key: &StoreKey, presence: lighter_transport::location::Presence) -> StorePresence {
    StorePresence { mailbox: key.mailbox.clone(), peer: key.peer, presence }
}

/// Many changes at once, some hundred in each piece of the stream: who reads it is not behind because they are many.
fn presence_events(keys: &[StoreKey], presence: lighter_transport::location::Presence) -> Vec<Bytes> {
    let piece = |keys: &[StoreKey]| {
        let events = keys.iter().map(|key| event(EVENT_CHANGE, &store_presence(key, presence)));
        Bytes::from(events.collect::<Vec<_>>().concat())
    };
    keys.chunks(PRESENCE_CHANGES_AT_ONCE).map(piece).collect()
}

/// Whose store the configuration's hosted stores are.
fn host_mailboxes(
    config: &Config,
    directory: &mut Directory,
    engine: &mut dyn Engine,
) -> Result<(), OpenError> {
    let mut stores = Vec::with_capacity(config.hosted.len());
    for hosted in &config.hosted {
        stores.push((hosted.peer, hosted_files::mailboxes(hosted, &config.domains)?));
    }
    let mut changes = Vec::new();
    let rehosted = hosting::set_all(directory, &stores, &mut changes);
    if !stores.is_empty() {
        hosting::say(&rehosted);
    }
    directory.drop_unclaimed_keys(&mut changes);
    if !changes.is_empty() {
        engine.commit(&changes)?;
    }
    Ok(())
}

/// One server-sent event (WHATWG HTML §9.2.6). JSON holds no line ends.
fn event(name: &str, data: &impl serde::Serialize) -> Bytes {
    let json = serde_json::to_string(data).unwrap_or_default();
    Bytes::from(format!("event: {name}\ndata: {json}\n\n"))
}

/// Makes the data folder, for its owner only.
fn make_folder(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}
