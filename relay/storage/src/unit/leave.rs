//! How a copy leaves a unit before its day: set aside, or dropped; and what the unit remembers of it.
//!
//! # Incomplete
//! The writer, when it takes the array over, learns from servers − copies + 1 servers what was acknowledged: each segment
//! is on one of those. That holds only as long as a server has every copy that it is counted for. One that has lost a
//! copy, or has put it aside, says so (`incomplete` in `unit.meta`) until it has it again, sealed, or until the writer
//! says that it needs not have it: the promised copies are elsewhere then.
//!
//! # Wiping
//! In what leaves, the wrapped day key is overwritten before the file is removed: blocks that a file system has freed
//! may keep their bytes beyond the deletion day. A file's name is changed first, so that no crash leaves a copy without
//! its key among the copies.

use std::io;

use lighter_protocol::{Day, PeerId};

use super::kept::Kept;
use super::{Phase, Unit, UnitError, gone_or_not_there};
use crate::disk::{Disk, DiskFile};
use crate::ids::{Epoch, SegmentId};
use crate::limits::SEGMENT_HEADER_LEN;
use crate::objects::ObjectName;
use crate::segment::file_name;
use crate::segment::stub::stub_name;

/// The end of the name of a file that was set aside, behind its deletion day.
const ASIDE: &str = ".aside";
/// The end of the name of a file that is no copy: not yet, or not any more.
const PART: &str = ".part";

impl<D: Disk> Unit<D> {
    /// Puts a damaged or failed copy out of the way, so that it can be copied anew from a mirror. The file stays, with
    /// another name, until its deletion day.
    ///
    /// # Errors
    /// See [`UnitError`].
    pub fn set_aside(&mut self, segment: SegmentId, writer: &PeerId, epoch: Epoch) -> Result<(), UnitError> {
        let shelved = match self.owned(segment, writer, epoch) {
            Err(UnitError::NoSegment) => return Ok(()),
            other => other?,
        };
        if shelved.phase() == Phase::Sealing {
            return Err(UnitError::State("being sealed"));
        }
        let day = shelved.header.deletion_day;
        self.miss(segment, day)?;
        match shelved.moved() {
            // The object stays as long as the stub.
            Some(place) => self.put_aside(&stub_name(segment), &object_aside_name(&place.name, day))?,
            None => self.rename_aside(segment, day)?,
        }
        self.forget(segment);
        self.shelf.count_set_aside();
        Ok(())
    }

    /// Gives the file of `segment` the name that it has until `day`, in place of one that was set aside before.
    pub(super) fn rename_aside(&self, segment: SegmentId, day: Day) -> io::Result<()> {
        self.put_aside(&file_name(segment), &aside_name(segment, day))
    }

    pub(super) fn put_aside(&self, name: &str, aside: &str) -> io::Result<()> {
        self.wipe(aside)?;
        gone_or_not_there(self.disk.rename(name, aside))?;
        self.disk.sync_dir()
    }

    /// Removes a sealed copy for good, and what was received of one. One that is not there is removed already.
    ///
    /// # Errors
    /// [`UnitError::State`] where it is not sealed; see [`UnitError`].
    pub fn drop_copy(&mut self, segment: SegmentId, writer: &PeerId, epoch: Epoch) -> Result<(), UnitError> {
        self.check_epoch(writer, epoch)?;
        self.drop_partial(segment, Some(writer))?;
        if let Some(shelved) = self.shelf.get(segment) {
            if shelved.header.writer != *writer {
                return Err(UnitError::NoSegment);
            }
            if !matches!(shelved.phase(), Phase::Sealed(_)) {
                return Err(UnitError::State("not sealed"));
            }
            if let Some(place) = shelved.moved() {
                // What a move may have left; then as below, and the object goes when the store is there.
                self.wipe(&file_name(segment))?;
                self.make_stray(&stub_name(segment), place.name)?;
                self.disk.sync_dir()?;
                self.wipe_stray(&place.name)?;
            } else {
                gone_or_not_there(self.disk.rename(&file_name(segment), &part_name(segment)))?;
                self.disk.sync_dir()?;
            }
            self.forget(segment);
        }
        self.complete(segment);
        self.wipe_part(segment)?;
        Ok(self.disk.sync_dir()?)
    }

