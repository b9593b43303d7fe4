//! Who may connect: how many connections in all, from one network and of one peer, and how fast they come.
//!
//! The decisions are a value ([`Admission`]); `now` is an argument. A network is an IPv4 address or an IPv6 /64 (what one
//! subscriber has). An address that is not proved yet is believed only while there is plenty of room: beyond half of the
//! handshakes, whoever knocks must first answer at the address it claims, so that forged addresses fill no tables.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use lighter_protocol::PeerId;
use tokio::sync::OwnedSemaphorePermit;

use crate::limits::{
    CONNECTIONS_MAX, CONNECTIONS_PER_NETWORK_MAX, CONNECTIONS_PER_PEER_MAX, HANDSHAKES_MAX, NETWORKS_MAX,
    NEW_CONNECTION_INTERVAL, NEW_CONNECTIONS_BURST,
};

/// How many connections an endpoint accepts.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// Open ones, in all.
    pub total: usize,
    /// Open ones, of one peer.
    pub per_peer: usize,
    /// Open ones and handshakes, from one network.
    pub per_network: usize,
    /// Handshakes under way.
    pub handshakes: usize,
    /// New ones from one network at once …
    pub burst: u32,
    /// … and then one each time that this has passed.
    pub interval: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            total: CONNECTIONS_MAX,
            per_peer: CONNECTIONS_PER_PEER_MAX,
            per_network: CONNECTIONS_PER_NETWORK_MAX,
            handshakes: HANDSHAKES_MAX,
            burst: NEW_CONNECTIONS_BURST,
            interval: NEW_CONNECTION_INTERVAL,
        }
    }
}

/// What becomes of a connection attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The handshake may go on.
    Accept,
    /// It must first prove its address.
    Retry,
    /// No.
    Refuse,
}

/// Where a connection comes from, for counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Network(IpAddr);

impl Network {
    pub(super) fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self(v4.into()),
            IpAddr::V6(v6) => Self(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into()),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct NetworkState {
    /// Handshakes and open connections.
    held: usize,
    /// The rate, as GCRA keeps it: when the bucket will be full again (ITU-T I.371, "theoretical arrival time").
    full_at: Instant,
}

/// The counts. Invariants: `handshakes + open` = the sum of `held` over all networks; `open` = the sum over peers.
#[derive(Debug)]
pub(super) struct Admission {
    limits: ConnectionLimits,
    handshakes: usize,
    open: usize,
    networks: HashMap<Network, NetworkState>,
    peers: HashMap<PeerId, usize>,
}

impl Admission {
    pub(super) fn new(limits: ConnectionLimits) -> Self {
        Self { limits, handshakes: 0, open: 0, networks: HashMap::new(), peers: HashMap::new() }
    }

    /// Somebody at `network` wants to connect; `proved` says whether it can be reached there. On
    /// [`Verdict::Accept`] a handshake is counted.
    pub(super) fn handle_incoming(&mut self, now: Instant, network: Network, proved: bool) -> Verdict {
        let limits = self.limits;
        if self.handshakes >= limits.handshakes || self.open + self.handshakes >= limits.total {
            return Verdict::Refuse;
        }
        if !proved && (self.handshakes * 2 >= limits.handshakes || self.networks.len() * 2 >= NETWORKS_MAX) {
            return Verdict::Retry;
        }
        // One that is not proved may be forged: it is asked to prove itself before it is refused for its network's sake.
        let no = if proved { Verdict::Refuse } else { Verdict::Retry };
        self.forget_quiet_networks(now);
        if self.networks.len() >= NETWORKS_MAX && !self.networks.contains_key(&network) {
            return no;
        }
        let state = self.networks.entry(network).or_insert(NetworkState { held: 0, full_at: now });
        let full_at = state.full_at.max(now) + limits.interval;
        if state.held >= limits.per_network || full_at - now > limits.interval * limits.burst {
            return no;
        }
        state.held += 1;
        state.full_at = full_at;
        self.handshakes += 1;
        Verdict::Accept
    }

