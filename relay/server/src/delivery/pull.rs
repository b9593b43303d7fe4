//! The bytes of a delivery, for who has a right to them.
//!
//! The right is the mailbox's (DESIGN §4): proved on this connection, or shown with the request by a further device. The
//! verified stream is made from the stored portions and the tree beside them; nothing is hashed again but what goes out.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use lighter_catalog::{Catalog, CatalogError, Delivery};
use lighter_protocol::blob::{self, Portion, PortionBlob, PortionSource};
use lighter_protocol::wire::{Get, GetBlobs, Response};
use lighter_protocol::{Attestation, BlobId, DeliveryId, Mailbox, Signed, UnixTime};
use lighter_storage::{BlobPortions, StoredBlob};
use lighter_transport::{GiveUp, Responder, ServeError};
use tokio::time::Instant;

use super::Shared;
use super::peer::Peer;
use crate::limits::{LATER_SECONDS, PROGRESS_INTERVAL, SMALL_READS_MAX};

/// The blob that `get` asks for; None where there is none that the peer may read.
///
/// # Errors
/// The catalog does not say, to nobody.
pub(super) async fn find(peer: &Peer, get: &Get) -> Result<Option<StoredBlob>, CatalogError> {
    let (delivery, blob) = (get.delivery, get.blob);
    let found = peer.shared.parts.ledger.read(move |catalog| look_up(catalog, &delivery, &blob)).await;
    let may_read = Rights::of(peer, get.attestation.as_ref()).await;
    let Some((row, stored)) = found? else { return Ok(None) };
    Ok(stored.filter(|_| may_read.read(&row)))
}

/// The small blobs that `get` asks for, in its order; None where the peer may not read one of them, or one is not small.
///
/// # Errors
/// The catalog does not say, to nobody.
pub(super) async fn find_small(peer: &Peer, get: &GetBlobs) -> Result<Option<Vec<StoredBlob>>, CatalogError> {
    let (delivery, blobs) = (get.delivery, get.blobs.clone());
    let found = peer.shared.parts.ledger.read(move |catalog| look_up_all(catalog, &delivery, &blobs)).await;
    let may_read = Rights::of(peer, get.attestation.as_ref()).await;
    Ok(found?.filter(|(row, _)| may_read.read(row)).map(|(_, stored)| stored))
}

/// What a peer may read now. Looked at even where there is nothing, so that the answer takes as long.
struct Rights<'p> {
    peer: &'p Peer,
    /// The mailbox that it has shown with the request to act for.
    shown: Option<Mailbox>,
    now: UnixTime,
}

impl<'p> Rights<'p> {
    async fn of(peer: &'p Peer, attestation: Option<&Signed<Attestation>>) -> Self {
        let location = peer.shared.location_key().await;
        let now = UnixTime::now();
        let shown = attestation.zip(location).and_then(|(signed, location)| {
            let attestation = Attestation::verify_of(signed, &location, &peer.id(), now);
            let attestation = attestation.ok()?;
            peer.shared.revocations.allow(&attestation).then_some(attestation.mailbox)
        });
        Self { peer, shown, now }
    }

    fn read(&self, row: &Delivery) -> bool {
        let allowed = self.peer.acts_for(&row.mailbox, self.now) || self.shown.as_ref() == Some(&row.mailbox);
        allowed && row.state.is_readable()
    }
}

pub(super) fn look_up(
    catalog: &dyn Catalog,
    delivery: &DeliveryId,
    blob: &BlobId,
) -> Result<Option<(Delivery, Option<StoredBlob>)>, CatalogError> {
    let Some((row, mut stored)) = stored(catalog, delivery)? else { return Ok(None) };
    Ok(Some((row, stored.find(|stored| stored.id == *blob))))
}

/// As [`look_up`], of small blobs; none where one of them is not the delivery's, or not small.
fn look_up_all(
    catalog: &dyn Catalog,
    delivery: &DeliveryId,
    blobs: &[BlobId],
) -> Result<Option<(Delivery, Vec<StoredBlob>)>, CatalogError> {
    let Some((row, stored)) = stored(catalog, delivery)? else { return Ok(None) };
    let small = stored.filter(|stored| blob::is_small(stored.size));
    let small: HashMap<_, _> = small.map(|stored| (stored.id, stored)).collect();
    let all = blobs.iter().map(|blob| small.get(blob).cloned()).collect::<Option<_>>();
    Ok(all.map(|all| (row, all)))
}

