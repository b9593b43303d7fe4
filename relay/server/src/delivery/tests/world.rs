//! A relay with what it needs, all real but the location server: an array of two storage servers in this process, a
//! QUIC endpoint, a catalog in a folder; and a store that pulls.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::response::sse::{Event as Sse, Sse as SseResponse};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use futures_util::stream;
use lighter_catalog::{Catalog, CatalogError, Counts, Delivery, Ledger};
use lighter_location::address::Network;
use lighter_mail::{Envelope, MailFrom, Protocol, RcptTo};
use lighter_message::{FromManifest, Policy, drive};
use lighter_protocol::wire::{Answer, Offer, OfferedBlob, Request, Response, Waiting};
use lighter_protocol::{
    Attestation, BlobId, DeliveryId, Keypair, Mailbox, PeerId, Receipt, Signed, TicketKey, UnixTime,
};
use lighter_storage::{
    Array, ArrayConfig, ArrayKey, Class, LocalServers, ServerConfig, ServerRecord, StorageServer, wall_clock,
};
use lighter_transport::location::api::{
    DomainAnswer, EVENT_CHANGE, EVENT_REVOKED, LookupAnswer, LookupAnswers, LookupRequest, Revocations,
};
use lighter_transport::location::{LocationClient, Presence, Revocation, Secret, StorePresence, StoreRecord};
use lighter_transport::pull::{Piece, Pull, VerifiedSink};
use lighter_transport::{Connection, Endpoint, EndpointConfig, Identity, PullError};
use rand::SeedableRng;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use crate::config::DropsConfig;
use crate::delivery::{DeliveryGauges, DeliveryParts, DeliverySignals, run};
use crate::ingest::{Admit, Decide, Ingest, IngestParts};
use crate::intake::{Incoming, Intake, MailPeer, Summary, Verdict};

/// How long anything in a test may take before it has failed.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn mailbox(name: &str) -> Mailbox {
    format!("{name}@example.org").parse().unwrap()
}

/// What stays when a relay is killed.
pub(super) struct World {
    folder: TempDir,
    servers: Vec<(ServerRecord, StorageServer)>,
    pub(super) location: Location,
    relay: Identity,
    array_key: [u8; 32],
    pub(super) keep_after_receipt: Duration,
    pub(super) push_bytes_max: Option<u64>,
    /// Networks whose mail servers have answered their senders already.
    pub(super) trusted: Vec<Network>,
    pub(super) drops: DropsConfig,
}

/// A relay that runs, on a runtime of its own, so that it can be killed.
pub(super) struct Relay {
    runtime: Option<Runtime>,
    stop: CancellationToken,
    pub(super) address: SocketAddr,
    pub(super) array: Array,
    pub(super) ledger: Ledger<Array>,
    pub(super) ingest: Ingest,
    pub(super) gauges: DeliveryGauges,
    peer: PeerId,
    pub(super) signals: DeliverySignals,
}

