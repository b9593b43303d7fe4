//! The end of a pull: the proof that a delivery is durable here, and the receipt, kept.

use lighter_protocol::wire::NewDrop;
use lighter_protocol::{BlobId, DeliveryId, Receipt, Signed, UnixTime};
use lighter_sealing::SealingSecret;
use lighter_store::{Durable, Store, StoreError, Wanted};
use lighter_transport::Identity;

use crate::drops::{self, NotOpened, OpenedDrop};
use crate::key::FormerKeys;
use crate::shared::Handle;

/// Puts the receipt of a delivery with these blobs on record, all of which have their places; none where it is not durable.
pub(super) async fn settle(
    shared: &Handle,
    delivery: DeliveryId,
    parts: Vec<(BlobId, u64)>,
) -> Option<Signed<Receipt>> {
    let (identity, former) = (shared.identity.clone(), shared.former.clone());
    let settled = shared
        .blocking(move |store| {
            let mut durable = store.durable(delivery)?;
            if durable.is_none() {
                for (blob, size) in parts {
                    // The empty blob was never asked for: there is nothing to fetch.
                    if let Wanted::Partial(partial) = store.want(blob, size, UnixTime::now())? {
                        store.finish(&[partial], UnixTime::now())?;
                    }
                }
                durable = store.durable(delivery)?;
            }
            let Some(durable) = durable else { return Ok(None) };
            let receipt = durable.receipt(identity.peer(), UnixTime::now());
            let Ok(signed) = Signed::sign(&receipt, identity.keypair()) else { return Ok(None) };
            if durable.incoming().manifest.media_type == NewDrop::MEDIA_TYPE {
                return settle_drop(store, &identity, &former, durable, signed);
            }
            store.settle(durable, signed).map(Some)
        })
        .await;
    settled.unwrap_or_else(|error: StoreError| {
        tracing::warn!(%delivery, %error, "no receipt: it is not durable");
        None
    })
}

/// Opens a drop, whose sealed blobs are all here, and puts the receipt on record with what was in it. One that never
/// opens is not kept, and its user is told.
fn settle_drop(
    store: &Store,
    identity: &Identity,
    former: &FormerKeys,
    durable: Durable,
    receipt: Signed<Receipt>,
) -> Result<Option<Signed<Receipt>>, StoreError> {
    let delivery = durable.incoming().delivery;
    let secret = match SealingSecret::derive(&identity.secret_bytes()) {
        Ok(secret) => secret,
        Err(error) => {
            tracing::warn!(%delivery, %error, "a drop is not opened");
            return Ok(None);
        }
    };
    // It may have been sealed before this store's key was changed.
    let secrets: Vec<_> = std::iter::once(&secret).chain(former.sealing_secrets()).collect();
    match drops::open(store, &secrets, durable.incoming()) {
        Ok(OpenedDrop { manifest, blobs, hold }) => {
            store.settle_opened(durable, manifest, blobs, &hold, receipt).map(Some)
        }
        Err(NotOpened::Never(reason)) => {
            tracing::warn!(%delivery, %reason, "what was left for this store is of no use");
            store.reject(delivery, &reason)?;
            Ok(None)
        }
        Err(NotOpened::Store(error)) => Err(error),
        Err(NotOpened::Io(source)) => Err(StoreError::Io { doing: "opening a drop", source }),
    }
}
