//! How often: the generic cell rate algorithm (ITU-T I.371), for one holder and for many strangers.
//!
//! Not `governor`: its keyed limiters grow with every key that anybody makes up, and read their own clock. Here the
//! number of keys is bounded, `now` is an argument, and a holder's allowance is one word beside what it belongs to.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::limits::RATE_KEYS_MAX;

/// Seconds' worth that may come at once.
const BURST_S: u64 = 10;
const NANOS_PER_S: u64 = 1_000_000_000;

/// Too many: come again after this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany {
    /// How long until as much is allowed.
    pub retry_after: Duration,
}

/// So many a second, with a burst of ten seconds' worth.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// Nanoseconds that one unit costs.
    cost_ns: u64,
    /// Nanoseconds that may be owed: the burst.
    tolerance_ns: u64,
    /// From where time is counted, so that it fits one word.
    epoch: Instant,
}

impl Rate {
    /// `per_s` units a second, at least one.
    pub fn per_second(per_s: u32, epoch: Instant) -> Self {
        let cost_ns = (NANOS_PER_S / u64::from(per_s.max(1))).max(1);
        Self { cost_ns, tolerance_ns: BURST_S * NANOS_PER_S, epoch }
    }

    /// The theoretical arrival time after `units` more, where they are allowed now.
    fn next(&self, arrival_ns: u64, units: u64, now: Instant) -> Result<u64, TooMany> {
        let now_ns = self.since_epoch(now);
        let next = arrival_ns.max(now_ns).saturating_add(self.cost_ns.saturating_mul(units));
        let owed = next - now_ns;
        if owed <= self.tolerance_ns {
            return Ok(next);
        }
        Err(TooMany { retry_after: Duration::from_nanos(owed - self.tolerance_ns) })
    }

    fn since_epoch(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.epoch).as_nanos()).unwrap_or(u64::MAX / 2)
    }
}

/// One holder's allowance: the time until which what it did so far is paid for. One word, no lock.
#[derive(Debug, Default)]
pub struct Allowance(AtomicU64);

impl Allowance {
    /// Takes `units`, if they are allowed now.
    ///
    /// # Errors
    /// [`TooMany`]; then nothing is taken.
    pub fn take(&self, rate: &Rate, units: u64, now: Instant) -> Result<(), TooMany> {
        let mut arrival = self.0.load(Ordering::Relaxed);
        loop {
            let next = rate.next(arrival, units, now)?;
            match self.0.compare_exchange_weak(arrival, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(seen) => arrival = seen,
            }
        }
    }
}

/// Allowances by a key that strangers may make up.
///
/// Invariant: `arrivals.len() <= keys_max`. When it is full, who owes nothing is forgotten; where that frees nothing,
/// everybody else shares one allowance, so that making up keys gains nothing.
#[derive(Debug)]
pub struct KeyedRates<K> {
    rate: Rate,
    arrivals: HashMap<K, u64>,
    others: u64,
    keys_max: usize,
}

impl<K: Eq + Hash> KeyedRates<K> {
    /// The same `rate` for each key.
    pub fn new(rate: Rate, keys_max: usize) -> Self {
        Self { rate, arrivals: HashMap::new(), others: 0, keys_max }
    }

    /// Takes `units` for `key`, if they are allowed now.
    ///
    /// # Errors
    /// [`TooMany`]; then nothing is taken.
    pub fn take(&mut self, key: K, units: u64, now: Instant) -> Result<(), TooMany> {
        if !self.arrivals.contains_key(&key) && self.arrivals.len() >= self.keys_max {
            self.forget_idle(now);
        }
        let full = self.arrivals.len() >= self.keys_max;
        let arrival = match self.arrivals.get_mut(&key) {
            Some(arrival) => arrival,
            None if full => &mut self.others,
            None => self.arrivals.entry(key).or_default(),
        };
        *arrival = self.rate.next(*arrival, units, now)?;
        Ok(())
    }

