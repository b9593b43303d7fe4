//! `lighter-mail`: the server's session, content with its dots, replies of a peer, a whole client.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use lighter_mail::client::{self, ReplyReader};
use lighter_mail::dot::{Decoder, Encoder};
use lighter_mail::server::{Config, Event, Session, Verdict};
use lighter_mail::{AuthText, Envelope, MailFrom, Protocol, RcptTo, Reply};

use crate::Target;

/// This crate's targets.
pub const TARGETS: &[Target] = &[
    Target { name: "smtp_session", run: smtp_session, seeds: session_seeds },
    Target { name: "submission_session", run: submission_session, seeds: submission_seeds },
    Target { name: "lmtp_session", run: lmtp_session, seeds: session_seeds },
    Target { name: "smtp_content", run: smtp_content, seeds: content_seeds },
    Target { name: "smtp_reply", run: smtp_reply, seeds: reply_seeds },
    Target { name: "smtp_client", run: smtp_client, seeds: reply_seeds },
];

/// What an SMTP client might say.
pub fn smtp_session(data: &[u8]) {
    session(Protocol::Smtp, &[], data);
}

/// What a mail client might say to a server that offers AUTH.
pub fn submission_session(data: &[u8]) {
    session(Protocol::Smtp, &["PLAIN", "LOGIN"], data);
}

/// What an LMTP client might say.
pub fn lmtp_session(data: &[u8]) {
    session(Protocol::Lmtp, &[], data);
}

/// Cut anywhere it goes the same way; a message that ended was begun, and has no bare line end in it.
fn session(protocol: Protocol, mechanisms: &[&str], data: &[u8]) {
    let whole = Run::new(protocol, mechanisms, data, data.len().max(1));
    for piece in [1, 7] {
        assert!(Run::new(protocol, mechanisms, data, piece) == whole, "the pieces' size makes a difference");
    }
    for content in &whole.messages {
        assert!(!has_bare_line_end(content), "a bare line end got through");
    }
}

/// Everything that can be seen of a session.
#[derive(PartialEq)]
struct Run {
    said: Vec<u8>,
    events: Vec<Event>,
    messages: Vec<Vec<u8>>,
}

impl Run {
    fn new(protocol: Protocol, mechanisms: &[&str], data: &[u8], piece: usize) -> Self {
        let now = Instant::now();
        let mechanisms = mechanisms.iter().map(|&name| name.to_owned()).collect();
        let config = Config { size_max: 4_096, mechanisms, ..Config::new(protocol, "mx.example") };
        let mut session = Session::new(Arc::new(config), now);
        let mut run = Self { said: Vec::new(), events: Vec::new(), messages: Vec::new() };
        let mut content = Vec::new();
        for piece in data.chunks(piece) {
            session.handle_input(Bytes::copy_from_slice(piece));
            loop {
                while let Some(event) = session.poll_event(now) {
                    run.take(event, &mut content, &mut session, now);
                }
                let Some(output) = session.poll_output() else { break };
                run.said.extend_from_slice(&output);
            }
        }
        assert!(run.said.is_ascii() && !has_bare_line_end(&run.said), "a reply that is none");
        run
    }

    fn take(&mut self, event: Event, content: &mut Vec<u8>, session: &mut Session, now: Instant) {
        match &event {
            Event::Mail(_) | Event::Recipient(_) => session.accept(now),
            Event::Begin(envelope) => {
                assert!(!envelope.recipients.is_empty(), "a message for nobody");
                content.clear();
                session.accept(now);
            }
            Event::Content(piece) => {
                assert!(!piece.is_empty());
                content.extend_from_slice(piece);
                return;
            }
            Event::End(summary) => {
                assert!(summary.len == content.len() as u64);
                self.messages.push(std::mem::take(content));
                session.finish(&Verdict::All(Reply::fixed(250, 0, 0, "ok")), now);
            }
            Event::Auth { initial: None, .. } => session.challenge("", now),
            Event::Auth { initial: Some(said), .. } | Event::AuthResponse(said) => {
                assert!(!said.as_str().contains(|c: char| c.is_whitespace() || c.is_control()));
                match said.as_str().len() % 3 {
                    0 => session.challenge("bW9yZQ==", now),
                    1 => session.auth_done(&Reply::fixed(535, 7, 8, "no"), now),
                    _ => session.auth_done(&Reply::fixed(235, 7, 0, "yes"), now),
                }
            }
            Event::Hello { .. } | Event::Abort | Event::StartTls | Event::Close => {}
        }
        self.events.push(event);
    }
}

