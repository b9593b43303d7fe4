//! What a unit knows about itself: the file `unit.meta` (its form: `kept`).

use std::collections::BTreeMap;

use lighter_protocol::{Day, PeerId, UnixTime};
use serde::{Deserialize, Serialize};

use super::kept::Kept;
use crate::ids::{Epoch, SegmentId, UnitId};

/// What is kept of a unit besides its segments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitMeta {
    /// Its name.
    pub unit: UnitId,
    /// The server that it belongs to: a disk put into another server is refused there.
    pub server: PeerId,
    /// The epoch that counts for each writer.
    pub epochs: BTreeMap<PeerId, Epoch>,
    /// The latest time that was believed: a clock far before it is in doubt.
    pub latest: UnixTime,
    /// Segments whose sync failed, and up to where they were good.
    pub suspects: BTreeMap<SegmentId, u64>,
    /// Segments of which there was more here than there is: put aside, or being copied anew. With their deletion day.
    pub incomplete: BTreeMap<SegmentId, Day>,
}

/// The file's name.
pub const META_NAME: &str = "unit.meta";

/// One that is damaged keeps the unit from opening: its epochs are not known.
impl Kept for UnitMeta {
    const NAME: &'static str = META_NAME;
    const MAGIC: [u8; 8] = *b"LTRUNIT1";
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::disk::sim::SimDisk;

    #[test]
    fn it_is_read_back_and_damage_is_an_error_not_a_new_beginning() {
        let disk = SimDisk::new(1);
        assert_eq!(UnitMeta::load(&disk).unwrap(), None);
        let meta = UnitMeta {
            unit: UnitId([4; 16]),
            server: PeerId::random(),
            epochs: BTreeMap::from([(PeerId::random(), Epoch(7))]),
            latest: UnixTime(1_700_000_000),
            suspects: BTreeMap::from([(SegmentId([5; 16]), 8192)]),
            incomplete: BTreeMap::from([(SegmentId([6; 16]), Day(20_000))]),
        };
        meta.store(&disk).unwrap();
        meta.store(&disk).unwrap();
        assert_eq!(UnitMeta::load(&disk).unwrap(), Some(meta));
        disk.flip(META_NAME, 20);
        assert_eq!(UnitMeta::load(&disk).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
