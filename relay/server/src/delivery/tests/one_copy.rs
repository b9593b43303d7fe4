//! The same attachment in many messages, from listener to store: kept once, counted, handed to each store, and gone with
//! the last that has it (SPEC D8); and what `catalog check` and `orphans` say of it.

use std::collections::BTreeSet;
use std::os::unix::fs::FileExt;

use lighter_location::address::Network;
use lighter_protocol::UnixTime;
use serde_json::Value;

use super::world::Relay;
use super::*;
use crate::upkeep::{self, Progress};

const SIZE: usize = 600_000;

/// The same attachment in a message of its own: another text before it.
fn again(text: &str) -> Vec<u8> {
    let content = String::from_utf8(message(1, SIZE)).unwrap();
    content.replacen("Hello", text, 1).into_bytes()
}

async fn written(relay: &Relay, content: &[u8], to: &[&str]) -> u64 {
    let before = relay.array.status().written_bytes;
    relay.take(to, content).await;
    relay.array.status().written_bytes - before
}

/// The next hop takes everything.
async fn hand_over(relay: &Relay) {
    let due = relay.ask(|catalog| catalog.due(UnixTime(u64::MAX), 100, &BTreeSet::new())).await;
    for due in due {
        let hand_overs = vec![due.hand_over];
        let change = Change::HandedOver { message: due.message, hand_overs, at: UnixTime::now() };
        relay.ledger.commit_applied(change, lighter_storage::Class::Days30).await.unwrap();
    }
}

async fn orphaned_bytes(relay: &Relay) -> u64 {
    let found = upkeep::orphans(&relay.array, &relay.ledger, &Progress::default()).await.unwrap();
    assert!(found["segments"].as_array().is_some_and(|segments| !segments.is_empty()));
    found["orphaned_bytes"].as_u64().unwrap()
}

async fn check(world: &World, relay: &Relay) -> Value {
    let found =
        upkeep::check(&relay.array, &relay.ledger, world.folder(), true, &Progress::default()).await.unwrap();
    assert!(!world.folder().join("catalog.check").exists(), "what it needed is gone");
    found
}

// SPEC: D8
#[tokio::test]
async fn the_same_attachment_in_many_messages_is_kept_once_and_each_store_gets_it() {
    for trusted in [false, true] {
        let mut world = World::new().await;
        if trusted {
            world.trusted = Network::loopback().to_vec();
        }
        let relay = world.start().await;
        let (alice, bob) = (world.store("alice"), world.store("bob"));
        let first = written(&relay, &message(1, SIZE), &["alice", "bob"]).await;
        let second = written(&relay, &again("Hello again"), &["bob"]).await;
        let third = written(&relay, &again("And again"), &["alice"]).await;
        assert!(first > SIZE as u64);
        // Who has answered the sender already may save the write; who has not must not let them see it in the time.
        assert_eq!((second < 20_000, third < 20_000), (trusted, trusted), "{second} and {third} bytes");
        let counts = relay.counts().await;
        assert_eq!((counts.references, counts.copies), (3, 1), "one for each message: recipients share it");
        assert_eq!((counts.references_bytes, counts.copies_bytes), (3 * SIZE as u64, SIZE as u64));
        assert_eq!(orphaned_bytes(&relay).await > SIZE as u64, !trusted);
        assert_eq!(check(&world, &relay).await["sound"], true);
        hand_over(&relay).await;

        let (session, _) = alice.come(&world, &relay).await;
        for _ in 0..2 {
            let offer = alice.offer(&session).await;
            alice.fetch(&session, &offer).await;
            assert_eq!(alice.say(&session, &alice.receipt(&offer)).await, Response::Released);
        }
        relay.until("the third is let go of", |counts| counts.references == 2).await;
        assert_eq!(relay.counts().await.copies, 1);
        relay.kill();

        // The log alone tells who refers to what, also of a copy that another message brought.
        std::fs::remove_dir_all(world.catalog_folder()).unwrap();
        let relay = world.start().await;
        assert_eq!(check(&world, &relay).await["sound"], true);
        let (session, _) = bob.come(&world, &relay).await;
        for _ in 0..2 {
            let offer = bob.offer(&session).await;
            let fetched = bob.fetch(&session, &offer).await;
            assert!([message(1, SIZE), again("Hello again")].contains(&fetched), "byte for byte");
            assert_eq!(bob.say(&session, &bob.receipt(&offer)).await, Response::Released);
        }
        // What is let go of by all is nobody's.
        relay.until("nothing is referred to", |counts| counts.references == 0 && counts.copies == 0).await;
        assert!(orphaned_bytes(&relay).await > SIZE as u64);
    }
}

