//! Drops (SPEC A7; DESIGN §6): what cannot be given to a store now is left, sealed, with a relay of its domain.
//!
//! - `leave`: seals a delivery to the recipient's stores and leaves it; the own copy stays;
//! - `follow`: asks what became of what was left, and lets go of the own copy against the receipt alone;
//! - `open`: on the recipient's side, makes a delivery of a drop that was pulled.
//!
//! Sound because each side has its own word to go by: the sender mails a message with placeholders only after the relay
//! said that everything is durable there; the store receipts only what it opened, proved and synced; and a receipt counts
//! if it is by one of the stores that the drop was sealed to, and names the envelope.

mod follow;
mod leave;
mod open;

use std::sync::Arc;

use lighter_protocol::{Mailbox, SealingKey, Signed, UnixTime};
use lighter_sealing::SealingSecret;
use lighter_transport::Identity;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, TryAcquireError};

use crate::limits::OUTGOING_LEAVES_MAX;

pub use follow::run;
pub use leave::{Left, WhyNot, is_possible, leave, take_back};
pub use open::{NotOpened, OpenedDrop, open};

/// Wakes who follows what was left, and bounds what is being left.
#[derive(Debug)]
pub struct Drops {
    left: Notify,
    leaving: Arc<Semaphore>,
}

impl Default for Drops {
    fn default() -> Self {
        Self { left: Notify::new(), leaving: Arc::new(Semaphore::new(OUTGOING_LEAVES_MAX)) }
    }
}

impl Drops {
    /// A place to leave something from, for a task that nobody may be waiting for.
    ///
    /// # Errors
    /// Where all of them are taken.
    pub fn place_to_leave(&self) -> Result<OwnedSemaphorePermit, TryAcquireError> {
        self.leaving.clone().try_acquire_owned()
    }

    /// Something more was left.
    pub fn tell_left(&self) {
        self.left.notify_one();
    }
}

/// What drops for a store are sealed to, said by the store. The key is made from its identity, so it is always the same,
/// and a location server keeps the statement that it heard first. None: nothing can be left for the store; the log says why.
pub fn sealing_key(identity: &Identity, mailbox: &Mailbox) -> Option<Signed<SealingKey>> {
    let secret = SealingSecret::derive(&identity.secret_bytes());
    let secret =
        secret.inspect_err(|error| tracing::warn!(%error, "nothing can be left for this store")).ok()?;
    let statement = secret.statement(mailbox.clone(), identity.peer(), UnixTime::now());
    Signed::sign(&statement, identity.keypair()).ok()
}

#[cfg(test)]
mod tests;
