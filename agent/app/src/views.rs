//! What the commands show: for scripts as JSON, for people as tables. A running agent sends the same over its socket.

use std::net::SocketAddr;

use lighter_message::name::{is_invisible, sanitize_media_type, sanitize_name};
use lighter_protocol::pull::{Role, SourceState, SourceView};
use lighter_protocol::wire::OfferedBlob;
use lighter_protocol::{BlobId, DeliveryId, Mailbox, PeerId, UnixTime};
use lighter_store::{Incoming, IncomingState, Outgoing, OutgoingState, Store, StoreError};
use lighter_transport::Carrier;
use lighter_transport::location::finding::By;
use serde::{Deserialize, Serialize};

use crate::guest::view::GuestView;
use crate::outbox::status::OutboxStatus;
use crate::port_mapping::PortMappingStatus;
use crate::submission::status::SubmissionStatus;
use crate::ways::Way;

mod ids;
mod tables;

pub(crate) use tables::{size, when};

/// Text for a terminal: line ends stay, what else controls it, or changes the order of what is read, does not.
pub(crate) fn harmless(text: &str) -> String {
    text.chars().filter(|c| *c == '\n' || !is_invisible(*c)).collect()
}

/// How things stand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Whose agent it is.
    pub mailbox: Mailbox,
    /// Its key.
    #[serde(with = "ids::text")]
    pub peer: PeerId,
    /// Where the key is, in words.
    pub key: String,
    /// Whether an agent runs. Without one, the rest is what the store says.
    pub running: bool,
    /// The location server's address.
    pub location: String,
    /// Whether the location server knows that this store is online.
    pub registered: bool,
    /// Where others can reach it.
    pub addresses: Vec<SocketAddr>,
    /// The port that the home router maps to it; none where no router is in between, or it is not wanted.
    #[serde(default)]
    pub port_mapping: Option<PortMappingStatus>,
    /// Whether its receipts release; unknown while it is not attested.
    pub primary: Option<bool>,
    /// The domain's relays, and whether there is a session with each.
    pub relays: Vec<RelayStatus>,
    /// What is wrong.
    pub problem: Option<String>,
    /// The store.
    pub store: StoreStatus,
    /// Deliveries being pulled now.
    pub pulling: usize,
    /// From whom each of them comes.
    #[serde(default)]
    pub pulls: Vec<PullStatus>,
    /// What was sent from here, and is still to be taken, or was lately.
    pub outgoing: Vec<OutgoingStatus>,
    /// Other domains whose location servers were found, or could not be asked of late.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub domains: Vec<DomainStatus>,
    /// The watched outbox; none where there is none, or no agent runs.
    #[serde(default)]
    pub outbox: Option<OutboxStatus>,
    /// What mail clients send through here; none where nothing is taken, or no agent runs.
    #[serde(default)]
    pub submission: Option<SubmissionStatus>,
    /// Whose store it is, beside its own mailbox's; none where it is one user's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hosted: Option<HostedStatus>,
    /// What may go now, and how fast.
    #[serde(default)]
    pub limits: GuestView,
    /// Deliveries that wait with whoever holds them, and why: the first of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<WaitRow>,
    /// How many more there are.
    #[serde(default)]
    pub waiting_more: usize,
}

/// The store of many.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostedStatus {
    /// How many mailboxes are served now.
    pub mailboxes: usize,
    /// Mailboxes that something is kept for and that are served no more: the first of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<Mailbox>,
    /// The one that was asked about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mailbox: Option<HostedMailboxStatus>,
}

/// One of its mailboxes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostedMailboxStatus {
    /// Whose.
    pub mailbox: Mailbox,
    /// Whether it is served now.
    pub served: bool,
    /// Whether this store's receipts release; unknown where it is not served.
    pub primary: Option<bool>,
    /// Bytes of its attachments, those that are still on their way included.
    pub bytes_used: u64,
    /// Bytes that they may take.
    pub quota: Option<u64>,
    /// Its deliveries.
    pub deliveries: usize,
}

/// A delivery that waits with whoever holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitRow {
    /// Its number.
    #[serde(with = "ids::text")]
    pub delivery: DeliveryId,
    /// Bytes of its attachments.
    pub bytes: u64,
    /// Why it waits.
    pub reason: String,
}

/// A delivery that was let go of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// Its number.
    #[serde(with = "ids::text")]
    pub delivery: DeliveryId,
    /// Bytes of attachments that it took alone.
    pub bytes_freed: u64,
}

/// A delivery that is pulled now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullStatus {
    /// Its number.
    #[serde(with = "ids::text")]
    pub delivery: DeliveryId,
    /// Its sources.
    pub sources: Vec<PullSource>,
}

