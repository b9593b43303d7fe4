//! One relay for one data folder: a lock on a file in it, which the kernel gives back whatever happens. Who changes the
//! folder while no relay may run takes it, too.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use crate::commands::CommandError;

/// Held as long as the relay runs.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing does not give it back while a process that is just being started has a copy of everything that is open.
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

/// Takes the lock of `data`.
pub(crate) fn take(data: &Path) -> Result<Lock, CommandError> {
    let path = data.join("lock");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(|error| CommandError::failed(path.display().to_string(), error))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Lock { file }),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(CommandError::Running(data.to_owned())),
        Err(error) => Err(CommandError::failed(path.display().to_string(), std::io::Error::from(error))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_relay_on_the_same_folder_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let first = take(folder.path()).unwrap();
        assert!(matches!(take(folder.path()), Err(CommandError::Running(_))));
        drop(first);
        take(folder.path()).unwrap();
    }
}
