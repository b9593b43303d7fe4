//! The client against scripted peers, and against this crate's own server, both as values.

use proptest::prelude::*;

use super::Origin::{Here, Peer as Other};
use super::*;
use crate::envelope::{Body, MailFrom, Notify, OriginalRecipient, RcptTo, Return};
use crate::server;

fn envelope(recipients: &[&str]) -> Envelope {
    Envelope {
        mail: MailFrom { path: Some("a@b.example".parse().unwrap()), ..MailFrom::default() },
        recipients: recipients.iter().map(|text| RcptTo::new(text.parse().unwrap())).collect(),
    }
}

/// A client whose peer is the test.
struct Peer {
    client: Session,
    now: Instant,
    events: Vec<Event>,
}

impl Peer {
    fn new(protocol: Protocol, tls: Tls) -> Self {
        let now = Instant::now();
        let config = Config { tls, ..Config::new(protocol, "relay.example") };
        Self { client: Session::new(Arc::new(config), now), now, events: Vec::new() }
    }

    /// One whose session is ready; the next hop said `extensions`.
    fn ready(protocol: Protocol, extensions: &str) -> Self {
        let mut peer = Self::new(protocol, Tls::Off);
        peer.says("220 hi\r\n");
        peer.says(&format!("250-mx\r\n{extensions}250 HELP\r\n"));
        assert_eq!(peer.take_events(), [Event::Ready]);
        peer.written();
        peer
    }

    fn says(&mut self, reply: &str) -> &mut Self {
        self.client.handle_input(reply.as_bytes(), self.now);
        self.events.extend(std::iter::from_fn(|| self.client.poll_event()));
        self
    }

    fn written(&mut self) -> String {
        let bytes: Vec<u8> = std::iter::from_fn(|| self.client.poll_output()).flatten().collect();
        String::from_utf8(bytes).unwrap()
    }

    fn take_events(&mut self) -> Vec<Event> {
        self.events.extend(std::iter::from_fn(|| self.client.poll_event()));
        std::mem::take(&mut self.events)
    }

    fn send(&mut self, envelope: Envelope) {
        self.client.send(envelope, self.now);
    }

    /// The codes of the outcomes, and who said so.
    fn outcomes(&mut self) -> Vec<(u16, Origin)> {
        let events = self.take_events();
        let done = events.iter().find_map(|event| match event {
            Event::Done(outcomes) => Some(outcomes),
            _ => None,
        });
        done.expect("done").iter().map(|outcome| (outcome.reply.code, outcome.from)).collect()
    }

    fn content(&mut self, content: &'static [u8]) {
        self.client.content(Bytes::from_static(content), self.now);
        self.client.end_content(self.now);
    }
}

#[test]
fn a_message_is_sent_with_pipelining_in_one_go() {
    let mut peer = Peer::ready(Protocol::Smtp, "250-PIPELINING\r\n");
    peer.send(envelope(&["c@d.example", "e@f.example"]));
    let commands = "MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nRCPT TO:<e@f.example>\r\nDATA\r\n";
    assert_eq!(peer.written(), commands);
    peer.says("250 ok\r\n250 ok\r\n550 5.1.1 no\r\n");
    assert!(!peer.client.wants_content());
    peer.says("354 go\r\n");
    assert_eq!(peer.take_events(), [Event::Begin]);
    peer.content(b"x\r\n.y");
    assert_eq!(peer.written(), "x\r\n..y\r\n.\r\n");
    peer.says("250 2.0.0 queued\r\n");
    assert_eq!(peer.outcomes(), [(250, Other), (550, Other)]);
    assert!(peer.client.is_ready());
}

#[test]
fn without_pipelining_each_command_waits_for_its_reply() {
    let mut peer = Peer::ready(Protocol::Smtp, "");
    peer.send(envelope(&["c@d.example"]));
    assert_eq!(peer.written(), "MAIL FROM:<a@b.example>\r\n");
    peer.says("250 ok\r\n");
    assert_eq!(peer.written(), "RCPT TO:<c@d.example>\r\n");
    peer.says("450 4.2.0 later\r\n");
    assert_eq!(peer.written(), "", "without a recipient there is no DATA");
    assert_eq!(peer.outcomes(), [(450, Other)]);
    peer.send(envelope(&["c@d.example"]));
    assert_eq!(peer.written(), "RSET\r\n");
    peer.says("250 ok\r\n");
    assert_eq!(peer.written(), "MAIL FROM:<a@b.example>\r\n");
}