/// One of the sources that a delivery is pulled from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullSource {
    /// Its key.
    #[serde(with = "ids::text")]
    pub peer: PeerId,
    /// `sender`, `relay` (of the own domain), `device` (another one of this user's) or `recipient` (another one of the same
    /// message).
    pub kind: String,
    /// `asked`; `resting`: it asked for a pause; `stalled`: nothing comes, and others are asked; `wrong`: what it sent did
    /// not verify, and it is not asked again; `gone`.
    pub state: String,
    /// Whether it pushes: it was told what is missing, and sends that without being asked.
    #[serde(default)]
    pub pushes: bool,
    /// Bytes that it brought, verified, since this pull began.
    pub bytes: u64,
    /// Bytes a second lately; measured while there are several sources.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
}

impl PullSource {
    /// A source as the pull sees it; `is_own_relay`: whether it is a relay of the own domain.
    pub fn of(view: &SourceView, is_own_relay: bool) -> Self {
        let kind = match view.role {
            Role::Relay => "relay",
            Role::Holder if is_own_relay => "relay",
            Role::Holder => "sender",
            Role::Device => "device",
            Role::Recipient => "recipient",
        };
        let state = match view.state {
            SourceState::Asked => "asked",
            SourceState::Resting => "resting",
            SourceState::Stalled => "stalled",
            SourceState::Wrong => "wrong",
            SourceState::Gone => "gone",
        };
        Self {
            peer: view.peer,
            kind: kind.to_owned(),
            state: state.to_owned(),
            pushes: view.pushes,
            bytes: view.bytes,
            bytes_per_second: view.speed,
        }
    }
}

/// A relay of the own domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayStatus {
    /// Its key.
    #[serde(with = "ids::text")]
    pub peer: PeerId,
    /// Whether there is a session.
    pub connected: bool,
    /// What carries it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carrier: Option<Carrier>,
}

/// Another domain's location server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainStatus {
    /// The domain.
    pub domain: String,
    /// Its location server; none where it could not be found.
    pub location: Option<String>,
    /// How it was found.
    pub by: Option<By>,
}

/// The store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreStatus {
    /// Bytes of attachments, those that are still on their way included.
    pub bytes_used: u64,
    /// Bytes that attachments may take.
    pub quota: Option<u64>,
    /// Bytes that the disk has left.
    pub bytes_free: u64,
    /// Deliveries on record.
    pub deliveries: usize,
}

/// Something that was sent from here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutgoingStatus {
    /// Its number.
    #[serde(with = "ids::text")]
    pub delivery: DeliveryId,
    /// To whom.
    pub recipient: Mailbox,
    /// What the message is about.
    pub subject: String,
    /// Bytes of its attachments.
    pub bytes: u64,
    /// When it was sent.
    pub created: UnixTime,
    /// What is not taken until then goes whole by mail.
    pub expires: UnixTime,
    /// `waiting`, `released`, `mailed-whole` or `failed`.
    pub state: String,
    /// Why it waits or failed.
    pub reason: Option<String>,
    /// How its recipient's store is reached, while it is connected.
    #[serde(default)]
    pub way: Option<Way>,
}

/// Something that was sent from here and is not offered any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancelled {
    /// Its number.
    #[serde(with = "ids::text")]
    pub delivery: DeliveryId,
    /// For whom it was.
    pub recipient: Mailbox,
    /// Whether its message went whole by mail instead.
    pub mailed_whole: bool,
}

/// What is in the store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct List {
    /// The deliveries, oldest first.
    pub deliveries: Vec<DeliveryRow>,
    /// The attachments, each once.
    pub blobs: Vec<BlobRow>,
}

/// A delivery in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryRow {
    /// Its number.
    #[serde(with = "ids::text")]
    pub delivery: DeliveryId,
    /// For whom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mailbox: Option<Mailbox>,
    /// Who offered it.
    #[serde(with = "ids::text")]
    pub from: PeerId,
    /// When.
    pub offered: UnixTime,
    /// The holder keeps it until then.
    pub expires: UnixTime,
    /// How far it is.
    pub state: DeliveryState,
    /// Why it cannot be used, where it cannot; why it waits, where it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Bytes of its attachments.
    pub bytes: u64,
    /// Of these, bytes that are here and verified.
    pub bytes_verified: u64,
    /// Its attachments.
    pub parts: Vec<BlobRow>,
    /// From whom it comes, while it is pulled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<PullSource>,
}

/// How far a delivery is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeliveryState {
    /// Nothing of it is here yet.
    Offered,
    /// A part of it is here.
    Pulling,
    /// All of it is durable here, and the holder was told.
    Receipted,
    /// It was here, and was let go of.
    LetGo,
    /// It came, and cannot be used: a drop that does not open.
    Rejected,
}

/// An attachment. Name and type were made harmless: they come from mail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobRow {
    /// Its id.
    #[serde(with = "ids::text")]
    pub id: BlobId,
    /// Bytes in it.
    pub size: u64,
    /// Its file name.
    pub name: String,
    /// Its media type.
    pub media_type: String,
}

