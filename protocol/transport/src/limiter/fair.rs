//! Who has the next turn, and for how many bytes: a token bucket, and start-time fair queueing before it (Goyal, Vin and Cheng,
//! SIGCOMM 1996). No clock inside: `now` is an argument.
//!
//! - **Limit**: over any time `t`, turns are given for at most `rate × t +` [`burst`] bytes.
//! - **Fair**: transfers that want something have shares by their classes' weights, equal within a class, whatever the
//!   number of their streams and the sizes of their pieces; to within one turn each.
//! - **Nothing is wasted**: while somebody waits, all that the limit allows is given.
//!
//! A turn's place in the queue is its start tag: the virtual time at which the transfer's last turn ended, or the present one
//! where it had none lately; the smallest tag goes first. A turn of `len` bytes ends `len / weight` later. So whoever was
//! away gains nothing by that, and whoever takes much comes later.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use lighter_protocol::blob::GROUP_LEN;

use crate::limits::{TURN_LEN_ANY, TURN_LEN_MAX, TURN_LEN_MIN, TURNS_PER_SECOND};

/// What a transfer is for: decides its share, and what holds it up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// What everything else of a delivery waits for, and is small: manifests.
    First,
    /// Somebody waits for it.
    Asked,
    /// A small delivery.
    Small,
    /// The rest.
    Bulk,
}

impl Class {
    /// Its transfers' share, in relation to others'.
    pub const fn weight(self) -> u64 {
        match self {
            Self::First => 16,
            Self::Asked => 8,
            Self::Small => 4,
            Self::Bulk => 1,
        }
    }
}

/// A transfer: all streams with its number are one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Transfer {
    /// Its number: a delivery's.
    pub id: u128,
    /// What it is for.
    pub class: Class,
}

/// How fast transfers may go, all together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rate {
    /// As fast as they can.
    #[default]
    Any,
    /// So many bytes a second.
    Limited(NonZeroU64),
}

/// What does not go at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hold {
    /// Everything goes.
    #[default]
    Nothing,
    /// What nobody waits for: [`Class::Small`] and [`Class::Bulk`].
    Bulk,
    /// Everything.
    All,
}

/// What is allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowance {
    /// How fast.
    pub rate: Rate,
    /// And what not.
    pub hold: Hold,
}

impl Allowance {
    /// Whether it holds transfers of this class up.
    pub fn holds(self, class: Class) -> bool {
        match self.hold {
            Hold::Nothing => false,
            Hold::Bulk => class >= Class::Small,
            Hold::All => true,
        }
    }
}

/// Bytes of the largest turn at this rate: there are a few each second, so that transfers alternate, and requests are few.
pub fn turn_len(rate: NonZeroU64) -> u64 {
    let len = rate.get() / TURNS_PER_SECOND;
    (len - len % GROUP_LEN).clamp(TURN_LEN_MIN, TURN_LEN_MAX)
}

/// Bytes that may go at once at this rate, after a time with nothing to do: two turns, so that a timer that is late costs
/// nothing.
pub fn burst(rate: NonZeroU64) -> u64 {
    2 * turn_len(rate)
}

/// Somebody's place in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

/// The bucket and the queue before it.
#[derive(Clone, Debug)]
pub struct Fair {
    allowance: Allowance,
    /// Bytes that may go now, times a second's nanoseconds. Invariant: at most [`burst`].
    level: u128,
    filled: Instant,
    /// By start tag, then by who came first. As many as wait: each is a stream.
    queue: BTreeMap<(u128, Ticket), Wish>,
    tags: HashMap<Ticket, u128>,
    /// Where each transfer's last turn ended, as long as that is ahead of `now`.
    ends: HashMap<Transfer, u128>,
    /// Start tag of the last turn that was given.
    virtual_now: u128,
    next_ticket: u64,
    granted: u64,
}

#[derive(Clone, Copy, Debug)]
struct Wish {
    transfer: Transfer,
    wanted: u64,
}

/// Levels and tags are in bytes times this.
const UNIT: u128 = 1_000_000_000;

impl Fair {
    /// One whose bucket is full.
    pub fn new(allowance: Allowance, now: Instant) -> Self {
        Self {
            level: full(allowance.rate),
            allowance,
            filled: now,
            queue: BTreeMap::new(),
            tags: HashMap::new(),
            ends: HashMap::new(),
            virtual_now: 0,
            next_ticket: 0,
            granted: 0,
        }
    }

