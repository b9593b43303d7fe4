//! The net: paths on which nothing passes, one way or both, between the relay and servers and between servers; slow ones;
//! clocks that are off, by less than what makes them doubtful.

use std::time::Duration;

use lighter_protocol::PeerId;
use rand::RngExt;
use tokio::time::sleep;

use super::world::World;

/// How far a clock may be off before nothing expires by it (`CLOCK_DOUBT`: an hour), with some room.
const OFF_MAX: i64 = 1500;

pub(super) async fn run(seed: u64) {
    let servers = [2, 3, 3, 4][(seed / 7 % 4) as usize];
    let mut world = World::new(seed, servers).await;
    for _ in 0..world.chance.random_range(6..20) {
        step(&mut world).await;
        world.look(false).await;
    }
    world.finish().await;
}

async fn step(world: &mut World) {
    let (one, other) = world.some_path();
    match world.chance.random_range(0..16) {
        0..=4 => {
            let count = world.chance.random_range(1..5);
            world.store(count).await;
        }
        5..=7 => {
            let both_ways = world.chance.random_range(0..3) != 0;
            tracing::info!(%one, %other, both_ways, "nothing passes");
            world.servers.net().block(one, other);
            if both_ways {
                world.servers.net().block(other, one);
            }
            world.store(3).await;
        }
        8 => {
            let delay = Duration::from_millis(world.chance.random_range(1..20_000));
            tracing::info!(%one, %other, ?delay, "a slow path");
            world.servers.net().slow_path(one, other, delay);
            world.store(2).await;
        }
        9 => {
            let delay = Duration::from_millis(world.chance.random_range(1..20_000));
            tracing::info!(%one, ?delay, "a slow machine");
            world.servers.net().slow(one, delay);
            world.store(2).await;
        }
        10 => {
            let offset = world.chance.random_range(-OFF_MAX..OFF_MAX);
            tracing::info!(%one, offset, "a clock is off");
            world.servers.clocks().set(one, offset);
        }
        11 | 12 => {
            tracing::info!("all paths are open");
            world.servers.net().open_paths();
            sleep(Duration::from_secs(10)).await;
        }
        13 => {
            let (index, power) = (world.any(), world.chance.random());
            world.stop(index, power).await;
        }
        14 => {
            world.crash_relay().await;
            let _ = world.open().await;
        }
        _ => {
            let time = Duration::from_secs(world.chance.random_range(1..3_000));
            sleep(time).await;
            let index = world.any();
            assert!(world.servers.start(index), "its disk is well");
        }
    }
}

impl World {
    /// Two parties between which there is a path, in the order of a direction.
    fn some_path(&mut self) -> (PeerId, PeerId) {
        let mut parties: Vec<PeerId> = (0..self.count()).map(|index| self.servers.peer(index)).collect();
        // The relay is where most of it goes on.
        parties.extend([self.servers.writer(); 2]);
        let one = parties.swap_remove(self.chance.random_range(0..parties.len()));
        parties.retain(|party| *party != one);
        let other = parties[self.chance.random_range(0..parties.len())];
        (one, other)
    }
}

#[cfg(test)]
mod tests {
    // SPEC: B12, C5
    #[test]
    fn nothing_acknowledged_is_lost_whatever_the_net_does() {
        crate::storage::few(super::run);
    }
}
