//! The rows that a batch of changes touches: locked and read, changed in memory, and written back where they differ.
//!
//! In memory they are what every engine has ([`Table`]), so that `apply` does to them what it does everywhere. The
//! indexes among those tables are columns here, and follow from the rows.

use std::collections::{BTreeMap, BTreeSet};

use lighter_protocol::{BlobId, DeliveryId, MessageId};
use lighter_storage::StoredBlob;
use tokio_postgres::Row;

use super::error::DbError;
use super::leases::Holder;
use super::pool::Connection;
use super::queries::{self, delivery_of, hand_over_of, int};
use crate::apply::{self, Rows};
use crate::limits::GRACE_DAYS;
use crate::memory::Map;
use crate::message::{HandOver, Message};
use crate::references::{self, CopyKey};
use crate::rows::{
    Counts, Delivery, HandOverState, Progress, decode, encode, hand_over_at_end, hand_over_key,
};
use crate::tables::{CatalogError, Table, Tables, TablesMut};

type Result<T> = std::result::Result<T, DbError>;

/// What each of the totals begins with in memory: they are differences here, and may go down.
const BASE: u64 = 1 << 62;

/// Stands for messages that refer to a copy and are not in the set.
const OTHERS: MessageId = MessageId([u8::MAX; MessageId::LEN]);

/// The rows of some messages, theirs alone until the transaction ends.
pub(super) struct WorkingSet {
    before: Map,
    now: Map,
    fences: BTreeMap<(MessageId, HandOver), u64>,
    /// Copies of what the changes name.
    copies: BTreeMap<CopyKey, StoredBlob>,
    new_copies: BTreeSet<CopyKey>,
    receipts: BTreeMap<DeliveryId, Vec<u8>>,
}

const MESSAGES_OF: &str = "SELECT DISTINCT message FROM lighter.deliveries WHERE id = ANY($1)";
const LOCK_MESSAGES: &str = "SELECT id, body, due, deliveries, kept FROM lighter.messages WHERE id = ANY($1)
     ORDER BY id FOR UPDATE";
const LOCK_HAND_OVERS: &str =
    "SELECT message, recipient, lapsed, state, at, attempts, fence FROM lighter.hand_overs
     WHERE message = ANY($1) ORDER BY message, recipient, lapsed FOR UPDATE";
const DELIVERIES: &str =
    "SELECT id, message, recipient, mailbox, accepted, expires, size, generation, ticket, noticed,
     state, store, release FROM lighter.deliveries WHERE message = ANY($1)";
const LOCK_BLOBS: &str = "SELECT pg_advisory_xact_lock(key) FROM unnest($1::bigint[]) AS keys (key)";
const COPIES: &str = "SELECT blob, place, located FROM lighter.copies WHERE blob = ANY($1)";
const REFERRED_BY_OTHERS: &str = "SELECT named.blob, named.place
     FROM unnest($1::bytea[], $2::bytea[]) AS named (blob, place)
     CROSS JOIN LATERAL (
         SELECT FROM lighter.refs
         WHERE refs.blob = named.blob AND refs.place = named.place AND refs.message <> ALL($3) LIMIT 1
     ) AS other";

impl WorkingSet {
    /// Locks and reads everything about `messages`, about the messages of `deliveries`, and about the copies of
    /// `brought`, blobs that messages which are not there yet name.
    pub(super) async fn load(
        connection: &mut Connection,
        mut messages: BTreeSet<MessageId>,
        deliveries: &BTreeSet<DeliveryId>,
        brought: &BTreeSet<BlobId>,
    ) -> Result<Self> {
        let all = [LOCK_MESSAGES, LOCK_HAND_OVERS, DELIVERIES, LOCK_BLOBS, COPIES, REFERRED_BY_OTHERS];
        connection.prepare(&all).await?;
        if !deliveries.is_empty() {
            let ids: Vec<&[u8]> = deliveries.iter().map(|id| id.0.as_slice()).collect();
            for row in connection.query(MESSAGES_OF, &[&ids]).await? {
                messages.insert(MessageId(queries::bytes(&row, 0)?));
            }
        }
        let ids: Vec<&[u8]> = messages.iter().map(|id| id.0.as_slice()).collect();
        let mut set = Self {
            before: Map::new(),
            now: Map::new(),
            fences: BTreeMap::new(),
            copies: BTreeMap::new(),
            new_copies: BTreeSet::new(),
            receipts: BTreeMap::new(),
        };
        // Each in a statement of its own, in this order: what was locked is read as it is then.
        let mut named = brought.clone();
        for row in connection.query_prepared(LOCK_MESSAGES, &[&ids]).await? {
            let message = set.take_in_message(&row)?;
            named.extend(message.parts.iter().map(|part| part.blob.id));
        }
        for row in connection.query_prepared(LOCK_HAND_OVERS, &[&ids]).await? {
            set.take_in_hand_over(&row)?;
        }
        for row in connection.query_prepared(DELIVERIES, &[&ids]).await? {
            let delivery = delivery_of(&row)?;
            set.before.put(Table::Deliveries, &delivery.id.0, &encode(&delivery)?)?;
        }
        if !named.is_empty() {
            set.load_copies(connection, &named, &ids).await?;
        }
        set.before.put(Table::Meta, apply::COUNTS, &encode(&base())?)?;
        set.now = set.before.clone();
        Ok(set)
    }

