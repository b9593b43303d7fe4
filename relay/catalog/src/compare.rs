//! Comparing a view with one that was made from the log alone: every row that differs is a disagreement.
//!
//! The other view is made by the same code from nothing but the log; so where the two differ, this one has lost, kept or
//! changed what the log does not say. Row by row, indexes and totals included: nothing that a query gives can differ where
//! no row does.
//!
//! What only a view knows is no disagreement: how often a hand-over was tried and when it is tried again, and messages
//! whose time is over, which one of the two has forgotten and the other has not yet.

use std::cmp::Ordering;
use std::collections::{BTreeSet, VecDeque};
use std::ops::ControlFlow;

use lighter_protocol::{BlobId, Day, DeliveryId, MessageId};

use crate::apply;
use crate::limits::GRACE_DAYS;
use crate::message::Message;
use crate::rows::{
    self, Counts, Delivery, DeliveryState, HandOverState, decode, delivery_at_end, split_time,
};
use crate::tables::{Result, Table, Tables};

/// Something that view and log do not tell alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disagreement {
    /// What it is about.
    pub about: Subject,
    /// Which: a message, a delivery, or a blob and the message that refers to it.
    pub id: String,
    /// How they differ.
    pub how: Difference,
}

/// What a disagreement is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// A message.
    Message,
    /// Where a message's blobs lie.
    Placement,
    /// That a message refers to a copy of an attachment.
    Reference,
    /// What the next hop has, and what it has yet to get.
    HandOver,
    /// A delivery.
    Delivery,
    /// Whether a store has receipted a delivery, and whether it was let go of.
    Receipt,
    /// What opens a delivery over HTTP.
    Ticket,
    /// How something is found: the thing itself is told alike.
    Index,
    /// Totals.
    Count,
}

impl Subject {
    /// In one word or two, for people and scripts.
    pub fn name(self) -> &'static str {
        match self {
            Self::Message => "message",
            Self::Placement => "placement",
            Self::Reference => "reference",
            Self::HandOver => "hand-over",
            Self::Delivery => "delivery",
            Self::Receipt => "receipt",
            Self::Ticket => "ticket",
            Self::Index => "index",
            Self::Count => "count",
        }
    }
}

/// How view and log differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    /// The log does not have it.
    OnlyInView,
    /// The view does not have it.
    OnlyInLog,
    /// Both have it, not alike.
    Unlike,
}

impl Difference {
    /// In a few words, for people and scripts.
    pub fn name(self) -> &'static str {
        match self {
            Self::OnlyInView => "in the view only",
            Self::OnlyInLog => "in the log only",
            Self::Unlike => "not alike",
        }
    }
}

/// Compares `view` with `log`, a view that was made from the log and has forgotten what is over by `today`.
pub(crate) fn compare(
    view: &dyn Tables,
    log: &dyn Tables,
    today: Day,
    found: &mut dyn FnMut(Disagreement),
) -> Result<()> {
    let over = over(view, log, today)?;
    for table in Table::ALL.into_iter().filter(|table| !matches!(table, Table::Meta | Table::Due)) {
        merge(view, log, table, &mut |key, ours, theirs| {
            if is_alike(table, ours, theirs) {
                return;
            }
            let side = if ours.is_some() { view } else { log };
            let row = ours.or(theirs).unwrap_or_default();
            if message_of(side, table, key, row).is_some_and(|message| over.contains(&message)) {
                return;
            }
            let how = match (ours, theirs) {
                (Some(_), None) => Difference::OnlyInView,
                (None, _) => Difference::OnlyInLog,
                (Some(_), Some(_)) => Difference::Unlike,
            };
            found(Disagreement { about: subject(table, ours, theirs), id: name(table, key, row), how });
        })?;
    }
    check_due(view, found)?;
    // While something is just going out of time, one of the two counts it and the other does not.
    if over.is_empty() && totals(view)? != totals(log)? {
        found(Disagreement { about: Subject::Count, id: "totals".to_owned(), how: Difference::Unlike });
    }
    Ok(())
}

/// The row of the totals; there is none before the first change.
fn totals(tables: &dyn Tables) -> Result<Vec<u8>> {
    tables.get(Table::Meta, apply::COUNTS)?.map_or_else(|| rows::encode(&Counts::default()), Ok)
}

