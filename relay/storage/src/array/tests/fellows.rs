//! Several relays over the same servers, each reading what the others stored (SPEC D10).

use std::collections::BTreeSet;
use std::time::Duration;

use super::real::{Cluster, until};
use super::*;

impl Cluster {
    /// Two relays that read each other.
    async fn open_both(&self) -> (Array, Array) {
        let (one, other) = (self.open().await, self.open_fellow().await);
        one.set_fellows(BTreeSet::from([self.fellow.peer()])).await.unwrap();
        other.set_fellows(BTreeSet::from([self.relay.peer()])).await.unwrap();
        (one, other)
    }
}

async fn reads(array: &Array, stored: &[(StoredBlob, Vec<u8>)]) {
    for (blob, data) in stored {
        assert!(read(array, blob).await.unwrap() == *data);
    }
}

// SPEC: D10, C9
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_relay_stored_the_other_reads_also_with_a_server_away_and_after_the_writer_has_gone() {
    let mut cluster = Cluster::start(3).await;
    let (one, other) = cluster.open_both().await;
    let mut stored = Vec::new();
    for (seed, len) in [0, 10_000, 1_048_577, 5_000_000].into_iter().enumerate() {
        let data = bytes(seed as u64, len);
        stored.push((store(&one, Class::Days30, &data).await.unwrap().1, data));
    }
    reads(&other, &stored).await;
    assert!(other.has_all_copies(&stored[2].0.location).await, "on as many servers as promised");
    assert!(!other.is_whole(&stored[2].0.location), "and none of its own");
    let range = 1_048_570..3_000_000;
    let part = read_all(other.read_blob(&stored[3].0, range.clone())).await.unwrap();
    assert!(part == stored[3].1[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()]);
    // The other way round, and each replays what is its own.
    let theirs = store(&other, Class::Days7, b"of the other").await.unwrap().1;
    assert!(read(&one, &theirs).await.unwrap() == b"of the other");
    assert_eq!(replayed(&one).await.unwrap().0.len(), stored.len());
    assert_eq!(replayed(&other).await.unwrap().0.len(), 1);

    one.close().await;
    for away in 0..3 {
        cluster.stop(away).await;
        until(|| other.status().servers.iter().filter(|server| server.live).count() == 2).await;
        reads(&other, &stored).await;
        cluster.restart(away).await;
        until(|| other.status().servers.iter().all(|server| server.live)).await;
    }
    // A relay that has just started has seen nothing of it yet.
    drop(other);
    let other = cluster.open_fellow().await;
    reads(&other, &stored).await;
    other.close().await;
}

// SPEC: D10
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_the_writer_does_not_name_reads_nothing_and_one_that_it_names_no_more_neither() {
    let cluster = Cluster::start(2).await;
    let (one, other) = (cluster.open().await, cluster.open_fellow().await);
    let data = bytes(1, 100_000);
    let (_, blob) = store(&one, Class::Days30, &data).await.unwrap();
    other.set_fellows(BTreeSet::from([cluster.relay.peer()])).await.unwrap();
    assert_eq!(read(&other, &blob).await, Err(ReadError::Damaged), "named by the asker only");
    one.set_fellows(BTreeSet::from([cluster.fellow.peer()])).await.unwrap();
    assert!(read(&other, &blob).await.unwrap() == data);
    one.set_fellows(BTreeSet::new()).await.unwrap();
    assert!(read(&other, &blob).await.is_err(), "what it knew of where it lies does not help it");
    assert!(!other.has_all_copies(&blob.location).await);
    // The servers have it from the table on disk, too.
    one.set_fellows(BTreeSet::from([cluster.fellow.peer()])).await.unwrap();
    one.close().await;
    let mut cluster = cluster;
    for server in 0..2 {
        cluster.stop(server).await;
        cluster.restart(server).await;
    }
    until(|| other.status().servers.iter().all(|server| server.live)).await;
    assert!(read(&other, &blob).await.unwrap() == data);
    other.close().await;
}

// SPEC: C5, D10
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_that_went_on_in_another_segment_are_found_there_by_the_other_relay() {
    let mut cluster = Cluster::start(3).await;
    let (one, other) = cluster.open_both().await;
    let mut stored = Vec::new();
    let moved = |stored: &[(StoredBlob, Vec<u8>)]| {
        let is_moved = |(blob, _): &&(StoredBlob, Vec<u8>)| {
            one.places(&blob.location) != blob.location.places().collect::<Vec<_>>()
        };
        stored.iter().filter(is_moved).count()
    };
    // A member is stopped under load until records were on their way to it.
    for round in 0..30 {
        let writes: Vec<_> = (0..8)
            .map(|seed| {
                let (one, data) = (one.clone(), bytes(round * 8 + seed, 700_000));
                tokio::spawn(
                    async move { store(&one, Class::Days30, &data).await.map(|(_, blob)| (blob, data)) },
                )
            })
            .collect();
        let away = usize::try_from(round % 3).unwrap();
        cluster.stop(away).await;
        for write in writes {
            stored.push(write.await.unwrap().unwrap());
        }
        cluster.restart(away).await;
        until(|| one.status().servers.iter().all(|server| server.live)).await;
        if moved(&stored) > 0 {
            break;
        }
    }
    assert!(moved(&stored) > 0, "some went on elsewhere");
    until(|| other.status().servers.iter().all(|server| server.live)).await;
    reads(&other, &stored).await;
    // And once all is settled: the closed segments are sealed, empty ones gone.
    tokio::time::timeout(Duration::from_secs(60), async {
        while one.status().unsealed > 1 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .unwrap();
    drop(other);
    let other = cluster.open_fellow().await;
    reads(&other, &stored).await;
    one.close().await;
    other.close().await;
}
