//! A mail server that takes everything and keeps it, but for what some local parts stand for: `nobody` is not there,
//! `fickle` is not there the second time, and messages for `heavy` are too heavy.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// A message as it came.
#[derive(Clone, Debug)]
pub(crate) struct Mail {
    pub(crate) from: String,
    pub(crate) to: Vec<String>,
    pub(crate) content: Vec<u8>,
}

/// Where a session stops, for as long as it is told to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Hold {
    /// Nowhere.
    #[default]
    Nowhere,
    /// Before the first word.
    Greeting,
    /// Before a transaction that was begun is given up.
    Reset,
    /// Once it has the message, before it says so.
    Answer,
    /// Nowhere, and it takes nothing for now.
    Refuse,
}

/// A mail server on loopback.
pub(crate) struct MailSink {
    pub(crate) address: SocketAddr,
    pub(crate) hold: Arc<watch::Sender<Hold>>,
    mails: Arc<Mutex<Vec<Mail>>>,
}

impl MailSink {
    pub(crate) async fn start() -> Self {
        Self::start_with(false).await
    }

    /// One that takes mail only of who has authenticated, with `sam` and `secret`.
    pub(crate) async fn with_auth() -> Self {
        Self::start_with(true).await
    }

    async fn start_with(has_auth: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mails = Arc::new(Mutex::new(Vec::new()));
        let hold = Arc::new(watch::Sender::default());
        let (kept, holds) = (mails.clone(), hold.clone());
        let asked = Arc::new(AtomicUsize::new(0));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(session(stream, has_auth, asked.clone(), kept.clone(), holds.subscribe()));
            }
        });
        Self { address, hold, mails }
    }

    pub(crate) fn mails(&self) -> Vec<Mail> {
        self.mails.lock().unwrap().clone()
    }
}

async fn session(
    stream: TcpStream,
    has_auth: bool,
    asked: Arc<AtomicUsize>,
    kept: Arc<Mutex<Vec<Mail>>>,
    mut hold: watch::Receiver<Hold>,
) -> std::io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let _ = hold.wait_for(|hold| *hold != Hold::Greeting).await;
    writer.write_all(b"220 sink\r\n").await?;
    let mut mail = Mail { from: String::new(), to: Vec::new(), content: Vec::new() };
    let mut line = Vec::new();
    let (mut is_known, mut has_sender) = (!has_auth, false);
    loop {
        line.clear();
        if reader.read_until(b'\n', &mut line).await? == 0 {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        let reply: &[u8] = match text.split_at_checked(4).map_or("", |(verb, _)| verb) {
            "EHLO" if has_auth => {
                b"250-sink\r\n250-PIPELINING\r\n250-SIZE 20000000\r\n250-AUTH PLAIN\r\n250 8BITMIME\r\n"
            }
            "AUTH" => {
                let mut said = text.strip_prefix("AUTH PLAIN ").map(ToOwned::to_owned);
                if said.is_none() {
                    writer.write_all(b"334 \r\n").await?;
                    line.clear();
                    reader.read_until(b'\n', &mut line).await?;
                    said = Some(String::from_utf8_lossy(&line).trim_end().to_owned());
                }
                is_known |= said.as_deref() == Some("AHNhbQBzZWNyZXQ=");
                match said.as_deref() {
                    Some("AHNhbQBzZWNyZXQ=") => b"235 2.7.0 welcome, sam\r\n",
                    Some("*") => b"501 5.7.0 never mind\r\n",
                    _ => b"535-5.7.8 Not with this password,\r\n535 5.7.8 sam\r\n",
                }
            }
            "MAIL" if !is_known => b"530 5.7.0 who are you?\r\n",
            "EHLO" => b"250-sink\r\n250-PIPELINING\r\n250 8BITMIME\r\n",
            "MAIL" if *hold.borrow() == Hold::Refuse => {
                has_sender = false;
                b"451 4.3.0 not now\r\n"
            }
            "MAIL" => {
                (mail.from, has_sender) = (path(&text), true);
                b"250 ok\r\n"
            }
            "RCPT" if !has_sender => b"503 5.5.1 from whom?\r\n",
            "RCPT" if text.contains("nobody@") => b"550 5.1.1 nobody here\r\n",
            "RCPT" if text.contains("fickle@") && asked.fetch_add(1, Ordering::Relaxed) == 1 => {
                b"550 5.2.1 changed its mind\r\n"
            }
            "RCPT" => {
                mail.to.push(path(&text));
                b"250 ok\r\n"
            }
            "DATA" if mail.to.is_empty() => b"554 5.5.1 nobody\r\n",
            "DATA" => {
                writer.write_all(b"354 go on\r\n").await?;
                loop {
                    line.clear();
                    if reader.read_until(b'\n', &mut line).await? == 0 {
                        return Ok(());
                    }
                    if line == b".\r\n" {
                        break;
                    }
                    mail.content.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
                }
                let is_heavy = mail.to.iter().any(|to| to.starts_with("heavy@"));
                if !is_heavy {
                    kept.lock().unwrap().push(mail.clone());
                }
                let _ = hold.wait_for(|hold| *hold != Hold::Answer).await;
                (mail.to, mail.content) = (Vec::new(), Vec::new());
                if is_heavy { b"554 5.7.1 too heavy for us\r\n" } else { b"250 2.0.0 taken\r\n" }
            }
            "RSET" => {
                let _ = hold.wait_for(|hold| *hold != Hold::Reset).await;
                (mail.to, mail.content) = (Vec::new(), Vec::new());
                b"250 ok\r\n"
            }
            "QUIT" => {
                writer.write_all(b"221 bye\r\n").await?;
                return Ok(());
            }
            _ => b"502 what?\r\n",
        };
        writer.write_all(reply).await?;
    }
}

fn path(text: &str) -> String {
    let (_, rest) = text.split_once('<').unwrap_or_default();
    rest.split_once('>').unwrap_or_default().0.to_owned()
}
