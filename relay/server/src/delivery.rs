//! Handing deliveries over to stores: the relay's side of offer, pull and receipt (DESIGN §6).
//!
//! What is done when is the queue's ([`lighter_queue::Deliveries`]); here is the loop around it (`driver`), and the
//! work, each kind in a file of its own:
//! - `peer`: one connection: who is at the other end, and what they ask;
//! - `pull`: the bytes of a delivery, for who has a right to them;
//! - `push`: the same, without being asked for them, where that is set (SPEC A19);
//! - `drops`: what senders leave for stores that are not there;
//! - `receipt`: the word of a store, recorded durably before it is answered;
//! - `meeting`: senders who want to find a store that has a session here;
//! - `presence` and `probe`: who is online, and the pings of stores that may be (SPEC A18);
//! - `keeper`: what its day has come for: notices, whole messages, copies let go, messages forgotten.
//!
//! Sound because everything that matters is in the ledger before anybody is told: killed at any point, the relay starts
//! with what the catalog says, and offers again what no receipt was recorded for.
//!
//! Everything not allowed is answered `Refused`, after the same time, whatever the reason (DESIGN §3 rule 11).

mod driver;
mod drops;
mod keeper;
mod location_key;
mod meeting;
mod notice;
mod peer;
mod presence;
mod probe;
mod pull;
mod push;
mod receipt;
mod revocations;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lighter_catalog::{Change, Ledger};
use lighter_protocol::limits::SOURCES_MAX;
use lighter_protocol::{DeliveryId, Mailbox, PeerId, TicketKey, UnixTime};
use lighter_storage::Array;
use lighter_transport::Endpoint;
use lighter_transport::location::{LocationClient, Secret};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::config::DropsConfig;
use crate::ingest::Ingest;
use crate::limits::{DELIVERY_EVENTS_MAX, LOCATION_ANSWER_TIME_MAX, PROBES_AT_ONCE_MAX, PUSHES_AT_ONCE_MAX};
use driver::{Driver, Event};
use location_key::LocationKey;
use meeting::Meetings;
use revocations::Revocations;

/// What handing over to stores needs.
pub struct DeliveryParts {
    /// The relay's QUIC endpoint: agents connect to it.
    pub endpoint: Endpoint,
    /// Where the blobs lie.
    pub array: Array,
    /// What waits, and where receipts are recorded.
    pub ledger: Ledger<Array>,
    /// The domain's location server.
    pub location: LocationClient,
    /// A token for it, with the scopes `lookup` and `presence`.
    pub token: Secret,
    /// The key that its attestations are signed with. None: it is asked for it, once it can be reached.
    pub location_key: Option<PeerId>,
    /// How long a copy is kept after its receipt; zero frees it at once.
    pub keep_after_receipt: Duration,
    /// How often stores are pinged whose presence is not known. None: every five minutes.
    pub ping_interval: Option<Duration>,
    /// Bytes of a delivery up to which it is pushed to stores that take that. None: stores ask for everything.
    pub push_bytes_max: Option<u64>,
    /// Takes in the notices that the relay writes itself.
    pub ingest: Ingest,
    /// From which the links in notices are made.
    pub tickets: TicketKey,
    /// What links begin with, no slash at the end.
    pub retrieval_url: String,
    /// The relay's name, in notices.
    pub hostname: String,
    /// What senders may leave.
    pub drops: DropsConfig,
}

/// Tells the deliveries of changes, as the ledger's observer does; made before the ledger, since that needs it.
#[derive(Clone)]
pub struct DeliverySignals {
    told: mpsc::Sender<Told>,
    wake: Arc<Wake>,
}

/// What the deliveries are told.
#[derive(Clone, Debug)]
enum Told {
    /// A message with a delivery for this mailbox is durable.
    Committed(Mailbox),
    /// Another relay made something wait for this mailbox, or does not offer it any more.
    Waiting(Mailbox),
    /// A store has this delivery, as another relay knows.
    Ended(DeliveryId),
}

/// The other end of [`DeliverySignals`].
pub struct DeliveryInbox {
    told: mpsc::Receiver<Told>,
    wake: Arc<Wake>,
}

/// What cannot get lost, however much happens at once.
#[derive(Default)]
struct Wake {
    /// More was committed than could be told.
    overrun: AtomicBool,
    overran: Notify,
    /// Something may be due for the keeper.
    keeper: Notify,
    /// How much is held of drops.
    tally: Arc<Mutex<drops::Tally>>,
    /// Other relays that serve the same deliveries.
    fellows: Mutex<Vec<PeerId>>,
}

