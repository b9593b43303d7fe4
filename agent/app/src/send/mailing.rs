//! Handing messages to the mail server: the stub, whose pull is followed, or the whole message.

use std::io::Write;
use std::sync::Arc;

use lighter_protocol::{DeliveryId, Mailbox};
use lighter_store::{Outgoing, OutgoingState};
use tokio::sync::watch;

use super::mail::{self, Content, Fate};
use super::spool::{self, Spooled, write_original};
use super::{SendEvent, Sending};
use crate::failure::Failure;
use crate::offers::{Attempt, Stage};
use crate::shared::Handle;

/// What became of a message that was handed to the mail server: the worst over all recipients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Mailed {
    All,
    /// The mail server said so, or was not even there.
    Refused,
    /// It was lost before the mail server said what it did.
    Unknown,
}

impl Sending {
    /// Mails one recipient's stub, then follows the pull.
    pub(super) async fn deliver(
        &self,
        recipient: Mailbox,
        delivery: DeliveryId,
        stages: watch::Receiver<Stage>,
        spooled: &Arc<Spooled>,
    ) {
        // On record before the mail server can have the stub: a stub without its delivery would never be whole. The
        // other way round costs nothing: a delivery that no message speaks of is pulled, and that is all.
        let waiting = |outgoing: &mut Outgoing| {
            if outgoing.state == OutgoingState::Preparing {
                outgoing.state = OutgoingState::Waiting;
            }
        };
        let recorded = self.shared.blocking(move |store| store.change_outgoing(delivery, waiting)).await;
        if let Err(error) = recorded {
            self.shared.offers.cancel(&delivery);
            let why = format!("the own store could not record it: {error}");
            self.tell(SendEvent::Whole { recipient: recipient.clone(), why }).await;
            self.mail(&[recipient], self.whole_content(Some(spooled))).await;
            return;
        }
        let (store, of) = (self.shared.store.clone(), Arc::clone(spooled));
        let stub = mail::content(move |writer| spool::write_stub(&store, &of, delivery, writer));
        match self.mail(std::slice::from_ref(&recipient), stub).await {
            Mailed::All => self.follow(recipient, stages, spooled).await,
            // The stub may have arrived: the delivery goes on, and whoever sends again makes another one.
            Mailed::Unknown => {}
            Mailed::Refused => {
                self.shared.offers.cancel(&delivery);
                let removed = self.shared.blocking(move |store| store.remove_outgoing(delivery)).await;
                if let Err(error) = removed {
                    tracing::warn!(%delivery, %error, "a delivery without a message stays on record");
                }
            }
        }
    }

    /// Follows a pull until the receipt; a store that will not take it after all gets the message whole.
    pub(super) async fn follow(
        &self,
        recipient: Mailbox,
        mut stages: watch::Receiver<Stage>,
        spooled: &Arc<Spooled>,
    ) {
        loop {
            let Stage { served, attempt, .. } = stages.borrow_and_update().clone();
            match attempt {
                Attempt::Released => {
                    self.tell(SendEvent::Receipted { recipient }).await;
                    return;
                }
                Attempt::Waiting { why } => {
                    self.tell(SendEvent::Waiting { recipient, why }).await;
                    return;
                }
                Attempt::MailedWhole { why } => {
                    self.tell(SendEvent::Whole { recipient: recipient.clone(), why }).await;
                    self.tell(SendEvent::Mailed { recipient }).await;
                    return;
                }
                Attempt::Failed { why } => {
                    self.tell(SendEvent::Whole { recipient: recipient.clone(), why }).await;
                    self.mail(&[recipient], self.whole_content(Some(spooled))).await;
                    return;
                }
                Attempt::Looking | Attempt::Pulling => {
                    let bytes = served.values().sum();
                    self.tell(SendEvent::Pulled { recipient: recipient.clone(), bytes }).await;
                }
            }
            if stages.changed().await.is_err() {
                return;
            }
        }
    }

    /// The whole message: from the store where its attachments are there, else from the files themselves.
    pub(super) fn whole_content(&self, spooled: Option<&Arc<Spooled>>) -> Content {
        match spooled {
            Some(spooled) => {
                let (store, spooled) = (self.shared.store.clone(), Arc::clone(spooled));
                mail::content(move |writer| write_original(&store, spooled.manifest.id, writer))
            }
            None => {
                let draft = self.draft.clone();
                mail::content(move |writer| std::io::copy(&mut draft.reader(), writer).map(|_| ()))
            }
        }
    }

    /// Hands one message to the mail server, and tells what became of it.
    pub(super) async fn mail(&self, recipients: &[Mailbox], content: Content) -> Mailed {
        let fates = match mail::send(&self.smtp, &self.draft.from, recipients, content).await {
            Ok(fates) => fates,
            Err(failure) => {
                let (why, temporary) = (failure.to_string(), failure.is_temporary());
                for recipient in recipients.iter().cloned() {
                    self.tell(SendEvent::Failed { recipient, why: why.clone(), temporary }).await;
                }
                return Mailed::Refused;
            }
        };
        let mut mailed = Mailed::All;
        for (recipient, fate) in recipients.iter().cloned().zip(fates) {
            let failure = match fate {
                Fate::Taken => {
                    self.tell(SendEvent::Mailed { recipient }).await;
                    continue;
                }
                Fate::Refused(failure) => {
                    mailed = mailed.max(Mailed::Refused);
                    failure
                }
                Fate::Unknown(failure) => {
                    mailed = Mailed::Unknown;
                    failure
                }
            };
            let (why, temporary) = (failure.to_string(), failure.is_temporary());
            self.tell(SendEvent::Failed { recipient, why, temporary }).await;
        }
        mailed
    }
}

/// Hands one message to the user's mail server for one recipient, outside of any sending.
///
/// # Errors
/// Temporary where trying again may help.
pub(crate) async fn mail_one(
    shared: &Handle,
    from: &Mailbox,
    to: &Mailbox,
    write: impl FnOnce(&mut dyn Write) -> std::io::Result<()> + Send + 'static,
) -> Result<(), Failure> {
    let smtp = shared.config.smtp.as_ref();
    let smtp = smtp.ok_or_else(|| Failure::wrong_use("no mail server is set: [smtp]"))?;
    let fates = mail::send(smtp, from, std::slice::from_ref(to), mail::content(write)).await?;
    match fates.into_iter().next() {
        Some(Fate::Taken) => Ok(()),
        Some(Fate::Refused(failure)) => Err(failure),
        Some(Fate::Unknown(failure)) => Err(Failure::temporary(failure)),
        None => Err(Failure::failed("the mail server said nothing of it")),
    }
}