// SPEC: D8
#[tokio::test]
async fn bad_input_38_the_same_attachment_a_hundred_times_at_once_is_kept_once() {
    let world = World::new().await;
    let relay = world.start().await;
    let _alice = world.store("alice");
    let texts: Vec<Vec<u8>> = (0..100).map(|number| again(&format!("Number {number}"))).collect();
    futures_util::future::join_all(texts.iter().map(|text| relay.take(&["alice"], text))).await;
    relay.until("all are in the view", |counts| counts.references == 100).await;
    assert_eq!(relay.counts().await.copies, 1);
    assert_eq!(check(&world, &relay).await["sound"], true);
}

#[tokio::test]
async fn the_same_attachment_twice_in_one_message_is_kept_once() {
    let world = World::new().await;
    let relay = world.start().await;
    let alice = world.store("alice");
    let text = String::from_utf8(message(1, SIZE)).unwrap();
    let (head, part) = text.split_at(text.find("--x\r\nContent-Type: application").unwrap());
    let twice = format!("{head}{}{part}", part.replace("--x--\r\n", ""));
    let bytes = written(&relay, twice.as_bytes(), &["alice"]).await;
    assert!(bytes < 2 * SIZE as u64, "{bytes}");
    let counts = relay.counts().await;
    assert_eq!((counts.references, counts.copies), (2, 1));
    let (session, _) = alice.come(&world, &relay).await;
    let offer = alice.offer(&session).await;
    assert_eq!(alice.fetch(&session, &offer).await, twice.as_bytes());
}

#[tokio::test]
async fn a_deep_check_finds_a_damaged_copy_and_names_its_server() {
    let world = World::new().await;
    let relay = world.start().await;
    let _alice = world.store("alice");
    relay.take(&["alice"], &message(1, SIZE)).await;
    let sound = check(&world, &relay).await;
    // Manifest and attachment, on two servers each.
    assert_eq!((&sound["sound"], &sound["copies_verified"]), (&true.into(), &4.into()), "{sound}");
    let copies = relay.ask(|catalog| catalog.copies(None, 10)).await;
    let attachment = &copies.iter().max_by_key(|copy| copy.blob.size).unwrap().blob;
    let place = relay.array.places(&attachment.location)[0];
    let file = world.unit(0).join(format!("{}.seg", place.segment));
    let file = std::fs::OpenOptions::new().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, place.offset + 5_000).unwrap();
    file.write_all_at(&[!byte[0]], place.offset + 5_000).unwrap();

    let found = check(&world, &relay).await;
    assert_eq!((&found["sound"], &found["disagreements"]), (&false.into(), &0.into()), "{found}");
    assert_eq!((&found["copies_verified"], &found["copies_damaged"]), (&3.into(), &1.into()), "{found}");
    assert_eq!(found["faults"][0]["blob"], attachment.id.to_string());
    assert_eq!(found["faults"][0]["fault"], "damaged");
    assert!(relay.array.blob_tree(attachment).await.is_ok(), "read from the other copy all the same");
}

#[tokio::test]
async fn a_check_finds_a_view_that_the_log_does_not_tell() {
    let world = World::new().await;
    let relay = world.start().await;
    let _alice = world.store("alice");
    relay.take(&["alice"], &message(1, SIZE)).await;
    let spoil = |catalog: &dyn lighter_catalog::Catalog| {
        let id = catalog.messages(None, 1)?[0].0.id;
        catalog.apply(&[(lighter_storage::Sequence(u64::MAX), Change::Voided(id))], None)
    };
    relay.ask(spoil).await;
    let found = check(&world, &relay).await;
    assert_eq!(found["sound"], false);
    let about: Vec<_> =
        found["first_disagreements"].as_array().unwrap().iter().map(|one| &one["about"]).collect();
    for what in ["message", "delivery", "ticket", "reference"] {
        assert!(about.contains(&&Value::from(what)), "{what}: {found}");
    }
}
