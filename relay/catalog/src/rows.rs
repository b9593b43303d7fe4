//! The rows of the view, and the index entries that follow from each.

use lighter_protocol::{Day, DeliveryId, Mailbox, MessageId, PeerId, TicketHash, UnixTime};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::limits::{NOTICE_DAYS_BEFORE, WHOLE_DAYS_BEFORE};
use crate::message::HandOver;
use crate::tables::{CatalogError, Result, Table};

/// One recipient's blobs of one message, on their way (DESIGN §2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// Its number.
    pub id: DeliveryId,
    /// The message that the blobs are of.
    pub message: MessageId,
    /// The recipient's place in it.
    pub recipient: u32,
    /// Whose store it is for: rights to read bind to it (DESIGN §4).
    pub mailbox: Mailbox,
    /// When the message came in.
    pub accepted: UnixTime,
    /// The last day of the promise.
    pub expires: Day,
    /// Bytes in the parts together.
    pub size: u64,
    /// From which the ticket's token is made.
    pub generation: u32,
    /// What opens it over HTTP. None: revoked.
    pub ticket: Option<TicketHash>,
    /// The user was told that it will lapse.
    pub noticed: bool,
    /// How far it is.
    pub state: DeliveryState,
}

/// How far a delivery is. It only ever goes down this list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeliveryState {
    /// It waits for its store.
    Waiting,
    /// Nobody fetched it in time; the whole message is on its way to the next hop.
    Lapsing,
    /// The next hop refused the whole message: it goes on waiting for its store until the data is gone.
    LastChance,
    /// The next hop has the whole message.
    Lapsed,
    /// The next hop refused the stub, and the sender knows: there is nothing that it would belong to.
    Withdrawn,
    /// The store has it; the relay's copy is kept a while.
    Receipted {
        /// Which store signed.
        store: PeerId,
        /// From when on the copy may go.
        release: UnixTime,
    },
    /// The relay has let go of it.
    Released {
        /// Which store has it: people who ask are told (SPEC A22).
        store: PeerId,
    },
    /// A sender left it, sealed: it waits for its store like [`DeliveryState::Waiting`], but there is no message that the
    /// relay could hand over instead.
    Dropped,
    /// It was left here, nobody fetched it in time, and the relay has let go of it: its sender is told.
    Expired,
}

impl DeliveryState {
    /// The state's place in the order; see the type.
    pub(crate) fn rank(self) -> u8 {
        match self {
            Self::Waiting | Self::Dropped => 0,
            Self::Lapsing => 1,
            Self::LastChance | Self::Lapsed | Self::Withdrawn => 2,
            Self::Receipted { .. } => 3,
            Self::Released { .. } | Self::Expired => 4,
        }
    }

    /// Whether the store is still to be offered it.
    pub fn is_waiting(self) -> bool {
        matches!(self, Self::Waiting | Self::Lapsing | Self::LastChance | Self::Dropped)
    }

    /// Whether the relay may still need the blobs: it has not let go of the delivery.
    pub(crate) fn is_kept(self) -> bool {
        !matches!(self, Self::Released { .. } | Self::Expired)
    }

    /// Whether the relay hands the blobs out, over QUIC and by ticket.
    pub fn is_readable(self) -> bool {
        !matches!(self, Self::Withdrawn | Self::Released { .. } | Self::Expired)
    }
}

/// What is to be done for a delivery when its time has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Deadline {
    /// Tell the user that it will lapse.
    Notice,
    /// Hand the message over whole; of a drop, let go.
    Expire,
    /// Let go of the relay's copy.
    Release,
}

/// Where a delivery stands among those that wait for its mailbox: oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// When its message came in.
    pub accepted: UnixTime,
    /// Which.
    pub delivery: DeliveryId,
}

impl Delivery {
    /// Where it stands among those that wait for its mailbox.
    pub fn position(&self) -> Position {
        Position { accepted: self.accepted, delivery: self.id }
    }