    /// Wipes what was received of a segment, or what is left of a copy that was dropped. Where a crash left the file its
    /// segment's name, too, only the other name goes: it is the copy.
    pub(super) fn wipe_part(&self, segment: SegmentId) -> io::Result<()> {
        let part = part_name(segment);
        match self.disk.open(&file_name(segment)) {
            Ok(_) => gone_or_not_there(self.disk.remove(&part)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.wipe(&part),
            Err(error) => Err(error),
        }
    }

    /// How many segments have had more here than they have: as long as there are any, this unit does not tell what was
    /// acknowledged.
    pub fn incomplete(&self) -> u64 {
        self.meta.incomplete.len() as u64
    }

    /// Writes down that there was more of a segment here, before it goes.
    pub(super) fn miss(&mut self, segment: SegmentId, deletion_day: Day) -> io::Result<()> {
        if self.meta.incomplete.contains_key(&segment) {
            return Ok(());
        }
        let mut next = self.meta.clone();
        next.incomplete.insert(segment, deletion_day);
        next.store(&self.disk)?;
        self.meta = next;
        Ok(())
    }

    /// The segment has everything again, or needs not have anything.
    pub(super) fn complete(&mut self, segment: SegmentId) {
        if self.meta.incomplete.remove(&segment).is_some()
            && let Err(error) = self.meta.store(&self.disk)
        {
            tracing::warn!(%segment, %error, "a complete segment is still written down as incomplete");
        }
    }

    /// The copy is off the shelf; what was known of its failures and its damage goes with it.
    pub(super) fn forget(&mut self, segment: SegmentId) {
        self.writing.remove(&segment);
        self.shelf.take(segment);
        self.forget_damage(segment);
        if self.meta.suspects.remove(&segment).is_some()
            && let Err(error) = self.meta.store(&self.disk)
        {
            tracing::warn!(%segment, %error, "a settled failure is still written down");
        }
    }

    /// Destroys the day key in a file that is no copy, and removes it. One that is not there is gone already.
    pub(super) fn wipe(&self, name: &str) -> io::Result<()> {
        let file = match self.disk.open(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        let len = usize::try_from(file.len()?).unwrap_or(usize::MAX).min(SEGMENT_HEADER_LEN);
        file.write_at(0, &vec![0; len])?;
        file.sync_data()?;
        gone_or_not_there(self.disk.remove(name))
    }
}

/// Under which name a copy that was set aside is kept until `day`.
pub(super) fn aside_name(segment: SegmentId, day: Day) -> String {
    format!("{}.{}{ASIDE}", file_name(segment), day.0)
}

/// The same for the stub of a copy whose records are an object.
fn object_aside_name(name: &ObjectName, day: Day) -> String {
    format!("{name}.obj.{}{ASIDE}", day.0)
}

/// The object of a stub that was set aside under this name. `None` for other files.
pub(super) fn object_aside(name: &str) -> Option<ObjectName> {
    let (stub, _) = name.strip_suffix(ASIDE)?.rsplit_once('.')?;
    ObjectName::parse(stub.strip_suffix(".obj")?)
}

/// Under which name a stub that is not sound is kept until `day`: which object it meant is not known.
pub(super) fn stub_aside_name(segment: SegmentId, day: Day) -> String {
    format!("{}.{}{ASIDE}", stub_name(segment), day.0)
}

/// Until which day the file of this name is kept, where it was set aside. `None` for other files.
pub(super) fn aside_until(name: &str) -> Option<Day> {
    let (_, day) = name.strip_suffix(ASIDE)?.rsplit_once('.')?;
    // A day that cannot be read is over.
    Some(day.parse().map_or(Day(0), Day))
}

/// Under which name a segment is received, and under which it is removed.
pub(super) fn part_name(segment: SegmentId) -> String {
    format!("{segment}{PART}")
}

/// The segment whose file of this name is no copy, not yet or not any more. `None` for other files.
pub(super) fn part_of(name: &str) -> Option<SegmentId> {
    SegmentId::from_hex(name.strip_suffix(PART)?)
}
