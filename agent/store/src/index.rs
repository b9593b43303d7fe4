//! The index: which blobs are complete, which ranges of the others are durable, which deliveries need them.
//!
//! **Format** (redb, `index.redb`; values are postcard, the enum's number in front is the row's version):
//!
//! | table | key | value |
//! |---|---|---|
//! | `meta` | name | number: `format`, `used` (bytes of distinct attachments that count), counters of the agent's |
//! | `blobs` | BlobId | `BlobRow`: size, when it was placed. A row means: complete and durable under `blobs/`, or where it says in a pack |
//! | `packs` | number of a pack | how many rows of `blobs` say that they are in it. One without a row was never sealed |
//! | `partials` | BlobId, size | `PartialRow`: ranges that are durable under `partial/` |
//! | `references` | BlobId, DeliveryId (or a hold's number), role | size. A blob without one is removed |
//! | `incoming` | DeliveryId | `IncomingRow` |
//! | `outgoing` | DeliveryId | `OutgoingRow` |
//! | `left` | DeliveryId | `LeftRow`: how an outgoing delivery is left, sealed, with a relay |
//! | `sealed` | DeliveryId | `SealedRow`: what an incoming drop was before it was opened |
//! | `brought` | DeliveryId, BlobId | nothing. A row means: nobody else's delivery had a part in how the blob came here (`brought`) |
//! | `sharings` | DeliveryId, PeerId | `SharingRow`: who else has what an incoming delivery brings, as its sender signed it (`sharings`) |
//! | `shown` | BlobId of a manifest, DeliveryId | nothing. A row means: the message's header shows the recipient of that outgoing delivery |
//!
//! **Sync**: every change is one transaction, durable when the call returns. A row never runs ahead of its file: files
//! are synced and renamed first, and removed after the row is gone.
//!
//! **Recovery**: after an error of the disk redb refuses to go on; the next call opens the database anew, which brings
//! it back to the last commit. After a failed *sync* nobody knows which pages are on the disk, and the system holds
//! them for written: the file is copied first, and the copy synced and renamed over it (rule 1).

pub(crate) mod backend;
mod brought;
mod packed;
mod rows;
mod sharings;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use lighter_protocol::blob::RangeSet;
use lighter_protocol::wire::OfferedBlob;
use lighter_protocol::{BlobId, DeliveryId, UnixTime};
use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};

use crate::delivery::{Incoming, LeftDrop, Outgoing, Role};
use crate::disk::Disk;
use crate::error::IndexError;
use crate::limits::{INDEX_CACHE_LEN, SHOWN_MAX};
use crate::packs::Packed;
use backend::Backend;
use rows::{BlobRow, IncomingRow, LeftRow, OutgoingRow, PartialRow, SealedRow, decode, encode};

/// The newest format that this version reads. A store without packs is of format 1, which older versions read, too.
pub(crate) const FORMAT: u64 = 2;
const FORMAT_WITHOUT_PACKS: u64 = 1;

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const BLOBS: TableDefinition<'_, &[u8; 32], &[u8]> = TableDefinition::new("blobs");
const PARTIALS: TableDefinition<'_, (&[u8; 32], u64), &[u8]> = TableDefinition::new("partials");
const REFERENCES: TableDefinition<'_, (&[u8; 32], &[u8; 16], u8), u64> = TableDefinition::new("references");
const INCOMING: TableDefinition<'_, &[u8; 16], &[u8]> = TableDefinition::new("incoming");
const OUTGOING: TableDefinition<'_, &[u8; 16], &[u8]> = TableDefinition::new("outgoing");
const LEFT: TableDefinition<'_, &[u8; 16], &[u8]> = TableDefinition::new("left");
const SEALED: TableDefinition<'_, &[u8; 16], &[u8]> = TableDefinition::new("sealed");
const SHOWN: TableDefinition<'_, (&[u8; 32], &[u8; 16]), ()> = TableDefinition::new("shown");

const META_FORMAT: &str = "format";
const META_USED: &str = "used";

