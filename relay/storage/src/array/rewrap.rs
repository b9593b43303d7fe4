//! Wrapping every day key anew when the array key is changed (`keys::ring` tells the steps and what the file holds).
//!
//! # What the copies hold meanwhile
//! Each copy of a segment has the day key in its header block, and the copies are byte-identical. So for each segment one
//! wrapping is *the* one, that of its header here; a copy that has another gets this one. Which one it is, is found anew
//! after a restart: one under the present key before one under the former, and of those the one that was seen first.
//!
//! A copy's wrapping is replaced only if it opens to the same day key, or to none: a server that shows another key does not
//! get it written over everybody else's.
//!
//! # When it is done
//! A server is done when all that it lists has the right wrapping, and it lists what was being written when the key was
//! changed. The former key may go when every server of the array is done: one that is away is waited for. Segments that
//! are opened from the change on have the new key in the first place, since both happen while the state is held.
//!
//! # Afterwards
//! A copy with an old wrapping may still come to light: brought up from a header of before, or on a disk that was put
//! back. As long as another copy has the right one, nothing is lost by it, and it is put right when its server joins.

use std::collections::BTreeSet;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use lighter_protocol::PeerId;
use tokio::time::timeout;

use super::entry::Stage;
use super::join::list;
use super::state::{Shared, State};
use crate::ids::{SegmentId, UnitId};
use crate::keys::{ArrayKeys, DayKey, Under, WrappedKey};
use crate::limits::ANSWER_TIME_MAX;
use crate::link::LinkError;
use crate::segment::header::{Member, SegmentHeader};
use crate::wire::{Refusal, Request};

/// Whose copies may not be wrapped as they should be.
#[derive(Default)]
pub(super) struct Rewraps {
    /// Servers that are to be looked through.
    due: BTreeSet<PeerId>,
    /// Segments that were being opened or written when the key was changed.
    awaited: BTreeSet<SegmentId>,
    /// Changes so far.
    round: u64,
    /// A change is on its way: nobody is done who was not looked through.
    is_rotating: bool,
}

/// What is to be done about one copy's wrapping.
enum Verdict {
    Right,
    /// This one belongs there.
    Replace(WrappedKey),
    /// It holds another key than the segment's.
    Alien,
}

impl Rewraps {
    /// Before anything is known of the servers.
    pub(super) fn new(keys: &ArrayKeys) -> Self {
        Self { is_rotating: keys.is_rotating(), ..Self::default() }
    }

    /// A server is in the array from now on.
    pub(super) fn see_server(&mut self, server: PeerId) {
        if self.is_rotating {
            self.due.insert(server);
        }
    }
}

impl State {
    /// A server shows `wrapped` as the day key of a segment that it has a copy of.
    pub(super) fn see_key(
        &mut self,
        server: PeerId,
        segment: SegmentId,
        wrapped: Option<WrappedKey>,
        keys: &ArrayKeys,
    ) {
        let (Some(theirs), Some(entry)) = (wrapped, self.segments.get_mut(&segment)) else { return };
        if entry.header.day_key == Some(theirs) {
            return;
        }
        self.rewraps.due.insert(server);
        let day = entry.header.deletion_day;
        let Some((key, under)) = keys.unwrap_day_key(day, &theirs) else { return };
        let is_better = match entry.header.day_key.and_then(|ours| keys.unwrap_day_key(day, &ours)) {
            None => true,
            Some((ours, Under::Former)) => under == Under::Present && ours.is_same(&key),
            Some((_, Under::Present)) => false,
        };
        if is_better {
            entry.header = with_key(&entry.header, theirs);
            entry.day_key.get_or_insert_with(|| Arc::new(key));
            self.rewraps.due.extend(self.servers.iter().map(|server| server.record.peer));
        }
    }
}

impl Shared {
    pub(super) fn keys(&self) -> MutexGuard<'_, ArrayKeys> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A segment's day key, wrapped for its header. Whoever asks holds the state until the segment is in it.
    pub(super) fn wrap_day_key(&self, key: &DayKey) -> WrappedKey {
        self.keys().wrap_day_key(key, &mut *self.chance())
    }

    /// From now on, these keys count.
    pub(super) fn set_keys(&self, keys: ArrayKeys) {
        let mut state = self.state();
        let is_rotating = keys.is_rotating();
        *self.keys() = keys;
        let State { rewraps, servers, segments, .. } = &mut *state;
        rewraps.round += 1;
        rewraps.is_rotating = is_rotating;
        rewraps.awaited.clear();
        if is_rotating {
            rewraps.due.extend(servers.iter().map(|server| server.record.peer));
            let active = segments.iter().filter(|(_, entry)| entry.stage == Stage::Active);
            rewraps.awaited.extend(active.map(|(segment, _)| *segment));
        }
        drop(state);
        self.rewrap_due.notify_one();
    }

    /// The servers of the array that are not done.
    pub(super) fn servers_to_rewrap(&self) -> Vec<PeerId> {
        let state = self.state();
        let servers = state.servers.iter().map(|server| server.record.peer);
        servers.filter(|server| state.rewraps.due.contains(server)).collect()
    }

