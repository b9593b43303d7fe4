//! A next hop that does as it is told: a plain SMTP server that shares no code with ours.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A message that the sink took.
#[derive(Clone, Debug)]
pub(crate) struct Taken {
    pub(crate) from: String,
    pub(crate) to: Vec<String>,
    pub(crate) content: String,
}

/// A sink that listens, until it is dropped.
pub(crate) struct Sink {
    pub(crate) address: SocketAddr,
    taken: Arc<Mutex<Vec<Taken>>>,
    task: JoinHandle<()>,
}

impl Sink {
    /// Takes everything but mail to who has `never` (550) or `later` (451) in the address.
    pub(crate) async fn start() -> Self {
        Self::start_on(SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    pub(crate) async fn start_on(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let taken = Arc::<Mutex<Vec<Taken>>>::default();
        let into = Arc::clone(&taken);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let into = Arc::clone(&into);
                // One that goes away is none of the sink's business.
                tokio::spawn(async move { serve(stream, &into).await });
            }
        });
        Self { address, taken, task }
    }

    pub(crate) fn taken(&self) -> Vec<Taken> {
        self.taken.lock().unwrap().clone()
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream, into: &Mutex<Vec<Taken>>) -> std::io::Result<()> {
    let (reader, mut writer) = stream.split();
    let mut reader = BufReader::new(reader);
    writer.write_all(b"220 sink\r\n").await?;
    let mut taken = Taken { from: String::new(), to: Vec::new(), content: String::new() };
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let path = || line.split(['<', '>']).nth(1).unwrap_or_default().to_owned();
        let reply: &[u8] = match line.get(..4).unwrap_or_default().to_ascii_uppercase().as_str() {
            "EHLO" => b"250-sink\r\n250-8BITMIME\r\n250 ENHANCEDSTATUSCODES\r\n",
            "MAIL" => {
                taken = Taken { from: path(), to: Vec::new(), content: String::new() };
                b"250 ok\r\n"
            }
            "RCPT" if path().contains("never") => b"550 5.1.1 nobody\r\n",
            "RCPT" if path().contains("later") => b"451 4.2.0 not now\r\n",
            "RCPT" => {
                taken.to.push(path());
                b"250 ok\r\n"
            }
            "DATA" => {
                writer.write_all(b"354 go on\r\n").await?;
                taken.content = content(&mut reader).await?;
                into.lock().unwrap().push(taken.clone());
                b"250 taken\r\n"
            }
            "QUIT" => {
                writer.write_all(b"221 bye\r\n").await?;
                return Ok(());
            }
            _ => b"250 ok\r\n",
        };
        writer.write_all(reply).await?;
    }
}

async fn content(reader: &mut (impl AsyncReadExt + Unpin)) -> std::io::Result<String> {
    let mut content = Vec::new();
    while !content.ends_with(b"\r\n.\r\n") {
        content.push(reader.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&content).into_owned())
}
