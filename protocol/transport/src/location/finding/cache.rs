//! What is known of domains, and how long it counts: a value with no I/O; `now` is an argument.
//!
//! Known is that a domain has something, that it has nothing, or that it could not be asked. Each counts for a time within
//! bounds. What was found counts on while the domain cannot be asked, up to [`FOUND_STALE_MAX`] (RFC 8767): a domain whose
//! name servers are down for an hour has not ceased to be.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::location::limits::{
    FAILED_FRESH, FOUND_FRESH_MAX, FOUND_FRESH_MIN, FOUND_STALE_MAX, NONE_FRESH_MAX,
};

/// What is known of a domain now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hit<T> {
    /// This.
    Found(T),
    /// That it has none.
    None,
    /// It could not be asked a moment ago, and is not asked again yet.
    Failed,
    /// Nothing, or nothing that counts any more: ask.
    Unknown,
}

#[derive(Clone, Debug)]
struct Entry<T> {
    known: Known<T>,
    /// From here on it is asked for again.
    fresh_until: Instant,
}

#[derive(Clone, Debug)]
enum Known<T> {
    Found { value: T, usable_until: Instant },
    None,
    Failed,
}

/// The cache. Invariant: `entries.len() <= max`.
#[derive(Clone, Debug)]
pub struct Cache<T> {
    entries: HashMap<String, Entry<T>>,
    max: usize,
}

impl<T: Clone> Cache<T> {
    /// An empty one of at most `max` domains.
    pub fn new(max: usize) -> Self {
        Self { entries: HashMap::new(), max }
    }

    /// What is known of `domain`.
    pub fn look(&self, domain: &str, now: Instant) -> Hit<T> {
        match self.entries.get(domain).filter(|entry| now < entry.fresh_until) {
            Some(Entry { known: Known::Found { value, .. }, .. }) => Hit::Found(value.clone()),
            Some(Entry { known: Known::None, .. }) => Hit::None,
            Some(Entry { known: Known::Failed, .. }) => Hit::Failed,
            None => Hit::Unknown,
        }
    }

    /// `domain` was asked, and has `found`; its own word is that this counts for `fresh`.
    pub fn learned(&mut self, domain: &str, found: Option<T>, fresh: Duration, now: Instant) {
        let (known, max) = match found {
            Some(value) => {
                let fresh = fresh.clamp(FOUND_FRESH_MIN, FOUND_FRESH_MAX);
                (Known::Found { value, usable_until: now + fresh + FOUND_STALE_MAX }, FOUND_FRESH_MAX)
            }
            None => (Known::None, NONE_FRESH_MAX),
        };
        self.insert(domain, Entry { known, fresh_until: now + fresh.clamp(FOUND_FRESH_MIN, max) }, now);
    }

    /// `domain` could not be asked: gives what it had, if that still counts.
    pub fn failed(&mut self, domain: &str, now: Instant) -> Option<T> {
        if let Some(entry) = self.entries.get_mut(domain)
            && let Known::Found { value, usable_until } = &entry.known
            && now < *usable_until
        {
            entry.fresh_until = (now + FAILED_FRESH).min(*usable_until);
            return Some(value.clone());
        }
        self.insert(domain, Entry { known: Known::Failed, fresh_until: now + FAILED_FRESH }, now);
        None
    }

    /// Nothing is known of `domain` any more.
    pub fn forget(&mut self, domain: &str) {
        self.entries.remove(domain);
    }

    /// Domains that could not be asked may be asked again.
    pub fn forget_failures(&mut self) {
        self.entries.retain(|_, entry| !matches!(entry.known, Known::Failed));
    }

