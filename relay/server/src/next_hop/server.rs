//! Mail to a server by SMTP or LMTP, over connections that are used again.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use lighter_mail::client::{Config as SessionConfig, Outcome, Tls};
use lighter_mail::{Protocol, Reply};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_rustls::TlsConnector;

use super::wire::{ConnectFailure, Wire};
use super::{Body, HandOver};
use crate::config::NextHopTls;
use crate::limits::{NEXT_HOP_IDLE_MAX, NEXT_HOP_IDLE_TIMEOUT};

const TLS_FAILED: Reply = Reply::fixed(451, 7, 5, "TLS with the next hop failed");

/// Why a next hop cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum MailHopError {
    /// Not `HOST:PORT`.
    #[error("next hop {0:?} is not HOST:PORT")]
    Address(String),
    /// TLS is required, and the system has no certificates to check the next hop's with.
    #[error("next hop: TLS is required, and no trusted certificate was found on this system")]
    NoRoots,
    /// The file with the issuers to trust cannot be read, or has none in it.
    #[error("next hop: cannot read certificates from {path}: {source}")]
    Issuers {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: rustls::pki_types::pem::Error,
    },
    /// The TLS configuration is not possible.
    #[error("next hop: {0}")]
    Tls(#[from] rustls::Error),
}

/// A mail server that takes what is handed on.
pub struct MailHop {
    address: String,
    server_name: ServerName<'static>,
    session: Arc<SessionConfig>,
    connector: TlsConnector,
    /// Connections on which a message may be sent, the one used last at the end. At most [`NEXT_HOP_IDLE_MAX`].
    idle: Mutex<Vec<Wire>>,
}

impl fmt::Debug for MailHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MailHop").field("address", &self.address).field("session", &self.session).finish()
    }
}

impl MailHop {
    /// A mail server at `HOST:PORT`. With `Required`, its certificate must verify against the issuers in the PEM file
    /// `issuers`, or else the system's.
    ///
    /// # Errors
    /// Where the address is not one, or the certificates to trust cannot be read and are needed.
    pub fn new(
        protocol: Protocol,
        address: &str,
        host_name: &str,
        tls: NextHopTls,
        issuers: Option<&Path>,
    ) -> Result<Self, MailHopError> {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let builder = ClientConfig::builder_with_provider(provider.clone().into())
            .with_safe_default_protocol_versions()?;
        let config = match tls {
            NextHopTls::Required => builder.with_root_certificates(trusted(issuers)?).with_no_client_auth(),
            NextHopTls::Opportunistic | NextHopTls::Off => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
                .with_no_client_auth(),
        };
        Self::with_tls(protocol, address, host_name, tls, Arc::new(config))
    }

    /// The same with a TLS configuration of the caller's.
    ///
    /// # Errors
    /// Where the address is not `HOST:PORT`.
    pub fn with_tls(
        protocol: Protocol,
        address: &str,
        host_name: &str,
        tls: NextHopTls,
        config: Arc<ClientConfig>,
    ) -> Result<Self, MailHopError> {
        let not_an_address = || MailHopError::Address(address.to_owned());
        let (host, port) = address.rsplit_once(':').ok_or_else(not_an_address)?;
        port.parse::<u16>().map_err(|_| not_an_address())?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let server_name = ServerName::try_from(host.to_owned()).map_err(|_| not_an_address())?;
        let session = SessionConfig { tls: tls.into(), ..SessionConfig::new(protocol, host_name) };
        Ok(Self {
            address: address.to_owned(),
            server_name,
            session: Arc::new(session),
            connector: TlsConnector::from(config),
            idle: Mutex::new(Vec::new()),
        })
    }

    /// Its host name or address.
    pub fn host(&self) -> &str {
        let host = self.address.rsplit_once(':').map_or(self.address.as_str(), |(host, _)| host);
        host.trim_start_matches('[').trim_end_matches(']')
    }

    /// Hands one message over.
    pub(super) async fn deliver(&self, message: &HandOver, mut body: impl Body) -> Vec<Outcome> {
        // A kept connection may have died since: as long as no content was asked for, the next one is tried.
        while let Some(mut wire) = self.take_idle().await {
            let sent = wire.send(message.envelope.clone(), &mut body).await;
            let usable = wire.is_ready();
            if usable || sent.begun {
                self.keep(wire).await;
                return sent.outcomes;
            }
        }
        match self.open().await {
            Ok(mut wire) => {
                let sent = wire.send(message.envelope.clone(), &mut body).await;
                self.keep(wire).await;
                sent.outcomes
            }
            Err(outcome) => vec![outcome; message.envelope.recipients.len()],
        }
    }

    /// A new connection. Where TLS is opportunistic and fails, the clear is no worse (RFC 7435).
    async fn open(&self) -> Result<Wire, Outcome> {
        let open = |config| Wire::open(&self.address, config, &self.connector, &self.server_name);
        match open(Arc::clone(&self.session)).await {
            Ok(wire) => Ok(wire),
            Err(ConnectFailure::Outcome(outcome)) => Err(outcome),
            Err(ConnectFailure::Tls) if self.session.tls == Tls::IfOffered => {
                let clear = Arc::new(SessionConfig { tls: Tls::Off, ..SessionConfig::clone(&self.session) });
                open(clear).await.map_err(|failure| match failure {
                    ConnectFailure::Outcome(outcome) => outcome,
                    ConnectFailure::Tls => Outcome::here(TLS_FAILED),
                })
            }
            Err(ConnectFailure::Tls) => Err(Outcome::here(TLS_FAILED)),
        }
    }

    /// The connection used last, if it is young enough; all others that are not are closed.
    async fn take_idle(&self) -> Option<Wire> {
        let now = Instant::now();
        let (old, wire) = {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            let is_old = |wire: &mut Wire| now.duration_since(wire.idle_since) > NEXT_HOP_IDLE_TIMEOUT;
            let old: Vec<_> = idle.extract_if(.., is_old).collect();
            (old, idle.pop())
        };
        for wire in old {
            wire.quit().await;
        }
        wire
    }

    async fn keep(&self, wire: Wire) {
        if !wire.is_ready() {
            return;
        }
        let too_many = {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.push(wire);
            if idle.len() > NEXT_HOP_IDLE_MAX { Some(idle.remove(0)) } else { None }
        };
        if let Some(wire) = too_many {
            wire.quit().await;
        }
    }
}

/// The issuers in the PEM file, or the system's.
fn trusted(issuers: Option<&Path>) -> Result<RootCertStore, MailHopError> {
    let mut roots = RootCertStore::empty();
    let Some(path) = issuers else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return if roots.is_empty() { Err(MailHopError::NoRoots) } else { Ok(roots) };
    };
    let unreadable = |source| MailHopError::Issuers { path: path.to_owned(), source };
    for certificate in CertificateDer::pem_file_iter(path).map_err(unreadable)? {
        roots.add(certificate.map_err(unreadable)?)?;
    }
    if roots.is_empty() {
        return Err(unreadable(rustls::pki_types::pem::Error::NoItemsFound));
    }
    Ok(roots)
}

/// Takes any certificate: opportunistic TLS keeps listeners out, not impostors (RFC 7435), and refusing a certificate
/// here would only mean sending in the clear.
#[derive(Debug)]
struct AnyCertificate(CryptoProvider);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
