//! A blob on its way in (SPEC D3): verified data is written as it arrives, what is durable is put on record, and once
//! all of it is there the blob gets its final place.
//!
//! **Sync.** A group is put on record only by a [`checkpoint`](Partial::checkpoint): data and outboard are synced
//! first, then the groups that had been written before the sync began are recorded, in one durable transaction. So
//! what is on record is on the disk, whatever happens.
//!
//! **Recovery.** When a pull goes on after a crash, what is on record counts as it is. What lies beyond it may be
//! whole (the process was killed), torn or missing (the power failed): it is re-read and proved against the outboard,
//! group by group, and what proves true is not fetched again. Before the blob gets its final place, everything that an
//! earlier process wrote is re-read once (rule 4).
//!
//! **A failed sync** gives the data up: the files are removed, and the pull begins anew (rule 1).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bao_tree::TreeNode;
use bao_tree::io::{BaoContentItem, Leaf, Parent};
use lighter_protocol::BlobId;
use lighter_protocol::blob::{self, GROUP_LEN, PAIR_LEN, RangeSet};

use crate::disk::DiskFile;
use crate::error::StoreError;
use crate::layout::{self, Pair};
use crate::limits::CHECKPOINT_LEN;
use crate::store::Inner;
use crate::tree::{self, Files};

/// A blob on its way in; shared by the sources that it is pulled from.
#[derive(Debug)]
pub struct Partial {
    store: Arc<Inner>,
    blob: BlobId,
    size: u64,
    data: Arc<dyn DiskFile>,
    outboard: Option<Arc<dyn DiskFile>>,
    state: Mutex<State>,
    /// One checkpoint at a time.
    checkpointing: Mutex<()>,
}

/// Invariant: `recorded ⊆ written`; `inherited ⊆ written`.
#[derive(Debug)]
struct State {
    /// Written here, or found and proved.
    written: RangeSet,
    /// Durable, and on record as that.
    recorded: RangeSet,
    /// Written by an earlier process: re-read before the end.
    inherited: RangeSet,
    /// Bytes written since the last checkpoint began.
    unsynced: u64,
    /// A sync failed: nothing more is done with it.
    given_up: bool,
}

impl Partial {
    /// Opens the files of a partial blob, made where they are missing, and finds out what of it is there.
    pub(crate) fn open(store: &Arc<Inner>, blob: BlobId, size: u64) -> Result<Self, StoreError> {
        let names = Pair::partial(blob, size);
        let failed = StoreError::io;
        let data = store.disk.open(&names.data, true).map_err(failed("opening a partial blob"))?;
        let outboard = if tree::outboard_len(size) == 0 {
            None
        } else {
            Some(store.disk.open(&names.tree, true).map_err(failed("opening a partial outboard"))?)
        };
        let recorded = store.index.partial(blob, size)?;
        let unknown = recorded.missing(size);
        let found = if data.len().map_err(failed("reading a partial blob"))? == 0 {
            RangeSet::new()
        } else {
            let files = Files { data: &*data, outboard: outboard.as_deref() };
            tree::verified(files, blob, size, &unknown).map_err(failed("re-reading a partial blob"))?
        };
        let mut written = recorded.clone();
        for range in found.iter() {
            written.insert(range);
        }
        let state = State { inherited: written.clone(), written, recorded, unsynced: 0, given_up: false };
        Ok(Self {
            store: Arc::clone(store),
            blob,
            size,
            data,
            outboard,
            state: Mutex::new(state),
            checkpointing: Mutex::new(()),
        })
    }

    /// Which blob.
    pub fn blob(&self) -> BlobId {
        self.blob
    }

    /// Its size, as claimed: true once the last group is verified.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes of it that are here.
    pub fn len_here(&self) -> u64 {
        self.state().written.len()
    }

    /// Whether all of it is here.
    pub fn is_complete(&self) -> bool {
        self.state().written.is_whole(self.size)
    }

    /// What of it is here, written and verified.
    pub fn here(&self) -> RangeSet {
        self.state().written.clone()
    }

    /// Writes what a decoder verified against this blob's id; nothing else may be given here. True says that a
    /// [`checkpoint`](Self::checkpoint) is due.
    ///
    /// # Errors
    /// As [`write_pair`](Self::write_pair) and [`write_data`](Self::write_data).
    pub fn write(&self, item: &BaoContentItem) -> Result<bool, StoreError> {
        match item {
            BaoContentItem::Parent(Parent { node, pair }) => self.write_pair(*node, pair).map(|()| false),
            BaoContentItem::Leaf(Leaf { offset, data }) => self.write_data(*offset, data),
        }
    }

    /// Writes a verified hash pair. A node inside a group has no place in the outboard and is left out.
    ///
    /// # Errors
    /// What the disk says.
    pub fn write_pair(&self, node: TreeNode, pair: &(blake3::Hash, blake3::Hash)) -> Result<(), StoreError> {
        self.write_pairs([(node, *pair)])
    }

