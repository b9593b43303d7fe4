//! Reaching servers: each is connected, fenced and listed before it counts as live; one that goes is taken in again.

use std::sync::Arc;
use std::time::Duration;

use lighter_protocol::PeerId;
use rand::RngExt;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::state::{Entry, Live, Shared, Stage};
use super::{OpenError, ServerRecord};
use crate::ids::{Epoch, SegmentId, UnitId};
use crate::limits::{ANSWER_TIME_MAX, PAGE_MAX, SEGMENT_HEADER_LEN};
use crate::link::{Greeting, Link, LinkError};
use crate::segment::header::{Member, SegmentHeader};
use crate::wire::{Refusal, Request, Response};

/// Connected, not yet fenced.
struct Reached {
    index: usize,
    live: Live,
    greeting: Greeting,
}

impl Reached {
    /// Whether it may have what this writer wrote. One with a unit that has never heard of it (a new one, or one whose
    /// disk was replaced) tells nothing of what there is; nor does one that has lost some of it, and has it not yet again.
    fn knows_writer(&self) -> bool {
        let units = &self.greeting.units;
        !units.is_empty() && units.iter().all(|unit| unit.epoch > Epoch(0) && unit.incomplete == 0)
    }
}

impl Shared {
    /// Takes the array over from whoever had it: fences at least a quorum, and learns what is there. Only servers that
    /// know this writer count for the quorum, unless all servers there are were reached: that is how an array begins.
    pub(super) async fn take_over(self: &Arc<Self>) -> Result<(), OpenError> {
        let needed = self.config.quorum();
        let reached = self.reach_all(needed).await;
        let highest = reached.iter().map(|reached| reached.greeting.epoch).max().unwrap_or_default();
        self.state().set_epoch(Epoch(highest.0 + 1));
        let (mut fenced, mut known) = (0, 0);
        for reached in reached {
            let knows = usize::from(reached.knows_writer());
            let server = self.config.servers[reached.index].peer;
            match self.join(reached).await {
                Ok(()) => {
                    fenced += 1;
                    known += knows;
                }
                Err(error) => {
                    tracing::warn!(%server, %error, "a storage server was reached, but not taken in");
                }
            }
        }
        if known < needed && fenced < self.config.servers.len() {
            return Err(OpenError::TooFewServers { reached: known, needed });
        }
        Ok(())
    }

    /// A wrong array key would make the array look empty, and then be written beside what is there.
    pub(super) fn check_key(&self) -> Result<(), OpenError> {
        let now = (self.clock)();
        let state = self.state();
        let kept = |entry: &&Entry| entry.header.day_key.is_some() && entry.header.deletion_day.end() > now;
        let mut keys = state.segments.values().filter(kept).map(|entry| entry.day_key.is_some()).peekable();
        let is_empty = keys.peek().is_none();
        if is_empty || keys.any(|opens| opens) { Ok(()) } else { Err(OpenError::WrongKey) }
    }

    /// Connects to all servers at once; those that do not answer are waited for only as long as configured.
    async fn reach_all(self: &Arc<Self>, needed: usize) -> Vec<Reached> {
        let mut tries = JoinSet::new();
        for index in 0..self.config.servers.len() {
            let shared = Arc::clone(self);
            tries.spawn(async move { shared.reach(index).await });
        }
        let mut reached = Vec::new();
        let deadline = tokio::time::Instant::now() + self.config.join_time_max;
        while let Some(tried) = tries.join_next().await {
            if let Ok(Ok(one)) = tried {
                reached.push(one);
            }
            if reached.len() >= needed && !tries.is_empty() {
                let rest = async {
                    while let Some(tried) = tries.join_next().await {
                        if let Ok(Ok(one)) = tried {
                            reached.push(one);
                        }
                    }
                };
                let _ = tokio::time::timeout_at(deadline, rest).await;
                break;
            }
        }
        reached.sort_by_key(|reached| reached.index);
        reached
    }

    async fn reach(&self, index: usize) -> Result<Reached, LinkError> {
        let record = &self.config.servers[index];
        let now = (self.clock)();
        let (writes, greeting) = Link::connect(&*self.dial, record, now).await?;
        let (reads, _) = Link::connect(&*self.dial, record, now).await?;
        if greeting.now.0.abs_diff(now.0) > crate::limits::CLOCK_DOUBT.as_secs() {
            tracing::warn!(server = %record.peer, "clocks differ by over an hour: nothing expires there");
        }
        let live = Live { writes: Arc::new(writes), reads: Arc::new(reads), units: greeting.units.clone() };
        Ok(Reached { index, live, greeting })
    }