impl Wake {
    /// Other relays that serve the same deliveries, as an offer names them.
    fn fellows(&self) -> Vec<PeerId> {
        self.fellows.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl DeliverySignals {
    /// Both ends.
    pub fn new() -> (Self, DeliveryInbox) {
        let (sender, receiver) = mpsc::channel(DELIVERY_EVENTS_MAX);
        let wake = Arc::new(Wake::default());
        (Self { told: sender, wake: Arc::clone(&wake) }, DeliveryInbox { told: receiver, wake })
    }

    /// A change is in the view. Never waits.
    pub fn observe(&self, change: &Change) {
        drops::observe(&self.wake.tally, change);
        match change {
            Change::Accepted(message) => {
                for recipient in &message.recipients {
                    if let (Some(_), Some(mailbox)) = (recipient.delivery(), &recipient.mailbox) {
                        self.tell(Told::Committed(mailbox.clone()));
                    }
                }
            }
            Change::Receipted { release, .. } if *release <= UnixTime::now() => self.wake.keeper.notify_one(),
            _ => {}
        }
    }

    /// Another relay said that something waits for this mailbox.
    pub fn tell_waiting(&self, mailbox: Mailbox) {
        self.tell(Told::Waiting(mailbox));
    }

    /// Another relay said that a store has this delivery.
    pub fn tell_ended(&self, delivery: DeliveryId) {
        self.tell(Told::Ended(delivery));
    }

    /// These other relays have the same catalog and read the same array: each serves what this one offers, so they are
    /// named as sources from now on.
    pub fn tell_fellows(&self, fellows: impl IntoIterator<Item = PeerId>) {
        let fellows = fellows.into_iter().take(SOURCES_MAX).collect();
        *self.wake.fellows.lock().unwrap_or_else(PoisonError::into_inner) = fellows;
    }

    /// Something was not told.
    pub fn tell_missed(&self) {
        self.wake.overrun.store(true, Ordering::Release);
        self.wake.overran.notify_one();
    }

    fn tell(&self, told: Told) {
        if self.told.try_send(told).is_err() {
            self.tell_missed();
        }
    }
}

/// How many sessions there are, and deliveries on offer: for status and metrics. Clones show the same.
#[derive(Clone, Debug, Default)]
pub struct DeliveryGauges {
    gauges: Arc<Gauges>,
}

#[derive(Debug, Default)]
struct Gauges {
    sessions: AtomicUsize,
    offered: AtomicUsize,
}

impl DeliveryGauges {
    /// Stores that have a session with this relay.
    pub fn sessions(&self) -> usize {
        self.gauges.sessions.load(Ordering::Relaxed)
    }

    /// Deliveries that are offered or pulled.
    pub fn offered(&self) -> usize {
        self.gauges.offered.load(Ordering::Relaxed)
    }

    fn set(&self, (sessions, offered): (usize, usize)) {
        self.gauges.sessions.store(sessions, Ordering::Relaxed);
        self.gauges.offered.store(offered, Ordering::Relaxed);
    }
}

/// What all tasks of the deliveries share.
struct Shared {
    parts: DeliveryParts,
    location_key: LocationKey,
    drops: drops::Drops,
    meetings: Meetings,
    revocations: Revocations,
    events: mpsc::Sender<Event>,
    wake: Arc<Wake>,
    probes: Semaphore,
    pushes: Semaphore,
    dialling: probe::Dialling,
    stop: CancellationToken,
}

impl Shared {
    /// The key of the domain's location server; None while it is not known.
    async fn location_key(&self) -> Option<PeerId> {
        let ask = async {
            let answer = tokio::time::timeout(LOCATION_ANSWER_TIME_MAX, self.parts.location.domain()).await;
            answer.ok().and_then(Result::ok).map(|domain| domain.location)
        };
        self.location_key.get(ask).await
    }

    /// Tells the driver that a store pulls, or is pushed to.
    fn progress(&self, delivery: DeliveryId) {
        // Where the driver is behind, the next piece tells it.
        let _ = self.events.try_send(Event::Progress(delivery));
    }

    /// Tells the driver. Waits while it is behind; gives up when the relay stops.
    async fn tell(&self, event: Event) {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => {}
            _ = self.events.send(event) => {}
        }
    }
}

/// Hands deliveries over until `stop`.
pub async fn run(
    parts: DeliveryParts,
    inbox: DeliveryInbox,
    gauges: DeliveryGauges,
    stop: CancellationToken,
) {
    let (events, happened) = mpsc::channel(DELIVERY_EVENTS_MAX);
    let location_key = LocationKey::new(parts.location_key);
    let ping_interval = parts.ping_interval;
    let drops = drops::Drops::new(parts.drops, Arc::clone(&inbox.wake.tally));
    let shared = Arc::new(Shared {
        parts,
        location_key,
        drops,
        meetings: Meetings::default(),
        revocations: Revocations::default(),
        events,
        wake: inbox.wake,
        probes: Semaphore::new(PROBES_AT_ONCE_MAX),
        pushes: Semaphore::new(PUSHES_AT_ONCE_MAX),
        dialling: probe::Dialling::default(),
        stop,
    });
    let tasks = [
        tokio::spawn(peer::accept(Arc::clone(&shared))),
        tokio::spawn(presence::watch(Arc::clone(&shared))),
        tokio::spawn(keeper::keep(Arc::clone(&shared))),
        tokio::spawn(drops::fill(Arc::clone(&shared))),
    ];
    Driver::new(Arc::clone(&shared), ping_interval, gauges).run(happened, inbox.told).await;
    for task in tasks {
        let _ = task.await;
    }
}

#[cfg(test)]
mod tests;