/// Messages that only one of the two has, and whose time is over.
fn over(view: &dyn Tables, log: &dyn Tables, today: Day) -> Result<BTreeSet<MessageId>> {
    let mut over = BTreeSet::new();
    merge(view, log, Table::Messages, &mut |key, ours, theirs| {
        let ((Some(row), None) | (None, Some(row))) = (ours, theirs) else { return };
        if let Ok(message) = decode::<Message>(row)
            && message.expires.plus(GRACE_DAYS) < today
            && let Ok(id) = key.try_into()
        {
            over.insert(MessageId(id));
        }
    })?;
    Ok(over)
}

fn is_alike(table: Table, ours: Option<&[u8]>, theirs: Option<&[u8]>) -> bool {
    let is_due = |row: Option<&[u8]>| {
        row.is_some_and(|row| decode::<HandOverState>(row).is_ok_and(HandOverState::is_due))
    };
    ours == theirs || (table == Table::HandOvers && is_due(ours) && is_due(theirs))
}

/// The times at which hand-overs are due are the view's own: they must be those of the rows.
fn check_due(view: &dyn Tables, found: &mut dyn FnMut(Disagreement)) -> Result<()> {
    let mut missing = Vec::new();
    let mut all = Rows::new(view, Table::HandOvers);
    while let Some((key, row)) = all.next()? {
        if let (Ok((message, hand_over)), Ok(HandOverState::Due { next, .. })) =
            (rows::hand_over_at_end(&key), decode(&row))
            && view.get(Table::Due, &rows::due_key(next, &message, hand_over))?.is_none()
        {
            missing.push(message);
        }
    }
    for message in missing {
        found(Disagreement { about: Subject::Index, id: message.to_string(), how: Difference::OnlyInLog });
    }
    let mut entries = Rows::new(view, Table::Due);
    while let Some((key, _)) = entries.next()? {
        let row = split_time(&key).and_then(|(next, rest)| {
            let (message, hand_over) = rows::hand_over_at_end(rest)?;
            let state = apply::hand_over_row(view, &message, hand_over)?;
            Ok(matches!(state, Some(HandOverState::Due { next: of_row, .. }) if of_row == next))
        });
        if !row.unwrap_or(false) {
            let id = name(Table::Due, &key, &[]);
            found(Disagreement { about: Subject::Index, id, how: Difference::OnlyInView });
        }
    }
    Ok(())
}

fn subject(table: Table, ours: Option<&[u8]>, theirs: Option<&[u8]>) -> Subject {
    match table {
        Table::Messages => match both::<Message>(ours, theirs) {
            Some((ours, theirs)) if !ours.blobs().eq(theirs.blobs()) => Subject::Placement,
            _ => Subject::Message,
        },
        Table::Deliveries => match both::<Delivery>(ours, theirs) {
            Some((ours, theirs)) if is_receipted(&ours) || is_receipted(&theirs) => {
                if ours.state == theirs.state { of_tickets(&ours, &theirs) } else { Subject::Receipt }
            }
            Some((ours, theirs)) => of_tickets(&ours, &theirs),
            None => Subject::Delivery,
        },
        Table::HandOvers => Subject::HandOver,
        Table::Tickets => Subject::Ticket,
        Table::References => Subject::Reference,
        Table::Receipts => Subject::Receipt,
        Table::Meta => Subject::Count,
        Table::Progress | Table::Waiting | Table::Deadlines | Table::Due | Table::Purge => Subject::Index,
    }
}

fn of_tickets(ours: &Delivery, theirs: &Delivery) -> Subject {
    let is_other = (ours.generation, ours.ticket) != (theirs.generation, theirs.ticket);
    if is_other { Subject::Ticket } else { Subject::Delivery }
}

fn is_receipted(row: &Delivery) -> bool {
    matches!(row.state, DeliveryState::Receipted { .. } | DeliveryState::Released { .. })
}

fn both<T: serde::de::DeserializeOwned>(ours: Option<&[u8]>, theirs: Option<&[u8]>) -> Option<(T, T)> {
    Some((decode(ours?).ok()?, decode(theirs?).ok()?))
}

