//! What is asked of the tables, and how rows become what the rest of the relay knows.

use std::collections::BTreeSet;

use lighter_protocol::{
    BlobId, Day, DeliveryId, Mailbox, MessageId, PeerId, Receipt, Signed, TicketHash, UnixTime,
};
use lighter_storage::StoredBlob;
use tokio_postgres::Row;

use super::error::DbError;
use super::leases::Holder;
use super::pool::Connection;
use crate::Checkpoint;
use crate::catalog::{DueHandOver, KeptCopy};
use crate::message::{Form, HandOver, Message};
use crate::references::CopyKey;
use crate::rows::{Counts, Deadline, Delivery, DeliveryState, HandOverState, Position, decode, encode};
use crate::tables::CatalogError;

type Result<T> = std::result::Result<T, DbError>;

/// The first byte of a message's value: postcard of [`Message`] follows.
pub(super) const MESSAGE_FORMAT: u8 = 1;

/// The columns of a delivery, as [`delivery_of`] takes them.
macro_rules! delivery_columns {
    () => {
        "id, message, recipient, mailbox, accepted, expires, size, generation, ticket, noticed, state, store, release"
    };
}

/// Up to where this relay's log, if it had one, is in the database. Each relay has its own.
pub(super) async fn checkpoint(connection: &mut Connection, holder: &Holder) -> Result<Checkpoint> {
    let rows = connection
        .query("SELECT value FROM lighter.meta WHERE name = $1", &[&checkpoint_name(holder)])
        .await?;
    match rows.first() {
        Some(row) => Ok(decode(row.try_get(0)?)?),
        None => Ok(Checkpoint::BEGIN),
    }
}

pub(super) async fn put_checkpoint(
    connection: &mut Connection,
    holder: &Holder,
    to: &Checkpoint,
) -> Result<()> {
    const PUT: &str = "INSERT INTO lighter.meta (name, value) VALUES ($1, $2)
         ON CONFLICT (name) DO UPDATE SET value = excluded.value";
    connection.execute(PUT, &[&checkpoint_name(holder), &encode(to)?]).await?;
    Ok(())
}

fn checkpoint_name(holder: &Holder) -> String {
    format!("checkpoint of {}", holder.relay)
}

/// Forgets everything but who the relays are.
pub(super) async fn clear(connection: &mut Connection) -> Result<()> {
    connection
        .run(
            "TRUNCATE lighter.meta, lighter.messages, lighter.hand_overs, lighter.deliveries, lighter.copies, lighter.refs;
             UPDATE lighter.writers SET messages = 0, hand_overs = 0, waiting = 0, waiting_bytes = 0, receipted = 0,
                 released = 0, named = 0, named_bytes = 0, copies = 0, copies_bytes = 0",
        )
        .await
}

pub(super) async fn message(connection: &mut Connection, id: &MessageId) -> Result<Option<Message>> {
    let rows =
        connection.query("SELECT body FROM lighter.messages WHERE id = $1", &[&id.0.as_slice()]).await?;
    rows.first().map(|row| message_of(row, 0)).transpose()
}

pub(super) async fn hand_overs(
    connection: &mut Connection,
    id: &MessageId,
) -> Result<Vec<(HandOver, HandOverState)>> {
    const SELECT: &str =
        "SELECT recipient, lapsed, state, at, attempts FROM lighter.hand_overs WHERE message = $1
         ORDER BY recipient, lapsed";
    let rows = connection.query(SELECT, &[&id.0.as_slice()]).await?;
    rows.iter().map(|row| hand_over_of(row, 0)).collect()
}

pub(super) async fn delivery(connection: &mut Connection, id: &DeliveryId) -> Result<Option<Delivery>> {
    const SELECT: &str = concat!("SELECT ", delivery_columns!(), " FROM lighter.deliveries WHERE id = $1");
    let rows = connection.query(SELECT, &[&id.0.as_slice()]).await?;
    rows.first().map(delivery_of).transpose()
}

