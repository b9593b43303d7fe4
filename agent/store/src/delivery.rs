//! Deliveries as the store keeps them: the incoming ones that it pulls and receipts, and the outgoing ones that it
//! serves until somebody else receipts them.

use lighter_protocol::wire::{Offer, OfferedBlob};
use lighter_protocol::{BlobId, DeliveryId, Introduction, Mailbox, PeerId, Receipt, Signed, UnixTime};
use serde::{Deserialize, Serialize};

/// A delivery that was offered to this store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incoming {
    /// Its id, drawn by the holder.
    pub delivery: DeliveryId,
    /// For whom.
    pub mailbox: Mailbox,
    /// Who offered it first.
    pub from: PeerId,
    /// The manifest.
    pub manifest: OfferedBlob,
    /// The attachments: names and types are hostile input.
    pub blobs: Vec<OfferedBlob>,
    /// When it was first offered.
    pub offered: UnixTime,
    /// The holder keeps it until then.
    pub expires: UnixTime,
    /// How far it is.
    pub state: IncomingState,
}

/// How far an incoming delivery is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum IncomingState {
    /// Taken on, not all here yet.
    Pulling,
    /// All of it is durable here, and the holder has been told so, or will be: the same receipt every time.
    Receipted(Signed<Receipt>),
    /// It was here, and was let go of by the user or by age; the receipt is kept, so that an offer that is replayed
    /// gets the same answer as long as it can be.
    LetGo(Signed<Receipt>),
    /// All of it came, and it is of no use: a drop that does not open. Nothing of it is kept, and nothing is receipted.
    Rejected {
        /// Why, in words for the user.
        reason: String,
    },
}

/// How a delivery of ours is left, sealed, with a relay of the recipient's domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftDrop {
    /// With which relay: the only peer that may pull the sealed blobs.
    pub relay: PeerId,
    /// What opens the rest. The recipient's receipt names it as the manifest.
    pub envelope: OfferedBlob,
    /// The manifest and the attachments, sealed.
    pub blobs: Vec<OfferedBlob>,
    /// The stores that can open it: a receipt by one of them releases.
    pub stores: Vec<PeerId>,
    /// The relay has it, and keeps it until then; the sealed blobs are not kept here any more.
    pub taken: Option<UnixTime>,
}

impl LeftDrop {
    /// The envelope, then the sealed blobs.
    pub fn parts(&self) -> impl Iterator<Item = &OfferedBlob> {
        std::iter::once(&self.envelope).chain(&self.blobs)
    }
}

impl Incoming {
    /// A delivery as it was offered.
    pub fn new(offer: &Offer, from: PeerId, now: UnixTime) -> Self {
        Self {
            delivery: offer.delivery,
            mailbox: offer.mailbox.clone(),
            from,
            manifest: offer.manifest.clone(),
            blobs: offer.blobs.clone(),
            offered: now,
            expires: offer.expires,
            state: IncomingState::Pulling,
        }
    }

    /// Whether `offer` is this delivery again: same number, same mailbox, same content.
    pub fn is_same(&self, offer: &Offer) -> bool {
        self.delivery == offer.delivery
            && self.mailbox == offer.mailbox
            && self.manifest.id == offer.manifest.id
            && self.blobs.iter().map(|blob| blob.id).eq(offer.blobs.iter().map(|blob| blob.id))
    }

    /// The receipt, once there is one.
    pub fn receipt(&self) -> Option<&Signed<Receipt>> {
        match &self.state {
            IncomingState::Pulling | IncomingState::Rejected { .. } => None,
            IncomingState::Receipted(receipt) | IncomingState::LetGo(receipt) => Some(receipt),
        }
    }

    /// Manifest and attachments, each with the role it plays.
    pub(crate) fn parts(&self) -> impl Iterator<Item = (&OfferedBlob, Role)> {
        std::iter::once((&self.manifest, Role::Manifest))
            .chain(self.blobs.iter().map(|blob| (blob, Role::Attachment)))
    }

    /// The attachments' bytes, as they were claimed.
    pub fn size(&self) -> u64 {
        self.blobs.iter().fold(0, |sum, blob| sum.saturating_add(blob.size))
    }
}

/// A delivery that this agent sent and serves until it is receipted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outgoing {
    /// Its id.
    pub delivery: DeliveryId,
    /// Who sends it.
    pub sender: Mailbox,
    /// For whom.
    pub recipient: Mailbox,
    /// The recipient's store, as the location server named it: the only peer that may pull it and whose receipt
    /// releases it.
    pub store: PeerId,
    /// The manifest.
    pub manifest: OfferedBlob,
    /// The attachments.
    pub blobs: Vec<OfferedBlob>,
    /// The location server's word that this agent may offer.
    pub introduction: Option<Signed<Introduction>>,
    /// The message's subject, for listings.
    pub subject: String,
    /// When it was made.
    pub created: UnixTime,
    /// It is offered until then.
    pub expires: UnixTime,
    /// How far it is.
    pub state: OutgoingState,
}

/// How far an outgoing delivery is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OutgoingState {
    /// Offered, while its message has not been mailed yet: if the process ends now, it never was.
    Preparing,
    /// Its message is mailed; it is offered until it is receipted.
    Waiting,
    /// Receipted: the copy here was let go of.
    Released(Signed<Receipt>),
    /// Its time ran out, or the store refused it for good; the copy stays until the user removes it (rule 3).
    Failed {
        /// Why, in words for the user.
        reason: String,
    },
    /// No store took it in its time: its message went whole by mail then, and the copy here was let go of.
    MailedWhole(UnixTime),
}

impl Outgoing {
    /// Manifest and attachments.
    pub fn parts(&self) -> impl Iterator<Item = &OfferedBlob> {
        std::iter::once(&self.manifest).chain(&self.blobs)
    }

    /// The part with this id.
    pub fn part(&self, blob: BlobId) -> Option<&OfferedBlob> {
        self.parts().find(|part| part.id == blob)
    }

    /// Whether the blobs are still kept for it.
    pub fn is_held(&self) -> bool {
        !matches!(self.state, OutgoingState::Released(_) | OutgoingState::MailedWhole(_))
    }
}

/// What a blob is to a delivery: decides whether it counts against the quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    /// Taken outside quota (DESIGN §5).
    Manifest,
    /// Counts.
    Attachment,
    /// Kept for somebody else to pull: the user's own, outside quota.
    Outgoing,
    /// Kept as long as somebody works on it ([`Hold`](crate::Hold)): outside quota, and over with the process.
    Held,
}

impl Role {
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Manifest => 0,
            Self::Attachment => 1,
            Self::Outgoing => 2,
            Self::Held => 3,
        }
    }
}
