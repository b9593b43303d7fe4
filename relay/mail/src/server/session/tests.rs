//! The session driven by bytes, with a shell that decides by simple rules.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::envelope::Envelope;
use crate::limits::{self, RECIPIENTS_OVERSHOOT_MAX};
use crate::server::{Extensions, Summary};

/// A shell that knows recipients by their local part: `unknown…` is refused; everything else is accepted.
struct Shell {
    session: Session,
    now: Instant,
    /// What the peer reads.
    said: String,
    events: Vec<Event>,
    /// The content of the present message, and of those that ended.
    content: Vec<u8>,
    messages: Vec<Vec<u8>>,
    verdict: fn(&Envelope) -> Verdict,
    envelope: Option<Envelope>,
    begin: Result<(), Reply>,
}

fn config(protocol: Protocol) -> Config {
    Config { size_max: 10_000, tls_offered: true, ..Config::new(protocol, "mx.example.org") }
}

const ACCEPTED: Reply = Reply::fixed(250, 0, 0, "Accepted");
const FAILED: Reply = Reply::fixed(451, 3, 0, "Failed");

impl Shell {
    fn new(config: Config) -> Self {
        let now = Instant::now();
        let mut shell = Self {
            session: Session::new(Arc::new(config), now),
            now,
            said: String::new(),
            events: Vec::new(),
            content: Vec::new(),
            messages: Vec::new(),
            verdict: |_| Verdict::All(ACCEPTED),
            envelope: None,
            begin: Ok(()),
        };
        shell.run();
        shell
    }

    fn smtp() -> Self {
        Self::new(config(Protocol::Smtp))
    }

    /// One that was greeted, its replies so far forgotten.
    fn greeted() -> Self {
        let mut shell = Self::smtp();
        shell.feed(b"EHLO client.example\r\n");
        shell.said.clear();
        shell
    }

    fn feed(&mut self, bytes: &[u8]) -> &mut Self {
        self.session.handle_input(Bytes::copy_from_slice(bytes));
        self.run();
        self
    }

    fn feed_by(&mut self, bytes: &[u8], piece_len: usize) -> &mut Self {
        for piece in bytes.chunks(piece_len) {
            self.feed(piece);
        }
        self
    }

    fn run(&mut self) {
        loop {
            while let Some(event) = self.session.poll_event(self.now) {
                self.answer(event);
            }
            let Some(output) = self.session.poll_output() else { return };
            self.said.push_str(std::str::from_utf8(&output).unwrap());
        }
    }

    fn answer(&mut self, event: Event) {
        match &event {
            Event::Mail(_) => self.session.accept(self.now),
            Event::Recipient(rcpt) if rcpt.address.local().starts_with("unknown") => {
                self.session.refuse(Reply::fixed(550, 1, 1, "No such mailbox"), self.now);
            }
            Event::Recipient(_) => self.session.accept(self.now),
            Event::Begin(envelope) => {
                self.content.clear();
                self.envelope = Some(envelope.clone());
                match self.begin.clone() {
                    Ok(()) => self.session.accept(self.now),
                    Err(reply) => self.session.refuse(reply, self.now),
                }
            }
            Event::Content(bytes) => {
                self.content.extend_from_slice(bytes);
                return; // How the content was cut is not part of what happened.
            }
            Event::End(summary) => {
                assert_eq!(summary.len, self.content.len() as u64);
                self.messages.push(std::mem::take(&mut self.content));
                let verdict = (self.verdict)(self.envelope.as_ref().unwrap());
                self.session.finish(&verdict, self.now);
            }
            Event::Auth { mechanism, initial } => match (mechanism.as_str(), initial) {
                ("PLAIN", Some(said)) => self.judge(said),
                ("PLAIN", None) => self.session.challenge("", self.now),
                _ => self.session.challenge("VXNlcm5hbWU6", self.now),
            },
            Event::AuthResponse(said) if said.as_str() == "bW9yZQ==" => {
                self.session.challenge("UGFzc3dvcmQ6", self.now);
            }
            Event::AuthResponse(said) => self.judge(said),
            Event::Hello { .. } | Event::Abort | Event::StartTls | Event::Close => {}
        }
        self.events.push(event);
    }

    fn judge(&mut self, said: &AuthText) {
        let reply = match said.as_str() {
            "Z29vZA==" => Reply::fixed(235, 7, 0, "Welcome"),
            "*" => Reply::fixed(501, 7, 0, "Cancelled"),
            _ => Reply::fixed(535, 7, 8, "Wrong"),
        };
        self.session.auth_done(&reply, self.now);
    }

