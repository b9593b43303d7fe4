//! SRV records (RFC 2782): which server is tried first.

use std::time::Duration;

use rand::{Rng, RngExt};

use crate::location::limits::SRV_RECORDS_MAX;

/// One SRV record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The lowest is tried first.
    pub priority: u16,
    /// Among those of one priority, how often it is first.
    pub weight: u16,
    /// Its port.
    pub port: u16,
    /// Its host, without a dot at the end; empty: the service is decidedly not available.
    pub host: String,
}

/// A server to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its host.
    pub host: String,
    /// Its port.
    pub port: u16,
}

/// A domain's servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Services {
    /// In the order in which they are tried; empty: the domain says that it has none.
    pub targets: Vec<Target>,
    /// How long that counts.
    pub fresh: Duration,
}

/// The order in which `records` are tried: by priority, and within one, by lot according to weight.
pub fn order(mut records: Vec<Record>, rng: &mut impl Rng) -> Vec<Target> {
    records.retain(|record| !record.host.is_empty() && record.port != 0);
    records.sort_by(|one, other| {
        (one.priority, one.weight, &one.host, one.port).cmp(&(
            other.priority,
            other.weight,
            &other.host,
            other.port,
        ))
    });
    records.truncate(SRV_RECORDS_MAX);
    let mut targets = Vec::with_capacity(records.len());
    while let Some(priority) = records.first().map(|record| record.priority) {
        let group = records.iter().take_while(|record| record.priority == priority);
        let sum: u32 = group.map(|record| u32::from(record.weight)).sum();
        // Records of weight 0 come first in the list, and are drawn with the lot 0 only.
        let lot = rng.random_range(0..=sum);
        let mut running = 0;
        let drawn = records.iter().position(|record| {
            running += u32::from(record.weight);
            running >= lot
        });
        let Record { host, port, .. } = records.remove(drawn.unwrap_or(0));
        targets.push(Target { host, port });
    }
    targets
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    fn record(priority: u16, weight: u16, host: &str) -> Record {
        Record { priority, weight, port: 443, host: host.to_owned() }
    }

    #[test]
    fn a_lower_priority_comes_first_and_a_higher_weight_more_often() {
        let records =
            [record(20, 0, "last"), record(10, 1, "seldom"), record(10, 9, "often"), record(5, 0, "first")];
        let mut rng = StdRng::seed_from_u64(1);
        let mut often = 0;
        for _ in 0..1_000 {
            let targets = order(records.to_vec(), &mut rng);
            let hosts: Vec<_> = targets.iter().map(|target| target.host.as_str()).collect();
            assert_eq!((hosts.len(), hosts[0], hosts[3]), (4, "first", "last"));
            often += usize::from(hosts[1] == "often");
        }
        assert!((800..950).contains(&often), "{often}");
    }

    #[test]
    fn a_domain_can_say_that_it_has_none_and_a_port_of_none_is_none() {
        let mut rng = StdRng::seed_from_u64(1);
        assert!(order(vec![record(0, 0, "")], &mut rng).is_empty());
        assert!(order(vec![Record { port: 0, ..record(0, 0, "x") }], &mut rng).is_empty());
        assert!(order(Vec::new(), &mut rng).is_empty());
    }

    #[test]
    fn a_thousand_records_are_no_more_than_a_few() {
        let records = (0..1_000).map(|number| record(number, u16::MAX, "x")).collect();
        assert_eq!(order(records, &mut StdRng::seed_from_u64(1)).len(), SRV_RECORDS_MAX);
    }
}
