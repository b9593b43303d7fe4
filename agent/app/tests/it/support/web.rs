//! A web server that gives out one attachment by ticket, well or badly.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// What it does when it is asked.
#[derive(Clone, Debug)]
pub(crate) enum Mode {
    Serve,
    /// Each answer breaks off after so many bytes.
    BreakAfter(usize),
    /// As many bytes, and others.
    Wrong,
    /// Bytes without end.
    Endless,
    /// This status, and these header fields.
    Refuse(&'static str, String),
}

pub(crate) struct Web {
    pub(crate) address: SocketAddr,
    /// The heads of the requests.
    pub(crate) asked: Arc<Mutex<Vec<String>>>,
}

impl Web {
    pub(crate) async fn start(bytes: Vec<u8>, mode: Mode) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let heads = asked.clone();
        let bytes = Arc::new(bytes);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, bytes.clone(), mode.clone(), heads.clone()));
            }
        });
        Self { address, asked }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

async fn answer(
    stream: TcpStream,
    bytes: Arc<Vec<u8>>,
    mode: Mode,
    asked: Arc<Mutex<Vec<String>>>,
) -> std::io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut lines = BufReader::new(reader).lines();
    let mut head = String::new();
    while let Some(line) = lines.next_line().await?.filter(|line| !line.is_empty()) {
        head.push_str(&line.to_ascii_lowercase());
        head.push('\n');
    }
    asked.lock().unwrap().push(head.clone());
    let start: usize = head
        .lines()
        .find_map(|line| line.strip_prefix("range: bytes=")?.strip_suffix('-')?.parse().ok())
        .unwrap_or(0);
    let (status, range) = match start {
        0 => ("200 OK", String::new()),
        _ => (
            "206 Partial Content",
            format!("Content-Range: bytes {start}-{}/{}\r\n", bytes.len() - 1, bytes.len()),
        ),
    };
    let rest = &bytes[start..];
    let head =
        format!("HTTP/1.1 {status}\r\nConnection: close\r\n{range}Content-Length: {}\r\n\r\n", rest.len());
    match mode {
        Mode::Serve => {
            writer.write_all(head.as_bytes()).await?;
            writer.write_all(rest).await?;
        }
        Mode::BreakAfter(len) => {
            writer.write_all(head.as_bytes()).await?;
            writer.write_all(&rest[..len.min(rest.len())]).await?;
        }
        Mode::Wrong => {
            writer.write_all(head.as_bytes()).await?;
            let wrong: Vec<u8> = rest.iter().map(|byte| byte ^ 1).collect();
            writer.write_all(&wrong).await?;
        }
        Mode::Endless => {
            writer.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n").await?;
            loop {
                writer.write_all(&bytes).await?;
            }
        }
        Mode::Refuse(status, fields) => {
            let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\n{fields}Content-Length: 0\r\n\r\n");
            writer.write_all(head.as_bytes()).await?;
        }
    }
    writer.shutdown().await
}
