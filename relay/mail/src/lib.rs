//! Mail protocols as values: bytes and `now` go in, replies, events and deadlines come out. No I/O, no clock.
//!
//! The story in order: [`address`] and [`envelope`] say who sends to whom and under which conditions; [`reply`] is
//! the one language of answers; [`dot`] knows what a line is and where a message ends (the strict way:
//! CR LF . CR LF and nothing else); [`server`] takes mail in by SMTP or LMTP; [`client`] hands it on; [`auth`] is what
//! the two pass between them of an authentication that neither of them understands; [`trace`] and [`notice`] write the field and the few messages that a relay adds itself.
//!
//! What it is not: a MIME parser (`lighter-message`), a listener or a queue (`lighter-relay`).

pub mod address;
pub mod auth;
pub mod client;
pub mod dot;
pub mod envelope;
pub mod limits;
mod line_ends;
pub mod notice;
pub mod reply;
pub mod server;
pub mod trace;
pub mod xtext;

pub use address::Address;
pub use auth::AuthText;
pub use envelope::{Body, Envelope, MailFrom, Notify, OriginalRecipient, RcptTo, Return};
pub use reply::{Class, EnhancedStatus, Reply};
pub use xtext::Xtext;

/// Which of the two protocols a session speaks: they differ in the greeting's verb and in who is answered at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// RFC 5321: one final reply for all recipients.
    Smtp,
    /// RFC 2033: one final reply for each recipient.
    Lmtp,
}