/// Every store's word is kept here; that of a drop is asked for.
pub(super) async fn receipt_of_drop(
    connection: &mut Connection,
    id: &DeliveryId,
) -> Result<Option<Signed<Receipt>>> {
    const SELECT: &str = "SELECT receipt, body FROM lighter.deliveries
         JOIN lighter.messages ON messages.id = deliveries.message
         WHERE deliveries.id = $1 AND receipt IS NOT NULL";
    let rows = connection.query(SELECT, &[&id.0.as_slice()]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let is_drop = |message: Message| {
        message.recipients.iter().any(|to| matches!(to.form, Form::Drop { delivery, .. } if delivery == *id))
    };
    if is_drop(message_of(row, 1)?) { Ok(Some(decode(row.try_get(0)?)?)) } else { Ok(None) }
}

pub(super) async fn by_ticket(connection: &mut Connection, ticket: &TicketHash) -> Result<Option<Delivery>> {
    const SELECT: &str =
        concat!("SELECT ", delivery_columns!(), " FROM lighter.deliveries WHERE ticket = $1 LIMIT 1");
    let rows = connection.query(SELECT, &[&ticket.0.as_slice()]).await?;
    rows.first().map(delivery_of).transpose()
}

pub(super) async fn waiting(
    connection: &mut Connection,
    mailbox: &Mailbox,
    after: Option<Position>,
    count_max: i64,
) -> Result<Vec<Delivery>> {
    const SELECT: &str = concat!(
        "SELECT ",
        delivery_columns!(),
        " FROM lighter.deliveries WHERE mailbox = $1 AND state <= 2 AND (accepted, id) > ($2, $3)
         ORDER BY accepted, id LIMIT $4"
    );
    let (accepted, id) = after_position(after);
    let rows = connection.query(SELECT, &[&mailbox.as_str(), &accepted, &id, &count_max]).await?;
    rows.iter().map(delivery_of).collect()
}

/// What a position is in columns; before everything where there is none.
pub(super) fn after_position(after: Option<Position>) -> (i64, Vec<u8>) {
    after.map_or((-1, Vec::new()), |after| (int(after.accepted.0), after.delivery.0.to_vec()))
}

pub(super) async fn waiting_mailboxes(
    connection: &mut Connection,
    after: Option<&Mailbox>,
    count_max: i64,
) -> Result<Vec<Mailbox>> {
    // One look for each mailbox, however much waits for it.
    const SELECT: &str = "WITH RECURSIVE found (mailbox) AS (
             (SELECT mailbox FROM lighter.deliveries WHERE state <= 2 AND mailbox > $1 ORDER BY mailbox LIMIT 1)
             UNION ALL
             SELECT next.mailbox FROM found CROSS JOIN LATERAL (
                 SELECT mailbox FROM lighter.deliveries
                 WHERE state <= 2 AND deliveries.mailbox > found.mailbox ORDER BY mailbox LIMIT 1
             ) AS next
         )
         SELECT mailbox FROM found LIMIT $2";
    let after = after.map(Mailbox::as_str).unwrap_or_default();
    let rows = connection.query(SELECT, &[&after, &count_max]).await?;
    rows.iter().map(|row| mailbox_of(row.try_get(0)?)).collect()
}

pub(super) async fn due(
    connection: &mut Connection,
    now: UnixTime,
    count_max: i64,
    except: &BTreeSet<MessageId>,
) -> Result<Vec<DueHandOver>> {
    const SELECT: &str = "SELECT message, recipient, lapsed, state, at, attempts FROM lighter.hand_overs
         WHERE state = 0 AND at <= $1 AND message <> ALL($2)
         ORDER BY at, message, recipient, lapsed LIMIT $3";
    let except: Vec<&[u8]> = except.iter().map(|id| id.0.as_slice()).collect();
    let rows = connection.query(SELECT, &[&int(now.0), &except, &count_max]).await?;
    rows.iter().map(due_of).collect()
}

/// A hand-over that is due: its message, then what [`hand_over_of`] takes.
pub(super) fn due_of(row: &Row) -> Result<DueHandOver> {
    let (hand_over, state) = hand_over_of(row, 1)?;
    let HandOverState::Due { attempts, next: since } = state else {
        return Err(CatalogError::Damaged("due, and settled").into());
    };
    Ok(DueHandOver { message: MessageId(bytes(row, 0)?), hand_over, since, attempts })
}

pub(super) async fn next_due(connection: &mut Connection, now: UnixTime) -> Result<Option<UnixTime>> {
    const SELECT: &str = "SELECT at FROM lighter.hand_overs WHERE state = 0 AND at > $1 ORDER BY at LIMIT 1";
    let rows = connection.query(SELECT, &[&int(now.0)]).await?;
    rows.first().map(|row| time(row.try_get(0)?)).transpose()
}

