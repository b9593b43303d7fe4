//! Every state that can be reached with so many faults, and from each of them on to the end without a further one.

use std::collections::{HashMap, HashSet};

use super::actions::Action;
use super::facts::Facts;
use super::steps::Step;
use super::world::{Flaw, World};

/// How long a world may take to come to its end where nothing goes wrong.
const STEPS_MAX: usize = 2_000;

/// What was explored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Explored {
    pub(crate) states: usize,
    pub(crate) transitions: usize,
}

/// An exploration of all that may happen with `faults_max` faults.
pub(crate) struct Explorer<'a> {
    pub(crate) facts: &'a Facts,
    pub(crate) flaw: Option<Flaw>,
    /// How each state was reached first.
    ways: Vec<(u32, Option<Action>)>,
    seen: HashSet<u128>,
    /// Holders' machines that were shown receipts that are none.
    tried: HashSet<u128>,
    /// States from which the end is reached.
    ends_well: HashSet<u128>,
}

impl<'a> Explorer<'a> {
    pub(crate) fn new(facts: &'a Facts, flaw: Option<Flaw>) -> Self {
        Self {
            facts,
            flaw,
            ways: Vec::new(),
            seen: HashSet::new(),
            tried: HashSet::new(),
            ends_well: HashSet::new(),
        }
    }

    /// # Errors
    /// What went wrong, and how to get there.
    pub(crate) fn run(mut self, faults_max: usize) -> Result<Explored, String> {
        let mut transitions = 0;
        // What was reached with so many faults. Those with fewer come first: of a state that is reached again nothing
        // new can come.
        let mut waiting: Vec<HashMap<u128, (World, u32)>> = vec![HashMap::new(); faults_max + 1];
        let start = World::new(self.facts);
        self.ways.push((0, None));
        waiting[0].insert(start.key(), (start, 0));
        for faults in 0..=faults_max {
            let mut level: Vec<_> = std::mem::take(&mut waiting[faults]).into_iter().collect();
            // A defined order, so that the same failure is found each time.
            level.sort_by_key(|(_, (_, way))| *way);
            level.reverse();
            while let Some((key, (world, way))) = level.pop() {
                if !self.seen.insert(key) {
                    continue;
                }
                self.takes_no_forgery(&world, way)?;
                self.ends_well(&world, key, way)?;
                for (action, is_fault) in world.actions(self.flaw) {
                    if is_fault && faults == faults_max {
                        continue;
                    }
                    transitions += 1;
                    let next = self.step(world.clone(), action, way)?;
                    let key = next.key();
                    if self.seen.contains(&key) {
                        continue;
                    }
                    let known = u32::try_from(self.ways.len()).unwrap();
                    if is_fault {
                        if let std::collections::hash_map::Entry::Vacant(entry) =
                            waiting[faults + 1].entry(key)
                        {
                            self.ways.push((way, Some(action)));
                            entry.insert((next, known));
                        }
                    } else {
                        self.ways.push((way, Some(action)));
                        level.push((key, (next, known)));
                    }
                }
            }
        }
        Ok(Explored { states: self.seen.len(), transitions })
    }

    fn step(&self, world: World, action: Action, way: u32) -> Result<World, String> {
        let mut step = Step { world, facts: self.facts, flaw: self.flaw };
        let done = step.run(action).and_then(|()| step.world.check(self.facts));
        done.map_err(|wrong| self.told(way, &[action], &wrong)).map(|()| step.world)
    }

    /// A receipt that is somebody else's, or for something else, changes nothing, whatever the holder waits for.
    fn takes_no_forgery(&mut self, world: &World, way: u32) -> Result<(), String> {
        for (at, holder) in world.holders.iter().enumerate() {
            let before = super::world::key(&holder.machine);
            if !self.tried.insert(before) {
                continue;
            }
            for forged in &self.facts.forged {
                let mut machine = holder.machine.clone();
                let taken = machine.handle_receipt(forged, &self.facts.releaser, world.now(self.facts));
                if taken.is_ok() || super::world::key(&machine) != before {
                    return Err(self.told(way, &[], &format!("holder {at} takes a forged receipt")));
                }
            }
        }
        Ok(())
    }

    /// From here on nothing goes wrong any more: then it comes to its end.
    fn ends_well(&mut self, world: &World, key: u128, way: u32) -> Result<(), String> {
        let (mut world, mut key) = (world.clone(), key);
        let (mut passed, mut actions) = (Vec::new(), Vec::new());
        while !self.ends_well.contains(&key) {
            passed.push(key);
            let Some(action) = world.next_fair(self.flaw) else {
                if world.is_done() {
                    break;
                }
                return Err(self.told(way, &actions, "stuck: nothing more happens, and it is not done"));
            };
            actions.push(action);
            if actions.len() > STEPS_MAX || passed[..passed.len() - 1].contains(&key) {
                return Err(self.told(way, &actions, "stuck: it goes on for ever"));
            }
            let mut step = Step { world, facts: self.facts, flaw: self.flaw };
            step.run(action).map_err(|wrong| self.told(way, &actions, &wrong))?;
            world = step.world;
            key = world.key();
        }
        self.ends_well.extend(passed);
        Ok(())
    }

    /// What went wrong, after what.
    fn told(&self, way: u32, further: &[Action], wrong: &str) -> String {
        let mut actions = Vec::new();
        let mut at = way;
        while let (before, Some(action)) = self.ways[at as usize] {
            actions.push(action);
            at = before;
        }
        actions.reverse();
        actions.extend_from_slice(further);
        let shown: Vec<_> = actions.iter().map(|action| format!("{action:?}")).collect();
        format!("{wrong}\nafter {}", shown.join(", "))
    }
}
