//! Who is connected now, and over what: a relay's session, a sender that dialled in, a store that was dialled.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use lighter_protocol::PeerId;
use lighter_transport::Connection;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::limits::SILENCE_LOOK_INTERVAL;

/// The open connections. Their number is bounded by the endpoint, and by how many peers this agent dials.
#[derive(Debug, Default)]
pub struct Links {
    open: Mutex<HashMap<PeerId, Vec<Connection>>>,
}

impl Links {
    /// Adds a connection.
    pub fn add(&self, connection: &Connection) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let links = open.entry(connection.peer()).or_default();
        links.retain(|link| !link.is_closed());
        links.push(connection.clone());
    }

    /// Forgets connections to `peer` that are closed.
    pub fn sweep(&self, peer: &PeerId) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(links) = open.get_mut(peer) {
            links.retain(|link| !link.is_closed());
            if links.is_empty() {
                open.remove(peer);
            }
        }
    }

    /// The newest open connection to `peer`.
    pub fn get(&self, peer: &PeerId) -> Option<Connection> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.get(peer)?.iter().rev().find(|link| !link.is_closed()).cloned()
    }

    /// All open connections.
    pub fn all(&self) -> Vec<Connection> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.values().flatten().filter(|link| !link.is_closed()).cloned().collect()
    }
}

/// Closes a connection that nothing comes on any more, though it is asked: the other side has moved to where nobody knows
/// it, or was killed. (QUIC alone would notice after [`lighter_transport::limits::IDLE_TIME_MAX`].) `interval` says how often
/// it is looked at now.
pub(crate) async fn close_when_silent(
    connection: Connection,
    interval: impl Fn() -> Duration,
    mut wakes: watch::Receiver<u64>,
) {
    let mut received = connection.datagrams_received();
    loop {
        let interval = interval();
        // On another network, what came a moment ago says nothing.
        let is_elsewhere = tokio::select! {
            () = sleep(interval) => false,
            woken = wakes.changed() => woken.is_ok(),
        };
        let before = std::mem::replace(&mut received, connection.datagrams_received());
        if (received == before || is_elsewhere) && connection.ping(SILENCE_LOOK_INTERVAL).await.is_err() {
            tracing::info!(peer = %connection.peer(), "nothing comes from there any more");
            return connection.close();
        }
    }
}
