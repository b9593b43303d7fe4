//! The loop around the queue: what happened goes in, what is to be done comes out and is done in tasks of its own,
//! whose outcome comes back as an event.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lighter_catalog::{Catalog, CatalogError, Delivery as Row, Message, Position};
use lighter_protocol::offer::Delivery;
use lighter_protocol::wire::{Offer, OfferedBlob, Request, Response};
use lighter_protocol::{DeliveryId, Mailbox, Now, PeerId, UnixTime};
use lighter_queue::{Command, Cursor, Deliveries, Presence, Probed};
use lighter_storage::StoredBlob;
use lighter_transport::Connection;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{DeliveryGauges, Shared, probe};

/// What happened, for the queue.
pub(super) enum Event {
    /// A store whose receipts release has a session; `dialled` where the relay opened the connection.
    Session { mailbox: Mailbox, connection: Connection, number: u64, dialled: bool },
    /// It said again that it is there.
    Again { mailbox: Mailbox },
    /// It is over.
    SessionClosed { mailbox: Mailbox, number: u64 },
    /// What waits for a mailbox.
    Page { mailbox: Mailbox, page: Option<(Vec<(Cursor, Delivery)>, bool)> },
    /// A store answered an offer; None: it did not.
    Answered { delivery: DeliveryId, response: Option<Response> },
    /// A store pulls.
    Progress(DeliveryId),
    /// A receipt is recorded.
    Receipted(DeliveryId),
    /// The location server said something of a store.
    Presence { mailbox: Mailbox, presence: Presence },
    /// Presence is told from now on, or no more.
    PresenceStream { live: bool },
    /// What came of looking for a store.
    Probed { mailbox: Mailbox, probed: Probed },
    /// For whom something waits.
    Mailboxes { page: Vec<(Mailbox, Presence)>, more: bool },
}

/// The owner of the queue.
pub(super) struct Driver {
    shared: Arc<Shared>,
    queue: Deliveries,
    /// All that live, by number: the queue knows of one for each mailbox, the others stand by.
    sessions: BTreeMap<u64, (Mailbox, Connection)>,
    chance: StdRng,
    gauges: DeliveryGauges,
}

impl Driver {
    pub(super) fn new(shared: Arc<Shared>, ping_interval: Option<Duration>, gauges: DeliveryGauges) -> Self {
        let chance = StdRng::from_rng(&mut rand::rng());
        Self { shared, queue: Deliveries::new(ping_interval), sessions: BTreeMap::new(), chance, gauges }
    }

    pub(super) async fn run(
        mut self,
        mut happened: mpsc::Receiver<Event>,
        mut committed: mpsc::Receiver<Mailbox>,
    ) {
        let wake = Arc::clone(&self.shared.wake);
        // Until the stream of presence is open, nobody tells.
        self.queue.handle_presence_stream(false, Now::read());
        loop {
            while let Some(command) = self.queue.poll() {
                self.obey(command);
            }
            self.gauges.set(self.queue.counts());
            // In this order: the end, what happened, what came in, what was missed, the time.
            tokio::select! {
                biased;
                () = self.shared.stop.cancelled() => return,
                Some(event) = happened.recv() => self.handle(event, Now::read()),
                Some(mailbox) = committed.recv() => {
                    // Its look-up for the message was a moment ago and may be old by now: the store is asked.
                    self.queue.handle_committed(&mailbox, Presence::Unknown, Now::read());
                }
                () = wake.overran.notified() => {
                    if wake.overrun.swap(false, Ordering::AcqRel) {
                        self.queue.handle_overrun(Now::read());
                    }
                }
                () = until(self.queue.next_time()) => self.queue.handle_time(Now::read()),
            }
        }
    }

    fn handle(&mut self, event: Event, now: Now) {
        match event {
            Event::Session { mailbox, connection, number, dialled } => {
                let store = connection.peer();
                // A store that comes by itself may have been restarted, and its session before be dead; what the relay
                // dialled in the same moment is no better than what is there.
                if !(dialled && self.stand_by(&mailbox).is_some()) {
                    self.queue.handle_session(&mailbox, store, number, now);
                }
                self.sessions.insert(number, (mailbox, connection));
            }
            Event::Again { mailbox } => self.queue.handle_committed(&mailbox, Presence::Online, now),
            Event::SessionClosed { mailbox, number } => {
                self.sessions.remove(&number);
                let was_current = self.queue.handle_session_closed(&mailbox, number);
                if let Some((number, store)) = self.stand_by(&mailbox).filter(|_| was_current) {
                    self.queue.handle_session(&mailbox, store, number, now);
                }
            }
            Event::Page { mailbox, page: Some((page, more)) } => {
                self.queue.handle_page(&mailbox, page, more, now, &mut self.chance);
            }
            Event::Page { mailbox, page: None } => self.queue.handle_page_lost(&mailbox),
            Event::Answered { delivery, response: Some(response) } => {
                self.queue.handle_response(&delivery, &response, now);
            }
            Event::Answered { delivery, response: None } => self.queue.handle_lost(&delivery, now),
            Event::Progress(delivery) => self.queue.handle_progress(&delivery, now),
            Event::Receipted(delivery) => self.queue.handle_ended(&delivery, now),
            Event::Presence { mailbox, presence } => {
                self.queue.handle_presence(&mailbox, presence, now, &mut self.chance);
            }
            Event::PresenceStream { live } => self.queue.handle_presence_stream(live, now),
            Event::Probed { mailbox, probed } => {
                self.queue.handle_probed(&mailbox, probed, now, &mut self.chance);
            }
            Event::Mailboxes { page, more } => {
                self.queue.handle_mailboxes(&page, more, now, &mut self.chance);
            }
        }
    }

