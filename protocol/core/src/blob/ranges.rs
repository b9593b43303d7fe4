//! Which bytes of a blob are verified and on disk: what a store keeps to go on with an interrupted pull.
//!
//! # Format
//! ```text
//! count                              ranges that follow
//! count × (gap, length)              gap: bytes from the end of the range before; 0 only for the first
//! ```
//! All are varints: 7 bits a byte, lowest first, the top bit set on all but the last (LEB128), in the shortest form.
//! So there is exactly one encoding of a set, and sorted, apart and non-empty ranges are the only ones it can say.

use std::ops::Range;

use super::GROUP_LEN;
use crate::limits::{BLOB_SIZE_MAX, GET_RANGES_MAX, RANGE_SET_RANGES_MAX};

/// A set of bytes, as ranges.
///
/// Invariants: `start < end ≤ BLOB_SIZE_MAX` for each range; each starts behind the end of the one before (two that
/// touch are one); at most [`RANGE_SET_RANGES_MAX`] of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct RangeSet {
    ranges: Vec<Range<u64>>,
}

/// Why bytes are no range set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeSetError {
    /// A number is cut off, too large or not in its shortest form.
    #[error("malformed number at byte {0}")]
    Number(usize),
    /// A range is empty, or touches the one before.
    #[error("range {0} is empty or not apart from the one before")]
    Range(usize),
    /// A range ends beyond the largest blob.
    #[error("range {0} ends beyond the largest blob")]
    Beyond(usize),
    /// More ranges than [`RANGE_SET_RANGES_MAX`].
    #[error("too many ranges")]
    TooMany,
    /// Bytes behind the last range.
    #[error("bytes left over")]
    LeftOver,
}

impl RangeSet {
    /// No bytes.
    pub fn new() -> Self {
        Self::default()
    }

    /// The bytes of a whole blob of `size` bytes.
    pub fn whole(size: u64) -> Self {
        let mut set = Self::new();
        set.insert(0..size);
        set
    }

    /// Whether there are no bytes in it.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// How many bytes there are in it.
    pub fn len(&self) -> u64 {
        self.ranges.iter().map(|range| range.end - range.start).sum()
    }

    /// Whether it holds every byte of a blob of `size` bytes.
    pub fn is_whole(&self, size: u64) -> bool {
        size == 0 || self.contains(&(0..size))
    }

    /// Whether it holds all of `range`.
    pub fn contains(&self, range: &Range<u64>) -> bool {
        if range.is_empty() {
            return true;
        }
        let at = self.ranges.partition_point(|known| known.end <= range.start);
        self.ranges.get(at).is_some_and(|known| known.start <= range.start && range.end <= known.end)
    }

