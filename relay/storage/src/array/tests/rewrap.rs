//! The array key is changed: while servers are there or away, while the relay writes, stops and starts again.

use std::time::Duration;

use rand::SeedableRng;
use tokio::time::timeout;

use super::*;
use crate::disk::{Disk, DiskFile};
use crate::keys::WRAPPED_LEN;
use crate::segment::RECORDS_AT;
use crate::segment::header::SegmentHeader;
use crate::sim::{SimServers, run, seeds};

/// Where the wrapped day key stands in a header block.
const KEY_AT: usize = 48;

fn rotated(keys: &ArrayKeys) -> ArrayKeys {
    keys.rotated(&mut StdRng::seed_from_u64(77)).unwrap()
}

/// Segment files by their names, header block and records, without what is filled ahead.
fn files(servers: &SimServers, index: usize) -> BTreeMap<String, Vec<u8>> {
    let disk = servers.disk(index);
    let names = disk.list().unwrap().into_iter();
    assert!(disk.list().unwrap().iter().all(|name| !name.ends_with(".head")), "nothing is left beside");
    names.filter(|name| name.ends_with(".seg")).map(|name| (name.clone(), disk.contents(&name))).collect()
}

fn wrappings(servers: &SimServers, index: usize) -> BTreeMap<String, Vec<u8>> {
    let key = |file: Vec<u8>| file[KEY_AT..KEY_AT + WRAPPED_LEN].to_vec();
    files(servers, index).into_iter().map(|(name, file)| (name, key(file))).collect()
}

async fn read_everything(array: &Array, stored: &[(StoredBlob, Vec<u8>)]) {
    for (blob, data) in stored {
        assert!(read(array, blob).await.unwrap() == *data);
    }
    let (found, alarms) = replayed(array).await.unwrap();
    assert_eq!((found.len(), alarms), (stored.len(), ReplayAlarms::default()));
}

async fn put(array: &Array, stored: &mut Vec<(StoredBlob, Vec<u8>)>) {
    let seed = stored.len() as u64;
    let class = Class::ALL[stored.len() % Class::ALL.len()];
    let data = bytes(seed, 1_500_000 + stored.len() * 1000);
    let (_, blob) = store(array, class, &data).await.unwrap();
    stored.push((blob, data));
}

#[test]
fn a_changed_array_key_wraps_everything_anew_and_the_former_one_opens_nothing() {
    run(async {
        let mut servers = SimServers::new(1, 2);
        let first = servers.keys().clone();
        let mut stored = Vec::new();
        let array = servers.open().await.unwrap();
        for _ in 0..10 {
            put(&array, &mut stored).await;
        }
        array.close().await;
        // Sealed segments and open ones.
        let array = servers.open().await.unwrap();
        for _ in 0..5 {
            put(&array, &mut stored).await;
        }
        let before = wrappings(&servers, 0);
        assert!(array.servers_to_rewrap().is_empty());

        let both = rotated(&first);
        array.set_keys(both.clone());
        assert_eq!((array.servers_to_rewrap().len(), array.status().rewraps_due), (2, 2));
        put(&array, &mut stored).await;
        array.rewrapped().await;
        put(&array, &mut stored).await;
        read_everything(&array, &stored).await;
        let settled = both.settled();
        array.set_keys(settled.clone());
        read_everything(&array, &stored).await;
        array.close().await;

        let after = wrappings(&servers, 0);
        assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().take(before.len()).collect::<Vec<_>>());
        assert!(before.iter().all(|(name, key)| after[name] != *key), "each was wrapped anew");
        servers.set_keys(first);
        assert!(matches!(servers.open().await.err(), Some(OpenError::WrongKey)));
        servers.set_keys(settled);
        let array = servers.open().await.unwrap();
        assert_eq!(array.status().unsealed, 0);
        read_everything(&array, &stored).await;
        assert!(files(&servers, 0) == files(&servers, 1), "copies are byte-identical");
    });
}

#[test]
fn a_server_that_is_away_keeps_the_former_key_until_it_is_back() {
    run(async {
        let mut servers = SimServers::new(2, 3);
        let mut stored = Vec::new();
        let array = servers.open().await.unwrap();
        for _ in 0..12 {
            put(&array, &mut stored).await;
        }
        let before = wrappings(&servers, 2);
        assert!(!before.is_empty());
        servers.stop(2, true).await;
        let both = rotated(servers.keys());
        array.set_keys(both.clone());
        assert!(timeout(Duration::from_secs(3600), array.rewrapped()).await.is_err(), "it is waited for");
        let away = array.servers_to_rewrap();
        assert_eq!(away.len(), 1);
        array.close().await;

        // Also after a restart of the relay.
        servers.set_keys(both.clone());
        let array = servers.open().await.unwrap();
        assert!(timeout(Duration::from_secs(3600), array.rewrapped()).await.is_err());
        assert_eq!(array.servers_to_rewrap(), away);
        assert!(servers.start(2));
        array.rewrapped().await;
        let after = wrappings(&servers, 2);
        assert!(before.iter().all(|(name, key)| after.get(name).is_none_or(|now| now != key)));
        array.set_keys(both.settled());
        read_everything(&array, &stored).await;
    });
}

