//! What waits at a relay comes to the store: offered, pulled, verified, receipted; and what is not to be believed is
//! refused.

use lighter_protocol::wire::{Answer, Have, Request, Response};
use lighter_protocol::{BlobId, UnixTime};
use lighter_transport::{Endpoint, EndpointConfig, Identity};

use crate::support::programs;
use crate::support::relay::Relay;
use crate::support::{self, World, bytes, eventually, mailbox, start};

// SPEC: A18, A19, D3, D4, D5
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_comes_online_gets_what_waits_and_receipts_it() {
    let world = World::start().await;
    let relay = Relay::start(&world).await;
    let blobs = [bytes(1, 3_000_000), bytes(2, 100), Vec::new(), bytes(3, 16 * 1024)];
    let offer = relay.hold(1, &mailbox("alice"), b"manifest", &blobs);
    let agent = world.agent("alice", None).await;
    let receipts = relay.receipts(1).await;
    let receipt = receipts[0].claim().unwrap();
    assert_eq!((receipt.delivery, receipt.manifest), (offer.delivery, offer.manifest.id));
    for blob in &blobs {
        let stored = agent.shared().store.open_blob(BlobId::of(blob)).unwrap();
        assert_eq!(stored.size(), blob.len() as u64);
        assert!(stored.is_intact().unwrap());
    }
    agent.stop().await;
}

// SPEC: D4
#[tokio::test(flavor = "multi_thread")]
async fn bad_input_34_a_replayed_offer_gets_the_same_receipt_and_nothing_is_pulled_again() {
    let world = World::start().await;
    let relay = Relay::start(&world).await;
    relay.hold(1, &mailbox("alice"), b"manifest", &[bytes(1, 500_000)]);
    let paths = world.set_up("alice", None).await;
    let agent = start(&paths).await;
    let first = relay.receipts(1).await;
    let gets = relay.held.lock().unwrap().gets.len();
    agent.stop().await;
    let agent = start(&paths).await;
    let all = relay.receipts(2).await;
    assert_eq!(all[1], first[0], "the same receipt, to the byte");
    {
        let held = relay.held.lock().unwrap();
        assert_eq!(held.gets.len(), gets);
        assert_eq!(held.answers.last().unwrap(), &[Answer::Have]);
    }
    agent.stop().await;
}

// SPEC: A12, A13
#[tokio::test(flavor = "multi_thread")]
async fn a_clean_stop_says_offline_and_takes_the_addresses_back() {
    let world = World::start().await;
    let agent = world.agent("alice", None).await;
    let (client, alice) = (world.client(), mailbox("alice"));
    let online = client.lookup_one(&world.token, &alice).await.unwrap().unwrap();
    assert_eq!(online.addresses, [agent.shared().endpoint.local_addr().unwrap()]);
    assert_eq!(online.peer, agent.shared().identity.peer());
    agent.stop().await;
    let offline = client.lookup_one(&world.token, &alice).await.unwrap().unwrap();
    assert_eq!(offline.presence, lighter_transport::location::Presence::Offline);
    assert!(offline.addresses.is_empty());
}

// SPEC: D5; rule 5
#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_breaks_is_opened_again_and_what_waits_comes() {
    let world = World::start().await;
    let relay = Relay::start(&world).await;
    let agent = world.agent("alice", None).await;
    let mut sessions = relay.sessions.clone();
    sessions.wait_for(|count| *count == 1).await.unwrap();
    relay.hold(1, &mailbox("alice"), b"manifest", &[bytes(1, 500_000)]);
    let link = agent.shared().links.get(&relay.endpoint.peer()).unwrap();
    link.close();
    relay.receipts(1).await;
    assert!(*sessions.borrow() >= 2);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_34_a_stranger_hears_nothing_but_a_refusal() {
    let world = World::start().await;
    let relay = Relay::start(&world).await;
    let offer = relay.hold(1, &mailbox("alice"), b"manifest", &[bytes(1, 500_000)]);
    let agent = world.agent("alice", None).await;
    let receipt = relay.receipts(1).await.remove(0);

    let stranger = Identity::generate();
    let endpoint =
        Endpoint::bind(&stranger, "127.0.0.1:0".parse().unwrap(), EndpointConfig::default()).unwrap();
    let shared = agent.shared();
    let address = shared.endpoint.local_addr().unwrap();
    let peer = shared.identity.peer();
    let connection = endpoint.connect(peer, &[address], support::PATIENCE).await.unwrap();
    let get = lighter_protocol::wire::Get {
        delivery: offer.delivery,
        blob: offer.blobs[0].id,
        ranges: Vec::new(),
        attestation: None,
    };
    let many = lighter_protocol::wire::GetBlobs {
        delivery: offer.delivery,
        blobs: vec![offer.manifest.id],
        attestation: None,
    };
    let mut other = offer.clone();
    other.delivery = lighter_protocol::DeliveryId([9; 16]);
    other.expires = UnixTime(offer.expires.0 + 5);
    let requests = [
        Request::Have(Have::Delivery(offer.delivery)),
        Request::Have(Have::Blob(offer.blobs[0].id)),
        Request::Have(Have::Blob(BlobId::of(b"never seen"))),
        Request::Offer(offer),
        Request::Offer(other),
        Request::Get(get),
        Request::GetBlobs(many),
        Request::Receipt(receipt),
        Request::Waiting(lighter_protocol::wire::Waiting { attestation: shared.attested().unwrap().signed }),
    ];
    for request in &requests {
        let response = connection.request(request).await.unwrap();
        assert_eq!(response, Response::Refused, "{request:?}");
    }
    connection.ping(support::PATIENCE).await.unwrap();
    assert_eq!(shared.store.all_incoming().unwrap().len(), 1);
    agent.stop().await;
}

