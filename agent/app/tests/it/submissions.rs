//! Local submission: what a mail client sends through the agent, each recipient's way on its own, and the provider's
//! words to the client.

use std::net::SocketAddr;

use data_encoding::BASE64;
use lighter_agent::agent::Agent;
use lighter_agent::config::{Config, Paths};
use lighter_agent::send::unreachable::Unreachable;
use lighter_agent::submission::Listener;
use lighter_protocol::BlobId;
use lighter_store::{Outgoing, OutgoingState};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::support::mail_sink::{Hold, Mail, MailSink};
use crate::support::programs::{self, json, run_ok};
use crate::support::{World, bytes, eventually};

/// A mail client that is the test.
pub(crate) struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    /// Connects, and says EHLO.
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let mut client = Self { stream: BufReader::new(TcpStream::connect(address).await.unwrap()) };
        assert!(client.reply().await.starts_with("220 "));
        assert!(client.say("EHLO client.example").await.starts_with("250-"));
        client
    }

    async fn reply(&mut self) -> String {
        let mut reply = String::new();
        loop {
            let from = reply.len();
            assert!(self.stream.read_line(&mut reply).await.unwrap() > 0, "cut off after {reply:?}");
            if reply.as_bytes().get(from + 3) == Some(&b' ') {
                return reply.trim_end().to_owned();
            }
        }
    }

    pub(crate) async fn say(&mut self, command: &str) -> String {
        self.stream.write_all(format!("{command}\r\n").as_bytes()).await.unwrap();
        self.reply().await
    }

    /// Sends a message to those of `to` who are taken; what is said at its end.
    pub(crate) async fn send(&mut self, from: &str, to: &[&str], content: &[u8]) -> String {
        assert_eq!(self.say(&format!("MAIL FROM:<{from}@example.org>")).await, "250 2.1.0 Sender OK");
        for to in to {
            assert_eq!(
                self.say(&format!("RCPT TO:<{to}@example.org>")).await,
                "250 2.1.5 Recipient OK",
                "{to}"
            );
        }
        self.content(content).await
    }

    pub(crate) async fn content(&mut self, content: &[u8]) -> String {
        assert!(self.say("DATA").await.starts_with("354 "));
        self.stream.write_all(content).await.unwrap();
        self.say(".").await
    }
}

/// Sam's agent in this process, with submission on.
async fn submitting(world: &World, smtp: SocketAddr) -> (Agent, SocketAddr) {
    start(&set_up(world, smtp).await).await
}

pub(crate) async fn start(paths: &Paths) -> (Agent, SocketAddr) {
    let mut sam = crate::support::start(paths).await;
    let listener = Listener::bind(&Config::read(&paths.config).unwrap(), paths).await.unwrap().unwrap();
    let address = listener.address();
    sam.take_submissions(listener);
    (sam, address)
}

async fn set_up(world: &World, smtp: SocketAddr) -> Paths {
    let paths = world.set_up("sam", Some(smtp.to_string())).await;
    let mut config = Config::read(&paths.config).unwrap();
    config.submission.listen = Some("127.0.0.1:0".parse().unwrap());
    config.write(&paths.config).unwrap();
    paths
}

/// A message with `attached`, as a mail client makes it.
pub(crate) fn message(kind: &str, attached: &[u8]) -> Vec<u8> {
    let encoded = BASE64.encode(attached);
    let lines: Vec<&str> =
        encoded.as_bytes().chunks(72).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!(
        "From: Sam <sam@example.org>\r\nTo: undisclosed-recipients:;\r\nSubject: =?utf-8?Q?Gr=C3=BC=C3=9Fe?=\r\n\
         X-Odd:  as\tit \r\n\tis\r\nMIME-Version: 1.0\r\nContent-Type: {kind};\r\n boundary=\"=_b\"\r\n\r\n--=_b\r\n\
         Content-Type: text/plain\r\n\r\nHello\r\n..\r\n--=_b\r\nContent-Type: application/pdf; name=a.pdf\r\n\
         Content-Disposition: attachment; filename=a.pdf\r\nContent-Transfer-Encoding: base64\r\n\r\n{}\r\n--=_b--\r\n",
        lines.join("\r\n")
    )
    .into_bytes()
}

