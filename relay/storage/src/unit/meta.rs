//! What a unit knows about itself: the file `unit.meta`.
//!
//! ```text
//! 0  8  magic "LTRUNIT1"
//! 8  n  postcard encoding of `UnitMeta`
//!    4  CRC32C of everything before
//! ```
//! It is replaced in one step (new file, sync, rename, directory sync), never changed in place.

use std::collections::BTreeMap;
use std::io;

use lighter_protocol::{Day, PeerId, UnixTime};
use serde::{Deserialize, Serialize};

use crate::disk::{Disk, DiskFile, replace};
use crate::ids::{Epoch, SegmentId, UnitId};
use crate::record::read_u32;

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
const MAGIC: &[u8; 8] = b"LTRUNIT1";
/// A few writers, and what failed: far below.
const META_LEN_MAX: u64 = 1024 * 1024;

impl UnitMeta {
    /// Reads it; `None` where there is none yet.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] where it is damaged: the unit is not opened then, its epochs are not known.
    pub fn load<D: Disk>(disk: &D) -> io::Result<Option<Self>> {
        let file = match disk.open(META_NAME) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let len = file.len()?;
        if !(12..=META_LEN_MAX).contains(&len) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
        file.read_at(0, &mut bytes)?;
        Self::decode(&bytes).map(Some).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Writes it durably.
    ///
    /// # Errors
    /// The disk's.
    pub fn store<D: Disk>(&self, disk: &D) -> io::Result<()> {
        replace(disk, META_NAME, &self.encode())
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(postcard::to_stdvec(self).expect("maps of plain values encode"));
        let crc = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let body_len = bytes.len().checked_sub(4)?;
        let body = bytes.get(..body_len)?;
        if crc32c::crc32c(body) != read_u32(bytes, body_len) {
            return None;
        }
        let (meta, rest) = postcard::take_from_bytes(body.strip_prefix(MAGIC)?).ok()?;
        rest.is_empty().then_some(meta)
    }
}

#[cfg(test)]
mod tests {
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