fn rcpt(text: &str) -> RcptTo {
    RcptTo::new(text.parse().unwrap())
}

fn mail() -> MailFrom {
    envelope(&[]).mail
}

#[test]
fn an_authentication_is_passed_on_word_for_word() {
    let mut peer = Peer::ready(Protocol::Smtp, "250-AUTH PLAIN LOGIN X-OWN bad@name\r\n");
    assert_eq!(peer.client.capabilities().mechanisms, ["PLAIN", "LOGIN", "X-OWN"]);
    let text = |text: &str| AuthText::read(text.as_bytes()).unwrap();
    peer.client.authenticate("LOGIN", None, peer.now);
    assert_eq!(peer.written(), "AUTH LOGIN\r\n");
    assert_eq!(
        peer.says("334 VXNlcm5hbWU6\r\n").take_events(),
        [Event::Challenge("VXNlcm5hbWU6".to_owned())]
    );
    assert_eq!(peer.client.poll_timeout(), None, "the user thinks");
    peer.client.respond(&text("YWxpY2U="), peer.now);
    assert_eq!(peer.written(), "YWxpY2U=\r\n");
    // Challenges are longer than any other line.
    let long = "A".repeat(12_000);
    assert_eq!(peer.says(&format!("334 {long}\r\n")).take_events(), [Event::Challenge(long)]);
    peer.client.respond(&AuthText::cancel(), peer.now);
    assert_eq!(peer.written(), "*\r\n");
    let refused = Reply::fixed(535, 7, 8, "no,\nnot you");
    let events = peer.says("535-5.7.8 no,\r\n535 5.7.8 not you\r\n").take_events();
    assert_eq!(events, [Event::Authenticated(refused)]);
    peer.client.authenticate("PLAIN", Some(&text("AGEAYg==")), peer.now);
    assert_eq!(peer.written(), "AUTH PLAIN AGEAYg==\r\n");
    let events = peer.says("235 2.7.0 in\r\n").take_events();
    assert_eq!(events, [Event::Authenticated(Reply::fixed(235, 7, 0, "in"))]);
    assert!(peer.client.is_ready());
    let bad_name = "PLAIN\r\nMAIL";
    peer.client.authenticate(bad_name, None, peer.now);
    assert_eq!((peer.written(), peer.take_events().len()), (String::new(), 1));
}

#[test]
fn a_server_that_goes_away_or_talks_nonsense_during_an_authentication_ends_the_session() {
    for (reply, code) in [("354 go\r\n", 451), ("421 4.3.2 bye\r\n", 421), ("334 a\r\n250 b\r\n", 451)] {
        let mut peer = Peer::ready(Protocol::Smtp, "250-AUTH PLAIN\r\n");
        peer.client.authenticate("PLAIN", None, peer.now);
        let events = peer.says(reply).take_events();
        let Some(Event::Closed(Some(outcome))) = events.last() else { panic!("{events:?}") };
        assert_eq!(outcome.reply.code, code, "{reply}");
    }
}

#[test]
fn a_message_goes_step_by_step_and_each_reply_is_told() {
    for extensions in ["", "250-PIPELINING\r\n"] {
        let mut peer = Peer::ready(Protocol::Smtp, extensions);
        peer.client.open(mail(), peer.now);
        assert_eq!(peer.written(), "MAIL FROM:<a@b.example>\r\n");
        let answered = |peer: &mut Peer, reply: &str| match &peer.says(reply).take_events()[..] {
            [Event::Answered(reply)] => reply.code,
            events => panic!("{events:?}"),
        };
        assert_eq!(answered(&mut peer, "250 ok\r\n"), 250);
        for (to, reply, code) in
            [("c@d.example", "250 ok\r\n", 250), ("no@d.example", "550 5.1.1 who?\r\n", 550)]
        {
            peer.client.add_recipient(rcpt(to), peer.now);
            assert_eq!(peer.written(), format!("RCPT TO:<{to}>\r\n"));
            assert_eq!(answered(&mut peer, reply), code);
            assert_eq!(peer.client.poll_timeout(), None, "the user thinks");
        }
        peer.client.start_content(peer.now);
        assert_eq!(peer.written(), "DATA\r\n");
        assert_eq!(peer.says("354 go\r\n").take_events(), [Event::Begin]);
        peer.content(b"x\r\n");
        assert_eq!(peer.written(), "x\r\n.\r\n");
        peer.says("250 2.0.0 queued\r\n");
        assert_eq!(peer.outcomes(), [(250, Other), (550, Other)]);
        assert!(peer.client.is_ready());
    }
}

