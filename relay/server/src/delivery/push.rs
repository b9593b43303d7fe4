//! Pushing what a store said that it wants (SPEC A19), where the configuration sets it. Whatever ends it early, the store
//! asks for what it lacks.

use std::sync::Arc;

use lighter_protocol::DeliveryId;
use lighter_protocol::blob::PortionBlob;
use lighter_protocol::push::Pushing;
use lighter_protocol::wire::{Offer, Push, PushPart};
use lighter_storage::ReadError;
use lighter_transport::push::PushError;
use lighter_transport::{Connection, ServeError};
use tokio::task::JoinSet;

use super::pull::{Told, look_up};
use super::{Shared, driver};

/// Whether a delivery is to be pushed: it is so set, and it is not too large for that.
pub(super) fn is_wanted(shared: &Shared, offer: &Offer) -> bool {
    let bytes = offer.blobs.iter().fold(0, |sum: u64, blob| sum.saturating_add(blob.size));
    shared.parts.push_bytes_max.is_some_and(|max| bytes <= max)
}

/// Pushes what is `wanted` of a delivery, on the connection that it was offered on, until that is done, the connection
/// is closed or the relay stops.
pub(super) async fn run(
    shared: &Arc<Shared>,
    connection: Connection,
    delivery: DeliveryId,
    wanted: Vec<PushPart>,
) {
    let read = shared.parts.ledger.read(move |catalog| {
        let Some(row) = catalog.delivery(&delivery)?.filter(|row| row.state.is_readable()) else {
            return Ok(None);
        };
        Ok(catalog.message(&row.message)?.map(|message| driver::facts(&row, &message)))
    });
    let Ok(Some(facts)) = read.await else { return };
    let mut pushing = Pushing::new(&facts, &wanted);
    let mut streams = JoinSet::new();
    loop {
        while let Some(push) = pushing.poll() {
            streams.spawn(stream(Arc::clone(shared), connection.clone(), push));
        }
        let ended = tokio::select! {
            biased;
            () = shared.stop.cancelled() => return,
            _ = connection.closed() => return,
            ended = streams.join_next() => ended,
        };
        match ended {
            None => return,
            Some(Ok(Ok(()))) => pushing.handle_end(true),
            Some(Ok(Err(why))) => {
                told(delivery, &why);
                pushing.handle_end(false);
            }
            Some(Err(_)) => pushing.handle_end(false),
        }
    }
}

/// Why a push stopped.
#[derive(Debug, thiserror::Error)]
enum Stopped {
    #[error("as many are sent as may be")]
    Busy,
    #[error("it is not here any more")]
    Gone,
    #[error("a blob cannot be read now: {0}")]
    Read(#[from] ReadError),
    #[error(transparent)]
    Push(#[from] PushError),
}

fn told(delivery: DeliveryId, why: &Stopped) {
    match why {
        Stopped::Push(PushError::Serve(ServeError::Read(_) | ServeError::Damaged { .. })) => {
            tracing::error!(%delivery, %why, "a stored blob cannot be pushed");
        }
        Stopped::Read(_) => tracing::warn!(%delivery, %why, "not pushed to its end"),
        Stopped::Busy | Stopped::Gone | Stopped::Push(_) => {
            tracing::debug!(%delivery, %why, "not pushed to its end");
        }
    }
}

/// One push: its parts, one after the other.
async fn stream(shared: Arc<Shared>, connection: Connection, push: Push) -> Result<(), Stopped> {
    // In this order: who waits for a place on a slow store's connection takes none of those that all stores share.
    let mut out = connection.push(&push).await.map_err(PushError::from)?;
    let place = shared.pushes.try_acquire().map_err(|_| Stopped::Busy)?;
    for part in &push.parts {
        let (delivery, blob) = (push.delivery, part.blob);
        let found = shared.parts.ledger.read(move |catalog| look_up(catalog, &delivery, &blob)).await;
        // It may have been receipted, and let go of, meanwhile.
        let stored = match found {
            Ok(Some((row, Some(stored)))) if row.state.is_readable() => stored,
            _ => return Err(Stopped::Gone),
        };
        let array = &shared.parts.array;
        let tree = array.blob_tree(&stored).await?;
        let source = Told::new(&shared, delivery, array.portions(&stored));
        let bytes = PortionBlob::new(Arc::new(tree), Arc::new(source));
        let sent = out.send(&part.ranges, stored.size, bytes.clone(), bytes, None).await;
        let sent = sent.map_err(PushError::from)?;
        tracing::debug!(%delivery, %blob, bytes = sent, "pushed");
    }
    drop(place);
    Ok(out.finish().await?)
}
