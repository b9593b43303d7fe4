//! A hole from the side of the store: an own relay says that somebody who may offer wants to meet it, and where it sees
//! them; the store connects to there (PROTOCOL.md §8).
//!
//! What it could be misused for is to send packets to somebody who did not ask for it. So: only an own relay may knock, and
//! only with an introduction that the own location server signed; only where this agent may dial at all; and not often
//! ([`Knocks`]).

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{MutexGuard, PoisonError};
use std::time::Instant;

use lighter_protocol::wire::{Knock, Request, Response};
use lighter_protocol::{Introduction, IntroductionError, PeerId, SignedError};
use lighter_transport::meeting::{RateLimits, Rates};
use lighter_transport::{ConnectError, Connection, ExchangeError, Manner};

use crate::limits::{
    ALL_KNOCKS_BURST, ALL_KNOCKS_INTERVAL, HOLE_TIME_MAX, KNOCKERS_MAX, KNOCKS_AT_ONCE_MAX, KNOCKS_BURST,
    KNOCKS_INTERVAL,
};
use crate::serve;
use crate::shared::{Handle, now};

/// How often this agent opens holes.
const RATES: RateLimits = RateLimits {
    each_burst: KNOCKS_BURST,
    each_interval: KNOCKS_INTERVAL,
    all_burst: ALL_KNOCKS_BURST,
    all_interval: ALL_KNOCKS_INTERVAL,
    keys_max: KNOCKERS_MAX,
};

/// Which hole: towards whom, where, because of which introduction.
type Hole = (PeerId, SocketAddr, u64);

/// The holes that are being opened, and how many there were of late: a value.
#[derive(Debug)]
pub struct Knocks {
    opening: HashSet<Hole>,
    rates: Rates<PeerId>,
}

/// What becomes of a knock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Open,
    /// The same one was told by another relay.
    IsOpening,
    TooMany,
}

impl Default for Knocks {
    fn default() -> Self {
        Self { opening: HashSet::new(), rates: Rates::new(RATES) }
    }
}

impl Knocks {
    fn handle_knock(&mut self, hole: Hole, now: Instant) -> Verdict {
        if self.opening.contains(&hole) {
            return Verdict::IsOpening;
        }
        if self.opening.len() >= KNOCKS_AT_ONCE_MAX || !self.rates.take(hole.0, now) {
            return Verdict::TooMany;
        }
        self.opening.insert(hole);
        Verdict::Open
    }

    fn handle_ended(&mut self, hole: &Hole) {
        self.opening.remove(hole);
    }
}

/// Why a knock is not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum NotFollowed {
    #[error("not from an own relay")]
    NotOwnRelay,
    #[error("{0}")]
    Introduction(#[from] IntroductionError),
    #[error("to an address that is not dialled")]
    Address,
    #[error("too many")]
    TooMany,
}

impl From<SignedError> for NotFollowed {
    fn from(error: SignedError) -> Self {
        Self::Introduction(error.into())
    }
}

/// Answers a knock that `relay` passed on; where it is followed, the hole is opened beside.
pub fn knocked(shared: &Handle, knock: &Knock, relay: PeerId) -> Response {
    match follow(shared, knock, relay) {
        Ok(Some(hole)) => {
            tokio::spawn(open(shared.clone(), hole));
            Response::Coming
        }
        Ok(None) => Response::Coming,
        Err(reason) => {
            tracing::info!(%relay, address = %knock.address, %reason, "a knock was not followed");
            Response::Refused
        }
    }
}

