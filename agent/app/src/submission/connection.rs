//! One mail client's connection: the server's session, its socket, and the provider behind it.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use lighter_mail::client::Size;
use lighter_mail::limits::SIZE_MAX_DEFAULT;
use lighter_mail::server::{Config, Event, Session, Verdict};
use lighter_mail::{Envelope, Protocol, Reply};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use zeroize::{Zeroize, Zeroizing};

use super::Settings;
use super::deliver;
use super::incoming::Incoming;
use super::provider::{AuthStep, Lost, Provider};
use crate::limits::{SUBMISSION_COMMAND_READ_LEN, SUBMISSION_CONTENT_READ_LEN, SUBMISSION_WRITE_TIME_MAX};
use crate::shared::Handle;

/// How long a client may take to read a last reply and to hang up.
const GOODBYE_TIME_MAX: Duration = Duration::from_secs(2);

pub(super) const TOO_MANY: Reply = Reply::fixed(421, 3, 2, "Too many connections, try again later");

/// RFC 7504 §3 has 521 for hosts that never take mail; this one does, of others.
pub(super) const NOT_ALLOWED: Reply = Reply::fixed(554, 7, 1, "Mail is not taken from there: access denied");

/// Says one reply and closes.
pub(super) async fn turn_away(mut stream: TcpStream, reply: &Reply) {
    let line = format!("{reply}\r\n");
    let saying = async {
        stream.write_all(line.as_bytes()).await?;
        stream.shutdown().await
    };
    let _ = timeout(GOODBYE_TIME_MAX, saying).await;
}

/// One connection.
pub(super) struct Connection<'a> {
    session: Session,
    stream: TcpStream,
    provider: Provider,
    /// What the message that comes in says of itself, and it.
    envelope: Option<Envelope>,
    incoming: Option<Incoming>,
    /// Commands, which may be passwords.
    commands: Zeroizing<Vec<u8>>,
    contents: BytesMut,
    shared: &'a Handle,
    settings: &'a Settings,
}

/// The connection ends, and there is nobody to be told why.
struct Ended;

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        tracing::debug!(%error, "a mail client's connection was lost");
        Self
    }
}

