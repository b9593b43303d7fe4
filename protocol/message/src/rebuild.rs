//! Putting a message together again from literal bytes and blobs, and proving it: what [`crate::OriginalWriter`] and
//! [`crate::Restorer`] have in common.

use std::collections::VecDeque;

use bytes::Bytes;
use lighter_protocol::BlobId;

use crate::body::encoder::Encoder;
use crate::limits::BLOCK_LEN;
use crate::manifest::Totals;
use crate::recipe::Recipe;

/// What a rebuilding machine gives, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rebuilt<End> {
    /// The message's next bytes. **Not yet trusted**: only what comes at the end says whether they are right.
    Data(Bytes),
    /// The bytes of this blob come next: feed all of them, from the first.
    NeedBlob {
        /// Which.
        id: BlobId,
        /// Its size in bytes: exactly that many are to be fed.
        size: u64,
    },
    /// The message is whole, and this is what it turned out to be.
    End(End),
}

/// A blob was fed that was not asked for, or more of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FeedError {
    /// No blob is wanted now.
    #[error("no blob is wanted now")]
    NotAsked,
    /// More bytes than the blob has.
    #[error("more bytes than the blob has")]
    TooLong,
}

/// The message on its way back.
#[derive(Debug)]
pub(crate) struct Rebuild<End> {
    pub(crate) events: VecDeque<Rebuilt<End>>,
    hasher: blake3::Hasher,
    length: u64,
    parts: u32,
    /// The body being made, and the bytes of its blob still to come.
    body: Option<(Encoder, u64)>,
}

impl<End> Rebuild<End> {
    pub(crate) fn new() -> Self {
        Self { events: VecDeque::new(), hasher: blake3::Hasher::new(), length: 0, parts: 0, body: None }
    }

    /// Whether a blob has to be fed before anything else.
    pub(crate) fn waits_for_blob(&self) -> bool {
        self.body.is_some()
    }

    /// Bytes of the message.
    pub(crate) fn give(&mut self, bytes: Bytes) {
        if bytes.is_empty() {
            return;
        }
        self.hasher.update(&bytes);
        self.length += bytes.len() as u64;
        self.events.push_back(Rebuilt::Data(bytes));
    }

    /// A part: its header block now, its body when the blob is fed. The recipe has been validated for that size.
    pub(crate) fn begin_part(&mut self, header: Vec<u8>, id: BlobId, size: u64, recipe: &Recipe) {
        self.give(Bytes::from(header));
        self.parts += 1;
        self.body = Some((Encoder::new(recipe, size), size));
        self.events.push_back(Rebuilt::NeedBlob { id, size });
        if size == 0 {
            // Nothing to wait for. The event stays: who drives this sees each part once.
            let _ = self.feed(b"");
        }
    }

    /// Takes the blob's next bytes.
    pub(crate) fn feed(&mut self, piece: &[u8]) -> Result<(), FeedError> {
        let (mut encoder, left) = self.body.take().ok_or(FeedError::NotAsked)?;
        let Some(left) = left.checked_sub(piece.len() as u64) else {
            self.body = Some((encoder, left));
            return Err(FeedError::TooLong);
        };
        for block in piece.chunks(BLOCK_LEN) {
            let mut body = Vec::new();
            encoder.update(block, &mut body);
            self.give(Bytes::from(body));
        }
        if left > 0 {
            self.body = Some((encoder, left));
        } else {
            let mut body = Vec::new();
            encoder.finish(&mut body);
            self.give(Bytes::from(body));
        }
        Ok(())
    }

    /// Whether what was given is that message.
    pub(crate) fn is(&self, totals: &Totals) -> bool {
        self.length == totals.length
            && self.parts == totals.parts
            && self.hasher.finalize() == blake3::Hash::from_bytes(totals.hash)
    }
}
