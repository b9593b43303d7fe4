//! What is pushed: taken where the store said so, by nobody else and nothing else; and whatever becomes of it, the delivery
//! is whole in the end, and nothing comes twice.

use lighter_agent::guest::by_hand::{Pause, Wish};
use lighter_agent::guest::decide::GuestConfig;
use lighter_protocol::blob::RangeSet;
use lighter_protocol::wire::{Get, Offer, Push, PushPart, Request, Response};
use lighter_protocol::{BlobId, DeliveryId, PeerId, UnixTime};
use lighter_store::Here;
use lighter_transport::push::PushError;
use lighter_transport::{Connection, Endpoint, EndpointConfig, Identity};

use crate::support::mail_sink::MailSink;
use crate::support::programs::{error_text, json, run, run_ok};
use crate::support::relay::Relay;
use crate::support::{self, World, bytes, change, eventually, file, mailbox, start};

const MIB: usize = 1024 * 1024;

/// A relay that pushes.
async fn pushing(world: &World) -> Relay {
    let relay = Relay::start(world).await;
    relay.held.lock().unwrap().pushes = true;
    relay
}

/// Bytes of these parts, and of these requests.
fn pushed(pushes: &[Push]) -> u64 {
    let parts = pushes.iter().flat_map(|push| &push.parts);
    parts.flat_map(|part| &part.ranges).map(|(start, end)| end - start).sum()
}

fn asked(gets: &[Get]) -> u64 {
    gets.iter().flat_map(|get| &get.ranges).map(|(start, end)| end - start).sum()
}

/// What comes of `blob`, pushed or asked for.
fn ranges(pushes: &[Push], gets: &[Get], blob: BlobId) -> Vec<(u64, u64)> {
    let parts = pushes.iter().flat_map(|push| &push.parts).filter(|part| part.blob == blob);
    let gets = gets.iter().filter(|get| get.blob == blob);
    parts.flat_map(|part| part.ranges.clone()).chain(gets.flat_map(|get| get.ranges.clone())).collect()
}

fn is_here(agent: &lighter_agent::agent::Agent, offer: &Offer) {
    for part in std::iter::once(&offer.manifest).chain(&offer.blobs) {
        assert!(agent.shared().store.open_blob(part.id).unwrap().is_intact().unwrap());
    }
}

// SPEC: A19, D3, D4
#[tokio::test(flavor = "multi_thread")]
async fn what_a_relay_pushes_comes_once_and_is_receipted_without_being_asked_for() {
    let world = World::start().await;
    let relay = pushing(&world).await;
    let mut blobs: Vec<_> = (0..60).map(|seed| bytes(seed, 3_000 + usize::try_from(seed).unwrap())).collect();
    blobs.extend([bytes(70, 5 * MIB + 5), Vec::new(), bytes(71, 16 * 1024)]);
    let offer = relay.hold(1, &mailbox("alice"), b"manifest", &blobs);
    let agent = world.agent("alice", None).await;
    let receipts = relay.receipts(1).await;
    assert_eq!(receipts[0].claim().unwrap().manifest, offer.manifest.id);
    is_here(&agent, &offer);
    {
        let held = relay.held.lock().unwrap();
        assert_eq!(held.gets, [], "nothing was asked for");
        let all = blobs.iter().map(|blob| blob.len() as u64).sum::<u64>() + offer.manifest.size;
        assert_eq!(pushed(&held.pushed), all, "each byte once");
        assert!(held.pushed.len() < 12, "{} streams for 62 blobs", held.pushed.len());
    }
    agent.stop().await;
}

// SPEC: A6
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_does_not_take_pushes_gets_it_by_pull() {
    let world = World::start().await;
    let relay = pushing(&world).await;
    let offer = relay.hold(1, &mailbox("alice"), b"manifest", &[bytes(1, MIB)]);
    let paths = world.set_up("alice", None).await;
    change(&paths, |config| config.store.accept_push = false);
    let agent = start(&paths).await;
    relay.receipts(1).await;
    is_here(&agent, &offer);
    {
        let held = relay.held.lock().unwrap();
        assert_eq!((held.pushed.len(), asked(&held.gets)), (0, MIB as u64 + 8));
    }
    agent.stop().await;
}

// SPEC: A19
#[tokio::test(flavor = "multi_thread")]
async fn with_a_limit_nothing_is_pushed_and_the_limit_holds() {
    let world = World::start().await;
    let relay = pushing(&world).await;
    let offer = relay.hold(1, &mailbox("alice"), b"manifest", &[bytes(1, MIB)]);
    let paths = world.set_up("alice", None).await;
    change(&paths, |config| {
        config.guest = toml::from_str::<GuestConfig>("download = '400 KiB/s'").unwrap();
    });
    let began = std::time::Instant::now();
    let agent = start(&paths).await;
    relay.receipts(1).await;
    assert!(began.elapsed() >= std::time::Duration::from_millis(2_000), "{:?}", began.elapsed());
    is_here(&agent, &offer);
    assert!(relay.held.lock().unwrap().pushed.is_empty());
    agent.stop().await;
}

