//! One message on its way in: through the detacher into the array, at the end one record that makes it exist.

use std::sync::Arc;

use bytes::Bytes;
use lighter_catalog::limits::GRACE_DAYS;
use lighter_catalog::message::shorten;
use lighter_catalog::{
    Cause, CommitError, Envelope as StoredEnvelope, Fence, Form, Message, Part, Recipient,
};
use lighter_mail::trace::Received;
use lighter_mail::{Address, Envelope, RcptTo, Reply};
use lighter_message::{Detacher, Event, Policy, Summary as Detached};
use lighter_protocol::ticket::TicketKey;
use lighter_protocol::{Day, DeliveryId, Mailbox, MessageId, UnixTime};
use lighter_storage::{BlobWriter, Class, PlacedBlob, StoredBlob, WriteError};
use rand::RngExt;

use super::attachments::Attachments;
use super::{STORAGE_UNAVAILABLE, Shared, TAKEN, TOO_MUCH};
use crate::intake::{Incoming, MailPeer, Summary, Verdict};

/// A message on its way in.
pub struct IncomingMessage {
    shared: Arc<Shared>,
    id: MessageId,
    envelope: Envelope,
    /// For each recipient of the envelope: whose store the attachments wait for.
    endowed: Vec<Option<Mailbox>>,
    trace: String,
    cause: Option<Cause>,
    /// Claims of what it settles.
    fences: Vec<Fence>,
    detacher: Detacher,
    manifest: BlobWriter,
    attachments: Attachments,
    /// What is known of the message once it has gone by.
    detached: Option<Detached>,
}

impl IncomingMessage {
    /// Decides for each recipient, and is ready for content.
    pub(super) async fn begin(shared: Arc<Shared>, peer: &MailPeer, envelope: Envelope) -> Self {
        let parts = &shared.parts;
        let endowed = parts.decide.endowed(&envelope.recipients).await;
        // Where nobody has a store, nothing is taken out that somebody would have to put back.
        let policy = if endowed.iter().any(Option::is_some) { parts.policy } else { Policy::nothing() };
        let id = MessageId(rand::rng().random());
        let trace = received(peer, &envelope, &parts.hostname, &id);
        let may_skip = parts.admit.trusts(peer.address.ip());
        let attachments = Attachments::new(parts.array.clone(), parts.ledger.clone(), parts.class, may_skip);
        Self::new(shared, id, (envelope, endowed), trace, None, Detacher::new(policy), attachments)
    }

    /// A message that the relay writes itself, from the null path (RFC 5321 §4.5.5); it settles `cause` by coming into
    /// being, under `fences`, and nothing is taken out of it.
    pub(super) fn begin_own(
        shared: Arc<Shared>,
        recipient: &Address,
        cause: Cause,
        fences: Vec<Fence>,
    ) -> Self {
        let id = MessageId(rand::rng().random());
        let envelope = lighter_mail::notice::envelope(recipient);
        let parts = &shared.parts;
        let attachments = Attachments::new(parts.array.clone(), parts.ledger.clone(), parts.class, false);
        let detacher = Detacher::new(Policy::nothing());
        let envelope = (envelope, vec![None]);
        let new = Self::new(shared, id, envelope, String::new(), Some(cause), detacher, attachments);
        Self { fences, ..new }
    }

    fn new(
        shared: Arc<Shared>,
        id: MessageId,
        (envelope, endowed): (Envelope, Vec<Option<Mailbox>>),
        trace: String,
        cause: Option<Cause>,
        detacher: Detacher,
        attachments: Attachments,
    ) -> Self {
        let manifest = shared.parts.array.create_blob(shared.parts.class);
        let (fences, detached) = (Vec::new(), None);
        Self {
            shared,
            id,
            envelope,
            endowed,
            trace,
            cause,
            fences,
            detacher,
            manifest,
            attachments,
            detached,
        }
    }

    /// Takes `content` as the whole message; it is durable on return.
    pub(super) async fn take_whole(mut self, content: &[u8]) -> Result<(), Failure> {
        self.detacher.push(content);
        self.drain().await?;
        let eight_bit = !content.is_ascii();
        self.accept(Summary { len: content.len() as u64, eight_bit }).await
    }

    /// Stores what the detacher gives.
    async fn drain(&mut self) -> Result<(), Failure> {
        while let Some(event) = self.detacher.poll_event() {
            match event {
                Event::Manifest(bytes) => self.manifest.write(&bytes).await?,
                Event::BlobStart { .. } => self.attachments.start(),
                Event::BlobData(bytes) => self.attachments.write(&bytes).await?,
                Event::BlobRestart { len } => self.restart(len).await?,
                Event::BlobEnd { id, .. } => self.attachments.end(id).await?,
                Event::End(detached) => self.detached = Some(*detached),
            }
        }
        Ok(())
    }

