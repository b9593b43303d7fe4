//! Reaching a store: the loop around the [`Plan`].

use std::net::{IpAddr, SocketAddr};
use std::sync::PoisonError;
use std::time::Instant;

use lighter_protocol::{Mailbox, PeerId, RelayRecord};
use lighter_transport::location::{Presence, StoreRecord};
use lighter_transport::{ConnectError, Connection, Manner};
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};

use super::plan::{Candidate, Failures, Known, Plan};
use super::{Reached, Way, punch};
use crate::dial;
use crate::finding::AskError;
use crate::limits::{REACH_TIME_MAX, STORE_PING_TIME_MAX};
use crate::shared::Handle;

/// Why a store is not offered to now.
#[derive(Debug, thiserror::Error)]
pub enum NotFound {
    /// Nobody could be asked.
    #[error("{0}")]
    Asking(#[from] AskError),
    /// No store, or none for this sender.
    #[error("the recipient has no store that takes things from here")]
    None,
    /// It is known to be offline.
    #[error("the recipient's store is offline")]
    Offline,
    /// No way led to it.
    #[error("the recipient's store cannot be reached: {0}")]
    NotReached(Failures),
    /// It has no address that may be dialled, and its domain no relay that helps.
    #[error(
        "the recipient's store has no address that can be dialled from here, and nobody helps to reach it"
    )]
    NoWay,
    /// It answered the connection and then not the ping.
    #[error("the recipient's store does not answer")]
    NoPong,
}

/// Connects to the store that the location server named for `recipient`, and pings it (SPEC A4), for who sends. The
/// connection is the caller's to close.
///
/// # Errors
/// The reason says why the store cannot be relied on now.
pub async fn reach(
    shared: &Handle,
    sender: &Mailbox,
    recipient: &Mailbox,
    store: &StoreRecord,
) -> Result<Reached, NotFound> {
    if store.presence == Presence::Offline {
        return Err(NotFound::Offline);
    }
    let reached = race(shared, (sender, recipient), store).await?;
    reached.connection.ping(STORE_PING_TIME_MAX).await.map_err(|_| NotFound::NoPong)?;
    Ok(reached)
}

/// The same, but for the ping; `between`: who sends, and to whom.
async fn race(
    shared: &Handle,
    between: (&Mailbox, &Mailbox),
    store: &StoreRecord,
) -> Result<Reached, NotFound> {
    let mut plan = Plan::new(&known(shared, store), Instant::now());
    let peer = store.peer;
    let tried = timeout(REACH_TIME_MAX, run(shared, between, store, &mut plan)).await.ok().flatten();
    match tried {
        Some(reached) => {
            let took = plan.took(Instant::now());
            tracing::info!(store = %peer, way = %reached.way, address = %reached.connection.remote_address(), ?took, "reached");
            Ok(reached)
        }
        None => {
            let failures = plan.into_failures();
            tracing::info!(store = %peer, %failures, "not reached");
            Err(if failures.is_empty() { NotFound::NoWay } else { NotFound::NotReached(failures) })
        }
    }
}

/// Where the store may be.
fn known(shared: &Handle, store: &StoreRecord) -> Known {
    let own = shared.own_addresses();
    let nearby = shared.ways.nearby.lock().unwrap_or_else(PoisonError::into_inner);
    let may_help = |relay: &&RelayRecord| !shared.dialable(&relay.addresses).is_empty();
    Known {
        lan: nearby.addresses(&store.peer, Instant::now()),
        registered: shared.dialable(&store.addresses),
        helpers: store.relays.iter().filter(may_help).map(|relay| relay.peer).collect(),
        has_ipv6: own.iter().any(|ip: &IpAddr| ip.is_ipv6() && dial::is_global(*ip)),
    }
}

/// Tries what the plan says until something opens; none when nothing is left.
async fn run(
    shared: &Handle,
    (sender, recipient): (&Mailbox, &Mailbox),
    store: &StoreRecord,
    plan: &mut Plan,
) -> Option<Reached> {
    // As many as the plan lets.
    let mut tries = JoinSet::new();
    loop {
        while let Some(candidate) = plan.poll(Instant::now()) {
            let (shared, store) = (shared.clone(), store.clone());
            let (sender, recipient) = (sender.clone(), recipient.clone());
            tries.spawn(async move {
                let opened = open(&shared, (&sender, &recipient), &store, candidate).await;
                (candidate, opened)
            });
        }
        if plan.is_over() {
            return None;
        }
        let next = plan.next_time();
        let wait = async {
            match next {
                Some(at) => sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(ended) = tries.join_next() => match ended {
                Ok((_, Ok(reached))) => return Some(reached),
                Ok((candidate, Err(why))) => {
                    tracing::debug!(store = %store.peer, %candidate, why, "not reached so");
                    plan.handle_failed(candidate, why, Instant::now());
                }
                Err(_) => return None, // the runtime is shutting down
            },
            () = wait => {}
        }
    }
}

/// Tries one candidate; gives why it did not work, in words.
async fn open(
    shared: &Handle,
    (sender, recipient): (&Mailbox, &Mailbox),
    store: &StoreRecord,
    candidate: Candidate,
) -> Result<Reached, String> {
    match candidate {
        Candidate::Address { way, address } => {
            let connection = dial(shared, store.peer, address).await.map_err(|error| error.to_string())?;
            Ok(Reached { connection, way })
        }
        Candidate::Helper(relay) => {
            let relay = store.relays.iter().find(|known| known.peer == relay);
            let relay = relay.ok_or("it is no relay of theirs any more")?;
            let punched = punch::through(shared, relay, sender, recipient, store.peer).await;
            let connection = punched.map_err(|error| error.to_string())?;
            Ok(Reached { connection, way: Way::Punched })
        }
    }
}

async fn dial(shared: &Handle, peer: PeerId, address: SocketAddr) -> Result<Connection, ConnectError> {
    shared.endpoint.connect_to(peer, address, Manner::Usual, REACH_TIME_MAX).await
}
