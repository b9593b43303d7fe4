//! The session's state, what the shell does to it, and the content that flows through it. (`commands` has what the
//! peer's commands do, `transaction` what is known of a message so far.)

mod commands;
mod transaction;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};

use crate::Protocol;
use crate::auth::AuthText;
use crate::envelope::{MailFrom, RcptTo};
use crate::limits::{
    AUTH_FAILURES_MAX, AUTH_LINE_LEN_MAX, COMMAND_LINE_LEN_MAX, CONTENT_PROGRESS_MIN, ERRORS_MAX,
    JUNK_COMMANDS_MAX, RECIPIENTS_REFUSED_MAX,
};
use crate::reply::Reply;
use crate::server::command::{Refused, parse};
use crate::server::content::{Content, Step};
use crate::server::input::{Input, Line};
use crate::server::{Config, Deadline, Event, Verdict, replies};
use transaction::{Chunks, Transaction};

/// Octets of replies after which the session looks at no further command until they were polled.
const OUTPUT_HIGH: usize = 16 * 1024;

/// One connection, seen from the server.
#[derive(Debug)]
pub struct Session {
    config: Arc<Config>,
    phase: Phase,
    input: Input,
    output: BytesMut,
    /// At most three: what one step can bring.
    events: VecDeque<Event>,
    greeted: bool,
    tls: bool,
    authenticated: bool,
    transaction: Option<Transaction>,
    /// Whether a `Begin` was accepted and neither `End` nor `Abort` was told since.
    taking: bool,
    deadline: Option<(Deadline, Instant)>,
    /// Octets of content since the deadline was set.
    progress: u64,
    counts: Counts,
    shutting_down: bool,
}

/// What the session waits for.
#[derive(Debug)]
enum Phase {
    /// A command of the peer's.
    Command,
    /// An answer of the shell's.
    Asking(Question),
    /// Content of the peer's.
    Content(Content),
    /// The peer's answer to a challenge.
    AuthResponse,
    /// The TLS handshake.
    Tls,
    /// Nothing any more.
    Closed,
}

#[derive(Debug)]
enum Question {
    /// The authentication. What the peer is told in the end, where that is not the shell's to say.
    Auth {
        instead: Option<Reply>,
    },
    Mail(MailFrom),
    Recipient(RcptTo),
    Begin(Content),
    End,
}

#[derive(Debug, Default)]
struct Counts {
    errors: usize,
    junk: usize,
    auth_failures: usize,
    recipients_refused: usize,
    transactions: u64,
}

impl Session {
    /// A session at its beginning: the greeting waits to be written.
    pub fn new(config: Arc<Config>, now: Instant) -> Self {
        let name = match config.protocol {
            Protocol::Smtp => "ESMTP",
            Protocol::Lmtp => "LMTP",
        };
        let greeting = Reply::plain(220, "").with_text(format!("{} {name} Lighter", config.host_name));
        let line_len_max =
            if config.mechanisms.is_empty() { COMMAND_LINE_LEN_MAX } else { AUTH_LINE_LEN_MAX };
        let mut session = Self {
            phase: Phase::Command,
            input: Input::new(line_len_max),
            output: BytesMut::new(),
            events: VecDeque::with_capacity(3),
            greeted: false,
            tls: false,
            authenticated: false,
            transaction: None,
            taking: false,
            deadline: None,
            progress: 0,
            counts: Counts::default(),
            shutting_down: false,
            config,
        };
        session.say(&greeting);
        session.wait_for_command(now);
        session
    }

    /// Whether the shell may read from the connection. While it may not, the session works on what it has, or waits
    /// for an answer: that is the back-pressure.
    pub fn wants_input(&self) -> bool {
        matches!(self.phase, Phase::Command | Phase::AuthResponse | Phase::Content(_))
            && self.input.is_used_up()
    }

    /// Bytes from the peer, in pieces of any length.
    pub fn handle_input(&mut self, piece: Bytes) {
        if !matches!(self.phase, Phase::Closed) {
            self.input.push(piece);
        }
    }

    /// The peer closed its side, or the connection broke.
    pub fn handle_disconnect(&mut self) {
        self.close();
    }

