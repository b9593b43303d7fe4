//! `none` is one answer: byte for byte, and in time (SPEC A15, D9).

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lighter_transport::location::{Scope, Secret};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::world::{World, mailbox};

/// One kept-alive connection, spoken by hand, so that every byte is seen.
struct RawClient {
    stream: TcpStream,
    token: Secret,
}

impl RawClient {
    async fn connect(address: SocketAddr, token: &Secret) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, token: token.clone() }
    }

    /// The whole answer, but for the date.
    async fn ask(&mut self, method: &str, path: &str, body: &str) -> String {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            self.token.expose(),
            body.len()
        );
        self.stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        loop {
            let mut bytes = [0; 4096];
            let len = self.stream.read(&mut bytes).await.unwrap();
            assert_ne!(len, 0, "closed");
            answer.extend_from_slice(&bytes[..len]);
            let text = String::from_utf8_lossy(&answer);
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
                if body.len() == length.parse::<usize>().unwrap() {
                    let lines = text.split("\r\n").filter(|line| !line.starts_with("date: "));
                    return lines.collect::<Vec<_>>().join("\r\n");
                }
            }
        }
    }

    async fn store(&mut self, name: &str) -> String {
        self.ask("GET", &format!("/v1/stores/{name}"), "").await
    }

    async fn lookup(&mut self, name: &str) -> String {
        self.ask("POST", "/v1/lookup", &format!("{{\"mailboxes\":[\"{name}\"]}}")).await
    }

    async fn introduction(&mut self, name: &str) -> String {
        self.ask("POST", "/v1/introductions", &format!("{{\"recipient\":\"{name}\",\"bytes\":1}}")).await
    }
}

/// Names of one length, so that the requests differ in nothing else.
const UNKNOWN: &str = "nobody@example.org";
const NOT_ENDOWED: &str = "invite@example.org";
const ENROLLED: &str = "enroll@example.org";
const NOT_ACCEPTED: &str = "friend@another.org";
const ENDOWED: &str = "fellow@example.org";

/// A server where there is one of each, and the session of a store at example.org.
async fn world() -> (World, Secret) {
    let world = World::start_with(|config| {
        config.rates.session_names_per_s = 1_000_000;
        config.rates.session_calls_per_s = 1_000_000;
    })
    .await;
    let (_, session) = world.online("sender@example.org").await;
    world.server.invite(&mailbox(NOT_ENDOWED)).await.unwrap();
    world.enrolled(ENROLLED).await;
    world.online(NOT_ACCEPTED).await;
    world.online(ENDOWED).await;
    (world, session)
}

#[tokio::test]
async fn bad_input_42_unknown_not_endowed_and_not_accepted_differ_in_no_byte() {
    let (world, session) = world().await;
    let mut client = RawClient::connect(world.server.address(), &session).await;
    let none = client.store(UNKNOWN).await;
    assert!(none.starts_with("HTTP/1.1 200 OK\r\n") && none.ends_with("{\"store\":null}"), "{none}");
    let none_in_batch = client.lookup(UNKNOWN).await;
    let none_introduced = client.introduction(UNKNOWN).await;
    for name in [NOT_ENDOWED, ENROLLED, NOT_ACCEPTED] {
        assert_eq!(client.store(name).await, none, "{name}");
        assert_eq!(client.lookup(name).await, none_in_batch, "{name}");
        assert_eq!(client.introduction(name).await, none_introduced, "{name}");
    }
    assert_ne!(client.store(ENDOWED).await, none, "the test can fail");
    assert_ne!(client.introduction(ENDOWED).await, none_introduced);
}

#[tokio::test]
async fn bad_input_42_a_text_that_is_no_mailbox_has_no_store_like_any_unknown_one() {
    let (world, session) = world().await;
    let mut client = RawClient::connect(world.server.address(), &session).await;
    let none = client.store(UNKNOWN).await;
    for name in ["no-at-sign", "%00@example.org", "a%20b@example.org", "%3Cscript%3E@example.org"] {
        assert_eq!(client.store(name).await, none, "{name}");
    }
}

/// Coarse on purpose: medians of interleaved questions within a factor of two and 200 µs of each other. What this
/// would notice is work that one kind causes and another does not: a signature, a disk, a lock that waits for one.
#[tokio::test]
async fn bad_input_42_the_answers_take_the_same_time() {
    const ROUNDS: usize = 300;
    let (world, session) = world().await;
    let mut client = RawClient::connect(world.server.address(), &session).await;
    let names = [UNKNOWN, NOT_ENDOWED, ENROLLED, NOT_ACCEPTED];
    let mut times = [const { Vec::new() }; 4];
    for round in 0..ROUNDS {
        for position in 0..names.len() {
            // Each kind follows each other one as often: what the one before left in a cache evens out.
            let kind = (position + round) % names.len();
            let start = Instant::now();
            client.introduction(names[kind]).await;
            times[kind].push(start.elapsed());
        }
    }
    let medians = times.map(|mut times| {
        times.sort();
        times[ROUNDS / 2]
    });
    let (fastest, slowest) = (medians.iter().min().unwrap(), medians.iter().max().unwrap());
    assert!(*slowest <= *fastest * 2 + Duration::from_micros(200), "{medians:?}");
}

#[tokio::test]
async fn bad_input_42_a_wrong_token_learns_nothing_and_a_guesser_is_slowed_down() {
    let (world, _) = world().await;
    let mut client = RawClient::connect(world.server.address(), &Secret::new("lapi_wrong")).await;
    let refused = client.store(ENDOWED).await;
    assert!(refused.starts_with("HTTP/1.1 401 "), "{refused}");
    assert_eq!(client.store(UNKNOWN).await, refused);
    let mut answers = 2;
    while client.store(UNKNOWN).await.starts_with("HTTP/1.1 401 ") {
        answers += 1;
        assert!(answers < 10_000, "never slowed down");
    }
    let slowed = client.store(UNKNOWN).await;
    assert!(slowed.starts_with("HTTP/1.1 429 ") && slowed.contains("\r\nretry-after: "), "{slowed}");
    // Who has a token is not slowed down by strangers behind the same address.
    let token = world.token(&[Scope::Lookup]).await;
    let mut client = RawClient::connect(world.server.address(), &token).await;
    assert!(client.store(ENDOWED).await.starts_with("HTTP/1.1 200 "));
}
