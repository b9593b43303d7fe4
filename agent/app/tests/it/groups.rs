//! Groups from address books, with the real program: expanded before anything is decided, then each member on their own.

use std::path::Path;

use lighter_agent::config::Paths;
use lighter_protocol::BlobId;
use serde_json::Value;

use crate::support::mail_sink::MailSink;
use crate::support::programs::{error_text, json, run, run_ok};
use crate::support::{World, bytes, file};

/// A list of Thunderbird's; the members' cards are in no file.
const TEAM: &str = "dn: cn=Team Blue\nobjectclass: groupOfNames\ncn: Team Blue\nmozillaNickname: blue\n\
    member: cn=Alice,mail=Alice@Example.org\nmember: cn=Bob,mail=bob@example.org\nmember: cn=Team Blue\n";
/// Family is Ann (no address), and alice once more.
const FAMILY: &str = "Name,E-mail,Groups\nAnn,,Family\nAlice,alice@example.org,Family\n";

fn put(paths: &Paths, name: &str, text: &str) {
    std::fs::create_dir_all(paths.address_books()).unwrap();
    std::fs::write(paths.address_books().join(name), text).unwrap();
}

/// What happened to whom, in a message's events.
fn said<'a>(events: &'a [Value], event: &str) -> Vec<&'a str> {
    let mut said: Vec<&str> = events
        .iter()
        .filter(|said| said["event"] == event)
        .filter_map(|said| said["recipient"].as_str())
        .collect();
    said.sort_unstable();
    said
}

fn header(mail: &[u8]) -> String {
    let text = String::from_utf8_lossy(mail).into_owned();
    text.split_once("\r\n\r\n").unwrap().0.to_owned()
}

// SPEC: A10, A11
#[tokio::test(flavor = "multi_thread")]
async fn bad_input_39_a_group_goes_to_each_member_once_to_the_store_or_whole() {
    let world = World::start().await;
    let sink = MailSink::start().await;
    let alice = world.agent("alice", None).await;
    let paths = world.set_up("sam", Some(sink.address.to_string())).await;
    put(&paths, "team.ldif", TEAM);
    let content = bytes(1, 400_000);
    let attached = file(world.folder.path(), "a.bin", &content);
    // Alice has a store, bob has none; alice is in the group, given by name, and in cc; the group contains itself.
    let arguments = ["--json", "send", "--to", "Team  blue", "--cc", "ALICE@example.org", "--cc", "blue"];
    let arguments: Vec<&Path> = arguments.iter().map(Path::new).chain([attached.as_path()]).collect();
    let output = run(&paths, &arguments, b"").await;
    assert!(output.status.success(), "{}", error_text(&output));
    let lines = String::from_utf8(output.stdout).unwrap();
    let events: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(said(&events, "receipted"), ["alice@example.org"]);
    assert_eq!(said(&events, "whole"), ["bob@example.org"]);
    assert_eq!(said(&events, "mailed"), ["alice@example.org", "bob@example.org"]);

    let mails = sink.mails();
    assert_eq!(mails.len(), 2);
    for mail in &mails {
        let is_stub = mail.to == ["alice@example.org"];
        assert!(is_stub || mail.to == ["bob@example.org"], "{:?}", mail.to);
        assert_eq!(mail.content.len() < 10_000, is_stub);
        // The members as usual recipients; the name of the sender's own for them stays at home.
        let header = header(&mail.content);
        assert!(header.contains("\r\nTo: alice@example.org,\r\n bob@example.org\r\nSubject:"), "{header}");
        assert!(!header.contains("Cc:") && !header.contains("Team"), "{header}");
    }
    let store = &alice.shared().store;
    assert_eq!(store.all_incoming().unwrap().len(), 1);
    assert!(store.open_blob(BlobId::of(&content)).unwrap().is_intact().unwrap());
    alice.stop().await;
}

