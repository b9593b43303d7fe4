//! A unit: one folder of a storage server, with the segments in it.
//!
//! [`Unit`] has one owner, its worker (`worker`), and is the only one that changes the folder; readers share its
//! [`Shelf`] and never wait for a write. All of it is plain calls on a [`Disk`]: the same code runs on a real folder and
//! on the simulated one.
//!
//! What it refuses, whoever asks: appends at any other place than the next, or under any other than the present epoch
//! of the segment's writer; appends to what is sealed, failed or expired.

mod append;
pub mod expiry;
mod kept;
mod leave;
pub mod meta;
pub mod moving;
mod open;
mod receive;
mod rewrap;
pub mod scrub;
mod seal;
pub mod shelf;
mod strays;
mod sync_times;
mod tables;
mod thin;
pub mod worker;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use lighter_protocol::{PeerId, UnixTime};

use crate::disk::{Disk, DiskFile, Space};
use crate::ids::{Epoch, SegmentId, UnitId};
use crate::limits::UNIT_SEGMENTS_MAX;
use crate::segment::header::SegmentHeader;
use crate::segment::{RECORDS_AT, file_name};

pub use append::CheckedAppend;
pub use moving::MoveJob;
pub use open::OpenReport;
pub use receive::{AdoptJob, Adopted, Partial, Stretch};
pub use seal::{SealJob, SealReport, Sealed};
pub use shelf::{Phase, Shelf, Shelved, Stretched};
pub use strays::Stray;
pub use thin::{ThinJob, Thinned};

use append::Writing;
use kept::Kept;
use meta::UnitMeta;

/// A unit, as its one owner holds it.
pub struct Unit<D: Disk> {
    disk: D,
    server: PeerId,
    meta: UnitMeta,
    shelf: Arc<Shelf<D>>,
    writing: BTreeMap<SegmentId, Writing>,
    /// What is being received, a bounded number.
    partials: BTreeMap<SegmentId, receive::Place<D>>,
    next_partial: u64,
    scrub: scrub::Scrub,
    strays: strays::Strays,
    fill_len: u64,
}

/// Why a unit refused. The text is for logs; over the wire go the kinds.
#[derive(Debug, thiserror::Error)]
pub enum UnitError {
    /// A later writer has been here.
    #[error("fenced: the present epoch is {present:?}")]
    Fenced {
        /// The epoch that counts.
        present: Epoch,
    },
    /// No such segment here.
    #[error("no such segment")]
    NoSegment,
    /// Its deletion day is over.
    #[error("expired")]
    Expired,
    /// Not the next place.
    #[error("the next record begins at {next}")]
    Offset {
        /// The next place.
        next: u64,
    },
    /// Not possible in the state that the segment is in: sealed, failed, not empty, and the like.
    #[error("not in this state: {0}")]
    State(&'static str),
    /// The records are not sound, or not in order.
    #[error("unsound: {0}")]
    Unsound(&'static str),
    /// No room.
    #[error("no room")]
    NoSpace,
    /// Its records were moved to an object store, and cannot be had from there now.
    #[error("the object store cannot be reached")]
    Away,
    /// The disk failed.
    #[error("disk")]
    Disk(#[source] io::Error),
}

impl From<io::Error> for UnitError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::StorageFull { Self::NoSpace } else { Self::Disk(error) }
    }
}

impl<D: Disk> Unit<D> {
    /// What readers share.
    pub fn shelf(&self) -> &Arc<Shelf<D>> {
        &self.shelf
    }

    /// Its name.
    pub fn id(&self) -> UnitId {
        self.meta.unit
    }

    /// Writes so many zeros ahead of small appends; 0 for none.
    pub fn set_fill_len(&mut self, fill_len: u64) {
        self.fill_len = fill_len;
    }

    /// Room on its disk; none where the disk does not say.
    pub fn space(&self) -> Space {
        self.disk.space().unwrap_or_default()
    }

    /// The epoch that counts for `writer`.
    pub fn epoch(&self, writer: &PeerId) -> Epoch {
        self.meta.epochs.get(writer).copied().unwrap_or_default()
    }

    /// Raises the epoch of `writer`, durably. The present epoch again changes nothing.
    ///
    /// # Errors
    /// [`UnitError::Fenced`] where it is higher already.
    pub fn fence(&mut self, writer: PeerId, epoch: Epoch) -> Result<(), UnitError> {
        let present = self.epoch(&writer);
        if epoch < present {
            return Err(UnitError::Fenced { present });
        }
        if epoch > present {
            let mut next = self.meta.clone();
            next.epochs.insert(writer, epoch);
            next.store(&self.disk)?;
            self.meta = next;
        }
        Ok(())
    }

    fn check_epoch(&self, writer: &PeerId, epoch: Epoch) -> Result<(), UnitError> {
        let present = self.epoch(writer);
        if epoch == present { Ok(()) } else { Err(UnitError::Fenced { present }) }
    }

