//! A disk in memory that fails as real ones do: for tests, driven from a seed.
//!
//! What a crash leaves of it: everything synced; of each write since, some of its 512-byte sectors; of each name made,
//! changed or removed since the last directory sync, either state. A failed sync drops some of the pending writes for
//! good while reads go on showing them, as a page cache does. And it lies, if so told: writes that never reach it, or
//! reach another place, and syncs that do nothing, all said to be good ([`Fault`]).

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{Disk, DiskFile, Space};
use crate::sim::count_step;

/// A simulated folder. Clones are handles of the same one.
#[derive(Clone)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
    /// Handles of before a crash do nothing any more.
    life: u64,
}

/// A file of a [`SimDisk`].
pub struct SimFile {
    disk: SimDisk,
    id: u64,
}

/// What goes wrong, and when. Operations that change something are counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// This operation, and all later ones, fail: the machine has lost power. See [`SimDisk::crash`].
    Crash,
    /// This operation fails once. A failed sync loses what it should have synced.
    Eio,
    /// This write or creation fails for want of room, perhaps half done.
    NoSpace,
    /// The next write from here on is said to be good and never reaches the disk; a cache may show it for a while.
    Lost,
    /// The next write from here on is said to be good and lies in another place: in this file, or in another.
    Misdirected,
    /// The next sync from here on, of a file or of the names, is said to be good and did nothing.
    IdleSync,
}

/// What an operation changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Changes {
    Contents,
    /// Names, or lengths.
    Names,
    /// Nothing, but what is durable of it.
    Durability,
}

impl Fault {
    /// Whether the fault can befall such an operation. The loud ones befall any.
    fn befalls(self, changes: Changes) -> bool {
        match self {
            Self::Crash | Self::Eio | Self::NoSpace => true,
            Self::Lost | Self::Misdirected => changes == Changes::Contents,
            Self::IdleSync => changes == Changes::Durability,
        }
    }
}

struct State {
    chance: StdRng,
    life: u64,
    operations: u64,
    faults: BTreeMap<u64, Fault>,
    dead: bool,
    next_id: u64,
    files: BTreeMap<u64, FileState>,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    space: Space,
}

#[derive(Default)]
struct FileState {
    visible: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Pending>,
}

enum Pending {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

/// What a disk writes in one piece.
const SECTOR: usize = 512;

impl SimDisk {
    /// An empty folder whose misfortunes are drawn from `seed`.
    pub fn new(seed: u64) -> Self {
        let state = State {
            chance: StdRng::seed_from_u64(seed),
            life: 0,
            operations: 0,
            faults: BTreeMap::new(),
            dead: false,
            next_id: 0,
            files: BTreeMap::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            space: Space { total: 1 << 40, free: 1 << 39 },
        };
        Self { state: Arc::new(Mutex::new(state)), life: 0 }
    }

    /// Operations so far.
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Lets the operation that comes `after` so many further ones fail.
    pub fn inject(&self, after: u64, fault: Fault) {
        let mut state = self.state();
        let at = state.operations + after;
        state.faults.insert(at, fault);
    }

    /// Forgets what was injected and has not happened.
    pub fn heal(&self) {
        self.state().faults.clear();
    }

    /// Whether [`Fault::Crash`] has happened.
    pub fn is_dead(&self) -> bool {
        self.state().dead
    }

    /// The power goes and comes back: gives the disk as it is found then. Handles of before are dead.
    pub fn crash(&self) -> Self {
        let mut state = self.state();
        let State { chance, files, names, durable_names, .. } = &mut *state;
        for file in files.values_mut() {
            file.crash(chance);
        }
        let mut found = BTreeMap::new();
        let mut all: Vec<&String> = durable_names.keys().chain(names.keys()).collect();
        all.sort_unstable();
        all.dedup();
        for name in all {
            let (old, new) = (durable_names.get(name), names.get(name));
            let kept = if old == new || chance.random() { new } else { old };
            if let Some(id) = kept {
                found.insert(name.clone(), *id);
            }
        }
        *names = found.clone();
        *durable_names = found;
        let kept: Vec<u64> = names.values().copied().collect();
        files.retain(|id, _| kept.contains(id));
        state.life += 1;
        state.dead = false;
        state.faults.clear();
        Self { state: Arc::clone(&self.state), life: state.life }
    }

