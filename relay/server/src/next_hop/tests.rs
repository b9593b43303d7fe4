//! Hand-overs to real servers over real sockets, and to real folders.

use std::net::SocketAddr;
use std::sync::Arc;

use lighter_mail::Protocol::{Lmtp, Smtp};
use lighter_mail::{Body as BodyType, MailFrom, Protocol, RcptTo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::smtp_in::tests::{Running, certificate, listener};

fn message(recipients: &[&str]) -> HandOver {
    HandOver {
        id: [7; 16],
        accepted: UnixTime(1_700_000_000),
        envelope: Envelope {
            mail: MailFrom { path: Some("a@b.example".parse().unwrap()), ..MailFrom::default() },
            recipients: recipients.iter().map(|text| RcptTo::new(text.parse().unwrap())).collect(),
        },
    }
}

fn body(text: &'static str) -> Option<Bytes> {
    Some(Bytes::from_static(text.as_bytes()))
}

/// Pieces, then an error if there is to be one.
struct Pieces {
    pieces: Vec<&'static str>,
    fails: bool,
}

impl Body for Pieces {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        match self.pieces.pop() {
            Some(piece) => Ok(Some(Bytes::from_static(piece.as_bytes()))),
            None if self.fails => Err(io::Error::other("no copy answers")),
            None => Ok(None),
        }
    }
}

fn hop(protocol: Protocol, address: SocketAddr, tls: NextHopTls) -> MailHop {
    MailHop::new(protocol, &address.to_string(), "relay.example", tls, None).unwrap()
}

fn codes(outcomes: &[Outcome]) -> Vec<u16> {
    outcomes.iter().map(|outcome| outcome.reply.code).collect()
}

#[tokio::test]
async fn smtp_and_lmtp_servers_get_the_message_and_each_recipient_an_outcome() {
    for (protocol, expected) in [(Smtp, [250, 550, 250]), (Lmtp, [250, 550, 250])] {
        let server = Running::start(&listener(), protocol).await;
        let hop = hop(protocol, server.address, NextHopTls::Off);
        let message = message(&["one@d", "unknown@d", "two@d"]);
        let outcomes = hop.deliver(&message, body("x\r\n.y\r\n")).await;
        assert_eq!(codes(&outcomes), expected);
        assert!(outcomes[0].dsn_passed);
        assert_eq!(server.memory.taken()[0].content, b"x\r\n.y\r\n");
    }
}

#[tokio::test]
async fn bad_input_15_an_lmtp_server_that_fails_one_recipient_after_the_content_fails_only_that_one() {
    let server = Running::start(&listener(), Lmtp).await;
    let outcomes = hop(Lmtp, server.address, NextHopTls::Off)
        .deliver(&message(&["one@d", "late@d", "two@d"]), body("x\r\n"))
        .await;
    assert_eq!(codes(&outcomes), [250, 452, 250]);
}

#[tokio::test]
async fn a_connection_is_used_again_and_a_dead_one_replaced() {
    let server = Running::start(&listener(), Smtp).await;
    let address = server.address;
    let hop = hop(Smtp, address, NextHopTls::Off);
    for _ in 0..3 {
        assert_eq!(codes(&hop.deliver(&message(&["c@d"]), body("x\r\n")).await), [250]);
    }
    let peers: Vec<_> = server.memory.taken().iter().map(|taken| taken.peer.address).collect();
    assert!(peers.iter().all(|peer| *peer == peers[0]), "{peers:?}");
    // A refused recipient leaves the connection usable.
    assert_eq!(codes(&hop.deliver(&message(&["unknown@d"]), body("x\r\n")).await), [550]);
    assert_eq!(codes(&hop.deliver(&message(&["c@d"]), body("x\r\n")).await), [250]);
    // The server starts anew: the kept connection is dead.
    drop(server);
    let again = crate::config::MailListener { listen: vec![address], ..listener() };
    let server = loop {
        if tokio::net::TcpStream::connect(address).await.is_err() {
            break Running::start(&again, Smtp).await;
        }
    };
    assert_eq!(codes(&hop.deliver(&message(&["c@d"]), body("x\r\n")).await), [250]);
    assert_eq!(server.memory.taken().len(), 1);
}

