//! One mail connection: the session, its socket, and the message that is coming in.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use lighter_mail::server::{Event, Session};
use lighter_mail::{MailFrom, Reply};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::Shared;
use crate::intake::{Incoming, Intake, MailPeer};
use crate::limits::{MAIL_COMMAND_READ_LEN, MAIL_CONTENT_READ_LEN, MAIL_REFUSALS_LOGGED_MAX};

/// How long a peer may take to read a last reply and to hang up.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(2);

const NO_AUTH: Reply = Reply::fixed(454, 7, 0, "No authentication here");

/// Says one line and closes.
pub(super) async fn turn_away(mut stream: TcpStream, reply: &[u8]) {
    let saying = async {
        stream.write_all(reply).await?;
        stream.shutdown().await
    };
    let _ = tokio::time::timeout(GOODBYE_TIMEOUT, saying).await;
}

/// One connection.
pub(super) struct Connection {
    session: Session,
    wire: Wire,
    tls: Option<TlsAcceptor>,
    peer: MailPeer,
    /// What the present transaction's MAIL said.
    mail: MailFrom,
    input: BytesMut,
    /// How long the peer may leave replies unread.
    write_timeout: Duration,
    /// Refusals that may still be logged.
    log_left: usize,
}

/// The bytes in the clear or encrypted.
enum Wire {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    /// Between the two, and at the end.
    Gone,
}

/// The connection ends, and there is nobody to be told why.
struct Ended;

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        tracing::debug!(%error, "mail connection lost");
        Self
    }
}

