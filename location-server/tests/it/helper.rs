//! The helper over real sockets: who has a session there, and whom it helps.

use std::time::Duration;

use lighter_location::config::HelperConfig;
use lighter_protocol::wire::{Get, Have, Meet, Request, Response, Waiting};
use lighter_protocol::{Attestation, BlobId, DeliveryId, PeerId, RelayRecord, Signed, UnixTime};
use lighter_transport::{Connection, Endpoint, EndpointConfig, Identity};
use tokio::time::timeout;

use crate::world::{Store, World, mailbox};

/// Long enough for anything that is to happen on a loaded machine.
const LONG: Duration = Duration::from_secs(60);

async fn world() -> World {
    World::start_with(|config| {
        let listen = "127.0.0.1:0".parse().unwrap();
        config.helper = Some(HelperConfig { listen, advertise: Vec::new() });
    })
    .await
}

/// A store of `name`, its attestation, and the helper as that names it.
async fn attested(world: &World, name: &str) -> (Store, Signed<Attestation>, RelayRecord) {
    let store = world.enrolled(name).await;
    let signed = store.register(world, 1).await.unwrap().attestation.unwrap();
    let now = UnixTime::now();
    let attestation = Attestation::verify(&signed, &world.server.peer(), now).unwrap();
    let helper = attestation.relays.last().unwrap().clone();
    (store, signed, helper)
}

fn endpoint(identity: &Identity) -> Endpoint {
    Endpoint::bind(identity, ([127, 0, 0, 1], 0).into(), EndpointConfig::default()).unwrap()
}

async fn connect(from: &Endpoint, helper: &RelayRecord) -> Connection {
    from.connect(helper.peer, &helper.addresses, LONG).await.unwrap()
}

async fn ask(connection: &Connection, request: Request) -> Response {
    timeout(LONG, connection.request(&request)).await.unwrap().unwrap()
}

// SPEC: A27
#[tokio::test]
async fn the_helper_is_named_as_a_relay_that_keeps_nothing_and_stays_the_same_across_restarts() {
    let world = world().await;
    let (_, _, helper) = attested(&world, "bob@b.example").await;
    assert!(helper.is_only_helper());
    assert_eq!(helper.addresses, world.server.helper_addresses());
    let world = world
        .restart_with(|config| {
            let listen = "127.0.0.1:0".parse().unwrap();
            config.helper = Some(HelperConfig { listen, advertise: vec!["192.0.2.7:7443".parse().unwrap()] });
        })
        .await;
    let (_, _, again) = attested(&world, "eve@b.example").await;
    assert_eq!(again.peer, helper.peer);
    assert_eq!(again.addresses, ["192.0.2.7:7443".parse().unwrap()]);
}

// SPEC: A27
#[tokio::test]
async fn a_sender_who_was_introduced_and_a_store_with_a_session_learn_where_the_other_is() {
    let world = world().await;
    let (bob, bobs, helper) = attested(&world, "bob@b.example").await;
    let (alice, session) = world.online("alice@b.example").await;
    let introduction = world.client.introduction(&session, &bob.mailbox, 0).await.unwrap().unwrap();
    let meet = Meet { introduction, store: bob.identity.peer() };
    let (at_alice, at_bob) = (endpoint(&alice.identity), endpoint(&bob.identity));
    let sender = connect(&at_alice, &helper).await;
    assert_eq!(ask(&sender, Request::Meet(meet.clone())).await, Response::Refused, "not there yet");
    let store = connect(&at_bob, &helper).await;
    assert_eq!(ask(&sender, Request::Meet(meet.clone())).await, Response::Refused, "has proved nothing yet");
    let waiting = Request::Waiting(Waiting { attestation: bobs });
    assert_eq!(ask(&store, waiting).await, Response::Waiting(0));
    let knocked = async {
        let incoming = timeout(LONG, store.accept_request()).await.unwrap().unwrap();
        let Request::Knock(knock) = incoming.request else { panic!("{:?}", incoming.request) };
        incoming.responder.respond(&Response::Coming).await.unwrap();
        knock.address
    };
    let (met, address) = tokio::join!(ask(&sender, Request::Meet(meet.clone())), knocked);
    assert_eq!(met, Response::Met(at_bob.local_addr().unwrap()));
    assert_eq!(address, at_alice.local_addr().unwrap());
    store.close();
    // The connection's end is on its way.
    timeout(LONG, async { while ask(&sender, Request::Meet(meet.clone())).await != Response::Refused {} })
        .await
        .unwrap();
}

#[tokio::test]
async fn bad_input_34_without_an_attestation_of_its_own_nobody_has_a_session_at_the_helper() {
    let world = world().await;
    let (bob, bobs, helper) = attested(&world, "bob@b.example").await;
    let eve = Identity::generate();
    let genuine = Attestation::verify(&bobs, &world.server.peer(), UnixTime::now()).unwrap();
    let claimed = Attestation { peer: eve.peer(), ..genuine };
    let forged = Signed::sign(&claimed, eve.keypair()).unwrap();
    let (at_eve, at_bob) = (endpoint(&eve), endpoint(&bob.identity));
    let connection = connect(&at_eve, &helper).await;
    for (case, attestation) in [("another's", bobs), ("forged", forged)] {
        assert_eq!(
            ask(&connection, Request::Waiting(Waiting { attestation })).await,
            Response::Refused,
            "{case}"
        );
    }
    // It is no relay, whoever asks.
    let store = connect(&at_bob, &helper).await;
    let (delivery, blob) = (DeliveryId([1; 16]), BlobId::of(b"x"));
    for request in [
        Request::Have(Have::Delivery(delivery)),
        Request::DropState(delivery),
        Request::Get(Get { delivery, blob, ranges: Vec::new(), attestation: None }),
        Request::Here(1),
    ] {
        assert_eq!(ask(&store, request).await, Response::Refused);
    }
    // Nor can anybody be met with an introduction that somebody else signed.
    let introduction = lighter_protocol::Introduction {
        sender: eve.peer(),
        sender_mailbox: mailbox("eve@e.example"),
        recipient: bob.mailbox.clone(),
        bytes_max: 0,
        expires: UnixTime::now().plus(Duration::from_mins(5)),
        number: 7,
    };
    let introduction = Signed::sign(&introduction, eve.keypair()).unwrap();
    let meet = Meet { introduction, store: PeerId::random() };
    assert_eq!(ask(&connection, Request::Meet(meet)).await, Response::Refused);
}
