//! One of three servers goes away in the middle of a write.

use super::*;

/// How one of three servers goes away in the middle of a write.
#[derive(Clone, Copy, Debug)]
enum Loss {
    Killed,
    PowerLost,
    Cut,
    DiskFails,
    DiskFull,
    Lies(Lie),
}

/// With two copies and one of three servers going away in the middle of writes: each of them is acknowledged, after a
/// short delay at most; and whoever takes the array over finds all of it once, whichever server is away then.
// SPEC: C5, B12
#[test]
fn writing_goes_on_whatever_one_of_three_servers_does() {
    let losses = [Loss::Killed, Loss::PowerLost, Loss::Cut, Loss::DiskFails, Loss::DiskFull];
    let losses: Vec<Loss> = losses.into_iter().chain(Lie::ALL.map(Loss::Lies)).collect();
    seeds(200, |seed| {
        run(async {
            let mut world = World::new(seed, 3);
            world.heal().await;
            world.open().await.unwrap();
            world.store(3).await;
            let loss = losses[usize::try_from(seed).unwrap() % losses.len()];
            let index = world.chance.random_range(0..3);
            for _ in 0..2 {
                let before = world.model.acked.len();
                let start = tokio::time::Instant::now();
                world.lose_while_storing(index, loss).await;
                assert_eq!(world.model.acked.len(), before + 4, "{loss:?}: every write is acknowledged");
                let took = start.elapsed();
                assert!(took < Duration::from_secs(5), "{loss:?}: acknowledged after {took:?}");
                world.check().await;
            }
            // The next writer reaches the two others, or the one that was lost and one other.
            world.crash_relay().await;
            world.net.lock().unwrap().lies.clear();
            if seed % 2 == 0 {
                world.heal().await;
                let other = (index + world.chance.random_range(1..3)) % 3;
                world.stop_server(other, seed % 4 == 0).await;
            }
            world.open().await.unwrap();
            world.check().await;
            let before = world.model.acked.len();
            world.store(2).await;
            assert_eq!(world.model.acked.len(), before + 2, "{loss:?}: two of three servers are enough");
            world.crash_relay().await;
            world.finish().await;
        });
    });
}

impl World {
    /// Four blobs, and `loss` somewhere in the middle.
    async fn lose_while_storing(&mut self, index: usize, loss: Loss) {
        let Some(array) = self.array.clone() else { return };
        let mut tasks = JoinSet::new();
        for len in [9_000, 300_000, 1_200_000, 17] {
            self.stored += 1;
            let data = bytes(self.stored, len);
            let array = array.clone();
            tasks.spawn(async move { (store(&array, Class::Days30, &data).await, data) });
        }
        if matches!(loss, Loss::DiskFails | Loss::DiskFull) {
            let fault = if matches!(loss, Loss::DiskFull) { Fault::NoSpace } else { Fault::Eio };
            let after = self.chance.random_range(0..6);
            self.servers[index].disk.inject(after, fault);
        }
        for _ in 0..self.chance.random_range(0..200) {
            tokio::task::yield_now().await;
        }
        match loss {
            Loss::Killed => self.stop_server(index, false).await,
            Loss::PowerLost => self.stop_server(index, true).await,
            Loss::Cut => self.cut(index),
            Loss::Lies(lie) => self.lie(index, lie),
            Loss::DiskFails | Loss::DiskFull => {}
        }
        for (result, data) in tasks.join_all().await {
            self.say(("stored", data.len(), result.as_ref().map(|(sequence, _)| *sequence)));
            if let Ok((sequence, blob)) = result {
                assert!(self.model.acked.insert(sequence, (blob, data)).is_none());
            } else {
                self.model.in_doubt.insert(BlobId::of(&data).0);
            }
        }
    }
}
