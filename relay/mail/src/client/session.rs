//! The session's state, what it says, and what each reply does to it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::reasons;
use super::reply_reader::{PeerReply, ReplyReader};
use super::{Capabilities, Config, Deadline, Event, Origin, Outcome, Tls};
use crate::Protocol;
use crate::auth::{self, AuthText};
use crate::dot::Encoder;
use crate::envelope::{Envelope, MailFrom, RcptTo};
use crate::limits::{CLIENT_QUIT_TIMEOUT, PIPELINE_MAX};
use crate::reply::{Class, Reply};

/// Pieces of content that may wait to be written before no more is wanted.
const OUTPUT_PIECES_HIGH: usize = 4;

/// One connection, seen from the client.
#[derive(Debug)]
pub struct Session {
    config: Arc<Config>,
    phase: Phase,
    reader: ReplyReader,
    /// What the replies that are still to come answer, in their order.
    expected: VecDeque<Expected>,
    output: VecDeque<Bytes>,
    events: VecDeque<Event>,
    capabilities: Capabilities,
    tls: bool,
    /// Whether the last transaction ended before its content did: the next one begins with RSET.
    unfinished: bool,
    deadline: Option<(Deadline, Instant)>,
}

#[derive(Debug)]
enum Phase {
    /// From the greeting to `Ready`.
    Opening,
    /// The TLS handshake.
    Tls,
    /// A message may be sent.
    Ready,
    /// An authentication is passed on.
    Authenticating,
    /// A message is on its way.
    Sending(Box<Transfer>),
    /// QUIT was said.
    Quitting,
    /// Nothing any more.
    Closed,
}

/// What a reply answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    Greeting,
    Hello,
    PlainHello,
    StartTls,
    Auth,
    Reset,
    Mail,
    /// RCPT of the recipient at this place.
    Rcpt(usize),
    Data,
    /// The final reply: for all recipients, or (LMTP) for the one at this place.
    End(Option<usize>),
    /// The final reply to content that had no recipients.
    EmptyEnd,
    Quit,
}

/// One message on its way.
#[derive(Debug)]
struct Transfer {
    envelope: Envelope,
    /// What became of each recipient, once it is known.
    outcomes: Vec<Option<Outcome>>,
    /// Whether each recipient's RCPT was answered `250`.
    accepted: Vec<bool>,
    /// The first recipient whose RCPT was not sent yet.
    next_rcpt: usize,
    /// A reply that settles the matter for all: no further command is of use.
    failed: bool,
    /// Whether recipients may still be added, and each reply is told.
    stepping: bool,
    mail_sent: bool,
    data_sent: bool,
    content: Flow,
}

#[derive(Debug)]
enum Flow {
    /// The next hop has not asked for it.
    NotYet,
    Going(Encoder),
    /// All of it was given, its end included.
    Ended,
}

impl Session {
    /// A session at its beginning: the greeting is waited for.
    pub fn new(config: Arc<Config>, now: Instant) -> Self {
        let mut session = Self {
            phase: Phase::Opening,
            reader: ReplyReader::new(),
            expected: VecDeque::from([Expected::Greeting]),
            output: VecDeque::new(),
            events: VecDeque::new(),
            capabilities: Capabilities::default(),
            tls: false,
            unfinished: false,
            deadline: None,
            config,
        };
        session.set_deadline(now);
        session
    }

    /// What the next hop can do, once the session is ready.
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// Whether the connection is encrypted.
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// Whether [`Session::send`] may be called.
    pub fn is_ready(&self) -> bool {
        matches!(self.phase, Phase::Ready)
    }

    /// The next thing that the shell is to know.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The next bytes to be written.
    pub fn poll_output(&mut self) -> Option<Bytes> {
        self.output.pop_front()
    }

    /// When [`Session::handle_timeout`] is to be called.
    pub fn poll_timeout(&self) -> Option<(Deadline, Instant)> {
        self.deadline
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.deadline.is_some_and(|(_, at)| at <= now) {
            self.fail(&Outcome::here(reasons::TIMED_OUT));
        }
    }

