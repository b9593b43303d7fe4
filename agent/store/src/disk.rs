//! The seam between the store and the disk: what the store needs of a file system, and nothing more.
//!
//! All paths are names relative to the store's folder. [`OsDisk`] is the real one; tests use a disk that loses what
//! was not synced, tears writes and fails on command.

#[cfg(test)]
pub(crate) mod simulated;

use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use crate::limits::SYNCS_MAX;

/// A folder of files.
pub trait Disk: Send + Sync + fmt::Debug + 'static {
    /// Opens a file for reading and writing; with `create`, an empty one where there is none.
    ///
    /// # Errors
    /// `NotFound` where there is none and it is not to be created; else what the system says.
    fn open(&self, name: &str, create: bool) -> io::Result<Arc<dyn DiskFile>>;
    /// Renames a file, over another one if there is one. Durable once both folders are synced.
    ///
    /// # Errors
    /// What the system says.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file; one that is not there is removed already.
    ///
    /// # Errors
    /// What the system says.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes the folder's entries (files created, renamed, removed) durable.
    ///
    /// # Errors
    /// What the system says; what was to be made durable must be taken as lost then.
    fn sync_folder(&self, folder: &str) -> io::Result<()>;
    /// Makes content and length of several files durable: what each came to, in their order. One behind the other, unless the disk
    /// knows better.
    fn sync_files(&self, files: &[&dyn DiskFile]) -> Vec<io::Result<()>> {
        files.iter().map(|file| file.sync()).collect()
    }
    /// Gives the bytes of a range back to the file system, where it can take them; they read as zeros then. The file keeps its
    /// length.
    ///
    /// # Errors
    /// What the system says; nothing is lost then but the space.
    fn free_range(&self, name: &str, range: Range<u64>) -> io::Result<()>;
    /// The names in a folder, without the folder's own.
    ///
    /// # Errors
    /// What the system says.
    fn list(&self, folder: &str) -> io::Result<Vec<String>>;
    /// Bytes that can still be written.
    ///
    /// # Errors
    /// What the system says.
    fn free(&self) -> io::Result<u64>;
    /// Where the operating system has a file of that name; none where the folder is not the operating system's.
    fn path(&self, name: &str) -> Option<PathBuf>;
}

/// An open file, shared by who reads and who writes it.
#[expect(
    clippy::len_without_is_empty,
    reason = "a file's length is a question to the system, not a collection's"
)]
pub trait DiskFile: Send + Sync + fmt::Debug {
    /// Fills `buffer` from `offset` on.
    ///
    /// # Errors
    /// `UnexpectedEof` where the file ends before; else what the system says.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `data` at `offset`, growing the file if need be.
    ///
    /// # Errors
    /// What the system says; any part of it may have been written.
    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()>;
    /// Bytes in the file.
    ///
    /// # Errors
    /// What the system says.
    fn len(&self) -> io::Result<u64>;
    /// Cuts the file, or fills it up with zeros.
    ///
    /// # Errors
    /// What the system says.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Makes content and length durable.
    ///
    /// # Errors
    /// What the system says. It is final: the system marks the lost pages clean, and a second sync would lie.
    fn sync(&self) -> io::Result<()>;
}

/// A folder of the operating system's: 0700, its files 0600, locked against a second process.
#[derive(Debug)]
pub struct OsDisk {
    root: PathBuf,
    /// Held open for its lock, which ends with the process however that ends.
    lock: File,
}

impl Drop for OsDisk {
    fn drop(&mut self) {
        // Closing does not let go of it while a process that is just being started has a copy of everything that is open.
        let _ = self.lock.unlock();
    }
}

