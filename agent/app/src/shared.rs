//! What the running agent's tasks share: one owner of each thing, reached through one cloneable handle.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use lighter_protocol::pull::Door;
use lighter_protocol::{Attestation, Mailbox, Now, PeerId, Signed};
use lighter_store::Store;
use lighter_transport::location::{Finder, LocationClient, Secret};
use lighter_transport::{Endpoint, Identity};
use tokio::sync::{Notify, Semaphore, watch};
use tokio_util::sync::CancellationToken;

use crate::acceptance::WrittenTo;
use crate::carriers::Carriers;
use crate::config::Config;
use crate::dial;
use crate::drops::Drops;
use crate::finding::Speakers;
use crate::guest::Guest;
use crate::hosted::Hosted;
use crate::key::{FormerKeys, KeyPlace, Keys};
use crate::limits::{
    HOSTED_SERVES_MAX, OFFERS_MAX, OUTGOING_OFFERS_MAX, OUTGOING_SERVES_MAX, SEEKING_MAX, SERVES_MAX,
    SHARED_SERVES_MAX,
};
use crate::links::Links;
use crate::offers::Offers;
use crate::outbox::status::OutboxStatus;
use crate::port_mapping::PortMappingStatus;
use crate::pulls::Pulls;
use crate::sharing::Share;
use crate::submission::status::SubmissionStatus;
use crate::ways::Ways;

/// A handle to all of it.
pub type Handle = Arc<Shared>;

/// What the tasks share.
#[derive(Debug)]
pub struct Shared {
    /// The configuration.
    pub config: Config,
    /// The key.
    pub identity: Identity,
    /// Those of before.
    pub former: FormerKeys,
    /// Where they are kept; none where they are not, and cannot be changed.
    pub key_place: Option<KeyPlace>,
    /// One change of the key at a time.
    pub rotating: tokio::sync::Mutex<()>,
    /// A change of the key was begun and is not done.
    pub rotation_begun: Notify,
    /// This store has another key: this agent is to stop, and to be started anew.
    pub key_changed: CancellationToken,
    /// The attachment storage. Its calls block: [`Shared::blocking`].
    pub store: Store,
    /// The place on the network.
    pub endpoint: Endpoint,
    /// The own domain's location server.
    pub location: LocationClient,
    /// Those of other domains.
    pub finder: Finder,
    /// What shows them that this agent speaks for others.
    pub speakers: Speakers,
    /// To whom the user wrote, as far as the location server was told.
    pub written_to: WrittenTo,
    /// How things stand with the location server.
    pub membership: watch::Sender<Membership>,
    /// Counts wakes and changes of network: who waits to try again tries at once.
    pub wakes: watch::Sender<u64>,
    /// Who is connected.
    pub links: Links,
    /// Carriers to relays: what worked where.
    pub carriers: Carriers,
    /// The port that the home router maps to this store; none where no router is in between, or it is not wanted.
    pub port_mapping: watch::Sender<Option<PortMappingStatus>>,
    /// Ways to peers: who is expected, who knocked.
    pub ways: Ways,
    /// How much of line, battery and time transfers may use.
    pub guest: Guest,
    /// Deliveries being pulled.
    pub pulls: Pulls,
    /// Deliveries being offered to others.
    pub offers: Offers,
    /// Deliveries that were left with relays.
    pub drops: Drops,
    /// How things stand in the watched outbox; none where there is none.
    pub outbox: watch::Sender<Option<OutboxStatus>>,
    /// How things stand with what mail clients send through here; none where nothing is taken.
    pub submission: watch::Sender<Option<SubmissionStatus>>,
    /// The mailboxes of others that this is the store of.
    pub hosted: Hosted,
    /// Streams that may be served at a time.
    pub serves: Semaphore,
    /// Of these, streams that are served to other recipients of a message.
    pub shared_serves: Semaphore,
    /// Other recipients of a message that are looked for at a time.
    pub seeking: Semaphore,
    /// Offers that may be made at a time.
    pub offering: Semaphore,
    /// Set when the agent is to stop.
    pub stop: CancellationToken,
    door: Mutex<Door>,
    /// With whom attachments are shared, as the configuration says now.
    share: RwLock<Share>,
    /// The own location server's key: the one of the configuration, or the one that took its place.
    location_key: RwLock<PeerId>,
}

/// How things stand with the location server.
#[derive(Clone, Debug, Default)]
pub struct Membership {
    /// The session; none while it is not registered.
    pub session: Option<Secret>,
    /// The attestation, verified when it came; none while it is pending.
    pub attestation: Option<Attested>,
    /// What is wrong, in words for the user.
    pub problem: Option<String>,
}

/// An attestation with the statement that proves it to others.
#[derive(Clone, Debug)]
pub struct Attested {
    /// What others are shown.
    pub signed: Signed<Attestation>,
    /// What it says.
    pub attestation: Attestation,
}

