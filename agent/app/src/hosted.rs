//! The store of many: one agent that a mail service runs for its users (SPEC A29).
//!
//! The location server's configuration names this agent's key, and the mailboxes. Here is what the agent knows of them: an
//! attestation for each, as the location server gave it, renewed before it is over. Each user is kept apart by the mailbox:
//! an offer is taken with that mailbox's attestation, read with that mailbox's attestation, receipted for that mailbox, and
//! counted against that mailbox's quota. Equal attachments of two users are one file; nobody can tell by asking
//! ([`crate::pulls`]).
//!
//! A mailbox that the location server does not name any more is not served from then on. What is there for it stays until
//! `lighter-agent remove --mailbox`.

mod quota;
mod sync;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lighter_protocol::wire::Offer;
use lighter_protocol::{Mailbox, PeerId};
use lighter_store::{Store, StoreError};
use lighter_transport::location::LocationError;
use tokio::sync::watch;

use crate::config::HostedConfig;
use crate::failure::Failure;
use crate::lookup;
use crate::shared::{Attested, Handle};
use quota::Usage;

pub(crate) use sync::Sync;

/// The mailboxes that are served now, each with what proves it.
pub type Mailboxes = BTreeMap<Mailbox, Arc<Attested>>;

/// What a hosted store knows of its mailboxes.
#[derive(Debug)]
pub struct Hosted {
    config: Mutex<Option<HostedConfig>>,
    /// In one piece: what was removed is served no more at once.
    mailboxes: watch::Sender<Arc<Mailboxes>>,
    usage: Mutex<Usage>,
}

impl Hosted {
    /// None yet. `config`: none where this agent is one user's.
    pub fn new(config: Option<HostedConfig>) -> Self {
        Self { config: Mutex::new(config), mailboxes: watch::Sender::default(), usage: Mutex::default() }
    }

    /// Whether this agent is the store of many.
    pub fn is_on(&self) -> bool {
        lock(&self.config).is_some()
    }

    /// Quotas as they are configured now. Whether it is the store of many at all is decided when it starts.
    pub fn configure(&self, config: Option<HostedConfig>) {
        let mut known = lock(&self.config);
        if known.is_some() && config.is_some() {
            *known = config;
        }
    }

    /// Whom it serves now; told of each change.
    pub fn mailboxes(&self) -> watch::Receiver<Arc<Mailboxes>> {
        self.mailboxes.subscribe()
    }

    /// What proves that it acts for `mailbox`; none where it does not.
    pub fn attested(&self, mailbox: &Mailbox) -> Option<Arc<Attested>> {
        self.mailboxes.borrow().get(mailbox).cloned()
    }

    /// Bytes that attachments of one mailbox may take; none: any.
    pub fn quota_of(&self, mailbox: &Mailbox) -> Option<u64> {
        lock(&self.config).as_ref().and_then(|config| config.quota_of(mailbox))
    }

    /// Bytes of attachments that are here for a mailbox, or on their way, and of how many deliveries.
    ///
    /// # Errors
    /// What the index says.
    pub fn used(&self, mailbox: &Mailbox, store: &Store) -> Result<(u64, usize), StoreError> {
        let mut usage = lock(&self.usage);
        usage.refresh(store)?;
        Ok(usage.of(mailbox))
    }

    /// Mailboxes that something is here for.
    ///
    /// # Errors
    /// What the index says.
    pub fn kept(&self, store: &Store) -> Result<Vec<Mailbox>, StoreError> {
        let mut usage = lock(&self.usage);
        usage.refresh(store)?;
        Ok(usage.mailboxes())
    }

    /// Counts an offer against its mailbox's quota, and gives what that leaves for it; none where there is no quota. Blocks on
    /// the disk where something was let go of.
    ///
    /// # Errors
    /// What the index says.
    pub fn reserve(&self, offer: &Offer, store: &Store) -> Result<Option<u64>, StoreError> {
        if !self.is_on() {
            return Ok(None);
        }
        let quota = self.quota_of(&offer.mailbox);
        let mut usage = lock(&self.usage);
        usage.refresh(store)?;
        let others = usage.reserve(offer);
        Ok(quota.map(|quota| quota.saturating_sub(others)))
    }

    /// Nothing of an offer was taken.
    pub fn unreserve(&self, offer: &Offer) {
        lock(&self.usage).release(&offer.mailbox, offer.delivery);
    }

    /// Something was let go of: it is counted anew.
    pub fn let_go(&self) {
        lock(&self.usage).forget();
    }

    fn set(&self, mailboxes: Mailboxes) {
        self.mailboxes.send_replace(Arc::new(mailboxes));
    }
}

/// Whose deliveries a command is about: those of the mailbox that it names; without one, on the store of many, those of its own
/// mailbox, since a stub may be anybody's; else any.
pub(crate) fn scope(named: Option<Mailbox>, config: &crate::config::Config) -> Option<Mailbox> {
    named.or_else(|| config.hosted.is_some().then(|| config.mailbox.clone()))
}

/// What wants to know whether a mailbox is served, beside the own one.
pub(crate) fn is_served(shared: &Handle, mailbox: &Mailbox) -> bool {
    mailbox == shared.mailbox() || shared.hosted.attested(mailbox).is_some()
}

/// The user says which of the mailbox's stores is the primary one: `peer`, or this agent's.
///
/// # Errors
/// Where the location server does not answer, or that is no confirmed store of the mailbox.
pub(crate) async fn prefer(shared: &Handle, peer: Option<PeerId>) -> Result<(), Failure> {
    let session = lookup::session(shared).await?;
    let peer = peer.unwrap_or_else(|| shared.identity.peer());
    Ok(shared.location.prefer(&session, peer).await?)
}

/// The user says that the store `peer` is theirs, too: it is believed at once.
///
/// # Errors
/// Where the location server does not answer, this store is not confirmed itself, or there is no such store.
pub(crate) async fn confirm(shared: &Handle, peer: PeerId) -> Result<(), Failure> {
    let session = lookup::session(shared).await?;
    shared.location.confirm(&session, peer).await.map_err(|error| match error {
        LocationError::Refused => Failure::failed(format!(
            "the location server refused: {} has no further store with that key, or this one waits to be confirmed itself",
            shared.mailbox()
        )),
        error => error.into(),
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
