//! An outgoing mail server's agent sends for all its users (SPEC A26): what each recipient says of the user counts, and
//! nobody is let in but the mail server. (With a real one, and drops, in tests/e2e.)

use std::net::SocketAddr;

use lighter_agent::agent::Agent;
use lighter_agent::config::Config;
use lighter_agent::{acceptance, finding};
use lighter_protocol::Mailbox;
use lighter_store::OutgoingState;
use lighter_transport::location::api::{AcceptanceChange, Standing};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::submissions::{Client, contains, dotted, message, start, to};
use crate::support::mail_sink::MailSink;
use crate::support::programs::run_ok;
use crate::support::{World, bytes, eventually};

fn named(text: &str) -> Mailbox {
    text.parse().unwrap()
}

/// A domain whose outgoing mail server is `out@example.org`.
async fn domain() -> World {
    World::start_with(|config| {
        config.outgoing.insert(named("out@example.org"), vec!["example.org".to_owned()]);
    })
    .await
}

/// The outgoing mail server's agent, in this process.
async fn outgoing(world: &World, smtp: SocketAddr, change: impl FnOnce(&mut Config)) -> (Agent, SocketAddr) {
    let paths = world.set_up("out", Some(smtp.to_string())).await;
    let mut config = Config::read(&paths.config).unwrap();
    config.outgoing.listen = Some("127.0.0.1:0".parse().unwrap());
    change(&mut config);
    config.write(&paths.config).unwrap();
    start(&paths).await
}

// SPEC: A26
#[tokio::test(flavor = "multi_thread")]
async fn every_user_of_a_mail_server_sends_to_stores_and_each_recipient_decides_about_each_of_them() {
    let world = domain().await;
    let sink = MailSink::start().await;
    let alice_paths = world.set_up("alice", None).await;
    let alice = crate::support::start(&alice_paths).await;
    let (out, address) = outgoing(&world, sink.address, |_| {}).await;
    let block = AcceptanceChange { block: vec![named("eve@example.org")], ..AcceptanceChange::default() };
    acceptance::change(alice.shared(), block).await.unwrap();
    let message = message("multipart/mixed", &bytes(1, 2 * 1024 * 1024));

    let mut client = Client::connect(address).await;
    // Neither of them has an agent; sam writes to alice's store, and bob gets the message whole.
    assert_eq!(client.send("sam", &["alice", "bob"], &dotted(&message)).await, "250 2.0.0 taken");
    let mails = sink.mails();
    assert_eq!(mails.len(), 2);
    assert!(to(&mails, "bob@")[0].content == message, "not as the client made it");
    let stub = to(&mails, "alice@")[0];
    assert!(contains(&stub.content, "Lighter-Message:") && stub.from == "sam@example.org");
    eventually("the receipt", async || {
        let outgoing = out.shared().store.all_outgoing().unwrap();
        outgoing.iter().any(|outgoing| matches!(outgoing.state, OutgoingState::Released(_)))
    })
    .await;
    assert!(run_ok(&alice_paths, &["restore"], &stub.content).await == message);
    // From eve she wants nothing: that goes whole, in the transaction that is open.
    assert_eq!(client.send("eve", &["alice"], &dotted(&message)).await, "250 2.0.0 taken");
    assert!(sink.mails().last().unwrap().content == message);
    let status = out.shared().submission.borrow().clone().unwrap();
    assert_eq!((status.detached, status.untouched, status.refused), (1, 1, 0));
    assert_eq!(status.domains, ["example.org"]);
    assert!(status.to_string().starts_with("outgoing   127.0.0.1:"), "{status}");
    out.stop().await;
    alice.stop().await;
}

// SPEC: A26
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_its_users_or_was_looked_at_before_goes_on_untouched() {
    let world = domain().await;
    let sink = MailSink::start().await;
    let alice = world.agent("alice", None).await;
    let (out, address) = outgoing(&world, sink.address, |_| {}).await;
    let message = message("multipart/mixed", &bytes(2, 400_000));
    let stub = [b"Lighter-Message: v=1\r\n", &message[..]].concat();
    let mut client = Client::connect(address).await;
    for (from, content) in [
        ("sam@example.com", &message),
        ("sam@sub.example.org", &message),
        ("", &message),
        ("sam@example.org", &stub),
    ] {
        client.say(&format!("MAIL FROM:<{from}>")).await;
        client.say("RCPT TO:<alice@example.org>").await;
        assert_eq!(client.content(&dotted(content)).await, "250 2.0.0 taken", "{from:?}");
        let mail = sink.mails().pop().unwrap();
        assert!(mail.content == *content && mail.from == from, "{from:?}");
    }
    assert_eq!(out.shared().submission.borrow().as_ref().unwrap().untouched, 4);
    assert!(alice.shared().store.all_incoming().unwrap().is_empty());
    out.stop().await;
    alice.stop().await;
}

