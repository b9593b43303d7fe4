//! The finder against name servers and web servers that are sockets of the test's own; real ones are in tests/e2e.

use super::*;

fn finder(domains: &[(&str, &str)], name_servers: &[std::net::SocketAddr]) -> Finder {
    let domains = domains.iter().map(|(domain, url)| ((*domain).to_owned(), (*url).to_owned())).collect();
    let config = FindingConfig { domains, name_servers: name_servers.to_vec(), ..FindingConfig::default() };
    Finder::new(&config).unwrap()
}

/// A name server that says of everything that there is no such name, and counts the questions.
async fn no_such_name() -> (std::net::SocketAddr, Arc<std::sync::atomic::AtomicUsize>) {
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let count = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = count.clone();
    tokio::spawn(async move {
        let mut packet = [0; 1500];
        while let Ok((len, from)) = socket.recv_from(&mut packet).await {
            counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            // A response (QR), recursion available, NXDOMAIN; one question, echoed, and nothing else.
            let question_end =
                packet[12..len].iter().position(|&byte| byte == 0).map_or(len, |at| 12 + at + 5);
            let mut answer = packet[..question_end].to_vec();
            answer[2] = 0x81;
            answer[3] = 0x83;
            answer[4..12].copy_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
            socket.send_to(&answer, from).await.unwrap();
        }
    });
    (address, count)
}

#[tokio::test]
async fn a_domain_without_one_is_asked_once_however_many_want_to_know() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let (address, count) = no_such_name().await;
    let finder = finder(&[], &[address]);
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let finder = finder.clone();
        asking.spawn(async move { finder.find("nothing.example").await.map(|_| ()) });
    }
    while let Some(answer) = asking.join_next().await {
        assert_eq!(answer.unwrap(), Err(NotFound::None));
    }
    let once = count.load(std::sync::atomic::Ordering::Relaxed);
    assert!((1..=6).contains(&once), "{once}: SRV, A and AAAA of one domain, perhaps told twice");
    assert_eq!(finder.find("nothing.example").await.map(|_| ()), Err(NotFound::None));
    assert_eq!(count.load(std::sync::atomic::Ordering::Relaxed), once, "remembered");
}

#[tokio::test]
async fn a_name_server_that_is_away_is_no_proof_that_there_is_none() {
    let silent = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let finder = finder(&[], &[silent.local_addr().unwrap()]);
    let start = Instant::now();
    assert_eq!(finder.find("a.example").await.map(|_| ()), Err(NotFound::Failed));
    assert!(start.elapsed() < 3 * FINDING_TIME_MAX);
    let start = Instant::now();
    assert_eq!(finder.find("a.example").await.map(|_| ()), Err(NotFound::Failed));
    assert!(start.elapsed() < FINDING_TIME_MAX / 2, "not waited for again at once");
}

#[tokio::test]
async fn a_name_that_is_not_in_dns_is_not_asked_for() {
    let (address, count) = no_such_name().await;
    let finder = finder(&[], &[address]);
    for domain in ["localhost", "printer.local", "10.0.0.1", "x.onion"] {
        assert_eq!(finder.find(domain).await.map(|_| ()), Err(NotFound::None), "{domain}");
    }
    assert_eq!(count.load(std::sync::atomic::Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_server_that_is_set_by_hand_and_away_is_said_to_have_failed() {
    let finder = finder(&[("A.example", "http://127.0.0.1:1")], &[]);
    assert_eq!(finder.find("a.example").await.map(|_| ()), Err(NotFound::Failed));
}