pub(super) async fn postpone(
    connection: &mut Connection,
    message: &MessageId,
    which: &[HandOver],
    attempts: u32,
    next: UnixTime,
) -> Result<()> {
    const UPDATE: &str = "UPDATE lighter.hand_overs SET attempts = $4, at = $5, holder = NULL
         FROM unnest($2::bigint[], $3::boolean[]) AS which (recipient, lapsed)
         WHERE message = $1 AND hand_overs.recipient = which.recipient AND hand_overs.lapsed = which.lapsed
             AND state = 0";
    let (recipients, lapsed): (Vec<i64>, Vec<bool>) =
        which.iter().map(|hand_over| (i64::from(hand_over.recipient), hand_over.lapsed)).unzip();
    let attempts = i64::from(attempts);
    connection
        .execute(UPDATE, &[&message.0.as_slice(), &recipients, &lapsed, &attempts, &int(next.0)])
        .await?;
    Ok(())
}

pub(super) async fn deadlines(
    connection: &mut Connection,
    now: UnixTime,
    count_max: i64,
) -> Result<Vec<(Delivery, Deadline)>> {
    const SELECT: &str = concat!(
        "SELECT ",
        delivery_columns!(),
        " FROM lighter.deliveries WHERE deadline <= $1 ORDER BY deadline, id LIMIT $2"
    );
    let rows = connection.query(SELECT, &[&int(now.0), &count_max]).await?;
    let with_deadline = |row| {
        let delivery = delivery_of(row)?;
        let (_, what) =
            delivery.deadline().ok_or(CatalogError::Damaged("deadline of a delivery without one"))?;
        Ok((delivery, what))
    };
    rows.iter().map(with_deadline).collect()
}

pub(super) async fn messages(
    connection: &mut Connection,
    after: Option<&MessageId>,
    count_max: i64,
) -> Result<Vec<(Message, bool)>> {
    const SELECT: &str =
        "SELECT body, due > 0 OR kept > 0 FROM lighter.messages WHERE id > $1 ORDER BY id LIMIT $2";
    let after = after.map(|id| id.0.to_vec()).unwrap_or_default();
    let rows = connection.query(SELECT, &[&after, &count_max]).await?;
    rows.iter().map(|row| Ok((message_of(row, 0)?, row.try_get(1)?))).collect()
}

pub(super) async fn copies_of(
    connection: &mut Connection,
    blob: &BlobId,
    until: Day,
    count_max: i64,
) -> Result<Vec<StoredBlob>> {
    const SELECT: &str =
        "SELECT located FROM lighter.copies WHERE blob = $1 AND place >= $2 ORDER BY place LIMIT $3";
    let place = until.0.to_be_bytes();
    let rows = connection.query(SELECT, &[&blob.0.as_slice(), &place.as_slice(), &count_max]).await?;
    rows.iter().map(|row| Ok(decode(row.try_get(0)?)?)).collect()
}

pub(super) async fn copies(
    connection: &mut Connection,
    after: Option<&CopyKey>,
    count_max: i64,
) -> Result<Vec<KeptCopy>> {
    const SELECT: &str = "SELECT located, (
             SELECT sum(times)::bigint FROM lighter.refs WHERE refs.blob = copies.blob AND refs.place = copies.place
         )
         FROM lighter.copies WHERE (blob, place) > ($1, $2) ORDER BY blob, place LIMIT $3";
    let (blob, place) = after.map(CopyKey::parts).unwrap_or_default();
    let rows = connection.query(SELECT, &[&blob, &place, &count_max]).await?;
    let copy = |row: &Row| {
        let references = row.try_get::<_, Option<i64>>(1)?.unwrap_or_default();
        Ok(KeptCopy { blob: decode(row.try_get(0)?)?, references: number(references)? })
    };
    rows.iter().map(copy).collect()
}

pub(super) async fn counts(connection: &mut Connection) -> Result<Counts> {
    const SELECT: &str = "SELECT sum(messages)::bigint, sum(hand_overs)::bigint, sum(waiting)::bigint,
             sum(waiting_bytes)::bigint, sum(receipted)::bigint, sum(released)::bigint, sum(named)::bigint,
             sum(named_bytes)::bigint, sum(copies)::bigint, sum(copies_bytes)::bigint
         FROM lighter.writers";
    let rows = connection.query(SELECT, &[]).await?;
    let Some(row) = rows.first() else { return Ok(Counts::default()) };
    let sum = |column| number(row.try_get::<_, Option<i64>>(column)?.unwrap_or_default());
    Ok(Counts {
        messages: sum(0)?,
        hand_overs: sum(1)?,
        waiting: sum(2)?,
        waiting_bytes: sum(3)?,
        receipted: sum(4)?,
        released: sum(5)?,
        references: sum(6)?,
        references_bytes: sum(7)?,
        copies: sum(8)?,
        copies_bytes: sum(9)?,
    })
}

// Rows.

