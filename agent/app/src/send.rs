//! Sending a message with files (SPEC A1 to A10): for each recipient on their own, the attachments go to the
//! recipient's store while the message with placeholders goes by mail, or all of it goes by mail.
//!
//! The order, for a recipient with a store: the store is found and pinged, the delivery is offered, the store takes it;
//! then it is recorded as one whose message goes out, and only then its message is mailed. A store that cannot be
//! reached, or does not take it, costs nothing: the message goes whole. What is recorded is offered until it is
//! receipted, by this process or the next one.
//!
//! Here: one message, all its recipients beside each other. The steps of each, in this order:
//!
//! - `request`: what is asked for, and told; `compose`, `words`: the message that is made of it; `made`: one that was made
//!   elsewhere; `identity`: what makes a second try the same message;
//! - `stores`: who has a store, and whether it can be reached; `spool`: the attachments, taken into the own store;
//! - `ways`: offered, kept, or whole; `unreachable`: which, where the store cannot be reached; `leave`: left with a relay;
//! - `mailing`: stub or whole message handed over, the pull followed; `mail`: the SMTP client;
//! - `submitted`: the same for what mail clients and mail servers hand in.

mod compose;
mod identity;
mod leave;
pub(crate) mod made;
pub(crate) mod mail;
mod mailing;
mod request;
mod spool;
mod stores;
pub(crate) mod submitted;
pub mod unreachable;
mod ways;
mod words;

use std::collections::BTreeSet;
use std::sync::Arc;

use lighter_message::Policy;
use lighter_protocol::{Mailbox, UnixTime};
use lighter_store::OutgoingState;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::acceptance;
use crate::config::SmtpConfig;
use crate::failure::Failure;
use crate::limits::WRITTEN_TO_TIME_MAX;
use crate::shared::Handle;
use compose::Draft;
pub use identity::{FileFacts, Identity, Sameness};
pub(crate) use mailing::mail_one;
pub use request::{EVENTS_MAX, SendEvent, SendRequest};
use spool::Spooled;
pub(crate) use spool::write_original;
use stores::{Found, LookedUp};
use unreachable::Wanted;
use ways::Way;

/// Sends a message, telling what happens; returns when every recipient's way has come to an end, or waits for a later
/// try.
///
/// # Errors
/// Where it cannot be sent to anybody at all. What becomes of each recipient is told by events.
pub async fn run(
    shared: Handle,
    request: SendRequest,
    events: mpsc::Sender<SendEvent>,
) -> Result<(), Failure> {
    run_same(shared, request, Sameness::new(UnixTime::now()), events).await
}

/// As [`run`], for a message that may have been tried before: it is the very same message again, with the same
/// Message-ID and deliveries, for those recipients who are not known to have it.
///
/// # Errors
/// As [`run`].
pub async fn run_same(
    shared: Handle,
    request: SendRequest,
    same: Sameness,
    events: mpsc::Sender<SendEvent>,
) -> Result<(), Failure> {
    let request = tokio::task::spawn_blocking(move || request.check().map(|()| request));
    let request = request.await.map_err(Failure::failed)??;
    let smtp = shared.config.smtp.clone();
    let smtp =
        smtp.ok_or_else(|| Failure::wrong_use("no mail server: run `setup` with --smtp, or set [smtp]"))?;
    let recipients = request.recipients();
    let draft = Draft {
        from: shared.mailbox().clone(),
        to: request.to,
        cc: request.cc,
        subject: request.subject,
        body: request.body,
        files: request.files,
        made: None,
        expected: same.files,
        date: same.identity.date,
        unique: same.identity.unique(),
    };
    let recipients = recipients.into_iter().filter(|recipient| !same.done.contains(recipient)).collect();
    let (identity, wanted) = (same.identity, request.wanted);
    let shown = draft.shown();
    let sending = Arc::new(Sending { shared, smtp, draft, identity, shown, wanted, events });
    sending.run(recipients).await;
    Ok(())
}

/// One message being sent.
struct Sending {
    shared: Handle,
    smtp: SmtpConfig,
    draft: Draft,
    identity: Identity,
    /// Whom its header shows.
    shown: BTreeSet<Mailbox>,
    wanted: Wanted,
    events: mpsc::Sender<SendEvent>,
}

