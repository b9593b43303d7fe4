//! What each change does to the rows.
//!
//! Every row moves one way only (a hand-over from due to settled, a delivery down its list of states, a ticket to a
//! higher generation), and a change whose row is already past it changes nothing. So a stretch of the log may be
//! applied again over a view that has part of it, or all of it, and more: in the end the view is the same
//! (`tests.rs`, `a_stretch_applied_again_changes_nothing`).

use std::ops::ControlFlow;

use lighter_protocol::{Day, DeliveryId, MessageId, Receipt, Signed, UnixTime};

use crate::limits::GRACE_DAYS;
use crate::message::{Cause, Form, HandOver, Message, Recipient};
use crate::references;
use crate::rows::{
    Counts, Delivery, DeliveryState, HandOverState, Progress, decode, encode, hand_over_at_end,
    hand_over_key, purge_key,
};
use crate::tables::{Result, Table, TablesMut};
use crate::{Change, tables::Tables};

/// The row of [`Table::Meta`] that holds the [`Counts`].
pub(crate) const COUNTS: &[u8] = b"counts";

/// One writing transaction on the rows.
pub(crate) struct Rows<'a> {
    tables: &'a mut dyn TablesMut,
    counts: Counts,
}

impl<'a> Rows<'a> {
    /// Begins.
    pub(crate) fn new(tables: &'a mut dyn TablesMut) -> Result<Self> {
        let counts = counts(tables)?;
        Ok(Self { tables, counts })
    }

    /// Ends; what was counted is written.
    pub(crate) fn finish(self) -> Result<()> {
        self.tables.put(Table::Meta, COUNTS, &encode(&self.counts)?)
    }

    /// Applies one change.
    pub(crate) fn apply(&mut self, change: &Change) -> Result<()> {
        match change {
            Change::Accepted(message) => self.accept(message),
            Change::Voided(message) => self.forget(message),
            Change::HandedOver { message, hand_overs, at } => {
                self.settle_all(message, hand_overs, HandOverState::HandedOver { at: *at })
            }
            Change::HandOverFailed { message, hand_overs, at } => {
                self.settle_all(message, hand_overs, HandOverState::Failed { at: *at })
            }
            Change::Receipted { delivery, receipt: signed, release } => {
                // Verified before it was written, and the log is sealed: here it is only read.
                let Ok(receipt) = signed.claim() else { return Ok(()) };
                let state = DeliveryState::Receipted { store: receipt.store, release: *release };
                self.keep_receipt(delivery, signed)?;
                self.receipt(delivery, state, receipt.time)
            }
            Change::Released { delivery } => self.update(delivery, |row| {
                if let DeliveryState::Receipted { store, .. } = row.state {
                    row.state = DeliveryState::Released { store };
                }
            }),
            Change::Expired { delivery, at } => self.expire(delivery, *at),
            Change::TicketRevoked { delivery, generation } => self.update(delivery, |row| {
                if row.generation == *generation {
                    row.ticket = None;
                }
            }),
            Change::TicketRenewed { delivery, generation, ticket } => self.update(delivery, |row| {
                if *generation > row.generation {
                    row.generation = *generation;
                    row.ticket = Some(*ticket);
                }
            }),
        }
    }

    fn accept(&mut self, message: &Message) -> Result<()> {
        if self.tables.get(Table::Messages, &message.id.0)?.is_none() {
            self.insert(message)?;
        }
        match &message.cause {
            None => Ok(()),
            Some(Cause::Notice { delivery }) => self.update(delivery, |row| row.noticed = true),
            Some(Cause::Report { message: about, handed_over, failed }) => {
                let at = message.accepted;
                self.settle_all(about, handed_over, HandOverState::HandedOver { at })?;
                self.settle_all(about, failed, HandOverState::Failed { at })
            }
        }
    }

    fn insert(&mut self, message: &Message) -> Result<()> {
        self.tables.put(Table::Messages, &message.id.0, &encode(message)?)?;
        self.tables.put(Table::Purge, &purge_key(message.expires.plus(GRACE_DAYS), &message.id), &[])?;
        self.counts.messages += 1;
        for (recipient, place) in message.recipients.iter().zip(0u32..) {
            self.insert_recipient(message, recipient, place)?;
        }
        Ok(())
    }

