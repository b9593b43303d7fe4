//! Copies that were lost are made again, and surplus ones dropped (SPEC B14).

use std::time::Duration;

use lighter_storage::disk::Disk;
use lighter_storage::disk::sim::{Fault, SimDisk};
use rand::RngExt;
use tokio::time::sleep;

use super::world::World;

/// What happens to one server that has copies.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// Its disk is replaced by an empty one.
    Replaced,
    /// It is away for good.
    Gone,
    /// It is away for longer than is waited, and comes back.
    BackLate,
    /// It is away for a short time.
    BackSoon,
    /// One segment's file is deleted while it does not run.
    FileDeleted,
    /// A byte of a sealed segment is flipped, and the server finds out.
    Flipped,
}

const FATES: [Fate; 6] =
    [Fate::Replaced, Fate::Gone, Fate::BackLate, Fate::BackSoon, Fate::FileDeleted, Fate::Flipped];

/// Whatever becomes of one server's copies, with faults of another one in between: there are two of each again.
pub(super) async fn run(seed: u64) {
    let servers = if (seed / 7).is_multiple_of(2) { 3 } else { 4 };
    let mut world = World::new(seed, servers).await;
    let fate = FATES[world.chance.random_range(0..FATES.len())];
    for _ in 0..3 {
        world.store(3).await;
        world.seal_all().await;
    }
    let index = world.chance.random_range(0..3);
    tracing::info!(index, ?fate, "its fate");
    world.stop(index, true).await;
    let names = world.disk(index).list().expect("a disk that is well");
    let of_one: Vec<String> = names.into_iter().filter(|name| name.ends_with(".seg")).collect();
    let faulty = world.chance.random_range(0..4) == 0;
    if faulty {
        let other = (index + 1) % 3;
        let fault = [Fault::Eio, Fault::NoSpace, Fault::Crash][world.chance.random_range(0..3)];
        let after = world.chance.random_range(0..30);
        tracing::info!(other, after, ?fault, "a fault to come");
        world.disk(other).inject(after, fault);
    }
    befall(&mut world, index, fate, of_one.first()).await;
    world.look(false).await;
    if faulty {
        sleep(Duration::from_secs(3600)).await;
        world.heal().await;
    }
    if matches!(fate, Fate::Flipped) {
        world.servers.scrub(index).await;
    }
    world.until_healed().await;
    world.check().await;
    if matches!(fate, Fate::BackSoon | Fate::BackLate) && !faulty {
        let made = world.array().status().heal.copies_made;
        let is_due = matches!(fate, Fate::BackLate) && !of_one.is_empty();
        assert_eq!(made > 0, is_due, "{fate:?}: {made}");
    }
    // Any one of them may go now.
    if !matches!(fate, Fate::Gone) {
        let another = world.any();
        world.stop(another, true).await;
        world.check().await;
    }
    world.crash_relay().await;
    world.finish().await;
}

async fn befall(world: &mut World, index: usize, fate: Fate, a_copy: Option<&String>) {
    match fate {
        Fate::Replaced => {
            let seed = world.chance.random();
            world.servers.replace_disk(index, SimDisk::new(seed));
        }
        Fate::Gone => return,
        Fate::BackLate | Fate::BackSoon => {
            let late = matches!(fate, Fate::BackLate);
            world.store(2).await;
            sleep(Duration::from_secs(if late { 3600 } else { 600 })).await;
        }
        Fate::FileDeleted => {
            if let Some(name) = a_copy {
                world.disk(index).lose(name);
            }
        }
        Fate::Flipped => {
            if let Some(name) = a_copy {
                let len = world.disk(index).contents(name).len() as u64;
                let at = world.chance.random_range(4096..len);
                world.disk(index).flip(name, at);
            }
        }
    }
    assert!(world.servers.start(index), "its disk is well");
}

#[cfg(test)]
mod tests {
    // SPEC: B14
    #[test]
    fn whatever_becomes_of_one_servers_copies_there_are_two_of_each_again() {
        crate::storage::few(super::run);
    }
}
