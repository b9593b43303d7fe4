//! What was acknowledged before all members had it (SPEC B12, where so set): which copies may lack it, and which servers
//! must be asked before anybody can say what the log is.
//!
//! # Why opening may wait for a certain server
//! Of a segment with `n` members whose records are acknowledged after `k` of them, an acknowledged record is on `k`
//! members at least. So whoever takes the array over knows where such a segment ends once `n − k + 1` of its members were
//! fenced and listed: one of them has every record that counts. With `k = n`, as is the default, any one will do, and
//! enough servers for the quorum are enough for that. Where a later header says where it ends, or a footer, it is enough
//! that somebody who is there has that much.
//!
//! Segments that were sealed on all their members need nobody; so nobody waits for a server that has been away for long,
//! and to which nothing was written.

use std::collections::BTreeSet;

use lighter_protocol::{PeerId, UnixTime};

use super::OpenError;
use super::entry::{Entry, Stage};
use super::settle::latest_closed;
use super::state::{Shared, State};
use crate::location::RecordPlace;
use crate::wire::{CopyState, SegmentInfo};

impl Shared {
    /// Says which servers must be there before it is known what was acknowledged, if some must. Those that were given up
    /// are not waited for.
    // SPEC: B12
    pub(super) fn check_unmirrored(&self) -> Result<(), OpenError> {
        let servers = self.state().awaited(&self.config.given_up, (self.clock)());
        if servers.is_empty() {
            Ok(())
        } else {
            Err(OpenError::Unmirrored { servers: servers.into_iter().collect() })
        }
    }

    /// Whether that server's copy may lack the record without anything being wrong: it gets it in the background.
    pub(super) fn may_lack(&self, place: &RecordPlace, server: &PeerId) -> bool {
        let state = self.state();
        let end = place.offset + u64::from(place.length);
        state.segments.get(&place.segment).is_some_and(|entry| entry.may_lack(end, server))
    }
}

impl State {
    fn awaited(&self, given_up: &BTreeSet<PeerId>, now: UnixTime) -> BTreeSet<PeerId> {
        let closed = latest_closed(&self.segments);
        let mut awaited = BTreeSet::new();
        for (segment, entry) in &self.segments {
            let header = &entry.header;
            let counts = header.day_key.is_some() && header.deletion_day.end() > now;
            if entry.stage != Stage::Found || !header.is_mirrored_later() || !counts {
                continue;
            }
            let away = header.members.iter().map(|member| member.peer).filter(|peer| {
                let is_of_table = self.server(peer).is_some();
                is_of_table && self.live(peer).is_none() && !given_up.contains(peer)
            });
            let away: BTreeSet<PeerId> = away.collect();
            let infos = || entry.copies.iter().flatten().chain(entry.moved.values());
            let sealed = infos().filter(|info| matches!(info.state, CopyState::Sealed(_)));
            let end = closed.get(segment).map(|(_, length)| *length);
            let end = end.or_else(|| sealed.map(|info| info.length).max());
            let is_known = match end {
                Some(end) => infos().any(|info| info.length >= end),
                None => away.len() < header.acknowledged_after,
            };
            if !is_known {
                tracing::warn!(%segment, ?away, "what was acknowledged of a segment is not known without these");
                awaited.extend(away);
            }
        }
        awaited
    }
}

impl Entry {
    fn may_lack(&self, end: u64, server: &PeerId) -> bool {
        let is_short = |info: &SegmentInfo| info.length < end;
        self.header.is_mirrored_later()
            && match self.stage {
                Stage::Active => end > self.on_all,
                Stage::Found | Stage::Closing => true,
                Stage::Settled => {
                    let copies = self.header.members.iter().zip(&self.copies);
                    let mut theirs = copies.filter(|(member, _)| member.peer == *server);
                    theirs.any(|(_, info)| info.as_ref().is_some_and(is_short))
                }
            }
    }
}