    /// As [`Admission::handle_incoming`], for somebody who opens a tunnel: whether there is room. Tunnels leave half of the
    /// handshakes to UDP: a TCP connection holds its place however little it says.
    pub(super) fn handle_tunnel(&mut self, now: Instant, network: Network) -> bool {
        self.handshakes * 2 < self.limits.handshakes
            && self.handle_incoming(now, network, true) == Verdict::Accept
    }

    /// A handshake from `network` proved `peer`. Says whether its connection may be open; if so, it is counted as such.
    pub(super) fn handle_proved(&mut self, peer: PeerId) -> bool {
        let held = self.peers.get(&peer).copied().unwrap_or(0);
        if held >= self.limits.per_peer {
            return false;
        }
        self.peers.insert(peer, held + 1);
        self.handshakes -= 1;
        self.open += 1;
        true
    }

    /// A handshake (`peer` is `None`) or an open connection has ended.
    pub(super) fn handle_ended(&mut self, network: Network, peer: Option<PeerId>) {
        if let Some(state) = self.networks.get_mut(&network) {
            state.held -= 1;
        }
        let Some(peer) = peer else {
            self.handshakes -= 1;
            return;
        };
        self.open -= 1;
        if let Some(held) = self.peers.get_mut(&peer) {
            *held -= 1;
            if *held == 0 {
                self.peers.remove(&peer);
            }
        }
    }

    /// Keeps the table small. It is swept only while it is half full, which takes thousands of networks in seconds.
    fn forget_quiet_networks(&mut self, now: Instant) {
        if self.networks.len() * 2 >= NETWORKS_MAX {
            self.networks.retain(|_, state| state.held > 0 || state.full_at > now);
        }
    }
}

/// A connection's place in the counts; dropping it gives the place back.
#[derive(Debug)]
pub(crate) struct Permit {
    admission: Arc<Mutex<Admission>>,
    network: Network,
    peer: Option<PeerId>,
    /// Where it came through a tunnel: that one's place.
    tunnel: Option<OwnedSemaphorePermit>,
}

impl Permit {
    /// Holds the place of a handshake that [`Admission::handle_incoming`] has accepted.
    pub(super) fn of_handshake(admission: Arc<Mutex<Admission>>, network: Network) -> Self {
        Self { admission, network, peer: None, tunnel: None }
    }

    /// The same, which holds a tunnel's place, too.
    pub(super) fn with_tunnel(mut self, tunnel: OwnedSemaphorePermit) -> Self {
        self.tunnel = Some(tunnel);
        self
    }

