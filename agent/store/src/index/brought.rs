//! Which blobs came here for one delivery, and no other had a part in it.
//!
//! A sender says that another recipient of its message may read what this store got by it (`lighter_protocol::sharing`). It
//! may have named a blob that it knows the hash of and nothing else, and that is here because somebody else sent it: a
//! BlobId is never a right to read. So what is given at a sender's word is only what came by that sender's delivery:
//!
//! - a row is made when an incoming delivery names a blob of which nothing is here, and that nobody else names;
//! - it is gone again when anybody else names the blob, or puts it here, before all of the delivery is receipted;
//! - a delivery that is let go of takes its rows with it.
//!
//! What was received before there was such a table is given to nobody.

use lighter_protocol::{BlobId, DeliveryId};
use redb::{ReadableTable, TableDefinition, WriteTransaction};

use super::rows::{IncomingRow, decode};
use super::{BLOBS, INCOMING};
use crate::delivery::{Incoming, IncomingState, Role};
use crate::error::IndexError;

/// DeliveryId, BlobId: nothing.
pub(super) const TABLE: TableDefinition<'_, (&[u8; 16], &[u8; 32]), ()> = TableDefinition::new("brought");

/// A reference to the blob, as `references_of` gives it.
type Reference = (DeliveryId, u8, u64);

/// `delivery` names the blob from now on; `before`: who did so far.
pub(super) fn comes(
    txn: &WriteTransaction,
    before: &[Reference],
    delivery: DeliveryId,
    blob: BlobId,
    role: Role,
) -> Result<(), IndexError> {
    let others: Vec<_> = before.iter().filter(|(other, ..)| *other != delivery).copied().collect();
    let is_received = matches!(role, Role::Manifest | Role::Attachment);
    if is_received && others.is_empty() && txn.open_table(BLOBS)?.get(&blob.0)?.is_none() {
        txn.open_table(TABLE)?.insert((&delivery.0, &blob.0), ())?;
    }
    others_come(txn, &others, blob)
}

/// Somebody else names the blob, or puts it here: those deliveries that are not receipted yet can not say any more that it
/// came for them alone.
pub(super) fn others_come(
    txn: &WriteTransaction,
    before: &[Reference],
    blob: BlobId,
) -> Result<(), IndexError> {
    let mut table = txn.open_table(TABLE)?;
    let incoming = txn.open_table(INCOMING)?;
    for (delivery, ..) in before {
        if table.get((&delivery.0, &blob.0))?.is_none() {
            continue;
        }
        let row = incoming.get(&delivery.0)?;
        let row = row.map(|row| decode::<IncomingRow>("incoming", row.value())).transpose()?;
        let is_receipted = row.is_some_and(|row| Incoming::from(row).state != IncomingState::Pulling);
        if !is_receipted {
            table.remove((&delivery.0, &blob.0))?;
        }
    }
    Ok(())
}

/// `delivery` does not name the blob any more.
pub(super) fn goes(
    txn: &WriteTransaction,
    delivery: DeliveryId,
    blob: BlobId,
    role: Role,
) -> Result<(), IndexError> {
    if matches!(role, Role::Manifest | Role::Attachment) {
        txn.open_table(TABLE)?.remove((&delivery.0, &blob.0))?;
    }
    Ok(())
}
