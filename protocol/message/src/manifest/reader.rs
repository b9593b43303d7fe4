//! Reading a manifest. It comes from a disk or from another peer: nothing in it is believed before it is checked.

use bytes::{Buf, Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::writer::encode;
use super::{FRAME_HEAD_LEN, MAGIC, PartEntry, TAG_END, TAG_LITERAL, TAG_PART, Totals};
use crate::limits::{LITERAL_LEN_MAX, PART_ENTRY_LEN_MAX, PART_HEADER_LEN_MAX, PARTS_MAX};

/// What stands next in a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Bytes of the message.
    Literal(Bytes),
    /// A detached part.
    Part(Box<PartEntry>),
    /// The end. Nothing follows.
    End(Totals),
}

/// Bytes that are no manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// It does not begin as a manifest of this version does.
    #[error("not a manifest of version 1")]
    Magic,
    /// A frame that is none, or is too long.
    #[error("not a frame, at byte {0}")]
    Frame(u64),
    /// A part or the totals do not decode, or say what cannot be.
    #[error("not an entry, at byte {0}")]
    Entry(u64),
    /// The totals are not those of the entries, or not the expected ones.
    #[error("the totals do not add up")]
    Totals,
    /// Bytes after the end.
    #[error("bytes behind the end, at byte {0}")]
    BehindEnd(u64),
    /// It ends before its end.
    #[error("the manifest is cut off")]
    CutOff,
}

/// Reads a manifest in pieces, however they are cut: [`push`](Self::push), then [`next_entry`](Self::next_entry) until
/// it gives nothing, and [`finish`](Self::finish) at the end.
#[derive(Debug, Default)]
pub struct ManifestReader {
    buffer: BytesMut,
    /// Bytes read before the buffer.
    position: u64,
    begun: bool,
    ended: bool,
    /// Bytes of the message that the entries stand for so far.
    length: u64,
    parts: u32,
}

impl ManifestReader {
    /// At the beginning of a manifest.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the manifest's next bytes. What is held is at most one frame and these.
    pub fn push(&mut self, piece: &[u8]) {
        self.buffer.extend_from_slice(piece);
    }

    /// The next entry, or `None` where more bytes are needed.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, ManifestError> {
        if !self.begun {
            let head = self.buffer.get(..MAGIC.len()).unwrap_or(&self.buffer);
            if !MAGIC.starts_with(head) {
                return Err(ManifestError::Magic);
            }
            if head.len() < MAGIC.len() {
                return Ok(None);
            }
            self.skip(MAGIC.len());
            self.begun = true;
        }
        if self.ended {
            return if self.buffer.is_empty() {
                Ok(None)
            } else {
                Err(ManifestError::BehindEnd(self.position))
            };
        }
        let Some((tag, content)) = self.frame()? else { return Ok(None) };
        self.entry(tag, content).map(Some)
    }

    /// Nothing follows: was that the whole manifest?
    pub fn finish(&self) -> Result<(), ManifestError> {
        match (self.ended, self.buffer.is_empty()) {
            (true, true) => Ok(()),
            (true, false) => Err(ManifestError::BehindEnd(self.position)),
            (false, _) => Err(ManifestError::CutOff),
        }
    }

    fn skip(&mut self, len: usize) {
        self.buffer.advance(len);
        self.position += len as u64;
    }

    /// Takes a whole frame off the buffer. A length is checked before anything is waited for.
    fn frame(&mut self) -> Result<Option<(u8, Bytes)>, ManifestError> {
        let Some(head) = self.buffer.first_chunk::<FRAME_HEAD_LEN>() else { return Ok(None) };
        let [tag, length @ ..] = *head;
        let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
        let length_max = match tag {
            TAG_LITERAL => LITERAL_LEN_MAX,
            TAG_PART => PART_ENTRY_LEN_MAX,
            TAG_END => 64,
            _ => return Err(ManifestError::Frame(self.position)),
        };
        if length == 0 || length > length_max {
            return Err(ManifestError::Frame(self.position));
        }
        if self.buffer.len() < FRAME_HEAD_LEN + length {
            return Ok(None);
        }
        self.skip(FRAME_HEAD_LEN);
        self.position += length as u64;
        Ok(Some((tag, self.buffer.split_to(length).freeze())))
    }

    fn entry(&mut self, tag: u8, content: Bytes) -> Result<Entry, ManifestError> {
        let malformed = ManifestError::Entry(self.position - content.len() as u64);
        match tag {
            TAG_LITERAL => {
                self.count(content.len() as u64)?;
                Ok(Entry::Literal(content))
            }
            TAG_PART => {
                let part: PartEntry = decode(&content).ok_or(malformed)?;
                let body = part.recipe.body_len(part.size).ok_or(malformed)?;
                if part.header.len() > PART_HEADER_LEN_MAX || self.parts as usize >= PARTS_MAX {
                    return Err(malformed);
                }
                self.count(part.header.len() as u64)?;
                self.count(body)?;
                self.parts += 1;
                Ok(Entry::Part(Box::new(part)))
            }
            _ => {
                let totals: Totals = decode(&content).ok_or(malformed)?;
                if (totals.length, totals.parts) != (self.length, self.parts) {
                    return Err(ManifestError::Totals);
                }
                self.ended = true;
                Ok(Entry::End(totals))
            }
        }
    }

    fn count(&mut self, bytes: u64) -> Result<(), ManifestError> {
        self.length = self.length.checked_add(bytes).ok_or(ManifestError::Totals)?;
        Ok(())
    }
}

/// Decodes strictly: nothing left over, and no second way to write the same.
fn decode<T: DeserializeOwned + Serialize>(content: &[u8]) -> Option<T> {
    let (value, rest) = postcard::take_from_bytes::<T>(content).ok()?;
    (rest.is_empty() && encode(&value) == content).then_some(value)
}
