//! Receiving a sealed segment from another server, and adopting it as a copy (SPEC B14).
//!
//! What has arrived lies in `SEGMENT.part`, which nothing reads and no start believes: a crash never leaves a half copy
//! that counts as one. Only [`Unit::finish_adopt`] gives it a segment's name, after all of it was checked and synced.
//!
//! Writing and reading are not the unit's own: [`Unit::begin_receive`] and [`Unit::begin_adopt`] hand the partial out,
//! any thread works on it, and it comes back. So appends wait for no copy. While it is out nobody else gets it; where it
//! was given up meanwhile (dropped, expired), what comes back is not taken.
//!
//! Partial files do not outlive the process: how far one was synced is written down nowhere, and a copy begun anew
//! costs at most a segment.

use lighter_protocol::{PeerId, UnixTime};

use super::leave::part_name;
use super::{Phase, SealReport, Shelved, Unit, UnitError};
use crate::disk::{Disk, DiskFile, Space};
use crate::ids::{Epoch, SegmentId};
use crate::limits::{
    PARTIAL_IDLE_MAX, PARTIALS_MAX, RECEIVE_PIECE_LEN, RESERVE_MAX, RESERVE_SHARE, SEGMENT_HEADER_LEN,
    UNIT_SEGMENTS_MAX,
};
use crate::segment::file_name;
use crate::segment::footer::Summary;
use crate::segment::header::SegmentHeader;
use crate::segment::verify::{Verified, Verifier};

/// Zeros are left out in blocks of so many bytes.
const SPARSE_BLOCK_LEN: usize = 16 * 1024;

/// A segment's file, as far as it has arrived.
pub struct Partial<D: Disk> {
    /// Tells it from one that was begun later.
    number: u64,
    segment: SegmentId,
    writer: PeerId,
    file: D::File,
    /// Known once the first piece was there.
    header: Option<Box<SegmentHeader>>,
    end: u64,
    touched: UnixTime,
}

/// A partial's place in the unit.
pub(super) enum Place<D: Disk> {
    Here(Partial<D>),
    /// Somebody works on the one of this number.
    Out(u64),
}

/// Which stretch a writer wants received.
#[derive(Clone, Copy, Debug)]
pub struct Stretch {
    /// Of which segment.
    pub segment: SegmentId,
    /// Who asks.
    pub writer: PeerId,
    /// Under which epoch.
    pub epoch: Epoch,
    /// From here, in the file.
    pub offset: u64,
    /// So many bytes.
    pub length: u32,
}

impl<D: Disk> Partial<D> {
    /// Which one it is: [`Unit::end_receive`] wants to know.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Where the next stretch begins.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Puts `bytes` behind what is there. The first ones have the whole header block: it must be that of the segment and
    /// the writer that were named, and its day not over.
    ///
    /// # Errors
    /// See [`UnitError`]: the partial is of no use then.
    pub fn write(&mut self, bytes: &[u8], now: UnixTime) -> Result<(), UnitError> {
        if self.header.is_none() {
            let block = bytes.get(..SEGMENT_HEADER_LEN).ok_or(UnitError::Unsound("no header block"))?;
            let header =
                SegmentHeader::decode(block).map_err(|_| UnitError::Unsound("a bad header block"))?;
            if header.segment != self.segment || header.writer != self.writer {
                return Err(UnitError::Unsound("another segment's header block"));
            }
            if header.day_key.is_none() || header.deletion_day.end() <= now {
                return Err(UnitError::Expired);
            }
            self.header = Some(Box::new(header));
        }
        // What was given back takes no room here, either; the file's end is never zeros.
        let is_zero = |block: &&[u8]| block.iter().all(|byte| *byte == 0);
        let mut blocks = bytes.chunks(SPARSE_BLOCK_LEN).peekable();
        let mut at = 0;
        while blocks.peek().is_some() {
            let zeros: usize = std::iter::from_fn(|| blocks.next_if(is_zero)).map(<[u8]>::len).sum();
            at += zeros;
            let data: usize =
                std::iter::from_fn(|| blocks.next_if(|block| !is_zero(block))).map(<[u8]>::len).sum();
            if data > 0 {
                self.file.write_at(self.end + at as u64, &bytes[at..at + data])?;
            }
            at += data;
        }
        self.end += bytes.len() as u64;
        self.touched = now;
        Ok(())
    }

    fn is_over(&self, now: UnixTime) -> bool {
        self.header.as_ref().is_some_and(|header| header.deletion_day.end() <= now)
    }

    /// Makes what was written durable.
    ///
    /// # Errors
    /// The disk's: the partial is of no use then.
    pub fn sync(&self) -> Result<(), UnitError> {
        Ok(self.file.sync_data()?)
    }
}

/// What was received, to be checked.
pub struct AdoptJob<D: Disk> {
    partial: Partial<D>,
    summary: Summary,
}

