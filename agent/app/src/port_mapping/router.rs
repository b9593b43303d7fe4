//! The ways to ask a router for a port: PCP, then NAT-PMP at the same address, then UPnP. The next one is tried where the
//! one before has no answer, or none that helps; one that granted a mapping renews it.
//!
//! What a router says is bounded and checked by the two libraries that speak with it: datagrams of fixed form; an HTTP
//! answer of 1 MiB at most and 64 elements deep, from the address that answered the search. UPnP has no proof of who
//! answers, so only the router of the default route is listened to, where that is known. Its words go nowhere.

use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::num::NonZeroU16;
use std::time::Duration;

use crab_nat::{
    InternetProtocol, PortMapping, PortMappingOptions, PortMappingType, TimeoutConfig, natpmp, pcp,
};
use igd_next::aio::Gateway;
use igd_next::aio::tokio::{Tokio, search_gateway};
use igd_next::{AddAnyPortError, AddPortError, PortMappingProtocol, SearchOptions};
use tokio::time::timeout;

use super::MappedBy;
use super::keeping::{Mapping, Place};
use crate::limits::{
    PORT_ASK_RETRIES, PORT_ASK_TIME_FIRST, PORT_ENTRIES_MAX, PORT_LIFETIME, PORT_SEARCH_TIME_MAX,
    PORT_UPNP_TIME_MAX,
};

/// What the router shows its user for the mapping.
const DESCRIPTION: &str = "Lighter";

/// What tells PCP's clients apart.
pub(super) type Nonce = pcp::Nonce;

/// Why there is no mapping.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotMapped {
    /// Nothing answered, whichever way it was asked.
    #[error(
        "the router answers neither PCP, NAT-PMP nor UPnP: switch one of them on there, or go on without"
    )]
    NoAnswer,
    /// It answered, and granted nothing.
    #[error("the router grants no port: {0}")]
    Refused(&'static str),
    /// The router is itself behind another one.
    #[error(
        "the router's own address outside is {0}, which nobody can reach: another router is in front of it"
    )]
    OutsideIsPrivate(Ipv4Addr),
}

/// A mapping that a router granted.
#[derive(Debug)]
pub(super) struct Lease {
    address: SocketAddrV4,
    lifetime: Duration,
    held: Held,
}

#[derive(Debug)]
enum Held {
    ByDatagram(PortMapping),
    Upnp(Box<Gateway<Tokio>>),
}

impl Mapping for Lease {
    fn address(&self) -> SocketAddrV4 {
        self.address
    }
}

impl Lease {
    /// How it was asked for.
    pub(super) fn by(&self) -> MappedBy {
        match &self.held {
            Held::Upnp(_) => MappedBy::Upnp,
            Held::ByDatagram(mapping) => match mapping.mapping_type() {
                PortMappingType::Pcp { .. } => MappedBy::Pcp,
                PortMappingType::NatPmp => MappedBy::NatPmp,
            },
        }
    }

    /// For how long.
    pub(super) fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// Gives it back.
    ///
    /// # Errors
    /// Where the router does not take it; it ends by itself then.
    pub(super) async fn release(self) -> Result<(), NotMapped> {
        match self.held {
            Held::ByDatagram(mapping) => mapping.try_drop().await.map_err(|_| NotMapped::NoAnswer),
            Held::Upnp(gateway) => {
                let removed = gateway.remove_port(PortMappingProtocol::UDP, self.address.port()).await;
                removed.map_err(|_| NotMapped::NoAnswer)
            }
        }
    }
}

/// Asks for a mapping of UDP to `place`, outside at `port` if that can be had; or renews `known`.
///
/// # Errors
/// [`NotMapped`]: what the last one that answered said.
pub(super) async fn map(
    place: Place,
    known: Option<&Lease>,
    port: Option<NonZeroU16>,
    nonce: Nonce,
) -> Result<Lease, NotMapped> {
    if let Some(Lease { held: Held::Upnp(gateway), .. }) = known
        && let Ok(lease) = map_by_upnp(gateway.clone(), place, port).await
    {
        return Ok(lease);
    }
    let by_datagram = match place.router {
        Some(router) => map_by_datagram(router, place, port, nonce).await,
        None => Err(NotMapped::NoAnswer),
    };
    let refused = match by_datagram {
        Ok(lease) => return Ok(lease),
        Err(refused) => refused,
    };
    match find_by_upnp(place).await {
        Some(gateway) => map_by_upnp(Box::new(gateway), place, port).await,
        None => Err(refused),
    }
}

async fn map_by_datagram(
    router: Ipv4Addr,
    place: Place,
    port: Option<NonZeroU16>,
    nonce: Nonce,
) -> Result<Lease, NotMapped> {
    let (gateway, udp) = (router.into(), InternetProtocol::Udp);
    let inside = NonZeroU16::new(place.host.port()).ok_or(NotMapped::Refused("port 0 cannot be mapped"))?;
    let timing = TimeoutConfig {
        initial_timeout: PORT_ASK_TIME_FIRST,
        max_retries: PORT_ASK_RETRIES,
        max_retry_timeout: None,
    };
    let options = PortMappingOptions {
        external_port: port,
        lifetime_seconds: u32::try_from(PORT_LIFETIME.as_secs()).ok(),
        timeout_config: Some(timing),
    };
    let request = pcp::BaseMapRequest::new(gateway, IpAddr::V4(*place.host.ip()), udp, inside);
    let mapping = match pcp::port_mapping(request, Some(nonce), None, options).await {
        Ok(mapping) => mapping,
        // Not only one that says so: some that know the older protocol alone do not answer this one.
        Err(_) => natpmp::port_mapping(gateway, udp, inside, options).await.map_err(|error| why(&error))?,
    };
    let outside = match mapping.mapping_type() {
        PortMappingType::Pcp { external_ip, .. } => external_ip.to_canonical(),
        PortMappingType::NatPmp => {
            let asked = natpmp::external_address(gateway, Some(timing)).await;
            IpAddr::V4(asked.map_err(|error| why(&error))?)
        }
    };
    let IpAddr::V4(outside) = outside else {
        return Err(NotMapped::Refused("it named an IPv6 address for an IPv4 port"));
    };
    Ok(Lease {
        address: SocketAddrV4::new(outside, mapping.external_port().get()),
        lifetime: Duration::from_secs(u64::from(mapping.lifetime())),
        held: Held::ByDatagram(mapping),
    })
}

