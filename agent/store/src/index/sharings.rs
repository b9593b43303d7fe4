//! What senders said of others who have what they offered, for as long as a delivery is being pulled (SPEC D3): a store that
//! starts again while the sender is away knows whom to ask.
//!
//! - a row is made when the delivery's sender says it, and replaced when it says it again for longer;
//! - a delivery that is receipted, or removed, takes its rows with it; a statement that has expired goes by itself;
//! - there are at most [`SHARINGS_MAX`] of a delivery, and [`SHARINGS_KEPT_MAX`] in all: what is beyond is only kept in
//!   memory by the pull that hears it.
//!
//! What is here was verified before it came here, and is verified again before it is used.

use lighter_protocol::limits::{CLOCK_GRACE, SHARINGS_MAX};
use lighter_protocol::{DeliveryId, Sharing, Signed, UnixTime};
use redb::{ReadableTable, ReadableTableMetadata, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};

use super::rows::{IncomingRow, decode, encode};
use super::{INCOMING, Index};
use crate::delivery::{Incoming, IncomingState};
use crate::error::IndexError;
use crate::limits::SHARINGS_KEPT_MAX;

/// DeliveryId, the giver's PeerId: `SharingRow`.
pub(super) const TABLE: TableDefinition<'_, (&[u8; 16], &[u8]), &[u8]> = TableDefinition::new("sharings");

/// A sender's word, as it was signed.
#[derive(Debug, Serialize, Deserialize)]
enum SharingRow {
    V1(Signed<Sharing>),
}

impl SharingRow {
    fn read(bytes: &[u8]) -> Result<(Signed<Sharing>, Sharing), IndexError> {
        let Self::V1(signed) = decode("sharings", bytes)?;
        let claim = signed.claim().map_err(|_| IndexError::Row { table: "sharings" })?;
        Ok((signed, claim))
    }
}

impl Index {
    /// Puts these on record for a delivery that is being pulled. One of a giver of whom there is one already replaces that if
    /// it is good for longer. Gives how many there was room for.
    pub(crate) fn put_sharings(
        &self,
        delivery: DeliveryId,
        sharings: &[Signed<Sharing>],
    ) -> Result<usize, IndexError> {
        self.write(|txn| {
            let incoming = txn.open_table(INCOMING)?;
            let row = incoming.get(&delivery.0)?;
            let row = row.map(|row| decode::<IncomingRow>("incoming", row.value())).transpose()?;
            if row.is_none_or(|row| Incoming::from(row).state != IncomingState::Pulling) {
                return Ok(0);
            }
            let mut table = txn.open_table(TABLE)?;
            let mut put = 0;
            for signed in sharings {
                let Ok(claim) = signed.claim() else { continue };
                let giver = claim.giver_store.to_bytes();
                let key = (&delivery.0, giver.as_slice());
                let known = table.get(key)?.map(|row| SharingRow::read(row.value())).transpose()?;
                let is_newer = known.as_ref().is_none_or(|(_, known)| known.expires < claim.expires);
                let has_room = known.is_some()
                    || (table.range(of(&delivery))?.take_while(is_of(delivery)).count() < SHARINGS_MAX
                        && table.len()? < SHARINGS_KEPT_MAX);
                if is_newer && has_room {
                    table.insert(key, encode(&SharingRow::V1(signed.clone())).as_slice())?;
                    put += 1;
                }
            }
            Ok(put)
        })
    }

    /// Those of one delivery.
    pub(crate) fn sharings(&self, delivery: DeliveryId) -> Result<Vec<Signed<Sharing>>, IndexError> {
        self.read(|txn| {
            let table = txn.open_table(TABLE)?;
            let rows = table.range(of(&delivery))?.take_while(is_of(delivery));
            rows.map(|row| Ok(SharingRow::read(row?.1.value())?.0)).collect()
        })
    }

    /// The deliveries that there are any of.
    pub(crate) fn shared_deliveries(&self) -> Result<Vec<DeliveryId>, IndexError> {
        self.read(|txn| {
            let mut deliveries = Vec::new();
            for row in txn.open_table(TABLE)?.iter()? {
                deliveries.push(DeliveryId(*row?.0.value().0));
            }
            deliveries.dedup();
            Ok(deliveries)
        })
    }

    /// Removes those that have expired, by more than clocks may differ.
    pub(crate) fn expire_sharings(&self, now: UnixTime) -> Result<(), IndexError> {
        // A row that cannot be read is of no use to anybody.
        let is_over = |bytes: &[u8]| {
            SharingRow::read(bytes).map_or(true, |(_, claim)| claim.expires.plus(CLOCK_GRACE) <= now)
        };
        let is_any_over = self.read(|txn| {
            for row in txn.open_table(TABLE)?.iter()? {
                if is_over(row?.1.value()) {
                    return Ok(true);
                }
            }
            Ok(false)
        })?;
        if !is_any_over {
            return Ok(());
        }
        self.write(|txn| Ok(txn.open_table(TABLE)?.retain(|_, row| !is_over(row))?))
    }
}

/// `incoming` has a new state: unless it is being pulled, nobody is asked for it any more.
pub(super) fn changes(txn: &WriteTransaction, incoming: &Incoming) -> Result<(), IndexError> {
    if incoming.state == IncomingState::Pulling { Ok(()) } else { goes(txn, incoming.delivery) }
}

/// The delivery is over.
pub(super) fn goes(txn: &WriteTransaction, delivery: DeliveryId) -> Result<(), IndexError> {
    let mut table = txn.open_table(TABLE)?;
    let mut givers = Vec::new();
    for row in table.range(of(&delivery))?.take_while(is_of(delivery)) {
        givers.push(row?.0.value().1.to_vec());
    }
    for giver in givers {
        table.remove((&delivery.0, giver.as_slice()))?;
    }
    Ok(())
}

/// Where the rows of a delivery begin.
fn of(delivery: &DeliveryId) -> std::ops::RangeFrom<(&[u8; 16], &[u8])> {
    (&delivery.0, [].as_slice())..
}

type Row<'a> = Result<
    (redb::AccessGuard<'a, (&'static [u8; 16], &'static [u8])>, redb::AccessGuard<'a, &'static [u8]>),
    redb::StorageError,
>;

/// Whether a row is still one of that delivery; an error is, so that it is seen.
fn is_of<'a>(delivery: DeliveryId) -> impl FnMut(&Row<'a>) -> bool {
    move |row| row.as_ref().map_or(true, |(key, _)| *key.value().0 == delivery.0)
}
