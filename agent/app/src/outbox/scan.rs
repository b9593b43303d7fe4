//! One look at the whole outbox: names, sizes and times, nothing read. Links are not followed, and what is neither file
//! nor folder is left alone.

use std::ffi::{OsStr, OsString};
use std::fs::{DirEntry, FileType};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::decide::{Content, Look};
use super::names::{Kind, SENT, TEMPLATE, is_note, shown};
use crate::limits::{FILES_MAX, OUTBOX_DEPTH_MAX, OUTBOX_ENTRIES_MAX, OUTBOX_FOLDERS_MAX, OUTBOX_ITEMS_MAX};
use crate::send::FileFacts;

/// What is in the outbox.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// The recipients' folders, by name.
    pub(crate) folders: Vec<Folder>,
    /// What cannot be a recipient's folder, and why.
    pub(crate) wrong: Vec<(OsString, String)>,
    /// The names of notes beside them.
    pub(crate) notes: Vec<OsString>,
    /// What the user should know about the whole.
    pub(crate) problem: Option<String>,
}

/// A recipient's folder.
#[derive(Debug)]
pub(crate) struct Folder {
    pub(crate) name: OsString,
    /// What is in it, by name; or why it cannot be seen.
    pub(crate) items: io::Result<Items>,
}

/// What is in a recipient's folder.
#[derive(Debug, Default)]
pub(crate) struct Items {
    /// What may be sent; or why it cannot be.
    pub(crate) items: Vec<(OsString, Result<Look, String>)>,
    /// The names of notes.
    pub(crate) notes: Vec<OsString>,
    /// More is there than is looked at.
    pub(crate) is_cut: bool,
}

/// Looks. Blocks on the disk.
///
/// # Errors
/// Where the outbox itself cannot be read.
pub(crate) fn scan(root: &Path) -> io::Result<Scan> {
    let mut scan = Scan::default();
    for entry in entries(root)? {
        let (name, kind) = (entry.file_name(), entry.file_type()?);
        if is_note(&name) {
            scan.notes.push(name);
        } else if Kind::of(&name) == Kind::Normal && name != TEMPLATE {
            if kind.is_dir() && scan.folders.len() < OUTBOX_FOLDERS_MAX {
                let items = items(&root.join(&name));
                scan.folders.push(Folder { name, items });
            } else if kind.is_dir() {
                scan.problem =
                    Some(format!("only the first {OUTBOX_FOLDERS_MAX} folders of the outbox are looked at"));
            } else if let Some(why) = misplaced(kind) {
                scan.wrong.push((name, why));
            }
        }
    }
    Ok(scan)
}

fn misplaced(kind: FileType) -> Option<String> {
    if kind.is_symlink() {
        return Some("It is a link, and links are not followed: make a real folder.".to_owned());
    }
    let why = "It is not in anybody's folder: put it into a folder named by the recipient's mailbox, such as \
               bob@example.org.";
    kind.is_file().then(|| why.to_owned())
}

/// The entries of a folder, by name.
fn entries(folder: &Path) -> io::Result<Vec<DirEntry>> {
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        if entries.len() >= OUTBOX_ENTRIES_MAX {
            return Err(io::Error::other(format!("there are more than {OUTBOX_ENTRIES_MAX} things in it")));
        }
        entries.push(entry?);
    }
    entries.sort_by_key(DirEntry::file_name);
    Ok(entries)
}

fn items(folder: &Path) -> io::Result<Items> {
    let mut found = Items::default();
    for entry in entries(folder)? {
        let name = entry.file_name();
        if is_note(&name) {
            found.notes.push(name);
            continue;
        }
        if Kind::of(&name) != Kind::Normal || name == SENT || name == TEMPLATE {
            continue;
        }
        if found.items.len() >= OUTBOX_ITEMS_MAX {
            found.is_cut = true;
            break;
        }
        if let Some(look) = look(&folder.join(&name)) {
            found.items.push((name, look));
        }
    }
    Ok(found)
}

