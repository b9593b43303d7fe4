//! A wire tap: between two mail servers, it passes everything on and keeps what the first one said.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Bytes read at a time.
const READ_LEN: usize = 64 * 1024;

/// A tap in front of a server that speaks SMTP or LMTP.
#[derive(Debug)]
pub struct Tap {
    /// Where to connect instead of to the server.
    pub address: SocketAddr,
    said: Arc<Mutex<Vec<Vec<u8>>>>,
    _passing: JoinSet<()>,
}

impl Tap {
    /// A tap in front of `server`.
    ///
    /// # Errors
    /// Where the kernel has no port.
    pub async fn start(server: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let said: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
        let mut passing = JoinSet::new();
        let all = Arc::clone(&said);
        passing.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let number = {
                    let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
                    all.push(Vec::new());
                    all.len() - 1
                };
                connections.spawn(pass(client, server, number, Arc::clone(&all)));
            }
        });
        Ok(Self { address, said, _passing: passing })
    }

    /// The contents of all messages that were sent by DATA so far, as the server has to understand them (RFC 5321
    /// §4.5.2), in the order of the connections.
    ///
    /// # Errors
    /// Where a DATA has no end: the message is still on its way.
    pub fn contents(&self) -> Result<Vec<Vec<u8>>> {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let mut contents = Vec::new();
        for mut rest in said.iter().map(Vec::as_slice) {
            while let Some(begin) = find(rest, b"\r\nDATA\r\n") {
                // The line end of DATA counts for the end of data: a message may be empty.
                let data = &rest[begin + b"\r\nDATA".len()..];
                let end = find(data, b"\r\n.\r\n").context("a DATA without an end")?;
                contents.push(without_stuffing(&data[b"\r\n".len()..end + b"\r\n".len()]));
                rest = &data[end + b"\r\n.".len()..];
            }
        }
        Ok(contents)
    }
}

async fn pass(client: TcpStream, server: SocketAddr, number: usize, said: Arc<Mutex<Vec<Vec<u8>>>>) {
    let Ok(server) = TcpStream::connect(server).await else { return };
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let commands = async {
        let mut piece = vec![0; READ_LEN];
        while let Ok(len @ 1..) = from_client.read(&mut piece).await {
            said.lock().unwrap_or_else(PoisonError::into_inner)[number].extend_from_slice(&piece[..len]);
            if to_server.write_all(&piece[..len]).await.is_err() {
                break;
            }
        }
        let _ = to_server.shutdown().await;
    };
    let replies = async {
        let _ = tokio::io::copy(&mut from_server, &mut to_client).await;
        let _ = to_client.shutdown().await;
    };
    tokio::join!(commands, replies);
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}

/// Takes one dot away from each line that begins with one.
fn without_stuffing(content: &[u8]) -> Vec<u8> {
    let lines = content.split_inclusive(|byte| *byte == b'\n');
    lines.flat_map(|line| line.strip_prefix(b".").unwrap_or(line)).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_tap_passes_on_and_keeps_what_was_sent() {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let tap = Tap::start(server.local_addr().unwrap()).await.unwrap();
        let mut client = TcpStream::connect(tap.address).await.unwrap();
        let said = b"MAIL\r\nDATA\r\nA: b\r\n\r\n..x\r\n.\r\nDATA\r\n.\r\nQUIT\r\n";
        client.write_all(said).await.unwrap();
        client.shutdown().await.unwrap();
        let (mut behind, _) = server.accept().await.unwrap();
        let mut heard = Vec::new();
        behind.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, said);
        assert_eq!(tap.contents().unwrap(), [b"A: b\r\n\r\n.x\r\n".to_vec(), Vec::new()]);
        behind.write_all(b"250\r\n").await.unwrap();
        drop(behind);
        let mut reply = String::new();
        client.read_to_string(&mut reply).await.unwrap();
        assert_eq!(reply, "250\r\n");
    }
}
