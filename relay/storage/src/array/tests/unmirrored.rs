//! Writes that are acknowledged before all copies are made (SPEC B12, where so set), in virtual time.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::*;
use crate::sim::{SimServers, run};

/// Less than a mirror takes here, and more than anything else does.
const AT_ONCE: Duration = Duration::from_millis(10);
/// What a slow mirror takes: less than what it may take.
const SLOWLY: Duration = Duration::from_millis(200);

/// Servers whose answers can be delayed, and a relay that acknowledges after the first copy.
struct World {
    servers: SimServers,
    array: Option<Array>,
    stored: Vec<(StoredBlob, Vec<u8>)>,
}

impl World {
    async fn new(count: u8) -> Self {
        let mut servers = SimServers::new(1, count);
        for index in 0..usize::from(count) {
            servers.delay(index, Duration::ZERO);
        }
        servers.set_acknowledge_after(1);
        let array = Some(servers.open().await.unwrap());
        let mut world = Self { servers, array, stored: Vec::new() };
        world.store(9_000).await;
        world.until_mirrored().await;
        world
    }

    fn array(&self) -> &Array {
        self.array.as_ref().unwrap()
    }

    /// Stores a blob; says how long its acknowledgement took.
    async fn store(&mut self, len: usize) -> Duration {
        let data = bytes(self.stored.len() as u64, len);
        let started = Instant::now();
        let (_, blob) = store(self.array(), Class::Days30, &data).await.unwrap();
        self.stored.push((blob, data));
        started.elapsed()
    }

    /// From now on, what the relay sends there arrives later.
    fn slow_down(&self, server: usize, delay: Duration) {
        self.servers.net().slow_path(self.servers.writer(), self.servers.peer(server), delay);
    }