/// Whether a knock is followed; none where that hole is being opened already.
fn follow(shared: &Handle, knock: &Knock, relay: PeerId) -> Result<Option<Hole>, NotFollowed> {
    if !shared.is_own_relay(&relay) {
        return Err(NotFollowed::NotOwnRelay);
    }
    let claim = knock.introduction.claim()?;
    let sender = claim.sender;
    // For whom else is no business of this store's: the introduction does not count then.
    let is_hosted = shared.hosted.attested(&claim.recipient).is_some();
    let recipient = if is_hosted { &claim.recipient } else { shared.mailbox() };
    let (location, now) = (shared.location_peer(), now());
    let introduction = Introduction::verify(&knock.introduction, &location, &sender, recipient, 0, now.wall)?;
    if shared.dialable(&[knock.address]).is_empty() {
        return Err(NotFollowed::Address);
    }
    let hole = (sender, knock.address, introduction.number);
    match knocks(shared).handle_knock(hole, now.instant) {
        Verdict::Open => Ok(Some(hole)),
        Verdict::IsOpening => Ok(None),
        Verdict::TooMany => Err(NotFollowed::TooMany),
    }
}

/// Why a hole was of no use.
#[derive(Debug, thiserror::Error)]
enum NoUse {
    #[error("{0}")]
    Closed(#[from] ConnectError),
    #[error("{0}")]
    Unheard(#[from] ExchangeError),
    #[error("the sender has another connection")]
    Unwanted,
}

async fn open(shared: Handle, hole: Hole) {
    let opened = connect(&shared, hole).await;
    knocks(&shared).handle_ended(&hole);
    let (sender, address, _) = hole;
    match opened {
        // Everything else on it is asked by the sender, which also ends it.
        Ok(connection) => {
            tracing::info!(%sender, %address, "a hole is open");
            serve::connection(shared, connection).await;
        }
        Err(reason) => tracing::debug!(%sender, %address, %reason, "no hole, or none that is wanted"),
    }
}

async fn connect(shared: &Handle, (sender, address, number): Hole) -> Result<Connection, NoUse> {
    let connection = shared.endpoint.connect_to(sender, address, Manner::Knock, HOLE_TIME_MAX).await?;
    match connection.request_within(&Request::Here(number), HOLE_TIME_MAX).await? {
        Response::Coming => Ok(connection),
        _ => Err(NoUse::Unwanted),
    }
}

fn knocks(shared: &Handle) -> MutexGuard<'_, Knocks> {
    shared.ways.knocks.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn hole(sender: PeerId, port: u16, number: u64) -> Hole {
        (sender, ([192, 0, 2, 1], port).into(), number)
    }

    #[test]
    fn bad_input_11_knocks_are_followed_a_few_times_and_never_many_at_once() {
        let (start, mut knocks) = (Instant::now(), Knocks::default());
        let sender = PeerId::random();
        let followed: Vec<_> = (0..100)
            .filter(|number| knocks.handle_knock(hole(sender, 1, *number), start) == Verdict::Open)
            .collect();
        assert_eq!(followed.len(), KNOCKS_BURST as usize);
        let others =
            (0..100).filter(|_| knocks.handle_knock(hole(PeerId::random(), 1, 0), start) == Verdict::Open);
        assert_eq!(others.count() + followed.len(), KNOCKS_AT_ONCE_MAX);
        for number in followed {
            knocks.handle_ended(&hole(sender, 1, number));
        }
        assert_eq!(
            knocks.handle_knock(hole(sender, 1, 200), start),
            Verdict::TooMany,
            "its burst is used up"
        );
        assert_eq!(knocks.handle_knock(hole(PeerId::random(), 1, 0), start), Verdict::Open);
        assert_eq!(knocks.handle_knock(hole(sender, 1, 200), start + KNOCKS_INTERVAL), Verdict::Open);
    }

    #[test]
    fn what_two_relays_tell_is_one_hole_and_what_each_sees_elsewhere_is_two() {
        let (now, mut knocks) = (Instant::now() + Duration::from_secs(1), Knocks::default());
        let sender = PeerId::random();
        assert_eq!(knocks.handle_knock(hole(sender, 1, 5), now), Verdict::Open);
        assert_eq!(knocks.handle_knock(hole(sender, 1, 5), now), Verdict::IsOpening);
        assert_eq!(knocks.handle_knock(hole(sender, 2, 5), now), Verdict::Open);
        knocks.handle_ended(&hole(sender, 1, 5));
        assert_eq!(knocks.handle_knock(hole(sender, 1, 5), now), Verdict::Open);
    }
}
