//! Whom to ask: the holders that offered the delivery and others that may have it, what each has brought and how fast,
//! and those that are not asked: for a while, while there are others, or at all.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::PeerId;
use crate::limits::{
    BACKOFF_MAX, FRUITLESS_STREAMS_MAX, PULL_SHARED_STREAMS_MAX, PULL_SOURCES_ASKED_MAX, PULL_SOURCES_MAX,
    PULL_STREAMS_MAX, STALL_LEN, STALL_TIME,
};

/// What a source is to the delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// It offered, and hears of the receipt.
    Holder,
    /// A relay of the own domain that has the same: it hears of the receipt where no holder is left.
    Relay,
    /// Another device of the same user: it is only asked.
    Device,
    /// Another recipient of the same message: it is only asked. One that gives nothing of what it is asked for is left.
    Recipient,
}

/// How a source stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SourceState {
    /// It is asked.
    Asked,
    /// It said `Later`, and is asked again then.
    Resting,
    /// It brought next to nothing while others could: it is asked again only when nobody else is left.
    Stalled,
    /// What it sent did not verify: it is not asked again.
    Wrong,
    /// Its connection is gone, it does not give it, or it has let go.
    Gone,
}

/// A source, for who looks on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceView {
    /// Who.
    pub peer: PeerId,
    /// What it is to the delivery.
    pub role: Role,
    /// How it stands.
    pub state: SourceState,
    /// Bytes of the delivery that it brought, verified.
    pub bytes: u64,
    /// Bytes a second, where that was measured: while there are several.
    pub speed: Option<u64>,
    /// It pushes, or is to: it is not asked for what it was told to push.
    pub pushes: bool,
}

/// The sources of one delivery, in the order in which they came. At most [`PULL_SOURCES_MAX`], those that are not asked
/// any more among them.
#[derive(Clone, Debug, Hash)]
pub(super) struct Sources(Vec<Source>);

#[derive(Clone, Debug, Hash)]
struct Source {
    peer: PeerId,
    role: Role,
    state: SourceState,
    /// It is not asked before, where it rests.
    asleep_until: Option<Instant>,
    /// Streams in a row that brought nothing.
    fruitless: u32,
    /// Blobs, by their plans, that it does not give.
    lacks: BTreeSet<usize>,
    /// Bytes that it brought first.
    brought: u64,
    /// Bytes that came from it since the last look.
    moved: u64,
    /// Bytes a second, as they came lately.
    speed: Option<u64>,
    /// Since when it has brought less than [`STALL_LEN`], and how much; none while nothing is asked of it.
    quiet: Option<(Instant, u64)>,
}

impl Source {
    fn new(peer: PeerId, role: Role) -> Self {
        Self {
            peer,
            role,
            state: SourceState::Asked,
            asleep_until: None,
            fruitless: 0,
            lacks: BTreeSet::new(),
            brought: 0,
            moved: 0,
            speed: None,
            quiet: None,
        }
    }

    fn is_awake(&self, now: Instant) -> bool {
        match self.state {
            SourceState::Asked => true,
            SourceState::Resting => self.asleep_until.is_none_or(|until| until <= now),
            SourceState::Stalled | SourceState::Wrong | SourceState::Gone => false,
        }
    }

    fn is_left(&self) -> bool {
        !matches!(self.state, SourceState::Wrong | SourceState::Gone)
    }
}

impl Sources {
    pub(super) fn of(peer: PeerId, role: Role) -> Self {
        Self(vec![Source::new(peer, role)])
    }

    /// Adds a source, where there is room. One that rested, stalled or went is asked again; one that sent what did not
    /// verify is not.
    pub(super) fn add(&mut self, peer: PeerId, role: Role) {
        if let Some(known) = self.0.iter_mut().find(|source| source.peer == peer) {
            known.role = known.role.min(role);
            if known.state != SourceState::Wrong {
                (known.state, known.fruitless, known.quiet) = (SourceState::Asked, 0, None);
                known.lacks.clear();
            }
            return;
        }
        if self.0.len() >= PULL_SOURCES_MAX {
            let gone = self.0.iter().position(|source| source.state == SourceState::Gone);
            let Some(gone) = gone else { return };
            self.0.remove(gone);
        }
        self.0.push(Source::new(peer, role));
    }

