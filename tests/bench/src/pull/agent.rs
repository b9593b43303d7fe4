//! The agent as it runs, from a relay's offer until its receipt: door, pull machine, streams, checkpoints, syncs, index.
//! Only the location server's part is left out: the agent is given an attestation that names the holder as its relay.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use lighter_agent::carriers::Carriers;
use lighter_agent::config::{Config, LocationConfig};
use lighter_agent::guest::Guest;
use lighter_agent::shared::{Attested, Handle, Shared};
use lighter_protocol::limits::OFFER_BLOBS_MAX;
use lighter_protocol::wire::{Answer, Offer, OfferedBlob, Request, Response};
use lighter_protocol::{Attestation, BlobId, DeliveryId, Mailbox, PeerId, RelayRecord, Signed, UnixTime};
use lighter_store::Store;
use lighter_transport::location::{Finder, FindingConfig, LocationClient};
use lighter_transport::{Endpoint, EndpointConfig, Identity};

use super::holder::{Contents, Holder};

/// Whose agent it is.
pub(super) const MAILBOX: &str = "alice@lighter.test";
/// Long enough for slow disks.
const RECEIPT_TIME_MAX: Duration = Duration::from_secs(600);
const AN_HOUR: Duration = Duration::from_secs(3600);

/// An agent of `mailbox` that believes these relays, at `address`.
pub(super) fn agent(store: Store, mailbox: &Mailbox, relays: &[PeerId], address: IpAddr) -> Result<Handle> {
    let (domain, identity) = (Identity::generate(), Identity::generate());
    let now = UnixTime::now();
    let relay =
        |peer: &PeerId| RelayRecord { peer: *peer, addresses: Vec::new(), retrieval_url: String::new() };
    let attestation = Attestation {
        mailbox: mailbox.clone(),
        peer: identity.peer(),
        primary: true,
        relays: relays.iter().map(relay).collect(),
        issued: now,
        expires: now.plus(AN_HOUR),
    };
    let signed = Signed::sign(&attestation, domain.keypair())?;
    // Never asked: nothing is looked up here.
    let url = "http://127.0.0.1:1".to_owned();
    let location = LocationClient::new(&url, None)?;
    let config = Config {
        finding: FindingConfig::default(),
        mailbox: mailbox.clone(),
        location: LocationConfig { url, peer: domain.peer(), ca_file: None },
        key: Default::default(),
        network: Default::default(),
        quic: Default::default(),
        smtp: None,
        submission: Default::default(),
        send: Default::default(),
        outbox: Default::default(),
        address_books: Default::default(),
        store: Default::default(),
        guest: Default::default(),
        outgoing: Default::default(),
        hosted: None,
    };
    let endpoint = Endpoint::bind(&identity, (address, 0).into(), EndpointConfig::default())?;
    let carriers = Carriers::new(&config, None)?;
    let finder = Finder::new(&config.finding)?;
    let guest = Guest::new(config.guest.clone(), None);
    let shared = Shared::new(config, identity.into(), store, endpoint, location, carriers, finder, guest);
    shared.membership.send_modify(|membership| {
        membership.attestation = Some(Attested { signed, attestation });
    });
    Ok(shared)
}

/// Offers everything, in as many deliveries as it takes, and waits for the last receipt: the time between.
pub(super) async fn offer(
    holder: &Holder,
    mailbox: &Mailbox,
    contents: &Contents,
    sources: &[PeerId],
) -> Result<Duration> {
    let (connection, mut receipts) = holder.accept().await?;
    let offered = |id: &BlobId| OfferedBlob {
        id: *id,
        size: contents.size,
        name: "file.bin".to_owned(),
        media_type: "application/octet-stream".to_owned(),
    };
    let mut offers = Vec::new();
    for (blobs, number) in contents.blobs.chunks(OFFER_BLOBS_MAX).zip(1..) {
        offers.push(Offer {
            delivery: DeliveryId([number; 16]),
            mailbox: mailbox.clone(),
            manifest: contents.manifest.clone(),
            blobs: blobs.iter().map(offered).collect(),
            sources: sources.to_vec(),
            expires: UnixTime::now().plus(AN_HOUR),
            introduction: None,
        });
    }
    let (count, began) = (offers.len(), Instant::now());
    for offer in offers {
        match connection.request(&Request::Offer(offer)).await? {
            Response::Answer(answers) if answers.iter().all(|answer| *answer == Answer::Pull) => {}
            other => bail!("the agent answers {other:?}"),
        }
    }
    let mut last = began;
    for _ in 0..count {
        let receipt = tokio::time::timeout(RECEIPT_TIME_MAX, receipts.recv()).await;
        last = receipt.context("no receipt")?.context("the connection ended")?;
    }
    Ok(last.duration_since(began))
}