    /// One that offers AUTH, greeted, its replies so far forgotten.
    fn with_auth() -> Self {
        let mechanisms = vec!["PLAIN".to_owned(), "LOGIN".to_owned()];
        let mut shell = Self::new(Config { mechanisms, ..config(Protocol::Smtp) });
        shell.feed(b"EHLO client.example\r\n");
        shell.said.clear();
        shell
    }

    /// The codes of the replies, in order.
    fn codes(&self) -> Vec<u16> {
        let last_lines = self.said.lines().filter(|line| line.as_bytes().get(3) == Some(&b' '));
        last_lines.map(|line| line[..3].parse().unwrap()).collect()
    }

    fn take_codes(&mut self) -> Vec<u16> {
        let codes = self.codes();
        self.said.clear();
        codes
    }

    fn is_closed(&self) -> bool {
        self.events.last() == Some(&Event::Close)
    }

    fn ended(&self) -> Option<Summary> {
        self.events.iter().find_map(|event| match event {
            Event::End(summary) => Some(*summary),
            _ => None,
        })
    }
}

/// What a greeted session answers to `input`, whole and by single bytes, and whether it closed.
fn check(input: &[u8], codes: &[u16], closed: bool) -> Shell {
    let mut whole = Shell::greeted();
    whole.feed(input);
    let mut cut = Shell::greeted();
    cut.feed_by(input, 1);
    assert_eq!(whole.said, cut.said, "{:?}", String::from_utf8_lossy(input));
    assert_eq!(whole.events, cut.events);
    assert_eq!(whole.messages, cut.messages);
    assert_eq!(whole.codes(), codes, "{:?}\n{}", String::from_utf8_lossy(input), whole.said);
    assert_eq!(whole.is_closed(), closed, "{:?}", String::from_utf8_lossy(input));
    whole
}

const START: &str = "MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n";

fn after_start(rest: &str) -> Vec<u8> {
    format!("{START}{rest}").into_bytes()
}

#[test]
fn a_message_comes_through_pipelined_and_byte_by_byte() {
    let shell = check(
        &after_start("DATA\r\nSubject: x\r\n\r\n..dot\r\n.\r\nQUIT\r\n"),
        &[250, 250, 354, 250, 221],
        true,
    );
    assert_eq!(shell.messages, [b"Subject: x\r\n\r\n.dot\r\n"]);
    assert_eq!(shell.envelope.unwrap().recipients.len(), 1);
}

#[test]
fn ehlo_announces_what_is_supported() {
    let mut shell = Shell::smtp();
    assert_eq!(shell.said, "220 mx.example.org ESMTP Lighter\r\n");
    shell.said.clear();
    shell.feed(b"EHLO c\r\n");
    let announced: Vec<_> = shell.said.lines().map(|line| &line[4..]).collect();
    let expected = "mx.example.org PIPELINING 8BITMIME SMTPUTF8 DSN ENHANCEDSTATUSCODES CHUNKING";
    assert_eq!(announced[..7].join(" "), expected);
    assert_eq!(announced[7..], ["SIZE 10000", "STARTTLS"]);
}

#[test]
fn bad_input_01_smuggled_ends_are_never_an_end() {
    for variant in ["\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r\n.\r\r\n", "\r.\r\n", "\n.\r", "\r\n.\r"] {
        let smuggled =
            format!("DATA\r\nx{variant}MAIL FROM:<evil@b.example>\r\nRCPT TO:<c@d>\r\nDATA\r\ny\r\n.\r\n");
        let shell = check(&after_start(&smuggled), &[250, 250, 354, 554], false);
        assert!(shell.messages.is_empty(), "{variant:?}");
        assert_eq!(shell.events.iter().filter(|event| matches!(event, Event::Mail(_))).count(), 1);
    }
    // NUL is content: what follows it is, too.
    let shell = check(&after_start("DATA\r\nx\r\n\0.\r\ny\r\n.\r\n"), &[250, 250, 354, 250], false);
    assert_eq!(shell.messages, [b"x\r\n\0.\r\ny\r\n"]);
}

