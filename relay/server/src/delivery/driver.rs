//! The loop around the queue: what happened goes in, what is to be done comes out and is done in tasks of its own,
//! whose outcome comes back as an event.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lighter_catalog::{Catalog, CatalogError, Delivery as Row, Form, Message, Position};
use lighter_protocol::offer::Delivery;
use lighter_protocol::wire::{NewDrop, Offer, OfferedBlob, Response};
use lighter_protocol::{DeliveryId, Mailbox, Now, PeerId, UnixTime};
use lighter_queue::{Command, Cursor, Deliveries, Presence, Probed};
use lighter_storage::StoredBlob;
use lighter_transport::Connection;
use lighter_transport::limits::RESPONSE_TIME_MAX;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{DeliveryGauges, Shared, Told, probe, push};

/// What happened, for the queue.
pub(super) enum Event {
    /// A store whose receipts release has a session; `dialled` where the relay opened the connection.
    Session { mailbox: Mailbox, connection: Connection, number: u64, dialled: bool },
    /// It said again that it is there.
    Again { mailbox: Mailbox },
    /// It is over.
    SessionClosed { mailbox: Mailbox, number: u64 },
    /// What waits for a mailbox.
    Page { mailbox: Mailbox, page: Option<Page> },
    /// What another relay offered of it may be free now.
    Freed { mailbox: Mailbox },
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

/// What waits for a mailbox, as the queue takes it.
pub(super) struct Page {
    rows: Vec<(Cursor, Delivery)>,
    /// Whether there is more behind.
    more: bool,
    /// Another relay offers some of it: when that may be over.
    free_in: Option<Duration>,
}

/// The owner of the queue.
pub(super) struct Driver {
    shared: Arc<Shared>,
    queue: Deliveries,
    /// All that live, by number: the queue knows of one for each mailbox, the others stand by.
    sessions: BTreeMap<u64, (Mailbox, Connection)>,
    /// The same by mailbox: a hosted store has thousands of them.
    sessions_of: BTreeMap<Mailbox, BTreeSet<u64>>,
    /// Mailboxes that are looked at again when another relay's claims may be over.
    freed: BTreeSet<Mailbox>,
    chance: StdRng,
    gauges: DeliveryGauges,
}

impl Driver {
    pub(super) fn new(shared: Arc<Shared>, ping_interval: Option<Duration>, gauges: DeliveryGauges) -> Self {
        let chance = StdRng::from_rng(&mut rand::rng());
        let (sessions, sessions_of, freed) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        let queue = Deliveries::new(ping_interval);
        Self { shared, queue, sessions, sessions_of, freed, chance, gauges }
    }

