//! Drops: what a sender leaves here, sealed, for a store that is not there (SPEC A7; DESIGN §6 "drop").
//!
//! A sender's agent shows an introduction by the domain's location server and names the sealed blobs. They are pulled over
//! the connection that it asks on, written through to the array, and become one message of the catalog, for which there
//! is nothing to hand over; only then is it answered `Taken`. From there on it is offered like every other delivery.
//!
//! - `tally`: how much is held for whom and by whom, and what there is still room for;
//! - `taking`: one drop on its way in.
//!
//! Sound because nothing is answered before the commit (DESIGN §3 rule 1), and a delivery's number is its first sender's:
//! whoever else names it hears what they would hear of one that does not exist. Asked again, by who may, it goes on where
//! it was (as long as this process lives and the sender is not gone for long), or says at once that it has it.

mod taking;
mod tally;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lighter_catalog::{Catalog, CatalogError, Change, DeliveryState, Form, Message, Position};
use lighter_protocol::pull::Door;
use lighter_protocol::wire::{DropAnswer, DropState, LaterReason, NewDrop, NoReason, Response};
use lighter_protocol::{DeliveryId, Mailbox, PeerId, UnixTime};
use lighter_storage::Class;
use lighter_transport::Connection;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::Shared;
use super::peer::Peer;
use crate::config::DropsConfig;
use crate::limits::{
    DROP_FILL_PAGE_LEN, DROPS_AT_ONCE_MAX, DROPS_OF_PEER_MAX, DROPS_OPEN_MAX, DROPS_OPEN_TIME, LATER_SECONDS,
};
use taking::Taking;
pub(super) use tally::Tally;
use tally::{Holding, Wanted};

/// The bytes of a sealed blob that holds nothing: a tag.
const SEALED_SIZE_MIN: u64 = 16;

/// What all drops on their way in share.
pub(super) struct Drops {
    config: DropsConfig,
    door: Mutex<Door>,
    open: Mutex<HashMap<DeliveryId, Arc<Taking>>>,
    room: Semaphore,
    tally: Arc<Mutex<Tally>>,
}

impl Drops {
    pub(super) fn new(config: DropsConfig, tally: Arc<Mutex<Tally>>) -> Self {
        Self {
            config,
            door: Mutex::default(),
            open: Mutex::default(),
            room: Semaphore::new(DROPS_AT_ONCE_MAX),
            tally,
        }
    }

    fn open(&self) -> MutexGuard<'_, HashMap<DeliveryId, Arc<Taking>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        lock(&self.tally)
    }
}

/// The tally, whoever panicked over it: it is only ever added to and taken from.
pub(super) fn lock(tally: &Mutex<Tally>) -> MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a change means for what is held.
pub(super) fn observe(tally: &Mutex<Tally>, change: &Change) {
    match change {
        Change::Accepted(message) => {
            if let Some((delivery, holding)) = holding_of(message) {
                lock(tally).hold(delivery, holding);
            }
        }
        Change::Receipted { delivery, .. }
        | Change::Released { delivery }
        | Change::Expired { delivery, .. } => {
            lock(tally).let_go(delivery);
        }
        Change::Voided(message) => lock(tally).void(message),
        _ => {}
    }
}

/// What a message holds, if it is a drop.
fn holding_of(message: &Message) -> Option<(DeliveryId, Holding)> {
    let [recipient] = message.recipients.as_slice() else { return None };
    let (Form::Drop { delivery, .. }, Some(mailbox)) = (&recipient.form, &recipient.mailbox) else {
        return None;
    };
    let sender: Mailbox = message.envelope.reverse_path.parse().ok()?;
    let holding = Holding {
        recipient: mailbox.clone(),
        domain: sender.domain().to_owned(),
        bytes: message.blobs().fold(0, |sum, blob| sum.saturating_add(blob.size)),
        message: Some(message.id),
    };
    Some((*delivery, holding))
}

/// Counts what is held from before this start. Until then nothing is taken, since nobody knows whether there is room.
pub(super) async fn fill(shared: Arc<Shared>) {
    let (mut mailbox, mut after) = (None::<Mailbox>, None::<Position>);
    loop {
        let (from, behind) = (mailbox.clone(), after);
        let page = shared.parts.ledger.read(move |catalog| page(catalog, from, behind)).await;
        match page {
            Ok(Page { held, next: Some((next, position)) }) => {
                let mut tally = shared.drops.tally();
                held.into_iter().for_each(|(delivery, holding)| tally.hold(delivery, holding));
                (mailbox, after) = (Some(next), position);
            }
            Ok(Page { held, next: None }) => {
                let mut tally = shared.drops.tally();
                held.into_iter().for_each(|(delivery, holding)| tally.hold(delivery, holding));
                tally.complete();
                return;
            }
            Err(error) => {
                tracing::warn!(%error, "the catalog does not say what was left here");
                tokio::select! {
                    () = shared.stop.cancelled() => return,
                    () = tokio::time::sleep(std::time::Duration::from_secs(LATER_SECONDS.into())) => {}
                }
            }
        }
    }
}