/// Content, encoded, comes back as it was, or is known to be unfit.
pub fn smtp_content(data: &[u8]) {
    for piece in [1, 3, data.len().max(1)] {
        let mut encoder = Encoder::new();
        let mut wire = Vec::new();
        for piece in data.chunks(piece) {
            wire.extend_from_slice(&encoder.encode(Bytes::copy_from_slice(piece)));
        }
        wire.extend_from_slice(encoder.finish());
        assert!(encoder.has_bare_line_end() == has_bare_line_end(data));
        if encoder.has_bare_line_end() {
            continue;
        }
        let mut decoder = Decoder::new();
        let mut decoded = Vec::new();
        let mut ended = false;
        for piece in wire.chunks(piece) {
            assert!(!ended, "an end before the end");
            let (content, end) = decoder.decode(&mut Bytes::copy_from_slice(piece));
            decoded.extend_from_slice(&content);
            ended = end;
        }
        assert!(ended && !decoder.has_bare_line_end());
        let whole_lines = data.is_empty() || data.ends_with(b"\r\n");
        let added: &[u8] = if whole_lines { b"" } else { b"\r\n" };
        assert!(decoded.strip_suffix(added) == Some(data));
    }
}

/// What a server might answer: cut anywhere the same, bounded, and safe to show.
pub fn smtp_reply(data: &[u8]) {
    let read = |piece: usize| {
        let mut reader = ReplyReader::new();
        let mut replies = Vec::new();
        for mut input in data.chunks(piece) {
            while !input.is_empty() {
                match reader.read(&mut input) {
                    Ok(reply) => replies.extend(reply),
                    Err(error) => return (replies, Some(error)),
                }
            }
        }
        (replies, None)
    };
    let whole = read(data.len().max(1));
    assert!(read(1) == whole, "the pieces' size makes a difference");
    for reply in whole.0 {
        assert!((200..600).contains(&reply.code));
        let reply = reply.into_reply();
        assert!(!reply.text.contains(|c: char| c.is_control()) && reply.text.len() <= 500);
    }
}

/// A client that hears any bytes: one outcome for each recipient, and none of them good without a 2xx.
pub fn smtp_client(data: &[u8]) {
    let now = Instant::now();
    for protocol in [Protocol::Smtp, Protocol::Lmtp] {
        let config = client::Config::new(protocol, "relay.example");
        let mut session = client::Session::new(Arc::new(config), now);
        let recipients: Vec<_> =
            ["a@b", "c@d"].iter().filter_map(|text| text.parse().ok()).map(RcptTo::new).collect();
        let envelope = Envelope { mail: MailFrom::default(), recipients };
        let (mut sent, mut done) = (false, 0);
        for input in data.chunks(5).chain([&[][..]]) {
            session.handle_input(input, now);
            if input.is_empty() {
                session.handle_disconnect();
            }
            while let Some(event) = session.poll_event() {
                match event {
                    client::Event::Ready if !session.capabilities().mechanisms.is_empty() => {
                        session.authenticate("PLAIN", None, now);
                    }
                    client::Event::Ready | client::Event::Authenticated(_) => {
                        sent = true;
                        session.send(envelope.clone(), now);
                    }
                    client::Event::Challenge(_) => session.respond(&AuthText::cancel(), now),
                    client::Event::Answered(_) => {}
                    client::Event::Begin => {
                        session.content(Bytes::from_static(b".x\r\n"), now);
                        session.end_content(now);
                    }
                    client::Event::StartTls => session.tls_started(now),
                    client::Event::Done(outcomes) => {
                        assert!(outcomes.len() == 2);
                        done += 1;
                    }
                    client::Event::Closed(_) => {}
                }
            }
        }
        assert!(done == usize::from(sent), "not one outcome for each recipient");
    }
}

