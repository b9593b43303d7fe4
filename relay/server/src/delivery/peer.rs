//! One connection: who is at the other end, and what they ask.
//!
//! A connection may read and receipt for the mailboxes that its peer proved to act for ([`Grant`]), by an attestation of
//! the domain's location server, until that ends. Requests run side by side; their number is the transport's bound.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lighter_protocol::limits::CLOCK_GRACE;
use lighter_protocol::wire::{Have, Request, Response, Waiting};
use lighter_protocol::{Attestation, Mailbox, PeerId, Releaser, Signed, Succession, UnixTime};
use lighter_transport::{Connection, IncomingRequest, Responder};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::driver::Event;
use super::{Shared, drops, pull, receipt};
use crate::limits::{CONNECTION_MAILBOXES_MAX, LATER_SECONDS, REFUSAL_TIME, WAITING_COUNT_MAX};

/// What a peer has proved about one mailbox.
#[derive(Clone, Debug)]
struct Grant {
    /// Since when: it was attested then, or looked up.
    since: UnixTime,
    /// Until when it counts.
    until: UnixTime,
    /// Where the store's receipts release: who may, and the session's number.
    primary: Option<(Releaser, u64)>,
}

/// A connection and what its peer has proved.
pub(super) struct Peer {
    pub(super) shared: Arc<Shared>,
    connection: Connection,
    grants: Mutex<BTreeMap<Mailbox, Grant>>,
    /// No grant ends before; in Unix seconds. A hosted store has thousands, so they are not looked through for each request.
    first_end: AtomicU64,
    /// Keys whose place this peer's key took, as they have said.
    formers: Mutex<Vec<PeerId>>,
}

/// Takes connections until the relay stops.
pub(super) async fn accept(shared: Arc<Shared>) {
    loop {
        tokio::select! {
            biased;
            () = shared.stop.cancelled() => return,
            connection = shared.parts.endpoint.accept() => match connection {
                Some(connection) => {
                    tokio::spawn(serve(Arc::clone(&shared), connection, None));
                }
                None => return,
            },
        }
    }
}

/// Serves one connection until it ends. `found`: the mailbox whose store this is, where the relay itself looked the
/// store up and connected, and how long that counts.
pub(super) async fn serve(shared: Arc<Shared>, connection: Connection, found: Option<(Mailbox, UnixTime)>) {
    let peer = Arc::new(Peer {
        shared,
        connection: connection.clone(),
        grants: Mutex::default(),
        first_end: AtomicU64::new(u64::MAX),
        formers: Mutex::default(),
    });
    peer.shared.meetings.add(&peer);
    if let Some((mailbox, until)) = found {
        peer.found(mailbox, until).await;
    }
    let mut requests = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = peer.shared.stop.cancelled() => break,
            incoming = connection.accept_request() => match incoming {
                Some(incoming) => {
                    let peer = Arc::clone(&peer);
                    requests.spawn(async move { peer.handle(incoming).await });
                }
                None => break,
            },
            () = peer.next_end() => peer.end_what_is_over(UnixTime::now()).await,
            Some(_) = requests.join_next() => {}
        }
    }
    peer.end_what_is_over(UnixTime(u64::MAX)).await;
    requests.shutdown().await;
    let (shared, id) = (Arc::clone(&peer.shared), peer.id());
    drop(peer);
    shared.meetings.sweep(&id);
}

impl Peer {
    /// Who is at the other end.
    pub(super) fn id(&self) -> PeerId {
        self.connection.peer()
    }

    /// The same, and the keys that it had before: what they left here is this peer's.
    pub(super) fn keys(&self) -> Vec<PeerId> {
        let formers = self.formers.lock().unwrap_or_else(PoisonError::into_inner);
        std::iter::once(self.id()).chain(formers.iter().copied()).collect()
    }

    /// Its key took the place of others.
    fn succeed(&self, successions: &[Signed<Succession>]) -> Response {
        let formers = Succession::formers(successions, &self.id());
        if formers.is_empty() {
            return Response::Refused;
        }
        *self.formers.lock().unwrap_or_else(PoisonError::into_inner) = formers;
        Response::Noted
    }

    /// The connection.
    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Whether it is connected, and has proved that it acts for `mailbox`.
    pub(super) fn is_there_for(&self, mailbox: &Mailbox, now: UnixTime) -> bool {
        !self.connection.is_closed() && self.acts_for(mailbox, now)
    }

