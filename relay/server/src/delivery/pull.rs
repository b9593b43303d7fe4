//! The bytes of a delivery, for who has a right to them.
//!
//! The right is the mailbox's (DESIGN §4): proved on this connection, or shown with the request by a further device. The
//! verified stream is made from the stored portions and the tree beside them; nothing is hashed again but what goes out.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use lighter_catalog::{Catalog, CatalogError, Delivery};
use lighter_protocol::blob::{Portion, PortionBlob, PortionSource};
use lighter_protocol::wire::{Get, Response};
use lighter_protocol::{Attestation, BlobId, DeliveryId, UnixTime};
use lighter_storage::{BlobPortions, StoredBlob};
use lighter_transport::{Responder, ServeError};
use tokio::time::Instant;

use super::Shared;
use super::peer::Peer;
use crate::limits::{LATER_SECONDS, PROGRESS_INTERVAL};

/// The blob that `get` asks for; None where there is none that the peer may read.
///
/// # Errors
/// The catalog does not say, to nobody.
pub(super) async fn find(peer: &Peer, get: &Get) -> Result<Option<StoredBlob>, CatalogError> {
    let (delivery, blob) = (get.delivery, get.blob);
    let found = peer.shared.parts.ledger.read(move |catalog| look_up(catalog, &delivery, &blob)).await;
    // Rights are looked at even where there is nothing, so that the answer takes as long.
    let location = peer.shared.location_key().await;
    let now = UnixTime::now();
    let shown = get.attestation.as_ref().zip(location).and_then(|(signed, location)| {
        Attestation::verify_of(signed, &location, &peer.id(), now).ok().map(|attestation| attestation.mailbox)
    });
    let Some((row, stored)) = found? else { return Ok(None) };
    let allowed = peer.acts_for(&row.mailbox, now) || shown.as_ref() == Some(&row.mailbox);
    Ok(stored.filter(|_| allowed && row.state.is_readable()))
}

pub(super) fn look_up(
    catalog: &dyn Catalog,
    delivery: &DeliveryId,
    blob: &BlobId,
) -> Result<Option<(Delivery, Option<StoredBlob>)>, CatalogError> {
    let Some(row) = catalog.delivery(delivery)? else { return Ok(None) };
    let Some(message) = catalog.message(&row.message)? else { return Ok(None) };
    let stored = std::iter::once(message.manifest)
        .chain(message.parts.into_iter().map(|part| part.blob))
        .find(|stored| stored.id == *blob);
    Ok(Some((row, stored)))
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
