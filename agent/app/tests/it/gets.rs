//! `get`: from the own store, from the mailbox's store on another machine, from the relay by ticket; and what is told
//! when it is nowhere.

use std::path::{Path, PathBuf};

use lighter_message::drive::{self, MemoryBlobs};
use lighter_message::{Policy, StubContext};
use lighter_protocol::{BlobId, DeliveryId};

use crate::support::programs::{error_text, run, run_ok};
use crate::support::relay::Relay;
use crate::support::web::{Mode, Web};
use crate::support::{World, bytes, file, mailbox, registered, start};

const TICKET: &str = "3EukE1ZemR4C4ZMId-uTXNkb2W0Mena6v7a7r5ijxr8";

/// A stub with one attachment, as a relay with retrieval at `url` makes it.
fn stub(folder: &Path, delivery: u8, name: &str, content: &[u8], url: Option<&str>) -> PathBuf {
    let encoded = data_encoding::BASE64.encode(content);
    let mut message = format!(
        "Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\
         Content-Type: application/pdf\r\nContent-Disposition: attachment; filename=\"{name}\"\r\n\
         Content-Transfer-Encoding: base64\r\n\r\n"
    );
    for line in encoded.as_bytes().chunks(76) {
        message.push_str(std::str::from_utf8(line).unwrap());
        message.push_str("\r\n");
    }
    message.push_str("--b--\r\n");
    let (mut manifest, mut blobs) = (Vec::new(), MemoryBlobs::new());
    let policy = Policy { min_size: 1, ..Policy::default() };
    let summary = drive::detach(policy, &mut message.as_bytes(), &mut manifest, &mut blobs).unwrap();
    let context = StubContext {
        delivery: DeliveryId([delivery; 16]),
        landing: url.map(|url| format!("{url}/t/{TICKET}/")),
        expires: None,
    };
    let mut stub = Vec::new();
    drive::write_stub(&mut &manifest[..], context, summary.totals, &mut stub).unwrap();
    assert_eq!(summary.parts[0].blob, BlobId::of(content));
    file(folder, "stub.eml", &stub)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Runs `get` into a new folder; what is in that folder then.
async fn got(
    paths: &lighter_agent::config::Paths,
    what: &str,
) -> (std::process::Output, Vec<(String, Vec<u8>)>) {
    let folder = tempfile::tempdir().unwrap();
    let output = run(paths, &["--json", "get", what, "-o", text(folder.path())], b"").await;
    let files = std::fs::read_dir(folder.path()).unwrap().map(|entry| {
        let entry = entry.unwrap();
        (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap())
    });
    let files = files.collect();
    (output, files)
}

fn source(output: &std::process::Output) -> String {
    assert!(output.status.success(), "{}", error_text(output));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    report["attachments"][0]["from"].as_str().unwrap().to_owned()
}

// SPEC: A21, A22
#[tokio::test(flavor = "multi_thread")]
async fn an_attachment_comes_from_the_own_store_first() {
    let world = World::start().await;
    let content = bytes(1, 700_000);
    let web = Web::start(content.clone(), Mode::Serve).await;
    let relay = Relay::start_with(&world, &web.url()).await;
    relay.hold(1, &mailbox("alice"), b"manifest", std::slice::from_ref(&content));
    let paths = world.set_up("alice", None).await;
    let agent = start(&paths).await;
    relay.receipts(1).await;
    let stub = stub(world.folder.path(), 1, "report.pdf", &content, Some(&web.url()));
    let id = BlobId::of(&content).to_string();

    // With the agent running, and without one.
    for _ in 0..2 {
        for what in [id.as_str(), text(&stub)] {
            let (output, files) = got(&paths, what).await;
            assert_eq!(source(&output), "store");
            assert_eq!(files.len(), 1);
            assert_eq!(files[0].0, "report.pdf");
            assert!(files[0].1 == content);
        }
        let piped = run_ok(&paths, &["get", &id, "-o", "-"], b"").await;
        assert!(piped == content);
        if agent.shared().stop.is_cancelled() {
            break;
        }
        agent.shared().stop.cancel();
    }
    agent.stop().await;
    let (output, _) = got(&paths, &id).await;
    assert_eq!(source(&output), "store", "with no agent running");
    assert!(web.asked().is_empty(), "the mail server was asked for what the own store has");
}

// SPEC: A21, A22
#[tokio::test(flavor = "multi_thread")]
async fn what_the_own_store_lacks_comes_from_the_relay_taken_up_again_where_it_broke() {
    let world = World::start().await;
    let content = bytes(2, 1_000_000);
    let web = Web::start(content.clone(), Mode::BreakAfter(300_000)).await;
    let _relay = Relay::start_with(&world, &web.url()).await;
    let paths = world.set_up("alice", None).await;
    let stub = stub(world.folder.path(), 1, "report.pdf", &content, Some(&web.url()));
    // No agent runs: the command is one for as long as it takes.
    let (output, files) = got(&paths, text(&stub)).await;
    assert_eq!(source(&output), "relay");
    assert_eq!(files.len(), 1);
    assert!(files[0].0 == "report.pdf" && files[0].1 == content);
    let asked = web.asked();
    assert_eq!(asked.len(), 4, "{asked:?}");
    for (request, start) in asked.iter().zip([0, 300_000, 600_000, 900_000]) {
        assert!(request.starts_with(&format!("get /t/{}/0 ", TICKET.to_lowercase())), "{request}");
        assert_eq!(request.contains(&format!("range: bytes={start}-")), start > 0, "{request}");
    }
}

// Rule 4.
#[tokio::test(flavor = "multi_thread")]
async fn bad_input_35_a_mail_server_that_sends_other_or_too_many_bytes_has_sent_nothing() {
    for mode in [Mode::Wrong, Mode::Endless] {
        let world = World::start().await;
        let content = bytes(3, 200_000);
        let web = Web::start(content.clone(), mode).await;
        let _relay = Relay::start_with(&world, &web.url()).await;
        let paths = world.set_up("alice", None).await;
        let stub = stub(world.folder.path(), 1, "report.pdf", &content, Some(&web.url()));
        let (output, files) = got(&paths, text(&stub)).await;
        assert_eq!(output.status.code(), Some(1), "{}", error_text(&output));
        assert!(error_text(&output).contains("other bytes"), "{}", error_text(&output));
        assert!(files.is_empty(), "{}", files[0].0);
        let piped = run(&paths, &["get", text(&stub), "-o", "-"], b"").await;
        assert!(piped.stdout.is_empty(), "unproved bytes were given out");
    }
}

// SPEC: A22
#[tokio::test(flavor = "multi_thread")]
async fn the_user_is_told_where_it_is_when_the_relay_has_let_go_of_it() {
    let world = World::start().await;
    let content = bytes(4, 1_000);
    let store = lighter_transport::Identity::generate().peer().to_string();
    for (status, fields, said, code) in [
        ("410 Gone", format!("Lighter-Store: {store}\r\n"), store.as_str(), 1),
        ("410 Gone", String::new(), "withdrawn", 1),
        ("410 Gone", "Lighter-Expired: 2026-11-20\r\n".to_owned(), "the time to fetch it is over", 1),
        ("404 Not Found", String::new(), "the time to fetch it is over", 1),
        ("503 Service Unavailable", "Retry-After: 9\r\n".to_owned(), "try again", 75),
    ] {
        let web = Web::start(content.clone(), Mode::Refuse(status, fields)).await;
        let _relay = Relay::start_with(&world, &web.url()).await;
        let name = format!("user{}", web.address.port());
        let paths = world.set_up(&name, None).await;
        let stub = stub(world.folder.path(), 1, "report.pdf", &content, Some(&web.url()));
        let (output, files) = got(&paths, text(&stub)).await;
        assert_eq!(output.status.code(), Some(code), "{}", error_text(&output));
        assert!(error_text(&output).contains(said), "{status}: {}", error_text(&output));
        assert!(files.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_34_a_link_that_does_not_lead_to_an_own_relay_is_not_followed() {
    let world = World::start().await;
    let content = bytes(5, 1_000);
    let (own, other) =
        (Web::start(content.clone(), Mode::Serve).await, Web::start(content.clone(), Mode::Serve).await);
    let _relay = Relay::start_with(&world, &own.url()).await;
    let paths = world.set_up("alice", None).await;
    let stub = stub(world.folder.path(), 1, "report.pdf", &content, Some(&other.url()));
    let (output, files) = got(&paths, text(&stub)).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(error_text(&output).contains("not followed"), "{}", error_text(&output));
    assert!(files.is_empty() && other.asked().is_empty() && own.asked().is_empty());
}

// SPEC: A21, A23, A24
#[tokio::test(flavor = "multi_thread")]
async fn a_further_device_gets_it_from_the_store_on_another_machine() {
    let world = World::start().await;
    let relay = Relay::start(&world).await;
    let content = bytes(6, 3_000_000);
    relay.hold(1, &mailbox("alice"), b"manifest", std::slice::from_ref(&content));
    let home = world.agent("alice", None).await;
    relay.receipts(1).await;
    relay.held.lock().unwrap().offers.clear();
    let laptop = world.set_up_as("laptop", mailbox("alice"), None).await;
    let stub = stub(world.folder.path(), 1, "report.pdf", &content, None);

    // Until an existing store confirms it, it reads nothing.
    let (output, files) = got(&laptop, text(&stub)).await;
    assert_eq!(output.status.code(), Some(1), "{}", error_text(&output));
    assert!(files.is_empty());

    let agent = start(&laptop).await;
    let session = home.shared().session().unwrap();
    world.client().confirm(&session, agent.shared().identity.peer()).await.unwrap();
    agent.stop().await;
    let agent = start(&laptop).await;
    registered(agent.shared()).await;
    let (output, files) = got(&laptop, text(&stub)).await;
    assert_eq!(source(&output), "other-store");
    assert!(files[0].1 == content);
    agent.stop().await;
    home.stop().await;
    // Both are off: the user is told where it is.
    let (output, files) = got(&laptop, text(&stub)).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(error_text(&output).contains("may have it: it is offline"), "{}", error_text(&output));
    assert!(files.is_empty());
}