    fn forget_idle(&mut self, now: Instant) {
        let now_ns = self.rate.since_epoch(now);
        // Going through all keys again and again would be an attack in itself: at most once for what `others` allows.
        if self.rate.next(self.others, 1, now).is_ok() {
            self.arrivals.retain(|_, arrival| *arrival > now_ns);
        }
    }
}

/// Strangers' allowances, by the network that they come from.
#[derive(Debug)]
pub struct NetworkRates(KeyedRates<IpAddr>);

impl NetworkRates {
    /// The same `rate` for each network.
    pub fn new(rate: Rate) -> Self {
        Self(KeyedRates::new(rate, RATE_KEYS_MAX))
    }

    /// Takes one unit for the network that `address` is in, if it is allowed now.
    ///
    /// # Errors
    /// [`TooMany`]; then nothing is taken.
    pub fn take(&mut self, address: IpAddr, now: Instant) -> Result<(), TooMany> {
        self.0.take(network_of(address), 1, now)
    }
}

/// What is counted as one: the domain that somebody can register, by the public suffix list. Names below it cost their
/// owner nothing.
pub fn registrable(domain: &str) -> &str {
    psl::domain_str(domain).unwrap_or(domain)
}

/// What is counted as one: an IPv4 address, or the /64 that one IPv6 subscriber has.
pub fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_allowed_then_the_rate_holds() {
        let start = Instant::now();
        let rate = Rate::per_second(5, start);
        let allowance = Allowance::default();
        for _ in 0..50 {
            allowance.take(&rate, 1, start).unwrap();
        }
        let refused = allowance.take(&rate, 1, start).unwrap_err();
        assert_eq!(refused.retry_after, Duration::from_millis(200));
        allowance.take(&rate, 1, start + refused.retry_after).unwrap();
        assert!(allowance.take(&rate, 1, start + refused.retry_after).is_err());
    }

    #[test]
    fn a_batch_counts_by_its_names() {
        let start = Instant::now();
        let rate = Rate::per_second(100, start);
        let allowance = Allowance::default();
        allowance.take(&rate, 1_000, start).unwrap();
        assert_eq!(allowance.take(&rate, 100, start).unwrap_err().retry_after, Duration::from_secs(1));
    }

    #[test]
    fn a_crowd_of_made_up_addresses_shares_one_allowance_and_bounded_memory() {
        let start = Instant::now();
        let mut rates = NetworkRates::new(Rate::per_second(1, start));
        let address = |n: u32| IpAddr::V4(n.into());
        let keys = u32::try_from(RATE_KEYS_MAX).unwrap();
        let allowed = (0..2 * keys).filter(|&n| rates.take(address(n), start).is_ok()).count();
        assert_eq!(rates.0.arrivals.len(), RATE_KEYS_MAX);
        assert_eq!(allowed, RATE_KEYS_MAX + 10, "each of the first, then ten for all others together");
        let later = start + Duration::from_secs(60);
        rates.take(address(u32::MAX), later).unwrap();
        assert_eq!(rates.0.arrivals.len(), 1, "who owes nothing is forgotten");
    }

    #[test]
    fn one_ipv6_subscriber_is_one_network() {
        let start = Instant::now();
        let mut rates = NetworkRates::new(Rate::per_second(1, start));
        let address = |n: u16| IpAddr::V6(Ipv6Addr::new(0x2a00, 1, 2, 3, n, 0, 0, n));
        let allowed = (0..100).filter(|&n| rates.take(address(n), start).is_ok()).count();
        assert_eq!(allowed, 10);
    }

    #[test]
    fn names_below_one_that_was_registered_are_counted_as_one() {
        for (domain, counted) in [
            ("example.org", "example.org"),
            ("a.b.example.org", "example.org"),
            ("mail.example.co.uk", "example.co.uk"),
            ("users.github.io", "users.github.io"),
            ("a.users.github.io", "users.github.io"),
            ("lighter.test", "lighter.test"),
            ("x.lighter.test", "lighter.test"),
            ("org", "org"),
        ] {
            assert_eq!(registrable(domain), counted, "{domain}");
        }
    }
}
