//! Which addresses this agent dials: ones of its own location server's records only, and of those none that leads into
//! a network that it is not itself in (DESIGN §4; bad input 36). Addresses never come from an offer: an offer has none.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};

/// Whether `address` may be dialled by somebody whose own addresses are `own`.
///
/// Globally routable ones may. Loopback, where the agent itself is on loopback (one machine for everything); private
/// ones, where it is itself in the same network. Link-local, multicast, unspecified and the like never: clouds answer
/// there with their secrets.
pub fn is_allowed(address: &SocketAddr, own: &[IpAddr]) -> bool {
    if address.port() == 0 {
        return false;
    }
    let ip = address.ip().to_canonical();
    match scope(ip) {
        Scope::Global => true,
        Scope::Loopback => own.iter().any(|own| own.to_canonical().is_loopback()),
        Scope::Private => own.iter().any(|own| is_same_network(own.to_canonical(), ip)),
        Scope::Never => false,
    }
}

/// Whether everybody can route to it.
pub fn is_global(ip: IpAddr) -> bool {
    scope(ip.to_canonical()) == Scope::Global
}

/// Whether it is of a private network (RFC 1918, RFC 4193).
pub fn is_private(ip: IpAddr) -> bool {
    scope(ip.to_canonical()) == Scope::Private
}

/// The addresses that this machine would use towards the location server at `url`, and towards the internet: found by
/// asking the routing table, without sending anything.
pub fn route_addresses(url: &str) -> Vec<IpAddr> {
    let authority = url.split_once("://").map_or(url, |(_, rest)| rest).trim_end_matches('/');
    let with_port = if authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
        authority.to_owned()
    } else {
        format!("{authority}:443")
    };
    let mut targets: Vec<SocketAddr> = with_port.to_socket_addrs().map(Iterator::collect).unwrap_or_default();
    targets.truncate(ROUTES_MAX);
    // Any global address shows the default route; these are the root name server K's.
    targets.push(SocketAddr::from(([193, 0, 14, 129], 53)));
    targets.push(SocketAddr::from(([0x2001, 0x7fd, 0, 0, 0, 0, 0, 1], 53)));
    let mut found = Vec::new();
    for target in targets {
        if let Some(ip) = route_address(target)
            && !found.contains(&ip)
        {
            found.push(ip);
        }
    }
    found
}

/// Addresses of the location server that are looked at.
const ROUTES_MAX: usize = 4;

fn route_address(target: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr =
        if target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    // A UDP socket that is connected has sent nothing.
    socket.connect(target).ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (scope(ip) != Scope::Never).then_some(ip)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    Global,
    Private,
    Loopback,
    Never,
}

fn scope(ip: IpAddr) -> Scope {
    match ip {
        IpAddr::V4(v4) => scope_v4(v4),
        IpAddr::V6(v6) => scope_v6(v6),
    }
}

fn scope_v4(ip: Ipv4Addr) -> Scope {
    let [a, b, c, _] = ip.octets();
    if ip.is_loopback() {
        Scope::Loopback
    } else if ip.is_private() {
        Scope::Private
    } else if ip.is_link_local()
        || ip.is_multicast()
        || ip.is_broadcast()
        || ip.is_documentation()
        || a == 0
        || a >= 240
        || (a == 100 && (64..128).contains(&b)) // carrier-grade NAT (RFC 6598), and a cloud's metadata
        || (a == 192 && b == 0 && c == 0) // IETF protocol assignments, and a cloud's metadata
        || (a == 198 && (b == 18 || b == 19))
    // benchmarks (RFC 2544)
    {
        Scope::Never
    } else {
        Scope::Global
    }
}

fn scope_v6(ip: Ipv6Addr) -> Scope {
    let [first, second, ..] = ip.segments();
    if ip.is_loopback() {
        Scope::Loopback
    } else if ip.is_unique_local() {
        Scope::Private
    } else if first & 0xe000 == 0x2000 && !(first == 0x2001 && second == 0xdb8) {
        Scope::Global // 2000::/3 (RFC 4291 §2.4), documentation left out
    } else {
        Scope::Never
    }
}

/// Whether two private addresses are of one network, by the sizes that homes (192.168/16: 256 addresses) and offices
/// (65,536 addresses, or a /64) give theirs.
fn is_same_network(own: IpAddr, other: IpAddr) -> bool {
    match (own, other) {
        (IpAddr::V4(own), IpAddr::V4(other)) => {
            let shared = if own.octets()[0] == 192 { 3 } else { 2 };
            own.is_private() && own.octets()[..shared] == other.octets()[..shared]
        }
        (IpAddr::V6(own), IpAddr::V6(other)) => {
            own.is_unique_local() && own.segments()[..4] == other.segments()[..4]
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(address: &str, own: &[&str]) -> bool {
        let own: Vec<IpAddr> = own.iter().map(|ip| ip.parse().unwrap()).collect();
        is_allowed(&address.parse().unwrap(), &own)
    }

    #[test]
    fn bad_input_36_a_metadata_loopback_or_foreign_private_address_is_not_dialled() {
        let own = ["198.51.101.7", "192.168.7.2", "fd00:1:2:3::9"];
        for address in [
            "127.0.0.1:7443",
            "127.9.9.9:7443",
            "[::1]:7443",
            "[::ffff:127.0.0.1]:7443",
            "169.254.169.254:80",
            "[::ffff:169.254.169.254]:80",
            "[fe80::1]:7443",
            "100.100.100.200:80",
            "192.0.0.192:80",
            "0.0.0.0:7443",
            "[::]:7443",
            "10.0.0.1:7443",
            "192.168.8.1:7443",
            "172.16.0.1:7443",
            "[fd00:1:2:4::1]:7443",
            "224.0.0.1:7443",
            "255.255.255.255:7443",
            "[ff02::1]:7443",
            "[64:ff9b::7f00:1]:7443",
            "8.8.8.8:0",
        ] {
            assert!(!allowed(address, &own), "{address}");
        }
    }

    #[test]
    fn the_internet_and_the_own_network_are_dialled() {
        assert!(allowed("8.8.8.8:7443", &[]));
        assert!(allowed("[2a00:1450::1]:7443", &[]));
        assert!(allowed("192.168.7.9:7443", &["192.168.7.2"]));
        assert!(allowed("[fd00:1:2:3::1]:7443", &["fd00:1:2:3::9"]));
        assert!(allowed("127.0.0.1:7443", &["127.0.0.1"]));
        assert!(allowed("127.0.0.1:7443", &["::1"]));
    }

    #[test]
    fn the_way_to_a_location_server_on_this_machine_is_loopback() {
        let found = route_addresses("http://127.0.0.1:7080");
        assert!(found.contains(&Ipv4Addr::LOCALHOST.into()), "{found:?}");
    }
}
