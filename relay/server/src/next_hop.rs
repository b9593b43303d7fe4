//! Mail out: one message, to the next hop, with an outcome for each recipient.
//!
//! Three kinds: an SMTP or an LMTP server ([`server`]), or Maildirs on this machine ([`maildir`]). Whatever happens,
//! every recipient has exactly one outcome, and one that is in doubt is temporary: the caller tries again later.

pub mod maildir;
pub mod server;
mod wire;

use std::future::Future;
use std::io;
use std::path::Path;

use bytes::Bytes;
use lighter_mail::Envelope;
pub use lighter_mail::client::Outcome;
use lighter_protocol::UnixTime;

use crate::config::{NextHopConfig, NextHopTls};
pub use maildir::Maildir;
pub use server::{MailHop, MailHopError};

/// What is handed over, its content apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandOver {
    /// What makes the same hand-over the same again after a crash: a delivery's or a message's id.
    pub id: [u8; 16],
    /// When the relay accepted the message.
    pub accepted: UnixTime,
    /// From whom, and for whom of its recipients. `mail.size` is the content's exact length where it is known, and
    /// `mail.body` says truly whether it has 8-bit octets (`Summary::eight_bit`).
    pub envelope: Envelope,
}

/// A message's content, piece by piece: read only once the next hop takes it.
pub trait Body: Send {
    /// The next piece; `None` at the end. After an error nothing more is asked for, and nothing of the message is
    /// delivered.
    fn next(&mut self) -> impl Future<Output = io::Result<Option<Bytes>>> + Send;
}

/// A content that is in memory.
impl Body for Option<Bytes> {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        Ok(self.take())
    }
}

/// Where mail goes on to.
#[derive(Debug)]
pub enum NextHop {
    /// A mailbox folder for each recipient.
    Maildir(Maildir),
    /// A mail server.
    Server(MailHop),
}

impl NextHop {
    /// The next hop of a configuration. `data` is the folder that a Maildir without a path lies below.
    ///
    /// # Errors
    /// Where the address is not one, or the certificates to trust cannot be read and are needed.
    pub fn from_config(config: &NextHopConfig, data: &Path, host_name: &str) -> Result<Self, MailHopError> {
        use lighter_mail::Protocol::{Lmtp, Smtp};
        match config {
            NextHopConfig::Maildir { path } => {
                let path = path.clone().unwrap_or_else(|| data.join("maildir"));
                Ok(Self::Maildir(Maildir::new(path, host_name)))
            }
            NextHopConfig::Smtp { address, tls, tls_ca } => {
                MailHop::new(Smtp, address, host_name, *tls, tls_ca.as_deref()).map(Self::Server)
            }
            NextHopConfig::Lmtp { address, tls, tls_ca } => {
                MailHop::new(Lmtp, address, host_name, *tls, tls_ca.as_deref()).map(Self::Server)
            }
        }
    }

    /// The name of the server that mail goes on to, where it is one: for reports.
    pub fn remote(&self) -> Option<&str> {
        match self {
            Self::Maildir(_) => None,
            Self::Server(server) => Some(server.host()),
        }
    }

    /// Hands one message over: an outcome for each of the envelope's recipients, in their order.
    ///
    /// A positive one says that the next hop has taken responsibility; for a Maildir, that the file and its name are on
    /// stable storage.
    pub async fn deliver(&self, message: &HandOver, body: impl Body) -> Vec<Outcome> {
        match self {
            Self::Maildir(maildir) => maildir.deliver(message, body).await,
            Self::Server(server) => server.deliver(message, body).await,
        }
    }
}

impl From<NextHopTls> for lighter_mail::client::Tls {
    fn from(tls: NextHopTls) -> Self {
        match tls {
            NextHopTls::Opportunistic => Self::IfOffered,
            NextHopTls::Required => Self::Required,
            NextHopTls::Off => Self::Off,
        }
    }
}

#[cfg(test)]
mod tests;
