//! The giver's side: what of a delivery another recipient of the same message may read.
//!
//! Sound because everything is asked for that must be so: the sender of the delivery said it, for this store and for the peer
//! at the other end; its user shares with them; one of the own domain proves with the own location server's word that they
//! are who the sender says; and the bytes came here by this sender's delivery (`Store::is_brought`), so that a sender
//! gives nothing that it only knows the hash of. Everything else is `Refused`, whatever was wrong.

use lighter_protocol::wire::GetShared;
use lighter_protocol::{Attestation, PeerId, Sharing, UnixTime};
use lighter_store::{BlobFiles, IncomingState, StoreError};
use lighter_transport::limiter::{Class, Transfer};

use super::Share;
use crate::shared::Handle;

/// The files of what `asked` asks for, if `peer` may read it, and what it is to the line.
pub(crate) async fn readable(
    shared: &Handle,
    asked: &GetShared,
    peer: PeerId,
) -> Option<(BlobFiles, Transfer)> {
    let share = shared.share();
    if share == Share::Off || shared.hosted.is_on() {
        return None;
    }
    let (delivery, blob) = (asked.get.delivery, asked.get.blob);
    let found = shared.blocking(move |store| {
        let Some(incoming) = store.incoming(delivery)? else { return Ok(None) };
        Ok::<_, StoreError>(store.is_brought(delivery, blob)?.then_some(incoming))
    });
    let found = found.await.inspect_err(|error| tracing::warn!(%error, "the index cannot be read"));
    let incoming = found.ok().flatten()?;
    // What a relay offered was not offered by who sent it.
    let is_senders = !shared.is_own_relay(&incoming.from) && incoming.mailbox == *shared.mailbox();
    if !is_senders || !matches!(incoming.state, IncomingState::Receipted(_)) {
        return None;
    }
    let (own, now) = (shared.identity.peer(), UnixTime::now());
    let giver = (&own, &incoming.mailbox);
    let sharing = Sharing::verify_to_give(&asked.sharing, &incoming.from, giver, delivery, &peer, now);
    let sharing = sharing.inspect_err(|error| tracing::info!(%peer, %error, "not given")).ok()?;
    let is_known =
        incoming.mailbox.domain() != sharing.taker.domain() || is_attested(shared, asked, &sharing, now);
    if !share.permits(&incoming.mailbox, &sharing.taker) || !is_known {
        return None;
    }
    let mut parts = std::iter::once(&incoming.manifest).chain(&incoming.blobs);
    let size = parts.find(|part| part.id == blob)?.size;
    let files = shared.blocking(move |store| store.files_of(blob)).await;
    let transfer = Transfer { id: u128::from_be_bytes(delivery.0), class: Class::Bulk };
    files.ok().filter(|files| files.size == size).map(|files| (files, transfer))
}

/// Whether the own location server says that the taker's store is the taker's.
fn is_attested(shared: &Handle, asked: &GetShared, sharing: &Sharing, now: UnixTime) -> bool {
    asked.get.attestation.as_ref().is_some_and(|signed| {
        let attested = Attestation::verify_of(signed, &shared.location_peer(), &sharing.taker_store, now);
        attested.is_ok_and(|attested| attested.mailbox == sharing.taker)
    })
}
