//! Which addresses a store may register, and a location server that was found may have: only ones that may safely be
//! dialled by whoever is told of them (DESIGN §4).
//!
//! Globally routable ones, and those in networks that the admin named. Some are refused whatever the admin says: no
//! host is there (unspecified, multicast, broadcast, documentation), or one that answers everybody with secrets
//! (link-local, where clouds keep their metadata service).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A network in CIDR notation (RFC 4632, RFC 4291 §2.3): `10.0.0.0/8`, `fd00::/8`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network {
    base: IpAddr,
    prefix_len: u32,
}

/// A text that is no network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a network is written ADDRESS/BITS")]
pub struct ParseNetworkError;

impl Network {
    const fn v4(a: u8, b: u8, c: u8, d: u8, prefix_len: u32) -> Self {
        Self { base: IpAddr::V4(Ipv4Addr::new(a, b, c, d)), prefix_len }
    }

    const fn v6(first: u16, second: u16, prefix_len: u32) -> Self {
        Self { base: IpAddr::V6(Ipv6Addr::new(first, second, 0, 0, 0, 0, 0, 0)), prefix_len }
    }

    /// Loopback and the private networks (RFC 1918, RFC 4193): what is one's own on a laptop.
    pub fn local() -> Vec<Self> {
        let [loopback_v4, loopback_v6] = Self::loopback();
        vec![
            loopback_v4,
            Self::v4(10, 0, 0, 0, 8),
            Self::v4(172, 16, 0, 0, 12),
            Self::v4(192, 168, 0, 0, 16),
            loopback_v6,
            Self::v6(0xfc00, 0, 7),
        ]
    }

    /// Loopback, of both families.
    pub fn loopback() -> [Self; 2] {
        [Self::v4(127, 0, 0, 0, 8), Self { base: IpAddr::V6(Ipv6Addr::LOCALHOST), prefix_len: 128 }]
    }

    /// Whether `address` is in this network. An IPv4 address in IPv6 form is looked at as what it is.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.base, address.to_canonical()) {
            (IpAddr::V4(base), IpAddr::V4(address)) => {
                let differing = u32::from(base) ^ u32::from(address);
                differing.leading_zeros() >= self.prefix_len
            }
            (IpAddr::V6(base), IpAddr::V6(address)) => {
                let differing = u128::from(base) ^ u128::from(address);
                differing.leading_zeros() >= self.prefix_len
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = ParseNetworkError;

    fn from_str(text: &str) -> Result<Self, ParseNetworkError> {
        let (base, prefix_len) = match text.split_once('/') {
            Some((base, bits)) => (base, Some(bits.parse().map_err(|_| ParseNetworkError)?)),
            None => (text, None),
        };
        let base: IpAddr = base.parse().map_err(|_| ParseNetworkError)?;
        let bits = if base.is_ipv4() { 32 } else { 128 };
        let prefix_len = prefix_len.unwrap_or(bits);
        if prefix_len > bits { Err(ParseNetworkError) } else { Ok(Self { base, prefix_len }) }
    }
}

impl TryFrom<String> for Network {
    type Error = ParseNetworkError;

    fn try_from(text: String) -> Result<Self, ParseNetworkError> {
        text.parse()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.to_string()
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix_len)
    }
}

/// Refused whatever the admin says.
const NEVER: [Network; 12] = [
    Network::v4(0, 0, 0, 0, 8),       // "this network" (RFC 1122 §3.2.1.3)
    Network::v4(169, 254, 0, 0, 16),  // link-local (RFC 3927); 169.254.169.254: metadata of most clouds
    Network::v4(192, 0, 0, 0, 24),    // IETF protocol assignments; 192.0.0.192: metadata of Oracle's cloud
    Network::v4(192, 0, 2, 0, 24),    // documentation (RFC 5737)
    Network::v4(198, 51, 100, 0, 24), // documentation
    Network::v4(203, 0, 113, 0, 24),  // documentation
    Network::v4(224, 0, 0, 0, 3),     // multicast (RFC 5771), reserved, broadcast
    Network::v6(0xfe80, 0, 10),       // link-local (RFC 4291 §2.5.6)
    Network::v6(0xff00, 0, 8),        // multicast
    Network::v6(0x2001, 0xdb8, 32),   // documentation (RFC 3849)
    Network::v6(0x0100, 0, 64),       // discard only (RFC 6666)
    Network::v6(0x3fff, 0, 20),       // documentation (RFC 9637)
];

/// Not globally routable: only where the admin named the network. Container, VPN and carrier networks are among them.
const LOCAL_ONLY: [Network; 6] = [
    Network::v4(10, 0, 0, 0, 8),
    Network::v4(100, 64, 0, 0, 10), // carrier-grade NAT (RFC 6598); 100.100.100.200: metadata of Alibaba's cloud
    Network::v4(127, 0, 0, 0, 8),
    Network::v4(172, 16, 0, 0, 12),
    Network::v4(192, 168, 0, 0, 16),
    Network::v4(198, 18, 0, 0, 15), // benchmarking (RFC 2544)
];