/// Why a folder could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// Another process has it: an agent that runs.
    #[error("another process uses this store")]
    InUse,
    /// The system refused.
    #[error("{path}: {source}")]
    Io {
        /// What was to be made or opened.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The file whose lock says that a process uses the store.
const LOCK: &str = "lock";

impl OsDisk {
    /// Takes `root`, made where it is missing, with `folders` inside it.
    ///
    /// # Errors
    /// [`TakeError::InUse`] where another process has it.
    pub fn take(root: &Path, folders: &[&str]) -> Result<Self, TakeError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| TakeError::Io { path, source }
        };
        private_folder(root).map_err(failed(root))?;
        let lock_path = root.join(LOCK);
        let lock = private_file(&lock_path, true).map_err(failed(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(TakeError::InUse),
            Err(TryLockError::Error(source)) => return Err(failed(&lock_path)(source)),
        }
        for folder in folders {
            let path = root.join(folder);
            private_folder(&path).map_err(failed(&path))?;
        }
        let disk = Self { root: root.to_owned(), lock };
        disk.sync_folder("").map_err(failed(root))?;
        Ok(disk)
    }
}

impl Disk for OsDisk {
    fn open(&self, name: &str, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(private_file(&self.root.join(name), create)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.root.join(from), self.root.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match std::fs::remove_file(self.root.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    fn sync_folder(&self, folder: &str) -> io::Result<()> {
        File::open(self.root.join(folder))?.sync_all()
    }

    fn sync_files(&self, files: &[&dyn DiskFile]) -> Vec<io::Result<()>> {
        // Beside each other: a disk takes several at once, and a file system makes one commit of them.
        let sync = |files: &[&dyn DiskFile]| files.iter().map(|file| file.sync()).collect::<Vec<_>>();
        let share = files.len().div_ceil(SYNCS_MAX).max(1);
        let (first, rest) = files.split_at(share.min(files.len()));
        std::thread::scope(|scope| {
            let others: Vec<_> = rest.chunks(share).map(|files| scope.spawn(move || sync(files))).collect();
            let mut synced = sync(first);
            for (other, files) in others.into_iter().zip(rest.chunks(share)) {
                let lost = |_| files.iter().map(|_| Err(io::Error::other("a sync was cut off"))).collect();
                synced.extend(other.join().unwrap_or_else(lost));
            }
            synced
        })
    }

    fn free_range(&self, name: &str, range: Range<u64>) -> io::Result<()> {
        let file = private_file(&self.root.join(name), false)?;
        let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match fallocate(file, how, range.start, range.end - range.start) {
            // Not every file system can.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            result => Ok(result?),
        }
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(self.root.join(folder))? {
            // A name that is not UTF-8 was not given by the store.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn free(&self) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(&self.root)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        Some(self.root.join(name))
    }
}

impl DiskFile for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(buffer, offset)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(data, offset)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        Self::set_len(self, len)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

/// Makes a folder that only its owner can enter, whatever the umask; one that is there is narrowed to that.
fn private_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))
}

/// Opens a file that only its owner can read.
fn private_file(path: &Path, create: bool) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(create).truncate(false).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file whose sync says what it was made with.
    #[derive(Debug)]
    struct Said(bool);

    impl DiskFile for Said {
        fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn len(&self) -> io::Result<u64> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn set_len(&self, _: u64) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn sync(&self) -> io::Result<()> {
            if self.0 { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
        }
    }

    // Rule 1.
    #[test]
    fn bad_input_31_of_files_synced_beside_each_other_each_failure_is_told_of_its_own_file() {
        let folder = tempfile::tempdir().unwrap();
        let disk = OsDisk::take(&folder.path().join("store"), &[]).unwrap();
        for count in 0..=3 * SYNCS_MAX + 1 {
            for failing in 0..=count {
                let files: Vec<_> = (0..count).map(|index| Said(index != failing)).collect();
                let files: Vec<_> = files.iter().map(|file| file as &dyn DiskFile).collect();
                let is_synced: Vec<_> = disk.sync_files(&files).iter().map(Result::is_ok).collect();
                let expected: Vec<_> = (0..count).map(|index| index != failing).collect();
                assert_eq!(is_synced, expected);
            }
        }
    }
}
