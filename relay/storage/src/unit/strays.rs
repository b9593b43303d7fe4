//! Objects that may be in the store and are no copy: each is named by a file `SEGMENT-OBJECT.stray`, from before it is
//! begun until the store has said that it is gone. So none is forgotten, whatever crashes, and however long the store is
//! away.
//!
//! ```text
//! 0   8  magic "LTRSTRAY"
//! 8   2  n
//! 10  n  what the store calls the upload
//!     4  CRC32C of everything before
//! ```
//! Anything else, or nothing, in the file: no upload is known, which is so before one is begun, for an object that was put in
//! one piece, and where the file was a stub once: what was dropped or has expired is renamed to be one, its key erased.

use std::collections::BTreeSet;
use std::io;

use super::{Unit, gone_or_not_there};
use crate::disk::{Disk, DiskFile};
use crate::limits::{SEGMENT_HEADER_LEN, UPLOAD_NAME_LEN_MAX};
use crate::objects::ObjectName;
use crate::record::read_u32;

const MAGIC: [u8; 8] = *b"LTRSTRAY";
const SUFFIX: &str = ".stray";
const NAME_AT: usize = 10;

/// What a unit knows of them.
#[derive(Debug, Default)]
pub(super) struct Strays {
    known: BTreeSet<ObjectName>,
    /// Of those, what somebody uploads now.
    in_flight: BTreeSet<ObjectName>,
}

/// An object to be removed from the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stray {
    /// Which one.
    pub name: ObjectName,
    /// What the store calls its upload, where it came in parts.
    pub upload: Option<String>,
}

impl<D: Disk> Unit<D> {
    /// Objects that are to be removed from the store, or are being uploaded.
    pub fn stray_count(&self) -> u64 {
        self.strays.known.len() as u64
    }

    /// Makes it known that `name` may be in the store from now on.
    pub(super) fn begin_stray(&mut self, name: ObjectName) -> io::Result<D::File> {
        let file = self.disk.create(&stray_name(&name))?;
        self.strays.known.insert(name);
        self.strays.in_flight.insert(name);
        if let Err(error) = self.disk.sync_dir() {
            self.end_flight(name);
            return Err(error);
        }
        Ok(file)
    }

    /// Nobody uploads it any more.
    pub(super) fn end_flight(&mut self, name: ObjectName) {
        self.strays.in_flight.remove(&name);
        self.shelf.stirred();
    }

    /// Up to `count` objects that are to be removed from the store.
    pub fn strays(&self, count: usize) -> Vec<Stray> {
        let due = self.strays.known.difference(&self.strays.in_flight).filter(|name| !self.is_copy(name));
        due.take(count).map(|name| Stray { name: *name, upload: self.upload_of(name) }).collect()
    }

    /// The store says that it is gone, or it has become a copy. A file that comes back after a crash does no harm.
    ///
    /// # Errors
    /// The disk's.
    pub fn forget_stray(&mut self, name: ObjectName) -> io::Result<()> {
        gone_or_not_there(self.disk.remove(&stray_name(&name)))?;
        self.strays.known.remove(&name);
        Ok(())
    }

    /// Whether an object of this unit is accounted for: as a copy, one that was set aside, or a stray.
    ///
    /// # Errors
    /// The disk's.
    pub fn unaccounted(&self, mut names: Vec<ObjectName>) -> io::Result<Vec<ObjectName>> {
        let aside: BTreeSet<_> =
            self.disk.list()?.iter().filter_map(|file| super::leave::object_aside(file)).collect();
        names
            .retain(|name| !self.strays.known.contains(name) && !self.is_copy(name) && !aside.contains(name));
        Ok(names)
    }

    fn is_copy(&self, name: &ObjectName) -> bool {
        let there = self.shelf.get(name.segment);
        there.is_some_and(|shelved| shelved.moved().is_some_and(|place| place.name == *name))
    }