    /// All of them.
    pub(super) fn views(&self, pushes: impl Fn(&PeerId) -> bool) -> impl Iterator<Item = SourceView> {
        self.0.iter().map(move |source| SourceView {
            peer: source.peer,
            role: source.role,
            state: source.state,
            bytes: source.brought,
            speed: source.speed,
            pushes: pushes(&source.peer),
        })
    }

    /// Whether this one can be asked now, and no other.
    pub(super) fn is_only(&self, peer: &PeerId, now: Instant) -> bool {
        let mut awake = self.0.iter().filter(|source| source.is_awake(now));
        awake.next().is_some_and(|source| source.peer == *peer) && awake.next().is_none()
    }

    /// Who hears of the receipt: the holders that are left, or where there is none, the relays.
    pub(super) fn told(&self) -> BTreeSet<PeerId> {
        let of = |role| self.0.iter().filter(move |source| source.is_left() && source.role == role);
        let holders: BTreeSet<_> = of(Role::Holder).map(|source| source.peer).collect();
        if holders.is_empty() { of(Role::Relay).map(|source| source.peer).collect() } else { holders }
    }

    /// How many can be asked now, no more than are asked at a time.
    pub(super) fn awake(&self, now: Instant) -> usize {
        self.0.iter().filter(|source| source.is_awake(now)).count().min(PULL_SOURCES_ASKED_MAX)
    }

    /// Streams that one of them may have.
    pub(super) fn width(&self, now: Instant) -> usize {
        if self.awake(now) > 1 { PULL_SHARED_STREAMS_MAX } else { PULL_STREAMS_MAX }
    }

    /// Those that may have a stream more, with `load` streams each: who has the fewest first, of these the fastest. `any`:
    /// though they have their share.
    pub(super) fn candidates(
        &self,
        now: Instant,
        load: impl Fn(&PeerId) -> usize,
        any: impl Fn(&PeerId) -> bool,
    ) -> Vec<PeerId> {
        let width = self.width(now);
        let awake: Vec<_> = self
            .0
            .iter()
            .filter(|source| source.is_awake(now))
            .map(|source| (load(&source.peer), source))
            .collect();
        let busy = self.0.iter().filter(|source| load(&source.peer) > 0).count();
        let mut may: Vec<_> = awake
            .into_iter()
            .filter(|(load, source)| {
                (*load < width || any(&source.peer)) && (*load > 0 || busy < PULL_SOURCES_ASKED_MAX)
            })
            .collect();
        may.sort_by_key(|(load, source)| (*load, Reverse(source.speed.unwrap_or(u64::MAX))));
        may.into_iter().map(|(_, source)| source.peer).collect()
    }

    /// When the first of those that still rest may be asked again.
    pub(super) fn next_awake(&self, now: Instant) -> Option<Instant> {
        let resting = self.0.iter().filter(|source| source.state == SourceState::Resting);
        resting.filter_map(|source| source.asleep_until).filter(|until| *until > now).min()
    }

    /// Those that stalled are asked again: nobody else is left. False where there is none.
    pub(super) fn recall(&mut self) -> bool {
        let mut any = false;
        for source in self.0.iter_mut().filter(|source| source.state == SourceState::Stalled) {
            (source.state, source.quiet, any) = (SourceState::Asked, None, true);
        }
        any
    }

    /// Bytes a second, where they were measured.
    pub(super) fn speed(&self, peer: &PeerId) -> Option<u64> {
        self.0.iter().find(|source| source.peer == *peer)?.speed
    }

    /// Whether it does not give the blob of this plan.
    pub(super) fn lacks(&self, peer: &PeerId, plan: usize) -> bool {
        self.0.iter().any(|source| source.peer == *peer && source.lacks.contains(&plan))
    }

    /// It brought something new.
    pub(super) fn fruitful(&mut self, peer: &PeerId, bytes: u64) {
        self.change(peer, |source| {
            source.fruitless = 0;
            source.brought += bytes;
        });
    }

    /// A stream of it is over, and brought nothing.
    pub(super) fn fruitless(&mut self, peer: &PeerId) {
        self.change(peer, |source| {
            source.fruitless += 1;
            if source.fruitless >= FRUITLESS_STREAMS_MAX && source.is_left() {
                source.state = SourceState::Gone;
            }
        });
    }

