//! Taking a message in: decided for each recipient, detached while it is read, durable on all copies, then answered.
//!
//! There is no spool beside the array (DESIGN §8). What comes in goes through the detacher straight to storage: the
//! manifest as one blob, each attachment as another. The record that makes the message exist is written last, and only
//! when it and all that it names is durable does the sender get its `250` (DESIGN §3 rule 1). Whatever fails before
//! leaves blobs that no record names; they go with their segment.
//!
//! An attachment that is here already is not kept twice (`attachments`).
//!
//! Memory for one message is one block of the detacher and what a blob's writer has on its way, whatever the size.

mod admit;
mod attachments;
mod decide;
mod incoming;

use std::sync::Arc;

use lighter_catalog::{Cause, Fence, Ledger};
use lighter_mail::{Address, Envelope, MailFrom, RcptTo, Reply};
use lighter_message::Policy;
use lighter_protocol::ticket::TicketKey;
use lighter_storage::{Array, Class};

pub use admit::Admit;
pub use decide::Decide;
pub(crate) use incoming::expires;
pub use incoming::{Failure, IncomingMessage};

use crate::intake::{Intake, MailPeer};

/// What all messages on their way in share.
#[derive(Clone)]
pub struct Ingest {
    shared: Arc<Shared>,
}

/// The parts that taking in needs, and its settings.
pub struct IngestParts {
    /// Where bytes go.
    pub array: Array,
    /// Where the record goes that makes a message exist.
    pub ledger: Ledger<Array>,
    /// Who has a store.
    pub decide: Decide,
    /// What may be detached for who has one.
    pub policy: Policy,
    /// How long a delivery waits for its store.
    pub class: Class,
    /// From which tickets are made.
    pub tickets: TicketKey,
    /// The name in the `Received` field.
    pub hostname: String,
    /// Whose mail is taken, and for whom.
    pub admit: Admit,
}

struct Shared {
    parts: IngestParts,
}

impl Ingest {
    /// Takes messages in with `parts`.
    pub fn new(parts: IngestParts) -> Self {
        Self { shared: Arc::new(Shared { parts }) }
    }

    /// Takes in a message that the relay has written itself, for `recipient`; it and what it settles are durable, and
    /// in the view, on return. `fences`: claims of what it settles.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn take_own(
        &self,
        recipient: &Address,
        content: &[u8],
        cause: Cause,
        fences: Vec<Fence>,
    ) -> Result<(), Failure> {
        IncomingMessage::begin_own(Arc::clone(&self.shared), recipient, cause, fences)
            .take_whole(content)
            .await
    }
}

impl Intake for Ingest {
    type Incoming = IncomingMessage;

    async fn sender(&self, _peer: &MailPeer, _mail: &MailFrom) -> Result<(), Reply> {
        Ok(())
    }

    async fn recipient(&self, peer: &MailPeer, _mail: &MailFrom, rcpt: &RcptTo) -> Result<(), Reply> {
        self.shared.parts.admit.recipient(peer.address.ip(), &rcpt.address)
    }

    async fn begin(&self, peer: &MailPeer, envelope: Envelope) -> Result<IncomingMessage, Reply> {
        if !self.shared.parts.array.status().writable {
            return Err(STORAGE_UNAVAILABLE);
        }
        Ok(IncomingMessage::begin(Arc::clone(&self.shared), peer, envelope).await)
    }
}

/// Not enough storage servers for the promised copies (RFC 3463: X.3.0, other mail system status).
const STORAGE_UNAVAILABLE: Reply = Reply::fixed(451, 3, 0, "storage is not available now, try again later");
/// The message breaks a bound that no trying again will change (RFC 3463: X.3.4, message too big for system).
const TOO_MUCH: Reply = Reply::fixed(554, 3, 4, "message has more recipients or parts than are taken");
/// It is durable on all copies.
const TAKEN: Reply = Reply::fixed(250, 6, 0, "message taken");
