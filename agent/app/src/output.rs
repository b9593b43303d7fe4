//! Where a command puts what it fetched or restored: nothing is seen under its name, or on standard output, before it
//! is proved (DESIGN §3 rule 4), and what is there already is not overwritten unasked.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::failure::Failure;
use crate::limits::NAMES_TRIED_MAX;

/// Where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// Standard output.
    Stdout,
    /// A file that was asked for by name: replaced where it is there.
    File(PathBuf),
    /// A file in this folder, under this name, or, where that is taken, another one like it.
    Folder(PathBuf, String),
}

impl Target {
    /// Standard output, where it is not a terminal: what comes out of mail can hold any bytes, and a terminal takes some
    /// of them for commands.
    ///
    /// # Errors
    /// Says what to do instead.
    pub(crate) fn stdout() -> Result<Self, Failure> {
        if io::stdout().is_terminal() {
            return Err(Failure::wrong_use(
                "what comes out of mail is not written to a terminal: give a file with -o, or use a pipe",
            ));
        }
        Ok(Self::Stdout)
    }

    /// What `-o` says: `-` is standard output.
    ///
    /// # Errors
    /// As [`Target::stdout`].
    pub(crate) fn of(path: &Path) -> Result<Self, Failure> {
        if path == Path::new("-") { Self::stdout() } else { Ok(Self::File(path.to_owned())) }
    }
}

/// Bytes on their way to a target, not proved yet. Dropped before [`publish`](Self::publish), they are gone.
#[derive(Debug)]
pub(crate) struct Unproved {
    target: Target,
    file: File,
    /// Its name until it gets its own; none for an unnamed file, which is copied out.
    temporary: Option<PathBuf>,
}

impl Unproved {
    /// Begins. For a file, the bytes are gathered beside it; for standard output, pipes and devices in a file without
    /// a name.
    ///
    /// # Errors
    /// What the system says, with the path.
    pub(crate) fn begin(target: Target) -> Result<Self, Failure> {
        let folder = match &target {
            Target::Folder(folder, _) => folder.clone(),
            Target::File(path) if !is_special(path) => {
                let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
                parent.unwrap_or(Path::new(".")).to_owned()
            }
            Target::Stdout | Target::File(_) => {
                return Ok(Self { file: unnamed_file()?, target, temporary: None });
            }
        };
        let temporary = folder.join(format!(".lighter-{:032x}.part", rand::random::<u128>()));
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).mode(0o600).open(&temporary);
        let file = file.map_err(|error| Failure::failed(error).when(folder.display()))?;
        Ok(Self { target, file, temporary: Some(temporary) })
    }

    /// The file to write to, and to read back.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Where the bytes are gathered, for another process of the same user.
    pub(crate) fn path(&self) -> PathBuf {
        use std::os::fd::AsRawFd;
        match &self.temporary {
            Some(path) => std::path::absolute(path).unwrap_or_else(|_| path.clone()),
            None => format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd()).into(),
        }
    }

    /// Forgets what was written, for another try.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn clear(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0)).map(drop)
    }

    /// The bytes are proved: gives them their place, and says which that is. Blocks on the disk.
    ///
    /// # Errors
    /// What the system says, with the path.
    pub(crate) fn publish(mut self) -> Result<Option<PathBuf>, Failure> {
        let Some(temporary) = self.temporary.take() else { return self.copy_out() };
        // From here on it has its place, or is removed.
        let placed = place(&self.file, &temporary, &self.target);
        if placed.is_err() {
            let _ = std::fs::remove_file(&temporary);
        }
        placed.map(Some)
    }

    fn copy_out(&mut self) -> Result<Option<PathBuf>, Failure> {
        self.file.seek(SeekFrom::Start(0))?;
        if let Target::File(path) = &self.target {
            let failed = |error| Failure::failed(error).when(path.display());
            let mut to = OpenOptions::new().write(true).open(path).map_err(failed)?;
            io::copy(&mut self.file, &mut to).map_err(failed)?;
            return Ok(Some(path.clone()));
        }
        let mut out = io::stdout().lock();
        match io::copy(&mut self.file, &mut out).and_then(|_| out.flush()) {
            // Who reads only the beginning has what they wanted.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(Failure::failed(error).when("standard output"))
            }
            _ => Ok(None),
        }
    }
}

impl Drop for Unproved {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            let _ = std::fs::remove_file(temporary);
        }
    }
}

