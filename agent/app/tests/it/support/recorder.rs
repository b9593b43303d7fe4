//! A mailbox's store that writes down all that it is told, as it came over the wire: it has the key and the registration of an
//! agent that was set up, and does what a test lets it do.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use lighter_agent::config::{Config, Paths};
use lighter_agent::key;
use lighter_protocol::wire::{Answer, Offer, Request, Response, encode};
use lighter_protocol::{Mailbox, PeerId, Receipt, Registration, Sharing, Signed, UnixTime};
use lighter_transport::location::LocationClient;
use lighter_transport::pull::{Piece, Pull, VerifiedSink};
use lighter_transport::{Connection, Endpoint, EndpointConfig, Identity};

use super::eventually;

/// More than any registration of the agent that was set up: this one is the newest.
const SEQUENCE: u64 = 1_000_000;

/// What a store says to what only newer ones know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// It knows them.
    New,
    /// It gives no answer: the stream is reset, as one does that cannot read the message.
    Resets,
    /// It says no.
    Refuses,
}

/// What a store was told.
#[derive(Default)]
struct Heard {
    requests: Vec<Request>,
    /// What was answered to what it asked.
    responses: Vec<Response>,
    /// Who connected.
    peers: Vec<PeerId>,
    offered: Option<(Offer, Connection)>,
}

/// Such a store, until it is dropped.
pub(crate) struct Recorder {
    pub(crate) identity: Identity,
    pub(crate) mailbox: Mailbox,
    heard: Arc<Mutex<Heard>>,
    _endpoint: Endpoint,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Debug)]
struct Nowhere;

impl VerifiedSink for Nowhere {
    async fn write(&self, _: Piece) -> std::io::Result<()> {
        Ok(())
    }
}

impl Recorder {
    /// Takes the place of the agent that was set up there, and does not run.
    pub(crate) async fn start(paths: &Paths, manner: Manner) -> Self {
        let config = Config::read(&paths.config).unwrap();
        let identity = key::load(&config.key, paths).await.unwrap();
        let endpoint =
            Endpoint::bind(&identity, "127.0.0.1:0".parse().unwrap(), EndpointConfig::default()).unwrap();
        let registration = Registration {
            mailbox: config.mailbox.clone(),
            peer: identity.peer(),
            addresses: vec![endpoint.local_addr().unwrap()],
            sequence: SEQUENCE,
            expires: UnixTime::now().plus(Duration::from_hours(1)),
        };
        let signed = Signed::sign(&registration, identity.keypair()).unwrap();
        LocationClient::new(&config.location.url, None).unwrap().register(&signed).await.unwrap();
        let heard = Arc::<Mutex<Heard>>::default();
        let (accepting, by) = (endpoint.clone(), Arc::clone(&heard));
        let task = tokio::spawn(async move {
            while let Some(connection) = accepting.accept().await {
                by.lock().unwrap().peers.push(connection.peer());
                tokio::spawn(listen(connection, Arc::clone(&by), manner));
            }
        });
        Self { identity, mailbox: config.mailbox, heard, _endpoint: endpoint, task }
    }

    /// Waits until it is offered something.
    pub(crate) async fn offered(&self) {
        eventually("an offer", async || self.heard.lock().unwrap().offered.is_some()).await;
    }

    /// Takes what it was offered, all of it, and gives the receipt.
    pub(crate) async fn take(&self) {
        self.offered().await;
        let (offer, connection) = self.heard.lock().unwrap().offered.clone().unwrap();
        for part in std::iter::once(&offer.manifest).chain(&offer.blobs) {
            let pull = Pull::of(offer.delivery, part.id, part.size);
            connection.pull(&pull, &Arc::new(Nowhere)).await.unwrap();
        }
        let receipt = Receipt {
            delivery: offer.delivery,
            mailbox: self.mailbox.clone(),
            store: self.identity.peer(),
            manifest: offer.manifest.id,
            time: UnixTime::now(),
        };
        let receipt = Signed::sign(&receipt, self.identity.keypair()).unwrap();
        let response = connection.request(&Request::Receipt(receipt)).await.unwrap();
        assert_eq!(response, Response::Released);
        self.heard.lock().unwrap().responses.push(response);
    }

    /// Who else has it, by what it was told.
    pub(crate) fn told(&self) -> Vec<Mailbox> {
        let mut givers: Vec<_> = self.sharings().into_iter().map(|sharing| sharing.giver).collect();
        givers.sort();
        givers.dedup();
        givers
    }

    fn sharings(&self) -> Vec<Sharing> {
        let heard = self.heard.lock().unwrap();
        let told = heard.requests.iter().filter_map(|request| match request {
            Request::Sources(sources) => Some(&sources.sharings),
            _ => None,
        });
        told.flatten().map(|signed| signed.claim().unwrap()).collect()
    }

    /// How many requests like that came.
    pub(crate) fn count(&self, is_like: impl Fn(&Request) -> bool) -> usize {
        self.heard.lock().unwrap().requests.iter().filter(|request| is_like(request)).count()
    }

    /// Whether anything that came names them: the mailbox or the key of their store, in its bytes; or whether they came.
    pub(crate) fn has_heard_of(&self, mailbox: &Mailbox, store: &PeerId) -> bool {
        let heard = self.heard.lock().unwrap();
        let requests = heard.requests.iter().map(|request| encode(request).unwrap());
        let responses = heard.responses.iter().map(|response| encode(response).unwrap());
        let mut all = requests.chain(responses);
        let is_named = |bytes: Vec<u8>| {
            let names = |name: &[u8]| bytes.windows(name.len()).any(|window| window == name);
            names(mailbox.as_str().as_bytes()) || names(&store.to_bytes())
        };
        all.any(is_named) || heard.peers.contains(store)
    }
}

async fn listen(connection: Connection, heard: Arc<Mutex<Heard>>, manner: Manner) {
    while let Some(incoming) = connection.accept_request().await {
        let responder = incoming.responder;
        heard.lock().unwrap().requests.push(incoming.request.clone());
        let response = match incoming.request {
            Request::Offer(offer) => {
                let answers = vec![Answer::Pull; offer.blobs.len()];
                heard.lock().unwrap().offered = Some((offer, connection.clone()));
                Response::Answer(answers)
            }
            Request::Sources(_) | Request::GetShared(_) if manner == Manner::Resets => continue,
            Request::Sources(_) if manner == Manner::New => Response::Noted,
            _ => Response::Refused,
        };
        let _ = responder.respond(&response).await;
    }
}
