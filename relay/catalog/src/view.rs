//! The catalog over an engine: queries here, changes in `apply`.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use lighter_protocol::{BlobId, Day, DeliveryId, Mailbox, MessageId, Receipt, Signed, TicketHash, UnixTime};
use lighter_storage::{Sequence, StoredBlob};

use crate::apply::{self, Rows};
use crate::catalog::{Catalog, DueHandOver, KeptCopy, Purged};
use crate::compare::{self, Disagreement};
use crate::embedded::EmbeddedCatalog;
use crate::limits::PAGE_LEN_MAX;
use crate::message::{HandOver, Message};
use crate::references::{self, CopyKey};
use crate::rows::{
    self, Counts, Deadline, Delivery, HandOverState, Position, decode, delivery_at_end, encode,
    hand_over_at_end, split_time,
};
use crate::tables::{CatalogError, Engine, Result, Table, Tables};
use crate::{Change, Checkpoint};

/// The row of [`Table::Meta`] that holds the [`Checkpoint`].
const CHECKPOINT: &[u8] = b"checkpoint";

/// A catalog kept in the tables of an engine.
pub struct View<E> {
    engine: E,
}

impl<E> View<E> {
    pub(crate) fn over(engine: E) -> Self {
        Self { engine }
    }

    /// Its rows, to be spoilt.
    #[cfg(test)]
    pub(crate) fn engine(&self) -> &E {
        &self.engine
    }
}

impl<E: Engine> Catalog for View<E> {
    fn checkpoint(&self) -> Result<Checkpoint> {
        self.engine.read(|tables| checkpoint(tables))
    }

    fn apply(&self, changes: &[(Sequence, Change)], to: Option<&Checkpoint>) -> Result<()> {
        self.engine.write(to.is_some(), |tables| {
            let from = checkpoint(tables)?;
            let mut rows = Rows::new(tables)?;
            for (sequence, change) in changes {
                if !from.covers(*sequence) {
                    rows.apply(change)?;
                }
            }
            rows.finish()?;
            match to {
                Some(to) => tables.put(Table::Meta, CHECKPOINT, &encode(to)?),
                None => Ok(()),
            }
        })
    }

    fn clear(&self) -> Result<()> {
        self.engine.clear()
    }

    fn message(&self, id: &MessageId) -> Result<Option<Message>> {
        self.engine.read(|tables| apply::message(tables, id))
    }

    fn hand_overs(&self, id: &MessageId) -> Result<Vec<(HandOver, HandOverState)>> {
        self.engine.read(|tables| apply::hand_overs(tables, id))
    }

    fn delivery(&self, id: &DeliveryId) -> Result<Option<Delivery>> {
        self.engine.read(|tables| apply::delivery_row(tables, id))
    }

    fn receipt_of_drop(&self, id: &DeliveryId) -> Result<Option<Signed<Receipt>>> {
        self.engine
            .read(|tables| tables.get(Table::Receipts, &id.0)?.map(|receipt| decode(&receipt)).transpose())
    }

    fn by_ticket(&self, ticket: &TicketHash) -> Result<Option<Delivery>> {
        self.engine.read(|tables| match tables.get(Table::Tickets, &ticket.0)? {
            Some(id) => apply::delivery_row(tables, &delivery_at_end(&id)?),
            None => Ok(None),
        })
    }

    fn waiting(&self, mailbox: &Mailbox, after: Option<Position>, count_max: usize) -> Result<Vec<Delivery>> {
        let prefix = rows::waiting_prefix(mailbox);
        let from = match after {
            Some(row) => behind(rows::waiting_key(mailbox, row.accepted, &row.delivery)),
            None => prefix.clone(),
        };
        self.engine.read(|tables| {
            let ids = page(tables, Table::Waiting, &from, count_max, |key| {
                if key.starts_with(&prefix) { delivery_at_end(key).map(Some) } else { Ok(None) }
            })?;
            ids.iter().map(|id| known(tables, id)).collect()
        })
    }