impl Sending {
    async fn run(self: Arc<Self>, recipients: Vec<Mailbox>) {
        let earlier = self.earlier(&recipients).await;
        let noting = tokio::spawn(note(self.shared.clone(), recipients.clone()));
        let LookedUp { found: stores, unasked } = self.look_up(&recipients).await;
        let is_for_stores =
            !earlier.is_empty() || stores.iter().any(|(recipient, store)| self.may_go_to(recipient, store));
        let spooled = if is_for_stores { self.spool().await } else { None };
        // Offers first, all at once; who is not offered to, or does not take it, is told why.
        let mut offering = JoinSet::new();
        for recipient in recipients {
            if let (Some(Ok(spooled)), Some(outgoing)) = (&spooled, earlier.get(&recipient))
                && spooled.is_of(outgoing)
            {
                let is_left = outgoing.delivery == self.identity.dropped(&recipient);
                let way = if is_left {
                    Way::Relay { record: None, why: String::new() }
                } else {
                    self.go_on(outgoing.clone())
                };
                offering.spawn(async move { (recipient, way) });
                continue;
            }
            let way = match (&spooled, stores.get(&recipient)) {
                (Some(Ok(spooled)), Some(store)) => Ok((Arc::clone(spooled), store.clone())),
                (Some(Err(why)), Some(_)) => Err(why.clone()),
                (None, Some(Found { unreached: Some(why), .. })) => Err(why.clone()),
                _ if !self.draft.has_attachments() => Err("it has no attachments".to_owned()),
                _ => Err(match unasked.get(&recipient) {
                    Some(why) => format!("it could not be asked where the recipient's store is: {why}"),
                    None => "the recipient has no store that can be reached from here".to_owned(),
                }),
            };
            let sending = Arc::clone(&self);
            offering.spawn(async move {
                let way = match way {
                    Ok((spooled, Found { peer, trusted: true, .. })) => {
                        sending.trust(&recipient, peer, &spooled).await
                    }
                    Ok((spooled, Found { peer, unreached: None, .. })) => {
                        sending.offer(&recipient, peer, &spooled).await
                    }
                    Ok((spooled, Found { peer, unreached: Some(why), leave, .. })) => {
                        sending.keep(&recipient, peer, leave, &spooled, why).await
                    }
                    Err(why) => Way::Whole { why },
                };
                (recipient, way)
            });
        }
        let mut following = JoinSet::new();
        let mut whole = Vec::new();
        while let Some(offered) = offering.join_next().await {
            let Ok((recipient, way)) = offered else { continue };
            match (way, &spooled) {
                (Way::Store { delivery, stages }, Some(Ok(spooled))) => {
                    let (sending, spooled) = (Arc::clone(&self), Arc::clone(spooled));
                    following.spawn(async move {
                        let bytes = spooled.bytes();
                        sending.tell(SendEvent::ToStore { recipient: recipient.clone(), bytes }).await;
                        sending.deliver(recipient, delivery, stages, &spooled).await;
                    });
                }
                (Way::Kept { delivery, stages, until, why }, Some(Ok(spooled))) => {
                    let (sending, spooled) = (Arc::clone(&self), Arc::clone(spooled));
                    following.spawn(async move {
                        let bytes = spooled.bytes();
                        sending
                            .tell(SendEvent::Kept { recipient: recipient.clone(), bytes, until, why })
                            .await;
                        sending.deliver(recipient, delivery, stages, &spooled).await;
                    });
                }
                // Each on its own: sealing and leaving may take long, and nobody else waits for it.
                (Way::Relay { record, why }, Some(Ok(spooled))) => {
                    let (sending, spooled) = (Arc::clone(&self), Arc::clone(spooled));
                    following.spawn(async move { sending.leave(recipient, record, why, &spooled).await });
                }
                (Way::Store { .. } | Way::Kept { .. } | Way::Relay { .. }, _) => {}
                (Way::Whole { why }, _) => {
                    self.tell(SendEvent::Whole { recipient: recipient.clone(), why }).await;
                    whole.push(recipient);
                }
            }
        }
        if !whole.is_empty() {
            self.mail(&whole, self.whole_content(spooled.as_ref().and_then(|spooled| spooled.as_ref().ok())))
                .await;
        }
        while following.join_next().await.is_some() {}
        if let Some(Ok(spooled)) = spooled {
            self.clean_up(&spooled).await;
        }
        let _ = timeout(WRITTEN_TO_TIME_MAX, noting).await;
    }

    async fn tell(&self, event: SendEvent) {
        // A command that went away is told nothing; the message goes on.
        let _ = self.events.send(event).await;
    }

    /// Takes the attachments into the store; none where policy lets nothing go.
    async fn spool(&self) -> Option<Result<Arc<Spooled>, String>> {
        self.tell(SendEvent::Reading).await;
        let policy = Policy { min_size: self.shared.config.send.size_bytes_min, ..Policy::default() };
        let draft = self.draft.clone();
        match self.shared.blocking(move |store| spool::spool(store, &draft, policy)).await {
            Ok(spooled) if spooled.blobs.is_empty() => Some(Err("its attachments are small".to_owned())),
            Ok(spooled) => Some(Ok(Arc::new(spooled))),
            Err(error) => {
                tracing::warn!(%error, "the attachments could not be taken into the store");
                Some(Err(format!("the own store could not take the attachments: {error}")))
            }
        }
    }

    /// Forgets deliveries that were withdrawn: what the store kept for them goes, unless another one needs it.
    async fn clean_up(&self, spooled: &Spooled) {
        let manifest = spooled.manifest.id;
        let cleaned = self
            .shared
            .blocking(move |store| {
                for outgoing in store.all_outgoing()? {
                    if outgoing.manifest.id == manifest && outgoing.state == OutgoingState::Preparing {
                        store.remove_outgoing(outgoing.delivery)?;
                    }
                }
                Ok::<_, lighter_store::StoreError>(())
            })
            .await;
        if let Err(error) = cleaned {
            tracing::warn!(%error, "what was not offered stays until the next start");
        }
    }
}

/// Who is written to may write back.
async fn note(shared: Handle, recipients: Vec<Mailbox>) {
    acceptance::wrote_to(&shared, shared.mailbox(), &recipients).await;
}
