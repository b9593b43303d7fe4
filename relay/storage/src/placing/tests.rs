//! Placing against every choice there is.

use std::net::SocketAddr;

use lighter_protocol::UnixTime;
use proptest::prelude::*;
use rand::SeedableRng;

use super::*;
use crate::table::Label;

const ROOM: u64 = 100;

/// Peers in the order of their keys, the same in every run.
fn peer(number: u8) -> PeerId {
    let key = lighter_protocol::Keypair::ed25519_from_bytes([number + 1; 32]).unwrap();
    key.public().to_peer_id()
}

fn server(number: u8) -> ServerEntry {
    ServerEntry::new(peer(number), SocketAddr::from(([10, 0, 0, number], 7000)))
}

fn candidate(server: &ServerEntry) -> Candidate<'_> {
    Candidate {
        server,
        unit: UnitId([0; 16]),
        total: 1000,
        free: 500,
        queue: 0,
        latency: Duration::from_millis(1),
        quarantined_for: Duration::ZERO,
        last_chosen: 0,
    }
}

fn rules(policy: Policy, allowed: &BTreeSet<Shared>) -> Rules<'_> {
    Rules { policy, allowed_together: allowed, mirrors: &[], room_min: ROOM }
}

fn chance(seed: u64) -> StdRng {
    StdRng::seed_from_u64(seed)
}

fn label(text: &str) -> Label {
    text.parse().unwrap()
}

/// Machine, disk, path, group, whether it drains.
type Entry = (u8, Option<u8>, Option<u8>, u8, bool);

/// A small world, in which much is shared.
#[derive(Clone, Debug)]
struct World {
    servers: Vec<ServerEntry>,
    units: Vec<(usize, u8, bool, u64)>,
    allowed: BTreeSet<Shared>,
    mirrors: Vec<Place>,
    copies: usize,
    policy: Policy,
    seed: u64,
}

fn worlds() -> impl Strategy<Value = World> {
    let name = prop_oneof![3 => Just(None), 2 => (0..3_u8).prop_map(Some)];
    let entry = (0..4_u8, name.clone(), name, 1..3_u8, prop::bool::weighted(0.2));
    let unit = (
        0..7_usize,
        0..3_u8,
        prop::bool::weighted(0.25),
        prop_oneof![Just(ROOM - 1), Just(ROOM), 200..900_u64],
    );
    let mirror = (0..7_usize, prop::option::of(0..3_u8));
    (
        prop::collection::vec(entry, 1..7),
        prop::collection::vec(unit, 0..10),
        prop::collection::btree_set((0..3_u8, 0..4_u8), 0..2),
        prop_oneof![2 => Just(Vec::new()), 1 => prop::collection::vec(mirror, 1..6)],
        1..5_usize,
        prop_oneof![Just(Policy::Random), Just(Policy::Load), Just(Policy::RoundRobin)],
        any::<u64>(),
    )
        .prop_map(|(entries, units, allowed, mirrors, copies, policy, seed)| {
            let named = |kind: &str, number: u8| label(&format!("{kind}{number}"));
            let make = |(number, entry): (usize, Entry)| {
                let (host, disk, zone, group, drains) = entry;
                ServerEntry {
                    host: named("h", host),
                    disk: disk.map(|disk| named("d", disk)),
                    zone: zone.map(|zone| named("z", zone)),
                    group,
                    state: if drains { ServerState::Draining } else { ServerState::Active },
                    ..server(u8::try_from(number).unwrap())
                }
            };
            let servers: Vec<_> = entries.into_iter().enumerate().map(make).collect();
            let count = servers.len();
            let shared = |(kind, number): (u8, u8)| match kind {
                0 => Shared::Host(named("h", number)),
                1 => Shared::Disk(named("d", number)),
                _ => Shared::Zone(named("z", number)),
            };
            let place = |(at, unit): (usize, Option<u8>)| Place {
                server: servers[at % count].peer,
                unit: unit.map(|unit| UnitId([unit; 16])),
            };
            let mut units: Vec<_> =
                units.into_iter().map(|(at, unit, bad, free)| (at % count, unit, bad, free)).collect();
            units.sort_unstable();
            units.dedup_by_key(|(at, unit, ..)| (*at, *unit));
            let mirrors = mirrors.into_iter().map(place).collect();
            World {
                allowed: allowed.into_iter().map(shared).collect(),
                units,
                mirrors,
                copies,
                policy,
                seed,
                servers,
            }
        })
}

