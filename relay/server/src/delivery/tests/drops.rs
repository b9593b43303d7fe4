//! What senders leave for stores that are not there (SPEC A7; DESIGN §6 "drop"), over real sockets.

use std::collections::HashMap;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bao_tree::BlockSize;
use bao_tree::io::outboard::PreOrderMemOutboard;
use bytes::Bytes;
use lighter_catalog::DeliveryState;
use lighter_protocol::wire::{DropAnswer, DropState, LaterReason, NewDrop, NoReason, SealedBlob};
use lighter_protocol::{Introduction, Mailbox, PeerId, Succession};
use lighter_transport::{Endpoint, EndpointConfig, Identity};

use super::world::{Relay, Store, World};
use super::*;
use crate::config::DropsConfig;

/// A sender's agent, with sealed blobs of whatever bytes.
struct Sender {
    identity: Identity,
    endpoint: Endpoint,
    blobs: Arc<Mutex<HashMap<BlobId, Bytes>>>,
    /// What was asked for: blob, and where its first range begins.
    asked: Arc<Mutex<Vec<(BlobId, u64)>>>,
    /// Bytes that are given of a blob before it stands still.
    stall_at: Arc<AtomicU64>,
    /// Whether one does.
    stalls: Arc<AtomicBool>,
}

/// Bytes that stop coming at some place.
struct Stalling {
    bytes: Bytes,
    at: u64,
    stalls: Arc<AtomicBool>,
}

impl bao_tree::io::fsm::AsyncSliceReader for Stalling {
    async fn read_at(&mut self, offset: u64, len: usize) -> io::Result<Bytes> {
        if offset >= self.at {
            self.stalls.store(true, Ordering::Relaxed);
            std::future::pending::<()>().await;
        }
        let from = usize::try_from(offset).unwrap().min(self.bytes.len());
        Ok(self.bytes.slice(from..(from + len).min(self.bytes.len())))
    }

    async fn size(&mut self) -> io::Result<u64> {
        Ok(self.bytes.len() as u64)
    }
}

fn bytes(seed: u8, size: usize) -> Bytes {
    let mut bytes = vec![0; size];
    blake3::Hasher::new_derive_key("test drop").update(&[seed]).finalize_xof().fill(&mut bytes);
    bytes.into()
}

impl Sender {
    fn new() -> Self {
        let identity = Identity::generate();
        let endpoint =
            Endpoint::bind(&identity, ([127, 0, 0, 1], 0).into(), EndpointConfig::default()).unwrap();
        let (blobs, asked, stall_at, stalls) = Default::default();
        let sender = Self { identity, endpoint, blobs, asked, stall_at, stalls };
        sender.stall_at.store(u64::MAX, Ordering::Relaxed);
        sender
    }

    fn keep(&self, bytes: Bytes) -> SealedBlob {
        let sealed = SealedBlob { id: BlobId::of(&bytes), size: bytes.len() as u64 };
        self.blobs.lock().unwrap().insert(sealed.id, bytes);
        sealed
    }

    fn introduction(&self, to: &Mailbox, bytes_max: u64) -> Introduction {
        Introduction {
            sender: self.identity.peer(),
            sender_mailbox: "bob@a.example".parse().unwrap(),
            recipient: to.clone(),
            bytes_max,
            expires: UnixTime::now().plus(Duration::from_secs(600)),
            number: rand::random(),
        }
    }

    /// An envelope of 1,000 bytes and blobs of these sizes, for `to`.
    fn new_drop(&self, world: &World, to: &Store, number: u8, sizes: &[usize]) -> NewDrop {
        let blobs: Vec<_> = sizes.iter().zip(1..).map(|(size, seed)| self.keep(bytes(seed, *size))).collect();
        let envelope = self.keep(bytes(number.wrapping_add(100), 1_000));
        let total = envelope.size + blobs.iter().map(|blob| blob.size).sum::<u64>();
        let introduction = self.introduction(&to.mailbox, total);
        NewDrop {
            delivery: DeliveryId([number; 16]),
            recipient: to.mailbox.clone(),
            envelope,
            blobs,
            expires: UnixTime::now().plus(Duration::from_secs(30 * 86_400)),
            introduction: Signed::sign(&introduction, &world.location.key).unwrap(),
        }
    }