/// Some of the drops that wait, and where to go on.
struct Page {
    held: Vec<(DeliveryId, Holding)>,
    next: Option<(Mailbox, Option<Position>)>,
}

/// The next page of what waits for `mailbox`, behind `after`; of the first mailbox of all where there is none.
fn page(
    catalog: &dyn Catalog,
    mailbox: Option<Mailbox>,
    after: Option<Position>,
) -> Result<Page, CatalogError> {
    let following =
        |after: Option<&Mailbox>| catalog.waiting_mailboxes(after, 1).map(|mut found| found.pop());
    let Some(mailbox) = mailbox.map_or_else(|| following(None), |mailbox| Ok(Some(mailbox)))? else {
        return Ok(Page { held: Vec::new(), next: None });
    };
    let rows = catalog.waiting(&mailbox, after, DROP_FILL_PAGE_LEN)?;
    let mut held = Vec::new();
    for row in rows.iter().filter(|row| row.state == DeliveryState::Dropped) {
        if let Some(message) = catalog.message(&row.message)? {
            held.extend(holding_of(&message));
        }
    }
    let next = match rows.last() {
        Some(last) if rows.len() == DROP_FILL_PAGE_LEN => Some((mailbox, Some(last.position()))),
        _ => following(Some(&mailbox))?.map(|next| (next, None)),
    };
    Ok(Page { held, next })
}

/// Takes a drop; the answer to it, once all of it is durable here, or it is known that it will not be taken.
pub(super) async fn take(peer: &Peer, connection: &Connection, new: NewDrop) -> Response {
    let shared = &peer.shared;
    let Some(location) = shared.location_key().await else { return Response::Later(LATER_SECONDS) };
    let now = UnixTime::now();
    let admitted = {
        let mut door = shared.drops.door.lock().unwrap_or_else(PoisonError::into_inner);
        door.admit_drop(&new, &peer.id(), &location, now)
    };
    let introduction = match admitted {
        Ok(introduction) => introduction,
        Err(error) => {
            tracing::info!(peer = %peer.id(), %error, "drop refused");
            return Response::Refused;
        }
    };
    let keys = peer.keys();
    match known(shared, &new, keys.clone()).await {
        Ok(Known::Here { until }) => return Response::Dropped(DropAnswer::Taken { until }),
        Ok(Known::Another) => return Response::Refused,
        Ok(Known::Nothing) => {}
        Err(_) => return Response::Later(LATER_SECONDS),
    }
    let opened = open(shared, &keys, connection, &new, introduction.sender_mailbox.domain(), now);
    let taking = match opened {
        Ok(taking) => taking,
        Err(Refusal::Says(answer)) => return Response::Dropped(answer),
        Err(Refusal::Another) => return Response::Refused,
    };
    // In a task of its own: what was written so far is noted, however the connection ends.
    let running = taking::run(Arc::clone(shared), taking, new, connection.clone(), introduction);
    tokio::spawn(running).await.unwrap_or(Response::Later(LATER_SECONDS))
}

/// What the catalog knows of a delivery's number.
enum Known {
    /// This drop of this sender's.
    Here { until: UnixTime },
    /// Something else.
    Another,
    /// Nothing.
    Nothing,
}

async fn known(shared: &Shared, new: &NewDrop, keys: Vec<PeerId>) -> Result<Known, CatalogError> {
    let (id, envelope) = (new.delivery, new.envelope.id);
    let known = move |catalog: &dyn Catalog| {
        let Some(row) = catalog.delivery(&id)? else { return Ok(Known::Nothing) };
        let message = catalog.message(&row.message)?;
        let is_same =
            message.is_some_and(|message| message.manifest.id == envelope && is_by(&message, &keys));
        Ok(if is_same { Known::Here { until: row.expires.end() } } else { Known::Another })
    };
    shared.parts.ledger.read(known).await
}

/// Who dropped a message.
fn sender_of(message: &Message) -> Option<PeerId> {
    message.recipients.iter().find_map(|recipient| match recipient.form {
        Form::Drop { from, .. } => Some(from),
        _ => None,
    })
}

