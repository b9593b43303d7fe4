//! Writing a manifest, frame by frame.

use bytes::{BufMut, Bytes, BytesMut};
use serde::Serialize;

use super::{FRAME_HEAD_LEN, MAGIC, PartEntry, TAG_END, TAG_LITERAL, TAG_PART, Totals};
use crate::limits::LITERAL_LEN_MAX;
use crate::line_end::{LineEndCensus, LineEnds};

/// Gathers literal bytes into frames and gives finished frames to a function.
#[derive(Debug)]
pub(crate) struct ManifestWriter {
    /// The literal frame on its way.
    literal: BytesMut,
    census: LineEndCensus,
    begun: bool,
}

impl ManifestWriter {
    pub(crate) fn new() -> Self {
        Self { literal: BytesMut::new(), census: LineEndCensus::default(), begun: false }
    }

    /// How the lines end of all that stands in the manifest.
    pub(crate) fn line_ends(&self) -> LineEnds {
        self.census.seen()
    }

    /// Bytes held.
    pub(crate) fn held(&self) -> usize {
        self.literal.capacity()
    }

    pub(crate) fn literal(&mut self, mut bytes: &[u8], mut give: impl FnMut(Bytes)) {
        self.census.update(bytes);
        while !bytes.is_empty() {
            let room = LITERAL_LEN_MAX - self.literal.len();
            let (now, later) = bytes.split_at(bytes.len().min(room));
            self.literal.extend_from_slice(now);
            bytes = later;
            if self.literal.len() == LITERAL_LEN_MAX {
                self.flush(&mut give);
            }
        }
    }

    pub(crate) fn part(&mut self, entry: &PartEntry, mut give: impl FnMut(Bytes)) {
        self.census.update(&entry.header);
        self.flush(&mut give);
        self.frame(TAG_PART, &encode(entry), &mut give);
    }

    pub(crate) fn end(&mut self, totals: &Totals, mut give: impl FnMut(Bytes)) {
        self.flush(&mut give);
        self.frame(TAG_END, &encode(totals), &mut give);
    }

    fn flush(&mut self, give: &mut impl FnMut(Bytes)) {
        if !self.literal.is_empty() {
            let literal = self.literal.split();
            self.frame(TAG_LITERAL, &literal, give);
        }
    }

    fn frame(&mut self, tag: u8, content: &[u8], give: &mut impl FnMut(Bytes)) {
        let mut frame = BytesMut::with_capacity(MAGIC.len() + FRAME_HEAD_LEN + content.len());
        if !std::mem::replace(&mut self.begun, true) {
            frame.put_slice(MAGIC);
        }
        frame.put_u8(tag);
        // Frames are bounded far below: 64 KiB, and a part's header block.
        frame.put_u32_le(u32::try_from(content.len()).unwrap_or(u32::MAX));
        frame.put_slice(content);
        give(frame.freeze());
    }
}

/// The postcard encoding. It cannot fail: these types hold nothing that postcard does not know.
pub(super) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_stdvec(value).unwrap_or_default()
}
