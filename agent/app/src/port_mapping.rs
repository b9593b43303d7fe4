//! A port of the home router that leads to this agent's store (DESIGN §6): asked for by PCP (RFC 6887), NAT-PMP (RFC 6886)
//! or UPnP (WANIPConnection), kept for as long as the agent runs, and given back when it stops.
//!
//! - `keeping`: what is mapped, for how long, and when the router is asked next: a value;
//! - `router`: the three ways to ask;
//! - `gateway`: which router, by the kernel's routes;
//! - [`run`]: the loop around them.
//!
//! A mapping is a help, never needed: without one, the store is reached through a hole, by its relay's session, or by drops.
//! What the router says of its outside address goes into the registration only where everybody can route to it; whoever
//! dials it has the store prove its PeerId, so a router that lies wins nothing.

mod gateway;
mod keeping;
mod router;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::num::NonZeroU16;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use tokio::time::{sleep_until, timeout};

use crate::config::Config;
use crate::dial;
use crate::limits::{PORT_RELEASE_TIME_MAX, PORT_SETTLE};
use crate::shared::Handle;
use keeping::{Keeping, Mapping, Place};
use router::{Lease, NotMapped};

/// How the router was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MappedBy {
    /// The Port Control Protocol (RFC 6887).
    Pcp,
    /// NAT-PMP (RFC 6886).
    NatPmp,
    /// UPnP's Internet Gateway Device.
    Upnp,
}

impl fmt::Display for MappedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pcp => "PCP",
            Self::NatPmp => "NAT-PMP",
            Self::Upnp => "UPnP",
        })
    }
}

/// How things stand with the router; for `status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMappingStatus {
    /// The address outside that leads here; none where there is none now.
    pub address: Option<SocketAddr>,
    /// How it was asked for.
    pub by: Option<MappedBy>,
    /// Why there is none, in words for the user.
    pub problem: Option<String>,
}

/// Whether the configuration has ports mapped: not where the user says which addresses are to be told of.
pub fn is_wanted(config: &Config) -> bool {
    config.network.port_mapping && config.quic.advertise.is_empty()
}

/// Keeps a port of the router mapped until the agent is to stop; then gives it back.
pub async fn run(shared: Handle) {
    if !is_wanted(&shared.config) {
        return;
    }
    let mut mapper = Mapper { nonce: nonce(&shared), shared, keeping: Keeping::default() };
    let stop = mapper.shared.stop.clone();
    tokio::select! {
        () = stop.cancelled() => {}
        () = mapper.stay() => {}
    }
    mapper.leave().await;
}

/// What PCP tells its clients apart by (RFC 6887 §11.2): the same at each start, so that a mapping of the run before can
/// be renewed, and known to nobody else.
fn nonce(shared: &Handle) -> router::Nonce {
    let key = blake3::derive_key("lighter port mapping nonce 1", &*shared.identity.secret_bytes());
    let [a, b, c, d, e, f, g, h, i, j, k, l, ..] = key;
    [[a, b, c, d], [e, f, g, h], [i, j, k, l]].map(u32::from_be_bytes)
}

struct Mapper {
    shared: Handle,
    nonce: router::Nonce,
    keeping: Keeping<Lease>,
}

impl Mapper {
    async fn stay(&mut self) {
        let mut wakes = self.shared.wakes.subscribe();
        loop {
            let next = self.look().await;
            tokio::select! {
                () = sleep_until(next.into()) => {}
                _ = wakes.changed() => {}
            }
        }
    }

    /// Asks the router, where there is one; gives when to ask again.
    async fn look(&mut self) -> Instant {
        let place = place(&self.shared);
        let left = self.keeping.handle_place(place, Instant::now());
        self.publish();
        // The network that it is of may be out of reach already: then it ends by itself.
        drop(left);
        let Some(place) = place else { return Instant::now() + PORT_SETTLE };
        let asked = router::map(place, self.keeping.lease(), self.keeping.port(), self.nonce).await;
        let now = Instant::now();
        match asked {
            Ok(lease) if dial::is_global(IpAddr::V4(*lease.address().ip())) => {
                let address = lease.address();
                if self.keeping.address(now) != Some(address) {
                    tracing::info!(%address, by = %lease.by(), "the router maps a port to this store");
                }
                let lifetime = lease.lifetime();
                self.keeping.handle_granted(lease, lifetime, now);
            }
            Ok(lease) => {
                let outside = *lease.address().ip();
                release(lease).await;
                self.refused(&NotMapped::OutsideIsPrivate(outside), now);
            }
            Err(error) => self.refused(&error, now),
        }
        self.publish();
        self.keeping.next_time(now)
    }

    fn refused(&mut self, error: &NotMapped, now: Instant) {
        let problem = error.to_string();
        let known = self.shared.port_mapping.borrow().as_ref().and_then(|status| status.problem.clone());
        if known.as_ref() != Some(&problem) {
            tracing::info!(%error, "the router maps no port to this store");
        }
        self.keeping.handle_refused(problem, now);
    }

    /// Tells of what is mapped now: who registers hears of it where it is another.
    fn publish(&self) {
        let status = self.keeping.place().map(|_| PortMappingStatus {
            address: self.keeping.address(Instant::now()).map(SocketAddr::V4),
            by: self.keeping.lease().map(Lease::by),
            problem: self.keeping.problem().map(ToOwned::to_owned),
        });
        self.shared.port_mapping.send_if_modified(|before| {
            let is_new = *before != status;
            *before = status;
            is_new
        });
    }

    /// Gives the port back.
    async fn leave(&mut self) {
        if let Some(lease) = self.keeping.handle_place(None, Instant::now()) {
            release(lease).await;
        }
    }
}

async fn release(lease: Lease) {
    let address = lease.address();
    match timeout(PORT_RELEASE_TIME_MAX, lease.release()).await {
        Ok(Ok(())) => tracing::debug!(%address, "the mapped port was given back"),
        Ok(Err(error)) => tracing::debug!(%address, %error, "the mapped port could not be given back"),
        Err(_) => tracing::debug!(%address, "the mapped port could not be given back in time"),
    }
}

/// Where a mapping would lead to; none where no router is in between.
fn place(shared: &Handle) -> Option<Place> {
    let local = shared.endpoint.local_addr().ok()?;
    let port = NonZeroU16::new(local.port())?;
    let ip = shared.own_addresses().into_iter().find_map(|ip| match ip.to_canonical() {
        IpAddr::V4(ip) if needs_mapping(ip) => Some(ip),
        _ => None,
    })?;
    Some(Place { host: SocketAddrV4::new(ip, port.get()), router: gateway::of_default_route() })
}

/// Whether a host with this address is behind a router that translates it.
fn needs_mapping(ip: Ipv4Addr) -> bool {
    dial::is_private(IpAddr::V4(ip))
}
