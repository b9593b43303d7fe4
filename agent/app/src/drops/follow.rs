//! What became of what was left: asked at starts, wakes and in growing pauses. The own copy is let go of against the
//! receipt of a store that the drop was sealed to, and against nothing else (DESIGN §3 rule 3).

use std::time::Duration;

use lighter_protocol::wire::{DropState, Request, Response};
use lighter_protocol::{Expected, Receipt, Releaser, Signed, Succession, UnixTime, VerifiedReceipt};
use lighter_store::{LeftDrop, Outgoing, OutgoingState, Store, StoreError};
use lighter_transport::location::StoreRecord;
use rand::RngExt;
use tokio::time::sleep;

use super::leave::Link;
use crate::finding;
use crate::limits::{DROP_ASK_MAX, DROP_ASK_MIN};
use crate::offers;
use crate::shared::Handle;

/// Follows everything that was left, until the agent stops.
pub async fn run(shared: Handle) {
    let mut pause = DROP_ASK_MIN;
    loop {
        let mut wakes = shared.wakes.subscribe();
        let mut membership = shared.membership.subscribe();
        let had_session = shared.session().is_some();
        let waiting = match shared.blocking(waiting).await {
            Ok(waiting) => waiting,
            Err(error) => {
                tracing::warn!(%error, "what was left cannot be looked at");
                Vec::new()
            }
        };
        let is_any = !waiting.is_empty();
        for (outgoing, left) in waiting {
            look(&shared, &outgoing, &left).await;
        }
        let rest = if is_any { pause.mul_f64(rand::rng().random_range(0.7..=1.0)) } else { Duration::MAX };
        tokio::select! {
            () = sleep(rest) => pause = (pause * 2).min(DROP_ASK_MAX),
            _ = wakes.changed() => pause = DROP_ASK_MIN,
            () = shared.drops.left.notified() => pause = DROP_ASK_MIN,
            _ = membership.wait_for(|now| !had_session && now.session.is_some()) => pause = DROP_ASK_MIN,
        }
    }
}

/// What was left and is not receipted.
fn waiting(store: &Store) -> Result<Vec<(Outgoing, LeftDrop)>, StoreError> {
    let mut found = Vec::new();
    for outgoing in store.all_outgoing()? {
        if outgoing.state != OutgoingState::Waiting {
            continue;
        }
        if let Some(left) = store.left(outgoing.delivery)?.filter(|left| left.taken.is_some()) {
            found.push((outgoing, left));
        }
    }
    Ok(found)
}

/// Asks about one, and does what follows.
async fn look(shared: &Handle, outgoing: &Outgoing, left: &LeftDrop) {
    let now = UnixTime::now();
    match ask(shared, outgoing, left).await {
        Some((DropState::Receipted(receipt), recipient)) => {
            if let Some(state) = released(outgoing, left, &receipt, &recipient.successions, now) {
                tracing::info!(delivery = %outgoing.delivery, "what was left is receipted, released");
                record(shared, outgoing, state).await;
            }
        }
        Some((DropState::Waiting, _)) => {}
        Some((DropState::Expired, _)) => give_up(shared, outgoing).await,
        // Nobody could say for so long that nobody will.
        None if left.taken.is_some_and(|until| until.plus(GONE_AFTER) < now) => {
            give_up(shared, outgoing).await;
        }
        None => {}
    }
}

/// No store fetched it in time: the message goes whole by mail after all. Where that does not work now, the next look
/// tries again.
async fn give_up(shared: &Handle, outgoing: &Outgoing) {
    let Err(failure) = offers::mail_whole(shared, outgoing).await else { return };
    tracing::warn!(delivery = %outgoing.delivery, %failure, "what was left was not fetched in time, and not mailed");
    if !failure.is_temporary() {
        let reason =
            format!("it was not fetched in time, and the message could not be mailed whole: {failure}");
        record(shared, outgoing, OutgoingState::Failed { reason }).await;
    }
}

async fn record(shared: &Handle, outgoing: &Outgoing, state: OutgoingState) {
    let delivery = outgoing.delivery;
    let changed = shared.blocking(move |store| {
        store.change_outgoing(delivery, |outgoing| {
            if outgoing.state == OutgoingState::Waiting {
                outgoing.state = state;
            }
        })
    });
    if let Err(error) = changed.await {
        tracing::warn!(%delivery, %error, "could not be recorded");
    }
}

/// After the last day at the relay: its clock may be behind.
const GONE_AFTER: Duration = Duration::from_hours(24);

