//! The table in the writer's hands: found when the array opens, changed while it runs (SPEC B11, B14, C7).
//!
//! # Opening
//! The servers that the configuration names are asked for the table, then those that the tables so found name, until
//! there is no other to ask; the writer's own file counts, too. The latest of all is taken. At least a quorum of its
//! servers must be fenced, or nothing opens; and a change is on so many servers that such a quorum has seen it
//! (`crate::table`). Before a server is live, it has the table in force under our epoch.
//!
//! # Changing
//! A server that comes in is reached first, so that one that cannot be is an error and nothing else. Then those that are
//! here get the new table, and only when enough of them have it, those that come in are fenced and get it, too: before,
//! they know nothing of this writer, and so count for no opening. It is in force once enough of the old servers and
//! enough of the new ones have it. Servers given up as lost are in neither count. A change that did not reach enough
//! servers is not in force, and what it left on some is overwritten: the table that stays in force gets a later version
//! than the one that failed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lighter_protocol::{PeerId, UnixTime};
use tokio::time::{sleep, timeout};

use super::entry::{Entry, Stage};
use super::join::Reached;
use super::state::{Live, Shared, State};
use super::{OpenError, ServerRecord, TableChangeError};
use crate::limits::ANSWER_TIME_MAX;
use crate::link::{Link, LinkError};
use crate::table::{Change, ChangeError, Facts, ServerEntry, Table};
use crate::unit::worker::off_reactor;
use crate::wire::{CopyState, Request};

/// A change that is in force.
pub(super) struct Changed {
    pub(super) table: Arc<Table>,
    /// Servers that have come in: to be kept.
    pub(super) new: Vec<PeerId>,
}

impl Shared {
    /// The table to open with, and the servers that were reached of it.
    pub(super) async fn find_table(self: &Arc<Self>) -> Result<(Table, Vec<Reached>), OpenError> {
        let seeds = &self.config.servers;
        let mut latest = self.own_table().await;
        let mut reached: BTreeMap<PeerId, Reached> = BTreeMap::new();
        let mut asked = BTreeSet::new();
        loop {
            // What the configuration says of where a server is counts.
            let known = latest.iter().flat_map(|table| &table.servers);
            let to_ask: Vec<ServerRecord> = seeds
                .iter()
                .chain(known)
                .filter(|entry| asked.insert(entry.peer))
                .map(ServerEntry::record)
                .collect();
            if to_ask.is_empty() {
                break;
            }
            let quorum = latest.as_ref().map_or_else(|| self.config.first_table().quorum(), Table::quorum);
            for one in self.reach_all(to_ask, quorum.saturating_sub(reached.len())).await {
                match self.table_of(&one.live.writes).await {
                    Ok(Some(table))
                        if latest.as_ref().is_none_or(|latest| latest.stamp() < table.stamp()) =>
                    {
                        latest = Some(table);
                    }
                    Ok(_) => {}
                    Err(error) => {
                        tracing::warn!(server = %one.peer, %error, "a storage server does not tell its table");
                        continue;
                    }
                }
                reached.insert(one.peer, one);
            }
        }
        let table = match latest {
            None => self.config.first_table(),
            Some(table) => {
                for seed in seeds.iter().filter(|seed| table.server(&seed.peer).is_none()) {
                    let server = seed.peer;
                    tracing::warn!(%server, "is in the configuration, and no server of the array: `array add` it");
                }
                let copies = u8::try_from(self.config.copies).unwrap_or(u8::MAX);
                table.with_seeds(seeds, &self.config.allowed_together, copies).unwrap_or(table)
            }
        };
        table.check()?;
        let reached = table.servers.iter().filter_map(|entry| reached.remove(&entry.peer)).collect();
        Ok((table, reached))
    }

    /// The one in the writer's own file; a damaged one is none, the servers have the same.
    async fn own_table(&self) -> Option<Table> {
        let path = self.config.table_file.clone()?;
        let loaded = off_reactor(move || Table::load(&path)).await.ok()?;
        loaded
            .inspect_err(|error| tracing::error!(%error, "the table in the data folder cannot be read"))
            .ok()?
    }

    /// Keeps the table in force in the writer's own file. Where that fails, the servers have it all the same.
    pub(super) async fn keep_table(&self) {
        let Some(path) = self.config.table_file.clone() else { return };
        let table = Arc::clone(&self.state().table);
        match off_reactor(move || table.store(&path)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the table cannot be kept in the data folder"),
            Err(error) => tracing::error!(%error, "the table cannot be kept in the data folder"),
        }
    }

