//! Thinning: giving back the room of dead records in a sealed segment, without moving what is alive (SPEC D8).
//!
//! The writer says which stretches are dead. The unit writes the segment's file anew, sparse: everything else at its old
//! offset, nothing where the dead records were, and a footer that tells of the holes. So every place that was given out
//! stays right, the log's chain stays whole, and neither catalog nor other copies need to know.
//!
//! 1. The old file is read whole and checked, hash included: damage never gets a new hash that makes it look right.
//! 2. `SEGMENT.part` is written, synced, read whole and checked.
//! 3. It takes the segment's name in one step, and the directory is synced. A crash before leaves the old file, and a
//!    `.part` that no start believes; a crash after the new one.
//!
//! As with sealing, only 3 is the unit's own work; appends wait for none of it.

use std::io;
use std::sync::Arc;

use lighter_protocol::{PeerId, UnixTime};

use super::leave::part_name;
use super::receive::Place;
use super::{Phase, SealReport, Shelved, Unit, UnitError, gone_or_not_there};
use crate::disk::{Disk, DiskFile};
use crate::ids::{Epoch, SegmentId};
use crate::limits::{GROUP_LEN_MAX, SCRUB_PIECE_LEN};
use crate::record::{Kind, RecordHeader};
use crate::segment::footer::{Hole, IndexEntry, Summary, are_holes, encode_holes, encode_index};
use crate::segment::verify::{Verified, Verifier};
use crate::segment::{RECORDS_AT, file_name};

/// A segment to be thinned.
pub struct ThinJob<D: Disk> {
    number: u64,
    disk: D,
    shelved: Arc<Shelved<D>>,
    summary: Summary,
    holes: Vec<Hole>,
}

/// A thinned segment's file, synced, under the name of one that is no copy.
pub struct Thinned<D: Disk> {
    before: Arc<Shelved<D>>,
    file: D::File,
    summary: Summary,
}

impl<D: Disk> Unit<D> {
    /// Hands out a sealed segment of which `holes` are to be given back; the report at once where they have been.
    ///
    /// # Errors
    /// [`UnitError::State`] where it is not sealed, is damaged, or is being received; [`UnitError::Unsound`] for holes that
    /// cannot be; [`UnitError::NoSpace`] where the new file does not fit beside the old one; see [`UnitError`].
    pub fn begin_thin(
        &mut self,
        segment: SegmentId,
        writer: &PeerId,
        epoch: Epoch,
        holes: Vec<Hole>,
        now: UnixTime,
    ) -> Result<Result<ThinJob<D>, SealReport>, UnitError> {
        let shelved = self.owned(segment, writer, epoch)?;
        let Phase::Sealed(summary) = shelved.phase() else { return Err(UnitError::State("not sealed")) };
        if shelved.damaged() > 0 {
            return Err(UnitError::State("damaged"));
        }
        if shelved.moved().is_some() {
            return Err(UnitError::State("moved to an object store"));
        }
        if self.has_partial(segment) {
            return Err(UnitError::State("being received"));
        }
        if shelved.header.day_key.is_none() || shelved.header.deletion_day.end() <= now {
            return Err(UnitError::Expired);
        }
        if !are_holes(&holes, summary.length) {
            return Err(UnitError::Unsound("no holes"));
        }
        let given_back: u64 = holes.iter().map(|hole| u64::from(hole.length)).sum();
        let there = read_holes(&shelved.file, &summary)?;
        if there == holes {
            return Ok(Err(SealReport { summary, damaged: 0 }));
        }
        // What was given back once is not there any more.
        let is_covered =
            |old: &Hole| holes.iter().any(|hole| hole.offset <= old.offset && old.end() <= hole.end());
        if !there.iter().all(is_covered) {
            return Err(UnitError::Unsound("fewer holes than there are"));
        }
        if self.room_for_copies() < summary.length.saturating_sub(given_back) {
            return Err(UnitError::NoSpace);
        }
        // The name of what is no copy is taken until this is finished.
        let number = self.next_partial;
        self.next_partial += 1;
        self.partials.insert(segment, Place::Out(number));
        Ok(Ok(ThinJob { number, disk: self.disk.clone(), shelved, summary, holes }))
    }

    /// Puts the thinned file in the old one's place: durably when this returns well.
    ///
    /// # Errors
    /// [`UnitError::State`] where the copy changed or left meanwhile; see [`UnitError`].
    pub fn finish_thin(
        &mut self,
        segment: SegmentId,
        number: u64,
        epoch: Epoch,
        thinned: Result<Thinned<D>, UnitError>,
    ) -> Result<SealReport, UnitError> {
        if !self.is_out(segment, number) {
            return Err(UnitError::State("given up meanwhile"));
        }
        self.partials.remove(&segment);
        let finished = thinned.and_then(|thinned| self.replace_by_thinned(segment, epoch, thinned));
        if finished.is_err()
            && let Err(error) = gone_or_not_there(self.disk.remove(&part_name(segment)))
        {
            tracing::warn!(%segment, %error, "what was thinned in vain could not be removed yet");
        }
        finished
    }

    fn replace_by_thinned(
        &mut self,
        segment: SegmentId,
        epoch: Epoch,
        thinned: Thinned<D>,
    ) -> Result<SealReport, UnitError> {
        let Thinned { before, file, summary } = thinned;
        self.check_epoch(&before.header.writer, epoch)?;
        let is_the_same = self.shelf.get(segment).is_some_and(|there| Arc::ptr_eq(&there, &before));
        if !is_the_same {
            return Err(UnitError::State("changed meanwhile"));
        }
        self.disk.rename(&part_name(segment), &file_name(segment))?;
        // Under either name, what is there is a whole and sound copy.
        self.shelf.put(Shelved::new(before.header.clone(), file, Phase::Sealed(summary), summary.length));
        self.disk.sync_dir()?;
        tracing::info!(%segment, bytes = summary.hole_bytes, "room of dead records was given back");
        Ok(SealReport { summary, damaged: 0 })
    }
}

