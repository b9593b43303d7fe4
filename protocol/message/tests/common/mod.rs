//! What the tests share: taking a message apart and putting it together again, in pieces of any size.
#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code: a failed unwrap is a failed test")]

use lighter_message::drive::{self, MemoryBlobs};
use lighter_message::{Detacher, FromManifest, FromStub, Policy, Rebuilt, Restorer, StubContext, Summary};
use lighter_protocol::{DeliveryId, UnixTime};

/// A message taken apart.
pub(crate) struct Detached {
    pub(crate) manifest: Vec<u8>,
    pub(crate) blobs: MemoryBlobs,
    pub(crate) summary: Summary,
    pub(crate) stub: Vec<u8>,
}

pub(crate) fn context() -> StubContext {
    StubContext {
        delivery: DeliveryId([0x5a; 16]),
        landing: Some("https://relay.example.org/t/0123456789abcdefghijklmnopqrstuvwxyzABCDEFG/".to_owned()),
        expires: Some(UnixTime(1_797_811_200)),
    }
}

/// Sizes of pieces that are cut from a message, used round and round.
pub(crate) type Pieces<'a> = &'a [usize];

fn cut<'a>(mut bytes: &'a [u8], pieces: Pieces<'a>) -> impl Iterator<Item = &'a [u8]> {
    pieces.iter().cycle().map_while(move |len| {
        let (piece, rest) = bytes.split_at_checked((*len).max(1)).unwrap_or((bytes, &[]));
        bytes = rest;
        (!piece.is_empty()).then_some(piece)
    })
}

/// Takes a message apart, fed in `pieces`, with the scanner working on every `block_len` bytes.
pub(crate) fn detach_in_pieces(
    message: &[u8],
    policy: Policy,
    pieces: Pieces<'_>,
    block_len: usize,
) -> Detached {
    let mut detacher = Detacher::with_block_len(policy, block_len);
    let mut manifest = Vec::new();
    let mut blobs = MemoryBlobs::new();
    for piece in cut(message, pieces) {
        detacher.push(piece);
        assert!(drive::drain(&mut detacher, &mut manifest, &mut blobs).unwrap().is_none());
    }
    detacher.finish();
    let summary = drive::drain(&mut detacher, &mut manifest, &mut blobs).unwrap().unwrap();
    assert_eq!(detacher.poll_event(), None, "nothing follows the end");
    let mut stub = Vec::new();
    drive::write_stub(&mut manifest.as_slice(), context(), summary.totals, &mut stub).unwrap();
    Detached { manifest, blobs, summary, stub }
}

pub(crate) fn detach(message: &[u8], policy: Policy) -> Detached {
    detach_in_pieces(message, policy, &[1 << 16], 1 << 16)
}

impl Detached {
    /// The original, by way of the manifest.
    pub(crate) fn original(&self) -> Vec<u8> {
        let mut original = Vec::new();
        let end = drive::write_original(
            &mut self.manifest.as_slice(),
            &mut |id| self.blobs.open(id),
            &mut original,
        );
        assert_eq!(end.unwrap(), FromManifest::Verified(self.summary.totals));
        original
    }

    /// What a stub restores to, and how sure that is.
    pub(crate) fn restore(&self, stub: &[u8], pieces: Pieces<'_>) -> (Vec<u8>, FromStub) {
        let mut restorer = Restorer::new();
        let mut original = Vec::new();
        let mut pieces = cut(stub, pieces);
        loop {
            match restorer.poll_event() {
                Some(Rebuilt::Data(bytes)) => original.extend_from_slice(&bytes),
                Some(Rebuilt::End(end)) => return (original, end),
                Some(Rebuilt::NeedBlob { id, size }) => {
                    let blob = self.blobs.get(id).unwrap();
                    assert_eq!(blob.len() as u64, size);
                    for piece in blob.chunks(1_000) {
                        restorer.feed(piece).unwrap();
                    }
                }
                None => match pieces.next() {
                    Some(piece) => restorer.push(piece),
                    None => restorer.finish(),
                },
            }
        }
    }
}

/// Takes `message` apart and puts it together again, by way of the stub and by way of the manifest: bytes equal.
pub(crate) fn comes_back_in_pieces(
    message: &[u8],
    policy: Policy,
    pieces: Pieces<'_>,
    block_len: usize,
) -> Detached {
    let detached = detach_in_pieces(message, policy, pieces, block_len);
    let totals = detached.summary.totals;
    assert_eq!(totals.length, message.len() as u64);
    assert_eq!(totals.hash, *blake3::hash(message).as_bytes());
    assert_eq!(totals.parts as usize, detached.summary.parts.len());
    assert!(detached.original() == message, "the manifest gives the message back");
    let (restored, end) = detached.restore(&detached.stub, pieces);
    if totals.parts == 0 {
        assert!(detached.stub == message, "a message of which nothing was detached is unchanged");
    } else {
        assert!(restored == message, "the stub gives the message back");
        assert!(matches!(end, FromStub::Verified(field) if field.totals == totals), "{end:?}");
    }
    for part in &detached.summary.parts {
        let blob = detached.blobs.get(part.blob).unwrap();
        assert_eq!((blob.len() as u64, *blake3::hash(blob).as_bytes()), (part.size, part.blob.0));
        assert!(part.size >= policy.min_size as u64, "nothing under the threshold is detached");
    }
    detached
}

pub(crate) fn comes_back(message: &[u8], policy: Policy) -> Detached {
    comes_back_in_pieces(message, policy, &[1 << 16], 1 << 16)
}

/// `text` with every line end as CR LF.
pub(crate) fn to_crlf(text: &[u8]) -> Vec<u8> {
    let mut converted = Vec::with_capacity(text.len());
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        match line.strip_suffix(b"\n") {
            Some(content) => {
                converted.extend_from_slice(content.strip_suffix(b"\r").unwrap_or(content));
                converted.extend_from_slice(b"\r\n");
            }
            None => converted.extend_from_slice(line),
        }
    }
    converted
}
