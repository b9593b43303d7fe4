//! Who is asked for which range: what is missing is shared out among the sources by their speed, while it is pulled.
//!
//! With one source nothing is measured, and it is asked for as much as fits four streams. With several, each has two; a
//! piece is what its source brings in a few seconds. Where nothing is left to be asked for, a source with nothing to do
//! takes the end of what the slowest stream has still to bring, in proportion to both speeds; where that is too little to
//! be cut, all of it, if it brings it much sooner. So whoever is fast has something to do until the end, nobody waits for
//! the slow, and any single source that goes on is enough.
//!
//! Where somebody pushes, what it was told to push is asked for nowhere: [`pushing`].
//!
//! Sound because nothing is asked for that is verified, or asked for at another source ([`BlobPlan`]); that the streams of
//! a source that went end before their rest is asked for elsewhere is what keeps it so.

mod pushing;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use super::plan::BlobPlan;
use super::sources::{Sources, smoothed};
use super::{Command, StreamEnd, StreamId};
use crate::blob::PORTION_LEN;
use crate::limits::{
    LOOK_INTERVAL, OVERTAKE_OPEN_MIN, OVERTAKE_TIME_MIN, PIECE_LEN_FIRST, PIECE_LEN_MAX, PIECE_LEN_MIN,
    PIECE_TIME, PULL_SMALL_LEN_MAX, PULL_SMALL_STREAMS_MAX,
};
use crate::{BlobId, Now, PeerId};
use pushing::Pusher;

/// What there is to fetch, whom to ask for it, and what is asked for.
#[derive(Clone, Debug, Hash)]
pub(super) struct Sharing {
    /// The manifest first, then the attachments that are pulled or had; each id once.
    pub(super) plans: Vec<BlobPlan>,
    /// All before this one are done, and stay so: of a thousand small blobs, those that are here are not looked at again.
    done: usize,
    pub(super) sources: Sources,
    streams: BTreeMap<StreamId, Open>,
    next_stream: u64,
    /// When it was last looked how fast the sources are; none while there is only one.
    looked: Option<Instant>,
    /// Who is to push, as long as somebody is.
    pusher: Option<Pusher>,
}

/// A stream that is open.
#[derive(Clone, Copy, Debug, Hash)]
struct Open {
    /// Whom it asks.
    from: PeerId,
    /// For which of the plans.
    plan: usize,
    /// For how many bytes.
    asked: u64,
    since: Instant,
    /// Bytes that it brought, and how many of them were new.
    brought: u64,
    new: u64,
    /// Bytes that have come on it, verified or not, as far as it was looked.
    received: u64,
    /// Of these, what its source was credited with.
    counted: u64,
    /// Bytes a second, once it was looked at twice.
    speed: Option<u64>,
    /// Its end was given to another one: it is stopped where that begins.
    is_cut: bool,
    /// It was told to stop, and will have ended soon.
    is_left: bool,
    /// It waited on this side since the last look.
    is_held: bool,
    /// Its source opened it.
    is_pushed: bool,
}

impl Sharing {
    pub(super) fn new(plans: Vec<BlobPlan>, sources: Sources) -> Self {
        Self { plans, done: 0, sources, streams: BTreeMap::new(), next_stream: 0, looked: None, pusher: None }
    }

    pub(super) fn is_done(&mut self) -> bool {
        while self.plans.get(self.done).is_some_and(BlobPlan::is_done) {
            self.done += 1;
        }
        self.done == self.plans.len()
    }

    /// Whether nothing is asked for now.
    pub(super) fn is_idle(&self) -> bool {
        self.streams.is_empty()
    }

    pub(super) fn blob_of(&self, stream: StreamId) -> Option<BlobId> {
        self.streams.get(&stream).map(|open| self.plans[open.plan].id)
    }

    /// When it is to be looked how fast the sources are.
    pub(super) fn next_look(&self) -> Option<Instant> {
        self.looked.map(|looked| looked + LOOK_INTERVAL)
    }

