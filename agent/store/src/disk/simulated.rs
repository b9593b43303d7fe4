//! A disk for tests: it loses what was not synced, tears writes, forgets renames, and fails on command. Each access is
//! a numbered step; a fault is planned for one of them.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use super::{Disk, DiskFile};

/// What happens at a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The power fails: this step and every later one fail, and what was not synced may be lost.
    PowerLoss,
    /// The disk is full, from this step on for so many steps: writes fail half way.
    Full(u64),
    /// The device fails once; a sync that fails loses what it was to make durable, though it can still be read.
    Eio,
}

/// A simulated disk; a cloneable handle.
#[derive(Clone, Debug, Default)]
pub(crate) struct SimulatedDisk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    files: Vec<FileState>,
    /// Names as the running system sees them, and as they are on the platter.
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    /// Changes of names that are not durable yet, oldest first.
    changes: Vec<Change>,
    step: u64,
    plan: Option<(u64, Fault)>,
    dead: bool,
}

#[derive(Clone, Debug, Default)]
struct FileState {
    /// As the running system sees it, and as it is on the platter.
    content: Vec<u8>,
    durable: Vec<u8>,
    /// Writes since the last sync.
    writes: Vec<Write>,
}

#[derive(Clone, Debug)]
enum Write {
    At(u64, Vec<u8>),
    Len(u64),
}

#[derive(Clone, Debug)]
enum Change {
    Create(String, usize),
    Rename(String, String),
    Remove(String),
}

/// Bytes that a disk writes as one.
const SECTOR: usize = 512;

impl SimulatedDisk {
    /// Plans a fault for the `step`-th access from now.
    pub(crate) fn plan(&self, step: u64, fault: Fault) {
        let mut state = self.state();
        state.plan = Some((state.step + step, fault));
    }

    /// Accesses so far.
    pub(crate) fn steps(&self) -> u64 {
        self.state().step
    }

    /// The machine starts again: what was synced is there; of the rest, `chance` keeps or tears what it likes.
    pub(crate) fn reboot(&self, mut chance: impl FnMut() -> u64) -> Self {
        let mut old = self.state();
        let changes = std::mem::take(&mut old.changes);
        for change in changes {
            if chance().is_multiple_of(2) {
                apply(&mut old.durable_names, &change);
            }
        }
        let files = old.files.iter().map(|file| file.after_power_loss(&mut chance)).collect();
        let names = old.durable_names.clone();
        Self(Arc::new(Mutex::new(State { files, durable_names: names.clone(), names, ..State::default() })))
    }

    /// The process ends and another one begins; the machine goes on.
    pub(crate) fn restart(&self) -> Self {
        let old = self.state();
        let files = old.files.clone();
        let (names, durable_names, changes) =
            (old.names.clone(), old.durable_names.clone(), old.changes.clone());
        Self(Arc::new(Mutex::new(State { files, names, durable_names, changes, ..State::default() })))
    }

    /// Flips a byte of a file, as rot does.
    pub(crate) fn rot(&self, name: &str, at: usize) {
        let mut state = self.state();
        let file = state.names[name];
        state.files[file].content[at] ^= 1;
        state.files[file].durable[at] ^= 1;
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.state().names.keys().cloned().collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

impl FileState {
    fn after_power_loss(&self, chance: &mut impl FnMut() -> u64) -> Self {
        let mut durable = self.durable.clone();
        for write in &self.writes {
            match (chance() % 3, write) {
                (0, _) => {}
                (1, Write::At(offset, data)) => {
                    let sectors = data.len() / SECTOR;
                    let kept = usize::try_from(chance()).unwrap_or(0) % (sectors + 1) * SECTOR;
                    write_at(&mut durable, *offset, &data[..kept]);
                }
                (_, Write::At(offset, data)) => write_at(&mut durable, *offset, data),
                (_, Write::Len(len)) => durable.resize(usize::try_from(*len).unwrap(), 0),
            }
        }
        Self { content: durable.clone(), durable, writes: Vec::new() }
    }
}

fn write_at(content: &mut Vec<u8>, offset: u64, data: &[u8]) {
    let offset = usize::try_from(offset).unwrap();
    let end = offset + data.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset..end].copy_from_slice(data);
}

fn apply(names: &mut BTreeMap<String, usize>, change: &Change) {
    match change {
        Change::Create(name, file) => {
            names.insert(name.clone(), *file);
        }
        Change::Rename(from, to) => {
            if let Some(file) = names.remove(from) {
                names.insert(to.clone(), file);
            }
        }
        Change::Remove(name) => {
            names.remove(name);
        }
    }
}

fn folder_of(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(folder, _)| folder)
}

impl Change {
    fn touches(&self, folder: &str) -> bool {
        match self {
            Self::Create(name, _) | Self::Remove(name) => folder_of(name) == folder,
            Self::Rename(from, to) => folder_of(from) == folder || folder_of(to) == folder,
        }
    }
}

