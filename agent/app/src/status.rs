//! `status`: how things stand.

use lighter_protocol::pull::SourceView;
use lighter_protocol::{Mailbox, UnixTime};
use lighter_store::limits::DISK_RESERVE;
use lighter_store::{Store, StoreError};
use lighter_transport::location::finding::{NotFound, Server};

use crate::config::Config;
use crate::guest::view::GuestView;
use crate::limits::{HOSTED_LISTED_MAX, WAITS_LISTED_MAX};
use crate::registration;
use crate::shared::Handle;
use crate::views::{
    DomainStatus, HostedMailboxStatus, HostedStatus, OutgoingStatus, PullSource, PullStatus, RelayStatus,
    Status, StoreStatus, size,
};

/// How things stand with the agent that runs.
///
/// # Errors
/// What the store says.
pub async fn of_running(shared: &Handle, mailbox: Option<Mailbox>) -> Result<Status, StoreError> {
    let (store, mut outgoing) =
        shared.blocking(|store| Ok::<_, StoreError>((store_status(store)?, sent(store)?))).await?;
    let handle = shared.clone();
    let hosted = shared.blocking(move |store| hosted(&handle, store, mailbox)).await?;
    let limits = shared.guest.view();
    let mut waiting = shared.pulls.waits.all(UnixTime::now());
    waiting.retain(|wait| !shared.pulls.is_running(&wait.delivery));
    let waiting_more = waiting.len().saturating_sub(WAITS_LISTED_MAX);
    let waiting = waiting.iter().take(WAITS_LISTED_MAX).map(|wait| wait.line(&limits)).collect();
    for sent in &mut outgoing {
        if sent.reason.is_none() && sent.state == "waiting" {
            let held = limits.reason.as_ref().map(|reason| format!("uploads wait: {reason}"));
            sent.reason = held.or_else(|| shared.offers.waits_for(&sent.delivery));
        }
        sent.way = shared.offers.way_of(&sent.delivery);
    }
    let pulls = pulls(shared).await;
    let membership = shared.membership.borrow().clone();
    let attestation = membership.attestation.map(|attested| attested.attestation);
    let relays = attestation.iter().flat_map(|attestation| &attestation.relays).map(|relay| {
        let link = shared.links.get(&relay.peer);
        let carrier = link.as_ref().map(lighter_transport::Connection::carrier);
        RelayStatus { peer: relay.peer, connected: link.is_some(), carrier }
    });
    Ok(Status {
        mailbox: shared.mailbox().clone(),
        peer: shared.identity.peer(),
        key: shared.config.key.to_string(),
        running: true,
        location: shared.location.url().to_owned(),
        registered: membership.session.is_some(),
        addresses: registration::addresses(shared),
        port_mapping: shared.port_mapping.borrow().clone(),
        primary: attestation.as_ref().map(|attestation| attestation.primary),
        relays: relays.collect(),
        problem: shared.guest.problem().or(membership.problem).or_else(|| store_problem(&store)),
        hosted,
        limits,
        waiting,
        waiting_more,
        store,
        pulling: shared.pulls.count(),
        pulls,
        outgoing,
        domains: domains(shared),
        outbox: shared.outbox.borrow().clone(),
        submission: shared.submission.borrow().clone(),
    })
}

/// The store of many, and of `mailbox` among them.
fn hosted(
    shared: &Handle,
    store: &Store,
    mailbox: Option<Mailbox>,
) -> Result<Option<HostedStatus>, StoreError> {
    if !shared.hosted.is_on() {
        return Ok(None);
    }
    let served = shared.hosted.mailboxes().borrow().clone();
    let is_left = |mailbox: &Mailbox| mailbox != shared.mailbox() && !served.contains_key(mailbox);
    let left = shared.hosted.kept(store)?.into_iter().filter(is_left).take(HOSTED_LISTED_MAX).collect();
    let one = |mailbox: Mailbox| {
        let attested = shared.attested_for(&mailbox);
        let (bytes_used, deliveries) = shared.hosted.used(&mailbox, store)?;
        Ok::<_, StoreError>(HostedMailboxStatus {
            served: attested.is_some(),
            primary: attested.map(|attested| attested.attestation.primary),
            quota: shared.hosted.quota_of(&mailbox),
            bytes_used,
            deliveries,
            mailbox,
        })
    };
    Ok(Some(HostedStatus { mailboxes: served.len(), left, mailbox: mailbox.map(one).transpose()? }))
}