/// The same, as it goes over the wire, without its end.
pub(crate) fn dotted(message: &[u8]) -> Vec<u8> {
    String::from_utf8(message.to_vec()).unwrap().replace("\r\n.", "\r\n..").into_bytes()
}

pub(crate) fn contains(text: &[u8], part: &str) -> bool {
    text.windows(part.len()).any(|window| window == part.as_bytes())
}

pub(crate) fn to<'a>(mails: &'a [Mail], whom: &str) -> Vec<&'a Mail> {
    mails.iter().filter(|mail| mail.to.iter().any(|to| to.starts_with(whom))).collect()
}

// SPEC: A1, A2, A3, A4, A5, A6, A9, A10
#[tokio::test(flavor = "multi_thread")]
async fn what_a_mail_client_sends_goes_three_ways_at_once_and_restores_to_the_byte() {
    let world = World::start().await;
    let sink = MailSink::with_auth().await;
    let alice_paths = world.set_up("alice", None).await;
    let alice = crate::support::start(&alice_paths).await;
    let (sam, address) = submitting(&world, sink.address).await;
    let attached = bytes(1, 5 * 1024 * 1024);
    let message = message("multipart/mixed", &attached);

    let mut client = Client::connect(address).await;
    // The provider's words, before and after it knows who it is.
    assert_eq!(client.say("MAIL FROM:<sam@example.org>").await, "530 5.7.0 who are you?");
    assert_eq!(
        client.say("AUTH PLAIN AHNhbQB3cm9uZw==").await,
        "535-5.7.8 Not with this password,\r\n535 5.7.8 sam"
    );
    assert_eq!(client.say("AUTH PLAIN").await, "334");
    assert_eq!(client.say("AHNhbQBzZWNyZXQ=").await, "235 2.7.0 welcome, sam");
    client.say("MAIL FROM:<sam@example.org>").await;
    assert_eq!(client.say("RCPT TO:<nobody@example.org>").await, "550 5.1.1 nobody here");
    for to in ["alice", "bob"] {
        assert_eq!(client.say(&format!("RCPT TO:<{to}@example.org>")).await, "250 2.1.5 Recipient OK");
    }
    assert_eq!(client.content(&dotted(&message)).await, "250 2.0.0 taken");

    let mails = sink.mails();
    assert_eq!(mails.len(), 2, "bob's and alice's");
    assert!(mails.iter().all(|mail| mail.from == "sam@example.org" && mail.to.len() == 1));
    assert!(to(&mails, "bob@")[0].content == message, "not as the client made it");
    let stub = to(&mails, "alice@")[0];
    assert!(contains(&stub.content, "Lighter-Message:") && stub.content.len() < 10_000);
    eventually("the receipt", async || {
        let outgoing = sam.shared().store.all_outgoing().unwrap();
        outgoing.iter().any(|outgoing| matches!(outgoing.state, OutgoingState::Released(_)))
    })
    .await;
    assert!(run_ok(&alice_paths, &["restore"], &stub.content).await == message);
    assert!(!sam.shared().store.holds(BlobId::of(&attached)).unwrap(), "receipted: let go of");
    assert_eq!(sam.shared().store.all_outgoing().unwrap()[0].subject, "Grüße");
    let status = sam.shared().submission.borrow().clone().unwrap();
    assert_eq!((status.detached, status.recipients_to_store, status.recipients_whole), (1, 1, 1));
    assert_eq!((status.untouched, status.refused, status.connections), (0, 0, 1));
    sam.stop().await;
    alice.stop().await;
}

