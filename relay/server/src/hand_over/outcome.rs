//! One message's hand-overs that are due: tried, and what became of each written down.

use std::time::Duration;

use lighter_catalog::{
    Body as StoredBody, Change, Claim, CommitError, DueHandOver, Fence, Form, HandOver, Message,
    Notify as StoredNotify, Ret,
};
use lighter_mail::{Body, Envelope, MailFrom, Notify, OriginalRecipient, RcptTo, Reply, Return, Xtext};
use lighter_message::StubContext;
use lighter_protocol::{DeliveryId, MessageId, UnixTime};
use lighter_queue::Retry;
use tokio_util::sync::CancellationToken;

use super::body::{MessageBody, StubBody, WholeBody};
use super::{HandOverParts, report};
use crate::ingest;
use crate::next_hop::{HandOver as Transfer, Outcome};

/// When something is tried again that can never be written down, as far as this version knows.
const UNWRITABLE_RETRY: Duration = Duration::from_secs(24 * 3600);

/// A hand-over that will not be tried again.
pub(super) struct Failure {
    pub(super) hand_over: HandOver,
    pub(super) outcome: Outcome,
}

/// The claims under which a message is handed over.
pub(super) struct Claims(Vec<Claim>);

impl Claims {
    /// Those of these hand-overs.
    pub(super) fn of(&self, hand_overs: &[HandOver]) -> Vec<Fence> {
        let claims = self.0.iter().filter(|claim| hand_overs.contains(&claim.due.hand_over));
        claims.map(|claim| claim.fence).collect()
    }
}

/// What became of a message's hand-overs.
#[derive(Default)]
struct Tried {
    taken: Vec<HandOver>,
    failed: Vec<Failure>,
    /// Put off, with the tries so far.
    later: Vec<(HandOver, u32, UnixTime)>,
}

/// Tries what is due of `message`. Errors are logged: what could not be done stays due.
pub(super) async fn hand_over(
    parts: &HandOverParts,
    id: MessageId,
    claims: Vec<Claim>,
    stop: &CancellationToken,
) {
    let due: Vec<DueHandOver> = claims.iter().map(|claim| claim.due).collect();
    let claims = Claims(claims);
    let message = match parts.ledger.read(move |catalog| catalog.message(&id)).await {
        Ok(Some(message)) => message,
        Ok(None) => return,
        Err(error) => {
            tracing::warn!(message = %id, %error, "the catalog does not say what the message is");
            return;
        }
    };
    if !parts.array.status().writable {
        tracing::debug!(message = %id, "storage takes no records: nothing is handed over that cannot be written down");
        let next = UnixTime::now().plus(super::QUESTION_RETRY);
        for due in due {
            put_off(parts, id, claims.of(&[due.hand_over]), due.attempts, next).await;
        }
        return;
    }
    let mut tried = Tried::default();
    let (whole, stubs): (Vec<_>, Vec<_>) =
        due.into_iter().partition(|due| form(&message, due.hand_over).is_none());
    // All who get the same bytes get them at once; a stub is each recipient's own (SPEC A10).
    let (lapsed, first): (Vec<_>, Vec<_>) = whole.into_iter().partition(|due| due.hand_over.lapsed);
    for group in [first, lapsed] {
        if !group.is_empty() {
            let body = MessageBody::Whole(Box::new(WholeBody::new(&parts.array, &message)));
            transfer(parts, &message, group, body, &mut tried).await;
        }
    }
    for stub in stubs {
        if let Some((delivery, generation)) = form(&message, stub.hand_over) {
            let body = StubBody::new(&parts.array, &message, context(parts, &message, delivery, generation));
            transfer(parts, &message, vec![stub], MessageBody::Stub(Box::new(body)), &mut tried).await;
        }
    }
    write_down(parts, &message, tried, &claims, stop).await;
}

/// The delivery and ticket generation of a hand-over that goes as a stub.
fn form(message: &Message, hand_over: HandOver) -> Option<(DeliveryId, u32)> {
    let recipient = message.recipients.get(usize::try_from(hand_over.recipient).ok()?)?;
    match recipient.form {
        Form::Stub { delivery, generation, .. } if !hand_over.lapsed => Some((delivery, generation)),
        Form::Stub { .. } | Form::Whole | Form::Drop { .. } => None,
    }
}

fn context(parts: &HandOverParts, message: &Message, delivery: DeliveryId, generation: u32) -> StubContext {
    let token = parts.tickets.ticket(&delivery, generation).to_text();
    let landing = format!("{}/t/{token}/", parts.retrieval_url);
    StubContext { delivery, landing: Some(landing), expires: Some(message.expires.end()) }
}

async fn transfer(
    parts: &HandOverParts,
    message: &Message,
    due: Vec<DueHandOver>,
    body: MessageBody,
    tried: &mut Tried,
) {
    let Some(recipients) = recipients(message, &due) else {
        tracing::error!(message = %message.id, "an address that was taken in is no address: given up");
        let failed = |due: &DueHandOver| Failure {
            hand_over: due.hand_over,
            outcome: Outcome::here(Reply::fixed(550, 1, 3, "the address cannot be written")),
        };
        tried.failed.extend(due.iter().map(failed));
        return;
    };
    let envelope = Envelope { mail: mail_from(message), recipients };
    let transfer = Transfer { id: transfer_id(message, &due), accepted: message.accepted, envelope };
    let outcomes = parts.next_hop.deliver(&transfer, body).await;
    let now = UnixTime::now();
    for (due, outcome) in due.into_iter().zip(outcomes) {
        sort(parts, message, &due, outcome, now, tried);
    }
}

