//! As much of an IMAP client (RFC 9051) as a test needs: log in, wait for a message, fetch it whole.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// How long a message may take until it is in the mailbox.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(60);

/// A session with the INBOX selected.
#[derive(Debug)]
pub struct Imap {
    stream: BufReader<TcpStream>,
    tag: u32,
}

/// One answer: its untagged lines, and the literals in them (RFC 9051 §4.3).
#[derive(Debug, Default)]
struct Answer {
    lines: Vec<String>,
    literals: Vec<Vec<u8>>,
}

impl Imap {
    /// Connects, logs in and selects the INBOX.
    ///
    /// # Errors
    /// Where any of it is refused.
    pub async fn login(address: SocketAddr, user: &str, password: &str) -> Result<Self> {
        let mut imap = Self { stream: BufReader::new(TcpStream::connect(address).await?), tag: 0 };
        imap.line().await?;
        imap.command(&format!("LOGIN \"{user}\" \"{password}\"")).await?;
        imap.command("SELECT INBOX").await?;
        Ok(imap)
    }

    /// Waits until the INBOX has a message `number`, and returns all its bytes.
    ///
    /// # Errors
    /// Where it does not come in time.
    pub async fn wait_for_message(&mut self, number: u32) -> Result<Vec<u8>> {
        let arrival = async {
            // IDLE (RFC 2177) would tell of the first new message only; the count is asked for after each event.
            while self.count().await? < number {
                self.idle().await?;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(ARRIVAL_TIMEOUT, arrival).await.context("the message did not arrive")??;
        self.fetch(number).await
    }

    /// How many messages the INBOX has.
    ///
    /// # Errors
    /// Where the server does not say.
    pub async fn count(&mut self) -> Result<u32> {
        let answer = self.command("STATUS INBOX (MESSAGES)").await?;
        let status = answer.lines.iter().find(|line| line.contains("MESSAGES")).context("no STATUS")?;
        let digits: String = status.chars().skip_while(|c| *c != '(').filter(char::is_ascii_digit).collect();
        Ok(digits.parse()?)
    }

    async fn idle(&mut self) -> Result<()> {
        self.tag += 1;
        self.stream.write_all(format!("t{} IDLE\r\n", self.tag).as_bytes()).await?;
        self.line().await?;
        // Whatever comes is a reason to look; so is a second without anything, should the event have been before IDLE.
        let _ = tokio::time::timeout(Duration::from_secs(1), self.stream.fill_buf()).await;
        self.stream.write_all(b"DONE\r\n").await?;
        self.answer().await?;
        Ok(())
    }

    async fn fetch(&mut self, number: u32) -> Result<Vec<u8>> {
        let mut answer = self.command(&format!("FETCH {number} BODY.PEEK[]")).await?;
        answer.literals.pop().context("no message in the answer")
    }

    async fn command(&mut self, command: &str) -> Result<Answer> {
        self.tag += 1;
        self.stream.write_all(format!("t{} {command}\r\n", self.tag).as_bytes()).await?;
        self.answer().await.with_context(|| command.to_owned())
    }

    async fn answer(&mut self) -> Result<Answer> {
        let tag = format!("t{} ", self.tag);
        let mut answer = Answer::default();
        loop {
            let line = self.line().await?;
            if let Some(status) = line.strip_prefix(&tag) {
                if status.starts_with("OK") {
                    return Ok(answer);
                }
                bail!("the server says {status}");
            }
            let literal = line.strip_suffix('}').and_then(|line| line.rsplit_once('{')).map(|(_, len)| len);
            if let Some(len) = literal.and_then(|len| len.parse::<usize>().ok()) {
                let mut bytes = vec![0; len];
                self.stream.read_exact(&mut bytes).await?;
                answer.literals.push(bytes);
            }
            answer.lines.push(line);
        }
    }

    async fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line).await? == 0 {
            bail!("the server closed the connection");
        }
        Ok(line.trim_end().to_owned())
    }
}
