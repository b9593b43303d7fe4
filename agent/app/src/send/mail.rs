//! Handing a message to the user's mail server by SMTP: a socket around `lighter_mail::client::Session`.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use lighter_mail::client::{Config as SessionConfig, Event, Origin, Outcome, Session, Tls};
use lighter_mail::{Address, Body, Envelope, MailFrom, Protocol, RcptTo};
use lighter_protocol::Mailbox;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;

use crate::config::{SmtpConfig, SmtpTls};
use crate::failure::Failure;
use crate::limits::{CA_FILE_LEN_MAX, COPY_LEN};

/// How long the connection itself may take.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(30);
/// Pieces of a message that wait to be sent.
const PIECES_MAX: usize = 8;

/// A message's bytes as they are made, on a blocking thread.
pub(crate) type Content = mpsc::Receiver<io::Result<Bytes>>;

/// Makes content from something that writes; it is written as fast as it is sent.
pub(crate) fn content(write: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'static) -> Content {
    let (pieces, content) = mpsc::channel(PIECES_MAX);
    tokio::task::spawn_blocking(move || {
        let mut sender = PieceWriter { pieces, gathered: BytesMut::with_capacity(COPY_LEN) };
        if let Err(error) = write(&mut sender).and_then(|()| sender.flush()) {
            // Nobody there: the session has ended, and said why.
            let _ = sender.pieces.blocking_send(Err(error));
        }
    });
    content
}

struct PieceWriter {
    pieces: mpsc::Sender<io::Result<Bytes>>,
    gathered: BytesMut,
}