    async fn table_of(&self, link: &Link) -> Result<Option<Table>, LinkError> {
        let data = link.done(&Request::GetTable, Vec::new(), ANSWER_TIME_MAX).await?;
        if data.is_empty() { Ok(None) } else { Table::decode(&data).map(Some).map_err(|_| LinkError::Wrong) }
    }

    pub(super) async fn put_table(&self, link: &Link, table: &Table) -> Result<(), LinkError> {
        let put = Request::PutTable { epoch: table.epoch };
        link.done(&put, vec![Bytes::from(table.encode())], ANSWER_TIME_MAX).await.map(|_| ())
    }

    /// Changes the table. See the module's doc.
    pub(super) async fn change_table(&self, change: &Change) -> Result<Changed, TableChangeError> {
        let _one_at_a_time = self.changing.lock().await;
        if self.is_fenced() {
            return Err(TableChangeError::Fenced);
        }
        let (old, next) = {
            let state = self.state();
            let next = state.table.change(change, &state.facts((self.clock)()))?;
            (Arc::clone(&state.table), next)
        };
        let mut links = Vec::new();
        for entry in next.servers.iter().filter(|entry| old.server(&entry.peer).is_none()) {
            let reached = timeout(ANSWER_TIME_MAX, self.reach_new(entry)).await;
            let reached = reached.unwrap_or(Err(LinkError::TimedOut)).map_err(|reason| {
                TableChangeError::Unreachable { peer: entry.peer, address: entry.address, reason }
            })?;
            links.push(reached);
        }
        let new = links.iter().map(|reached| reached.peer).collect();
        let (table, had) = self.put_and_enforce(&old, next, &links).await?;
        self.keep_table().await;
        for reached in links {
            let server = reached.peer;
            if let Err(error) = self.join(reached).await {
                tracing::warn!(%server, %error, "a new storage server went away again: it is tried on");
            }
        }
        self.close_those_without(&had);
        tracing::info!(version = table.version, ?change, "the table of servers has changed");
        self.table_changed.send_replace(table.stamp());
        self.changed.notify_one();
        self.joined.notify_waiters();
        Ok(Changed { table, new })
    }

    /// Brings `next` to enough servers and puts it in force; which servers have it.
    async fn put_and_enforce(
        &self,
        old: &Table,
        mut next: Table,
        new: &[Reached],
    ) -> Result<(Arc<Table>, BTreeSet<PeerId>), TableChangeError> {
        loop {
            next.epoch = self.state().epoch;
            let mut had = self.put_on_live(&next).await;
            let (had_old, of_old) = count(old, &next, &had);
            if had_old >= of_old {
                had.extend(self.put_on_new(&next, new).await);
            }
            let (had_new, of_new) = count(&next, &next, &had);
            if had_old < of_old || had_new < of_new {
                self.take_back(&next).await;
                let (had, needed) = if had_old < of_old { (had_old, of_old) } else { (had_new, of_new) };
                return Err(TableChangeError::TooFewServers { had, needed });
            }
            let mut state = self.state();
            // A server that came back may have made the epoch a later one, under which all have the old table again.
            if state.epoch == next.epoch {
                state.put_in_force(next);
                for server in &mut state.servers {
                    server.was_fenced |= new.iter().any(|reached| reached.peer == server.record.peer);
                }
                return Ok((Arc::clone(&state.table), had));
            }
        }
    }

    /// Connects to a server that is to come in. Nothing changes there yet.
    async fn reach_new(&self, entry: &ServerEntry) -> Result<Reached, LinkError> {
        let reached = self.reach(&entry.record()).await?;
        self.settle_epoch(&entry.peer, reached.epoch()).await?;
        Ok(reached)
    }

    /// Gives `table` to all live servers; which of them have it.
    async fn put_on_live(&self, table: &Table) -> BTreeSet<PeerId> {
        let live: Vec<_> = {
            let state = self.state();
            let live =
                state.servers.iter().filter_map(|server| Some((server.record.peer, server.live.clone()?)));
            live.collect()
        };
        let puts =
            live.into_iter().map(async |(peer, live)| took(peer, self.put_table(&live.writes, table).await));
        futures_util::future::join_all(puts).await.into_iter().flatten().collect()
    }

    /// Fences servers that come in, and gives them `table`; which of them have it.
    async fn put_on_new(&self, table: &Table, new: &[Reached]) -> BTreeSet<PeerId> {
        let puts = new.iter().map(async |reached| {
            let (peer, link) = (reached.peer, &reached.live.writes);
            // Whether it took it or not: a later instance is another one.
            self.state().fenced_besides.insert(peer);
            let put = async {
                self.fence(link, table.epoch).await?;
                self.put_table(link, table).await
            };
            took(peer, put.await)
        });
        futures_util::future::join_all(puts).await.into_iter().flatten().collect()
    }

