//! Healing (SPEC B14): of each sealed segment as many sound copies as promised, on servers that stay.
//!
//! A copy *stands* where it is sealed at the segment's length, without damage, on a server that is there or was not long
//! ago, and that is not being drained. Where fewer stand than promised, one that does is copied, file by file, from its
//! server to another ([`moves`]); it counts once it was found whole there. Where more stand than promised, the surplus is
//! dropped: copies on servers that drain first. What the units' scrubs found damaged does not stand, and is put aside
//! once another copy was seen to be sound.
//!
//! The plan is made from what the array knows ([`plan`]), anew after each round: nothing of it is written down, as the
//! servers' own lists say what they have.

mod moves;
mod plan;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::{Instant, sleep, timeout};

use super::state::Shared;
use crate::limits::ANSWER_TIME_MAX;
use crate::segment::header::Member;
use crate::wire::{CopyState, Request, Response, UnitHealth};

/// What is to be healed, and how far that is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HealStatus {
    /// Copies to be made.
    pub copies_left: usize,
    /// Their bytes.
    pub bytes_left: u64,
    /// Copies made since the start.
    pub copies_made: u64,
    /// Their bytes.
    pub bytes_made: u64,
    /// Surplus copies dropped since the start.
    pub dropped: u64,
    /// How long the rest will take at the pace of late; `None` where nothing is left, or nothing is known yet.
    pub time_left: Option<Duration>,
}

/// What the healer knows of itself, for its status.
#[derive(Debug, Default)]
pub(super) struct Healing {
    /// When the next stretch may be asked for.
    next_stretch: Option<Instant>,
    /// Since when copies are being made, and how many bytes have been since.
    since: Option<(Instant, u64)>,
}

impl Shared {
    /// Looks after all sealed segments, for ever.
    pub(super) async fn heal_always(self: Arc<Self>) {
        loop {
            if self.is_fenced() {
                return;
            }
            self.ask_health().await;
            while self.heal().await && !self.is_fenced() {}
            let _ = timeout(self.config.heal_interval, self.joined.notified()).await;
        }
    }

    /// One round: all copies that are lacking now, a few at a time; then the surplus. Says whether something was done.
    async fn heal(self: &Arc<Self>) -> bool {
        let needs = self.plan_needs();
        if needs.is_empty() {
            self.healing().since = None;
        } else {
            self.healing().since.get_or_insert((Instant::now(), 0));
        }
        let moves = needs.into_iter().map(|need| {
            let shared = Arc::clone(self);
            async move {
                let (segment, target) = (need.segment, need.target);
                match shared.make_copy(need).await {
                    Ok(bytes) => {
                        tracing::info!(%segment, server = %target.peer, bytes, "a copy was made");
                        shared.counters.copies_made.fetch_add(1, Ordering::Relaxed);
                        true
                    }
                    Err(error) => {
                        tracing::warn!(%segment, server = %target.peer, %error, "a copy could not be made yet");
                        if let Some(server) = shared.state().server_mut(&target.peer) {
                            server.health.fail(Instant::now()); // another is tried next
                        }
                        false
                    }
                }
            }
        });
        let made = futures_util::stream::iter(moves).buffer_unordered(MOVES_MAX).collect::<Vec<_>>().await;
        let mut dropped = false;
        for (segment, holder) in self.plan_surplus() {
            dropped |= self.drop_copy(segment, holder).await;
        }
        made.contains(&true) || dropped
    }

    /// Asks how the units are also while much is healed: new segments are placed by it (SPEC C6).
    // SPEC: C6
    pub(super) async fn watch_health(self: Arc<Self>) {
        loop {
            sleep(HEALTH_INTERVAL).await;
            self.ask_health().await;
        }
    }

    /// Asks each unit how it is: room, what waits there, and what its scrub found.
    async fn ask_health(&self) {
        let units: Vec<_> = {
            let state = self.state();
            let live =
                state.servers.iter().filter_map(|server| Some((server.record.peer, server.live.as_ref()?)));
            live.flat_map(|(peer, live)| {
                live.units.iter().map(move |info| (Member { peer, unit: info.unit }, Arc::clone(&live.reads)))
            })
            .collect()
        };
        let asked = units.into_iter().map(async |(member, link)| {
            let asked = link.call(&Request::Health { unit: member.unit }, Vec::new(), ANSWER_TIME_MAX).await;
            if let Ok((Response::Health(health), _)) = asked {
                self.take_health(member, &health);
            }
        });
        futures_util::future::join_all(asked).await;
    }

    fn take_health(&self, member: Member, health: &UnitHealth) {
        let mut state = self.state();
        if let Some(server) = state.server_mut(&member.peer)
            && let Some(live) = server.live.as_mut()
            && let Some(info) = live.units.iter_mut().find(|info| info.unit == member.unit)
        {
            (info.free, info.total) = (health.free, health.total);
            server.queues.insert(member.unit, health.queue);
            server.objects.insert(member.unit, health.objects);
        }
        for (segment, stretches) in &health.damaged {
            let copy = state.segments.get_mut(segment).and_then(|entry| entry.copy_mut(&member));
            if let Some(info) = copy
                && matches!(info.state, CopyState::Sealed(_))
                && info.damaged == 0
            {
                info.damaged = *stretches;
                self.counters.bad_copies.fetch_add(1, Ordering::Relaxed);
                tracing::error!(%segment, server = %member.peer, stretches, "the scrub found damage in a copy");
            }
        }
    }

    /// Waits until so many bytes more may be copied.
    async fn pace(&self, bytes: u64) {
        let Some(rate) = self.config.heal_rate else { return };
        let now = Instant::now();
        let begin = {
            let mut healing = self.healing();
            let begin = healing.next_stretch.map_or(now, |next| next.max(now));
            healing.next_stretch = Some(begin + Duration::from_secs_f64(bytes as f64 / rate.get() as f64));
            begin
        };
        sleep(begin.saturating_duration_since(now)).await;
    }

    /// How far it is.
    pub(super) fn heal_status(&self) -> HealStatus {
        let (copies_left, bytes_left) = self.count_needs();
        let get = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let since = self.healing().since;
        let time_left = since.filter(|_| bytes_left > 0).and_then(|(since, bytes)| {
            let rate = bytes as f64 / since.elapsed().as_secs_f64();
            (bytes > 0 && rate.is_finite()).then(|| Duration::from_secs_f64(bytes_left as f64 / rate))
        });
        HealStatus {
            copies_left,
            bytes_left,
            copies_made: get(&self.counters.copies_made),
            bytes_made: get(&self.counters.copy_bytes),
            dropped: get(&self.counters.copies_dropped),
            time_left,
        }
    }
}

/// How often the units are asked: often enough that a disk of 1 GB/s fills by 5 GB meanwhile, seldom enough to cost
/// nothing.
const HEALTH_INTERVAL: Duration = Duration::from_secs(5);
/// Copies that are made at once.
const MOVES_MAX: usize = 4;