// SPEC: A19, D3
#[tokio::test(flavor = "multi_thread")]
async fn a_pause_stops_a_push_and_what_is_missing_is_asked_for_afterwards() {
    let world = World::start().await;
    let relay = pushing(&world).await;
    relay.held.lock().unwrap().rate = Some(MIB as u64);
    let paths = world.set_up("alice", None).await;
    let offer = relay.hold(1, &mailbox("alice"), b"manifest", &[bytes(1, 12 * MIB)]);
    let alice = start(&paths).await;
    let (blob, size) = (offer.blobs[0].id, offer.blobs[0].size);
    let here = || match alice.shared().store.here(blob, size, UnixTime::now()).unwrap() {
        Here::Part(ranges) => ranges,
        Here::Whole => unreachable!("whole already"),
    };
    eventually("some of it", async || !here().is_empty()).await;
    let view = json(&paths, &["status"]).await;
    assert_eq!(view["pulls"][0]["sources"][0]["pushes"], true, "{view}");
    alice.shared().guest.say(Wish::Pause(Pause { until: None, everything: false })).unwrap();
    eventually("the pushes to end", async || {
        let sources = alice.shared().pulls.sources().await;
        sources.values().flatten().all(|source| !source.pushes)
    })
    .await;
    let at_pause = here();
    assert!(relay.held.lock().unwrap().receipts.is_empty());
    let pushes_before = relay.held.lock().unwrap().pushed.len();
    relay.held.lock().unwrap().rate = None;
    run_ok(&paths, &["resume"], b"").await;
    relay.receipts(1).await;
    is_here(&alice, &offer);
    {
        let held = relay.held.lock().unwrap();
        for (start, end) in ranges(&held.pushed[pushes_before..], &held.gets, blob) {
            let again = at_pause.iter().any(|had| had.start < end && start < had.end);
            assert!(!again, "{start}..{end} was here already");
        }
    }
    alice.stop().await;
}

// SPEC: A19, D3
#[tokio::test(flavor = "multi_thread")]
async fn a_push_that_breaks_off_goes_on_with_what_is_missing_on_the_next_connection() {
    let world = World::start().await;
    let relay = pushing(&world).await;
    relay.held.lock().unwrap().stall_at = Some(2 * MIB as u64);
    let paths = world.set_up("alice", None).await;
    let offer = relay.hold(1, &mailbox("alice"), b"manifest", &[bytes(1, 12 * MIB)]);
    let agent = start(&paths).await;
    let blob = offer.blobs[0].id;
    let here = |agent: &lighter_agent::agent::Agent| match agent
        .shared()
        .store
        .here(blob, offer.blobs[0].size, UnixTime::now())
        .unwrap()
    {
        Here::Part(ranges) => ranges,
        Here::Whole => RangeSet::whole(offer.blobs[0].size),
    };
    eventually("some of it", async || here(&agent).len() >= MIB as u64).await;
    agent.stop().await;
    let (pushes_before, at_stop) = {
        let mut held = relay.held.lock().unwrap();
        held.stall_at = None;
        (held.pushed.len(), held.gets.len())
    };
    let agent = start(&paths).await;
    relay.receipts(1).await;
    is_here(&agent, &offer);
    {
        let held = relay.held.lock().unwrap();
        let again = ranges(&held.pushed[pushes_before..], &held.gets[at_stop..], blob);
        let all: u64 = again.iter().map(|(start, end)| end - start).sum();
        assert!(held.pushed.len() > pushes_before, "it is pushed on");
        assert!(all <= 11 * MIB as u64, "only what was missing: {all}");
        assert_eq!(held.gets.len(), at_stop, "and not asked for");
    }
    agent.stop().await;
}

// SPEC: A19, D3
#[tokio::test(flavor = "multi_thread")]
async fn bad_input_35_wrong_bytes_that_are_pushed_are_not_kept_and_the_holder_is_not_asked() {
    let world = World::start().await;
    let relay = pushing(&world).await;
    relay.held.lock().unwrap().is_wrong = true;
    let offer = relay.hold(1, &mailbox("alice"), b"manifest", &[bytes(1, MIB)]);
    let agent = world.agent("alice", None).await;
    let running = || agent.shared().pulls.is_running(&offer.delivery);
    eventually("the push", async || !relay.held.lock().unwrap().pushed.is_empty()).await;
    eventually("the pull to end", async || !running()).await;
    assert!(!agent.shared().store.holds(offer.blobs[0].id).unwrap());
    assert_eq!(relay.held.lock().unwrap().gets, [], "one that lies is not asked");
    // The next offer is another matter.
    relay.held.lock().unwrap().is_wrong = false;
    agent.shared().links.get(&relay.endpoint.peer()).unwrap().close();
    relay.receipts(1).await;
    is_here(&agent, &offer);
    agent.stop().await;
}