    /// The connection broke, or the peer closed it.
    pub fn handle_disconnect(&mut self) {
        self.fail(&Outcome::here(reasons::LOST));
    }

    /// Bytes from the peer.
    pub fn handle_input(&mut self, mut input: &[u8], now: Instant) {
        while !input.is_empty() && !matches!(self.phase, Phase::Closed) {
            match self.reader.read(&mut input) {
                Ok(Some(reply)) => {
                    self.take_reply(reply, now);
                    // A reply in the clear behind the one to STARTTLS was put there by somebody else.
                    if matches!(self.phase, Phase::Tls) && !input.is_empty() {
                        return self.fail(&Outcome::here(reasons::NO_TLS_AGREED));
                    }
                }
                Ok(None) => {}
                Err(_) => self.fail(&Outcome::here(reasons::GARBLED)),
            }
        }
    }

    /// The handshake after [`Event::StartTls`] is done.
    pub fn tls_started(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Tls) {
            self.tls = true;
            self.phase = Phase::Opening;
            self.capabilities = Capabilities::default(); // RFC 3207 §4.2
            self.say_hello(now);
        }
    }

    /// Passes an authentication on, of a mechanism in [`Capabilities::mechanisms`]: [`Event::Challenge`] or
    /// [`Event::Authenticated`] follows, or [`Event::Closed`].
    pub fn authenticate(&mut self, mechanism: &str, initial: Option<&AuthText>, now: Instant) {
        if !self.is_ready() || auth::mechanism(mechanism).is_none() {
            self.events.push_back(Event::Authenticated(reasons::NO_AUTH));
            return;
        }
        self.output.push_back(match initial {
            Some(initial) => auth::secret_line(&["AUTH ", mechanism, " ", initial.as_str()]),
            None => auth::secret_line(&["AUTH ", mechanism]),
        });
        self.phase = Phase::Authenticating;
        self.await_auth(now);
    }

    /// The answer to [`Event::Challenge`], or what cancels the exchange.
    pub fn respond(&mut self, response: &AuthText, now: Instant) {
        if matches!(self.phase, Phase::Authenticating) && self.expected.is_empty() {
            self.output.push_back(auth::secret_line(&[response.as_str()]));
            self.await_auth(now);
        }
    }

    fn await_auth(&mut self, now: Instant) {
        self.reader.expect_challenges(true);
        self.expected.push_back(Expected::Auth);
        self.set_deadline(now);
    }

    /// Begins a message whose recipients come one by one. [`Event::Answered`] is the reply to MAIL; where it is not
    /// positive, nothing has begun.
    pub fn open(&mut self, mail: MailFrom, now: Instant) {
        let envelope = Envelope { mail, recipients: Vec::new() };
        if !self.is_ready() {
            return self.events.push_back(Event::Answered(reasons::LOST));
        }
        if let Some(reply) = self.capabilities.objection(&envelope) {
            return self.events.push_back(Event::Answered(reply));
        }
        self.begin(envelope, true, now);
    }

    /// A further recipient of the message that was opened: [`Event::Answered`] is the reply to RCPT.
    pub fn add_recipient(&mut self, rcpt: RcptTo, now: Instant) {
        let smtputf8 = self.capabilities.smtputf8;
        match &mut self.phase {
            Phase::Sending(transfer) if transfer.stepping && (smtputf8 || rcpt.address.is_ascii()) => {
                transfer.envelope.recipients.push(rcpt);
                transfer.outcomes.push(None);
                transfer.accepted.push(false);
            }
            Phase::Sending(transfer) if transfer.stepping => {
                return self.events.push_back(Event::Answered(reasons::NEEDS_SMTPUTF8));
            }
            _ => return self.events.push_back(Event::Answered(reasons::LOST)),
        }
        self.go_on(now);
        self.set_deadline(now);
    }

    /// All recipients of the message that was opened are known: it goes on as after [`Session::send`], to those who were
    /// accepted. The outcomes are in the order in which the recipients were added, the refused ones among them.
    pub fn start_content(&mut self, now: Instant) {
        match &mut self.phase {
            Phase::Sending(transfer) if transfer.stepping => {
                transfer.stepping = false;
                self.set_deadline(now);
                self.go_on(now);
            }
            _ => self.events.push_back(Event::Done(Vec::new())),
        }
    }

    /// The message that was opened is not sent after all: the next hop hears of it with the next one.
    pub fn abandon(&mut self) {
        if matches!(&self.phase, Phase::Sending(transfer) if transfer.stepping) {
            self.abandon_now();
        }
    }

    fn abandon_now(&mut self) {
        self.phase = Phase::Ready;
        self.unfinished = true;
        self.deadline = None;
    }

    /// Sends a message, its content to follow at [`Event::Begin`]. `envelope.mail.size` is its exact length, if known.
    ///
    /// [`Event::Done`] follows in any case, at once where the session is not ready.
    pub fn send(&mut self, envelope: Envelope, now: Instant) {
        let count = envelope.recipients.len();
        if !self.is_ready() {
            self.events.push_back(Event::Done(vec![Outcome::here(reasons::LOST); count]));
            return;
        }
        if let Some(reply) = self.capabilities.objection(&envelope) {
            self.events.push_back(Event::Done(vec![Outcome::here(reply); count]));
            return;
        }
        self.begin(envelope, false, now);
    }

    fn begin(&mut self, envelope: Envelope, stepping: bool, now: Instant) {
        let count = envelope.recipients.len();
        if std::mem::take(&mut self.unfinished) {
            self.say("RSET\r\n", Expected::Reset);
        }
        self.phase = Phase::Sending(Box::new(Transfer {
            outcomes: vec![None; count],
            accepted: vec![false; count],
            next_rcpt: 0,
            failed: false,
            stepping,
            mail_sent: false,
            data_sent: false,
            content: Flow::NotYet,
            envelope,
        }));
        self.go_on(now);
        self.set_deadline(now);
    }

    /// Whether a further piece of content may be given: the next hop takes it, and little waits to be written.
    pub fn wants_content(&self) -> bool {
        match &self.phase {
            Phase::Sending(transfer) => {
                matches!(transfer.content, Flow::Going(_)) && self.output.len() < OUTPUT_PIECES_HIGH
            }
            _ => false,
        }
    }

    /// The next piece of the content, of any length.
    pub fn content(&mut self, piece: Bytes, now: Instant) {
        let Phase::Sending(transfer) = &mut self.phase else { return };
        let Flow::Going(encoder) = &mut transfer.content else { return };
        let encoded = encoder.encode(piece);
        if encoder.has_bare_line_end() {
            return self.fail(&Outcome::here(reasons::BARE_LINE_END));
        }
        if !encoded.is_empty() {
            self.output.push_back(encoded);
        }
        self.set_deadline(now);
    }

    /// All of the content was given.
    pub fn end_content(&mut self, now: Instant) {
        let Phase::Sending(transfer) = &mut self.phase else { return };
        let Flow::Going(encoder) = &mut transfer.content else { return };
        let end = encoder.finish();
        if encoder.has_bare_line_end() {
            return self.fail(&Outcome::here(reasons::BARE_LINE_END));
        }
        self.output.push_back(Bytes::from_static(end));
        transfer.content = Flow::Ended;
        match self.config.protocol {
            Protocol::Smtp => self.expected.push_back(Expected::End(None)),
            Protocol::Lmtp => {
                let accepted = transfer.accepted.iter().enumerate().filter(|(_, accepted)| **accepted);
                self.expected.extend(accepted.map(|(at, _)| Expected::End(Some(at))));
            }
        }
        self.set_deadline(now);
    }

    /// The rest of the content cannot be had: the connection is given up, so that nothing of it is delivered.
    pub fn abort_content(&mut self) {
        self.fail(&Outcome::here(reasons::SOURCE_FAILED));
    }

    /// No further message will be sent.
    pub fn quit(&mut self, now: Instant) {
        if self.is_ready() {
            self.phase = Phase::Quitting;
            self.say("QUIT\r\n", Expected::Quit);
            self.deadline = Some((Deadline::Reply, now + CLIENT_QUIT_TIMEOUT));
        } else {
            self.handle_disconnect();
        }
    }

    fn say(&mut self, command: &str, expected: Expected) {
        self.output.push_back(Bytes::copy_from_slice(command.as_bytes()));
        self.expected.push_back(expected);
    }

    fn say_hello(&mut self, now: Instant) {
        let verb = match self.config.protocol {
            Protocol::Smtp => "EHLO",
            Protocol::Lmtp => "LHLO",
        };
        self.say(&format!("{verb} {}\r\n", self.config.host_name), Expected::Hello);
        self.set_deadline(now);
    }

    fn take_reply(&mut self, reply: PeerReply, now: Instant) {
        // A reply that nobody waits for, in Ready or during the content, says that the peer has had enough.
        let Some(expected) = self.expected.pop_front() else {
            return self.fail(&peer_failure(reply.into_reply()));
        };
        if reply.code == 421 && expected != Expected::Quit {
            self.settle(expected, &reply.clone().into_reply());
            return self.fail(&Outcome::from_peer(reply.into_reply())); // RFC 5321 §3.8: the channel is closed.
        }
        match expected {
            Expected::Greeting | Expected::Hello | Expected::PlainHello | Expected::StartTls => {
                self.take_opening_reply(expected, reply, now);
            }
            Expected::Auth => self.take_auth_reply(reply),
            Expected::Quit => self.close(None),
            Expected::Reset | Expected::EmptyEnd => self.go_on(now),
            Expected::Mail | Expected::Rcpt(_) | Expected::Data | Expected::End(_) => {
                self.settle(expected, &reply.into_reply());
                self.go_on(now);
            }
        }
        if !self.expected.is_empty() {
            self.set_deadline(now);
        }
    }

    fn take_auth_reply(&mut self, reply: PeerReply) {
        self.deadline = None;
        match (reply.code, reply.lines.first()) {
            (334, Some(challenge)) => self.events.push_back(Event::Challenge(challenge.clone())),
            (300..400, _) => self.fail(&Outcome::here(reasons::GARBLED)),
            _ => {
                self.reader.expect_challenges(false);
                self.phase = Phase::Ready;
                self.events.push_back(Event::Authenticated(reply.into_verbatim()));
            }
        }
    }

    fn take_opening_reply(&mut self, expected: Expected, reply: PeerReply, now: Instant) {
        let done = reply.code < 300;
        match expected {
            Expected::Greeting if done => self.say_hello(now),
            Expected::Hello if done => {
                self.capabilities = Capabilities::read(&reply.lines);
                self.after_hello(now);
            }
            Expected::Hello if reply.code >= 500 && self.config.protocol == Protocol::Smtp && !self.tls => {
                self.say(&format!("HELO {}\r\n", self.config.host_name), Expected::PlainHello);
            }
            Expected::PlainHello if done => self.after_hello(now),
            Expected::StartTls if done => {
                self.phase = Phase::Tls;
                self.deadline = Some((Deadline::Tls, now + self.config.timeouts.tls));
                self.events.push_back(Event::StartTls);
            }
            Expected::StartTls if self.config.tls == Tls::IfOffered => self.become_ready(),
            Expected::StartTls => self.fail(&Outcome::here(reasons::NO_TLS_AGREED)),
            _ => self.fail(&peer_failure(reply.into_reply())),
        }
    }

    fn after_hello(&mut self, now: Instant) {
        match (self.config.tls, self.tls, self.capabilities.starttls) {
            (Tls::Off, ..) | (_, true, _) | (Tls::IfOffered, _, false) => self.become_ready(),
            (Tls::IfOffered | Tls::Required, false, true) => {
                self.say("STARTTLS\r\n", Expected::StartTls);
                self.set_deadline(now);
            }
            (Tls::Required, false, false) => self.fail(&Outcome::here(reasons::NO_TLS)),
        }
    }

    fn become_ready(&mut self) {
        self.phase = Phase::Ready;
        self.deadline = None;
        self.events.push_back(Event::Ready);
    }

    /// What a reply means for the message on its way.
    fn settle(&mut self, expected: Expected, reply: &Reply) {
        let dsn = self.capabilities.dsn;
        let Phase::Sending(transfer) = &mut self.phase else { return };
        let is_step = transfer.stepping && matches!(expected, Expected::Mail | Expected::Rcpt(_));
        let accepted = match expected {
            Expected::Mail | Expected::End(_) => reply.is_done(),
            Expected::Rcpt(at) => {
                transfer.accepted[at] = reply.is_done() && !transfer.failed;
                reply.is_done()
            }
            Expected::Data => reply.class() == Class::GoOn,
            _ => return,
        };
        if is_step {
            let answer = if accepted { reply.clone() } else { refusal(reply.clone()).reply };
            self.events.push_back(Event::Answered(answer));
        }
        match expected {
            Expected::Mail | Expected::Data if !accepted => {
                transfer.failed = true;
                transfer.settle_rest(&refusal(reply.clone()));
            }
            Expected::Data => transfer.content = Flow::Going(Encoder::new()),
            Expected::Rcpt(at) if !accepted => {
                transfer.outcomes[at].get_or_insert_with(|| refusal(reply.clone()));
            }
            Expected::End(at) => {
                let mut outcome =
                    if accepted { Outcome::from_peer(reply.clone()) } else { refusal(reply.clone()) };
                outcome.dsn_passed = accepted && dsn;
                match at {
                    Some(at) => transfer.outcomes[at] = Some(outcome),
                    None => transfer.settle_rest(&outcome),
                }
            }
            _ => {}
        }
    }

    /// Sends what can be sent, and says what is known.
    fn go_on(&mut self, now: Instant) {
        let window = if self.capabilities.pipelining { PIPELINE_MAX } else { 1 };
        let Phase::Sending(transfer) = &mut self.phase else { return };
        while self.expected.len() < window && !transfer.failed {
            let Some((command, expected)) =
                transfer.next_command(&self.capabilities, self.expected.is_empty())
            else {
                break;
            };
            self.output.push_back(Bytes::from(command));
            self.expected.push_back(expected);
        }
        if !self.expected.is_empty() {
            return;
        }
        if transfer.stepping {
            self.deadline = None; // Until somebody goes on.
            if transfer.failed {
                self.abandon_now();
            }
            return;
        }
        match &transfer.content {
            Flow::Going(_) if transfer.accepted.contains(&true) => {
                self.events.push_back(Event::Begin);
                self.set_deadline(now);
            }
            // RFC 2920 §3.1: `354` though no recipient was accepted; in LMTP no reply would follow.
            Flow::Going(_) => match self.config.protocol {
                Protocol::Smtp => {
                    transfer.content = Flow::Ended;
                    self.say(".\r\n", Expected::EmptyEnd);
                }
                Protocol::Lmtp => self.fail(&Outcome::here(reasons::GARBLED)),
            },
            Flow::NotYet => self.finish(true),
            Flow::Ended => self.finish(false),
        }
    }

    /// The message on its way is settled.
    fn finish(&mut self, unfinished: bool) {
        if let Phase::Sending(transfer) = std::mem::replace(&mut self.phase, Phase::Ready) {
            self.unfinished = unfinished;
            self.deadline = None;
            self.events.push_back(Event::Done(transfer.into_outcomes(&Outcome::here(reasons::NO_REPLY))));
        }
    }

    /// The connection is of no use any more: whoever has no outcome yet gets this one.
    fn fail(&mut self, outcome: &Outcome) {
        match std::mem::replace(&mut self.phase, Phase::Ready) {
            Phase::Closed => self.phase = Phase::Closed,
            Phase::Quitting => self.close(None),
            Phase::Sending(transfer) => {
                let at_end = matches!(transfer.content, Flow::Ended) && outcome.from == Origin::Here;
                let outcome = if at_end { Outcome::here(reasons::LOST_AT_END) } else { outcome.clone() };
                self.events.push_back(Event::Done(transfer.into_outcomes(&outcome)));
                self.close(None);
            }
            Phase::Opening | Phase::Tls | Phase::Ready | Phase::Authenticating => {
                self.close(Some(outcome.clone()));
            }
        }
    }

    fn close(&mut self, why: Option<Outcome>) {
        self.phase = Phase::Closed;
        self.deadline = None;
        self.expected.clear();
        self.output.clear();
        self.events.push_back(Event::Closed(why));
    }

    fn set_deadline(&mut self, now: Instant) {
        let timeouts = &self.config.timeouts;
        let (deadline, wait) = match self.expected.front() {
            None => (Deadline::Content, timeouts.content),
            Some(Expected::Data) => (Deadline::Reply, timeouts.data),
            Some(Expected::End(_) | Expected::EmptyEnd) => (Deadline::Reply, timeouts.end),
            Some(_) => (Deadline::Reply, timeouts.command),
        };
        self.deadline = Some((deadline, now + wait));
    }
}

