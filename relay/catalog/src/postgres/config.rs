//! How the database is reached.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lighter_protocol::PeerId;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_postgres::config::{SslMode, TargetSessionAttrs};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::limits::{CONNECT_TIME_MAX_MS, DATABASE_CONNECTIONS, LEASE_DEFAULT_S, LEASE_MAX_S, LEASE_MIN_S};

/// Whether the connection is encrypted, and whether the server is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DatabaseTls {
    /// Never: a Unix socket, or a network that is trusted.
    #[default]
    Off,
    /// Always, with whatever certificate the server shows (`sslmode=require`).
    Unverified,
    /// Always, and the certificate must be valid for the server's name (`sslmode=verify-full`).
    Verified {
        /// A PEM file with the issuers whose certificates count. None: the system's.
        issuers: Option<PathBuf>,
    },
}

/// How the database is reached, and by whom.
#[derive(Clone, Debug)]
pub struct PostgresConfig {
    /// `postgresql://…` or `host=… user=…`, as libpq takes it; may name several hosts, of which the primary is taken. May
    /// hold a password: never logged.
    pub url: String,
    /// Whether the connection is encrypted.
    pub tls: DatabaseTls,
    /// Connections at most.
    pub connections: usize,
    /// How long what this relay holds stays its own after it was heard of last.
    pub lease: Duration,
    /// The relay.
    pub relay: PeerId,
    /// The relay's name, for people.
    pub name: String,
}

/// Why the database is not reached with this configuration.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseConfigError {
    /// Its parts cannot be read. (What is in them is not said: there may be a password.)
    #[error("the database's url cannot be read: `postgresql://USER@HOST/NAME`, or `host=… user=… dbname=…`")]
    Url,
    /// The lease is out of bounds.
    #[error("the lease: {LEASE_MIN_S} to {LEASE_MAX_S} seconds")]
    Lease,
    /// The issuers cannot be read.
    #[error("the issuers in {path}: {reason}")]
    Issuers {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// TLS cannot be set up.
    #[error("TLS for the database")]
    Tls(#[source] rustls::Error),
}

impl PostgresConfig {
    /// With every default.
    pub fn new(url: impl Into<String>, relay: PeerId, name: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            tls: DatabaseTls::Off,
            connections: DATABASE_CONNECTIONS,
            lease: Duration::from_secs(LEASE_DEFAULT_S),
            relay,
            name: name.into(),
        }
    }

    /// The same, as the client takes it.
    pub(super) fn client(&self) -> Result<tokio_postgres::Config, DatabaseConfigError> {
        let mut config: tokio_postgres::Config = self.url.parse().map_err(|_| DatabaseConfigError::Url)?;
        if config.get_hosts().is_empty() {
            return Err(DatabaseConfigError::Url);
        }
        config
            .application_name("lighter-relay")
            .connect_timeout(Duration::from_millis(CONNECT_TIME_MAX_MS))
            .keepalives_idle(Duration::from_secs(10))
            .tcp_user_timeout(Duration::from_secs(20))
            .target_session_attrs(TargetSessionAttrs::ReadWrite)
            .ssl_mode(if self.tls == DatabaseTls::Off { SslMode::Disable } else { SslMode::Require });
        Ok(config)
    }

    /// What makes TLS connections; unused where there are none.
    pub(super) fn connector(&self) -> Result<MakeRustlsConnect, DatabaseConfigError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(DatabaseConfigError::Tls)?;
        let mut config = match &self.tls {
            DatabaseTls::Verified { issuers } => builder.with_root_certificates(roots(issuers.as_ref())?),
            DatabaseTls::Off | DatabaseTls::Unverified => {
                builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyServer(provider)))
            }
        }
        .with_no_client_auth();
        // PostgreSQL 17 asks for its own protocol where a connection begins with TLS; earlier ones ignore it.
        config.alpn_protocols = vec![b"postgresql".to_vec()];
        Ok(MakeRustlsConnect::new(config))
    }

    /// Whether its numbers are within their bounds.
    pub(super) fn check(&self) -> Result<(), DatabaseConfigError> {
        let bounds = Duration::from_secs(LEASE_MIN_S)..=Duration::from_secs(LEASE_MAX_S);
        if bounds.contains(&self.lease) || cfg!(test) { Ok(()) } else { Err(DatabaseConfigError::Lease) }
    }
}

