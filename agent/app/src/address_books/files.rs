//! The address books' files, and the copies of those on CardDAV servers.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::book::{Book, Gathering};
use super::card::{Cards, Flaw};
use super::{carddav, format};
use crate::config::{Config, Paths};
use crate::limits::{BOOK_FILE_LEN_MAX, BOOK_FILES_MAX, BOOKS_LEN_MAX, BOOKS_MAX};

/// Reads the address books: each file and folder in `DATA/address-books`, each path that the configuration names, and what
/// was fetched from the CardDAV servers that it names. What is wrong is in the books; blocks on the disk.
pub fn read(config: &Config, paths: &Paths) -> Vec<Book> {
    let mut reader = Reader { books: Vec::new(), room: BOOKS_LEN_MAX };
    let folder = paths.address_books();
    match entries(&folder, BOOKS_MAX) {
        Ok((found, is_all)) => {
            for path in &found {
                reader.book(path);
            }
            if !is_all {
                reader.failed(&folder, Flaw::TooManyBooks);
            }
        }
        // Who has no address books has no folder for them.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => reader.failed(&folder, Flaw::Io(error.to_string())),
    }
    for path in &config.address_books.paths {
        reader.book(&paths.beside_config(path));
    }
    let on_servers = carddav::books(config, paths, &mut reader.room);
    reader.books.extend(on_servers);
    reader.books
}

struct Reader {
    books: Vec<Book>,
    /// Bytes that may still be read.
    room: u64,
}

impl Reader {
    fn book(&mut self, path: &Path) {
        if self.books.iter().any(|book| book.path == path) {
            return;
        }
        if self.books.len() >= BOOKS_MAX {
            // Once; those behind it share its fate.
            if self.books.len() == BOOKS_MAX {
                self.failed(path, Flaw::TooManyBooks);
            }
            return;
        }
        let is_folder = path.is_dir();
        let mut gathering = Gathering::new(name(path, is_folder), path.to_owned());
        if is_folder {
            match entries(path, BOOK_FILES_MAX) {
                Ok((files, is_all)) => {
                    for file in files.iter().filter(|file| file.is_file()) {
                        gathering.add(file, self.cards(file));
                    }
                    if !is_all {
                        gathering.flaw(path, Flaw::TooManyFiles);
                    }
                }
                Err(error) => gathering.flaw(path, Flaw::Io(error.to_string())),
            }
        } else {
            gathering.add(path, self.cards(path));
        }
        self.books.push(gathering.finish());
    }

    fn failed(&mut self, path: &Path, flaw: Flaw) {
        let mut gathering = Gathering::new(name(path, true), path.to_owned());
        gathering.flaw(path, flaw);
        self.books.push(gathering.finish());
    }

    fn cards(&mut self, path: &Path) -> Cards {
        let file_name = path.file_name().unwrap_or_default().to_string_lossy();
        match self.bytes(path) {
            Ok(bytes) => format::parse(&file_name, &bytes),
            Err(flaw) => Cards::flawed(flaw),
        }
    }

    fn bytes(&mut self, path: &Path) -> Result<Vec<u8>, Flaw> {
        let failed = |error: io::Error| Flaw::Io(error.to_string());
        // Not a pipe or a device, which may never end.
        if !path.metadata().map_err(failed)?.is_file() {
            return Err(Flaw::Io("is no file".to_owned()));
        }
        let file = std::fs::File::open(path).map_err(failed)?;
        let mut bytes = Vec::new();
        file.take(BOOK_FILE_LEN_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > BOOK_FILE_LEN_MAX {
            return Err(Flaw::TooLarge);
        }
        self.room = self.room.checked_sub(bytes.len() as u64).ok_or(Flaw::AllTooLarge)?;
        Ok(bytes)
    }
}

/// What lies in a folder, by name, at most so many; whether that is all. Hidden files, and what editors leave behind,
/// are none.
fn entries(folder: &Path, max: usize) -> io::Result<(Vec<PathBuf>, bool)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.as_encoded_bytes();
        if name.starts_with(b".") || name.ends_with(b"~") {
            continue;
        }
        if found.len() == max {
            return Ok((found, false));
        }
        found.push(entry.path());
    }
    found.sort_unstable();
    Ok((found, true))
}

/// What a book is called.
fn name(path: &Path, is_folder: bool) -> String {
    let name = if is_folder { path.file_name() } else { path.file_stem() };
    name.unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}