    /// Fences a server and takes in what it has; from then on it is live.
    async fn join(&self, reached: Reached) -> Result<(), LinkError> {
        let Reached { index, live, greeting } = reached;
        let server = self.config.servers[index].peer;
        self.settle_epoch(index, greeting.epoch).await?;
        let epoch = self.state().epoch;
        self.fence(&live.writes, epoch).await?;
        self.state().servers[index].was_fenced = true;
        let mut found = Vec::new();
        for info in &live.units {
            list(&live.writes, info.unit, &mut found).await?;
        }
        let mut state = self.state();
        for entry in state.segments.values_mut() {
            for (member, copy) in entry.header.members.iter().zip(&mut entry.copies) {
                if member.peer == server && entry.stage != Stage::Active {
                    *copy = None;
                }
            }
            entry.moved.retain(|holder, _| holder.peer != server);
        }
        for (unit, header, info) in found {
            if header.writer == self.peer {
                state.see_copy(Member { peer: server, unit }, header, info, &self.key);
            }
        }
        state.servers[index].live = Some(live);
        drop(state);
        self.changed.notify_one();
        self.joined.notify_waiters();
        tracing::info!(%server, "storage server taken in");
        Ok(())
    }

    /// Our epoch must be above what a server that was away has seen of an earlier instance. One that we fenced and
    /// that has a higher one now was fenced by a successor.
    async fn settle_epoch(&self, index: usize, theirs: Epoch) -> Result<(), LinkError> {
        let (ours, was_fenced) = {
            let state = self.state();
            (state.epoch, state.servers[index].was_fenced)
        };
        if theirs < ours || (was_fenced && theirs == ours) {
            return Ok(());
        }
        if was_fenced {
            self.set_fenced();
            return Err(LinkError::Refused(Refusal::Fenced { present: theirs }));
        }
        let epoch = Epoch(theirs.0 + 1);
        let others: Vec<Live> = {
            let mut state = self.state();
            state.set_epoch(epoch);
            state.servers.iter().filter_map(|server| server.live.clone()).collect()
        };
        for live in others {
            if self.fence(&live.writes, epoch).await.is_err() {
                live.close(); // its keeper takes it in again
            }
        }
        Ok(())
    }

    async fn fence(&self, link: &Link, epoch: Epoch) -> Result<(), LinkError> {
        link.done(&Request::Fence { epoch }, Vec::new(), ANSWER_TIME_MAX).await.map(|_| ())
    }

    /// Keeps one server: notices that it has gone, and tries until it is there again.
    pub(super) async fn keep(self: Arc<Self>, index: usize) {
        let mut failures = 0;
        while !self.is_fenced() {
            let live = self.state().servers[index].live.clone();
            if let Some(live) = live {
                failures = 0;
                live.ended().await;
                self.lose(index);
            }
            match timeout(ANSWER_TIME_MAX, self.take_in(index)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => {
                    sleep(self.pause(failures)).await;
                    failures += 1;
                }
            }
        }
    }

    async fn take_in(&self, index: usize) -> Result<(), LinkError> {
        let reached = self.reach(index).await?;
        self.join(reached).await
    }

    fn lose(&self, index: usize) {
        let mut state = self.state();
        if let Some(live) = state.servers[index].live.take() {
            live.close();
        }
        drop(state);
        tracing::warn!(server = %self.config.servers[index].peer, "storage server away");
    }

    /// Doubling from 50 ms, with jitter, up to what is configured.
    fn pause(&self, failures: u32) -> Duration {
        let doubled = Duration::from_millis(50).saturating_mul(1 << failures.min(16));
        let longest = doubled.min(self.config.reconnect_delay_max);
        longest.mul_f64(self.chance().random_range(0.5..=1.0))
    }

    /// Where `peer` listens.
    pub(super) fn record_of(&self, peer: &PeerId) -> Option<&ServerRecord> {
        self.config.servers.iter().find(|record| record.peer == *peer)
    }
}

impl Live {
    /// Returns when one of the two connections has ended; the other is of no use then.
    async fn ended(&self) {
        tokio::select! {
            biased;
            () = self.writes.ended() => {}
            () = self.reads.ended() => {}
        }
    }
}

type Found = Vec<(SegmentHeader, crate::wire::SegmentInfo)>;

/// Everything of ours that a unit has.
async fn list(
    link: &Link,
    unit: UnitId,
    found: &mut Vec<(UnitId, SegmentHeader, crate::wire::SegmentInfo)>,
) -> Result<(), LinkError> {
    let mut after: Option<SegmentId> = None;
    loop {
        let page = list_page(link, &Request::List { unit, after }).await?;
        let is_last = page.len() < PAGE_MAX;
        let next = page.last().map(|(header, _)| header.segment);
        // A list that does not go forward would never end.
        if next.is_some() && next <= after {
            return Err(LinkError::Wrong);
        }
        after = next;
        found.extend(page.into_iter().map(|(header, info)| (unit, header, info)));
        if is_last {
            return Ok(());
        }
    }
}

/// Asks a list or a stat, and reads its answer.
pub(super) async fn list_page(link: &Link, request: &Request) -> Result<Found, LinkError> {
    let (response, data) = link.call(request, Vec::new(), ANSWER_TIME_MAX).await?;
    let Response::Segments(infos) = response else { return Err(LinkError::Wrong) };
    let blocks = data.chunks_exact(SEGMENT_HEADER_LEN);
    if blocks.len() != infos.len() || !blocks.remainder().is_empty() {
        return Err(LinkError::Wrong);
    }
    let decoded = blocks.zip(infos).map(|(block, info)| {
        SegmentHeader::decode(block).map(|header| (header, info)).map_err(|_| LinkError::Wrong)
    });
    decoded.collect()
}
