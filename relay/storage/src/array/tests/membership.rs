//! The table changed while real servers run: added, drained, removed, lost, replaced, and found again.

use std::time::Duration;

use super::real::{Cluster, until};
use super::*;
use crate::ids::Epoch;
use crate::table::{ChangeError, Place, ServerEntry, ServerState, TableError};

impl Cluster {
    fn entry(&self, index: usize) -> ServerEntry {
        ServerEntry::new(self.identities[index].peer(), self.addresses[index])
    }

    fn peer(&self, index: usize) -> PeerId {
        self.identities[index].peer()
    }

    /// A configuration that names only some of the servers.
    fn config_of(&self, indices: &[usize]) -> ArrayConfig {
        let servers = indices.iter().map(|index| self.entry(*index)).collect();
        ArrayConfig { servers, heal_interval: Duration::from_millis(100), ..self.config() }
    }

    async fn open_with(&self, indices: &[usize]) -> Array {
        self.try_open(self.config_of(indices)).await.unwrap()
    }

    /// Stores a blob; gives it, and who has it.
    async fn store_one(&self, array: &Array, seed: u64) -> (StoredBlob, Vec<PeerId>) {
        let (_, blob) = store(array, Class::Days30, &bytes(seed, 50_000)).await.unwrap();
        let mut servers: Vec<_> = array.data_keys(&blob.location).iter().map(|key| key.server).collect();
        servers.sort_unstable();
        servers.dedup();
        (blob, servers)
    }

    async fn reads(&self, array: &Array, seed: u64, blob: &StoredBlob) {
        assert!(read(array, blob).await.unwrap() == bytes(seed, 50_000));
    }
}

// SPEC: B14
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_added_takes_writes_and_is_found_again_by_who_was_never_told_of_it() {
    let mut cluster = Cluster::start(3).await;
    let array = cluster.open_with(&[0, 1]).await;
    let (first, _) = cluster.store_one(&array, 1).await;
    let table = array.change_table(&Change::Add(cluster.entry(2))).await.unwrap();
    assert_eq!((table.version, table.servers.len()), (2, 3));
    let again = array.change_table(&Change::Add(cluster.entry(2))).await;
    assert_eq!(again, Err(ChangeError::Unchanged.into()));

    cluster.stop(0).await;
    let (second, servers) = cluster.store_one(&array, 2).await;
    let mut expected = vec![cluster.peer(1), cluster.peer(2)];
    expected.sort_unstable();
    assert_eq!(servers, expected, "with one of three servers stopped, writes go on");
    array.close().await;

    // Server 0 is away, and server 2 is in no configuration.
    let again = cluster.open_with(&[0, 1]).await;
    assert_eq!(again.table().servers.len(), 3);
    cluster.reads(&again, 1, &first).await;
    cluster.reads(&again, 2, &second).await;
    cluster.store_one(&again, 3).await;
    cluster.restart(0).await;
    until(|| again.status().servers.iter().all(|server| server.live)).await;
    again.close().await;
}