    /// The next thing that the shell is to know or to answer; `None`: write the output, then read, or wait.
    pub fn poll_event(&mut self, now: Instant) -> Option<Event> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            if self.output.len() > OUTPUT_HIGH || !self.advance(now) {
                return None;
            }
        }
    }

    /// What is to be written to the peer.
    pub fn poll_output(&mut self) -> Option<Bytes> {
        if self.output.is_empty() { None } else { Some(self.output.split().freeze()) }
    }

    /// When [`Session::handle_timeout`] is to be called. There is no deadline while the shell is asked.
    pub fn poll_timeout(&self) -> Option<(Deadline, Instant)> {
        self.deadline
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        match self.deadline {
            Some((Deadline::Tls, at)) if at <= now => self.close(),
            Some((_, at)) if at <= now => self.close_with(&replies::TIMED_OUT),
            _ => {}
        }
    }

    /// The server stops: a message that is coming in may end, nothing new begins.
    pub fn shut_down(&mut self) {
        self.shutting_down = true;
        if matches!(self.phase, Phase::Command) && !self.taking {
            self.close_with(&replies::SHUTTING_DOWN);
        }
    }

    /// Whether the connection is encrypted.
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// The handshake after [`Event::StartTls`] is done: the session begins anew (RFC 3207 §4.2).
    pub fn tls_started(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Tls) {
            self.tls = true;
            self.greeted = false;
            self.authenticated = false;
            self.wait_for_command(now);
        }
    }

    /// Whether the peer has authenticated itself to the shell's satisfaction.
    pub fn is_authenticated(&self) -> bool {
        self.authenticated
    }

    /// More is to be said, after [`Event::Auth`] or [`Event::AuthResponse`]: the challenge, in base64, goes out as it is.
    pub fn challenge(&mut self, challenge: &str, now: Instant) {
        match &self.phase {
            // A peer that is refused is not asked anything more.
            Phase::Asking(Question::Auth { instead: Some(_) }) => {
                return self.auth_done(&replies::AUTH_UNDECIDED, now);
            }
            Phase::Asking(Question::Auth { instead: None }) => {}
            _ => return,
        }
        self.output.extend_from_slice(b"334 ");
        let is_harmless = |byte: &u8| byte.is_ascii_graphic() || *byte == b' ';
        self.output.extend(challenge.bytes().filter(is_harmless).take(AUTH_LINE_LEN_MAX - "334 \r\n".len()));
        self.output.extend_from_slice(b"\r\n");
        self.phase = Phase::AuthResponse;
        self.set_deadline(Deadline::Command, now);
    }

    /// What became of the authentication, after [`Event::Auth`] or [`Event::AuthResponse`].
    pub fn auth_done(&mut self, reply: &Reply, now: Instant) {
        if !matches!(self.phase, Phase::Asking(Question::Auth { .. })) {
            return;
        }
        let Some(Question::Auth { instead }) = self.take_question() else { return };
        let reply = instead.as_ref().unwrap_or(reply);
        self.say(reply);
        if reply.is_done() {
            self.authenticated = true;
        } else {
            self.counts.auth_failures += 1;
            if self.counts.auth_failures >= AUTH_FAILURES_MAX {
                return self.close_with(&replies::TOO_MANY_ERRORS);
            }
        }
        self.wait_for_command(now);
    }

    /// Yes, to [`Event::Mail`], [`Event::Recipient`] or [`Event::Begin`].
    pub fn accept(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Asking(Question::Auth { .. })) {
            return self.auth_done(&replies::AUTH_UNDECIDED, now);
        }
        let Some(question) = self.take_question() else { return };
        match question {
            Question::Auth { .. } => {}
            Question::Mail(mail) => {
                self.transaction = Some(Transaction::new(mail));
                self.say(&replies::SENDER_OK);
            }
            Question::Recipient(rcpt) => {
                if let Some(transaction) = &mut self.transaction {
                    transaction.add(rcpt);
                }
                self.say(&replies::RECIPIENT_OK);
            }
            Question::Begin(content) => {
                self.taking = true;
                if !content.is_chunks() {
                    self.say(&replies::START_DATA);
                }
                return self.wait_for_content(content, now);
            }
            Question::End => self.give_verdict(&Verdict::All(replies::NO_VERDICT)),
        }
        self.wait_for_command(now);
    }

    /// No, to [`Event::Mail`], [`Event::Recipient`] or [`Event::Begin`]; or, at any time between `Begin` and the end,
    /// to the content, of which no more is then told.
    pub fn refuse(&mut self, reply: Reply, now: Instant) {
        if let Phase::Content(content) = &mut self.phase {
            content.refuse(reply);
            self.taking = false;
            return;
        }
        if matches!(self.phase, Phase::Asking(Question::Auth { .. })) {
            return self.auth_done(&reply, now);
        }
        let Some(question) = self.take_question() else { return };
        match question {
            Question::Auth { .. } => {}
            Question::Mail(_) => self.say(&reply),
            Question::Recipient(_) => {
                self.say(&reply);
                if let Some(transaction) = &mut self.transaction {
                    transaction.refused_any = true;
                }
                self.counts.recipients_refused += 1;
                if self.counts.recipients_refused > RECIPIENTS_REFUSED_MAX {
                    return self.close_with(&replies::TOO_MANY_ERRORS);
                }
            }
            Question::Begin(mut content) if content.is_chunks() => {
                content.refuse(reply);
                return self.wait_for_content(content, now);
            }
            Question::Begin(_) => {
                self.say(&reply);
                self.transaction = None;
            }
            Question::End => self.give_verdict(&Verdict::All(reply)),
        }
        self.wait_for_command(now);
    }

    /// What became of the message, after [`Event::End`].
    pub fn finish(&mut self, verdict: &Verdict, now: Instant) {
        if !matches!(self.phase, Phase::Asking(Question::End)) {
            return;
        }
        if *verdict == Verdict::Drop {
            return self.close();
        }
        self.give_verdict(verdict);
        self.wait_for_command(now);
    }

    /// Says the final replies and ends the transaction.
    fn give_verdict(&mut self, verdict: &Verdict) {
        let Some(transaction) = self.transaction.take() else { return };
        let replies: &[Reply] = match verdict {
            Verdict::All(reply) => std::slice::from_ref(reply),
            Verdict::Each(replies) => replies,
            Verdict::Drop => &[],
        };
        let none = replies::NO_VERDICT;
        let reply_to = |recipient: usize| match verdict {
            Verdict::All(reply) => reply,
            _ => replies.get(recipient).unwrap_or(&none),
        };
        match self.config.protocol {
            Protocol::Lmtp => {
                for recipient in transaction.accepted {
                    self.say(reply_to(recipient));
                }
            }
            Protocol::Smtp => {
                let negative = replies.iter().find(|reply| !reply.is_done());
                self.say(negative.or(replies.first()).unwrap_or(&none));
            }
        }
        self.counts.transactions += 1;
        if replies.iter().any(Reply::is_done) {
            self.counts.junk = 0;
        }
    }

    fn take_question(&mut self) -> Option<Question> {
        if !matches!(self.phase, Phase::Asking(_)) {
            return None;
        }
        match std::mem::replace(&mut self.phase, Phase::Command) {
            Phase::Asking(question) => Some(question),
            _ => None,
        }
    }

    /// Goes one step on. Whether there was one to go.
    fn advance(&mut self, now: Instant) -> bool {
        match &mut self.phase {
            Phase::Command => {
                let Some(line) = self.input.next_line() else { return false };
                self.take_line(&line, now);
                true
            }
            Phase::AuthResponse => {
                let Some(line) = self.input.next_line() else { return false };
                self.take_auth_line(&line);
                true
            }
            Phase::Content(_) => self.take_content(now),
            Phase::Tls if !self.input.is_empty() => {
                self.close_with(&replies::PLAIN_AFTER_TLS);
                true
            }
            Phase::Tls | Phase::Asking(_) | Phase::Closed => false,
        }
    }

    fn take_line(&mut self, line: &Line, now: Instant) {
        match line {
            // Only AUTH has longer lines, and only where it is offered.
            Line::Text(text) if text.len() + "\r\n".len() > COMMAND_LINE_LEN_MAX && !is_auth(text) => {
                self.object(&replies::LINE_TOO_LONG);
            }
            Line::Text(text) => match parse(self.config.protocol, !self.config.mechanisms.is_empty(), text) {
                Ok(command) => self.execute(command, now),
                Err(Refused::GoOn(reply)) => self.object(&reply),
                Err(Refused::End(reply)) => self.close_with(&reply),
            },
            Line::Bare => self.object(&replies::BARE_LINE_END),
            Line::TooLong => self.object(&replies::LINE_TOO_LONG),
            Line::Endless => self.close_with(&replies::LINE_TOO_LONG),
        }
        if matches!(self.phase, Phase::Command) {
            self.wait_for_command(now);
        }
    }

    /// A line of the authentication: never a command. What cannot be one cancels the exchange.
    fn take_auth_line(&mut self, line: &Line) {
        let (said, instead) = match line {
            Line::Text(text) => match AuthText::read(text) {
                Some(said) => (said, None),
                None => (AuthText::cancel(), Some(replies::AUTH_NOT_BASE64)),
            },
            Line::Bare => (AuthText::cancel(), Some(replies::BARE_LINE_END)),
            Line::TooLong => (AuthText::cancel(), Some(replies::AUTH_TOO_LONG)),
            Line::Endless => return self.close_with(&replies::LINE_TOO_LONG),
        };
        self.ask(Event::AuthResponse(said), Question::Auth { instead });
    }

    /// One step through the content. Whether there was one to go.
    fn take_content(&mut self, now: Instant) -> bool {
        let Phase::Content(content) = &mut self.phase else { return false };
        let waiting = self.input.pending();
        let before = waiting.len();
        let step = content.step(waiting);
        self.progress += (before - waiting.len()) as u64;
        let renew = self.progress >= CONTENT_PROGRESS_MIN;
        if content.is_endless() {
            let reply = content.refusal().cloned().unwrap_or(replies::TOO_BIG);
            self.close_with(&reply);
            return true;
        }
        if renew {
            self.set_deadline(Deadline::Content, now);
        }
        match step {
            Step::Nothing => return before > 0,
            Step::Piece(piece) => self.events.push_back(Event::Content(piece)),
            Step::Void => self.abort(),
            Step::ChunkEnd => self.end_chunk(now),
            Step::End => self.end_content(now),
        }
        true
    }

    /// A chunk that is not the last is complete: it has a reply of its own (RFC 3030 §2).
    fn end_chunk(&mut self, now: Instant) {
        let Phase::Content(content) = std::mem::replace(&mut self.phase, Phase::Command) else { return };
        match content.refusal().cloned() {
            Some(reply) => self.object(&reply),
            None => {
                self.say(&replies::CHUNK_OK);
                if let Some(transaction) = &mut self.transaction {
                    transaction.chunks = Chunks::Open(content);
                }
            }
        }
        self.wait_for_command(now);
    }

    fn end_content(&mut self, now: Instant) {
        let Phase::Content(content) = std::mem::replace(&mut self.phase, Phase::Command) else { return };
        match content.refusal() {
            None => {
                self.taking = false;
                self.ask(Event::End(content.summary()), Question::End);
            }
            Some(reply) if content.is_stray() => {
                self.object(reply);
                self.wait_for_command(now);
            }
            Some(reply) => {
                self.give_verdict(&Verdict::All(reply.clone()));
                self.wait_for_command(now);
            }
        }
    }

    /// Asks the shell.
    fn ask(&mut self, event: Event, question: Question) {
        self.events.push_back(event);
        self.phase = Phase::Asking(question);
        self.deadline = None;
    }

    fn wait_for_command(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Closed) {
            return;
        }
        self.phase = Phase::Command;
        if self.shutting_down && !self.taking {
            return self.close_with(&replies::SHUTTING_DOWN);
        }
        self.set_deadline(Deadline::Command, now);
    }

    fn wait_for_content(&mut self, content: Content, now: Instant) {
        self.phase = Phase::Content(content);
        self.set_deadline(Deadline::Content, now);
    }

    fn set_deadline(&mut self, deadline: Deadline, now: Instant) {
        let timeouts = &self.config.timeouts;
        let wait = match deadline {
            Deadline::Command => timeouts.command,
            Deadline::Content => timeouts.content,
            Deadline::Tls => timeouts.tls,
        };
        self.progress = 0;
        self.deadline = Some((deadline, now + wait));
    }

    fn say(&mut self, reply: &Reply) {
        reply.write_to(&mut self.output);
    }

    /// Answers a command that was wrong; too many of them end the session.
    fn object(&mut self, reply: &Reply) {
        self.say(reply);
        self.counts.errors += 1;
        if self.counts.errors > ERRORS_MAX {
            self.close_with(&replies::TOO_MANY_ERRORS);
        }
    }

    /// Answers a command that was right and brings no message on; too many of them end the session.
    fn junk(&mut self, reply: &Reply) {
        self.say(reply);
        self.counts.junk += 1;
        if self.counts.junk > JUNK_COMMANDS_MAX {
            self.close_with(&replies::TOO_MANY_COMMANDS);
        }
    }

    /// Ends the transaction, if there is one.
    fn reset(&mut self) {
        self.abort();
        self.transaction = None;
    }

    /// Tells the shell that what it takes will not end.
    fn abort(&mut self) {
        if std::mem::take(&mut self.taking) {
            self.events.push_back(Event::Abort);
        }
    }

    fn close_with(&mut self, reply: &Reply) {
        if !matches!(self.phase, Phase::Closed) {
            self.say(reply);
            self.close();
        }
    }

    fn close(&mut self) {
        if matches!(self.phase, Phase::Closed) {
            return;
        }
        self.reset();
        self.phase = Phase::Closed;
        self.deadline = None;
        self.input.clear();
        self.events.push_back(Event::Close);
    }
}

/// Whether a line says AUTH, in any case.
fn is_auth(line: &[u8]) -> bool {
    line.get(..5).is_some_and(|verb| verb.eq_ignore_ascii_case(b"AUTH "))
}

#[cfg(test)]
mod tests;