// SPEC: C5
#[test]
fn a_relay_or_server_that_dies_at_any_moment_of_the_change_goes_on_with_it_and_loses_nothing() {
    seeds(40, |seed| {
        run(async {
            let mut servers = SimServers::new(seed, 2);
            let mut stored = Vec::new();
            let array = servers.open().await.unwrap();
            for _ in 0..6 {
                put(&array, &mut stored).await;
            }
            array.close().await;
            let both = rotated(servers.keys());
            servers.set_keys(both.clone());
            // Each turn goes a little further than the one before it.
            for turn in 0..6_u64 {
                let array = servers.open().await.unwrap();
                for _ in 0..seed % 7 + turn * 5 {
                    tokio::task::yield_now().await;
                }
                let dies = usize::try_from((seed + turn) % 3).unwrap();
                if dies < 2 {
                    servers.stop(dies, true).await;
                }
                drop(array);
                for index in 0..2 {
                    assert!(servers.start(index));
                }
            }
            let array = servers.open().await.unwrap();
            array.rewrapped().await;
            put(&array, &mut stored).await;
            array.set_keys(both.settled());
            read_everything(&array, &stored).await;
            array.close().await;
            servers.set_keys(both.settled());
            let array = servers.open().await.unwrap();
            read_everything(&array, &stored).await;
            assert!(files(&servers, 0) == files(&servers, 1), "copies are byte-identical");
        });
    });
}

#[test]
fn a_copy_that_comes_back_with_the_former_wrapping_is_read_and_put_right() {
    for stale in 0..2 {
        run(async {
            let mut servers = SimServers::new(3, 2);
            let mut stored = Vec::new();
            let array = servers.open().await.unwrap();
            for _ in 0..4 {
                put(&array, &mut stored).await;
            }
            array.close().await;
            servers.open().await.unwrap().close().await; // sealed now
            let before = files(&servers, stale);
            let both = rotated(servers.keys());
            let array = servers.open().await.unwrap();
            array.set_keys(both.clone());
            array.rewrapped().await;
            array.set_keys(both.settled());
            array.close().await;
            servers.set_keys(both.settled());

            servers.stop(stale, false).await;
            for (name, file) in &before {
                let there = servers.disk(stale).open(name).unwrap();
                there.write_at(0, &file[..usize::try_from(RECORDS_AT).unwrap()]).unwrap();
                there.sync_data().unwrap();
            }
            assert!(servers.start(stale));
            let array = servers.open().await.unwrap();
            read_everything(&array, &stored).await;
            array.rewrapped().await;
            assert!(files(&servers, 0) == files(&servers, 1), "it was put right");
            assert_eq!(array.status().bad_copies, 0);
        });
    }
}

#[test]
fn bad_input_34_a_server_that_shows_another_segments_key_does_not_get_it_written_elsewhere() {
    run(async {
        let mut servers = SimServers::new(4, 2);
        let array = servers.open().await.unwrap();
        // Two segments with one deletion day: the key of one opens as that of the other.
        let data = bytes(1, 12 << 20);
        store(&array, Class::Days30, &data).await.unwrap();
        array.close().await;
        servers.open().await.unwrap().close().await; // sealed now
        let header = |file: &[u8]| SegmentHeader::decode(&file[..4096]).unwrap();
        let headers: Vec<_> =
            files(&servers, 1).iter().map(|(name, file)| (name.clone(), header(file))).collect();
        let [(_, one), (name, other), ..] = &headers[..] else { panic!("one segment only") };
        assert_eq!(one.deletion_day, other.deletion_day);
        servers.stop(1, false).await;
        let forged = SegmentHeader { day_key: one.day_key, ..other.clone() };
        let there = servers.disk(1).open(name).unwrap();
        there.write_at(0, &forged.encode()).unwrap();
        there.sync_data().unwrap();
        assert!(servers.start(1));

        let both = rotated(servers.keys());
        servers.set_keys(both.clone());
        let array = servers.open().await.unwrap();
        array.rewrapped().await;
        let key_of = |header: &SegmentHeader| {
            both.unwrap_day_key(header.deletion_day, &header.day_key.unwrap()).unwrap().0
        };
        let right = key_of(other);
        assert!(key_of(&header(&files(&servers, 0)[name])).is_same(&right), "the right key is where it was");
        assert!(array.status().bad_copies > 0, "and it is told");
    });
}