    /// From now on, this is allowed.
    pub fn allow(&mut self, allowance: Allowance, now: Instant) {
        self.fill(now);
        self.level = match self.allowance.rate {
            // Nothing is known of what went before: it counts as a burst.
            Rate::Any => 0,
            Rate::Limited(_) => self.level.min(full(allowance.rate)),
        };
        self.allowance = allowance;
        // Who was held up has no claim to what others had meanwhile.
        for ((tag, ticket), wish) in std::mem::take(&mut self.queue) {
            let tag = tag.max(self.virtual_now);
            self.queue.insert((tag, ticket), wish);
            self.tags.insert(ticket, tag);
        }
    }

    /// What is allowed.
    pub fn allowance(&self) -> Allowance {
        self.allowance
    }

    /// Bytes that turns were given for.
    pub fn granted(&self) -> u64 {
        self.granted
    }

    /// A stream of `transfer` waits for a turn, for at most `wanted` bytes (at least one).
    pub fn wait(&mut self, transfer: Transfer, wanted: u64) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        let last = self.ends.get(&transfer).copied().unwrap_or_default();
        let tag = last.max(self.virtual_now);
        self.queue.insert((tag, ticket), Wish { transfer, wanted: wanted.max(1) });
        self.tags.insert(ticket, tag);
        ticket
    }

    /// Who has this ticket does not wait any more.
    pub fn leave(&mut self, ticket: Ticket) {
        if let Some(tag) = self.tags.remove(&ticket) {
            self.queue.remove(&(tag, ticket));
        }
    }

    /// The next turn that is due: whose, and for how many bytes. To be called until it gives none.
    pub fn poll(&mut self, now: Instant) -> Option<(Ticket, u64)> {
        self.fill(now);
        let (tag, ticket, wish, len) = self.first()?;
        let cost = u128::from(len) * UNIT;
        if self.allowance.rate != Rate::Any {
            self.level = self.level.checked_sub(cost)?;
        }
        self.queue.remove(&(tag, ticket));
        self.tags.remove(&ticket);
        self.virtual_now = self.virtual_now.max(tag);
        let end = tag.max(self.virtual_now) + cost / u128::from(wish.transfer.class.weight());
        self.ends.insert(wish.transfer, end);
        self.requeue(wish.transfer, end);
        let virtual_now = self.virtual_now;
        self.ends.retain(|_, end| *end > virtual_now);
        self.granted = self.granted.saturating_add(len);
        Some((ticket, len))
    }

    /// When [`Fair::poll`] is to be called again; none: once something changes.
    pub fn next(&self, now: Instant) -> Option<Instant> {
        let (_, _, _, len) = self.first()?;
        let Rate::Limited(rate) = self.allowance.rate else { return Some(now) };
        let missing = (u128::from(len) * UNIT).saturating_sub(self.level);
        let nanos = missing.div_ceil(u128::from(rate.get()));
        Some(self.filled + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }

    /// Who is first of those that are not held up, and for how many bytes.
    fn first(&self) -> Option<(u128, Ticket, Wish, u64)> {
        let mut waiting = self.queue.iter().filter(|(_, wish)| !self.allowance.holds(wish.transfer.class));
        let ((tag, ticket), wish) = waiting.next()?;
        let len = match self.allowance.rate {
            Rate::Any => wish.wanted.min(TURN_LEN_ANY),
            Rate::Limited(rate) => wish.wanted.min(turn_len(rate)),
        };
        Some((*tag, *ticket, *wish, len))
    }

    /// The other streams of a transfer that had a turn come behind that.
    fn requeue(&mut self, transfer: Transfer, end: u128) {
        let of: Vec<_> = self
            .queue
            .iter()
            .filter(|((tag, _), wish)| wish.transfer == transfer && *tag < end)
            .map(|(key, wish)| (*key, *wish))
            .collect();
        for ((tag, ticket), wish) in of {
            self.queue.remove(&(tag, ticket));
            self.queue.insert((end, ticket), wish);
            self.tags.insert(ticket, end);
        }
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.filled);
        self.filled = self.filled.max(now);
        if let Rate::Limited(rate) = self.allowance.rate {
            let more = passed.as_nanos().saturating_mul(u128::from(rate.get()));
            self.level = self.level.saturating_add(more).min(full(self.allowance.rate));
        }
    }
}

fn full(rate: Rate) -> u128 {
    match rate {
        Rate::Any => 0,
        Rate::Limited(rate) => u128::from(burst(rate)) * UNIT,
    }
}

#[cfg(test)]
mod tests;
