//! Local submission (SPEC A1 to A10): a mail server on this machine (RFC 6409) through which any mail client sends, so
//! that its attachments go to the recipients' stores.
//!
//! ```text
//!   mail client ── SMTP on loopback ──▶ this ── SMTP with TLS ──▶ the user's own provider
//!                                        │
//!                                        └── look-ups, offers ──▶ recipients' stores
//! ```
//!
//! It is a proxy that keeps the client waiting: there is no queue here, and nobody's password. Each client has a
//! connection to the provider of its own; AUTH, MAIL and RCPT are passed on as they come, and answered in the provider's
//! words. Only the content stops here, in a file without a name, until it is decided how it goes:
//!
//! - Nothing to take out, nobody with a store, somebody else's message, or anything that fails here: it goes on
//!   untouched, in the transaction that is open already (A1, A8, A9; DESIGN §3 rule 5).
//! - Otherwise that transaction is given up; those without a store get the message whole in one transaction, and each of
//!   the others a stub of their own (A5, A10).
//!
//! Why it is sound:
//! - The client is told yes once the provider has said yes to everything, or to something and a report of the rest.
//!   Where the first transaction is refused, nothing else is sent, and the client hears the provider's own words.
//! - A delivery is on record before its stub is mailed, and who has the message is on record (`record`) as soon as
//!   the provider says so: a client that asks again, with the same bytes and envelope within a day, sends the same message,
//!   and nobody gets it twice but who was being mailed to at the moment of a crash.
//! - It listens on loopback only, since it has no TLS of its own, and passes no password on over a connection that others
//!   could listen to.

mod connection;
mod deliver;
mod incoming;
mod provider;
mod record;
pub mod status;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::config::{Config, Paths, SmtpConfig};
use crate::failure::Failure;
use crate::limits::SUBMISSION_CONNECTIONS_MAX;
use crate::shared::Handle;
use connection::Connection;
use lighter_protocol::Mailbox;
use record::Records;
use status::SubmissionStatus;

/// Where it listens unless told otherwise.
pub const LISTEN_DEFAULT: &str = "127.0.0.1:5870";

/// A listener that takes nothing yet.
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
    address: SocketAddr,
    smtp: SmtpConfig,
    /// Whose messages are looked at.
    senders: Vec<Mailbox>,
    /// Where content lies that is not decided on yet.
    spool: PathBuf,
    records: Records,
}

/// What the connections share.
#[derive(Debug)]
struct Settings {
    smtp: SmtpConfig,
    senders: Vec<Mailbox>,
    spool: PathBuf,
    records: Records,
}

/// Whether it may listen there.
///
/// # Errors
/// Says what is wrong with the address, or what is missing besides.
pub fn check(listen: SocketAddr, has_smtp: bool) -> Result<(), Failure> {
    if !listen.ip().is_loopback() {
        return Err(Failure::wrong_use(format!(
            "submission on {listen}: only an address of this machine itself, such as {LISTEN_DEFAULT}: passwords would \
             go over the network in the clear"
        )));
    }
    if !has_smtp {
        return Err(Failure::wrong_use(
            "submission needs a mail server: run `setup` with --smtp, or set [smtp]",
        ));
    }
    Ok(())
}

impl Listener {
    /// Listens, if that is wanted.
    ///
    /// # Errors
    /// Where the configuration, the address or the data folder is of no use.
    pub async fn bind(config: &Config, paths: &Paths) -> Result<Option<Self>, Failure> {
        let Some(listen) = config.submission.listen else { return Ok(None) };
        check(listen, config.smtp.is_some())?;
        let Some(smtp) = config.smtp.clone() else { return Ok(None) };
        let failed = |error: std::io::Error| Failure::failed(format!("submission on {listen}: {error}"));
        let listener = TcpListener::bind(listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let records = Records::open(&paths.submissions()).map_err(failed)?;
        let senders = [config.mailbox.clone()].into_iter().chain(config.submission.senders.clone()).collect();
        Ok(Some(Self { listener, address, smtp, senders, spool: paths.data.clone(), records }))
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes connections until the agent stops.
    pub async fn run(self, shared: Handle) {
        let Self { listener, address, smtp, senders, spool, records } = self;
        let settings = Arc::new(Settings { smtp, senders, spool, records });
        shared.submission.send_replace(Some(SubmissionStatus::new(address, &settings.smtp.server)));
        let places = Arc::new(Semaphore::new(SUBMISSION_CONNECTIONS_MAX));
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(_ended) = connections.join_next(), if !connections.is_empty() => continue,
                () = shared.stop.cancelled() => break,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Too many open files, mostly: what is open ends in time.
                    tracing::warn!(%error, "a mail client could not connect");
                    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                    continue;
                }
            };
            let place = places.clone().try_acquire_owned();
            let (shared, settings) = (shared.clone(), settings.clone());
            connections.spawn(async move {
                match place {
                    Ok(_place) => Connection::serve(stream, &shared, &settings).await,
                    Err(_) => connection::turn_away(stream, &connection::TOO_MANY).await,
                }
            });
        }
        // What is being sent may end while the agent says goodbye.
        drop(listener);
        while connections.join_next().await.is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_can_submit_and_only_with_a_mail_server_behind() {
        for address in ["127.0.0.1:5870", "[::1]:0", "127.9.9.9:25"] {
            assert!(check(address.parse().unwrap(), true).is_ok(), "{address}");
        }
        for address in ["0.0.0.0:5870", "192.0.2.1:25", "[::]:5870"] {
            let error = check(address.parse().unwrap(), true).unwrap_err().to_string();
            assert!(error.contains(address) && error.contains("in the clear"), "{error}");
        }
        assert!(check(LISTEN_DEFAULT.parse().unwrap(), false).unwrap_err().to_string().contains("--smtp"));
    }
}