impl Transfer {
    /// The command that comes next, if it may be sent: DATA waits for a recipient unless it is sent ahead.
    fn next_command(
        &mut self,
        capabilities: &Capabilities,
        nothing_expected: bool,
    ) -> Option<(String, Expected)> {
        if !std::mem::replace(&mut self.mail_sent, true) {
            return Some((capabilities.mail_command(&self.envelope.mail), Expected::Mail));
        }
        if let Some(rcpt) = self.envelope.recipients.get(self.next_rcpt) {
            let at = self.next_rcpt;
            self.next_rcpt += 1;
            return Some((capabilities.rcpt_command(rcpt), Expected::Rcpt(at)));
        }
        let hopeless = nothing_expected && !self.accepted.contains(&true);
        if self.stepping || self.data_sent || hopeless {
            return None;
        }
        self.data_sent = true;
        Some(("DATA\r\n".to_owned(), Expected::Data))
    }

    /// Every recipient that has no outcome gets this one.
    fn settle_rest(&mut self, outcome: &Outcome) {
        for place in self.outcomes.iter_mut().filter(|place| place.is_none()) {
            *place = Some(outcome.clone());
        }
    }

    fn into_outcomes(mut self, otherwise: &Outcome) -> Vec<Outcome> {
        self.settle_rest(otherwise);
        self.outcomes.into_iter().flatten().collect()
    }
}

/// What a reply other than the one hoped for means: a yes in the wrong place is no yes.
fn refusal(reply: Reply) -> Outcome {
    match reply.class() {
        Class::Temporary | Class::Permanent => Outcome::from_peer(reply),
        Class::Done | Class::GoOn => Outcome::here(reasons::GARBLED),
    }
}

/// A refusal of the connection, not of a message: whatever its class, another try may find it otherwise.
fn peer_failure(reply: Reply) -> Outcome {
    match reply.class() {
        Class::Temporary => Outcome::from_peer(reply),
        Class::Permanent => {
            let status = reply.status.map(|status| crate::EnhancedStatus { class: 4, ..status });
            Outcome::from_peer(Reply { code: 451, status, text: reply.text })
        }
        Class::Done | Class::GoOn => Outcome::here(reasons::GARBLED),
    }
}

#[cfg(test)]
mod tests;
