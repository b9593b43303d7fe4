//! A sender that knows nothing of Lighter: messages with attachments of any size, made piece by piece from a seed,
//! and a plain SMTP or LMTP client to send them with. Deliberately not built on `lighter-mail`: a peer of our own making
//! would share our mistakes.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use data_encoding::BASE64;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// Decoded bytes of one base64 line of 76 characters (RFC 2045 §6.8).
const LINE_BYTES: usize = 57;
/// Lines made at a time.
const LINES_AT_ONCE: usize = 1024;

/// A message with a text and one attachment whose bytes follow from a seed: the same each time, never all in memory.
#[derive(Clone, Debug)]
pub struct TestMessage {
    /// Header `From`.
    pub from: String,
    /// Header `To`.
    pub to: String,
    /// Header `Subject`.
    pub subject: String,
    /// The attachment's file name.
    pub name: String,
    /// The attachment's size in bytes; 0 for a message with no attachment.
    pub size: u64,
    /// Where its bytes come from.
    pub seed: u64,
}

impl TestMessage {
    /// A message for `to` with `size` bytes attached.
    pub fn new(to: &str, size: u64, seed: u64) -> Self {
        Self {
            from: "sender@elsewhere.example".to_owned(),
            to: to.to_owned(),
            subject: format!("Test message {seed}"),
            name: format!("file-{seed}.bin"),
            size,
            seed,
        }
    }

    /// The message, piece by piece, with CR LF line ends.
    pub fn pieces(&self) -> Pieces<'_> {
        Pieces { message: self, attachment: AttachmentBytes::new(self.seed, self.size), state: Next::Head }
    }

    /// The whole message in memory: for small ones.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.pieces().flatten().collect()
    }

    /// The attachment alone, piece by piece.
    pub fn attachment(&self) -> AttachmentBytes {
        AttachmentBytes::new(self.seed, self.size)
    }

    fn head(&self) -> String {
        let Self { from, to, subject, name, seed, .. } = self;
        let mut head = format!(
            "From: <{from}>\r\nTo: <{to}>\r\nSubject: {subject}\r\nDate: Sat, 21 Nov 2026 11:00:00 +0000\r\n\
             Message-ID: <{seed}.test@elsewhere.example>\r\nMIME-Version: 1.0\r\n"
        );
        if self.size == 0 {
            head.push_str("Content-Type: text/plain; charset=utf-8\r\n\r\nNothing attached.\r\n");
        } else {
            head.push_str(&format!(
                "Content-Type: multipart/mixed; boundary=\"=_test_{seed}\"\r\n\r\nA multipart message.\r\n\
                 --=_test_{seed}\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nThe file is attached.\r\n\
                 --=_test_{seed}\r\nContent-Type: application/octet-stream; name=\"{name}\"\r\n\
                 Content-Transfer-Encoding: base64\r\nContent-Disposition: attachment; filename=\"{name}\"\r\n\r\n"
            ));
        }
        head
    }
}

/// The bytes of an attachment: pseudo-random, so that nothing compresses or repeats.
#[derive(Debug)]
pub struct AttachmentBytes {
    generator: StdRng,
    left: u64,
}

impl AttachmentBytes {
    fn new(seed: u64, size: u64) -> Self {
        Self { generator: StdRng::seed_from_u64(seed), left: size }
    }

    /// The BLAKE3 hash of all of it.
    pub fn blake3(self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        for piece in self {
            hasher.update(&piece);
        }
        hasher.finalize()
    }
}

impl Iterator for AttachmentBytes {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let len = self.left.min((LINE_BYTES * LINES_AT_ONCE) as u64);
        if len == 0 {
            return None;
        }
        self.left -= len;
        let mut piece = vec![0; usize::try_from(len).ok()?];
        self.generator.fill_bytes(&mut piece);
        Some(piece)
    }
}

/// A [`TestMessage`] on its way out.
#[derive(Debug)]
pub struct Pieces<'a> {
    message: &'a TestMessage,
    attachment: AttachmentBytes,
    state: Next,
}

#[derive(Debug)]
enum Next {
    Head,
    Body,
    Done,
}