impl World {
    pub(super) async fn new() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let relay = Identity::generate();
        let mut servers = Vec::new();
        for number in 0..2 {
            let config = ServerConfig {
                identity: Identity::generate(),
                listen: ([127, 0, 0, 1], 0).into(),
                units: vec![folder.path().join(format!("unit-{number}"))],
                writers: vec![relay.peer()],
                clock: wall_clock(),
                scrub_days: lighter_storage::limits::SCRUB_DAYS_DEFAULT,
                depot: None,
                local: LocalServers::default(),
            };
            let server = StorageServer::start(config).await.unwrap();
            servers.push((ServerRecord { peer: server.peer(), address: server.address() }, server));
        }
        let location = Location::start().await;
        let (array_key, keep_after_receipt, trusted) = ([7; 32], Duration::ZERO, Vec::new());
        Self {
            folder,
            servers,
            location,
            relay,
            array_key,
            keep_after_receipt,
            push_bytes_max: None,
            trusted,
            drops: DropsConfig::default(),
        }
    }

    /// Where the storage server with this number keeps its segments.
    pub(super) fn unit(&self, number: u8) -> PathBuf {
        self.folder.path().join(format!("unit-{number}"))
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn catalog_folder(&self) -> PathBuf {
        self.folder.path().join("catalog")
    }

    /// Starts the relay; what ran before must have been killed.
    pub(super) async fn start(&self) -> Relay {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let servers = self.servers.iter().map(|(record, _)| record.clone()).collect();
        let (relay, folder) = (self.relay.clone(), self.catalog_folder());
        let (location, token) = (self.location.client(), Secret::new("token"));
        let (array_key, keep_after_receipt) = (self.array_key, self.keep_after_receipt);
        let push_bytes_max = self.push_bytes_max;
        let (trusted, drops) = (self.trusted.clone(), self.drops);
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let started = runtime.spawn(async move {
            let key = ArrayKey::draw(&mut rand::rngs::StdRng::from_seed(array_key));
            let array = Array::open(ArrayConfig::new(servers), &relay, key, wall_clock()).await.unwrap();
            let (signals, inbox) = DeliverySignals::new();
            let ledger = loop {
                let signals = signals.clone();
                let observer = Box::new(move |change: &_| signals.observe(change));
                match Ledger::open_embedded(array.clone(), &folder, observer).await {
                    Ok(ledger) => break ledger,
                    // The one that was killed has not let go of the file yet.
                    Err(lighter_catalog::OpenError::Catalog(CatalogError::InUse)) => {
                        tokio::task::yield_now().await;
                    }
                    Err(error) => panic!("{error}"),
                }
            };
            let tickets = TicketKey::derive(&array_key);
            let ingest = Ingest::new(IngestParts {
                array: array.clone(),
                ledger: ledger.clone(),
                decide: Decide::new(location.clone(), token.clone(), &[]),
                policy: Policy { min_size: 1_000, ..Policy::default() },
                class: Class::Days30,
                tickets: tickets.clone(),
                hostname: "relay.example.org".into(),
                admit: Admit::new(&["example.org".into()], &trusted),
            });
            let endpoint =
                Endpoint::bind(&relay, ([127, 0, 0, 1], 0).into(), EndpointConfig::default()).unwrap();
            let address = endpoint.local_addr().unwrap();
            let gauges = DeliveryGauges::default();
            let parts = DeliveryParts {
                endpoint,
                array: array.clone(),
                ledger: ledger.clone(),
                location,
                token,
                location_key: None,
                keep_after_receipt,
                ping_interval: None,
                push_bytes_max,
                ingest: ingest.clone(),
                tickets,
                retrieval_url: "http://127.0.0.1:1".into(),
                hostname: "relay.example.org".into(),
                drops,
            };
            tokio::spawn(run(parts, inbox, gauges.clone(), stopped));
            (address, array, ledger, ingest, gauges, signals)
        });
        let (address, array, ledger, ingest, gauges, signals) = within(started).await.unwrap();
        let (runtime, peer) = (Some(runtime), self.relay.peer());
        Relay { runtime, stop, address, array, ledger, ingest, gauges, signals, peer }
    }

    /// A store for `name`, enrolled and known to the location server.
    pub(super) fn store(&self, name: &str) -> Store {
        let identity = Identity::generate();
        let endpoint =
            Endpoint::bind(&identity, ([127, 0, 0, 1], 0).into(), EndpointConfig::default()).unwrap();
        let store = Store { mailbox: mailbox(name), endpoint, identity };
        self.location.know(&store, Presence::Unknown, false);
        store
    }
}

impl Relay {
    /// Who it is.
    pub(super) fn peer(&self) -> PeerId {
        self.peer
    }

    /// Kills it: nothing of it runs any more, nothing was told.
    pub(super) fn kill(mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// Takes a message in, as the listener would.
    pub(super) async fn take(&self, to: &[&str], content: &[u8]) {
        let peer = MailPeer {
            address: "127.0.0.1:25".parse().unwrap(),
            protocol: Protocol::Smtp,
            hello: "client".into(),
            extended: true,
            tls: false,
        };
        let mail = MailFrom { path: Some("bob@example.net".parse().unwrap()), ..MailFrom::default() };
        let recipients = to.iter().map(|name| RcptTo::new(mailbox(name).as_str().parse().unwrap())).collect();
        let mut incoming = self.ingest.begin(&peer, Envelope { mail, recipients }).await.unwrap();
        for piece in content.chunks(60_000) {
            incoming.content(Bytes::copy_from_slice(piece)).await.unwrap();
        }
        let summary = Summary { len: content.len() as u64, eight_bit: false };
        let before = self.counts().await.messages;
        let verdict = incoming.finish(summary).await;
        assert!(matches!(&verdict, Verdict::All(reply) if reply.is_done()), "{verdict:?}");
        // Durable; a moment later it is in the view, too.
        self.until("taken", |counts| counts.messages > before).await;
    }

    pub(super) async fn ask<R: Send + 'static>(
        &self,
        query: impl FnOnce(&dyn Catalog) -> Result<R, CatalogError> + Send + 'static,
    ) -> R {
        self.ledger.read(query).await.unwrap()
    }

    pub(super) async fn counts(&self) -> Counts {
        self.ask(|catalog| catalog.counts()).await
    }