    /// The process ends and starts again; the machine goes on: nothing is lost. Handles of before are dead.
    pub fn restart(&self) -> Self {
        let mut state = self.state();
        state.life += 1;
        state.dead = false;
        state.faults.clear();
        Self { state: Arc::clone(&self.state), life: state.life }
    }

    /// Says from now on that there is so much room. Writes go on finding some.
    pub fn set_space(&self, space: Space) {
        self.state().space = space;
    }

    /// Changes one byte of a file, behind everybody's back.
    pub fn flip(&self, name: &str, at: u64) {
        let mut state = self.state();
        let id = state.names[name];
        let at = usize::try_from(at).expect("within memory");
        let file = state.files.get_mut(&id).expect("a named file exists");
        for bytes in [&mut file.visible, &mut file.durable] {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 0x40;
            }
        }
    }

    /// Loses a file, behind everybody's back.
    pub fn lose(&self, name: &str) {
        let mut state = self.state();
        state.names.remove(name);
        state.durable_names.remove(name);
    }

    /// The bytes of a file as reads see them.
    pub fn contents(&self, name: &str) -> Vec<u8> {
        let state = self.state();
        state.files[&state.names[name]].visible.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, if this handle may still read.
    fn reading(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.state();
        if state.dead || state.life != self.life { Err(gone()) } else { Ok(state) }
    }

    /// The state, and the fault that hits this operation, if this handle may still change something.
    fn changing(&self, changes: Changes) -> io::Result<(MutexGuard<'_, State>, Option<Fault>)> {
        let mut state = self.reading()?;
        count_step();
        let at = state.operations;
        state.operations += 1;
        let mut fault = state.faults.remove(&at);
        if let Some(waits) = fault.take_if(|fault| !fault.befalls(changes)) {
            state.faults.entry(at + 1).or_insert(waits);
        }
        if fault == Some(Fault::Crash) {
            state.dead = true;
        }
        tracing::trace!(at, ?fault, "a disk changes");
        Ok((state, fault))
    }
}

impl State {
    fn file(&mut self, id: u64) -> io::Result<&mut FileState> {
        self.files.get_mut(&id).ok_or_else(gone)
    }

    /// Puts `bytes` somewhere over what a file has: over the file that they were meant for, or over another.
    fn misdirect(&mut self, meant_for: u64, bytes: &[u8]) {
        let others: Vec<u64> = self.names.values().copied().collect();
        let is_other = self.chance.random::<bool>() && !others.is_empty();
        let id = if is_other { others[self.chance.random_range(0..others.len())] } else { meant_for };
        let Some(file) = self.files.get_mut(&id).filter(|file| !file.durable.is_empty()) else { return };
        let at = self.chance.random_range(0..file.durable.len().div_ceil(SECTOR)) * SECTOR;
        for contents in [&mut file.visible, &mut file.durable] {
            let end = contents.len().min(at + bytes.len());
            if let Some(place) = contents.get_mut(at..end) {
                place.copy_from_slice(&bytes[..place.len()]);
            }
        }
    }
}

impl FileState {
    fn crash(&mut self, chance: &mut StdRng) {
        let pending = std::mem::take(&mut self.pending);
        // Often all or nothing, else any part of it, in any order.
        let mood = chance.random_range(0..4);
        for change in pending {
            self.persist(change, mood, chance);
        }
        self.visible.clone_from(&self.durable);
    }

    fn persist(&mut self, change: Pending, mood: u32, chance: &mut StdRng) {
        match change {
            Pending::Truncate(len) => {
                if mood == 0 || (mood > 1 && chance.random()) {
                    self.durable.resize(len, 0);
                }
            }
            Pending::Write(at, bytes) => {
                for (index, sector) in bytes.chunks(SECTOR).enumerate() {
                    if mood == 0 || (mood > 1 && chance.random()) {
                        put(&mut self.durable, at + index * SECTOR, sector);
                    }
                }
            }
        }
    }
}

impl Disk for SimDisk {
    type File = SimFile;