    /// The part proved irregular: what was stored decoded is read back and goes, as it stood, into a new blob. The
    /// first copy is an orphan, and goes with its segment.
    async fn restart(&mut self, len: u64) -> Result<(), Failure> {
        let mut reader = self.attachments.restart(len).await?;
        while let Some(piece) = reader.next().await.map_err(|_| Failure::Unavailable)? {
            self.detacher.replay(&piece).map_err(|_| Failure::OutOfOrder)?;
            // Only what the replay gives: a further restart cannot come before it is over.
            Box::pin(self.drain()).await?;
        }
        Ok(())
    }

    /// Ends the manifest and writes the record that makes the message exist; it is durable on return.
    async fn accept(mut self, summary: Summary) -> Result<(), Failure> {
        self.detacher.finish();
        self.drain().await?;
        let detached = self.detached.take().ok_or(Failure::OutOfOrder)?;
        let manifest = self.manifest.finish().await?;
        let (named, mut placed) = self.attachments.into_parts();
        let parts = detached.parts.iter().zip(&named).map(|(part, blob)| Part {
            blob: blob.clone(),
            name: shorten(&part.facts.name, lighter_catalog::limits::NAME_LEN_MAX).to_owned(),
            media_type: shorten(&part.facts.media_type, lighter_catalog::limits::NAME_LEN_MAX).to_owned(),
        });
        let now = UnixTime::now();
        let shared = &self.shared.parts;
        let message = Message {
            id: self.id,
            accepted: now,
            envelope: stored_envelope(&self.envelope, summary.eight_bit),
            original: detached.totals,
            summary: lighter_catalog::Summary {
                from: short(detached.from.as_deref()),
                subject: short(detached.subject.as_deref()),
            },
            trace: self.trace,
            manifest: manifest.stored().clone(),
            recipients: self
                .envelope
                .recipients
                .iter()
                .zip(self.endowed)
                .map(|(rcpt, store)| recipient(rcpt, store.filter(|_| !named.is_empty()), &shared.tickets))
                .collect(),
            parts: parts.collect(),
            class: shared.class,
            expires: expires(shared.class, now.day(), named.iter().chain([manifest.stored()])),
            cause: self.cause,
        };
        placed.push(manifest);
        // What lies in segments of the day before yesterday may have been taken for dead meanwhile (`upkeep::thin`).
        let since_yesterday = shared.class.deletion_day(Day(now.day().0.saturating_sub(1)));
        let was_stored_before = |blob: &PlacedBlob| {
            blob.stored().location.deletion_day().is_some_and(|day| day < since_yesterday)
        };
        if placed.iter().any(was_stored_before) {
            return Err(Failure::TooSlow);
        }
        let taken = Taken::of(&message);
        match message.cause {
            None => shared.ledger.accept(message, placed).await?,
            // What it settles must not be found due again by who asks next: nobody is to be told twice.
            Some(_) => shared.ledger.accept_held(message, placed, self.fences).await?,
        }
        taken.log();
        Ok(())
    }
}

/// The last day of the promise: as many days as the class has, and not more than what was stored yesterday, before
/// midnight, is readable for. So a message never outlives what it names.
pub(crate) fn expires<'b>(class: Class, today: Day, blobs: impl Iterator<Item = &'b StoredBlob>) -> Day {
    let days = blobs.filter_map(|blob| blob.location.deletion_day());
    let readable = days.map(|day| Day(day.0.saturating_sub(GRACE_DAYS)));
    readable.min().unwrap_or(Day(u32::MAX)).min(today.plus(class.days()))
}

/// What the log says of a message that is taken in: how it can be followed, and nothing personal.
struct Taken {
    id: MessageId,
    bytes: u64,
    recipients: usize,
    parts: usize,
    deliveries: Vec<DeliveryId>,
}

impl Taken {
    fn of(message: &Message) -> Self {
        let deliveries = message.recipients.iter().filter_map(Recipient::delivery);
        Self {
            id: message.id,
            bytes: message.original.length,
            recipients: message.recipients.len(),
            parts: message.parts.len(),
            deliveries: deliveries.collect(),
        }
    }

    fn log(&self) {
        let Self { id, bytes, recipients, parts, deliveries } = self;
        tracing::info!(message = %id, bytes, recipients, parts, "taken");
        for delivery in deliveries {
            tracing::info!(message = %id, %delivery, "its attachments wait for a store");
        }
    }
}

impl Incoming for IncomingMessage {
    async fn content(&mut self, piece: Bytes) -> Result<(), Reply> {
        self.detacher.push(&piece);
        self.drain().await.map_err(|failure| match failure.verdict() {
            Verdict::All(reply) => reply,
            Verdict::Each(_) | Verdict::Drop => STORAGE_UNAVAILABLE,
        })
    }

