//! Pushing what a store said that it wants, where `[send] push` is set (SPEC A6): beside the offer's task, as fast as this
//! side's limits let it. Whatever ends it early, the store asks for what it lacks.

use lighter_protocol::offer::Delivery;
use lighter_protocol::push::Pushing;
use lighter_protocol::wire::{Push, PushPart};
use lighter_store::Outgoing;
use lighter_transport::Connection;
use lighter_transport::push::PushError;
use lighter_transport::serve::ServeError;
use tokio::task::JoinSet;

use super::Progress;
use crate::guest;
use crate::serve;
use crate::shared::Handle;

/// Whether a delivery is to be pushed: it is so set, it is not too large for that, and it may be sent now.
pub(super) fn is_wanted(shared: &Handle, outgoing: &Outgoing) -> bool {
    let bytes = outgoing.blobs.iter().fold(0, |sum: u64, blob| sum.saturating_add(blob.size));
    let transfer = guest::transfer(outgoing.delivery, false, &outgoing.blobs);
    shared.config.send.push_bytes_max().is_some_and(|max| bytes <= max)
        && !shared.guest.up.transfer(transfer).is_held()
}

/// Pushes what is `wanted` of the delivery.
pub(super) async fn run(shared: Handle, connection: Connection, delivery: Delivery, wanted: Vec<PushPart>) {
    let mut pushing = Pushing::new(&delivery, &wanted);
    let mut streams = JoinSet::new();
    loop {
        while let Some(push) = pushing.poll() {
            streams.spawn(stream(shared.clone(), connection.clone(), delivery.clone(), push));
        }
        let Some(ended) = streams.join_next().await else { return };
        match ended.map_err(|_| Stopped::Gone).flatten() {
            Ok(()) => pushing.handle_end(true),
            Err(why) => {
                tracing::debug!(delivery = %delivery.id, store = %connection.peer(), %why, "not pushed to its end");
                pushing.handle_end(false);
            }
        }
    }
}

/// Why a push stopped.
#[derive(Debug, thiserror::Error)]
enum Stopped {
    #[error("as many streams are sent as may be")]
    Busy,
    #[error("it is not here any more")]
    Gone,
    #[error("cannot be read: {0}")]
    Open(#[from] std::io::Error),
    #[error(transparent)]
    Push(#[from] PushError),
}

/// One push: its parts, one after the other.
async fn stream(
    shared: Handle,
    connection: Connection,
    delivery: Delivery,
    push: Push,
) -> Result<(), Stopped> {
    let place = serve::place(&shared).ok_or(Stopped::Busy)?;
    let mut out = connection.push(&push).await.map_err(PushError::from)?;
    for part in &push.parts {
        let (blob, size) = (part.blob, delivery.size_of(&part.blob).ok_or(Stopped::Gone)?);
        let files = shared.blocking(move |store| store.files_of(blob)).await;
        let files = files.ok().filter(|files| files.size == size).ok_or(Stopped::Gone)?;
        let (data, outboard) = serve::open(blob, &files).await?;
        let transfer = guest::transfer(delivery.id, delivery.manifest.id == blob, &delivery.blobs);
        let turns = shared.guest.up.transfer(transfer);
        let progress = Progress::begin(&shared, delivery.id);
        let sent = out.send(&part.ranges, size, data, outboard, Some(&turns)).await;
        if let Err(ServeError::Damaged { .. } | ServeError::Read(_)) = &sent {
            tracing::warn!(%blob, "what was to be pushed is damaged");
            // Looked at as a whole, and set aside if it is so.
            if let Err(error) = shared.blocking(move |store| store.recheck(blob)).await {
                tracing::warn!(%blob, %error, "could not be looked at");
            }
        }
        sent.map_err(PushError::from)?;
        progress.sent(blob, part.ranges.iter().map(|(start, end)| end - start).sum(), size);
    }
    drop(place);
    Ok(out.finish().await?)
}