    fn waiting_mailboxes(&self, after: Option<&Mailbox>, count_max: usize) -> Result<Vec<Mailbox>> {
        self.engine.read(|tables| {
            let mut found = Vec::new();
            let mut from = after.map(past_mailbox).unwrap_or_default();
            // One look for each mailbox, however much waits for it.
            while found.len() < count_max.min(PAGE_LEN_MAX) {
                let Some(mailbox) =
                    page(tables, Table::Waiting, &from, 1, |key| mailbox_of(key).map(Some))?.pop()
                else {
                    break;
                };
                from = past_mailbox(&mailbox);
                found.push(mailbox);
            }
            Ok(found)
        })
    }

    fn due(&self, now: UnixTime, count_max: usize, except: &BTreeSet<MessageId>) -> Result<Vec<DueHandOver>> {
        let count_max = count_max.min(PAGE_LEN_MAX);
        self.engine.read(|tables| {
            let mut due = Vec::new();
            tables.scan(Table::Due, &[], &mut |key, _| {
                let (since, rest) = split_time(key)?;
                if since > now || due.len() >= count_max {
                    return Ok(ControlFlow::Break(()));
                }
                let (message, hand_over) = hand_over_at_end(rest)?;
                if !except.contains(&message) {
                    due.push(DueHandOver { message, hand_over, since, attempts: 0 });
                }
                Ok(ControlFlow::Continue(()))
            })?;
            for entry in &mut due {
                match apply::hand_over_row(tables, &entry.message, entry.hand_over)? {
                    Some(HandOverState::Due { attempts, .. }) => entry.attempts = attempts,
                    _ => return Err(CatalogError::Damaged("due entry without its hand-over")),
                }
            }
            Ok(due)
        })
    }

    fn next_due(&self, now: UnixTime) -> Result<Option<UnixTime>> {
        let from = now.0.saturating_add(1).to_be_bytes();
        self.engine
            .read(|tables| Ok(page(tables, Table::Due, &from, 1, |key| Ok(Some(split_time(key)?.0)))?.pop()))
    }

    fn postpone(&self, message: &MessageId, which: &[HandOver], attempts: u32, next: UnixTime) -> Result<()> {
        self.engine.write(false, |tables| {
            let mut rows = Rows::new(tables)?;
            for hand_over in which {
                rows.postpone(message, *hand_over, attempts, next)?;
            }
            rows.finish()
        })
    }

    fn deadlines(&self, now: UnixTime, count_max: usize) -> Result<Vec<(Delivery, Deadline)>> {
        self.engine.read(|tables| {
            let ids = page(tables, Table::Deadlines, &[], count_max, |key| {
                let (at, _) = split_time(key)?;
                if at > now { Ok(None) } else { delivery_at_end(key).map(Some) }
            })?;
            let mut found = Vec::with_capacity(ids.len());
            for id in &ids {
                let row = known(tables, id)?;
                let (_, what) =
                    row.deadline().ok_or(CatalogError::Damaged("deadline of a delivery without one"))?;
                found.push((row, what));
            }
            Ok(found)
        })
    }

    fn purge(&self, today: Day, count_max: usize) -> Result<Purged> {
        self.engine.write(false, |tables| {
            let mut rows = Rows::new(tables)?;
            let (count, open) = rows.purge(today, count_max.min(PAGE_LEN_MAX))?;
            rows.finish()?;
            Ok(Purged { count, open })
        })
    }

    fn messages(&self, after: Option<&MessageId>, count_max: usize) -> Result<Vec<(Message, bool)>> {
        let from = after.map(|id| behind(id.0.to_vec())).unwrap_or_default();
        self.engine.read(|tables| {
            let ids = page(tables, Table::Messages, &from, count_max, |key| {
                let id = key.try_into().map_err(|_| CatalogError::Damaged("key without a message"))?;
                Ok(Some(MessageId(id)))
            })?;
            let mut found = Vec::with_capacity(ids.len());
            for id in &ids {
                let row = apply::message(tables, id)?;
                let message = row.ok_or(CatalogError::Damaged("a message that was there is not"))?;
                found.push((message, apply::progress(tables, id)?.refers()));
            }
            Ok(found)
        })
    }

