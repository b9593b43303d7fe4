//! Which stores have a session here, for senders who are to meet them (`lighter_transport::meeting`).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use lighter_protocol::wire::{Meet, Response};
use lighter_protocol::{Mailbox, Now, PeerId, UnixTime};
use lighter_transport::Connection;
use lighter_transport::meeting::Helper;

use super::peer::Peer;
use crate::limits::LATER_SECONDS;

/// Who is connected, and the helper. What a peer may act for is asked when somebody wants to meet it. The number of peers
/// is bounded by the endpoint's connections.
#[derive(Default)]
pub(super) struct Meetings {
    helper: Helper,
    peers: Mutex<HashMap<PeerId, Vec<Weak<Peer>>>>,
}

impl Meetings {
    /// A peer is connected.
    pub(super) fn add(&self, peer: &Arc<Peer>) {
        self.peers().entry(peer.id()).or_default().push(Arc::downgrade(peer));
    }

    /// A connection of this peer has ended, and nothing holds its [`Peer`] any more.
    pub(super) fn sweep(&self, id: &PeerId) {
        let mut peers = self.peers();
        if let Some(connected) = peers.get_mut(id) {
            connected.retain(|peer| peer.strong_count() > 0);
            if connected.is_empty() {
                peers.remove(id);
            }
        }
    }

    /// The latest connection to a store that has proved here that it acts for `mailbox`.
    fn session(&self, mailbox: &Mailbox, store: &PeerId, now: UnixTime) -> Option<Connection> {
        let connected: Vec<_> = self.peers().get(store)?.iter().rev().filter_map(Weak::upgrade).collect();
        connected.iter().find(|peer| peer.is_there_for(mailbox, now)).map(|peer| peer.connection().clone())
    }

    /// The latest connection to this peer that is open.
    pub(super) fn connected(&self, id: &PeerId) -> Option<Arc<Peer>> {
        let peers = self.peers();
        let mut open = peers.get(id)?.iter().rev().filter_map(Weak::upgrade);
        open.find(|peer| !peer.connection().is_closed())
    }

    /// All connections to this peer.
    pub(super) fn all(&self, id: &PeerId) -> Vec<Arc<Peer>> {
        self.peers().get(id).into_iter().flatten().filter_map(Weak::upgrade).collect()
    }

    /// Answers a sender.
    pub(super) async fn meet(&self, meet: &Meet, sender: &Connection, location: Option<PeerId>) -> Response {
        let Some(location) = location else { return Response::Later(LATER_SECONDS) };
        let now = Now::read();
        let session = |mailbox: &Mailbox, store: &PeerId| self.session(mailbox, store, now.wall);
        self.helper.meet(meet, sender, &location, now, session).await
    }

    fn peers(&self) -> MutexGuard<'_, HashMap<PeerId, Vec<Weak<Peer>>>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
