//! Which small blobs are in which pack, and how many are left in it.

use lighter_protocol::UnixTime;
use redb::{ReadableTable, TableDefinition, WriteTransaction};

use super::rows::{BlobRow, decode, encode};
use super::{BLOBS, Dropped, FORMAT, META, META_FORMAT, PARTIALS, Place, REFERENCES, references_of};
use crate::error::IndexError;
use crate::packs::Packed;

/// Number of a pack: blobs in it.
pub(super) const TABLE: TableDefinition<'_, u64, u64> = TableDefinition::new("packs");

pub(super) fn place_of(row: &BlobRow) -> Option<Place> {
    match *row {
        BlobRow::V1 { .. } => None,
        BlobRow::Packed { size, pack, offset, .. } => Some(Place { pack, offset, size }),
    }
}

/// Puts blobs of a pack on record; gives how many of it are.
pub(super) fn place(
    txn: &WriteTransaction,
    pack: u64,
    blobs: &[Packed],
    now: UnixTime,
) -> Result<u64, IndexError> {
    let mut table = txn.open_table(BLOBS)?;
    let mut partials = txn.open_table(PARTIALS)?;
    let references = txn.open_table(REFERENCES)?;
    let mut count = 0;
    for &Packed { blob, size, offset } in blobs {
        let known = table.get(&blob.0)?.map(|row| decode("blobs", row.value())).transpose()?;
        if let Some(known) = &known {
            // A commit that was said to have failed, and had not.
            count += u64::from(place_of(known) == Some(Place { pack, offset, size }));
            continue;
        }
        if references_of(&references, blob)?.is_empty() {
            continue;
        }
        table.insert(&blob.0, encode(&BlobRow::Packed { size, placed: now, pack, offset }).as_slice())?;
        partials.remove((&blob.0, size))?;
        count += 1;
    }
    if count > 0 {
        txn.open_table(TABLE)?.insert(pack, count)?;
        // From now on older versions would miss what is here.
        txn.open_table(META)?.insert(META_FORMAT, FORMAT)?;
    }
    Ok(count)
}

/// A blob's row is gone: what that leaves of its pack, if it was in one.
pub(super) fn leave(txn: &WriteTransaction, row: Option<&BlobRow>) -> Result<Option<Dropped>, IndexError> {
    let Some(place) = row.and_then(place_of) else { return Ok(None) };
    let mut table = txn.open_table(TABLE)?;
    let left = table.get(place.pack)?.map_or(0, |count| count.value()).saturating_sub(1);
    if left == 0 {
        table.remove(place.pack)?;
        return Ok(Some(Dropped::Pack(place.pack)));
    }
    table.insert(place.pack, left)?;
    Ok(Some(Dropped::Packed(place)))
}
