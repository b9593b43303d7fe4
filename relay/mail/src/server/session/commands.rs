//! What each command does to the session: order first, then what the session itself has against it, then the shell.

use std::time::Instant;

use super::transaction::Chunks;
use super::{Phase, Question, Session};
use crate::auth::AuthText;
use crate::envelope::{MailFrom, RcptTo};
use crate::limits::{RECIPIENTS_OVERSHOOT_MAX, TRANSACTIONS_MAX};
use crate::reply::Reply;
use crate::server::command::Command;
use crate::server::content::Content;
use crate::server::{Deadline, Event, replies};

impl Session {
    pub(super) fn execute(&mut self, command: Command, now: Instant) {
        let needs_hello = matches!(
            command,
            Command::Mail(_)
                | Command::Rcpt(_)
                | Command::Data
                | Command::Bdat { .. }
                | Command::StartTls
                | Command::Auth { .. }
        );
        match command {
            Command::Bdat { len, last } => self.on_bdat(len, last, now),
            _ if needs_hello && !self.greeted => self.object(&replies::HELLO_FIRST),
            Command::Hello(name) => self.on_hello(name, true),
            Command::PlainHello(name) => self.on_hello(name, false),
            Command::Mail(mail) => self.on_mail(mail),
            Command::Rcpt(rcpt) => self.on_rcpt(rcpt),
            Command::Data => self.on_data(),
            Command::StartTls => self.on_starttls(now),
            Command::Auth { mechanism, initial } => self.on_auth(mechanism, initial),
            Command::Reset => {
                self.reset();
                self.junk(&replies::OK);
            }
            Command::Noop => self.junk(&replies::OK),
            Command::Verify => self.junk(&replies::VERIFY),
            Command::Help => self.junk(&replies::HELP),
            Command::Quit => self.close_with(&replies::BYE),
        }
    }

    fn on_hello(&mut self, name: String, extended: bool) {
        self.reset();
        self.greeted = true;
        let mut text = self.config.host_name.to_string();
        if extended {
            let extensions = &self.config.extensions;
            let keywords = [
                ("PIPELINING", true),
                ("8BITMIME", extensions.eight_bit_mime),
                ("SMTPUTF8", extensions.smtputf8),
                ("DSN", extensions.dsn),
                ("ENHANCEDSTATUSCODES", true),
                ("CHUNKING", true),
            ];
            for (keyword, _) in keywords.iter().filter(|(_, announced)| *announced) {
                text.push('\n');
                text.push_str(keyword);
            }
            text.push_str(&format!("\nSIZE {}", self.config.size_max));
            if self.config.tls_offered && !self.tls {
                text.push_str("\nSTARTTLS");
            }
            if !self.config.mechanisms.is_empty() {
                text.push_str("\nAUTH ");
                text.push_str(&self.config.mechanisms.join(" "));
            }
        }
        self.junk(&Reply::plain(250, "").with_text(text));
        if !matches!(self.phase, Phase::Closed) {
            self.events.push_back(Event::Hello { name, extended });
        }
    }

    /// RFC 4954 §4.
    fn on_auth(&mut self, mechanism: String, initial: Option<AuthText>) {
        if self.config.tls_required && !self.tls {
            return self.object(&replies::TLS_FIRST);
        }
        if self.authenticated {
            return self.object(&replies::AUTH_TWICE);
        }
        if self.transaction.is_some() {
            return self.object(&replies::AUTH_IN_MAIL);
        }
        if !self.config.mechanisms.iter().any(|offered| offered.eq_ignore_ascii_case(&mechanism)) {
            return self.object(&replies::AUTH_MECHANISM);
        }
        self.ask(Event::Auth { mechanism, initial }, Question::Auth { instead: None });
    }

    fn on_mail(&mut self, mail: MailFrom) {
        if self.config.tls_required && !self.tls {
            return self.object(&replies::TLS_FIRST);
        }
        if self.transaction.is_some() {
            return self.object(&replies::MAIL_TWICE);
        }
        if self.counts.transactions >= TRANSACTIONS_MAX {
            return self.close_with(&replies::TOO_MANY_MESSAGES);
        }
        if mail.size.is_some_and(|size| size > self.config.size_max) {
            return self.object(&replies::TOO_BIG);
        }
        self.ask(Event::Mail(mail.clone()), Question::Mail(mail));
    }

    fn on_rcpt(&mut self, rcpt: RcptTo) {
        let recipients_max = self.config.recipients_max;
        let Some(transaction) = &mut self.transaction else {
            return self.object(&replies::MAIL_FIRST);
        };
        if !matches!(transaction.chunks, Chunks::None) {
            return self.object(&replies::BDAT_STARTED);
        }
        if !transaction.mail.smtputf8 && !rcpt.address.is_ascii() {
            return self.object(&replies::NEEDS_SMTPUTF8);
        }
        if transaction.accepted.len() >= recipients_max {
            transaction.overshoot += 1;
            if transaction.overshoot > RECIPIENTS_OVERSHOOT_MAX {
                return self.object(&replies::TOO_MANY_RECIPIENTS);
            }
            return self.say(&replies::TOO_MANY_RECIPIENTS);
        }
        if transaction.repeat(&rcpt) {
            return self.say(&replies::RECIPIENT_OK);
        }
        self.ask(Event::Recipient(rcpt.clone()), Question::Recipient(rcpt));
    }

    fn on_data(&mut self) {
        let size_max = self.config.size_max;
        match &mut self.transaction {
            None => self.object(&replies::MAIL_FIRST),
            Some(transaction) if !matches!(transaction.chunks, Chunks::None) => {
                self.object(&replies::BDAT_STARTED); // RFC 3030 §2
            }
            Some(transaction) => match transaction.envelope() {
                Ok(envelope) => {
                    self.ask(Event::Begin(envelope), Question::Begin(Content::data(size_max)));
                }
                Err(reply) => self.object(&reply),
            },
        }
    }

    /// A chunk follows whatever is wrong: it is read in any case, so as not to take it for commands.
    fn on_bdat(&mut self, len: u64, last: bool, now: Instant) {
        let size_max = self.config.size_max;
        let refused = |reply| Content::stray_chunk(size_max, len, last, reply);
        let Some(transaction) = &mut self.transaction else {
            let reply = if self.greeted { replies::MAIL_FIRST } else { replies::HELLO_FIRST };
            return self.wait_for_content(refused(reply), now);
        };
        match std::mem::replace(&mut transaction.chunks, Chunks::Failed) {
            Chunks::None => match transaction.envelope() {
                Ok(envelope) => {
                    let content = Content::chunks(size_max, len, last);
                    self.ask(Event::Begin(envelope), Question::Begin(content));
                }
                Err(reply) => self.wait_for_content(refused(reply), now),
            },
            Chunks::Open(mut content) => {
                content.next_chunk(len, last);
                self.wait_for_content(content, now);
            }
            Chunks::Failed => self.wait_for_content(refused(replies::BDAT_FAILED), now),
        }
    }

    fn on_starttls(&mut self, now: Instant) {
        if self.tls {
            return self.object(&replies::ALREADY_TLS);
        }
        if !self.config.tls_offered {
            return self.object(&replies::NOT_OFFERED);
        }
        if !self.input.is_empty() {
            return self.close_with(&replies::PLAIN_AFTER_TLS);
        }
        self.reset();
        self.say(&replies::START_TLS);
        self.phase = Phase::Tls;
        self.deadline = Some((Deadline::Tls, now + self.config.timeouts.tls));
        self.events.push_back(Event::StartTls);
    }
}