#[test]
fn bad_input_03_eight_bit_is_taken_and_bare_line_ends_are_refused_in_header_and_body() {
    let shell =
        check(&after_start("DATA\r\nSubject: \u{e9}\r\n\r\n\0\r\n.\r\n"), &[250, 250, 354, 250], false);
    assert!(shell.ended().unwrap().eight_bit);
    for content in [
        "a: b\nc: d\r\n\r\n",
        "a: b\rc: d\r\n\r\n",
        "a: b\r\n\r\nx\ny\r\n",
        "a: b\r\n\r\nx\ry\r\n",
        "\n\r\n",
        "\r\r\n",
    ] {
        let shell = check(
            &after_start(&format!("DATA\r\n{content}.\r\nRSET\r\n")),
            &[250, 250, 354, 554, 250],
            false,
        );
        assert!(shell.messages.is_empty());
        assert!(shell.events.contains(&Event::Abort));
    }
    check(b"NOOP\nNOOP\r\n", &[500, 250], false);
    check(b"NO\rOP\r\nNOOP\0\r\n\xff\xfe\r\n", &[500, 500, 500], false);
}

#[test]
fn bad_input_04_commands_after_starttls_in_the_clear_are_never_executed() {
    let mut shell = Shell::greeted();
    shell.feed(b"STARTTLS\r\nMAIL FROM:<a@b>\r\n");
    assert_eq!(shell.codes(), [554]);
    assert!(shell.is_closed());
    assert!(!shell.events.iter().any(|event| matches!(event, Event::StartTls | Event::Mail(_))));
}

/// A greeted session that waits for the handshake.
fn starttls() -> Shell {
    let mut shell = Shell::greeted();
    shell.feed(b"STARTTLS\r\n");
    assert_eq!(shell.take_codes(), [220]);
    assert_eq!(shell.events.last(), Some(&Event::StartTls));
    assert!(!shell.session.wants_input());
    shell
}

#[test]
fn bad_input_04_plain_text_during_the_handshake_ends_the_session() {
    let mut shell = starttls();
    shell.feed(b"EHLO x\r\n");
    assert_eq!(shell.take_codes(), [554]);
    assert!(shell.is_closed());
}

#[test]
fn after_tls_the_session_begins_anew_and_offers_no_starttls() {
    let mut shell = starttls();
    shell.session.tls_started(shell.now);
    shell.feed(b"MAIL FROM:<a@b>\r\nEHLO c\r\nSTARTTLS\r\n");
    assert!(!shell.said.contains("250-STARTTLS") && !shell.said.contains("250 STARTTLS"));
    assert_eq!(shell.take_codes(), [503, 250, 503]);
}

#[test]
fn where_tls_is_required_mail_waits_for_it() {
    let mut shell = Shell::new(Config { tls_required: true, ..config(Protocol::Smtp) });
    shell.feed(b"EHLO c\r\nMAIL FROM:<>\r\n");
    assert_eq!(shell.codes(), [220, 250, 530]);
}

#[test]
fn bad_input_05_commands_out_of_order_are_refused() {
    let mut shell = Shell::smtp();
    shell.feed(b"MAIL FROM:<>\r\nRCPT TO:<a@b>\r\nDATA\r\nBDAT 3 LAST\r\nabcSTARTTLS\r\n");
    assert_eq!(shell.codes(), [220, 503, 503, 503, 503, 503]);
    check(
        b"RCPT TO:<a@b>\r\nDATA\r\nMAIL FROM:<>\r\nMAIL FROM:<>\r\nDATA\r\n",
        &[503, 503, 250, 503, 503],
        false,
    );
    check(b"AUTH PLAIN AAAA\r\nAUTH PLAIN AAAA\r\nLHLO x\r\n\r\n", &[502, 502, 500, 500], false);
    check(b"MAIL FROM:<>\r\nRCPT TO:<unknown@b>\r\nDATA\r\n", &[250, 550, 554], false);
    check(b"MAIL FROM:<>\r\nRSET\r\nRCPT TO:<a@b>\r\n", &[250, 250, 503], false);
    check(b"MAIL FROM:<>\r\nEHLO x\r\nRCPT TO:<a@b>\r\n", &[250, 250, 503], false);
    check(b"DATA now\r\nRSET x\r\nNOOP x\r\n", &[501, 501, 250], false);
}

#[test]
fn bad_input_06_long_lines_are_thrown_away_and_endless_ones_end_the_session() {
    for len in [2_049, 10_000] {
        let line = [vec![b'x'; len], b"\r\nNOOP\r\n".to_vec()].concat();
        check(&line, &[500, 250], false);
    }
    for len in [513, 1_001] {
        let line = [b"NOOP ".to_vec(), vec![b'x'; len - 5], b"\r\n".to_vec()].concat();
        check(&line, &[250], false);
    }
    check(&vec![b'x'; 1_048_577], &[500], true);
}