fn has_bare_line_end(bytes: &[u8]) -> bool {
    let cr_without_lf = |at: usize| bytes[at] == b'\r' && bytes.get(at + 1) != Some(&b'\n');
    let lf_without_cr = |at: usize| bytes[at] == b'\n' && (at == 0 || bytes[at - 1] != b'\r');
    (0..bytes.len()).any(|at| cr_without_lf(at) || lf_without_cr(at))
}

fn session_seeds() -> Vec<Vec<u8>> {
    [
        "EHLO c\r\nMAIL FROM:<a@b.example> SIZE=9 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=x+2Bx\r\n\
         RCPT TO:<c@d.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;c+40d\r\nDATA\r\nA: b\r\n\r\n..x\r\n.\r\nQUIT\r\n",
        "LHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<@x.example:\"q q\"@[192.0.2.1]>\r\nRCPT TO:<postmaster>\r\n\
         BDAT 3\r\na\r\nBDAT 0\r\nBDAT 5 LAST\r\n.\r\n\r\nRSET\r\nNOOP\r\n",
        "HELO c\r\nVRFY a\r\nHELP\r\nMAIL FROM: <a@b> \r\nRCPT TO:<c@d>\r\nDATA\r\nx\r\n.\r\n\
         MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nReceived: x\r\n\r\n\0\n.\n\r\r\n.\r\r\n.\r\n",
        "LHLO c\r\nMAIL FROM:<j\u{f6}rg@b> SMTPUTF8\r\nRCPT TO:<c@d>\r\nRCPT TO:<c@D>\r\nDATA\r\n\u{e9}\r\n.\r\n",
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect()
}

fn submission_seeds() -> Vec<Vec<u8>> {
    [
        "EHLO c\r\nAUTH PLAIN AGEAYg==\r\nMAIL FROM:<a@b> AUTH=<>\r\nRCPT TO:<c@d>\r\nDATA\r\nx\r\n.\r\nQUIT\r\n",
        "EHLO c\r\nAUTH LOGIN\r\nYQ==\r\nYWI=\r\nAUTH PLAIN\r\n*\r\nAUTH LOGIN =\r\nNOOP\r\nAUTH\r\nAUTH X\r\n",
        "AUTH PLAIN\r\nEHLO c\r\nauth plain\r\nMAIL FROM:<a@b>\r\nMAIL FROM:<a@b> AUTH=a+2Bb\r\nAUTH PLAIN\r\n",
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect()
}

fn content_seeds() -> Vec<Vec<u8>> {
    [&b"A: b\r\n\r\n.x\r\n..\r\n.\r\n"[..], b"x", b"", b".\r\n", b"\r\n.\r\n\0\xff", b"a\nb\rc\r\r\n"]
        .map(<[u8]>::to_vec)
        .to_vec()
}

fn reply_seeds() -> Vec<Vec<u8>> {
    [
        "220 mx\r\n250-mx\r\n250-PIPELINING\r\n250-SIZE 1000\r\n250-DSN\r\n250 SMTPUTF8\r\n250 ok\r\n250 2.1.5 ok\r\n\
         550 5.1.1 no\r\n354 go\r\n250 2.0.0 queued\r\n",
        "220 mx\r\n502 what\r\n250 mx\r\n250 ok\r\n250 ok\r\n450 4.2.0 later\r\n354 go\r\n452 4.3.1 full\r\n",
        "220 mx\r\n250-mx\r\n250 AUTH PLAIN LOGIN\r\n334 bW9yZQ==\r\n535-5.7.8 no\r\n535 5.7.8 not you\r\n250 ok\r\n250 ok\r\n",
        "220 mx\r\n250-mx\r\n250 STARTTLS\r\n220 go\r\n250 mx\r\n421 4.3.2 bye\r\n",
        "220 mx\r\n250 mx\r\n250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n250-2.0.0 one\r\n250 2.0.0 line\r\n552 5.2.2 full\r\n",
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect()
}
