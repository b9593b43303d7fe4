//! The presence stream: keys that are no store's any more, a snapshot in pages, then changes as they happen, in a bounded
//! queue (SPEC A18, D5).
//!
//! The stream listens for changes before it reads the first page: a store that changes meanwhile shows in its page, in
//! a later change, or in both, and the change is always the later word. So nothing is missed between the two, and no
//! lock is held for longer than a page takes.

use std::sync::Arc;

use bytes::Bytes;
use lighter_protocol::UnixTime;
use lighter_transport::location::Presence;
use lighter_transport::location::api::{
    EVENT_AGAIN, EVENT_REVOKED, EVENT_SNAPSHOT, Revocation, Revocations, SnapshotPage,
};
use lighter_transport::location::limits::SNAPSHOT_PAGE_MAX;
use tokio::sync::{OwnedSemaphorePermit, broadcast};

use super::{Location, event, store_presence};
use crate::error::CallError;
use crate::limits::PRESENCE_KEEP_ALIVE;
use crate::lock::read;
use crate::rows::StoreKey;

/// Stores looked at for one page, so that no lock is held for long where few are online.
const SCANNED_PER_PAGE_MAX: usize = 20_000;

/// One reader's stream of server-sent events.
#[derive(Debug)]
pub struct PresenceFeed {
    location: Arc<Location>,
    changes: broadcast::Receiver<Bytes>,
    state: State,
    /// Keys that are no store's any more, and were not told yet.
    revoked: Vec<Revocation>,
    _permit: OwnedSemaphorePermit,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// In the snapshot; the next page begins at the store with this number.
    Snapshot {
        from: u32,
    },
    Changes,
    Ended,
}

impl Location {
    /// Opens a presence stream.
    ///
    /// # Errors
    /// [`CallError::TooMany`] where as many are open as may be.
    pub fn presence_feed(self: &Arc<Self>) -> Result<PresenceFeed, CallError> {
        let permit = self
            .presence_streams
            .clone()
            .try_acquire_owned()
            .map_err(|_| CallError::TooMany { retry_after: PRESENCE_KEEP_ALIVE })?;
        self.metrics.presence_streams.inc();
        let changes = self.changes.subscribe();
        let state = State::Snapshot { from: 0 };
        let now = UnixTime::now();
        let directory = read(&self.directory);
        let revoked = directory.revocations(now).map(|(key, at)| revocation(key, at)).collect();
        drop(directory);
        Ok(PresenceFeed { location: self.clone(), changes, state, revoked, _permit: permit })
    }

    /// A page of the stores that are online, from number `from` on, and where the next begins.
    fn snapshot_page(&self, from: u32) -> (SnapshotPage, Option<u32>) {
        let directory = read(&self.directory);
        let live = read(&self.live);
        let mut stores = Vec::new();
        for (scanned, (id, store)) in directory.stores_from(from).enumerate() {
            if stores.len() == SNAPSHOT_PAGE_MAX || scanned == SCANNED_PER_PAGE_MAX {
                return (SnapshotPage { stores, last: false }, Some(id.number()));
            }
            let is_told = store.hosted.is_none() || store.sealing_key.is_some();
            if is_told && live.presences.get(directory.presence_of(id)).0 == Presence::Online {
                stores.push(store_presence(&store.key, Presence::Online));
            }
        }
        (SnapshotPage { stores, last: true }, None)
    }
}

impl PresenceFeed {
    /// The next event; `None` when the stream is over.
    pub async fn next(&mut self) -> Option<Bytes> {
        if !self.revoked.is_empty() {
            let rest = self.revoked.len().saturating_sub(SNAPSHOT_PAGE_MAX);
            return Some(revoked_event(&self.revoked.split_off(rest)));
        }
        match self.state {
            State::Snapshot { from } => {
                let (page, next) = self.location.snapshot_page(from);
                self.state = next.map_or(State::Changes, |from| State::Snapshot { from });
                Some(event(EVENT_SNAPSHOT, &page))
            }
            State::Changes => Some(self.next_change().await),
            State::Ended => None,
        }
    }

    async fn next_change(&mut self) -> Bytes {
        let received = tokio::select! {
            received = self.changes.recv() => received,
            () = tokio::time::sleep(PRESENCE_KEEP_ALIVE) => return Bytes::from_static(b":\n\n"),
            () = self.location.stopping.cancelled() => Err(broadcast::error::RecvError::Closed),
        };
        received.unwrap_or_else(|error| {
            if let broadcast::error::RecvError::Lagged(missed) = error {
                tracing::warn!(missed, "a presence stream's reader was too slow and must come again");
            }
            self.state = State::Ended;
            event(EVENT_AGAIN, &())
        })
    }
}

/// The key is no store of the mailbox any more.
pub(super) fn revocation(key: &StoreKey, at: UnixTime) -> Revocation {
    Revocation { mailbox: key.mailbox.clone(), peer: key.peer, at }
}

/// The event that says so.
pub(super) fn revoked_event(revoked: &[Revocation]) -> Bytes {
    event(EVENT_REVOKED, &Revocations { revoked: revoked.to_vec() })
}

impl Drop for PresenceFeed {
    fn drop(&mut self) {
        self.location.metrics.presence_streams.dec();
    }
}
