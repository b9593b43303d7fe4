//! Dead records of settled segments go, on real servers, and nothing else changes (SPEC D8).

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use super::real::{Cluster, until};
use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_input_37_a_segment_is_not_thinned_by_the_writers_clock_alone() {
    let cluster = Cluster::start(2).await;
    let array = cluster.open().await;
    store(&array, Class::Days30, &bytes(1, 700_000)).await.unwrap();
    array.close().await;
    let array = cluster.open().await;
    until(|| array.status().unsealed == 0).await;
    let segment = array.segments()[0].segment;
    let thinned = array.thin(segment, Vec::new()).await;
    assert!(matches!(thinned, Err(ThinError::NotNow)), "of today: {thinned:?}");
    cluster.set_now(NOW.plus(Duration::from_hours(48)));
    let thinned = array.thin(segment, Vec::new()).await;
    assert!(matches!(thinned, Err(ThinError::NotNow)), "the servers' clocks have jumped: {thinned:?}");
    array.close().await;
}

/// Bytes that a file takes on the disk.
fn allocated(path: &Path) -> u64 {
    std::fs::metadata(path).unwrap().blocks() * 512
}

/// Stores blobs into one segment, which is settled then, and old enough; gives the array, opened again, and the blobs.
async fn settled(cluster: &mut Cluster, count: u64) -> (Array, Vec<(StoredBlob, Vec<u8>)>) {
    let array = cluster.open().await;
    let mut stored = Vec::new();
    for seed in 0..count {
        let data = bytes(seed, 700_000);
        stored.push((store(&array, Class::Days30, &data).await.unwrap().1, data));
    }
    array.close().await;
    cluster.off_until(NOW.plus(Duration::from_hours(48))).await;
    let array = cluster.open().await;
    until(|| array.status().unsealed == 0).await;
    (array, stored)
}

fn places<'b>(blobs: impl IntoIterator<Item = &'b (StoredBlob, Vec<u8>)>) -> Vec<(u64, u64)> {
    let places = blobs.into_iter().flat_map(|(blob, _)| blob.location.places().collect::<Vec<_>>());
    places.map(|place| (place.offset, u64::from(place.length))).collect()
}

// SPEC: D8
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_segment_gives_the_room_of_dead_blobs_back_on_each_copy_and_what_is_alive_reads_as_before() {
    let mut cluster = Cluster::start(3).await;
    let (array, stored) = settled(&mut cluster, 20).await;
    let segment = array.segments()[0].segment;
    assert_eq!(array.segments().len(), 1);
    let alive: Vec<_> = stored.iter().step_by(5).cloned().collect();
    let before = replayed(&array).await.unwrap();
    let given_back = array.thin(segment, places(&alive)).await.unwrap();
    assert!(given_back > 16 * 700_000 && given_back < 17 * 700_000, "{given_back}");
    assert_eq!(array.segments()[0].stored_len + given_back, array.segments()[0].records_len);
    assert_eq!(array.status().thinned_bytes, given_back);
    let copies: Vec<_> = (0..3).flat_map(|index| cluster.segment_files(index)).collect();
    assert_eq!(copies.len(), 2);
    assert!(copies.iter().all(|copy| allocated(copy) < 5 * 700_000), "sparse on the disk");
    assert!(std::fs::read(&copies[0]).unwrap() == std::fs::read(&copies[1]).unwrap(), "and byte-identical");
    assert_eq!(array.thin(segment, places(&alive)).await.unwrap(), 0, "nothing more");

    for (blob, data) in &alive {
        assert!(read(&array, blob).await.unwrap() == *data);
        assert!(array.is_whole(&blob.location));
    }
    assert_eq!(read(&array, &stored[1].0).await, Err(ReadError::Damaged), "a dead one is gone");
    assert_eq!(replayed(&array).await.unwrap(), before, "the log is whole");
    array.close().await;

    // A server with a thinned copy is lost, and its copy made again from the other: sparse as well.
    let lost = (0..3).find(|index| !cluster.segment_files(*index).is_empty()).unwrap();
    cluster.stop(lost).await;
    std::fs::remove_dir_all(cluster.unit(lost)).unwrap();
    cluster.restart(lost).await;
    let config = ArrayConfig { heal_interval: Duration::from_millis(50), ..cluster.config() };
    let array = cluster.try_open(config).await.unwrap();
    until(|| array.segments()[0].copies.iter().filter(|copy| copy.whole && copy.sealed).count() >= 2).await;
    let copies: Vec<_> = (0..3).flat_map(|index| cluster.segment_files(index)).collect();
    assert!(copies.len() >= 2 && copies.iter().all(|copy| allocated(copy) < 5 * 700_000), "{copies:?}");
    for (blob, data) in &alive {
        assert!(read(&array, blob).await.unwrap() == *data);
    }
    assert_eq!(replayed(&array).await.unwrap(), before);
    array.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_segment_is_left_as_it_is_while_a_copy_is_away_or_it_is_still_written() {
    let mut cluster = Cluster::start(2).await;
    let (array, stored) = settled(&mut cluster, 3).await;
    let segment = array.segments()[0].segment;
    store(&array, Class::Days30, b"in another segment").await.unwrap();
    let open = array.segments().into_iter().find(|other| other.segment != segment).unwrap().segment;
    assert!(matches!(array.thin(open, Vec::new()).await, Err(ThinError::NotNow)));
    cluster.stop(1).await;
    until(|| array.status().servers.iter().any(|server| !server.live)).await;
    assert!(matches!(array.thin(segment, Vec::new()).await, Err(ThinError::NotNow)));
    let (blob, data) = &stored[1];
    assert!(read(&array, blob).await.unwrap() == *data);
    cluster.restart(1).await;
    until(|| array.status().servers.iter().all(|server| server.live)).await;
    assert!(array.thin(segment, places([&stored[1]])).await.unwrap() > 1_000_000);
    assert!(read(&array, blob).await.unwrap() == *data);
    array.close().await;
}