fn place(file: &File, temporary: &Path, target: &Target) -> Result<PathBuf, Failure> {
    file.sync_all()?;
    match target {
        Target::Folder(folder, name) => {
            for number in 1..=NAMES_TRIED_MAX {
                let path = folder.join(numbered(name, number));
                match rename_to_new(temporary, &path) {
                    Ok(()) => return Ok(path),
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    Err(error) => return Err(Failure::failed(error).when(path.display())),
                }
            }
            Err(Failure::failed(format!(
                "{}: {name} is there already: give another name with -o",
                folder.display()
            )))
        }
        Target::File(path) => {
            std::fs::rename(temporary, path).map_err(|error| Failure::failed(error).when(path.display()))?;
            Ok(path.clone())
        }
        Target::Stdout => Err(Failure::failed("standard output has no place")),
    }
}

/// Renames, but never over something that is there.
pub(crate) fn rename_to_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // A file system that does not know of it: a second name, which never replaces one, and then the first goes.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
            std::fs::hard_link(from, to)?;
            std::fs::remove_file(from)
        }
        renamed => Ok(renamed?),
    }
}

/// `report.pdf`, `report (2).pdf`, …
pub(crate) fn numbered(name: &str, number: u32) -> String {
    match (number, name.rsplit_once('.')) {
        (1, _) => name.to_owned(),
        (_, Some((stem, extension))) => format!("{stem} ({number}).{extension}"),
        (_, None) => format!("{name} ({number})"),
    }
}

/// Whether something is there that is written to, and not replaced: a pipe or a device.
fn is_special(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| !metadata.is_file() && !metadata.is_dir())
}

/// A file that is gone when it is closed.
pub(crate) fn unnamed_file() -> Result<File, Failure> {
    use rustix::fs::{Mode, OFlags};
    let folder = std::env::temp_dir();
    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
    if let Ok(file) = rustix::fs::open(&folder, flags, Mode::RUSR | Mode::WUSR) {
        return Ok(file.into());
    }
    // A file system without unnamed files: a name that is removed at once.
    let path = folder.join(format!("lighter-{:032x}", rand::random::<u128>()));
    let opened = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path);
    let file = opened.map_err(|error| Failure::failed(error).when(folder.display()))?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(target: Target, bytes: &[u8]) -> Option<PathBuf> {
        let unproved = Unproved::begin(target).unwrap();
        unproved.file().write_all(bytes).unwrap();
        unproved.publish().unwrap()
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_name_that_is_taken_gets_a_number_and_nothing_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        for (bytes, name) in [(b"1", "a.tar.gz"), (b"2", "a.tar (2).gz"), (b"3", "a.tar (3).gz")] {
            let target = Target::Folder(folder.path().to_owned(), "a.tar.gz".to_owned());
            assert_eq!(put(target, bytes), Some(folder.path().join(name)));
            assert_eq!(std::fs::read(folder.path().join(name)).unwrap(), bytes);
        }
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(folder.path().join("elsewhere"), &link).unwrap();
        put(Target::Folder(folder.path().to_owned(), "link".to_owned()), b"4");
        assert!(!folder.path().join("elsewhere").exists(), "a link is not followed");
        assert_eq!(std::fs::read(folder.path().join("link (2)")).unwrap(), b"4");
    }

    #[test]
    fn a_file_that_was_asked_for_is_replaced_as_a_whole_and_what_was_not_proved_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, b"old").unwrap();
        let unproved = Unproved::begin(Target::File(path.clone())).unwrap();
        unproved.file().write_all(b"half").unwrap();
        drop(unproved);
        assert_eq!(
            (std::fs::read(&path).unwrap(), names(folder.path())),
            (b"old".to_vec(), vec!["a".to_owned()])
        );
        put(Target::File(path.clone()), b"new");
        assert_eq!(
            (std::fs::read(&path).unwrap(), names(folder.path())),
            (b"new".to_vec(), vec!["a".to_owned()])
        );
    }

    #[test]
    fn a_device_is_written_to_and_not_replaced() {
        use std::os::unix::fs::FileTypeExt;
        let null = Path::new("/dev/null");
        put(Target::File(null.to_owned()), b"x");
        assert!(null.metadata().unwrap().file_type().is_char_device());
    }

    #[test]
    fn numbers_stand_before_the_extension() {
        assert_eq!(numbered("a.pdf", 1), "a.pdf");
        assert_eq!(numbered("a.pdf", 2), "a (2).pdf");
        assert_eq!(numbered("a", 12), "a (12)");
    }
}
