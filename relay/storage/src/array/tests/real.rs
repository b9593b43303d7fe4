//! Real servers, real sockets, real folders.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rand::SeedableRng;
use tempfile::TempDir;

use super::*;
use crate::limits::CLOCK_LEAP;
use crate::local::LocalServers;
use crate::server::{ServerConfig, StorageServer};
use crate::table::ServerEntry;

pub(super) struct Cluster {
    pub(super) folder: TempDir,
    pub(super) relay: Identity,
    /// Another relay that the servers take.
    pub(super) fellow: Identity,
    key: ArrayKey,
    pub(super) identities: Vec<Identity>,
    servers: Vec<Option<StorageServer>>,
    pub(super) addresses: Vec<SocketAddr>,
    now: Arc<Mutex<UnixTime>>,
    local: LocalServers,
}

impl Cluster {
    pub(super) async fn start(count: usize) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let mut cluster = Self {
            folder: tempfile::tempdir().unwrap(),
            relay: Identity::generate(),
            fellow: Identity::generate(),
            key: ArrayKey::draw(&mut StdRng::seed_from_u64(1)),
            identities: (0..count).map(|_| Identity::generate()).collect(),
            servers: Vec::new(),
            addresses: Vec::new(),
            now: Arc::new(Mutex::new(NOW)),
            local: LocalServers::default(),
        };
        for index in 0..count {
            let server = cluster.make_server(index, "127.0.0.1:0".parse().unwrap()).await;
            cluster.addresses.push(server.address());
            cluster.servers.push(Some(server));
        }
        cluster
    }

    fn clock(&self) -> Clock {
        let now = Arc::clone(&self.now);
        Arc::new(move || *now.lock().unwrap())
    }

    pub(super) fn unit(&self, index: usize) -> PathBuf {
        self.folder.path().join(format!("server-{index}")).join("unit-0")
    }

    async fn make_server(&self, index: usize, listen: SocketAddr) -> StorageServer {
        let config = || ServerConfig {
            identity: self.identities[index].clone(),
            listen,
            units: vec![self.unit(index)],
            writers: vec![self.relay.peer(), self.fellow.peer()],
            clock: self.clock(),
            scrub_days: crate::limits::SCRUB_DAYS_DEFAULT,
            depot: None,
            local: self.local.clone(),
        };
        // The folder's lock of a server that was just dropped goes with its worker.
        for _ in 0..200 {
            match StorageServer::start(config()).await {
                Ok(server) => return server,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
        StorageServer::start(config()).await.unwrap()
    }

    pub(super) async fn stop(&mut self, index: usize) {
        self.servers[index].take().unwrap().stop().await;
    }

    pub(super) async fn restart(&mut self, index: usize) {
        self.servers[index] = Some(self.make_server(index, self.addresses[index]).await);
    }

    /// All clocks jump.
    pub(super) fn set_now(&self, time: UnixTime) {
        *self.now.lock().unwrap() = time;
    }

    /// All servers are off until `time`, and start then.
    pub(super) async fn off_until(&mut self, time: UnixTime) {
        for index in 0..self.servers.len() {
            self.stop(index).await;
        }
        self.set_now(time);
        for index in 0..self.servers.len() {
            self.restart(index).await;
        }
    }

    pub(super) fn config(&self) -> ArrayConfig {
        let servers = self.identities.iter().zip(&self.addresses);
        let servers =
            servers.map(|(identity, address)| ServerRecord { peer: identity.peer(), address: *address });
        ArrayConfig {
            reconnect_delay_max: Duration::from_millis(100),
            join_time_max: Duration::from_millis(500),
            ..ArrayConfig::new(servers.collect())
        }
    }

    pub(super) async fn open(&self) -> Array {
        self.try_open(self.config()).await.unwrap()
    }

    pub(super) async fn try_open(&self, config: ArrayConfig) -> Result<Array, OpenError> {
        Array::open(config, &self.relay, self.key.clone(), self.clock()).await
    }

    /// The array as the other relay has it, with the same array key.
    pub(super) async fn open_fellow(&self) -> Array {
        Array::open(self.config(), &self.fellow, self.key.clone(), self.clock()).await.unwrap()
    }

    pub(super) fn segment_files(&self, index: usize) -> Vec<PathBuf> {
        segment_files(&self.unit(index))
    }
}

fn segment_files(unit: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(unit).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries.filter(|path| path.extension().is_some_and(|end| end == "seg")).collect();
    files.sort();
    files
}

pub(super) async fn until(mut what: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if what() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within ten seconds");
}

// SPEC: C2, C4
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_of_the_same_process_are_spoken_to_without_a_socket() {
    let mut cluster = Cluster::start(3).await;
    let config = |cluster: &Cluster| {
        let nowhere = |entry: ServerEntry| ServerEntry { address: "127.0.0.1:1".parse().unwrap(), ..entry };
        let config = cluster.config();
        ArrayConfig {
            servers: config.servers.clone().into_iter().map(nowhere).collect(),
            local: cluster.local.clone(),
            ..config
        }
    };
    let array = cluster.try_open(config(&cluster)).await.unwrap();
    // Small ones to each directly, and large ones along the chain.
    let mut stored = Vec::new();
    for (seed, len) in [10_000, 3_000_000].into_iter().enumerate() {
        let data = bytes(seed as u64, len);
        stored.push((store(&array, Class::Days30, &data).await.unwrap().1, data));
    }
    cluster.stop(1).await;
    for (seed, len) in [10_000, 3_000_000].into_iter().enumerate() {
        let data = bytes(10 + seed as u64, len);
        stored.push((store(&array, Class::Days30, &data).await.unwrap().1, data));
    }
    for (blob, data) in &stored {
        assert!(read(&array, blob).await.unwrap() == *data);
    }
    cluster.restart(1).await;
    until(|| array.status().servers.iter().all(|server| server.live)).await;
    until(|| array.status().under_replicated == 0).await;
    array.close().await;
    // Somebody whom the servers do not know is no more welcome inside than outside.
    let stranger = Identity::generate();
    let error = Array::open(config(&cluster), &stranger, cluster.key.clone(), cluster.clock()).await;
    assert!(matches!(error, Err(OpenError::TooFewServers { reached: 0, .. })), "refused");
}

// SPEC: C1, C2, B12
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_acknowledged_is_read_back_and_lies_byte_identical_on_two_servers() {
    let cluster = Cluster::start(2).await;
    let array = cluster.open().await;
    let mut stored = Vec::new();
    // Empty, inline, just below and above a portion, several portions: direct and chained groups.
    for (seed, len) in [0, 1, 10_000, 300_000, 1_048_576, 1_048_577, 5_000_000].into_iter().enumerate() {
        let data = bytes(seed as u64, len);
        let (sequence, blob) = store(&array, Class::Days30, &data).await.unwrap();
        assert_eq!(blob.id, BlobId::of(&data));
        assert!(read(&array, &blob).await.unwrap() == data, "{len} bytes");
        stored.push((sequence, blob, data));
    }
    let (sequence, blob, data) = stored.last().unwrap();
    assert_eq!(array.last_catalog_sequence(), *sequence);
    for range in [0..1, 1_048_575..1_048_577, 2_000_000..4_999_999, 4_999_999..5_000_000, 7..7] {
        let part = read_all(array.read_blob(blob, range.clone())).await.unwrap();
        assert!(part == data[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()]);
    }
    assert_eq!(read_all(array.read_blob(blob, 0..5_000_001)).await, Err(ReadError::Range));

    let keys = array.data_keys(&blob.location);
    assert_eq!(keys.len(), 2 * 5, "one for each copy of each portion"); // SPEC: C8
    assert!(keys.iter().all(|key| key.deletion_day == Class::Days30.deletion_day(NOW.day())));

    let (found, alarms) = replayed(&array).await.unwrap();
    assert_eq!(found, stored.iter().map(|(sequence, blob, _)| (*sequence, blob.clone())).collect::<Vec<_>>());
    assert_eq!(alarms, ReplayAlarms::default());

    array.close().await;
    let again = cluster.open().await;
    assert_eq!(again.status().unsealed, 0);
    let (first, second) = (cluster.segment_files(0), cluster.segment_files(1));
    assert_eq!(first.len(), 1);
    for (first, second) in first.iter().zip(&second) {
        assert_eq!(first.file_name(), second.file_name());
        assert!(std::fs::read(first).unwrap() == std::fs::read(second).unwrap(), "copies are byte-identical");
    }
    let (found, alarms) = replayed(&again).await.unwrap();
    assert_eq!(found.len(), stored.len());
    assert_eq!(alarms, ReplayAlarms::default());
    for (_, blob, data) in &stored {
        assert!(read(&again, blob).await.unwrap() == *data);
    }
    store(&again, Class::Days30, b"and it goes on").await.unwrap();
    assert_eq!(replayed(&again).await.unwrap().1, ReplayAlarms::default());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reading_goes_on_while_a_server_is_away_and_writing_when_it_is_back() {
    let mut cluster = Cluster::start(2).await;
    let array = cluster.open().await;
    let data = bytes(1, 3_000_000);
    let (_, blob) = store(&array, Class::Days30, &data).await.unwrap();
    for away in 0..2 {
        cluster.stop(away).await;
        until(|| !array.status().servers[away].live).await;
        assert!(read(&array, &blob).await.unwrap() == data);
        assert!(store(&array, Class::Days30, b"no").await.is_err(), "never fewer copies than promised");
        assert_eq!(store(&array, Class::Days30, b"no").await.unwrap_err(), WriteError::Unavailable);
        assert_eq!(store(&array, Class::Days7, b"no").await.unwrap_err(), WriteError::Unavailable);
        cluster.restart(away).await;
        until(|| array.status().writable).await;
        store(&array, Class::Days30, b"yes").await.unwrap();
    }
    let (found, alarms) = replayed(&array).await.unwrap();
    assert_eq!(found.len(), 3);
    assert_eq!(alarms, ReplayAlarms::default());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_restarts_while_a_server_is_away_replays_and_reads_from_the_other() {
    let mut cluster = Cluster::start(2).await;
    let array = cluster.open().await;
    let data = bytes(1, 2_000_000);
    let (_, blob) = store(&array, Class::Days30, &data).await.unwrap();
    drop(array); // as a crash: nothing is sealed
    cluster.stop(0).await;
    let array = cluster.open().await;
    assert!(!array.status().writable);
    let (found, alarms) = replayed(&array).await.unwrap();
    assert_eq!((found.len(), alarms), (1, ReplayAlarms::default()));
    assert!(read(&array, &blob).await.unwrap() == data);
    assert_eq!(store(&array, Class::Days30, b"no").await.unwrap_err(), WriteError::Unavailable);

    cluster.restart(0).await;
    until(|| array.status().writable && array.status().unsealed == 0).await;
    store(&array, Class::Days30, b"yes").await.unwrap();
    assert_eq!(replayed(&array).await.unwrap().1, ReplayAlarms::default());

    cluster.stop(0).await;
    cluster.stop(1).await;
    array.close().await;
    let error = cluster.try_open(cluster.config()).await.err().unwrap();
    assert!(matches!(error, OpenError::TooFewServers { reached: 0, needed: 1 }), "{error}");
}

// SPEC: B17
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_segment_file_is_read_from_the_other_copy_and_copied_anew() {
    let mut cluster = Cluster::start(2).await;
    let array = cluster.open().await;
    let data = bytes(1, 3_000_000);
    let (_, blob) = store(&array, Class::Days30, &data).await.unwrap();
    array.close().await;
    cluster.open().await.close().await; // sealed now

    cluster.stop(0).await;
    let file = cluster.segment_files(0).pop().unwrap();
    let before = std::fs::read(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    cluster.restart(0).await;
    let array = cluster.open().await;
    assert!(read(&array, &blob).await.unwrap() == data);
    assert_eq!(replayed(&array).await.unwrap().0.len(), 1);
    until(|| file.exists()).await;
    assert!(std::fs::read(&file).unwrap() == before, "byte-identical");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_byte_anywhere_is_read_right_from_the_other_copy() {
    let mut cluster = Cluster::start(2).await;
    let array = cluster.open().await;
    let data = bytes(1, 1_500_000);
    let (_, blob) = store(&array, Class::Days30, &data).await.unwrap();
    array.close().await;
    cluster.open().await.close().await;
    let file = cluster.segment_files(0).pop().unwrap();
    let good = std::fs::read(&file).unwrap();
    // Header block, first record's header and payload, second record, catalog record, index, summary.
    let places = [10, 60, 2000, 4096, 4130, 4150, 5000, 600_000, 1_050_000, 1_300_000];
    let from_end = [1, 50, 100, 130, 150, 300].map(|at| good.len() - at);
    for at in places.into_iter().chain(from_end) {
        cluster.stop(0).await;
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        std::fs::remove_file(&file).ok();
        std::fs::write(&file, &bad).unwrap();
        cluster.restart(0).await;
        let array = cluster.open().await;
        assert!(read(&array, &blob).await.unwrap() == data, "byte {at}");
        let (found, alarms) = replayed(&array).await.unwrap();
        assert_eq!((found.len(), alarms), (1, ReplayAlarms::default()), "byte {at}");
        array.close().await;
    }
}

// SPEC: C11
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_segment_is_gone_after_its_day_and_a_read_says_so() {
    let mut cluster = Cluster::start(2).await;
    let array = cluster.open().await;
    let data = bytes(1, 50_000);
    let (_, short) = store(&array, Class::Days7, &data).await.unwrap();
    let (_, long) = store(&array, Class::Days30, &data).await.unwrap();
    array.close().await;
    cluster.open().await.close().await;
    assert_eq!(cluster.segment_files(0).len(), 2);

    // A clock so far ahead is not believed at once; that of a server that is off for a week at most is.
    let end = Class::Days7.deletion_day(NOW.day()).end();
    cluster.off_until(end).await;
    assert_eq!((cluster.segment_files(0).len(), cluster.segment_files(1).len()), (2, 2));
    for weeks in 1..3 {
        cluster.off_until(NOW.plus(CLOCK_LEAP * weeks)).await;
    }
    assert_eq!((cluster.segment_files(0).len(), cluster.segment_files(1).len()), (2, 2));
    cluster.off_until(end).await;
    assert_eq!((cluster.segment_files(0).len(), cluster.segment_files(1).len()), (1, 1));
    let array = cluster.open().await;
    assert_eq!(read(&array, &short).await, Err(ReadError::Expired));
    assert!(read(&array, &long).await.unwrap() == data);
    let (found, alarms) = replayed(&array).await.unwrap();
    assert_eq!((found.len(), alarms), (1, ReplayAlarms::default()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_written_so_far_can_be_read_back() {
    let cluster = Cluster::start(2).await;
    let array = cluster.open().await;
    let data = bytes(1, 2_500_000);
    let mut writer = array.create_blob(Class::Days30);
    for piece in data.chunks(70_000) {
        writer.write(piece).await.unwrap();
    }
    assert_eq!(writer.size(), data.len() as u64);
    for range in [0..2_500_000, 1_000_000..2_200_000, 2_400_000..2_500_000, 0..0, 9_000_000..9_000_001] {
        let back = read_all(writer.read_back(range.clone()).await.unwrap()).await.unwrap();
        let (start, end) = (range.start.min(2_500_000), range.end.min(2_500_000));
        assert!(back == data[usize::try_from(start).unwrap()..usize::try_from(end).unwrap()], "{range:?}");
    }
    let placed = writer.finish().await.unwrap();
    placed.durable().await.unwrap();
    assert!(read(&array, placed.stored()).await.unwrap() == data);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_verified_stream_of_a_stored_blob_is_served_without_hashing_it_again() {
    use bao_tree::io::fsm::encode_ranges_validated;
    use lighter_protocol::blob::{ChunkRanges, PortionBlob};

    let cluster = Cluster::start(2).await;
    let array = cluster.open().await;
    let data = bytes(1, 2_300_000);
    let (_, blob) = store(&array, Class::Days30, &data).await.unwrap();
    let tree = Arc::new(array.blob_tree(&blob).await.unwrap());
    assert_eq!(tree.id(), blob.id);
    let source = PortionBlob::new(tree, Arc::new(array.portions(&blob)));
    let mut stream = Vec::new();
    encode_ranges_validated(source.clone(), source, &ChunkRanges::all(), &mut stream).await.unwrap();
    assert!(stream.len() > data.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_writer_takes_over_and_the_first_writes_nothing_more() {
    let cluster = Cluster::start(2).await;
    let first = cluster.open().await;
    store(&first, Class::Days30, b"one").await.unwrap();
    let second = cluster.open().await;
    assert_eq!(replayed(&second).await.unwrap().0.len(), 1);
    store(&second, Class::Days30, b"two").await.unwrap();
    assert!(store(&first, Class::Days30, b"three").await.is_err());
    assert!(store(&first, Class::Days7, b"four").await.is_err());
    until(|| first.status().fenced).await;
    store(&second, Class::Days30, b"five").await.unwrap();
    assert_eq!(replayed(&second).await.unwrap().0.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_refused() {
    let cluster = Cluster::start(2).await;
    let stranger = Identity::generate();
    let error = Array::open(cluster.config(), &stranger, cluster.key.clone(), cluster.clock()).await;
    assert!(matches!(error, Err(OpenError::TooFewServers { reached: 0, .. })));
    let garbage = tokio::net::TcpStream::connect(cluster.addresses[0]).await.unwrap();
    garbage.try_write(b"GET / HTTP/1.1\r\n\r\n").ok();
    let array = cluster.open().await;
    store(&array, Class::Days30, b"unharmed").await.unwrap();
}

/// As many in flight as a busy relay has: every one is acknowledged once, and all are in the log.
// SPEC: C10
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once_share_their_syncs() {
    let cluster = Cluster::start(2).await;
    let array = cluster.open().await;
    let mut tasks = JoinSet::new();
    for seed in 0..100 {
        let array = array.clone();
        tasks.spawn(async move {
            let class = if seed % 5 == 0 { Class::Days7 } else { Class::Days30 };
            let len = if seed % 10 == 0 { 400_000 } else { 5_000 };
            store(&array, class, &bytes(seed, len)).await.unwrap()
        });
    }
    let mut stored = tasks.join_all().await;
    stored.sort_unstable_by_key(|(sequence, _)| *sequence);
    let (found, alarms) = replayed(&array).await.unwrap();
    assert_eq!((found, alarms), (stored, ReplayAlarms::default()));
    let counters = cluster.servers[0].as_ref().unwrap().counters();
    assert!(counters.appends < 200, "groups were made: {counters:?}");
}

/// Small and large groups, all ways: each member acknowledges its own copy, directly or along the chain, and the writer
/// holds the same keys in the end.
// SPEC: C2, C3, C4, C8
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chained_and_direct_acknowledgements_are_worth_the_same() {
    for (copies, chain_from_len, is_chained) in [(2, 0, true), (2, usize::MAX, false), (3, 0, true)] {
        let cluster = Cluster::start(copies).await;
        let config = || ArrayConfig { copies, chain_from_len, ..cluster.config() };
        let array = cluster.try_open(config()).await.unwrap();
        let mut stored = Vec::new();
        for (seed, len) in [10, 100_000, 2_500_000].into_iter().enumerate() {
            let data = bytes(seed as u64, len);
            stored.push((store(&array, Class::Days30, &data).await.unwrap().1, data));
        }
        for (blob, data) in &stored {
            assert!(read(&array, blob).await.unwrap() == *data);
            let keys = array.data_keys(&blob.location);
            let servers: std::collections::BTreeSet<_> = keys.iter().map(|key| key.server).collect();
            assert_eq!(servers.len(), copies, "a key of each copy");
        }
        array.close().await;
        let array = cluster.try_open(config()).await.unwrap();
        assert_eq!((array.status().unsealed, array.status().bad_copies), (0, 0));
        let first = segment_files(&cluster.unit(0)).into_iter().map(|path| std::fs::read(path).unwrap());
        let first: Vec<_> = first.collect();
        let mut passed_on = 0;
        for index in 0..copies {
            let files = cluster.segment_files(index).into_iter().map(|path| std::fs::read(path).unwrap());
            assert!(files.collect::<Vec<_>>() == first, "copies are byte-identical");
            passed_on += cluster.servers[index].as_ref().unwrap().counters().passed_on;
        }
        assert_eq!(passed_on > 0, is_chained);
    }
}

/// What the mail side sees of it: a temporary error, and never fewer copies than promised.
// SPEC: B12
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_fails_while_writing_seals_the_segment_and_writing_goes_on_when_it_is_back() {
    let mut cluster = Cluster::start(2).await;
    let array = cluster.open().await;
    let (first, blob) = store(&array, Class::Days30, &bytes(1, 600_000)).await.unwrap();
    let writing = tokio::spawn({
        let array = array.clone();
        async move {
            let mut acknowledged = vec![(first, blob)];
            for seed in 2.. {
                match store(&array, Class::Days30, &bytes(seed, 30_000)).await {
                    Ok(one) => acknowledged.push(one),
                    Err(error) => return (acknowledged, error),
                }
            }
            unreachable!("the server stops")
        }
    });
    tokio::time::sleep(Duration::from_millis(30)).await;
    cluster.stop(1).await;
    let (acknowledged, error) = writing.await.unwrap();
    // What was on its way is in doubt, or nothing was on its way: no other answer will do.
    assert!(matches!(error, WriteError::InDoubt | WriteError::Unavailable), "{error}");
    for _ in 0..3 {
        assert_eq!(store(&array, Class::Days30, b"no").await.unwrap_err(), WriteError::Unavailable);
    }
    assert_eq!(cluster.segment_files(0).len(), 1, "no segment on fewer members");
    assert_eq!(array.status().unsealed, 1);

    cluster.restart(1).await;
    until(|| array.status().writable && array.status().unsealed == 0).await;
    let (sealed_0, sealed_1) = (cluster.segment_files(0), cluster.segment_files(1));
    assert!(std::fs::read(&sealed_0[0]).unwrap() == std::fs::read(&sealed_1[0]).unwrap());
    store(&array, Class::Days30, b"yes").await.unwrap();
    assert_eq!(cluster.segment_files(0).len(), 2, "written on in a new one");
    let (found, alarms) = replayed(&array).await.unwrap();
    assert_eq!(alarms, ReplayAlarms::default());
    assert_eq!(found[..acknowledged.len()], acknowledged[..]);
    assert_eq!(found.len(), acknowledged.len() + 1, "what was in doubt is cut, and cannot come back");
}

// SPEC: B17
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_whose_whole_folder_was_deleted_costs_no_byte_and_writing_goes_on() {
    let mut cluster = Cluster::start(2).await;
    let array = cluster.open().await;
    let data = bytes(1, 2_300_000);
    let (_, sealed) = store(&array, Class::Days30, &data).await.unwrap();
    array.close().await;
    let array = cluster.open().await;
    let (_, open) = store(&array, Class::Days30, &data).await.unwrap();
    drop(array);
    for loser in [0, 1] {
        cluster.stop(loser).await;
        std::fs::remove_dir_all(cluster.folder.path().join(format!("server-{loser}"))).unwrap();
        cluster.restart(loser).await;
        let array = cluster.open().await;
        assert!(read(&array, &sealed).await.unwrap() == data);
        assert!(read(&array, &open).await.unwrap() == data);
        let (found, alarms) = replayed(&array).await.unwrap();
        assert_eq!((found.len(), alarms), (2 + loser, ReplayAlarms::default()));
        until(|| array.status().writable).await;
        store(&array, Class::Days30, b"goes on").await.unwrap();
        // What was lost is made anew, so that the other may be lost next.
        until(|| {
            let status = array.status();
            status.unsealed == 0 && status.heal.copies_left == 0
        })
        .await;
        array.close().await;
    }
}