// SPEC: B14
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_drains_gets_nothing_new_and_leaves_once_nothing_needs_it() {
    let cluster = Cluster::start(4).await;
    let array = cluster.open_with(&[0, 1]).await;
    let (old, _) = cluster.store_one(&array, 1).await;
    array.change_table(&Change::Add(cluster.entry(2))).await.unwrap();
    array.change_table(&Change::Drain(cluster.peer(0))).await.unwrap();
    for seed in 2..6 {
        let (_, servers) = cluster.store_one(&array, seed).await;
        assert!(!servers.contains(&cluster.peer(0)), "also not in the segment that it had begun");
    }
    let refused = array.change_table(&Change::Drain(cluster.peer(1))).await.unwrap_err();
    assert_eq!(refused, ChangeError::from(TableError::TooFew { servers: 1, copies: 2 }).into());
    let remove = Change::Remove(cluster.peer(0));
    while let Err(refused) = array.change_table(&remove).await {
        assert_eq!(refused, ChangeError::StillNeeded { peer: cluster.peer(0), segments: 1 }.into());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(array.status().under_replicated, 0);
    cluster.reads(&array, 1, &old).await;

    // One that has nothing goes at once.
    array.change_table(&Change::Add(cluster.entry(3))).await.unwrap();
    array.change_table(&Change::Drain(cluster.peer(3))).await.unwrap();
    let table = array.change_table(&Change::Remove(cluster.peer(3))).await.unwrap();
    assert_eq!(table.servers.len(), 2);
    array.change_table(&Change::Add(cluster.entry(3))).await.unwrap();
    array.change_table(&Change::Drain(cluster.peer(2))).await.unwrap();
    array.close().await;

    let again = cluster.open_with(&[0, 1, 3]).await;
    let peers: Vec<_> = again.status().servers.iter().map(|server| server.peer).collect();
    let expected = [1, 2, 3].map(|index| cluster.peer(index));
    assert_eq!(peers, expected, "what a configuration still names does not come back by itself");
    assert_eq!(again.table().server(&cluster.peer(2)).unwrap().state, ServerState::Draining);
    cluster.reads(&again, 1, &old).await;
    again.close().await;
}

// SPEC: B14
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_server_of_two_is_replaced_and_mail_goes_on() {
    let mut cluster = Cluster::start(3).await;
    let array = cluster.open_with(&[0, 1]).await;
    let (old, _) = cluster.store_one(&array, 1).await;
    cluster.stop(1).await;
    let added = array.change_table(&Change::Add(cluster.entry(2))).await;
    assert_eq!(added, Err(TableChangeError::TooFewServers { had: 1, needed: 2 }), "it may come back");
    let replace = Change::Replace { old: cluster.peer(1), new: cluster.entry(2), is_lost: true };
    let table = array.change_table(&replace).await.unwrap();
    assert_eq!((table.lacking, table.quorum()), (1, 2));
    let (new, servers) = cluster.store_one(&array, 2).await;
    assert!(servers.contains(&cluster.peer(2)), "{servers:?}");
    array.close().await;

    // The dead one comes back, with what it had, and the configuration still names it: it counts for nothing.
    cluster.restart(1).await;
    let again = cluster.open_with(&[0, 1]).await;
    let peers: Vec<_> = again.status().servers.iter().map(|server| server.peer).collect();
    assert_eq!(peers, [cluster.peer(0), cluster.peer(2)]);
    cluster.reads(&again, 1, &old).await;
    cluster.reads(&again, 2, &new).await;
    let back = again.change_table(&Change::Add(cluster.entry(1))).await;
    assert_eq!(back, Err(ChangeError::Lost(cluster.peer(1)).into()));
    until(|| again.status().lacking == 0).await;
    assert_eq!((again.status().under_replicated, again.table().quorum()), (0, 1));
    again.close().await;

    // What the dead one had was made again on the new one, and is read from there alone.
    cluster.stop(0).await;
    let alone = cluster.open_with(&[2]).await;
    cluster.reads(&alone, 1, &old).await;
    cluster.reads(&alone, 2, &new).await;
    alone.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_long_as_copies_of_a_lost_server_are_lacking_one_server_does_not_tell_what_there_is() {
    let mut cluster = Cluster::start(3).await;
    let array = cluster.open_with(&[0, 1]).await;
    cluster.store_one(&array, 1).await;
    cluster.stop(1).await;
    let replace = Change::Replace { old: cluster.peer(1), new: cluster.entry(2), is_lost: true };
    array.change_table(&replace).await.unwrap();
    array.close().await;
    assert_eq!(array.table().lacking, 1);
    cluster.stop(0).await;
    let alone = cluster.try_open(cluster.config_of(&[0, 2])).await;
    assert!(matches!(alone, Err(OpenError::TooFewServers { needed: 2, .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_reaches_too_few_servers_is_not_in_force_and_never_comes_back() {
    let mut cluster = Cluster::start(3).await;
    let array = cluster.open().await;
    cluster.stop(1).await;
    cluster.stop(2).await;
    until(|| array.status().servers.iter().filter(|server| server.live).count() == 1).await;
    let allow = |text: &str| Change::Allow(text.parse().unwrap());
    let failed = array.change_table(&allow("zone:one")).await;
    assert_eq!(failed, Err(TableChangeError::TooFewServers { had: 1, needed: 2 }));
    let shares = |table: &Table, text: &str| table.allowed_together.contains(&text.parse().unwrap());
    assert!(!shares(&array.table(), "zone:one"));
    cluster.restart(1).await;
    cluster.restart(2).await;
    until(|| array.status().servers.iter().all(|server| server.live)).await;
    let table = array.change_table(&allow("zone:two")).await.unwrap();
    assert!(table.version > 2 && shares(&table, "zone:two") && !shares(&table, "zone:one"));
    array.close().await;
    let again = cluster.open().await;
    assert!(shares(&again.table(), "zone:two") && !shares(&again.table(), "zone:one"));
    assert!(again.table().stamp() > table.stamp(), "in force under the new epoch");
    again.close().await;
}

// SPEC: B14
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_whose_adding_reached_too_few_of_the_others_knows_nothing_of_it() {
    let mut cluster = Cluster::start(4).await;
    let array = cluster.open_with(&[0, 1, 2]).await;
    cluster.stop(1).await;
    cluster.stop(2).await;
    until(|| array.status().servers.iter().filter(|server| server.live).count() == 1).await;
    let failed = array.change_table(&Change::Add(cluster.entry(3))).await;
    assert_eq!(failed, Err(TableChangeError::TooFewServers { had: 1, needed: 2 }));
    let reached = array.inner.shared.reach(&cluster.entry(3).record()).await.unwrap();
    assert_eq!(reached.epoch(), Epoch(0), "not even fenced: it must not count for an opening");
    cluster.restart(1).await;
    cluster.restart(2).await;
    until(|| array.status().servers.iter().all(|server| server.live)).await;
    array.change_table(&Change::Add(cluster.entry(3))).await.unwrap();
    array.close().await;
}

// SPEC: B11
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_mirroring_table_is_changed_while_the_array_runs() {
    let cluster = Cluster::start(4).await;
    let array = cluster.open().await;
    for pair in [[0, 1], [2, 3], [1, 2]] {
        let places = pair.map(|index| Place { server: cluster.peer(index), unit: None }).to_vec();
        let mut expected = pair.map(|index| cluster.peer(index)).to_vec();
        expected.sort_unstable();
        array.change_table(&Change::Mirror { writer: cluster.relay.peer(), places }).await.unwrap();
        for seed in 0..4 {
            assert_eq!(cluster.store_one(&array, seed).await.1, expected);
        }
    }
    array.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_not_there_or_does_not_let_us_in_is_not_added() {
    let cluster = Cluster::start(2).await;
    let array = cluster.open().await;
    let nobody = ServerEntry::new(PeerId::random(), "127.0.0.1:1".parse().unwrap());
    let refused = array.change_table(&Change::Add(nobody.clone())).await.unwrap_err();
    assert!(matches!(refused, TableChangeError::Unreachable { peer, .. } if peer == nobody.peer));
    assert!(refused.to_string().contains("Is it running"), "{refused}");
    let other = Cluster::start(1).await;
    let stranger = array.change_table(&Change::Add(other.entry(0))).await.unwrap_err();
    assert!(matches!(stranger, TableChangeError::Unreachable { .. }), "{stranger}");
    assert_eq!((array.table().version, array.table().servers.len()), (1, 2));
    cluster.store_one(&array, 1).await;
    array.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_writers_own_file_leads_to_servers_that_no_configuration_names() {
    let mut cluster = Cluster::start(4).await;
    let table_file = Some(cluster.folder.path().join("array.table"));
    let config =
        |indices: &[usize]| ArrayConfig { table_file: table_file.clone(), ..cluster.config_of(indices) };
    let array = cluster.try_open(config(&[0, 1])).await.unwrap();
    for index in [2, 3] {
        array.change_table(&Change::Add(cluster.entry(index))).await.unwrap();
    }
    let (blob, _) = cluster.store_one(&array, 1).await;
    array.close().await;
    let config = config(&[0]);
    cluster.stop(0).await;
    // Nobody that the configuration names answers.
    let again = cluster.try_open(config).await.unwrap();
    assert_eq!(again.table().servers.len(), 4);
    cluster.reads(&again, 1, &blob).await;
    again.close().await;
}