impl Connection {
    pub(super) fn new(stream: TcpStream, address: SocketAddr, shared: &Shared) -> Self {
        let config = shared.session_now();
        // Replies are short and whole: waiting for more of them only delays the peer.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        Self {
            peer: MailPeer {
                address,
                protocol: config.protocol,
                hello: String::new(),
                extended: false,
                tls: false,
            },
            write_timeout: config.timeouts.command,
            session: Session::new(config, Instant::now()),
            wire: Wire::Plain(stream),
            tls: shared.tls.clone(),
            mail: MailFrom::default(),
            input: BytesMut::new(),
            log_left: MAIL_REFUSALS_LOGGED_MAX,
        }
    }

    /// Serves the connection to its end.
    pub(super) async fn run<I: Intake>(mut self, intake: &I, stop: &CancellationToken) {
        tracing::debug!(peer = %self.peer.address, "mail connection");
        let mut incoming = None;
        let ended = self.serve(intake, &mut incoming, stop).await;
        if let Some(incoming) = incoming {
            incoming.abort().await;
        }
        if ended.is_ok() {
            let _ = tokio::time::timeout(GOODBYE_TIMEOUT, self.hang_up()).await;
        }
    }

    async fn serve<I: Intake>(
        &mut self,
        intake: &I,
        incoming: &mut Option<I::Incoming>,
        stop: &CancellationToken,
    ) -> Result<(), Ended> {
        let mut stopping = false;
        loop {
            while let Some(event) = self.session.poll_event(Instant::now()) {
                match event {
                    Event::StartTls => self.start_tls().await?,
                    Event::Close => return self.flush().await,
                    event => self.tell(event, intake, incoming).await,
                }
            }
            self.flush().await?;
            if !self.session.wants_input() {
                continue;
            }
            let deadline = self.session.poll_timeout().map(|(_, at)| tokio::time::Instant::from_std(at));
            let len = if incoming.is_some() { MAIL_CONTENT_READ_LEN } else { MAIL_COMMAND_READ_LEN };
            tokio::select! {
                read = self.wire.read(&mut self.input, len) => match read? {
                    Some(piece) => self.session.handle_input(piece),
                    None => self.session.handle_disconnect(),
                },
                () = sleep_until(deadline) => self.session.handle_timeout(Instant::now()),
                () = stop.cancelled(), if !stopping => {
                    stopping = true;
                    self.session.shut_down();
                }
            }
        }
    }

    /// Passes an event on and answers it.
    async fn tell<I: Intake>(&mut self, event: Event, intake: &I, incoming: &mut Option<I::Incoming>) {
        match event {
            Event::Hello { name, extended } => {
                self.peer.hello = name;
                self.peer.extended = extended;
            }
            Event::Mail(mail) => {
                let answer = intake.sender(&self.peer, &mail).await;
                self.mail = mail;
                self.answer(answer);
            }
            Event::Recipient(rcpt) => {
                let answer = intake.recipient(&self.peer, &self.mail, &rcpt).await;
                self.answer(answer);
            }
            Event::Begin(envelope) => {
                let answer = intake.begin(&self.peer, envelope).await.map(|begun| *incoming = Some(begun));
                self.answer(answer);
            }
            Event::Content(piece) => {
                if let Some(message) = incoming
                    && let Err(reply) = message.content(piece).await
                {
                    *incoming = None;
                    self.session.refuse(reply, Instant::now());
                }
            }
            Event::End(summary) => {
                if let Some(message) = incoming.take() {
                    let verdict = message.finish(summary).await;
                    tracing::debug!(len = summary.len, "message answered");
                    self.session.finish(&verdict, Instant::now());
                }
            }
            Event::Abort => {
                if let Some(message) = incoming.take() {
                    message.abort().await;
                }
            }
            // Never offered: whoever sends to the relay is known by address, or not at all.
            Event::Auth { .. } | Event::AuthResponse(_) => self.answer(Err(NO_AUTH)),
            Event::StartTls | Event::Close => {} // `serve` knows what to do.
        }
    }

    fn answer(&mut self, answer: Result<(), Reply>) {
        match answer {
            Ok(()) => self.session.accept(Instant::now()),
            Err(reply) => self.session.refuse(reply, Instant::now()),
        }
    }

    /// Writes what the session says.
    async fn flush(&mut self) -> Result<(), Ended> {
        while let Some(output) = self.session.poll_output() {
            self.log_refusals(&output);
            match tokio::time::timeout(self.write_timeout, self.wire.write(&output)).await {
                Ok(written) => written?,
                Err(_) => return Err(Ended),
            }
        }
        Ok(())
    }

    /// A line for each refusal, the first ones of a session: the texts are chosen here and name nobody.
    fn log_refusals(&mut self, output: &[u8]) {
        let refusals =
            output.split(|byte| *byte == b'\n').filter(|line| matches!(line.first(), Some(b'4' | b'5')));
        for line in refusals.take(self.log_left) {
            self.log_left -= 1;
            tracing::info!(reply = %String::from_utf8_lossy(line.trim_ascii_end()), "refused");
        }
    }

    /// Closes this side, then waits for the peer to close its own: a socket that is dropped with input unread is reset,
    /// and the last reply may never be seen.
    async fn hang_up(&mut self) -> io::Result<()> {
        self.wire.shut_down().await?;
        while self.wire.read(&mut self.input, MAIL_COMMAND_READ_LEN).await?.is_some() {}
        Ok(())
    }

    /// The handshake. A peer that sends something else is not answered: nobody knows in which language.
    async fn start_tls(&mut self) -> Result<(), Ended> {
        self.flush().await?;
        let wire = std::mem::replace(&mut self.wire, Wire::Gone);
        let (Wire::Plain(stream), Some(acceptor)) = (wire, &self.tls) else { return Err(Ended) };
        let deadline = self.session.poll_timeout().map(|(_, at)| tokio::time::Instant::from_std(at));
        tokio::select! {
            accepted = acceptor.accept(stream) => {
                let stream = accepted.inspect_err(|_| tracing::info!("STARTTLS failed"))?;
                self.wire = Wire::Tls(Box::new(stream));
                self.peer.tls = true;
                self.session.tls_started(Instant::now());
                Ok(())
            }
            () = sleep_until(deadline) => Err(Ended),
        }
    }
}

impl Wire {
    /// Reads up to `len` bytes; `None` at the end. The piece shares `buffer`'s memory, which is used again once every
    /// piece of it was dropped.
    async fn read(&mut self, buffer: &mut BytesMut, len: usize) -> io::Result<Option<Bytes>> {
        buffer.reserve(len);
        let read = match self {
            Self::Plain(stream) => stream.read_buf(buffer).await?,
            Self::Tls(stream) => stream.read_buf(buffer).await?,
            Self::Gone => 0,
        };
        Ok(if read == 0 { None } else { Some(buffer.split().freeze()) })
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

    async fn shut_down(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.shutdown().await,
            Self::Tls(stream) => stream.shutdown().await,
            Self::Gone => Ok(()),
        }
    }
}

async fn sleep_until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