    async fn load_copies(
        &mut self,
        connection: &Connection,
        blobs: &BTreeSet<BlobId>,
        messages: &[&[u8]],
    ) -> Result<()> {
        // In order, as everybody takes them. Two blobs with the same beginning share a lock, and that is all.
        let locks: BTreeSet<i64> = blobs.iter().map(lock_of).collect();
        let locks: Vec<i64> = locks.into_iter().collect();
        connection.query_prepared(LOCK_BLOBS, &[&locks]).await?;
        let ids: Vec<&[u8]> = blobs.iter().map(|blob| blob.0.as_slice()).collect();
        for row in connection.query_prepared(COPIES, &[&ids]).await? {
            let blob = decode::<StoredBlob>(row.try_get(2)?)?;
            self.copies.insert(CopyKey::of(&blob), blob);
        }
        let (blobs, places): (Vec<&[u8]>, Vec<&[u8]>) = self.copies.keys().map(CopyKey::parts).unzip();
        let referred = connection.query_prepared(REFERRED_BY_OTHERS, &[&blobs, &places, &messages]).await?;
        for row in referred {
            let (blob, place): (&[u8], &[u8]) = (row.try_get(0)?, row.try_get(1)?);
            let key = [blob, place, &OTHERS.0].concat();
            self.before.put(Table::References, &key, &encode(&1_u32)?)?;
        }
        Ok(())
    }

    fn take_in_message(&mut self, row: &Row) -> Result<Message> {
        let message = queries::message_of(row, 1)?;
        let count = |column| u32::try_from(row.try_get::<_, i32>(column)?).map_err(|_| damaged());
        let progress = Progress { due: count(2)?, deliveries: count(3)?, kept: count(4)? };
        self.before.put(Table::Messages, &message.id.0, &encode(&message)?)?;
        self.before.put(Table::Progress, &message.id.0, &encode(&progress)?)?;
        if progress.refers() {
            for (copy, (_, times)) in references::named(&message) {
                self.before.put(Table::References, &copy.row(&message.id), &encode(&times)?)?;
            }
        }
        Ok(message)
    }

    fn take_in_hand_over(&mut self, row: &Row) -> Result<()> {
        let message = MessageId(queries::bytes(row, 0)?);
        let (hand_over, state) = hand_over_of(row, 1)?;
        self.before.put(Table::HandOvers, &hand_over_key(&message, hand_over), &encode(&state)?)?;
        let fence = u64::try_from(row.try_get::<_, i64>(6)?).map_err(|_| damaged())?;
        self.fences.insert((message, hand_over), fence);
        Ok(())
    }