    /// What is next to be done for it, and when.
    pub fn deadline(&self) -> Option<(UnixTime, Deadline)> {
        match self.state {
            DeliveryState::Waiting if !self.noticed => {
                Some((begin_of(self.expires, NOTICE_DAYS_BEFORE), Deadline::Notice))
            }
            DeliveryState::Waiting => Some((begin_of(self.expires, WHOLE_DAYS_BEFORE), Deadline::Expire)),
            DeliveryState::Receipted { release, .. } => Some((release, Deadline::Release)),
            DeliveryState::Dropped => Some((self.expires.end(), Deadline::Expire)),
            _ => None,
        }
    }

    /// The index entries that belong to this row: (table, key, row).
    pub(crate) fn entries(&self) -> Vec<(Table, Vec<u8>, Vec<u8>)> {
        let mut entries = Vec::with_capacity(3);
        if self.state.is_waiting() {
            entries.push((Table::Waiting, waiting_key(&self.mailbox, self.accepted, &self.id), Vec::new()));
        }
        if let Some(ticket) = &self.ticket {
            entries.push((Table::Tickets, ticket.0.to_vec(), self.id.0.to_vec()));
        }
        if let Some((at, _)) = self.deadline() {
            entries.push((Table::Deadlines, deadline_key(at, &self.id), Vec::new()));
        }
        entries
    }
}

/// The beginning of the day that is `days` before `day`.
fn begin_of(day: Day, days: u32) -> UnixTime {
    match day.0.checked_sub(days + 1) {
        Some(before) => Day(before).end(),
        None => UnixTime(0),
    }
}

/// How far a hand-over is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HandOverState {
    /// To be tried at `next`. Attempts and time are known to the view only: where it is lost, they begin anew.
    Due {
        /// Tries so far.
        attempts: u32,
        /// When to try again.
        next: UnixTime,
    },
    /// The next hop took it, or it is no longer needed.
    HandedOver {
        /// When.
        at: UnixTime,
    },
    /// It never will be.
    Failed {
        /// When that was known.
        at: UnixTime,
    },
}

impl HandOverState {
    pub(crate) fn is_due(self) -> bool {
        matches!(self, Self::Due { .. })
    }

    pub(crate) fn entry(self, message: &MessageId, hand_over: HandOver) -> Option<Vec<u8>> {
        match self {
            Self::Due { next, .. } => Some(due_key(next, message, hand_over)),
            _ => None,
        }
    }
}

/// How much of a message is open: with nothing open and no delivery it is forgotten at once, with deliveries when its
/// time is over. It refers to its blobs as long as a hand-over is due or the store of a delivery may still want them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// Hand-overs due.
    pub(crate) due: u32,
    /// Deliveries, in whatever state.
    pub(crate) deliveries: u32,
    /// Those of them that the relay has not let go of.
    pub(crate) kept: u32,
}

impl Progress {
    /// Whether the message refers to its blobs. Once it does not, it never does again: a delivery that was let go of
    /// stays so, and a hand-over becomes due again only for a delivery that was not.
    pub(crate) fn refers(self) -> bool {
        self.due > 0 || self.kept > 0
    }
}

/// How many of what there are: kept with every change, so that asking costs nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Messages with anything open, or whose deliveries are still known.
    pub messages: u64,
    /// Hand-overs due.
    pub hand_overs: u64,
    /// Deliveries that wait for their store.
    pub waiting: u64,
    /// Bytes in them.
    pub waiting_bytes: u64,
    /// Deliveries that a store has receipted, whose copy is still kept.
    pub receipted: u64,
    /// Deliveries let go of.
    pub released: u64,
    /// Attachments that messages refer to, each as often as it is named.
    pub references: u64,
    /// Bytes in them.
    pub references_bytes: u64,
    /// Copies of attachments that are kept for them (SPEC D8), mirrors counted once.
    pub copies: u64,
    /// Bytes in them.
    pub copies_bytes: u64,
}