    /// The latest session of a mailbox.
    fn stand_by(&self, mailbox: &Mailbox) -> Option<(u64, PeerId)> {
        let mut latest = self.sessions.iter().rev().filter(|(_, (of, _))| of == mailbox);
        latest.next().map(|(number, (_, connection))| (*number, connection.peer()))
    }

    fn obey(&mut self, command: Command) {
        let shared = Arc::clone(&self.shared);
        match command {
            Command::Fetch { mailbox, after, count_max } => {
                tokio::spawn(fetch(shared, mailbox, after, count_max));
            }
            Command::Offer { session, offer } => match self.sessions.get(&session) {
                Some((_, connection)) => {
                    tokio::spawn(send_offer(shared, connection.clone(), *offer));
                }
                // Its end is on its way here.
                None => self.queue.handle_lost(&offer.delivery, Now::read()),
            },
            Command::Probe { mailbox } => {
                tokio::spawn(probe::store(shared, mailbox));
            }
            Command::FetchMailboxes { after } => {
                tokio::spawn(probe::survey(shared, after));
            }
        }
    }
}

async fn until(time: Option<std::time::Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(Instant::from_std(time)).await,
        None => std::future::pending().await,
    }
}

async fn fetch(shared: Arc<Shared>, mailbox: Mailbox, after: Option<Cursor>, count_max: usize) {
    let of = mailbox.clone();
    let page = shared.parts.ledger.read(move |catalog| waiting(catalog, &of, after, count_max)).await;
    let page = page.inspect_err(|error| tracing::warn!(%error, "the catalog does not say what waits")).ok();
    shared.tell(Event::Page { mailbox, page }).await;
}

/// A page of what waits, as the queue takes it, and whether there is more.
fn waiting(
    catalog: &dyn Catalog,
    mailbox: &Mailbox,
    after: Option<Cursor>,
    count_max: usize,
) -> Result<(Vec<(Cursor, Delivery)>, bool), CatalogError> {
    let after = after.map(|(accepted, delivery)| Position { accepted, delivery });
    let mut rows = catalog.waiting(mailbox, after, count_max + 1)?;
    let more = rows.len() > count_max;
    rows.truncate(count_max);
    let mut page = Vec::with_capacity(rows.len());
    for row in rows {
        // One that was voided meanwhile is gone with its message.
        if let Some(message) = catalog.message(&row.message)? {
            page.push(((row.accepted, row.id), facts(&row, &message)));
        }
    }
    Ok((page, more))
}

/// A delivery as it is offered.
pub(super) fn facts(row: &Row, message: &Message) -> Delivery {
    let blob = |stored: &StoredBlob, name: &str, media_type: &str| OfferedBlob {
        id: stored.id,
        size: stored.size,
        name: name.to_owned(),
        media_type: media_type.to_owned(),
    };
    Delivery {
        id: row.id,
        mailbox: row.mailbox.clone(),
        manifest: blob(&message.manifest, "", ""),
        blobs: message.parts.iter().map(|part| blob(&part.blob, &part.name, &part.media_type)).collect(),
        sources: Vec::new(),
        expires: readable_until(row),
    }
}

/// Until when a delivery can be pulled: the storage servers keep it a while longer than was promised (DESIGN §8).
fn readable_until(row: &Row) -> UnixTime {
    row.expires.plus(lighter_catalog::limits::GRACE_DAYS).end()
}

async fn send_offer(shared: Arc<Shared>, connection: Connection, offer: Offer) {
    let delivery = offer.delivery;
    let store: PeerId = connection.peer();
    let response = match connection.request(&Request::Offer(offer)).await {
        Ok(response) => Some(response),
        Err(error) => {
            tracing::debug!(%delivery, %store, %error, "offer not answered");
            None
        }
    };
    shared.tell(Event::Answered { delivery, response }).await;
}