// SPEC: A11
#[tokio::test(flavor = "multi_thread")]
async fn bad_input_39_a_group_that_is_not_in_order_sends_nothing_unless_asked_to() {
    let world = World::start().await;
    let sink = MailSink::start().await;
    let paths = world.set_up("sam", Some(sink.address.to_string())).await;
    put(&paths, "home.csv", FAMILY);
    for (to, parts) in [
        ("family", &["“Family”: “Ann” has no e-mail address", "home.csv:2", "--skip-broken"][..]),
        ("famly", &["“famly” is neither", "did you mean “Family”", "home.csv"]),
        ("ann at home@", &["neither a mailbox nor a group"]),
    ] {
        let output = run(&paths, &["send", "--to", "bob@example.org", "--to", to], b"").await;
        assert_eq!(output.status.code(), Some(2), "{to}");
        let error = error_text(&output);
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }
    let many: String = (0..101).map(|number| format!("m{number}@b.c,Crowd\n")).collect();
    put(&paths, "crowd.csv", &format!("Mail,Group\n{many}"));
    let output = run(&paths, &["send", "--to", "crowd"], b"").await;
    assert!(error_text(&output).contains("101 recipients"), "{}", error_text(&output));
    assert!(sink.mails().is_empty());

    let output = run(&paths, &["send", "--to", "family", "--skip-broken"], b"").await;
    assert!(output.status.success() && error_text(&output).contains("left out"), "{}", error_text(&output));
    assert_eq!(sink.mails()[0].to, ["alice@example.org"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_shows_books_groups_and_members_and_what_is_wrong_without_hiding_the_rest() {
    let world = World::start().await;
    let paths = world.set_up("sam", None).await;
    let empty = String::from_utf8(run_ok(&paths, &["groups"], b"").await).unwrap();
    assert!(empty.contains("No address books") && empty.contains("address-books"), "{empty}");

    put(&paths, "team.ldif", TEAM);
    put(&paths, "home.csv", FAMILY);
    put(&paths, "bad\u{1b}[2J.vcf", "\u{1}");
    put(&paths, ".hidden.vcf", "x");
    // A folder of cards elsewhere, named in the configuration, beside which it lies; and one that is not there.
    let cards = world.folder.path().join("cards");
    std::fs::create_dir(&cards).unwrap();
    for name in ["ann", "ben"] {
        let card = format!("BEGIN:VCARD\nFN:{name}\nEMAIL:{name}@b.c\nCATEGORIES:Club\nEND:VCARD\n");
        std::fs::write(cards.join(format!("{name}.vcf")), card).unwrap();
    }
    let mut config = std::fs::read_to_string(&paths.config).unwrap();
    config.push_str("\n[address_books]\npaths = [\"cards\", \"/nonexistent.vcf\"]\n");
    std::fs::write(&paths.config, config).unwrap();

    let shown = json(&paths, &["groups"]).await;
    let books = shown["books"].as_array().unwrap();
    let names: Vec<&str> = books.iter().map(|book| book["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["bad\u{1b}[2J", "home", "team", "cards", "nonexistent"]);
    let club = &books[3]["groups"][0];
    assert_eq!(club["recipients"], serde_json::json!(["ann@b.c", "ben@b.c"]));
    let family = &books[1]["groups"][0];
    assert_eq!(
        (family["members"][0]["line"].as_u64(), family["members"][0]["name"].as_str()),
        (Some(2), Some("Ann"))
    );
    assert!(family["members"][0]["problem"].as_str().unwrap().contains("no e-mail address"));
    assert_eq!(books[2]["groups"][0]["nicknames"], serde_json::json!(["blue"]));
    assert!(books[4]["problems"][0]["what"].as_str().unwrap().contains("cannot be read"));

    let one = json(&paths, &["groups", "team/blue"]).await;
    assert_eq!(one["books"].as_array().unwrap().len(), 1);
    let text = String::from_utf8(run_ok(&paths, &["groups"], b"").await).unwrap();
    assert!(text.contains("Team Blue (blue)  2 recipients") && text.contains("group Team Blue"), "{text}");
    assert!(!text.contains('\u{1b}'), "{text:?}");
    let output = run(&paths, &["groups", "clubb"], b"").await;
    assert_eq!(output.status.code(), Some(1));
    assert!(error_text(&output).contains("did you mean “Club”"), "{}", error_text(&output));
}
