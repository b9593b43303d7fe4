//! TLS 1.3 in which both sides are PeerIds, in libp2p's TLS form.
//!
//! Each side shows one self-signed certificate of a throw-away key; an extension in it is signed with the peer's own key
//! (<https://github.com/libp2p/specs/blob/master/tls/tls.md>). Who connects is thereby a PeerId, and a client that names
//! the PeerId it expects gets that one or an error. No names, no certificate authorities, no resumption (a resumed
//! session would carry an old proof), no early data, no key log: `SSLKEYLOGFILE` has no effect.
//!
//! Certificates are made and parsed by `libp2p-tls`; the rustls configurations are our own, for a cipher order that is
//! fast on today's processors and without that crate's key log.
//!
//! Note for clients: in TLS 1.3 the client's handshake ends before the server has looked at the client's certificate. Only
//! the first application byte from the server tells that it accepted.

use std::sync::Arc;

use libp2p_tls::certificate;
use lighter_protocol::{PeerId, signed};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, cipher_suite};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, PeerIncompatible, ServerConfig,
    SignatureScheme,
};

use crate::identity::Identity;

/// The protocol between peers (QUIC), as named in the handshake.
pub use lighter_protocol::wire::ALPN;
/// The storage protocol between a relay and its storage servers (TCP), as named in the handshake (RFC 7301).
pub const STORAGE_ALPN: &[u8] = b"lighter-storage/1";

/// Why there is no TLS configuration, or no PeerId.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The key could not make a certificate.
    #[error("cannot make a certificate from this key")]
    Certificate(#[from] certificate::GenError),
    /// rustls refused the configuration.
    #[error("cannot configure TLS")]
    Configure(#[from] rustls::Error),
    /// The peer showed no certificate, more than one, or one that does not prove an Ed25519 key.
    #[error("the peer's certificate does not prove a PeerId")]
    PeerCertificate,
}

/// The client's side: shows `identity`, speaks `alpn`, and refuses every server but `expected` (where that is given).
///
/// # Errors
/// [`TlsError::Certificate`] or [`TlsError::Configure`]; neither happens with a working generator.
pub fn client_config(
    identity: &Identity,
    expected: Option<PeerId>,
    alpn: &[u8],
) -> Result<ClientConfig, TlsError> {
    let provider = provider();
    let shown = Arc::new(SingleCertAndKey::from(certified_key(identity, &provider)?));
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PeerVerifier { expected }))
        .with_client_cert_resolver(shown);
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Ok(config)
}

/// The server's side: shows `identity`, speaks `alpn`, and asks every client to prove its PeerId.
///
/// # Errors
/// As [`client_config`].
pub fn server_config(identity: &Identity, alpn: &[u8]) -> Result<ServerConfig, TlsError> {
    let provider = provider();
    let shown = Arc::new(SingleCertAndKey::from(certified_key(identity, &provider)?));
    let mut config = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(PeerVerifier { expected: None }))
        .with_cert_resolver(shown);
    config.alpn_protocols = vec![alpn.to_vec()];
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// Who the other side is, from the certificates that its handshake left.
///
/// # Errors
/// [`TlsError::PeerCertificate`].
pub fn peer_id_of(certificates: &[CertificateDer<'_>]) -> Result<PeerId, TlsError> {
    let [only] = certificates else { return Err(TlsError::PeerCertificate) };
    prove(only, &[]).map_err(|_| TlsError::PeerCertificate)
}

/// aws-lc-rs with the three TLS 1.3 suites, AES-128 first: the fastest where AES is in hardware, which is where bulk flows.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites = vec![
        cipher_suite::TLS13_AES_128_GCM_SHA256,
        cipher_suite::TLS13_AES_256_GCM_SHA384,
        cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    Arc::new(provider)
}

fn certified_key(identity: &Identity, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    let (certificate, key) = certificate::generate(identity.keypair())?;
    let key = provider.key_provider.load_private_key(key)?;
    Ok(CertifiedKey::new(vec![certificate], key))
}

/// The PeerId that a certificate chain proves: one certificate, in libp2p's form, of an Ed25519 key.
fn prove(
    end_entity: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
) -> Result<PeerId, rustls::Error> {
    if !intermediates.is_empty() {
        return Err(CertificateError::BadEncoding.into());
    }
    let peer = certificate::parse(end_entity)?.peer_id();
    match signed::public_key(&peer) {
        Ok(_) => Ok(peer),
        Err(_) => Err(CertificateError::ApplicationVerificationFailure.into()),
    }
}

