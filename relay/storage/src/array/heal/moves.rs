//! One copy: from its source to its target, stretch by stretch, then checked whole.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::plan::Need;
use crate::array::state::{Live, Shared};
use crate::ids::SegmentId;
use crate::limits::{ANSWER_TIME_MAX, SEAL_TIME_MAX};
use crate::link::LinkError;
use crate::segment::header::Member;
use crate::wire::{CopyState, Hop, Refusal, Request, Response, SegmentInfo};

impl Shared {
    /// Makes a copy; gives its file's bytes.
    pub(super) async fn make_copy(&self, need: Need) -> Result<u64, LinkError> {
        let mut failed = LinkError::Closed;
        for source in &need.sources {
            match self.copy_from(&need, source).await {
                Ok(bytes) => return Ok(bytes),
                Err(error) => {
                    tracing::debug!(segment = %need.segment, server = %source.peer, %error, "not from there");
                    failed = error;
                }
            }
        }
        Err(failed)
    }

    async fn copy_from(&self, need: &Need, source: &Member) -> Result<u64, LinkError> {
        let Need { segment, summary, target, .. } = *need;
        let (from, to) = {
            let state = self.state();
            let live = |member: &Member| state.live(&member.peer).cloned().ok_or(LinkError::Closed);
            (live(source)?, live(&target)?)
        };
        let record = self.record_of(&source.peer).ok_or(LinkError::Closed)?;
        let hop = Hop { peer: source.peer, address: record.address, unit: source.unit };
        let allow = Request::Allow { segment, peer: target.peer };
        from.writes.done(&allow, Vec::new(), ANSWER_TIME_MAX).await?;
        if need.replaces {
            // Another copy was found sound: this one is of no use but for whoever looks into what happened.
            let target = self.state().target(self.peer, segment, &target);
            to.writes.done(&Request::SetAside { target }, Vec::new(), ANSWER_TIME_MAX).await?;
        }
        let file_len = summary.file_len();
        let mut offset = 0;
        while offset < file_len {
            let length = STRETCH_LEN.min(u32::try_from(file_len - offset).unwrap_or(u32::MAX));
            self.pace(u64::from(length)).await;
            let epoch = self.state().epoch;
            let receive = Request::Receive { unit: target.unit, epoch, segment, source: hop, offset, length };
            let next = match to.writes.call(&receive, Vec::new(), SEAL_TIME_MAX).await {
                Ok((Response::Received { next }, _)) if next > offset => next,
                Ok(_) => return Err(LinkError::Wrong),
                // What an earlier try left there is gone on with.
                Err(LinkError::Refused(Refusal::Offset { next })) if offset == 0 && next > 0 => next,
                Err(error) => return Err(error),
            };
            self.counters.copy_bytes.fetch_add(next - offset, Ordering::Relaxed);
            if let Some((_, bytes)) = &mut self.healing().since {
                *bytes += next - offset;
            }
            offset = next;
        }
        self.adopt(need, &to).await.map(|()| file_len)
    }

    async fn adopt(&self, need: &Need, to: &Live) -> Result<(), LinkError> {
        let Need { segment, summary, target, .. } = *need;
        let epoch = self.state().epoch;
        let adopt = Request::Adopt { unit: target.unit, epoch, segment, summary };
        let (response, _) = to.writes.call(&adopt, Vec::new(), SEAL_TIME_MAX).await?;
        let Response::Sealed(report) = response else { return Err(LinkError::Wrong) };
        if report.summary != summary || report.damaged > 0 {
            return Err(LinkError::Wrong);
        }
        let mut state = self.state();
        if let Some(header) = state.segments.get(&segment).map(|entry| Arc::clone(&entry.header)) {
            let state_of_copy = CopyState::Sealed(summary);
            let info = SegmentInfo {
                length: summary.length,
                first: summary.first,
                state: state_of_copy,
                damaged: 0,
                is_moved: false,
            };
            let keys = self.keys().clone();
            state.see_copy(target, (*header).clone(), info, &keys);
            // It was copied from one whose key may not have been wrapped anew yet.
            state.rewraps.see_server(target.peer);
        }
        Ok(())
    }

    /// Drops a surplus copy, once all that are to stay were seen to be there; says whether it did.
    pub(super) async fn drop_copy(&self, segment: SegmentId, holder: Member) -> bool {
        if !self.others_stand(segment, &holder).await {
            return false;
        }
        let (live, target) = {
            let state = self.state();
            (state.live(&holder.peer).cloned(), state.target(self.peer, segment, &holder))
        };
        let Some(live) = live else { return false };
        // One that is not sound is kept for whoever looks into what happened; then nothing is missed there.
        let is_damaged = self
            .state()
            .segments
            .get(&segment)
            .and_then(|entry| entry.copy(&holder))
            .is_none_or(|info| info.damaged > 0 || !matches!(info.state, CopyState::Sealed(_)));
        if is_damaged
            && let Err(error) =
                live.writes.done(&Request::SetAside { target }, Vec::new(), ANSWER_TIME_MAX).await
        {
            tracing::warn!(%segment, server = %holder.peer, %error, "a damaged copy could not be put aside yet");
            return false;
        }
        match live.writes.done(&Request::Drop { target }, Vec::new(), ANSWER_TIME_MAX).await {
            Ok(_) => {
                tracing::info!(%segment, server = %holder.peer, "a surplus copy was dropped");
                self.counters.copies_dropped.fetch_add(1, Ordering::Relaxed);
                if let Some(entry) = self.state().segments.get_mut(&segment) {
                    entry.lose_copy(&holder);
                }
                true
            }
            Err(error) => {
                tracing::warn!(%segment, server = %holder.peer, %error, "a surplus copy could not be dropped yet");
                false
            }
        }
    }

    /// Whether as many copies as promised are there besides `holder`'s: asked of their servers.
    async fn others_stand(&self, segment: SegmentId, holder: &Member) -> bool {
        let others: Vec<(Member, Live)> = {
            let state = self.state();
            let Some(entry) = state.segments.get(&segment) else { return false };
            let others = entry.holders().filter(|other| other != holder);
            let staying = others.filter(|other| !state.is_draining(&other.peer));
            staying.filter_map(|other| Some((other, state.live(&other.peer)?.clone()))).collect()
        };
        let mut stand = 0;
        for (other, live) in others {
            let stat = Request::Stat { unit: other.unit, segment };
            let asked = crate::array::join::list_page(&live.writes, &stat).await;
            let length = self.state().segments.get(&segment).map(|entry| entry.length);
            stand += usize::from(asked.is_ok_and(|found| {
                found.iter().any(|(_, info)| {
                    let is_sealed =
                        matches!(info.state, CopyState::Sealed(theirs) if Some(theirs.length) == length);
                    is_sealed && info.damaged == 0
                })
            }));
        }
        stand >= usize::from(self.state().table.copies)
    }
}

/// Bytes of one stretch: after each one the pace is kept and a failure noticed.
const STRETCH_LEN: u32 = 8 * 1024 * 1024;
