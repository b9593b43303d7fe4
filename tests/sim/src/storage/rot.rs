//! One disk that lies: writes that never reach it or lie in another place, syncs that do nothing, bytes that change, all
//! said to be good. The other copy of everything is good: so everything can be read, always, and in the end there are two
//! good ones again.

use std::time::Duration;

use lighter_storage::disk::Disk;
use lighter_storage::disk::sim::{Fault, SimDisk};
use rand::RngExt;
use tokio::time::sleep;

use super::world::World;

pub(super) async fn run(seed: u64) {
    let servers = if (seed / 7).is_multiple_of(2) { 2 } else { 3 };
    let mut world = World::new(seed, servers).await;
    let rotten = world.any();
    tracing::info!(rotten, "its disk lies");
    for _ in 0..world.chance.random_range(4..14) {
        world.rot(rotten).await;
        // All other servers are well, and there.
        world.look(true).await;
    }
    // The disk does as it is told from here on. What is wrong on it is found, and made good from the others.
    world.disk(rotten).heal();
    world.restart_rotten(rotten, true).await;
    world.seal_all().await;
    world.check().await;
    world.servers.scrub(rotten).await;
    world.until_healed().await;
    world.check().await;
    let honest = (rotten + 1) % world.count();
    world.stop(honest, true).await;
    if world.count() == 2 {
        // Now the copies of the one that lied are the only ones.
        world.check().await;
    }
    assert!(world.servers.start(honest), "its disk is well");
    world.finish().await;
}

impl World {
    async fn rot(&mut self, rotten: usize) {
        match self.chance.random_range(0..10) {
            0..=1 => self.store(3).await,
            2..=5 => {
                let fault =
                    [Fault::Lost, Fault::Misdirected, Fault::IdleSync][self.chance.random_range(0..3)];
                let after = self.chance.random_range(0..10);
                tracing::info!(after, ?fault, "a lie to come");
                self.disk(rotten).inject(after, fault);
                self.store(3).await;
            }
            6 => {
                let names = self.disk(rotten).list().unwrap_or_default();
                let Some(name) = names.get(self.chance.random_range(0..names.len().max(1))) else { return };
                let len = self.disk(rotten).contents(name).len() as u64;
                if len > 0 {
                    let at = self.chance.random_range(0..len);
                    tracing::info!(name, at, "a byte changes");
                    self.disk(rotten).flip(name, at);
                }
            }
            7 => {
                let power = self.chance.random();
                self.restart_rotten(rotten, power).await;
                sleep(Duration::from_secs(20)).await;
            }
            8 => {
                // A takeover asks all of them.
                self.restart_rotten(rotten, false).await;
                self.seal_all().await;
            }
            _ => self.servers.scrub(rotten).await,
        }
    }

    /// The server starts again; where its disk does not open any more, it gets an empty one.
    async fn restart_rotten(&mut self, rotten: usize, power: bool) {
        self.stop(rotten, power).await;
        if !self.servers.start(rotten) {
            tracing::info!(rotten, "its disk does not open any more, and is replaced");
            let seed = self.chance.random();
            self.servers.replace_disk(rotten, SimDisk::new(seed));
            assert!(self.servers.start(rotten), "an empty disk opens");
        }
    }
}

#[cfg(test)]
mod tests {
    // SPEC: B14, B17, C9
    #[test]
    fn what_one_disk_loses_misplaces_or_changes_is_read_from_the_other_and_made_good() {
        crate::storage::few(super::run);
    }
}