/// Global unicast, the only part of IPv6 that is routed (RFC 4291 §2.4).
const GLOBAL_V6: Network = Network::v6(0x2000, 0, 3);
/// IPv6 that wraps an IPv4 address, which would go around the rules for IPv4: 6to4 (RFC 3056), Teredo (RFC 4380).
const WRAPPED_V4: [Network; 2] = [Network::v6(0x2002, 0, 16), Network::v6(0x2001, 0, 32)];
/// Metadata of Amazon's cloud over IPv6, in the private range that an admin may well have named.
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

/// Whether a store may register `address`, with `allowed` the networks that the admin named.
pub fn may_register(address: SocketAddr, allowed: &[Network]) -> bool {
    let ip = address.ip().to_canonical();
    let never = ip.is_unspecified() || ip == IpAddr::V6(METADATA_V6) || in_any(&NEVER, ip);
    if never || address.port() == 0 {
        return false;
    }
    if in_any(allowed, ip) {
        return true;
    }
    match ip {
        IpAddr::V4(_) => !in_any(&LOCAL_ONLY, ip),
        IpAddr::V6(_) => GLOBAL_V6.contains(ip) && !in_any(&WRAPPED_V4, ip),
    }
}

/// Whether a server that a foreign domain named may be dialled at `ip`, with `allowed` the networks that the admin named.
pub fn may_be_dialled(ip: IpAddr, allowed: &[Network]) -> bool {
    may_register(SocketAddr::new(ip, 443), allowed)
}

/// Whether a relay may be made known at `address`: the admin's own machine, so private networks are fine.
pub fn may_be_relay(address: SocketAddr) -> bool {
    let ip = address.ip().to_canonical();
    !(ip.is_unspecified() || in_any(&NEVER, ip) || address.port() == 0)
}

/// Whether `ip` is in one of `networks`.
pub fn in_any(networks: &[Network], ip: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(ip))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn may(address: &str, allowed: &[Network]) -> bool {
        may_register(address.parse().unwrap(), allowed)
    }

    #[test]
    fn bad_input_36_addresses_that_nobody_may_be_told_to_dial_are_refused() {
        let refused = [
            "127.0.0.1:1",
            "10.1.2.3:1",
            "172.31.0.1:1",
            "192.168.1.1:1",
            "100.64.0.1:1",
            "169.254.169.254:80",
            "0.0.0.0:1",
            "0.1.2.3:1",
            "224.0.0.1:1",
            "255.255.255.255:1",
            "192.0.2.7:1",
            "192.0.0.192:80",
            "198.18.0.1:1",
            "100.100.100.200:80",
            "[::]:1",
            "[::1]:1",
            "[fe80::1]:1",
            "[fd00:ec2::254]:80",
            "[fd12::1]:1",
            "[ff02::1]:1",
            "[2001:db8::1]:1",
            "[::ffff:127.0.0.1]:1",
            "[::ffff:169.254.169.254]:80",
            "[64:ff9b::7f00:1]:1",
            "[2002:7f00:1::1]:1",
            "[2001:0:1::1]:1",
            "[::7f00:1]:1",
            "8.8.8.8:0",
        ];
        for address in refused {
            assert!(!may(address, &[]), "{address}");
        }
        for address in ["8.8.8.8:4001", "[2a00:1450::1]:4001", "[::ffff:8.8.8.8]:4001", "172.32.0.1:1"] {
            assert!(may(address, &[]), "{address}");
        }
    }

    #[test]
    fn bad_input_36_the_admin_opens_private_networks_but_never_metadata_or_multicast() {
        let everything = ["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()];
        for address in ["127.0.0.1:1", "10.0.0.1:1", "[fd12::1]:1", "[::1]:1"] {
            assert!(may(address, &Network::local()), "{address}");
            assert!(may(address, &everything), "{address}");
        }
        for address in
            ["169.254.169.254:80", "[fd00:ec2::254]:80", "224.0.0.1:1", "[fe80::1]:1", "0.0.0.0:1", "[::]:1"]
        {
            assert!(!may(address, &everything), "{address}");
        }
    }

    #[test]
    fn networks_are_read_and_written_in_cidr_notation() {
        for text in ["10.0.0.0/8", "fd00::/8", "192.0.2.1/32", "0.0.0.0/0", "::/0"] {
            assert_eq!(text.parse::<Network>().unwrap().to_string(), text);
        }
        assert_eq!("::1".parse::<Network>().unwrap().to_string(), "::1/128");
        for text in ["", "10.0.0.0/33", "::/129", "10.0.0/8", "10.0.0.0/-1", "x/8"] {
            assert_eq!(text.parse::<Network>(), Err(ParseNetworkError), "{text}");
        }
    }
}