/// From whom each delivery is pulled now.
pub async fn pulls(shared: &Handle) -> Vec<PullStatus> {
    let mut pulls: Vec<_> = shared
        .pulls
        .sources()
        .await
        .into_iter()
        .map(|(delivery, views)| {
            let source = |view: &SourceView| PullSource::of(view, shared.is_own_relay(&view.peer));
            PullStatus { delivery, sources: views.iter().map(source).collect() }
        })
        .collect();
    pulls.sort_by_key(|pull| pull.delivery.0);
    pulls
}

/// What can be said with no agent running.
///
/// # Errors
/// What the store says.
pub fn of_store(
    config: &Config,
    peer: lighter_protocol::PeerId,
    limits: GuestView,
    store: &Store,
) -> Result<Status, StoreError> {
    let status = store_status(store)?;
    Ok(Status {
        mailbox: config.mailbox.clone(),
        peer,
        key: config.key.to_string(),
        running: false,
        location: config.location.url.clone(),
        registered: false,
        addresses: Vec::new(),
        port_mapping: None,
        primary: None,
        relays: Vec::new(),
        problem: store_problem(&status),
        hosted: None,
        limits,
        waiting: Vec::new(),
        waiting_more: 0,
        store: status,
        pulling: 0,
        pulls: Vec::new(),
        outgoing: sent(store)?,
        domains: Vec::new(),
        outbox: None,
        submission: None,
    })
}

fn domains(shared: &Handle) -> Vec<DomainStatus> {
    let status = |(domain, found): (String, Result<Server, NotFound>)| DomainStatus {
        domain,
        by: found.as_ref().ok().map(|server| server.by),
        location: found.ok().map(|server| server.client.url().to_owned()),
    };
    shared.finder.domains().into_iter().map(status).collect()
}

fn store_status(store: &Store) -> Result<StoreStatus, StoreError> {
    Ok(StoreStatus {
        bytes_used: store.used()?,
        quota: store.settings().quota,
        bytes_free: store.disk_free()?,
        deliveries: store.all_incoming()?.len(),
    })
}

/// What keeps the store from taking anything more: who offers is told `Later`, and keeps it.
fn store_problem(store: &StoreStatus) -> Option<String> {
    if store.bytes_free <= DISK_RESERVE {
        return Some(format!(
            "the disk is full: nothing is pulled, and nothing is lost, until more than {} are free",
            size(DISK_RESERVE)
        ));
    }
    if store.quota.is_some_and(|quota| store.bytes_used >= quota) {
        return Some(
            "the quota is used up: nothing is pulled until it is raised or something is let go of".to_owned(),
        );
    }
    None
}

fn sent(store: &Store) -> Result<Vec<OutgoingStatus>, StoreError> {
    Ok(store.all_outgoing()?.iter().map(OutgoingStatus::of).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_input_31_a_full_disk_and_a_used_up_quota_are_said_plainly() {
        let room =
            || StoreStatus { bytes_used: 5, quota: Some(10), bytes_free: DISK_RESERVE + 1, deliveries: 1 };
        assert_eq!(store_problem(&room()), None);
        let problem = |status: StoreStatus| store_problem(&status).unwrap();
        assert!(problem(StoreStatus { bytes_free: DISK_RESERVE, ..room() }).contains("disk is full"));
        assert!(problem(StoreStatus { quota: Some(5), ..room() }).contains("quota"));
    }
}