/// Which message a row of `tables` belongs to, as far as it can be told.
fn message_of(tables: &dyn Tables, table: Table, key: &[u8], row: &[u8]) -> Option<MessageId> {
    let of_delivery = |id: &DeliveryId| Some(apply::delivery_row(tables, id).ok()??.message);
    match table {
        Table::Messages | Table::Progress | Table::HandOvers => Some(MessageId(*key.first_chunk()?)),
        Table::Purge | Table::References => Some(MessageId(*key.last_chunk()?)),
        Table::Due => Some(rows::hand_over_at_end(key).ok()?.0),
        Table::Deliveries => Some(decode::<Delivery>(row).ok()?.message),
        Table::Waiting | Table::Deadlines | Table::Receipts => of_delivery(&delivery_at_end(key).ok()?),
        Table::Tickets => of_delivery(&delivery_at_end(row).ok()?),
        Table::Meta => None,
    }
}

/// What a row is called towards people.
fn name(table: Table, key: &[u8], row: &[u8]) -> String {
    let named = match table {
        Table::Deliveries | Table::Waiting | Table::Deadlines | Table::Receipts => {
            delivery_at_end(key).ok().map(|id| id.to_string())
        }
        Table::Tickets => delivery_at_end(row).ok().map(|id| id.to_string()),
        Table::Messages | Table::Progress | Table::HandOvers => {
            key.first_chunk().map(|id| MessageId(*id).to_string())
        }
        Table::Purge => key.last_chunk().map(|id| MessageId(*id).to_string()),
        Table::Due => rows::hand_over_at_end(key).ok().map(|(id, _)| id.to_string()),
        Table::References => match (key.first_chunk(), key.last_chunk()) {
            (Some(blob), Some(message)) => Some(format!("{} of {}", BlobId(*blob), MessageId(*message))),
            _ => None,
        },
        Table::Meta => None,
    };
    named.unwrap_or_else(|| "a row that cannot be read".to_owned())
}

/// What `merge` calls for each key: the key, and the row of either side.
type VisitBoth<'a> = dyn FnMut(&[u8], Option<&[u8]>, Option<&[u8]>) + 'a;

/// Visits the keys of both in one order, with what each has there.
fn merge(view: &dyn Tables, log: &dyn Tables, table: Table, visit: &mut VisitBoth<'_>) -> Result<()> {
    let (mut ours, mut theirs) = (Rows::new(view, table), Rows::new(log, table));
    let (mut left, mut right) = (ours.next()?, theirs.next()?);
    loop {
        let order = match (&left, &right) {
            (None, None) => return Ok(()),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((left, _)), Some((right, _))) => left.cmp(right),
        };
        let (one, two) = (
            if order == Ordering::Greater { None } else { left.take() },
            if order == Ordering::Less { None } else { right.take() },
        );
        if let Some((key, _)) = one.as_ref().or(two.as_ref()) {
            let row = |row: &Option<Row>| row.as_ref().map(|(_, row)| row.clone());
            visit(key, row(&one).as_deref(), row(&two).as_deref());
        }
        if one.is_some() {
            left = ours.next()?;
        }
        if two.is_some() {
            right = theirs.next()?;
        }
    }
}

type Row = (Vec<u8>, Vec<u8>);

/// The rows of a table in order, read in pages: a query of its own for each would be slow, and all at once too much.
struct Rows<'t> {
    tables: &'t dyn Tables,
    table: Table,
    page: VecDeque<Row>,
    /// Where the next page begins; None behind the last one.
    from: Option<Vec<u8>>,
}

/// Bytes of rows in a page, but for the last row of it.
const PAGE_BYTES: usize = 1024 * 1024;

impl<'t> Rows<'t> {
    fn new(tables: &'t dyn Tables, table: Table) -> Self {
        Self { tables, table, page: VecDeque::new(), from: Some(Vec::new()) }
    }

    fn next(&mut self) -> Result<Option<Row>> {
        if self.page.is_empty()
            && let Some(from) = self.from.take()
        {
            let (page, next, mut bytes) = (&mut self.page, &mut self.from, 0);
            self.tables.scan(self.table, &from, &mut |key, row| {
                bytes += key.len() + row.len();
                page.push_back((key.to_vec(), row.to_vec()));
                if bytes < PAGE_BYTES {
                    return Ok(ControlFlow::Continue(()));
                }
                *next = Some([key, &[0]].concat());
                Ok(ControlFlow::Break(()))
            })?;
        }
        Ok(self.page.pop_front())
    }
}
