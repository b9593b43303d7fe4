//! The word of a store that a whole delivery is durable there: checked, recorded durably, then answered (SPEC D4).
//!
//! A receipt is taken whenever it comes, and on whichever connection: what counts is who signed it. Replayed, it changes
//! nothing and is answered the same.

use lighter_catalog::{Change, CommitError, Delivery, DeliveryState, Message};
use lighter_protocol::wire::Response;
use lighter_protocol::{Expected, Receipt, Releaser, Signed, UnixTime, VerifiedReceipt};

use super::driver::Event;
use super::peer::Peer;
use super::probe;
use crate::limits::LATER_SECONDS;

/// Takes a receipt; the answer to it.
pub(super) async fn take(peer: &Peer, signed: &Signed<Receipt>) -> Response {
    let Ok(claim) = signed.claim() else { return Response::Refused };
    let id = claim.delivery;
    let known = peer.shared.parts.ledger.read(move |catalog| {
        let Some(row) = catalog.delivery(&id)? else { return Ok(None) };
        Ok(catalog.message(&row.message)?.map(|message| (row, message)))
    });
    let (row, message) = match known.await {
        Ok(Some(known)) => known,
        Ok(None) => return Response::Refused,
        Err(_) => return Response::Later(LATER_SECONDS),
    };
    let now = UnixTime::now();
    let releaser = match peer.releaser(&row.mailbox, now) {
        Some(releaser) if *releaser.store() == claim.store => releaser,
        // Brought by another connection, or by one whose attestation has run out: the location server knows.
        _ => match looked_up(peer, &row, &claim).await {
            Ok(Some(releaser)) => releaser,
            Ok(None) => return Response::Refused,
            Err(()) => return Response::Later(LATER_SECONDS),
        },
    };
    let expected = Expected { delivery: row.id, mailbox: row.mailbox.clone(), manifest: message.manifest.id };
    if let Err(error) = VerifiedReceipt::verify(signed, &releaser, &expected, now) {
        tracing::warn!(delivery = %id, peer = %peer.id(), %error, "receipt refused");
        return Response::Refused;
    }
    record(peer, &row, &message, signed, now).await
}

/// The store that made the receipt, where the location server says that it may release.
async fn looked_up(peer: &Peer, row: &Delivery, claim: &Receipt) -> Result<Option<Releaser>, ()> {
    let record = probe::look_up(&peer.shared, &row.mailbox).await?;
    Ok(record.filter(|record| record.primary && record.peer == claim.store).map(|record| {
        Releaser::looked_up(row.mailbox.clone(), record.peer, probe::counts_until(UnixTime::now()))
    }))
}

async fn record(
    peer: &Peer,
    row: &Delivery,
    message: &Message,
    signed: &Signed<Receipt>,
    now: UnixTime,
) -> Response {
    let (id, parts) = (row.id, &peer.shared.parts);
    if matches!(row.state, DeliveryState::Receipted { .. } | DeliveryState::Released { .. }) {
        peer.shared.tell(Event::Receipted(id)).await;
        return Response::Released;
    }
    let release = now.plus(parts.keep_after_receipt);
    let change = Change::Receipted { delivery: id, receipt: signed.clone(), release };
    match parts.ledger.commit_applied(change, message.class).await {
        Ok(()) => {
            tracing::info!(delivery = %id, store = %peer.id(), bytes = row.size, "delivered");
            peer.shared.tell(Event::Receipted(id)).await;
            Response::Released
        }
        Err(CommitError::Refused(error)) => {
            tracing::error!(delivery = %id, %error, "a receipt cannot be written down");
            Response::Refused
        }
        Err(error) => {
            tracing::warn!(delivery = %id, %error, "receipt not recorded yet");
            Response::Later(LATER_SECONDS)
        }
    }
}