    /// Applies changes to the rows, in memory.
    pub(super) fn change<R>(
        &mut self,
        work: impl FnOnce(&mut Rows<'_>) -> crate::tables::Result<R>,
    ) -> Result<R> {
        let mut rows = Rows::new(&mut self.now)?;
        let result = work(&mut rows)?;
        rows.finish()?;
        Ok(result)
    }

    /// How much of a message is open.
    pub(super) fn progress(&self, message: &MessageId) -> Result<Progress> {
        Ok(apply::progress(&self.now, message)?)
    }

    /// Whether a hand-over is due, under this fence.
    pub(super) fn is_held(&self, message: &MessageId, hand_over: HandOver, fence: u64) -> Result<bool> {
        let state = apply::hand_over_row(&self.now, message, hand_over)?;
        let is_due = state.is_some_and(HandOverState::is_due);
        Ok(is_due && self.fences.get(&(*message, hand_over)) == Some(&fence))
    }

    /// Whether a delivery's user was told that it will lapse.
    pub(super) fn is_noticed(&self, delivery: &DeliveryId) -> Result<bool> {
        Ok(apply::delivery_row(&self.now, delivery)?.is_some_and(|row| row.noticed))
    }

    /// The copies of a blob that somebody refers to now, those first that go first.
    pub(super) fn copies_of(&self, blob: &BlobId) -> Result<Vec<StoredBlob>> {
        let mut found = Vec::new();
        for (copy, stored) in self.copies.iter().filter(|(copy, _)| copy.parts().0 == blob.0) {
            if references::is_referred(&self.now, copy)? {
                found.push(stored.clone());
            }
        }
        Ok(found)
    }

    /// Whether a copy is one that a message of this batch brought.
    pub(super) fn is_new(&self, copy: &CopyKey) -> bool {
        self.new_copies.contains(copy)
    }

    /// A copy that a message of this batch brought.
    pub(super) fn add_copy(&mut self, blob: &StoredBlob) {
        let key = CopyKey::of(blob);
        if self.copies.insert(key, blob.clone()).is_none() {
            self.new_copies.insert(key);
        }
    }

    /// The store's word for a delivery, to be kept with it.
    pub(super) fn add_receipt(&mut self, delivery: DeliveryId, receipt: Vec<u8>) {
        self.receipts.entry(delivery).or_insert(receipt);
    }

    /// Writes what came out different.
    pub(super) async fn store(self, connection: &mut Connection, holder: &Holder) -> Result<()> {
        self.store_messages(connection).await?;
        self.store_hand_overs(connection).await?;
        self.store_deliveries(connection).await?;
        self.store_references(connection).await?;
        let after = apply::counts(&self.now)?;
        holder.count(connection, &after, &base()).await
    }

    /// Rows of a table that are there now: those that were not, and those that were otherwise.
    fn changed(&self, table: Table) -> (Vec<KeyAndRow<'_>>, Vec<KeyAndRow<'_>>) {
        let (mut new, mut other) = (Vec::new(), Vec::new());
        for ((_, key), row) in of(&self.now, table) {
            match self.before.get(&(table, key.clone())) {
                None => new.push((key.as_slice(), row.as_slice())),
                Some(before) if before != row => other.push((key.as_slice(), row.as_slice())),
                Some(_) => {}
            }
        }
        (new, other)
    }

    /// Keys of rows that are not there any more.
    fn gone(&self, table: Table) -> Vec<&[u8]> {
        let gone =
            of(&self.before, table).filter(|((_, key), _)| !self.now.contains_key(&(table, key.clone())));
        gone.map(|((_, key), _)| key.as_slice()).collect()
    }

    async fn store_messages(&self, connection: &mut Connection) -> Result<()> {
        const DELETE: &str = "DELETE FROM lighter.messages WHERE id = ANY($1)";
        const INSERT: &str = "INSERT INTO lighter.messages (id, body, last_day, due, deliveries, kept)
             SELECT * FROM unnest($1::bytea[], $2::bytea[], $3::bigint[], $4::int[], $5::int[], $6::int[])";
        const UPDATE: &str = "UPDATE lighter.messages
             SET due = new.due, deliveries = new.deliveries, kept = new.kept
             FROM unnest($1::bytea[], $2::int[], $3::int[], $4::int[]) AS new (id, due, deliveries, kept)
             WHERE messages.id = new.id";
        let gone = self.gone(Table::Messages);
        if !gone.is_empty() {
            // What hangs on them goes with them.
            connection.execute(DELETE, &[&gone]).await?;
        }
        let (new, _) = self.changed(Table::Messages);
        let (mut ids, mut bodies, mut days) = (Vec::new(), Vec::new(), Vec::new());
        let mut progress = ProgressColumns::default();
        for (id, row) in new {
            ids.push(id);
            bodies.push([&[queries::MESSAGE_FORMAT], row].concat());
            days.push(i64::from(decode::<Message>(row)?.expires.plus(GRACE_DAYS).0));
            progress.push(Tables::get(&self.now, Table::Progress, id)?.as_deref())?;
        }
        if !ids.is_empty() {
            let ProgressColumns { due, deliveries, kept } = &progress;
            connection.execute(INSERT, &[&ids, &bodies, &days, due, deliveries, kept]).await?;
        }
        let (_, other) = self.changed(Table::Progress);
        let (mut ids, mut progress) = (Vec::new(), ProgressColumns::default());
        for (id, row) in other {
            ids.push(id);
            progress.push(Some(row))?;
        }
        if !ids.is_empty() {
            let ProgressColumns { due, deliveries, kept } = &progress;
            connection.execute(UPDATE, &[&ids, due, deliveries, kept]).await?;
        }
        Ok(())
    }

    async fn store_hand_overs(&self, connection: &mut Connection) -> Result<()> {
        const INSERT: &str = "INSERT INTO lighter.hand_overs (message, recipient, lapsed, state, at, attempts)
             SELECT * FROM unnest($1::bytea[], $2::bigint[], $3::boolean[], $4::smallint[], $5::bigint[], $6::bigint[])";
        // What is settled is nobody's.
        const UPDATE: &str = "UPDATE lighter.hand_overs
             SET state = new.state, at = new.at, attempts = new.attempts, holder = NULL
             FROM unnest($1::bytea[], $2::bigint[], $3::boolean[], $4::smallint[], $5::bigint[], $6::bigint[])
                 AS new (message, recipient, lapsed, state, at, attempts)
             WHERE hand_overs.message = new.message AND hand_overs.recipient = new.recipient
                 AND hand_overs.lapsed = new.lapsed";
        let (new, other) = self.changed(Table::HandOvers);
        for (sql, rows) in [(INSERT, new), (UPDATE, other)] {
            if rows.is_empty() {
                continue;
            }
            let mut columns = HandOverColumns::default();
            for (key, row) in rows {
                columns.push(key, row)?;
            }
            let HandOverColumns { messages, recipients, lapsed, states, at, attempts } = &columns;
            connection.execute(sql, &[messages, recipients, lapsed, states, at, attempts]).await?;
        }
        Ok(())
    }

    async fn store_deliveries(&self, connection: &mut Connection) -> Result<()> {
        const INSERT: &str = "INSERT INTO lighter.deliveries (id, message, recipient, mailbox, accepted, expires, size,
                 generation, ticket, noticed, state, store, release, deadline)
             SELECT * FROM unnest($1::bytea[], $2::bytea[], $3::bigint[], $4::text[], $5::bigint[], $6::bigint[],
                 $7::bigint[], $8::bigint[], $9::bytea[], $10::boolean[], $11::smallint[], $12::bytea[], $13::bigint[],
                 $14::bigint[])";
        // What a store has, or nobody waits for any more, is nobody's to offer.
        const UPDATE: &str = "UPDATE lighter.deliveries
             SET generation = new.generation, ticket = new.ticket, noticed = new.noticed, state = new.state,
                 store = new.store, release = new.release, deadline = new.deadline,
                 holder = CASE WHEN new.state <= 2 THEN deliveries.holder END
             FROM unnest($1::bytea[], $2::bigint[], $3::bytea[], $4::boolean[], $5::smallint[], $6::bytea[],
                 $7::bigint[], $8::bigint[])
                 AS new (id, generation, ticket, noticed, state, store, release, deadline)
             WHERE deliveries.id = new.id";
        const RECEIPT: &str = "UPDATE lighter.deliveries SET receipt = new.receipt
             FROM unnest($1::bytea[], $2::bytea[]) AS new (id, receipt)
             WHERE deliveries.id = new.id AND deliveries.receipt IS NULL";
        let (new, other) = self.changed(Table::Deliveries);
        if !new.is_empty() {
            let columns = DeliveryColumns::of(&new)?;
            let DeliveryColumns { ids, messages, recipients, mailboxes, accepted, expires, sizes, .. } =
                &columns;
            let DeliveryColumns {
                generations, tickets, noticed, states, stores, releases, deadlines, ..
            } = &columns;
            connection
                .execute(
                    INSERT,
                    &[
                        ids,
                        messages,
                        recipients,
                        mailboxes,
                        accepted,
                        expires,
                        sizes,
                        generations,
                        tickets,
                        noticed,
                        states,
                        stores,
                        releases,
                        deadlines,
                    ],
                )
                .await?;
        }
        if !other.is_empty() {
            let columns = DeliveryColumns::of(&other)?;
            let DeliveryColumns {
                ids,
                generations,
                tickets,
                noticed,
                states,
                stores,
                releases,
                deadlines,
                ..
            } = &columns;
            connection
                .execute(UPDATE, &[ids, generations, tickets, noticed, states, stores, releases, deadlines])
                .await?;
        }
        if !self.receipts.is_empty() {
            let ids: Vec<&[u8]> = self.receipts.keys().map(|id| id.0.as_slice()).collect();
            let receipts: Vec<&[u8]> = self.receipts.values().map(Vec::as_slice).collect();
            connection.execute(RECEIPT, &[&ids, &receipts]).await?;
        }
        Ok(())
    }

