//! The client's side of one SMTP or LMTP connection, as a value: it hands messages to the next hop.
//!
//! The shell hands in what it reads ([`Session::handle_input`]), polls events, writes what [`Session::poll_output`]
//! gives, and feeds content while [`Session::wants_content`]. Any number of messages go over one connection, one after
//! the other: [`Event::Ready`], [`Session::send`], [`Event::Begin`], content, [`Event::Done`], `send` again.
//!
//! A message may also be sent step by step, for somebody who waits for each reply: [`Session::open`],
//! [`Session::add_recipient`], each answered by [`Event::Answered`], then [`Session::start_content`] or
//! [`Session::abandon`]. Before the first message, [`Session::authenticate`] passes on an authentication that this side
//! knows nothing of.
//!
//! Why it is sound:
//! - Every recipient has exactly one [`Outcome`], whatever happens to the connection; where nobody knows (the
//!   connection broke after the content's end), it is temporary: better twice than never.
//! - A message is never re-coded. What the next hop cannot take as it is (RFC 6152 §3, RFC 6531 §3.2) comes back.
//! - Content with a CR or LF standing alone is not sent to its end: the next hop could see an end in it where there is
//!   none. The connection is given up instead.
//! - Replies are a stranger's text: bounded, and free of control characters, before anybody sees them.

mod capabilities;
mod reasons;
mod reply_reader;
mod session;

use std::sync::Arc;
use std::time::Duration;

pub use capabilities::{Capabilities, Size};
pub use reply_reader::{PeerReply, ReplyError, ReplyReader};
pub use session::Session;

use crate::Protocol;
use crate::limits;
use crate::reply::{Class, Reply};

/// What does not change from one session to the next.
#[derive(Clone, Debug)]
pub struct Config {
    /// SMTP or LMTP.
    pub protocol: Protocol,
    /// The name that the client gives itself: a domain name.
    pub host_name: Arc<str>,
    /// Whether the connection is to be encrypted.
    pub tls: Tls,
    /// How long the session waits.
    pub timeouts: Timeouts,
}

impl Config {
    /// The defaults for a client of this name.
    pub fn new(protocol: Protocol, host_name: &str) -> Self {
        Self { protocol, host_name: host_name.into(), tls: Tls::IfOffered, timeouts: Timeouts::default() }
    }
}

/// Whether STARTTLS is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Tls {
    /// Not even if it is offered.
    Off,
    /// If it is offered (RFC 7435).
    #[default]
    IfOffered,
    /// If it is not offered, nothing is sent.
    Required,
}

/// How long the session waits for its peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For the greeting and for the reply to a command.
    pub command: Duration,
    /// For the reply to DATA.
    pub data: Duration,
    /// For room to write more content.
    pub content: Duration,
    /// For the final reply.
    pub end: Duration,
    /// For the TLS handshake.
    pub tls: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            command: limits::CLIENT_COMMAND_TIMEOUT,
            data: limits::CLIENT_DATA_TIMEOUT,
            content: limits::CLIENT_CONTENT_TIMEOUT,
            end: limits::CLIENT_END_TIMEOUT,
            tls: limits::TLS_TIMEOUT,
        }
    }
}

/// What the shell is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Write what there is to write, do the TLS handshake as its client, then call [`Session::tls_started`].
    StartTls,
    /// A message may be sent.
    Ready,
    /// The next hop asks for more (RFC 4954 §4): call [`Session::respond`] with the answer to this challenge.
    Challenge(String),
    /// What became of the authentication: the next hop's own words, its lines kept.
    Authenticated(Reply),
    /// The reply to MAIL or RCPT of a message that is sent step by step.
    Answered(Reply),
    /// The next hop takes the content: feed it while [`Session::wants_content`], then call [`Session::end_content`].
    Begin,
    /// What became of the message for each of its recipients, in the envelope's order.
    Done(Vec<Outcome>),
    /// The connection is of no use any more: close it. The last event. If no message was under way, `Outcome` says
    /// why none can be sent; `None`: it ended as it should, or `Done` has said it already.
    Closed(Option<Outcome>),
}

/// What became of a message for one recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The reply that decided.
    pub reply: Reply,
    /// Who said so.
    pub from: Origin,
    /// Whether the next hop took over what the sender asked about reports (RFC 3461 §5.2): if it did not, and a
    /// report of success was asked for, this relay sends a `relayed` one itself.
    pub dsn_passed: bool,
}

/// Who said a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The next hop.
    Peer,
    /// This side, about the connection or about what the next hop cannot do.
    Here,
}

impl Outcome {
    /// An outcome that this side found out.
    pub fn here(reply: Reply) -> Self {
        Self { reply, from: Origin::Here, dsn_passed: false }
    }

    /// An outcome that the next hop said.
    pub fn from_peer(reply: Reply) -> Self {
        Self { reply, from: Origin::Peer, dsn_passed: false }
    }

    /// Whether the next hop has taken responsibility.
    pub fn is_delivered(&self) -> bool {
        self.reply.class() == Class::Done
    }

    /// Whether trying again is of no use.
    pub fn is_permanent(&self) -> bool {
        self.reply.class() == Class::Permanent
    }
}

/// Which wait [`Session::poll_timeout`] speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deadline {
    /// For a reply.
    Reply,
    /// For room to write content.
    Content,
    /// For the TLS handshake.
    Tls,
}