    /// What was found.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.entries.values().filter_map(|entry| match &entry.known {
            Known::Found { value, .. } => Some(value),
            Known::None | Known::Failed => None,
        })
    }

    /// Every domain that something is known of, in order, and what.
    pub fn all(&self, now: Instant) -> Vec<(String, Hit<T>)> {
        let mut all: Vec<_> =
            self.entries.keys().map(|domain| (domain.clone(), self.look(domain, now))).collect();
        all.sort_by(|(one, _), (other, _)| one.cmp(other));
        all
    }

    /// How many domains something is known of.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn insert(&mut self, domain: &str, entry: Entry<T>, now: Instant) {
        if self.entries.len() >= self.max && !self.entries.contains_key(domain) {
            self.make_room(now);
        }
        self.entries.insert(domain.to_owned(), entry);
    }

    /// What counts no more goes; if nothing does, then what is asked for again first. What was found stays longer than what
    /// was not: making up domains does not push the real ones out.
    fn make_room(&mut self, now: Instant) {
        self.entries.retain(|_, entry| match entry.known {
            Known::Found { usable_until, .. } => now < usable_until,
            Known::None | Known::Failed => now < entry.fresh_until,
        });
        while self.entries.len() >= self.max {
            let first = self.entries.iter().min_by_key(|(domain, entry)| {
                (matches!(entry.known, Known::Found { .. }), entry.fresh_until, (*domain).clone())
            });
            let Some(first) = first.map(|(domain, _)| domain.clone()) else { return };
            self.entries.remove(&first);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    #[test]
    fn what_was_found_counts_for_its_time_to_live_within_bounds() {
        let (start, mut cache) = (Instant::now(), Cache::new(10));
        for (ttl, counts) in
            [(Duration::ZERO, FOUND_FRESH_MIN), (HOUR, HOUR), (HOUR * 1_000, FOUND_FRESH_MAX)]
        {
            cache.learned("a.example", Some(1), ttl, start);
            assert_eq!(cache.look("a.example", start + counts - Duration::from_nanos(1)), Hit::Found(1));
            assert_eq!(cache.look("a.example", start + counts), Hit::Unknown);
        }
        cache.learned("b.example", None, HOUR * 1_000, start);
        assert_eq!(cache.look("b.example", start + NONE_FRESH_MAX - Duration::from_nanos(1)), Hit::None);
        assert_eq!(cache.look("b.example", start + NONE_FRESH_MAX), Hit::<i32>::Unknown);
    }

    #[test]
    fn while_a_domain_cannot_be_asked_what_was_found_counts_on_for_three_days() {
        let (start, mut cache) = (Instant::now(), Cache::new(10));
        cache.learned("a.example", Some(1), HOUR, start);
        let mut now = start + HOUR;
        while now < start + HOUR + FOUND_STALE_MAX {
            assert_eq!(cache.failed("a.example", now), Some(1));
            assert_eq!(cache.look("a.example", now), Hit::Found(1), "not asked again at once");
            now += FAILED_FRESH;
        }
        assert_eq!(cache.failed("a.example", now), None);
        assert_eq!(cache.look("a.example", now), Hit::Failed);
        assert_eq!(cache.look("a.example", now + FAILED_FRESH), Hit::Unknown);
    }

    #[test]
    fn a_domain_that_says_it_has_none_has_none_whatever_it_had() {
        let (start, mut cache) = (Instant::now(), Cache::new(10));
        cache.learned("a.example", Some(1), HOUR, start);
        cache.learned("a.example", None, HOUR, start);
        assert_eq!(cache.failed("a.example", start), None);
    }

    #[test]
    fn made_up_domains_do_not_push_out_what_was_found() {
        let (start, mut cache) = (Instant::now(), Cache::new(10));
        cache.learned("real.example", Some(1), HOUR, start);
        for number in 0..1_000 {
            cache.failed(&format!("{number}.example"), start);
            cache.learned(&format!("{number}.none.example"), None, HOUR, start);
        }
        assert_eq!(cache.len(), 10);
        assert_eq!(cache.look("real.example", start), Hit::Found(1));
    }

    proptest! {
        #[test]
        fn whatever_happens_it_stays_small_and_says_nothing_that_it_was_not_told(
            events in proptest::collection::vec((0_u8..4, 0_u8..12, 0_u64..200_000), 0..200)
        ) {
            let (mut now, mut cache) = (Instant::now(), Cache::new(5));
            let mut told = HashMap::new();
            for (kind, domain, seconds) in events {
                let name = format!("{domain}.example");
                match kind {
                    0 => {
                        cache.learned(&name, Some(seconds), Duration::from_secs(seconds), now);
                        told.insert(name.clone(), Some(seconds));
                    }
                    1 => {
                        cache.learned(&name, None, Duration::from_secs(seconds), now);
                        told.insert(name.clone(), None);
                    }
                    2 => {
                        cache.failed(&name, now);
                    }
                    _ => now += Duration::from_secs(seconds),
                }
                prop_assert!(cache.len() <= 5);
                match cache.look(&name, now) {
                    Hit::Found(value) => prop_assert_eq!(told.get(&name), Some(&Some(value))),
                    Hit::None => prop_assert_eq!(told.get(&name), Some(&None)),
                    Hit::Failed | Hit::Unknown => {}
                }
            }
        }
    }
}