/// One look at a file or folder; none where it is nothing that could be sent, or is gone.
pub(crate) fn look(path: &Path) -> Option<Result<Look, String>> {
    let metadata = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => return Some(Err(format!("It cannot be looked at: {error}."))),
    };
    let kind = metadata.file_type();
    if kind.is_symlink() {
        return Some(Err("It is a link, and links are not followed: put the file itself here.".to_owned()));
    }
    if kind.is_file() {
        let content = Content { is_folder: false, files: vec![(OsString::new(), FileFacts::of(&metadata))] };
        return Some(Ok(Look { content, unfinished: None }));
    }
    if !kind.is_dir() {
        return None;
    }
    let content = Content { is_folder: true, files: Vec::new() };
    let mut look = Look { content, unfinished: None };
    let walked = walk(path, Path::new(""), metadata.dev(), 0, &mut look);
    Some(walked.map(|()| {
        look.content.files.sort_by(|(one, _), (other, _)| one.cmp(other));
        look
    }))
}

/// Gathers the files of a folder that is one message.
fn walk(root: &Path, below: &Path, device: u64, depth: usize, look: &mut Look) -> Result<(), String> {
    let failed = |error: io::Error| format!("It cannot be looked at: {error}.");
    if depth > OUTBOX_DEPTH_MAX {
        return Err(format!("It has folders within folders, more than {OUTBOX_DEPTH_MAX} deep."));
    }
    for entry in entries(&root.join(below)).map_err(failed)? {
        let name = entry.file_name();
        match Kind::of(&name) {
            Kind::Never => continue,
            Kind::Unfinished => {
                look.unfinished.get_or_insert(name);
                continue;
            }
            Kind::Normal => {}
        }
        let path = below.join(&name);
        let Some(metadata) = here(entry.metadata()).map_err(failed)? else { continue };
        if metadata.is_symlink() {
            return Err(format!("“{}” in it is a link, and links are not followed.", shown(&name)));
        }
        if metadata.is_dir() && metadata.dev() == device {
            walk(root, &path, device, depth + 1, look)?;
        } else if metadata.is_file() && !(depth == 0 && name == OsStr::new(TEMPLATE)) {
            if look.content.files.len() >= FILES_MAX {
                return Err(format!("It has more than {FILES_MAX} files: put them into an archive."));
            }
            look.content.files.push((path.into_os_string(), FileFacts::of(&metadata)));
        }
    }
    Ok(())
}

/// What was removed between listing and looking is not there.
fn here<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_out_of_the_outbox_and_special_files_are_not_sent() {
        let folder = tempfile::tempdir().unwrap();
        let secret = folder.path().join("secret");
        std::fs::write(&secret, b"secret").unwrap();
        let outbox = folder.path().join("outbox");
        let bob = outbox.join("bob@example.org");
        std::fs::create_dir_all(bob.join("holiday")).unwrap();
        for link in [outbox.join("eve@example.org"), bob.join("link"), bob.join("holiday/link")] {
            std::os::unix::fs::symlink(&secret, link).unwrap();
        }
        let pipe = bob.join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        std::fs::write(outbox.join("lost.txt"), b"x").unwrap();
        let scan = scan(&outbox).unwrap();
        assert_eq!(scan.wrong.len(), 2, "{:?}", scan.wrong);
        assert_eq!(scan.folders.len(), 1);
        let items = scan.folders[0].items.as_ref().unwrap();
        let names: Vec<_> =
            items.items.iter().map(|(name, look)| (name.to_str().unwrap(), look.is_ok())).collect();
        assert_eq!(names, [("holiday", false), ("link", false)]);
    }

    #[test]
    fn a_folder_is_all_its_files_and_waits_for_what_is_not_finished() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("day/one")).unwrap();
        for name in ["b", "a", "day/one/c", ".hidden", "message.txt", "day/d.part", "Thumbs.db"] {
            std::fs::write(folder.path().join(name), b"x").unwrap();
        }
        let seen = look(folder.path()).unwrap().unwrap();
        let names: Vec<_> = seen.content.files.iter().map(|(name, _)| name.to_str().unwrap()).collect();
        assert_eq!(names, ["a", "b", "day/one/c"]);
        assert_eq!(seen.unfinished.unwrap(), "d.part");
        for number in 0..FILES_MAX {
            std::fs::write(folder.path().join(number.to_string()), b"x").unwrap();
        }
        assert!(look(folder.path()).unwrap().unwrap_err().contains("archive"));
    }
}
