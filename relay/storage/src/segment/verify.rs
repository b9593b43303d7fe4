//! Reading a whole sealed segment and judging it: header block, each record, footer.
//!
//! It goes piece by piece, so that whoever reads decides how fast; memory is one record and one piece. Unlike a scan,
//! which finds out where a log ends, this knows what must be there: the header block and the summary.

use std::io;
use std::ops::Range;

use super::RECORDS_AT;
use super::footer::{Hole, IndexEntry, SUMMARY_LEN, Summary, encode_holes, encode_index};
use super::header::SegmentHeader;
use crate::disk::DiskFile;
use crate::ids::Sequence;
use crate::limits::{RECORD_ALIGN, RECORD_LEN_MAX};
use crate::record::{Kind, RecordError, RecordHeader, UncheckedRecord};

/// A sealed segment that is being read.
pub struct Verifier {
    header: SegmentHeader,
    summary: Summary,
    /// The next byte to be read.
    at: u64,
    /// What was read of the records and is not judged yet: it ends at `at`.
    rest: Vec<u8>,
    hasher: blake3::Hasher,
    records: u64,
    first: Sequence,
    last: Sequence,
    /// Of the catalog's records, as the index should have them.
    entries: u32,
    entries_crc: u32,
    /// Of the index, as it is.
    index_crc: u32,
    damaged: u64,
    /// Within a bad stretch.
    is_lost: bool,
    /// Stretches that were given back and are not reached yet, the next one last. Known once the records begin.
    holes: Option<Vec<Hole>>,
    /// What stands behind the index of them.
    holes_bytes: Vec<u8>,
}

/// How it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verified {
    /// So many bytes were read; there are more.
    Piece(u64),
    /// All of it was read: so many bad stretches are in it, header block and footer included.
    Whole {
        /// 0: everything is as it should be.
        damaged: u64,
    },
}

impl Verifier {
    /// Will read the segment that should have this header block and this summary.
    pub fn new(header: SegmentHeader, summary: Summary) -> Self {
        Self {
            header,
            summary,
            at: 0,
            rest: Vec::new(),
            hasher: blake3::Hasher::new(),
            records: 0,
            first: Sequence::ZERO,
            last: Sequence::ZERO,
            entries: 0,
            entries_crc: 0,
            index_crc: 0,
            damaged: 0,
            is_lost: false,
            holes: None,
            holes_bytes: Vec::new(),
        }
    }

    /// What the segment should have.
    pub fn summary(&self) -> Summary {
        self.summary
    }

    /// Bytes read so far.
    pub fn done(&self) -> u64 {
        self.at
    }

    /// Reads the next piece, of at most `len` bytes (a multiple of a record's alignment).
    ///
    /// # Errors
    /// The disk's; [`io::ErrorKind::UnexpectedEof`] where the file is too short.
    pub fn step<F: DiskFile>(&mut self, file: &F, len: usize) -> io::Result<Verified> {
        self.step_and_see(file, len, &mut |_| ())
    }

    /// As [`Self::step`], and shows each sound record's header to `see`.
    ///
    /// # Errors
    /// As [`Self::step`].
    pub fn step_and_see<F: DiskFile>(
        &mut self,
        file: &F,
        len: usize,
        see: &mut dyn FnMut(&RecordHeader),
    ) -> io::Result<Verified> {
        let Some(piece) = self.next_piece(len) else { return Ok(self.judge_whole()) };
        if piece.start >= RECORDS_AT && self.holes.is_none() {
            let holes = self.read_holes(file)?;
            self.set_holes(holes);
        }
        let start = self.rest.len();
        self.rest.resize(start + usize::try_from(piece.end - piece.start).unwrap_or(usize::MAX), 0);
        file.read_at(piece.start, &mut self.rest[start..]).inspect_err(|_| self.rest.truncate(start))?;
        Ok(self.judge(&piece, start, see))
    }

    /// Where the next piece is, of at most `len` bytes (a multiple of a record's alignment); `None` behind the last.
    pub fn next_piece(&self, len: usize) -> Option<Range<u64>> {
        let end = self.parts().into_iter().find(|end| self.at < *end)?;
        Some(self.at..end.min(self.at.saturating_add(len.max(SUMMARY_LEN) as u64)))
    }

    /// Takes the bytes of `piece`, which [`Self::next_piece`] named. Before the first one with records, whoever has no file
    /// of them says which holes are there ([`Self::know_index`]).
    pub fn take_piece(&mut self, piece: &Range<u64>, bytes: &[u8]) -> Verified {
        debug_assert!(piece.start == self.at && piece.end - piece.start == bytes.len() as u64);
        let start = self.rest.len();
        self.rest.extend_from_slice(bytes);
        self.judge(piece, start, &mut |_| ())
    }

    /// What stands behind the records, index and holes, as far as it is sound.
    pub fn know_index(&mut self, index: &[u8]) {
        let holes = self.summary.decode_holes(index).unwrap_or_default();
        self.set_holes(holes);
    }

    /// Whether the holes are known.
    pub fn knows_index(&self) -> bool {
        self.holes.is_some()
    }

    /// What can be said when all was read.
    pub fn finish(&self) -> Verified {
        self.judge_whole()
    }

    /// Where header block, records, index and summary end.
    fn parts(&self) -> [u64; 4] {
        let Summary { length, .. } = self.summary;
        let index_end = length.saturating_add(self.summary.index_len());
        [RECORDS_AT, length, index_end, self.summary.file_len()]
    }

