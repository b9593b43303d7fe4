//! `remove`: lets go of a delivery that is here, to make room. Who sent it was given the receipt long ago: it does not come again.

use lighter_protocol::{DeliveryId, Mailbox};
use lighter_store::{Incoming, IncomingState, Store};

use crate::failure::Failure;
use crate::views::Removed;

/// The deliveries that are here for a mailbox. Blocks on the disk.
///
/// # Errors
/// What the index says.
pub fn all_of(store: &Store, mailbox: &Mailbox) -> Result<Vec<DeliveryId>, Failure> {
    let is_here = |incoming: &Incoming| {
        incoming.mailbox == *mailbox && !matches!(incoming.state, IncomingState::LetGo(_))
    };
    Ok(store.all_incoming()?.iter().filter(|of| is_here(of)).map(|of| of.delivery).collect())
}

/// Lets go of a delivery, however far it is: its mailbox is served here no more. Blocks on the disk.
///
/// # Errors
/// What the index says.
pub fn whatever(store: &Store, delivery: DeliveryId) -> Result<Removed, Failure> {
    let before = store.used()?;
    store.remove(delivery)?;
    Ok(Removed { delivery, bytes_freed: before.saturating_sub(store.used()?) })
}

/// Lets go of it. Blocks on the disk.
///
/// # Errors
/// Where it is not here, or still on its way; nothing has changed then.
pub fn remove(store: &Store, delivery: DeliveryId) -> Result<Removed, Failure> {
    let incoming = store.incoming(delivery)?;
    let incoming =
        incoming.ok_or_else(|| Failure::failed(format!("{delivery} is not here: `list` shows what is")))?;
    match incoming.state {
        IncomingState::Receipted(_) | IncomingState::Rejected { .. } => {}
        IncomingState::LetGo(_) => return Err(Failure::failed(format!("{delivery} was let go of already"))),
        IncomingState::Pulling => {
            return Err(Failure::failed(format!(
                "{delivery} is still on its way: whoever holds it would offer it again"
            )));
        }
    }
    let before = store.used()?;
    store.remove(delivery)?;
    Ok(Removed { delivery, bytes_freed: before.saturating_sub(store.used()?) })
}
