//! A relay that holds deliveries in memory: it knows sessions, offers, serves, and takes receipts.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bao_tree::io::outboard::PreOrderMemOutboard;
use bytes::Bytes;
use lighter_protocol::blob::GROUP;
use lighter_protocol::offer::Delivery;
use lighter_protocol::push::Pushing;
use lighter_protocol::wire::{Answer, Get, GetBlobs, Offer, OfferedBlob, Push, PushPart, Request, Response};
use lighter_protocol::{
    Attestation, BlobId, DeliveryId, Mailbox, PeerId, Receipt, RelayRecord, Signed, UnixTime,
};
use lighter_transport::limiter::Turns;
use lighter_transport::location::LocationClient;
use lighter_transport::{Connection, Endpoint, EndpointConfig, GiveUp, Identity};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::World;

/// What a relay does when it is asked for many small blobs at once.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Together {
    /// It gives all of them.
    #[default]
    All,
    /// It is of before there was such a request.
    Unknown,
    /// The second of them is another than it should be.
    Wrong,
}

/// What a relay knows.
#[derive(Default)]
pub(crate) struct Held {
    pub(crate) blobs: HashMap<BlobId, Vec<u8>>,
    pub(crate) offers: Vec<Offer>,
    pub(crate) receipts: Vec<Signed<Receipt>>,
    /// What stores showed when they said that they are there.
    pub(crate) waiting: Vec<Attestation>,
    pub(crate) answers: Vec<Vec<Answer>>,
    /// Ranges that were asked for, each.
    pub(crate) gets: Vec<Get>,
    /// What was asked for together, each.
    pub(crate) together: Vec<GetBlobs>,
    /// What is done about that.
    pub(crate) gives: Together,
    /// Damaged on its disk.
    pub(crate) damaged: Option<BlobId>,
    /// After so many bytes of the largest blob nothing more comes.
    pub(crate) stall_at: Option<u64>,
    /// Other bytes are served than were asked for.
    pub(crate) is_wrong: bool,
    /// The name that the attachments have.
    pub(crate) name: Option<String>,
    /// Who else is named as a source of what is held.
    pub(crate) sources: Vec<PeerId>,
    /// Bytes a second that are served, all streams together.
    pub(crate) rate: Option<u64>,
    /// The sessions, as they came.
    pub(crate) links: Vec<Connection>,
    /// It would push what it holds.
    pub(crate) pushes: bool,
    /// What was pushed, each.
    pub(crate) pushed: Vec<Push>,
    /// The turns in which many blobs are given together; none: as fast as it goes.
    pub(crate) turns: Option<Turns>,
    /// Bytes that were read to be served.
    pub(crate) served: u64,
    /// When the next byte may be served, with a rate.
    free_at: Option<Instant>,
}

impl Held {
    /// Bytes are about to be served: when they may be.
    fn serve(&mut self, len: usize) -> Option<Instant> {
        self.served += len as u64;
        let rate = self.rate?;
        let at = self.free_at.map_or_else(Instant::now, |at| at.max(Instant::now()));
        self.free_at = Some(at + Duration::from_micros(len as u64 * 1_000_000 / rate));
        Some(at)
    }
}

