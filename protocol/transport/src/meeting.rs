//! Helping a sender and a store to find each other, where both are behind routers that let in only what answers
//! (PROTOCOL.md §8): for whoever has a public address and sessions with stores.
//!
//! The helper tells each where it sees the other; they do the rest themselves. Not here: any of their data.
//!
//! Sound because nobody can use it against others: a sender must show an introduction that names it; what the store is
//! told is the address that the sender's own handshake proved, never one that it said; and [`Rates`] bound how often. All
//! that is not so gets one answer, [`Response::Refused`], for the caller to give after the same time.

mod rates;

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use lighter_protocol::wire::{Knock, Meet, Request, Response};
use lighter_protocol::{Introduction, IntroductionError, Mailbox, Now, PeerId, SignedError};
use tokio::sync::Semaphore;
use tracing::debug;

pub use rates::{RateLimits, Rates};

use crate::connection::Connection;
use crate::limits::{
    ALL_MEETS_BURST, ALL_MEETS_INTERVAL, KNOCK_ANSWER_TIME_MAX, KNOCKS_AT_ONCE_MAX, MEETERS_MAX, MEETS_BURST,
    MEETS_INTERVAL,
};

/// Seconds after which a sender may ask again that was not heard.
const LATER_S: u32 = 5;

/// How often a helper helps.
pub const MEETING_RATES: RateLimits = RateLimits {
    each_burst: MEETS_BURST,
    each_interval: MEETS_INTERVAL,
    all_burst: ALL_MEETS_BURST,
    all_interval: ALL_MEETS_INTERVAL,
    keys_max: MEETERS_MAX,
};

/// Helps senders and stores to meet.
#[derive(Debug)]
pub struct Helper {
    rates: Mutex<Rates<PeerId>>,
    knocks: Semaphore,
}

impl Default for Helper {
    fn default() -> Self {
        Self { rates: Mutex::new(Rates::new(MEETING_RATES)), knocks: Semaphore::new(KNOCKS_AT_ONCE_MAX) }
    }
}

/// Why a sender is not helped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum NotHelped {
    #[error("{0}")]
    Introduction(#[from] IntroductionError),
    #[error("too often")]
    TooOften,
    #[error("no such store is here")]
    NotHere,
    #[error("one of the two is here through a tunnel: nobody sees its UDP socket")]
    Tunnel,
}

impl From<SignedError> for NotHelped {
    fn from(error: SignedError) -> Self {
        Self::Introduction(error.into())
    }
}

impl Helper {
    /// Answers a sender's `Meet` that came on `sender`, a connection that it opened for this. `location`: whose
    /// introductions count; `session`: the connection to a mailbox's store, if it has one here.
    pub async fn meet(
        &self,
        meet: &Meet,
        sender: &Connection,
        location: &PeerId,
        now: Now,
        session: impl FnOnce(&Mailbox, &PeerId) -> Option<Connection>,
    ) -> Response {
        let admitted = self.admit(meet, &sender.peer(), location, now);
        let found = admitted.and_then(|recipient| {
            let store = session(&recipient, &meet.store).ok_or(NotHelped::NotHere)?;
            let sender = sender.first_udp_address().ok_or(NotHelped::Tunnel)?;
            store.udp_address().ok_or(NotHelped::Tunnel)?;
            Ok((sender, store))
        });
        let (sender_address, store) = match found {
            Ok(found) => found,
            Err(reason) => {
                debug!(sender = %sender.peer(), store = %meet.store, %reason, "not helped to meet");
                return Response::Refused;
            }
        };
        match self.knock(meet, sender_address, &store).await {
            // An old session moves with its store; where a sender is, it has proved just now.
            Ok(Response::Coming) => store.udp_address().map_or(Response::Refused, Response::Met),
            Ok(response) => {
                debug!(sender = %sender.peer(), store = %meet.store, ?response, "the store does not come");
                Response::Refused
            }
            Err(response) => response,
        }
    }

    /// Whether this sender is to be helped, and to meet whom.
    fn admit(&self, meet: &Meet, sender: &PeerId, location: &PeerId, now: Now) -> Result<Mailbox, NotHelped> {
        let recipient = meet.introduction.claim()?.recipient;
        Introduction::verify(&meet.introduction, location, sender, &recipient, 0, now.wall)?;
        // Judged first: who has no introduction has no place in the table.
        if self.take(sender, now.instant) { Ok(recipient) } else { Err(NotHelped::TooOften) }
    }

    fn take(&self, sender: &PeerId, now: Instant) -> bool {
        self.rates.lock().unwrap_or_else(PoisonError::into_inner).take(*sender, now)
    }

    /// Tells the store; what it said, or what the sender is told instead.
    async fn knock(
        &self,
        meet: &Meet,
        address: SocketAddr,
        store: &Connection,
    ) -> Result<Response, Response> {
        let Ok(_turn) = self.knocks.try_acquire() else { return Err(Response::Later(LATER_S)) };
        let knock = Request::Knock(Knock { introduction: meet.introduction.clone(), address });
        store.request_within(&knock, KNOCK_ANSWER_TIME_MAX).await.map_err(|error| {
            debug!(store = %meet.store, %error, "a store was not told of a sender");
            Response::Refused
        })
    }
}

#[cfg(test)]
mod tests;
