//! The seam between the listeners and what a message becomes: who may send, who is served, and where content goes.
//!
//! The listeners (`smtp_in`) know the protocol and nothing of Lighter; whoever implements [`Intake`] knows nothing of
//! the protocol and promises with a [`Verdict`]: a positive reply only when the message is durable on as many copies
//! as were promised (DESIGN §3 rule 1), a temporary one only when nothing of it is, or a record that voids it is
//! (rule 2), and otherwise [`Verdict::Drop`], which closes the connection without a word.

#[cfg(test)]
pub(crate) mod memory;

use std::future::Future;
use std::net::SocketAddr;

use bytes::Bytes;
pub use lighter_mail::server::{Summary, Verdict};
use lighter_mail::{Envelope, MailFrom, Protocol, RcptTo, Reply};

/// Who is at the other end of a session, as far as it is known: what a trace field is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailPeer {
    /// The peer's address.
    pub address: SocketAddr,
    /// SMTP or LMTP.
    pub protocol: Protocol,
    /// The name that the peer gave itself, safe to be written into a field.
    pub hello: String,
    /// Whether it said EHLO or LHLO.
    pub extended: bool,
    /// Whether the connection is encrypted.
    pub tls: bool,
}

/// Decides about senders and recipients and takes messages. One for all sessions.
pub trait Intake: Send + Sync + 'static {
    /// A message on its way in.
    type Incoming: Incoming;

    /// Whether mail from this sender is taken; an `Err` is what the peer is told.
    fn sender(&self, peer: &MailPeer, mail: &MailFrom) -> impl Future<Output = Result<(), Reply>> + Send;

    /// Whether mail for this recipient is taken; an `Err` is what the peer is told.
    fn recipient(
        &self,
        peer: &MailPeer,
        mail: &MailFrom,
        rcpt: &RcptTo,
    ) -> impl Future<Output = Result<(), Reply>> + Send;

    /// The content is about to come; an `Err` is what the peer is told instead.
    fn begin(
        &self,
        peer: &MailPeer,
        envelope: Envelope,
    ) -> impl Future<Output = Result<Self::Incoming, Reply>> + Send;
}

/// One message on its way in. Dropped before its end, it is void, as with [`Incoming::abort`].
pub trait Incoming: Send {
    /// A piece of the content. The peer is not read from until this is done: slowness here slows the peer.
    ///
    /// An `Err` is what the peer is told at the end; nothing of the message is given any more, and this is dropped.
    fn content(&mut self, piece: Bytes) -> impl Future<Output = Result<(), Reply>> + Send;

    /// The content is complete. What became of it, once that is durable: for all recipients, or
    /// ([`Verdict::Each`]) for each recipient of the envelope in its order.
    fn finish(self, summary: Summary) -> impl Future<Output = Verdict> + Send;

    /// The content will never be complete: what was taken of it is thrown away. Nobody waits for a reply.
    fn abort(self) -> impl Future<Output = ()> + Send;
}
