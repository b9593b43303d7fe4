//! Peers on the local network, by multicast DNS service discovery (RFC 6762, 6763): this agent announces itself as
//! `_lighter._udp.local`, its PeerId in the TXT record, and notes who else does ([`Nearby`](super::nearby::Nearby)).
//!
//! The service's own thread does the protocol; it ends with the agent. Off with `[network] mdns = false`, and for an agent
//! that listens on one address only (loopback, mostly).

use std::net::SocketAddr;
use std::sync::PoisonError;
use std::time::Instant;

use lighter_protocol::PeerId;
use mdns_sd::{ResolvedService, ServiceDaemon, ServiceEvent, ServiceInfo};

use super::nearby::OnLink;
use crate::shared::Handle;

/// The service (RFC 6763 §7).
const SERVICE: &str = "_lighter._udp.local.";
/// The TXT record's key for the PeerId.
const PEER_KEY: &str = "peer";

/// Announces and listens until it is dropped.
pub async fn run(shared: Handle) {
    let local = shared.endpoint.local_addr();
    let Some(local) = local.ok().filter(|local| local.ip().is_unspecified()) else { return };
    if !shared.config.network.mdns {
        return;
    }
    match discover(&shared, local).await {
        Ok(()) => tracing::debug!("multicast DNS has ended"),
        Err(error) => {
            tracing::warn!(%error, "no multicast DNS: peers on the local network are not found by it");
        }
    }
}

/// Takes the announcement back when it is dropped.
struct Daemon(ServiceDaemon);

impl Drop for Daemon {
    fn drop(&mut self) {
        // It says goodbye by itself; an error says that it has ended already.
        let _ = self.0.shutdown();
    }
}

async fn discover(shared: &Handle, local: SocketAddr) -> mdns_sd::Result<()> {
    let daemon = Daemon(ServiceDaemon::new()?);
    let peer = shared.identity.peer().to_string();
    // A label has 63 octets at most (RFC 1035 §2.3.4), a PeerId 52.
    let host = format!("{peer}.local.");
    let properties = [(PEER_KEY, peer.as_str())];
    let info = ServiceInfo::new(SERVICE, &peer, &host, "", local.port(), &properties[..])?.enable_addr_auto();
    daemon.0.register(info)?;
    let events = daemon.0.browse(SERVICE)?;
    while let Ok(event) = events.recv_async().await {
        match event {
            ServiceEvent::ServiceResolved(service) => announced(shared, &service),
            ServiceEvent::ServiceRemoved(_, name) => nearby(shared).handle_gone(&name),
            _ => {}
        }
    }
    Ok(())
}

fn announced(shared: &Handle, service: &ResolvedService) {
    let peer = service.txt_properties.get_property_val_str(PEER_KEY).and_then(|text| text.parse().ok());
    let Some(peer) = peer.filter(|peer: &PeerId| *peer != shared.identity.peer()) else { return };
    let addresses = service.addresses.iter().map(|ip| SocketAddr::new(ip.to_ip_addr(), service.port));
    let networks = networks();
    if nearby(shared).handle_announced(&service.fullname, peer, addresses, &networks, Instant::now()) {
        tracing::debug!(%peer, "is on the local network");
        shared.links.heard_of(peer);
    }
}

/// The networks that this machine has an interface in.
fn networks() -> Vec<OnLink> {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_else(|error| {
        tracing::debug!(%error, "the interfaces are not known");
        Vec::new()
    });
    let of = |interface: if_addrs::Interface| match interface.addr {
        if_addrs::IfAddr::V4(v4) => OnLink::of(v4.ip.into(), v4.netmask.into()),
        if_addrs::IfAddr::V6(v6) => OnLink::of(v6.ip.into(), v6.netmask.into()),
    };
    interfaces.into_iter().map(of).collect()
}

fn nearby(shared: &Handle) -> std::sync::MutexGuard<'_, super::nearby::Nearby> {
    shared.ways.nearby.lock().unwrap_or_else(PoisonError::into_inner)
}