/// What was received, checked and synced.
pub struct Adopted<D: Disk> {
    partial: Partial<D>,
    header: Box<SegmentHeader>,
    summary: Summary,
}

impl<D: Disk> AdoptJob<D> {
    /// Which partial it is about.
    pub fn number(&self) -> u64 {
        self.partial.number
    }

    /// Reads and checks all of it: header block, each record, the hash, the footer; then makes it durable.
    ///
    /// # Errors
    /// [`UnitError::Unsound`], and the disk's.
    pub fn run(self) -> Result<Adopted<D>, UnitError> {
        let Self { partial, summary } = self;
        let header = partial.header.clone().ok_or(UnitError::Unsound("no header block"))?;
        let mut verifier = Verifier::new((*header).clone(), summary);
        loop {
            match verifier.step(&partial.file, RECEIVE_PIECE_LEN as usize)? {
                Verified::Piece(_) => {}
                Verified::Whole { damaged: 0 } => break,
                Verified::Whole { .. } => return Err(UnitError::Unsound("not what was sealed")),
            }
        }
        partial.sync()?;
        Ok(Adopted { partial, header, summary })
    }
}

impl<D: Disk> Unit<D> {
    /// Bytes more that may be received before the rest of the disk is kept for appends.
    pub fn room_for_copies(&self) -> u64 {
        let Space { total, free } = self.space();
        free.saturating_sub((total / RESERVE_SHARE).min(RESERVE_MAX))
    }

    /// Hands out what was received of a segment, to put the next stretch behind it; a new one where that begins at 0.
    ///
    /// # Errors
    /// [`UnitError::Offset`] where another stretch is the next, [`UnitError::State`] where there is a copy already, or
    /// somebody works on this one; see [`UnitError`].
    pub fn begin_receive(&mut self, stretch: &Stretch, now: UnixTime) -> Result<Partial<D>, UnitError> {
        let Stretch { segment, writer, epoch, offset, length } = *stretch;
        self.check_epoch(&writer, epoch)?;
        if self.shelf.get(segment).is_some() {
            return Err(UnitError::State("there is a copy"));
        }
        if self.shelf.len() >= UNIT_SEGMENTS_MAX || self.room_for_copies() < u64::from(length) {
            return Err(UnitError::NoSpace);
        }
        if offset == 0 {
            if matches!(self.partials.get(&segment), Some(Place::Out(_))) {
                return Err(UnitError::State("being received"));
            }
            self.drop_partial(segment, Some(&writer))?;
            return self.begin_partial(segment, writer, now);
        }
        let partial = self.take_partial(segment, &writer)?;
        if partial.is_over(now) {
            self.end_receive(segment, partial.number, None);
            return Err(UnitError::Expired);
        }
        let next = partial.end;
        if offset != next {
            self.partials.insert(segment, Place::Here(partial));
            return Err(UnitError::Offset { next });
        }
        Ok(partial)
    }

    fn begin_partial(
        &mut self,
        segment: SegmentId,
        writer: PeerId,
        now: UnixTime,
    ) -> Result<Partial<D>, UnitError> {
        if self.partials.len() >= PARTIALS_MAX {
            let here = self.partials.iter().filter_map(|(segment, place)| match place {
                Place::Here(partial) => Some((partial.touched, *segment)),
                Place::Out(_) => None,
            });
            let (_, oldest) = here.min().ok_or(UnitError::State("too many are being received"))?;
            self.drop_partial(oldest, None)?;
        }
        // What an earlier one left behind.
        self.wipe_part(segment)?;
        let file = self.disk.create(&part_name(segment))?;
        let number = self.next_partial;
        self.next_partial += 1;
        self.partials.insert(segment, Place::Out(number));
        Ok(Partial { number, segment, writer, file, header: None, end: 0, touched: now })
    }

    /// Takes the partial out of its place; [`UnitError::Offset`] with 0 where there is none.
    fn take_partial(&mut self, segment: SegmentId, writer: &PeerId) -> Result<Partial<D>, UnitError> {
        match self.partials.remove(&segment) {
            None => Err(UnitError::Offset { next: 0 }),
            Some(Place::Out(number)) => {
                self.partials.insert(segment, Place::Out(number));
                Err(UnitError::State("being received"))
            }
            Some(Place::Here(partial)) if partial.writer != *writer => {
                self.partials.insert(segment, Place::Here(partial));
                Err(UnitError::NoSegment)
            }
            Some(Place::Here(partial)) => {
                self.partials.insert(segment, Place::Out(partial.number));
                Ok(partial)
            }
        }
    }