    /// Writes verified hash pairs, as [`write_pair`](Self::write_pair) does; those that lie one behind the other, as a
    /// piece's do, in one go.
    ///
    /// # Errors
    /// What the disk says; some of them may have been written.
    pub fn write_pairs(
        &self,
        pairs: impl IntoIterator<Item = (TreeNode, (blake3::Hash, blake3::Hash))>,
    ) -> Result<(), StoreError> {
        let Some(outboard) = &self.outboard else { return Ok(()) };
        self.alive()?;
        let tree = blob::tree(self.size);
        let write = |run: &[u8], first: u64| {
            outboard.write_at(run, first * PAIR_LEN as u64).map_err(StoreError::io("writing an outboard"))
        };
        // Pairs of the indexes from `first` to `next`, not written yet.
        let (mut run, mut first, mut next) = (Vec::new(), 0, 0);
        for (node, pair) in pairs {
            let Some(index) = tree.pre_order_offset(node) else { continue };
            if index != next && !run.is_empty() {
                write(&run, first)?;
                run.clear();
            }
            if run.is_empty() {
                first = index;
            }
            run.extend_from_slice(pair.0.as_bytes());
            run.extend_from_slice(pair.1.as_bytes());
            next = index + 1;
        }
        if run.is_empty() { Ok(()) } else { write(&run, first) }
    }

    /// Writes verified bytes: whole groups, `offset` at a group's start. True says that a
    /// [`checkpoint`](Self::checkpoint) is due.
    ///
    /// # Errors
    /// [`StoreError::OutOfPlace`] where they are not whole groups of this blob; else what the disk says.
    pub fn write_data(&self, offset: u64, data: &[u8]) -> Result<bool, StoreError> {
        let end = offset.saturating_add(data.len() as u64);
        let whole = offset.is_multiple_of(GROUP_LEN) && (end.is_multiple_of(GROUP_LEN) || end == self.size);
        if !whole || end > self.size || (data.is_empty() && self.size != 0) {
            return Err(StoreError::OutOfPlace(self.blob));
        }
        self.alive()?;
        self.data.write_at(data, offset).map_err(StoreError::io("writing a blob"))?;
        let mut state = self.state();
        // A set in too many pieces does not take another one: those bytes are fetched again.
        state.written.insert(offset..end);
        state.unsynced += data.len() as u64;
        Ok(state.unsynced >= CHECKPOINT_LEN)
    }

    /// Makes durable what was written so far and puts it on record. Runs beside further writes.
    ///
    /// # Errors
    /// [`StoreError::SyncFailed`] gives the blob up; what the index says leaves it as it was.
    pub fn checkpoint(&self) -> Result<(), StoreError> {
        let _one_at_a_time = self.checkpointing.lock().unwrap_or_else(PoisonError::into_inner);
        self.alive()?;
        let written = {
            let mut state = self.state();
            if state.written == state.recorded {
                return Ok(());
            }
            state.unsynced = 0;
            state.written.clone()
        };
        self.sync()?;
        // The first time, the files' own entries are made durable, too: a row must not run ahead of them.
        if self.state().recorded.is_empty() {
            let synced = self.store.disk.sync_folder(layout::PARTIAL);
            synced.map_err(|source| self.give_up(source))?;
        }
        self.store.index.record_partial(self.blob, self.size, &written)?;
        self.state().recorded = written;
        Ok(())
    }

    /// All of it is here: re-reads what an earlier process wrote. The next steps are to make its files durable, and the final
    /// place ([`Store::finish`](crate::Store::finish)).
    pub(crate) fn prove(&self) -> Result<(), StoreError> {
        let inherited = {
            let state = self.state();
            if !state.written.is_whole(self.size) || (self.size == 0 && self.blob != blob::empty_id()) {
                return Err(StoreError::Incomplete(self.blob));
            }
            state.inherited.clone()
        };
        self.alive()?;
        if inherited.is_empty() { Ok(()) } else { self.re_read(&inherited) }
    }

    /// Its files, in the order in which they are synced.
    pub(crate) fn files(&self) -> impl Iterator<Item = &dyn DiskFile> {
        self.outboard.as_deref().into_iter().chain([&*self.data])
    }

    fn re_read(&self, inherited: &RangeSet) -> Result<(), StoreError> {
        let files = Files { data: &*self.data, outboard: self.outboard.as_deref() };
        let proved = tree::verified(files, self.blob, self.size, inherited)
            .map_err(StoreError::io("re-reading a partial blob"))?;
        if inherited.iter().all(|range| proved.contains(&range)) {
            self.state().inherited = RangeSet::new();
            return Ok(());
        }
        // Rotten since it was recorded: what does not prove true is forgotten, and fetched again.
        tracing::warn!(blob = %self.blob, "data on record is damaged on disk; it is fetched again");
        let here = tree::verified(files, self.blob, self.size, &RangeSet::whole(self.size))
            .map_err(StoreError::io("re-reading a partial blob"))?;
        self.store.index.record_partial(self.blob, self.size, &RangeSet::new())?;
        let mut state = self.state();
        state.recorded = RangeSet::new();
        state.inherited = RangeSet::new();
        state.written = here;
        if state.written.is_whole(self.size) { Ok(()) } else { Err(StoreError::Incomplete(self.blob)) }
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.files().try_for_each(DiskFile::sync).map_err(|source| self.give_up(source))
    }

    /// After a failed sync nobody knows what is on the disk, and asking again would be answered with a lie.
    pub(crate) fn give_up(&self, source: std::io::Error) -> StoreError {
        {
            let mut state = self.state();
            state.given_up = true;
            state.written = RangeSet::new();
            state.recorded = RangeSet::new();
        }
        self.store.discard_partial(self.blob, self.size);
        StoreError::SyncFailed { blob: self.blob, source }
    }

    /// Whether a sync failed: the handle is of no use any more, and the pull begins anew.
    pub fn is_given_up(&self) -> bool {
        self.state().given_up
    }

    fn alive(&self) -> Result<(), StoreError> {
        if self.is_given_up() { Err(StoreError::Incomplete(self.blob)) } else { Ok(()) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