/// What the relay says, and what is known of the recipient's stores; none where it cannot be asked, or does not say.
async fn ask(shared: &Handle, outgoing: &Outgoing, left: &LeftDrop) -> Option<(DropState, StoreRecord)> {
    let record = finding::look_up_one(shared, &outgoing.sender, &outgoing.recipient).await;
    let mut record =
        record.inspect_err(|error| tracing::debug!(%error, "the relay cannot be looked up")).ok()??;
    let mut relays = std::mem::take(&mut record.relays);
    relays.retain(|relay| !relay.is_only_helper());
    // Relays on one catalog know the same; the one that took it knows first.
    relays.sort_by_key(|relay| relay.peer != left.relay);
    for relay in relays {
        let Some(link) = Link::dial(shared, &relay).await else { continue };
        match link.connection.request(&Request::DropState(outgoing.delivery)).await {
            Ok(Response::DropState(state)) => return Some((state, record)),
            answer => tracing::debug!(relay = %relay.peer, ?answer, "says nothing of what was left"),
        }
    }
    None
}

/// The delivery's state by a receipt; none where it does not count. It does by a store that it was sealed to, also when that
/// has another key by now: by `successions`, which the former keys signed.
fn released(
    outgoing: &Outgoing,
    left: &LeftDrop,
    receipt: &Signed<Receipt>,
    successions: &[Signed<Succession>],
    now: UnixTime,
) -> Option<OutgoingState> {
    let claim = receipt.claim().ok()?;
    let mut keys = Succession::formers(successions, &claim.store);
    keys.push(claim.store);
    if !keys.iter().any(|key| left.stores.contains(key)) {
        return None;
    }
    let until = now.plus(Duration::from_secs(1));
    let releaser = Releaser::looked_up(outgoing.recipient.clone(), claim.store, until);
    let expected = Expected {
        delivery: outgoing.delivery,
        mailbox: outgoing.recipient.clone(),
        manifest: left.envelope.id,
    };
    match VerifiedReceipt::verify(receipt, &releaser, &expected, now) {
        Ok(verified) => Some(OutgoingState::Released(verified.signed().clone())),
        Err(error) => {
            tracing::warn!(delivery = %outgoing.delivery, %error, "the relay shows a receipt that does not count");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use lighter_protocol::wire::OfferedBlob;
    use lighter_protocol::{BlobId, DeliveryId, Keypair, PeerId};

    use super::*;

    fn key(of: u8) -> Keypair {
        Keypair::ed25519_from_bytes([of; 32]).unwrap()
    }

    fn peer(of: u8) -> PeerId {
        key(of).public().to_peer_id()
    }

    fn blob(number: u8) -> OfferedBlob {
        OfferedBlob { id: BlobId([number; 32]), size: 5, name: String::new(), media_type: String::new() }
    }

    #[test]
    fn bad_input_34_only_a_receipt_by_a_store_that_it_was_sealed_to_and_for_its_envelope_releases() {
        let now = UnixTime(1_800_000_000);
        let outgoing = Outgoing {
            delivery: DeliveryId([7; 16]),
            sender: "alice@a.example".parse().unwrap(),
            recipient: "bob@b.example".parse().unwrap(),
            store: peer(1),
            manifest: blob(1),
            blobs: vec![blob(2)],
            introduction: None,
            subject: String::new(),
            created: now,
            expires: now,
            state: OutgoingState::Waiting,
        };
        let left = LeftDrop {
            relay: peer(9),
            envelope: blob(8),
            blobs: vec![blob(3), blob(4)],
            stores: vec![peer(1), peer(2)],
            taken: Some(now),
        };
        let right = Receipt {
            delivery: outgoing.delivery,
            mailbox: outgoing.recipient.clone(),
            store: peer(2),
            manifest: left.envelope.id,
            time: now,
        };
        let releases = |receipt: &Receipt, by: u8| {
            released(&outgoing, &left, &Signed::sign(receipt, &key(by)).unwrap(), &[], now).is_some()
        };
        assert!(releases(&right, 2));
        assert!(!releases(&right, 9), "the relay's own word");
        assert!(
            !releases(&Receipt { store: peer(9), ..right.clone() }, 9),
            "of a store it was not sealed to"
        );
        assert!(
            !releases(&Receipt { manifest: outgoing.manifest.id, ..right.clone() }, 2),
            "of another manifest"
        );
        assert!(!releases(&Receipt { delivery: DeliveryId([8; 16]), ..right.clone() }, 2));
        assert!(!releases(&Receipt { mailbox: outgoing.sender.clone(), ..right }, 2));

        // Bob's store has the key 5 since, by its own word; 9 says the same of itself.
        let succession = |former, by| {
            let next = if by == 9 { peer(9) } else { peer(5) };
            let said =
                Succession { mailbox: outgoing.recipient.clone(), former: peer(former), next, time: now };
            Signed::sign(&said, &key(by)).unwrap()
        };
        let after = |store: u8, successions: &[_]| {
            let receipt =
                Signed::sign(&Receipt { store: peer(store), ..right.clone() }, &key(store)).unwrap();
            released(&outgoing, &left, &receipt, successions, now).is_some()
        };
        assert!(after(5, &[succession(2, 2)]));
        assert!(!after(5, &[]), "nobody said so");
        assert!(!after(5, &[succession(3, 3)]), "of a store it was not sealed to");
        assert!(!after(9, &[succession(2, 9)]), "by who wants to be it");
    }
}