    /// Connects, and gives what it is asked for.
    async fn connect(&self, relay: &Relay) -> Connection {
        let connection =
            within(self.endpoint.connect(relay.peer(), &[relay.address], Duration::from_secs(60)))
                .await
                .unwrap();
        let (serving, blobs) = (connection.clone(), Arc::clone(&self.blobs));
        let (asked, stall_at) = (Arc::clone(&self.asked), Arc::clone(&self.stall_at));
        let stalls = Arc::clone(&self.stalls);
        tokio::spawn(async move {
            while let Some(incoming) = serving.accept_request().await {
                let Request::Get(get) = incoming.request else { panic!("{:?}", incoming.request) };
                asked.lock().unwrap().push((get.blob, get.ranges.first().map_or(0, |range| range.0)));
                let Some(bytes) = blobs.lock().unwrap().get(&get.blob).cloned() else {
                    let _ = incoming.responder.respond(&Response::Refused).await;
                    continue;
                };
                let outboard = PreOrderMemOutboard::create(&bytes, BlockSize::from_chunk_log(4));
                let (size, at) = (bytes.len() as u64, stall_at.load(Ordering::Relaxed));
                let stalling = Stalling { bytes, at, stalls: Arc::clone(&stalls) };
                tokio::spawn(async move {
                    let _ = incoming.responder.serve(&get, size, stalling, outboard).await;
                });
            }
        });
        connection
    }

