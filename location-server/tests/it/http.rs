//! Requests that no client of ours makes.

use std::net::SocketAddr;
use std::time::Duration;

use lighter_transport::location::Scope;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::world::{World, mailbox};

/// Sends bytes as they are; everything that comes back until the server closes.
pub(crate) async fn raw(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The server may answer, and close, before it has read all.
    let _ = stream.write_all(request).await;
    let mut answer = Vec::new();
    let read = async {
        let mut bytes = [0; 4096];
        loop {
            match stream.read(&mut bytes).await {
                Ok(0) | Err(_) => return,
                Ok(len) => answer.extend_from_slice(&bytes[..len]),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), read).await.expect("the server closes");
    String::from_utf8_lossy(&answer).into_owned()
}

fn post(path: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n{headers}content-length: {length}\r\n\r\n{body}")
        .into_bytes()
}

/// One request with a JSON body; its whole answer.
pub(crate) async fn ask(address: SocketAddr, path: &str, body: &str) -> String {
    raw(address, &post(path, "", body)).await
}

#[tokio::test]
async fn bad_input_41_a_huge_body_is_refused_before_it_is_read() {
    let world = World::start().await;
    let head = "POST /v1/enrol HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 1073741824\r\n\r\n{";
    let answer = raw(world.server.address(), head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(answer.contains("\"error\":\"too-large\""), "{answer}");
}

#[tokio::test]
async fn bad_input_41_json_nested_ten_thousand_deep_is_refused() {
    let world = World::start().await;
    for nested in
        ["[".repeat(10_000), "{\"a\":".repeat(10_000), format!("{{\"token\":{}", "[".repeat(10_000))]
    {
        let answer = raw(world.server.address(), &post("/v1/enrol", "", &nested)).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }
}

#[tokio::test]
async fn bad_input_41_headers_of_a_mebibyte_or_ten_thousand_lines_are_refused() {
    let world = World::start().await;
    let long = format!("GET /healthz HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(1 << 20));
    let many = format!("GET /healthz HTTP/1.1\r\nhost: x\r\n{}\r\n", "x: y\r\n".repeat(10_000));
    let target = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "y".repeat(1 << 20));
    for request in [long, many, target] {
        let answer = raw(world.server.address(), request.as_bytes()).await;
        let refused = answer.starts_with("HTTP/1.1 431 ") || answer.starts_with("HTTP/1.1 414 ");
        assert!(refused || answer.is_empty(), "{answer}");
    }
    still_well(&world).await;
}

#[tokio::test]
async fn bad_input_41_a_length_said_twice_or_in_two_ways_is_refused_and_the_connection_closed() {
    let world = World::start().await;
    let smuggled = "GET /v1/domain HTTP/1.1\r\nhost: smuggled\r\n\r\n";
    let head = "POST /v1/enrol HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
    let chunked = "transfer-encoding: chunked\r\n";
    let variants = [
        "content-length: 2\r\ncontent-length: 9\r\n".to_owned(),
        format!("content-length: 2\r\n{chunked}"),
        format!("{chunked}content-length: 2\r\n"),
        "transfer-encoding: chunked, identity\r\n".to_owned(),
        "transfer-encoding: identity\r\ncontent-length: 2\r\n".to_owned(),
        "content-length: -1\r\n".to_owned(),
        "content-length: 2, 2\r\n".to_owned(),
        "content-length: +2\r\n".to_owned(),
        chunked.to_owned(),
    ];
    for headers in variants {
        let request = format!("{head}{headers}\r\n0\r\n\r\n{smuggled}");
        let answer = raw(world.server.address(), request.as_bytes()).await;
        let refused = answer.starts_with("HTTP/1.1 400 ") || answer.starts_with("HTTP/1.1 411 ");
        assert!(refused, "{headers:?}: {answer}");
        assert!(!answer.contains("\"domains\""), "{headers:?}: the request behind it was answered: {answer}");
    }
    still_well(&world).await;
}

#[tokio::test]
async fn bodies_of_another_type_or_shape_are_refused_in_chosen_words() {
    let world = World::start().await;
    let text = "POST /v1/enrol HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\n{}";
    assert!(raw(world.server.address(), text.as_bytes()).await.starts_with("HTTP/1.1 415 "));
    for body in
        ["", "{}", "null", "[]", "{\"registration\":\"AAAA\"}", "{\"registration\":\"<script>\"}", "\u{0}"]
    {
        let answer = raw(world.server.address(), &post("/v1/register", "", body)).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{body}: {answer}");
        assert!(!answer.contains("script") && !answer.contains("line 1"), "an inner error's words: {answer}");
    }
}

#[tokio::test]
async fn a_batch_over_a_thousand_names_is_refused() {
    let world = World::start().await;
    let token = world.token(&[Scope::Lookup]).await;
    let names = vec!["\"a@b\""; 1_001].join(",");
    let authorization = format!("authorization: Bearer {}\r\n", token.expose());
    let body = format!("{{\"mailboxes\":[{names}]}}");
    let answer = raw(world.server.address(), &post("/v1/lookup", &authorization, &body)).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

#[tokio::test]
async fn garbage_instead_of_http_or_tls_hurts_nobody() {
    let world = World::start().await;
    for garbage in
        [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], b"\0\0\0\0\r\n\r\n", b"EHLO x\r\n\r\n"]
    {
        let answer = raw(world.server.address(), garbage).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }
    still_well(&world).await;
}

#[tokio::test]
async fn metrics_are_for_this_machine_and_not_through_a_proxy() {
    let world = World::start().await;
    world.online("alice@example.org").await;
    let direct = "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let answer = raw(world.server.address(), direct.as_bytes()).await;
    assert!(answer.contains("lighter_location_stores_online 1"), "{answer}");
    let proxied = "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-forwarded-for: 8.8.8.8\r\n\r\n";
    assert!(raw(world.server.address(), proxied.as_bytes()).await.starts_with("HTTP/1.1 404 "));
}

#[tokio::test]
async fn unknown_paths_and_methods_get_the_same_shape_of_answer() {
    let world = World::start().await;
    for (request, status) in
        [("GET /nothing", "404"), ("DELETE /v1/domain", "405"), ("GET /v1/relays", "405")]
    {
        let request = format!("{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        let answer = raw(world.server.address(), request.as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert!(answer.contains("\"error\":\"not-found\""), "{answer}");
    }
}

/// The service goes on.
async fn still_well(world: &World) {
    let token = world.token(&[Scope::Lookup]).await;
    assert!(world.client.lookup_one(&token, &mailbox("nobody@example.org")).await.unwrap().is_none());
}
