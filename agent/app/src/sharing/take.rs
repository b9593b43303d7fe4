//! The taker's side: who else has it by the sender's word, found by the own location server's, and asked.
//!
//! Sound because the sender's word says a mailbox and a key, never an address (DESIGN §4): whether that key is the
//! mailbox's store, and where it is, the location server says. What is looked up and dialled at one sender's word is bounded:
//! so many givers of a delivery, each tried a few times, a few at a time for all deliveries together.

use std::collections::HashMap;

use lighter_protocol::limits::SHARINGS_MAX;
use lighter_protocol::pull::Role;
use lighter_protocol::{Mailbox, PeerId, Sharing, Signed, UnixTime};
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::Share;
use crate::limits::{GIVER_TRIES_MAX, GIVER_WAIT_MIN, SHARINGS_VERIFIED_MAX};
use crate::shared::Handle;
use crate::sources::Found;
use crate::{finding, lookup, ways};

/// Who may be asked for one delivery, besides whoever offered it. At most [`SHARINGS_MAX`].
#[derive(Debug, Default)]
pub(crate) struct Givers {
    known: HashMap<PeerId, Known>,
    /// Statements that were looked at, good or not: each costs.
    verified: usize,
}

#[derive(Debug)]
struct Known {
    signed: Signed<Sharing>,
    sharing: Sharing,
}

impl Givers {
    /// Takes what `sender`, who offers the delivery, says. Gives the givers that were not known.
    pub(crate) fn take(
        &mut self,
        told: Vec<Signed<Sharing>>,
        sender: &PeerId,
        (own, mailbox): (&PeerId, &Mailbox),
        share: Share,
        now: UnixTime,
    ) -> Vec<Sharing> {
        let mut new = Vec::new();
        for signed in told {
            let Ok(claim) = signed.claim() else { continue };
            let known = self.known.get(&claim.giver_store);
            let is_older = known.is_some_and(|known| claim.expires <= known.sharing.expires);
            let is_full = known.is_none() && self.known.len() >= SHARINGS_MAX;
            if is_older || is_full || self.verified >= SHARINGS_VERIFIED_MAX {
                continue;
            }
            self.verified += 1;
            let sharing = match Sharing::verify_to_take(&signed, sender, (own, mailbox), now) {
                Ok(sharing) => sharing,
                Err(error) => {
                    tracing::info!(%sender, %error, "not used");
                    continue;
                }
            };
            if sharing.giver_store == *sender || !share.permits(&sharing.taker, &sharing.giver) {
                continue;
            }
            let known = Known { signed, sharing: sharing.clone() };
            if self.known.insert(sharing.giver_store, known).is_none() {
                new.push(sharing);
            }
        }
        new
    }

    /// What is shown to `peer`, if it is one of them, and of which delivery.
    pub(crate) fn shown_to(&self, peer: &PeerId) -> Option<(&Signed<Sharing>, &Sharing)> {
        self.known.get(peer).map(|known| (&known.signed, &known.sharing))
    }
}

/// Finds one giver, and tells of it; again a few times, where it is not there or went: after a while, or as soon as it is
/// heard of.
pub(crate) async fn seek(shared: Handle, sharing: Sharing, found: mpsc::Sender<Found>) {
    let mut wait = GIVER_WAIT_MIN;
    for _ in 0..GIVER_TRIES_MAX {
        let mut arrivals = shared.links.arrivals();
        match reach(&shared, &sharing).await {
            Ok(source) => {
                let connection = source.connection.clone();
                if found.send(source).await.is_err() {
                    return;
                }
                connection.closed().await;
                // That it came when it was looked for is no news.
                arrivals = shared.links.arrivals();
            }
            Err(why) => tracing::debug!(giver = %sharing.giver_store, %why, "is no source now"),
        }
        tokio::select! {
            () = sleep(wait) => {}
            () = arrivals.of(|peer| *peer == sharing.giver_store) => {}
        }
        wait *= 2;
    }
}