// SPEC: A1, A9
#[tokio::test(flavor = "multi_thread")]
async fn what_has_nothing_to_take_out_or_nobody_to_take_it_goes_on_untouched() {
    let world = World::start().await;
    let sink = MailSink::start().await;
    let alice = world.agent("alice", None).await;
    let (sam, address) = submitting(&world, sink.address).await;
    let attached = bytes(2, 600_000);
    let text = b"Subject: x\r\n\r\n..only text\r\n".to_vec();
    let mixed = message("multipart/mixed", &attached);
    let cases = [
        ("sam", "alice", text),
        ("sam", "alice", message("multipart/signed; protocol=\"application/pgp-signature\"", &attached)),
        ("sam", "alice", message("multipart/encrypted", &attached)),
        ("sam", "bob", mixed.clone()),
        ("eve", "alice", mixed),
    ];
    let mut client = Client::connect(address).await;
    for (from, to, message) in &cases {
        assert_eq!(client.send(from, &[to], &dotted(message)).await, "250 2.0.0 taken");
    }
    let mails = sink.mails();
    assert_eq!(mails.len(), cases.len());
    for (mail, (from, _, message)) in mails.iter().zip(&cases) {
        assert!(mail.content == *message && mail.from == format!("{from}@example.org"), "{from}");
    }
    assert!(alice.shared().store.all_incoming().unwrap().is_empty());
    assert_eq!(sam.shared().submission.borrow().as_ref().unwrap().untouched, 5);
    // Chunks come out as lines do.
    client.say("MAIL FROM:<sam@example.org>").await;
    client.say("RCPT TO:<bob@example.org>").await;
    assert_eq!(client.say("BDAT 12 LAST\r\nA: b\r\n\r\n.x").await, "250 2.0.0 taken");
    assert!(sink.mails().last().unwrap().content == b"A: b\r\n\r\n.x\r\n");
    sam.stop().await;
    alice.stop().await;
}