#[test]
fn a_message_that_was_opened_can_be_abandoned_or_refused() {
    let mut peer = Peer::ready(Protocol::Smtp, "250-PIPELINING\r\n");
    peer.client.open(mail(), peer.now);
    peer.says("250 ok\r\n");
    peer.client.add_recipient(rcpt("c@d.example"), peer.now);
    peer.says("250 ok\r\n");
    peer.client.abandon();
    peer.written();
    peer.take_events();
    assert!(peer.client.is_ready());
    peer.send(envelope(&["e@f.example"]));
    assert!(peer.written().starts_with("RSET\r\nMAIL FROM"));
    peer.says("250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n");
    peer.content(b"x\r\n");
    peer.says("250 ok\r\n");
    assert_eq!(peer.outcomes(), [(250, Other)]);
    // A sender that is refused opens nothing; nobody accepted, nothing is sent.
    peer.client.open(mail(), peer.now);
    assert_eq!(peer.says("530 5.7.0 log in\r\n").take_events().len(), 1);
    assert!(peer.client.is_ready());
    peer.written();
    peer.client.open(mail(), peer.now);
    peer.says("250 ok\r\n250 ok\r\n");
    peer.client.start_content(peer.now);
    assert_eq!(peer.take_events().last(), Some(&Event::Done(Vec::new())));
    // What the server cannot take is not even asked.
    let utf8 = MailFrom { smtputf8: true, ..mail() };
    peer.client.open(utf8, peer.now);
    let events = peer.take_events();
    assert!(matches!(&events[..], [Event::Answered(reply)] if reply.code == 553), "{events:?}");
}

#[test]
fn a_connection_that_breaks_between_two_steps_is_told() {
    let mut peer = Peer::ready(Protocol::Smtp, "");
    peer.client.open(mail(), peer.now);
    peer.says("250 ok\r\n421 4.4.2 idle\r\n");
    let events = peer.take_events();
    assert!(matches!(events.last(), Some(Event::Closed(_))), "{events:?}");
    peer.client.add_recipient(rcpt("c@d.example"), peer.now);
    assert!(matches!(&peer.take_events()[..], [Event::Answered(reply)] if reply.code == 451));
}

#[test]
fn a_helo_server_is_served_too() {
    let mut peer = Peer::new(Protocol::Smtp, Tls::IfOffered);
    peer.says("220 hi\r\n");
    assert_eq!(peer.written(), "EHLO relay.example\r\n");
    peer.says("502 what?\r\n");
    assert_eq!(peer.written(), "HELO relay.example\r\n");
    peer.says("250 hi\r\n");
    assert_eq!(peer.take_events(), [Event::Ready]);
}

#[test]
fn the_parameters_go_to_those_who_understand_them() {
    let mut envelope = envelope(&["c@d.example"]);
    envelope.mail.size = Some(7);
    envelope.mail.body = Body::EightBitMime;
    envelope.mail.ret = Some(Return::Headers);
    envelope.mail.envid = crate::Xtext::encode("id 1");
    envelope.recipients[0].notify = Some(Notify { failure: true, ..Notify::default() });
    envelope.recipients[0].orcpt = Some(OriginalRecipient::parse("rfc822;x@y").unwrap());
    let mut peer =
        Peer::ready(Protocol::Smtp, "250-PIPELINING\r\n250-SIZE 10\r\n250-8BITMIME\r\n250-DSN\r\n");
    peer.send(envelope.clone());
    let mail = "MAIL FROM:<a@b.example> SIZE=7 BODY=8BITMIME RET=HDRS ENVID=id+201\r\n";
    let rcpt = "RCPT TO:<c@d.example> NOTIFY=FAILURE ORCPT=rfc822;x@y\r\n";
    assert_eq!(peer.written(), format!("{mail}{rcpt}DATA\r\n"));
    // Too big, 8-bit and internationalized mail do not go where they cannot.
    let refused = |extensions: &str, envelope: &Envelope| {
        let mut peer = Peer::ready(Protocol::Smtp, extensions);
        peer.send(envelope.clone());
        assert_eq!(peer.written(), "");
        assert!(peer.client.is_ready());
        peer.outcomes()[0]
    };
    assert_eq!(refused("250-SIZE 6\r\n250-8BITMIME\r\n", &envelope), (552, Here));
    assert_eq!(refused("250-SIZE\r\n", &envelope), (554, Here));
    envelope.mail.smtputf8 = true;
    assert_eq!(refused("250-8BITMIME\r\n", &envelope), (553, Here));
}

