//! Moving a sealed segment's records to an object store (SPEC D10), so that no crash costs the copy.
//!
//! Uploading and reading back are not the unit's own: [`Unit::begin_move`] hands out a segment, a task of the server
//! uploads it and reads it back, and [`Unit::finish_move`] takes the outcome in. Reads, appends and everything else go on
//! meanwhile; what changed of the segment is found at the end, and the move comes to nothing then.
//!
//! # Order
//! 1. `SEGMENT-OBJECT.stray`, its name synced: "an object of this name may be in the store, and is no copy" (`strays`).
//!    In it, before the first part is sent, the store's name for the upload.
//! 2. The object is uploaded, and read back whole: its size, and its BLAKE3 hash, which is the root in the footer.
//! 3. `SEGMENT.obj`, the stub, is written beside, synced, renamed, and the folder synced. From here on the copy is the
//!    object. Up to here it is the file.
//! 4. The stray file is removed; then `SEGMENT.seg` is wiped and removed.
//!
//! # Recovery
//! A start that finds a sound stub takes it, removes its stray, and finishes step 4. One that finds no stub has the file
//! as it was; what the stray names is removed from the store. So at each moment there is one whole copy that was
//! verified, and everything that may lie in the store is named by a file here.
//!
//! Where step 3 fails half way, which of the two a start would find is not known: the stub is removed durably, or, where
//! not even that can be done, the object is left alone until a start has found out.

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use lighter_protocol::UnixTime;

use super::{Phase, Shelved, Unit, UnitError, gone_or_not_there};
use crate::disk::{Disk, DiskFile};
use crate::ids::{ObjectId, SegmentId, UnitId};
use crate::limits::{MOVE_LIFE_MIN, OBJECT_PART_LEN};
use crate::objects::{DepotRules, ObjectName};
use crate::segment::footer::Summary;
use crate::segment::stub::{ObjectPlace, Stub, object_len, stub_name};
use crate::segment::{RECORDS_AT, file_name};

/// A sealed segment to be moved.
pub struct MoveJob<D: Disk> {
    shelved: Arc<Shelved<D>>,
    summary: Summary,
    unit: UnitId,
    name: ObjectName,
    stray: D::File,
}

impl<D: Disk> MoveJob<D> {
    /// The object's name.
    pub fn name(&self) -> ObjectName {
        self.name
    }

    /// The object's key.
    pub fn key(&self) -> String {
        self.name.key(self.unit)
    }

    /// Bytes of the object.
    pub fn len(&self) -> u64 {
        object_len(&self.summary)
    }

    /// Whether there are none: never, such a segment is not moved.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What the object's BLAKE3 hash must be.
    pub fn root(&self) -> [u8; 32] {
        self.summary.root
    }

    /// The parts of the object, in order.
    pub fn parts(&self) -> impl Iterator<Item = Range<u64>> + use<D> {
        let (len, part) = (self.len(), OBJECT_PART_LEN as u64);
        (0..len.div_ceil(part)).map(move |index| index * part..((index + 1) * part).min(len))
    }

    /// Reads a part of the object from the segment's file.
    ///
    /// # Errors
    /// The disk's.
    pub fn read(&self, part: &Range<u64>) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(part.end - part.start).unwrap_or(0)];
        self.shelved.file.read_at(RECORDS_AT + part.start, &mut bytes)?;
        Ok(bytes)
    }

    /// Writes down what the store calls the upload, before anything is uploaded.
    ///
    /// # Errors
    /// The disk's.
    pub fn note_upload(&self, upload: &str) -> io::Result<()> {
        let bytes = super::strays::encode_upload(upload).ok_or(io::ErrorKind::InvalidData)?;
        self.stray.write_at(0, &bytes)?;
        self.stray.sync_data()
    }
}

impl<D: Disk> Unit<D> {
    /// Hands out the oldest segment that is to be moved by `rules`, under the name `object`. `None` where there is none now.
    ///
    /// # Errors
    /// The disk's.
    pub fn begin_move(
        &mut self,
        rules: DepotRules,
        object: ObjectId,
        skipped: &BTreeSet<SegmentId>,
        now: UnixTime,
    ) -> Result<Option<MoveJob<D>>, UnitError> {
        let Some((shelved, summary)) = self.next_to_move(rules, skipped, now) else { return Ok(None) };
        let name = ObjectName { segment: shelved.header.segment, object };
        let stray = self.begin_stray(name)?;
        Ok(Some(MoveJob { shelved, summary, unit: self.id(), name, stray }))
    }

    /// Whether there is a segment to be moved.
    pub fn is_move_due(&self, rules: DepotRules, skipped: &BTreeSet<SegmentId>, now: UnixTime) -> bool {
        self.next_to_move(rules, skipped, now).is_some()
    }