    fn upload_of(&self, name: &ObjectName) -> Option<String> {
        let file = self.disk.open(&stray_name(name)).ok()?;
        let len = usize::try_from(file.len().ok()?).ok()?;
        let mut bytes = vec![0; len.min(NAME_AT + UPLOAD_NAME_LEN_MAX + 4)];
        file.read_at(0, &mut bytes).ok()?;
        decode_upload(&bytes)
    }

    /// Makes the stub called `file` a stray: it is no copy any more once the name is synced, which is the caller's to do.
    pub(super) fn make_stray(&mut self, file: &str, name: ObjectName) -> io::Result<()> {
        gone_or_not_there(self.disk.rename(file, &stray_name(&name)))?;
        self.strays.known.insert(name);
        self.shelf.stirred();
        Ok(())
    }

    /// Overwrites the header block that a stray file has where it was a stub.
    pub(super) fn wipe_stray(&self, name: &ObjectName) -> io::Result<()> {
        let file = match self.disk.open(&stray_name(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        if file.len()? >= SEGMENT_HEADER_LEN as u64 {
            file.write_at(0, &[0; SEGMENT_HEADER_LEN])?;
            file.sync_data()?;
        }
        Ok(())
    }

    /// At a start, once all stubs are known: takes in a stray file, or removes it where the object is a copy.
    pub(super) fn open_stray(&mut self, name: ObjectName) -> io::Result<()> {
        if self.is_copy(&name) {
            return gone_or_not_there(self.disk.remove(&stray_name(&name)));
        }
        let file_len = self.disk.open(&stray_name(&name))?.len()?;
        let is_upload =
            file_len <= (NAME_AT + UPLOAD_NAME_LEN_MAX + 4) as u64 && self.upload_of(&name).is_some();
        if !is_upload {
            self.wipe_stray(&name)?;
        }
        self.strays.known.insert(name);
        Ok(())
    }
}

pub(super) fn stray_name(name: &ObjectName) -> String {
    format!("{name}{SUFFIX}")
}

/// The object that the file of this name names; `None` for other files.
pub(super) fn stray_of(file_name: &str) -> Option<ObjectName> {
    ObjectName::parse(file_name.strip_suffix(SUFFIX)?)
}

/// What stands in a stray file of which an upload was begun; `None` for a name that is too long.
pub(super) fn encode_upload(upload: &str) -> Option<Vec<u8>> {
    let len = u16::try_from(upload.len()).ok().filter(|len| usize::from(*len) <= UPLOAD_NAME_LEN_MAX)?;
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&len.to_le_bytes());
    bytes.extend_from_slice(upload.as_bytes());
    let crc = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    Some(bytes)
}

/// What the store calls the upload.
pub(super) fn decode_upload(bytes: &[u8]) -> Option<String> {
    let len = usize::from(u16::from_le_bytes([*bytes.get(8)?, *bytes.get(9)?]));
    let body = bytes.get(..NAME_AT + len).filter(|body| body.starts_with(&MAGIC))?;
    let is_sound = bytes.len() == body.len() + 4 && crc32c::crc32c(body) == read_u32(bytes, body.len());
    is_sound.then(|| String::from_utf8(body[NAME_AT..].to_vec()).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stores_name_of_an_upload_is_kept_in_these_bytes() {
        let bytes = encode_upload("up-1").unwrap();
        let golden = [
            b"LTRSTRAY".as_slice(),
            &[4, 0],                   // length
            b"up-1",                   // what the store calls it
            &[0xE4, 0xB6, 0xA1, 0x67], // CRC32C
        ];
        assert_eq!(bytes, golden.concat());
        assert_eq!(decode_upload(&bytes).as_deref(), Some("up-1"));
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert_eq!(decode_upload(&bad), None, "at {at}");
            assert_eq!(decode_upload(&bytes[..at]), None, "cut at {at}");
        }
        assert_eq!(encode_upload(&"x".repeat(UPLOAD_NAME_LEN_MAX + 1)), None);
    }
}
