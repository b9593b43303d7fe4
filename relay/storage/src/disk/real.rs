//! A folder of the operating system.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::num::NonZeroU64;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Advice, FlockOperation, fadvise, flock};
use rustix::io::{Errno, pwritev};

use super::{Disk, DiskFile, Space};

/// A folder that belongs to this process alone for as long as one clone of this lives.
#[derive(Clone, Debug)]
pub struct RealDisk {
    folder: Arc<Folder>,
}

#[derive(Debug)]
struct Folder {
    path: PathBuf,
    /// The folder itself: for syncing its entries, and locked against a second process.
    handle: File,
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Closing does not let go of it while a process that is just being started has a copy of everything that is open.
        let _ = flock(&self.handle, FlockOperation::Unlock);
    }
}

/// A file of a [`RealDisk`].
#[derive(Debug)]
pub struct RealFile(File);

impl RealDisk {
    /// Opens the folder at `path`, makes it where it is missing, and locks it.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] where another process has it.
    pub fn open(path: &Path) -> io::Result<Self> {
        if !path.is_dir() {
            std::fs::create_dir_all(path)?;
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
        }
        let handle = File::open(path)?;
        flock(&handle, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Self { folder: Arc::new(Folder { path: path.to_owned(), handle }) })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path.join(name)
    }
}

impl Disk for RealDisk {
    type File = RealFile;

    fn create(&self, name: &str) -> io::Result<RealFile> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600).open(self.path(name)).map(RealFile)
    }

    fn open(&self, name: &str) -> io::Result<RealFile> {
        OpenOptions::new().read(true).write(true).open(self.path(name)).map(RealFile)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path(from), self.path(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path(name))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.folder.path)? {
            // A name that is not text is none of ours.
            names.extend(entry?.file_name().into_string().ok());
        }
        names.sort_unstable();
        Ok(names)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.folder.handle.sync_all()
    }

    fn space(&self) -> io::Result<Space> {
        let stat = rustix::fs::fstatvfs(&self.folder.handle)?;
        Ok(Space {
            total: stat.f_blocks.saturating_mul(stat.f_frsize),
            free: stat.f_bavail.saturating_mul(stat.f_frsize),
        })
    }
}

impl DiskFile for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(bytes, offset)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn write_gathered_at(&self, mut offset: u64, pieces: &[IoSlice<'_>]) -> io::Result<()> {
        // One call for a whole group lets the page cache take large pages, wherever records begin and end.
        for pieces in pieces.chunks(WRITE_PIECES_MAX) {
            let mut pieces = pieces.to_vec();
            let mut rest = &mut pieces[..];
            IoSlice::advance_slices(&mut rest, 0); // pieces of nothing at the front
            while !rest.is_empty() {
                match pwritev(&self.0, rest, offset) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(written) => {
                        IoSlice::advance_slices(&mut rest, written);
                        offset += written as u64;
                    }
                    Err(Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn drop_cached(&self, offset: u64, len: u64) {
        // Advice: what is not taken costs nothing.
        let _ = fadvise(&self.0, offset, NonZeroU64::new(len), Advice::DontNeed);
    }
}

/// Pieces that Linux takes in one call (`IOV_MAX`).
const WRITE_PIECES_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_belongs_to_one_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new").join("unit");
        let first = RealDisk::open(&path).unwrap();
        assert_eq!(RealDisk::open(&path).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(first);
        RealDisk::open(&path).unwrap();
    }

    #[test]
    fn pieces_are_written_one_behind_the_other_however_many_there_are() {
        let folder = tempfile::tempdir().unwrap();
        let file = RealDisk::open(folder.path()).unwrap().create("a").unwrap();
        let pieces: Vec<Vec<u8>> = (0..2_500_u32).map(|n| n.to_le_bytes().repeat(n as usize % 7)).collect();
        let slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
        file.write_gathered_at(3, &slices).unwrap();
        let mut written = vec![0; usize::try_from(file.len().unwrap()).unwrap() - 3];
        file.read_at(3, &mut written).unwrap();
        assert_eq!(written, pieces.concat());
        file.write_gathered_at(0, &[]).unwrap();
        file.write_gathered_at(0, &[IoSlice::new(b""), IoSlice::new(b"xyz")]).unwrap();
        file.read_at(0, &mut written[..4]).unwrap();
        assert_eq!(&written[..3], b"xyz");
    }

    #[test]
    fn a_file_keeps_what_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let disk = RealDisk::open(folder.path()).unwrap();
        let file = disk.create("a").unwrap();
        assert!(disk.create("a").is_err());
        file.write_at(10, b"hello").unwrap();
        file.sync_data().unwrap();
        disk.rename("a", "b").unwrap();
        disk.sync_dir().unwrap();
        assert_eq!(disk.list().unwrap(), ["b"]);
        let mut bytes = [1; 15];
        disk.open("b").unwrap().read_at(0, &mut bytes).unwrap();
        assert_eq!(&bytes, b"\0\0\0\0\0\0\0\0\0\0hello");
        let error = file.read_at(11, &mut bytes).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert!(disk.space().unwrap().free > 0);
    }
}