impl State {
    /// Counts a step, and says what happens at it.
    fn next(&mut self) -> io::Result<Option<Fault>> {
        if self.dead {
            return Err(io::Error::other("the machine is off"));
        }
        let step = self.step;
        self.step += 1;
        match self.plan {
            Some((at, Fault::PowerLoss)) if step >= at => {
                self.dead = true;
                Err(io::Error::other("power loss"))
            }
            Some((at, fault @ Fault::Full(steps))) if (at..at + steps).contains(&step) => Ok(Some(fault)),
            Some((at, Fault::Eio)) if step == at => Ok(Some(Fault::Eio)),
            _ => Ok(None),
        }
    }

    /// A step that changes names or reads: fails as a whole.
    fn plain_step(&mut self) -> io::Result<()> {
        match self.next()? {
            Some(Fault::Eio) => Err(io::Error::from_raw_os_error(5)),
            _ => Ok(()),
        }
    }

    fn change(&mut self, change: Change) {
        apply(&mut self.names, &change);
        self.changes.push(change);
    }
}

#[derive(Debug)]
struct SimulatedFile {
    disk: SimulatedDisk,
    file: usize,
}

impl Disk for SimulatedDisk {
    fn open(&self, name: &str, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        state.plain_step()?;
        let file = match state.names.get(name) {
            Some(file) => *file,
            None if create => {
                state.files.push(FileState::default());
                let file = state.files.len() - 1;
                state.change(Change::Create(name.to_owned(), file));
                file
            }
            None => return Err(io::ErrorKind::NotFound.into()),
        };
        Ok(Arc::new(SimulatedFile { disk: self.clone(), file }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.plain_step()?;
        if !state.names.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.change(Change::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.plain_step()?;
        if state.names.contains_key(name) {
            state.change(Change::Remove(name.to_owned()));
        }
        Ok(())
    }

    fn sync_folder(&self, folder: &str) -> io::Result<()> {
        let mut state = self.state();
        let fault = state.next()?;
        let (synced, left): (Vec<_>, Vec<_>) =
            std::mem::take(&mut state.changes).into_iter().partition(|change| change.touches(folder));
        state.changes = left;
        if fault == Some(Fault::Eio) {
            return Err(io::Error::from_raw_os_error(5));
        }
        for change in &synced {
            apply(&mut state.durable_names, change);
        }
        Ok(())
    }

    fn free_range(&self, name: &str, range: Range<u64>) -> io::Result<()> {
        let file = self.open(name, false)?;
        let (start, end) = (usize::try_from(range.start).unwrap(), usize::try_from(range.end).unwrap());
        assert!(end <= usize::try_from(file.len()?).unwrap(), "beyond the end");
        file.write_at(&vec![0; end - start], range.start)
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let mut state = self.state();
        state.plain_step()?;
        let inside = state.names.keys().filter(|name| folder_of(name) == folder);
        Ok(inside.map(|name| name.rsplit('/').next().unwrap_or(name).to_owned()).collect())
    }

    fn free(&self) -> io::Result<u64> {
        Ok(1 << 40)
    }

    fn path(&self, _name: &str) -> Option<PathBuf> {
        None
    }
}

impl DiskFile for SimulatedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.plain_step()?;
        let offset = usize::try_from(offset).unwrap();
        let content = &state.files[self.file].content;
        let Some(part) = content.get(offset..offset + buffer.len()) else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        buffer.copy_from_slice(part);
        Ok(())
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        let fault = state.next()?;
        let written = if fault.is_some() { data.len() / 2 } else { data.len() };
        let file = &mut state.files[self.file];
        write_at(&mut file.content, offset, &data[..written]);
        file.writes.push(Write::At(offset, data[..written].to_vec()));
        match fault {
            Some(Fault::Full(_)) => Err(io::Error::from_raw_os_error(28)),
            Some(_) => Err(io::Error::from_raw_os_error(5)),
            None => Ok(()),
        }
    }

    fn len(&self) -> io::Result<u64> {
        let mut state = self.disk.state();
        state.plain_step()?;
        Ok(state.files[self.file].content.len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        match state.next()? {
            Some(Fault::Full(_)) => return Err(io::Error::from_raw_os_error(28)),
            Some(_) => return Err(io::Error::from_raw_os_error(5)),
            None => {}
        }
        let file = &mut state.files[self.file];
        file.content.resize(usize::try_from(len).unwrap(), 0);
        file.writes.push(Write::Len(len));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        let fault = state.next()?;
        let file = &mut state.files[self.file];
        // Either way the system now holds the pages for clean (Rebello, ATC'20).
        file.writes.clear();
        if fault == Some(Fault::Eio) {
            return Err(io::Error::from_raw_os_error(5));
        }
        file.durable = file.content.clone();
        Ok(())
    }
}
