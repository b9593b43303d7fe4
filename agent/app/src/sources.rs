//! Further sources of a delivery that is being pulled (SPEC D3), besides whoever offered it: peers that are this user's
//! own, so that nothing is told to strangers, and that no offer's word is needed for.
//!
//! - **Relays**: those of the own domain that the offer names as sources, over the sessions that this agent has with them.
//!   With several relays on one catalog each of them serves what one offered.
//! - **Devices**: other stores of the same mailbox, for what is large: their PeerIds and addresses are the own location
//!   server's word, an address on the local network included ([`crate::ways`]). One that does not have it says so.
//!
//! Sound because an address is never taken from an offer (DESIGN §4): what an offer names is a PeerId, and it counts only
//! where this agent knows that peer from its own attestation. Whoever is asked decides by the attestation that is shown,
//! and what comes is verified like anything.

use std::collections::HashMap;

use lighter_protocol::pull::Role;
use lighter_protocol::wire::Offer;
use lighter_protocol::{PeerId, UnixTime};
use lighter_transport::Connection;
use lighter_transport::location::{Presence, StoreRecord};
use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::limits::{DEVICE_LEN_MIN, DEVICES_ASKED_MAX, SOURCES_INTERVAL};
use crate::shared::Handle;
use crate::{lookup, ways};

/// A source that was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// What it is to the delivery.
    pub role: Role,
    /// The open connection to it. A device's is the pull's own, and closed with it.
    pub connection: Connection,
}

/// Whether it is worth looking for further sources of `offer`, of which `missing` bytes are missing: some are named, or
/// it is large.
pub fn is_worth(offer: &Offer, missing: u64) -> bool {
    !offer.sources.is_empty() || missing >= DEVICE_LEN_MIN
}

/// Tells of each further source of what `from` offered, for as long as somebody listens: of a relay again whenever there is
/// a new session with it.
pub async fn find(shared: Handle, offer: Offer, from: PeerId, missing: u64, found: mpsc::Sender<Found>) {
    let relays = relays(&shared, &offer, from, &found);
    let devices = async {
        // A hosted store's own location server speaks of its users' devices to them, not to it.
        if missing >= DEVICE_LEN_MIN && offer.mailbox == *shared.mailbox() {
            devices(&shared, &offer, from, &found).await;
        }
    };
    tokio::join!(relays, devices);
}

async fn relays(shared: &Handle, offer: &Offer, from: PeerId, found: &mpsc::Sender<Found>) {
    let mut told: HashMap<PeerId, Connection> = HashMap::new();
    let named: Vec<_> = offer.sources.iter().filter(|peer| **peer != from).copied().collect();
    while !named.is_empty() {
        for peer in &named {
            // By the attestation as it is now: a relay that is taken out of the domain is not asked.
            let Some(connection) = shared.links.get(peer).filter(|_| shared.is_own_relay(peer)) else {
                continue;
            };
            if told.get(peer).is_some_and(|known| known.is_same(&connection)) {
                continue;
            }
            told.insert(*peer, connection.clone());
            if found.send(Found { role: Role::Relay, connection }).await.is_err() {
                return;
            }
        }
        sleep(SOURCES_INTERVAL).await;
    }
}

async fn devices(shared: &Handle, offer: &Offer, from: PeerId, found: &mpsc::Sender<Found>) {
    let own = shared.identity.peer();
    let devices = own_devices(shared).await;
    let others = devices.into_iter().filter(|device| device.peer != own && device.peer != from);
    for device in others.take(DEVICES_ASKED_MAX) {
        match ways::reach(shared, shared.mailbox(), &offer.mailbox, &device).await {
            Ok(reached) => {
                let found = found.send(Found { role: Role::Device, connection: reached.connection }).await;
                if found.is_err() {
                    return;
                }
            }
            Err(why) => tracing::debug!(device = %device.peer, %why, "another device is no source now"),
        }
    }
}

/// The stores of this mailbox that the location server names. Only the one that it answers with has addresses; the others
/// are known by their keys, and found on the local network or with a relay's help.
async fn own_devices(shared: &Handle) -> Vec<StoreRecord> {
    let Ok(session) = lookup::session(shared).await else { return Vec::new() };
    let mailbox = shared.mailbox();
    let found = shared.location.lookup_one(&session, mailbox).await;
    let Some(first) = found.ok().flatten() else { return Vec::new() };
    let now = UnixTime::now();
    let others = first.sealing_keys.iter().filter_map(|signed| {
        let peer = signed.claim().ok()?.peer;
        let key = signed.verify(&peer).ok().filter(|key| key.mailbox == *mailbox)?;
        (peer != first.peer).then(|| StoreRecord {
            peer: key.peer,
            addresses: Vec::new(),
            presence: Presence::Unknown,
            since: now,
            primary: false,
            relays: first.relays.clone(),
            sealing_keys: Vec::new(),
            successions: Vec::new(),
        })
    });
    let others: Vec<_> = others.collect();
    std::iter::once(first).chain(others).collect()
}