#[test]
fn bad_input_07_a_hundred_thousand_recipients_are_bounded_and_the_rest_is_told_so() {
    let mut shell = Shell::greeted();
    shell.feed(b"MAIL FROM:<a@b>\r\n");
    let rcpt: String = (0..100_000).map(|n| format!("RCPT TO:<user{n}@d.example>\r\n")).collect();
    shell.feed(rcpt.as_bytes());
    let codes = shell.take_codes();
    assert_eq!(codes.iter().filter(|code| **code == 250).count(), 1 + limits::RECIPIENTS_MAX);
    assert!(codes.iter().filter(|code| **code == 452).count() >= RECIPIENTS_OVERSHOOT_MAX);
    assert_eq!(codes.last(), Some(&421));
    assert!(shell.is_closed());
}

#[test]
fn bad_input_07_the_same_recipient_a_hundred_times_is_one() {
    let mut shell = Shell::greeted();
    let rcpt: String = (0..100)
        .map(|n| format!("RCPT TO:<c@{}>\r\n", if n % 2 == 0 { "d.example" } else { "D.Example" }))
        .collect();
    shell.feed(format!("MAIL FROM:<a@b>\r\n{rcpt}DATA\r\n.\r\n").as_bytes());
    assert_eq!(shell.take_codes().iter().filter(|code| **code == 250).count(), 102);
    assert_eq!(shell.envelope.unwrap().recipients.len(), 1);
}

#[test]
fn bad_input_08_sizes_that_lie_are_found_out() {
    check(b"MAIL FROM:<a@b> SIZE=10001\r\nMAIL FROM:<a@b> SIZE=18446744073709551616\r\n", &[552, 552], false);
    check(b"MAIL FROM:<a@b> SIZE=-1\r\nMAIL FROM:<a@b> SIZE=\r\n", &[501, 501], false);
    // Small said, huge sent: read to its end and refused.
    let huge = "x".repeat(98) + "\r\n";
    let sized = |lines: usize| {
        let text = format!(
            "MAIL FROM:<a@b> SIZE=10\r\nRCPT TO:<c@d>\r\nDATA\r\n{}.\r\nRSET\r\n",
            huge.repeat(lines)
        );
        text.into_bytes()
    };
    check(&sized(100), &[250, 250, 354, 250, 250], false);
    let shell = check(&sized(101), &[250, 250, 354, 552, 250], false);
    assert!(shell.messages.is_empty() && shell.events.contains(&Event::Abort));
    // Far beyond the limit its end is not waited for.
    check(&sized(300), &[250, 250, 354, 552], true);
    // Huge said, small sent: the size was an estimate.
    check(b"MAIL FROM:<a@b> SIZE=9999\r\nRCPT TO:<c@d>\r\nDATA\r\n.\r\n", &[250, 250, 354, 250], false);
}

#[test]
fn a_message_that_goes_round_in_circles_is_refused() {
    let message =
        |hops: usize| after_start(&format!("DATA\r\n{}\r\nx\r\n.\r\n", "Received: by x\r\n".repeat(hops)));
    check(&message(100), &[250, 250, 354, 250], false);
    check(&message(101), &[250, 250, 354, 554], false);
}

#[test]
fn bdat_takes_chunks_of_any_size() {
    let shell =
        check(&after_start("BDAT 4\r\na\r\n.BDAT 0\r\nBDAT 5 LAST\r\n\r\nb\r\nNOOP\r\n"), &[250; 6], false);
    assert_eq!(shell.messages, [b"a\r\n.\r\nb\r\n"]);
    let shell = check(
        &after_start("BDAT 3\r\nab\rBDAT 1 LAST\r\n\nBDAT 0 LAST\r\n"),
        &[250, 250, 250, 250, 503],
        false,
    );
    assert_eq!(shell.messages, [b"ab\r\n"]);
}

