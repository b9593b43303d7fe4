//! Helping stores and senders behind home routers to find each other (PROTOCOL.md §8), for a domain without a relay (SPEC
//! A27): stores keep a session here, from the socket that everything of theirs goes through, and are told of senders who
//! were introduced to them.
//!
//! It is named in attestations and look-ups as a relay without a web address: nothing waits here, and nothing can be left.
//! Not here: what a mailbox may do. A session is for the mailboxes that an attestation of this server's own names, on
//! a connection whose handshake proved the attested key; what a sender must show is [`Helper`]'s.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, Weak};

use lighter_protocol::limits::CLOCK_GRACE;
use lighter_protocol::wire::{Meet, Request, Response, Waiting};
use lighter_protocol::{Attestation, Mailbox, Now, PeerId, RelayRecord, UnixTime};
use lighter_transport::meeting::Helper;
use lighter_transport::{
    BindError, Connection, Endpoint, EndpointConfig, Identity, IdentityError, IncomingRequest,
};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::config::HelperConfig;
use crate::limits::{HELPER_MAILBOXES_MAX, HELPER_REFUSAL_TIME};
use crate::location::Location;
use crate::lock::lock;

/// The helper's key, in the data folder.
const KEY_FILE: &str = "helper.key";

/// Why there is no helper.
#[derive(Debug, thiserror::Error)]
pub enum HelperError {
    /// Its key cannot be read or made.
    #[error(transparent)]
    Key(#[from] IdentityError),
    /// Its socket.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The system does not say where it listens.
    #[error("where the helper listens cannot be told")]
    Address(#[source] io::Error),
}

/// A helper that listens.
#[derive(Debug)]
pub struct HelperServer {
    endpoint: Endpoint,
    record: RelayRecord,
    location: Arc<Location>,
    shared: Arc<Shared>,
}

/// Who is connected. Bounded by the endpoint's connections.
#[derive(Debug, Default)]
struct Shared {
    helper: Helper,
    peers: Mutex<HashMap<PeerId, Vec<Weak<Peer>>>>,
}

/// A connection, and the mailboxes that its peer is a store of, each until when.
#[derive(Debug)]
struct Peer {
    connection: Connection,
    stores: Mutex<BTreeMap<Mailbox, UnixTime>>,
}

impl HelperServer {
    /// Listens where `config` says; from now on attestations name it.
    ///
    /// # Errors
    /// [`HelperError`].
    pub fn bind(config: &HelperConfig, location: &Arc<Location>) -> Result<Self, HelperError> {
        let identity = Identity::load_or_create(&location.config().data.join(KEY_FILE))?;
        let endpoint = Endpoint::bind(&identity, config.listen, EndpointConfig::default())?;
        let address = endpoint.local_addr().map_err(HelperError::Address)?;
        let addresses = if config.advertise.is_empty() { vec![address] } else { config.advertise.clone() };
        let record = RelayRecord { peer: identity.peer(), addresses, retrieval_url: String::new() };
        location.name_helper(record.clone());
        tracing::info!(%address, peer = %record.peer, "helper listens");
        Ok(Self { endpoint, record, location: Arc::clone(location), shared: Arc::default() })
    }

    /// Where it can be reached.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.record.addresses
    }

    /// Helps until `stopping`.
    pub async fn run(self, stopping: CancellationToken) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = stopping.cancelled() => break,
                Some(_) = connections.join_next() => {}
                accepted = self.endpoint.accept() => match accepted {
                    Some(connection) => {
                        let (location, shared) = (Arc::clone(&self.location), Arc::clone(&self.shared));
                        connections.spawn(async move { serve(&location, &shared, connection).await });
                    }
                    None => break,
                },
            }
        }
        connections.shutdown().await;
        self.endpoint.close().await;
    }
}

/// Serves one connection until it ends.
async fn serve(location: &Arc<Location>, shared: &Arc<Shared>, connection: Connection) {
    let id = connection.peer();
    let peer = Arc::new(Peer { connection: connection.clone(), stores: Mutex::default() });
    lock(&shared.peers).entry(id).or_default().push(Arc::downgrade(&peer));
    // As many as the transport lets.
    let mut requests = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            Some(_) = requests.join_next() => {}
            incoming = connection.accept_request() => match incoming {
                Some(incoming) => {
                    let (location, shared, peer) = (Arc::clone(location), Arc::clone(shared), Arc::clone(&peer));
                    requests.spawn(async move { answer(&location, &shared, &peer, incoming).await });
                }
                None => break,
            },
        }
    }
    requests.shutdown().await;
    drop(peer);
    shared.sweep(&id);
}

async fn answer(location: &Location, shared: &Shared, peer: &Peer, incoming: IncomingRequest) {
    let IncomingRequest { request, responder } = incoming;
    let began = Instant::now();
    let response = match request {
        Request::Waiting(waiting) => peer.waiting(&waiting, &location.peer(), UnixTime::now()),
        Request::Meet(meet) => shared.meet(&meet, &peer.connection, &location.peer(), Now::read()).await,
        // Nothing waits here and nothing is taken; the transport answers pings.
        _ => Response::Refused,
    };
    // The one answer for everything that is not so, after the same time.
    if response == Response::Refused {
        sleep_until(began + HELPER_REFUSAL_TIME).await;
    }
    if let Err(error) = responder.respond(&response).await {
        tracing::debug!(peer = %peer.connection.peer(), %error, "answer not sent");
    }
}

impl Peer {
    /// A store is online, and shows for whom.
    fn waiting(&self, waiting: &Waiting, location: &PeerId, now: UnixTime) -> Response {
        let id = self.connection.peer();
        let attestation = match Attestation::verify_of(&waiting.attestation, location, &id, now) {
            Ok(attestation) => attestation,
            Err(error) => {
                tracing::info!(peer = %id, %error, "session refused");
                return Response::Refused;
            }
        };
        let mut stores = lock(&self.stores);
        if !stores.contains_key(&attestation.mailbox) && stores.len() >= HELPER_MAILBOXES_MAX {
            stores.retain(|_, until| now < *until);
            if stores.len() >= HELPER_MAILBOXES_MAX {
                return Response::Refused;
            }
        }
        stores.insert(attestation.mailbox, attestation.expires.plus(CLOCK_GRACE));
        Response::Waiting(0)
    }

    fn is_store_of(&self, mailbox: &Mailbox, now: UnixTime) -> bool {
        !self.connection.is_closed() && lock(&self.stores).get(mailbox).is_some_and(|until| now < *until)
    }
}

impl Shared {
    /// The latest connection to a store that has proved here whose it is.
    fn session(&self, mailbox: &Mailbox, store: &PeerId, now: UnixTime) -> Option<Connection> {
        let connected: Vec<_> =
            lock(&self.peers).get(store)?.iter().rev().filter_map(Weak::upgrade).collect();
        connected.iter().find(|peer| peer.is_store_of(mailbox, now)).map(|peer| peer.connection.clone())
    }

    async fn meet(&self, meet: &Meet, sender: &Connection, location: &PeerId, now: Now) -> Response {
        let session = |mailbox: &Mailbox, store: &PeerId| self.session(mailbox, store, now.wall);
        self.helper.meet(meet, sender, location, now, session).await
    }

    /// A connection of this peer has ended.
    fn sweep(&self, id: &PeerId) {
        let mut peers = lock(&self.peers);
        if let Some(connected) = peers.get_mut(id) {
            connected.retain(|peer| peer.strong_count() > 0);
            if connected.is_empty() {
                peers.remove(id);
            }
        }
    }
}
