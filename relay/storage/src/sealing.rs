//! Sealing bytes: what the relay encrypts before anything leaves it, and how it is opened again.
//!
//! # A portion's payload
//! ```text
//!   0  60  blob key, wrapped under the segment's day key (`keys`)
//!  60   4  portion number
//!  64   4  d: bytes of data, plaintext, at most 1 MiB
//!  68   4  p: bytes of pairs, plaintext: the BLAKE3 tree between the portion and its groups of 16 KiB
//!  72   4  e: bytes of the blob's end, plaintext; 0 in every record but the blob's last
//!  76   4  zero
//!  80      data in frames, pairs in frames, end in frames
//! ```
//! A frame is up to 64 KiB of ciphertext and a tag of 16 bytes. Its nonce is its number in the blob: portion × 32 +
//! frame within the record. Associated data: bytes 60 to 79, the section, and the frame's number in the record; so that no frame
//! can be moved, dropped or shown as the last. The blob's end, in its last record:
//! ```text
//!   0   8  size of the blob
//!   8  32  BlobId
//!  40 32n  chaining value of each portion
//! ```
//!
//! # A catalog record's payload
//! ```text
//!   0  60  key, wrapped
//!  60   4  n: bytes of plaintext
//!  64      in frames: the link to the catalog record before it in its class (sequence 8, first 16 bytes of the BLAKE3
//!          hash of its payload, its deletion day 4), then the record
//! ```
//! Its associated data has the sequence number: a record shown at another place in the line does not open.
//!
//! A key is drawn for each write and never used for another, so that counting nonces never meet twice. Names, sizes of
//! blobs and hashes stand in ciphertext only; what a storage server learns is lengths and times.

use std::ops::DerefMut;

use aws_lc_rs::aead::{Aad, LessSafeKey, Nonce};
use bytes::Bytes;
use lighter_protocol::BlobId;
use lighter_protocol::blob::{ChainingValue, HashedPortion, PortionTree, portion_pairs_len};

use crate::buffers::Buffer;
use crate::ids::Sequence;
use crate::keys::{BlobKey, DayKey, KeyError, WRAPPED_LEN, WrappedKey};
use crate::limits::{
    BLOB_PORTIONS_MAX, CATALOG_RECORD_LEN_MAX, FRAME_LEN, NONCE_LEN, RECORD_FRAMES_MAX, STORED_BLOB_SIZE_MAX,
    TAG_LEN,
};
use crate::record::{Kind, RECORD_HEADER_LEN, UnplacedRecord, read_u32, read_u64};

/// Why a payload does not open. Whichever it is, the copy that it came from is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OpenError {
    /// Its lengths do not fit together.
    #[error("malformed payload")]
    Malformed,
    /// A key or a frame does not open.
    #[error("a frame that does not open")]
    Cipher,
}

impl From<KeyError> for OpenError {
    fn from(_: KeyError) -> Self {
        Self::Cipher
    }
}

const PORTION_HEAD_LEN: usize = 80;
const CATALOG_HEAD_LEN: usize = WRAPPED_LEN + 4;
const END_HEAD_LEN: usize = 40;
const LINK_LEN: usize = 28;

/// Which part of a record a frame belongs to.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Section {
    Data = 0,
    Pairs = 1,
    End = 2,
    Catalog = 3,
}

/// Seals the portion at `index`; `end` for the last one. The wrapped key is left open: it depends on the segment.
pub(crate) fn seal_portion(
    key: &BlobKey,
    index: u32,
    data: &[u8],
    pairs: &[u8],
    end: Option<&PortionTree>,
) -> UnplacedRecord {
    let end = end.map(encode_end).unwrap_or_default();
    let sections = [(Section::Data, data), (Section::Pairs, pairs), (Section::End, &end)];
    let sealed_len: usize = sections.iter().map(|(_, plain)| sealed_len(plain.len())).sum();
    let mut bytes = Vec::with_capacity(RECORD_HEADER_LEN + PORTION_HEAD_LEN + sealed_len + 64);
    bytes.resize(RECORD_HEADER_LEN + WRAPPED_LEN, 0);
    let head = portion_head(index, data.len(), pairs.len(), end.len());
    bytes.extend_from_slice(&head);
    let mut frames = Frames::new(key, u64::from(index) * u64::from(RECORD_FRAMES_MAX), &head);
    for (section, plain) in sections {
        frames.seal(section, plain, &mut bytes);
    }
    UnplacedRecord::new(Kind::Portion, bytes, WRAPPED_LEN)
}

/// An opened portion: its tag was right, its hash is not yet checked.
#[derive(Clone, Debug)]
pub(crate) struct OpenedPortion {
    /// Its number in the blob.
    pub(crate) index: u64,
    /// Plaintext.
    pub(crate) data: Bytes,
    /// The tree beside it.
    pub(crate) pairs: Bytes,
    /// Of the blob's last record.
    pub(crate) end: Option<BlobEnd>,
}

/// What the last record says of the blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BlobEnd {
    pub(crate) id: BlobId,
    pub(crate) size: u64,
    pub(crate) portions: Vec<ChainingValue>,
}

