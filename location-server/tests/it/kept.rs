//! A client's connections that were kept, and that the server closes just when they are used again.

use std::sync::{Arc, Mutex};

use lighter_protocol::{Keypair, Mailbox};
use lighter_transport::location::{LocationClient, Secret};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Reads a request: its first line; none where the client hangs up.
async fn asked(stream: &mut TcpStream) -> Option<String> {
    let mut asked = Vec::new();
    let mut piece = [0; 4_096];
    loop {
        match stream.read(&mut piece).await {
            Ok(len) if len > 0 => asked.extend_from_slice(&piece[..len]),
            _ => return None,
        }
        let Some(head) = asked.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let text = String::from_utf8(asked[..head].to_vec()).unwrap();
        let len = text
            .to_lowercase()
            .split_once("content-length: ")
            .map_or(0, |(_, rest)| rest.lines().next().unwrap().parse::<usize>().unwrap());
        if asked.len() >= head + 4 + len {
            return text.lines().next().map(ToOwned::to_owned);
        }
    }
}

/// A server that answers one request on each connection, keeps it, and hangs up when it is asked once more. What it was asked.
async fn server() -> (LocationClient, Arc<Mutex<Vec<String>>>) {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = LocationClient::new(&format!("http://{}", listener.local_addr().unwrap()), None).unwrap();
    let all = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&all);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let seen = Arc::clone(&seen);
            tokio::spawn(async move {
                let Some(first) = asked(&mut stream).await else { return };
                seen.lock().unwrap().push(first);
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
                let Some(second) = asked(&mut stream).await else { return };
                seen.lock().unwrap().push(second);
            });
        }
    });
    (client, all)
}

#[tokio::test]
async fn what_may_come_twice_is_asked_again_where_a_kept_connection_was_closed() {
    let (client, all) = server().await;
    let session = Secret::new("session");
    for _ in 0..20 {
        client.offline(&session).await.unwrap();
    }
    let count = |what: &str| all.lock().unwrap().iter().filter(|asked| asked.contains(what)).count();
    assert!(count("/v1/offline") > 20, "none of them was on a connection that was kept");
    // A token is good once: whether it was used is not known.
    let mailbox: Mailbox = "alice@example.org".parse().unwrap();
    for times in 1..=5 {
        assert!(client.enrol(&Keypair::generate_ed25519(), &session, &mailbox).await.is_err());
        assert_eq!(count("/v1/enrol"), times);
        client.offline(&session).await.unwrap();
    }
}
