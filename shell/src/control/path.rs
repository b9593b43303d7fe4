//! A socket's path, which the system wants short.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// Bytes of a socket's path (unix(7): `sun_path`, its NUL left out).
const PATH_LEN_MAX: usize = 107;

/// A way to a socket that may have a long path: through the open folder.
#[derive(Debug)]
pub(super) struct ShortPath {
    pub(super) path: PathBuf,
    /// The path goes through it.
    _folder: Option<File>,
}

impl ShortPath {
    /// # Errors
    /// [`io::ErrorKind::InvalidFilename`] where `path` names no file in a folder, or that the folder cannot be opened.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        if path.as_os_str().len() <= PATH_LEN_MAX {
            return Ok(Self { path: path.to_owned(), _folder: None });
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidFilename.into());
        };
        let folder = File::open(parent)?;
        let path = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name);
        Ok(Self { path, _folder: Some(folder) })
    }
}