/// Where one outcome belongs.
fn sort(
    parts: &HandOverParts,
    message: &Message,
    due: &DueHandOver,
    outcome: Outcome,
    now: UnixTime,
    tried: &mut Tried,
) {
    if outcome.is_delivered() {
        tracing::info!(message = %message.id, recipient = due.hand_over.recipient, "handed on");
        tried.taken.push(due.hand_over);
        return;
    }
    tracing::info!(message = %message.id, reply = %outcome.reply.code, "the next hop did not take a message");
    let attempts = due.attempts.saturating_add(1);
    let give_up = Some(parts.give_up_after);
    let retry = Retry::after(attempts, message.accepted, give_up, now, &mut rand::rng());
    match retry {
        Retry::At(next) if !outcome.is_permanent() => tried.later.push((due.hand_over, attempts, next)),
        Retry::At(_) | Retry::GiveUp => {
            tried.failed.push(Failure { hand_over: due.hand_over, outcome });
        }
    }
}

/// What makes a transfer the same again after a crash. A stub has its delivery's; the whole message the message's; the
/// whole message that follows a stub one of its own, or a Maildir would take it for the stub.
fn transfer_id(message: &Message, due: &[DueHandOver]) -> [u8; 16] {
    let Some(first) = due.first() else { return message.id.0 };
    match form(message, first.hand_over) {
        Some((delivery, _)) => delivery.0,
        None if first.hand_over.lapsed => {
            let hash = blake3::derive_key("lighter lapsed hand-over 1", &message.id.0);
            hash.first_chunk().copied().unwrap_or(message.id.0)
        }
        None => message.id.0,
    }
}

fn mail_from(message: &Message) -> MailFrom {
    let envelope = &message.envelope;
    MailFrom {
        path: envelope.reverse_path.parse().ok(),
        size: None,
        body: match envelope.body {
            StoredBody::SevenBit => Body::SevenBit,
            StoredBody::EightBitMime | StoredBody::BinaryMime => Body::EightBitMime,
        },
        smtputf8: envelope.smtputf8,
        ret: envelope.ret.map(|ret| match ret {
            Ret::Full => Return::Full,
            Ret::Headers => Return::Headers,
        }),
        envid: envelope.envid.as_deref().and_then(|envid| Xtext::from_encoded(envid).ok()),
    }
}

fn recipients(message: &Message, due: &[DueHandOver]) -> Option<Vec<RcptTo>> {
    let recipient = |due: &DueHandOver| {
        let recipient = message.recipients.get(usize::try_from(due.hand_over.recipient).ok()?)?;
        Some(RcptTo {
            address: recipient.address.parse().ok()?,
            notify: match recipient.notify {
                StoredNotify::Default => None,
                StoredNotify::Never => Some(Notify::default()),
                StoredNotify::On { success, failure, delay } => Some(Notify { success, failure, delay }),
            },
            orcpt: recipient.orcpt.as_deref().and_then(|orcpt| OriginalRecipient::parse(orcpt).ok()),
        })
    };
    due.iter().map(recipient).collect()
}

/// Writes down what became of each, however long the array is away: only a stop leaves it due, to be tried again.
async fn write_down(
    parts: &HandOverParts,
    message: &Message,
    tried: Tried,
    claims: &Claims,
    stop: &CancellationToken,
) {
    let Tried { taken, failed, later } = tried;
    for (hand_over, attempts, next) in later {
        put_off(parts, message.id, claims.of(&[hand_over]), attempts, next).await;
    }
    while let Err(error) = settle(parts, message, &taken, &failed, claims).await {
        if is_stale(&*error) {
            tracing::warn!(message = %message.id, "another relay took a message over meanwhile: it says what became of it");
            return;
        }
        if is_final(&*error) {
            tracing::error!(message = %message.id, %error, "what became of a message cannot be written down");
            let failed = failed.iter().map(|failure| failure.hand_over);
            let all: Vec<HandOver> = taken.iter().copied().chain(failed).collect();
            put_off(parts, message.id, claims.of(&all), 1, UnixTime::now().plus(UNWRITABLE_RETRY)).await;
            return;
        }
        tracing::warn!(message = %message.id, %error, "what became of a message is not written down yet");
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(super::QUESTION_RETRY) => {}
        }
    }
}

/// Whether trying again will not do: a bound is broken.
fn is_final(error: &(dyn std::error::Error + Send + Sync + 'static)) -> bool {
    matches!(error.downcast_ref(), Some(CommitError::Refused(_)))
        || matches!(error.downcast_ref(), Some(ingest::Failure::Refused(_)))
}

/// Whether a claim was over.
fn is_stale(error: &(dyn std::error::Error + Send + Sync + 'static)) -> bool {
    matches!(error.downcast_ref(), Some(CommitError::Stale))
        || matches!(error.downcast_ref(), Some(ingest::Failure::Stale))
}

async fn settle(
    parts: &HandOverParts,
    message: &Message,
    taken: &[HandOver],
    failed: &[Failure],
    claims: &Claims,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    if failed.is_empty() {
        if !taken.is_empty() {
            let at = UnixTime::now();
            let change = Change::HandedOver { message: message.id, hand_overs: taken.to_vec(), at };
            parts.ledger.commit_held(change, message.class, claims.of(taken)).await?;
        }
        return Ok(());
    }
    report::settle(parts, message, taken, failed, claims).await
}

async fn put_off(parts: &HandOverParts, id: MessageId, which: Vec<Fence>, attempts: u32, next: UnixTime) {
    let put_off = parts.ledger.read(move |catalog| catalog.postpone_claimed(&which, attempts, next)).await;
    if let Err(error) = put_off {
        tracing::warn!(message = %id, %error, "a retry could not be put off");
    }
}