    async fn finish(self, summary: Summary) -> Verdict {
        let id = self.id;
        match self.accept(summary).await {
            Ok(()) => Verdict::All(TAKEN.with_text(format!("taken as {id}"))),
            Err(failure) => {
                tracing::warn!(message = %id, %failure, "message not taken");
                failure.verdict()
            }
        }
    }

    async fn abort(self) {
        tracing::debug!(message = %self.id, "message given up by its sender");
    }
}

/// Why a message was not taken.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The array cannot promise its copies now.
    #[error("storage is not available")]
    Unavailable,
    /// Whether the message exists is not known: nothing may be said (DESIGN §3 rule 2).
    #[error("whether the message was stored is not known")]
    InDoubt,
    /// It took longer than a day to come in.
    #[error("the message took longer than a day to come in")]
    TooSlow,
    /// The message breaks a bound of the catalog.
    #[error("the message breaks a bound: {0}")]
    Refused(lighter_catalog::ChangeError),
    /// Another relay has claimed meanwhile what the message settles.
    #[error("another relay has claimed what the message settles")]
    Stale,
    /// The detacher's events came in an order that they cannot come in, or its hash is not the array's: a fault of ours,
    /// or of this machine's memory.
    #[error("the detached parts do not fit together")]
    OutOfOrder,
}

impl Failure {
    fn verdict(&self) -> Verdict {
        match self {
            Self::Unavailable | Self::OutOfOrder | Self::TooSlow | Self::Stale => {
                Verdict::All(STORAGE_UNAVAILABLE)
            }
            Self::Refused(_) => Verdict::All(TOO_MUCH),
            Self::InDoubt => Verdict::Drop,
        }
    }
}

impl From<WriteError> for Failure {
    /// A blob in doubt is no message in doubt: no record names it yet.
    fn from(_: WriteError) -> Self {
        Self::Unavailable
    }
}

impl From<CommitError> for Failure {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Unavailable(_) => Self::Unavailable,
            CommitError::InDoubt(_) => Self::InDoubt,
            CommitError::Refused(error) => Self::Refused(error),
            CommitError::Stale => Self::Stale,
        }
    }
}

/// The `Received` field (RFC 5321 §4.4). It names the recipient only where there is but one: with several, it would show
/// them to each other.
fn received(peer: &MailPeer, envelope: &Envelope, hostname: &str, id: &MessageId) -> String {
    let received = Received {
        hello: &peer.hello,
        peer: peer.address.ip(),
        host_name: hostname,
        protocol: peer.protocol,
        extended: peer.extended,
        tls: peer.tls,
        smtputf8: envelope.mail.smtputf8,
        id: &id.to_string(),
        recipient: match envelope.recipients.as_slice() {
            [only] => Some(&only.address),
            _ => None,
        },
        at: UnixTime::now(),
    };
    received.field()
}

fn short(text: Option<&str>) -> String {
    shorten(text.unwrap_or_default(), lighter_catalog::limits::SUMMARY_LEN_MAX).to_owned()
}

/// The envelope as the catalog keeps it. BODY says what the content is, not only what was declared: the next hop must be
/// told of eighth bits that a careless sender did not declare.
fn stored_envelope(envelope: &Envelope, eight_bit: bool) -> StoredEnvelope {
    let mail = &envelope.mail;
    StoredEnvelope {
        reverse_path: mail.path.as_ref().map(ToString::to_string).unwrap_or_default(),
        ret: mail.ret.map(|ret| match ret {
            lighter_mail::Return::Full => lighter_catalog::Ret::Full,
            lighter_mail::Return::Headers => lighter_catalog::Ret::Headers,
        }),
        envid: mail.envid.as_ref().map(ToString::to_string),
        body: match mail.body {
            lighter_mail::Body::SevenBit if !eight_bit => lighter_catalog::Body::SevenBit,
            lighter_mail::Body::SevenBit | lighter_mail::Body::EightBitMime => {
                lighter_catalog::Body::EightBitMime
            }
        },
        smtputf8: mail.smtputf8,
    }
}

/// One recipient, with a delivery and a ticket of their own where their store is to get the parts.
fn recipient(rcpt: &RcptTo, store: Option<Mailbox>, tickets: &TicketKey) -> Recipient {
    let form = match store {
        None => Form::Whole,
        Some(_) => {
            let delivery = DeliveryId(rand::rng().random());
            Form::Stub { delivery, generation: 0, ticket: tickets.ticket(&delivery, 0).hash() }
        }
    };
    Recipient {
        address: rcpt.address.to_string(),
        mailbox: store,
        notify: match rcpt.notify {
            None => lighter_catalog::Notify::Default,
            Some(notify) if notify == lighter_mail::Notify::default() => lighter_catalog::Notify::Never,
            Some(lighter_mail::Notify { success, failure, delay }) => {
                lighter_catalog::Notify::On { success, failure, delay }
            }
        },
        orcpt: rcpt.orcpt.clone().map(String::from),
        form,
    }
}
