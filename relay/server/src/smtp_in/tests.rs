//! The listeners over real sockets, with a memory behind them.

use std::path::Path;
use std::process::Stdio;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpSocket;
use tokio::process::Command;
use tokio::task::JoinHandle;

use super::*;
use crate::intake::memory::Memory;
use crate::limits::MAIL_CONNECTIONS_PER_PEER_MAX;

/// A certificate for `localhost` and its key, as PEM files in `folder`; and the certificate, to be trusted.
pub(crate) fn certificate(folder: &Path) -> (MailListener, CertificateDer<'static>) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let pem = |label: &str, der: &[u8]| {
        let base64 = data_encoding::BASE64.encode(der);
        let lines: Vec<_> =
            base64.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
    };
    let (certificate, key) = (folder.join("certificate.pem"), folder.join("key.pem"));
    std::fs::write(&certificate, pem("CERTIFICATE", made.cert.der())).unwrap();
    std::fs::write(&key, pem("PRIVATE KEY", &made.key_pair.serialize_der())).unwrap();
    let listener = MailListener { tls_certificate: Some(certificate), tls_key: Some(key), ..listener() };
    (listener, made.cert.der().clone())
}

/// A listener on a port from the kernel.
pub(crate) fn listener() -> MailListener {
    MailListener { listen: vec!["127.0.0.1:0".parse().unwrap()], ..MailListener::default() }
}

/// A server that runs until it is dropped or stopped.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) memory: Arc<Memory>,
    pub(crate) stop: CancellationToken,
    pub(crate) task: JoinHandle<()>,
}

impl Running {
    pub(crate) async fn start(listener: &MailListener, protocol: Protocol) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let server = MailServer::bind(listener, protocol, "mx.example.org").await.unwrap();
        let (address, memory, stop) = (server.addresses()[0], Memory::new(), CancellationToken::new());
        let task = tokio::spawn(server.serve(Arc::new(Arc::clone(&memory)), stop.clone()));
        Self { address, memory, stop, task }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A peer that speaks by hand.
struct Peer {
    stream: BufReader<TcpStream>,
}

impl Peer {
    async fn connect(address: SocketAddr) -> Self {
        let mut peer = Self { stream: BufReader::new(TcpStream::connect(address).await.unwrap()) };
        assert_eq!(peer.reply().await, 220);
        peer
    }

    async fn greeted(address: SocketAddr) -> Self {
        let mut peer = Self::connect(address).await;
        assert_eq!(peer.say("EHLO client.example\r\n").await, 250);
        peer
    }

    async fn write(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    /// The code of the next reply; 0 at the end of the connection.
    async fn reply(&mut self) -> u16 {
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                return 0;
            }
            if line.as_bytes().get(3) == Some(&b' ') {
                return line[..3].parse().unwrap();
            }
        }
    }

    async fn say(&mut self, text: &str) -> u16 {
        self.write(text).await;
        self.reply().await
    }

    /// The codes of what comes until `count` replies were read.
    async fn replies(&mut self, count: usize) -> Vec<u16> {
        let mut codes = Vec::new();
        for _ in 0..count {
            codes.push(self.reply().await);
        }
        codes
    }
}

const START: &str = "MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n";

// SPEC: A20, B20
#[tokio::test]
async fn a_message_comes_in_and_is_answered_when_the_intake_has_it() {
    let server = Running::start(&listener(), Protocol::Smtp).await;
    let mut peer = Peer::greeted(server.address).await;
    peer.write(&format!("{START}RCPT TO:<unknown@d.example>\r\nDATA\r\n..x\r\n.\r\nQUIT\r\n")).await;
    assert_eq!(peer.replies(7).await, [250, 250, 550, 354, 250, 221, 0]);
    let taken = server.memory.taken();
    assert_eq!(taken[0].content, b".x\r\n");
    assert_eq!((taken[0].peer.hello.as_str(), taken[0].peer.tls), ("client.example", false));
    assert_eq!(taken[0].envelope.recipients.len(), 1);
}