    fn copies_of(&self, blob: &BlobId, until: Day, count_max: usize) -> Result<Vec<StoredBlob>> {
        self.engine.read(|tables| references::copies_of(tables, blob, until, count_max.min(PAGE_LEN_MAX)))
    }

    fn copies(&self, after: Option<&CopyKey>, count_max: usize) -> Result<Vec<KeptCopy>> {
        self.engine.read(|tables| references::copies(tables, after, count_max.min(PAGE_LEN_MAX)))
    }

    fn alive(&self, looked: &mut dyn FnMut(), visit: &mut dyn FnMut(&StoredBlob)) -> Result<()> {
        self.engine.read(|tables| {
            looked();
            tables.scan(Table::Messages, &[], &mut |key, row| {
                let id = key.try_into().map_err(|_| CatalogError::Damaged("key without a message"))?;
                if apply::progress(tables, &MessageId(id))?.refers() {
                    visit(&decode::<Message>(row)?.manifest);
                }
                Ok(ControlFlow::Continue(()))
            })?;
            let mut after = None;
            loop {
                let page = references::copies(tables, after.as_ref(), PAGE_LEN_MAX)?;
                page.iter().for_each(|copy| visit(&copy.blob));
                match page.last() {
                    Some(last) => after = Some(CopyKey::of(&last.blob)),
                    None => return Ok(()),
                }
            }
        })
    }

    fn compare(
        &self,
        log: &EmbeddedCatalog,
        today: Day,
        looked: &mut dyn FnMut() -> bool,
        found: &mut dyn FnMut(Disagreement),
    ) -> Result<()> {
        self.engine.read(|ours| {
            if !looked() {
                return Ok(());
            }
            log.engine.read(|theirs| compare::compare(ours, theirs, today, found))
        })
    }

    fn counts(&self) -> Result<Counts> {
        self.engine.read(apply::counts)
    }
}

fn checkpoint(tables: &dyn Tables) -> Result<Checkpoint> {
    tables.get(Table::Meta, CHECKPOINT)?.map_or_else(|| Ok(Checkpoint::BEGIN), |row| decode(&row))
}

/// What `pick` makes of the keys from `from` on, until it gives None; at most `count_max`.
fn page<T>(
    tables: &dyn Tables,
    table: Table,
    from: &[u8],
    count_max: usize,
    mut pick: impl FnMut(&[u8]) -> Result<Option<T>>,
) -> Result<Vec<T>> {
    let count_max = count_max.min(PAGE_LEN_MAX);
    let mut found = Vec::new();
    if count_max == 0 {
        return Ok(found);
    }
    tables.scan(table, from, &mut |key, _| {
        let Some(item) = pick(key)? else { return Ok(ControlFlow::Break(())) };
        found.push(item);
        Ok(if found.len() < count_max { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    })?;
    Ok(found)
}

fn known(tables: &dyn Tables, id: &DeliveryId) -> Result<Delivery> {
    apply::delivery_row(tables, id)?.ok_or(CatalogError::Damaged("index entry without its delivery"))
}

fn mailbox_of(key: &[u8]) -> Result<Mailbox> {
    let damaged = CatalogError::Damaged("waiting entry without a mailbox");
    let end = key.iter().position(|byte| *byte == 0);
    let text = end.and_then(|end| std::str::from_utf8(&key[..end]).ok());
    text.and_then(|text| text.parse().ok()).ok_or(damaged)
}

/// The first key that is behind `key`.
fn behind(mut key: Vec<u8>) -> Vec<u8> {
    key.push(0);
    key
}

/// The first key that is behind everything of `mailbox`: its entries go on with a 0.
fn past_mailbox(mailbox: &Mailbox) -> Vec<u8> {
    let mut key = mailbox.as_str().as_bytes().to_vec();
    key.push(1);
    key
}