    pub(super) fn clear(&mut self) {
        self.streams.clear();
        self.looked = None;
        self.pull_instead();
    }

    /// Opens as many streams as may be, and gives a source that has nothing to do a part of another's.
    pub(super) fn fill(&mut self, now: Now) -> Vec<Command> {
        self.settle_pusher(now);
        let mut commands = self.open_all(now);
        if self.streams.is_empty() && self.sources.recall() {
            commands.extend(self.open_all(now));
        }
        if self.sources.awake(now.instant) < 2 || self.streams.is_empty() {
            self.looked = None;
            return commands;
        }
        self.looked.get_or_insert(now.instant);
        for idle in self.sources.candidates(now.instant, |peer| self.load(peer), |_| false) {
            if self.load(&idle) == 0 {
                commands.extend(self.overtake(idle, now));
            }
        }
        commands
    }

    fn open_all(&mut self, now: Now) -> Vec<Command> {
        // Of what is little, a source is asked for many when many are over, so that one request can ask for all of them.
        let sources = self.sources.candidates(now.instant, |peer| self.load(peer), |_| true);
        let is_half_over = |peer: &PeerId| {
            let (open, most) = self.little(peer, now);
            open.0 <= most.0 / 2 && open.1 <= most.1 / 2
        };
        let few: Vec<_> = sources.into_iter().filter(is_half_over).collect();
        std::iter::from_fn(|| self.open(&few, now)).collect()
    }

    /// Streams that ask a source and the bytes that they ask for; and how many of both there may be, as long as they ask for
    /// little: the sources share that.
    fn little(&self, peer: &PeerId, now: Now) -> ((usize, u64), (usize, u64)) {
        let its = self.streams.values().filter(|open| open.from == *peer);
        let open = its.fold((0, 0), |(streams, asked), open| (streams + 1, asked + open.asked));
        let sources = self.sources.awake(now.instant).max(1);
        (open, (PULL_SMALL_STREAMS_MAX / sources, PULL_SMALL_LEN_MAX / sources as u64))
    }

    /// These bytes of the stream's blob are verified: what follows, and whether a blob is whole now. None where they say
    /// nothing new.
    pub(super) fn verified(&mut self, stream: StreamId, range: Range<u64>) -> Option<(Vec<Command>, bool)> {
        let open = self.streams.get_mut(&stream)?;
        let plan = &mut self.plans[open.plan];
        open.brought += range.end.min(plan.size).saturating_sub(range.start);
        let new = plan.verified(range);
        if new == 0 {
            return None;
        }
        open.new += new;
        self.sources.fruitful(&open.from, new);
        let is_done = plan.is_done();
        let is_enough = open.is_cut && !open.is_left && plan.rest_len(stream) == 0;
        open.is_left |= is_enough;
        Some((is_enough.then_some(Command::Enough { stream }).into_iter().collect(), is_done))
    }

    /// A stream is over.
    pub(super) fn ended(&mut self, stream: StreamId, end: StreamEnd, now: Now) -> Vec<Command> {
        let Some(open) = self.streams.remove(&stream) else { return Vec::new() };
        let Open { from, plan, .. } = open;
        if open.is_pushed {
            self.push_ended(self.plans[plan].rest_len(stream) == 0 && end == StreamEnd::Over, now);
        }
        self.plans[plan].ended(stream);
        self.sources.moved(&from, open.received.max(open.brought).saturating_sub(open.counted));
        match end {
            StreamEnd::Left => {}
            StreamEnd::Over if open.new > 0 => {}
            // It is asked for what it did not push, and judged by what comes of that.
            StreamEnd::Over | StreamEnd::Slow if open.is_pushed => {}
            StreamEnd::Over => self.sources.fruitless(&from),
            StreamEnd::Refused => self.sources.refused(&from, plan),
            StreamEnd::Later(seconds) => {
                self.sources.rest(&from, now.instant, Duration::from_secs(u64::from(seconds)));
            }
            StreamEnd::Slow => {
                self.sources.stall(&from);
                return self.leave_all(&from);
            }
            StreamEnd::Wrong => {
                self.sources.ban(&from);
                return self.leave_all(&from);
            }
        }
        Vec::new()
    }