impl World {
    fn candidates(&self) -> Vec<Candidate<'_>> {
        let unit = |(at, unit, is_quarantined, free): &(usize, u8, bool, u64)| Candidate {
            unit: UnitId([*unit; 16]),
            quarantined_for: Duration::from_secs(u64::from(*is_quarantined)),
            free: *free,
            ..candidate(&self.servers[*at])
        };
        self.units.iter().map(unit).collect()
    }

    fn rules(&self) -> Rules<'_> {
        Rules { mirrors: &self.mirrors, ..rules(self.policy, &self.allowed) }
    }

    /// The rule in its own words, not the code's.
    fn may_be_together(&self, one: &ServerEntry, other: &ServerEntry) -> bool {
        let both: BTreeSet<_> = one.shares().collect();
        let common: BTreeSet<_> = other.shares().filter(|shared| both.contains(shared)).collect();
        one.peer != other.peer && common.is_subset(&self.allowed)
    }

    /// Every choice there is: the fewest in quarantine that one has, and whether one is of the first group alone.
    fn best_by_trying_all(&self) -> Option<(usize, Option<u8>)> {
        let candidates = self.candidates();
        let rules = self.rules();
        let may: Vec<_> = candidates.iter().filter(|candidate| rules.lets(candidate)).collect();
        let mut best: Option<(usize, Option<u8>)> = None;
        for mask in 0_u32..1 << may.len() {
            if mask.count_ones() as usize != self.copies {
                continue;
            }
            let chosen: Vec<_> =
                (0..may.len()).filter(|at| mask & (1 << at) != 0).map(|at| may[at]).collect();
            let is_allowed = chosen.iter().enumerate().all(|(at, one)| {
                chosen[at + 1..].iter().all(|other| self.may_be_together(one.server, other.server))
            });
            if is_allowed {
                let bad = chosen.iter().filter(|one| !one.quarantined_for.is_zero()).count();
                let first = chosen[0].server.group;
                let group = chosen.iter().all(|one| one.server.group == first).then_some(first);
                // Nothing sorts before something: a choice across groups is the last resort.
                let rank = |(bad, group): (usize, Option<u8>)| (bad, group.unwrap_or(u8::MAX));
                if best.is_none_or(|best| rank((bad, group)) < rank(best)) {
                    best = Some((bad, group));
                }
            }
        }
        best
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    // SPEC: C5, C7, B11, B15
    #[test]
    fn there_is_a_choice_whenever_one_exists_and_never_one_that_may_not_be(world in worlds()) {
        let chosen = choose(&world.candidates(), &world.rules(), world.copies, &mut chance(world.seed));
        let best = world.best_by_trying_all();
        prop_assert_eq!(chosen.is_ok(), best.is_some(), "{:?}", chosen);
        let (Ok(chosen), Some((bad, group))) = (chosen, best) else { return Ok(()) };
        prop_assert_eq!(chosen.len(), world.copies);
        let candidates = world.candidates();
        let of = |member: &Member| {
            let is_it = |one: &&Candidate<'_>| one.server.peer == member.peer && one.unit == member.unit;
            *candidates.iter().find(is_it).unwrap()
        };
        let chosen: Vec<_> = chosen.iter().map(of).collect();
        for (at, one) in chosen.iter().enumerate() {
            prop_assert!(one.free >= ROOM, "full");
            prop_assert_eq!(one.server.state, ServerState::Active);
            let named = |place: &Place| place.server == one.server.peer && place.unit.is_none_or(|unit| unit == one.unit);
            prop_assert!(world.mirrors.is_empty() || world.mirrors.iter().any(named), "not in the mirroring table");
            for other in &chosen[at + 1..] {
                prop_assert!(world.may_be_together(one.server, other.server), "{:?} {:?}", one, other);
            }
        }
        prop_assert_eq!(chosen.iter().filter(|one| !one.quarantined_for.is_zero()).count(), bad, "as few as can be");
        if bad == 0 && let Some(group) = group {
            prop_assert!(chosen.iter().all(|one| one.server.group == group), "the first group that can");
        }
    }

    #[test]
    fn the_same_chance_gives_the_same_choice(world in worlds()) {
        let choice = || choose(&world.candidates(), &world.rules(), world.copies, &mut chance(world.seed));
        prop_assert_eq!(choice(), choice());
    }
}