/// Size of a complete blob, and its place where that is in a pack.
pub(crate) type Whereabouts = (u64, Option<Place>);

/// The index, shared.
#[derive(Debug)]
pub(crate) struct Index {
    /// `None` after the disk failed: opened anew by the next call. First, so that it is closed, which writes to it, while
    /// `disk` still holds the folder's lock.
    database: Mutex<Option<Arc<Database>>>,
    disk: Arc<dyn Disk>,
    /// Set by the backend when a sync of the file failed.
    sync_failed: Arc<AtomicBool>,
}

/// A blob that lost its last reference with a change, or lay in `partial/` for nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dropped {
    Blob(BlobId),
    Partial(BlobId, u64),
    /// In a pack that has others.
    Packed(Place),
    /// A pack that has nothing any more.
    Pack(u64),
}

/// Where a blob lies in which pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) pack: u64,
    pub(crate) offset: u64,
    pub(crate) size: u64,
}

impl Index {
    pub(crate) fn open(disk: Arc<dyn Disk>) -> Result<Self, IndexError> {
        let index = Self { disk, sync_failed: Arc::default(), database: Mutex::new(None) };
        index.write(|txn| {
            let mut meta = txn.open_table(META)?;
            if meta.get(META_FORMAT)?.is_none() {
                meta.insert(META_FORMAT, FORMAT_WITHOUT_PACKS)?;
                meta.insert(META_USED, 0)?;
            }
            txn.open_table(BLOBS)?;
            txn.open_table(packed::TABLE)?;
            txn.open_table(PARTIALS)?;
            txn.open_table(REFERENCES)?;
            txn.open_table(INCOMING)?;
            txn.open_table(OUTGOING)?;
            txn.open_table(LEFT)?;
            txn.open_table(SEALED)?;
            txn.open_table(brought::TABLE)?;
            txn.open_table(sharings::TABLE)?;
            txn.open_table(SHOWN)?;
            Ok(())
        })?;
        Ok(index)
    }

    fn database(&self) -> Result<Arc<Database>, IndexError> {
        let mut slot = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(database) = &*slot {
            return Ok(Arc::clone(database));
        }
        if self.sync_failed.load(Ordering::Acquire) {
            backend::copy_afresh(&*self.disk).map_err(redb::StorageError::Io)?;
            self.sync_failed.store(false, Ordering::Release);
        }
        let backend =
            Backend::open(&*self.disk, Arc::clone(&self.sync_failed)).map_err(redb::StorageError::Io)?;
        let database = Database::builder().set_cache_size(INDEX_CACHE_LEN).create_with_backend(backend)?;
        let database = Arc::new(database);
        *slot = Some(Arc::clone(&database));
        Ok(database)
    }

