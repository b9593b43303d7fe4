//! Which chunk groups of a blob are there: sorted, disjoint ranges of group numbers.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::limits::GROUP_LEN;

/// A set of chunk groups.
///
/// Invariant: `ranges[i].start < ranges[i].end < ranges[i + 1].start` (neighbours that touch are one range).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Groups {
    ranges: Vec<Range<u64>>,
}

/// How many groups a blob of `size` bytes has; the empty blob has one, of no bytes.
pub fn count(size: u64) -> u64 {
    size.div_ceil(GROUP_LEN).max(1)
}

/// The bytes of group range `groups` in a blob of `size` bytes.
pub fn bytes(groups: &Range<u64>, size: u64) -> Range<u64> {
    (groups.start * GROUP_LEN).min(size)..(groups.end * GROUP_LEN).min(size)
}

impl Groups {
    /// All groups of a blob of `size` bytes.
    pub fn all(size: u64) -> Self {
        Self { ranges: vec![0..count(size)] }
    }

    /// What was stored, if it keeps the invariant and fits a blob of `size` bytes: data from the disk is not trusted.
    pub fn checked(self, size: u64) -> Option<Self> {
        let ordered = self.ranges.iter().all(|range| range.start < range.end)
            && self.ranges.windows(2).all(|pair| pair[0].end < pair[1].start)
            && self.ranges.last().is_none_or(|last| last.end <= count(size));
        ordered.then_some(self)
    }

    /// Adds a range.
    pub fn insert(&mut self, added: Range<u64>) {
        if added.is_empty() {
            return;
        }
        let from = self.ranges.partition_point(|range| range.end < added.start);
        let to = self.ranges.partition_point(|range| range.start <= added.end);
        let touched = &self.ranges[from..to];
        let start = touched.first().map_or(added.start, |first| first.start.min(added.start));
        let end = touched.last().map_or(added.end, |last| last.end.max(added.end));
        self.ranges.splice(from..to, [start..end]);
    }

    /// Adds all of `other`.
    pub fn extend(&mut self, other: &Self) {
        for range in &other.ranges {
            self.insert(range.clone());
        }
    }

    /// What of a blob of `size` bytes is not in the set.
    pub fn missing(&self, size: u64) -> Self {
        let mut ranges = Vec::with_capacity(self.ranges.len() + 1);
        let mut next = 0;
        for range in &self.ranges {
            if next < range.start {
                ranges.push(next..range.start);
            }
            next = range.end;
        }
        if next < count(size) {
            ranges.push(next..count(size));
        }
        Self { ranges }
    }

    /// Whether any group of `range` is in the set.
    pub fn touches(&self, range: &Range<u64>) -> bool {
        let at = self.ranges.partition_point(|held| held.end <= range.start);
        self.ranges.get(at).is_some_and(|held| held.start < range.end)
    }

    /// Whether every group of a blob of `size` bytes is in the set.
    pub fn is_all(&self, size: u64) -> bool {
        self.ranges == [0..count(size)]
    }

    /// Whether no group is in the set.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Bytes that the set covers of a blob of `size` bytes.
    pub fn len_bytes(&self, size: u64) -> u64 {
        self.ranges.iter().map(|range| bytes(range, size)).map(|range| range.end - range.start).sum()
    }

    /// The ranges, ascending.
    pub fn iter(&self) -> impl Iterator<Item = &Range<u64>> {
        self.ranges.iter()
    }

    /// Forgets the smallest ranges until at most `max` are left.
    pub fn bounded(mut self, max: usize) -> Self {
        if self.ranges.len() > max {
            let mut lens: Vec<u64> = self.ranges.iter().map(|range| range.end - range.start).collect();
            let cut = lens.len() - max;
            let (_, &mut threshold, _) = lens.select_nth_unstable(cut);
            self.ranges.retain(|range| range.end - range.start >= threshold);
            self.ranges.truncate(max);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn groups_behave_as_a_set_of_numbers(ranges in proptest::collection::vec((0_u64..60, 0_u64..12), 0..20)) {
            let size = 80 * GROUP_LEN - 5;
            let (mut groups, mut model) = (Groups::default(), BTreeSet::new());
            for (start, len) in ranges {
                groups.insert(start..start + len);
                model.extend(start..start + len);
            }
            prop_assert_eq!(groups.clone().checked(size), Some(groups.clone()));
            let listed: BTreeSet<u64> = groups.iter().cloned().flatten().collect();
            prop_assert_eq!(&listed, &model);
            let missing: BTreeSet<u64> = groups.missing(size).iter().cloned().flatten().collect();
            prop_assert_eq!(missing, (0..80).filter(|group| !model.contains(group)).collect::<BTreeSet<_>>());
            for at in 0..80 {
                prop_assert_eq!(groups.touches(&(at..at + 1)), model.contains(&at));
            }
            prop_assert!(groups.clone().bounded(3).iter().count() <= 3);
            prop_assert!(groups.clone().bounded(3).checked(size).is_some());
        }
    }

    #[test]
    fn the_empty_blob_has_one_group_of_no_bytes() {
        assert_eq!(count(0), 1);
        assert!(Groups::all(0).is_all(0));
        assert_eq!(Groups::all(0).len_bytes(0), 0);
        assert_eq!(bytes(&(0..1), 0), 0..0);
    }

    #[test]
    fn stored_groups_that_break_the_invariant_are_not_taken() {
        let size = 3 * GROUP_LEN;
        for ranges in [vec![2..1], vec![0..1, 1..2], vec![1..2, 0..1], vec![0..4]] {
            assert_eq!(Groups { ranges }.checked(size), None);
        }
    }
}
