//! Reading while a server is slow, or hangs: in virtual time, so that what is waited is exactly what was decided.

use std::time::Duration;

use tokio::time::Instant;

use super::*;
use crate::limits::{HEDGE_DELAY_MAX, PROBE_PAUSE};
use crate::sim::{SimServers, run};

const HANGS: Duration = Duration::from_secs(1_000_000);
const PORTIONS: usize = 40;

/// Two servers whose answers can be delayed, with a blob of many portions on both, read once.
struct World {
    servers: SimServers,
    array: Array,
    blob: StoredBlob,
    data: Vec<u8>,
}

impl World {
    async fn new() -> Self {
        let mut servers = SimServers::new(1, 2);
        for index in 0..2 {
            servers.delay(index, Duration::ZERO);
        }
        let array = servers.open().await.unwrap();
        let data = bytes(1, PORTIONS << 20);
        let (_, blob) = store(&array, Class::Days30, &data).await.unwrap();
        let world = Self { servers, array, blob, data };
        assert_eq!(world.read().await, Duration::ZERO, "in virtual time nothing takes any");
        world
    }

    /// Reads the blob; says how long that took.
    async fn read(&self) -> Duration {
        let started = Instant::now();
        assert!(read(&self.array, &self.blob).await.unwrap() == self.data);
        started.elapsed()
    }
}

// SPEC: B14
#[test]
fn an_array_begins_when_all_its_servers_are_there_also_where_one_is_slow() {
    run(async {
        let mut servers = SimServers::new(1, 2);
        servers.delay(0, Duration::ZERO);
        // Longer than servers are waited for that an array can do without.
        servers.delay(1, Duration::from_secs(4));
        let array = servers.open().await.unwrap();
        assert!(array.status().servers.iter().all(|server| server.live), "{:?}", array.status());
    });
}

// SPEC: C9
#[test]
fn a_server_that_hangs_costs_a_reader_one_short_wait_and_not_one_for_each_portion() {
    for hanging in 0..2 {
        run(async {
            let mut world = World::new().await;
            world.servers.delay(hanging, HANGS);
            let took = world.read().await;
            assert!(took > Duration::ZERO && took <= HEDGE_DELAY_MAX, "{took:?}");
            let status = world.array.status();
            assert!((1..=4).contains(&status.hedged), "{status:?}");
            assert_eq!((status.lagging, status.fallovers, status.bad_copies), (1, 0, 0), "{status:?}");
            assert_eq!(world.read().await, Duration::ZERO, "it is asked last now");
            assert_eq!(world.array.status().hedged, status.hedged);
        });
    }
}

// SPEC: C9
#[test]
fn a_server_that_is_slow_is_overtaken_and_read_from_again_when_it_is_quick() {
    run(async {
        let mut world = World::new().await;
        world.servers.delay(0, Duration::from_secs(5));
        let took = world.read().await;
        assert!(took > Duration::ZERO && took <= HEDGE_DELAY_MAX, "{took:?}");
        for _ in 0..20 {
            assert_eq!(world.read().await, Duration::ZERO);
            tokio::time::sleep(PROBE_PAUSE).await;
        }
        assert_eq!(world.array.status().lagging, 1, "no probe was quick");

        world.servers.delay(0, Duration::ZERO);
        // What was asked of it while it was slow is answered first.
        for _ in 0..400 {
            tokio::time::sleep(PROBE_PAUSE).await;
            assert_eq!(world.read_one().await, Duration::ZERO);
        }
        assert_eq!(world.array.status().lagging, 0, "a probe was quick");
    });
}

// SPEC: C9
#[test]
fn many_readers_at_once_all_overtake_a_server_that_hangs() {
    run(async {
        let mut world = World::new().await;
        world.servers.delay(1, HANGS);
        let started = Instant::now();
        let readers: Vec<_> = (0..50)
            .map(|reader| {
                let (array, blob) = (world.array.clone(), world.blob.clone());
                tokio::spawn(async move {
                    let start = reader << 18;
                    read_all(array.read_blob(&blob, start..start + (3 << 20))).await.map(|read| (start, read))
                })
            })
            .collect();
        for reader in readers {
            let (start, read) = reader.await.unwrap().unwrap();
            let start = usize::try_from(start).unwrap();
            assert!(read == world.data[start..start + (3 << 20)]);
        }
        let took = started.elapsed();
        assert!(took <= 2 * HEDGE_DELAY_MAX, "{took:?}: more wait than there are hedges at once");
    });
}

// SPEC: C9
#[test]
fn an_array_that_is_slow_as_a_whole_is_read_without_asking_for_everything_twice() {
    run(async {
        let mut world = World::new().await;
        for index in 0..2 {
            world.servers.delay(index, Duration::from_millis(300));
        }
        let before = world.array.status();
        for _ in 0..3 {
            world.read().await;
        }
        let status = world.array.status();
        let reads = 3 * PORTIONS as u64;
        assert!(status.hedged - before.hedged <= 8 + reads / 5, "{status:?}");
    });
}

impl World {
    /// Reads a byte.
    async fn read_one(&self) -> Duration {
        let started = Instant::now();
        read_all(self.array.read_blob(&self.blob, 0..1)).await.unwrap();
        started.elapsed()
    }
}
