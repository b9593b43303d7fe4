//! Placing: which units take the copies of a new segment (SPEC C5, C6, C7, B11, B15). A value: no I/O, and chance is an
//! argument.
//!
//! Who may be chosen at all: units of servers that are there and do not drain, with room for a segment, and that the
//! mirroring table names for this relay. Who together: never two units of one server, nor two that share a machine, a
//! disk or a network path, unless that was allowed by name.
//!
//! Which of those, best first:
//! 1. all from the first group; all from the next group; and so on; from any groups (C5);
//! 2. with as few as can be of those that are in quarantine, and with one of them only where nothing else is left;
//! 3. in the order of the policy (C6): the first in it, then the next that goes with it, and where that leads nowhere,
//!    back and on. So there is a choice whenever one exists; only where servers share so much, in so tangled a way, that
//!    millions of looks did not find one, it says that there is none.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lighter_protocol::PeerId;
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use crate::ids::UnitId;
use crate::limits::PLACING_LOOKS_MAX;
use crate::segment::header::Member;
use crate::table::{Place, ServerEntry, ServerState, Shared};

/// In which order servers are chosen.
// SPEC: C6
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// At random among those that are there.
    Random,
    /// By queue length, latency and free space: of two drawn at random the lighter one, so that several relays that
    /// know the same figures do not all choose the same server.
    #[default]
    Load,
    /// The one that was not chosen for the longest time.
    RoundRobin,
}

/// A unit that could be chosen, and what is known of it now.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// Its server, as the table has it.
    pub server: &'a ServerEntry,
    /// The unit.
    pub unit: UnitId,
    /// Bytes of its disk.
    pub total: u64,
    /// Bytes free on it.
    pub free: u64,
    /// Requests that its server has not answered yet.
    pub queue: usize,
    /// How long its server takes to answer a write, lately.
    pub latency: Duration,
    /// It failed or was slow a short while ago, and is left alone for so long yet; zero: it does well.
    pub quarantined_for: Duration,
    /// When it was chosen last: [`Turns::last`].
    pub last_chosen: u64,
}

/// Who was chosen when: what round robin goes by.
#[derive(Clone, Debug, Default)]
pub struct Turns {
    last: BTreeMap<Member, u64>,
    count: u64,
}

impl Turns {
    /// A number that grows from choice to choice, and from member to member within one; zero: never chosen.
    pub fn last(&self, member: &Member) -> u64 {
        self.last.get(member).copied().unwrap_or(0)
    }

    /// These were chosen. Units that are no more are forgotten where there are many: nobody asks for them.
    pub fn took(&mut self, members: &[Member]) {
        for member in members {
            self.count += 1;
            self.last.insert(*member, self.count);
        }
        if self.last.len() > TURNS_MAX
            && let Some(earliest) = self.last.iter().min_by_key(|(_, at)| **at).map(|(member, _)| *member)
        {
            self.last.remove(&earliest);
        }
    }
}

/// Units whose turns are remembered.
const TURNS_MAX: usize = 8192;

/// What choosing has to heed.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// In which order.
    pub policy: Policy,
    /// What copies may share.
    pub allowed_together: &'a BTreeSet<Shared>,
    /// Where this relay's copies may be; empty: everywhere.
    pub mirrors: &'a [Place],
    /// Bytes that must be free on a unit.
    pub room_min: u64,
}

/// Why there is no choice: for a log, and for a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlacingError {
    /// Too few servers are there, do not drain, have room, and are named in the mirroring table.
    #[error("{servers} servers can take a new segment, {copies} are needed")]
    TooFew {
        /// Servers that could take one.
        servers: usize,
        /// Copies.
        copies: usize,
    },
    /// There are enough, but no choice of them that may be together.
    #[error(
        "of {servers} servers that can take a new segment, no {copies} may have copies of the same one: they share machines, disks or network paths"
    )]
    Together {
        /// Servers that could take one.
        servers: usize,
        /// Copies.
        copies: usize,
    },
}