/// Whether it was dropped by who has these keys, the present one and those of before.
fn is_by(message: &Message, keys: &[PeerId]) -> bool {
    sender_of(message).is_some_and(|from| keys.contains(&from))
}

/// Why a drop does not begin.
enum Refusal {
    Says(DropAnswer),
    /// Somebody else is about to leave something under this number.
    Another,
}

/// Begins a drop, or goes on with it: of who has these keys, the present one first.
fn open(
    shared: &Shared,
    keys: &[PeerId],
    connection: &Connection,
    new: &NewDrop,
    domain: &str,
    now: UnixTime,
) -> Result<Arc<Taking>, Refusal> {
    let drops = &shared.drops;
    let says = |answer| Err(Refusal::Says(answer));
    if !drops.config.accept || new.parts().any(|blob| blob.size < SEALED_SIZE_MIN) {
        return says(DropAnswer::No(NoReason::NotAccepted));
    }
    if new.bytes() > drops.config.bytes_max || new.envelope.size > lighter_sealing::ENVELOPE_LEN_MAX as u64 {
        return says(DropAnswer::No(NoReason::TooLarge));
    }
    let mut open = drops.open();
    sweep(drops, &mut open, Instant::now());
    if let Some(taking) = open.get(&new.delivery) {
        if !keys.contains(&taking.from) {
            return Err(Refusal::Another);
        }
        // The sender came back, perhaps before the old connection's end was noticed.
        if taking.go_on(connection) && taking.is_of(new) {
            return Ok(Arc::clone(taking));
        }
        if taking.is_running() {
            return says(DropAnswer::Later(LaterReason::Busy));
        }
        open.remove(&new.delivery);
        drops.tally().let_go(&new.delivery);
    }
    let from = *keys.first().ok_or(Refusal::Another)?;
    let of_peer = open.values().filter(|taking| taking.from == from).count();
    if open.len() >= DROPS_OPEN_MAX || of_peer >= DROPS_OF_PEER_MAX {
        return says(DropAnswer::Later(LaterReason::Busy));
    }
    let wanted = Wanted { recipient: &new.recipient, domain, bytes: new.bytes() };
    if let Err(reason) = drops.tally().reserve(new.delivery, wanted, &drops.config, Instant::now()) {
        return says(DropAnswer::Later(reason));
    }
    let days = days(new.expires, now, drops.config.days);
    let class = Class::for_days(days).unwrap_or(Class::Days365);
    let taking = Arc::new(Taking::new(from, new, connection.clone(), class, days));
    open.insert(new.delivery, Arc::clone(&taking));
    Ok(taking)
}

/// Forgets drops whose sender has not come back.
fn sweep(drops: &Drops, open: &mut HashMap<DeliveryId, Arc<Taking>>, now: Instant) {
    open.retain(|delivery, taking| {
        let stays = taking.is_running() || now.duration_since(taking.used()) < DROPS_OPEN_TIME;
        if !stays {
            drops.tally().let_go(delivery);
        }
        stays
    });
}

/// For how many days a drop is kept: as many as its sender wants, a day at least, and not more than is set.
fn days(expires: UnixTime, now: UnixTime, days_max: u32) -> u32 {
    let wanted = expires.day().0.saturating_sub(now.day().0);
    wanted.clamp(1, days_max.max(1))
}

/// What has become of a drop, for who left it.
pub(super) async fn state(peer: &Peer, id: DeliveryId) -> Response {
    let keys = peer.keys();
    let state = peer.shared.parts.ledger.read(move |catalog| {
        let Some(row) = catalog.delivery(&id)? else { return Ok(None) };
        let message = catalog.message(&row.message)?;
        if !message.is_some_and(|message| is_by(&message, &keys)) {
            return Ok(None);
        }
        Ok(Some(match (catalog.receipt_of_drop(&id)?, row.state) {
            (Some(receipt), _) => DropState::Receipted(receipt),
            (None, DeliveryState::Expired) => DropState::Expired,
            (None, _) => DropState::Waiting,
        }))
    });
    match state.await {
        Ok(Some(state)) => Response::DropState(state),
        Ok(None) => Response::Refused,
        Err(_) => Response::Later(LATER_SECONDS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drop_is_kept_as_long_as_its_sender_wants_and_no_longer_than_is_set() {
        let now = UnixTime(20_000 * 86_400 + 100);
        let in_days = |days: u64| UnixTime(now.0 + days * 86_400);
        assert_eq!(days(in_days(7), now, 30), 7);
        assert_eq!(days(in_days(100), now, 30), 30);
        assert_eq!(days(now, now, 30), 1);
        assert_eq!(days(UnixTime(0), now, 30), 1);
    }
}