    fn insert_recipient(&mut self, message: &Message, recipient: &Recipient, place: u32) -> Result<()> {
        let (state, generation, ticket) = match recipient.form {
            Form::Stub { generation, ticket, .. } => (DeliveryState::Waiting, generation, Some(ticket)),
            Form::Drop { .. } => (DeliveryState::Dropped, 0, None),
            Form::Whole => (DeliveryState::Waiting, 0, None),
        };
        if state != DeliveryState::Dropped {
            let due = HandOverState::Due { attempts: 0, next: message.accepted };
            self.set_hand_over(&message.id, HandOver::first(place), None, Some(due))?;
        }
        let (Some(id), Some(mailbox)) = (recipient.delivery(), &recipient.mailbox) else { return Ok(()) };
        // The number of a drop is its sender's choice: it takes no other delivery's place.
        if delivery_row(self.tables, &id)?.is_some() {
            return Ok(());
        }
        let row = Delivery {
            id,
            message: message.id,
            recipient: place,
            mailbox: mailbox.clone(),
            accepted: message.accepted,
            expires: message.expires,
            size: message.parts_size(),
            generation,
            ticket,
            noticed: false,
            state,
        };
        self.set_delivery(None, Some(&row))
    }

    /// Puts a message as another catalog has it, with all that hangs on it; one that is there stays as it is.
    pub(crate) fn restore(
        &mut self,
        message: &Message,
        hand_overs: &[(HandOver, HandOverState)],
        deliveries: &[Delivery],
        receipts: &[(DeliveryId, Signed<Receipt>)],
    ) -> Result<()> {
        if self.tables.get(Table::Messages, &message.id.0)?.is_some() {
            return Ok(());
        }
        self.tables.put(Table::Messages, &message.id.0, &encode(message)?)?;
        self.tables.put(Table::Purge, &purge_key(message.expires.plus(GRACE_DAYS), &message.id), &[])?;
        self.counts.messages += 1;
        for (hand_over, state) in hand_overs {
            self.set_hand_over(&message.id, *hand_over, None, Some(*state))?;
        }
        for delivery in deliveries {
            self.set_delivery(None, Some(delivery))?;
        }
        for (delivery, receipt) in receipts {
            self.tables.put(Table::Receipts, &delivery.0, &encode(receipt)?)?;
        }
        Ok(())
    }

    /// Removes a message and everything that hangs on it.
    pub(crate) fn forget(&mut self, id: &MessageId) -> Result<()> {
        let Some(message) = message(self.tables, id)? else { return Ok(()) };
        for hand_over in hand_overs(self.tables, id)? {
            self.set_hand_over(id, hand_over.0, Some(hand_over.1), None)?;
        }
        for recipient in &message.recipients {
            if let Some(delivery) = recipient.delivery()
                && let Some(row) = delivery_row(self.tables, &delivery)?
                && row.message == *id
            {
                self.tables.remove(Table::Receipts, &delivery.0)?;
                self.set_delivery(Some(&row), None)?;
            }
        }
        self.tables.remove(Table::Purge, &purge_key(message.expires.plus(GRACE_DAYS), id))?;
        self.tables.remove(Table::Progress, &id.0)?;
        self.tables.remove(Table::Messages, &id.0)?;
        self.counts.messages = self.counts.messages.saturating_sub(1);
        Ok(())
    }

    fn settle_all(&mut self, message: &MessageId, which: &[HandOver], outcome: HandOverState) -> Result<()> {
        for hand_over in which {
            self.settle(message, *hand_over, outcome)?;
        }
        let progress = progress(self.tables, message)?;
        let known = self.tables.get(Table::Messages, &message.0)?.is_some();
        if known && progress == Progress::default() { self.forget(message) } else { Ok(()) }
    }

    fn settle(&mut self, id: &MessageId, hand_over: HandOver, outcome: HandOverState) -> Result<()> {
        let Some(before) = hand_over_row(self.tables, id, hand_over)? else { return Ok(()) };
        if !before.is_due() {
            return Ok(());
        }
        self.set_hand_over(id, hand_over, Some(before), Some(outcome))?;
        let reached = match (outcome, hand_over.lapsed) {
            (HandOverState::HandedOver { .. }, true) => DeliveryState::Lapsed,
            (HandOverState::Failed { .. }, true) => DeliveryState::LastChance,
            (HandOverState::Failed { .. }, false) => DeliveryState::Withdrawn,
            _ => return Ok(()),
        };
        let Some(message) = message(self.tables, id)? else { return Ok(()) };
        let recipient =
            usize::try_from(hand_over.recipient).ok().and_then(|place| message.recipients.get(place));
        match recipient.map(|recipient| &recipient.form) {
            Some(Form::Stub { delivery, .. }) => self.advance(delivery, reached),
            _ => Ok(()),
        }
    }