    /// Opens a segment: its header block and its name are durable when this returns well. Opening again what is
    /// there and empty changes nothing. One that is opened anew has records elsewhere, and counts as incomplete until it
    /// is sealed.
    ///
    /// # Errors
    /// See [`UnitError`].
    pub fn create(
        &mut self,
        header: SegmentHeader,
        epoch: Epoch,
        is_anew: bool,
        now: UnixTime,
    ) -> Result<(), UnitError> {
        self.check_epoch(&header.writer, epoch)?;
        if header.epoch > epoch || header.unit_of(&self.server) != Some(self.meta.unit) {
            return Err(UnitError::Unsound("a header that is not for this unit"));
        }
        if header.day_key.is_none() || header.deletion_day.end() <= now {
            return Err(UnitError::Expired);
        }
        if let Some(there) = self.shelf.get(header.segment) {
            let is_same = there.header == header && there.phase().is_open() && there.readable() == RECORDS_AT;
            return if is_same { Ok(()) } else { Err(UnitError::State("the segment exists")) };
        }
        if self.shelf.len() >= UNIT_SEGMENTS_MAX {
            return Err(UnitError::NoSpace);
        }
        self.drop_partial(header.segment, None)?;
        if is_anew {
            self.miss(header.segment, header.deletion_day)?;
        }
        let name = file_name(header.segment);
        match self.create_file(&name, &header) {
            Ok(file) => {
                self.writing.insert(header.segment, Writing::new(RECORDS_AT));
                self.shelf.put(Shelved::new(header, file, Phase::Open, RECORDS_AT));
                Ok(())
            }
            Err(error) => {
                // Best effort: what is left of it is an empty segment that nobody asks for.
                let _ = self.disk.remove(&name);
                Err(error.into())
            }
        }
    }

    fn create_file(&self, name: &str, header: &SegmentHeader) -> io::Result<D::File> {
        // A file that is not on the shelf is what an earlier try left behind.
        gone_or_not_there(self.disk.remove(name))?;
        let file = self.disk.create(name)?;
        file.write_at(0, &header.encode())?;
        file.sync_data()?;
        self.disk.sync_dir()?;
        Ok(file)
    }

    /// Cuts a segment to `length`, a record's end at or below its own: it is open again, also where it was sealed.
    ///
    /// # Errors
    /// See [`UnitError`].
    pub fn truncate(
        &mut self,
        segment: SegmentId,
        writer: &PeerId,
        epoch: Epoch,
        length: u64,
    ) -> Result<(), UnitError> {
        let shelved = self.owned(segment, writer, epoch)?;
        if matches!(shelved.phase(), Phase::Failed | Phase::Sealing) {
            return Err(UnitError::State("failed, or being sealed"));
        }
        // Only a sealed copy counts where its header does not name this unit.
        if shelved.header.unit_of(&self.server) != Some(self.meta.unit) {
            return Err(UnitError::State("a copy that was adopted"));
        }
        if shelved.moved().is_some() {
            return Err(UnitError::State("moved to an object store"));
        }
        if !(RECORDS_AT..=shelved.readable()).contains(&length) {
            return Err(UnitError::Offset { next: shelved.readable() });
        }
        self.writing.remove(&segment);
        if let Err(error) = shelved.file.truncate(length).and_then(|()| shelved.file.sync_data()) {
            shelved.set_readable(length);
            self.fail(&shelved, true);
            return Err(error.into());
        }
        let found = crate::segment::scan::scan(&shelved.file, segment, shelved.header.epoch, length, |_| {})?;
        shelved.set_readable(length);
        shelved.set_phase(Phase::Open);
        let writing = Writing { next: length, filled: length, records: found.records, last: found.last };
        self.writing.insert(segment, writing);
        Ok(())
    }

    /// Removes a segment that has no records. One that is not there is removed already.
    ///
    /// # Errors
    /// [`UnitError::State`] where it has records.
    pub fn discard(&mut self, segment: SegmentId, writer: &PeerId, epoch: Epoch) -> Result<(), UnitError> {
        let shelved = match self.owned(segment, writer, epoch) {
            // What an opening that failed may have left behind goes, too; what is another writer's stays.
            Err(UnitError::NoSegment) if self.shelf.get(segment).is_none() => {
                gone_or_not_there(self.disk.remove(&file_name(segment)))?;
                self.disk.sync_dir()?;
                self.complete(segment);
                return Ok(());
            }
            Err(UnitError::NoSegment) => return Ok(()),
            other => other?,
        };
        if shelved.readable() > RECORDS_AT || shelved.phase() == Phase::Sealing {
            return Err(UnitError::State("the segment has records"));
        }
        gone_or_not_there(self.disk.remove(&file_name(segment)))?;
        self.disk.sync_dir()?;
        self.forget(segment);
        self.complete(segment);
        Ok(())
    }

    /// The segment, if `writer` owns it and `epoch` is its present one.
    fn owned(&self, segment: SegmentId, writer: &PeerId, epoch: Epoch) -> Result<Arc<Shelved<D>>, UnitError> {
        self.check_epoch(writer, epoch)?;
        self.shelf.get(segment).filter(|shelved| shelved.header.writer == *writer).ok_or(UnitError::NoSegment)
    }
}

/// Trying again what was done but not synced finds it done.
fn gone_or_not_there(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests;