/// How a certificate's throw-away key may sign: what libp2p's specification recommends, without RSA.
const SIGNATURE_SCHEMES: &[SignatureScheme] = &[
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::ED25519,
];

/// Checks the other side's certificate; `expected` is set on a client that knows whom it wants.
#[derive(Debug)]
struct PeerVerifier {
    expected: Option<PeerId>,
}

/// libp2p's own check, since webpki refuses certificates with a critical extension that it does not know.
fn verify_signature(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, rustls::Error> {
    let certificate = certificate::parse(certificate)?;
    certificate.verify_signature(signature.scheme, message, signature.signature())?;
    Ok(HandshakeSignatureValid::assertion())
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let peer = prove(end_entity, intermediates)?;
        if self.expected.is_some_and(|expected| expected != peer) {
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SIGNATURE_SCHEMES.to_vec()
    }
}

impl ClientCertVerifier for PeerVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        prove(end_entity, intermediates)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SIGNATURE_SCHEMES.to_vec()
    }
}

#[cfg(test)]
mod tests {
    use rustls::{ClientConnection, ServerConnection};

    use super::*;

    /// Runs a handshake in memory, and gives both ends of it.
    fn handshake(
        client: ClientConfig,
        server: ServerConfig,
    ) -> Result<(ClientConnection, ServerConnection), rustls::Error> {
        let name = ServerName::from(std::net::IpAddr::from([127, 0, 0, 1]));
        let mut client = ClientConnection::new(Arc::new(client), name)?;
        let mut server = ServerConnection::new(Arc::new(server))?;
        while client.is_handshaking() || server.is_handshaking() {
            let mut bytes = Vec::new();
            client.write_tls(&mut bytes).unwrap();
            server.read_tls(&mut &bytes[..]).unwrap();
            server.process_new_packets()?;
            bytes.clear();
            server.write_tls(&mut bytes).unwrap();
            client.read_tls(&mut &bytes[..]).unwrap();
            client.process_new_packets()?;
        }
        Ok((client, server))
    }

    #[test]
    fn libp2ps_own_client_and_server_understand_ours() {
        let (one, other) = (Identity::generate(), Identity::generate());
        let mut theirs = libp2p_tls::make_client_config(one.keypair(), Some(other.peer())).unwrap();
        theirs.alpn_protocols = vec![ALPN.to_vec()];
        let (_, server) = handshake(theirs, server_config(&other, ALPN).unwrap()).unwrap();
        assert_eq!(peer_id_of(server.peer_certificates().unwrap()).unwrap(), one.peer());

        let mut theirs = libp2p_tls::make_server_config(other.keypair()).unwrap();
        theirs.alpn_protocols = vec![ALPN.to_vec()];
        let ours = client_config(&one, Some(other.peer()), ALPN).unwrap();
        let (client, _) = handshake(ours, theirs).unwrap();
        assert_eq!(peer_id_of(client.peer_certificates().unwrap()).unwrap(), other.peer());
    }

    #[test]
    fn there_is_no_key_log_no_resumption_and_no_early_data() {
        let identity = Identity::generate();
        let (client, server) =
            (client_config(&identity, None, ALPN).unwrap(), server_config(&identity, ALPN).unwrap());
        for label in ["CLIENT_RANDOM", "CLIENT_TRAFFIC_SECRET_0", "SERVER_TRAFFIC_SECRET_0"] {
            assert!(!client.key_log.will_log(label) && !server.key_log.will_log(label));
        }
        assert!(
            !client.enable_early_data && server.max_early_data_size == 0 && server.send_tls13_tickets == 0
        );
    }

    #[test]
    fn bad_input_34_a_forged_certificate_proves_nobody() {
        let mut secret = [7_u8; 32];
        let Ok(keypair) = libp2p_identity::Keypair::ed25519_from_bytes(&mut secret) else { panic!("a key") };
        let identity = Identity::from_keypair(keypair).unwrap();
        let (certificate, _) = certificate::generate(identity.keypair()).unwrap();
        assert_eq!(peer_id_of(std::slice::from_ref(&certificate)).unwrap(), identity.peer());
        let two = [certificate.clone(), certificate.clone()];
        assert!(peer_id_of(&two).is_err() && peer_id_of(&[]).is_err());
        // A changed byte anywhere proves nothing, or at least nobody else.
        for at in 0..certificate.len() {
            let mut changed = certificate.to_vec();
            changed[at] ^= 0x20;
            let proved = peer_id_of(&[CertificateDer::from(changed)]);
            assert!(proved.is_err() || proved.unwrap() == identity.peer(), "byte {at}");
        }
    }
}