#[tokio::test]
async fn bad_input_15_lmtp_answers_for_each_of_three_of_whom_one_fails() {
    let server = Running::start(&listener(), Protocol::Lmtp).await;
    let mut peer = Peer::connect(server.address).await;
    let rcpts = "RCPT TO:<one@d>\r\nRCPT TO:<late@d>\r\nRCPT TO:<three@d>\r\n";
    peer.write(&format!("LHLO c\r\nMAIL FROM:<>\r\n{rcpts}DATA\r\nx\r\n.\r\n")).await;
    assert_eq!(peer.replies(9).await, [250, 250, 250, 250, 250, 354, 250, 452, 250]);
}

#[tokio::test]
async fn a_large_message_comes_through_unchanged() {
    let server = Running::start(&listener(), Protocol::Smtp).await;
    let content: String = (0..200_000).map(|n| format!("line {n}\r\n..\r\n")).collect();
    let mut peer = Peer::greeted(server.address).await;
    peer.write(&format!("{START}DATA\r\n")).await;
    assert_eq!(peer.replies(3).await, [250, 250, 354]);
    peer.write(&content).await;
    assert_eq!(peer.say(".\r\n").await, 250);
    assert_eq!(server.memory.taken()[0].content, content.replace("\r\n..", "\r\n.").as_bytes());
}

#[tokio::test]
async fn starttls_encrypts_what_follows() {
    let folder = tempfile::tempdir().unwrap();
    let (listener, trusted) = certificate(folder.path());
    let server = Running::start(&listener, Protocol::Smtp).await;
    let mut peer = Peer::greeted(server.address).await;
    assert_eq!(peer.say("STARTTLS\r\n").await, 220);
    let mut roots = rustls::RootCertStore::empty();
    roots.add(trusted).unwrap();
    let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let name = ServerName::try_from("localhost").unwrap();
    let mut tls = connector.connect(name, peer.stream.into_inner()).await.unwrap();
    tls.write_all(format!("EHLO c\r\n{START}DATA\r\nx\r\n.\r\nQUIT\r\n").as_bytes()).await.unwrap();
    let mut said = String::new();
    tls.read_to_string(&mut said).await.unwrap();
    assert!(!said.contains("STARTTLS"), "{said}");
    assert!(said.ends_with("221 2.0.0 Bye\r\n"));
    assert!(server.memory.taken()[0].peer.tls);
}

#[tokio::test]
async fn bad_input_04_plain_text_after_starttls_and_garbage_for_tls_end_the_connection() {
    let folder = tempfile::tempdir().unwrap();
    let server = Running::start(&certificate(folder.path()).0, Protocol::Smtp).await;
    let mut peer = Peer::greeted(server.address).await;
    peer.write(&format!("STARTTLS\r\n{START}")).await;
    let mut said = String::new();
    peer.stream.read_to_string(&mut said).await.unwrap();
    assert_eq!(said, "554 5.5.1 Nothing may follow STARTTLS in the clear\r\n");
    let mut peer = Peer::greeted(server.address).await;
    assert_eq!(peer.say("STARTTLS\r\n").await, 220);
    peer.write("\u{16}\u{3}\u{1}garbage that is no ClientHello\r\nNOOP\r\n").await;
    let mut rest = Vec::new();
    let _ = peer.stream.read_to_end(&mut rest).await;
    assert!(!rest.starts_with(b"250"));
    // Others are served as before.
    assert_eq!(Peer::greeted(server.address).await.say("NOOP\r\n").await, 250);
}

#[tokio::test]
async fn bad_input_10_connections_lost_in_and_after_the_content_leave_nothing_half_done() {
    let server = Running::start(&listener(), Protocol::Smtp).await;
    let mut peer = Peer::greeted(server.address).await;
    peer.write(&format!("{START}DATA\r\nhalf of it")).await;
    assert_eq!(peer.replies(3).await, [250, 250, 354]);
    drop(peer);
    server.memory.wait_for(0, 1).await;
    // Before the final reply: the message is taken, nobody hears it.
    let mut peer = Peer::greeted(server.address).await;
    peer.write(&format!("{START}DATA\r\nall of it\r\n.\r\n")).await;
    drop(peer);
    server.memory.wait_for(1, 1).await;
    // Just after it.
    let mut peer = Peer::greeted(server.address).await;
    peer.write(&format!("{START}DATA\r\nall of it\r\n.\r\n")).await;
    assert_eq!(peer.replies(4).await, [250, 250, 354, 250]);
    drop(peer);
    server.memory.wait_for(2, 1).await;
    assert_eq!(Peer::greeted(server.address).await.say("NOOP\r\n").await, 250);
}