    pub(super) async fn delivery(&self, id: DeliveryId) -> Option<Delivery> {
        self.ask(move |catalog| catalog.delivery(&id)).await
    }

    /// Waits until the catalog says so.
    pub(super) async fn until(&self, what: &str, holds: impl Fn(Counts) -> bool) {
        let wait = async {
            while !holds(self.counts().await) {
                tokio::task::yield_now().await;
            }
        };
        assert!(
            tokio::time::timeout(PATIENCE, wait).await.is_ok(),
            "never: {what}: {:?}",
            self.counts().await
        );
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Fails instead of hanging.
pub(super) async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("took too long")
}

/// A recipient's store, as far as the relay sees it.
pub(super) struct Store {
    pub(super) mailbox: Mailbox,
    pub(super) endpoint: Endpoint,
    pub(super) identity: Identity,
}

impl Store {
    pub(super) fn peer(&self) -> PeerId {
        self.identity.peer()
    }

    pub(super) fn attestation(&self) -> Attestation {
        let now = UnixTime::now();
        Attestation {
            mailbox: self.mailbox.clone(),
            peer: self.peer(),
            primary: true,
            relays: Vec::new(),
            issued: now,
            expires: now.plus(Duration::from_secs(3_600)),
        }
    }

    pub(super) async fn connect(&self, relay: &Relay) -> Connection {
        within(self.endpoint.connect(relay.peer, &[relay.address], PATIENCE)).await.unwrap()
    }

    /// Connects and says that it is there; gives what the relay says waits.
    pub(super) async fn come(&self, world: &World, relay: &Relay) -> (Connection, u64) {
        let connection = self.connect(relay).await;
        let attestation = Signed::sign(&self.attestation(), &world.location.key).unwrap();
        match within(connection.request(&Request::Waiting(Waiting { attestation }))).await.unwrap() {
            Response::Waiting(count) => (connection, count),
            other => panic!("{other:?}"),
        }
    }

    /// The next offer, which is answered: everything will be pulled.
    pub(super) async fn offer(&self, connection: &Connection) -> Offer {
        let incoming = within(connection.accept_request()).await.expect("the connection lives");
        let Request::Offer(offer) = incoming.request else { panic!("{:?}", incoming.request) };
        let answers = offer.blobs.iter().map(|_| Answer::Pull).collect();
        incoming.responder.respond(&Response::Answer(answers)).await.unwrap();
        offer
    }

