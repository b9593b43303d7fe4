//! What will never be delivered, told to its sender: a report that settles what it tells of by coming into being, in
//! one record (so that neither a crash nor a replay reports twice, or loses the report).

use lighter_catalog::{Cause, Change, HandOver, Message};
use lighter_mail::client::Origin;
use lighter_mail::notice::{Action, DeliveryReport, ReportedRecipient, Stamp};
use lighter_mail::{Address, OriginalRecipient, Xtext};
use lighter_protocol::UnixTime;
use rand::RngExt;

use super::HandOverParts;
use super::body::WholeBody;
use super::outcome::{Claims, Failure};

/// Bytes of the original's header that a report brings back at most.
const HEADER_LEN_MAX: usize = 64 * 1024;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Writes down what was `taken` and what `failed` for good, and tells the sender of what failed.
///
/// The null path is never answered, nor who asked not to be told (RFC 3464 §2, RFC 3461 §4.1).
pub(super) async fn settle(
    parts: &HandOverParts,
    message: &Message,
    taken: &[HandOver],
    failed: &[Failure],
    claims: &Claims,
) -> Result<(), Error> {
    let sender: Option<Address> = message.envelope.reverse_path.parse().ok();
    let (told, silent): (Vec<&Failure>, Vec<&Failure>) =
        failed.iter().partition(|failure| sender.is_some() && wants_report(message, failure.hand_over));
    if !silent.is_empty() {
        let hand_overs: Vec<HandOver> = silent.iter().map(|failure| failure.hand_over).collect();
        let fences = claims.of(&hand_overs);
        let change = Change::HandOverFailed { message: message.id, hand_overs, at: UnixTime::now() };
        parts.ledger.commit_held(change, message.class, fences).await?;
    }
    match sender {
        Some(sender) if !told.is_empty() => report(parts, message, &sender, taken, &told, claims).await,
        _ if !taken.is_empty() => {
            let hand_overs = taken.to_vec();
            let change = Change::HandedOver { message: message.id, hand_overs, at: UnixTime::now() };
            Ok(parts.ledger.commit_held(change, message.class, claims.of(taken)).await?)
        }
        _ => Ok(()),
    }
}

fn wants_report(message: &Message, hand_over: HandOver) -> bool {
    let recipient = usize::try_from(hand_over.recipient).ok().and_then(|place| message.recipients.get(place));
    recipient.is_some_and(|recipient| recipient.notify.failure())
}

async fn report(
    parts: &HandOverParts,
    message: &Message,
    sender: &Address,
    taken: &[HandOver],
    failed: &[&Failure],
    claims: &Claims,
) -> Result<(), Error> {
    let addressed: Vec<(Address, Option<OriginalRecipient>, &Failure)> =
        failed.iter().filter_map(|failure| addressed(message, failure)).collect();
    let recipients: Vec<ReportedRecipient<'_>> = addressed
        .iter()
        .map(|(address, orcpt, failure)| ReportedRecipient {
            address,
            orcpt: orcpt.as_ref(),
            action: Action::Failed,
            reply: &failure.outcome.reply,
            remote: parts.next_hop.remote().filter(|_| failure.outcome.from == Origin::Peer),
        })
        .collect();
    let envid = message.envelope.envid.as_deref().and_then(|envid| Xtext::from_encoded(envid).ok());
    let header = original_header(parts, message).await;
    let report = DeliveryReport {
        to: sender,
        envid: envid.as_ref(),
        arrived: message.accepted,
        recipients: &recipients,
        header: &header,
    };
    let stamp = Stamp { host_name: &parts.hostname, now: UnixTime::now(), chance: rand::rng().random() };
    let failed_for_good: Vec<HandOver> = failed.iter().map(|failure| failure.hand_over).collect();
    let fences = claims.of(taken).into_iter().chain(claims.of(&failed_for_good)).collect();
    let cause = Cause::Report { message: message.id, handed_over: taken.to_vec(), failed: failed_for_good };
    tracing::info!(message = %message.id, recipients = failed.len(), "given up, and its sender told");
    Ok(parts.ingest.take_own(sender, &report.message(&stamp), cause, fences).await?)
}

fn addressed<'a>(
    message: &Message,
    failure: &'a Failure,
) -> Option<(Address, Option<OriginalRecipient>, &'a Failure)> {
    let recipient = message.recipients.get(usize::try_from(failure.hand_over.recipient).ok()?)?;
    let orcpt = recipient.orcpt.as_deref().and_then(|orcpt| OriginalRecipient::parse(orcpt).ok());
    Some((recipient.address.parse().ok()?, orcpt, failure))
}

/// The beginning of the original; nothing where it cannot be read: the report goes out all the same.
async fn original_header(parts: &HandOverParts, message: &Message) -> Vec<u8> {
    let mut body = WholeBody::new(&parts.array, message);
    let mut header = Vec::new();
    while header.len() < HEADER_LEN_MAX {
        match body.next().await {
            Ok(Some(piece)) => header.extend_from_slice(&piece),
            Ok(None) => break,
            Err(error) => {
                tracing::warn!(message = %message.id, %error, "a report goes out without the original's header");
                break;
            }
        }
        if header.windows(4).any(|four| four == b"\r\n\r\n") {
            break;
        }
    }
    header.truncate(HEADER_LEN_MAX);
    header
}
