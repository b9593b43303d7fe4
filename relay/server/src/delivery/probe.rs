//! Looking for stores: asked about at the location server, connected to, pinged (SPEC A18).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use lighter_protocol::{Mailbox, PeerId, UnixTime};
use lighter_queue::{Presence, Probed};
use lighter_transport::location::{self, StoreRecord};

use super::driver::Event;
use super::{Shared, peer};
use crate::limits::{LOCATION_ANSWER_TIME_MAX, LOOKED_UP_COUNTS, STORE_CONNECT_TIME_MAX, SURVEY_PAGE_LEN};

/// Until when something that the location server said at `now` counts.
pub(super) fn counts_until(now: UnixTime) -> UnixTime {
    now.plus(LOOKED_UP_COUNTS)
}

/// The store of a mailbox; `Err` where the location server cannot be asked.
pub(super) async fn look_up(shared: &Shared, mailbox: &Mailbox) -> Result<Option<StoreRecord>, ()> {
    let asked = shared.parts.location.lookup_one(&shared.parts.token, mailbox);
    match tokio::time::timeout(LOCATION_ANSWER_TIME_MAX, asked).await {
        Ok(Ok(record)) => Ok(record),
        Ok(Err(error)) => {
            tracing::debug!(%error, "the location server cannot be asked");
            Err(())
        }
        Err(_) => Err(()),
    }
}

/// Looks for the store of a mailbox that something waits for; where it answers, that connection is its session.
pub(super) async fn store(shared: Arc<Shared>, mailbox: Mailbox) {
    let probed = {
        let Ok(_turn) = shared.probes.acquire().await else { return };
        search(&shared, &mailbox).await
    };
    shared.tell(Event::Probed { mailbox, probed }).await;
}

async fn search(shared: &Arc<Shared>, mailbox: &Mailbox) -> Probed {
    let of = mailbox.clone();
    match shared.parts.ledger.read(move |catalog| catalog.waiting(&of, None, 1)).await {
        Ok(waiting) if waiting.is_empty() => return Probed::Needless,
        Ok(_) => {}
        Err(_) => return Probed::Unreachable,
    }
    let record = match look_up(shared, mailbox).await {
        Ok(Some(record)) => record,
        Ok(None) => return Probed::Needless,
        Err(()) => return Probed::Unreachable,
    };
    // One that only dials out comes by itself; so does one that is offline, and its presence is told.
    if !record.primary || record.addresses.is_empty() || record.presence == location::Presence::Offline {
        return Probed::Needless;
    }
    let limit: Duration = STORE_CONNECT_TIME_MAX;
    // A hosted store has many mailboxes (SPEC A29): one connection is enough for all of them.
    let turn = shared.dialling.of(record.peer);
    let _turn = turn.lock().await;
    if let Some(peer) = shared.meetings.connected(&record.peer)
        && peer.connection().ping(limit).await.is_ok()
    {
        peer.found(mailbox.clone(), counts_until(UnixTime::now())).await;
        return Probed::Reached;
    }
    match shared.parts.endpoint.connect(record.peer, &record.addresses, limit).await {
        Ok(connection) => {
            let found = Some((mailbox.clone(), counts_until(UnixTime::now())));
            tokio::spawn(peer::serve(Arc::clone(shared), connection, found));
            Probed::Reached
        }
        Err(error) => {
            tracing::debug!(store = %record.peer, %error, "store does not answer");
            Probed::Unreachable
        }
    }
}

/// Who is dialled now: each peer once at a time.
#[derive(Default)]
pub(super) struct Dialling(Mutex<HashMap<PeerId, Weak<tokio::sync::Mutex<()>>>>);

impl Dialling {
    fn of(&self, peer: PeerId) -> Arc<tokio::sync::Mutex<()>> {
        let mut dialled = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // As many as are looked for at a time.
        dialled.retain(|_, turn| turn.strong_count() > 0);
        let turn = dialled.get(&peer).and_then(Weak::upgrade).unwrap_or_default();
        dialled.insert(peer, Arc::downgrade(&turn));
        turn
    }
}

/// A page of the mailboxes that something waits for, and what the location server says of their stores.
pub(super) async fn survey(shared: Arc<Shared>, after: Option<Mailbox>) {
    // A turn behind the stores of the page before: however many there are, few are looked for at once.
    let Ok(_turn) = shared.probes.acquire().await else { return };
    let page =
        shared.parts.ledger.read(move |catalog| catalog.waiting_mailboxes(after.as_ref(), SURVEY_PAGE_LEN));
    let Ok(page) = page.await else { return };
    let more = page.len() == SURVEY_PAGE_LEN;
    let asked = shared.parts.location.lookup(&shared.parts.token, &page);
    // Where the location server cannot be asked, the next survey does.
    let Ok(Ok(records)) = tokio::time::timeout(LOCATION_ANSWER_TIME_MAX, asked).await else { return };
    let presence =
        |record: Option<StoreRecord>| record.map_or(Presence::Offline, |record| said(record.presence));
    let page = page.into_iter().zip(records.into_iter().map(presence)).collect();
    shared.tell(Event::Mailboxes { page, more }).await;
}

/// Presence in the queue's words.
pub(super) fn said(presence: location::Presence) -> Presence {
    match presence {
        location::Presence::Online => Presence::Online,
        location::Presence::Offline => Presence::Offline,
        location::Presence::Unknown => Presence::Unknown,
    }
}
