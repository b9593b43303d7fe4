//! One connection to the next hop: a socket around `lighter_mail::client::Session`.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use lighter_mail::client::{Config as SessionConfig, Event, Outcome, Session};
use lighter_mail::{Envelope, Reply};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Body;
use crate::limits::{NEXT_HOP_CONNECT_TIMEOUT, NEXT_HOP_LAST_WORDS_TIMEOUT, NEXT_HOP_READ_LEN};

const UNREACHABLE: Reply = Reply::fixed(451, 4, 1, "The next hop cannot be reached");

/// An open connection.
pub(super) struct Wire {
    session: Session,
    stream: Stream,
    /// When the last message over it was done.
    pub(super) idle_since: Instant,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Gone,
}

/// Why there is no connection.
pub(super) enum ConnectFailure {
    /// For every message alike.
    Outcome(Outcome),
    /// The TLS handshake failed: without TLS there might be one.
    Tls,
}

/// What became of a message, and of the connection.
pub(super) struct Sent {
    pub(super) outcomes: Vec<Outcome>,
    /// Whether the next hop has asked for the content: until then another connection may be tried.
    pub(super) begun: bool,
}

impl Wire {
    /// Connects and goes as far as a message may be sent.
    pub(super) async fn open(
        address: &str,
        config: Arc<SessionConfig>,
        tls: &TlsConnector,
        server_name: &ServerName<'static>,
    ) -> Result<Self, ConnectFailure> {
        let connecting = tokio::time::timeout(NEXT_HOP_CONNECT_TIMEOUT, TcpStream::connect(address));
        let stream = match connecting.await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                tracing::warn!(%error, "next hop cannot be reached");
                return Err(ConnectFailure::Outcome(Outcome::here(UNREACHABLE)));
            }
            Err(_) => return Err(ConnectFailure::Outcome(Outcome::here(UNREACHABLE))),
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        let now = Instant::now();
        let mut wire =
            Self { session: Session::new(config, now), stream: Stream::Plain(stream), idle_since: now };
        loop {
            match wire.session.poll_event() {
                Some(Event::Ready) => return Ok(wire),
                Some(Event::StartTls) => wire.start_tls(tls, server_name).await?,
                Some(Event::Closed(why)) => {
                    let why = why.unwrap_or_else(|| Outcome::here(UNREACHABLE));
                    tracing::warn!(reply = %why.reply, "next hop does not take mail");
                    return Err(ConnectFailure::Outcome(why));
                }
                // Of what nobody has asked for yet there is nothing.
                Some(
                    Event::Begin
                    | Event::Done(_)
                    | Event::Challenge(_)
                    | Event::Authenticated(_)
                    | Event::Answered(_),
                ) => {}
                None => wire.exchange().await,
            }
        }
    }

    /// Sends one message.
    pub(super) async fn send(&mut self, envelope: Envelope, body: &mut impl Body) -> Sent {
        self.session.send(envelope, Instant::now());
        let mut begun = false;
        loop {
            match self.session.poll_event() {
                Some(Event::Done(outcomes)) => {
                    self.idle_since = Instant::now();
                    return Sent { outcomes, begun };
                }
                Some(Event::Begin) => begun = true,
                Some(_) => {}
                None if self.session.wants_content() => match body.next().await {
                    Ok(Some(piece)) => {
                        self.session.content(piece, Instant::now());
                        self.write().await;
                    }
                    Ok(None) => self.session.end_content(Instant::now()),
                    Err(error) => {
                        tracing::error!(%error, "next hop: the message could not be read");
                        self.session.abort_content();
                    }
                },
                None => self.exchange().await,
            }
        }
    }

    /// Whether a further message can be sent over it.
    pub(super) fn is_ready(&self) -> bool {
        self.session.is_ready()
    }

    /// Says goodbye; the answer is not waited for.
    pub(super) async fn quit(mut self) {
        self.session.quit(Instant::now());
        self.write().await;
    }

    async fn start_tls(
        &mut self,
        tls: &TlsConnector,
        server_name: &ServerName<'static>,
    ) -> Result<(), ConnectFailure> {
        let Stream::Plain(stream) = std::mem::replace(&mut self.stream, Stream::Gone) else {
            return Err(ConnectFailure::Tls);
        };
        let handshake = tls.connect(server_name.clone(), stream);
        match tokio::time::timeout(NEXT_HOP_CONNECT_TIMEOUT, handshake).await {
            Ok(Ok(stream)) => {
                self.stream = Stream::Tls(Box::new(stream));
                self.session.tls_started(Instant::now());
                Ok(())
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "next hop: STARTTLS failed");
                Err(ConnectFailure::Tls)
            }
            Err(_) => Err(ConnectFailure::Tls),
        }
    }

    /// Writes what there is to write, then waits for the peer or the deadline.
    async fn exchange(&mut self) {
        if !self.write().await {
            return;
        }
        let deadline = self.session.poll_timeout().map(|(_, at)| at.into());
        let mut input = BytesMut::with_capacity(NEXT_HOP_READ_LEN);
        tokio::select! {
            read = self.stream.read(&mut input) => match read {
                Ok(len) if len > 0 => self.session.handle_input(&input, Instant::now()),
                _ => self.session.handle_disconnect(),
            },
            () = sleep_until(deadline) => self.session.handle_timeout(Instant::now()),
        }
    }

    /// Writes what there is to write. A peer that takes no more may have said why: that is read before giving up.
    async fn write(&mut self) -> bool {
        while let Some(output) = self.session.poll_output() {
            let deadline = self.session.poll_timeout().map(|(_, at)| at.into());
            let written = tokio::select! {
                written = self.stream.write(&output) => written.is_ok(),
                () = sleep_until(deadline) => false,
            };
            if !written {
                let mut last_words = BytesMut::with_capacity(NEXT_HOP_READ_LEN);
                let reading = self.stream.read(&mut last_words);
                if tokio::time::timeout(NEXT_HOP_LAST_WORDS_TIMEOUT, reading).await.is_ok() {
                    self.session.handle_input(&last_words, Instant::now());
                }
                self.session.handle_disconnect();
                return false;
            }
        }
        true
    }
}

impl Stream {
    async fn read(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read_buf(buffer).await,
            Self::Tls(stream) => stream.read_buf(buffer).await,
            Self::Gone => Ok(0),
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.write_all(bytes).await,
            Self::Tls(stream) => {
                stream.write_all(bytes).await?;
                stream.flush().await
            }
            Self::Gone => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

async fn sleep_until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