#[test]
fn when_mail_is_refused_no_recipient_is_accepted_whatever_else_is_said() {
    let mut peer = Peer::ready(Protocol::Smtp, "250-PIPELINING\r\n");
    peer.send(envelope(&["c@d.example", "e@f.example"]));
    peer.written();
    peer.says("550 5.7.1 blocked\r\n250 ok\r\n503 no\r\n354 go\r\n");
    assert_eq!(peer.written(), ".\r\n");
    peer.says("554 no recipients\r\n");
    assert_eq!(peer.outcomes(), [(550, Other), (550, Other)]);
}

#[test]
fn lmtp_says_what_became_of_each_recipient() {
    let mut peer = Peer::ready(Protocol::Lmtp, "250-PIPELINING\r\n");
    peer.send(envelope(&["one@d", "two@d", "three@d", "four@d"]));
    peer.says("250 ok\r\n250 ok\r\n550 no\r\n250 ok\r\n250 ok\r\n354 go\r\n");
    assert_eq!(peer.take_events(), [Event::Begin]);
    peer.content(b"x\r\n");
    peer.says("250 ok\r\n452 full\r\n");
    assert!(peer.take_events().is_empty());
    peer.client.handle_disconnect();
    assert_eq!(peer.outcomes(), [(250, Other), (550, Other), (452, Other), (451, Here)]);
}

#[test]
fn bad_input_10_a_lost_connection_leaves_every_recipient_temporary() {
    for replies in ["", "250 ok\r\n", "250 ok\r\n250 ok\r\n", "250 ok\r\n250 ok\r\n354 go\r\n"] {
        let mut peer = Peer::ready(Protocol::Smtp, "250-PIPELINING\r\n");
        peer.send(envelope(&["c@d.example"]));
        peer.says(replies);
        peer.client.handle_disconnect();
        let events = peer.take_events();
        let Some(Event::Done(outcomes)) = events.iter().find(|event| matches!(event, Event::Done(_))) else {
            panic!("{events:?}")
        };
        assert_eq!(outcomes[0], Outcome::here(reasons::LOST));
        assert_eq!(events.last(), Some(&Event::Closed(None)));
    }
    let mut peer = Peer::ready(Protocol::Smtp, "250-PIPELINING\r\n");
    peer.send(envelope(&["c@d.example"]));
    peer.says("250 ok\r\n250 ok\r\n354 go\r\n");
    peer.content(b"x\r\n");
    peer.client.handle_disconnect();
    let events = peer.take_events();
    assert!(events.contains(&Event::Done(vec![Outcome::here(reasons::LOST_AT_END)])), "{events:?}");
}

#[test]
fn a_peer_that_ends_the_session_is_believed() {
    let mut peer = Peer::ready(Protocol::Smtp, "250-PIPELINING\r\n");
    peer.send(envelope(&["c@d.example"]));
    peer.says("250 ok\r\n421 4.3.2 bye\r\n");
    assert_eq!(peer.outcomes(), [(421, Other)]);
    // During the content, too.
    let mut peer = Peer::ready(Protocol::Smtp, "");
    peer.send(envelope(&["c@d.example"]));
    peer.says("250 ok\r\n").says("250 ok\r\n").says("354 go\r\n").says("452 4.3.1 full\r\n");
    assert_eq!(peer.outcomes(), [(452, Other)]);
    // Before a message: temporary in any case.
    let mut peer = Peer::new(Protocol::Smtp, Tls::Off);
    peer.says("554 5.7.1 go away\r\n");
    let Some(Event::Closed(Some(outcome))) = peer.take_events().pop() else { panic!() };
    assert!(!outcome.is_permanent() && !outcome.is_delivered());
}

#[test]
fn garbage_and_silence_are_temporary() {
    let mut peer = Peer::ready(Protocol::Smtp, "");
    peer.send(envelope(&["c@d.example"]));
    peer.says("HTTP/1.1 400 Bad Request\r\n");
    assert_eq!(peer.outcomes(), [(451, Here)]);
    let mut peer = Peer::ready(Protocol::Smtp, "");
    peer.send(envelope(&["c@d.example"]));
    let (deadline, at) = peer.client.poll_timeout().unwrap();
    assert_eq!(deadline, Deadline::Reply);
    peer.client.handle_timeout(at - std::time::Duration::from_secs(1));
    assert!(peer.take_events().is_empty());
    peer.client.handle_timeout(at);
    assert_eq!(peer.outcomes(), [(451, Here)]);
}