    /// After a failed disk access redb answers nothing any more: let go of it, so that the next call opens it anew.
    fn forget_if_broken<T>(&self, result: Result<T, IndexError>) -> Result<T, IndexError> {
        if let Err(IndexError::Storage(_) | IndexError::Open(_) | IndexError::Transaction(_)) = &result {
            self.database.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
        result
    }

    fn write<T>(
        &self,
        change: impl FnOnce(&WriteTransaction) -> Result<T, IndexError>,
    ) -> Result<T, IndexError> {
        let result = self.database().and_then(|database| {
            let mut txn = database.begin_write()?;
            // A kill costs no walk through the whole file at the next start (redb 1055; FINDINGS "Storage").
            txn.set_quick_repair(true);
            let value = change(&txn)?;
            txn.commit()?;
            Ok(value)
        });
        self.forget_if_broken(result)
    }

    fn read<T>(
        &self,
        question: impl FnOnce(&ReadTransaction) -> Result<T, IndexError>,
    ) -> Result<T, IndexError> {
        let result = self.database().and_then(|database| question(&database.begin_read()?));
        self.forget_if_broken(result)
    }

    // ---- numbers

    pub(crate) fn number(&self, name: &str) -> Result<u64, IndexError> {
        self.read(|txn| Ok(txn.open_table(META)?.get(name)?.map_or(0, |value| value.value())))
    }

    pub(crate) fn format(&self) -> Result<u64, IndexError> {
        self.number(META_FORMAT)
    }

    /// Bytes of distinct attachments that incoming deliveries refer to, whether they are here yet or not.
    pub(crate) fn used(&self) -> Result<u64, IndexError> {
        self.number(META_USED)
    }

    /// Raises a counter to at least `floor`, and by at least one; gives its new value.
    pub(crate) fn next(&self, name: &str, floor: u64) -> Result<u64, IndexError> {
        self.write(|txn| {
            let mut meta = txn.open_table(META)?;
            let old = meta.get(name)?.map_or(0, |value| value.value());
            let new = old.saturating_add(1).max(floor);
            meta.insert(name, new)?;
            Ok(new)
        })
    }

    // ---- blobs

    pub(crate) fn blob_size(&self, blob: BlobId) -> Result<Option<u64>, IndexError> {
        self.read(|txn| {
            let table = txn.open_table(BLOBS)?;
            let row = table.get(&blob.0)?;
            row.map(|row| decode::<BlobRow>("blobs", row.value()).map(|row| row.size())).transpose()
        })
    }

    /// Size of a complete blob, and where it lies if that is in a pack.
    pub(crate) fn blob(&self, blob: BlobId) -> Result<Option<Whereabouts>, IndexError> {
        Ok(self.blobs(&[blob])?.pop().flatten())
    }

    /// The same of several, in this order.
    pub(crate) fn blobs(&self, blobs: &[BlobId]) -> Result<Vec<Option<Whereabouts>>, IndexError> {
        self.read(|txn| {
            let table = txn.open_table(BLOBS)?;
            let row = |blob: &BlobId| {
                let Some(row) = table.get(&blob.0)? else { return Ok(None) };
                let row: BlobRow = decode("blobs", row.value())?;
                Ok(Some((row.size(), packed::place_of(&row))))
            };
            blobs.iter().map(row).collect()
        })
    }

    /// The first of these that is not complete, or not of this size.
    pub(crate) fn first_missing(
        &self,
        parts: impl IntoIterator<Item = (BlobId, u64)>,
    ) -> Result<Option<BlobId>, IndexError> {
        self.read(|txn| {
            let table = txn.open_table(BLOBS)?;
            for (blob, size) in parts {
                let row = table.get(&blob.0)?;
                let row = row.map(|row| decode::<BlobRow>("blobs", row.value())).transpose()?;
                if row.is_none_or(|row| row.size() != size) {
                    return Ok(Some(blob));
                }
            }
            Ok(None)
        })
    }

    /// The blobs are complete and durable; what was on record of their partial states is over. With `hold`, they are
    /// referred to by that from the same moment on.
    pub(crate) fn place(
        &self,
        blobs: &[(BlobId, u64)],
        hold: Option<DeliveryId>,
        now: UnixTime,
    ) -> Result<Vec<Dropped>, IndexError> {
        self.write(|txn| {
            let mut table = txn.open_table(BLOBS)?;
            let mut partials = txn.open_table(PARTIALS)?;
            let mut references = txn.open_table(REFERENCES)?;
            let mut dropped = Vec::new();
            for (blob, size) in blobs {
                let before = table.insert(&blob.0, encode(&BlobRow::new(*size, now)).as_slice())?;
                let before = before.map(|row| decode("blobs", row.value())).transpose()?;
                // A file of its own takes the place of one that it shared.
                dropped.extend(packed::leave(txn, before.as_ref())?);
                partials.remove((&blob.0, *size))?;
                if let Some(hold) = hold {
                    brought::others_come(txn, &references_of(&references, *blob)?, *blob)?;
                    references.insert((&blob.0, &hold.0, Role::Held.code()), size)?;
                }
            }
            Ok(dropped)
        })
    }

    /// These small blobs are complete and durable in a pack. Those that nobody refers to any more, or that lie elsewhere, are
    /// not put on record; gives how many are.
    pub(crate) fn place_packed(&self, pack: u64, blobs: &[Packed], now: UnixTime) -> Result<u64, IndexError> {
        self.write(|txn| packed::place(txn, pack, blobs, now))
    }

    /// The packs that are sealed, in order.
    pub(crate) fn packs(&self) -> Result<Vec<u64>, IndexError> {
        self.read(|txn| {
            let table = txn.open_table(packed::TABLE)?;
            table.iter()?.map(|entry| Ok(entry?.0.value())).collect()
        })
    }

    /// A hold is over: gives the blobs that nobody refers to any more.
    pub(crate) fn release(
        &self,
        hold: DeliveryId,
        blobs: &[(BlobId, u64)],
    ) -> Result<Vec<Dropped>, IndexError> {
        let parts: Vec<_> = blobs.iter().map(|(blob, size)| (*blob, *size, Role::Held)).collect();
        self.write(|txn| change_references(txn, hold, &parts, false))
    }

    /// The blob is not held any more, though deliveries may refer to it: it was damaged. Gives what its pack lost.
    pub(crate) fn unplace(&self, blob: BlobId) -> Result<Option<Dropped>, IndexError> {
        self.write(|txn| {
            let mut table = txn.open_table(BLOBS)?;
            let row = table.remove(&blob.0)?.map(|row| decode("blobs", row.value())).transpose()?;
            packed::leave(txn, row.as_ref())
        })
    }

    pub(crate) fn is_referenced(&self, blob: BlobId) -> Result<bool, IndexError> {
        self.read(|txn| references_of(&txn.open_table(REFERENCES)?, blob).map(|all| !all.is_empty()))
    }

    /// The deliveries that need a blob (and holds, by their numbers), `count_max` of them.
    pub(crate) fn deliveries_of(
        &self,
        blob: BlobId,
        count_max: usize,
    ) -> Result<Vec<DeliveryId>, IndexError> {
        self.read(|txn| {
            let table = txn.open_table(REFERENCES)?;
            let range = table.range((&blob.0, &[0; 16], 0)..=(&blob.0, &[u8::MAX; 16], u8::MAX))?;
            let mut deliveries = Vec::new();
            for row in range.take(count_max) {
                let (key, _) = row?;
                deliveries.push(DeliveryId(*key.value().1));
            }
            Ok(deliveries)
        })
    }

    // ---- partial blobs

    pub(crate) fn partial(&self, blob: BlobId, size: u64) -> Result<RangeSet, IndexError> {
        self.read(|txn| {
            let table = txn.open_table(PARTIALS)?;
            let Some(row) = table.get((&blob.0, size))? else { return Ok(RangeSet::new()) };
            let ranges = decode::<PartialRow>("partials", row.value())?.ranges();
            let ranges = ranges.filter(|ranges| ranges.iter().all(|range| range.end <= size));
            ranges.ok_or(IndexError::Row { table: "partials" })
        })
    }

    pub(crate) fn record_partial(
        &self,
        blob: BlobId,
        size: u64,
        ranges: &RangeSet,
    ) -> Result<(), IndexError> {
        self.write(|txn| {
            txn.open_table(PARTIALS)?.insert((&blob.0, size), encode(&PartialRow::new(ranges)).as_slice())?;
            Ok(())
        })
    }

    pub(crate) fn forget_partial(&self, blob: BlobId, size: u64) -> Result<(), IndexError> {
        self.write(|txn| {
            txn.open_table(PARTIALS)?.remove((&blob.0, size))?;
            Ok(())
        })
    }

    // ---- deliveries

    pub(crate) fn incoming(&self, delivery: DeliveryId) -> Result<Option<Incoming>, IndexError> {
        self.read(|txn| {
            let table = txn.open_table(INCOMING)?;
            let row = table.get(&delivery.0)?;
            row.map(|row| decode::<IncomingRow>("incoming", row.value()).map(IncomingRow::into)).transpose()
        })
    }

    pub(crate) fn all_incoming(&self) -> Result<Vec<Incoming>, IndexError> {
        self.read(|txn| {
            let table = txn.open_table(INCOMING)?;
            table
                .iter()?
                .map(|entry| Ok(decode::<IncomingRow>("incoming", entry?.1.value())?.into()))
                .collect()
        })
    }

    /// Whether the blob came here for this incoming delivery, and no other had a part in it.
    pub(crate) fn is_brought(&self, delivery: DeliveryId, blob: BlobId) -> Result<bool, IndexError> {
        self.read(|txn| Ok(txn.open_table(brought::TABLE)?.get((&delivery.0, &blob.0))?.is_some()))
    }

    pub(crate) fn incoming_count(&self) -> Result<u64, IndexError> {
        self.read(|txn| Ok(redb::ReadableTableMetadata::len(&txn.open_table(INCOMING)?)?))
    }

    pub(crate) fn outgoing(&self, delivery: DeliveryId) -> Result<Option<Outgoing>, IndexError> {
        self.read(|txn| {
            let table = txn.open_table(OUTGOING)?;
            let row = table.get(&delivery.0)?;
            row.map(|row| decode::<OutgoingRow>("outgoing", row.value()).map(OutgoingRow::into)).transpose()
        })
    }

    pub(crate) fn all_outgoing(&self) -> Result<Vec<Outgoing>, IndexError> {
        self.read(|txn| {
            let table = txn.open_table(OUTGOING)?;
            table
                .iter()?
                .map(|entry| Ok(decode::<OutgoingRow>("outgoing", entry?.1.value())?.into()))
                .collect()
        })
    }

    /// Puts an incoming delivery on record, or its new state; with `held`, its blobs are referred to, otherwise they
    /// are let go of. Gives the blobs that nobody refers to any more.
    pub(crate) fn put_incoming(&self, incoming: &Incoming, held: bool) -> Result<Vec<Dropped>, IndexError> {
        self.write(|txn| {
            let row = encode(&IncomingRow::from(incoming.clone()));
            txn.open_table(INCOMING)?.insert(&incoming.delivery.0, row.as_slice())?;
            sharings::changes(txn, incoming)?;
            let parts: Vec<_> = incoming.parts().map(|(part, role)| (part.id, part.size, role)).collect();
            change_references(txn, incoming.delivery, &parts, held)
        })
    }

    /// Removes an incoming delivery altogether.
    pub(crate) fn remove_incoming(&self, incoming: &Incoming) -> Result<Vec<Dropped>, IndexError> {
        self.write(|txn| {
            txn.open_table(INCOMING)?.remove(&incoming.delivery.0)?;
            txn.open_table(SEALED)?.remove(&incoming.delivery.0)?;
            sharings::goes(txn, incoming.delivery)?;
            let parts: Vec<_> = incoming.parts().map(|(part, role)| (part.id, part.size, role)).collect();
            change_references(txn, incoming.delivery, &parts, false)
        })
    }

    /// How a delivery of ours is left with a relay.
    pub(crate) fn left(&self, delivery: DeliveryId) -> Result<Option<LeftDrop>, IndexError> {
        self.read(|txn| {
            let table = txn.open_table(LEFT)?;
            let row = table.get(&delivery.0)?;
            row.map(|row| decode::<LeftRow>("left", row.value()).map(|LeftRow::V1(left)| left)).transpose()
        })
    }

    /// Puts that on record; the sealed blobs are referred to until the relay has them.
    pub(crate) fn put_left(&self, delivery: DeliveryId, left: &LeftDrop) -> Result<Vec<Dropped>, IndexError> {
        self.write(|txn| {
            let row = encode(&LeftRow::V1(left.clone()));
            txn.open_table(LEFT)?.insert(&delivery.0, row.as_slice())?;
            let parts: Vec<_> = left.parts().map(|part| (part.id, part.size, Role::Outgoing)).collect();
            change_references(txn, delivery, &parts, left.taken.is_none())
        })
    }

    /// What an incoming drop was sealed as: envelope and blobs.
    pub(crate) fn sealed(
        &self,
        delivery: DeliveryId,
    ) -> Result<Option<(OfferedBlob, Vec<OfferedBlob>)>, IndexError> {
        self.read(|txn| {
            let table = txn.open_table(SEALED)?;
            let Some(row) = table.get(&delivery.0)? else { return Ok(None) };
            let SealedRow::V1 { envelope, blobs } = decode("sealed", row.value())?;
            Ok(Some((envelope, blobs)))
        })
    }

    /// Puts `opened` in the place of what it was sealed as: its blobs are referred to, the sealed ones let go of.
    pub(crate) fn put_opened(
        &self,
        sealed: &Incoming,
        opened: &Incoming,
    ) -> Result<Vec<Dropped>, IndexError> {
        self.write(|txn| {
            let row = SealedRow::V1 { envelope: sealed.manifest.clone(), blobs: sealed.blobs.clone() };
            txn.open_table(SEALED)?.insert(&sealed.delivery.0, encode(&row).as_slice())?;
            let row = encode(&IncomingRow::from(opened.clone()));
            txn.open_table(INCOMING)?.insert(&opened.delivery.0, row.as_slice())?;
            sharings::changes(txn, opened)?;
            let parts = |of: &Incoming| -> Vec<_> {
                of.parts().map(|(part, role)| (part.id, part.size, role)).collect()
            };
            let mut dropped = change_references(txn, sealed.delivery, &parts(sealed), false)?;
            dropped.extend(change_references(txn, opened.delivery, &parts(opened), true)?);
            Ok(dropped)
        })
    }

    /// Puts an outgoing delivery on record, or its new state; its blobs are referred to as long as it is held. `is_shown`:
    /// the header shows its recipient; that stays on record until the delivery is removed.
    pub(crate) fn put_outgoing(
        &self,
        outgoing: &Outgoing,
        is_shown: bool,
    ) -> Result<Vec<Dropped>, IndexError> {
        self.write(|txn| {
            if is_shown {
                txn.open_table(SHOWN)?.insert((&outgoing.manifest.id.0, &outgoing.delivery.0), ())?;
            }
            let row = encode(&OutgoingRow::from(outgoing.clone()));
            txn.open_table(OUTGOING)?.insert(&outgoing.delivery.0, row.as_slice())?;
            let parts: Vec<_> = outgoing.parts().map(|part| (part.id, part.size, Role::Outgoing)).collect();
            change_references(txn, outgoing.delivery, &parts, outgoing.is_held())
        })
    }

    /// The outgoing deliveries of the message with this manifest whose recipients its header shows.
    pub(crate) fn shown(&self, manifest: BlobId) -> Result<Vec<Outgoing>, IndexError> {
        self.read(|txn| {
            let outgoing = txn.open_table(OUTGOING)?;
            let table = txn.open_table(SHOWN)?;
            let mut shown = Vec::new();
            let range = table.range((&manifest.0, &[0; 16])..=(&manifest.0, &[u8::MAX; 16]))?;
            for row in range.take(SHOWN_MAX) {
                let (key, _) = row?;
                let Some(row) = outgoing.get(key.value().1)? else { continue };
                shown.push(decode::<OutgoingRow>("outgoing", row.value())?.into());
            }
            Ok(shown)
        })
    }

    /// Removes an outgoing delivery altogether.
    pub(crate) fn remove_outgoing(&self, outgoing: &Outgoing) -> Result<Vec<Dropped>, IndexError> {
        self.write(|txn| {
            txn.open_table(OUTGOING)?.remove(&outgoing.delivery.0)?;
            txn.open_table(SHOWN)?.remove((&outgoing.manifest.id.0, &outgoing.delivery.0))?;
            let mut parts: Vec<_> =
                outgoing.parts().map(|part| (part.id, part.size, Role::Outgoing)).collect();
            if let Some(row) = txn.open_table(LEFT)?.remove(&outgoing.delivery.0)? {
                let LeftRow::V1(left) = decode("left", row.value())?;
                parts.extend(left.parts().map(|part| (part.id, part.size, Role::Outgoing)));
            }
            change_references(txn, outgoing.delivery, &parts, false)
        })
    }

    /// Removes the rows of blobs and partial blobs that no delivery refers to: what was imported and never sent, and
    /// what a crash left between two steps. For a start: holds of an earlier process are over.
    pub(crate) fn drop_unreferenced(&self) -> Result<Vec<Dropped>, IndexError> {
        self.write(|txn| {
            let mut references = txn.open_table(REFERENCES)?;
            references.retain(|(_, _, role), _| role != Role::Held.code())?;
            let mut candidates = Vec::new();
            for entry in txn.open_table(BLOBS)?.iter()? {
                candidates.push(BlobId(*entry?.0.value()));
            }
            for entry in txn.open_table(PARTIALS)?.iter()? {
                candidates.push(BlobId(*entry?.0.value().0));
            }
            candidates.dedup();
            let mut dropped = Vec::new();
            for blob in candidates {
                if references_of(&references, blob)?.is_empty() {
                    drop_rows(txn, blob, &mut dropped)?;
                }
            }
            Ok(dropped)
        })
    }
}

/// Who refers to a blob: delivery, role and size of each reference.
fn references_of(
    table: &impl ReadableTable<(&'static [u8; 32], &'static [u8; 16], u8), u64>,
    blob: BlobId,
) -> Result<Vec<(DeliveryId, u8, u64)>, IndexError> {
    let mut found = Vec::new();
    for entry in table.range((&blob.0, &[0; 16], 0)..=(&blob.0, &[0xff; 16], u8::MAX))? {
        let (key, size) = entry?;
        let (_, delivery, role) = key.value();
        found.push((DeliveryId(*delivery), role, size.value()));
    }
    Ok(found)
}

/// Adds (`held`) or takes away a delivery's references, keeps the sum that quota goes by, and drops the rows of blobs
/// that lost their last one.
fn change_references(
    txn: &WriteTransaction,
    delivery: DeliveryId,
    parts: &[(BlobId, u64, Role)],
    held: bool,
) -> Result<Vec<Dropped>, IndexError> {
    let mut table = txn.open_table(REFERENCES)?;
    let mut dropped = Vec::new();
    let mut used = txn.open_table(META)?.get(META_USED)?.map_or(0, |value| value.value());
    for (blob, size, role) in parts {
        let before = references_of(&table, *blob)?;
        let counted_before = counted_size(&before);
        if held {
            if !before.iter().any(|(known, its, _)| (*known, *its) == (delivery, role.code())) {
                brought::comes(txn, &before, delivery, *blob, *role)?;
            }
            table.insert((&blob.0, &delivery.0, role.code()), size)?;
        } else {
            table.remove((&blob.0, &delivery.0, role.code()))?;
            brought::goes(txn, delivery, *blob, *role)?;
        }
        let left = references_of(&table, *blob)?;
        used = used.saturating_sub(counted_before).saturating_add(counted_size(&left));
        if left.is_empty() {
            drop_rows(txn, *blob, &mut dropped)?;
        }
    }
    txn.open_table(META)?.insert(META_USED, used)?;
    Ok(dropped)
}

/// What a blob counts against quota: once, at the largest size that anybody claimed for it.
fn counted_size(references: &[(DeliveryId, u8, u64)]) -> u64 {
    let counted = references.iter().filter(|(_, role, _)| *role == Role::Attachment.code());
    counted.map(|(_, _, size)| *size).max().unwrap_or(0)
}

fn drop_rows(txn: &WriteTransaction, blob: BlobId, dropped: &mut Vec<Dropped>) -> Result<(), IndexError> {
    let row = txn.open_table(BLOBS)?.remove(&blob.0)?.map(|row| decode("blobs", row.value())).transpose()?;
    if row.is_some() {
        dropped.push(packed::leave(txn, row.as_ref())?.unwrap_or(Dropped::Blob(blob)));
    }
    let mut partials = txn.open_table(PARTIALS)?;
    let mut sizes = Vec::new();
    for entry in partials.range((&blob.0, 0)..=(&blob.0, u64::MAX))? {
        sizes.push(entry?.0.value().1);
    }
    for size in sizes {
        partials.remove((&blob.0, size))?;
        dropped.push(Dropped::Partial(blob, size));
    }
    Ok(())
}
