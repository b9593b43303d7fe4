//! The copy on this machine of a server's address books: a file for each server, replaced as a whole.
//!
//! Groups are expanded from it alone, so that mail goes out whether the server is there or not. What a fetch that fails
//! leaves is the copy of before, with the reason beside it. The file can be removed at any time: it is fetched again.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use lighter_protocol::UnixTime;
use serde::{Deserialize, Serialize};

use crate::limits::BOOKS_LEN_MAX;

/// What was fetched from a server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Copy {
    /// Whose address books these are: another `url` or user in the configuration makes the copy worthless.
    pub(super) url: String,
    pub(super) username: String,
    /// When all of it was last known to be as on the server; none: never.
    #[serde(default)]
    pub(super) fetched: Option<UnixTime>,
    /// When it was last tried, and why that failed.
    #[serde(default)]
    pub(super) failed: Option<Failed>,
    /// By their addresses.
    #[serde(default)]
    pub(super) books: BTreeMap<String, BookCopy>,
}

/// A fetch that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Failed {
    pub(super) at: UnixTime,
    pub(super) why: String,
}

/// An address book.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BookCopy {
    /// What its owner calls it.
    pub(super) name: String,
    /// Its version on the server, where that has versions.
    pub(super) version: Option<String>,
    /// By their addresses.
    pub(super) cards: BTreeMap<String, CardCopy>,
}

/// A card.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CardCopy {
    /// Its version on the server; none where that has no versions: it is fetched each time.
    pub(super) etag: Option<String>,
    /// The vCard.
    pub(super) text: String,
}

/// Where the copy of one server lies, and who may change it.
#[derive(Clone, Debug)]
pub(super) struct Place {
    folder: PathBuf,
    name: String,
}

/// As long as it lives, no other process fetches from the same server.
#[derive(Debug)]
pub(super) struct Turn {
    lock: File,
}

impl Drop for Turn {
    fn drop(&mut self) {
        // As the store's: a process that is just being started may have a copy of it.
        let _ = self.lock.unlock();
    }
}

impl Place {
    /// In `folder`, which is made where it is missing once something is written. `name` is the server's in the configuration.
    pub(super) fn new(folder: &Path, name: &str) -> Self {
        Self { folder: folder.to_owned(), name: name.to_owned() }
    }

    /// The file.
    pub(super) fn path(&self) -> PathBuf {
        self.folder.join(format!("{}.json", self.name))
    }

    /// The password, where no keyring keeps it.
    pub(super) fn password(&self) -> PathBuf {
        self.folder.join(format!("{}.password", self.name))
    }

    /// The copy, where it is one of `username`'s books at `url`. One that cannot be read is none: it is fetched again.
    pub(super) fn read(&self, url: &str, username: &str) -> Copy {
        let read = || -> io::Result<Copy> {
            let mut text = Vec::new();
            // JSON's escapes make it longer than the cards are.
            File::open(self.path())?.take(2 * BOOKS_LEN_MAX).read_to_end(&mut text)?;
            Ok(serde_json::from_slice(&text)?)
        };
        match read() {
            Ok(copy) if copy.url == url && copy.username == username => return copy,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(path = %self.path().display(), %error, "a copy of address books is of no use");
            }
        }
        Copy { url: url.to_owned(), username: username.to_owned(), ..Copy::default() }
    }

    /// Replaces the copy, durably.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn write(&self, copy: &Copy) -> io::Result<()> {
        self.replace(&self.path(), &serde_json::to_vec(copy)?)
    }

    /// Keeps a password in a file of the user's alone.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn write_password(&self, password: &str) -> io::Result<()> {
        self.replace(&self.password(), password.as_bytes())
    }

    /// Waits until nobody else fetches. Blocks.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn turn(&self) -> io::Result<Turn> {
        let lock = self.lock_file()?;
        lock.lock()?;
        Ok(Turn { lock })
    }

    /// The same; none where somebody does fetch.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn try_turn(&self) -> io::Result<Option<Turn>> {
        let lock = self.lock_file()?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(Turn { lock })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn lock_file(&self) -> io::Result<File> {
        self.make_folder()?;
        private().open(self.folder.join(format!("{}.lock", self.name)))
    }

    fn make_folder(&self) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.make_folder()?;
        let temporary = path.with_extension("new");
        let mut file = private().truncate(true).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(&self.folder)?.sync_all()
    }
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    options
}
