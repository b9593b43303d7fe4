//! Keeping up with the location server: whose store this is, and taking them on.

use std::sync::Arc;

use lighter_protocol::{Attestation, Mailbox, PeerId, SealingKey, Signed, UnixTime};
use lighter_transport::location::limits::{HOSTED_KEYS_MAX, HOSTED_MAILBOXES_MAX};
use lighter_transport::location::{LocationError, Secret};

use super::Mailboxes;
use crate::drops;
use crate::limits::HOSTING_ROUNDS_MAX;
use crate::shared::{Attested, Handle};

/// How far it is with one session. A new session begins anew: the location server counts nobody online before it was told so.
#[derive(Debug, Default)]
pub(crate) struct Sync {
    /// What the location server said when all was asked for.
    state: Option<String>,
    /// When the attestations are to be asked for again.
    renew: Option<UnixTime>,
    /// Whose word they are.
    by: Option<PeerId>,
}

impl Sync {
    /// There is a new session: the location server has to be told again.
    pub(crate) fn begin_anew(&mut self) {
        self.state = None;
    }

    /// Whether there is something to ask for, as the last ping told.
    pub(crate) fn is_due(&self, told: Option<&String>) -> bool {
        self.state.is_none()
            || told != self.state.as_ref()
            || self.renew.is_some_and(|renew| renew <= UnixTime::now())
    }

    /// Asks for all mailboxes, serves them, and takes them on.
    ///
    /// # Errors
    /// Where the location server does not answer, or names no mailbox for this store. What was served before is served on:
    /// an attestation counts until it is over.
    pub(crate) async fn run(&mut self, shared: &Handle, session: &Secret) -> Result<(), LocationError> {
        self.state = None;
        let (state, mut mailboxes, to_register) = Self::ask(shared, session).await?;
        // What says nothing new is not shown to every relay again.
        let (before, now) = (shared.hosted.mailboxes().borrow().clone(), UnixTime::now());
        let by = shared.location_peer();
        for (mailbox, attested) in mailboxes.iter_mut().filter(|_| self.by == Some(by)) {
            if let Some(known) = before.get(mailbox).filter(|known| says_as_much(known, attested, now)) {
                *attested = Arc::clone(known);
            }
        }
        self.by = Some(by);
        self.renew = mailboxes.values().map(|attested| half_over(attested)).min();
        let served = mailboxes.len();
        // Before anybody hears of it: the first offer may come at once.
        shared.hosted.set(mailboxes);
        let keys: Vec<Signed<SealingKey>> =
            to_register.iter().filter_map(|mailbox| drops::sealing_key(&shared.identity, mailbox)).collect();
        let mut chunks = keys.chunks(HOSTED_KEYS_MAX);
        // One at least: it says that all that was said before holds.
        shared.location.register_hosted(session, chunks.next().unwrap_or_default().to_vec()).await?;
        for chunk in chunks {
            shared.location.register_hosted(session, chunk.to_vec()).await?;
        }
        tracing::info!(served, new = keys.len(), "hosted mailboxes");
        self.state = Some(state);
        Ok(())
    }

    /// All pages; the mailboxes that the location server has no sealing key of beside.
    async fn ask(
        shared: &Handle,
        session: &Secret,
    ) -> Result<(String, Mailboxes, Vec<Mailbox>), LocationError> {
        let location = shared.location_peer();
        let own = shared.identity.peer();
        'again: for _ in 0..HOSTING_ROUNDS_MAX {
            let (mut mailboxes, mut to_register) = (Mailboxes::new(), Vec::new());
            let mut after: Option<Mailbox> = None;
            let mut first: Option<String> = None;
            loop {
                let page = shared.location.hosting(session, after.as_ref()).await?;
                if first.get_or_insert_with(|| page.state.clone()) != &page.state {
                    continue 'again;
                }
                for hosted in page.mailboxes {
                    let signed = hosted.attestation;
                    let verified = Attestation::verify_of(&signed, &location, &own, UnixTime::now());
                    let attestation = verified.map_err(|error| {
                        tracing::warn!(%error, "a hosted mailbox's attestation that does not count");
                        LocationError::Malformed
                    })?;
                    if after.as_ref().is_some_and(|last| attestation.mailbox <= *last) {
                        return Err(LocationError::Malformed);
                    }
                    after = Some(attestation.mailbox.clone());
                    if !hosted.registered {
                        to_register.push(attestation.mailbox.clone());
                    }
                    mailboxes.insert(attestation.mailbox.clone(), Arc::new(Attested { signed, attestation }));
                }
                if mailboxes.len() > HOSTED_MAILBOXES_MAX {
                    return Err(LocationError::Malformed);
                }
                if !page.more {
                    return Ok((page.state, mailboxes, to_register));
                }
            }
        }
        // It changes faster than it can be read: at the next ping.
        Err(LocationError::NotUnderstood)
    }
}

/// When an attestation is half over.
fn half_over(attested: &Attested) -> UnixTime {
    let Attestation { issued, expires, .. } = attested.attestation;
    issued.plus(expires.since(issued) / 2)
}

/// Whether `known` says the same as `new`, and for long enough.
fn says_as_much(known: &Attested, new: &Attested, now: UnixTime) -> bool {
    let (known_is, new_is) = (&known.attestation, &new.attestation);
    known_is.primary == new_is.primary && known_is.relays == new_is.relays && now < half_over(known)
}