/// Chooses the members for a new segment: the first one leads the chain.
///
/// # Errors
/// See [`PlacingError`].
// SPEC: C5, C6, C7, B11, B15
pub fn choose(
    candidates: &[Candidate<'_>],
    rules: &Rules<'_>,
    copies: usize,
    chance: &mut StdRng,
) -> Result<Vec<Member>, PlacingError> {
    let may: Vec<_> = candidates.iter().filter(|candidate| rules.lets(candidate)).collect();
    let servers = may.iter().map(|candidate| candidate.server.peer).collect::<BTreeSet<_>>().len();
    if servers < copies {
        return Err(PlacingError::TooFew { servers, copies });
    }
    let ordered = in_order(may, rules.policy, chance);
    let spots: Vec<_> =
        ordered.iter().map(|candidate| Spot::of(candidate.server, rules.allowed_together)).collect();
    let all: Vec<_> = (0..ordered.len()).collect();
    let good = |index: &&usize| ordered[**index].quarantined_for.is_zero();
    let good: Vec<_> = all.iter().filter(good).copied().collect();
    let groups: BTreeSet<u8> = good.iter().map(|index| ordered[*index].server.group).collect();
    let search = || Search { spots: &spots, looks_left: PLACING_LOOKS_MAX };
    let member = |index: usize| Member { peer: ordered[index].server.peer, unit: ordered[index].unit };
    let members = |found: Vec<usize>| found.into_iter().map(member).collect();
    for group in groups {
        let of_group: Vec<_> =
            good.iter().copied().filter(|index| ordered[*index].server.group == group).collect();
        if let Some(found) = search().find(&of_group, copies) {
            return Ok(members(found));
        }
    }
    if let Some(found) = search().find(&good, copies) {
        return Ok(members(found));
    }
    // As few as can be of those in quarantine: first all choices with one of them, then those with two.
    for quarantined in 1..=copies {
        let is_quarantined = |index: usize| !ordered[index].quarantined_for.is_zero();
        if let Some(found) = search().find_with(&all, copies, quarantined, &is_quarantined) {
            return Ok(members(found));
        }
    }
    Err(PlacingError::Together { servers, copies })
}

/// Whether some `copies` of `servers` may hold copies of the same segment.
pub fn fits(servers: &[&ServerEntry], allowed_together: &BTreeSet<Shared>, copies: usize) -> bool {
    let spots: Vec<_> = servers.iter().map(|server| Spot::of(server, allowed_together)).collect();
    let all: Vec<_> = (0..spots.len()).collect();
    Search { spots: &spots, looks_left: PLACING_LOOKS_MAX }.find(&all, copies).is_some()
}

impl Rules<'_> {
    /// Whether a unit may be chosen, whatever the others.
    fn lets(&self, candidate: &Candidate<'_>) -> bool {
        let Candidate { server, unit, .. } = candidate;
        let member = Member { peer: server.peer, unit: *unit };
        server.state == ServerState::Active
            && candidate.free >= self.room_min
            && (self.mirrors.is_empty() || self.mirrors.iter().any(|place| place.has(&member)))
    }
}

/// The candidates in the policy's order: server by server, so that one with many units is not chosen more often for it.
fn in_order<'a, 'b>(
    candidates: Vec<&'a Candidate<'b>>,
    policy: Policy,
    chance: &mut StdRng,
) -> Vec<&'a Candidate<'b>> {
    let mut by_server: BTreeMap<PeerId, Vec<&Candidate<'b>>> = BTreeMap::new();
    for candidate in candidates {
        by_server.entry(candidate.server.peer).or_default().push(candidate);
    }
    let mut servers: Vec<_> = by_server.into_values().collect();
    match policy {
        Policy::Random => {
            servers.iter_mut().for_each(|units| units.shuffle(chance));
            servers.shuffle(chance);
        }
        Policy::Load => {
            servers.iter_mut().for_each(|units| units.sort_by_key(|unit| cost(unit)));
            servers = lighter_of_two(servers, chance);
        }
        Policy::RoundRobin => {
            servers.iter_mut().for_each(|units| units.sort_by_key(|unit| (unit.last_chosen, unit.unit)));
            servers.sort_by_key(|units| units.iter().map(|unit| unit.last_chosen).max());
        }
    }
    let mut ordered = servers.concat();
    // Among those in quarantine, the one that will soonest be out of it.
    ordered.sort_by_key(|candidate| candidate.quarantined_for);
    ordered
}

/// Draws two servers, takes the lighter one, and goes on with the rest.
fn lighter_of_two<'a, 'b>(
    mut servers: Vec<Vec<&'a Candidate<'b>>>,
    chance: &mut StdRng,
) -> Vec<Vec<&'a Candidate<'b>>> {
    let mut ordered = Vec::with_capacity(servers.len());
    while servers.len() > 1 {
        let first = chance.random_range(0..servers.len());
        let other = (first + chance.random_range(1..servers.len())) % servers.len();
        let lighter =
            [first, other].into_iter().min_by_key(|index| servers[*index].first().map(|unit| cost(unit)));
        ordered.push(servers.swap_remove(lighter.unwrap_or(first)));
    }
    ordered.extend(servers);
    ordered
}