    /// The ranges, ascending and apart.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Range<u64>> + '_ {
        self.ranges.iter().cloned()
    }

    /// Adds `range` (cut at [`BLOB_SIZE_MAX`]), and says whether it is in now: a set that would fall into more than
    /// [`RANGE_SET_RANGES_MAX`] ranges stays as it is. What is forgotten so is pulled again: slower, never wrong.
    pub fn insert(&mut self, range: Range<u64>) -> bool {
        let (mut start, mut end) = (range.start, range.end.min(BLOB_SIZE_MAX));
        if start >= end {
            return range.is_empty();
        }
        let first = self.ranges.partition_point(|known| known.end < start);
        let last = self.ranges.partition_point(|known| known.start <= end);
        if first == last && self.ranges.len() == RANGE_SET_RANGES_MAX {
            return false;
        }
        if let Some(known) = self.ranges.get(first..last).filter(|known| !known.is_empty()) {
            start = start.min(known[0].start);
            end = end.max(known[known.len() - 1].end);
        }
        self.ranges.splice(first..last, std::iter::once(start..end));
        true
    }

    /// Takes the bytes of `other` out.
    pub fn subtract(&mut self, other: &Self) {
        let mut rest = Self::new();
        let mut others = other.ranges.iter().peekable();
        for range in &self.ranges {
            let mut start = range.start;
            while let Some(taken) = others.peek() {
                if taken.start >= range.end {
                    break;
                }
                if taken.end > start {
                    rest.insert(start..taken.start.max(start));
                    start = taken.end;
                }
                if taken.end > range.end {
                    break; // it may reach into the next range, too
                }
                others.next();
            }
            rest.insert(start.min(range.end)..range.end);
        }
        *self = rest;
    }

    /// The first `len` bytes or a little more (up to a chunk group's edge), in at most `ranges` ranges.
    #[must_use]
    pub fn take(&self, len: u64, ranges: usize) -> Self {
        let mut taken = Self::new();
        let mut room = len;
        for range in self.ranges.iter().take(ranges) {
            if room == 0 {
                break;
            }
            let edge = range.start.saturating_add(room).next_multiple_of(GROUP_LEN);
            let end = edge.min(range.end);
            taken.insert(range.start..end);
            room = room.saturating_sub(end - range.start);
        }
        taken
    }

    /// What is missing of a blob of `size` bytes, rounded out to chunk groups, ascending: what to ask for.
    pub fn missing(&self, size: u64) -> Self {
        let mut missing = Self::new();
        let mut end = 0;
        let known = self.ranges.iter().filter(|range| range.start < size).cloned();
        for range in known.chain(std::iter::once(size..size)) {
            if end < range.start {
                let from = end / GROUP_LEN * GROUP_LEN;
                missing.insert(from..range.start.next_multiple_of(GROUP_LEN).min(size));
            }
            end = range.end;
        }
        missing
    }

    /// The first [`GET_RANGES_MAX`] ranges, for a [`crate::wire::Get`].
    pub fn to_wire(&self) -> Vec<(u64, u64)> {
        self.ranges.iter().take(GET_RANGES_MAX).map(|range| (range.start, range.end)).collect()
    }

    /// Cuts the set into at most `pieces` sets of about the same number of bytes, at chunk groups: one for each range
    /// stream. Their union is the set; none is empty, and they share no byte.
    pub fn split(&self, pieces: usize) -> Vec<Self> {
        let share = self.len().div_ceil(pieces.max(1) as u64).next_multiple_of(GROUP_LEN).max(GROUP_LEN);
        let mut sets: Vec<Self> = Vec::new();
        let mut room = 0;
        for range in &self.ranges {
            let mut start = range.start;
            while start < range.end {
                if room == 0 {
                    sets.push(Self::new());
                    room = share;
                }
                // At a group's edge of the blob, not of the range: what is asked for is rounded out to groups.
                let edge = start.saturating_add(room).next_multiple_of(GROUP_LEN);
                let end = edge.min(range.end);
                if let Some(set) = sets.last_mut() {
                    set.insert(start..end);
                }
                room = room.saturating_sub(end - start);
                start = end;
            }
        }
        sets
    }

    /// Encodes the set.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(2 + self.ranges.len() * 8);
        put_varint(&mut bytes, self.ranges.len() as u64);
        let mut end = 0;
        for range in &self.ranges {
            put_varint(&mut bytes, range.start - end);
            put_varint(&mut bytes, range.end - range.start);
            end = range.end;
        }
        bytes
    }

    /// Decodes what [`RangeSet::to_bytes`] gave.
    ///
    /// # Errors
    /// Says what is wrong, and where.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, RangeSetError> {
        let mut input = Varints { bytes, at: 0 };
        let count = usize::try_from(input.next()?).unwrap_or(usize::MAX);
        if count > RANGE_SET_RANGES_MAX {
            return Err(RangeSetError::TooMany);
        }
        let mut ranges: Vec<Range<u64>> = Vec::new();
        let mut end = 0_u64;
        for index in 0..count {
            let (gap, len) = (input.next()?, input.next()?);
            if len == 0 || (gap == 0 && index > 0) {
                return Err(RangeSetError::Range(index));
            }
            let start = end.checked_add(gap).ok_or(RangeSetError::Beyond(index))?;
            end = start
                .checked_add(len)
                .filter(|end| *end <= BLOB_SIZE_MAX)
                .ok_or(RangeSetError::Beyond(index))?;
            ranges.push(start..end);
        }
        if input.at < bytes.len() { Err(RangeSetError::LeftOver) } else { Ok(Self { ranges }) }
    }
}

impl FromIterator<Range<u64>> for RangeSet {
    fn from_iter<I: IntoIterator<Item = Range<u64>>>(ranges: I) -> Self {
        let mut set = Self::new();
        for range in ranges {
            set.insert(range);
        }
        set
    }
}

fn put_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(u8::try_from(value & 0x7f).unwrap_or_default() | 0x80);
        value >>= 7;
    }
    bytes.push(u8::try_from(value).unwrap_or_default());
}

/// Reads varints off a slice.
struct Varints<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Varints<'_> {
    fn next(&mut self) -> Result<u64, RangeSetError> {
        let malformed = RangeSetError::Number(self.at);
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = *self.bytes.get(self.at).ok_or(malformed)?;
            self.at += 1;
            let bits = u64::from(byte & 0x7f);
            if (bits << shift) >> shift != bits {
                return Err(malformed);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                // The shortest form: no number of several bytes ends with an empty one.
                return if byte == 0 && shift > 0 { Err(malformed) } else { Ok(value) };
            }
        }
        Err(malformed)
    }
}
