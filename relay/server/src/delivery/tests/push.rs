//! Pushing, where it is set: a store gets what it said that it wants, and asks for the rest.

use std::collections::BTreeMap;

use lighter_protocol::blob::RangeSet;
use lighter_protocol::pull::{PushedStream, StreamId};
use lighter_protocol::wire::{Offer, PushAnswer, PushPart};
use lighter_transport::pull::Gauge;

use super::world::{Buffer, Relay};
use super::*;

/// A relay that pushes, and a store that has come for what waits there.
struct Pushing {
    _world: World,
    relay: Relay,
    alice: Store,
    session: Connection,
    original: Vec<u8>,
}

impl Pushing {
    /// What is of `bytes_max` bytes at most is pushed; a message with `size` bytes attached waits, and is kept until its receipt.
    async fn start(bytes_max: u64, size: usize) -> Self {
        let mut world = World::new().await;
        (world.keep_after_receipt, world.push_bytes_max) = (Duration::ZERO, Some(bytes_max));
        let relay = world.start().await;
        let alice = world.store("alice");
        let original = message(1, size);
        relay.take(&["alice"], &original).await;
        let (session, _) = alice.come(&world, &relay).await;
        Self { _world: world, relay, alice, session, original }
    }
}

/// The next offer, by a relay that would push, answered with what is wanted of it.
async fn offered(connection: &Connection, wanted: impl Fn(&Offer) -> Vec<PushPart>) -> Offer {
    let incoming = within(connection.accept_request()).await.expect("the connection lives");
    let Request::PushOffer(offer) = incoming.request else { panic!("{:?}", incoming.request) };
    let answers = offer.blobs.iter().map(|_| Answer::Pull).collect();
    let answer = PushAnswer { answers, wanted: wanted(&offer) };
    incoming.responder.respond(&Response::PushAnswer(answer)).await.unwrap();
    offer
}

fn whole(blob: &OfferedBlob) -> PushPart {
    PushPart { blob: blob.id, ranges: vec![(0, blob.size)] }
}

/// Takes all that is pushed, until so many bytes have come: by blob and place.
async fn taken(connection: &Connection, offer: &Offer, len: u64) -> BTreeMap<(BlobId, u64), Vec<u8>> {
    let mut came = BTreeMap::new();
    let mut left = len;
    while left > 0 {
        let incoming = within(connection.accept_request()).await.expect("the connection lives");
        let Request::Push(push) = incoming.request else { panic!("{:?}", incoming.request) };
        assert_eq!(push.delivery, offer.delivery);
        let mut stream = incoming.responder.into_push().unwrap();
        let last = push.parts.len() - 1;
        for (at, part) in push.parts.iter().enumerate() {
            let mut all = std::iter::once(&offer.manifest).chain(&offer.blobs);
            let size = all.find(|offered| offered.id == part.blob).unwrap().size;
            let ranges: RangeSet = part.ranges.iter().map(|(start, end)| *start..*end).collect();
            left -= ranges.len();
            let part = PushedStream { stream: StreamId(0), blob: part.blob, size, ranges };
            let sink = Arc::new(Buffer::default());
            within(stream.receive(&part, at == last, Arc::clone(&sink), &Gauge::default())).await.unwrap();
            for (offset, bytes) in std::mem::take(&mut *sink.pieces.lock().unwrap()) {
                assert!(came.insert((part.blob, offset), bytes.to_vec()).is_none(), "pushed twice");
            }
        }
        stream.done().await.unwrap();
    }
    came
}

// SPEC: A19, D4
#[tokio::test]
async fn a_delivery_is_pushed_where_that_is_set_and_released_against_its_receipt() {
    let Pushing { _world, relay, alice, session, .. } = Pushing::start(u64::MAX, 3_000_000).await;
    let offer = offered(&session, |offer| vec![whole(&offer.manifest), whole(&offer.blobs[0])]).await;
    let len = offer.manifest.size + offer.blobs[0].size;
    let came = taken(&session, &offer, len).await;
    let of = |id: BlobId| -> Vec<u8> {
        came.iter().filter(|((blob, _), _)| *blob == id).flat_map(|(_, bytes)| bytes.clone()).collect()
    };
    assert_eq!(BlobId::of(&of(offer.manifest.id)), offer.manifest.id);
    assert_eq!(BlobId::of(&of(offer.blobs[0].id)), offer.blobs[0].id);
    assert_eq!(relay.counts().await.waiting, 1, "nothing is let go of before the receipt");
    assert_eq!(alice.say(&session, &alice.receipt(&offer)).await, Response::Released);
    relay.until("released", |counts| counts.released == 1).await;
}

// SPEC: A19, D3
#[tokio::test]
async fn only_what_is_wanted_is_pushed_and_the_rest_can_be_asked_for() {
    let Pushing { _world, relay: _relay, alice, session, original } =
        Pushing::start(u64::MAX, 3_000_000).await;
    let (start, end) = (16 * 16_384, 70 * 16_384);
    let offer = offered(&session, |offer| {
        // A blob of somebody else's is not given for being wanted.
        let other = PushPart { blob: BlobId([66; 32]), ranges: vec![(0, 100)] };
        vec![other, PushPart { blob: offer.blobs[0].id, ranges: vec![(start, end)] }]
    })
    .await;
    let came = taken(&session, &offer, end - start).await;
    let blob = alice.pull(&session, offer.delivery, &offer.blobs[0]).await.unwrap();
    let part = usize::try_from(start).unwrap()..usize::try_from(end).unwrap();
    assert_eq!(came.into_values().flatten().collect::<Vec<_>>(), blob[part]);
    assert_eq!(alice.fetch(&session, &offer).await, original);
}

// SPEC: A19
#[tokio::test]
async fn what_is_too_large_to_be_pushed_is_offered_to_be_asked_for() {
    let Pushing { _world, relay: _relay, alice, session, original } =
        Pushing::start(100_000, 3_000_000).await;
    let offer = alice.offer(&session).await;
    assert_eq!(alice.fetch(&session, &offer).await, original);
}

// SPEC: A19
#[tokio::test]
async fn a_push_that_the_store_declines_is_the_last_and_the_store_asks() {
    let Pushing { _world, relay: _relay, alice, session, original } =
        Pushing::start(u64::MAX, 12_000_000).await;
    let offer = offered(&session, |offer| vec![whole(&offer.manifest), whole(&offer.blobs[0])]).await;
    // As many as are open at a time come, and none after them.
    for _ in 0..lighter_protocol::limits::PUSH_STREAMS_MAX {
        let incoming = within(session.accept_request()).await.unwrap();
        assert!(matches!(incoming.request, Request::Push(_)));
        incoming.responder.respond(&Response::Later(5)).await.unwrap();
    }
    assert_eq!(alice.fetch(&session, &offer).await, original);
    assert_eq!(alice.say(&session, &alice.receipt(&offer)).await, Response::Released);
}
