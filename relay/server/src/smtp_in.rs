//! Mail in: sockets around `lighter_mail::server::Session`, for SMTP and LMTP alike.
//!
//! The loop of one connection, in this order: tell the intake every event and the session its answers; write what the
//! session says; then wait for input, a deadline or the stop. While the intake works nothing is read, so a slow array
//! slows the sender and memory stays at one piece of input per connection.
//!
//! What a crash can lose: nothing that was answered `250`, because only the intake's verdict says so. A connection that
//! breaks drops its message ([`crate::intake::Incoming::abort`]).

mod connection;
mod gate;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use lighter_mail::Protocol;
use lighter_mail::server::{Config as SessionConfig, Timeouts};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::config::MailListener;
use crate::intake::Intake;
use crate::limits::{MAIL_ACCEPT_PAUSE, MAIL_CONNECTIONS_STRESS, STOP_TIMEOUT};
use connection::Connection;
use gate::{Gate, Refused};

/// Why a mail listener cannot start.
#[derive(Debug, thiserror::Error)]
pub enum MailServerError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A certificate or key cannot be read.
    #[error("cannot read {path}: {source}")]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: rustls::pki_types::pem::Error,
    },
    /// A certificate and a key that do not belong together.
    #[error("certificate and key for STARTTLS: {0}")]
    Tls(#[from] rustls::Error),
    /// Only one of certificate and key was given.
    #[error("STARTTLS needs both tls_certificate and tls_key")]
    HalfTls,
}

/// The listeners of one protocol, bound and not yet serving.
#[derive(Debug)]
pub struct MailServer {
    listeners: Vec<TcpListener>,
    addresses: Vec<SocketAddr>,
    shared: Arc<Shared>,
}

/// What all connections of a listener share.
struct Shared {
    session: Arc<SessionConfig>,
    /// The same with the time-outs of a server under stress.
    session_under_stress: Arc<SessionConfig>,
    tls: Option<TlsAcceptor>,
    gate: Mutex<Gate>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("session", &self.session).finish_non_exhaustive()
    }
}

impl MailServer {
    /// Binds the addresses of `config` and reads its certificate.
    ///
    /// # Errors
    /// Where an address is taken or the certificate and its key do not serve.
    pub async fn bind(
        config: &MailListener,
        protocol: Protocol,
        host_name: &str,
    ) -> Result<Self, MailServerError> {
        let tls = starttls(config)?;
        let session = SessionConfig {
            size_max: config.message_bytes_max,
            tls_offered: tls.is_some(),
            ..SessionConfig::new(protocol, host_name)
        };
        let session_under_stress =
            Arc::new(SessionConfig { timeouts: Timeouts::under_stress(), ..session.clone() });
        let mut listeners = Vec::new();
        let mut addresses = Vec::new();
        for &address in &config.listen {
            let listen_error = |source| MailServerError::Listen { address, source };
            let listener = TcpListener::bind(address).await.map_err(listen_error)?;
            addresses.push(listener.local_addr().map_err(listen_error)?);
            listeners.push(listener);
        }
        let gate = Mutex::new(Gate::new());
        let shared = Shared { session: Arc::new(session), session_under_stress, tls, gate };
        Ok(Self { listeners, addresses, shared: Arc::new(shared) })
    }

    /// Where it listens: with the ports that the kernel gave.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Takes mail until `stop`; then lets messages that are coming in end, for [`STOP_TIMEOUT`] at most.
    pub async fn serve<I: Intake>(self, intake: Arc<I>, stop: CancellationToken) {
        let mut accepting = JoinSet::new();
        for listener in self.listeners {
            let (shared, intake, stop) = (Arc::clone(&self.shared), Arc::clone(&intake), stop.clone());
            accepting.spawn(accept(listener, shared, intake, stop));
        }
        while accepting.join_next().await.is_some() {}
    }
}

/// The loop of one listener.
async fn accept<I: Intake>(
    listener: TcpListener,
    shared: Arc<Shared>,
    intake: Arc<I>,
    stop: CancellationToken,
) {
    let mut sessions = JoinSet::new();
    let mut count = 0_u64;
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, address)) => {
                    count += 1;
                    let span = tracing::info_span!("mail", session = count, protocol = ?shared.session.protocol);
                    let task = admit(stream, address, Arc::clone(&shared), Arc::clone(&intake), stop.clone());
                    sessions.spawn(task.instrument(span));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a mail connection");
                    tokio::time::sleep(MAIL_ACCEPT_PAUSE).await;
                }
            },
            Some(ended) = sessions.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a mail session broke");
                }
            }
            () = stop.cancelled() => break,
        }
    }
    drop(listener);
    let ending = async { while sessions.join_next().await.is_some() {} };
    if tokio::time::timeout(STOP_TIMEOUT, ending).await.is_err() {
        tracing::warn!(
            sessions = sessions.len(),
            "mail sessions were cut off: their messages were not accepted"
        );
    }
}

/// Lets a connection in, or says why not.
async fn admit<I: Intake>(
    stream: TcpStream,
    address: SocketAddr,
    shared: Arc<Shared>,
    intake: Arc<I>,
    stop: CancellationToken,
) {
    let admitted = shared.with_gate(|gate| gate.enter(address.ip(), Instant::now()));
    match admitted {
        Ok(()) => {
            let _leaving = Leaving { shared: &shared, address };
            Connection::new(stream, address, &shared).run(&*intake, &stop).await;
        }
        Err(refused) => {
            tracing::info!(%refused, "mail connection refused");
            connection::turn_away(stream, refused.reply()).await;
        }
    }
}

impl Shared {
    fn with_gate<T>(&self, f: impl FnOnce(&mut Gate) -> T) -> T {
        f(&mut self.gate.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The configuration for a session that begins now.
    fn session_now(&self) -> Arc<SessionConfig> {
        let open = self.with_gate(|gate| gate.open());
        Arc::clone(if open > MAIL_CONNECTIONS_STRESS { &self.session_under_stress } else { &self.session })
    }
}

/// Gives a connection's place back, however its task ends.
struct Leaving<'a> {
    shared: &'a Shared,
    address: SocketAddr,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.shared.with_gate(|gate| gate.leave(self.address.ip(), Instant::now()));
    }
}

impl Refused {
    /// What the peer is told.
    fn reply(self) -> &'static [u8] {
        match self {
            Self::Full => b"421 4.3.2 Too many connections, try again later\r\n",
            Self::PeerFull => b"421 4.7.0 Too many connections from your address\r\n",
            Self::PeerTooFast => b"421 4.7.0 Too many new connections from your address\r\n",
        }
    }
}

/// The TLS side of STARTTLS, where a certificate is given.
fn starttls(config: &MailListener) -> Result<Option<TlsAcceptor>, MailServerError> {
    let (certificate, key) = match (&config.tls_certificate, &config.tls_key) {
        (None, None) => return Ok(None),
        (Some(certificate), Some(key)) => (certificate, key),
        _ => return Err(MailServerError::HalfTls),
    };
    let pem = |path: &PathBuf| {
        let path = path.clone();
        move |source| MailServerError::Pem { path, source }
    };
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(|certificates| certificates.collect::<Result<Vec<_>, _>>())
        .map_err(pem(certificate))?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(pem(key))?;
    let tls = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?;
    Ok(Some(TlsAcceptor::from(Arc::new(tls))))
}

#[cfg(test)]
pub(crate) mod tests;