    async fn store_references(&self, connection: &mut Connection) -> Result<()> {
        const INSERT_COPIES: &str = "INSERT INTO lighter.copies (blob, place, located)
             SELECT * FROM unnest($1::bytea[], $2::bytea[], $3::bytea[]) ON CONFLICT DO NOTHING";
        const INSERT: &str = "INSERT INTO lighter.refs (blob, place, message, times)
             SELECT * FROM unnest($1::bytea[], $2::bytea[], $3::bytea[], $4::bigint[])";
        const DELETE: &str = "DELETE FROM lighter.refs
             USING unnest($1::bytea[], $2::bytea[], $3::bytea[]) AS old (blob, place, message)
             WHERE refs.blob = old.blob AND refs.place = old.place AND refs.message = old.message";
        const DELETE_COPIES: &str = "DELETE FROM lighter.copies
             USING unnest($1::bytea[], $2::bytea[]) AS old (blob, place)
             WHERE copies.blob = old.blob AND copies.place = old.place";
        let (new, _) = self.changed(Table::References);
        let mut located: BTreeMap<CopyKey, Vec<u8>> = BTreeMap::new();
        let mut rows = ReferenceColumns::default();
        for (key, times) in new {
            let (copy, message) = CopyKey::in_row(key)?;
            if let Some(blob) = self.copies.get(&copy) {
                located.insert(copy, encode(blob)?);
            }
            rows.push(&copy, &message);
            rows.times.push(i64::from(decode::<u32>(times)?));
        }
        if !rows.times.is_empty() {
            let (blobs, places): (Vec<&[u8]>, Vec<&[u8]>) = located.keys().map(CopyKey::parts).unzip();
            let located: Vec<&[u8]> = located.values().map(Vec::as_slice).collect();
            connection.execute(INSERT_COPIES, &[&blobs, &places, &located]).await?;
            let ReferenceColumns { blobs, places, messages, times } = &rows;
            connection.execute(INSERT, &[blobs, places, messages, times]).await?;
        }
        let (mut rows, mut dead) = (ReferenceColumns::default(), BTreeSet::new());
        for key in self.gone(Table::References) {
            let (copy, message) = CopyKey::in_row(key)?;
            rows.push(&copy, &message);
            if !references::is_referred(&self.now, &copy)? {
                dead.insert(copy);
            }
        }
        if !rows.messages.is_empty() {
            let ReferenceColumns { blobs, places, messages, .. } = &rows;
            connection.execute(DELETE, &[blobs, places, messages]).await?;
        }
        if !dead.is_empty() {
            let (blobs, places): (Vec<&[u8]>, Vec<&[u8]>) = dead.iter().map(CopyKey::parts).unzip();
            connection.execute(DELETE_COPIES, &[&blobs, &places]).await?;
        }
        Ok(())
    }
}

