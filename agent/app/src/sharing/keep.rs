//! The taker's side across a restart: what the sender said is kept with the delivery, and where the sender is away when the
//! agent starts again, or all whom a pull had to ask went, the others are asked all the same.
//!
//! Sound because what is kept was verified as if it were used (`take`), and is again when it is; and because what is asked
//! then was let in before, with its bytes counted.

use std::collections::HashSet;

use lighter_protocol::{DeliveryId, PeerId, Sharing, Signed, UnixTime};
use lighter_store::{Incoming, IncomingState, Store, StoreError};
use tokio::time::sleep;

use super::{Share, is_worth};
use crate::limits::{SHARING_LOOK_INTERVAL, SHARING_LOOK_PAUSE};
use crate::pulls;
use crate::shared::Handle;

/// Puts on record what of `told` is true, if `by` is who sent the delivery. What cannot be kept is lost with the process, and
/// told again by a sender that is there.
pub(crate) async fn keep(shared: &Handle, delivery: DeliveryId, told: Vec<Signed<Sharing>>, by: PeerId) {
    let (own, mailbox, share) = (shared.identity.peer(), shared.mailbox().clone(), shared.share());
    let now = UnixTime::now();
    let kept = shared.blocking(move |store| {
        let Some(incoming) = store.incoming(delivery)? else { return Ok(0) };
        if incoming.from != by || incoming.state != IncomingState::Pulling || !is_worth(incoming.size()) {
            return Ok(0);
        }
        let is_true = |signed: &Signed<Sharing>| {
            Sharing::verify_to_take(signed, &by, (&own, &mailbox), now).is_ok_and(|sharing| {
                sharing.giver_store != by && share.permits(&sharing.taker, &sharing.giver)
            })
        };
        let told: Vec<_> = told.into_iter().filter(is_true).collect();
        if told.is_empty() { Ok(0) } else { store.put_sharings(delivery, &told) }
    });
    match kept.await {
        Ok(0) => {}
        Ok(count) => tracing::debug!(%delivery, count, "who else has it is on record"),
        Err(error) => tracing::warn!(%delivery, %error, "who else has it cannot be kept"),
    }
}

/// Goes on with deliveries that others have, as long as the agent runs: at its start, when one of those is heard of, when the
/// machine woke or is on another network, when transfers may go on that were held, and every now and then.
pub(crate) async fn run(shared: Handle) {
    let (mut wakes, mut room) = (shared.wakes.subscribe(), shared.guest.room());
    let mut arrivals = shared.links.arrivals();
    loop {
        let all = shared.blocking(on_record).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "who else has what is missing cannot be looked up");
            Vec::new()
        });
        let givers = givers(&all);
        // What is paused is not asked for; those of a store of many mailboxes take no part.
        if shared.share() != Share::Off && !shared.hosted.is_on() && !shared.guest.is_held() {
            for (incoming, told) in all {
                pulls::resume(&shared, incoming, told);
            }
            sleep(SHARING_LOOK_PAUSE).await;
            // Who came meanwhile was noticed by what was begun.
            arrivals = shared.links.arrivals();
        }
        tokio::select! {
            () = sleep(SHARING_LOOK_INTERVAL) => {}
            () = arrivals.of(|peer| givers.contains(peer)) => {}
            _ = wakes.changed() => {}
            _ = room.changed() => {}
        }
    }
}

/// A delivery that is being pulled, and what its sender said of who else has it.
type Resumable = (Incoming, Vec<Signed<Sharing>>);

/// All of these.
fn on_record(store: &Store) -> Result<Vec<Resumable>, StoreError> {
    let mut all = Vec::new();
    for delivery in store.shared_deliveries()? {
        if let Some(incoming) = store.incoming(delivery)?
            && incoming.state == IncomingState::Pulling
        {
            all.push((incoming, store.sharings(delivery)?));
        }
    }
    Ok(all)
}

/// Who has any of them.
fn givers(all: &[Resumable]) -> HashSet<PeerId> {
    let told = all.iter().flat_map(|(_, told)| told);
    told.filter_map(|signed| signed.claim().ok()).map(|sharing| sharing.giver_store).collect()
}