    fn next_to_move(
        &self,
        rules: DepotRules,
        skipped: &BTreeSet<SegmentId>,
        now: UnixTime,
    ) -> Option<(Arc<Shelved<D>>, Summary)> {
        let age = Duration::from_secs(u64::from(rules.after_days) * 86_400);
        let is_due = |shelved: &Shelved<D>| {
            let header = &shelved.header;
            let is_old = rules.after_days == 0 || header.storage_day.end().plus(age) <= now;
            is_old && header.deletion_day.end() > now.plus(MOVE_LIFE_MIN) && header.day_key.is_some()
        };
        let mut here_len = 0;
        let mut oldest: Option<(Arc<Shelved<D>>, Summary)> = None;
        for shelved in self.shelf.all() {
            let Phase::Sealed(summary) = shelved.phase() else { continue };
            if shelved.moved().is_some() {
                continue;
            }
            here_len += summary.file_len();
            let is_movable = is_due(&shelved)
                && shelved.damaged() == 0
                && summary.length > RECORDS_AT
                && !skipped.contains(&shelved.header.segment);
            if is_movable && oldest.as_ref().is_none_or(|(_, other)| summary.last < other.last) {
                oldest = Some((shelved, summary));
            }
        }
        oldest.filter(|_| here_len > rules.keep_local_bytes)
    }

    /// Takes in that a segment was uploaded and read back well: from here on its copy is the object. Gives the bytes moved.
    ///
    /// # Errors
    /// [`UnitError::State`] where the segment has changed or gone meanwhile; the disk's. The copy is where it was then, and
    /// the object is removed from the store in time.
    pub fn finish_move(&mut self, job: &MoveJob<D>, now: UnixTime) -> Result<u64, UnitError> {
        let MoveJob { name, summary, unit, .. } = *job;
        let moved = self.write_stub(job, &ObjectPlace { unit, name, moved: now });
        // Where it is not known what a start would find, the object stays.
        if moved.is_ok() || self.remove_stub(name.segment).is_ok() {
            self.end_flight(name);
        }
        let (stub, file) = moved?;
        self.shelf.put(Shelved::moved_to(stub.header, file, summary, stub.place));
        if let Err(error) = self.forget_stray(name) {
            tracing::warn!(object = %name, %error, "what is a copy now is still called a stray");
        }
        if let Err(error) = self.wipe(&file_name(name.segment)) {
            tracing::warn!(segment = %name.segment, %error, "the file of a moved segment could not be removed yet");
        }
        Ok(object_len(&summary))
    }

    /// A move came to nothing: what there may be of the object goes.
    pub fn give_up_move(&mut self, job: &MoveJob<D>) {
        self.end_flight(job.name);
    }

    fn write_stub(&self, job: &MoveJob<D>, place: &ObjectPlace) -> Result<(Stub, D::File), UnitError> {
        let (segment, summary) = (job.name.segment, job.summary);
        let current = self.shelf.get(segment).filter(|current| {
            let is_as_it_was = current.phase() == Phase::Sealed(summary) && current.moved().is_none();
            is_as_it_was && current.damaged() == 0 && current.header.day_key.is_some()
        });
        let current = current.ok_or(UnitError::State("changed while it was moved"))?;
        let index = current.read_here(summary.length..summary.length.saturating_add(summary.index_len()))?;
        summary.decode_index(&index).map_err(|_| UnitError::Unsound("the index is damaged"))?;
        let stub = Stub { header: current.header.clone(), summary, index: index.to_vec(), place: *place };
        let (name, next) = (stub_name(segment), next_name(segment));
        self.wipe(&next)?;
        let file = self.disk.create(&next)?;
        file.write_at(0, &stub.encode())?;
        file.sync_data()?;
        self.disk.rename(&next, &name)?;
        self.disk.sync_dir()?;
        Ok((stub, file))
    }

    /// Makes sure that no start finds a stub: the file is the copy.
    fn remove_stub(&self, segment: SegmentId) -> io::Result<()> {
        self.wipe(&next_name(segment))?;
        gone_or_not_there(self.disk.remove(&stub_name(segment)))?;
        self.disk.sync_dir()
    }

    /// Removes what a move left behind: files of segments that were moved, and stubs that never were one.
    pub(super) fn sweep_moved(&self, names: &[String]) -> io::Result<()> {
        for name in names {
            let is_moved = |segment| self.shelf.get(segment).is_some_and(|shelved| shelved.moved().is_some());
            if crate::segment::segment_of(name).is_some_and(is_moved) || is_next(name) {
                self.wipe(name)?;
            }
        }
        Ok(())
    }
}

/// Under which name a stub is written.
fn next_name(segment: SegmentId) -> String {
    format!("{}{NEXT}", stub_name(segment))
}

/// Whether a stub was being written under this name.
pub(super) fn is_next(name: &str) -> bool {
    name.strip_suffix(NEXT).and_then(crate::segment::stub::segment_of_stub).is_some()
}

const NEXT: &str = ".next";