fn why(error: &natpmp::Failure) -> NotMapped {
    match error {
        natpmp::Failure::Socket(_) | natpmp::Failure::Timeout => NotMapped::NoAnswer,
        natpmp::Failure::NotAuthorized => NotMapped::Refused("it is set to allow none"),
        natpmp::Failure::NetworkFailure => NotMapped::Refused("it has no address outside"),
        natpmp::Failure::OutOfResources => NotMapped::Refused("it has none left"),
        _ => NotMapped::Refused("its answer makes no sense"),
    }
}

/// The router that answers the search.
async fn find_by_upnp(place: Place) -> Option<Gateway<Tokio>> {
    let mut options = SearchOptions::default();
    options.bind_addr = (*place.host.ip(), 0).into();
    options.timeout = Some(PORT_SEARCH_TIME_MAX);
    options.single_search_timeout = Some(PORT_SEARCH_TIME_MAX);
    let found = search_gateway(options).await.ok()?;
    let is_the_router = place.router.is_none_or(|router| found.addr.ip() == IpAddr::V4(router));
    if !is_the_router {
        tracing::debug!(answered = %found.addr, "not the router of the default route: not listened to");
    }
    is_the_router.then_some(found)
}

async fn map_by_upnp(
    gateway: Box<Gateway<Tokio>>,
    place: Place,
    port: Option<NonZeroU16>,
) -> Result<Lease, NotMapped> {
    let asked = async {
        let port = add_by_upnp(&gateway, place, port).await?;
        let outside = gateway.get_external_ip().await;
        let outside = outside.map_err(|_| NotMapped::Refused("it does not tell its address outside"))?;
        Ok((port, outside))
    };
    let (port, outside) = timeout(PORT_UPNP_TIME_MAX, asked).await.map_err(|_| NotMapped::NoAnswer)??;
    let IpAddr::V4(outside) = outside else {
        return Err(NotMapped::Refused("it named an IPv6 address for an IPv4 port"));
    };
    // One that only knows mappings without an end is asked again as often as the others.
    Ok(Lease {
        address: SocketAddrV4::new(outside, port),
        lifetime: PORT_LIFETIME,
        held: Held::Upnp(gateway),
    })
}

/// The port outside that was granted: the one asked for, or where another host has that, any.
async fn add_by_upnp(
    gateway: &Gateway<Tokio>,
    place: Place,
    port: Option<NonZeroU16>,
) -> Result<u16, NotMapped> {
    let (udp, host) = (PortMappingProtocol::UDP, place.host.into());
    let port = port.map_or(place.host.port(), NonZeroU16::get);
    let mut lifetime = u32::try_from(PORT_LIFETIME.as_secs()).unwrap_or(u32::MAX);
    let mut added = gateway.add_port(udp, port, host, lifetime, DESCRIPTION).await;
    if matches!(added, Err(AddPortError::OnlyPermanentLeasesSupported)) {
        lifetime = 0;
        added = gateway.add_port(udp, port, host, lifetime, DESCRIPTION).await;
    }
    match added {
        Ok(()) => Ok(port),
        Err(AddPortError::PortInUse | AddPortError::SamePortValuesRequired) => {
            // What was mapped to this very store before it was killed is renewed, not doubled.
            if let Some(port) = own_entry(gateway, place).await
                && gateway.add_port(udp, port, host, lifetime, DESCRIPTION).await.is_ok()
            {
                return Ok(port);
            }
            let any = gateway.add_any_port(udp, host, lifetime, DESCRIPTION).await;
            any.map_err(|error| match error {
                AddAnyPortError::ActionNotAuthorized => NotMapped::Refused("it is set to allow none"),
                AddAnyPortError::NoPortsAvailable | AddAnyPortError::ExternalPortInUse => {
                    NotMapped::Refused("it has none left")
                }
                _ => NotMapped::Refused("its answer makes no sense"),
            })
        }
        Err(AddPortError::ActionNotAuthorized) => Err(NotMapped::Refused("it is set to allow none")),
        Err(_) => Err(NotMapped::Refused("its answer makes no sense")),
    }
}

/// The port outside that the router maps to this store already.
async fn own_entry(gateway: &Gateway<Tokio>, place: Place) -> Option<u16> {
    for index in 0..PORT_ENTRIES_MAX {
        // An error stands behind the last one.
        let entry = gateway.get_generic_port_mapping_entry(index).await.ok()?;
        let is_own = entry.protocol == PortMappingProtocol::UDP
            && entry.internal_port == place.host.port()
            && entry.internal_client == place.host.ip().to_string();
        if is_own {
            return Some(entry.external_port);
        }
    }
    None
}