#[test]
fn bad_input_09_bdat_errors_keep_in_step_or_end_the_session() {
    // A wrong length: the rest is taken for commands, and refused.
    check(&after_start("BDAT 2 LAST\r\nabcd\r\nNOOP\r\n"), &[250, 250, 250, 500, 250], false);
    // No length: what follows cannot be told from commands.
    check(&after_start("BDAT x LAST\r\nNOOP\r\n"), &[250, 250, 501], true);
    check(&after_start("BDAT -1\r\n"), &[250, 250, 501], true);
    check(&after_start("BDAT 1 FIRST\r\nx"), &[250, 250, 501], true);
    // Without MAIL, without RCPT: the chunk is not taken for commands.
    check(b"BDAT 6 LAST\r\nQUIT\r\nNOOP\r\n", &[503, 250], false);
    check(b"MAIL FROM:<>\r\nBDAT 6\r\nQUIT\r\nBDAT 6 LAST\r\nQUIT\r\nRSET\r\n", &[250, 503, 503, 250], false);
    // LAST missing: other commands wait.
    check(
        &after_start("BDAT 1\r\naDATA\r\nMAIL FROM:<>\r\nRCPT TO:<x@y>\r\nQUIT\r\n"),
        &[250, 250, 250, 503, 503, 503, 221],
        true,
    );
    // Two and then RSET: all of it is void.
    let shell = check(
        &after_start("BDAT 1\r\naBDAT 1\r\nbRSET\r\nBDAT 1 LAST\r\nc"),
        &[250, 250, 250, 250, 250, 503],
        false,
    );
    assert!(shell.messages.is_empty() && shell.events.contains(&Event::Abort));
    // After DATA has ended there is no transaction.
    check(&after_start("DATA\r\n.\r\nBDAT 1 LAST\r\nx"), &[250, 250, 354, 250, 503], false);
    // Bare line ends, also over a chunk's edge and at the end.
    for chunks in ["BDAT 2 LAST\r\na\n", "BDAT 2\r\na\rBDAT 1 LAST\r\nb", "BDAT 2 LAST\r\na\r"] {
        let mut shell = Shell::greeted();
        shell.feed(&after_start(chunks));
        assert_eq!(shell.codes().last(), Some(&554), "{chunks:?}");
        assert!(shell.messages.is_empty());
    }
    // More than the limit, said at once.
    check(
        &after_start(&format!("BDAT 99999999999999999999\r\n{}", "x".repeat(20_001))),
        &[250, 250, 501],
        true,
    );
    check(&after_start(&format!("BDAT 9999999999\r\n{}", "x".repeat(20_001))), &[250, 250, 552], true);
}

#[test]
fn bad_input_10_a_connection_lost_in_the_content_aborts_it() {
    let mut shell = Shell::greeted();
    shell.feed(&after_start("DATA\r\nhalf a mess"));
    shell.session.handle_disconnect();
    shell.run();
    assert_eq!(shell.events[shell.events.len() - 2..], [Event::Abort, Event::Close]);
    assert!(shell.messages.is_empty());
}

#[test]
fn a_verdict_that_is_neither_yes_nor_no_closes_without_a_reply() {
    let mut shell = Shell::greeted();
    shell.verdict = |_| Verdict::Drop;
    shell.feed(&after_start("DATA\r\nx\r\n.\r\nNOOP\r\n"));
    assert_eq!(shell.codes(), [250, 250, 354]);
    assert!(shell.is_closed());
}

#[test]
fn bad_input_11_who_is_too_slow_is_told_and_dropped() {
    let minute = Duration::from_mins(1);
    // A byte of a command each minute; a byte of content each minute.
    for (opening, drip) in [(String::new(), b"N"), (format!("{START}DATA\r\n"), b"x")] {
        let mut shell = Shell::greeted();
        shell.feed(opening.as_bytes());
        shell.said.clear();
        for _ in 0..5 {
            assert!(!shell.is_closed());
            shell.now += minute;
            shell.feed(drip);
            shell.session.handle_timeout(shell.now);
            shell.run();
        }
        assert_eq!(shell.codes(), [421]);
        assert!(shell.is_closed());
    }
    // Saying nothing at all.
    let mut shell = Shell::smtp();
    let (deadline, at) = shell.session.poll_timeout().unwrap();
    assert_eq!(deadline, Deadline::Command);
    shell.session.handle_timeout(at - Duration::from_millis(1));
    assert!(shell.session.poll_event(at).is_none());
    shell.session.handle_timeout(at);
    assert_eq!(shell.session.poll_event(at), Some(Event::Close));
    // Content that goes on has time for ever.
    let mut shell = Shell::new(Config { size_max: u64::MAX, ..config(Protocol::Smtp) });
    shell.feed(format!("EHLO c\r\n{START}DATA\r\n").as_bytes());
    for _ in 0..100 {
        shell.now += minute * 4;
        shell.feed(&vec![b'x'; 16 * 1024]);
        shell.session.handle_timeout(shell.now);
    }
    shell.feed(b"\r\n.\r\n");
    assert_eq!(shell.codes().last(), Some(&250));
}

