//! Whom to ask: the holders that offered the delivery, those that are to be left alone for a while, and those that
//! sent what did not verify.

use std::time::{Duration, Instant};

use crate::PeerId;
use crate::limits::{BACKOFF_MAX, FRUITLESS_STREAMS_MAX, PULL_SOURCES_MAX};

/// The sources of one delivery, in the order in which they offered it. At most [`PULL_SOURCES_MAX`], the banned ones
/// among them.
#[derive(Clone, Debug)]
pub(super) struct Sources(Vec<Source>);

#[derive(Clone, Debug)]
struct Source {
    peer: PeerId,
    /// It is not asked before.
    asleep_until: Option<Instant>,
    /// Streams in a row that brought nothing.
    fruitless: u32,
    /// It sent what did not verify: it is not asked, nor told, again.
    banned: bool,
}

impl Sources {
    pub(super) fn of(peer: PeerId) -> Self {
        Self(vec![Source { peer, asleep_until: None, fruitless: 0, banned: false }])
    }

    /// Adds a holder that offered, where there is room. One that was asleep is awake; one that was banned stays so.
    pub(super) fn add(&mut self, peer: PeerId) {
        if self.0.iter().any(|source| source.peer == peer) {
            self.change(&peer, |known| (known.asleep_until, known.fruitless) = (None, 0));
        } else if self.0.len() < PULL_SOURCES_MAX {
            self.0.extend(Self::of(peer).0);
        }
    }

    /// Those that are left.
    pub(super) fn all(&self) -> impl Iterator<Item = PeerId> + '_ {
        self.0.iter().filter(|source| !source.banned).map(|source| source.peer)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all().next().is_none()
    }

    /// The one that is awake and asked for the least.
    pub(super) fn pick<'a>(&self, now: Instant, asked: impl Iterator<Item = &'a PeerId>) -> Option<PeerId> {
        let asked: Vec<_> = asked.collect();
        let awake = self
            .0
            .iter()
            .filter(|source| !source.banned && source.asleep_until.is_none_or(|until| until <= now));
        awake
            .min_by_key(|source| asked.iter().filter(|peer| ***peer == source.peer).count())
            .map(|source| source.peer)
    }

    /// When the first of those that sleep may be asked again.
    pub(super) fn next_awake(&self) -> Option<Instant> {
        self.0.iter().filter(|source| !source.banned).filter_map(|source| source.asleep_until).min()
    }

    /// It brought something new.
    pub(super) fn fruitful(&mut self, peer: &PeerId) {
        self.change(peer, |source| source.fruitless = 0);
    }

    /// A stream of it is over, and brought nothing.
    pub(super) fn fruitless(&mut self, peer: &PeerId) {
        self.change(peer, |source| source.fruitless += 1);
        self.0.retain(|source| source.banned || source.fruitless < FRUITLESS_STREAMS_MAX);
    }

    /// It is gone, or has let go.
    pub(super) fn drop(&mut self, peer: &PeerId) {
        self.0.retain(|source| source.peer != *peer || source.banned);
    }

    /// It sent what did not verify.
    pub(super) fn ban(&mut self, peer: &PeerId) {
        self.change(peer, |source| source.banned = true);
    }

    /// It asked to be left alone.
    pub(super) fn rest(&mut self, peer: &PeerId, now: Instant, wait: Duration) {
        let until = now + wait.min(BACKOFF_MAX);
        self.change(peer, |source| source.asleep_until = Some(until));
    }

    fn change(&mut self, peer: &PeerId, change: impl FnOnce(&mut Source)) {
        if let Some(source) = self.0.iter_mut().find(|source| source.peer == *peer) {
            change(source);
        }
    }
}