// SPEC: A26
#[tokio::test(flavor = "multi_thread")]
async fn where_the_location_server_does_not_know_it_everything_goes_whole() {
    let world = World::start().await;
    let sink = MailSink::start().await;
    let alice = world.agent("alice", None).await;
    let (out, address) = outgoing(&world, sink.address, |_| {}).await;
    let message = message("multipart/mixed", &bytes(3, 400_000));
    let mut client = Client::connect(address).await;
    assert_eq!(client.send("sam", &["alice"], &dotted(&message)).await, "250 2.0.0 taken");
    assert!(sink.mails()[0].content == message);
    // What it sends in its own name is its own.
    assert_eq!(client.send("out", &["alice"], &dotted(&message)).await, "250 2.0.0 taken");
    assert!(contains(&sink.mails()[1].content, "Lighter-Message:"));
    out.stop().await;
    alice.stop().await;
}

// SPEC: A26
#[tokio::test(flavor = "multi_thread")]
async fn bad_input_34_it_is_no_open_relay_and_asks_for_no_password() {
    let world = domain().await;
    let sink = MailSink::with_auth().await;
    let (out, address) = outgoing(&world, sink.address, |config| {
        config.outgoing.clients = vec!["192.0.2.0/24".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
    })
    .await;
    for turned_away in 1..=3 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).await.unwrap();
        assert_eq!(said, "554 5.7.1 Mail is not taken from there: access denied\r\n");
        let status = out.shared().submission.borrow().clone().unwrap();
        assert_eq!((status.turned_away, status.connections), (turned_away, 0));
    }
    assert!(sink.mails().is_empty());
    out.stop().await;

    let (out, address) =
        outgoing(&World { folder: tempfile::tempdir().unwrap(), ..world }, sink.address, |_| {}).await;
    let mut client = Client::connect(address).await;
    let said = client.say("EHLO client.example").await;
    assert!(!said.contains("AUTH") && said.starts_with("250-lighter.example.org"), "{said}");
    assert!(client.say("AUTH PLAIN AHNhbQBzZWNyZXQ=").await.starts_with("502 "));
    assert_eq!(client.say("MAIL FROM:<sam@example.org>").await, "530 5.7.0 who are you?");
    out.stop().await;
}

// SPEC: A15, A26
#[tokio::test(flavor = "multi_thread")]
async fn other_domains_are_asked_as_the_user_and_whom_users_write_to_may_write_back() {
    let a = World::start_with(|config| {
        config.outgoing.insert(named("out@a.example"), vec!["a.example".to_owned()]);
    })
    .await;
    let url = a.location.url();
    let b = World::start_with(|config| {
        config.finding.domains.insert("a.example".to_owned(), url);
    })
    .await;
    let sink = MailSink::start().await;
    let paths = a.set_up_as("out", named("out@a.example"), Some(sink.address.to_string())).await;
    let mut config = Config::read(&paths.config).unwrap();
    config.outgoing.listen = Some("127.0.0.1:0".parse().unwrap());
    config.finding.domains.insert("b.example".to_owned(), b.location.url());
    config.write(&paths.config).unwrap();
    let (out, address) = start(&paths).await;
    // Sam has a store, too, which takes no part in sending.
    let sam = crate::support::start(&a.set_up_as("sam", named("sam@a.example"), None).await).await;
    let bob = crate::support::start(&b.set_up_as("bob", named("bob@b.example"), None).await).await;
    let accept = AcceptanceChange { accept: vec![named("sam@a.example")], ..AcceptanceChange::default() };
    acceptance::change(bob.shared(), accept).await.unwrap();

    let finds = async |sender: &str| {
        finding::look_up_one(out.shared(), &named(sender), &named("bob@b.example")).await.unwrap().is_some()
    };
    assert!(finds("sam@a.example").await);
    assert!(!finds("eve@a.example").await && !finds("out@a.example").await, "nobody bob has accepted");

    let message = message("multipart/mixed", &bytes(4, 400_000));
    let mut client = Client::connect(address).await;
    for (sender, is_stub) in [("sam", true), ("eve", false)] {
        client.say(&format!("MAIL FROM:<{sender}@a.example>")).await;
        client.say("RCPT TO:<bob@b.example>").await;
        assert_eq!(client.content(&dotted(&message)).await, "250 2.0.0 taken");
        let mail = sink.mails().pop().unwrap();
        assert_eq!(contains(&mail.content, "Lighter-Message:"), is_stub, "{sender}");
    }
    eventually("the delivery", async || bob.shared().store.all_incoming().unwrap().len() == 1).await;
    eventually("bob to be one to whom sam wrote", async || {
        let chosen = acceptance::change(sam.shared(), AcceptanceChange::default()).await.unwrap().0;
        chosen
            .correspondents
            .iter()
            .any(|known| known.mailbox == named("bob@b.example") && known.standing == Standing::WrittenTo)
    })
    .await;
    out.stop().await;
    sam.stop().await;
    bob.stop().await;
}
