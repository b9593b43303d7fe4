//! A hole through the routers on both sides, from the side of the one who wants to connect (PROTOCOL.md §8).
//!
//! A relay of the store's domain tells each side where it sees the other, and both connect at once, from the sockets
//! that everything else of theirs uses: those are what their routers have a mapping for. Whichever connection opens
//! first is used; the other one is refused, or given up. One try of a few seconds.

use std::net::SocketAddr;

use lighter_protocol::wire::{Meet, Request, Response};
use lighter_protocol::{Introduction, Mailbox, PeerId, RelayRecord, Signed, SignedError};
use lighter_transport::{ConnectError, Connection, ExchangeError, Manner};
use tokio::time::{sleep, timeout};

use super::expected::Expectation;
use crate::finding::{self, AskError};
use crate::limits::{HELPER_TIME_MAX, HOLE_TIME_MAX};
use crate::shared::Handle;

/// Why there is no hole.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotPunched {
    #[error("{0}")]
    Asking(#[from] AskError),
    #[error("the store takes nothing from here")]
    NotIntroduced,
    #[error("the location server's introduction is malformed")]
    Introduction(#[from] SignedError),
    #[error("the relay cannot be reached: {0}")]
    Relay(ConnectError),
    #[error("the relay does not answer: {0}")]
    NoAnswer(ExchangeError),
    #[error("the relay has no session with the store, or does not help")]
    Refused,
    #[error("the relay is busy")]
    Busy,
    #[error("the routers on both sides let no hole be opened in {} s", HOLE_TIME_MAX.as_secs())]
    NoHole,
}

/// A connection to `recipient`'s `store` for `sender`, with the help of `relay`.
pub(super) async fn through(
    shared: &Handle,
    relay: &RelayRecord,
    sender: &Mailbox,
    recipient: &Mailbox,
    store: PeerId,
) -> Result<Connection, NotPunched> {
    let Ok(_turn) = shared.ways.meetings.acquire().await else { return Err(NotPunched::Busy) };
    // It is for the meeting only: the offer has one of its own, which says how much.
    let introduction = finding::introduction(shared, sender, recipient, 0).await?;
    let introduction = introduction.ok_or(NotPunched::NotIntroduced)?;
    let number = introduction.claim()?.number;
    let mut expectation = shared.ways.expected.expect(store, number);
    let address = tokio::select! {
        // The relay's answer may be slower than the store.
        connection = expectation.connection() => return Ok(connection),
        met = meet(shared, relay, introduction, store) => met?,
    };
    open(shared, store, address, &mut expectation).await.ok_or(NotPunched::NoHole)
}

/// Asks the relay; gives where it sees the store.
async fn meet(
    shared: &Handle,
    relay: &RelayRecord,
    introduction: Signed<Introduction>,
    store: PeerId,
) -> Result<SocketAddr, NotPunched> {
    // A connection for this alone: what the relay tells the store is where it sees this one come from.
    let addresses = shared.dialable(&relay.addresses);
    let connected = shared.endpoint.connect(relay.peer, &addresses, HELPER_TIME_MAX).await;
    let connection = connected.map_err(NotPunched::Relay)?;
    let request = Request::Meet(Meet { introduction, store });
    let answer = connection.request_within(&request, HELPER_TIME_MAX).await;
    connection.close();
    match answer.map_err(NotPunched::NoAnswer)? {
        Response::Met(address) => Ok(address),
        Response::Later(_) => Err(NotPunched::Busy),
        _ => Err(NotPunched::Refused),
    }
}

/// Connects, while the store does so, too.
async fn open(
    shared: &Handle,
    store: PeerId,
    address: SocketAddr,
    expectation: &mut Expectation<'_>,
) -> Option<Connection> {
    let may_be_dialled = !shared.dialable(&[address]).is_empty();
    let ours = async {
        if may_be_dialled {
            let opened = shared.endpoint.connect_to(store, address, Manner::Hole, HOLE_TIME_MAX).await;
            if let Ok(connection) = opened {
                return Some(connection);
            }
        }
        // Somebody else may answer there, at once; the store can come all the same.
        sleep(HOLE_TIME_MAX).await;
        None
    };
    let both = async {
        tokio::select! {
            opened = ours => opened,
            connection = expectation.connection() => Some(connection),
        }
    };
    timeout(HOLE_TIME_MAX, both).await.ok().flatten()
}
