//! One of three servers goes away in the middle of a write.

use std::time::Duration;

use lighter_storage::Class;
use lighter_storage::disk::sim::Fault;
use lighter_storage::sim::Lie;
use rand::RngExt;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::world::World;

/// How one of three servers goes away in the middle of a write.
#[derive(Clone, Copy, Debug)]
enum Loss {
    Killed,
    PowerLost,
    Cut,
    DiskFails,
    DiskFull,
    /// The relay does not reach it any more, or hears nothing from it, or both.
    Unreachable(bool, bool),
    /// What it says is late by so many seconds.
    Slow(u64),
    /// Another server does not reach it any more.
    ChainBlocked,
    Lies(Lie),
}

/// With two copies and one of three servers going away in the middle of writes: each of them is acknowledged, after a
/// short delay at most; and whoever takes the array over finds all of it once, whichever server is away then.
pub(super) async fn run(seed: u64) {
    let losses = [
        Loss::Killed,
        Loss::PowerLost,
        Loss::Cut,
        Loss::DiskFails,
        Loss::DiskFull,
        Loss::Unreachable(true, false),
        Loss::Unreachable(false, true),
        Loss::Unreachable(true, true),
        Loss::Slow(8),
        Loss::Slow(1_000),
        Loss::ChainBlocked,
    ];
    let losses: Vec<Loss> = losses.into_iter().chain(Lie::ALL.map(Loss::Lies)).collect();
    let mut world = World::new(seed, 3).await;
    world.store(3).await;
    let loss = losses[world.chance.random_range(0..losses.len())];
    let index = world.chance.random_range(0..3);
    tracing::info!(index, ?loss, "goes away");
    for _ in 0..2 {
        let before = world.model.acked.len();
        let start = Instant::now();
        world.lose_while_storing(index, loss).await;
        assert_eq!(world.model.acked.len(), before + 4, "{loss:?}: every write is acknowledged");
        let took = start.elapsed();
        assert!(took < Duration::from_secs(5), "{loss:?}: acknowledged after {took:?}");
        world.check().await;
    }
    // The next writer reaches the two others, or the one that was lost and one other.
    world.crash_relay().await;
    world.servers.net().end_lies();
    if world.chance.random() {
        world.heal().await;
        let other = (index + world.chance.random_range(1..3)) % 3;
        let power = world.chance.random();
        world.stop(other, power).await;
    }
    world.open().await.expect("two of three servers are there");
    world.check().await;
    let before = world.model.acked.len();
    world.store(2).await;
    assert_eq!(world.model.acked.len(), before + 2, "{loss:?}: two of three servers are enough");
    world.crash_relay().await;
    world.finish().await;
}

impl World {
    /// Four blobs, and `loss` somewhere in the middle.
    async fn lose_while_storing(&mut self, index: usize, loss: Loss) {
        let array = self.array();
        let mut tasks = JoinSet::new();
        for len in [9_000, 300_000, 1_200_000, 17] {
            self.begin(&mut tasks, &array, Class::Days30, len);
        }
        if matches!(loss, Loss::DiskFails | Loss::DiskFull) {
            let fault = if matches!(loss, Loss::DiskFull) { Fault::NoSpace } else { Fault::Eio };
            let after = self.chance.random_range(0..6);
            self.disk(index).inject(after, fault);
        }
        for _ in 0..self.chance.random_range(0..200) {
            tokio::task::yield_now().await;
        }
        let (relay, server) = (self.servers.writer(), self.servers.peer(index));
        let other = self.servers.peer((index + 1) % 3);
        let net = self.servers.net();
        match loss {
            Loss::Killed => self.stop(index, false).await,
            Loss::PowerLost => self.stop(index, true).await,
            Loss::Cut => self.cut(index),
            Loss::Lies(lie) => self.lie(index, lie),
            Loss::Unreachable(to, from) => {
                if to {
                    net.block(relay, server);
                }
                if from {
                    net.block(server, relay);
                }
            }
            Loss::Slow(seconds) => net.slow(server, Duration::from_secs(seconds)),
            Loss::ChainBlocked => net.block(other, server),
            Loss::DiskFails | Loss::DiskFull => {}
        }
        self.take_down(tasks).await;
    }
}

#[cfg(test)]
mod tests {
    // SPEC: C5, B12
    #[test]
    fn writing_goes_on_whatever_one_of_three_servers_does() {
        crate::storage::few(super::run);
    }
}
