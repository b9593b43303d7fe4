//! Writes are acknowledged after the first copy, and mirrored in the background (SPEC B12, where so set).
//!
//! No disk is lost for good here, so nothing acknowledged is ever lost either: whoever starts the relay is told to wait
//! where what was acknowledged may be on a server that is away.

use std::time::Duration;

use lighter_storage::{Class, OpenError};
use rand::RngExt;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::whatever;
use super::world::World;

pub(super) async fn run(seed: u64) {
    let servers = [2, 3, 3, 4][(seed / 8 % 4) as usize];
    let mut world = World::mirrored_later(seed, servers).await;
    if (seed / 8).is_multiple_of(2) {
        return whatever::tell(world).await;
    }
    for _ in 0..world.chance.random_range(2..6) {
        world.lose_one_while_another_is_behind().await;
        world.look(false).await;
        if world.chance.random() {
            world.start_again().await;
        }
    }
    world.finish().await;
}

impl World {
    /// What the relay sends to one server is late, and meanwhile something happens to one of them: to that one, or to
    /// the one that has what was acknowledged.
    async fn lose_one_while_another_is_behind(&mut self) {
        let (late, lost) = (self.any(), self.any());
        let delay = Duration::from_millis(self.chance.random_range(1..400));
        tracing::info!(late, lost, ?delay, "one is late, one is lost");
        self.servers.net().slow_path(self.servers.writer(), self.servers.peer(late), delay);
        let Some(array) = self.array.clone() else { return };
        let mut tasks = JoinSet::new();
        for _ in 0..self.chance.random_range(1..6) {
            let len = self.chance.random_range(1..400_000);
            let class = if self.chance.random_range(0..4) == 0 { Class::Days7 } else { Class::Days30 };
            self.begin(&mut tasks, &array, class, len);
        }
        for _ in 0..self.chance.random_range(0..100) {
            tokio::task::yield_now().await;
        }
        if self.chance.random() {
            let wait = Duration::from_millis(self.chance.random_range(0..500));
            sleep(wait).await;
        }
        match self.chance.random_range(0..4) {
            0 => self.cut(lost),
            1 => {}
            _ => {
                let power = self.chance.random();
                self.stop(lost, power).await;
            }
        }
        if self.chance.random() {
            // The relay with it: what was said until then counts.
            self.crash_relay().await;
        }
        drop(array);
        self.take_down(tasks).await;
    }

    /// The relay starts again: with the servers that are there if those may know everything, otherwise once all are.
    async fn start_again(&mut self) {
        self.crash_relay().await;
        self.servers.net().open_paths();
        match self.open().await {
            Ok(()) => {}
            Err(OpenError::Unmirrored { servers }) => {
                let count = self.count();
                let away = (0..count).filter(|index| !self.servers.is_running(*index));
                let away: Vec<_> = away.map(|index| self.servers.peer(index)).collect();
                assert!(servers.iter().all(|server| away.contains(server)), "who is there is not waited for");
                self.heal().await;
                self.open().await.expect("all servers are there");
            }
            Err(_) => {
                self.heal().await;
                self.open().await.expect("all servers are there");
            }
        }
        self.check().await;
        for index in 0..self.count() {
            assert!(self.servers.start(index), "its disk is well");
        }
    }
}

#[cfg(test)]
mod tests {
    // SPEC: B12, C5
    #[test]
    fn nothing_acknowledged_before_it_was_mirrored_is_lost() {
        crate::storage::few(super::run);
    }
}