/// What the location server says of a mailbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lookup {
    /// Who was asked about.
    pub mailbox: Mailbox,
    /// Their store; none is the one answer for everybody whose store is not for the asker to know.
    pub store: Option<LookedUp>,
}

/// A store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LookedUp {
    /// Its key.
    #[serde(with = "ids::text")]
    pub peer: PeerId,
    /// Where it can be reached.
    pub addresses: Vec<SocketAddr>,
    /// `online`, `offline` or `unknown`, as the location server knows it.
    pub presence: String,
    /// Since when.
    pub since: UnixTime,
    /// Whether the store itself answered a ping just now.
    pub answers: bool,
    /// How it was reached.
    #[serde(default)]
    pub way: Option<Way>,
    /// Why it was not.
    #[serde(default)]
    pub problem: Option<String>,
}

impl From<&OfferedBlob> for BlobRow {
    fn from(offered: &OfferedBlob) -> Self {
        Self {
            id: offered.id,
            size: offered.size,
            name: sanitize_name(&offered.name),
            media_type: sanitize_media_type(&offered.media_type),
        }
    }
}

impl DeliveryRow {
    /// The row of one delivery; asks the store how much of it is here.
    ///
    /// # Errors
    /// What the index says.
    pub fn of(store: &Store, incoming: &Incoming) -> Result<Self, StoreError> {
        let mut bytes_verified = 0;
        for part in &incoming.blobs {
            bytes_verified += store.len_here(part.id, part.size)?.min(part.size);
        }
        let state = match &incoming.state {
            IncomingState::Receipted(_) => DeliveryState::Receipted,
            IncomingState::LetGo(_) => DeliveryState::LetGo,
            IncomingState::Rejected { .. } => DeliveryState::Rejected,
            IncomingState::Pulling if bytes_verified > 0 => DeliveryState::Pulling,
            IncomingState::Pulling => DeliveryState::Offered,
        };
        let reason = match &incoming.state {
            IncomingState::Rejected { reason } => Some(reason.clone()),
            _ => None,
        };
        Ok(Self {
            reason,
            delivery: incoming.delivery,
            mailbox: Some(incoming.mailbox.clone()),
            from: incoming.from,
            offered: incoming.offered,
            expires: incoming.expires,
            state,
            bytes: incoming.size(),
            bytes_verified,
            parts: incoming.blobs.iter().map(BlobRow::from).collect(),
            sources: Vec::new(),
        })
    }
}

impl List {
    /// Everything in the store; with `mailbox`, what is there for that one.
    ///
    /// # Errors
    /// What the index says.
    pub fn of(store: &Store, mailbox: Option<&Mailbox>) -> Result<Self, StoreError> {
        let mut list = Self::default();
        let is_meant = |incoming: &&Incoming| mailbox.is_none_or(|mailbox| incoming.mailbox == *mailbox);
        for incoming in store.all_incoming()?.iter().rev().filter(is_meant) {
            list.deliveries.push(DeliveryRow::of(store, incoming)?);
        }
        list.gather_blobs(|blob| store.holds(blob))?;
        Ok(list)
    }

    /// The attachments that are here as a whole, each once.
    fn gather_blobs(&mut self, holds: impl Fn(BlobId) -> Result<bool, StoreError>) -> Result<(), StoreError> {
        let mut seen = std::collections::HashSet::new();
        for part in self.deliveries.iter().flat_map(|delivery| &delivery.parts) {
            if seen.insert(part.id) && holds(part.id)? {
                self.blobs.push(part.clone());
            }
        }
        Ok(())
    }
}

impl OutgoingStatus {
    /// What the store knows of something that was sent.
    pub fn of(outgoing: &Outgoing) -> Self {
        let (state, reason) = match &outgoing.state {
            OutgoingState::Preparing | OutgoingState::Waiting => ("waiting", None),
            OutgoingState::Released(_) => ("released", None),
            OutgoingState::Failed { reason } => ("failed", Some(reason.clone())),
            OutgoingState::MailedWhole(_) => ("mailed-whole", None),
        };
        Self {
            delivery: outgoing.delivery,
            recipient: outgoing.recipient.clone(),
            subject: outgoing.subject.clone(),
            bytes: outgoing.blobs.iter().map(|blob| blob.size).sum(),
            created: outgoing.created,
            expires: outgoing.expires,
            state: state.to_owned(),
            reason,
            way: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_input_20_21_names_and_texts_do_nothing_to_a_terminal() {
        assert_eq!(harmless("a\u{1b}[2Jb\r\nc\u{202e}d\u{7}"), "a[2Jb\ncd");
        let offered = OfferedBlob {
            id: BlobId([1; 32]),
            size: 1,
            name: "../../\u{1b}]0;x\u{7}\u{202e}gpj.exe".to_owned(),
            media_type: "text/html\r\nX: y".to_owned(),
        };
        let row = BlobRow::from(&offered);
        assert_eq!((row.name.as_str(), row.media_type.as_str()), ("]0;xgpj.exe", "application/octet-stream"));
    }
}
