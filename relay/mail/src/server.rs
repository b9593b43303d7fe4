//! The server's side of one SMTP or LMTP connection, as a value.
//!
//! The shell reads bytes and hands them in with [`Session::handle_input`], polls [`Session::poll_event`] until there is
//! none, writes what [`Session::poll_output`] gives, and calls [`Session::handle_timeout`] when [`Session::poll_timeout`]
//! has come. The session does the protocol: order, syntax, limits, line ends, dots and chunks. The shell decides what
//! a sender and a recipient are worth, takes the content, and says at its end what became of it.
//!
//! Why it is sound:
//! - It is driven one event at a time: nothing behind a question is looked at before the answer is in, so replies go
//!   out in the order of the commands, and what is kept in memory is one piece of input and one event, whatever the
//!   peer pipelines.
//! - Content ends at CR LF . CR LF, or where BDAT says, and nowhere else; content with a CR or LF standing alone is
//!   read to its end and refused (RFC 5321 §2.3.8, CVE-2023-51764), because no next hop may be led to see another end.
//!   NUL is content like any other byte.
//! - What follows STARTTLS in the clear ends the session (CVE-2011-0411).
//! - An authentication ([`Config::mechanisms`]) is the shell's to decide: what the peer says is checked for its form, told,
//!   and forgotten. No part of it is executed as a command, shown, or kept.
//! - A positive final reply is the shell's alone ([`Session::finish`]): the session never says `250` for content.

mod command;
mod content;
mod input;
mod replies;
mod session;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

pub use session::Session;

use crate::Protocol;
use crate::auth::AuthText;
use crate::envelope::{Envelope, MailFrom, RcptTo};
use crate::limits;
use crate::reply::Reply;

/// What does not change from one session to the next.
#[derive(Clone, Debug)]
pub struct Config {
    /// SMTP or LMTP.
    pub protocol: Protocol,
    /// The name that the server gives itself: a domain name.
    pub host_name: Arc<str>,
    /// Octets of the largest message taken.
    pub size_max: u64,
    /// Recipients of one transaction.
    pub recipients_max: usize,
    /// Whether STARTTLS is offered: the shell has a certificate.
    pub tls_offered: bool,
    /// Whether MAIL is refused before STARTTLS.
    pub tls_required: bool,
    /// The names of the ways to authenticate that are offered; none: AUTH is not offered.
    pub mechanisms: Vec<String>,
    /// What is announced beyond what every session can do.
    pub extensions: Extensions,
    /// How long the session waits.
    pub timeouts: Timeouts,
}

impl Config {
    /// The defaults for a server of this name.
    pub fn new(protocol: Protocol, host_name: &str) -> Self {
        Self {
            protocol,
            host_name: host_name.into(),
            size_max: limits::SIZE_MAX_DEFAULT,
            recipients_max: limits::RECIPIENTS_MAX,
            tls_offered: false,
            tls_required: false,
            mechanisms: Vec::new(),
            extensions: Extensions::default(),
            timeouts: Timeouts::default(),
        }
    }
}

/// Extensions that are announced where those who take the messages on can do them, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extensions {
    /// RFC 6152.
    pub eight_bit_mime: bool,
    /// RFC 6531.
    pub smtputf8: bool,
    /// RFC 3461.
    pub dsn: bool,
}

impl Default for Extensions {
    /// All of them: a server that keeps the message, and finds its own way on.
    fn default() -> Self {
        Self { eight_bit_mime: true, smtputf8: true, dsn: true }
    }
}

/// How long the session waits for its peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For a whole command, however slowly its bytes come.
    pub command: Duration,
    /// For the next [`limits::CONTENT_PROGRESS_MIN`] octets of content.
    pub content: Duration,
    /// For the TLS handshake.
    pub tls: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { command: limits::COMMAND_TIMEOUT, content: limits::CONTENT_TIMEOUT, tls: limits::TLS_TIMEOUT }
    }
}

impl Timeouts {
    /// For a server that is short of connections.
    pub fn under_stress() -> Self {
        Self { command: limits::STRESS_TIMEOUT, content: limits::STRESS_TIMEOUT, tls: limits::STRESS_TIMEOUT }
    }
}

/// What the shell is told. Those marked *asks* stop the session until the shell has answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The peer said who it is; `extended` with EHLO or LHLO.
    Hello {
        /// The name it gave, safe to be written into a trace field.
        name: String,
        /// Whether it knows extensions.
        extended: bool,
    },
    /// AUTH, of an offered mechanism: asks for [`Session::challenge`] or [`Session::auth_done`].
    Auth {
        /// The mechanism, in capitals.
        mechanism: String,
        /// What was said with the command; `=` is an empty one.
        initial: Option<AuthText>,
    },
    /// The answer to a challenge, or what cancels the exchange: asks for [`Session::challenge`] or
    /// [`Session::auth_done`].
    AuthResponse(AuthText),
    /// MAIL: asks for [`Session::accept`] or [`Session::refuse`].
    Mail(MailFrom),
    /// RCPT, of an address not accepted in this transaction yet: asks for [`Session::accept`] or [`Session::refuse`].
    Recipient(RcptTo),
    /// Content is about to come: asks for [`Session::accept`] or [`Session::refuse`].
    Begin(Envelope),
    /// A piece of the content. The shell may call [`Session::refuse`] at any time until the end: the rest is then
    /// read and thrown away.
    Content(Bytes),
    /// The end of the content: asks for [`Session::finish`].
    End(Summary),
    /// What began with `Begin` will not end: whatever was taken of it is to be thrown away.
    Abort,
    /// Write what there is to write, do the TLS handshake as its server, then call [`Session::tls_started`].
    StartTls,
    /// Write what there is to write and close the connection. The last event.
    Close,
}

/// What was seen of a content that came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Its octets.
    pub len: u64,
    /// Whether any of them has the eighth bit set, whatever BODY said.
    pub eight_bit: bool,
}

/// What became of a message (the shell's answer to [`Event::End`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// One reply for all. In LMTP it is given once for each recipient.
    All(Reply),
    /// A reply for each of the envelope's recipients, in their order. In SMTP, which has but one, the first that is
    /// not positive counts.
    Each(Vec<Reply>),
    /// No reply: the connection is closed, because neither yes nor no would be true (DESIGN §3 rule 2).
    Drop,
}

/// Which wait [`Session::poll_timeout`] speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deadline {
    /// For a command to be complete.
    Command,
    /// For the content to go on.
    Content,
    /// For the TLS handshake to be done.
    Tls,
}