#[tokio::test]
async fn bad_input_01_and_02_byte_by_byte_only_the_true_end_ends_the_data() {
    let server = Running::start(&listener(), Protocol::Smtp).await;
    let mut peer = Peer::greeted(server.address).await;
    peer.stream.get_ref().set_nodelay(true).unwrap();
    let good = format!("{START}DATA\r\n..x\r\n\0.\r\n. \r\n.\r\n");
    let smuggled = format!("{START}DATA\r\nx\n.\r\nMAIL FROM:<evil@b>\r\n.\r\n");
    for byte in (good + &smuggled).chars() {
        peer.write(&byte.to_string()).await;
    }
    assert_eq!(peer.replies(8).await, [250, 250, 354, 250, 250, 250, 354, 554]);
    let taken = server.memory.taken();
    assert_eq!(taken.len(), 1);
    assert_eq!(taken[0].content, b".x\r\n\0.\r\n \r\n");
}

/// What the server says to a peer that writes `input` to a greeted session and listens meanwhile.
async fn said_to(server: &Running, input: String) -> Vec<u16> {
    let peer = Peer::greeted(server.address).await;
    let (mut reading, mut writing) = peer.stream.into_inner().into_split();
    let write = tokio::spawn(async move {
        let _ = writing.write_all(input.as_bytes()).await; // The server may have had enough.
        writing
    });
    let mut said = Vec::new();
    let _ = reading.read_to_end(&mut said).await;
    drop(write.await);
    let said = String::from_utf8(said).unwrap();
    said.lines().map(|line| line[..3].parse().unwrap()).collect()
}

#[tokio::test]
async fn bad_input_06_07_and_08_endless_lines_recipients_and_contents_end_the_session_only() {
    let small = MailListener { message_bytes_max: 100_000, ..listener() };
    let server = Running::start(&small, Protocol::Smtp).await;
    assert_eq!(said_to(&server, "x".repeat(1_048_577)).await, [500]);
    let rcpts: String = (0..100_000).map(|n| format!("RCPT TO:<user{n}@d.example>\r\n")).collect();
    let codes = said_to(&server, format!("MAIL FROM:<a@b>\r\n{rcpts}")).await;
    assert_eq!(codes.iter().filter(|code| **code == 250).count(), 1_001);
    assert_eq!(codes.last(), Some(&421));
    let endless = "x".repeat(98) + "\r\n";
    let codes = said_to(
        &server,
        format!("MAIL FROM:<a@b> SIZE=1\r\nRCPT TO:<c@d>\r\nDATA\r\n{}", endless.repeat(10_000)),
    )
    .await;
    assert_eq!(codes, [250, 250, 354, 552]);
    server.memory.wait_for(0, 1).await;
    assert_eq!(Peer::greeted(server.address).await.say("NOOP\r\n").await, 250);
    assert!(server.memory.taken().is_empty());
}

#[tokio::test]
async fn neither_yes_nor_no_closes_the_connection_without_a_word() {
    let server = Running::start(&listener(), Protocol::Smtp).await;
    let mut peer = Peer::greeted(server.address).await;
    peer.write("MAIL FROM:<>\r\nRCPT TO:<drop@d>\r\nDATA\r\nx\r\n.\r\nNOOP\r\n").await;
    assert_eq!(peer.replies(4).await, [250, 250, 354, 0]);
}