#[test]
fn bad_input_01_content_with_a_bare_line_end_is_not_sent_to_its_end() {
    for content in ["x\n.\ny", "x\r\n.\ny", "x\r.\r\ny", "x\r"] {
        let mut peer = Peer::ready(Protocol::Smtp, "250-PIPELINING\r\n");
        peer.send(envelope(&["c@d.example"]));
        peer.says("250 ok\r\n250 ok\r\n354 go\r\n");
        peer.written();
        peer.content(content.as_bytes());
        assert_eq!(peer.written(), "", "{content:?}");
        assert_eq!(peer.outcomes(), [(554, Here)]);
    }
}

#[test]
fn bad_input_04_a_reply_injected_before_tls_ends_the_session() {
    let mut peer = Peer::new(Protocol::Smtp, Tls::IfOffered);
    peer.says("220 hi\r\n").says("250-mx\r\n250 STARTTLS\r\n");
    assert!(peer.written().ends_with("STARTTLS\r\n"));
    peer.says("220 go\r\n250 injected\r\n");
    assert!(matches!(peer.take_events().last(), Some(Event::Closed(Some(_)))));
}

#[test]
fn tls_is_used_where_offered_and_asked_for_where_required() {
    let mut peer = Peer::new(Protocol::Smtp, Tls::Required);
    peer.says("220 hi\r\n").says("250-mx\r\n250 STARTTLS\r\n").says("220 go\r\n");
    assert_eq!(peer.take_events(), [Event::StartTls]);
    peer.written();
    peer.client.tls_started(peer.now);
    assert_eq!(peer.written(), "EHLO relay.example\r\n");
    peer.says("250 mx\r\n");
    assert_eq!(peer.take_events(), [Event::Ready]);
    let mut peer = Peer::new(Protocol::Smtp, Tls::Required);
    peer.says("220 hi\r\n").says("250 mx\r\n");
    assert!(matches!(peer.take_events()[..], [Event::Closed(Some(_))]));
    let mut peer = Peer::new(Protocol::Smtp, Tls::IfOffered);
    peer.says("220 hi\r\n").says("250-mx\r\n250 STARTTLS\r\n").says("454 4.7.0 not now\r\n");
    assert_eq!(peer.take_events(), [Event::Ready]);
}

/// Runs a message through this client into this server; `by` cuts what travels between them. What the server took,
/// and what the client was told.
fn through(
    protocol: Protocol,
    envelope: &Envelope,
    content: &[u8],
    by: usize,
) -> (Vec<u8>, Envelope, Vec<Outcome>) {
    let now = Instant::now();
    let mut server = server::Session::new(Arc::new(server::Config::new(protocol, "mx.example")), now);
    let mut client = Session::new(Arc::new(Config::new(protocol, "relay.example")), now);
    let (mut taken, mut got) = (Vec::new(), None);
    let mut pieces = content.chunks(by);
    loop {
        while let Some(event) = server.poll_event(now) {
            match event {
                server::Event::Begin(envelope) => {
                    got = Some(envelope);
                    server.accept(now);
                }
                server::Event::Mail(_) | server::Event::Recipient(_) => server.accept(now),
                server::Event::Content(bytes) => taken.extend_from_slice(&bytes),
                server::Event::End(_) => {
                    server.finish(&server::Verdict::All(Reply::fixed(250, 0, 0, "ok")), now);
                }
                _ => {}
            }
        }
        for piece in std::iter::from_fn(|| server.poll_output()).flatten().collect::<Vec<u8>>().chunks(by) {
            client.handle_input(piece, now);
        }
        while client.wants_content() {
            match pieces.next() {
                Some(piece) => client.content(Bytes::copy_from_slice(piece), now),
                None => client.end_content(now),
            }
        }
        match client.poll_event() {
            Some(Event::Ready) => client.send(envelope.clone(), now),
            Some(Event::Done(outcomes)) => return (taken, got.unwrap_or_else(|| envelope.clone()), outcomes),
            _ => {}
        }
        if let Some(bytes) = client.poll_output() {
            for piece in bytes.chunks(by) {
                server.handle_input(Bytes::copy_from_slice(piece));
            }
        }
    }
}