    /// The handshake proved `peer`: the permit is one for an open connection of it from now on, where that is allowed.
    #[must_use]
    pub(super) fn prove(&mut self, peer: PeerId) -> bool {
        let allowed = self.admission.lock().unwrap_or_else(PoisonError::into_inner).handle_proved(peer);
        if allowed {
            self.peer = Some(peer);
        }
        allowed
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut admission = self.admission.lock().unwrap_or_else(PoisonError::into_inner);
        admission.handle_ended(self.network, self.peer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: ConnectionLimits = ConnectionLimits {
        total: 10,
        per_peer: 2,
        per_network: 4,
        handshakes: 8,
        burst: 100,
        interval: Duration::from_millis(10),
    };

    fn network(last: u8) -> Network {
        Network::of(IpAddr::from([192, 0, 2, last]))
    }

    #[test]
    fn an_ipv6_network_is_a_64_and_a_mapped_address_is_ipv4() {
        let of = |text: &str| Network::of(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:2"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
    }

    #[test]
    fn one_network_cannot_take_all_places() {
        let now = Instant::now();
        let mut admission = Admission::new(LIMITS);
        for _ in 0..4 {
            assert_eq!(admission.handle_incoming(now, network(1), true), Verdict::Accept);
        }
        assert_eq!(admission.handle_incoming(now, network(1), true), Verdict::Refuse);
        assert_eq!(admission.handle_incoming(now, network(2), true), Verdict::Accept);
        admission.handle_ended(network(1), None);
        assert_eq!(admission.handle_incoming(now, network(1), true), Verdict::Accept);
    }

    #[test]
    fn one_peer_cannot_take_all_places() {
        let now = Instant::now();
        let mut admission = Admission::new(LIMITS);
        let (first, second) = (PeerId::random(), PeerId::random());
        for _ in 0..4 {
            assert_eq!(admission.handle_incoming(now, network(1), true), Verdict::Accept);
        }
        assert!(admission.handle_proved(first) && admission.handle_proved(first));
        assert!(!admission.handle_proved(first));
        assert!(admission.handle_proved(second));
        admission.handle_ended(network(1), Some(first));
        assert!(admission.handle_proved(first));
    }

    #[test]
    fn tunnels_leave_half_of_the_handshakes_to_udp() {
        let now = Instant::now();
        let mut admission = Admission::new(LIMITS);
        for last in 0..4 {
            assert!(admission.handle_tunnel(now, network(last)));
        }
        assert!(!admission.handle_tunnel(now, network(4)));
        assert_eq!(admission.handle_incoming(now, network(4), true), Verdict::Accept);
    }

    #[test]
    fn beyond_half_of_the_handshakes_an_address_must_be_proved() {
        let now = Instant::now();
        let mut admission = Admission::new(LIMITS);
        for last in 0..4 {
            assert_eq!(admission.handle_incoming(now, network(last), false), Verdict::Accept);
        }
        assert_eq!(admission.handle_incoming(now, network(4), false), Verdict::Retry);
        for last in 4..8 {
            assert_eq!(admission.handle_incoming(now, network(last), true), Verdict::Accept);
        }
        assert_eq!(admission.handle_incoming(now, network(8), true), Verdict::Refuse);
        assert_eq!(admission.handle_incoming(now, network(8), false), Verdict::Refuse);
    }

    #[test]
    fn a_network_that_comes_too_fast_waits_and_a_forged_address_blocks_nobody() {
        let mut now = Instant::now();
        let mut admission = Admission::new(ConnectionLimits { burst: 3, ..LIMITS });
        for _ in 0..3 {
            assert_eq!(admission.handle_incoming(now, network(1), false), Verdict::Accept);
            admission.handle_ended(network(1), None);
        }
        assert_eq!(admission.handle_incoming(now, network(1), false), Verdict::Retry);
        assert_eq!(admission.handle_incoming(now, network(1), true), Verdict::Refuse);
        now += LIMITS.interval;
        assert_eq!(admission.handle_incoming(now, network(1), true), Verdict::Accept);
    }

    #[test]
    fn tables_stay_small_and_counts_return_to_zero() {
        let mut now = Instant::now();
        let limits = ConnectionLimits { total: usize::MAX, handshakes: usize::MAX, ..LIMITS };
        let mut admission = Admission::new(limits);
        for index in 0..100_000_u32 {
            let network = Network::of(IpAddr::from(index.to_be_bytes()));
            assert_eq!(admission.handle_incoming(now, network, true), Verdict::Accept);
            admission.handle_ended(network, None);
            now += Duration::from_millis(1);
        }
        assert!(admission.networks.len() <= NETWORKS_MAX);
        assert_eq!((admission.handshakes, admission.open, admission.peers.len()), (0, 0, 0));
    }

    #[test]
    fn a_peer_that_was_refused_leaves_no_trace() {
        let mut admission = Admission::new(ConnectionLimits { per_peer: 0, ..LIMITS });
        assert_eq!(admission.handle_incoming(Instant::now(), network(1), true), Verdict::Accept);
        assert!(!admission.handle_proved(PeerId::random()));
        assert!(admission.peers.is_empty());
    }
}
