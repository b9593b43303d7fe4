//! Where a blob lies in the array: what the catalog keeps for each blob.

use lighter_protocol::{BlobId, Day};
use serde::{Deserialize, Serialize};

use crate::ids::SegmentId;
use crate::limits::{BLOB_PORTIONS_MAX, RECORD_ALIGN, RECORD_LEN_MAX, SEGMENT_LEN_MAX};

/// A blob that the array keeps: plain data, for the catalog.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredBlob {
    /// Its hash: what every read is checked against.
    pub id: BlobId,
    /// Its bytes.
    pub size: u64,
    /// Where its records lie.
    pub location: BlobLocation,
}

/// Where the records of one written blob lie: one record for each portion, in order. The members of each segment are
/// in the array's table; with them, a place becomes one [`crate::DataKey`] for each copy (`Array::data_keys`).
///
/// Records of equal length that lie one behind the other are one run: a large blob that was written alone takes a
/// few bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobLocation {
    /// The segments, in order, with the deletion day of each.
    segments: Vec<(SegmentId, Day)>,
    runs: Vec<Run>,
}

/// `count` records of `length` bytes each, from `offset` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Run {
    segment: u16,
    offset: u64,
    length: u32,
    count: u32,
}

/// One record's place, the same on every copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RecordPlace {
    /// The segment.
    pub segment: SegmentId,
    /// Where the record begins.
    pub offset: u64,
    /// Bytes of the whole record.
    pub length: u32,
    /// The segment's deletion day.
    pub deletion_day: Day,
}

impl BlobLocation {
    /// Records, and so portions (an empty blob has one record, too).
    pub fn len(&self) -> u64 {
        self.runs.iter().map(|run| u64::from(run.count)).sum()
    }

    /// Whether there is no record at all: no blob has such a location.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// The day at whose end the first of its segments is deleted; `None` for no record.
    pub fn deletion_day(&self) -> Option<Day> {
        self.segments.iter().map(|(_, day)| *day).min()
    }

    /// Where the record of the portion at `index` lies.
    pub fn place(&self, index: u64) -> Option<RecordPlace> {
        let mut skipped = 0;
        for run in &self.runs {
            let count = u64::from(run.count);
            if index < skipped + count {
                let (segment, deletion_day) = *self.segments.get(usize::from(run.segment))?;
                let offset = run.offset.checked_add((index - skipped) * u64::from(run.length))?;
                return Some(RecordPlace { segment, offset, length: run.length, deletion_day });
            }
            skipped += count;
        }
        None
    }

    /// All places, in order.
    pub fn places(&self) -> impl Iterator<Item = RecordPlace> + '_ {
        (0..self.len()).map_while(|index| self.place(index))
    }

    /// Adds the place of the next record.
    pub(crate) fn push(&mut self, place: RecordPlace) {
        let last = (place.segment, place.deletion_day);
        if self.segments.last() != Some(&last) {
            self.segments.push(last);
        }
        let segment = u16::try_from(self.segments.len() - 1).unwrap_or(u16::MAX);
        if let Some(run) = self.runs.last_mut()
            && run.segment == segment
            && run.length == place.length
            && run.offset + u64::from(run.length) * u64::from(run.count) == place.offset
        {
            run.count += 1;
            return;
        }
        self.runs.push(Run { segment, offset: place.offset, length: place.length, count: 1 });
    }

    /// Whether this could be the location of a stored blob: for what was read from somewhere else. A location that
    /// passes may still name records that are not there.
    pub fn is_sound(&self) -> bool {
        let align = RECORD_ALIGN as u64;
        let run_is_sound = |run: &Run| {
            let bytes = u64::from(run.length).checked_mul(u64::from(run.count));
            usize::from(run.segment) < self.segments.len()
                && run.count > 0
                && run.length > 0
                && run.length as usize <= RECORD_LEN_MAX
                && run.offset.is_multiple_of(align)
                && u64::from(run.length).is_multiple_of(align)
                && bytes
                    .and_then(|bytes| bytes.checked_add(run.offset))
                    .is_some_and(|end| end <= SEGMENT_LEN_MAX)
        };
        !self.is_empty() && self.runs.iter().all(run_is_sound) && self.len() <= BLOB_PORTIONS_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(segment: u8, offset: u64, length: u32) -> RecordPlace {
        let deletion_day = Day(100 + u32::from(segment));
        RecordPlace { segment: SegmentId([segment; 16]), offset, length, deletion_day }
    }

    #[test]
    fn places_come_back_in_order_and_neighbours_are_one_run() {
        let places = [
            place(1, 4096, 1024),
            place(1, 5120, 1024),
            place(1, 6144, 1024),
            place(1, 9216, 1024),
            place(1, 10240, 512),
            place(2, 4096, 512),
            place(2, 4608, 512),
        ];
        let mut location = BlobLocation::default();
        places.iter().for_each(|place| location.push(*place));
        assert_eq!(location.places().collect::<Vec<_>>(), places);
        assert_eq!(location.runs.len(), 4);
        assert_eq!(location.segments.len(), 2);
        assert_eq!(location.len(), 7);
        assert_eq!(location.place(7), None);
        assert_eq!(location.deletion_day(), Some(Day(101)));
        assert!(location.is_sound());
    }

    #[test]
    fn a_gigabyte_that_was_written_alone_takes_a_few_bytes() {
        let mut location = BlobLocation::default();
        (0..1000).for_each(|index| location.push(place(1, 4096 + index * 1_052_880, 1_052_880)));
        assert!(postcard::to_stdvec(&location).unwrap().len() < 40);
    }

    #[test]
    fn bad_input_34_a_location_that_cannot_be_is_told() {
        let sound = Run { segment: 0, offset: 4096, length: 1024, count: 1 };
        let bad = [
            Run { segment: 1, ..sound },
            Run { count: 0, ..sound },
            Run { length: 0, ..sound },
            Run { length: !15, ..sound },
            Run { offset: 4097, ..sound },
            Run { offset: !15, ..sound },
            Run { count: u32::MAX, ..sound },
        ];
        for run in bad {
            let location = BlobLocation { segments: vec![(SegmentId([1; 16]), Day(1))], runs: vec![run] };
            assert!(!location.is_sound(), "{run:?}");
            let _ = location.place(0);
        }
        assert!(!BlobLocation::default().is_sound());
    }
}
