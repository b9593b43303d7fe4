//! A folder as it may be on disk after the power was cut, at any moment of a record of what a program did to it.
//!
//! # What a disk owes
//! Bytes of a file that were written before a sync of that file began which went well; names that were given, changed or
//! taken away before a sync of the folder began which went well. Nothing else: of what is not synced each change may be
//! there, or not, or a write in part, sector by sector; names independently of contents. That is less than most file
//! systems give, so that none has to be trusted.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context, Result, ensure};
use lighter_harness::strace::{Operation, Traced};
use rand::RngExt;
use rand::rngs::StdRng;

/// What a disk writes in one go, or not at all.
const SECTOR_LEN: usize = 512;

/// One file, whatever its name.
type Inode = usize;

/// A folder while it is being used: what is on disk for sure, and what may be.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    files: Vec<File>,
    /// As the program sees them.
    names: BTreeMap<String, Inode>,
    synced_names: BTreeMap<String, Inode>,
    name_changes: Vec<(u64, NameChange)>,
    open: BTreeMap<i64, Handle>,
}

#[derive(Debug, Default)]
struct File {
    /// As the program sees it.
    content: Vec<u8>,
    synced: Vec<u8>,
    changes: Vec<(u64, Change)>,
    /// Counts what was made durable.
    version: u64,
}

/// A folder that is made as the power cut left it, again and again: files that are right already stay.
#[derive(Debug)]
pub struct Remains {
    path: PathBuf,
    /// Files of which nothing was in doubt: which one, and which version of it.
    certain: BTreeMap<String, (Inode, u64)>,
}

#[derive(Clone, Debug)]
enum Change {
    Write { offset: u64, bytes: Arc<[u8]> },
    Truncate { len: u64 },
}

#[derive(Clone, Debug)]
struct NameChange {
    gone: Option<String>,
    new: Option<(String, Inode)>,
}

#[derive(Clone, Copy, Debug)]
enum Handle {
    Folder,
    File(Inode),
}

/// What of that which is not synced is there after the cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Luck {
    /// Nothing.
    Nothing,
    /// Everything.
    Everything,
    /// Of each change all, none or a part, as the generator says.
    Drawn,
}

/// A moment of a record, and what happened in it.
#[derive(Clone, Copy, Debug)]
pub enum Moment<'a> {
    /// The operation began: from now on it may have an effect.
    Begun(&'a Traced),
    /// It ended.
    Ended(&'a Traced),
}

/// All moments of a record, in order.
pub fn moments(traced: &[Traced]) -> Vec<Moment<'_>> {
    let mut moments: Vec<_> = traced
        .iter()
        .flat_map(|one| {
            let ended = one.ended.map(|at| (at, 1, Moment::Ended(one)));
            [(one.begun, 0, Moment::Begun(one))].into_iter().chain(ended)
        })
        .collect();
    moments.sort_by_key(|&(at, which, _)| (at, which));
    moments.into_iter().map(|(_, _, moment)| moment).collect()
}

