//! Reaching servers: each is connected, fenced and listed before it counts as live; one that goes is taken in again.

use std::sync::Arc;
use std::time::Duration;

use lighter_protocol::PeerId;
use rand::RngExt;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::entry::{Entry, Stage};
use super::state::{Live, Shared};
use super::{OpenError, ServerRecord};
use crate::ids::{Epoch, SegmentId, UnitId};
use crate::limits::{ANSWER_TIME_MAX, LIVE_TIME_STEADY, PAGE_MAX, SEGMENT_HEADER_LEN};
use crate::link::{Greeting, Link, LinkError};
use crate::segment::header::{Member, SegmentHeader};
use crate::table::Table;
use crate::wire::{Refusal, Request, Response, SegmentInfo};

/// Connected, not yet fenced.
pub(super) struct Reached {
    pub(super) peer: PeerId,
    pub(super) live: Live,
    greeting: Greeting,
}

impl Reached {
    /// Whether it may have what this writer wrote. One with a unit that has never heard of it (a new one, or one whose
    /// disk was replaced) tells nothing of what there is; nor does one that has lost some of it, and has it not yet again.
    fn knows_writer(&self) -> bool {
        let units = &self.greeting.units;
        !units.is_empty() && units.iter().all(|unit| unit.epoch > Epoch(0) && unit.incomplete == 0)
    }

    /// The epoch that counts there.
    pub(super) fn epoch(&self) -> Epoch {
        self.greeting.epoch
    }
}

impl Shared {
    /// Takes the array over from whoever had it: finds the table, fences at least a quorum of its servers, and learns
    /// what is there. Only servers that know this writer count for the quorum, unless all servers there are were
    /// reached: that is how an array begins.
    pub(super) async fn take_over(self: &Arc<Self>) -> Result<(), OpenError> {
        let (table, reached) = self.find_table().await?;
        let (needed, all) = (table.quorum(), table.servers.len());
        let highest = reached.iter().map(|reached| reached.greeting.epoch).max().unwrap_or_default();
        // Those that know nothing are left as they are until it is known that they may be: once fenced, they would pass
        // for servers that do.
        let (knowing, blank): (Vec<_>, Vec<_>) = reached.into_iter().partition(Reached::knows_writer);
        let too_few = |known: usize| known < needed && known + blank.len() < all;
        if too_few(knowing.len()) {
            return Err(OpenError::TooFewServers { reached: knowing.len(), needed });
        }
        {
            let mut state = self.state();
            state.put_in_force(table);
            state.set_epoch(Epoch(highest.0 + 1));
        }
        let known = self.join_each(knowing).await;
        if too_few(known) {
            return Err(OpenError::TooFewServers { reached: known, needed });
        }
        let fenced = known + self.join_each(blank).await;
        if known < needed && fenced < all {
            return Err(OpenError::TooFewServers { reached: known, needed });
        }
        self.keep_table().await;
        Ok(())
    }