    fn asked(&self) -> Vec<(BlobId, u64)> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

async fn leave(connection: &Connection, new: &NewDrop) -> Response {
    let request = Request::Drop(new.clone());
    within(connection.request_within(&request, Duration::from_secs(60))).await.unwrap()
}

/// Leaves it; asks again while the relay is still counting what it has.
async fn taken(connection: &Connection, new: &NewDrop) -> UnixTime {
    loop {
        match leave(connection, new).await {
            Response::Dropped(DropAnswer::Taken { until }) => return until,
            Response::Dropped(DropAnswer::Later(LaterReason::Busy)) => tokio::task::yield_now().await,
            other => panic!("{other:?}"),
        }
    }
}

async fn state(connection: &Connection, delivery: DeliveryId) -> Response {
    within(connection.request(&Request::DropState(delivery))).await.unwrap()
}

// SPEC: A7
#[tokio::test]
async fn what_is_left_is_durable_offered_fetched_and_its_sender_learns_of_the_receipt() {
    let world = World::new().await;
    let mut relay = world.start().await;
    let (alice, bob) = (world.store("alice"), Sender::new());
    let new = bob.new_drop(&world, &alice, 7, &[3_000_000, 16, 70_000]);
    let connection = bob.connect(&relay).await;
    let until = taken(&connection, &new).await;
    assert_eq!(until.day(), UnixTime::now().plus(Duration::from_secs(30 * 86_400)).day().plus(1), "its end");
    assert_eq!(state(&connection, new.delivery).await, Response::DropState(DropState::Waiting));
    bob.asked();
    assert_eq!(taken(&connection, &new).await, until, "asked again");
    assert_eq!(bob.asked(), [], "nothing is pulled twice");

    // Killed: what was answered is there; also where the view is lost and made again from the log.
    for view_is_lost in [false, true] {
        relay.kill();
        if view_is_lost {
            std::fs::remove_dir_all(world.catalog_folder()).unwrap();
        }
        relay = world.start().await;
        let connection = bob.connect(&relay).await;
        assert_eq!(taken(&connection, &new).await, until);
        assert_eq!(bob.asked(), []);
    }

    let (session, count) = alice.come(&world, &relay).await;
    assert_eq!(count, 1);
    let offer = alice.offer(&session).await;
    assert_eq!((offer.delivery, offer.manifest.id), (new.delivery, new.envelope.id));
    assert_eq!(offer.manifest.media_type, NewDrop::MEDIA_TYPE, "marked");
    assert!(offer.blobs.iter().all(|blob| blob.name.is_empty() && blob.media_type.is_empty()));
    for blob in std::iter::once(&offer.manifest).chain(&offer.blobs) {
        let pulled = alice.pull(&session, offer.delivery, blob).await.unwrap();
        assert_eq!(pulled, bob.blobs.lock().unwrap()[&blob.id]);
    }
    let receipt = alice.receipt(&offer);
    assert_eq!(alice.say(&session, &receipt).await, Response::Released);
    let connection = bob.connect(&relay).await;
    let Response::DropState(DropState::Receipted(signed)) = state(&connection, new.delivery).await else {
        panic!("no receipt");
    };
    assert_eq!(signed.verify(&alice.peer()), Ok(receipt));
    relay.until("let go of", |counts| counts.released == 1 && counts.copies == 0).await;
    let still = state(&connection, new.delivery).await;
    assert!(matches!(still, Response::DropState(DropState::Receipted(_))), "{still:?}");
}

#[tokio::test]
async fn bad_input_34_nobody_leaves_anything_without_an_introduction_that_covers_it() {
    let world = World::new().await;
    let relay = world.start().await;
    let (alice, carol, bob, mallory) =
        (world.store("alice"), world.store("carol"), Sender::new(), Sender::new());
    let new = bob.new_drop(&world, &alice, 7, &[10_000]);
    let right = bob.introduction(&alice.mailbox, new.bytes());
    let signed = |introduction: &Introduction, key: &Keypair| Signed::sign(introduction, key).unwrap();
    let location = &world.location.key;
    let long_ago = UnixTime(UnixTime::now().0 - 10_000);
    let bad = [
        signed(&right, bob.identity.keypair()),
        signed(&Introduction { sender: mallory.identity.peer(), ..right.clone() }, location),
        signed(&Introduction { recipient: carol.mailbox.clone(), ..right.clone() }, location),
        signed(&Introduction { bytes_max: new.bytes() - 1, ..right.clone() }, location),
        signed(&Introduction { expires: long_ago, ..right.clone() }, location),
    ];
    let connection = bob.connect(&relay).await;
    for introduction in bad {
        refused(&connection, Request::Drop(NewDrop { introduction, ..new.clone() })).await;
    }
    let over = NewDrop { expires: long_ago, ..new.clone() };
    refused(&connection, Request::Drop(over)).await;
    // One introduction does not cover two.
    let introduction = signed(&right, location);
    let new = NewDrop { introduction, ..new };
    taken(&connection, &new).await;
    refused(&connection, Request::Drop(NewDrop { delivery: DeliveryId([8; 16]), ..new })).await;
    assert_eq!(relay.counts().await.messages, 1);
}

#[tokio::test]
async fn bad_input_34_a_drop_is_its_senders_alone() {
    let world = World::new().await;
    let relay = world.start().await;
    let (alice, bob, mallory) = (world.store("alice"), Sender::new(), Sender::new());
    // A delivery that came by mail: its number is no sender's.
    relay.take(&["alice"], &message(1, 20_000)).await;
    let (session, _) = alice.come(&world, &relay).await;
    let mailed = alice.offer(&session).await.delivery;
    let new = bob.new_drop(&world, &alice, 7, &[10_000]);
    let connection = bob.connect(&relay).await;
    taken(&connection, &new).await;
    let stranger = mallory.connect(&relay).await;
    let same = mallory.new_drop(&world, &alice, 7, &[10_000]);
    refused(&stranger, Request::Drop(same)).await;
    refused(
        &stranger,
        Request::Drop(NewDrop { delivery: mailed, ..mallory.new_drop(&world, &alice, 9, &[50]) }),
    )
    .await;
    for unknown in [new.delivery, mailed, DeliveryId([99; 16])] {
        refused(&stranger, Request::DropState(unknown)).await;
    }
    refused(&connection, Request::DropState(mailed)).await;
    let blob = OfferedBlob {
        id: new.blobs[0].id,
        size: new.blobs[0].size,
        name: String::new(),
        media_type: String::new(),
    };
    pull_refused(&alice, &stranger, new.delivery, &blob).await;
    // Its own sender does not change it either.
    let changed = bob.new_drop(&world, &alice, 7, &[20_000]);
    let changed = NewDrop { envelope: bob.keep(bytes(1, 2_000)), ..changed };
    let introduction = bob.introduction(&alice.mailbox, changed.bytes());
    let introduction = Signed::sign(&introduction, &world.location.key).unwrap();
    refused(&connection, Request::Drop(NewDrop { introduction, ..changed })).await;
    assert_eq!(relay.delivery(new.delivery).await.unwrap().state, DeliveryState::Dropped);
}

// SPEC: A7 — also once the sender's key was rotated
#[tokio::test]
async fn bad_input_34_what_a_former_key_left_is_its_successors_by_its_own_word_only() {
    let world = World::new().await;
    let relay = world.start().await;
    let (alice, bob, next, mallory) = (world.store("alice"), Sender::new(), Sender::new(), Sender::new());
    let new = bob.new_drop(&world, &alice, 7, &[10_000]);
    let until = taken(&bob.connect(&relay).await, &new).await;
    let succession = |by: &Sender, to: &Sender| {
        let (mailbox, former) = ("bob@a.example".parse().unwrap(), bob.identity.peer());
        let said = Succession { mailbox, former, next: to.identity.peer(), time: UnixTime::now() };
        Request::Succession(vec![Signed::sign(&said, by.identity.keypair()).unwrap()])
    };
    let stranger = mallory.connect(&relay).await;
    for (request, why) in [
        (succession(&mallory, &mallory), "forged"),
        (succession(&bob, &next), "of another"),
        (succession(&next, &mallory), "forged by the next"),
    ] {
        refused(&stranger, request).await;
        refused(&stranger, Request::DropState(new.delivery)).await;
        println!("{why}: refused");
    }

    let connection = next.connect(&relay).await;
    refused(&connection, Request::DropState(new.delivery)).await;
    let said = within(connection.request(&succession(&bob, &next))).await.unwrap();
    assert_eq!(said, Response::Noted);
    assert_eq!(state(&connection, new.delivery).await, Response::DropState(DropState::Waiting));
    // The same drop, with an introduction of the present key's.
    let introduction = next.introduction(&alice.mailbox, new.bytes());
    let introduction = Signed::sign(&introduction, &world.location.key).unwrap();
    assert_eq!(taken(&connection, &NewDrop { introduction, ..new.clone() }).await, until);
    assert_eq!(next.asked(), [], "nothing is pulled twice");
    let another = next.connect(&relay).await;
    refused(&another, Request::DropState(new.delivery)).await;
}

#[tokio::test]
async fn bad_input_35_what_is_too_large_or_too_much_is_said_so_and_not_pulled() {
    let mut world = World::new().await;
    world.drops = DropsConfig {
        bytes_max: 100_000,
        recipient_bytes_max: 150_000,
        recipient_count_max: 2,
        ..DropsConfig::default()
    };
    let relay = world.start().await;
    let (alice, carol, bob) = (world.store("alice"), world.store("carol"), Sender::new());
    let connection = bob.connect(&relay).await;
    taken(&connection, &bob.new_drop(&world, &alice, 1, &[90_000])).await;
    bob.asked();
    let says = async |to: &Store, number, sizes: &[usize]| match leave(
        &connection,
        &bob.new_drop(&world, to, number, sizes),
    )
    .await
    {
        Response::Dropped(answer) => answer,
        other => panic!("{other:?}"),
    };
    assert_eq!(says(&carol, 2, &[100_000]).await, DropAnswer::No(NoReason::TooLarge));
    assert_eq!(says(&carol, 2, &[50, 15]).await, DropAnswer::No(NoReason::NotAccepted), "less than a tag");
    assert_eq!(says(&alice, 3, &[60_000]).await, DropAnswer::Later(LaterReason::Quota), "bytes");
    assert_eq!(bob.asked(), []);
    assert!(matches!(says(&carol, 3, &[60_000]).await, DropAnswer::Taken { .. }), "for somebody else");
    assert!(matches!(says(&alice, 4, &[50]).await, DropAnswer::Taken { .. }));
    assert_eq!(says(&alice, 5, &[50]).await, DropAnswer::Later(LaterReason::Quota), "count");
    // What was there before counts after a start, and what a store has got does not.
    relay.kill();
    let relay = world.start().await;
    let connection = bob.connect(&relay).await;
    let (session, _) = alice.come(&world, &relay).await;
    let full = bob.new_drop(&world, &alice, 6, &[50]);
    loop {
        match leave(&connection, &full).await {
            Response::Dropped(DropAnswer::Later(LaterReason::Busy)) => tokio::task::yield_now().await,
            answer => {
                assert_eq!(answer, Response::Dropped(DropAnswer::Later(LaterReason::Quota)));
                break;
            }
        }
    }
    let offer = alice.offer(&session).await;
    assert_eq!(alice.say(&session, &alice.receipt(&offer)).await, Response::Released);
    taken(&connection, &bob.new_drop(&world, &alice, 6, &[50])).await;
}

#[tokio::test]
async fn a_sender_that_goes_away_in_the_middle_comes_back_and_goes_on_where_it_was() {
    let world = World::new().await;
    let relay = world.start().await;
    let (alice, bob) = (world.store("alice"), Sender::new());
    let new = bob.new_drop(&world, &alice, 7, &[100_000, 8_000_000]);
    bob.stall_at.store(5_000_000, Ordering::Relaxed);
    let first = bob.connect(&relay).await;
    let asking = {
        let (first, new) = (first.clone(), new.clone());
        tokio::spawn(async move { first.request_within(&Request::Drop(new), Duration::from_secs(60)).await })
    };
    // The relay has what is given, but for what may be on its way: a stream's window.
    within(async {
        while !bob.stalls.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(relay.counts().await.messages, 0, "nothing exists before it is whole");
    bob.asked();
    bob.stall_at.store(u64::MAX, Ordering::Relaxed);
    // It comes back before anybody noticed that the old connection is dead.
    let second = bob.connect(&relay).await;
    taken(&second, &new).await;
    let asked = bob.asked();
    assert_eq!(asked.len(), 1, "what was whole is not asked for again: {asked:?}");
    assert!(asked[0].0 == new.blobs[1].id && asked[0].1 > 2_000_000, "{asked:?}");
    assert!(asking.await.unwrap().is_err(), "the old connection was closed");
    let (session, _) = alice.come(&world, &relay).await;
    let offer = alice.offer(&session).await;
    let pulled = alice.pull(&session, offer.delivery, &offer.blobs[1]).await.unwrap();
    assert_eq!(pulled, bob.blobs.lock().unwrap()[&new.blobs[1].id]);
}

#[tokio::test]
async fn a_relay_that_is_killed_in_the_middle_is_asked_again_and_takes_all_of_it() {
    let world = World::new().await;
    let relay = world.start().await;
    let (alice, bob) = (world.store("alice"), Sender::new());
    let new = bob.new_drop(&world, &alice, 7, &[3_000_000]);
    bob.stall_at.store(2_000_000, Ordering::Relaxed);
    let connection = bob.connect(&relay).await;
    let asking = tokio::spawn({
        let new = new.clone();
        async move { connection.request_within(&Request::Drop(new), Duration::from_secs(60)).await }
    });
    within(async {
        while bob.asked.lock().unwrap().len() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    relay.kill();
    asking.abort();
    bob.stall_at.store(u64::MAX, Ordering::Relaxed);
    let relay = world.start().await;
    assert_eq!(relay.counts().await.messages, 0);
    let connection = bob.connect(&relay).await;
    taken(&connection, &new).await;
    relay.until("taken", |counts| counts.waiting == 1).await;
}

#[tokio::test]
async fn bad_input_34_a_sender_that_gives_other_bytes_than_it_named_leaves_nothing() {
    let world = World::new().await;
    let relay = world.start().await;
    let (alice, bob) = (world.store("alice"), Sender::new());
    let new = bob.new_drop(&world, &alice, 7, &[500_000]);
    bob.blobs.lock().unwrap().insert(new.blobs[0].id, bytes(77, 500_000));
    let connection = bob.connect(&relay).await;
    let answer = loop {
        match leave(&connection, &new).await {
            Response::Dropped(DropAnswer::Later(LaterReason::Busy)) if bob.asked().is_empty() => {
                tokio::task::yield_now().await;
            }
            answer => break answer,
        }
    };
    assert!(!matches!(answer, Response::Dropped(DropAnswer::Taken { .. })), "{answer:?}");
    assert_eq!(relay.counts().await.messages, 0);
    // It mends its ways.
    bob.blobs.lock().unwrap().insert(new.blobs[0].id, bytes(1, 500_000));
    let connection = bob.connect(&relay).await;
    taken(&connection, &new).await;
}

#[tokio::test]
async fn bad_input_35_an_agent_that_begins_many_drops_waits_and_others_do_not() {
    let world = World::new().await;
    let relay = world.start().await;
    let (alice, bob, eve) = (world.store("alice"), Sender::new(), Sender::new());
    eve.stall_at.store(0, Ordering::Relaxed);
    let stuck = eve.connect(&relay).await;
    let mut asking = tokio::task::JoinSet::new();
    for number in 0..40 {
        let (stuck, new) = (stuck.clone(), eve.new_drop(&world, &alice, number, &[50_000]));
        asking.spawn(async move { leave(&stuck, &new).await });
    }
    let mut busy = 0;
    while busy < 32 {
        let answer = within(asking.join_next()).await.unwrap().unwrap();
        assert_eq!(answer, Response::Dropped(DropAnswer::Later(LaterReason::Busy)));
        busy += 1;
    }
    let connection = bob.connect(&relay).await;
    taken(&connection, &bob.new_drop(&world, &alice, 200, &[50_000])).await;
    let _: PeerId = relay.peer();
}