    /// It does not give the blob of this plan. One that offered it does not give anything, then; another recipient may keep
    /// single blobs to itself, or say no to everything.
    pub(super) fn refused(&mut self, peer: &PeerId, plan: usize) {
        self.change(peer, |source| {
            source.lacks.insert(plan);
            source.fruitless += u32::from(source.role == Role::Recipient);
            let is_over = source.role == Role::Holder || source.fruitless >= FRUITLESS_STREAMS_MAX;
            if is_over && source.is_left() {
                source.state = SourceState::Gone;
            }
        });
    }

    /// It is gone, or has let go.
    pub(super) fn drop(&mut self, peer: &PeerId) {
        self.change(peer, |source| {
            if source.is_left() {
                source.state = SourceState::Gone;
            }
        });
    }

    /// It sent what did not verify.
    pub(super) fn ban(&mut self, peer: &PeerId) {
        self.change(peer, |source| source.state = SourceState::Wrong);
    }

    /// It is too slow to be of use: others are asked, and where there are none, it is given up.
    pub(super) fn stall(&mut self, peer: &PeerId) {
        let others = self.0.iter().any(|source| source.peer != *peer && source.is_left());
        let state = if others { SourceState::Stalled } else { SourceState::Gone };
        self.change(peer, |source| {
            if source.is_left() {
                source.state = state;
            }
        });
    }

    /// It asked to be left alone.
    pub(super) fn rest(&mut self, peer: &PeerId, now: Instant, wait: Duration) {
        let until = now + wait.min(BACKOFF_MAX);
        self.change(peer, |source| {
            if source.is_left() {
                (source.state, source.asleep_until) = (SourceState::Resting, Some(until));
            }
        });
    }

    /// It is asked for something.
    pub(super) fn asked(&mut self, peer: &PeerId, now: Instant) {
        self.change(peer, |source| {
            source.state = SourceState::Asked;
            source.quiet.get_or_insert((now, 0));
        });
    }

    /// Bytes came from it.
    pub(super) fn moved(&mut self, peer: &PeerId, bytes: u64) {
        self.change(peer, |source| source.moved += bytes);
    }

    /// `passed` went by until `now`: who is how fast. `is_busy`: whether something is asked of it, and was all the time.
    pub(super) fn measure(
        &mut self,
        passed: Duration,
        now: Instant,
        is_busy: impl Fn(&PeerId) -> (bool, bool),
    ) {
        for source in &mut self.0 {
            let moved = std::mem::take(&mut source.moved);
            let (busy, all_the_time) = is_busy(&source.peer);
            if all_the_time || moved > 0 {
                source.speed = Some(smoothed(source.speed, moved, passed));
            }
            source.quiet = match source.quiet {
                _ if !busy => None,
                Some((since, brought)) if brought + moved < STALL_LEN => Some((since, brought + moved)),
                _ => Some((now, 0)),
            };
        }
    }

    /// Those that have brought next to nothing for too long, though others did, or have nothing to do: a disk on this side
    /// that stands still is nobody's fault.
    pub(super) fn stalled(&self, now: Instant) -> Vec<PeerId> {
        let awake = || self.0.iter().filter(|source| source.is_awake(now));
        let is_stalled = |source: &&Source| {
            source.quiet.is_some_and(|(since, _)| {
                now.saturating_duration_since(since) >= STALL_TIME
                    && awake().any(|other| {
                        let is_free = other.quiet.is_none() && other.lacks.is_empty();
                        let is_better = is_free || other.quiet.is_some_and(|(other, _)| since < other);
                        other.peer != source.peer && is_better
                    })
            })
        };
        awake().filter(is_stalled).map(|source| source.peer).collect()
    }

    fn change(&mut self, peer: &PeerId, change: impl FnOnce(&mut Source)) {
        if let Some(source) = self.0.iter_mut().find(|source| source.peer == *peer) {
            change(source);
        }
    }
}

/// Bytes a second: half of what was so far, half of what was now.
pub(super) fn smoothed(before: Option<u64>, bytes: u64, passed: Duration) -> u64 {
    let millis = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX).max(1);
    let rate = bytes.saturating_mul(1_000) / millis;
    before.map_or(rate, |before| before.midpoint(rate))
}