type KeyAndRow<'r> = (&'r [u8], &'r [u8]);

/// The rows of one table.
fn of(map: &Map, table: Table) -> impl Iterator<Item = (&(Table, Vec<u8>), &Vec<u8>)> {
    map.range((table, Vec::new())..).take_while(move |((of, _), _)| *of == table)
}

/// Where totals begin in memory.
fn base() -> Counts {
    Counts {
        messages: BASE,
        hand_overs: BASE,
        waiting: BASE,
        waiting_bytes: BASE,
        receipted: BASE,
        released: BASE,
        references: BASE,
        references_bytes: BASE,
        copies: BASE,
        copies_bytes: BASE,
    }
}

fn lock_of(blob: &BlobId) -> i64 {
    let mut first = [0; 8];
    first.copy_from_slice(&blob.0[..8]);
    i64::from_be_bytes(first)
}

fn damaged() -> DbError {
    CatalogError::Damaged("a number that cannot be").into()
}

#[derive(Default)]
struct ProgressColumns {
    due: Vec<i32>,
    deliveries: Vec<i32>,
    kept: Vec<i32>,
}

impl ProgressColumns {
    fn push(&mut self, row: Option<&[u8]>) -> Result<()> {
        let Progress { due, deliveries, kept } = row.map(decode).transpose()?.unwrap_or_default();
        let column = |count: u32| i32::try_from(count).map_err(|_| damaged());
        self.due.push(column(due)?);
        self.deliveries.push(column(deliveries)?);
        self.kept.push(column(kept)?);
        Ok(())
    }
}