    /// Whether the peer has proved, on this connection, that it acts for `mailbox`.
    pub(super) fn acts_for(&self, mailbox: &Mailbox, now: UnixTime) -> bool {
        self.grants().get(mailbox).is_some_and(|grant| now < grant.until)
    }

    /// Who may release deliveries of `mailbox`, if it is this peer.
    pub(super) fn releaser(&self, mailbox: &Mailbox, now: UnixTime) -> Option<Releaser> {
        let grants = self.grants();
        let grant = grants.get(mailbox).filter(|grant| now < grant.until)?;
        grant.primary.as_ref().map(|(releaser, _)| releaser.clone())
    }

    fn grants(&self) -> MutexGuard<'_, BTreeMap<Mailbox, Grant>> {
        self.grants.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The location server has just named it as the store of `mailbox`, which counts until then.
    pub(super) async fn found(&self, mailbox: Mailbox, until: UnixTime) {
        let has_more = |grant: &Grant| grant.primary.is_some() && until <= grant.until;
        if self.grants().get(&mailbox).is_some_and(has_more) {
            // What it has proved itself counts for longer.
            return self.shared.tell(Event::Again { mailbox }).await;
        }
        let releaser = Releaser::looked_up(mailbox.clone(), self.id(), until);
        self.grant(mailbox, UnixTime::now()..until, Some(releaser), true).await;
    }

    async fn handle(&self, incoming: IncomingRequest) {
        let IncomingRequest { request, responder } = incoming;
        let began = Instant::now();
        let response = match request {
            Request::Waiting(waiting) => self.waiting(&waiting).await,
            Request::Have(have) => self.have(&have).await,
            Request::Receipt(signed) => {
                let response = receipt::take(self, &signed).await;
                if let (Response::Later(_), Ok(claim)) = (&response, signed.claim()) {
                    // Who holds a receipt shows it again with the next offer, which is soon then.
                    self.shared.tell(Event::Answered { delivery: claim.delivery, response: None }).await;
                }
                response
            }
            Request::Get(get) => match pull::find(self, &get).await {
                Ok(Some(found)) => return pull::send(self, responder, &get, found).await,
                Ok(None) => Response::Refused,
                Err(error) => {
                    tracing::warn!(%error, "the catalog does not say who may read what");
                    Response::Later(LATER_SECONDS)
                }
            },
            Request::GetBlobs(get) => match pull::find_small(self, &get).await {
                Ok(Some(found)) => return pull::send_small(self, responder, &get, found).await,
                Ok(None) => Response::Refused,
                Err(error) => {
                    tracing::warn!(%error, "the catalog does not say who may read what");
                    Response::Later(LATER_SECONDS)
                }
            },
            Request::Drop(new) => drops::take(self, responder.connection(), new).await,
            Request::DropState(delivery) => drops::state(self, delivery).await,
            Request::Succession(successions) => self.succeed(&successions),
            Request::Meet(meet) => {
                let location = self.shared.location_key().await;
                self.shared.meetings.meet(&meet, &self.connection, location).await
            }
            // A relay pulls nothing but drops, gives to nobody at a sender's word, and connects to nobody at another's; the
            // transport answers pings.
            Request::Offer(_)
            | Request::PushOffer(_)
            | Request::Push(_)
            | Request::Sources(_)
            | Request::GetShared(_)
            | Request::Ping
            | Request::Knock(_)
            | Request::Here(_) => Response::Refused,
        };
        if response == Response::Refused {
            refuse(responder, began).await;
        } else {
            answer(responder, &response).await;
        }
    }

    /// A store is online, and shows for whom.
    async fn waiting(&self, waiting: &Waiting) -> Response {
        let Some(location) = self.shared.location_key().await else { return Response::Later(LATER_SECONDS) };
        let now = UnixTime::now();
        let verified = Attestation::verify_of(&waiting.attestation, &location, &self.id(), now);
        let attestation = match verified {
            Ok(attestation) => attestation,
            Err(error) => {
                tracing::info!(peer = %self.id(), %error, "session refused");
                return Response::Refused;
            }
        };
        if !self.shared.revocations.allow(&attestation) {
            tracing::info!(peer = %self.id(), "session refused: the key was revoked");
            return Response::Refused;
        }
        let mailbox = attestation.mailbox;
        let is_new = !self.grants().contains_key(&mailbox);
        if is_new && self.grants().len() >= CONNECTION_MAILBOXES_MAX {
            return Response::Refused;
        }
        let releaser = Releaser::attested(&waiting.attestation, &location, &mailbox, now).ok();
        let counts = attestation.issued..attestation.expires.plus(CLOCK_GRACE);
        self.grant(mailbox.clone(), counts, releaser, false).await;
        let count = self.shared.parts.ledger.read(move |catalog| {
            let waiting = catalog.waiting(&mailbox, None, WAITING_COUNT_MAX)?;
            Ok(u64::try_from(waiting.len()).unwrap_or(u64::MAX))
        });
        match count.await {
            Ok(count) => Response::Waiting(count),
            Err(_) => Response::Later(LATER_SECONDS),
        }
    }

