//! One fault at each operation, lies, losses of whole disks, another key: each its own test, since nothing of it is left
//! to chance.

use std::time::Duration;

use lighter_storage::disk::Disk;
use lighter_storage::disk::sim::{Fault, SimDisk};
use lighter_storage::sim::{Lie, run, seeds};
use lighter_storage::{ArrayKey, OpenError};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::sleep;

use super::world::World;

/// The same small story, with one fault at each of the operations of one server's disk.
fn with_one_fault(fault: Fault) {
    let mut faults = 0;
    for after in 0.. {
        let has_happened = std::cell::Cell::new(false);
        run(async {
            let mut world = World::unopened(1000 + after, 2);
            world.disk(0).inject(after, fault);
            let before = world.disk(0).operations();
            if world.open().await.is_ok() {
                world.store(2).await;
                world.store(1).await;
                world.crash_relay().await;
                let _ = world.open().await;
                world.store(1).await;
            }
            has_happened.set(world.disk(0).operations() > before + after);
            world.finish().await;
        });
        if !has_happened.get() {
            break;
        }
        faults += 1;
    }
    assert!(faults > 20, "{faults} operations were hit");
}

#[test]
fn bad_input_31_eio_at_every_operation() {
    with_one_fault(Fault::Eio);
}

#[test]
fn bad_input_31_enospc_at_every_operation() {
    with_one_fault(Fault::NoSpace);
}

#[test]
fn bad_input_32_power_lost_at_every_operation() {
    with_one_fault(Fault::Crash);
}

#[test]
fn bad_input_33_a_server_that_acknowledges_wrongly_is_not_believed() {
    for (seed, lie) in Lie::ALL.into_iter().enumerate() {
        run(async {
            let mut world = World::unopened(seed as u64, 2);
            world.lie(seed % 2, lie);
            world.open().await.unwrap();
            for _ in 0..4 {
                world.store(2).await;
                sleep(Duration::from_secs(3)).await;
            }
            if lie != Lie::Twice {
                assert!(world.model.acked.is_empty(), "{lie:?}: nothing may be acknowledged");
            }
            world.finish().await;
        });
    }
}

#[test]
fn bad_input_33_what_a_server_acknowledged_and_lost_is_brought_back_from_the_other() {
    seeds(20, |seed| {
        run(async {
            let mut world = World::new(seed, 2).await;
            world.store(4).await;
            assert_eq!(world.model.acked.len(), 4);
            let loser = usize::from(seed % 2 == 0);
            if seed % 3 == 0 {
                // All of a segment that was still open.
                world.stop(loser, true).await;
                let names = world.disk(loser).list().unwrap();
                for name in names.iter().filter(|name| name.ends_with(".seg")) {
                    world.disk(loser).lose(name);
                }
            } else {
                // Its end, or something in the middle.
                world.stop(loser, true).await;
                let names = world.disk(loser).list().unwrap();
                for name in names.iter().filter(|name| name.ends_with(".seg")) {
                    let len = world.disk(loser).contents(name).len() as u64;
                    let at = world.chance.random_range(4096..len);
                    world.disk(loser).flip(name, at);
                }
            }
            world.crash_relay().await;
            world.finish().await;
        });
    });
}

/// A server's disk, or its whole folder, is replaced by an empty one; what it had is on the other.
// SPEC: B17
#[test]
fn a_server_that_lost_everything_is_told_from_one_that_has_nothing() {
    seeds(30, |seed| {
        run(async {
            let mut world = World::new(seed, 2).await;
            world.store(4).await;
            if seed % 2 == 0 {
                // Some of it sealed, some not.
                world.crash_relay().await;
                world.open().await.unwrap();
                world.store(3).await;
            }
            world.crash_relay().await;
            let (loser, other) = (usize::from(seed % 3 == 0), usize::from(seed % 3 != 0));
            world.stop(loser, true).await;
            world.stop(other, seed % 5 == 0).await;
            world.servers.replace_disk(loser, SimDisk::new(seed + 77));
            assert!(world.servers.start(loser));
            // Alone it does not make an array that looks empty.
            let alone = world.open().await;
            assert!(matches!(alone, Err(OpenError::TooFewServers { reached: 0, needed: 1 })), "{alone:?}");
            assert!(world.servers.start(other));
            world.open().await.unwrap();
            world.until_writable().await;
            world.check().await;
            world.store(3).await;
            world.check().await;
            assert!(world.array().status().bad_copies > 0, "it is counted");
            // And so it stays, whoever is there at the next start.
            world.crash_relay().await;
            world.stop(usize::try_from(seed).unwrap() % 2, true).await;
            world.heal().await;
            world.open().await.unwrap();
            world.until_writable().await;
            world.check().await;
        });
    });
}

#[test]
fn with_another_array_key_nothing_is_opened_and_nothing_written() {
    run(async {
        let mut world = World::new(3, 2).await;
        world.store(2).await;
        world.crash_relay().await;
        let keys = world.servers.keys().clone();
        world.servers.set_keys(ArrayKey::draw(&mut StdRng::seed_from_u64(99)).into());
        assert!(matches!(world.open().await, Err(OpenError::WrongKey)));
        world.servers.set_keys(keys);
        world.finish().await;
    });
}