    /// Returns when every server is done.
    pub(super) async fn rewrapped(&self) {
        loop {
            let changed = self.rewrapped.notified();
            if self.servers_to_rewrap().is_empty() {
                return;
            }
            // A server that leaves the array is waited for no longer, and tells nobody.
            let _ = timeout(RETRY_PAUSE, changed).await;
        }
    }

    /// Sees to the servers that are due and live, whenever something changed.
    pub(super) async fn rewrap_always(self: Arc<Self>) {
        while !self.is_fenced() {
            let mut is_to_be_retried = false;
            for server in self.servers_to_rewrap() {
                match self.rewrap_server(server).await {
                    Ok(true) => {}
                    Ok(false) => is_to_be_retried = true,
                    Err(error) => {
                        tracing::debug!(%server, %error, "its keys cannot be wrapped anew now");
                        is_to_be_retried = self.state().live(&server).is_some();
                    }
                }
            }
            let due = self.rewrap_due.notified();
            if is_to_be_retried {
                let _ = timeout(RETRY_PAUSE, due).await;
            } else {
                due.await;
            }
        }
    }

    /// Looks through a server, and puts right what is not. Says whether it is done.
    async fn rewrap_server(&self, server: PeerId) -> Result<bool, LinkError> {
        let (live, round) = {
            let state = self.state();
            (state.live(&server).cloned().ok_or(LinkError::Closed)?, state.rewraps.round)
        };
        let (mut seen, mut replaced, mut is_done) = (BTreeSet::new(), 0_u64, true);
        for info in &live.units {
            let mut found = Vec::new();
            list(&live.writes, info.unit, &mut found).await?;
            for (unit, header, _) in found {
                seen.insert(header.segment);
                match self.judge(&header) {
                    Verdict::Right => {}
                    Verdict::Alien => self.count_bad_copy(header.segment, server, "another segment's key"),
                    Verdict::Replace(wrapped) => {
                        is_done &= self.replace_key(server, unit, header.segment, wrapped).await?;
                        replaced += 1;
                    }
                }
            }
        }
        let mut state = self.state();
        let State { rewraps, segments, .. } = &mut *state;
        is_done &= rewraps.round == round
            && rewraps.awaited.iter().all(|segment| {
                let entry = segments.get(segment).filter(|entry| entry.stage == Stage::Active);
                let is_holder =
                    entry.is_some_and(|entry| entry.holders().any(|holder| holder.peer == server));
                !is_holder || seen.contains(segment)
            });
        if is_done {
            rewraps.due.remove(&server);
            self.rewrapped.notify_waiters();
            tracing::info!(%server, segments = seen.len(), replaced, "a server's keys are wrapped as they should be");
        }
        Ok(is_done)
    }

    /// What is to be done about a copy with this header block. The segment's own wrapping comes under the present key
    /// first, if it is not.
    fn judge(&self, header: &SegmentHeader) -> Verdict {
        let mut state = self.state();
        let keys = self.keys().clone();
        let (day, now) = (header.deletion_day, (self.clock)());
        let entry = state.segments.get_mut(&header.segment).filter(|_| day.end() > now);
        let (Some(theirs), Some(entry)) = (header.day_key, entry) else { return Verdict::Right };
        let Some(key) = &entry.day_key else { return Verdict::Right };
        let ours = entry
            .header
            .day_key
            .filter(|ours| keys.unwrap_day_key(day, ours).is_some_and(|(_, under)| under == Under::Present));
        let ours = ours.unwrap_or_else(|| keys.wrap_day_key(key, &mut *self.chance()));
        if entry.header.day_key != Some(ours) {
            entry.header = with_key(&entry.header, ours);
        }
        if theirs == ours {
            return Verdict::Right;
        }
        match keys.unwrap_day_key(day, &theirs) {
            Some((other, _)) if !other.is_same(key) => Verdict::Alien,
            _ => Verdict::Replace(ours),
        }
    }

    /// Says whether it was done, or needs not be.
    async fn replace_key(
        &self,
        server: PeerId,
        unit: UnitId,
        segment: SegmentId,
        wrapped: WrappedKey,
    ) -> Result<bool, LinkError> {
        let (live, target) = {
            let state = self.state();
            let live = state.live(&server).cloned().ok_or(LinkError::Closed)?;
            (live, state.target(self.peer, segment, &Member { peer: server, unit }))
        };
        let data = vec![Bytes::copy_from_slice(&wrapped)];
        match live.writes.done(&Request::Rewrap { target }, data, ANSWER_TIME_MAX).await {
            Ok(_) | Err(LinkError::Refused(Refusal::NoSegment | Refusal::Expired)) => Ok(true),
            Err(LinkError::Refused(refusal)) => {
                tracing::warn!(%segment, %server, %refusal, "a segment's key could not be wrapped anew yet");
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

fn with_key(header: &SegmentHeader, wrapped: WrappedKey) -> Arc<SegmentHeader> {
    Arc::new(SegmentHeader { day_key: Some(wrapped), ..header.clone() })
}

/// How long until a server that is not done is looked through again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
