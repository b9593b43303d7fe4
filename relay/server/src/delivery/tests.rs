use std::time::{Duration, Instant};

use lighter_catalog::{Cause, Change, DeliveryState, Form, Message};
use lighter_protocol::wire::{Answer, Get, Have, OfferedBlob, Request, Response, Waiting};
use lighter_protocol::{Attestation, BlobId, DeliveryId, Keypair, Receipt, Signed, UnixTime};
use lighter_transport::location::Presence;
use lighter_transport::{Connection, PullError};

use super::*;
use crate::limits::REFUSAL_TIME;

mod drops;
mod one_copy;
mod push;
mod small;
mod world;

use world::{Store, World, mailbox, message, within};

// SPEC: A18, A19, D3, D4, D5
#[tokio::test]
async fn a_message_waits_for_its_store_is_pulled_receipted_and_released() {
    let mut world = World::new().await;
    world.keep_after_receipt = Duration::ZERO;
    let relay = world.start().await;
    let alice = world.store("alice");
    let original = message(1, 3_000_000);
    relay.take(&["alice"], &original).await;
    assert_eq!(relay.counts().await.waiting, 1);

    let (session, count) = alice.come(&world, &relay).await;
    assert_eq!(count, 1);
    let offer = alice.offer(&session).await;
    assert_eq!((offer.mailbox.clone(), offer.blobs[0].name.as_str()), (mailbox("alice"), "plans.pdf"));
    assert_eq!(alice.fetch(&session, &offer).await, original);
    assert_eq!(relay.counts().await.waiting, 1, "nothing is let go of before the receipt");

    assert_eq!(alice.say(&session, &alice.receipt(&offer)).await, Response::Released);
    relay.until("released at once", |counts| counts.released == 1).await;
    assert_eq!(relay.counts().await.waiting, 0);
    let refused = alice.pull(&session, offer.delivery, &offer.manifest).await;
    assert!(matches!(refused, Err(PullError::Refused)), "what is let go of is handed out no more");
}

// SPEC: D3
#[tokio::test]
async fn relays_on_the_same_catalog_are_named_as_sources_of_what_is_offered() {
    let world = World::new().await;
    let relay = world.start().await;
    let fellow = Keypair::generate_ed25519().public().to_peer_id();
    relay.signals.tell_fellows([fellow]);
    let alice = world.store("alice");
    let (session, _) = alice.come(&world, &relay).await;
    relay.take(&["alice"], &message(1, 20_000)).await;
    assert_eq!(alice.offer(&session).await.sources, [fellow]);
}

// SPEC: D5
#[tokio::test]
async fn a_store_that_is_there_is_offered_a_message_as_it_comes() {
    let world = World::new().await;
    let relay = world.start().await;
    let alice = world.store("alice");
    let (session, count) = alice.come(&world, &relay).await;
    assert_eq!(count, 0);
    let original = message(1, 20_000);
    relay.take(&["alice"], &original).await;
    let offer = alice.offer(&session).await;
    assert_eq!(alice.fetch(&session, &offer).await, original);
}

// SPEC: A10
#[tokio::test]
async fn each_recipient_has_a_delivery_of_their_own_and_who_has_no_store_has_none() {
    let world = World::new().await;
    let relay = world.start().await;
    let (alice, bob) = (world.store("alice"), world.store("bob"));
    let original = message(1, 20_000);
    relay.take(&["alice", "carol", "bob"], &original).await;
    let (to_alice, _) = alice.come(&world, &relay).await;
    let (to_bob, _) = bob.come(&world, &relay).await;
    let (first, second) = (alice.offer(&to_alice).await, bob.offer(&to_bob).await);
    assert_ne!(first.delivery, second.delivery);
    assert_eq!(alice.fetch(&to_alice, &first).await, bob.fetch(&to_bob, &second).await);
    assert_eq!(relay.counts().await.waiting, 2);
    assert_eq!(alice.say(&to_alice, &alice.receipt(&first)).await, Response::Released);
    relay.until("one released, one not", |counts| (counts.released, counts.waiting) == (1, 1)).await;
}

#[tokio::test]
async fn a_receipted_copy_is_kept_as_long_as_was_set() {
    let mut world = World::new().await;
    world.keep_after_receipt = Duration::from_secs(3_600);
    let relay = world.start().await;
    let alice = world.store("alice");
    relay.take(&["alice"], &message(1, 20_000)).await;
    let (session, _) = alice.come(&world, &relay).await;
    let offer = alice.offer(&session).await;
    assert_eq!(alice.say(&session, &alice.receipt(&offer)).await, Response::Released);
    assert_eq!(relay.counts().await.receipted, 1);
    assert!(alice.pull(&session, offer.delivery, &offer.manifest).await.is_ok());
}

