//! Whatever fails, and whenever: disks, servers, the relay, connections.

use lighter_storage::Class;
use lighter_storage::disk::sim::Fault;
use lighter_storage::sim::Lie;
use rand::RngExt;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::model::store;
use super::world::World;
use lighter_protocol::BlobId;

pub(super) async fn run(seed: u64) {
    let servers = [2, 3, 2, 3, 4][(seed / 7 % 5) as usize];
    tell(World::new(seed, servers).await).await;
}

/// So many things, and all is well in the end.
pub(super) async fn tell(mut world: World) {
    for _ in 0..world.chance.random_range(4..16) {
        step(&mut world).await;
        world.look(false).await;
    }
    world.finish().await;
}

async fn step(world: &mut World) {
    let index = world.any();
    match world.chance.random_range(0..14) {
        0..=3 => {
            let count = world.chance.random_range(1..5);
            world.store(count).await;
        }
        4..=6 => {
            let fault = [Fault::Crash, Fault::Eio, Fault::NoSpace][world.chance.random_range(0..3)];
            let after = world.chance.random_range(0..12);
            tracing::info!(index, after, ?fault, "a fault to come");
            world.disk(index).inject(after, fault);
            world.store(2).await;
        }
        7 => stop_on_the_way(world, index).await,
        8 | 9 => {
            world.heal().await;
            sleep(Duration::from_secs(10)).await;
        }
        10 => {
            // The network, in the middle of what is on its way.
            let lie = Lie::ALL[world.chance.random_range(0..Lie::ALL.len())];
            match world.chance.random_range(0..3) {
                0 => world.lie(index, lie),
                _ => world.cut(index),
            }
            world.store(3).await;
        }
        11 => {
            if world.chance.random() {
                world.crash_relay().await;
            } else {
                take_over(world).await;
            }
            if world.array.is_some() || world.open().await.is_ok() {
                world.check().await;
            }
        }
        _ => {
            world.heal().await;
            if world.array.is_none() {
                world.open().await.expect("all servers are there");
            }
            world.until_writable().await;
            world.store(1).await;
            world.check().await;
        }
    }
    world.servers.bury().await;
}

/// Another instance of the relay takes the array over, while the one before knows nothing of it and writes: what it
/// says is there must be there, whoever is asked.
async fn take_over(world: &mut World) {
    let Some(former) = world.array.take() else { return };
    let mut tasks = JoinSet::new();
    for _ in 0..4 {
        let len = world.chance.random_range(1..200_000);
        world.begin(&mut tasks, &former, Class::Days30, len);
    }
    for _ in 0..world.chance.random_range(0..60) {
        tokio::task::yield_now().await;
    }
    let _ = world.open().await;
    for _ in 0..2 {
        let len = world.chance.random_range(1..20_000);
        world.begin(&mut tasks, &former, Class::Days30, len);
    }
    world.take_down(tasks).await;
}

/// The process or the machine, in the middle of what is on its way.
async fn stop_on_the_way(world: &mut World, index: usize) {
    const DATA: &[u8] = b"on its way";
    let power = world.chance.random();
    let array = world.array.clone();
    let on_its_way = tokio::spawn(async move {
        let Some(array) = array else { return };
        let _ = store(&array, Class::Days30, DATA).await;
    });
    for _ in 0..world.chance.random_range(0..40) {
        tokio::task::yield_now().await;
    }
    world.stop(index, power).await;
    // What was said of it is not taken down: it may be there, or not.
    world.model.in_doubt.insert(BlobId::of(DATA));
    on_its_way.await.expect("storing ends");
}

#[cfg(test)]
mod tests {
    // SPEC: B12, C5
    #[test]
    fn bad_input_31_32_nothing_acknowledged_is_lost_whatever_fails() {
        crate::storage::few(super::run);
    }
}