impl Write for PieceWriter {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.gathered.extend_from_slice(data);
        if self.gathered.len() >= COPY_LEN {
            self.flush()?;
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let piece = self.gathered.split().freeze();
        self.pieces.blocking_send(Ok(piece)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// What became of a message for one recipient.
#[derive(Debug)]
pub(crate) enum Fate {
    /// The mail server has it.
    Taken,
    /// The mail server said that it has not.
    Refused(Failure),
    /// The connection was lost before it said either.
    Unknown(Failure),
}

/// Hands one message over; gives its fate for each recipient in turn.
///
/// # Errors
/// Where there is no connection on which it can be sent.
pub(crate) async fn send(
    config: &SmtpConfig,
    from: &Mailbox,
    to: &[Mailbox],
    content: Content,
) -> Result<Vec<Fate>, Failure> {
    let envelope = envelope(from, to)?;
    let mut wire = match Wire::open(config, from.domain(), config.tls).await {
        Ok(wire) => wire,
        // In the clear is no worse than a server that cannot prove itself; `required` is for who wants more (RFC 7435).
        Err(NotOpen::Tls) if config.tls == SmtpTls::IfOffered => {
            Wire::open(config, from.domain(), SmtpTls::Off)
                .await
                .map_err(|error| error.into_failure(&config.server))?
        }
        Err(error) => return Err(error.into_failure(&config.server)),
    };
    let outcomes = wire.send(envelope, content).await;
    wire.quit().await;
    Ok(outcomes.iter().map(fate).collect())
}

fn envelope(from: &Mailbox, to: &[Mailbox]) -> Result<Envelope, Failure> {
    let address = |mailbox: &Mailbox| {
        mailbox.as_str().parse::<Address>().map_err(|error| Failure::wrong_use(format!("{mailbox}: {error}")))
    };
    let is_ascii = from.as_str().is_ascii() && to.iter().all(|mailbox| mailbox.as_str().is_ascii());
    let mail = MailFrom {
        path: Some(address(from)?),
        size: None,
        body: Body::SevenBit,
        smtputf8: !is_ascii,
        ret: None,
        envid: None,
    };
    let recipients = to.iter().map(|mailbox| address(mailbox).map(RcptTo::new)).collect::<Result<_, _>>()?;
    Ok(Envelope { mail, recipients })
}

fn fate(outcome: &Outcome) -> Fate {
    if outcome.is_delivered() {
        return Fate::Taken;
    }
    match outcome.from {
        Origin::Peer => Fate::Refused(not_taken(outcome)),
        Origin::Here => Fate::Unknown(not_taken(outcome)),
    }
}

fn not_taken(outcome: &Outcome) -> Failure {
    let message = format!("the mail server did not take it: {}", outcome.reply);
    if outcome.is_permanent() { Failure::failed(message) } else { Failure::temporary(message) }
}

/// Why there is no connection on which a message can be sent.
#[derive(Debug)]
pub(crate) enum NotOpen {
    Connect(io::Error),
    Tls,
    Refused(Box<Outcome>),
    Setup(Failure),
}

impl NotOpen {
    /// In words for the user.
    pub(crate) fn into_failure(self, server: &str) -> Failure {
        match self {
            Self::Connect(error) => {
                Failure::temporary(format!("the mail server {server} cannot be reached: {error}"))
            }
            Self::Tls => Failure::temporary(format!("no trusted encryption with the mail server {server}")),
            Self::Refused(why) if why.is_delivered() => {
                Failure::temporary(format!("the mail server {server} ended the connection"))
            }
            Self::Refused(why) => not_taken(&why),
            Self::Setup(failure) => failure,
        }
    }
}

pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for T {}

/// One connection to the mail server.
pub(crate) struct Wire {
    session: Session,
    stream: Option<Box<dyn Stream>>,
    /// Whether nobody in between can listen: it is encrypted, or does not leave the machine.
    is_private: bool,
}

impl Wire {
    /// Connects, and goes as far as a message may be sent.
    pub(crate) async fn open(config: &SmtpConfig, host_name: &str, tls: SmtpTls) -> Result<Self, NotOpen> {
        let connecting = tokio::time::timeout(CONNECT_TIME_MAX, TcpStream::connect(&config.server));
        let stream = match connecting.await {
            Ok(connected) => connected.map_err(NotOpen::Connect)?,
            Err(_) => return Err(NotOpen::Connect(io::ErrorKind::TimedOut.into())),
        };
        let _ = stream.set_nodelay(true);
        let mut is_private = stream.peer_addr().is_ok_and(|peer| peer.ip().is_loopback());
        let mut stream: Box<dyn Stream> = Box::new(stream);
        if tls == SmtpTls::Implicit {
            stream = handshake(config, stream).await?;
            is_private = true;
        }
        let tls = match tls {
            SmtpTls::Off | SmtpTls::Implicit => Tls::Off,
            SmtpTls::IfOffered => Tls::IfOffered,
            SmtpTls::Required => Tls::Required,
        };
        let session = SessionConfig { tls, ..SessionConfig::new(Protocol::Smtp, host_name) };
        let session = Session::new(Arc::new(session), Instant::now());
        let mut wire = Self { session, stream: Some(stream), is_private };
        loop {
            match wire.session.poll_event() {
                Some(Event::Ready) => return Ok(wire),
                Some(Event::StartTls) => wire.start_tls(config).await?,
                Some(Event::Closed(Some(why))) => return Err(NotOpen::Refused(Box::new(why))),
                Some(Event::Closed(None)) => {
                    return Err(NotOpen::Connect(io::ErrorKind::ConnectionReset.into()));
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

    async fn start_tls(&mut self, config: &SmtpConfig) -> Result<(), NotOpen> {
        self.write().await;
        let Some(stream) = self.stream.take() else { return Err(NotOpen::Tls) };
        self.stream = Some(handshake(config, stream).await?);
        self.is_private = true;
        self.session.tls_started(Instant::now());
        Ok(())
    }

    /// The session, for who drives it step by step.
    pub(crate) fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    /// Whether nobody in between can listen.
    pub(crate) fn is_private(&self) -> bool {
        self.is_private
    }

    /// Sends a message.
    pub(crate) async fn send(&mut self, envelope: Envelope, content: Content) -> Vec<Outcome> {
        self.session.send(envelope, Instant::now());
        self.feed(content).await
    }

    /// Gives the message that the session sends its content, and waits for what becomes of it.
    pub(crate) async fn feed(&mut self, mut content: Content) -> Vec<Outcome> {
        loop {
            match self.session.poll_event() {
                Some(Event::Done(outcomes)) => return outcomes,
                Some(_) => {}
                None if self.session.wants_content() => match content.recv().await {
                    Some(Ok(piece)) => {
                        self.session.content(piece, Instant::now());
                        self.write().await;
                    }
                    Some(Err(error)) => {
                        tracing::warn!(%error, "the message could not be read");
                        self.session.abort_content();
                    }
                    None => self.session.end_content(Instant::now()),
                },
                None => self.exchange().await,
            }
        }
    }

    /// Says goodbye; the answer is not waited for.
    pub(crate) async fn quit(mut self) {
        self.session.quit(Instant::now());
        self.write().await;
    }

    /// Writes what there is to write, then waits for the server or the deadline.
    pub(crate) async fn exchange(&mut self) {
        if !self.write().await {
            return;
        }
        let deadline = self.session.poll_timeout().map(|(_, at)| at.into());
        let Some(stream) = &mut self.stream else { return self.session.handle_disconnect() };
        let mut input = BytesMut::with_capacity(COPY_LEN);
        tokio::select! {
            read = stream.read_buf(&mut input) => match read {
                Ok(len) if len > 0 => self.session.handle_input(&input, Instant::now()),
                _ => self.session.handle_disconnect(),
            },
            () = sleep_until(deadline) => self.session.handle_timeout(Instant::now()),
        }
    }

    async fn write(&mut self) -> bool {
        while let Some(output) = self.session.poll_output() {
            let deadline = self.session.poll_timeout().map(|(_, at)| at.into());
            let written = match &mut self.stream {
                Some(stream) => tokio::select! {
                    written = async {
                        stream.write_all(&output).await?;
                        stream.flush().await
                    } => written.is_ok(),
                    () = sleep_until(deadline) => false,
                },
                None => false,
            };
            if !written {
                self.session.handle_disconnect();
                return false;
            }
        }
        true
    }
}

/// The TLS handshake, as the client.
async fn handshake(config: &SmtpConfig, stream: Box<dyn Stream>) -> Result<Box<dyn Stream>, NotOpen> {
    let server = &config.server;
    let host = server.rsplit_once(':').map_or(server.as_str(), |(host, _)| host);
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned());
    let name =
        name.map_err(|_| NotOpen::Setup(Failure::wrong_use(format!("{server:?} is not HOST:PORT"))))?;
    let client = rustls::ClientConfig::builder().with_root_certificates(roots(config)?).with_no_client_auth();
    let handshake = TlsConnector::from(Arc::new(client)).connect(name, stream);
    match tokio::time::timeout(CONNECT_TIME_MAX, handshake).await {
        Ok(Ok(stream)) => Ok(Box::new(stream)),
        _ => Err(NotOpen::Tls),
    }
}

/// Who may vouch for the mail server.
fn roots(config: &SmtpConfig) -> Result<RootCertStore, NotOpen> {
    let mut roots = RootCertStore::empty();
    let Some(path) = &config.ca_file else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return Ok(roots);
    };
    let failed = |why: &dyn std::fmt::Display| {
        NotOpen::Setup(Failure::wrong_use(format!("{}: {why}", path.display())))
    };
    let mut pem = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| failed(&error))?;
    file.take(CA_FILE_LEN_MAX).read_to_end(&mut pem).map_err(|error| failed(&error))?;
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| failed(&error))?;
        roots.add(certificate).map_err(|error| failed(&error))?;
    }
    if roots.is_empty() { Err(failed(&"no certificate in it")) } else { Ok(roots) }
}

async fn sleep_until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
