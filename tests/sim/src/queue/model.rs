//! The reference model, and what is sent in it.

use std::collections::{BTreeMap, BTreeSet};

use lighter_catalog::{
    CommitError, Envelope, Form, HandOver, Ledger, Message, Notify, Part, Recipient, Summary,
};
use lighter_message::Totals;
use lighter_message::line_end::LineEnds;
use lighter_protocol::{BlobId, DeliveryId, Mailbox, MessageId, TicketKey, UnixTime};
use lighter_storage::{Array, Class, PlacedBlob, ReadError, StoredBlob, WriteError};

use super::mortal::MortalLog;

/// A message as it was sent.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) manifest: Vec<u8>,
    pub(crate) part: Vec<u8>,
}

/// What must be true.
#[derive(Default)]
pub(crate) struct Model {
    pub(crate) sent: BTreeMap<MessageId, Sent>,
    /// Answered well: there for good.
    pub(crate) acknowledged: BTreeSet<MessageId>,
    /// Not answered, and found by a start all the same.
    pub(crate) found: BTreeSet<MessageId>,
    /// Surely refused: never there.
    pub(crate) refused: BTreeSet<MessageId>,
    /// How often the next hop took what.
    pub(crate) taken: BTreeMap<(MessageId, HandOver), u32>,
    /// How often the relay did not learn that this was written down.
    pub(crate) windows: BTreeMap<(MessageId, HandOver), u32>,
    /// Written down as taken.
    pub(crate) handed_over: BTreeSet<(MessageId, HandOver)>,
    /// What the store has, and said so.
    pub(crate) receipts: BTreeSet<DeliveryId>,
    /// Those that are written down.
    pub(crate) receipted: BTreeSet<DeliveryId>,
    /// Let go of.
    pub(crate) released: BTreeSet<DeliveryId>,
    /// How many references too many there were for each to have a copy of its own, at the starts.
    pub(crate) shared: u64,
}

pub(crate) fn alice() -> Mailbox {
    "alice@example.org".parse().unwrap()
}

pub(crate) fn tickets() -> TicketKey {
    TicketKey::derive(&[7; 32])
}

pub(crate) fn message_id(number: u64) -> MessageId {
    MessageId((u128::from(number) << 8).to_be_bytes())
}

/// How long a message and what it brings are kept.
pub(crate) fn class_of(message: &MessageId) -> Class {
    [Class::Days7, Class::Days30, Class::Days30, Class::Days90]
        [usize::from(message.0[MessageId::LEN - 2]) % 4]
}

/// Alice's delivery of a message.
pub(crate) fn delivery_of(message: &MessageId) -> DeliveryId {
    DeliveryId(message.0)
}

pub(crate) fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    let mut bytes = vec![0; len];
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

/// For Alice, who has a store, and for Carol, who has none.
pub(crate) fn message(id: MessageId, manifest: &StoredBlob, part: &StoredBlob, now: UnixTime) -> Message {
    let delivery = delivery_of(&id);
    let recipient = |name: &str, form| Recipient {
        address: format!("{name}@example.org"),
        mailbox: Some(format!("{name}@example.org").parse().unwrap()),
        notify: Notify::Default,
        orcpt: None,
        form,
    };
    let stub = Form::Stub { delivery, generation: 0, ticket: tickets().ticket(&delivery, 0).hash() };
    Message {
        id,
        accepted: now,
        envelope: Envelope { reverse_path: "bob@example.net".into(), ..Envelope::default() },
        original: Totals { length: 2_000, hash: [3; 32], parts: 1, line_ends: LineEnds::CrLf },
        summary: Summary::default(),
        trace: String::new(),
        manifest: manifest.clone(),
        parts: vec![Part { blob: part.clone(), name: "a.pdf".into(), media_type: "application/pdf".into() }],
        recipients: vec![recipient("alice", stub), recipient("carol", Form::Whole)],
        class: class_of(&id),
        expires: now.day().plus(class_of(&id).days()),
        cause: None,
    }
}

pub(crate) async fn write(array: &Array, class: Class, data: &[u8]) -> Result<PlacedBlob, WriteError> {
    let mut writer = array.create_blob(class);
    for piece in data.chunks(100_000) {
        writer.write(piece).await?;
    }
    writer.finish().await
}

pub(crate) async fn read(array: &Array, blob: &StoredBlob) -> Result<Vec<u8>, ReadError> {
    let mut reader = array.read_blob(blob, 0..blob.size);
    let mut all = Vec::new();
    while let Some(piece) = reader.next().await? {
        all.extend_from_slice(&piece);
    }
    Ok(all)
}

/// What the sender is told. None: nothing. Where it `may_skip`, an attachment that is here is not written again.
pub(crate) async fn take(
    relay: &(MortalLog, Ledger<MortalLog>),
    id: MessageId,
    sent: &Sent,
    may_skip: bool,
    now: UnixTime,
) -> Option<bool> {
    let (log, ledger) = relay;
    let class = class_of(&id);
    let placed = async {
        let array = log.array().ok_or(WriteError::Unavailable)?;
        let until = class.deletion_day(now.day());
        let found = if may_skip { ledger.find_copy(BlobId::of(&sent.part), until).await } else { None };
        let mut placed = vec![write(&array, class, &sent.manifest).await?];
        let part = match found {
            Some(copy) => copy,
            None => {
                placed.push(write(&array, class, &sent.part).await?);
                placed[1].stored().clone()
            }
        };
        Ok::<_, WriteError>((placed, part))
    };
    // No record names these blobs yet: whatever became of them, the message surely is not there.
    let Ok((placed, part)) = log.while_alive(placed).await else { return Some(false) };
    let message = message(id, placed[0].stored(), &part, now);
    match ledger.accept(message, placed).await {
        Ok(()) => Some(true),
        Err(CommitError::InDoubt(_)) => None,
        Err(_) => Some(false),
    }
}
