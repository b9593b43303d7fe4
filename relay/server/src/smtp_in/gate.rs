//! Who may connect: how many at once, how many from one address, and how fast.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Instant;

use crate::limits::{
    MAIL_CONNECTION_BURST, MAIL_CONNECTION_RATE, MAIL_CONNECTIONS_MAX, MAIL_CONNECTIONS_PER_PEER_MAX,
    MAIL_PEERS_REMEMBERED_MAX,
};

/// Counts connections by address.
#[derive(Debug)]
pub(super) struct Gate {
    /// Invariant: the sum of `peers[..].open`.
    open: usize,
    peers: HashMap<IpAddr, Peer>,
}

#[derive(Debug)]
struct Peer {
    open: usize,
    /// New connections that it may still make: at most the burst, refilled at the rate.
    tokens: f64,
    refilled: Instant,
}

/// Why a connection is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// All places are taken.
    Full,
    /// This address has all the places it may have.
    PeerFull,
    /// This address connects too often.
    PeerTooFast,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "too many connections",
            Self::PeerFull => "too many connections from one address",
            Self::PeerTooFast => "too many new connections from one address",
        })
    }
}

impl Gate {
    pub(super) fn new() -> Self {
        Self { open: 0, peers: HashMap::new() }
    }

    /// Connections that are open.
    pub(super) fn open(&self) -> usize {
        self.open
    }

    /// A connection from `address`: in, or why not. Who is let in must [`Gate::leave`].
    pub(super) fn enter(&mut self, address: IpAddr, now: Instant) -> Result<(), Refused> {
        if self.open >= MAIL_CONNECTIONS_MAX {
            return Err(Refused::Full);
        }
        if self.peers.len() >= MAIL_PEERS_REMEMBERED_MAX {
            self.peers.retain(|_, peer| peer.open > 0 || !peer.is_rested(now));
        }
        let peer = self.peers.entry(network(address)).or_insert(Peer {
            open: 0,
            tokens: MAIL_CONNECTION_BURST,
            refilled: now,
        });
        if peer.open >= MAIL_CONNECTIONS_PER_PEER_MAX {
            return Err(Refused::PeerFull);
        }
        peer.refill(now);
        if !address.is_loopback() {
            if peer.tokens < 1.0 {
                return Err(Refused::PeerTooFast);
            }
            peer.tokens -= 1.0;
        }
        peer.open += 1;
        self.open += 1;
        Ok(())
    }

    /// A connection that was let in has ended.
    pub(super) fn leave(&mut self, address: IpAddr, now: Instant) {
        let network = network(address);
        let Some(peer) = self.peers.get_mut(&network) else { return };
        peer.open = peer.open.saturating_sub(1);
        self.open = self.open.saturating_sub(1);
        if peer.open == 0 && peer.is_rested(now) {
            self.peers.remove(&network);
        }
    }
}

impl Peer {
    fn refill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.refilled).as_secs_f64();
        self.tokens = (self.tokens + elapsed * MAIL_CONNECTION_RATE).min(MAIL_CONNECTION_BURST);
        self.refilled = now;
    }

    /// Whether forgetting it changes nothing.
    fn is_rested(&self, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.refilled).as_secs_f64();
        self.tokens + elapsed * MAIL_CONNECTION_RATE >= MAIL_CONNECTION_BURST
    }
}

/// What counts as one peer: an IPv4 address, or an IPv6 /64, which is what one customer gets.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn bad_input_11_one_address_cannot_take_every_place() {
        let (mut gate, now) = (Gate::new(), Instant::now());
        for _ in 0..MAIL_CONNECTIONS_PER_PEER_MAX {
            gate.enter(address(1), now).unwrap();
        }
        assert_eq!(gate.enter(address(1), now), Err(Refused::PeerFull));
        assert_eq!(gate.enter(address(2), now), Ok(()));
        gate.leave(address(1), now);
        assert_eq!(gate.enter(address(1), now), Ok(()));
    }

    #[test]
    fn all_together_have_a_limit_too() {
        let (mut gate, now) = (Gate::new(), Instant::now());
        for n in 0..MAIL_CONNECTIONS_MAX {
            gate.enter(address(u8::try_from(n % 200).unwrap()), now).unwrap();
        }
        assert_eq!(gate.enter(address(250), now), Err(Refused::Full));
        assert_eq!(gate.open(), MAIL_CONNECTIONS_MAX);
    }

    #[test]
    fn who_connects_too_often_waits_and_is_then_forgotten() {
        let (mut gate, mut now) = (Gate::new(), Instant::now());
        let mut let_in = 0;
        while gate.enter(address(1), now).is_ok() {
            gate.leave(address(1), now);
            let_in += 1;
        }
        assert_eq!(f64::from(let_in), MAIL_CONNECTION_BURST);
        now += Duration::from_secs(1);
        assert_eq!(gate.enter(address(1), now), Ok(()));
        now += Duration::from_mins(1);
        gate.leave(address(1), now);
        assert!(gate.peers.is_empty());
    }

    #[test]
    fn an_ipv6_network_is_one_peer() {
        let one: IpAddr = "2001:db8::1".parse().unwrap();
        let two: IpAddr = "2001:db8::ffff:1".parse().unwrap();
        let other: IpAddr = "2001:db8:0:1::1".parse().unwrap();
        assert_eq!(network(one), network(two));
        assert_ne!(network(one), network(other));
        assert_eq!(network("::ffff:192.0.2.1".parse().unwrap()), address(1));
    }
}