    /// Pulls one blob of a delivery, verified.
    pub(super) async fn pull(
        &self,
        connection: &Connection,
        delivery: DeliveryId,
        blob: &OfferedBlob,
    ) -> Result<Vec<u8>, PullError> {
        let sink = Arc::new(Buffer::default());
        let pull = Pull::of(delivery, blob.id, blob.size);
        within(connection.pull(&pull, &sink)).await?;
        let pieces = std::mem::take(&mut *sink.pieces.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(pieces.into_values().flatten().collect())
    }

    /// Pulls a whole delivery and makes the message from it.
    pub(super) async fn fetch(&self, connection: &Connection, offer: &Offer) -> Vec<u8> {
        let manifest = self.pull(connection, offer.delivery, &offer.manifest).await.unwrap();
        let mut blobs = BTreeMap::<BlobId, Vec<u8>>::new();
        for blob in &offer.blobs {
            blobs.insert(blob.id, self.pull(connection, offer.delivery, blob).await.unwrap());
        }
        let mut original = Vec::new();
        let mut open =
            |id| -> io::Result<Box<dyn Read>> { Ok(Box::new(io::Cursor::new(blobs[&id].clone()))) };
        let end = drive::write_original(&mut manifest.as_slice(), &mut open, &mut original).unwrap();
        assert!(matches!(end, FromManifest::Verified(_)), "{end:?}");
        original
    }

    pub(super) fn receipt(&self, offer: &Offer) -> Receipt {
        Receipt {
            delivery: offer.delivery,
            mailbox: self.mailbox.clone(),
            store: self.peer(),
            manifest: offer.manifest.id,
            time: UnixTime::now(),
        }
    }

    /// Says that a delivery is durable here.
    pub(super) async fn say(&self, connection: &Connection, receipt: &Receipt) -> Response {
        let signed = Signed::sign(receipt, self.identity.keypair()).unwrap();
        within(connection.request(&Request::Receipt(signed))).await.unwrap()
    }
}

#[derive(Default)]
pub(super) struct Buffer {
    pub(super) pieces: Mutex<BTreeMap<u64, Bytes>>,
}

impl VerifiedSink for Buffer {
    async fn write(&self, piece: Piece) -> io::Result<()> {
        self.pieces.lock().unwrap_or_else(PoisonError::into_inner).insert(piece.offset, piece.bytes);
        Ok(())
    }
}

/// A location server that says what the test wants.
pub(super) struct Location {
    url: String,
    pub(super) key: Keypair,
    stores: Arc<Mutex<BTreeMap<Mailbox, StoreRecord>>>,
    /// Events of the presence stream: their names, and what they carry.
    events: broadcast::Sender<(&'static str, String)>,
}

impl Location {
    async fn start() -> Self {
        let key = Keypair::generate_ed25519();
        let stores = Arc::<Mutex<BTreeMap<Mailbox, StoreRecord>>>::default();
        let events = broadcast::channel(16).0;
        let domain = DomainAnswer {
            location: key.public().to_peer_id(),
            domains: vec!["example.org".into()],
            key_changes: Vec::new(),
        };
        let (known, told) = (Arc::clone(&stores), events.clone());
        let lookup = move |Json(asked): Json<LookupRequest>| async move {
            let known = known.lock().unwrap_or_else(PoisonError::into_inner);
            let answer = |of: &Mailbox| LookupAnswer { store: known.get(of).cloned() };
            Json(LookupAnswers { answers: asked.mailboxes.iter().map(answer).collect() })
        };
        let presence = move || async move {
            let begin =
                VecDeque::from([Sse::default().event("snapshot").data(r#"{"stores":[],"last":true}"#)]);
            SseResponse::new(stream::unfold((begin, told.subscribe()), |(mut begin, mut told)| async move {
                let event = match begin.pop_front() {
                    Some(event) => event,
                    None => {
                        let (name, data) = told.recv().await.ok()?;
                        Sse::default().event(name).data(data)
                    }
                };
                Some((Ok::<_, Infallible>(event), (begin, told)))
            }))
        };
        let router = Router::new()
            .route("/v1/domain", get(move || async move { Json(domain) }))
            .route("/v1/lookup", post(lookup))
            .route("/v1/presence", get(presence));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, key, stores, events }
    }

    pub(super) fn client(&self) -> LocationClient {
        LocationClient::new(&self.url, None).unwrap()
    }

    /// Knows a store from now on; with `reachable`, at its address.
    pub(super) fn know(&self, store: &Store, presence: Presence, reachable: bool) {
        let addresses = if reachable { vec![store.endpoint.local_addr().unwrap()] } else { Vec::new() };
        let record = StoreRecord {
            peer: store.peer(),
            addresses,
            presence,
            since: UnixTime::now(),
            primary: true,
            relays: Vec::new(),
            sealing_keys: Vec::new(),
            successions: Vec::new(),
        };
        self.stores.lock().unwrap_or_else(PoisonError::into_inner).insert(store.mailbox.clone(), record);
    }

    /// Whether somebody listens to the stream of presence.
    pub(super) fn is_heard(&self) -> bool {
        self.events.receiver_count() > 0
    }

    /// Tells who listens that a store is online.
    pub(super) fn tell_online(&self, store: &Store) {
        let (mailbox, peer) = (store.mailbox.clone(), store.peer());
        let change = StorePresence { mailbox, peer, presence: Presence::Online };
        let _ = self.events.send((EVENT_CHANGE, serde_json::to_string(&change).unwrap()));
    }

    /// Tells who listens that a store's key is none any more, since `at`.
    pub(super) fn tell_revoked(&self, store: &Store, at: UnixTime) {
        let revoked = vec![Revocation { mailbox: store.mailbox.clone(), peer: store.peer(), at }];
        let _ = self.events.send((EVENT_REVOKED, serde_json::to_string(&Revocations { revoked }).unwrap()));
    }
}

/// A message with an attachment of `size` bytes, drawn from `seed`.
pub(super) fn message(seed: u8, size: usize) -> Vec<u8> {
    let mut attachment = vec![0; size];
    let mut reader = blake3::Hasher::new_derive_key("test attachment").update(&[seed]).finalize_xof();
    reader.fill(&mut attachment);
    let mut content = b"From: Bob <bob@example.net>\r\nSubject: Plans\r\nMIME-Version: 1.0\r\n\
        Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n\r\nHello\r\n--x\r\n\
        Content-Type: application/pdf; name=plans.pdf\r\nContent-Disposition: attachment; filename=plans.pdf\r\n\
        Content-Transfer-Encoding: base64\r\n\r\n"
        .to_vec();
    for line in data_encoding::BASE64.encode(&attachment).as_bytes().chunks(76) {
        content.extend_from_slice(line);
        content.extend_from_slice(b"\r\n");
    }
    content.extend_from_slice(b"--x--\r\n");
    content
}