    /// Takes servers in that were reached; how many were.
    async fn join_each(&self, reached: Vec<Reached>) -> usize {
        let mut joined = 0;
        for reached in reached {
            let server = reached.peer;
            match self.join(reached).await {
                Ok(()) => joined += 1,
                Err(error) => {
                    tracing::warn!(%server, %error, "a storage server was reached, but not taken in");
                }
            }
        }
        joined
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

    /// Connects to all of `servers` at once; those that do not answer are waited for only as long as configured, once
    /// `needed` have.
    pub(super) async fn reach_all(
        self: &Arc<Self>,
        servers: Vec<ServerRecord>,
        needed: usize,
    ) -> Vec<Reached> {
        let mut tries = JoinSet::new();
        for record in servers {
            let shared = Arc::clone(self);
            tries.spawn(async move { shared.reach(&record).await });
        }
        let mut reached = Vec::new();
        let deadline = Instant::now() + self.config.join_time_max;
        while let Some(tried) = tries.join_next().await {
            if let Ok(Ok(one)) = tried {
                reached.push(one);
            }
            // One that knows nothing counts only where all are there: the others are waited for.
            let knowing = reached.iter().filter(|one: &&Reached| one.knows_writer()).count();
            if knowing >= needed && !tries.is_empty() {
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
        reached
    }

    pub(super) async fn reach(&self, record: &ServerRecord) -> Result<Reached, LinkError> {
        let now = (self.clock)();
        let (writes, greeting) = Link::connect(&*self.dial, record, now).await?;
        let (reads, _) = Link::connect(&*self.dial, record, now).await?;
        if greeting.now.0.abs_diff(now.0) > crate::limits::CLOCK_DOUBT.as_secs() {
            tracing::warn!(server = %record.peer, "clocks differ by over an hour: nothing expires there");
        }
        let live = Live { writes: Arc::new(writes), reads: Arc::new(reads), units: greeting.units.clone() };
        Ok(Reached { peer: record.peer, live, greeting })
    }

    /// Fences a server of the table, gives it the table, and takes in what it has; from then on it is live.
    pub(super) async fn join(&self, reached: Reached) -> Result<(), LinkError> {
        let Reached { peer: server, live, greeting } = reached;
        self.settle_epoch(&server, greeting.epoch).await?;
        let epoch = self.state().epoch;
        self.fence(&live.writes, epoch).await?;
        if let Some(server) = self.state().server_mut(&server) {
            server.was_fenced = true;
        }
        let mut found = Vec::new();
        for info in &live.units {
            list(&live.writes, info.unit, &mut found).await?;
        }
        // Nothing is written to a server that does not have the table in force, also where that changes just now.
        loop {
            let table = Arc::clone(&self.state().table);
            self.put_table(&live.writes, &table).await?;
            if self.make_live(&server, &live, &mut found, &table)? {
                break;
            }
        }
        self.changed.notify_one();
        self.joined.notify_waiters();
        self.rewrap_due.notify_one();
        tracing::info!(%server, "storage server taken in");
        Ok(())
    }

    /// Makes a server live that has `table` and said what it has, if that table is still in force.
    fn make_live(
        &self,
        server: &PeerId,
        live: &Live,
        found: &mut Vec<Listed>,
        table: &Arc<Table>,
    ) -> Result<bool, LinkError> {
        let mut state = self.state();
        if state.table.stamp() != table.stamp() {
            return Ok(false);
        }
        // Taken out of the table meanwhile.
        state.server(server).ok_or(LinkError::Closed)?;
        for entry in state.segments.values_mut() {
            for (member, copy) in entry.header.members.iter().zip(&mut entry.copies) {
                if member.peer == *server && entry.stage != Stage::Active {
                    *copy = None;
                }
            }
            entry.moved.retain(|holder, _| holder.peer != *server);
        }
        let keys = self.keys().clone();
        for (unit, header, info) in found.drain(..) {
            if header.writer == self.peer {
                let (segment, wrapped) = (header.segment, header.day_key);
                state.see_copy(Member { peer: *server, unit }, header, info, &keys);
                state.see_key(*server, segment, wrapped, &keys);
            }
        }
        if let Some(server) = state.server_mut(server) {
            server.live = Some(live.clone());
        }
        Ok(true)
    }

    /// Our epoch must be above what a server that was away has seen of an earlier instance. One that we fenced and
    /// that has a higher one now was fenced by a successor.
    pub(super) async fn settle_epoch(&self, peer: &PeerId, theirs: Epoch) -> Result<(), LinkError> {
        let (ours, was_fenced) = {
            let state = self.state();
            let was_fenced = state.server(peer).is_some_and(|server| server.was_fenced);
            (state.epoch, was_fenced || state.fenced_besides.contains(peer))
        };
        if theirs < ours || (was_fenced && theirs == ours) {
            return Ok(());
        }
        if was_fenced {
            self.set_fenced();
            return Err(LinkError::Refused(Refusal::Fenced { present: theirs }));
        }
        let epoch = Epoch(theirs.0 + 1);
        let (others, table): (Vec<Live>, _) = {
            let mut state = self.state();
            state.set_epoch(epoch);
            let others = state.servers.iter().filter_map(|server| server.live.clone()).collect();
            (others, Arc::clone(&state.table))
        };
        for live in others {
            let fenced = self.fence(&live.writes, epoch).await;
            if fenced.is_err() || self.put_table(&live.writes, &table).await.is_err() {
                live.close(); // its keeper takes it in again
            }
        }
        Ok(())
    }

    pub(super) async fn fence(&self, link: &Link, epoch: Epoch) -> Result<(), LinkError> {
        link.done(&Request::Fence { epoch }, Vec::new(), ANSWER_TIME_MAX).await.map(|_| ())
    }

    /// Keeps one server of the table: notices that it has gone, and tries until it is there again.
    pub(super) async fn keep(self: Arc<Self>, peer: PeerId) {
        let mut failures = 0;
        while !self.is_fenced() {
            let Some(live) = self.state().server(&peer).map(|server| server.live.clone()) else { return };
            let has_failed = match live {
                Some(live) => {
                    let since = Instant::now();
                    live.ended().await;
                    self.lose(&peer);
                    // One that goes again at once must not be taken in without end.
                    let is_steady = since.elapsed() >= LIVE_TIME_STEADY;
                    if is_steady {
                        failures = 0;
                    }
                    !is_steady
                }
                None => !matches!(timeout(ANSWER_TIME_MAX, self.take_in(&peer)).await, Ok(Ok(()))),
            };
            if has_failed {
                sleep(self.pause(failures)).await;
                failures += 1;
            }
        }
    }

    async fn take_in(&self, peer: &PeerId) -> Result<(), LinkError> {
        let record = self.record_of(peer).ok_or(LinkError::Closed)?;
        let reached = self.reach(&record).await?;
        self.join(reached).await
    }

    fn lose(&self, peer: &PeerId) {
        let mut state = self.state();
        let Some(server) = state.server_mut(peer) else { return };
        server.last_seen = Instant::now();
        if let Some(live) = server.live.take() {
            live.close();
        }
        drop(state);
        tracing::warn!(server = %peer, "storage server away");
    }

    /// Doubling from 50 ms, with jitter, up to what is configured.
    fn pause(&self, failures: u32) -> Duration {
        let doubled = Duration::from_millis(50).saturating_mul(1 << failures.min(16));
        let longest = doubled.min(self.config.reconnect_delay_max);
        longest.mul_f64(self.chance().random_range(0.5..=1.0))
    }

    /// Where `peer` listens.
    pub(super) fn record_of(&self, peer: &PeerId) -> Option<ServerRecord> {
        self.state().server(peer).map(|server| server.record.clone())
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

type Found = Vec<(SegmentHeader, SegmentInfo)>;
/// What a unit said of a segment of ours.
type Listed = (UnitId, SegmentHeader, SegmentInfo);

/// Everything of ours that a unit has.
pub(super) async fn list(link: &Link, unit: UnitId, found: &mut Vec<Listed>) -> Result<(), LinkError> {
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
