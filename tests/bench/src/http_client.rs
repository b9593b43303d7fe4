//! A client that costs as little as one can, so that the servers are what is measured: requests made beforehand, a
//! connection kept open for all of them, and of an answer nothing read but its length.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// What is asked for, and by how many connections.
pub(crate) struct Requests {
    /// Whole HTTP requests; repeated until there were `total`.
    pub(crate) requests: Arc<Vec<Vec<u8>>>,
    pub(crate) connections: usize,
    pub(crate) total: u32,
}

impl Requests {
    /// Asks for all of it: the time that it took, connecting left out.
    pub(crate) async fn ask(&self, address: SocketAddr) -> Result<Duration> {
        let mut connections = Vec::new();
        for _ in 0..self.connections {
            connections.push(Connection::open(address).await?);
        }
        let next = Arc::new(AtomicU32::new(0));
        let mut asking = JoinSet::new();
        let began = Instant::now();
        for mut connection in connections {
            let (requests, next, total) = (Arc::clone(&self.requests), Arc::clone(&next), self.total);
            asking.spawn(async move {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= total {
                        return Ok::<_, anyhow::Error>(());
                    }
                    connection.ask(&requests[index as usize % requests.len()]).await?;
                }
            });
        }
        while let Some(ended) = asking.join_next().await {
            ended??;
        }
        Ok(began.elapsed())
    }
}

/// The body of the answer to one request.
pub(crate) async fn ask_once(address: SocketAddr, request: &[u8]) -> Result<Vec<u8>> {
    let mut connection = Connection::open(address).await?;
    let body = connection.ask(request).await?;
    Ok(connection.buffer.split_off(body))
}

/// A connection that is kept open.
pub(crate) struct Connection {
    stream: TcpStream,
    /// One answer.
    buffer: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(512 * 1024) })
    }

    /// The body of the answer to one request.
    pub(crate) async fn body_of(&mut self, request: &[u8]) -> Result<&[u8]> {
        let body = self.ask(request).await?;
        Ok(&self.buffer[body..])
    }

    /// One request and its answer; gives where the body begins in the buffer.
    async fn ask(&mut self, request: &[u8]) -> Result<usize> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        let (mut body, mut end) = (0, None);
        while end.is_none_or(|end| self.buffer.len() < end) {
            ensure!(self.stream.read_buf(&mut self.buffer).await? > 0, "the server closed the connection");
            if end.is_none()
                && let Some(head) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n")
            {
                body = head + 4;
                end = Some(body + body_len(&self.buffer[..head])?);
            }
        }
        Ok(body)
    }
}

/// The body's length, of an answer that is good.
fn body_len(head: &[u8]) -> Result<usize> {
    let head = std::str::from_utf8(head)?;
    ensure!(head.starts_with("HTTP/1.1 20"), "answered {:?}", head.lines().next());
    if head.starts_with("HTTP/1.1 204") {
        return Ok(0);
    }
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    length.context("an answer without its length")
}
