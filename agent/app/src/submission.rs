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
//!
//! **For a whole mail server's users** (SPEC A26; `role`): the same, as a filter that a mail server hands its users' mail to,
//! and that hands it back, or on, to `[smtp]`.
//!
//! ```text
//!   users ── AUTH ──▶ mail server ── SMTP ──▶ this ── SMTP ──▶ mail server (its listener for what was filtered) ──▶ the world
//! ```
//!
//! The queue is the mail server's: it has the whole message, for all its recipients, until this says yes for all of them. It
//! is told yes or no as a mail client is; what it tries again is the same message for days. No password comes here, and
//! nobody is let in but from networks that the admin named. What cannot be given to a store now is left with a relay of the
//! recipient's domain while the mail server waits: it can, for minutes.

mod connection;
mod deliver;
mod incoming;
mod provider;
mod record;
mod role;
pub mod status;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::config::{Config, Paths, SmtpConfig};
use crate::failure::Failure;
use crate::limits::SUBMISSION_NOTES_MAX;
use crate::shared::Handle;
use connection::Connection;
use record::Records;
use role::Role;
use status::SubmissionStatus;

/// Where it listens unless told otherwise.
pub const LISTEN_DEFAULT: &str = "127.0.0.1:5870";

/// A listener that takes nothing yet.
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
    address: SocketAddr,
    settings: Settings,
}

/// What the connections share.
#[derive(Debug)]
struct Settings {
    role: Role,
    smtp: SmtpConfig,
    /// Where content lies that is not decided on yet.
    spool: PathBuf,
    records: Records,
    /// Messages of which the location server is being told who wrote to whom.
    notes: Arc<Semaphore>,
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
        let (Some((role, listen)), Some(smtp)) = (Role::of(config)?, config.smtp.clone()) else {
            return Ok(None);
        };
        let name = role.name();
        let failed = |error: std::io::Error| Failure::failed(format!("{name} on {listen}: {error}"));
        let listener = TcpListener::bind(listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let folder = match &role {
            Role::Submission { .. } => paths.submissions(),
            Role::Outgoing { .. } => paths.outgoing(),
        };
        let records = Records::open(&folder, role.record_life()).map_err(failed)?;
        let notes = Arc::new(Semaphore::new(SUBMISSION_NOTES_MAX));
        let settings = Settings { role, smtp, spool: paths.data.clone(), records, notes };
        Ok(Some(Self { listener, address, settings }))
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it is: `submission`, or `outgoing` for a whole mail server.
    pub fn name(&self) -> &'static str {
        self.settings.role.name()
    }

    /// Takes connections until the agent stops.
    pub async fn run(self, shared: Handle) {
        let Self { listener, address, settings } = self;
        let settings = Arc::new(settings);
        let (server, domains) = (&settings.smtp.server, settings.role.domains());
        shared.submission.send_replace(Some(SubmissionStatus::new(address, server, domains)));
        let places = Arc::new(Semaphore::new(settings.role.connections_max()));
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(_ended) = connections.join_next(), if !connections.is_empty() => continue,
                () = shared.stop.cancelled() => break,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Too many open files, mostly: what is open ends in time.
                    tracing::warn!(%error, "a mail client could not connect");
                    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                    continue;
                }
            };
            let place = places.clone().try_acquire_owned();
            if !settings.role.lets_in(peer.ip()) {
                tracing::warn!(from = %peer.ip(), "not a network that mail is taken from");
                shared.count_submission(|status| status.turned_away += 1);
                // Who is not let in takes a place, too, for as long as it takes to say so.
                if let Ok(place) = place {
                    connections.spawn(async move {
                        connection::turn_away(stream, &connection::NOT_ALLOWED).await;
                        drop(place);
                    });
                }
                continue;
            }
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