/// A relay that runs until it is dropped.
pub(crate) struct Relay {
    pub(crate) endpoint: Endpoint,
    pub(crate) held: Arc<Mutex<Held>>,
    pub(crate) sessions: watch::Receiver<usize>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Relay {
    /// Starts, and makes itself known to the location server.
    pub(crate) async fn start(world: &World) -> Self {
        Self::start_with(world, "http://127.0.0.1:1").await
    }

    /// As [`Relay::start`], with a web server of its own for retrieval.
    pub(crate) async fn start_with(world: &World, retrieval_url: &str) -> Self {
        Self::start_as(world, Identity::generate(), Some(retrieval_url)).await
    }

    /// One that is no relay of the domain, where it has no web server: a stranger.
    pub(crate) async fn start_as(world: &World, identity: Identity, retrieval_url: Option<&str>) -> Self {
        let endpoint =
            Endpoint::bind(&identity, "127.0.0.1:0".parse().unwrap(), EndpointConfig::default()).unwrap();
        if let Some(retrieval_url) = retrieval_url {
            let record = RelayRecord {
                peer: identity.peer(),
                addresses: vec![endpoint.local_addr().unwrap()],
                retrieval_url: retrieval_url.to_owned(),
            };
            world.client().put_relay(&world.token, &record).await.unwrap();
        }
        let held = Arc::new(Mutex::new(Held::default()));
        let (count, sessions) = watch::channel(0);
        let accepting =
            Accepting { endpoint: endpoint.clone(), held: held.clone(), location: world.client(), count };
        let task = tokio::spawn(accepting.run());
        Self { endpoint, held, sessions, task }
    }

    /// Takes in a delivery; it is offered to the next session.
    pub(crate) fn hold(&self, number: u8, mailbox: &Mailbox, manifest: &[u8], blobs: &[Vec<u8>]) -> Offer {
        let mut held = self.held.lock().unwrap();
        let name = held.name.clone().unwrap_or_else(|| "report.pdf".to_owned());
        let mut offered = |bytes: &[u8], name: &str| {
            let id = BlobId::of(bytes);
            held.blobs.insert(id, bytes.to_vec());
            OfferedBlob { id, size: bytes.len() as u64, name: name.to_owned(), media_type: "x/y".to_owned() }
        };
        let offer = Offer {
            delivery: DeliveryId([number; 16]),
            mailbox: mailbox.clone(),
            manifest: offered(manifest, ""),
            blobs: blobs.iter().map(|blob| offered(blob, &name)).collect(),
            sources: Vec::new(),
            expires: UnixTime(UnixTime::now().0 + 86_400),
            introduction: None,
        };
        let offer = Offer { sources: held.sources.clone(), ..offer };
        held.offers.push(offer.clone());
        offer
    }

    /// Takes blobs in that another relay offers.
    pub(crate) fn keep(&self, blobs: &[&[u8]]) {
        let mut held = self.held.lock().unwrap();
        held.blobs.extend(blobs.iter().map(|bytes| (BlobId::of(bytes), bytes.to_vec())));
    }

    /// Offers by itself, as a sender does, on a connection of its own to the store that listens there.
    pub(crate) async fn offer_to(
        &self,
        world: &World,
        store: PeerId,
        at: SocketAddr,
        offer: Offer,
    ) -> Response {
        let connection = self.endpoint.connect(store, &[at], super::PATIENCE).await.unwrap();
        let (count, _) = watch::channel(0);
        let location = world.client().domain().await.unwrap().location;
        tokio::spawn(answer_all(connection.clone(), self.held.clone(), count, location));
        connection.request(&Request::Offer(offer)).await.unwrap()
    }

    /// Waits for so many receipts.
    pub(crate) async fn receipts(&self, count: usize) -> Vec<Signed<Receipt>> {
        super::eventually("receipts", async || self.held.lock().unwrap().receipts.len() >= count).await;
        self.held.lock().unwrap().receipts.clone()
    }
}

struct Accepting {
    endpoint: Endpoint,
    held: Arc<Mutex<Held>>,
    location: LocationClient,
    count: watch::Sender<usize>,
}

impl Accepting {
    async fn run(self) {
        let location = self.location.domain().await.unwrap().location;
        while let Some(connection) = self.endpoint.accept().await {
            let (held, count) = (self.held.clone(), self.count.clone());
            tokio::spawn(answer_all(connection, held, count, location));
        }
    }
}

async fn answer_all(
    connection: Connection,
    held: Arc<Mutex<Held>>,
    count: watch::Sender<usize>,
    location: PeerId,
) {
    while let Some(incoming) = connection.accept_request().await {
        let responder = incoming.responder;
        match incoming.request {
            Request::Waiting(waiting) => {
                let peer = connection.peer();
                let attestation =
                    Attestation::verify_of(&waiting.attestation, &location, &peer, UnixTime::now()).unwrap();
                let mut offers = held.lock().unwrap().offers.clone();
                offers.retain(|offer| offer.mailbox == attestation.mailbox);
                responder.respond(&Response::Waiting(offers.len() as u64)).await.unwrap();
                held.lock().unwrap().waiting.push(attestation);
                held.lock().unwrap().links.push(connection.clone());
                count.send_modify(|count| *count += 1);
                tokio::spawn(offer_all(connection.clone(), held.clone(), offers));
            }
            Request::Get(get) => {
                tokio::spawn(serve(held.clone(), get, responder));
            }
            Request::GetBlobs(get) => {
                tokio::spawn(serve_together(held.clone(), get, responder));
            }
            Request::Receipt(receipt) => {
                receipt.verify(&connection.peer()).unwrap();
                held.lock().unwrap().receipts.push(receipt);
                let _ = responder.respond(&Response::Released).await;
            }
            _ => {
                let _ = responder.respond(&Response::Refused).await;
            }
        }
    }
}

async fn offer_all(connection: Connection, held: Arc<Mutex<Held>>, offers: Vec<Offer>) {
    for offer in offers {
        let pushes = held.lock().unwrap().pushes;
        match connection.offer(offer.clone(), pushes, super::PATIENCE).await {
            Ok(Response::Answer(answers)) => held.lock().unwrap().answers.push(answers),
            Ok(Response::PushAnswer(answer)) => {
                held.lock().unwrap().answers.push(answer.answers);
                tokio::spawn(push_all(connection.clone(), held.clone(), offer, answer.wanted));
            }
            _ => {}
        }
    }
}

/// Pushes what is wanted of an offer, as holders do.
async fn push_all(connection: Connection, held: Arc<Mutex<Held>>, offer: Offer, wanted: Vec<PushPart>) {
    let Offer { delivery, mailbox, manifest, blobs, sources, expires, .. } = offer;
    let facts = Delivery { id: delivery, mailbox, manifest, blobs, sources, expires };
    let mut pushing = Pushing::new(&facts, &wanted);
    let mut streams = JoinSet::new();
    loop {
        while let Some(push) = pushing.poll() {
            streams.spawn(self::push(connection.clone(), held.clone(), push));
        }
        let Some(ended) = streams.join_next().await else { return };
        pushing.handle_end(ended.unwrap());
    }
}

/// One push; whether the store took it.
async fn push(connection: Connection, held: Arc<Mutex<Held>>, push: Push) -> bool {
    held.lock().unwrap().pushed.push(push.clone());
    let Ok(mut out) = connection.push(&push).await else { return false };
    for part in &push.parts {
        let (mut bytes, stall_at, is_wrong) = {
            let held = held.lock().unwrap();
            (held.blobs[&part.blob].clone(), held.stall_at, held.is_wrong)
        };
        if let Some(first) = bytes.first_mut().filter(|_| is_wrong) {
            *first ^= 1;
        }
        let outboard = PreOrderMemOutboard::create(&bytes, GROUP);
        let size = bytes.len() as u64;
        let stall_at = stall_at.filter(|at| *at < size);
        let slow = Slow { bytes: bytes.into(), stall_at, held: held.clone() };
        if out.send(&part.ranges, size, slow, outboard, None).await.is_err() {
            return false;
        }
    }
    out.finish().await.is_ok()
}

async fn serve_together(held: Arc<Mutex<Held>>, get: GetBlobs, responder: lighter_transport::Responder) {
    let (blobs, gives, turns) = {
        let mut held = held.lock().unwrap();
        held.together.push(get.clone());
        let blob = |id: &BlobId| {
            let mut bytes = held.blobs.get(id)?.clone();
            if held.damaged == Some(*id) {
                bytes[0] ^= 1;
            }
            Some((*id, Bytes::from(bytes)))
        };
        (get.blobs.iter().map(blob).collect::<Option<Vec<_>>>(), held.gives, held.turns.clone())
    };
    let Some(mut blobs) = blobs else {
        let _ = responder.respond(&Response::Refused).await;
        return;
    };
    match gives {
        Together::All => {
            let _ = responder.serve_small(&blobs, turns.as_ref()).await;
        }
        // As one does that cannot read a message.
        Together::Unknown => responder.give_up(GiveUp::Malformed),
        Together::Wrong => {
            let wrong = vec![blobs[1].1[0] ^ 1; blobs[1].1.len()];
            blobs[1] = (BlobId::of(&wrong), wrong.into());
            let _ = responder.serve_small(&blobs, None).await;
        }
    }
}

async fn serve(held: Arc<Mutex<Held>>, get: Get, responder: lighter_transport::Responder) {
    let (bytes, stall_at, is_wrong, is_damaged) = {
        let mut held = held.lock().unwrap();
        held.gets.push(get.clone());
        let is_damaged = held.damaged == Some(get.blob);
        (held.blobs.get(&get.blob).cloned(), held.stall_at, held.is_wrong, is_damaged)
    };
    if is_damaged {
        return responder.give_up(GiveUp::Damaged);
    }
    let Some(mut bytes) = bytes else {
        let _ = responder.respond(&Response::Refused).await;
        return;
    };
    if let Some(first) = bytes.first_mut().filter(|_| is_wrong) {
        // The proofs fit these bytes; the root is another blob's.
        *first ^= 1;
    }
    let outboard = PreOrderMemOutboard::create(&bytes, GROUP);
    let size = bytes.len() as u64;
    let stall_at = stall_at.filter(|at| *at < size);
    let _ = responder.serve(&get, size, Slow { bytes: bytes.into(), stall_at, held }, outboard).await;
}

/// Bytes that stop coming at some place, or come slowly.
struct Slow {
    bytes: Bytes,
    stall_at: Option<u64>,
    held: Arc<Mutex<Held>>,
}

impl bao_tree::io::fsm::AsyncSliceReader for Slow {
    async fn read_at(&mut self, offset: u64, len: usize) -> std::io::Result<Bytes> {
        if self.stall_at.is_some_and(|at| offset >= at) {
            std::future::pending::<()>().await;
        }
        let at = self.held.lock().unwrap().serve(len);
        if let Some(at) = at {
            tokio::time::sleep_until(at).await;
        }
        bao_tree::io::fsm::AsyncSliceReader::read_at(&mut self.bytes, offset, len).await
    }

    async fn size(&mut self) -> std::io::Result<u64> {
        Ok(self.bytes.len() as u64)
    }
}