    /// These wait on this side: until the next look, nothing is made of how little comes on them.
    pub(super) fn hold(&mut self, streams: &[StreamId]) {
        for stream in streams {
            if let Some(open) = self.streams.get_mut(stream) {
                open.is_held = true;
            }
        }
    }

    /// It was looked how many bytes have come on each stream so far: who is slow has less to do from now on, who stalled
    /// nothing.
    pub(super) fn look(&mut self, received: &[(StreamId, u64)], now: Now) -> Vec<Command> {
        let Some(looked) = self.looked else { return Vec::new() };
        let passed = now.instant.saturating_duration_since(looked);
        if passed < LOOK_INTERVAL / 2 {
            return Vec::new();
        }
        self.looked = Some(now.instant);
        for (stream, bytes) in received {
            let Some(open) = self.streams.get_mut(stream) else { continue };
            let before = open.received;
            open.received = before.max(*bytes);
            if open.since <= looked && !open.is_held {
                open.speed = Some(smoothed(open.speed, open.received - before, passed));
            }
            let moved = open.received.max(open.brought);
            self.sources.moved(&open.from, moved - open.counted.min(moved));
            open.counted = moved;
        }
        let streams = &self.streams;
        self.sources.measure(passed, now.instant, |peer| {
            let mut of = streams.values().filter(|open| open.from == *peer && !open.is_held).peekable();
            (of.peek().is_some(), of.any(|open| open.since <= looked))
        });
        self.streams.values_mut().for_each(|open| open.is_held = false);
        let stalled = self.sources.stalled(now.instant);
        stalled
            .into_iter()
            .flat_map(|peer| {
                self.sources.stall(&peer);
                self.leave_all(&peer)
            })
            .collect()
    }

    /// Streams that ask this peer.
    fn load(&self, peer: &PeerId) -> usize {
        self.streams.values().filter(|open| open.from == *peer).count()
    }

    /// Stops all streams of a source that is not asked any more.
    fn leave_all(&mut self, peer: &PeerId) -> Vec<Command> {
        let of = self.streams.iter_mut().filter(|(_, open)| open.from == *peer && !open.is_left);
        of.map(|(stream, open)| {
            open.is_left = true;
            Command::Leave { stream: *stream }
        })
        .collect()
    }

    /// The next stream, where a source can be asked for something: a few for bulk, more for as long as they ask for
    /// little each, from those of which `few` are open.
    fn open(&mut self, few: &[PeerId], now: Now) -> Option<Command> {
        let is_little = |peer: &PeerId| {
            let (open, most) = self.little(peer, now);
            few.contains(peer) && open.0 < most.0 && open.1 < most.1
        };
        let candidates = self.sources.candidates(now.instant, |peer| self.load(peer), is_little);
        candidates.into_iter().find_map(|from| self.ask(from, now))
    }

