//! The router that the default route leads to, by the kernel's table (`/proc/net/route`).

use std::net::Ipv4Addr;

/// The kernel's table of IPv4 routes (proc(5)).
const ROUTES: &str = "/proc/net/route";
/// `RTF_UP` and `RTF_GATEWAY` of linux/route.h.
const UP_THROUGH_GATEWAY: u16 = 0x1 | 0x2;

/// The router; none where there is no default route, or the system keeps no such table.
pub(super) fn of_default_route() -> Option<Ipv4Addr> {
    default_gateway(&std::fs::read_to_string(ROUTES).ok()?)
}

/// The gateway of the default route with the least metric.
fn default_gateway(table: &str) -> Option<Ipv4Addr> {
    table
        .lines()
        .skip(1)
        .filter_map(default_route)
        .min_by_key(|(metric, _)| *metric)
        .map(|(_, gateway)| gateway)
}

/// A line's metric and gateway, where it is a default route: interface, destination, gateway, flags, two counters, metric,
/// mask, …; addresses as the processor's hexadecimal of what is in network order in memory.
fn default_route(line: &str) -> Option<(u32, Ipv4Addr)> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let destination = u32::from_str_radix(fields.next()?, 16).ok()?;
    let gateway = u32::from_str_radix(fields.next()?, 16).ok()?;
    let flags = u16::from_str_radix(fields.next()?, 16).ok()?;
    let metric = fields.nth(2)?.parse().ok()?;
    let mask = u32::from_str_radix(fields.next()?, 16).ok()?;
    let is_default = destination == 0 && mask == 0 && flags & UP_THROUGH_GATEWAY == UP_THROUGH_GATEWAY;
    is_default.then(|| (metric, Ipv4Addr::from(gateway.to_ne_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a kernel wrote whose processor is little-endian, as all are that this runs on.
    const TABLE: &str = "\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
wlan0\t00000000\t0101A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0
eth0\t00000000\tFE01A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0
eth1\t00000000\t01020A0A\t0002\t0\t0\t5\t00000000\t0\t0\t0
eth0\t0001A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0
";

    #[test]
    #[cfg(target_endian = "little")]
    fn the_gateway_is_that_of_the_default_route_that_is_up_and_has_the_least_metric() {
        assert_eq!(default_gateway(TABLE), Some(Ipv4Addr::new(192, 168, 1, 254)));
    }

    #[test]
    fn a_table_without_a_default_route_or_of_another_form_has_no_gateway() {
        for table in
            ["", "Iface\n", "Iface\neth0\n", "Iface\neth0 0 zz 3 0 0 0 0\n", "Iface\neth0 0 1 3 0 0\n"]
        {
            assert_eq!(default_gateway(table), None, "{table:?}");
        }
    }
}