/// Opens a portion's payload.
pub(crate) fn open_portion(payload: &[u8], day: &DayKey) -> Result<OpenedPortion, OpenError> {
    let (wrapped, rest) = payload.split_first_chunk::<WRAPPED_LEN>().ok_or(OpenError::Malformed)?;
    let (head, body) = rest.split_first_chunk::<20>().ok_or(OpenError::Malformed)?;
    let field = |at: usize| usize::try_from(read_u32(head, at)).map_err(|_| OpenError::Malformed);
    let (index, data_len, pairs_len, end_len) = (read_u32(head, 0), field(4)?, field(8)?, field(12)?);
    let lens = [data_len, pairs_len, end_len];
    if read_u32(head, 16) != 0
        || lens.iter().any(|len| *len > payload.len())
        || lens.iter().map(|len| sealed_len(*len)).sum::<usize>() != body.len()
        || u64::from(index) >= BLOB_PORTIONS_MAX
        || pairs_len != portion_pairs_len(data_len as u64)
    {
        return Err(OpenError::Malformed);
    }
    let key = day.unwrap_blob_key(wrapped)?;
    let mut frames = Frames::new(&key, u64::from(index) * u64::from(RECORD_FRAMES_MAX), head);
    let (data, body) = body.split_at(sealed_len(data_len));
    let (pairs, end) = body.split_at(sealed_len(pairs_len));
    let data = frames.open(Section::Data, data, Buffer::take(data_len))?.freeze();
    let pairs = frames.open(Section::Pairs, pairs, vec![0; pairs_len])?.into();
    let end = frames.open(Section::End, end, vec![0; end_len])?;
    let end = if end_len == 0 { None } else { Some(decode_end(&end)?) };
    Ok(OpenedPortion { index: u64::from(index), data, pairs, end })
}

impl OpenedPortion {
    /// Whether its bytes hash to `cv` (or, alone, to the blob's id), and the tree beside it is theirs.
    pub(crate) fn is_proved_by(&self, tree: &PortionTree) -> bool {
        let Ok(hashed) = HashedPortion::of(self.index, &self.data) else { return false };
        let index = usize::try_from(self.index).unwrap_or(usize::MAX);
        let is_alone = tree.portions().len() == 1;
        hashed.pairs == self.pairs
            && tree.portions().get(index) == Some(&hashed.cv)
            && (!is_alone || hashed.alone == Some(tree.id()))
    }
}

fn portion_head(index: u32, data: usize, pairs: usize, end: usize) -> [u8; 20] {
    let mut head = [0; 20];
    head[..4].copy_from_slice(&index.to_le_bytes());
    for (slot, len) in head[4..16].chunks_exact_mut(4).zip([data, pairs, end]) {
        slot.copy_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes());
    }
    head
}

fn encode_end(tree: &PortionTree) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(END_HEAD_LEN + tree.portions().len() * 32);
    bytes.extend_from_slice(&tree.size().to_le_bytes());
    bytes.extend_from_slice(tree.id().as_bytes());
    tree.portions().iter().for_each(|cv| bytes.extend_from_slice(cv));
    bytes
}

fn decode_end(bytes: &[u8]) -> Result<BlobEnd, OpenError> {
    let size = read_u64(bytes, 0);
    let rest = bytes.get(8..).ok_or(OpenError::Malformed)?;
    let (id, rest) = rest.split_first_chunk::<32>().ok_or(OpenError::Malformed)?;
    let (portions, rest) = rest.as_chunks::<32>();
    if !rest.is_empty() || size > STORED_BLOB_SIZE_MAX {
        return Err(OpenError::Malformed);
    }
    Ok(BlobEnd { id: BlobId(*id), size, portions: portions.to_vec() })
}

/// What a catalog record says of the one before it in its class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Link {
    /// The other's number; [`Sequence::ZERO`] where there is none.
    pub(crate) sequence: Sequence,
    /// Of its payload, as [`payload_tag`] gives it.
    pub(crate) tag: [u8; 16],
    /// When it expires: from then on its absence is no gap.
    pub(crate) deletion_day: u32,
}

/// What links to a record name it by.
pub(crate) fn payload_tag(payload: &[u8]) -> [u8; 16] {
    let hash = blake3::hash(payload);
    let mut tag = [0; 16];
    tag.copy_from_slice(&hash.as_bytes()[..16]);
    tag
}

/// Seals a catalog record, which must be at most [`CATALOG_RECORD_LEN_MAX`] bytes; also gives its tag.
pub(crate) fn seal_catalog(
    key: &BlobKey,
    wrapped: &WrappedKey,
    sequence: Sequence,
    link: &Link,
    record: &[u8],
) -> (UnplacedRecord, [u8; 16]) {
    let mut plain = Vec::with_capacity(LINK_LEN + record.len());
    plain.extend_from_slice(&link.sequence.0.to_le_bytes());
    plain.extend_from_slice(&link.tag);
    plain.extend_from_slice(&link.deletion_day.to_le_bytes());
    plain.extend_from_slice(record);

    let room = RECORD_HEADER_LEN + CATALOG_HEAD_LEN + sealed_len(plain.len()) + 64;
    let mut bytes = Vec::with_capacity(room);
    bytes.resize(RECORD_HEADER_LEN, 0);
    bytes.extend_from_slice(wrapped);
    bytes.extend_from_slice(&u32::try_from(plain.len()).unwrap_or(u32::MAX).to_le_bytes());
    let head = catalog_head(sequence, plain.len());
    Frames::new(key, 0, &head).seal(Section::Catalog, &plain, &mut bytes);
    let tag = payload_tag(&bytes[RECORD_HEADER_LEN..]);
    (UnplacedRecord::new(Kind::Catalog, bytes, 0), tag)
}