#[tokio::test]
async fn a_message_that_cannot_be_read_to_its_end_is_not_delivered() {
    let server = Running::start(&listener(), Smtp).await;
    let hop = hop(Smtp, server.address, NextHopTls::Off);
    let outcomes = hop.deliver(&message(&["c@d"]), Pieces { pieces: vec!["half\r\n"], fails: true }).await;
    assert_eq!(codes(&outcomes), [451]);
    server.memory.wait_for(0, 1).await;
    assert!(server.memory.taken().is_empty());
    assert_eq!(codes(&hop.deliver(&message(&["c@d"]), body("x\r\n")).await), [250]);
}

#[tokio::test]
async fn a_next_hop_that_is_down_or_hangs_up_is_temporary() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = closed.local_addr().unwrap();
    drop(closed);
    let outcomes =
        hop(Smtp, address, NextHopTls::Off).deliver(&message(&["c@d", "e@f"]), body("x\r\n")).await;
    assert_eq!(codes(&outcomes), [451, 451]);
    // One that hangs up wherever it is.
    let script = ["", "220 hi\r\n", "250 mx\r\n", "250 ok\r\n", "250 ok\r\n", "354 go\r\n"];
    for until in 0..script.len() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut said = [0; 1_000];
            for reply in &script[1..=until] {
                stream.write_all(reply.as_bytes()).await.unwrap();
                let _ = stream.read(&mut said).await;
            }
        });
        let outcomes = hop(Smtp, address, NextHopTls::Off).deliver(&message(&["c@d"]), body("x\r\n")).await;
        assert_eq!(codes(&outcomes), [451], "hung up after {until} replies");
        server.await.unwrap();
    }
}

#[tokio::test]
async fn tls_is_used_where_offered_and_checked_where_required() {
    let folder = tempfile::tempdir().unwrap();
    let (listener_tls, trusted) = certificate(folder.path());
    let server = Running::start(&listener_tls, Smtp).await;
    let hop = hop(Smtp, server.address, NextHopTls::Opportunistic);
    assert_eq!(codes(&hop.deliver(&message(&["c@d"]), body("x\r\n")).await), [250]);
    assert!(server.memory.taken()[0].peer.tls);
    let required = |roots: rustls::RootCertStore, address: SocketAddr| {
        let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let address = format!("localhost:{}", address.port());
        MailHop::with_tls(Smtp, &address, "relay.example", NextHopTls::Required, Arc::new(config)).unwrap()
    };
    let mut roots = rustls::RootCertStore::empty();
    roots.add(trusted).unwrap();
    let trusting = required(roots.clone(), server.address);
    assert_eq!(codes(&trusting.deliver(&message(&["c@d"]), body("x\r\n")).await), [250]);
    // The same by the configuration's file with the issuers to trust; one without any is refused at the start.
    let by_file = |path: Option<&Path>| {
        let address = format!("localhost:{}", server.address.port());
        MailHop::new(Smtp, &address, "relay.example", NextHopTls::Required, path)
    };
    let trusting = by_file(listener_tls.tls_certificate.as_deref()).unwrap();
    assert_eq!(codes(&trusting.deliver(&message(&["c@d"]), body("x\r\n")).await), [250]);
    assert!(by_file(listener_tls.tls_key.as_deref()).is_err());
    assert!(by_file(Some(&folder.path().join("missing"))).is_err());
    // A certificate from somebody else, and no TLS at all: mail waits.
    let other = tempfile::tempdir().unwrap();
    let stranger = Running::start(&certificate(other.path()).0, Smtp).await;
    let plain = Running::start(&listener(), Smtp).await;
    for server in [&stranger, &plain] {
        let outcomes =
            required(roots.clone(), server.address).deliver(&message(&["c@d"]), body("x\r\n")).await;
        assert_eq!(codes(&outcomes), [451]);
        assert!(server.memory.taken().is_empty());
    }
}

#[tokio::test]
async fn an_address_without_a_port_is_refused() {
    for address in ["mx.example", "mx.example:", "mx.example:99999", ":25", "a b:25"] {
        assert!(MailHop::new(Smtp, address, "relay.example", NextHopTls::Off, None).is_err(), "{address}");
    }
    assert!(MailHop::new(Smtp, "[::1]:25", "relay.example", NextHopTls::Off, None).is_ok());
}

/// The files of a recipient's `sub` folder, with their contents.
fn files(maildir: &Maildir, recipient: &str, sub: &str) -> Vec<(String, String)> {
    let folder = maildir.folder(&recipient.parse().unwrap()).join(sub);
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, std::fs::read_to_string(path).unwrap())
        })
        .collect()
}

