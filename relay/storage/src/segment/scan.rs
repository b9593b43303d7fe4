//! Reading an open segment from its start: where its log ends, and what is damaged within.
//!
//! A crash leaves, behind what was synced, any part of what was not: records whole, torn, or missing with a later one
//! there. None of that was acknowledged. Damage, on the other hand, hits what was. The two are told apart by
//! `acked_through`: each record says up to where every member had acknowledged when it was placed. A bad stretch below
//! what a later sound record says is damage; the log goes on behind it. At and above that, a bad stretch ends the log.
//!
//! Memory does not depend on the segment: a window of it is held, and the stretches found damaged, of which a bounded
//! number is told apart.

use std::io;
use std::ops::Range;

use super::RECORDS_AT;
use crate::disk::DiskFile;
use crate::ids::{Epoch, SegmentId, Sequence};
use crate::limits::{DAMAGED_MAX, RECORD_ALIGN, RECORD_LEN_MAX, SEGMENT_LEN_MAX};
use crate::record::{RECORD_HEADER_LEN, Record, RecordHeader, UncheckedRecord};

/// What a scan found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// Where the log ends.
    pub end: u64,
    /// Sound records before that.
    pub records: u64,
    /// The first one's number; 0 where there is none.
    pub first: Sequence,
    /// The last one's number.
    pub last: Sequence,
    /// The highest `acked_through` that a record says.
    pub acked_through: u64,
    /// Bad stretches below the end.
    pub damaged: Vec<Range<u64>>,
    /// Whether something other than zeros stood behind the end.
    pub torn: bool,
}

/// Scans the records of `segment` in `file` up to `limit` (or the file's end), and shows each sound one to `see`.
///
/// # Errors
/// Only where the file cannot be read.
pub fn scan<F: DiskFile>(
    file: &F,
    segment: SegmentId,
    epoch: Epoch,
    limit: u64,
    mut see: impl FnMut(&Record<'_>),
) -> io::Result<Scan> {
    let file_end = file.len()?.min(limit).min(SEGMENT_LEN_MAX);
    let mut window = Window { file, file_end, start: 0, bytes: Vec::new() };
    let mut found = Scan { end: RECORDS_AT, ..Scan::default() };
    let mut at = RECORDS_AT;
    loop {
        let last = found.last;
        let bytes = window.at(at, RECORD_LEN_MAX)?;
        if let Some(record) = sound(bytes, segment, epoch, at).filter(|record| record.header.sequence > last)
        {
            see(&record);
            at = record.header.end();
            found.take(&record.header);
            continue;
        }
        found.torn |= bytes.iter().any(|byte| *byte != 0);
        match next_acked(&mut window, segment, epoch, at, last)? {
            Some(resumed) => {
                found.damage(at..resumed);
                at = resumed;
            }
            None => return Ok(found),
        }
    }
}

impl Scan {
    fn take(&mut self, header: &RecordHeader) {
        if self.records == 0 {
            self.first = header.sequence;
        }
        self.records += 1;
        self.last = header.sequence;
        self.acked_through = self.acked_through.max(header.acked_through);
        self.end = header.end();
    }

    fn damage(&mut self, stretch: Range<u64>) {
        let is_full = self.damaged.len() == DAMAGED_MAX;
        match self.damaged.last_mut() {
            Some(last) if is_full => last.end = stretch.end,
            _ => self.damaged.push(stretch),
        }
    }
}

/// Where the log goes on behind the bad stretch that begins at `bad`: at the first sound record behind it, if that or
/// a later one says that `bad` had been acknowledged. `None` where the log ends at `bad`.
fn next_acked<F: DiskFile>(
    window: &mut Window<'_, F>,
    segment: SegmentId,
    epoch: Epoch,
    bad: u64,
    last: Sequence,
) -> io::Result<Option<u64>> {
    let mut at = bad + RECORD_ALIGN as u64;
    let mut first_sound = None;
    loop {
        let bytes = window.at(at, RECORD_HEADER_LEN.max(RECORD_LEN_MAX))?;
        if bytes.len() < RECORD_HEADER_LEN {
            return Ok(None);
        }
        // Mostly zeros, or the inside of a payload: look for a header's first byte before anything else.
        let Some(skip) = bytes.chunks(RECORD_ALIGN).position(|chunk| chunk.starts_with(b"LRC1")) else {
            at += (bytes.len() - bytes.len() % RECORD_ALIGN) as u64;
            continue;
        };
        let here = at + (skip * RECORD_ALIGN) as u64;
        let bytes = window.at(here, RECORD_LEN_MAX)?;
        match sound(bytes, segment, epoch, here).filter(|record| record.header.sequence > last) {
            Some(record) => {
                let resumed = *first_sound.get_or_insert(here);
                if record.header.acked_through > bad {
                    return Ok(Some(resumed));
                }
                at = record.header.end();
            }
            None => at = here + RECORD_ALIGN as u64,
        }
    }
}

fn sound(bytes: &[u8], segment: SegmentId, epoch: Epoch, at: u64) -> Option<Record<'_>> {
    let record = UncheckedRecord::new(bytes).check(segment, at).ok()?;
    (record.header.epoch == epoch).then_some(record)
}

/// A stretch of the file in memory.
struct Window<'a, F> {
    file: &'a F,
    file_end: u64,
    start: u64,
    bytes: Vec<u8>,
}

/// What is read at a time: two of the longest records, so that most are found in memory.
const WINDOW_LEN: usize = 2 * RECORD_LEN_MAX;

impl<F: DiskFile> Window<'_, F> {
    /// The bytes from `at` on: at least `want`, fewer only at the file's end.
    fn at(&mut self, at: u64, want: usize) -> io::Result<&[u8]> {
        let held = self.start..self.start + self.bytes.len() as u64;
        let need = self.file_end.min(at + want as u64);
        if at < held.start || need > held.end {
            let len = self.file_end.saturating_sub(at).min(WINDOW_LEN as u64);
            self.bytes.resize(usize::try_from(len).unwrap_or(WINDOW_LEN), 0);
            self.file.read_at(at, &mut self.bytes)?;
            self.start = at;
        }
        let skip = usize::try_from(at - self.start).unwrap_or(usize::MAX);
        let have = self.bytes.get(skip..).unwrap_or_default();
        Ok(&have[..have.len().min(want)])
    }
}