impl Connection<'_> {
    /// Serves a connection to its end.
    pub(super) async fn serve(stream: TcpStream, shared: &Handle, settings: &Settings) {
        let host_name = shared.mailbox().domain();
        let mut provider = match Provider::connect(&settings.smtp, host_name).await {
            Ok(provider) => provider,
            Err(failure) => {
                tracing::warn!(why = %failure, "a mail client was turned away");
                let why = failure.to_string();
                let reply = Reply::fixed(421, 4, 1, "").with_text(why.clone());
                shared.count_submission(|status| status.problem = Some(why));
                return turn_away(stream, &reply).await;
            }
        };
        shared.count_submission(|status| {
            status.problem = None;
            status.connections += 1;
        });
        let size_max = match provider.capabilities().size {
            Size::Limited(limit) => limit.min(SIZE_MAX_DEFAULT),
            Size::Unknown | Size::Unlimited => SIZE_MAX_DEFAULT,
        };
        let mechanisms = if settings.role.passes_passwords() { provider.mechanisms() } else { Vec::new() };
        let config = Config {
            size_max,
            mechanisms,
            extensions: provider.extensions(),
            ..Config::new(Protocol::Smtp, &settings.role.host_name(host_name))
        };
        let _ = stream.set_nodelay(true);
        let mut connection = Connection {
            session: Session::new(Arc::new(config), Instant::now()),
            stream,
            provider,
            envelope: None,
            incoming: None,
            commands: Zeroizing::new(vec![0; SUBMISSION_COMMAND_READ_LEN]),
            contents: BytesMut::new(),
            shared,
            settings,
        };
        if connection.run().await.is_ok() {
            let _ = timeout(GOODBYE_TIME_MAX, connection.hang_up()).await;
        }
        connection.provider.quit().await;
        shared.count_submission(|status| status.connections -= 1);
    }

    async fn run(&mut self) -> Result<(), Ended> {
        let mut is_stopping = false;
        loop {
            while let Some(event) = self.session.poll_event(Instant::now()) {
                if event == Event::Close {
                    return self.flush().await;
                }
                if let Err(Lost(reply)) = self.tell(event).await {
                    self.refuse(reply);
                    return self.flush().await;
                }
            }
            self.flush().await?;
            if !self.session.wants_input() {
                continue;
            }
            let deadline = self.session.poll_timeout().map(|(_, at)| at.into());
            let stop = self.shared.stop.clone();
            tokio::select! {
                read = self.read() => match read? {
                    Some(piece) => self.session.handle_input(piece),
                    None => self.session.handle_disconnect(),
                },
                () = sleep_until(deadline) => self.session.handle_timeout(Instant::now()),
                () = stop.cancelled(), if !is_stopping => {
                    is_stopping = true;
                    self.session.shut_down();
                }
            }
        }
    }

    /// Passes an event on and answers it.
    async fn tell(&mut self, event: Event) -> Result<(), Lost> {
        match event {
            Event::Auth { mechanism, initial } => {
                let step = self.provider.authenticate(&mechanism, initial.as_ref()).await?;
                self.go_on(step);
            }
            Event::AuthResponse(response) => {
                let step = self.provider.respond(&response).await?;
                self.go_on(step);
            }
            Event::Mail(mail) => {
                let reply = self.provider.mail(mail).await?;
                self.answer(reply);
            }
            Event::Recipient(rcpt) => {
                let reply = self.provider.recipient(rcpt).await?;
                self.answer(reply);
            }
            Event::Begin(envelope) => {
                let expected = envelope.mail.size.unwrap_or(0);
                let begun = Incoming::begin(self.shared, &self.settings.spool, expected).await;
                match begun {
                    Ok(incoming) => {
                        self.incoming = Some(incoming);
                        self.session.accept(Instant::now());
                        self.envelope = Some(envelope);
                    }
                    Err(reply) => self.refuse(reply),
                }
            }
            Event::Content(piece) => {
                if let Some(incoming) = &mut self.incoming
                    && let Err(reply) = incoming.content(piece).await
                {
                    self.incoming = None;
                    self.refuse(reply);
                }
            }
            Event::End(_) => {
                if let (Some(incoming), Some(envelope)) = (self.incoming.take(), self.envelope.take()) {
                    let reply = match incoming.end().await {
                        Ok((made, hash)) => {
                            deliver::deliver(
                                self.shared,
                                self.settings,
                                &mut self.provider,
                                envelope,
                                made,
                                hash,
                            )
                            .await
                        }
                        Err(reply) => reply,
                    };
                    if !reply.is_done() {
                        self.shared.count_submission(|status| status.refused += 1);
                    }
                    tracing::debug!(code = reply.code, "a submitted message was answered");
                    self.session.finish(&Verdict::All(reply), Instant::now());
                }
            }
            Event::Abort => {
                self.incoming = None;
                self.provider.abandon();
            }
            Event::Hello { .. } | Event::StartTls | Event::Close => {}
        }
        Ok(())
    }

    /// What the provider says to a part of an authentication.
    fn go_on(&mut self, step: AuthStep) {
        match step {
            AuthStep::Challenge(challenge) => self.session.challenge(&challenge, Instant::now()),
            AuthStep::Done(reply) => self.session.auth_done(&reply, Instant::now()),
        }
    }

    /// What the provider says to MAIL and RCPT.
    fn answer(&mut self, reply: Reply) {
        if reply.is_done() { self.session.accept(Instant::now()) } else { self.refuse(reply) }
    }

    fn refuse(&mut self, reply: Reply) {
        self.session.refuse(reply, Instant::now());
    }

    /// Reads what comes: commands are wiped when they were looked at, content is not.
    async fn read(&mut self) -> io::Result<Option<Bytes>> {
        let piece = if self.incoming.is_some() {
            self.contents.reserve(SUBMISSION_CONTENT_READ_LEN);
            self.stream.read_buf(&mut self.contents).await?;
            self.contents.split().freeze()
        } else {
            let len = self.stream.read(&mut self.commands).await?;
            let read = self.commands.get_mut(..len).unwrap_or_default();
            let piece = Zeroizing::new(read.to_vec());
            read.zeroize();
            Bytes::from_owner(piece)
        };
        Ok(if piece.is_empty() { None } else { Some(piece) })
    }

    /// Writes what the session says.
    async fn flush(&mut self) -> Result<(), Ended> {
        while let Some(output) = self.session.poll_output() {
            match timeout(SUBMISSION_WRITE_TIME_MAX, self.stream.write_all(&output)).await {
                Ok(written) => written?,
                Err(_) => return Err(Ended),
            }
        }
        Ok(())
    }

    /// Closes this side, then waits for the client to close its own: a socket that is dropped with input unread is reset,
    /// and the last reply may never be seen.
    async fn hang_up(&mut self) -> io::Result<()> {
        self.stream.shutdown().await?;
        while self.stream.read(&mut self.commands).await? > 0 {}
        Ok(())
    }
}

async fn sleep_until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
