//! The sender's side: while a recipient's store pulls, it is told who else has it, those that have receipted it meanwhile
//! among them.
//!
//! Whatever goes wrong here, the store pulls from the sender. One that does not know the message (an older agent) resets the
//! stream, and is not told again on that connection.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use lighter_protocol::limits::SHARINGS_MAX;
use lighter_protocol::wire::{Request, Response, Sources};
use lighter_protocol::{BlobId, PeerId, Sharing, Signed, UnixTime};
use lighter_store::{Outgoing, OutgoingState, Store, StoreError};
use lighter_transport::Connection;
use lighter_transport::error::ExchangeError;
use tokio::sync::Notify;
use tokio::time::sleep;

use super::is_worth;
use crate::limits::{SHARING_LIFE, SHARING_RENEWED_BEFORE};
use crate::shared::Handle;

/// Tells the store that `outgoing` is offered to, on this connection, each time that `others` says that there may be
/// something to tell, and in time before what was told is over.
pub(crate) async fn run(shared: Handle, connection: Connection, outgoing: Outgoing, others: Arc<Notify>) {
    let bytes = outgoing.blobs.iter().fold(0, |sum: u64, blob| sum.saturating_add(blob.size));
    if !is_worth(bytes) {
        return;
    }
    let mut told: HashMap<PeerId, UnixTime> = HashMap::new();
    loop {
        let sharings = new(&shared, &outgoing, connection.peer(), &told).await;
        if !sharings.is_empty() {
            let (signed, sharings): (Vec<_>, Vec<_>) = sharings.into_iter().unzip();
            let sources = Sources { delivery: outgoing.delivery, sharings: signed };
            match connection.request(&Request::Sources(sources)).await {
                Ok(Response::Noted) => {
                    tracing::debug!(store = %connection.peer(), count = sharings.len(), "told who else has it");
                    told.extend(sharings.iter().map(|sharing| (sharing.giver_store, sharing.expires)));
                }
                Ok(Response::Later(seconds)) => {
                    sleep(Duration::from_secs(u64::from(seconds).max(1))).await;
                    continue;
                }
                // It does not take part, or does not pull any more: perhaps after the next offer.
                Ok(_) => {}
                Err(ExchangeError::Peer(error)) => {
                    tracing::debug!(store = %connection.peer(), %error, "not told who else has it");
                    return;
                }
                Err(ExchangeError::Invalid(error)) => {
                    tracing::warn!(%error, "who else has it could not be told");
                    return;
                }
            }
        }
        tokio::select! {
            () = others.notified() => {}
            () = sleep(SHARING_RENEWED_BEFORE) => {}
        }
    }
}

/// What there is to tell, besides what was told.
async fn new(
    shared: &Handle,
    taker: &Outgoing,
    taker_store: PeerId,
    told: &HashMap<PeerId, UnixTime>,
) -> Vec<(Signed<Sharing>, Sharing)> {
    let (share, identity) = (shared.config.send.share, shared.identity.clone());
    let (taker, told, now) = (taker.clone(), told.clone(), UnixTime::now());
    let found = shared.blocking(move |store| {
        let givers = givers(store, &taker)?;
        let givers = givers.into_iter().filter(|giver| share.permits(&giver.recipient, &taker.recipient));
        let is_due = |giver: &Outgoing| match told.get(&giver.store) {
            Some(expires) => expires.since(now) <= SHARING_RENEWED_BEFORE,
            None => true,
        };
        let mut known = told.len();
        let mut sharings = Vec::new();
        for giver in givers.filter(|giver| giver.store != taker_store && is_due(giver)) {
            if !told.contains_key(&giver.store) {
                known += 1;
            }
            if known > SHARINGS_MAX {
                break;
            }
            let sharing = Sharing {
                delivery: giver.delivery,
                giver: giver.recipient,
                giver_store: giver.store,
                taker: taker.recipient.clone(),
                taker_store,
                expires: now.plus(SHARING_LIFE),
            };
            if let Ok(signed) = Signed::sign(&sharing, identity.keypair()) {
                sharings.push((signed, sharing));
            }
        }
        Ok::<_, StoreError>(sharings)
    });
    found.await.unwrap_or_else(|error| {
        tracing::warn!(%error, "who else has it cannot be looked up");
        Vec::new()
    })
}

/// The deliveries of others who have the same message, in the order for this one: receipted, and shown by the header as the
/// taker is.
fn givers(store: &Store, taker: &Outgoing) -> Result<Vec<Outgoing>, StoreError> {
    let all = store.shown(taker.manifest.id)?;
    if !all.iter().any(|outgoing| outgoing.delivery == taker.delivery) {
        return Ok(Vec::new());
    }
    let has_it = |outgoing: &Outgoing| {
        matches!(outgoing.state, OutgoingState::Released(_))
            && outgoing.recipient != taker.recipient
            && outgoing.blobs.iter().map(|blob| blob.id).eq(taker.blobs.iter().map(|blob| blob.id))
    };
    let mut givers: Vec<_> = all.into_iter().filter(has_it).collect();
    givers.sort_by_cached_key(|giver| order(giver, taker));
    Ok(givers)
}

/// The place of `giver` among those that `taker` is told of: another one for each, so that many takers do not all go to the
/// same few.
fn order(giver: &Outgoing, taker: &Outgoing) -> BlobId {
    BlobId::of(&[giver.delivery.0, taker.delivery.0].concat())
}

/// The recipient of `receipted` has it: those deliveries of the same message that are being offered, to whom that is to be
/// told.
pub(crate) async fn others(shared: &Handle, receipted: &Outgoing) -> Vec<Outgoing> {
    let (manifest, delivery) = (receipted.manifest.id, receipted.delivery);
    let shown = shared.blocking(move |store| store.shown(manifest)).await.unwrap_or_default();
    if !shown.iter().any(|outgoing| outgoing.delivery == delivery) {
        return Vec::new();
    }
    shown.into_iter().filter(|outgoing| outgoing.delivery != delivery && outgoing.is_held()).collect()
}