impl Folder {
    /// The folder at `path`, which is not there yet.
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            files: Vec::new(),
            names: BTreeMap::new(),
            synced_names: BTreeMap::new(),
            name_changes: Vec::new(),
            open: BTreeMap::new(),
        }
    }

    /// The program has ended, and begins anew: what it wrote is there, as long as the power is.
    pub fn restart(&mut self) {
        self.open.clear();
    }

    /// A file's name and its content, as the program sees it.
    pub fn content(&self, name: &str) -> Option<&[u8]> {
        Some(&self.files.get(*self.names.get(name)?)?.content)
    }

    /// The name of the file behind a descriptor, if it is one of here.
    pub fn name_of(&self, fd: i64) -> Option<&str> {
        let Handle::File(inode) = self.open.get(&fd)? else { return None };
        self.names.iter().find(|(_, other)| *other == inode).map(|(name, _)| name.as_str())
    }

    /// The next moment. Says whether what may be on disk has changed.
    ///
    /// # Errors
    /// Where the record makes no sense.
    pub fn take(&mut self, moment: Moment<'_>) -> Result<bool> {
        match moment {
            Moment::Begun(traced) => self.begin(traced),
            Moment::Ended(traced) => Ok(self.end(traced)),
        }
    }

    fn begin(&mut self, traced: &Traced) -> Result<bool> {
        // What failed had no effect; what did not end may have had one.
        if traced.ended.is_some() && traced.result < 0 {
            return Ok(false);
        }
        let at = traced.begun;
        match &traced.operation {
            Operation::Open { path, creates } => return Ok(self.open(at, traced.result, path, *creates)),
            Operation::Write { fd, offset, bytes } => {
                let Some(file) = self.file(*fd) else { return Ok(false) };
                let written = usize::try_from(traced.result).unwrap_or(bytes.len());
                ensure!(written == bytes.len(), "{} bytes of {written} were recorded", bytes.len());
                let change = Change::Write { offset: *offset, bytes: bytes.as_slice().into() };
                change.apply(&mut file.content);
                file.changes.push((at, change));
            }
            Operation::Truncate { fd, len } => {
                let Some(file) = self.file(*fd) else { return Ok(false) };
                let change = Change::Truncate { len: *len };
                change.apply(&mut file.content);
                file.changes.push((at, change));
            }
            Operation::Rename { from, to } => {
                let (Some(from), Some(to)) = (self.name(from), self.name(to)) else { return Ok(false) };
                let inode = *self.names.get(&from).context("a file that is not there was renamed")?;
                self.change_names(at, NameChange { gone: Some(from), new: Some((to, inode)) });
            }
            Operation::Remove { path } => {
                let Some(name) = self.name(path) else { return Ok(false) };
                self.change_names(at, NameChange { gone: Some(name), new: None });
            }
            Operation::Sync { .. } => return Ok(false),
        }
        Ok(true)
    }

    fn open(&mut self, at: u64, fd: i64, path: &Path, creates: bool) -> bool {
        // A number that is given out again is no longer what it was.
        self.open.remove(&fd);
        if path == self.path {
            self.open.insert(fd, Handle::Folder);
            return false;
        }
        let Some(name) = self.name(path) else { return false };
        let (inode, is_new) = match self.names.get(&name) {
            Some(inode) => (*inode, false),
            None if creates => {
                self.files.push(File::default());
                let inode = self.files.len() - 1;
                self.change_names(at, NameChange { gone: None, new: Some((name, inode)) });
                (inode, true)
            }
            None => return false,
        };
        self.open.insert(fd, Handle::File(inode));
        is_new
    }

    /// A sync that went well makes durable what was done before it began.
    fn end(&mut self, traced: &Traced) -> bool {
        let Operation::Sync { fd } = traced.operation else { return false };
        if traced.result != 0 {
            return false;
        }
        let before = |at: &u64| *at < traced.begun;
        match self.open.get(&fd) {
            None => return false,
            Some(Handle::Folder) => {
                for (_, change) in self.name_changes.extract_if(.., |(at, _)| before(at)) {
                    change.apply(&mut self.synced_names);
                }
            }
            Some(Handle::File(inode)) => {
                let File { synced, changes, version, .. } = &mut self.files[*inode];
                *version += 1;
                for (_, change) in changes.extract_if(.., |(at, _)| before(at)) {
                    change.apply(synced);
                }
            }
        }
        true
    }

    fn change_names(&mut self, at: u64, change: NameChange) {
        change.apply(&mut self.names);
        self.name_changes.push((at, change));
    }

    fn file(&mut self, fd: i64) -> Option<&mut File> {
        match self.open.get(&fd)? {
            Handle::File(inode) => self.files.get_mut(*inode),
            Handle::Folder => None,
        }
    }

    /// The name of a file in this folder itself.
    fn name(&self, path: &Path) -> Option<String> {
        if path.parent() != Some(&self.path) {
            return None;
        }
        Some(path.file_name()?.to_str()?.to_owned())
    }

    /// Makes `remains` what this folder is once the power is gone.
    ///
    /// # Errors
    /// Where that cannot be written.
    pub fn cut(&self, remains: &mut Remains, names: Luck, contents: Luck, chance: &mut StdRng) -> Result<()> {
        let names = self.names_after(names, chance);
        let Remains { path, certain } = remains;
        // What the opening removed, or changed, is not right any more.
        certain.retain(|name, which| {
            let file = names.get(name).map(|inode| (*inode, &self.files[*inode]));
            file.is_some_and(|(inode, file)| *which == (inode, file.version) && file.changes.is_empty())
                && is_untouched(&path.join(name))
        });
        for entry in std::fs::read_dir(&*path)? {
            let name = entry?.file_name().into_string().ok().context("a name of none of ours")?;
            if !certain.contains_key(&name) {
                std::fs::remove_file(path.join(&name))?;
            }
        }
        for (name, inode) in &names {
            if certain.contains_key(name) {
                continue;
            }
            let file = &self.files[*inode];
            write(&path.join(name), &file.after(contents, chance))?;
            if file.changes.is_empty() {
                certain.insert(name.clone(), (*inode, file.version));
            }
        }
        Ok(())
    }

    fn names_after(&self, luck: Luck, chance: &mut StdRng) -> BTreeMap<String, Inode> {
        let mut names = self.synced_names.clone();
        for (_, change) in &self.name_changes {
            if luck == Luck::Everything || luck == Luck::Drawn && chance.random_bool(0.5) {
                change.apply(&mut names);
            }
        }
        names
    }
}

