//! The seam to a disk: what a unit asks of the folder that it lives in.
//!
//! Names are plain file names within that one folder. Two implementations: [`RealDisk`], and the simulated
//! `sim::SimDisk`, which tears, loses, delays and refuses as a seed says. The code above knows neither.
//!
//! What a caller may rely on after a crash: bytes whose [`DiskFile::sync_data`] returned well; names whose
//! [`Disk::sync_dir`] returned well. Nothing else: an unsynced write may be there in part, and in any order.
//! A failed sync tells nothing about what is on the disk, and calling it again may lie (Rebello et al., ATC'20).

mod real;
#[cfg(any(test, feature = "sim"))]
pub mod sim;

use std::io::{self, IoSlice};

pub use real::{RealDisk, RealFile};

/// A folder.
pub trait Disk: Clone + Send + Sync + 'static {
    /// A file in it.
    type File: DiskFile;

    /// Makes a new file; an error where the name is taken.
    fn create(&self, name: &str) -> io::Result<Self::File>;
    /// Opens a file for reading and writing.
    fn open(&self, name: &str) -> io::Result<Self::File>;
    /// Gives a file another name, in place of what has that name.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// The names of all files, sorted.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Makes names durable: new, changed and removed ones.
    fn sync_dir(&self) -> io::Result<()>;
    /// How much room there is.
    fn space(&self) -> io::Result<Space>;
}

/// An open file.
#[expect(clippy::len_without_is_empty, reason = "a file's length is asked for, not whether it has one")]
pub trait DiskFile: Send + Sync + 'static {
    /// Bytes of the file.
    fn len(&self) -> io::Result<u64>;
    /// Fills `bytes` from `offset` on; [`io::ErrorKind::UnexpectedEof`] where the file ends before.
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()>;
    /// Writes all of `bytes` from `offset` on.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Writes all of `pieces`, one behind the other, from `offset` on: in fewer steps than one by one, where the disk knows
    /// how. After an error any part of them may be there.
    fn write_gathered_at(&self, offset: u64, pieces: &[IoSlice<'_>]) -> io::Result<()> {
        let mut at = offset;
        for piece in pieces {
            self.write_at(at, piece)?;
            at += piece.len() as u64;
        }
        Ok(())
    }
    /// Cuts or lengthens (with zeros) the file.
    fn truncate(&self, len: u64) -> io::Result<()>;
    /// Makes contents and length durable.
    fn sync_data(&self) -> io::Result<()>;
    /// Lets a cache drop what it holds of a stretch, if it does: the next read of it comes from the disk.
    fn drop_cached(&self, _offset: u64, _len: u64) {}
}

/// Room on a disk, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// All of it.
    pub total: u64,
    /// What is free for us.
    pub free: u64,
}

/// Writes `bytes` as the file `name`, durably and in one step: after a crash there is the old file or the new one.
pub(crate) fn replace<D: Disk>(disk: &D, name: &str, bytes: &[u8]) -> io::Result<()> {
    let next = format!("{name}.next");
    match disk.remove(&next) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = disk.create(&next)?;
    file.write_at(0, bytes)?;
    file.sync_data()?;
    disk.rename(&next, name)?;
    disk.sync_dir()
}
