//! From a manifest and its blobs back to the original message.

use crate::manifest::{Entry, ManifestError, ManifestReader, Totals};
use crate::rebuild::{FeedError, Rebuild, Rebuilt};

/// How a message made from its manifest ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FromManifest {
    /// Every byte is as it came in: length and hash say so.
    Verified(Totals),
    /// It is not the message. A blob was not the one asked for, or the manifest is damaged.
    Mismatch(Totals),
}

/// Makes the original message from its manifest and its blobs: [`push`](Self::push) pieces of the manifest, drain
/// [`poll_event`](Self::poll_event), [`feed`](Self::feed) the blobs that it asks for.
#[derive(Debug)]
pub struct OriginalWriter {
    reader: ManifestReader,
    rebuild: Rebuild<FromManifest>,
}

impl Default for OriginalWriter {
    fn default() -> Self {
        Self::new()
    }
}

impl OriginalWriter {
    /// At the beginning of a manifest.
    pub fn new() -> Self {
        Self { reader: ManifestReader::new(), rebuild: Rebuild::new() }
    }

    /// Takes the manifest's next bytes. What is held is these, one frame, and what was not drained.
    pub fn push(&mut self, piece: &[u8]) {
        self.reader.push(piece);
    }

    /// Takes the next bytes of the blob that [`Rebuilt::NeedBlob`] asked for; with the last of them the message goes on.
    /// Pieces of 64 KiB, drained after each, keep memory flat.
    pub fn feed(&mut self, piece: &[u8]) -> Result<(), FeedError> {
        self.rebuild.feed(piece)
    }

    /// The next event, or `None` where more of the manifest, or a blob, is needed.
    pub fn poll_event(&mut self) -> Result<Option<Rebuilt<FromManifest>>, ManifestError> {
        loop {
            if let Some(event) = self.rebuild.events.pop_front() {
                return Ok(Some(event));
            }
            if self.rebuild.waits_for_blob() {
                return Ok(None);
            }
            match self.reader.next_entry()? {
                None => return Ok(None),
                Some(Entry::Literal(bytes)) => self.rebuild.give(bytes),
                Some(Entry::Part(part)) => {
                    self.rebuild.begin_part(part.header, part.blob, part.size, &part.recipe);
                }
                Some(Entry::End(totals)) => {
                    let verified = self.rebuild.is(&totals);
                    let end = if verified { FromManifest::Verified } else { FromManifest::Mismatch };
                    self.rebuild.events.push_back(Rebuilt::End(end(totals)));
                }
            }
        }
    }

    /// The manifest has ended: was that all of it?
    pub fn finish(&self) -> Result<(), ManifestError> {
        self.reader.finish()
    }
}
