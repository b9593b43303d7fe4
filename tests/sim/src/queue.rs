//! The world `queue`: a relay's whole memory, ledger and queue over the array, over servers whose disks tear, lose, delay
//! and refuse writes, on a net that fails; all killed at random points.
//!
//! What is held against the reference model, after each start and in the end, always with a view made from the log
//! alone or from what the view of before had:
//! - what was acknowledged is there, whole; what was surely refused never comes back;
//! - an attachment that came many times is referred to by every message that has it, those references are what the
//!   messages say, and each of them can be read;
//! - the next hop gets each recipient's mail, and again only where the relay did not learn that it was written down;
//! - what a store has receipted is offered no more, and nothing is let go of without a receipt;
//! - in the end everything that was acknowledged was handed over, pulled, receipted and let go of, and nothing refers to
//!   any copy.

mod model;
mod mortal;
mod work;
mod world;

use rand::RngExt;

use world::World;

/// Tells the story of a seed; says what became of it.
pub(crate) async fn run(seed: u64) -> Counts {
    let mut world = World::new(seed).await;
    for _ in 0..world.chance.random_range(5..30) {
        world.step().await;
    }
    world.finish().await;
    let model = &world.model;
    Counts {
        sent: model.sent.len(),
        acknowledged: model.acknowledged.len(),
        refused: model.refused.len(),
        again: model.taken.values().filter(|count| **count > 1).count(),
        shared: model.shared,
    }
}

/// What became of a story's messages.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) sent: usize,
    pub(crate) acknowledged: usize,
    pub(crate) refused: usize,
    /// Handed over more than once.
    pub(crate) again: usize,
    /// How often one copy did for two.
    pub(crate) shared: u64,
}

#[cfg(test)]
mod tests {
    use lighter_storage::sim;

    use super::*;

    // SPEC: B12, B13, C10, D4, D8
    #[test]
    fn bad_input_31_32_nothing_acknowledged_is_lost_and_nothing_let_go_of_without_a_receipt() {
        let mut sum = Counts::default();
        sim::seeds(20, |seed| {
            sim::run(async {
                let counts = run(seed).await;
                sum.sent += counts.sent;
                sum.acknowledged += counts.acknowledged;
                sum.refused += counts.refused;
                sum.again += counts.again;
                sum.shared += counts.shared;
            });
        });
        // A simulation in which nothing succeeds, or nothing fails, shows nothing.
        assert!(
            sum.acknowledged * 3 > sum.sent && sum.refused > 0 && sum.again > 0 && sum.shared > 0,
            "{sum:?}"
        );
    }
}
