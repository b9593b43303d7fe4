//! What is lacking and what is too much, from what the array knows.

use lighter_protocol::PeerId;
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::time::Instant;

use crate::array::ArrayConfig;
use crate::array::entry::{Entry, Stage};
use crate::array::state::{Shared, State};
use crate::ids::SegmentId;
use crate::limits::UNIT_FREE_MIN;
use crate::placing::fits;
use crate::segment::footer::Summary;
use crate::segment::header::Member;
use crate::table::{Place, ServerEntry};
use crate::wire::CopyState;

/// A copy to be made.
#[derive(Clone, Debug)]
pub(super) struct Need {
    pub(super) segment: SegmentId,
    /// What a sound copy says of itself.
    pub(super) summary: Summary,
    /// Sound copies on servers that are there: one of them is read.
    pub(super) sources: Vec<Member>,
    /// The unit that is to have it.
    pub(super) target: Member,
    /// It has one already that is not sound.
    pub(super) replaces: bool,
}

/// How a unit's copy of a sealed segment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Sound, and its server is there.
    Here,
    /// Sound when its server was last there, a short while ago.
    Away,
    /// Sound, on a server that drains: to be read, not to be counted.
    Draining,
    /// There, and not sound.
    Bad,
    /// No copy, or none that is to be counted on.
    Gone,
}

impl State {
    fn standing(
        &self,
        entry: &Entry,
        holder: &Member,
        summary: &Summary,
        config: &ArrayConfig,
        now: Instant,
    ) -> Standing {
        let Some(server) = self.server(&holder.peer) else { return Standing::Gone };
        let is_sound = entry.copy(holder).map(|info| {
            matches!(info.state, CopyState::Sealed(theirs) if theirs.is_same_log(summary))
                && info.damaged == 0
        });
        let Some(live) = server.live.as_ref().filter(|live| !live.is_closed()) else {
            let is_short = now.duration_since(server.last_seen) < config.rebuild_after;
            return if is_short && !self.is_draining(&holder.peer) && is_sound != Some(false) {
                Standing::Away
            } else {
                Standing::Gone
            };
        };
        if live.units.iter().all(|info| info.unit != holder.unit) {
            return Standing::Gone;
        }
        match is_sound {
            Some(true) if self.is_draining(&holder.peer) => Standing::Draining,
            Some(true) => Standing::Here,
            Some(false) => Standing::Bad,
            None => Standing::Gone,
        }
    }

    /// The sealed segments that nothing more is written to or cut from, and what a sound copy says of itself.
    fn sealed(&self) -> impl Iterator<Item = (SegmentId, &Entry, Summary)> {
        let entries = self.segments.iter().filter(|(_, entry)| match entry.stage {
            Stage::Settled => true,
            Stage::Closing => entry.is_decided,
            Stage::Found | Stage::Active => false,
        });
        entries.filter_map(|(segment, entry)| {
            let summary = entry.sound_summary()?;
            Some((*segment, entry, summary))
        })
    }

    fn needs_of(
        &self,
        segment: SegmentId,
        entry: &Entry,
        summary: Summary,
        config: &ArrayConfig,
        now: Instant,
        chance: &mut StdRng,
    ) -> Vec<Need> {
        let holders: Vec<(Member, Standing)> = entry
            .holders()
            .map(|holder| (holder, self.standing(entry, &holder, &summary, config, now)))
            .collect();
        let said = |holder: &Member| match entry.copy(holder)?.state {
            CopyState::Sealed(summary) => Some(summary),
            _ => None,
        };
        let sources: Vec<(Member, Summary)> = holders
            .iter()
            .filter(|(_, standing)| matches!(standing, Standing::Here | Standing::Draining))
            .filter_map(|(holder, _)| Some((*holder, said(holder)?)))
            .collect();
        // One that was thinned otherwise is another file: what is copied must be what it is checked against.
        let Some((_, summary)) = sources.first().copied() else { return Vec::new() };
        let sources: Vec<Member> =
            sources.into_iter().filter(|(_, said)| *said == summary).map(|(holder, _)| holder).collect();
        let counted = holders
            .iter()
            .filter(|(_, standing)| matches!(standing, Standing::Here | Standing::Away))
            .count();
        let lacking = usize::from(self.table.copies).saturating_sub(counted);
        if lacking == 0 {
            return Vec::new();
        }
        // Units that had one, or should have, come first; then servers that have none.
        let mut targets: Vec<(Member, bool)> = Vec::new();
        for (holder, standing) in &holders {
            let has_unit = self
                .live(&holder.peer)
                .is_some_and(|live| live.units.iter().any(|info| info.unit == holder.unit));
            let does_well = self.server(&holder.peer).is_some_and(|server| !server.health.is_avoided(now));
            if has_unit
                && does_well
                && !self.is_draining(&holder.peer)
                && matches!(standing, Standing::Bad | Standing::Gone)
            {
                targets.push((*holder, *standing == Standing::Bad));
            }
        }
        let mut beside: Vec<&ServerEntry> = holders
            .iter()
            .filter(|(_, standing)| matches!(standing, Standing::Here | Standing::Away))
            .map(|(holder, _)| holder.peer)
            .chain(targets.iter().map(|(target, _)| target.peer))
            .filter_map(|peer| self.table.server(&peer))
            .collect();
        for member in self.in_order(&entry.header.writer, summary.file_len(), now, chance) {
            let is_taken = holders
                .iter()
                .any(|(holder, standing)| holder.peer == member.peer && *standing != Standing::Gone);
            let Some(server) = self.table.server(&member.peer) else { continue };
            beside.push(server);
            if !is_taken && fits(&beside, &self.table.allowed_together, beside.len()) {
                targets.push((member, false));
            } else {
                beside.pop();
            }
        }
        let needs = targets.into_iter().take(lacking).map(|(target, replaces)| Need {
            segment,
            summary,
            sources: sources.clone(),
            target,
            replaces,
        });
        needs.collect()
    }

