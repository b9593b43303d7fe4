//! Small blobs that somebody asks for together: read in one go, and sent one behind the other.

use lighter_protocol::wire::{GetBlobs, Response};
use lighter_store::StoreError;
use lighter_transport::{GiveUp, Responder, ServeError};

use super::held::Held;
use super::{No, look_at, no, turns};
use crate::offers;
use crate::shared::Handle;

/// Answers with all of them, or says no to all: asked for one by one, it is seen which of them is not there.
pub(super) async fn serve(shared: &Handle, asked: GetBlobs, responder: Responder) -> Result<(), No> {
    let (peer, delivery) = (responder.peer(), asked.delivery);
    let held = Held::find(shared, delivery).await;
    let readable = held.and_then(|held| {
        let sizes = held.admits_blobs(shared, &asked, &peer)?;
        Some((sizes, held.transfer(asked.blobs.first()?)))
    });
    let Some((sizes, transfer)) = readable else { return Err(no(responder, Response::Refused)) };
    let (turns, _permit) = match turns(shared, transfer) {
        Ok(may) => may,
        Err(later) => return Err(no(responder, later)),
    };
    let blobs = asked.blobs.clone();
    let read = shared.blocking(move |store| store.read_small(&blobs)).await;
    let is_as_said =
        |blobs: &Vec<bytes::Bytes>| blobs.iter().map(|bytes| bytes.len() as u64).eq(sizes.iter().copied());
    let blobs = match read {
        Ok(blobs) if is_as_said(&blobs) => asked.blobs.into_iter().zip(blobs).collect::<Vec<_>>(),
        Ok(_) | Err(StoreError::NoBlob(_)) => return Err(no(responder, Response::Refused)),
        Err(error) => {
            tracing::warn!(%delivery, %error, "small blobs cannot be read");
            responder.give_up(GiveUp::Damaged);
            return Ok(());
        }
    };
    let progress = offers::Progress::begin(shared, delivery);
    match responder.serve_small(&blobs, Some(&turns)).await {
        Ok(sent) => {
            tracing::debug!(%peer, %delivery, blobs = blobs.len(), sent, "served");
            progress.sent_all(blobs.iter().zip(&sizes).map(|((blob, _), size)| (*blob, *size)));
        }
        Err(ServeError::Held) => tracing::debug!(%peer, %delivery, "held up"),
        Err(ServeError::Peer(error)) => tracing::debug!(%peer, %error, "stopped pulling"),
        Err(error) => {
            tracing::warn!(%delivery, %error, "what was to be served is damaged");
            for (blob, _) in blobs {
                look_at(shared, blob).await;
            }
        }
    }
    Ok(())
}