    /// Takes a partial back; `None` where it is of no use any more. Where its place was given up, so is it.
    pub fn end_receive(&mut self, segment: SegmentId, number: u64, partial: Option<Partial<D>>) {
        if !self.is_out(segment, number) {
            return;
        }
        match partial {
            Some(partial) => {
                self.partials.insert(segment, Place::Here(partial));
            }
            None => {
                self.partials.remove(&segment);
                if let Err(error) = self.wipe_part(segment) {
                    tracing::warn!(%segment, %error, "what was received in vain could not be removed yet");
                }
            }
        }
    }

    pub(super) fn is_out(&self, segment: SegmentId, number: u64) -> bool {
        matches!(self.partials.get(&segment), Some(Place::Out(out)) if *out == number)
    }

    /// Gives up what was received of a segment; only where it is `writer`'s, if one is named.
    pub(super) fn drop_partial(
        &mut self,
        segment: SegmentId,
        writer: Option<&PeerId>,
    ) -> Result<(), UnitError> {
        match self.partials.get(&segment) {
            None => return Ok(()),
            Some(Place::Here(partial)) if writer.is_some_and(|writer| *writer != partial.writer) => {
                return Err(UnitError::NoSegment);
            }
            Some(_) => {}
        }
        self.partials.remove(&segment);
        Ok(self.wipe_part(segment)?)
    }

    /// Gives up what expired, and what nobody went on with for a while. What somebody works on is looked at when it is
    /// back.
    pub(super) fn sweep_partials(&mut self, now: UnixTime) {
        self.partials.retain(|_, place| match place {
            Place::Here(partial) => !partial.is_over(now) && partial.touched.plus(PARTIAL_IDLE_MAX) >= now,
            Place::Out(_) => true,
        });
    }

    /// Whether something of a segment was received, and is of use.
    pub(super) fn has_partial(&self, segment: SegmentId) -> bool {
        self.partials.contains_key(&segment)
    }

    /// Hands out all of a received segment, to be checked against `summary`. Gives the report at once where there is
    /// that very copy already.
    ///
    /// # Errors
    /// [`UnitError::Offset`] where not all of it was received; see [`UnitError`].
    pub fn begin_adopt(
        &mut self,
        segment: SegmentId,
        writer: &PeerId,
        epoch: Epoch,
        summary: Summary,
    ) -> Result<Result<AdoptJob<D>, SealReport>, UnitError> {
        self.check_epoch(writer, epoch)?;
        if Summary::decode(&summary.encode(), segment, summary.file_len()) != Ok(summary) {
            return Err(UnitError::Unsound("no summary of this segment"));
        }
        if let Some(shelved) = self.shelf.get(segment) {
            if shelved.header.writer != *writer {
                return Err(UnitError::NoSegment);
            }
            return match shelved.phase() {
                Phase::Sealed(there) if there == summary => {
                    Ok(Err(SealReport { summary, damaged: shelved.damaged() }))
                }
                _ => Err(UnitError::State("there is another copy")),
            };
        }
        let partial = self.take_partial(segment, writer)?;
        let next = partial.end;
        if next != summary.file_len() {
            self.partials.insert(segment, Place::Here(partial));
            return Err(UnitError::Offset { next });
        }
        Ok(Ok(AdoptJob { partial, summary }))
    }

    /// Makes what [`AdoptJob::run`] found sound a copy: its name is durable when this returns well. What is not sound
    /// is removed.
    ///
    /// # Errors
    /// See [`UnitError`].
    pub fn finish_adopt(
        &mut self,
        segment: SegmentId,
        number: u64,
        epoch: Epoch,
        checked: Result<Adopted<D>, UnitError>,
        now: UnixTime,
    ) -> Result<SealReport, UnitError> {
        if !self.is_out(segment, number) {
            return Err(UnitError::State("given up meanwhile"));
        }
        let Adopted { partial, header, summary } = match checked {
            Ok(adopted) => adopted,
            Err(error) => {
                self.end_receive(segment, number, None);
                return Err(error);
            }
        };
        if let Err(fenced) = self.check_epoch(&header.writer, epoch) {
            // The successor may adopt it.
            self.end_receive(segment, number, Some(partial));
            return Err(fenced);
        }
        if header.deletion_day.end() <= now {
            self.end_receive(segment, number, None);
            return Err(UnitError::Expired);
        }
        let (part, name) = (part_name(segment), file_name(segment));
        let named = self.disk.rename(&part, &name).and_then(|()| self.disk.sync_dir());
        if let Err(error) = named {
            // Under which of the two names a crash would find it is not known. Under both it is whole.
            let _ = self.disk.rename(&name, &part);
            self.end_receive(segment, number, None);
            return Err(error.into());
        }
        self.partials.remove(&segment);
        self.forget_damage(segment);
        self.shelf.put(Shelved::new(*header, partial.file, Phase::Sealed(summary), summary.length));
        self.complete(segment);
        self.shelf.stirred();
        Ok(SealReport { summary, damaged: 0 })
    }
}