    /// A unit of each server that may take a copy of `len` bytes: the one with most room; in the order in which they
    /// are to be tried.
    fn in_order(&self, writer: &PeerId, len: u64, now: Instant, chance: &mut StdRng) -> Vec<Member> {
        let mirrors = self.table.mirrors_of(writer);
        let mut found = Vec::new();
        for server in self.servers.iter().filter(|server| !self.is_draining(&server.record.peer)) {
            let peer = server.record.peer;
            let Some(live) = self.live(&peer) else { continue };
            let units = live.units.iter().filter(|info| {
                let is_named = |place: &Place| place.has(&Member { peer, unit: info.unit });
                info.free >= len + UNIT_FREE_MIN && (mirrors.is_empty() || mirrors.iter().any(is_named))
            });
            if let Some(info) = units.max_by_key(|info| info.free) {
                let member = Member { peer, unit: info.unit };
                found.push((server.health.avoided_for(now), chance.random::<u32>(), member));
            }
        }
        found.sort_unstable();
        found.into_iter().map(|(_, _, member)| member).collect()
    }
}

impl Shared {
    /// Copies to be made now.
    pub(super) fn plan_needs(&self) -> Vec<Need> {
        let now = Instant::now();
        let state = self.state();
        let mut chance = self.chance();
        let sealed = state.sealed().filter(|(_, entry, _)| entry.header.deletion_day.end() > (self.clock)());
        let needs = sealed.flat_map(|(segment, entry, summary)| {
            state.needs_of(segment, entry, summary, &self.config, now, &mut chance)
        });
        needs.take(NEEDS_MAX).collect()
    }

    /// For the status: copies to be made, and their bytes.
    pub(super) fn count_needs(&self) -> (usize, u64) {
        let now = Instant::now();
        let state = self.state();
        let (mut copies, mut bytes) = (0, 0);
        for (_, entry, summary) in state.sealed() {
            let stands = |holder: &Member| {
                let standing = state.standing(entry, holder, &summary, &self.config, now);
                matches!(standing, Standing::Here | Standing::Away)
            };
            let lacking = usize::from(state.table.copies)
                .saturating_sub(entry.holders().filter(|holder| stands(holder)).count());
            copies += lacking;
            bytes += lacking as u64 * summary.file_len();
        }
        (copies, bytes)
    }

    /// Copies that are more than promised, on servers that are there: those on servers that drain and those that are not
    /// sound first, then those of the fullest units. Only where as many as promised stand besides, on servers that are there.
    pub(super) fn plan_surplus(&self) -> Vec<(SegmentId, Member)> {
        let now = Instant::now();
        let state = self.state();
        let mut surplus = Vec::new();
        for (segment, entry, summary) in state.sealed() {
            let standing = |holder: &Member| state.standing(entry, holder, &summary, &self.config, now);
            let of = |wanted: Standing| -> Vec<Member> {
                entry.holders().filter(|holder| standing(holder) == wanted).collect()
            };
            let mut here = of(Standing::Here);
            if here.len() < usize::from(state.table.copies) {
                continue;
            }
            let free = |member: &Member| {
                let live = state.live(&member.peer);
                let unit = live.and_then(|live| live.units.iter().find(|info| info.unit == member.unit));
                unit.map_or(0, |info| info.free)
            };
            here.sort_by_key(|member| std::cmp::Reverse(free(member)));
            let extra = here.split_off(usize::from(state.table.copies));
            let useless = of(Standing::Draining).into_iter().chain(of(Standing::Bad));
            surplus.extend(useless.chain(extra).map(|holder| (segment, holder)));
        }
        surplus.truncate(NEEDS_MAX);
        surplus
    }
}

/// Copies planned at once: the rest is planned when these are made.
const NEEDS_MAX: usize = 256;
