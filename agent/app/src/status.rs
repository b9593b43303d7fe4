//! `status`: how things stand.

use lighter_store::{Store, StoreError};

use crate::config::Config;
use crate::registration;
use crate::shared::Handle;
use crate::views::{OutgoingStatus, RelayStatus, Status, StoreStatus};

/// How things stand with the agent that runs.
///
/// # Errors
/// What the store says.
pub async fn of_running(shared: &Handle) -> Result<Status, StoreError> {
    let (store, mut outgoing) =
        shared.blocking(|store| Ok::<_, StoreError>((store_status(store)?, sent(store)?))).await?;
    for sent in &mut outgoing {
        if sent.reason.is_none() && sent.state == "waiting" {
            sent.reason = shared.offers.waits_for(&sent.delivery);
        }
    }
    let membership = shared.membership.borrow().clone();
    let attestation = membership.attestation.map(|attested| attested.attestation);
    let relays = attestation
        .iter()
        .flat_map(|attestation| &attestation.relays)
        .map(|relay| RelayStatus { peer: relay.peer, connected: shared.links.get(&relay.peer).is_some() });
    Ok(Status {
        mailbox: shared.mailbox().clone(),
        peer: shared.identity.peer(),
        key: shared.config.key.to_string(),
        running: true,
        location: shared.location.url().to_owned(),
        registered: membership.session.is_some(),
        addresses: registration::addresses(shared),
        primary: attestation.as_ref().map(|attestation| attestation.primary),
        relays: relays.collect(),
        problem: membership.problem,
        store,
        pulling: shared.pulls.count(),
        outgoing,
    })
}

/// What can be said with no agent running.
///
/// # Errors
/// What the store says.
pub fn of_store(
    config: &Config,
    peer: lighter_protocol::PeerId,
    store: &Store,
) -> Result<Status, StoreError> {
    Ok(Status {
        mailbox: config.mailbox.clone(),
        peer,
        key: config.key.to_string(),
        running: false,
        location: config.location.url.clone(),
        registered: false,
        addresses: Vec::new(),
        primary: None,
        relays: Vec::new(),
        problem: None,
        store: store_status(store)?,
        pulling: 0,
        outgoing: sent(store)?,
    })
}

fn store_status(store: &Store) -> Result<StoreStatus, StoreError> {
    Ok(StoreStatus {
        bytes_used: store.used()?,
        quota: store.settings().quota,
        bytes_free: store.disk_free()?,
        deliveries: store.all_incoming()?.len(),
    })
}

fn sent(store: &Store) -> Result<Vec<OutgoingStatus>, StoreError> {
    Ok(store.all_outgoing()?.iter().map(OutgoingStatus::of).collect())
}
