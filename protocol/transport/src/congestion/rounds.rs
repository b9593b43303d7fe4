//! What a line did, round trip by round trip.

use std::time::{Duration, Instant};

/// Acknowledged packets whose shortest way says how full the queue is just now: one may have been acknowledged late.
const LATEST: usize = 4;

/// One round trip: from a moment until the first packet was acknowledged that was sent after it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Round {
    /// How long it was: at least as long as a packet and its acknowledgement take.
    pub(super) took: Duration,
    /// Bytes that were acknowledged, …
    pub(super) acked: u64,
    /// … and bytes that were found to be lost.
    pub(super) lost: u64,
    /// From sending a packet until it was acknowledged, the shortest.
    pub(super) rtt: Duration,
    /// The same for the latest few packets when something was lost, where it was; at several losses, the longest.
    pub(super) rtt_at_loss: Option<Duration>,
    /// Bytes that might be under way then.
    pub(super) window_at_loss: u64,
    /// Whether there was mostly nothing more to be sent: how much was says nothing of the line.
    pub(super) is_limited: bool,
    /// Whether a router marked packets because its queue grew (ECN, RFC 3168).
    pub(super) is_marked: bool,
}

impl Round {
    /// Bytes a second that were delivered.
    pub(super) fn rate(&self) -> u64 {
        let micros = self.took.as_micros().max(1);
        u64::try_from(u128::from(self.acked) * 1_000_000 / micros).unwrap_or(u64::MAX)
    }
}

/// Cuts what happens into [`Round`]s.
#[derive(Clone, Debug)]
pub(super) struct Rounds {
    began: Instant,
    so_far: Round,
    /// Acknowledged bytes while there was nothing more to be sent.
    limited: u64,
    /// The latest loss that counted: what was sent before it was lost in the same event.
    lost_at: Option<Instant>,
    is_over: bool,
    latest: [Duration; LATEST],
    next: usize,
    /// The shortest round trip of all.
    best: Option<Duration>,
}

impl Rounds {
    pub(super) fn new(now: Instant) -> Self {
        let so_far = Round { rtt: Duration::MAX, ..Round::default() };
        let latest = [Duration::MAX; LATEST];
        Self { began: now, so_far, limited: 0, lost_at: None, is_over: false, latest, next: 0, best: None }
    }

    /// A packet of so many bytes arrived that was sent at `sent`; `is_limited`: there was nothing more to be sent.
    pub(super) fn handle_ack(&mut self, now: Instant, sent: Instant, bytes: u64, is_limited: bool) {
        let rtt = now.saturating_duration_since(sent);
        self.so_far.acked += bytes;
        self.so_far.rtt = self.so_far.rtt.min(rtt);
        self.limited += if is_limited { bytes } else { 0 };
        self.is_over |= sent >= self.began;
        self.latest[self.next] = rtt;
        self.next = (self.next + 1) % LATEST;
        self.best = Some(self.best.map_or(rtt, |best| best.min(rtt)));
    }

    /// So many bytes were lost, the last of them sent at `sent`, while `window` might be under way; none: a packet was marked.
    pub(super) fn handle_loss(&mut self, now: Instant, sent: Instant, lost: u64, window: u64) {
        if lost == 0 {
            self.so_far.is_marked = true;
            return;
        }
        self.so_far.lost += lost;
        if self.lost_at.is_some_and(|lost_at| sent <= lost_at) {
            return;
        }
        self.lost_at = Some(now);
        self.so_far.window_at_loss = self.so_far.window_at_loss.max(window);
        let latest = self.latest.into_iter().min().filter(|rtt| *rtt < Duration::MAX);
        self.so_far.rtt_at_loss = self.so_far.rtt_at_loss.max(latest);
    }

    /// The round that has ended, if one has, and the shortest round trip of all until now.
    pub(super) fn end(&mut self, now: Instant) -> Option<(Round, Duration)> {
        let best = self.best.filter(|_| self.is_over)?;
        let round = Round {
            took: now.saturating_duration_since(self.began),
            is_limited: self.limited > self.so_far.acked / 2,
            ..self.so_far
        };
        (self.began, self.is_over, self.limited) = (now, false, 0);
        self.so_far = Round { rtt: Duration::MAX, ..Round::default() };
        Some((round, best))
    }
}
