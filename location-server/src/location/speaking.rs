//! Outgoing mail servers, which send for all users of a domain (SPEC A26).
//!
//! Who they are stands in the configuration (`[outgoing]`): a mailbox, and the domains whose users its stores speak for. Such a
//! session may name the user for whom it asks, and then learns what that user would, and no more: what a recipient has
//! chosen about this user counts. It may say that the user wrote to somebody, as the user's own store would. It registers,
//! pulls and receipts for its own mailbox only.

use lighter_protocol::time::Now;
use lighter_protocol::{Mailbox, Signed};
use lighter_transport::location::api::{AcceptanceChange, SpeakerAnswer};
use lighter_transport::location::foreign::Speaker;

use super::answers::is_confirmed;
use super::{Caller, Location};
use crate::error::CallError;
use crate::lock::read;
use crate::rows::{StoreKey, TokenHash};
use crate::sessions::Session;

impl Location {
    /// Whether stores of `mailbox` speak for the users of any domain.
    pub(super) fn is_speaker(&self, mailbox: &Mailbox) -> bool {
        self.config.outgoing.contains_key(mailbox)
    }

    /// The caller, asking for `sender` where one is named.
    ///
    /// # Errors
    /// [`CallError::Refused`] where it does not speak for them.
    pub fn ask_for(&self, caller: Caller, sender: Option<Mailbox>, now: Now) -> Result<Caller, CallError> {
        match (caller, sender) {
            (caller, None) => Ok(caller),
            (Caller::Session(session), Some(sender)) => {
                self.session_for(session, sender, now).map(Caller::Session)
            }
            (Caller::Token(_) | Caller::Foreign(_), Some(_)) => Err(CallError::Refused),
        }
    }

    /// A session that acts for `sender`, as far as it may: it has the same allowances, and the same key.
    ///
    /// # Errors
    /// [`CallError::Refused`] where it does not speak for them.
    pub fn session_for(&self, session: Session, sender: Mailbox, now: Now) -> Result<Session, CallError> {
        if session.key.mailbox == sender {
            return Ok(session);
        }
        self.check_speaker(&session, sender.domain(), now)?;
        let key = StoreKey { mailbox: sender, peer: session.key.peer };
        Ok(Session { key: key.into(), ..session })
    }

    /// This server's word to other domains' that the session's store speaks for the users of `domain`.
    ///
    /// # Errors
    /// [`CallError::Refused`] where it does not.
    pub fn speaker(&self, token: &TokenHash, domain: &str, now: Now) -> Result<SpeakerAnswer, CallError> {
        let session = self.session(token, now)?;
        self.check_speaker(&session, domain, now)?;
        let speaker = Speaker {
            domain: domain.to_owned(),
            peer: session.key.peer,
            issued: now.wall,
            expires: now.wall.plus(self.attestation_lifetime()),
        };
        match Signed::sign(&speaker, self.signing(now.wall).keypair()) {
            Ok(speaker) => Ok(SpeakerAnswer { speaker }),
            Err(error) => {
                tracing::error!(%error, "an outgoing mail server could not be vouched for");
                Err(CallError::Unavailable)
            }
        }
    }

    /// A user of a domain that the session speaks for wrote to somebody. Where the user has no store, there is nothing to be
    /// chosen.
    pub(super) async fn wrote_to(
        &self,
        session: &Session,
        sender: &Mailbox,
        wrote_to: Vec<Mailbox>,
        now: Now,
    ) -> Result<(), CallError> {
        self.check_speaker(session, sender.domain(), now)?;
        let store = read(&self.directory).endowed(sender, now.wall).map(|(id, _)| id).next();
        let Some(store) = store else { return Ok(()) };
        let change = AcceptanceChange { wrote_to, ..AcceptanceChange::default() };
        let write = self
            .writer
            .write(move |directory, changes| directory.change_acceptance(store, &change, now.wall, changes));
        Ok(write.await?)
    }

    fn check_speaker(&self, session: &Session, domain: &str, now: Now) -> Result<(), CallError> {
        let domains = self.config.outgoing.get(&session.key.mailbox);
        let is_named = domains.is_some_and(|domains| domains.iter().any(|named| named == domain));
        // A further store of that mailbox speaks once it is confirmed, like any.
        let is_confirmed = is_confirmed(&read(&self.directory), session.store, now.wall);
        if is_named && is_confirmed { Ok(()) } else { Err(CallError::Refused) }
    }
}