#[derive(Default)]
struct HandOverColumns {
    messages: Vec<Vec<u8>>,
    recipients: Vec<i64>,
    lapsed: Vec<bool>,
    states: Vec<i16>,
    at: Vec<i64>,
    attempts: Vec<i64>,
}

impl HandOverColumns {
    fn push(&mut self, key: &[u8], row: &[u8]) -> Result<()> {
        let (message, hand_over) = hand_over_at_end(key)?;
        let (state, at, attempts) = match decode(row)? {
            HandOverState::Due { attempts, next } => (0, next, attempts),
            HandOverState::HandedOver { at } => (1, at, 0),
            HandOverState::Failed { at } => (2, at, 0),
        };
        self.messages.push(message.0.to_vec());
        self.recipients.push(hand_over.recipient.into());
        self.lapsed.push(hand_over.lapsed);
        self.states.push(state);
        self.at.push(int(at.0));
        self.attempts.push(attempts.into());
        Ok(())
    }
}

#[derive(Default)]
struct DeliveryColumns {
    ids: Vec<Vec<u8>>,
    messages: Vec<Vec<u8>>,
    recipients: Vec<i64>,
    mailboxes: Vec<String>,
    accepted: Vec<i64>,
    expires: Vec<i64>,
    sizes: Vec<i64>,
    generations: Vec<i64>,
    tickets: Vec<Option<Vec<u8>>>,
    noticed: Vec<bool>,
    states: Vec<i16>,
    stores: Vec<Option<Vec<u8>>>,
    releases: Vec<Option<i64>>,
    deadlines: Vec<Option<i64>>,
}

impl DeliveryColumns {
    fn of(rows: &[(&[u8], &[u8])]) -> Result<Self> {
        let mut columns = Self::default();
        for (_, row) in rows {
            columns.push(&decode(row)?);
        }
        Ok(columns)
    }

    fn push(&mut self, row: &Delivery) {
        let (state, store, release) = queries::state_columns(row.state);
        self.ids.push(row.id.0.to_vec());
        self.messages.push(row.message.0.to_vec());
        self.recipients.push(row.recipient.into());
        self.mailboxes.push(row.mailbox.as_str().to_owned());
        self.accepted.push(int(row.accepted.0));
        self.expires.push(row.expires.0.into());
        self.sizes.push(int(row.size));
        self.generations.push(row.generation.into());
        self.tickets.push(row.ticket.map(|ticket| ticket.0.to_vec()));
        self.noticed.push(row.noticed);
        self.states.push(state);
        self.stores.push(store.map(|store| store.to_bytes()));
        self.releases.push(release.map(|at| int(at.0)));
        self.deadlines.push(row.deadline().map(|(at, _)| int(at.0)));
    }
}

#[derive(Default)]
struct ReferenceColumns {
    blobs: Vec<Vec<u8>>,
    places: Vec<Vec<u8>>,
    messages: Vec<Vec<u8>>,
    times: Vec<i64>,
}

impl ReferenceColumns {
    fn push(&mut self, copy: &CopyKey, message: &MessageId) {
        let (blob, place) = copy.parts();
        self.blobs.push(blob.to_vec());
        self.places.push(place.to_vec());
        self.messages.push(message.0.to_vec());
    }
}