async fn reach(shared: &Handle, sharing: &Sharing) -> Result<Found, String> {
    let _place = shared.seeking.acquire().await.map_err(|error| error.to_string())?;
    lookup::session(shared).await.map_err(|error| error.to_string())?;
    let own = shared.mailbox();
    let looked_up = finding::look_up_one(shared, own, &sharing.giver).await;
    let store = looked_up.map_err(|error| error.to_string())?.ok_or("the giver has no store for this one")?;
    if store.peer != sharing.giver_store {
        return Err("the giver has another store by now".to_owned());
    }
    let reached = ways::reach(shared, own, &sharing.giver, &store).await.map_err(|why| why.to_string())?;
    Ok(Found { role: Role::Recipient, connection: reached.connection })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use lighter_protocol::{DeliveryId, Keypair};

    use super::*;

    const NOW: UnixTime = UnixTime(1_800_000_000);

    fn key(of: u8) -> Keypair {
        Keypair::ed25519_from_bytes([of; 32]).unwrap()
    }

    fn peer(of: u8) -> PeerId {
        key(of).public().to_peer_id()
    }

    fn dave() -> Mailbox {
        "dave@example.org".parse().unwrap()
    }

    fn sharing(giver: u8, life: u64) -> Sharing {
        Sharing {
            delivery: DeliveryId([giver; 16]),
            giver: format!("giver{giver}@example.org").parse().unwrap(),
            giver_store: peer(giver),
            taker: dave(),
            taker_store: peer(1),
            expires: NOW.plus(Duration::from_secs(life)),
        }
    }

    fn take(givers: &mut Givers, by: u8, sharings: &[Sharing]) -> usize {
        let signed = sharings.iter().map(|sharing| Signed::sign(sharing, &key(by)).unwrap()).collect();
        givers.take(signed, &peer(2), (&peer(1), &dave()), Share::SameDomain, NOW).len()
    }

    // SPEC: D3
    #[test]
    fn bad_input_34_only_what_the_sender_says_of_this_store_counts() {
        let mut givers = Givers::default();
        assert_eq!(take(&mut givers, 3, &[sharing(4, 60)]), 0, "somebody else's word");
        let other = Sharing { taker_store: peer(9), ..sharing(4, 60) };
        let foreign = Sharing { giver: "carol@b.example".parse().unwrap(), ..sharing(4, 60) };
        let old = Sharing { expires: UnixTime(NOW.0 - 3_600), ..sharing(4, 60) };
        let own = Sharing { giver_store: peer(2), ..sharing(4, 60) };
        assert_eq!(take(&mut givers, 2, &[other, foreign, old, own]), 0);
        assert_eq!(take(&mut givers, 2, &[sharing(4, 60)]), 1);
        assert_eq!(take(&mut givers, 2, &[sharing(4, 60)]), 0, "known");
        assert_eq!(givers.shown_to(&peer(4)).unwrap().1, &sharing(4, 60));
        assert_eq!(take(&mut givers, 2, &[sharing(4, 90)]), 0, "renewed");
        assert_eq!(givers.shown_to(&peer(4)).unwrap().1.expires, NOW.plus(Duration::from_secs(90)));
        assert!(givers.shown_to(&peer(5)).is_none());
    }

    #[test]
    fn bad_input_35_however_much_a_sender_says_so_much_is_looked_at() {
        let mut givers = Givers::default();
        let many: Vec<_> = (10..60).map(|giver| sharing(giver, 60)).collect();
        assert_eq!(take(&mut givers, 2, &many), SHARINGS_MAX);
        for life in 61..200 {
            take(
                &mut givers,
                2,
                &many.iter().map(|one| sharing(one.delivery.0[0], life)).collect::<Vec<_>>(),
            );
        }
        assert_eq!((givers.known.len(), givers.verified), (SHARINGS_MAX, SHARINGS_VERIFIED_MAX));
        let mut givers = Givers::default();
        for _ in 0..10 {
            take(&mut givers, 3, &many);
        }
        assert_eq!((givers.known.len(), givers.verified), (0, SHARINGS_VERIFIED_MAX));
        assert_eq!(take(&mut givers, 2, &many), 0, "of this delivery nothing is heard any more");
    }
}
