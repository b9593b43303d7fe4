//! The connection to the user's provider that stands behind one mail client's: what the client says is passed on, and
//! what the provider answers comes back.

use std::io;
use std::time::Instant;

use lighter_mail::client::{Capabilities, Event, Outcome};
use lighter_mail::server::Extensions;
use lighter_mail::{AuthText, Envelope, MailFrom, RcptTo, Reply};
use tokio::time::timeout;

use crate::config::SmtpConfig;
use crate::failure::Failure;
use crate::limits::SUBMISSION_PROVIDER_TIME_MAX;
use crate::send::mail::{Content, NotOpen, Wire};

/// A connection on which mail can be sent.
pub(super) struct Provider {
    wire: Wire,
    /// Whether each recipient of the open transaction was accepted, in the order in which they were added.
    accepted: Vec<bool>,
    is_authenticated: bool,
    is_lost: bool,
}

/// What the provider says to a line of an authentication.
pub(super) enum AuthStep {
    /// More is to be said.
    Challenge(String),
    /// What became of it.
    Done(Reply),
}

/// The connection is gone: what the client is told before its own ends.
#[derive(Debug)]
pub(super) struct Lost(pub(super) Reply);

const LOST: Reply = Reply::fixed(421, 4, 2, "The mail server has ended the connection");

impl Provider {
    /// Connects, as far as mail may be sent. Where encryption was agreed on and fails, there is none in its place.
    ///
    /// # Errors
    /// Says in words for the user what is wrong.
    pub(super) async fn connect(config: &SmtpConfig, host_name: &str) -> Result<Self, Failure> {
        let opening = timeout(SUBMISSION_PROVIDER_TIME_MAX, Wire::open(config, host_name, config.tls));
        let wire = opening.await.unwrap_or_else(|_| Err(NotOpen::Connect(io::ErrorKind::TimedOut.into())));
        let wire = wire.map_err(|error| error.into_failure(&config.server))?;
        Ok(Self { wire, accepted: Vec::new(), is_authenticated: false, is_lost: false })
    }

    /// What the provider can do.
    pub(super) fn capabilities(&mut self) -> &Capabilities {
        self.wire.session().capabilities()
    }

    /// The same, as it is announced to the client.
    pub(super) fn extensions(&mut self) -> Extensions {
        let Capabilities { eight_bit_mime, smtputf8, dsn, .. } = *self.capabilities();
        Extensions { eight_bit_mime, smtputf8, dsn }
    }

    /// The ways to authenticate that may be used: none where somebody could listen.
    pub(super) fn mechanisms(&mut self) -> Vec<String> {
        if self.wire.is_private() { self.capabilities().mechanisms.clone() } else { Vec::new() }
    }

    /// Whether the client has authenticated.
    pub(super) fn is_authenticated(&self) -> bool {
        self.is_authenticated
    }

    /// Passes the beginning of an authentication on.
    pub(super) async fn authenticate(
        &mut self,
        mechanism: &str,
        initial: Option<&AuthText>,
    ) -> Result<AuthStep, Lost> {
        self.is_there()?;
        self.wire.session().authenticate(mechanism, initial, Instant::now());
        self.auth_step().await
    }

    /// Passes the answer to a challenge on.
    pub(super) async fn respond(&mut self, response: &AuthText) -> Result<AuthStep, Lost> {
        self.is_there()?;
        self.wire.session().respond(response, Instant::now());
        self.auth_step().await
    }

    /// Begins the transaction; what the provider says to MAIL. A transaction that is open is given up.
    pub(super) async fn mail(&mut self, mail: MailFrom) -> Result<Reply, Lost> {
        self.is_there()?;
        self.abandon();
        self.wire.session().open(mail, Instant::now());
        self.answer().await
    }

    /// Adds a recipient; what the provider says to RCPT.
    pub(super) async fn recipient(&mut self, rcpt: RcptTo) -> Result<Reply, Lost> {
        self.is_there()?;
        self.wire.session().add_recipient(rcpt, Instant::now());
        let reply = self.answer().await?;
        self.accepted.push(reply.is_done());
        Ok(reply)
    }

    /// Sends the content in the transaction that is open: what the provider says at its end.
    pub(super) async fn content(&mut self, content: Content) -> Reply {
        let accepted = std::mem::take(&mut self.accepted);
        self.wire.session().start_content(Instant::now());
        let outcomes = self.wire.feed(content).await;
        let mut said = outcomes.iter().zip(accepted).filter(|(_, accepted)| *accepted);
        said.next().map_or(LOST, |(outcome, _)| outcome.reply.clone())
    }

    /// Gives up the transaction that is open, if one is.
    pub(super) fn abandon(&mut self) {
        self.accepted.clear();
        self.wire.session().abandon();
    }

    /// Sends a message in a transaction of its own: what became of it for each recipient.
    pub(super) async fn send(&mut self, envelope: Envelope, content: Content) -> Vec<Outcome> {
        self.abandon();
        self.wire.send(envelope, content).await
    }

    /// Ends the connection.
    pub(super) async fn quit(self) {
        self.wire.quit().await;
    }

    fn is_there(&self) -> Result<(), Lost> {
        if self.is_lost { Err(Lost(LOST)) } else { Ok(()) }
    }

    async fn auth_step(&mut self) -> Result<AuthStep, Lost> {
        loop {
            match self.wire.session().poll_event() {
                Some(Event::Challenge(challenge)) => return Ok(AuthStep::Challenge(challenge)),
                Some(Event::Authenticated(reply)) => {
                    self.is_authenticated |= reply.is_done();
                    return Ok(AuthStep::Done(reply));
                }
                Some(Event::Closed(why)) => return Err(self.lost(why)),
                Some(_) => {}
                None => self.wire.exchange().await,
            }
        }
    }

    async fn answer(&mut self) -> Result<Reply, Lost> {
        loop {
            match self.wire.session().poll_event() {
                Some(Event::Answered(reply)) => return Ok(reply),
                Some(Event::Closed(why)) => return Err(self.lost(why)),
                Some(_) => {}
                None => self.wire.exchange().await,
            }
        }
    }

    /// The client's connection ends, too, in the provider's words where there are any.
    fn lost(&mut self, why: Option<Outcome>) -> Lost {
        self.is_lost = true;
        let said = why.map(|why| why.reply).filter(|reply| reply.code == 421);
        Lost(said.unwrap_or(LOST))
    }
}