impl<D: Disk> ThinJob<D> {
    /// Which one it is: [`Unit::finish_thin`] wants to know.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Checks the old file, writes the new one and checks that. Memory: a piece of it, and its index.
    ///
    /// # Errors
    /// [`UnitError::Unsound`] where the old file is damaged, or the holes do not go with its records; the disk's.
    pub fn run(self) -> Result<Thinned<D>, UnitError> {
        let Self { disk, shelved, summary: before, holes, .. } = self;
        let header = &shelved.header;
        let mut kept = Kept { holes: &holes, records: 0, index: Vec::new(), is_cut: false };
        verify(&shelved, &shelved.file, before, &mut |record| kept.see(record))?;
        let Kept { records, index, is_cut, .. } = kept;
        if is_cut || index.len() as u64 != u64::from(before.catalog_records) {
            return Err(UnitError::Unsound("holes within records, or in the catalog's"));
        }
        let mut tail = encode_index(&index);
        tail.extend_from_slice(&encode_holes(&holes));
        let mut summary = Summary {
            records,
            index_crc: crc32c::crc32c(&tail),
            holes: u32::try_from(holes.len()).unwrap_or(u32::MAX),
            hole_bytes: holes.iter().map(|hole| u64::from(hole.length)).sum(),
            ..before
        };
        let name = part_name(header.segment);
        gone_or_not_there(disk.remove(&name))?;
        let file = disk.create(&name)?;
        file.write_at(0, &header.encode())?;
        summary.root = copy_kept(&shelved.file, &file, &holes, summary.length)?;
        tail.extend_from_slice(&summary.encode());
        file.write_at(summary.length, &tail)?;
        file.sync_data()?;
        verify(&shelved, &file, summary, &mut |_| ())?;
        Ok(Thinned { before: shelved, file, summary })
    }
}

/// What is seen of the records that stay.
struct Kept<'h> {
    holes: &'h [Hole],
    records: u64,
    index: Vec<IndexEntry>,
    /// A record lies in a hole in part, or is the catalog's and lies in one.
    is_cut: bool,
}

impl Kept<'_> {
    fn see(&mut self, record: &RecordHeader) {
        let (begin, end) = (record.offset, record.end());
        // The first hole that does not end before the record.
        let at = self.holes.partition_point(|hole| hole.end() <= begin);
        let overlaps = self.holes.get(at).filter(|hole| u64::from(hole.offset) < end);
        match overlaps {
            Some(hole) => {
                let is_within = u64::from(hole.offset) <= begin && end <= hole.end();
                self.is_cut |= !is_within || record.kind == Kind::Catalog;
            }
            None => {
                self.records += 1;
                if record.kind == Kind::Catalog {
                    self.index.push(IndexEntry {
                        sequence: record.sequence,
                        offset: u32::try_from(begin).unwrap_or(u32::MAX),
                        length: u32::try_from(record.record_len()).unwrap_or(u32::MAX),
                    });
                }
            }
        }
    }
}

fn read_holes<F: DiskFile>(file: &F, summary: &Summary) -> Result<Vec<Hole>, UnitError> {
    if summary.holes == 0 {
        return Ok(Vec::new());
    }
    let mut index = vec![0; usize::try_from(summary.index_len()).unwrap_or(0)];
    file.read_at(summary.length, &mut index)?;
    summary.decode_holes(&index).map_err(|_| UnitError::Unsound("the footer is damaged"))
}

fn verify<D: Disk>(
    shelved: &Shelved<D>,
    file: &D::File,
    summary: Summary,
    see: &mut dyn FnMut(&RecordHeader),
) -> Result<(), UnitError> {
    let mut verifier = Verifier::new(shelved.header.clone(), summary);
    loop {
        match verifier.step_and_see(file, SCRUB_PIECE_LEN, see)? {
            Verified::Piece(_) => {}
            Verified::Whole { damaged: 0 } => return Ok(()),
            Verified::Whole { .. } => return Err(UnitError::Unsound("not what was sealed")),
        }
    }
}

/// Copies all records that are in no hole, to where they were; gives the hash of what a reader of the new file sees.
fn copy_kept<F: DiskFile>(from: &F, to: &F, holes: &[Hole], length: u64) -> io::Result<[u8; 32]> {
    let mut hasher = blake3::Hasher::new();
    let mut piece = vec![0; GROUP_LEN_MAX];
    let zeros = vec![0; GROUP_LEN_MAX];
    let mut at = RECORDS_AT;
    let ends = holes.iter().map(|hole| (u64::from(hole.offset), hole.end()));
    for (hole_at, hole_end) in ends.chain([(length, length)]) {
        while at < hole_at {
            let len = usize::try_from(hole_at - at).unwrap_or(usize::MAX).min(piece.len());
            from.read_at(at, &mut piece[..len])?;
            hasher.update(&piece[..len]);
            to.write_at(at, &piece[..len])?;
            at += len as u64;
        }
        while at < hole_end {
            let len = usize::try_from(hole_end - at).unwrap_or(usize::MAX).min(zeros.len());
            hasher.update(&zeros[..len]);
            at += len as u64;
        }
    }
    Ok(*hasher.finalize().as_bytes())
}
