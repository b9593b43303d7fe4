//! Copies that were lost are made again, and surplus ones dropped (SPEC B14).

use super::*;

impl World {
    /// Everything is sealed: what was open is, once it was opened again.
    async fn seal_all(&mut self) {
        self.crash_relay().await;
        self.open().await.unwrap();
        self.until_writable().await;
    }

    /// A server re-reads all that it has.
    async fn scrub(&self, index: usize) {
        let running = self.servers[index].running.clone().unwrap();
        running.shared.scrub_round().await.unwrap();
    }

    /// As many copies as promised of everything, and no more.
    async fn until_healed(&self) {
        for _ in 0..1200 {
            tokio::time::sleep(Duration::from_secs(5)).await;
            let status = self.array.as_ref().unwrap().status();
            let is_surplus = self.copies().values().any(|copies| copies.len() > 2);
            if status.under_replicated == 0 && status.heal.copies_left == 0 && !is_surplus {
                return;
            }
        }
        panic!("not healed: {:?}", self.array.as_ref().unwrap().status());
    }
}

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

// SPEC: B14
#[test]
fn whatever_becomes_of_one_servers_copies_there_are_two_of_each_again() {
    let fates =
        [Fate::Replaced, Fate::Gone, Fate::BackLate, Fate::BackSoon, Fate::FileDeleted, Fate::Flipped];
    seeds(60, |seed| {
        run(async {
            let fate = fates[usize::try_from(seed).unwrap() % fates.len()];
            let mut world = World::new(seed, [3, 4][usize::try_from(seed / 6 % 2).unwrap()]);
            world.heal().await;
            world.open().await.unwrap();
            for _ in 0..3 {
                world.store(3).await;
                world.seal_all().await;
            }
            let index = world.chance.random_range(0..3);
            world.stop_server(index, true).await;
            let names = world.servers[index].disk.list().unwrap();
            let of_one: Vec<String> = names.into_iter().filter(|name| name.ends_with(".seg")).collect();
            let faulty = seed % 4 == 3;
            if faulty {
                let other = (index + 1) % 3;
                let fault = [Fault::Eio, Fault::NoSpace, Fault::Crash][world.chance.random_range(0..3)];
                let after = world.chance.random_range(0..30);
                world.servers[other].disk.inject(after, fault);
            }
            match fate {
                Fate::Replaced => {
                    world.servers[index].disk = SimDisk::new(seed + 1000);
                    assert!(world.start_server(index));
                }
                Fate::Gone => {}
                Fate::BackLate | Fate::BackSoon => {
                    let late = matches!(fate, Fate::BackLate);
                    world.store(2).await;
                    tokio::time::sleep(Duration::from_secs(if late { 3600 } else { 600 })).await;
                    assert!(world.start_server(index));
                }
                Fate::FileDeleted => {
                    if let Some(name) = of_one.first() {
                        world.servers[index].disk.lose(name);
                    }
                    assert!(world.start_server(index));
                }
                Fate::Flipped => {
                    if let Some(name) = of_one.first() {
                        let len = world.servers[index].disk.contents(name).len() as u64;
                        let at = world.chance.random_range(4096..len);
                        world.servers[index].disk.flip(name, at);
                    }
                    assert!(world.start_server(index));
                }
            }
            if faulty {
                tokio::time::sleep(Duration::from_secs(3600)).await;
                world.heal().await;
            }
            if matches!(fate, Fate::Flipped) {
                world.scrub(index).await;
            }
            world.until_healed().await;
            world.check().await;
            if matches!(fate, Fate::BackSoon | Fate::BackLate) && !faulty {
                let made = world.array.as_ref().unwrap().status().heal.copies_made;
                assert_eq!(
                    made > 0,
                    matches!(fate, Fate::BackLate) && !of_one.is_empty(),
                    "{fate:?}: {made}"
                );
            }
            // Any one of them may go now.
            if !matches!(fate, Fate::Gone) {
                let another = world.chance.random_range(0..world.servers.len());
                world.stop_server(another, true).await;
                world.check().await;
            }
            world.crash_relay().await;
            world.finish().await;
        });
    });
}