    async fn until_mirrored(&self) {
        while self.array().status().behind_bytes > 0 {
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn check(&self) {
        for (blob, data) in &self.stored {
            assert!(read(self.array(), blob).await.unwrap() == *data);
        }
        let (found, alarms) = replayed(self.array()).await.unwrap();
        assert_eq!((found.len(), alarms), (self.stored.len(), ReplayAlarms::default()));
        assert_eq!(self.array().status().bad_copies, 0, "{:?}", self.array().status());
    }

    /// The two servers that have the segment that is written.
    fn members(&self) -> [usize; 2] {
        let open = self.array().segments().into_iter().find(|segment| segment.state == SegmentState::Open);
        let copies = open.unwrap().copies;
        let index = |copy: &CopyStatus| {
            (0..self.servers.count()).find(|index| self.servers.peer(*index) == copy.server).unwrap()
        };
        [index(&copies[0]), index(&copies[1])]
    }

    async fn open(&mut self) -> Result<(), OpenError> {
        self.array = None;
        tokio::task::yield_now().await;
        self.array = Some(self.servers.open().await?);
        Ok(())
    }

    /// Copies of each file, byte for byte the same.
    async fn until_two_of_each(&self) {
        for _ in 0..100 {
            if self.servers.copies().values().all(|copies| copies.len() == 2 && copies[0] == copies[1])
                && self.array().status().under_replicated == 0
            {
                return;
            }
            sleep(Duration::from_secs(1)).await;
        }
        panic!("not mirrored: {:?}", self.array().status());
    }
}

// SPEC: B12
#[test]
fn a_slow_mirror_delays_no_acknowledgement_and_has_everything_a_moment_later() {
    for slow in 0..2 {
        run(async {
            let mut world = World::new(2).await;
            world.slow_down(slow, SLOWLY);
            for len in [20_000, 300_000, 1_200_000] {
                let took = world.store(len).await;
                assert!(took < AT_ONCE, "{took:?}");
            }
            let status = world.array().status();
            assert_eq!((status.copies, status.acknowledge_after), (2, 1));
            assert!(status.behind_bytes > 1_520_000, "{status:?}");
            let (blob, _) = world.stored.last().unwrap();
            assert!(!world.array().is_whole(&blob.location), "one copy is on its way");
            world.check().await;
            world.until_mirrored().await;
            let (blob, _) = world.stored.last().unwrap();
            assert!(world.array().is_whole(&blob.location));
            // Whichever of the two is there now has all of it.
            world.servers.stop(1 - slow, true).await;
            world.servers.net().open_paths();
            sleep(Duration::from_secs(1)).await;
            world.check().await;
        });
    }
}

// SPEC: B12
#[test]
fn with_all_copies_promised_a_slow_mirror_is_waited_for() {
    run(async {
        let mut world = World::new(2).await;
        world.servers.set_acknowledge_after(2);
        world.open().await.unwrap();
        world.slow_down(0, SLOWLY);
        let took = world.store(20_000).await;
        assert!(took >= SLOWLY, "{took:?}");
        assert_eq!(world.array().status().behind_bytes, 0);
    });
}

// SPEC: B12, C5
#[test]
fn who_dies_after_it_was_acknowledged_leaves_it_to_the_mirror_that_was_behind() {
    run(async {
        let mut world = World::new(3).await;
        let [first, mirror] = world.members();
        world.slow_down(mirror, SLOWLY);
        let took = world.store(300_000).await;
        assert!(took < AT_ONCE, "{took:?}");
        world.servers.stop(first, true).await;
        // The next write goes on elsewhere; what was on its way to the mirror arrives before.
        let took = world.store(5_000).await;
        assert!(took < Duration::from_secs(1), "{took:?}");
        world.check().await;
        assert_eq!(world.array().status().went_on, 1);
        world.servers.start(first);
        sleep(Duration::from_secs(60)).await;
        world.check().await;
        world.open().await.unwrap();
        world.until_two_of_each().await;
        world.check().await;
    });
}

// SPEC: B12, B14
#[test]
fn what_a_mirror_that_died_lacks_is_copied_to_another_server_at_once() {
    run(async {
        let mut world = World::new(3).await;
        let [_, mirror] = world.members();
        world.slow_down(mirror, SLOWLY);
        world.store(300_000).await;
        world.servers.stop(mirror, true).await;
        world.store(5_000).await;
        world.check().await;
        // Long before a server that is away is taken for lost.
        let died = Instant::now();
        while world.array().status().heal.copies_made == 0 {
            sleep(Duration::from_secs(1)).await;
            assert!(died.elapsed() < Duration::from_secs(60), "{:?}", world.array().status());
        }
        world.servers.start(mirror);
        sleep(Duration::from_secs(60)).await;
        world.open().await.unwrap();
        world.until_two_of_each().await;
        world.check().await;
    });
}

// SPEC: B12
#[test]
fn who_takes_the_array_over_waits_for_the_one_server_that_may_have_more() {
    run(async {
        let mut world = World::new(3).await;
        let [first, mirror] = world.members();
        let other = 3 - first - mirror;
        world.slow_down(mirror, SLOWLY);
        world.store(300_000).await;
        world.array = None;
        world.servers.stop(first, true).await;
        world.servers.net().open_paths();
        let Err(OpenError::Unmirrored { servers }) = world.open().await else { panic!("it is not known") };
        assert_eq!(servers, [world.servers.peer(first)]);
        world.servers.start(first);
        // A server to which nothing was written is not waited for.
        world.servers.stop(other, true).await;
        world.open().await.unwrap();
        world.check().await;
        world.servers.start(other);
        sleep(Duration::from_secs(60)).await;
        // Everything is sealed on both: now any two servers are enough.
        world.array = None;
        world.servers.stop(first, true).await;
        world.open().await.unwrap();
        world.check().await;
    });
}

// SPEC: B12
#[test]
fn a_server_that_was_given_up_is_not_waited_for() {
    run(async {
        let mut world = World::new(3).await;
        let [first, mirror] = world.members();
        world.slow_down(mirror, Duration::from_secs(1_000_000));
        world.store(300_000).await;
        world.array = None;
        world.servers.stop(first, true).await;
        world.servers.net().open_paths();
        world.servers.stop(mirror, true).await;
        world.servers.start(mirror);
        assert!(matches!(world.open().await, Err(OpenError::Unmirrored { .. })));
        world.servers.give_up(first);
        world.open().await.unwrap();
        let (blob, data) = &world.stored[0];
        assert!(read(world.array(), blob).await.unwrap() == *data, "what was mirrored is there");
        world.store(5_000).await;
    });
}

// SPEC: B12
#[test]
fn a_mirror_that_hangs_stops_no_more_than_what_may_be_held_in_memory() {
    run(async {
        let world = World::new(2).await;
        world.slow_down(1, Duration::from_secs(1_000_000));
        let array = world.array().clone();
        let behind = |array: &Array| array.status().behind_bytes;
        // More than is held, in the time before the mirror is given up.
        let writing = tokio::spawn(async move {
            for seed in 0..40 {
                let _ = store(&array, Class::Days30, &bytes(seed, 1 << 20)).await;
            }
        });
        let mut most = 0;
        while !writing.is_finished() {
            most = most.max(behind(world.array()));
            sleep(Duration::from_millis(100)).await;
        }
        assert!(most > 4 << 20, "{most} bytes were on their way at most");
        assert!(most <= LANE_DATA_MAX as u64, "{most} bytes were on their way");
    });
}