/// What a write to a unit costs: how long it waits there, the dearer the fuller the disk. Latencies within a factor of
/// two count as equal: they differ from day to day, and the disks of the fastest would fill first.
fn cost(candidate: &Candidate<'_>) -> u128 {
    let latency = candidate.latency.max(LATENCY_MIN).as_micros().next_power_of_two();
    let wait = latency * (1 + candidate.queue as u128);
    wait * u128::from(candidate.total.max(candidate.free)) / u128::from(candidate.free.max(1))
}

/// Latencies below this are as good as equal: a sync on a fast disk takes a third of it.
const LATENCY_MIN: Duration = Duration::from_millis(1);

/// What a unit must not share with the others: its server, and the names that are not allowed together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Spot<'a>([Option<&'a str>; 3], PeerId);

impl<'a> Spot<'a> {
    fn of(server: &'a ServerEntry, allowed: &BTreeSet<Shared>) -> Self {
        let host = (!allowed.contains(&Shared::Host(server.host.clone()))).then_some(&server.host);
        let disk = server.disk.as_ref().filter(|name| !allowed.contains(&Shared::Disk((*name).clone())));
        let zone = server.zone.as_ref().filter(|name| !allowed.contains(&Shared::Zone((*name).clone())));
        Self([host, disk, zone].map(|name| name.map(|name| name.as_str())), server.peer)
    }

    fn may_be_with(&self, other: &Self) -> bool {
        let shares = |(ours, theirs): (&Option<&str>, &Option<&str>)| ours.is_some() && ours == theirs;
        self.1 != other.1 && !self.0.iter().zip(&other.0).any(shares)
    }
}

/// The search for spots that may all be together, in the order in which they are given.
struct Search<'a> {
    spots: &'a [Spot<'a>],
    looks_left: usize,
}

impl Search<'_> {
    fn find(&mut self, rest: &[usize], copies: usize) -> Option<Vec<usize>> {
        self.find_with(rest, copies, 0, &|_| false)
    }

    /// With at most `limited_max` of those for which `is_limited` holds.
    fn find_with(
        &mut self,
        rest: &[usize],
        copies: usize,
        limited_max: usize,
        is_limited: &dyn Fn(usize) -> bool,
    ) -> Option<Vec<usize>> {
        if copies == 0 {
            return Some(Vec::new());
        }
        self.looks_left = self.looks_left.checked_sub(rest.len())?;
        if self.distinct_min(rest) < copies {
            return None;
        }
        let mut tried = None;
        for (at, index) in rest.iter().copied().enumerate() {
            let spot = self.spots[index];
            let is_one_limited = is_limited(index);
            // Units of one server are as good as each other here: where one led nowhere, so does the next.
            if tried == Some((spot, is_one_limited)) || rest.len() - at < copies {
                continue;
            }
            tried = Some((spot, is_one_limited));
            let limited_left = limited_max - usize::from(is_one_limited);
            self.looks_left = self.looks_left.checked_sub(rest.len() - at)?;
            let goes = |other: &usize| {
                self.spots[*other].may_be_with(&spot) && (limited_left > 0 || !is_limited(*other))
            };
            let others: Vec<_> = rest[at + 1..].iter().copied().filter(goes).collect();
            if let Some(mut found) = self.find_with(&others, copies - 1, limited_left, is_limited) {
                found.insert(0, index);
                return Some(found);
            }
        }
        None
    }

    /// No more than so many of them can be together: as many as there are servers, machines, disks, or paths.
    fn distinct_min(&self, rest: &[usize]) -> usize {
        let spots = || rest.iter().map(|index| &self.spots[*index]);
        let servers = spots().map(|spot| spot.1).collect::<BTreeSet<_>>().len();
        let names = (0..3).map(|at| {
            let unnamed = spots().filter(|spot| spot.0[at].is_none()).count();
            spots().filter_map(|spot| spot.0[at]).collect::<BTreeSet<_>>().len() + unnamed
        });
        names.min().map_or(servers, |names| names.min(servers))
    }
}

#[cfg(test)]
mod tests;
