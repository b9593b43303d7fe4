//! Stories drawn from a seed: whatever fails, and whenever.

use super::*;

#[test]
fn bad_input_31_32_nothing_acknowledged_is_lost_whatever_fails() {
    seeds(400, |seed| {
        run(async {
            let servers = [2, 3, 2, 3, 4][usize::try_from(seed % 5).unwrap()];
            let mut world = World::new(seed, servers);
            world.heal().await;
            world.open().await.unwrap();
            for _ in 0..world.chance.random_range(4..16) {
                step(&mut world).await;
            }
            world.finish().await;
        });
    });
}

async fn step(world: &mut World) {
    let count = u32::try_from(world.servers.len()).unwrap();
    let index = world.chance.random_range(0..count) as usize;
    match world.chance.random_range(0..14) {
        0..=3 => {
            let count = world.chance.random_range(1..5);
            world.store(count).await;
        }
        4..=6 => {
            let fault = [Fault::Crash, Fault::Eio, Fault::NoSpace][world.chance.random_range(0..3)];
            let after = world.chance.random_range(0..12);
            world.say(("inject", index, after, fault));
            world.servers[index].disk.inject(after, fault);
            world.store(2).await;
        }
        7 => {
            // The process or the machine, in the middle of what is on its way.
            let power = world.chance.random();
            let array = world.array.clone();
            let on_its_way = tokio::spawn(async move {
                let Some(array) = array else { return Ok(()) };
                store(&array, Class::Days30, b"on its way").await.map(|_| ())
            });
            for _ in 0..world.chance.random_range(0..40) {
                tokio::task::yield_now().await;
            }
            world.stop_server(index, power).await;
            // What was said of it is not taken down: it may be there, or not.
            world.model.in_doubt.insert(BlobId::of(b"on its way").0);
            let _ = on_its_way.await.unwrap();
        }
        8 | 9 => {
            world.heal().await;
            tokio::time::sleep(Duration::from_secs(10)).await;
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
            world.crash_relay().await;
            if world.open().await.is_ok() {
                world.check().await;
            }
        }
        _ => {
            world.heal().await;
            if world.array.is_none() {
                world.open().await.unwrap();
            }
            world.until_writable().await;
            world.store(1).await;
            world.check().await;
        }
    }
    for index in 0..world.servers.len() {
        if world.servers[index].disk.is_dead() {
            world.stop_server(index, true).await;
        }
    }
}