/// What a push of these parts comes to.
async fn try_push(
    connection: &Connection,
    delivery: DeliveryId,
    parts: &[(BlobId, &[u8], (u64, u64))],
) -> Result<(), PushError> {
    let part =
        |(blob, _, range): &(BlobId, &[u8], (u64, u64))| PushPart { blob: *blob, ranges: vec![*range] };
    let push = Push { delivery, parts: parts.iter().map(part).collect() };
    let mut out = connection.push(&push).await?;
    for (_, bytes, range) in parts {
        let outboard =
            bao_tree::io::outboard::PreOrderMemOutboard::create(bytes, lighter_protocol::blob::GROUP);
        let data = bytes::Bytes::copy_from_slice(bytes);
        out.send(&[*range], bytes.len() as u64, data, outboard, None).await?;
    }
    out.finish().await
}

// SPEC: A6, A19
#[tokio::test(flavor = "multi_thread")]
async fn bad_input_34_nobody_pushes_what_they_were_not_told_to() {
    let world = World::start().await;
    let relay = Relay::start(&world).await;
    // Held back: it offers, and answers nothing that is asked for until the test lets it.
    relay.held.lock().unwrap().rate = Some(200_000);
    let content = bytes(1, MIB);
    let other = bytes(2, 40_000);
    let offer = relay.hold(1, &mailbox("alice"), b"manifest", std::slice::from_ref(&content));
    let paths = world.set_up("alice", None).await;
    let agent = start(&paths).await;
    eventually("the pull", async || !relay.held.lock().unwrap().gets.is_empty()).await;

    // A stranger, who knows the delivery and the bytes.
    let stranger = Identity::generate();
    let endpoint =
        Endpoint::bind(&stranger, "127.0.0.1:0".parse().unwrap(), EndpointConfig::default()).unwrap();
    let shared = agent.shared();
    let (address, peer): (_, PeerId) = (shared.endpoint.local_addr().unwrap(), shared.identity.peer());
    let connection = endpoint.connect(peer, &[address], support::PATIENCE).await.unwrap();
    let whole = (0, content.len() as u64);
    let its = [(offer.blobs[0].id, &content[..], whole)];
    assert!(
        try_push(&connection, offer.delivery, &its).await.is_err(),
        "of a delivery that it did not offer"
    );
    assert!(try_push(&connection, DeliveryId([7; 16]), &its).await.is_err(), "of one that is unknown");
    let answer = connection.request(&Request::PushOffer(offer.clone())).await.unwrap();
    assert_eq!(answer, Response::Refused, "nor may it offer");
    // The relay itself, which offered for being asked: nothing that it was not told, and nothing else at all.
    let session = relay.held.lock().unwrap().links[0].clone();
    let unknown = [(BlobId::of(&other), &other[..], (0, other.len() as u64))];
    for parts in [&its, &unknown] {
        assert!(try_push(&session, offer.delivery, parts).await.is_err());
    }
    relay.held.lock().unwrap().rate = None;
    relay.receipts(1).await;
    is_here(&agent, &offer);
    assert!(!agent.shared().store.holds(BlobId::of(&other)).unwrap());
    assert!(asked(&relay.held.lock().unwrap().gets) >= MIB as u64, "all of it was asked for");
    agent.stop().await;
}

// SPEC: A6
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_set_to_pushes_to_a_store_and_lets_go_against_its_receipt() {
    let world = World::start().await;
    let alice = world.agent("alice", None).await;
    let sink = MailSink::start().await;
    let sam = world.set_up("sam", Some(sink.address.to_string())).await;
    change(&sam, |config| {
        config.send.push = true;
        // Slow enough to be seen.
        config.guest = toml::from_str::<GuestConfig>("upload = '1 MiB/s'").unwrap();
    });
    let content = bytes(1, 3 * MIB);
    let attached = file(world.folder.path(), "a.bin", &content);
    let arguments = ["--json", "send", "--to", "alice@example.org", attached.to_str().unwrap()];
    let sending = run(&sam, &arguments, b"");
    let seen = async {
        eventually("a source that pushes", async || {
            let sources = alice.shared().pulls.sources().await;
            sources.values().flatten().any(|source| source.pushes && source.bytes > 0)
        })
        .await;
    };
    let (output, ()) = tokio::join!(sending, seen);
    assert!(output.status.success(), "{}", error_text(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("receipted"));
    assert!(alice.shared().store.open_blob(BlobId::of(&content)).unwrap().is_intact().unwrap());

    // What is larger than is to be pushed waits to be asked for, and comes all the same.
    change(&sam, |config| config.send.push_mib_max = Some(1));
    let content = bytes(2, 2 * MIB);
    let attached = file(world.folder.path(), "b.bin", &content);
    let arguments = ["--json", "send", "--to", "alice@example.org", attached.to_str().unwrap()];
    let output = run(&sam, &arguments, b"").await;
    assert!(String::from_utf8_lossy(&output.stdout).contains("receipted"), "{}", error_text(&output));
    assert!(alice.shared().store.open_blob(BlobId::of(&content)).unwrap().is_intact().unwrap());
    alice.stop().await;
}
