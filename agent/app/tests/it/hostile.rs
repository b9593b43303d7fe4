//! Peers that are not who they should be, or say what is not so: every one hears the same refusal.

use lighter_protocol::wire::{Answer, Get, Offer, OfferedBlob, Request, Response};
use lighter_protocol::{BlobId, DeliveryId, Introduction, Signed, UnixTime};
use lighter_transport::{Connection, Endpoint, EndpointConfig, Identity};

use crate::support::relay::Relay;
use crate::support::{PATIENCE, World, bytes, mailbox};

async fn dial(endpoint: &Endpoint, agent: &lighter_agent::agent::Agent) -> Connection {
    let shared = agent.shared();
    let address = shared.endpoint.local_addr().unwrap();
    endpoint.connect(shared.identity.peer(), &[address], PATIENCE).await.unwrap()
}

fn endpoint(identity: &Identity) -> Endpoint {
    Endpoint::bind(identity, "127.0.0.1:0".parse().unwrap(), EndpointConfig::default()).unwrap()
}

fn offer(number: u8, size: u64, introduction: Option<Signed<Introduction>>) -> Offer {
    let blob = |content: &[u8], size| OfferedBlob {
        id: BlobId::of(content),
        size,
        name: "a".to_owned(),
        media_type: "x/y".to_owned(),
    };
    Offer {
        delivery: DeliveryId([number; 16]),
        mailbox: mailbox("alice"),
        manifest: blob(b"manifest", 8),
        blobs: vec![blob(&[number], size)],
        sources: Vec::new(),
        expires: UnixTime(UnixTime::now().0 + 3_600),
        introduction,
    }
}

// SPEC: A23, D9
#[tokio::test(flavor = "multi_thread")]
async fn bad_input_34_a_forged_borrowed_or_used_up_introduction_opens_nothing() {
    let world = World::start().await;
    let alice = world.agent("alice", None).await;
    let sam = world.agent("sam", None).await;
    let eve = Identity::generate();
    let session = sam.shared().session().unwrap();
    let client = world.client();
    let word = client.introduction(&session, &mailbox("alice"), 1_000).await.unwrap().unwrap();

    let claim = word.claim().unwrap();
    let forged = Signed::sign(&Introduction { sender: eve.peer(), ..claim.clone() }, eve.keypair()).unwrap();
    let stretched =
        Signed::sign(&Introduction { bytes_max: u64::MAX, ..claim }, sam.shared().identity.keypair())
            .unwrap();
    let other = world.agent("carol", None).await;
    let for_carol = client.introduction(&session, &mailbox("carol"), 1_000).await.unwrap().unwrap();

    let eve_endpoint = endpoint(&eve);
    let eves = dial(&eve_endpoint, &alice).await;
    let sams = dial(&sam.shared().endpoint, &alice).await;
    let mut expired = offer(1, 100, Some(word.clone()));
    expired.expires = UnixTime(UnixTime::now().0 - 1);
    let mut for_bob = offer(1, 100, Some(word.clone()));
    for_bob.mailbox = mailbox("bob");
    for (connection, offer, what) in [
        (&eves, offer(1, 100, Some(word.clone())), "somebody else's introduction"),
        (&eves, offer(1, 100, Some(forged)), "an introduction that the sender signed"),
        (&sams, offer(1, 100, Some(stretched)), "an introduction with other bounds"),
        (&sams, offer(1, 100, Some(for_carol)), "an introduction to somebody else"),
        (&sams, offer(1, 100, None), "none"),
        (&sams, offer(1, 10_000, Some(word.clone())), "more bytes than it is for"),
        (&sams, expired, "an offer that is over"),
        (&sams, for_bob, "another mailbox"),
    ] {
        let response = connection.request(&Request::Offer(offer)).await.unwrap();
        assert_eq!(response, Response::Refused, "{what}");
    }
    assert!(alice.shared().store.all_incoming().unwrap().is_empty());

    let response = sams.request(&Request::Offer(offer(1, 700, Some(word.clone())))).await.unwrap();
    assert_eq!(response, Response::Answer(vec![Answer::Pull]), "the real one");
    let response = sams.request(&Request::Offer(offer(2, 700, Some(word)))).await.unwrap();
    assert_eq!(response, Response::Refused, "used up");
    for agent in [alice, sam, other] {
        agent.stop().await;
    }
}

// SPEC: A23
#[tokio::test(flavor = "multi_thread")]
async fn bad_input_34_a_pull_for_somebody_elses_blob_is_refused_like_one_for_nothing() {
    let world = World::start().await;
    let relay = Relay::start(&world).await;
    let held = relay.hold(1, &mailbox("alice"), b"manifest", &[bytes(1, 300_000)]);
    let alice = world.agent("alice", None).await;
    relay.receipts(1).await;
    let sam = world.agent("sam", None).await;
    let own = sam.shared().attested().unwrap().signed;
    let stolen = alice.shared().attested().unwrap().signed;
    let connection = dial(&sam.shared().endpoint, &alice).await;
    for attestation in [None, Some(own), Some(stolen)] {
        for (delivery, blob) in [
            (held.delivery, held.blobs[0].id),
            (held.delivery, held.manifest.id),
            (held.delivery, BlobId::of(b"never seen")),
            (DeliveryId([9; 16]), held.blobs[0].id),
        ] {
            let get = Get { delivery, blob, ranges: Vec::new(), attestation: attestation.clone() };
            assert_eq!(connection.request(&Request::Get(get)).await.unwrap(), Response::Refused);
        }
    }
    sam.stop().await;
    alice.stop().await;
}

// The relay of another domain is a stranger here.
#[tokio::test(flavor = "multi_thread")]
async fn bad_input_34_an_offer_from_a_relay_that_the_attestation_does_not_name_is_refused() {
    let (world, elsewhere) = (World::start().await, World::start().await);
    let foreign = Relay::start(&elsewhere).await;
    let offer = foreign.hold(1, &mailbox("alice"), b"manifest", &[bytes(1, 1_000)]);
    let alice = world.agent("alice", None).await;
    let connection = dial(&foreign.endpoint, &alice).await;
    assert_eq!(connection.request(&Request::Offer(offer)).await.unwrap(), Response::Refused);
    alice.stop().await;
}

// A store that promises nothing that it has no room for loses nothing: the holder keeps it.
#[tokio::test(flavor = "multi_thread")]
async fn bad_input_31_without_room_the_answer_is_later_and_status_says_why() {
    let world = World::start().await;
    let relay = Relay::start(&world).await;
    relay.hold(1, &mailbox("alice"), b"manifest", &[bytes(1, 700_000)]);
    relay.hold(2, &mailbox("alice"), b"another manifest", &[bytes(2, 900_000)]);
    let paths = world.set_up("alice", None).await;
    let mut config = lighter_agent::config::Config::read(&paths.config).unwrap();
    config.store.quota_mib = Some(1);
    config.write(&paths.config).unwrap();
    let alice = crate::support::start(&paths).await;
    relay.receipts(1).await;
    crate::support::eventually("both to be answered", async || relay.held.lock().unwrap().answers.len() == 2)
        .await;
    let answers = relay.held.lock().unwrap().answers.clone();
    let later = vec![Answer::Later(lighter_protocol::wire::LaterReason::Quota)];
    assert!(answers.contains(&vec![Answer::Pull]) && answers.contains(&later), "{answers:?}");
    assert_eq!(relay.held.lock().unwrap().receipts.len(), 1);
    alice.stop().await;
}