impl Counts {
    /// Adds what `delivery` counts for, or takes it away.
    pub(crate) fn count(&mut self, delivery: &Delivery, there: bool) {
        let step = |counter: &mut u64, by: u64| {
            *counter = if there { counter.saturating_add(by) } else { counter.saturating_sub(by) };
        };
        match delivery.state {
            state if state.is_waiting() => {
                step(&mut self.waiting, 1);
                step(&mut self.waiting_bytes, delivery.size);
            }
            DeliveryState::Receipted { .. } => step(&mut self.receipted, 1),
            DeliveryState::Released { .. } => step(&mut self.released, 1),
            _ => {}
        }
    }
}

// Keys.

/// What all entries of a mailbox's waiting deliveries begin with. A mailbox holds no NUL.
pub(crate) fn waiting_prefix(mailbox: &Mailbox) -> Vec<u8> {
    let mut key = mailbox.as_str().as_bytes().to_vec();
    key.push(0);
    key
}

pub(crate) fn waiting_key(mailbox: &Mailbox, accepted: UnixTime, delivery: &DeliveryId) -> Vec<u8> {
    let mut key = waiting_prefix(mailbox);
    key.extend_from_slice(&accepted.0.to_be_bytes());
    key.extend_from_slice(&delivery.0);
    key
}

pub(crate) fn deadline_key(at: UnixTime, delivery: &DeliveryId) -> Vec<u8> {
    [at.0.to_be_bytes().as_slice(), &delivery.0].concat()
}

pub(crate) fn hand_over_key(message: &MessageId, hand_over: HandOver) -> Vec<u8> {
    [message.0.as_slice(), &hand_over.recipient.to_be_bytes(), &[u8::from(hand_over.lapsed)]].concat()
}

pub(crate) fn due_key(next: UnixTime, message: &MessageId, hand_over: HandOver) -> Vec<u8> {
    [next.0.to_be_bytes().as_slice(), &hand_over_key(message, hand_over)].concat()
}

pub(crate) fn purge_key(day: Day, message: &MessageId) -> Vec<u8> {
    [day.0.to_be_bytes().as_slice(), &message.0].concat()
}

/// Splits a key into a big-endian number in front and the rest.
pub(crate) fn split_time(key: &[u8]) -> Result<(UnixTime, &[u8])> {
    let (time, rest) = key.split_first_chunk::<8>().ok_or(CatalogError::Damaged("key too short"))?;
    Ok((UnixTime(u64::from_be_bytes(*time)), rest))
}

/// The delivery at the end of a key.
pub(crate) fn delivery_at_end(key: &[u8]) -> Result<DeliveryId> {
    key.last_chunk::<{ DeliveryId::LEN }>()
        .map(|id| DeliveryId(*id))
        .ok_or(CatalogError::Damaged("key without a delivery"))
}

/// The hand-over that a key ends with.
pub(crate) fn hand_over_at_end(key: &[u8]) -> Result<(MessageId, HandOver)> {
    let damaged = || CatalogError::Damaged("key without a hand-over");
    let (rest, lapsed) = key.split_last_chunk::<1>().ok_or_else(damaged)?;
    let (rest, recipient) = rest.split_last_chunk::<4>().ok_or_else(damaged)?;
    let message = rest.last_chunk::<{ MessageId::LEN }>().ok_or_else(damaged)?;
    let hand_over = HandOver { recipient: u32::from_be_bytes(*recipient), lapsed: lapsed[0] != 0 };
    Ok((MessageId(*message), hand_over))
}

// Rows.

pub(crate) fn encode<T: Serialize>(row: &T) -> Result<Vec<u8>> {
    postcard::to_stdvec(row).map_err(|error| CatalogError::Engine(Box::new(error)))
}

pub(crate) fn decode<T: DeserializeOwned>(row: &[u8]) -> Result<T> {
    postcard::from_bytes(row).map_err(|_| CatalogError::Damaged("row does not decode"))
}
