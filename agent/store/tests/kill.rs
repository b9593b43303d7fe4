//! bad_input_32, SPEC D3: the process that pulls is killed at random moments, for real, and the next one goes on.
//!
//! The killed process is this test binary itself, started again to run [`puller`] only.

#![expect(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "what tests make is small; the killed process speaks on stdout"
)]

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bao_tree::io::outboard::PreOrderMemOutboard;
use bao_tree::io::sync::Outboard;
use lighter_protocol::blob::{self, GROUP, GROUP_LEN};
use lighter_protocol::wire::{Offer, OfferedBlob};
use lighter_protocol::{BlobId, DeliveryId, PeerId, UnixTime};
use lighter_store::{Settings, Store, Wanted};

/// Names the store's folder for the process that is killed.
const FOLDER: &str = "LIGHTER_STORE_KILL_TEST_FOLDER";
const GROUPS: u64 = 1_024;
const NOW: UnixTime = UnixTime(1_800_000_000);

fn content() -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    (0..GROUPS * GROUP_LEN - 100).map(|_| next()).collect()
}

fn offered(id: BlobId, size: u64) -> OfferedBlob {
    OfferedBlob { id, size, name: "film.mp4".to_owned(), media_type: "video/mp4".to_owned() }
}

/// Not a test of its own: what the killed process does. Says each group's number before it writes it.
#[test]
#[ignore = "started by a_killed_pull_goes_on_without_fetching_again_what_is_on_disk"]
fn puller() {
    let folder = std::env::var(FOLDER).unwrap();
    let bytes = content();
    let tree = PreOrderMemOutboard::create(&bytes, GROUP);
    let (id, size) = (BlobId(*tree.root.as_bytes()), bytes.len() as u64);
    let store = Store::open(Path::new(&folder), Settings::default()).unwrap();
    let offer = Offer {
        delivery: DeliveryId([1; 16]),
        mailbox: "alice@example.org".parse().unwrap(),
        manifest: offered(BlobId::of(b"m"), 1),
        blobs: vec![offered(id, size)],
        sources: Vec::new(),
        expires: NOW.plus(Duration::from_secs(86_400)),
        introduction: None,
    };
    store.admit(&offer, PeerId::random(), NOW).unwrap();
    let Wanted::Partial(partial) = store.want(id, size, NOW).unwrap() else {
        println!("held");
        return;
    };
    for node in blob::tree(size).pre_order_nodes_iter() {
        if let Some(pair) = tree.load(node).unwrap() {
            partial.write_pair(node, &pair).unwrap();
        }
    }
    for range in partial.here().missing(size).iter() {
        for at in range.step_by(GROUP_LEN as usize) {
            let end = (at + GROUP_LEN).min(size);
            println!("group {}", at / GROUP_LEN);
            partial.write_data(at, &bytes[at as usize..end as usize]).unwrap();
            // More often than it would be due, so that kills fall into checkpoints, too.
            if (at / GROUP_LEN) % 64 == 63 {
                partial.checkpoint().unwrap();
            }
        }
    }
    store.finish(&[partial], NOW).unwrap();
    println!("finished");
}

fn start(folder: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "puller", "--ignored", "--nocapture"])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn bad_input_32_a_killed_pull_goes_on_without_fetching_again_what_is_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let mut fetched = 0;
    let mut kills = 0;
    // Killed after 1, 38, 75, … groups of its own: in the midst of writes, syncs and transactions.
    loop {
        let mut child = start(folder.path());
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let until = 1 + kills * 37;
        let mut groups = 0;
        let mut done = false;
        while groups < until
            && let Some(line) = lines.next()
        {
            let line = line.unwrap();
            groups += u64::from(line.contains("group "));
            done |= line.contains("finished") || line.contains("held");
        }
        if groups == until {
            child.kill().unwrap();
            // What it said until it died counts as fetched.
            groups += lines.map_while(Result::ok).filter(|line| line.contains("group ")).count() as u64;
            kills += 1;
        }
        child.wait().unwrap();
        fetched += groups;
        if done {
            break;
        }
        assert!(kills < 60, "{fetched} groups were fetched and it is not finished");
    }
    assert!(kills > 3, "{kills}");
    // Each kill can cost the one group that was on its way.
    assert!((GROUPS..=GROUPS + kills).contains(&fetched), "{fetched} groups, {kills} kills");

    let store = Store::open(folder.path(), Settings::default()).unwrap();
    let bytes = content();
    let mut read = Vec::new();
    store.open_blob(BlobId::of(&bytes)).unwrap().reader().read_to_end(&mut read).unwrap();
    assert!(read == bytes);
}

#[test]
fn files_are_the_owners_alone_and_a_second_process_is_told() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("store");
    let store = Store::open(&root, Settings::default()).unwrap();
    std::io::Write::write_all(&mut store.import().unwrap(), b"x").unwrap();
    assert_eq!(root.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    for name in ["index.redb", "lock"] {
        assert_eq!(root.join(name).metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
    assert!(matches!(Store::open(&root, Settings::default()), Err(lighter_store::OpenError::InUse)));
    drop(store);
    Store::open(&root, Settings::default()).unwrap();
}
