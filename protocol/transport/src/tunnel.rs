//! A tunnel: QUIC in an ordered byte stream, for networks that let no UDP through (SPEC A30; PROTOCOL.md §3).
//!
//! What goes through the byte stream (TLS on TCP, a WebSocket) are the datagrams that would have gone through UDP, each
//! behind its length. So a connection through a tunnel *is* a QUIC connection: its streams, windows, limits, codes and
//! its proof of both PeerIds, end to end, are the same code, and whatever was written for it works unchanged. A second
//! multiplexer would have to be all of that again. (yamux, looked at for this: no window for the whole connection, no
//! reasons in resets, no stopping of what the other side sends, no waiting for a stream to become free.)
//!
//! Two schemes that both repeat what was lost do not disturb each other here: nothing is lost in the byte stream, and how
//! much is under way is decided by delay (`pace`), so that QUIC neither repeats nor fills the queues beneath it. Where
//! the byte stream takes no more, QUIC waits; nothing is dropped.
//!
//! - [`frames`]: the datagrams in the byte stream, as a value;
//! - `socket`: the queues between QUIC and the byte stream;
//! - `pace`: how much may be under way;
//! - [`listen`]: tunnels that others open, on TCP; and here the tasks that move the bytes.
//!
//! One tunnel carries one connection, and ends with it.

pub mod frames;
pub mod listen;
pub(crate) mod pace;
mod socket;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

use crate::error::CloseCode;
use crate::limits::{CLOSE_TIME_MAX, TUNNEL_READ_LEN, TUNNEL_WRITE_LEN};
use frames::{Deframer, FrameError};
use socket::{Queues, TunnelSocket};

/// How TLS on TCP names this in its handshake (RFC 7301): what is inside is not the protocol itself, but its datagrams.
pub const TUNNEL_ALPN: &[u8] = b"lighter-tunnel/1";

/// Why a tunnel ended by itself.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("the other side ended it")]
    End,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Frame(#[from] FrameError),
}

/// What an endpoint has of its tunnels: a clean stop waits for them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tunnels {
    tasks: TaskTracker,
    closing: CancellationToken,
}

impl Tunnels {
    /// Ends all connections through tunnels, after telling the other sides.
    pub(crate) async fn close(&self) {
        self.closing.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// The same without waiting.
    pub(crate) fn abandon(&self) {
        self.closing.cancel();
    }

    /// A tunnel in a byte stream to `remote`; with `server`, one that the other side opens its connection in.
    pub(crate) fn open(
        &self,
        (reader, writer): (impl AsyncRead + Send + 'static, impl AsyncWrite + Send + 'static),
        remote: SocketAddr,
        config: quinn::EndpointConfig,
        server: Option<quinn::ServerConfig>,
    ) -> io::Result<Tunnel> {
        let queues = Arc::new(Queues::default());
        let socket = Arc::new(TunnelSocket::new(remote, Arc::clone(&queues)));
        let runtime = Arc::new(quinn::TokioRuntime);
        let quic = quinn::Endpoint::new_with_abstract_socket(config, server, socket, runtime)?;
        let (opened, connection) = oneshot::channel();
        let pump = Pump { quic: quic.clone(), queues, closing: self.closing.clone(), connection };
        self.tasks.spawn(async move {
            let ended = pump.run(reader, writer).await;
            debug!(%remote, %ended, "tunnel ended");
        });
        Ok(Tunnel { quic, opened })
    }
}

/// A tunnel whose connection is not open yet. Dropped so, it ends.
#[derive(Debug)]
pub(crate) struct Tunnel {
    /// For one connection.
    pub(crate) quic: quinn::Endpoint,
    opened: oneshot::Sender<quinn::Connection>,
}

impl Tunnel {
    /// The connection is open; the tunnel ends with it.
    pub(crate) fn carry(self, connection: &quinn::Connection) {
        // An error says that the tunnel has ended: so has the connection, then.
        let _ = self.opened.send(connection.clone());
    }
}

/// Moves the bytes.
struct Pump {
    quic: quinn::Endpoint,
    queues: Arc<Queues>,
    closing: CancellationToken,
    connection: oneshot::Receiver<quinn::Connection>,
}

impl Pump {
    async fn run(self, reader: impl AsyncRead, writer: impl AsyncWrite) -> Ended {
        let Self { quic, queues, closing, connection } = self;
        let over = async {
            tokio::select! {
                () = closing.cancelled() => quic.close(CloseCode::Done.code(), b""),
                opened = connection => if let Ok(connection) = opened {
                    tokio::select! {
                        () = closing.cancelled() => connection.close(CloseCode::Done.code(), b""),
                        _ = connection.closed() => {}
                    }
                },
            }
            // Until the other side has been told.
            let _ = timeout(CLOSE_TIME_MAX, quic.wait_idle()).await;
            queues.finish();
            sleep(CLOSE_TIME_MAX).await;
        };
        let reading = async {
            let ended = match read(reader, &queues).await {
                Ok(()) => Ended::End,
                Err(error) => error,
            };
            // Why the connection is closed may be in what has come.
            let _ = timeout(CLOSE_TIME_MAX, queues.taken()).await;
            ended
        };
        let ended = tokio::select! {
            ended = reading => ended,
            written = write(writer, &queues) => written.map_or_else(Ended::Io, |()| Ended::End),
            () = over => Ended::End,
        };
        queues.end();
        quic.close(CloseCode::Done.code(), b"");
        ended
    }
}

/// Takes datagrams off the byte stream until it ends.
async fn read(reader: impl AsyncRead, queues: &Queues) -> Result<(), Ended> {
    let mut reader = std::pin::pin!(reader);
    let mut deframer = Deframer::default();
    loop {
        queues.room().await;
        if reader.read_buf(deframer.room(TUNNEL_READ_LEN)).await? == 0 {
            return Ok(());
        }
        while let Some(datagram) = deframer.next()? {
            queues.push(datagram);
        }
    }
}

/// Gives datagrams to the byte stream until there will be no more.
async fn write(writer: impl AsyncWrite, queues: &Queues) -> io::Result<()> {
    let mut writer = std::pin::pin!(writer);
    while let Some(batch) = queues.next_batch().await {
        for piece in batch.chunks(TUNNEL_WRITE_LEN) {
            writer.write_all(piece).await?;
        }
        writer.flush().await?;
    }
    writer.shutdown().await
}

#[cfg(test)]
mod tests;