#[test]
fn where_the_first_in_order_leads_nowhere_another_is_found() {
    // Only b and c go together; a shares its machine with one and its path with the other.
    let (mut a, mut b, mut c) = (server(1), server(2), server(3));
    (a.host, b.host, c.host) = (label("m1"), label("m1"), label("m2"));
    (a.zone, c.zone) = (Some(label("p")), Some(label("p")));
    b.zone = None;
    let allowed = BTreeSet::new();
    for seed in 0..50 {
        let candidates = [candidate(&a), candidate(&b), candidate(&c)];
        let chosen = choose(&candidates, &rules(Policy::Random, &allowed), 2, &mut chance(seed)).unwrap();
        let peers: BTreeSet<_> = chosen.iter().map(|member| member.peer).collect();
        assert_eq!(peers, BTreeSet::from([b.peer, c.peer]));
    }
}

// SPEC: B15
#[test]
fn servers_of_one_machine_have_copies_together_only_when_that_was_allowed_by_name() {
    let (one, mut two) = (server(1), server(2));
    two.host = one.host.clone();
    let candidates = [candidate(&one), candidate(&two)];
    let none = BTreeSet::new();
    let chosen = choose(&candidates, &rules(Policy::Random, &none), 2, &mut chance(1));
    assert_eq!(chosen, Err(PlacingError::Together { servers: 2, copies: 2 }));
    for (shared, is_chosen) in [
        (Shared::Zone(one.host.clone()), false),
        (Shared::Host(label("x")), false),
        (Shared::Host(one.host.clone()), true),
    ] {
        let allowed = BTreeSet::from([shared]);
        let chosen = choose(&candidates, &rules(Policy::Random, &allowed), 2, &mut chance(1));
        assert_eq!(chosen.is_ok(), is_chosen);
    }
}

// SPEC: C5
#[test]
fn the_second_group_takes_over_where_the_first_cannot() {
    let mut servers: Vec<_> = (1..=4).map(server).collect();
    servers[2].group = 2;
    servers[3].group = 2;
    let allowed = BTreeSet::new();
    let groups = |away: &[usize]| {
        let there = servers.iter().enumerate().filter(|(at, _)| !away.contains(at));
        let candidates: Vec<_> = there.map(|(_, server)| candidate(server)).collect();
        let chosen = choose(&candidates, &rules(Policy::Random, &allowed), 2, &mut chance(7)).unwrap();
        let group_of =
            |member: &Member| servers.iter().find(|server| server.peer == member.peer).unwrap().group;
        let mut groups: Vec<_> = chosen.iter().map(group_of).collect();
        groups.sort_unstable();
        groups
    };
    assert_eq!(groups(&[]), [1, 1]);
    assert_eq!(groups(&[0]), [2, 2]);
    assert_eq!(groups(&[0, 3]), [1, 2], "mixed rather than refused");
}

// SPEC: C6
#[test]
fn at_random_every_server_comes_equally_often_however_many_units_it_has() {
    let servers: Vec<_> = (1..=4).map(server).collect();
    let allowed = BTreeSet::new();
    let mut candidates: Vec<_> = servers.iter().map(candidate).collect();
    for number in 1..20 {
        candidates.push(Candidate { unit: UnitId([number; 16]), ..candidate(&servers[0]) });
    }
    let mut counts: BTreeMap<PeerId, u32> = BTreeMap::new();
    let (mut chance, mut units) = (chance(3), BTreeSet::new());
    for _ in 0..4000 {
        for member in choose(&candidates, &rules(Policy::Random, &allowed), 2, &mut chance).unwrap() {
            *counts.entry(member.peer).or_default() += 1;
            units.insert(member);
        }
    }
    assert!(counts.values().all(|count| (1850..2150).contains(count)), "{counts:?}");
    assert_eq!(units.len(), 23, "each unit has its turn");
}