    /// `failed` is on some servers, and is not to be: what is in force gets a later version.
    async fn take_back(&self, failed: &Table) {
        let table = {
            let mut state = self.state();
            let table = Arc::make_mut(&mut state.table);
            table.version = failed.version + 1;
            table.clone()
        };
        self.keep_table().await;
        let had = self.put_on_live(&table).await;
        self.close_those_without(&had);
    }

    /// A live server that did not take the table in force is taken in anew, and gets it then.
    fn close_those_without(&self, had: &BTreeSet<PeerId>) {
        let state = self.state();
        let without = state.servers.iter().filter(|server| !had.contains(&server.record.peer));
        without.filter_map(|server| server.live.as_ref()).for_each(Live::close);
    }

    /// Says in the table that nothing is lacking any more, once all that was lost with a server was made again.
    pub(super) async fn restore_always(self: Arc<Self>) {
        loop {
            sleep(RESTORED_INTERVAL).await;
            if !self.state().is_restored((self.clock)()) {
                continue;
            }
            match self.change_table(&Change::Restored).await {
                Ok(_) | Err(TableChangeError::Refused(ChangeError::Unchanged)) => {
                    tracing::info!("every record has its copies again");
                }
                Err(error) => {
                    tracing::warn!(%error, "that every record has its copies again could not be kept");
                }
            }
        }
    }
}

/// The server, if it took the table that it was given.
fn took(peer: PeerId, put: Result<(), LinkError>) -> Option<PeerId> {
    put.inspect_err(|error| tracing::warn!(server = %peer, %error, "did not take the table"))
        .ok()
        .map(|()| peer)
}

/// How many servers of `of` have `next`, and how many must; those that `next` gives up as lost are not counted.
fn count(of: &Table, next: &Table, had: &BTreeSet<PeerId>) -> (usize, usize) {
    let is_lost = |entry: &&ServerEntry| next.gone.iter().any(|gone| gone.peer == entry.peer && gone.is_lost);
    let counted: Vec<_> = of.servers.iter().filter(|entry| !is_lost(entry)).collect();
    let having = counted.iter().filter(|entry| had.contains(&entry.peer)).count();
    (having, of.change_quorum().min(counted.len()))
}

impl State {
    /// What deciding a change needs to know.
    pub(super) fn facts(&self, now: UnixTime) -> Facts {
        let mut needed = BTreeMap::new();
        for entry in self.kept(now) {
            let good = self.good_copies(entry);
            for holder in entry.holders().map(|member| member.peer).collect::<BTreeSet<_>>() {
                let others = good.iter().filter(|peer| **peer != holder).count();
                if others < usize::from(self.table.copies) {
                    *needed.entry(holder).or_default() += 1;
                }
            }
        }
        Facts { needed }
    }

    /// Segments that have fewer good copies than promised.
    pub(super) fn under_replicated(&self, now: UnixTime) -> usize {
        self.kept(now).filter(|entry| self.good_copies(entry).len() < usize::from(self.table.copies)).count()
    }

    /// Whether the table says that copies are lacking, and none are: every segment of which there is a copy has all.
    fn is_restored(&self, now: UnixTime) -> bool {
        let is_whole = |entry: &Entry| {
            let good = self.good_copies(entry).len();
            let is_gone = entry.holders().all(|member| self.server(&member.peer).is_none());
            good >= usize::from(self.table.copies) || is_gone
        };
        self.table.lacking > 0
            && self.live_peers().len() == self.servers.len()
            && self.kept(now).all(is_whole)
    }

    /// Segments whose day is not over, and that have something.
    fn kept(&self, now: UnixTime) -> impl Iterator<Item = &Entry> {
        let is_kept = move |entry: &&Entry| entry.header.deletion_day.end() > now && !entry.is_empty();
        self.segments.values().filter(is_kept)
    }

    /// Servers of the table that have a good copy, as far as known; one that is away may be one of them.
    fn good_copies(&self, entry: &Entry) -> BTreeSet<PeerId> {
        let is_good = |info: &crate::wire::SegmentInfo| {
            info.length >= entry.length && info.damaged == 0 && info.state != CopyState::Failed
        };
        let members = entry.header.members.iter().zip(&entry.copies);
        let members =
            members.filter(|(_, info)| entry.stage == Stage::Active || info.as_ref().is_some_and(is_good));
        let moved = entry.moved.iter().filter(|(_, info)| is_good(info)).map(|(member, _)| member);
        let all = members.map(|(member, _)| member).chain(moved).map(|member| member.peer);
        all.filter(|peer| self.server(peer).is_some()).collect()
    }
}

/// How often is looked whether lacking copies were made again.
const RESTORED_INTERVAL: Duration = Duration::from_secs(2);