    fn ask(&mut self, from: PeerId, now: Now) -> Option<Command> {
        let stream = StreamId(self.next_stream);
        let (awake, width) = (self.sources.awake(now.instant), self.sources.width(now.instant));
        let free = (awake * width).saturating_sub(self.streams.len()).max(1) as u64;
        let most = match (awake > 1, self.sources.speed(&from)) {
            (false, _) => PIECE_LEN_MAX,
            (true, None) => PIECE_LEN_FIRST,
            (true, Some(speed)) => speed.saturating_mul(PIECE_TIME.as_secs()) / width as u64,
        };
        let len = |missing: u64| missing.div_ceil(free).min(most).clamp(PIECE_LEN_MIN, PIECE_LEN_MAX);
        // The manifest alone, until it is here: it restores the message even where an attachment never comes.
        let ready =
            if self.plans.first().is_some_and(|manifest| !manifest.is_done()) { 1 } else { self.plans.len() };
        let sources = &self.sources;
        let mut plans = self.plans.iter_mut().enumerate().take(ready).skip(self.done);
        let (plan, ranges) = plans.find_map(|(at, plan)| {
            if sources.lacks(&from, at) {
                return None;
            }
            plan.ask(stream, len).map(|ranges| (at, ranges))
        })?;
        Some(self.begin(stream, from, plan, ranges, now))
    }

    fn begin(
        &mut self,
        stream: StreamId,
        from: PeerId,
        plan: usize,
        ranges: crate::blob::RangeSet,
        now: Now,
    ) -> Command {
        self.note(stream, from, plan, ranges.len(), now);
        let BlobPlan { id: blob, size, .. } = self.plans[plan];
        Command::Get { stream, from, blob, size, ranges }
    }

    /// A stream is open.
    fn note(&mut self, stream: StreamId, from: PeerId, plan: usize, asked: u64, now: Now) {
        self.next_stream += 1;
        let open = Open {
            from,
            plan,
            asked,
            since: now.instant,
            brought: 0,
            new: 0,
            received: 0,
            counted: 0,
            speed: None,
            is_cut: false,
            is_left: false,
            is_held: false,
            is_pushed: false,
        };
        self.streams.insert(stream, open);
        self.sources.asked(&from, now.instant);
    }

    /// `idle` has nothing to do, and nothing is left to be asked for: it takes a part of what the stream has still to bring
    /// that would take longest.
    fn overtake(&mut self, idle: PeerId, now: Now) -> Option<Command> {
        let others = self
            .streams
            .iter()
            .filter(|(_, open)| open.from != idle && !open.is_left && !self.sources.lacks(&idle, open.plan));
        let measured = others.filter_map(|(stream, open)| {
            let rest = self.plans[open.plan].rest_len(*stream);
            open.speed.filter(|_| rest > 0).map(|speed| (time(rest, speed), *stream, *open, rest, speed))
        });
        let (until, stream, open, rest, its) =
            measured.max_by_key(|(until, stream, ..)| (*until, Reverse(*stream)))?;
        // One that was never asked is taken to be as fast.
        let own = self.sources.speed(&idle).unwrap_or(its.max(1));
        if until < OVERTAKE_TIME_MIN || own == 0 {
            return None;
        }
        // What has come on it and is not reported yet stays with it.
        let unseen = open.received.saturating_sub(open.brought);
        let share = u128::from(rest) * u128::from(its) / (u128::from(its) + u128::from(own));
        let keep = u64::try_from(share).unwrap_or(rest).max(unseen.saturating_add(PORTION_LEN));
        if its > 0 && keep.saturating_add(PORTION_LEN) <= rest {
            let taken = StreamId(self.next_stream);
            let tail = self.plans[open.plan].cut(stream, keep, taken)?;
            if let Some(open) = self.streams.get_mut(&stream) {
                open.is_cut = true;
            }
            return Some(self.begin(taken, idle, open.plan, tail, now));
        }
        let is_settled = now.instant.saturating_duration_since(open.since) >= OVERTAKE_OPEN_MIN;
        let is_sooner = time(rest, own) * 2 + Duration::from_secs(1) < until;
        if !is_settled || !is_sooner {
            return None;
        }
        // It brings nothing more from now on; its rest is asked for when it has ended.
        self.streams.get_mut(&stream)?.is_left = true;
        Some(Command::Leave { stream })
    }
}

/// How long so many bytes take.
fn time(bytes: u64, speed: u64) -> Duration {
    Duration::from_millis(bytes.saturating_mul(1_000) / speed.max(1))
}