// SPEC: C6
#[test]
fn by_load_the_lighter_server_comes_more_often_whatever_makes_it_lighter() {
    let servers: Vec<_> = (1..=3).map(server).collect();
    let allowed = BTreeSet::new();
    let heavier: [fn(&mut Candidate<'_>); 3] =
        [|one| one.queue = 20, |one| one.latency = Duration::from_millis(50), |one| one.free = 101];
    for make_heavier in heavier {
        let mut candidates: Vec<_> = servers.iter().map(candidate).collect();
        make_heavier(&mut candidates[0]);
        let mut leads: BTreeMap<PeerId, u32> = BTreeMap::new();
        let mut chance = chance(5);
        for _ in 0..1000 {
            let chosen = choose(&candidates, &rules(Policy::Load, &allowed), 2, &mut chance).unwrap();
            *leads.entry(chosen[0].peer).or_default() += 1;
        }
        // The heavier of any two never leads; a third one is not drawn each time.
        assert_eq!(leads.get(&servers[0].peer), None, "{leads:?}");
        assert!(leads.values().all(|count| *count > 350), "{leads:?}");
    }
}

// SPEC: C6
#[test]
fn round_robin_is_even_while_servers_come_and_go() {
    let servers: Vec<_> = (1..=5).map(server).collect();
    let allowed = BTreeSet::new();
    let (mut turns, mut counts) = (Turns::default(), [0_u32; 5]);
    for turn in 1..=1000 {
        let there: Vec<_> = (0..5).filter(|at| *at != 4 || turn > 500).collect();
        let one = |at: &usize| {
            let new = candidate(&servers[*at]);
            Candidate { last_chosen: turns.last(&Member { peer: new.server.peer, unit: new.unit }), ..new }
        };
        let candidates: Vec<_> = there.iter().map(one).collect();
        let chosen = choose(&candidates, &rules(Policy::RoundRobin, &allowed), 2, &mut chance(turn)).unwrap();
        for member in &chosen {
            counts[servers.iter().position(|server| server.peer == member.peer).unwrap()] += 1;
        }
        turns.took(&chosen);
    }
    assert!(counts[..4].iter().all(|count| (448..=452).contains(count)), "{counts:?}");
    assert!((198..=202).contains(&counts[4]), "the one that came late does not catch up: {counts:?}");
}

#[test]
fn a_server_in_quarantine_is_chosen_only_where_nothing_else_is_left() {
    let servers: Vec<_> = (1..=3).map(server).collect();
    let allowed = BTreeSet::new();
    let mut candidates: Vec<_> = servers.iter().map(candidate).collect();
    candidates[0].quarantined_for = Duration::from_secs(1);
    for seed in 0..50 {
        let chosen = choose(&candidates, &rules(Policy::Random, &allowed), 2, &mut chance(seed)).unwrap();
        assert!(chosen.iter().all(|member| member.peer != servers[0].peer));
    }
    let chosen = choose(&candidates[..2], &rules(Policy::Random, &allowed), 2, &mut chance(1)).unwrap();
    assert_eq!(chosen.len(), 2);
    candidates
        .iter_mut()
        .zip([3, 1, 2])
        .for_each(|(one, left)| one.quarantined_for = Duration::from_secs(left));
    for seed in 0..50 {
        let chosen = choose(&candidates, &rules(Policy::Random, &allowed), 2, &mut chance(seed)).unwrap();
        assert!(chosen.iter().all(|member| member.peer != servers[0].peer), "it has the longest to go");
    }
}

#[test]
fn servers_that_share_in_a_tangled_way_do_not_hold_the_choice_up() {
    // A thousand servers on 31 machines and 31 paths, of which 32 must be apart: there is no choice.
    let mut servers = Vec::new();
    for number in 0..1000_u16 {
        let mut entry = server(u8::try_from(number % 250).unwrap());
        entry.peer = PeerId::random();
        entry.host = label(&format!("m{}", number % 5));
        entry.zone = Some(label(&format!("p{}", number / 5 % 5)));
        entry.disk = Some(label(&format!("d{}", number % 7)));
        servers.push(entry);
    }
    let allowed = BTreeSet::new();
    let candidates: Vec<_> = servers.iter().map(candidate).collect();
    let began = UnixTime::now();
    let chosen = choose(&candidates, &rules(Policy::Random, &allowed), 6, &mut chance(1));
    assert_eq!(chosen, Err(PlacingError::Together { servers: 1000, copies: 6 }));
    assert!(choose(&candidates, &rules(Policy::Random, &allowed), 5, &mut chance(1)).is_ok());
    assert!(UnixTime::now().0 - began.0 < 10);
}