// SPEC: A18
#[tokio::test]
async fn a_store_that_is_told_to_be_online_is_dialled_and_offered_what_waits() {
    let world = World::new().await;
    let relay = world.start().await;
    let alice = world.store("alice");
    let original = message(1, 20_000);
    relay.take(&["alice"], &original).await;
    within(async {
        while !world.location.is_heard() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    world.location.know(&alice, Presence::Online, true);
    world.location.tell_online(&alice);
    let session = within(alice.endpoint.accept()).await.unwrap();
    let offer = alice.offer(&session).await;
    assert_eq!(alice.fetch(&session, &offer).await, original);
    assert_eq!(alice.say(&session, &alice.receipt(&offer)).await, Response::Released);
}

// SPEC: D5
#[tokio::test]
async fn what_was_committed_while_the_relay_was_down_for_presence_is_found_by_asking() {
    let world = World::new().await;
    let alice = world.store("alice");
    let relay = world.start().await;
    relay.take(&["alice"], &message(1, 20_000)).await;
    relay.kill();
    world.location.know(&alice, Presence::Online, true);
    let _relay = world.start().await;
    let session = within(alice.endpoint.accept()).await.unwrap();
    alice.offer(&session).await;
}

/// How far a delivery is when the relay is killed.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
enum Point {
    Accepted,
    Offered,
    HalfPulled,
    Pulled,
    Receipted,
}

/// BAD-INPUTS 32, of the relay's steps.
#[tokio::test]
async fn bad_input_32_a_relay_killed_at_any_point_loses_and_doubles_nothing() {
    for point in [Point::Accepted, Point::Offered, Point::HalfPulled, Point::Pulled, Point::Receipted] {
        let mut world = World::new().await;
        world.keep_after_receipt = Duration::from_secs(3_600);
        let alice = world.store("alice");
        let original = message(1, 2_500_000);
        let relay = world.start().await;
        relay.take(&["alice"], &original).await;
        let first = go_to(point, &world, &relay, &alice).await;
        relay.kill();

        let relay = world.start().await;
        let expected = if point == Point::Receipted { (0, 1) } else { (1, 0) };
        let counts = relay.counts().await;
        assert_eq!((counts.waiting, counts.receipted), expected, "{point:?}");
        let (session, count) = alice.come(&world, &relay).await;
        assert_eq!(count, expected.0, "{point:?}");
        if point < Point::Receipted {
            let offer = alice.offer(&session).await;
            assert!(
                first.is_none_or(|id| id == offer.delivery),
                "{point:?}: the same delivery again, not another"
            );
            assert_eq!(alice.fetch(&session, &offer).await, original, "{point:?}");
            assert_eq!(alice.say(&session, &alice.receipt(&offer)).await, Response::Released);
        }
        let counts = relay.counts().await;
        assert_eq!((counts.waiting, counts.receipted, counts.messages), (0, 1, 1), "{point:?}");
    }
}

async fn go_to(point: Point, world: &World, relay: &world::Relay, alice: &Store) -> Option<DeliveryId> {
    if point == Point::Accepted {
        return None;
    }
    let (session, _) = alice.come(world, relay).await;
    let offer = alice.offer(&session).await;
    if point == Point::HalfPulled {
        alice.pull(&session, offer.delivery, &offer.manifest).await.unwrap();
    }
    if point >= Point::Pulled {
        alice.fetch(&session, &offer).await;
    }
    if point == Point::Receipted {
        assert_eq!(alice.say(&session, &alice.receipt(&offer)).await, Response::Released);
    }
    Some(offer.delivery)
}

// SPEC: B13
#[tokio::test]
async fn with_the_view_deleted_everything_is_back() {
    let world = World::new().await;
    let (alice, bob) = (world.store("alice"), world.store("bob"));
    let relay = world.start().await;
    let originals: Vec<_> = (0..5).map(|seed| message(seed, 50_000)).collect();
    for original in &originals {
        relay.take(&["alice", "bob"], original).await;
    }
    let (session, _) = alice.come(&world, &relay).await;
    let offer = alice.offer(&session).await;
    assert_eq!(alice.say(&session, &alice.receipt(&offer)).await, Response::Released);
    relay.until("released", |counts| counts.released == 1).await;
    let before = relay.counts().await;
    relay.kill();
    std::fs::remove_dir_all(world.catalog_folder()).unwrap();

    let relay = world.start().await;
    assert_eq!(relay.counts().await, before);
    let (session, count) = bob.come(&world, &relay).await;
    assert_eq!(count, 5);
    let mut fetched = Vec::new();
    for _ in 0..5 {
        let offer = bob.offer(&session).await;
        fetched.push(bob.fetch(&session, &offer).await);
    }
    fetched.sort();
    let mut originals = originals;
    originals.sort();
    assert_eq!(fetched, originals);
}

async fn refused(connection: &Connection, request: Request) {
    let began = Instant::now();
    let response = within(connection.request(&request)).await.unwrap();
    assert_eq!(response, Response::Refused, "{request:?}");
    assert!(began.elapsed() >= REFUSAL_TIME, "refused too soon: {request:?}");
}

fn get(delivery: DeliveryId, blob: &OfferedBlob) -> Request {
    Request::Get(Get { delivery, blob: blob.id, ranges: Vec::new(), attestation: None })
}

/// Asks for a blob as a pull does, and is refused.
async fn pull_refused(store: &Store, connection: &Connection, delivery: DeliveryId, blob: &OfferedBlob) {
    let began = Instant::now();
    let result = store.pull(connection, delivery, blob).await;
    assert!(matches!(result, Err(PullError::Refused)), "{:?} {result:?}", get(delivery, blob));
    assert!(began.elapsed() >= REFUSAL_TIME, "refused too soon");
}

// SPEC: D9
#[tokio::test]
async fn bad_input_34_a_delivery_is_read_by_its_mailbox_only() {
    let world = World::new().await;
    let relay = world.start().await;
    let (alice, mallory) = (world.store("alice"), world.store("mallory"));
    relay.take(&["alice"], &message(1, 20_000)).await;
    let (session, _) = alice.come(&world, &relay).await;
    let offer = alice.offer(&session).await;

    let nobody = mallory.connect(&relay).await;
    let (other, _) = mallory.come(&world, &relay).await;
    for stranger in [&nobody, &other] {
        pull_refused(&mallory, stranger, offer.delivery, &offer.manifest).await;
        pull_refused(&mallory, stranger, offer.delivery, &offer.blobs[0]).await;
        pull_refused(&mallory, stranger, DeliveryId([9; 16]), &offer.manifest).await;
        refused(stranger, Request::Have(Have::Delivery(offer.delivery))).await;
        refused(stranger, Request::Have(Have::Delivery(DeliveryId([9; 16])))).await;
        refused(stranger, Request::Have(Have::Blob(offer.manifest.id))).await;
    }
    let unnamed = OfferedBlob { id: BlobId([3; 32]), ..offer.manifest.clone() };
    pull_refused(&alice, &session, offer.delivery, &unnamed).await;
    let have = Request::Have(Have::Delivery(offer.delivery));
    assert_eq!(within(session.request(&have)).await.unwrap(), Response::Have(true));
    assert!(alice.pull(&session, offer.delivery, &offer.manifest).await.is_ok(), "and its own store may");
}

#[tokio::test]
async fn a_further_device_reads_with_the_attestation_that_it_shows() {
    let world = World::new().await;
    let relay = world.start().await;
    let alice = world.store("alice");
    relay.take(&["alice"], &message(1, 20_000)).await;
    let (session, _) = alice.come(&world, &relay).await;
    let offer = alice.offer(&session).await;

    let tablet = world.store("alice");
    let connection = tablet.connect(&relay).await;
    let sign = |attestation| Signed::sign(&attestation, &world.location.key).unwrap();
    let mut pull = lighter_transport::Pull::of(offer.delivery, offer.manifest.id, offer.manifest.size);
    let shown = [
        (sign(Attestation { primary: false, ..tablet.attestation() }), true),
        (sign(alice.attestation()), false), // somebody else's
        (Signed::sign(&tablet.attestation(), tablet.identity.keypair()).unwrap(), false), // its own word
    ];
    for (attestation, may) in shown {
        pull.attestation = Some(attestation);
        let pulled = within(connection.pull(&pull, &Arc::new(Nothing))).await;
        assert_eq!(pulled.is_ok(), may, "{pulled:?}");
    }
}

/// Keeps nothing.
struct Nothing;

impl lighter_transport::VerifiedSink for Nothing {
    async fn write(&self, _: lighter_transport::Piece) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn bad_input_34_a_session_needs_an_attestation_that_holds() {
    let world = World::new().await;
    let relay = world.start().await;
    let (alice, mallory) = (world.store("alice"), world.store("mallory"));
    relay.take(&["alice"], &message(1, 20_000)).await;
    let right = alice.attestation();
    let long_ago = UnixTime(right.issued.0 - 100_000);
    let bad = [
        Signed::sign(&right, mallory.identity.keypair()).unwrap(), // not the location server's word
        Signed::sign(&right, &world.location.key).unwrap(),        // alice's own, shown by mallory
        Signed::sign(
            &Attestation {
                peer: mallory.peer(),
                issued: long_ago,
                expires: long_ago.plus(Duration::from_secs(3_600)),
                ..right
            },
            &world.location.key,
        )
        .unwrap(), // expired
    ];
    for attestation in bad {
        let connection = mallory.connect(&relay).await;
        refused(&connection, Request::Waiting(Waiting { attestation })).await;
    }
    assert_eq!(relay.gauges.sessions(), 0);
}

// SPEC: D9; DESIGN §4 — a device that is lost, or has another key
#[tokio::test]
async fn bad_input_34_a_revoked_key_reads_and_releases_nothing_from_the_moment_that_it_is_told() {
    let world = World::new().await;
    let relay = world.start().await;
    let (lost, next) = (world.store("alice"), world.store("alice"));
    relay.take(&["alice"], &message(1, 20_000)).await;
    let (session, _) = lost.come(&world, &relay).await;
    let offer = lost.offer(&session).await;
    lost.pull(&session, offer.delivery, &offer.manifest).await.unwrap();
    while !world.location.is_heard() {
        tokio::task::yield_now().await;
    }

    let attested = UnixTime::now();
    world.location.tell_revoked(&lost, attested);
    let waiting = |store: &Store, issued: UnixTime| {
        let attestation = Attestation { issued, ..store.attestation() };
        let attestation = Signed::sign(&attestation, &world.location.key).unwrap();
        Request::Waiting(Waiting { attestation })
    };
    // Told by another task: until then the session lives.
    while within(session.request(&waiting(&lost, attested))).await.unwrap() != Response::Refused {
        tokio::task::yield_now().await;
    }
    pull_refused(&lost, &session, offer.delivery, &offer.blobs[0]).await;
    let attestation = Attestation { issued: attested, ..lost.attestation() };
    let shown = Get {
        delivery: offer.delivery,
        blob: offer.blobs[0].id,
        ranges: Vec::new(),
        attestation: Some(Signed::sign(&attestation, &world.location.key).unwrap()),
    };
    refused(&session, Request::Get(shown)).await;
    assert_eq!(lost.say(&session, &lost.receipt(&offer)).await, Response::Refused, "its receipt");
    refused(&lost.connect(&relay).await, waiting(&lost, attested)).await;

    // The key that came in its place.
    let (session, count) = next.come(&world, &relay).await;
    assert_eq!(count, 1);
    let offer = next.offer(&session).await;
    next.fetch(&session, &offer).await;
    assert_eq!(next.say(&session, &next.receipt(&offer)).await, Response::Released);
    // Enrolled again, by the admin's word, it is a store as any.
    let again = within(lost.connect(&relay).await.request(&waiting(&lost, UnixTime(attested.0 + 60)))).await;
    assert_eq!(again.unwrap(), Response::Waiting(0));
}

#[tokio::test]
async fn bad_input_34_a_receipt_that_does_not_hold_releases_nothing() {
    let world = World::new().await;
    let relay = world.start().await;
    let (alice, mallory) = (world.store("alice"), world.store("mallory"));
    relay.take(&["alice"], &message(1, 20_000)).await;
    let (session, _) = alice.come(&world, &relay).await;
    let offer = alice.offer(&session).await;
    let (other, _) = mallory.come(&world, &relay).await;
    let right = alice.receipt(&offer);
    let signed = |receipt: &Receipt, key: &Keypair| Request::Receipt(Signed::sign(receipt, key).unwrap());
    let (own, foreign) = (alice.identity.keypair(), mallory.identity.keypair());
    let bad = [
        signed(&right, foreign),
        signed(&Receipt { store: mallory.peer(), ..right.clone() }, foreign),
        signed(
            &Receipt { mailbox: mallory.mailbox.clone(), store: mallory.peer(), ..right.clone() },
            foreign,
        ),
        signed(&Receipt { mailbox: mallory.mailbox.clone(), ..right.clone() }, own),
        signed(&Receipt { manifest: BlobId([1; 32]), ..right.clone() }, own),
        signed(&Receipt { delivery: DeliveryId([1; 16]), ..right.clone() }, own),
        signed(&Receipt { time: right.time.plus(Duration::from_secs(1_000_000)), ..right.clone() }, own),
    ];
    for request in bad {
        refused(&session, request.clone()).await;
        refused(&other, request).await;
    }
    assert_eq!(relay.delivery(offer.delivery).await.unwrap().state, DeliveryState::Waiting);

    // The right one counts, whoever brings it, and once.
    assert_eq!(within(other.request(&signed(&right, own))).await.unwrap(), Response::Released);
    relay.until("released", |counts| counts.released == 1).await;
    assert_eq!(alice.say(&session, &right).await, Response::Released, "replayed");
    assert_eq!(relay.counts().await.released, 1);
}

#[tokio::test]
async fn a_store_that_says_later_or_fails_is_not_forgotten() {
    let world = World::new().await;
    let relay = world.start().await;
    let alice = world.store("alice");
    relay.take(&["alice"], &message(1, 20_000)).await;
    let (session, _) = alice.come(&world, &relay).await;
    let incoming = within(session.accept_request()).await.unwrap();
    let later = Answer::Later(lighter_protocol::wire::LaterReason::Quota);
    incoming.responder.respond(&Response::Answer(vec![later])).await.unwrap();
    session.close();
    let (session, count) = alice.come(&world, &relay).await;
    assert_eq!(count, 1);
    alice.offer(&session).await;
}

/// A message in the array whose time is over sooner than any that is taken in: the notice and the whole message are due.
async fn accept_with_days_left(relay: &world::Relay, days: u32) -> (Message, DeliveryId) {
    relay.take(&["alice"], &message(1, 20_000)).await;
    relay.until("accepted", |counts| counts.waiting == 1).await;
    let row = relay.ask(|catalog| Ok(catalog.waiting(&mailbox("alice"), None, 1)?.remove(0))).await;
    let id = row.message;
    let mut message = relay.ask(move |catalog| catalog.message(&id)).await.unwrap();
    relay.ledger.commit_applied(Change::Voided(id), message.class).await.unwrap();
    message.id = lighter_protocol::MessageId([5; 16]);
    message.expires = UnixTime::now().day().plus(days);
    let Form::Stub { delivery, .. } = message.recipients[0].form else { panic!("alice has a store") };
    // Nothing refers to what the first one brought any more: this one brings its own.
    let (array, mut placed) = (relay.ledger.log(), Vec::new());
    for part in &mut message.parts {
        let mut reader = array.read_blob(&part.blob, 0..part.blob.size);
        let mut writer = array.create_blob(message.class);
        while let Some(bytes) = reader.next().await.unwrap() {
            writer.write(&bytes).await.unwrap();
        }
        let blob = writer.finish().await.unwrap();
        part.blob = blob.stored().clone();
        placed.push(blob);
    }
    relay.ledger.accept(message.clone(), placed).await.unwrap();
    (message, delivery)
}

// DESIGN §3 rule 3.
#[tokio::test]
async fn what_nobody_fetched_is_told_three_days_before_and_goes_whole_the_day_before() {
    for (days, state, messages) in [(2, DeliveryState::Waiting, 2), (1, DeliveryState::Lapsing, 2)] {
        let world = World::new().await;
        let relay = world.start().await;
        world.store("alice");
        let (_, delivery) = accept_with_days_left(&relay, days).await;
        relay.until("accepted", |counts| counts.messages == 1).await;
        relay.kill(); // a start looks at once
        let relay = world.start().await;
        relay.until("noticed", |counts| counts.messages == messages).await;
        within(async {
            while relay.delivery(delivery).await.unwrap().state != state {
                tokio::task::yield_now().await;
            }
        })
        .await;
        let row = relay.delivery(delivery).await.unwrap();
        assert!(row.noticed);
        let due = relay.ask(|catalog| catalog.due(UnixTime(u64::MAX), 10, &Default::default())).await;
        assert_eq!(due.iter().any(|due| due.hand_over.lapsed), state == DeliveryState::Lapsing);
        let notice = due.iter().find(|due| due.message != row.message).unwrap().message;
        let notice = relay.ask(move |catalog| catalog.message(&notice)).await.unwrap();
        assert_eq!(notice.cause, Some(Cause::Notice { delivery }));
        assert_eq!((notice.envelope.reverse_path.as_str(), notice.recipients.len()), ("", 1));
    }
}

#[tokio::test]
async fn nothing_is_due_long_before_the_end() {
    let world = World::new().await;
    let relay = world.start().await;
    world.store("alice");
    let (_, delivery) = accept_with_days_left(&relay, 10).await;
    relay.until("accepted", |counts| counts.messages == 1).await;
    relay.kill();
    let relay = world.start().await;
    let row = relay.delivery(delivery).await.unwrap();
    assert_eq!((row.noticed, row.state), (false, DeliveryState::Waiting));
}
