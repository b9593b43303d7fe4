//! `send`: each recipient's way on its own; what the recipient's store does not get goes whole.

use std::io::Write;
use std::path::Path;

use lighter_agent::access::Access;
use lighter_agent::config::Config;
use lighter_agent::offers::{self, Attempt, Stage};
use lighter_protocol::wire::OfferedBlob;
use lighter_protocol::{BlobId, DeliveryId, UnixTime};
use lighter_store::{Outgoing, OutgoingState};
use serde_json::Value;

use crate::support::mail_sink::MailSink;
use crate::support::programs::{error_text, run, run_ok};
use crate::support::{PATIENCE, World, bytes, file, mailbox};

/// What `send --json` said.
fn events(output: &std::process::Output) -> Vec<Value> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn said(events: &[Value], event: &str, recipient: &str) -> bool {
    events
        .iter()
        .any(|said| said["event"] == event && said["recipient"] == format!("{recipient}@example.org"))
}

fn contains(text: &[u8], part: &str) -> bool {
    text.windows(part.len()).any(|window| window == part.as_bytes())
}

fn send<'a>(to: &[&'a str], files: &[&'a Path]) -> Vec<String> {
    let mut arguments =
        vec!["--json".to_owned(), "send".to_owned(), "--subject".to_owned(), "Grüße".to_owned()];
    for to in to {
        arguments.extend(["--to".to_owned(), format!("{to}@example.org")]);
    }
    arguments.extend(files.iter().map(|file| file.to_str().unwrap().to_owned()));
    arguments
}

// SPEC: A1, A2, A3, A4, A5, A6, A8, A9, A10, D1
#[tokio::test(flavor = "multi_thread")]
async fn one_message_goes_three_ways_at_once_and_is_the_same_for_all() {
    let world = World::start().await;
    let sink = MailSink::start().await;
    let alice_paths = world.set_up("alice", None).await;
    let alice = crate::support::start(&alice_paths).await;
    // Carol has a store, and it is off; bob has none.
    world.agent("carol", None).await.stop().await;
    let sam_paths = world.set_up("sam", Some(sink.address.to_string())).await;
    let content = bytes(1, 900_000);
    let attached = file(world.folder.path(), "größe.pdf", &content);

    // From a command by itself, then through an agent that runs.
    let mut sam = None;
    for round in 0..2 {
        let output = run(&sam_paths, &send(&["alice", "bob", "carol"], &[&attached]), b"").await;
        assert!(output.status.success(), "{}", error_text(&output));
        let events = events(&output);
        assert!(said(&events, "to-store", "alice") && said(&events, "receipted", "alice"), "{events:?}");
        for whole in ["bob", "carol"] {
            assert!(said(&events, "whole", whole) && said(&events, "mailed", whole), "{events:?}");
        }
        let mails = sink.mails();
        assert_eq!(mails.len(), 2 * (round + 1), "bob's and carol's are one");
        let mails = &mails[2 * round..];
        let (stub, whole) = if mails[0].to == ["alice@example.org"] {
            (&mails[0], &mails[1])
        } else {
            (&mails[1], &mails[0])
        };
        assert_eq!((stub.to.len(), whole.to.len()), (1, 2));
        assert!(contains(&stub.content, "Lighter-Message:") && !contains(&whole.content, "Lighter-"));
        assert!(stub.content.len() < 10_000 && whole.content.len() > 1_200_000);
        // Byte for byte what the others got.
        let restored = run_ok(&alice_paths, &["restore"], &stub.content).await;
        assert!(restored == whole.content);
        if sam.is_none() {
            sam = Some(crate::support::start(&sam_paths).await);
        }
    }
    let sam = sam.unwrap();
    let id = BlobId::of(&content);
    assert!(alice.shared().store.open_blob(id).unwrap().is_intact().unwrap());
    assert!(!sam.shared().store.holds(id).unwrap(), "receipted: let go of");
    sam.stop().await;
    alice.stop().await;
}

