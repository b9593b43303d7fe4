//! Putting a day key that was wrapped anew into a segment's header block, in place, so that no crash loses it.
//!
//! The header block holds the only copy of the key that this unit has, and a disk that loses power while 4096 bytes are
//! written may keep some of their sectors old and some new. So the new block is written beside first:
//! 1. `SEGMENT.head`: the new block; synced, and its name.
//! 2. The new block in place; synced. From here on it counts.
//! 3. `SEGMENT.head` is overwritten with zeros and removed.
//!
//! # Recovery
//! A start that finds a `SEGMENT.head` looks at the header block itself. Where that is sound, it is the old one or the new
//! one, either is right, and the file beside is removed. Where it was torn, step 1 was done, and the block beside is put in
//! place. A block beside that is not sound was torn itself, and step 2 never began.
//!
//! Where the records were moved to an object store, the block is the stub's, and all of this is done with that file.
//!
//! Nothing but the wrapped key and the checksum changes: copies stay byte-identical, and the hash of a sealed segment, which
//! begins behind the header block, stays right.

use std::io;
use std::sync::Arc;

use lighter_protocol::{PeerId, UnixTime};

use super::open::read_header;
use super::{Phase, Shelved, Unit, UnitError, gone_or_not_there};
use crate::disk::{Disk, DiskFile};
use crate::ids::{Epoch, SegmentId};
use crate::keys::WrappedKey;
use crate::limits::SEGMENT_HEADER_LEN;
use crate::segment::file_name;
use crate::segment::header::SegmentHeader;
use crate::segment::stub::stub_name;

impl<D: Disk> Unit<D> {
    /// Puts `wrapped` in place of the day key in the header block of a segment. It is durable when this returns well; the
    /// same one again changes nothing.
    ///
    /// # Errors
    /// See [`UnitError`]. [`UnitError::State`] while the segment is being sealed, or after a failed sync. Where the disk
    /// failed, either the old key or the new one stands there after a restart.
    pub fn rewrap(
        &mut self,
        segment: SegmentId,
        writer: &PeerId,
        epoch: Epoch,
        wrapped: WrappedKey,
        now: UnixTime,
    ) -> Result<(), UnitError> {
        let shelved = self.owned(segment, writer, epoch)?;
        if shelved.header.day_key.is_none() || shelved.header.deletion_day.end() <= now {
            return Err(UnitError::Expired);
        }
        if matches!(shelved.phase(), Phase::Sealing | Phase::Failed) {
            return Err(UnitError::State("failed, or being sealed"));
        }
        if shelved.header.day_key != Some(wrapped) {
            let header = SegmentHeader { day_key: Some(wrapped), ..shelved.header.clone() };
            self.write_beside(segment, &header)?;
            self.write_in_place(&shelved, header)?;
        }
        Ok(self.remove_beside(segment)?)
    }

    fn write_beside(&self, segment: SegmentId, header: &SegmentHeader) -> io::Result<()> {
        self.remove_beside(segment)?;
        let beside = self.disk.create(&head_name(segment))?;
        beside.write_at(0, &header.encode())?;
        beside.sync_data()?;
        self.disk.sync_dir()
    }

    fn write_in_place(&mut self, shelved: &Arc<Shelved<D>>, header: SegmentHeader) -> Result<(), UnitError> {
        if let Err(error) = shelved.file.write_at(0, &header.encode()) {
            self.fail(shelved, false);
            return Err(error.into());
        }
        if let Err(error) = shelved.file.sync_data() {
            self.fail(shelved, true);
            return Err(error.into());
        }
        // Who has the old one reads on from it; whoever comes from now on sees the new header.
        let file = self.disk.open(&shelved.file_name())?;
        self.shelf.put(shelved.with_header(header, file));
        Ok(())
    }

    /// Overwrites and removes what stands beside a segment's file, if anything does.
    fn remove_beside(&self, segment: SegmentId) -> io::Result<()> {
        let name = head_name(segment);
        let beside = match self.disk.open(&name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        beside.write_at(0, &[0; SEGMENT_HEADER_LEN])?;
        beside.sync_data()?;
        gone_or_not_there(self.disk.remove(&name))?;
        self.disk.sync_dir()
    }

    /// At a start: puts header blocks right that were torn, and removes what stands beside.
    pub(super) fn finish_rewraps(&self) -> io::Result<()> {
        for segment in self.disk.list()?.iter().filter_map(|name| segment_of_head(name)) {
            self.mend_header(segment)?;
            self.remove_beside(segment)?;
        }
        Ok(())
    }

    /// In a sweep: removes what stands beside segments that are no more.
    pub(super) fn sweep_beside(&self) -> io::Result<()> {
        for segment in self.disk.list()?.iter().filter_map(|name| segment_of_head(name)) {
            if self.shelf.get(segment).is_none() {
                self.remove_beside(segment)?;
            }
        }
        Ok(())
    }

    fn mend_header(&self, segment: SegmentId) -> io::Result<()> {
        // Where there is a stub, that is the copy.
        let file = match self.disk.open(&stub_name(segment)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.disk.open(&file_name(segment)),
            other => other,
        };
        let file = match file {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        if read_header(&file, file.len()?)?.is_some() {
            return Ok(());
        }
        let beside = self.disk.open(&head_name(segment))?;
        if let Some(header) = read_header(&beside, beside.len()?)?.filter(|header| header.segment == segment)
        {
            tracing::warn!(%segment, "a header block was torn, and is put right");
            file.write_at(0, &header.encode())?;
            file.sync_data()?;
        }
        Ok(())
    }
}

fn head_name(segment: SegmentId) -> String {
    format!("{segment}{HEAD}")
}

fn segment_of_head(name: &str) -> Option<SegmentId> {
    SegmentId::from_hex(name.strip_suffix(HEAD)?)
}

/// The end of the name of a header block that is about to be put in place.
const HEAD: &str = ".head";
