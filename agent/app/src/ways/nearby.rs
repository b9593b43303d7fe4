//! Who is on the local network, as far as they say so by multicast DNS: a value; `now` is an argument.
//!
//! Anybody on that network can announce anything. So nothing is believed but that a peer may be worth trying there: only
//! addresses within networks that this machine itself has an interface in, few of each peer, few peers; whoever answers
//! proves the PeerId.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Instant;

use lighter_protocol::PeerId;

use crate::dial;
use crate::limits::{NEARBY_ADDRESSES_MAX, NEARBY_LIFE, NEARBY_PEERS_MAX};

/// A network that this machine has an interface in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnLink {
    /// The own address there.
    pub address: IpAddr,
    /// Leading bits that all addresses there share.
    pub prefix_len: u8,
}

impl OnLink {
    /// Whether `other` is there as well, and can be dialled without naming the interface.
    fn contains(&self, other: IpAddr) -> bool {
        if !dial::is_private(other) {
            return false;
        }
        match (self.address, other) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix_len.min(32))).unwrap_or(0);
                own.to_bits() & mask == other.to_bits() & mask
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix_len.min(128))).unwrap_or(0);
                own.to_bits() & mask == other.to_bits() & mask
            }
            _ => false,
        }
    }

    /// The network of an interface with this address and mask.
    pub fn of(address: IpAddr, mask: IpAddr) -> Self {
        let ones = match mask {
            IpAddr::V4(mask) => Ipv4Addr::to_bits(mask).count_ones(),
            IpAddr::V6(mask) => Ipv6Addr::to_bits(mask).count_ones(),
        };
        Self { address, prefix_len: u8::try_from(ones).unwrap_or(u8::MAX) }
    }
}

/// The peers that announced themselves.
#[derive(Clone, Debug, Default)]
pub struct Nearby {
    /// By the name of the announcement.
    announced: HashMap<String, Announced>,
}

#[derive(Clone, Debug)]
struct Announced {
    peer: PeerId,
    addresses: Vec<SocketAddr>,
    at: Instant,
}

impl Nearby {
    /// Somebody announced `peer`, as `name`. Whether it was taken note of.
    pub fn handle_announced(
        &mut self,
        name: &str,
        peer: PeerId,
        addresses: impl IntoIterator<Item = SocketAddr>,
        networks: &[OnLink],
        now: Instant,
    ) -> bool {
        self.announced.retain(|_, announced| now.saturating_duration_since(announced.at) < NEARBY_LIFE);
        let is_near = |address: &SocketAddr| {
            address.port() != 0 && networks.iter().any(|network| network.contains(address.ip()))
        };
        let mut addresses: Vec<_> = addresses.into_iter().filter(is_near).collect();
        addresses.sort();
        addresses.truncate(NEARBY_ADDRESSES_MAX);
        if addresses.is_empty() {
            self.announced.remove(name);
            return false;
        }
        if self.announced.len() >= NEARBY_PEERS_MAX && !self.announced.contains_key(name) {
            return false;
        }
        self.announced.insert(name.to_owned(), Announced { peer, addresses, at: now });
        true
    }

    /// An announcement was taken back, or ran out.
    pub fn handle_gone(&mut self, name: &str) {
        self.announced.remove(name);
    }

    /// Where `peer` may be.
    pub fn addresses(&self, peer: &PeerId, now: Instant) -> Vec<SocketAddr> {
        let is_its = |announced: &&Announced| {
            announced.peer == *peer && now.saturating_duration_since(announced.at) < NEARBY_LIFE
        };
        let mut addresses: Vec<_> = self
            .announced
            .values()
            .filter(is_its)
            .flat_map(|announced| announced.addresses.clone())
            .collect();
        addresses.sort();
        addresses.dedup();
        addresses.truncate(NEARBY_ADDRESSES_MAX);
        addresses
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks() -> Vec<OnLink> {
        let of = |address: &str, mask: &str| OnLink::of(address.parse().unwrap(), mask.parse().unwrap());
        vec![of("192.168.7.2", "255.255.255.0"), of("fd00:1:2:3::9", "ffff:ffff:ffff:ffff::")]
    }

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn bad_input_36_only_addresses_of_the_own_networks_are_taken_from_an_announcement() {
        let (now, peer, mut nearby) = (Instant::now(), PeerId::random(), Nearby::default());
        let announced = [
            "192.168.7.9:7443",
            "[fd00:1:2:3::1]:7443",
            "192.168.8.9:7443",
            "10.0.0.1:7443",
            "127.0.0.1:7443",
            "169.254.169.254:80",
            "8.8.8.8:53",
            "192.168.7.9:0",
            "[fe80::1]:7443",
            "[::1]:7443",
        ];
        assert!(nearby.handle_announced("a", peer, announced.map(address), &networks(), now));
        let known = nearby.addresses(&peer, now);
        assert_eq!(known, [address("192.168.7.9:7443"), address("[fd00:1:2:3::1]:7443")]);
        assert!(nearby.addresses(&PeerId::random(), now).is_empty());
        nearby.handle_gone("a");
        assert!(nearby.addresses(&peer, now).is_empty());
        assert!(!nearby.handle_announced("a", peer, [address("8.8.8.8:53")], &networks(), now));
    }

    #[test]
    fn bad_input_11_a_flood_of_announcements_is_kept_small_and_forgotten() {
        let (now, peer, mut nearby) = (Instant::now(), PeerId::random(), Nearby::default());
        for number in 0..10_000 {
            let many = (1..200).map(|last| SocketAddr::from(([192, 168, 7, last], 7_443)));
            nearby.handle_announced(&number.to_string(), peer, many, &networks(), now);
        }
        assert_eq!(nearby.announced.len(), NEARBY_PEERS_MAX);
        assert_eq!(nearby.addresses(&peer, now).len(), NEARBY_ADDRESSES_MAX);
        let later = now + NEARBY_LIFE;
        assert!(nearby.addresses(&peer, later).is_empty());
        assert!(nearby.handle_announced("new", peer, [address("192.168.7.9:1")], &networks(), later));
        assert_eq!(nearby.announced.len(), 1);
    }
}