impl Shared {
    /// Puts the parts together; nothing runs yet.
    pub fn new(
        config: Config,
        keys: Keys,
        store: Store,
        endpoint: Endpoint,
        location: LocationClient,
        carriers: Carriers,
        finder: Finder,
        guest: Guest,
    ) -> Handle {
        let offers = if config.outgoing.listen.is_some() { OUTGOING_OFFERS_MAX } else { OFFERS_MAX };
        let serves = serves_max(&config);
        let hosted = Hosted::new(config.hosted.clone());
        let door = if hosted.is_on() { Door::of_many() } else { Door::new() };
        let pulls = Pulls::new(config.store.accept_push);
        let Keys { identity, former, place: key_place } = keys;
        Arc::new(Self {
            location_key: RwLock::new(config.location.peer),
            share: RwLock::new(config.store.share),
            finder,
            speakers: Speakers::default(),
            guest,
            written_to: WrittenTo::default(),
            config,
            identity,
            former,
            key_place,
            rotating: tokio::sync::Mutex::default(),
            rotation_begun: Notify::new(),
            key_changed: CancellationToken::new(),
            store,
            endpoint,
            location,
            membership: watch::Sender::default(),
            wakes: watch::Sender::default(),
            links: Links::default(),
            carriers,
            port_mapping: watch::Sender::default(),
            ways: Ways::default(),
            pulls,
            offers: Offers::default(),
            drops: Drops::default(),
            outbox: watch::Sender::default(),
            submission: watch::Sender::default(),
            hosted,
            serves: Semaphore::new(serves),
            shared_serves: Semaphore::new(SHARED_SERVES_MAX),
            seeking: Semaphore::new(SEEKING_MAX),
            offering: Semaphore::new(offers),
            stop: CancellationToken::new(),
            door: Mutex::new(door),
        })
    }

    /// Whose agent it is.
    pub fn mailbox(&self) -> &Mailbox {
        &self.config.mailbox
    }

    /// The location server's key: the one that was enrolled with, or one that it announced.
    pub fn location_peer(&self) -> PeerId {
        *self.location_key.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The location server has another key, which the one of before led to.
    pub fn follow_location(&self, key: PeerId) {
        *self.location_key.write().unwrap_or_else(PoisonError::into_inner) = key;
    }

    /// With which other recipients of a message this store shares its attachments now.
    pub fn share(&self) -> Share {
        *self.share.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The configuration says so from now on.
    pub fn change_share(&self, share: Share) {
        *self.share.write().unwrap_or_else(PoisonError::into_inner) = share;
    }

    /// The session with the location server, if there is one now.
    pub fn session(&self) -> Option<Secret> {
        self.membership.borrow().session.clone()
    }

    /// The attestation, if there is one now.
    pub fn attested(&self) -> Option<Attested> {
        self.membership.borrow().attestation.clone()
    }

    /// What proves that this is the store of `mailbox`, its own or a hosted one; none where it is not, or not now.
    pub fn attested_for(&self, mailbox: &Mailbox) -> Option<Attested> {
        if mailbox == self.mailbox() {
            return self.attested();
        }
        self.hosted.attested(mailbox).map(|attested| Attested::clone(&attested))
    }

    /// Whether `peer` is a relay of the own domain, by the attestation.
    pub fn is_own_relay(&self, peer: &PeerId) -> bool {
        self.membership
            .borrow()
            .attestation
            .as_ref()
            .is_some_and(|attested| attested.attestation.names_relay(peer))
    }

    /// The door, to ask about one offer.
    pub fn door(&self) -> MutexGuard<'_, Door> {
        self.door.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The addresses that this machine has on its ways to others.
    pub fn own_addresses(&self) -> Vec<IpAddr> {
        match self.endpoint.local_addr() {
            Ok(local) if !local.ip().is_unspecified() => vec![local.ip()],
            _ => dial::route_addresses(self.location.url()),
        }
    }

    /// Those of `addresses` that this agent may dial.
    pub fn dialable(&self, addresses: &[std::net::SocketAddr]) -> Vec<std::net::SocketAddr> {
        let own = self.own_addresses();
        addresses.iter().copied().filter(|address| dial::is_allowed(address, &own)).collect()
    }

    /// Runs something that blocks on the disk.
    ///
    /// # Panics
    /// Where `work` does.
    pub async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Store) -> T + Send + 'static,
    ) -> T {
        let store = self.store.clone();
        match tokio::task::spawn_blocking(move || work(&store)).await {
            Ok(value) => value,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // Blocking work is cancelled only when the runtime ends, and then nobody waits for it.
                Err(_) => std::future::pending().await,
            },
        }
    }
}

/// How many streams may be served at a time.
pub fn serves_max(config: &Config) -> usize {
    match (config.outgoing.listen, &config.hosted) {
        (Some(_), _) => OUTGOING_SERVES_MAX,
        (None, Some(_)) => HOSTED_SERVES_MAX,
        (None, None) => SERVES_MAX,
    }
}

/// Both clocks, now.
pub fn now() -> Now {
    Now { instant: std::time::Instant::now(), wall: lighter_protocol::UnixTime::now() }
}
