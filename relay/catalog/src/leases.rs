//! Who works on what: claims of hand-overs, and of deliveries on offer.
//!
//! With several relays on one database, each thing that is to be done is done by one of them at a time. A relay *claims*
//! it, which raises its fence: a number that grows with every claim. What the relay then writes down of it names the
//! fence, and where another relay has claimed the thing meanwhile, it changes nothing. Fences guard scheduling only: a
//! store's receipt counts whoever claimed its delivery.
//!
//! An engine in a file has one owner, and everything is always its own.

use std::time::Duration;

use lighter_protocol::{MessageId, UnixTime};

use crate::catalog::DueHandOver;
use crate::message::HandOver;
use crate::rows::{Delivery, Position};

/// What tells a claim of a hand-over from every other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fence {
    /// Of which message.
    pub message: MessageId,
    /// Which.
    pub hand_over: HandOver,
    /// The claim's number.
    pub number: u64,
}

/// A hand-over that is to be done, and by this relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// What is due.
    pub due: DueHandOver,
    /// What its end is written down under.
    pub fence: Fence,
}

/// What came of claiming hand-overs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClaimedHandOvers {
    /// Those that are this relay's now, those first that have waited longest.
    pub claims: Vec<Claim>,
    /// When to claim again: the next one is due, or what another relay holds may be free. None: nothing is put off.
    pub next: Option<UnixTime>,
}

/// What came of claiming deliveries of a mailbox.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClaimedDeliveries {
    /// Those that are this relay's to offer, oldest first.
    pub rows: Vec<Delivery>,
    /// The last one that was looked at, whosever it is. None: there is none behind the cursor.
    pub last: Option<Position>,
    /// Another relay offers some of them; after this long, they may be free. None: all are this relay's.
    pub free_in: Option<Duration>,
}
