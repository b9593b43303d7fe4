//! The mail that tells a user that attachments were not fetched (DESIGN §3 rule 3).

use lighter_catalog::limits::WHOLE_DAYS_BEFORE;
use lighter_catalog::{Cause, Delivery, Message};
use lighter_mail::Address;
use lighter_mail::notice::{ExpiryNotice, Stamp, WaitingItem};
use lighter_protocol::{Day, UnixTime};

use super::DeliveryParts;
use crate::ingest::Failure;

/// Why a user was not told.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoticeError {
    /// A mailbox that no mail can be addressed to.
    #[error("the mailbox is no address")]
    Address,
    /// The notice was not taken in.
    #[error(transparent)]
    NotTaken(#[from] Failure),
}

/// Takes in a notice to the delivery's mailbox; that it is accepted is what notes that the user was told.
pub(super) async fn send(
    parts: &DeliveryParts,
    delivery: &Delivery,
    message: &Message,
    now: UnixTime,
) -> Result<(), NoticeError> {
    let to: Address = delivery.mailbox.as_str().parse().map_err(|_| NoticeError::Address)?;
    let items: Vec<_> =
        message.parts.iter().map(|part| WaitingItem { name: &part.name, size: part.blob.size }).collect();
    let link = delivery.ticket.map(|_| {
        let ticket = parts.tickets.ticket(&delivery.id, delivery.generation);
        format!("{}/t/{}/", parts.retrieval_url, ticket.to_text())
    });
    let notice = ExpiryNotice {
        to: &to,
        subject: &message.summary.subject,
        sender: &message.summary.from,
        arrived: message.accepted,
        items: &items,
        whole_at: begin_of(Day(delivery.expires.0.saturating_sub(WHOLE_DAYS_BEFORE))),
        link: link.as_deref(),
    };
    // The delivery is told of once: its number names the notice.
    let stamp = Stamp { host_name: &parts.hostname, now, chance: delivery.id.0 };
    let content = notice.message(&stamp);
    Ok(parts.ingest.take_own(&to, &content, Cause::Notice { delivery: delivery.id }, Vec::new()).await?)
}

/// The first second of a day.
fn begin_of(day: Day) -> UnixTime {
    Day(day.0.saturating_sub(1)).end()
}