#[tokio::test]
async fn a_maildir_gets_each_message_once_however_often_it_is_tried() {
    let root = tempfile::tempdir().unwrap();
    let maildir = Maildir::new(root.path().join("deep/maildir"), "relay.example");
    let message = message(&["Alice@Example.Org", "bob@example.org"]);
    let pieces = || Pieces { pieces: vec![".two\r\n", "one\r\n"], fails: false };
    for _ in 0..2 {
        assert_eq!(codes(&maildir.deliver(&message, pieces()).await), [250, 250]);
        for recipient in ["alice@example.org", "bob@example.org"] {
            let name = format!("1700000000.{}.relay.example", "07".repeat(16));
            assert_eq!(files(&maildir, recipient, "new"), [(name, "one\r\n.two\r\n".to_owned())]);
            assert!(files(&maildir, recipient, "tmp").is_empty());
        }
    }
    // Alice's reader has seen it; Bob has deleted it, and gets it again from hers.
    let alice = maildir.folder(&"alice@example.org".parse().unwrap());
    let name = files(&maildir, "alice@example.org", "new")[0].0.clone();
    std::fs::rename(alice.join("new").join(&name), alice.join("cur").join(format!("{name}:2,S"))).unwrap();
    std::fs::remove_file(maildir.folder(&"bob@example.org".parse().unwrap()).join("new").join(&name))
        .unwrap();
    assert_eq!(codes(&maildir.deliver(&message, pieces()).await), [250, 250]);
    assert!(files(&maildir, "alice@example.org", "new").is_empty());
    assert_eq!(files(&maildir, "bob@example.org", "new").len(), 1);
}

#[tokio::test]
async fn what_a_crash_left_in_tmp_is_overwritten_and_what_failed_is_taken_away() {
    let root = tempfile::tempdir().unwrap();
    let maildir = Maildir::new(root.path().to_owned(), "relay.example");
    let failing = Pieces { pieces: vec!["a first half\r\n"], fails: true };
    let outcomes = maildir.deliver(&message(&["c@d", "e@f"]), failing).await;
    assert_eq!(codes(&outcomes), [451, 451]);
    assert!(files(&maildir, "c@d", "tmp").is_empty() && files(&maildir, "c@d", "new").is_empty());
    let name = format!("1700000000.{}.relay.example", "07".repeat(16));
    let tmp = maildir.folder(&"c@d".parse().unwrap()).join("tmp").join(&name);
    std::fs::write(tmp, "a long first half, left behind by a crash\r\n").unwrap();
    assert_eq!(codes(&maildir.deliver(&message(&["c@d", "e@f"]), body("x\r\n")).await), [250, 250]);
    assert_eq!(files(&maildir, "c@d", "new"), [(name, "x\r\n".to_owned())]);
    assert!(files(&maildir, "c@d", "tmp").is_empty());
}

#[tokio::test]
async fn a_mailbox_that_cannot_be_written_is_temporary() {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("d"), "a file where a folder should be").unwrap();
    let maildir = Maildir::new(root.path().to_owned(), "relay.example");
    let outcomes = maildir.deliver(&message(&["c@d", "e@f"]), body("x\r\n")).await;
    assert_eq!(codes(&outcomes), [451, 250]);
}

#[tokio::test]
async fn postfix_own_sink_takes_what_is_handed_over() {
    for (protocol, flags) in [(Smtp, &[][..]), (Lmtp, &["-L"][..])] {
        let folder = tempfile::tempdir().unwrap();
        let address = {
            let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
            free.local_addr().unwrap()
        };
        let dump = folder.path().join("dump");
        let mut sink = tokio::process::Command::new("/usr/sbin/smtp-sink")
            .args(flags)
            .args(["-u", "root", "-D", dump.to_str().unwrap(), &format!("inet:{address}"), "10"])
            .kill_on_drop(true)
            .spawn()
            .expect("smtp-sink (tests/run installs it)");
        while tokio::net::TcpStream::connect(address).await.is_err() {
            tokio::task::yield_now().await;
        }
        let mut message = message(&["c@d", "e@f"]);
        message.envelope.mail.body = BodyType::EightBitMime;
        let outcomes = hop(protocol, address, NextHopTls::Off)
            .deliver(&message, body("Subject: \u{e9}\r\n\r\n.x\r\n"))
            .await;
        assert_eq!(codes(&outcomes), [250, 250], "{outcomes:?}");
        sink.kill().await.unwrap();
        let dumped = std::fs::read_to_string(dump).unwrap();
        assert!(dumped.replace('\r', "").contains("Subject: \u{e9}\n\n.x\n"), "{dumped}");
    }
}
