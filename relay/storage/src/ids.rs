//! The array's nouns: segments, units, classes, epochs, sequence numbers, and the key of a copy.

use std::fmt;

use lighter_protocol::{Day, PeerId};
use rand::Rng;
use serde::{Deserialize, Serialize};

macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub [u8; 16]);

        impl $name {
            /// Draws a new one.
            pub fn draw(chance: &mut impl Rng) -> Self {
                let mut bytes = [0; 16];
                chance.fill_bytes(&mut bytes);
                Self(bytes)
            }

            /// Reads the 32 lower-case hexadecimal digits that [`fmt::Display`] writes.
            pub fn from_hex(text: &str) -> Option<Self> {
                let digit = |byte: u8| match byte {
                    b'0'..=b'9' => Some(byte - b'0'),
                    b'a'..=b'f' => Some(byte - b'a' + 10),
                    _ => None,
                };
                let mut bytes = [0; 16];
                let (pairs, rest) = text.as_bytes().as_chunks::<2>();
                if pairs.len() != bytes.len() || !rest.is_empty() {
                    return None;
                }
                for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
                    *byte = digit(*high)? << 4 | digit(*low)?;
                }
                Some(Self(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{self}")
            }
        }
    };
}

random_id! {
    /// Names a segment on all its members: 128 random bits, drawn by its writer.
    SegmentId
}

random_id! {
    /// Names a unit, one disk or folder of a server, for as long as it lives: 128 random bits, drawn when it is made.
    UnitId
}

random_id! {
    /// Names one upload of a segment to an object store: 128 random bits, drawn for each try.
    ObjectId
}

/// How often a writer has taken the array over: what is written under an older one is refused (DESIGN §8, fencing).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Epoch(pub u64);

/// The place of a record in the one line of all of a writer's records, whatever their segments.
///
/// The upper 24 bits are the writer's epoch, the lower 40 count within it: a restarted writer is ahead of everything
/// that its predecessor may have written, without knowing it. So numbers ascend and never come twice; they have gaps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Sequence(pub u64);

impl Sequence {
    /// Before every record.
    pub const ZERO: Self = Self(0);

    /// The number before the first of `epoch`.
    pub fn first_of(epoch: Epoch) -> Self {
        Self(epoch.0 << COUNT_BITS)
    }

    /// The next number.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// Bits of a [`Sequence`] that count within an epoch.
const COUNT_BITS: u32 = 40;

/// The retention that a record is rounded up to: it decides the segment (DESIGN §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u16)]
pub enum Class {
    /// Up to 7 days.
    Days7 = 7,
    /// Up to 30 days: the default retention.
    Days30 = 30,
    /// Up to 90 days.
    Days90 = 90,
    /// Up to 365 days.
    Days365 = 365,
}

impl Class {
    /// All of them, shortest first.
    pub const ALL: [Self; 4] = [Self::Days7, Self::Days30, Self::Days90, Self::Days365];

    /// How many days.
    pub fn days(self) -> u32 {
        u32::from(self as u16)
    }

    /// The class that keeps something for at least `days`; `None` where no class does.
    pub fn for_days(days: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.days() >= days)
    }

    /// The class of so many days exactly: as it is written in a segment's header.
    pub(crate) fn from_days(days: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|class| *class as u16 == days)
    }

    /// The last day of a segment of this class whose first record was stored on `storage_day`: at its end every unit
    /// deletes it by itself. The class's end, and seven days of grace (DESIGN §8).
    // SPEC: C11
    pub fn deletion_day(self, storage_day: Day) -> Day {
        storage_day.plus(self.days()).plus(GRACE_DAYS)
    }
}

/// Days that storage servers keep a segment beyond its class's end (DESIGN §3 rule 3).
pub const GRACE_DAYS: u32 = 7;

/// Where one copy of a record lies: what a member's acknowledgement is (SPEC C8).
// SPEC: C8
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DataKey {
    /// The server that has it.
    pub server: PeerId,
    /// The server's unit that has it.
    pub unit: UnitId,
    /// The segment.
    pub segment: SegmentId,
    /// Where the record begins in the segment.
    pub offset: u64,
    /// Bytes of the whole record.
    pub length: u32,
    /// At the end of this day it is deleted.
    pub deletion_day: Day,
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn retention_is_rounded_up_to_a_class() {
        assert_eq!(Class::for_days(0), Some(Class::Days7));
        assert_eq!(Class::for_days(7), Some(Class::Days7));
        assert_eq!(Class::for_days(8), Some(Class::Days30));
        assert_eq!(Class::for_days(365), Some(Class::Days365));
        assert_eq!(Class::for_days(366), None);
        assert_eq!(Class::Days30.deletion_day(Day(100)), Day(137));
    }

    #[test]
    fn an_id_reads_back_what_it_writes_and_nothing_else() {
        let id = SegmentId::draw(&mut rand::rngs::StdRng::seed_from_u64(1));
        let text = id.to_string();
        assert_eq!(SegmentId::from_hex(&text), Some(id));
        for bad in ["", &text[1..], &format!("{text}0"), &text.to_uppercase(), &text.replace(&text[..1], "g")]
        {
            assert_eq!(SegmentId::from_hex(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_later_epoch_is_ahead_of_everything_before() {
        let last = Sequence(Sequence::first_of(Epoch(7)).0 | ((1 << COUNT_BITS) - 1));
        assert!(Sequence::first_of(Epoch(8)) > last);
        assert_eq!(Sequence::first_of(Epoch(7)).next().0, (7 << 40) + 1);
    }
}
