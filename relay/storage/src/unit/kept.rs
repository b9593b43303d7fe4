//! A small file that is replaced whole, and never changed in place.
//!
//! ```text
//! 0  8  magic
//! 8  n  postcard encoding
//!    4  CRC32C of everything before
//! ```
//! It is replaced in one step: new file, sync, rename, directory sync. After a crash there is the old one or the new one.

use std::io;

use serde::{Deserialize, Serialize};

use crate::disk::{Disk, DiskFile, replace};
use crate::record::read_u32;

/// A few writers, or a few thousand segments: far below.
const LEN_MAX: u64 = 1024 * 1024;

/// What is kept in such a file.
pub(super) trait Kept: Serialize + for<'a> Deserialize<'a> {
    /// The file's name.
    const NAME: &'static str;
    /// Its first bytes.
    const MAGIC: [u8; 8];

    /// Reads it; `None` where there is none yet.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] where it is damaged.
    fn load<D: Disk>(disk: &D) -> io::Result<Option<Self>> {
        let file = match disk.open(Self::NAME) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let len = file.len()?;
        if !(12..=LEN_MAX).contains(&len) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
        file.read_at(0, &mut bytes)?;
        decode(&bytes).map(Some).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Writes it durably.
    ///
    /// # Errors
    /// The disk's.
    fn store<D: Disk>(&self, disk: &D) -> io::Result<()> {
        let mut bytes = Self::MAGIC.to_vec();
        bytes.extend(postcard::to_stdvec(self).map_err(io::Error::other)?);
        let crc = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        replace(disk, Self::NAME, &bytes)
    }
}

fn decode<K: Kept>(bytes: &[u8]) -> Option<K> {
    let body_len = bytes.len().checked_sub(4)?;
    let body = bytes.get(..body_len)?;
    if crc32c::crc32c(body) != read_u32(bytes, body_len) {
        return None;
    }
    let (kept, rest) = postcard::take_from_bytes(body.strip_prefix(&K::MAGIC)?).ok()?;
    rest.is_empty().then_some(kept)
}
