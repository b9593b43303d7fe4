//! Who is connected now, and over what: a relay's session, a sender that dialled in, a store that was dialled. And who was
//! heard of just now: whoever waits to try that peer again tries at once.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use lighter_protocol::PeerId;
use lighter_transport::Connection;
use tokio::sync::{broadcast, watch};
use tokio::time::sleep;

use crate::limits::{ARRIVALS_MAX, SILENCE_LOOK_INTERVAL};

/// The open connections. Their number is bounded by the endpoint, and by how many peers this agent dials.
#[derive(Debug)]
pub struct Links {
    open: Mutex<HashMap<PeerId, Vec<Connection>>>,
    arrivals: broadcast::Sender<PeerId>,
}

impl Default for Links {
    fn default() -> Self {
        Self { open: Mutex::default(), arrivals: broadcast::Sender::new(ARRIVALS_MAX) }
    }
}

impl Links {
    /// Adds a connection.
    pub fn add(&self, connection: &Connection) {
        let peer = connection.peer();
        {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            let links = open.entry(peer).or_default();
            links.retain(|link| !link.is_closed());
            links.push(connection.clone());
        }
        self.heard_of(peer);
    }

    /// Something came from `peer`, or of it: it may be there now. A hint, and no more: whoever is tried proves who it is.
    pub fn heard_of(&self, peer: PeerId) {
        // Nobody may be waiting.
        let _ = self.arrivals.send(peer);
    }

    /// Who is heard of from now on.
    pub fn arrivals(&self) -> Arrivals {
        Arrivals(self.arrivals.subscribe())
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

/// Peers as they are heard of.
#[derive(Debug)]
pub struct Arrivals(broadcast::Receiver<PeerId>);

impl Arrivals {
    /// Returns when one of those is heard of whom `is_awaited` names, or when so many were that it may have been among them.
    pub async fn of(&mut self, is_awaited: impl Fn(&PeerId) -> bool) {
        loop {
            match self.0.recv().await {
                Ok(peer) if is_awaited(&peer) => return,
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(_)) => return,
                // The agent ends.
                Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
            }
        }
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

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn who_waits_for_a_peer_hears_of_that_one_and_of_none_before() {
        let links = Links::default();
        let (one, other) = (PeerId::random(), PeerId::random());
        links.heard_of(one);
        let mut arrivals = links.arrivals();
        assert!(arrivals.of(|_| true).now_or_never().is_none(), "before");
        links.heard_of(other);
        assert!(arrivals.of(|peer| *peer == one).now_or_never().is_none(), "another one");
        links.heard_of(other);
        links.heard_of(one);
        assert!(arrivals.of(|peer| *peer == one).now_or_never().is_some());
        assert!(arrivals.of(|_| true).now_or_never().is_none(), "heard of once");
    }

    #[test]
    fn bad_input_35_where_too_many_come_to_be_told_apart_it_may_have_been_that_one() {
        let links = Links::default();
        let mut arrivals = links.arrivals();
        let awaited = PeerId::random();
        for _ in 0..ARRIVALS_MAX {
            links.heard_of(PeerId::random());
        }
        assert!(arrivals.of(|peer| *peer == awaited).now_or_never().is_none());
        for _ in 0..=ARRIVALS_MAX {
            links.heard_of(PeerId::random());
        }
        assert!(arrivals.of(|peer| *peer == awaited).now_or_never().is_some());
    }
}