// SPEC: D3
#[tokio::test(flavor = "multi_thread")]
async fn an_own_relay_may_ask_what_is_here() {
    let world = World::start().await;
    let relay = Relay::start(&world).await;
    let offer = relay.hold(1, &mailbox("alice"), b"manifest", &[bytes(1, 500_000)]);
    let agent = world.agent("alice", None).await;
    relay.receipts(1).await;
    let address = agent.shared().endpoint.local_addr().unwrap();
    let peer = agent.shared().identity.peer();
    let connection = relay.endpoint.connect(peer, &[address], support::PATIENCE).await.unwrap();
    for (have, held) in [
        (Have::Delivery(offer.delivery), true),
        (Have::Blob(offer.blobs[0].id), true),
        (Have::Blob(BlobId::of(b"never seen")), false),
    ] {
        assert_eq!(
            connection.request(&Request::Have(have.clone())).await.unwrap(),
            Response::Have(held),
            "{have:?}"
        );
    }
    agent.stop().await;
}

// Rule 5: whatever fails. The agent is of use again as soon as the location server is.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_starts_without_its_location_server() {
    let world = World::start().await;
    let paths = world.set_up("alice", None).await;
    let World { folder, location, .. } = world;
    let listen = location.address();
    location.stop().await;
    let agent = support::start_unregistered(&paths).await;
    eventually("the problem to be told", async || agent.shared().membership.borrow().problem.is_some()).await;
    let config = lighter_location::config::Config {
        listen,
        data: folder.path().join("location"),
        ..Default::default()
    };
    let location = lighter_location::LocationServer::start(config, Default::default()).await.unwrap();
    support::registered(agent.shared()).await;
    eventually("no problem to be left", async || agent.shared().membership.borrow().problem.is_none()).await;
    agent.stop().await;
    location.stop().await;
}

/// Bytes that were asked for of a blob by the `gets` from number `from` on.
fn asked_for(relay: &Relay, from: usize, blob: BlobId, size: u64) -> u64 {
    let held = relay.held.lock().unwrap();
    let gets = held.gets.iter().skip(from).filter(|get| get.blob == blob);
    gets.map(|get| match get.ranges.as_slice() {
        [] => size,
        ranges => ranges.iter().map(|(start, end)| end.min(&size) - start).sum(),
    })
    .sum()
}

// SPEC: D3
#[tokio::test(flavor = "multi_thread")]
async fn bad_input_32_after_kill_9_nothing_is_fetched_again_that_is_on_disk() {
    const SIZE: u64 = 24_000_000;
    let world = World::start().await;
    let relay = Relay::start(&world).await;
    let blob = bytes(7, 24_000_000);
    let id = BlobId::of(&blob);
    relay.held.lock().unwrap().stall_at = Some(20_000_000);
    relay.hold(1, &mailbox("alice"), b"manifest", &[blob]);
    let paths = world.set_up("alice", None).await;
    let mut process = programs::start(&paths).await;
    let mut verified = 0;
    eventually("half of it to be here", async || {
        let list = programs::json(&paths, &["list"]).await;
        verified = list["deliveries"][0]["bytes_verified"].as_u64().unwrap_or(0);
        verified >= SIZE / 2
    })
    .await;
    process.kill().await.unwrap();

    let gets = {
        let mut held = relay.held.lock().unwrap();
        held.stall_at = None;
        held.gets.len()
    };
    let mut process = programs::start(&paths).await;
    relay.receipts(1).await;
    let again = asked_for(&relay, gets, id, SIZE);
    assert!(again <= SIZE - verified, "{again} bytes were asked for again, with {verified} on disk");
    process.kill().await.unwrap();
    assert_eq!(programs::json(&paths, &["list"]).await["blobs"][0]["size"], SIZE);
}

// SPEC: D3; rule 4
#[tokio::test(flavor = "multi_thread")]
async fn bad_input_35_wrong_bytes_are_not_kept_and_the_right_ones_are_taken_later() {
    let world = World::start().await;
    let relay = Relay::start(&world).await;
    relay.held.lock().unwrap().is_wrong = true;
    let blob = bytes(1, 500_000);
    let offer = relay.hold(1, &mailbox("alice"), b"manifest", std::slice::from_ref(&blob));
    let agent = world.agent("alice", None).await;
    let shared = agent.shared();
    eventually("the wrong bytes to be noticed", async || {
        !relay.held.lock().unwrap().gets.is_empty() && !shared.pulls.is_running(&offer.delivery)
    })
    .await;
    assert!(!shared.store.holds(BlobId::of(&blob)).unwrap());
    assert!(!shared.store.holds(offer.manifest.id).unwrap());
    assert!(relay.held.lock().unwrap().receipts.is_empty());
    relay.held.lock().unwrap().is_wrong = false;
    shared.links.get(&relay.endpoint.peer()).unwrap().close();
    relay.receipts(1).await;
    assert!(shared.store.open_blob(BlobId::of(&blob)).unwrap().is_intact().unwrap());
    agent.stop().await;
}