    fn expire(&mut self, id: &DeliveryId, at: UnixTime) -> Result<()> {
        let Some(row) = delivery_row(self.tables, id)? else { return Ok(()) };
        if row.state == DeliveryState::Dropped {
            return self.advance(id, DeliveryState::Expired);
        }
        if row.state != DeliveryState::Waiting {
            return Ok(());
        }
        self.advance(id, DeliveryState::Lapsing)?;
        let hand_over = HandOver::lapsed(row.recipient);
        let before = hand_over_row(self.tables, &row.message, hand_over)?;
        let due = HandOverState::Due { attempts: 0, next: at };
        self.set_hand_over(&row.message, hand_over, before, Some(before.unwrap_or(due)))
    }

    /// The store's word for a drop is kept for its sender, who lets go against nothing else (DESIGN §3 rule 3); the first
    /// one stays.
    fn keep_receipt(&mut self, id: &DeliveryId, receipt: &Signed<Receipt>) -> Result<()> {
        let Some(row) = delivery_row(self.tables, id)? else { return Ok(()) };
        let is_drop = matches!(row.state, DeliveryState::Dropped | DeliveryState::Expired);
        if is_drop && self.tables.get(Table::Receipts, &id.0)?.is_none() {
            self.tables.put(Table::Receipts, &id.0, &encode(receipt)?)?;
        }
        Ok(())
    }

    fn receipt(&mut self, id: &DeliveryId, state: DeliveryState, at: UnixTime) -> Result<()> {
        let Some(row) = delivery_row(self.tables, id)? else { return Ok(()) };
        self.advance(id, state)?;
        // The store was just in time: nobody needs the whole message any more.
        let hand_over = HandOver::lapsed(row.recipient);
        match hand_over_row(self.tables, &row.message, hand_over)? {
            Some(before) if before.is_due() => {
                let done = HandOverState::HandedOver { at };
                self.set_hand_over(&row.message, hand_over, Some(before), Some(done))
            }
            _ => Ok(()),
        }
    }

    /// Puts the time of the next try to a hand-over that is still due.
    pub(crate) fn postpone(
        &mut self,
        id: &MessageId,
        hand_over: HandOver,
        attempts: u32,
        next: UnixTime,
    ) -> Result<()> {
        match hand_over_row(self.tables, id, hand_over)? {
            Some(before) if before.is_due() => {
                let due = HandOverState::Due { attempts, next };
                self.set_hand_over(id, hand_over, Some(before), Some(due))
            }
            _ => Ok(()),
        }
    }

