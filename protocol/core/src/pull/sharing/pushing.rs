//! What a source brings unasked: it is told once what is missing, and opens streams of its own with it.
//!
//! What is promised is taken out of what is asked for, so it comes once. That lasts for as long as the pusher is the only
//! source, and pushes: where it lets [`PUSH_WAIT_MAX`] pass without a stream, breaks one off, lies, or another source
//! comes that could bring some of it, what it has not begun is asked for like anything else, of whoever has it. Streams
//! that it has begun go on, and are measured, cut and overtaken as if they had been asked for.
//!
//! Sound because a pushed stream is taken for ranges that are promised only, which are missing, and asked for nowhere;
//! from then on it is a stream like those that were asked for.

use super::{BlobPlan, Sharing, StreamId};
use crate::limits::{PUSH_ANSWER_RANGES_MAX, PUSH_WAIT_MAX};
use crate::pull::PushedStream;
use crate::wire::PushPart;
use crate::{Now, PeerId};

/// Who is to push.
#[derive(Clone, Copy, Debug, Hash)]
pub(in crate::pull) struct Pusher {
    from: PeerId,
    /// Until when its next stream is waited for, where none is open.
    until: std::time::Instant,
}

impl Sharing {
    /// `from` is to push what is missing and asked for nowhere: that, the manifest first. Nothing where another source
    /// could bring some of it: then all are asked.
    pub(in crate::pull) fn promise(&mut self, from: PeerId, now: Now) -> Vec<PushPart> {
        self.pull_instead();
        if !self.sources.is_only(&from, now.instant) {
            return Vec::new();
        }
        let mut ranges_left = PUSH_ANSWER_RANGES_MAX;
        let mut wanted = Vec::new();
        for plan in &mut self.plans {
            let ranges = plan.promise(ranges_left).to_wire();
            ranges_left -= ranges.len();
            if !ranges.is_empty() {
                wanted.push(PushPart { blob: plan.id, ranges });
            }
        }
        if !wanted.is_empty() {
            self.pusher = Some(Pusher { from, until: now.instant + PUSH_WAIT_MAX });
        }
        wanted
    }

    /// `from` opened streams with these: their names, in order. None where one of them is not what it was told to push;
    /// then nobody pushes any more.
    pub(in crate::pull) fn begin_pushed(
        &mut self,
        from: PeerId,
        parts: &[PushPart],
        now: Now,
    ) -> Option<Vec<PushedStream>> {
        self.pusher.filter(|pusher| pusher.from == from)?;
        let mut streams = Vec::with_capacity(parts.len());
        for part in parts {
            let Some(stream) = self.begin_part(from, part, now) else {
                for PushedStream { stream, .. } in streams {
                    if let Some(open) = self.streams.remove(&stream) {
                        self.plans[open.plan].ended(stream);
                    }
                }
                self.pull_instead();
                return None;
            };
            streams.push(stream);
        }
        if let Some(pusher) = &mut self.pusher {
            pusher.until = now.instant + PUSH_WAIT_MAX;
        }
        Some(streams)
    }

    fn begin_part(&mut self, from: PeerId, part: &PushPart, now: Now) -> Option<PushedStream> {
        let at = self.plans.iter().position(|plan| plan.id == part.blob)?;
        let ranges: crate::blob::RangeSet = part.ranges.iter().map(|(start, end)| *start..*end).collect();
        let stream = StreamId(self.next_stream);
        if !self.plans[at].begin_pushed(stream, &ranges) {
            return None;
        }
        self.note(stream, from, at, ranges.len(), now);
        self.streams.get_mut(&stream)?.is_pushed = true;
        let BlobPlan { id: blob, size, .. } = self.plans[at];
        Some(PushedStream { stream, blob, size, ranges })
    }

    /// A pushed stream ended, `whole` or short of what it was to bring.
    pub(super) fn push_ended(&mut self, whole: bool, now: Now) {
        match &mut self.pusher {
            Some(pusher) if whole => pusher.until = now.instant + PUSH_WAIT_MAX,
            _ => self.pull_instead(),
        }
    }

    /// What is promised and has not begun is asked for from now on.
    pub(in crate::pull) fn pull_instead(&mut self) {
        self.pusher = None;
        self.plans.iter_mut().for_each(BlobPlan::release);
    }

    /// Ends the waiting for pushes where it is in vain, or others could bring the same.
    pub(super) fn settle_pusher(&mut self, now: Now) {
        let Some(Pusher { from, until }) = self.pusher else { return };
        let is_late = until <= now.instant && !self.has_pushed_stream();
        let has_more = self.plans.iter().any(BlobPlan::is_promised);
        if is_late || !has_more || !self.sources.is_only(&from, now.instant) {
            self.pull_instead();
        }
    }

    /// Until when the next push is waited for, where nothing is being pushed meanwhile.
    pub(in crate::pull) fn awaits_push(&self) -> Option<std::time::Instant> {
        self.pusher.map(|pusher| pusher.until).filter(|_| !self.has_pushed_stream())
    }

    /// Whether it pushes, or is to.
    pub(in crate::pull) fn pushes(&self, peer: &PeerId) -> bool {
        self.pusher.is_some_and(|pusher| pusher.from == *peer)
            || self.streams.values().any(|open| open.is_pushed && open.from == *peer)
    }

    fn has_pushed_stream(&self) -> bool {
        self.streams.values().any(|open| open.is_pushed)
    }
}