/// Opens a catalog record's payload: its link, and the record.
pub(crate) fn open_catalog(
    payload: &[u8],
    sequence: Sequence,
    day: &DayKey,
) -> Result<(Link, Vec<u8>), OpenError> {
    let (wrapped, rest) = payload.split_first_chunk::<WRAPPED_LEN>().ok_or(OpenError::Malformed)?;
    let (len, body) = rest.split_first_chunk::<4>().ok_or(OpenError::Malformed)?;
    let len = usize::try_from(u32::from_le_bytes(*len)).map_err(|_| OpenError::Malformed)?;
    if !(LINK_LEN..=LINK_LEN + CATALOG_RECORD_LEN_MAX).contains(&len) || sealed_len(len) != body.len() {
        return Err(OpenError::Malformed);
    }
    let key = day.unwrap_blob_key(wrapped)?;
    let head = catalog_head(sequence, len);
    let mut plain = Frames::new(&key, 0, &head).open(Section::Catalog, body, vec![0; len])?;
    let mut link = Link { sequence: Sequence(read_u64(&plain, 0)), ..Link::default() };
    link.tag.copy_from_slice(&plain[8..24]);
    link.deletion_day = read_u32(&plain, 24);
    plain.drain(..LINK_LEN);
    Ok((link, plain))
}

fn catalog_head(sequence: Sequence, len: usize) -> [u8; 20] {
    let mut head = [0; 20];
    head[..8].copy_from_slice(&sequence.0.to_le_bytes());
    head[8..16].copy_from_slice(&(len as u64).to_le_bytes());
    head
}

/// Bytes of the payload of a catalog record of `len` bytes.
pub(crate) fn catalog_payload_len(len: usize) -> usize {
    CATALOG_HEAD_LEN + sealed_len(LINK_LEN + len)
}

/// Bytes of `plain` bytes in frames.
fn sealed_len(plain: usize) -> usize {
    plain + plain.div_ceil(FRAME_LEN) * TAG_LEN
}

/// Seals or opens the frames of one record, in order.
struct Frames<'a> {
    cipher: LessSafeKey,
    first_nonce: u64,
    head: &'a [u8; 20],
    frame: u32,
}

impl<'a> Frames<'a> {
    fn new(key: &BlobKey, first_nonce: u64, head: &'a [u8; 20]) -> Self {
        Self { cipher: key.cipher(), first_nonce, head, frame: 0 }
    }

    /// Nonce and associated data of the next frame.
    fn next(&mut self, section: Section) -> (Nonce, Aad<[u8; 25]>) {
        debug_assert!(self.frame < RECORD_FRAMES_MAX);
        let mut nonce = [0; NONCE_LEN];
        nonce[..8].copy_from_slice(&(self.first_nonce + u64::from(self.frame)).to_le_bytes());
        let mut aad = [0; 25];
        aad[..20].copy_from_slice(self.head);
        aad[20] = section as u8;
        aad[21..].copy_from_slice(&self.frame.to_le_bytes());
        self.frame += 1;
        (Nonce::assume_unique_for_key(nonce), Aad::from(aad))
    }

    fn seal(&mut self, section: Section, plain: &[u8], out: &mut Vec<u8>) {
        for part in plain.chunks(FRAME_LEN) {
            let (nonce, aad) = self.next(section);
            let at = out.len();
            out.extend_from_slice(part);
            let tag = self
                .cipher
                .seal_in_place_separate_tag(nonce, aad, &mut out[at..])
                .expect("a frame is within what the cipher takes");
            out.extend_from_slice(tag.as_ref());
        }
    }

    /// Opens frames into all of `plain`.
    fn open<P: DerefMut<Target = [u8]>>(
        &mut self,
        section: Section,
        sealed: &[u8],
        mut plain: P,
    ) -> Result<P, OpenError> {
        for (out, frame) in plain.chunks_mut(FRAME_LEN).zip(sealed.chunks(FRAME_LEN + TAG_LEN)) {
            if self.frame >= RECORD_FRAMES_MAX {
                return Err(OpenError::Malformed);
            }
            let (nonce, aad) = self.next(section);
            let (body, tag) = frame.split_at_checked(out.len()).ok_or(OpenError::Malformed)?;
            self.cipher.open_separate_gather(nonce, aad, body, tag, out).map_err(|_| OpenError::Cipher)?;
        }
        Ok(plain)
    }
}

#[cfg(test)]
mod tests;