/// A message's value in a column.
pub(super) fn message_of(row: &Row, column: usize) -> Result<Message> {
    let body: &[u8] = row.try_get(column)?;
    match body.split_first() {
        Some((&MESSAGE_FORMAT, body)) => Ok(decode(body)?),
        _ => Err(CatalogError::Damaged("a message of a format that this program does not know").into()),
    }
}

/// A hand-over and its state: recipient, lapsed, state, at and attempts, from `first` on.
pub(super) fn hand_over_of(row: &Row, first: usize) -> Result<(HandOver, HandOverState)> {
    let hand_over = HandOver { recipient: small(row.try_get(first)?)?, lapsed: row.try_get(first + 1)? };
    let at = time(row.try_get(first + 3)?)?;
    let state = match row.try_get::<_, i16>(first + 2)? {
        0 => HandOverState::Due { attempts: small(row.try_get(first + 4)?)?, next: at },
        1 => HandOverState::HandedOver { at },
        2 => HandOverState::Failed { at },
        _ => return Err(CatalogError::Damaged("state of a hand-over").into()),
    };
    Ok((hand_over, state))
}

/// A delivery, from `delivery_columns!`.
pub(super) fn delivery_of(row: &Row) -> Result<Delivery> {
    let store = || {
        let bytes: Option<&[u8]> = row.try_get(11)?;
        let store = bytes.and_then(|bytes| PeerId::from_bytes(bytes).ok());
        store.ok_or(DbError::Rows(CatalogError::Damaged("receipt without a store")))
    };
    let state = match row.try_get::<_, i16>(10)? {
        0 => DeliveryState::Waiting,
        1 => DeliveryState::Lapsing,
        2 => DeliveryState::LastChance,
        3 => DeliveryState::Lapsed,
        4 => DeliveryState::Withdrawn,
        5 => DeliveryState::Receipted {
            store: store()?,
            release: time(row.try_get::<_, Option<i64>>(12)?.unwrap_or_default())?,
        },
        6 => DeliveryState::Released { store: store()? },
        // Below the others: what waits is `state <= 2` in the tables' indexes.
        -1 => DeliveryState::Dropped,
        7 => DeliveryState::Expired,
        _ => return Err(CatalogError::Damaged("state of a delivery").into()),
    };
    let ticket: Option<&[u8]> = row.try_get(8)?;
    let ticket = ticket.map(|bytes| bytes.try_into().map(TicketHash)).transpose();
    Ok(Delivery {
        id: DeliveryId(bytes(row, 0)?),
        message: MessageId(bytes(row, 1)?),
        recipient: small(row.try_get(2)?)?,
        mailbox: mailbox_of(row.try_get(3)?)?,
        accepted: time(row.try_get(4)?)?,
        expires: Day(small(row.try_get(5)?)?),
        size: number(row.try_get(6)?)?,
        generation: small(row.try_get(7)?)?,
        ticket: ticket.map_err(|_| CatalogError::Damaged("a ticket's hash"))?,
        noticed: row.try_get(9)?,
        state,
    })
}

/// A delivery's state as columns: state, store, release.
pub(super) fn state_columns(state: DeliveryState) -> (i16, Option<PeerId>, Option<UnixTime>) {
    match state {
        DeliveryState::Waiting => (0, None, None),
        DeliveryState::Lapsing => (1, None, None),
        DeliveryState::LastChance => (2, None, None),
        DeliveryState::Lapsed => (3, None, None),
        DeliveryState::Withdrawn => (4, None, None),
        DeliveryState::Receipted { store, release } => (5, Some(store), Some(release)),
        DeliveryState::Released { store } => (6, Some(store), None),
        DeliveryState::Dropped => (-1, None, None),
        DeliveryState::Expired => (7, None, None),
    }
}

fn mailbox_of(text: &str) -> Result<Mailbox> {
    text.parse().map_err(|_| CatalogError::Damaged("a mailbox").into())
}

/// An id in a column.
pub(super) fn bytes<const LEN: usize>(row: &Row, column: usize) -> Result<[u8; LEN]> {
    let bytes: &[u8] = row.try_get(column)?;
    bytes.try_into().map_err(|_| CatalogError::Damaged("an id").into())
}

/// A number as a column has it; what is beyond is as far as it goes.
pub(super) fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn number(column: i64) -> Result<u64> {
    u64::try_from(column).map_err(|_| CatalogError::Damaged("a number below zero").into())
}

fn small(column: i64) -> Result<u32> {
    u32::try_from(column).map_err(|_| CatalogError::Damaged("a number out of bounds").into())
}

pub(super) fn time(column: i64) -> Result<UnixTime> {
    Ok(UnixTime(number(column)?))
}