    fn create(&self, name: &str) -> io::Result<SimFile> {
        let (mut state, fault) = self.changing(Changes::Names)?;
        refuse(fault)?;
        if state.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let id = state.next_id;
        state.next_id += 1;
        state.files.insert(id, FileState::default());
        state.names.insert(name.to_owned(), id);
        Ok(SimFile { disk: self.clone(), id })
    }

    fn open(&self, name: &str) -> io::Result<SimFile> {
        let state = self.reading()?;
        let id = *state.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(SimFile { disk: self.clone(), id })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (mut state, fault) = self.changing(Changes::Names)?;
        refuse(fault)?;
        let id = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), id);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let (mut state, fault) = self.changing(Changes::Names)?;
        refuse(fault)?;
        state.names.remove(name).map(|_| ()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.reading()?.names.keys().cloned().collect())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let (mut state, fault) = self.changing(Changes::Durability)?;
        refuse(fault)?;
        if fault != Some(Fault::IdleSync) {
            state.durable_names = state.names.clone();
        }
        Ok(())
    }

    fn space(&self) -> io::Result<Space> {
        Ok(self.reading()?.space)
    }
}

impl DiskFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.reading()?.file(self.id)?.visible.len() as u64)
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let mut state = self.disk.reading()?;
        let visible = &state.file(self.id)?.visible;
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let end = start.checked_add(bytes.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        bytes.copy_from_slice(visible.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let (mut state, fault) = self.disk.changing(Changes::Contents)?;
        let at = usize::try_from(offset).map_err(io::Error::other)?;
        if let Some(Fault::Lost | Fault::Misdirected) = fault {
            if state.chance.random() {
                put(&mut state.file(self.id)?.visible, at, bytes);
            }
            if fault == Some(Fault::Misdirected) {
                state.misdirect(self.id, bytes);
            }
            return Ok(());
        }
        let part = if fault.is_some() { state.chance.random_range(0..=bytes.len()) } else { bytes.len() };
        let file = state.file(self.id)?;
        if part > 0 {
            put(&mut file.visible, at, &bytes[..part]);
            file.pending.push(Pending::Write(at, bytes[..part].to_vec()));
        }
        refuse(fault)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let (mut state, fault) = self.disk.changing(Changes::Names)?;
        refuse(fault)?;
        let len = usize::try_from(len).map_err(io::Error::other)?;
        let file = state.file(self.id)?;
        file.visible.resize(len, 0);
        file.pending.push(Pending::Truncate(len));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let (mut state, fault) = self.disk.changing(Changes::Durability)?;
        if fault == Some(Fault::IdleSync) {
            return Ok(());
        }
        let State { chance, files, .. } = &mut *state;
        let file = files.get_mut(&self.id).ok_or_else(gone)?;
        if fault == Some(Fault::Crash) {
            return Err(gone()); // what reached the disk is drawn when the crash is looked at
        }
        let pending = std::mem::take(&mut file.pending);
        let mood = if fault.is_some() { 2 } else { 0 };
        for change in pending {
            file.persist(change, mood, chance);
        }
        refuse(fault)
    }

    fn drop_cached(&self, offset: u64, len: u64) {
        let Ok(mut state) = self.disk.reading() else { return };
        let Ok(file) = state.file(self.id) else { return };
        // What has yet to be written stays in the cache.
        if file.pending.is_empty() {
            let at = |place: u64| usize::try_from(place).unwrap_or(usize::MAX).min(file.visible.len());
            let (start, end) = (at(offset), at(offset.saturating_add(len)));
            for place in start..end {
                file.visible[place] = file.durable.get(place).copied().unwrap_or_default();
            }
        }
    }
}

fn put(bytes: &mut Vec<u8>, at: usize, part: &[u8]) {
    if bytes.len() < at + part.len() {
        bytes.resize(at + part.len(), 0);
    }
    bytes[at..at + part.len()].copy_from_slice(part);
}

fn refuse(fault: Option<Fault>) -> io::Result<()> {
    match fault {
        None | Some(Fault::Lost | Fault::Misdirected | Fault::IdleSync) => Ok(()),
        Some(Fault::Crash) => Err(gone()),
        Some(Fault::Eio) => Err(io::Error::other("simulated EIO")),
        Some(Fault::NoSpace) => Err(io::ErrorKind::StorageFull.into()),
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "simulated power loss")
}