    /// Judges what was read of `piece`, which is in `rest` from `start` on.
    fn judge(&mut self, piece: &Range<u64>, start: usize, see: &mut dyn FnMut(&RecordHeader)) -> Verified {
        let [_, length, index_end, _] = self.parts();
        let (from, piece_len) = (piece.start, piece.end - piece.start);
        self.at = piece.end;
        let is_end = self.parts().contains(&self.at);
        if from < RECORDS_AT {
            self.judge_header(is_end);
        } else if from < length {
            self.hasher.update(&self.rest[start..]);
            self.judge_records(is_end, see);
        } else if from < index_end {
            self.index_crc = crc32c::crc32c_append(self.index_crc, &self.rest);
            self.rest.clear();
        } else {
            self.judge_summary(is_end);
        }
        Verified::Piece(piece_len)
    }

    fn set_holes(&mut self, holes: Vec<Hole>) {
        self.holes_bytes = encode_holes(&holes);
        self.holes = Some(holes.into_iter().rev().collect());
    }

    /// Those that the footer tells of; where it is damaged, none: then they are found to be damage.
    fn read_holes<F: DiskFile>(&self, file: &F) -> io::Result<Vec<Hole>> {
        if self.summary.holes == 0 {
            return Ok(Vec::new());
        }
        let mut index = vec![0; usize::try_from(self.summary.index_len()).unwrap_or(0)];
        file.read_at(self.summary.length, &mut index)?;
        Ok(self.summary.decode_holes(&index).unwrap_or_default())
    }

    /// How far it is, at `at`, to the end of the hole that it is in.
    fn in_hole(&mut self, at: u64) -> Option<u64> {
        let holes = self.holes.as_mut()?;
        while holes.pop_if(|hole| hole.end() <= at).is_some() {}
        let hole = holes.last().filter(|hole| u64::from(hole.offset) <= at)?;
        Some(hole.end() - at)
    }

    fn judge_header(&mut self, is_end: bool) {
        if is_end {
            self.damaged += u64::from(self.rest != self.header.encode());
            self.rest.clear();
        }
    }

    fn judge_summary(&mut self, is_end: bool) {
        if is_end {
            self.damaged += u64::from(self.rest != self.summary.encode());
            self.rest.clear();
        }
    }

    /// Judges the records that are whole in `rest`; all of it where no more come.
    fn judge_records(&mut self, is_end: bool, see: &mut dyn FnMut(&RecordHeader)) {
        let begin = self.at - self.rest.len() as u64;
        let rest = std::mem::take(&mut self.rest);
        let mut used = 0;
        while used < rest.len() {
            let bytes = &rest[used..];
            if let Some(hole) = self.in_hole(begin + used as u64) {
                used += usize::try_from(hole).unwrap_or(usize::MAX).min(bytes.len());
                self.is_lost = false;
                continue;
            }
            let record = UncheckedRecord::new(bytes).check(self.header.segment, begin + used as u64);
            used += match record {
                Ok(record)
                    if record.header.epoch == self.header.epoch && record.header.sequence > self.last =>
                {
                    self.take(&record.header);
                    see(&record.header);
                    record.header.record_len()
                }
                Err(RecordError::CutOff { .. }) if !is_end && bytes.len() < RECORD_LEN_MAX => break,
                Ok(_) | Err(_) => {
                    self.damaged += u64::from(!self.is_lost);
                    self.is_lost = true;
                    to_next_magic(bytes)
                }
            };
        }
        self.rest = rest;
        self.rest.drain(..used.min(self.rest.len()));
    }

    fn take(&mut self, header: &RecordHeader) {
        self.is_lost = false;
        if self.records == 0 {
            self.first = header.sequence;
        }
        self.records += 1;
        self.last = header.sequence;
        if header.kind == Kind::Catalog {
            let entry = IndexEntry {
                sequence: header.sequence,
                offset: u32::try_from(header.offset).unwrap_or(u32::MAX),
                length: u32::try_from(header.record_len()).unwrap_or(u32::MAX),
            };
            self.entries = self.entries.saturating_add(1);
            self.entries_crc = crc32c::crc32c_append(self.entries_crc, &encode_index(&[entry]));
        }
    }

    /// What can only be said in the end. A bad index is a stretch of its own; all else goes with the bad records that
    /// were found, and is one where none were.
    fn judge_whole(&self) -> Verified {
        let Summary { records, first, last, root, catalog_records, index_crc, holes, .. } = self.summary;
        // The first one and the last one may have been given back.
        let is_in_line = if holes == 0 {
            (self.first, self.last) == (first, last)
        } else {
            self.records == 0 || (first <= self.first && self.last <= last)
        };
        let found_crc = crc32c::crc32c_append(self.entries_crc, &self.holes_bytes);
        let is_right = self.records == records
            && is_in_line
            && (self.entries, found_crc) == (catalog_records, index_crc)
            && *self.hasher.finalize().as_bytes() == root;
        let damaged = self.damaged + u64::from(self.index_crc != index_crc);
        Verified::Whole { damaged: damaged.max(u64::from(!is_right)) }
    }
}

/// How far it is to what may be the next record behind a bad one: to the end where there is none.
fn to_next_magic(bytes: &[u8]) -> usize {
    let mut chunks = bytes.chunks(RECORD_ALIGN).skip(1);
    chunks.position(|chunk| chunk.starts_with(b"LRC1")).map_or(bytes.len(), |at| (at + 1) * RECORD_ALIGN)
}
