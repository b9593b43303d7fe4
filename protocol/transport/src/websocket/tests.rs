//! Where a WebSocket may lead, and what is said where there is none. What is in them: `tunnel/tests.rs`.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

async fn connect(origin: &str, proxies: Proxies, allowed: bool) -> Result<(), NoWebSocket> {
    WebSockets::new(proxies, None).connect(origin, |_| allowed).await.map(drop)
}

#[tokio::test]
async fn bad_input_36_an_address_that_may_not_be_dialled_is_not_asked_also_not_of_a_proxy() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let here = listener.local_addr().unwrap();
    let proxies = Proxies::all(&format!("http://{here}"), "").unwrap();
    for (origin, proxies) in [
        (format!("http://{here}"), Proxies::none()),
        ("http://localhost:1".to_owned(), Proxies::none()),
        ("http://169.254.169.254".to_owned(), proxies.clone()),
        ("https://[fe80::1]".to_owned(), proxies),
    ] {
        let refused = connect(&origin, proxies, false).await.unwrap_err();
        assert!(matches!(refused, NoWebSocket::NoAddress), "{origin}: {refused:?}");
    }
    let knocked = timeout(Duration::from_millis(200), listener.accept()).await;
    assert!(knocked.is_err(), "somebody was asked");
}

#[tokio::test]
async fn what_is_no_web_server_or_takes_no_websockets_is_said_so() {
    assert!(matches!(connect("nonsense", Proxies::none(), true).await.unwrap_err(), NoWebSocket::Address));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let here = listener.local_addr().unwrap();
    for answer in [
        "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        "SSH-2.0-OpenSSH\r\n",
        "",
    ] {
        let answering = async {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut asked = [0; 1024];
            let len = socket.read(&mut asked).await.unwrap();
            socket.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&asked[..len]).into_owned()
        };
        let origin = format!("http://{here}");
        let (refused, asked) = tokio::join!(connect(&origin, Proxies::none(), true), answering);
        assert!(matches!(refused.unwrap_err(), NoWebSocket::Refused(_)), "{answer}");
        assert!(asked.starts_with("GET /lighter HTTP/1.1\r\n"), "{asked}");
    }
    drop(listener);
    let nobody = connect(&format!("http://{here}"), Proxies::none(), true).await.unwrap_err();
    assert!(matches!(nobody, NoWebSocket::Connect(_)));
}