impl Iterator for Pieces<'_> {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        match self.state {
            Next::Head => {
                self.state = if self.message.size == 0 { Next::Done } else { Next::Body };
                Some(self.message.head().into_bytes())
            }
            Next::Body => {
                let Some(bytes) = self.attachment.next() else {
                    self.state = Next::Done;
                    return Some(format!("--=_test_{}--\r\n", self.message.seed).into_bytes());
                };
                Some(base64_lines(&bytes))
            }
            Next::Done => None,
        }
    }
}

/// `bytes` in base64 lines of 76 characters, as mail carries them (RFC 2045 §6.8).
pub fn base64_lines(bytes: &[u8]) -> Vec<u8> {
    let mut lines = String::with_capacity(bytes.len() * 3 / 2);
    for line in bytes.chunks(LINE_BYTES) {
        BASE64.encode_append(line, &mut lines);
        lines.push_str("\r\n");
    }
    lines.into_bytes()
}

/// A plain SMTP or LMTP client, one command at a time.
#[derive(Debug)]
pub struct MailClient {
    replies: BufReader<OwnedReadHalf>,
    commands: OwnedWriteHalf,
}

/// A reply: its code, and its lines without code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The three digits.
    pub code: u16,
    /// What stands behind them, a line each.
    pub lines: Vec<String>,
}

impl MailClient {
    /// Connects and reads the greeting; says `EHLO`, or `LHLO`.
    ///
    /// # Errors
    /// Where the connection or one of the two fails.
    pub async fn connect(address: SocketAddr, hello: &str) -> Result<Self> {
        let (replies, commands) = TcpStream::connect(address).await?.into_split();
        let mut client = Self { replies: BufReader::new(replies), commands };
        client.reply().await?.expect(220)?;
        client.command(&format!("{hello} sender.elsewhere.example")).await?.expect(250)?;
        Ok(client)
    }

    /// Sends one command and reads its reply.
    ///
    /// # Errors
    /// Where the connection fails.
    pub async fn command(&mut self, line: &str) -> Result<Reply> {
        self.commands.write_all(format!("{line}\r\n").as_bytes()).await?;
        self.reply().await
    }

    /// Writes bytes as they are.
    ///
    /// # Errors
    /// Where the connection fails.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.commands.write_all(bytes).await?)
    }

    /// Reads one reply.
    ///
    /// # Errors
    /// Where the connection fails, or what comes is no reply.
    pub async fn reply(&mut self) -> Result<Reply> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if self.replies.read_line(&mut line).await? == 0 {
                bail!("the server closed the connection");
            }
            let code: u16 = line.get(..3).and_then(|code| code.parse().ok()).context("no reply code")?;
            let more = line.as_bytes().get(3) == Some(&b'-');
            lines.push(line.get(4..).unwrap_or_default().trim_end().to_owned());
            if !more {
                return Ok(Reply { code, lines });
            }
        }
    }

    /// Sends one message to `recipients` and returns the final reply (of LMTP: the first).
    ///
    /// # Errors
    /// Where the connection fails, or a command before the end of data is refused.
    pub async fn send(
        &mut self,
        from: &str,
        recipients: &[&str],
        pieces: impl Iterator<Item = Vec<u8>>,
    ) -> Result<Reply> {
        self.command(&format!("MAIL FROM:<{from}>")).await?.expect(250)?;
        for recipient in recipients {
            self.command(&format!("RCPT TO:<{recipient}>")).await?.expect(250)?;
        }
        self.command("DATA").await?.expect(354)?;
        // The test messages have no line that begins with a dot, so there is nothing to stuff (RFC 5321 §4.5.2).
        for piece in pieces {
            self.write(&piece).await?;
        }
        self.command(".").await
    }
}

impl Reply {
    /// This reply, if its code is `code`.
    ///
    /// # Errors
    /// Says what came instead.
    pub fn expect(self, code: u16) -> Result<Self> {
        if self.code != code {
            bail!("expected {code}, got {} {}", self.code, self.lines.join(" / "));
        }
        Ok(self)
    }
}

/// Sends one message by SMTP on a connection of its own; the reply to the end of data must be 250.
///
/// # Errors
/// Where anything is refused.
pub async fn send(address: SocketAddr, message: &TestMessage, recipients: &[&str]) -> Result<()> {
    let mut client = MailClient::connect(address, "EHLO").await?;
    client.send(&message.from, recipients, message.pieces()).await?.expect(250)?;
    client.command("QUIT").await?;
    Ok(())
}
