use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::tls::STORAGE_ALPN;

const OTHER_ALPN: &[u8] = b"lighter-other/1";

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A server that accepts one connection and writes one byte to it.
async fn serve_one(listener: TcpListener, server: TcpTls) -> Result<PeerId, TcpTlsError> {
    let (socket, _) = listener.accept().await.unwrap();
    let (mut stream, peer) = server.accept(socket).await?;
    stream.write_all(b"!").await.unwrap();
    stream.shutdown().await.unwrap();
    Ok(peer)
}

// SPEC: C2
#[tokio::test]
async fn both_sides_know_each_other_by_peer_id() {
    let (ours, theirs) = (Identity::generate(), Identity::generate());
    let (listener, address) = listener().await;
    let serving = tokio::spawn(serve_one(listener, TcpTls::new(&theirs, STORAGE_ALPN).unwrap()));

    let client = TcpTls::new(&ours, STORAGE_ALPN).unwrap();
    let mut stream = client.connect(address, theirs.peer()).await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'!');
    let certificates = stream.get_ref().1.peer_certificates().unwrap();
    assert_eq!(tls::peer_id_of(certificates).unwrap(), theirs.peer());
    assert_eq!(serving.await.unwrap().unwrap(), ours.peer());
}

#[tokio::test]
async fn bad_input_34_a_server_with_another_key_than_expected_is_refused() {
    let (listener, address) = listener().await;
    let server = TcpTls::new(&Identity::generate(), STORAGE_ALPN).unwrap();
    let serving = tokio::spawn(serve_one(listener, server));

    let client = TcpTls::new(&Identity::generate(), STORAGE_ALPN).unwrap();
    let refused = client.connect(address, Identity::generate().peer()).await;
    assert!(matches!(refused, Err(TcpTlsError::Handshake(_))));
    assert!(serving.await.unwrap().is_err());
}

#[tokio::test]
async fn another_protocol_is_refused() {
    let theirs = Identity::generate();
    let (listener, address) = listener().await;
    let serving = tokio::spawn(serve_one(listener, TcpTls::new(&theirs, STORAGE_ALPN).unwrap()));
    let client = TcpTls::new(&Identity::generate(), OTHER_ALPN).unwrap();
    assert!(client.connect(address, theirs.peer()).await.is_err());
    assert!(serving.await.unwrap().is_err());
}

#[tokio::test]
async fn a_client_that_names_no_protocol_is_refused() {
    let theirs = Identity::generate();
    let (listener, address) = listener().await;
    let serving = tokio::spawn(serve_one(listener, TcpTls::new(&theirs, STORAGE_ALPN).unwrap()));

    let mut config = tls::client_config(&Identity::generate(), None, STORAGE_ALPN).unwrap();
    config.alpn_protocols.clear();
    let socket = TcpStream::connect(address).await.unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    let _stream = connector.connect(ServerName::from(address.ip()), socket).await;
    assert!(matches!(serving.await.unwrap(), Err(TcpTlsError::Alpn)));
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused() {
    let theirs = Identity::generate();
    let (listener, address) = listener().await;
    let serving = tokio::spawn(serve_one(listener, TcpTls::new(&theirs, STORAGE_ALPN).unwrap()));

    let mut config = tls::client_config(&Identity::generate(), None, STORAGE_ALPN).unwrap();
    config.client_auth_cert_resolver = Arc::new(NoCertificate);
    let socket = TcpStream::connect(address).await.unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    // TLS 1.3: the client's side of the handshake may end before the server's does; the first read tells.
    if let Ok(mut stream) = connector.connect(ServerName::from(address.ip()), socket).await {
        assert!(stream.read_u8().await.is_err());
    }
    assert!(matches!(serving.await.unwrap(), Err(TcpTlsError::Handshake(_))));
}

#[tokio::test]
async fn garbage_instead_of_tls_is_refused() {
    let (listener, address) = listener().await;
    let server = TcpTls::new(&Identity::generate(), STORAGE_ALPN).unwrap();
    for garbage in
        [b"GET / HTTP/1.1\r\n\r\n".to_vec(), vec![0; 70_000], vec![0x16, 3, 1, 0xff, 0xff, 1, 0, 0]]
    {
        let mut socket = TcpStream::connect(address).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        let sending = tokio::spawn(async move {
            let _ = socket.write_all(&garbage).await;
            let _ = socket.shutdown().await;
            let mut rest = Vec::new();
            let _ = socket.read_to_end(&mut rest).await;
        });
        assert!(matches!(server.accept(accepted).await, Err(TcpTlsError::Handshake(_))));
        sending.await.unwrap();
    }
}

// bad_input_11 at this level: a connection that says nothing.
#[tokio::test]
async fn bad_input_11_a_silent_client_is_dropped_in_time() {
    let (listener, address) = listener().await;
    let server = TcpTls::new(&Identity::generate(), STORAGE_ALPN).unwrap();
    let server = server.with_handshake_time_max(Duration::from_millis(50));
    let _silent = TcpStream::connect(address).await.unwrap();
    let (accepted, _) = listener.accept().await.unwrap();
    assert!(matches!(server.accept(accepted).await, Err(TcpTlsError::TimedOut)));
}

/// A client that has no certificate to show.
#[derive(Debug)]
struct NoCertificate;

impl rustls::client::ResolvesClientCert for NoCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<rustls::sign::CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}