#[test]
fn while_the_shell_is_asked_no_deadline_runs_and_no_input_is_wanted() {
    let mut session = Session::new(Arc::new(config(Protocol::Smtp)), Instant::now());
    let now = Instant::now();
    session.handle_input(Bytes::from_static(b"EHLO c\r\nMAIL FROM:<>\r\nNOOP\r\n"));
    assert!(matches!(session.poll_event(now), Some(Event::Hello { .. })));
    assert!(matches!(session.poll_event(now), Some(Event::Mail(_))));
    assert_eq!(session.poll_event(now), None);
    assert_eq!(session.poll_timeout(), None);
    assert!(!session.wants_input());
    session.refuse(Reply::fixed(450, 7, 1, "Later"), now);
    assert_eq!(session.poll_event(now), None);
    assert!(session.wants_input());
    let said = session.poll_output().unwrap();
    assert!(said.ends_with(b"450 4.7.1 Later\r\n250 2.0.0 OK\r\n"));
}

#[test]
fn bad_input_14_proxy_headers_are_refused() {
    check(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 25\r\nNOOP\r\n", &[500], true);
    let mut shell = Shell::smtp();
    shell.feed(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\x7f\0\0\x01");
    assert_eq!(shell.codes(), [220, 500, 500, 500, 500]);
    assert!(!shell.is_closed(), "the QUIT in a PROXY v2 signature is no command");
    check(b"XCLIENT ADDR=127.0.0.1\r\nXFORWARD NAME=x\r\n", &[502, 502], false);
}

#[test]
fn bad_input_15_lmtp_answers_for_each_recipient() {
    let mut shell = Shell::new(config(Protocol::Lmtp));
    shell.feed(b"LHLO c\r\n");
    shell.said.clear();
    shell.verdict = |envelope| {
        let reply = |rcpt: &RcptTo| if rcpt.address.local() == "two" { FAILED } else { ACCEPTED };
        Verdict::Each(envelope.recipients.iter().map(reply).collect())
    };
    let rcpts = "RCPT TO:<one@d>\r\nRCPT TO:<two@d>\r\nRCPT TO:<unknown@d>\r\nRCPT TO:<three@d>\r\nRCPT TO:<two@d>\r\n";
    shell.feed(format!("MAIL FROM:<a@b>\r\n{rcpts}DATA\r\nx\r\n.\r\nQUIT\r\n").as_bytes());
    assert_eq!(shell.codes(), [250, 250, 250, 550, 250, 250, 354, 250, 451, 250, 451, 221]);
}

#[test]
fn lmtp_content_that_is_refused_is_refused_for_each_recipient() {
    for content in ["DATA\r\nx\ny\r\n.\r\n", "BDAT 3 LAST\r\nx\ny"] {
        let mut shell = Shell::new(config(Protocol::Lmtp));
        shell.feed(b"LHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nRCPT TO:<c@d>\r\n");
        shell.said.clear();
        shell.feed(content.as_bytes());
        assert_eq!(shell.codes().iter().filter(|code| **code == 554).count(), 2, "{content:?}");
    }
}

#[test]
fn a_shell_may_refuse_the_message_before_and_during_its_content() {
    let full = Reply::fixed(452, 3, 1, "Full");
    let mut shell = Shell::greeted();
    shell.begin = Err(full.clone());
    shell.feed(&after_start("DATA\r\n"));
    assert_eq!(shell.take_codes(), [250, 250, 452]);
    shell.feed(&after_start("BDAT 6\r\nQUIT\r\nBDAT 6 LAST\r\nQUIT\r\nRSET\r\n"));
    assert_eq!(shell.take_codes(), [250, 250, 452, 503, 250]);
    shell.begin = Ok(());
    shell.feed(&after_start("DATA\r\nabc"));
    shell.session.refuse(full, shell.now);
    shell.feed(b"more\r\n.\r\nRSET\r\n");
    assert_eq!(shell.codes(), [250, 250, 354, 452, 250]);
    assert!(!shell.events.contains(&Event::Abort), "the shell knows that it refused");
}

#[test]
fn too_many_errors_or_idle_commands_end_the_session() {
    let mut shell = Shell::greeted();
    shell.feed("FOO\r\n".repeat(1_000).as_bytes());
    assert_eq!(shell.codes().len(), ERRORS_MAX + 2);
    let mut shell = Shell::greeted();
    shell.feed("NOOP\r\n".repeat(1_000).as_bytes());
    assert_eq!(shell.codes().len(), JUNK_COMMANDS_MAX + 1, "{}", shell.said);
    let mut shell = Shell::greeted();
    shell.feed(("MAIL FROM:<>\r\n".to_owned() + &"RCPT TO:<unknown@d>\r\n".repeat(1_000)).as_bytes());
    assert_eq!(shell.codes().len(), 1 + RECIPIENTS_REFUSED_MAX + 2);
    assert!(shell.is_closed());
}

#[test]
fn a_server_that_stops_lets_a_message_end_and_begins_none() {
    let mut shell = Shell::greeted();
    shell.feed(&after_start("DATA\r\nx"));
    shell.session.shut_down();
    shell.feed(b"\r\n.\r\nMAIL FROM:<>\r\n");
    assert_eq!(shell.codes(), [250, 250, 354, 250, 421]);
    assert!(shell.is_closed() && shell.messages.len() == 1);
    let mut shell = Shell::greeted();
    shell.session.shut_down();
    shell.run();
    assert_eq!(shell.codes(), [421]);
}

/// What a session that offers AUTH answers to `input`, whole and by single bytes, and whether it closed.
fn check_auth(input: &[u8], codes: &[u16], closed: bool) -> Shell {
    let mut whole = Shell::with_auth();
    whole.feed(input);
    let mut cut = Shell::with_auth();
    cut.feed_by(input, 1);
    assert_eq!(whole.said, cut.said);
    assert_eq!(whole.events, cut.events);
    assert_eq!(whole.codes(), codes, "{:?}\n{}", String::from_utf8_lossy(input), whole.said);
    assert_eq!(whole.is_closed(), closed, "{:?}", String::from_utf8_lossy(input));
    whole
}

#[test]
fn an_authentication_is_announced_and_passed_to_the_shell() {
    let mut shell = Shell::with_auth();
    shell.feed(b"EHLO c\r\n");
    assert!(shell.said.contains("AUTH PLAIN LOGIN\r\n"), "{}", shell.said);
    let shell = check_auth(b"AUTH plain Z29vZA==\r\nMAIL FROM:<a@b> AUTH=<>\r\n", &[235, 250], false);
    assert!(shell.session.is_authenticated());
    check_auth(b"AUTH PLAIN\r\nZ29vZA==\r\n", &[334, 235], false);
    let shell = check_auth(b"auth LOGIN\r\nbW9yZQ==\r\nZ29vZA==\r\nQUIT\r\n", &[334, 334, 235, 221], true);
    assert!(shell.said.starts_with("334 VXNlcm5hbWU6\r\n334 UGFzc3dvcmQ6\r\n"), "{}", shell.said);
    // What the shell says is what the peer reads.
    let shell = check_auth(b"AUTH PLAIN YmFk\r\nAUTH PLAIN =\r\n", &[535, 535], false);
    assert!(shell.said.starts_with("535 5.7.8 Wrong\r\n") && !shell.session.is_authenticated());
}

#[test]
fn an_authentication_can_be_cancelled_and_tried_again() {
    check_auth(b"AUTH LOGIN\r\n*\r\nAUTH PLAIN Z29vZA==\r\n", &[334, 501, 235], false);
}

#[test]
fn bad_input_05_an_authentication_out_of_order_twice_or_unknown_is_refused() {
    let mut early = Shell::new(Config { mechanisms: vec!["PLAIN".to_owned()], ..config(Protocol::Smtp) });
    early.said.clear();
    early.feed(b"AUTH PLAIN Z29vZA==\r\n");
    assert_eq!(early.codes(), [503]);
    check_auth(b"AUTH PLAIN Z29vZA==\r\nAUTH PLAIN Z29vZA==\r\n", &[235, 503], false);
    check_auth(b"MAIL FROM:<a@b>\r\nAUTH PLAIN Z29vZA==\r\n", &[250, 503], false);
    check_auth(b"AUTH CRAM-MD5\r\nAUTH\r\nAUTH P@\r\nAUTH PLAIN *\r\n", &[504, 501, 501, 501], false);
    check_auth(b"AUTH PLAIN a b\r\nMAIL FROM:<a@b> AUTH=a=b\r\n", &[501, 501], false);
    // An answer is never a command, and a command never an answer.
    let shell = check_auth(b"AUTH LOGIN\r\nMAIL FROM:<a@b>\r\nNOOP\r\n", &[334, 501, 250], false);
    assert!(!shell.events.iter().any(|event| matches!(event, Event::Mail(_))));
    check_auth(b"AUTH LOGIN\r\nZ29vZA==\nNOOP\r\n", &[334, 500, 250], false);
}

#[test]
fn bad_input_06_lines_of_an_authentication_have_a_length_of_their_own() {
    let line = |len: usize| format!("{}\r\n", "A".repeat(len - 2));
    let begun = |rest: &str| format!("AUTH LOGIN\r\n{rest}NOOP\r\n").into_bytes();
    check_auth(&begun(&line(AUTH_LINE_LEN_MAX)), &[334, 535, 250], false);
    check_auth(&begun(&line(AUTH_LINE_LEN_MAX + 1)), &[334, 500, 250], false);
    check_auth(format!("AUTH PLAIN {}", line(10_000)).as_bytes(), &[535], false);
    // Every other command is as short as ever.
    check_auth(format!("NOOP {}", line(3_000)).as_bytes(), &[500], false);
    check_auth(&begun(&"A".repeat(100_000)), &[334, 500], true);
}

#[test]
fn passwords_are_not_guessed_without_end() {
    let shell =
        check_auth("AUTH PLAIN YmFk\r\n".repeat(100).as_bytes(), &[535, 535, 535, 535, 535, 421], true);
    assert!(!shell.session.is_authenticated());
}

#[test]
fn nothing_of_a_password_is_shown() {
    let mut shell = Shell::with_auth();
    shell.feed(b"AUTH PLAIN Z29vZA==\r\nAUTH LOGIN\r\nc2Vjc");
    let shown = format!("{:?}{:?}", shell.session, shell.events);
    assert!(!shown.contains("Z29vZA") && !shown.contains("c2Vjc"), "{shown}");
}

#[test]
fn what_the_next_hop_cannot_do_is_not_announced() {
    let extensions = Extensions { eight_bit_mime: true, smtputf8: false, dsn: false };
    let mut shell = Shell::new(Config { extensions, ..config(Protocol::Smtp) });
    shell.feed(b"EHLO c\r\n");
    assert!(
        shell.said.contains("8BITMIME") && !shell.said.contains("DSN") && !shell.said.contains("SMTPUTF8")
    );
}

/// Scripts made of words that matter to the session.
fn script() -> impl Strategy<Value = Vec<u8>> {
    let words: Vec<&[u8]> = vec![
        b"EHLO c\r\n",
        b"HELO c\r\n",
        b"MAIL FROM:<a@b>\r\n",
        b"MAIL FROM:<>",
        b" SIZE=5\r\n",
        b"RCPT TO:<c@d>\r\n",
        b"RCPT TO:<unknown@d>\r\n",
        b"DATA\r\n",
        b"BDAT 7\r\n",
        b"BDAT 3 LAST\r\n",
        b"RSET\r\n",
        b"NOOP\r\n",
        b".",
        b"\r\n",
        b"\r\n.\r\n",
        b"\n",
        b"\r",
        b"\0",
        b"text",
        b"..",
        b"\xff",
        b"QUIT\r\n",
        b"AUTH PLAIN\r\n",
        b"AUTH PLAIN Z29vZA==\r\n",
        b"AUTH LOGIN\r\n",
        b"bW9yZQ==",
        b"*\r\n",
    ];
    prop::collection::vec(prop::sample::select(words), 0..50).prop_map(|words| words.concat())
}

proptest! {
    #[test]
    fn any_cut_of_the_input_gives_the_same_session(script in script(), by in 1usize..12) {
        let mut whole = Shell::greeted();
        whole.feed(&script);
        let mut cut = Shell::greeted();
        cut.feed_by(&script, by);
        prop_assert_eq!(whole.said, cut.said);
        prop_assert_eq!(whole.messages, cut.messages);
        prop_assert_eq!(whole.events, cut.events);
    }

    #[test]
    fn any_cut_of_an_authentication_gives_the_same_session(script in script(), by in 1usize..12) {
        let mut whole = Shell::with_auth();
        whole.feed(&script);
        let mut cut = Shell::with_auth();
        cut.feed_by(&script, by);
        prop_assert_eq!(whole.said, cut.said);
        prop_assert_eq!(whole.events, cut.events);
    }

    #[test]
    fn random_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..2_000)) {
        Shell::smtp().feed(&bytes);
    }
}