/// What is stored of a delivery: the manifest first.
fn stored(
    catalog: &dyn Catalog,
    delivery: &DeliveryId,
) -> Result<Option<(Delivery, impl Iterator<Item = StoredBlob>)>, CatalogError> {
    let Some(row) = catalog.delivery(delivery)? else { return Ok(None) };
    let Some(message) = catalog.message(&row.message)? else { return Ok(None) };
    let parts = message.parts.into_iter().map(|part| part.blob);
    Ok(Some((row, std::iter::once(message.manifest).chain(parts))))
}

/// Sends what `get` asks for of `stored`.
pub(super) async fn send(peer: &Peer, responder: Responder, get: &Get, stored: StoredBlob) {
    let array = &peer.shared.parts.array;
    let tree = match array.blob_tree(&stored).await {
        Ok(tree) => tree,
        Err(error) => {
            tracing::warn!(delivery = %get.delivery, %error, "a blob cannot be read now");
            let _ = responder.respond(&Response::Later(LATER_SECONDS)).await;
            return;
        }
    };
    let source = Told::new(&peer.shared, get.delivery, array.portions(&stored));
    let blob = PortionBlob::new(Arc::new(tree), Arc::new(source));
    match responder.serve(get, stored.size, blob.clone(), blob).await {
        Ok(bytes) => tracing::debug!(delivery = %get.delivery, blob = %get.blob, bytes, "sent"),
        Err(error @ (ServeError::Read(_) | ServeError::Damaged { .. })) => {
            tracing::error!(delivery = %get.delivery, blob = %get.blob, %error, "a stored blob cannot be sent");
        }
        Err(error @ (ServeError::Peer(_) | ServeError::Held)) => {
            tracing::debug!(delivery = %get.delivery, %error, "not sent to its end");
        }
    }
}

/// Sends small blobs, one behind the other. Where one cannot be read now, none is: asked for one by one, it is seen which.
pub(super) async fn send_small(peer: &Peer, responder: Responder, get: &GetBlobs, stored: Vec<StoredBlob>) {
    let delivery = get.delivery;
    peer.shared.progress(delivery);
    let array = &peer.shared.parts.array;
    let read = stored.into_iter().map(|stored| {
        let portions = array.portions(&stored);
        async move { Ok::<_, io::Error>((stored.id, portions.portion(0).await?.bytes)) }
    });
    let blobs: Vec<_> = match stream::iter(read).buffered(SMALL_READS_MAX).try_collect().await {
        Ok(blobs) => blobs,
        Err(error) => {
            tracing::warn!(%delivery, %error, "small blobs cannot be read now");
            return responder.give_up(GiveUp::Damaged);
        }
    };
    match responder.serve_small(&blobs, None).await {
        Ok(bytes) => tracing::debug!(%delivery, blobs = blobs.len(), bytes, "sent"),
        Err(error @ (ServeError::Read(_) | ServeError::Damaged { .. })) => {
            tracing::error!(%delivery, %error, "a stored blob cannot be sent");
        }
        Err(error @ (ServeError::Peer(_) | ServeError::Held)) => {
            tracing::debug!(%delivery, %error, "not sent to its end");
        }
    }
    peer.shared.progress(delivery);
}

/// A blob's portions, with word to the driver that the store gets them: a large pull is no idle one.
pub(super) struct Told<'s> {
    shared: &'s Shared,
    delivery: DeliveryId,
    portions: BlobPortions,
    told: Mutex<Instant>,
}

impl<'s> Told<'s> {
    /// Those of a stream that begins now.
    pub(super) fn new(shared: &'s Shared, delivery: DeliveryId, portions: BlobPortions) -> Self {
        shared.progress(delivery);
        Self { shared, delivery, portions, told: Mutex::new(Instant::now()) }
    }
}

impl PortionSource for Told<'_> {
    async fn portion(&self, index: u64) -> io::Result<Portion> {
        let due = {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            let due = told.elapsed() >= PROGRESS_INTERVAL;
            if due {
                *told = Instant::now();
            }
            due
        };
        if due {
            self.shared.progress(self.delivery);
        }
        self.portions.portion(index).await
    }
}