impl Remains {
    /// An empty folder.
    ///
    /// # Errors
    /// Where it is there, or cannot be made.
    pub fn new(path: &Path) -> Result<Self> {
        std::fs::create_dir(path)?;
        Ok(Self { path: path.to_owned(), certain: BTreeMap::new() })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Writes a file and dates it back: who changes it dates it anew.
fn write(path: &Path, content: &[u8]) -> Result<()> {
    // Zeros at the end are a hole: the same to who reads it, and soon made.
    let end = content.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let file = std::fs::File::create_new(path)?;
    std::os::unix::fs::FileExt::write_all_at(&file, &content[..end], 0)?;
    file.set_len(content.len() as u64)?;
    Ok(file.set_modified(SystemTime::UNIX_EPOCH)?)
}

fn is_untouched(path: &Path) -> bool {
    let changed = std::fs::metadata(path).and_then(|metadata| metadata.modified());
    changed.is_ok_and(|at| at == SystemTime::UNIX_EPOCH)
}

impl File {
    fn after(&self, luck: Luck, chance: &mut StdRng) -> Vec<u8> {
        match luck {
            Luck::Nothing => self.synced.clone(),
            Luck::Everything => self.content.clone(),
            Luck::Drawn => {
                let mut content = self.synced.clone();
                for (_, change) in &self.changes {
                    match chance.random_range(0..3) {
                        0 => {}
                        1 => change.apply(&mut content),
                        _ => change.tear(&mut content, chance),
                    }
                }
                content
            }
        }
    }
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Truncate { len } => content.resize(to_usize(*len), 0),
            Self::Write { offset, bytes } => put(content, to_usize(*offset), bytes),
        }
    }

    /// Some of its sectors; behind the last of them, the file may have its length, and zeros, all the same.
    fn tear(&self, content: &mut Vec<u8>, chance: &mut StdRng) {
        let Self::Write { offset, bytes } = self else { return };
        let offset = to_usize(*offset);
        let mut at = 0;
        while at < bytes.len() {
            let end = ((offset + at) / SECTOR_LEN * SECTOR_LEN + SECTOR_LEN - offset).min(bytes.len());
            // 64 sectors at a time, mostly: what is torn is torn in few places.
            let end = if chance.random_bool(0.9) { (end + 63 * SECTOR_LEN).min(bytes.len()) } else { end };
            if chance.random_bool(0.5) {
                put(content, offset + at, &bytes[at..end]);
            }
            at = end;
        }
        if chance.random_bool(0.5) {
            content.resize(content.len().max(offset + bytes.len()), 0);
        }
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, Inode>) {
        if let Some(gone) = &self.gone {
            names.remove(gone);
        }
        if let Some((name, inode)) = &self.new {
            names.insert(name.clone(), *inode);
        }
    }
}

fn put(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    content.resize(content.len().max(end), 0);
    content[offset..end].copy_from_slice(bytes);
}

fn to_usize(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