// SPEC: A10 — Bcc: recipients that the header does not name share nothing.
#[tokio::test(flavor = "multi_thread")]
async fn recipients_in_bcc_share_nothing_that_shows_each_other() {
    let world = World::start().await;
    let sink = MailSink::start().await;
    let (alice, carol) = (world.agent("alice", None).await, world.agent("carol", None).await);
    let (sam, address) = submitting(&world, sink.address).await;
    let message = message("multipart/mixed", &bytes(3, 400_000));
    let mut client = Client::connect(address).await;
    assert_eq!(client.send("sam", &["alice", "carol"], &dotted(&message)).await, "250 2.0.0 taken");
    let mails = sink.mails();
    assert_eq!(mails.len(), 2);
    for (own, other) in [("alice", "carol"), ("carol", "alice")] {
        let mail = to(&mails, own)[0];
        assert_eq!(mail.to.len(), 1);
        assert!(contains(&mail.content, "Lighter-Message:") && !contains(&mail.content, other), "{own}");
    }
    let deliveries: Vec<_> = mails
        .iter()
        .map(|mail| {
            let text = String::from_utf8_lossy(&mail.content).into_owned();
            text.split_once("delivery=").unwrap().1.chars().take(32).collect::<String>()
        })
        .collect();
    assert_ne!(deliveries[0], deliveries[1]);
    sam.stop().await;
    alice.stop().await;
    carol.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_provider_refuses_first_is_refused_in_its_words_and_nothing_else_is_sent() {
    let world = World::start().await;
    let sink = MailSink::start().await;
    let alice = world.agent("alice", None).await;
    let (sam, address) = submitting(&world, sink.address).await;
    let attached = bytes(4, 400_000);
    let message = dotted(&message("multipart/mixed", &attached));
    let mut client = Client::connect(address).await;
    let answer = client.send("sam", &["alice", "heavy"], &message).await;
    assert_eq!(answer, "554 5.7.1 too heavy for us");
    assert!(sink.mails().is_empty());
    assert!(sam.shared().store.all_outgoing().unwrap().is_empty());
    assert!(!sam.shared().store.holds(BlobId::of(&attached)).unwrap());
    assert_eq!(sam.shared().submission.borrow().as_ref().unwrap().refused, 1);
    // The same, where it goes to a store only.
    let fickle = world.agent("fickle", None).await;
    assert_eq!(client.send("sam", &["fickle"], &message).await, "550 5.2.1 changed its mind");
    assert!(sam.shared().store.all_outgoing().unwrap().is_empty());
    sam.stop().await;
    alice.stop().await;
    fickle.stop().await;
}

// SPEC: A10
#[tokio::test(flavor = "multi_thread")]
async fn what_fails_after_somebody_has_it_is_reported_and_a_second_try_sends_nothing_twice() {
    let world = World::start().await;
    let sink = MailSink::start().await;
    let (alice, fickle) = (world.agent("alice", None).await, world.agent("fickle", None).await);
    let (sam, address) = submitting(&world, sink.address).await;
    let message = dotted(&message("multipart/mixed", &bytes(5, 400_000)));
    let mut client = Client::connect(address).await;
    let everybody = ["alice", "bob", "fickle"];
    assert_eq!(client.send("sam", &everybody, &message).await, "250 2.0.0 taken");
    let mails = sink.mails();
    assert_eq!((to(&mails, "alice").len(), to(&mails, "bob").len(), to(&mails, "fickle").len()), (1, 1, 0));
    let report = to(&mails, "sam")[0];
    assert!(report.from.is_empty() && contains(&report.content, "multipart/report"));
    assert!(contains(&report.content, "fickle@example.org") && contains(&report.content, "changed its mind"));
    assert!(!contains(&report.content, "bob@example.org") && contains(&report.content, "X-Odd"));
    // Again, in a new session: only who does not have it is tried.
    let mut again = Client::connect(address).await;
    assert_eq!(again.send("sam", &everybody, &message).await, "250 2.0.0 taken");
    let mails = sink.mails();
    assert_eq!((to(&mails, "alice").len(), to(&mails, "bob").len(), to(&mails, "fickle").len()), (1, 1, 1));
    let third = again.send("sam", &["alice", "bob"], &message).await;
    assert_eq!(third, "250 2.0.0 taken", "another envelope is another message");
    assert_eq!(to(&sink.mails(), "alice").len(), 2);
    assert_eq!(again.send("sam", &["bob", "alice"], &message).await, "250 2.0.0 Sent before, to everybody");
    assert_eq!(to(&sink.mails(), "alice").len(), 2);
    sam.stop().await;
    alice.stop().await;
    fickle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_provider_a_client_is_told_so_and_one_that_goes_away_leaves_nothing() {
    let world = World::start().await;
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (sam, address) = submitting(&world, unused).await;
    let mut stream = BufReader::new(TcpStream::connect(address).await.unwrap());
    let mut said = String::new();
    stream.read_line(&mut said).await.unwrap();
    assert!(
        said.starts_with("421 4.4.1 the mail server 127.0.0.1:") && said.contains("cannot be reached"),
        "{said}"
    );
    assert!(sam.shared().submission.borrow().as_ref().unwrap().problem.is_some());
    sam.stop().await;

    let sink = MailSink::start().await;
    let (sam, address) =
        submitting(&World { folder: tempfile::tempdir().unwrap(), ..world }, sink.address).await;
    let mut client = Client::connect(address).await;
    client.say("MAIL FROM:<sam@example.org>").await;
    client.say("RCPT TO:<bob@example.org>").await;
    client.say("DATA").await;
    let message = dotted(&message("multipart/mixed", &bytes(6, 400_000)));
    client.stream.write_all(&message[..300_000]).await.unwrap();
    drop(client);
    let status = || sam.shared().submission.borrow().clone().unwrap();
    eventually("the connection to end", async || status().connections == 0).await;
    assert_eq!((sink.mails().len(), status().untouched, status().refused), (0, 0, 0));
    sam.stop().await;
}

// SPEC: A7, A8
#[tokio::test(flavor = "multi_thread")]
async fn attachments_wait_here_only_where_the_provider_takes_mail_without_a_password() {
    for with_password in [false, true] {
        let world = World::start().await;
        let sink = if with_password { MailSink::with_auth().await } else { MailSink::start().await };
        world.agent("carol", None).await.stop().await;
        let paths = set_up(&world, sink.address).await;
        let mut config = Config::read(&paths.config).unwrap();
        config.send.unreachable = Unreachable::Retry;
        config.write(&paths.config).unwrap();
        let (sam, address) = start(&paths).await;
        let message = message("multipart/mixed", &bytes(9, 400_000));
        let mut client = Client::connect(address).await;
        if with_password {
            assert!(client.say("AUTH PLAIN AHNhbQBzZWNyZXQ=").await.starts_with("235 "));
        }
        assert_eq!(client.send("sam", &["carol"], &dotted(&message)).await, "250 2.0.0 taken");
        let mail = sink.mails().remove(0);
        let outgoing = sam.shared().store.all_outgoing().unwrap();
        if with_password {
            assert!(mail.content == message && outgoing.is_empty());
        } else {
            assert!(contains(&mail.content, "Lighter-Message:"));
            assert!(matches!(outgoing[..], [Outgoing { state: OutgoingState::Waiting, .. }]));
        }
        sam.stop().await;
    }
}

// Rule 5: with the location server down, mail goes untouched.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_location_server_a_submitted_message_goes_untouched() {
    let world = World::start().await;
    let sink = MailSink::start().await;
    let (sam, address) = submitting(&world, sink.address).await;
    let World { folder, location, .. } = world;
    location.stop().await;
    let message = message("multipart/mixed", &bytes(7, 400_000));
    let mut client = Client::connect(address).await;
    assert_eq!(client.send("sam", &["alice"], &dotted(&message)).await, "250 2.0.0 taken");
    assert!(sink.mails()[0].content == message);
    sam.stop().await;
    drop(folder);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_32_killed_between_offer_and_mail_the_second_try_is_the_same_message_and_comes_once() {
    let world = World::start().await;
    let sink = MailSink::start().await;
    let alice = world.agent("alice", None).await;
    let paths = set_up(&world, sink.address).await;
    let attached = bytes(8, 400_000);
    let message = dotted(&message("multipart/mixed", &attached));
    sink.hold.send_replace(Hold::Reset);
    let mut agent = programs::start(&paths).await;
    let mut client = Client::connect(listening(&paths).await).await;
    eventually("to be online", async || json(&paths, &["status"]).await["registered"] == true).await;
    assert_eq!(client.say("MAIL FROM:<sam@example.org>").await, "250 2.1.0 Sender OK");
    client.say("RCPT TO:<alice@example.org>").await;
    client.say("DATA").await;
    client.stream.write_all(&[&message[..], b".\r\n"].concat()).await.unwrap();
    // Alice's store has taken it; her mail is about to go.
    eventually("the offer", async || !alice.shared().store.all_incoming().unwrap().is_empty()).await;
    // It may have receipted it by now, too.
    eventually("the record", async || json(&paths, &["status"]).await["outgoing"][0].is_object()).await;
    agent.kill().await.unwrap();
    sink.hold.send_replace(Hold::Nowhere);
    std::fs::remove_file(paths.data.join("addresses.json")).unwrap();
    let mut agent = programs::start(&paths).await;
    let mut client = Client::connect(listening(&paths).await).await;
    eventually("to be online", async || json(&paths, &["status"]).await["registered"] == true).await;
    assert_eq!(client.send("sam", &["alice"], &message).await, "250 2.0.0 taken");
    eventually("the receipt", async || json(&paths, &["status"]).await["outgoing"][0]["state"] == "released")
        .await;
    assert_eq!(client.send("sam", &["alice"], &message).await, "250 2.0.0 Sent before, to everybody");
    assert_eq!(sink.mails().len(), 1);
    assert_eq!(alice.shared().store.all_incoming().unwrap().len(), 1, "one delivery");
    assert!(alice.shared().store.holds(BlobId::of(&attached)).unwrap());
    agent.kill().await.unwrap();
    alice.stop().await;
}

/// Where an agent that runs takes mail.
async fn listening(paths: &Paths) -> SocketAddr {
    let file = paths.data.join("addresses.json");
    eventually("the addresses", async || file.exists()).await;
    let addresses: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    addresses["submission"].as_str().unwrap().parse().unwrap()
}