    /// Forgets messages whose data is gone by `today`, at most `count_max`; gives back those with something open.
    pub(crate) fn purge(&mut self, today: Day, count_max: usize) -> Result<(usize, Vec<MessageId>)> {
        let mut over = Vec::new();
        self.tables.scan(Table::Purge, &[], &mut |key, _| {
            let Some((day, id)) = key.split_first_chunk::<4>() else { return Ok(ControlFlow::Break(())) };
            if u32::from_be_bytes(*day) >= today.0 || over.len() >= count_max {
                return Ok(ControlFlow::Break(()));
            }
            if let Ok(id) = id.try_into() {
                over.push(MessageId(id));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        let mut open = Vec::new();
        for id in &over {
            if progress(self.tables, id)?.due > 0 {
                open.push(*id);
            }
            self.forget(id)?;
        }
        Ok((over.len(), open))
    }

    /// Moves a delivery on to `state`, if that is ahead of it.
    fn advance(&mut self, id: &DeliveryId, state: DeliveryState) -> Result<()> {
        self.update(id, |row| {
            if state.rank() > row.state.rank() {
                row.state = state;
            }
        })
    }

    fn update(&mut self, id: &DeliveryId, change: impl FnOnce(&mut Delivery)) -> Result<()> {
        let Some(before) = delivery_row(self.tables, id)? else { return Ok(()) };
        let mut after = before.clone();
        change(&mut after);
        if after == before { Ok(()) } else { self.set_delivery(Some(&before), Some(&after)) }
    }

    fn set_delivery(&mut self, before: Option<&Delivery>, after: Option<&Delivery>) -> Result<()> {
        let Some(any) = before.or(after) else { return Ok(()) };
        let (id, message) = (any.id, any.message);
        if let Some(row) = before {
            for (table, key, _) in row.entries() {
                self.tables.remove(table, &key)?;
            }
            self.counts.count(row, false);
        }
        if let Some(row) = after {
            for (table, key, value) in row.entries() {
                self.tables.put(table, &key, &value)?;
            }
            self.counts.count(row, true);
            self.tables.put(Table::Deliveries, &id.0, &encode(row)?)?;
        } else {
            self.tables.remove(Table::Deliveries, &id.0)?;
        }
        let is_kept = |row: Option<&Delivery>| row.is_some_and(|row| row.state.is_kept());
        let mut progress = progress(self.tables, &message)?;
        progress.deliveries = step(progress.deliveries, before.is_some(), after.is_some());
        progress.kept = step(progress.kept, is_kept(before), is_kept(after));
        self.set_progress(&message, progress)
    }

    /// Puts how much of a message is open; where that decides whether it refers to its blobs, references are taken, or
    /// given up.
    fn set_progress(&mut self, id: &MessageId, after: Progress) -> Result<()> {
        let refers = (progress(self.tables, id)?.refers(), after.refers());
        self.tables.put(Table::Progress, &id.0, &encode(&after)?)?;
        if refers.0 == refers.1 {
            return Ok(());
        }
        let Some(message) = message(self.tables, id)? else { return Ok(()) };
        if refers.1 {
            references::take(self.tables, &mut self.counts, &message)
        } else {
            references::give_up(self.tables, &mut self.counts, &message)
        }
    }

    fn set_hand_over(
        &mut self,
        message: &MessageId,
        hand_over: HandOver,
        before: Option<HandOverState>,
        after: Option<HandOverState>,
    ) -> Result<()> {
        let key = hand_over_key(message, hand_over);
        if let Some(entry) = before.and_then(|state| state.entry(message, hand_over)) {
            self.tables.remove(Table::Due, &entry)?;
        }
        if let Some(entry) = after.and_then(|state| state.entry(message, hand_over)) {
            self.tables.put(Table::Due, &entry, &[])?;
        }
        match after {
            Some(state) => self.tables.put(Table::HandOvers, &key, &encode(&state)?)?,
            None => self.tables.remove(Table::HandOvers, &key)?,
        }
        let was_due = before.is_some_and(HandOverState::is_due);
        let is_due = after.is_some_and(HandOverState::is_due);
        if was_due != is_due {
            let mut progress = progress(self.tables, message)?;
            progress.due = step(progress.due, was_due, is_due);
            self.set_progress(message, progress)?;
            self.counts.hand_overs =
                if is_due { self.counts.hand_overs + 1 } else { self.counts.hand_overs.saturating_sub(1) };
        }
        Ok(())
    }
}

/// A counter after something that counted, or did not, now counts, or does not.
fn step(counter: u32, before: bool, after: bool) -> u32 {
    match (before, after) {
        (false, true) => counter.saturating_add(1),
        (true, false) => counter.saturating_sub(1),
        _ => counter,
    }
}

pub(crate) fn counts(tables: &dyn Tables) -> Result<Counts> {
    tables.get(Table::Meta, COUNTS)?.map_or_else(|| Ok(Counts::default()), |row| decode(&row))
}

pub(crate) fn message(tables: &dyn Tables, id: &MessageId) -> Result<Option<Message>> {
    tables.get(Table::Messages, &id.0)?.map(|row| decode(&row)).transpose()
}

pub(crate) fn delivery_row(tables: &dyn Tables, id: &DeliveryId) -> Result<Option<Delivery>> {
    tables.get(Table::Deliveries, &id.0)?.map(|row| decode(&row)).transpose()
}

pub(crate) fn hand_over_row(
    tables: &dyn Tables,
    id: &MessageId,
    which: HandOver,
) -> Result<Option<HandOverState>> {
    tables.get(Table::HandOvers, &hand_over_key(id, which))?.map(|row| decode(&row)).transpose()
}

/// All hand-overs of a message, with their states, in order.
pub(crate) fn hand_overs(tables: &dyn Tables, id: &MessageId) -> Result<Vec<(HandOver, HandOverState)>> {
    let mut found = Vec::new();
    tables.scan(Table::HandOvers, &id.0, &mut |key, row| {
        let (message, hand_over) = hand_over_at_end(key)?;
        if message != *id {
            return Ok(ControlFlow::Break(()));
        }
        found.push((hand_over, decode(row)?));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(found)
}

pub(crate) fn progress(tables: &dyn Tables, id: &MessageId) -> Result<Progress> {
    tables.get(Table::Progress, &id.0)?.map_or_else(|| Ok(Progress::default()), |row| decode(&row))
}