#[tokio::test]
async fn bad_input_11_a_thousand_silent_connections_leave_room_for_others() {
    let server = Running::start(&listener(), Protocol::Smtp).await;
    let mut silent = Vec::new();
    for n in 0..1_000 {
        let mut peer = BufReader::new(TcpStream::connect(server.address).await.unwrap());
        let mut line = String::new();
        peer.read_line(&mut line).await.unwrap();
        let expected = if n < MAIL_CONNECTIONS_PER_PEER_MAX { "220" } else { "421" };
        assert_eq!(&line[..3], expected, "connection {n}");
        silent.push(peer);
    }
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut other = Peer { stream: BufReader::new(socket.connect(server.address).await.unwrap()) };
    assert_eq!(other.reply().await, 220);
    other.write(&format!("EHLO c\r\n{START}DATA\r\nx\r\n.\r\n")).await;
    assert_eq!(other.replies(5).await, [250, 250, 250, 354, 250]);
    // A place that is given back can be taken again.
    drop(silent);
    loop {
        let mut peer = BufReader::new(TcpStream::connect(server.address).await.unwrap());
        let mut line = String::new();
        peer.read_line(&mut line).await.unwrap();
        if line.starts_with("220") {
            break;
        }
    }
}

#[tokio::test]
async fn a_server_that_stops_lets_a_message_end() {
    let mut server = Running::start(&listener(), Protocol::Smtp).await;
    let mut idle = Peer::greeted(server.address).await;
    let mut busy = Peer::greeted(server.address).await;
    busy.write(&format!("{START}DATA\r\nx")).await;
    assert_eq!(busy.replies(3).await, [250, 250, 354]);
    server.stop.cancel();
    assert_eq!(idle.replies(2).await, [421, 0]);
    busy.write("\r\n.\r\n").await;
    assert_eq!(busy.replies(3).await, [250, 421, 0]);
    drop((idle, busy));
    (&mut server.task).await.unwrap();
    assert_eq!(server.memory.taken().len(), 1);
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn half_a_tls_configuration_is_refused() {
    let half = MailListener { tls_key: Some("key.pem".into()), ..listener() };
    let refused = MailServer::bind(&half, Protocol::Smtp, "mx").await;
    assert!(matches!(refused, Err(MailServerError::HalfTls)));
}

/// Runs a real mail program; where it is missing, `tests/run` installs it.
async fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().await;
    let output = output.unwrap_or_else(|error| panic!("{program}: {error} (tests/run installs it)"));
    assert!(output.status.success(), "{program}: {output:?}");
}

#[tokio::test]
async fn postfix_own_load_generator_is_served() {
    for (protocol, flags) in [(Protocol::Smtp, &[][..]), (Protocol::Lmtp, &["-L"][..])] {
        let server = Running::start(&listener(), protocol).await;
        let address = format!("inet:127.0.0.1:{}", server.address.port());
        let load = ["-s", "10", "-m", "100", "-l", "10240", "-r", "3", &address];
        run("/usr/sbin/smtp-source", &[flags, &load].concat()).await;
        let taken = server.memory.taken();
        assert_eq!(taken.len(), 100);
        assert!(
            taken
                .iter()
                .all(|message| message.envelope.recipients.len() == 3 && message.content.len() >= 10_240)
        );
    }
}

#[tokio::test]
async fn swaks_sends_what_it_was_told() {
    let server = Running::start(&listener(), Protocol::Smtp).await;
    let to = format!("127.0.0.1:{}", server.address.port());
    let message = ["--from", "a@b.example", "--to", "c@d.example", "--body", ".dot\n..dots"];
    run("swaks", &[&["--server", &to], &message[..]].concat()).await;
    let text = String::from_utf8_lossy(&server.memory.taken()[0].content).into_owned();
    assert!(text.contains("\r\n.dot\r\n..dots\r\n"), "{text}");
}

#[tokio::test]
async fn another_tls_library_than_ours_sends_over_starttls() {
    let folder = tempfile::tempdir().unwrap();
    let server = Running::start(&certificate(folder.path()).0, Protocol::Smtp).await;
    let script = format!(
        "import smtplib, ssl\n\
         s = smtplib.SMTP('127.0.0.1', {})\n\
         s.starttls(context=ssl._create_unverified_context())\n\
         s.sendmail('a@b.example', ['c@d.example'], 'Subject: x\\r\\n\\r\\n.dot\\r\\n')\n\
         s.quit()\n",
        server.address.port()
    );
    run("python3", &["-c", &script]).await;
    let taken = server.memory.taken();
    assert!(taken[0].peer.tls);
    assert!(taken[0].content.ends_with(b"\r\n\r\n.dot\r\n"));
}