#[test]
fn an_envelope_arrives_as_it_was_sent() {
    let mut sent = envelope(&["c@d.example", "\"q q\"@f.example", "jörg@x.example"]);
    sent.mail = MailFrom {
        path: None,
        size: Some(3),
        body: Body::EightBitMime,
        smtputf8: true,
        ret: Some(Return::Full),
        envid: crate::Xtext::encode("a+b=c"),
    };
    sent.recipients[0].notify = Some(Notify::default());
    sent.recipients[1].orcpt = Some(OriginalRecipient::parse("rfc822;+22q+20q+22@f.example").unwrap());
    for protocol in [Protocol::Smtp, Protocol::Lmtp] {
        let (_, got, outcomes) = through(protocol, &sent, b"x\r\n", 5);
        assert_eq!(got, sent);
        assert!(
            outcomes.len() == 3
                && outcomes.iter().all(|outcome| outcome.is_delivered() && outcome.dsn_passed)
        );
    }
}

proptest! {
    #[test]
    fn replies_cut_anywhere_lead_to_the_same_authentication_and_steps(by in 1usize..40, refused: bool, challenged: bool) {
        let run = |by: usize| {
            let mut peer = Peer::new(Protocol::Smtp, Tls::Off);
            let mut said = vec!["220 hi\r\n250-mx\r\n250-PIPELINING\r\n250 AUTH PLAIN\r\n".to_owned()];
            said.extend(challenged.then(|| "334 YQ==\r\n".to_owned()));
            said.push((if refused { "535-5.7.8 no\r\n535 5.7.8 no\r\n" } else { "235 2.7.0 yes\r\n" }).to_owned());
            said.extend(["250 ok\r\n", "550-5.1.1 a\r\n550 5.1.1 b\r\n", "250 ok\r\n"].map(str::to_owned));
            let (mut events, mut written) = (Vec::new(), String::new());
            for reply in said {
                for piece in reply.as_bytes().chunks(by) {
                    peer.client.handle_input(piece, peer.now);
                }
                for event in peer.take_events() {
                    match &event {
                        Event::Ready => peer.client.authenticate("PLAIN", None, peer.now),
                        Event::Challenge(_) => peer.client.respond(&AuthText::cancel(), peer.now),
                        Event::Authenticated(_) => peer.client.open(mail(), peer.now),
                        Event::Answered(_) => peer.client.add_recipient(rcpt("c@d.example"), peer.now),
                        _ => {}
                    }
                    events.push(event);
                }
                written += &peer.written();
            }
            (events, written)
        };
        prop_assert_eq!(run(by), run(1_000));
        prop_assert_eq!(run(by).0.len(), 5 + usize::from(challenged));
    }

    #[test]
    fn any_lines_arrive_as_they_were_sent(
        lines in prop::collection::vec(prop::collection::vec(any::<u8>().prop_filter("no line end", |b| !b"\r\n".contains(b)), 0..9), 0..40),
        dots in any::<u64>(), by in 1usize..50,
    ) {
        let mut content = Vec::new();
        for (n, line) in lines.iter().enumerate() {
            content.extend_from_slice(if dots >> (n % 64) & 1 == 1 { b"." } else { b"" });
            content.extend_from_slice(line);
            content.extend_from_slice(b"\r\n");
        }
        let (taken, _, outcomes) = through(Protocol::Lmtp, &envelope(&["c@d", "e@f"]), &content, by);
        prop_assert_eq!(taken, content);
        prop_assert!(outcomes.iter().all(Outcome::is_delivered));
    }

    #[test]
    fn whatever_the_peer_says_every_recipient_has_one_outcome(
        replies in prop::collection::vec(prop::sample::select(vec![
            "220 x\r\n", "250 x\r\n", "250-x\r\n250 PIPELINING\r\n", "354 x\r\n", "450 x\r\n", "550 x\r\n", "421 x\r\n", "x\r\n", "250",
        ]), 0..12),
    ) {
        let mut peer = Peer::new(Protocol::Smtp, Tls::Off);
        peer.says("220 x\r\n250 x\r\n");
        peer.send(envelope(&["c@d", "e@f", "g@h"]));
        for reply in replies {
            peer.says(reply);
            if peer.client.wants_content() {
                peer.content(b"x\r\n");
            }
        }
        peer.client.handle_disconnect();
        let events = peer.take_events();
        let done: Vec<_> = events.iter().filter_map(|event| if let Event::Done(done) = event { Some(done.len()) } else { None }).collect();
        prop_assert_eq!(done, [3]);
        prop_assert!(matches!(events.last(), Some(Event::Closed(_))));
    }
}
