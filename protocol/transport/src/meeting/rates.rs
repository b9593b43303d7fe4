//! How often something may be done: by each, and by all together. A value; `now` is an argument.
//!
//! Each bucket is one time, as GCRA keeps it: when it will be full again (ITU-T I.371, "theoretical arrival time").

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// How often.
#[derive(Clone, Copy, Debug)]
pub struct RateLimits {
    /// Times that one may do it at once …
    pub each_burst: u32,
    /// … and then once each time that this has passed.
    pub each_interval: Duration,
    /// The same for all together.
    pub all_burst: u32,
    /// See `all_burst`.
    pub all_interval: Duration,
    /// How many are remembered.
    pub keys_max: usize,
}

/// Who did it how often of late.
#[derive(Clone, Debug)]
pub struct Rates<K> {
    limits: RateLimits,
    each: HashMap<K, Instant>,
    all: Option<Instant>,
}

impl<K: Eq + Hash> Rates<K> {
    /// Nobody did it.
    pub fn new(limits: RateLimits) -> Self {
        Self { limits, each: HashMap::new(), all: None }
    }

    /// Whether `who` may do it now; if so, it is counted.
    pub fn take(&mut self, who: K, now: Instant) -> bool {
        let limits = self.limits;
        if self.each.len() >= limits.keys_max && !self.each.contains_key(&who) {
            self.each.retain(|_, full_at| *full_at > now);
            if self.each.len() >= limits.keys_max {
                return false;
            }
        }
        let after = |full_at: Option<&Instant>, burst, interval: Duration| {
            let full_at = full_at.copied().map_or(now, |at| at.max(now)) + interval;
            (full_at - now <= interval * burst).then_some(full_at)
        };
        let each = after(self.each.get(&who), limits.each_burst, limits.each_interval);
        let all = after(self.all.as_ref(), limits.all_burst, limits.all_interval);
        // Who is refused for its own sake costs the others nothing.
        let (Some(each), Some(all)) = (each, all) else { return false };
        self.each.insert(who, each);
        self.all = Some(all);
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: RateLimits = RateLimits {
        each_burst: 3,
        each_interval: Duration::from_secs(2),
        all_burst: 5,
        all_interval: Duration::from_secs(1),
        keys_max: 4,
    };

    #[test]
    fn each_has_a_burst_and_then_a_rate_and_one_that_asks_too_often_costs_the_others_nothing() {
        let (start, mut rates) = (Instant::now(), Rates::new(LIMITS));
        let taken = (0..100).filter(|_| rates.take("a", start)).count();
        assert_eq!(taken, 3);
        assert!(rates.take("b", start) && rates.take("b", start));
        assert!(!rates.take("b", start), "all together had their burst");
        let later = start + Duration::from_secs(2);
        assert!(rates.take("a", later) && !rates.take("a", later));
        assert!(rates.take("b", later));
    }

    #[test]
    fn the_table_stays_small_and_has_room_again_when_its_buckets_are_full() {
        let limits = RateLimits { all_burst: 1_000, ..LIMITS };
        let (start, mut rates) = (Instant::now(), Rates::new(limits));
        let taken = (0..100).filter(|who| rates.take(*who, start)).count();
        assert_eq!((taken, rates.each.len()), (4, 4));
        assert!(rates.take(99, start + Duration::from_secs(2)));
        assert_eq!(rates.each.len(), 1);
    }

    proptest! {
        // However it is asked for: in any span of time no more than the burst and what the span is good for.
        #[test]
        fn no_span_sees_more_than_its_burst_and_its_rate(
            asked in prop::collection::vec((0_u64..4_000, 0_u8..3), 1..200)
        ) {
            let (start, mut rates) = (Instant::now(), Rates::new(LIMITS));
            let mut at = Duration::ZERO;
            let mut taken: Vec<(Duration, u8)> = Vec::new();
            for (pause, who) in asked {
                at += Duration::from_millis(pause);
                if rates.take(who, start + at) {
                    taken.push((at, who));
                }
            }
            for (first, &(from, who)) in taken.iter().enumerate() {
                for (last, &(until, _)) in taken.iter().enumerate().skip(first) {
                    let span = until - from;
                    let good_for = |burst: u32, interval: Duration| {
                        usize::try_from(span.as_millis() / interval.as_millis()).unwrap() + burst as usize
                    };
                    let all = last + 1 - first;
                    prop_assert!(all <= good_for(LIMITS.all_burst, LIMITS.all_interval));
                    let own = taken[first..=last].iter().filter(|(_, by)| *by == who).count();
                    prop_assert!(own <= good_for(LIMITS.each_burst, LIMITS.each_interval));
                }
            }
        }
    }
}