    pub(super) async fn run(mut self, mut happened: mpsc::Receiver<Event>, mut told: mpsc::Receiver<Told>) {
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
                Some(told) = told.recv() => self.hear(told, Now::read()),
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
                self.sessions_of.entry(mailbox.clone()).or_default().insert(number);
                self.sessions.insert(number, (mailbox, connection));
            }
            Event::Again { mailbox } => self.queue.handle_committed(&mailbox, Presence::Online, now),
            Event::Freed { mailbox } => {
                self.freed.remove(&mailbox);
                self.queue.handle_waiting(&mailbox, now);
            }
            Event::SessionClosed { mailbox, number } => {
                self.sessions.remove(&number);
                if let Some(numbers) = self.sessions_of.get_mut(&mailbox) {
                    numbers.remove(&number);
                    if numbers.is_empty() {
                        self.sessions_of.remove(&mailbox);
                    }
                }
                let was_current = self.queue.handle_session_closed(&mailbox, number);
                match self.stand_by(&mailbox) {
                    Some((number, store)) if was_current => {
                        self.queue.handle_session(&mailbox, store, number, now);
                    }
                    Some(_) => {}
                    // Another relay may have a session of the same store.
                    None => {
                        tokio::spawn(give_back(Arc::clone(&self.shared), mailbox));
                    }
                }
            }
            Event::Page { mailbox, page: Some(Page { rows, more, free_in }) } => {
                if let Some(free_in) = free_in {
                    self.look_again(&mailbox, free_in);
                }
                self.queue.handle_page(&mailbox, rows, more, now, &mut self.chance);
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

    fn hear(&mut self, told: Told, now: Now) {
        match told {
            // Its look-up for the message was a moment ago and may be old by now: the store is asked.
            Told::Committed(mailbox) => self.queue.handle_committed(&mailbox, Presence::Unknown, now),
            Told::Waiting(mailbox) => self.queue.handle_waiting(&mailbox, now),
            Told::Ended(delivery) => self.queue.handle_ended(&delivery, now),
        }
    }

    /// The latest session of a mailbox.
    fn stand_by(&self, mailbox: &Mailbox) -> Option<(u64, PeerId)> {
        let number = self.sessions_of.get(mailbox)?.last()?;
        self.sessions.get(number).map(|(_, connection)| (*number, connection.peer()))
    }

    /// Looks at what waits for a mailbox again after a while; once, however often this is asked for.
    fn look_again(&mut self, mailbox: &Mailbox, after: Duration) {
        if self.freed.insert(mailbox.clone()) {
            let (shared, mailbox) = (Arc::clone(&self.shared), mailbox.clone());
            tokio::spawn(async move {
                tokio::time::sleep(after).await;
                shared.tell(Event::Freed { mailbox }).await;
            });
        }
    }

    fn obey(&mut self, command: Command) {
        let shared = Arc::clone(&self.shared);
        match command {
            Command::Fetch { mailbox, after, count_max } => {
                tokio::spawn(fetch(shared, mailbox, after, count_max));
            }
            Command::Offer { session, offer } => match self.sessions.get(&session) {
                Some((_, connection)) => {
                    let offer = Offer { sources: shared.wake.fellows(), ..*offer };
                    tokio::spawn(send_offer(shared, connection.clone(), offer));
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

/// A page of what waits, as the queue takes it: claimed for this relay. What another one offers is passed over.
fn waiting(
    catalog: &dyn Catalog,
    mailbox: &Mailbox,
    after: Option<Cursor>,
    count_max: usize,
) -> Result<Page, CatalogError> {
    let mut after = after.map(|(accepted, delivery)| Position { accepted, delivery });
    let mut page = Page { rows: Vec::with_capacity(count_max), more: true, free_in: None };
    // A page that is full of what another relay offers is no end.
    while page.more && page.rows.len() < count_max {
        let wanted = count_max - page.rows.len();
        let claimed = catalog.claim_waiting(mailbox, after, wanted)?;
        page.free_in = page.free_in.or(claimed.free_in);
        page.more = claimed.free_in.is_some() || claimed.rows.len() == wanted;
        page.more &= claimed.last.is_some();
        after = claimed.last;
        for row in claimed.rows {
            // One that was voided meanwhile is gone with its message.
            if let Some(message) = catalog.message(&row.message)? {
                page.rows.push(((row.accepted, row.id), facts(&row, &message)));
            }
        }
    }
    Ok(page)
}

async fn give_back(shared: Arc<Shared>, mailbox: Mailbox) {
    let given = shared.parts.ledger.read(move |catalog| catalog.give_back(&mailbox)).await;
    if let Err(error) = given {
        tracing::debug!(%error, "what was claimed for a session is free when the lease is over");
    }
}

/// A delivery as it is offered; a drop is marked as one.
pub(super) fn facts(row: &Row, message: &Message) -> Delivery {
    let is_drop = message.recipients.iter().any(|to| matches!(to.form, Form::Drop { .. }));
    let blob = |stored: &StoredBlob, name: &str, media_type: &str| OfferedBlob {
        id: stored.id,
        size: stored.size,
        name: name.to_owned(),
        media_type: media_type.to_owned(),
    };
    Delivery {
        id: row.id,
        mailbox: row.mailbox.clone(),
        manifest: blob(&message.manifest, "", if is_drop { NewDrop::MEDIA_TYPE } else { "" }),
        blobs: message.parts.iter().map(|part| blob(&part.blob, &part.name, &part.media_type)).collect(),
        sources: Vec::new(),
        expires: if is_drop { row.expires.end() } else { readable_until(row) },
    }
}

/// Until when a delivery can be pulled: the storage servers keep it a while longer than was promised (DESIGN §8).
fn readable_until(row: &Row) -> UnixTime {
    row.expires.plus(lighter_catalog::limits::GRACE_DAYS).end()
}

async fn send_offer(shared: Arc<Shared>, connection: Connection, offer: Offer) {
    let delivery = offer.delivery;
    let store: PeerId = connection.peer();
    let pushes = push::is_wanted(&shared, &offer);
    let response = match connection.offer(offer, pushes, RESPONSE_TIME_MAX).await {
        Ok(response) => Some(response),
        Err(error) => {
            tracing::debug!(%delivery, %store, %error, "offer not answered");
            None
        }
    };
    let wanted = match &response {
        Some(Response::PushAnswer(answer)) => Some(answer.wanted.clone()),
        _ => None,
    };
    shared.tell(Event::Answered { delivery, response }).await;
    if let Some(wanted) = wanted {
        push::run(&shared, connection, delivery, wanted).await;
    }
}