// SPEC: A1
#[tokio::test(flavor = "multi_thread")]
async fn a_message_without_attachments_or_with_small_ones_goes_the_usual_way() {
    let world = World::start().await;
    let sink = MailSink::start().await;
    let alice = world.agent("alice", None).await;
    let paths = world.set_up("sam", Some(sink.address.to_string())).await;
    let small = file(world.folder.path(), "small.txt", b"small");
    for files in [&[][..], &[small.as_path()]] {
        let output = run(&paths, &send(&["alice"], files), b"").await;
        assert!(output.status.success(), "{}", error_text(&output));
        let events = events(&output);
        assert!(said(&events, "whole", "alice") && said(&events, "mailed", "alice"), "{events:?}");
    }
    assert!(sink.mails().iter().all(|mail| !contains(&mail.content, "Lighter-")));
    assert!(alice.shared().store.all_incoming().unwrap().is_empty());
    alice.stop().await;
}

// Rule 5: with the location server down, mail goes whole.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_location_server_the_message_goes_whole() {
    let world = World::start().await;
    let sink = MailSink::start().await;
    let paths = world.set_up("sam", Some(sink.address.to_string())).await;
    let sam = crate::support::start(&paths).await;
    let World { folder, location, .. } = world;
    location.stop().await;
    let attached = file(folder.path(), "a.bin", &bytes(1, 400_000));
    let output = run(&paths, &send(&["alice"], &[&attached]), b"").await;
    assert!(output.status.success(), "{}", error_text(&output));
    assert!(said(&events(&output), "mailed", "alice"));
    assert!(sink.mails()[0].content.len() > 500_000);
    sam.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_the_mail_server_refuses_leaves_no_delivery_behind() {
    let world = World::start().await;
    let sink = MailSink::start().await;
    let nobody = world.agent("nobody", None).await; // whom the mail server does not take
    let paths = world.set_up("sam", Some(sink.address.to_string())).await;
    let sam = crate::support::start(&paths).await;
    let content = bytes(1, 400_000);
    let attached = file(world.folder.path(), "a.bin", &content);
    let output = run(&paths, &send(&["nobody"], &[&attached]), b"").await;
    assert_eq!(output.status.code(), Some(1), "{}", error_text(&output));
    let events = events(&output);
    let failed = events.iter().find(|said| said["event"] == "failed").unwrap();
    assert!(failed["why"].as_str().unwrap().contains("550") && failed["temporary"] == false, "{failed}");
    assert!(sam.shared().store.all_outgoing().unwrap().is_empty());
    assert!(!sam.shared().store.holds(BlobId::of(&content)).unwrap());
    sam.stop().await;
    nobody.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_sent_is_said_with_what_to_do() {
    let world = World::start().await;
    let without_smtp = world.set_up("sam", None).await;
    let output = run(&without_smtp, &send(&["alice"], &[]), b"").await;
    assert_eq!(output.status.code(), Some(2));
    assert!(error_text(&output).contains("--smtp"), "{}", error_text(&output));
    // A port that nobody listens on.
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let paths = world.set_up("tom", Some(unused.to_string())).await;
    let output = run(&paths, &send(&["alice"], &[]), b"").await;
    assert_eq!(output.status.code(), Some(75), "{}", error_text(&output));
    assert!(events(&output)[1]["why"].as_str().unwrap().contains("cannot be reached"));
    let output = run(&paths, &send(&["alice"], &[Path::new("/nonexistent/file")]), b"").await;
    assert_eq!(output.status.code(), Some(1));
    assert!(error_text(&output).contains("/nonexistent/file"), "{}", error_text(&output));
}

// One introduction is good for its bytes once: each delivery has its own.
#[tokio::test(flavor = "multi_thread")]
async fn messages_of_one_size_in_one_second_each_get_to_the_store() {
    let world = World::start().await;
    let sink = MailSink::start().await;
    let alice = world.agent("alice", None).await;
    let paths = world.set_up("sam", Some(sink.address.to_string())).await;
    let sam = crate::support::start(&paths).await;
    let attached = file(world.folder.path(), "a.bin", &bytes(1, 300_000));
    let arguments = send(&["alice"], &[&attached]);
    let outputs = tokio::join!(
        run(&paths, &arguments, b""),
        run(&paths, &arguments, b""),
        run(&paths, &arguments, b""),
        run(&paths, &arguments, b"")
    );
    for output in [outputs.0, outputs.1, outputs.2, outputs.3] {
        assert!(said(&events(&output), "receipted", "alice"), "{:?}", events(&output));
    }
    assert_eq!(alice.shared().store.all_incoming().unwrap().len(), 4);
    sam.stop().await;
    alice.stop().await;
}

/// Puts a delivery from sam to alice on record, as a process leaves it that ends in the middle.
fn leave(
    store: &lighter_store::Store,
    alice: lighter_protocol::PeerId,
    number: u8,
    state: OutgoingState,
) -> BlobId {
    let hold = store.hold();
    let take = |content: &[u8]| {
        let mut import = store.import().unwrap();
        import.write_all(content).unwrap();
        let (id, size) = import.finish(&hold, UnixTime::now()).unwrap();
        OfferedBlob { id, size, name: "a.bin".to_owned(), media_type: "x/y".to_owned() }
    };
    let (manifest, blob) = (take(&[number; 100]), take(&bytes(u64::from(number), 300_000)));
    let id = blob.id;
    let outgoing = Outgoing {
        delivery: DeliveryId([number; 16]),
        sender: mailbox("sam"),
        recipient: mailbox("alice"),
        store: alice,
        manifest,
        blobs: vec![blob],
        introduction: None,
        subject: "x".to_owned(),
        created: UnixTime::now(),
        expires: UnixTime(UnixTime::now().0 + 3_600),
        state,
    };
    store.put_outgoing(&outgoing).unwrap();
    id
}

// SPEC: A7, D4
#[tokio::test(flavor = "multi_thread")]
async fn bad_input_32_what_was_mailed_is_delivered_by_the_next_process_and_what_was_not_is_forgotten() {
    let world = World::start().await;
    let alice = world.agent("alice", None).await;
    let peer = alice.shared().identity.peer();
    let paths = world.set_up("sam", None).await;
    // As a command takes it: a program that another test starts just now may hold the lock until it runs.
    let store = Access::take(&Config::read(&paths.config).unwrap(), &paths).await.unwrap();
    let mailed = leave(&store, peer, 1, OutgoingState::Waiting);
    let unmailed = leave(&store, peer, 2, OutgoingState::Preparing);
    drop(store);
    let sam = crate::support::start(&paths).await;
    let store = &sam.shared().store;
    crate::support::eventually("the receipt", async || {
        let outgoing = store.outgoing(DeliveryId([1; 16])).unwrap().unwrap();
        matches!(outgoing.state, OutgoingState::Released(_))
    })
    .await;
    assert!(alice.shared().store.open_blob(mailed).unwrap().is_intact().unwrap());
    assert!(!store.holds(mailed).unwrap() && !store.holds(unmailed).unwrap());
    assert!(store.outgoing(DeliveryId([2; 16])).unwrap().is_none());
    assert_eq!(alice.shared().store.all_incoming().unwrap().len(), 1);
    sam.stop().await;
    alice.stop().await;
}

// SPEC: D4
#[tokio::test(flavor = "multi_thread")]
async fn bad_input_32_what_is_begun_again_just_when_its_receipt_came_is_over_at_once() {
    let world = World::start().await;
    let alice = world.agent("alice", None).await;
    let paths = world.set_up("sam", None).await;
    let store = Access::take(&Config::read(&paths.config).unwrap(), &paths).await.unwrap();
    leave(&store, alice.shared().identity.peer(), 1, OutgoingState::Waiting);
    // As who sends the same message again has read it, before its attachments are read.
    let known = store.outgoing(DeliveryId([1; 16])).unwrap().unwrap();
    drop(store);
    let sam = crate::support::start(&paths).await;
    let released = |stage: &Stage| stage.attempt == Attempt::Released;
    for _ in 0..2 {
        let mut stages = offers::begin(sam.shared(), known.clone());
        tokio::time::timeout(PATIENCE, stages.wait_for(released)).await.expect("it is receipted").unwrap();
        crate::support::eventually("its task to end", async || stages.has_changed().is_err()).await;
    }
    sam.stop().await;
    alice.stop().await;
}
