//! An agent that stops while it pulls: its store is free at once, and what had come is not fetched again.

use std::time::Duration;

use lighter_agent::config::{Config, Paths};
use lighter_agent::guest::by_hand::{Pause, Wish};
use lighter_protocol::BlobId;
use lighter_protocol::wire::Offer;
use lighter_store::{OpenError, Store};
use tokio::time::{sleep, timeout};

use crate::support::programs::run_ok;
use crate::support::relay::Relay;
use crate::support::{World, bytes, change, eventually, mailbox, start};

const SIZE: usize = 8 * 1024 * 1024;
/// How long a moment may be, on a busy machine.
const MOMENT: Duration = Duration::from_secs(2);

/// Bytes of the attachment that were asked for.
fn asked(relay: &Relay, blob: BlobId) -> u64 {
    let held = relay.held.lock().unwrap();
    let ranges = held.gets.iter().filter(|get| get.blob == blob).flat_map(|get| &get.ranges);
    ranges.map(|(start, end)| end - start).sum()
}

fn hold(relay: &Relay) -> Offer {
    relay.hold(1, &mailbox("alice"), b"manifest", &[bytes(1, SIZE)])
}

/// The store of an agent that has just stopped.
async fn open(paths: &Paths) -> Store {
    let settings = Config::read(&paths.config).unwrap().store.settings();
    let opened = async {
        loop {
            match Store::open(&paths.store(), settings) {
                Err(OpenError::InUse) => sleep(Duration::from_millis(5)).await,
                opened => return opened.unwrap(),
            }
        }
    };
    timeout(MOMENT, opened).await.expect("somebody still has the store")
}

// SPEC: A19, D3
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_paused_in_a_pull_whose_source_is_gone_lets_go_of_its_store_and_keeps_what_came() {
    let world = World::start().await;
    let relay = Relay::start(&world).await;
    let offer = hold(&relay);
    let (blob, size) = (offer.blobs[0].id, offer.blobs[0].size);
    let paths = world.set_up("alice", None).await;
    // With a limit, each stream takes its turns.
    change(&paths, |config| config.guest = toml::from_str("download = '1 MiB/s'").unwrap());
    let alice = start(&paths).await;
    let here = || alice.shared().store.len_here(blob, size).unwrap();
    eventually("some of it", async || here() > 0).await;
    alice.shared().guest.say(Wish::Pause(Pause { until: None, everything: false })).unwrap();
    // From here on nobody has a turn, and everybody waits for one.
    eventually("what was asked for", async || here() == asked(&relay, blob)).await;
    let came = here();
    assert!(came < size, "it was paused in the middle");
    relay.endpoint.close().await;
    let peer = relay.endpoint.peer();
    eventually("that to be noticed", async || alice.shared().links.get(&peer).is_none()).await;
    assert_eq!(alice.shared().pulls.count(), 1, "it waits");

    alice.stop().await;
    let store = open(&paths).await;
    assert_eq!(store.len_here(blob, size).unwrap(), came, "all of it is on record");
    drop(store);

    let other = Relay::start(&world).await;
    hold(&other);
    let alice = start(&paths).await;
    alice.shared().guest.say(Wish::Resume).unwrap();
    other.receipts(1).await;
    assert!(alice.shared().store.open_blob(blob).unwrap().is_intact().unwrap());
    assert_eq!(asked(&other, blob), size - came, "nothing twice");
    let status = String::from_utf8(run_ok(&paths, &["status"], b"").await).unwrap();
    assert!(status.contains("store      1 delivery, "), "{status}");
    alice.stop().await;
}

// SPEC: A19, D3
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_stops_while_a_source_is_silent_has_on_record_what_came_of_it() {
    let world = World::start().await;
    let relay = Relay::start(&world).await;
    let offer = hold(&relay);
    let (blob, size) = (offer.blobs[0].id, offer.blobs[0].size);
    relay.held.lock().unwrap().stall_at = Some(size / 2);
    let paths = world.set_up("alice", None).await;
    let alice = start(&paths).await;
    let here = || alice.shared().store.len_here(blob, size).unwrap();
    eventually("some of it", async || here() > 0).await;
    let came = here();
    alice.stop().await;
    let on_record = open(&paths).await.len_here(blob, size).unwrap();
    assert!((came..size).contains(&on_record), "{came} came, {on_record} are on record");
}