    /// Notes what the peer has proved; a store whose receipts release has a session from then on.
    async fn grant(
        &self,
        mailbox: Mailbox,
        counts: Range<UnixTime>,
        releaser: Option<Releaser>,
        dialled: bool,
    ) {
        let Range { start: since, end: until } = counts;
        let before =
            self.grants().get(&mailbox).and_then(|grant| grant.primary.as_ref().map(|(_, number)| *number));
        let number = before.unwrap_or_else(next_session);
        let primary = releaser.map(|releaser| (releaser, number));
        let event = match (before, &primary) {
            (None, Some(_)) => {
                let connection = self.connection.clone();
                Some(Event::Session { mailbox: mailbox.clone(), connection, number, dialled })
            }
            (Some(_), Some(_)) => Some(Event::Again { mailbox: mailbox.clone() }),
            (Some(_), None) => Some(Event::SessionClosed { mailbox: mailbox.clone(), number }),
            (None, None) => None,
        };
        self.grants().insert(mailbox, Grant { since, until, primary });
        self.first_end.fetch_min(until.0, Ordering::AcqRel);
        if let Some(event) = event {
            self.shared.tell(event).await;
        }
    }

    /// It acts for `mailbox` no more, where what it has proved is not of later than `at`.
    pub(super) async fn revoke(&self, mailbox: &Mailbox, at: UnixTime) {
        let revoked = {
            let mut grants = self.grants();
            let is_meant = grants.get(mailbox).is_some_and(|grant| grant.since <= at);
            if is_meant { grants.remove(mailbox) } else { None }
        };
        let Some(grant) = revoked else { return };
        tracing::info!(peer = %self.id(), "a store's key was revoked: its session ends");
        if let Some((_, number)) = grant.primary {
            self.shared.tell(Event::SessionClosed { mailbox: mailbox.clone(), number }).await;
        }
    }

    /// Waits until the first of the grants is over.
    async fn next_end(&self) {
        match self.first_end.load(Ordering::Acquire) {
            u64::MAX => std::future::pending().await,
            until => sleep_until(Instant::now() + UnixTime(until).since(UnixTime::now())).await,
        }
    }

    /// Ends the sessions that are over at `now`.
    async fn end_what_is_over(&self, now: UnixTime) {
        let mut over = Vec::new();
        {
            let mut grants = self.grants();
            grants.retain(|mailbox, grant| {
                let goes_on = now < grant.until;
                if let (false, Some((_, number))) = (goes_on, &grant.primary) {
                    over.push((mailbox.clone(), *number));
                }
                goes_on
            });
            let first = grants.values().map(|grant| grant.until.0).min();
            self.first_end.store(first.unwrap_or(u64::MAX), Ordering::Release);
        }
        for (mailbox, number) in over {
            self.shared.tell(Event::SessionClosed { mailbox, number }).await;
        }
    }

    /// Whether the relay still has a delivery, for who may read it; nothing else is said.
    async fn have(&self, have: &Have) -> Response {
        let Have::Delivery(id) = *have else { return Response::Refused };
        match self.shared.parts.ledger.read(move |catalog| catalog.delivery(&id)).await {
            Ok(Some(row)) if self.acts_for(&row.mailbox, UnixTime::now()) => {
                Response::Have(row.state.is_readable())
            }
            Ok(_) => Response::Refused,
            Err(_) => Response::Later(LATER_SECONDS),
        }
    }
}

/// Sessions are told apart by number, for as long as the process lives.
fn next_session() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// The one answer for everything not allowed, not known, not accepted, after the same time.
async fn refuse(responder: Responder, began: Instant) {
    sleep_until(began + REFUSAL_TIME).await;
    answer(responder, &Response::Refused).await;
}

async fn answer(responder: Responder, response: &Response) {
    let peer = responder.peer();
    if let Err(error) = responder.respond(response).await {
        tracing::debug!(%peer, %error, "answer not sent");
    }
}