fn roots(issuers: Option<&PathBuf>) -> Result<RootCertStore, DatabaseConfigError> {
    let mut roots = RootCertStore::empty();
    match issuers {
        Some(path) => {
            let failed = |reason: String| DatabaseConfigError::Issuers { path: path.clone(), reason };
            let certificates =
                CertificateDer::pem_file_iter(path).map_err(|error| failed(error.to_string()))?;
            for certificate in certificates {
                let certificate = certificate.map_err(|error| failed(error.to_string()))?;
                roots.add(certificate).map_err(|error| failed(error.to_string()))?;
            }
            if roots.is_empty() {
                return Err(failed("no certificate in it".to_owned()));
            }
        }
        None => {
            for certificate in rustls_native_certs::load_native_certs().certs {
                // One of the system's that cannot be read is no reason to do without the others.
                let _ = roots.add(certificate);
            }
        }
    }
    Ok(roots)
}

/// Takes every certificate, and checks that the server has its key: encrypted, and not known to whom.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use lighter_protocol::Keypair;
    use lighter_test_postgres::Postgres;

    use super::*;
    use crate::PostgresCatalog;

    // SPEC: D10
    #[tokio::test(flavor = "multi_thread")]
    async fn a_connection_is_encrypted_and_the_server_known_where_that_is_asked_for() {
        let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (right, wrong) = (folder.path().join("right.pem"), folder.path().join("wrong.pem"));
        std::fs::write(&right, own.cert.pem()).unwrap();
        std::fs::write(&wrong, other.cert.pem()).unwrap();
        let postgres = Postgres::start_with_tls(&own.cert.pem(), &own.key_pair.serialize_pem());
        let relay = Keypair::generate_ed25519().public().to_peer_id();
        let verified = |issuers: &PathBuf| DatabaseTls::Verified { issuers: Some(issuers.clone()) };
        for (mail, host, tls, reaches) in [
            ("mail1", "localhost", verified(&right), true),
            ("mail2", "localhost", verified(&wrong), false),
            ("mail3", "127.0.0.1", verified(&right), false),
            ("mail4", "localhost", DatabaseTls::Unverified, true),
            ("mail5", "localhost", DatabaseTls::Off, true),
        ] {
            postgres.create_database(mail);
            let asked = format!("{host}, {tls:?}");
            let encrypted = tls != DatabaseTls::Off;
            let config =
                PostgresConfig { tls, ..PostgresConfig::new(postgres.tls_url(host, mail), relay, "mx") };
            let opened = PostgresCatalog::open(&config).await;
            assert_eq!(opened.is_ok(), reaches, "{asked}");
            if reaches {
                let catalog = opened.unwrap();
                let asking = tokio::task::spawn_blocking(move || catalog.relays().map(|_| catalog));
                let _kept = asking.await.unwrap().unwrap();
                let used = "SELECT bool_or(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
                    WHERE datname = current_database() AND application_name = 'lighter-relay'";
                assert_eq!(postgres.sql(mail, used) == "t", encrypted, "{asked}");
            }
        }
    }

    #[test]
    fn a_url_that_cannot_be_read_is_not_told() {
        let relay = Keypair::generate_ed25519().public().to_peer_id();
        let config = PostgresConfig::new("postgresql://lighter:secret@[db/mail", relay, "mx");
        let error = config.client().unwrap_err();
        assert!(!error.to_string().contains("secret"));
    }
}
