//! One part on its way out of a message: held back until it passes the threshold, then given out as a blob.

use bytes::Bytes;
use lighter_protocol::BlobId;

use crate::body::base64::{Base64Body, Irregular, Regular};
use crate::body::encoder::Encoder;
use crate::detach::{Event, PartFacts};
use crate::header::Header;
use crate::limits::BLOCK_LEN;
use crate::policy::{Policy, is_armoured};
use crate::recipe::{Encoding, Recipe};

/// A leaf part that policy lets go, while its body is read.
#[derive(Debug)]
pub(crate) struct Leaf {
    /// The header block, verbatim.
    block: Vec<u8>,
    facts: PartFacts,
    threshold: usize,
    /// Whether a body in PGP's armour is left alone.
    spares_armour: bool,
    body: Body,
    stage: Stage,
}

#[derive(Debug)]
enum Body {
    Base64(Base64Body),
    /// The blob is the body as it stands.
    Raw,
}

#[derive(Debug)]
enum Stage {
    /// Under the threshold: the body as it came, and decoded. Base64 is at most four times its blob (a line end for
    /// each character), so that both are bounded.
    Held { raw: Vec<u8>, decoded: Vec<u8> },
    /// Being given out.
    Open(Box<Blob>),
}

/// The blob being given out.
#[derive(Debug, Default)]
struct Blob {
    hasher: blake3::Hasher,
    size: u64,
    /// The last line end of a raw body: it belongs to the delimiter, unless more follows.
    line_end: Vec<u8>,
}

/// What is to be done after a piece of the body.
#[derive(Debug)]
pub(crate) enum Next {
    /// Go on.
    Body,
    /// It is nothing to be detached: it goes back into the message as it stands.
    Literal,
    /// What was given out has to be read back first.
    Replay(Box<Replay>),
}

/// How the part ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// Under the threshold: these bytes stay in the message.
    Literal { block: Vec<u8>, raw: Vec<u8> },
    /// A blob.
    Part { block: Vec<u8>, facts: PartFacts, blob: BlobId, size: u64, recipe: Recipe },
}

/// The first copy of a blob whose base64 turned out irregular, on its way back in.
#[derive(Debug)]
pub(crate) struct Replay {
    /// Bytes still to come.
    left: u64,
    /// The hash that they have together.
    expected: blake3::Hash,
    hasher: blake3::Hasher,
    encoder: Encoder,
    /// What follows them, as it came.
    rest: Vec<u8>,
}

/// What was fed to [`Detacher::replay`](crate::Detacher::replay) is not what was given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// No replay was asked for.
    #[error("no replay was asked for")]
    NotAsked,
    /// More bytes than were given out.
    #[error("more bytes than were given out")]
    TooLong,
    /// Other bytes: the storage behind is broken, and the message must not be acknowledged.
    #[error("the bytes read back are not those that were given out")]
    Differs,
}

impl Leaf {
    pub(crate) fn new(block: Vec<u8>, header: &Header, policy: &Policy) -> Self {
        let is_base64 = header.transfer_encoding.as_deref() == Some("base64");
        Self {
            block,
            facts: PartFacts::of(header),
            threshold: policy.threshold(),
            spares_armour: !policy.signed_and_encrypted,
            body: if is_base64 { Body::Base64(Base64Body::new()) } else { Body::Raw },
            stage: Stage::Held { raw: Vec::new(), decoded: Vec::new() },
        }
    }

    /// Bytes held.
    pub(crate) fn held(&self) -> usize {
        let body = match &self.stage {
            Stage::Held { raw, decoded } => raw.capacity() + decoded.capacity(),
            Stage::Open(blob) => blob.line_end.capacity(),
        };
        self.block.capacity() + body
    }

    /// Takes the body's next bytes.
    pub(crate) fn update(&mut self, piece: &[u8], give: &mut impl FnMut(Event)) -> Next {
        match &mut self.stage {
            Stage::Held { .. } => self.hold(piece, give),
            Stage::Open(blob) => match &mut self.body {
                Body::Raw => {
                    blob.raw(piece, give);
                    Next::Body
                }
                Body::Base64(reader) => {
                    let mut decoded = Vec::with_capacity(piece.len() / 4 * 3 + 3);
                    let result = reader.update(piece, &mut decoded);
                    blob.give(decoded, give);
                    match result {
                        Ok(()) => Next::Body,
                        Err(Irregular { consumed }) => {
                            let rest =
                                [reader.unsettled(), piece.get(consumed..).unwrap_or_default()].concat();
                            let encoder = reader.encoder_so_far();
                            self.start_again(encoder, rest, give)
                        }
                    }
                }
            },
        }
    }

    /// The body has ended.
    pub(crate) fn finish(mut self, give: &mut impl FnMut(Event)) -> Ended {
        let mut ending = Ending::new(self.body);
        if let Stage::Held { raw, decoded } = self.stage {
            let size = ending.size(&raw, &decoded);
            let start = if matches!(ending, Ending::Raw) { &raw } else { &decoded };
            if size < self.threshold || (self.spares_armour && is_armoured(start)) {
                return Ended::Literal { block: self.block, raw };
            }
            self.stage = Stage::Open(Blob::open(&self.facts, give));
            if let Stage::Open(blob) = &mut self.stage {
                match ending {
                    Ending::Raw => blob.raw(&raw, give),
                    Ending::Base64(_) => blob.give(decoded, give),
                }
            }
        }
        let Stage::Open(mut blob) = self.stage else {
            // Not reached: a held part was opened, or returned, above.
            return Ended::Literal { block: self.block, raw: Vec::new() };
        };
        let recipe = match &mut ending {
            Ending::Raw => Recipe { encoding: Encoding::Raw, tail: std::mem::take(&mut blob.line_end) },
            Ending::Base64(regular) => {
                blob.give(std::mem::take(&mut regular.last), give);
                regular.recipe.clone()
            }
        };
        let (id, size) = (BlobId::from(blob.hasher.finalize()), blob.size);
        give(Event::BlobEnd { id, size });
        Ended::Part { block: self.block, facts: self.facts, blob: id, size, recipe }
    }

    /// Takes back a part that is still held, as it stood: header block and body. One that is being given out stays.
    pub(crate) fn into_literal(self) -> Result<(Vec<u8>, Vec<u8>), Box<Self>> {
        match self.stage {
            Stage::Held { raw, .. } => Ok((self.block, raw)),
            Stage::Open(_) => Err(Box::new(self)),
        }
    }

    fn hold(&mut self, piece: &[u8], give: &mut impl FnMut(Event)) -> Next {
        let Stage::Held { raw, decoded } = &mut self.stage else { return Next::Body };
        raw.extend_from_slice(piece);
        if let Body::Base64(reader) = &mut self.body
            && reader.update(piece, decoded).is_err()
        {
            self.body = Body::Raw;
            decoded.clear();
        }
        // A raw body's last line end is not part of the blob.
        let (start, passed) = match &self.body {
            Body::Base64(_) => (&*decoded, decoded.len() >= self.threshold),
            Body::Raw => (&*raw, raw.len() >= self.threshold + 2),
        };
        if !passed {
            return Next::Body;
        }
        if self.spares_armour && is_armoured(start) {
            return Next::Literal;
        }
        let start = std::mem::take(if matches!(self.body, Body::Raw) { raw } else { decoded });
        let mut blob = Blob::open(&self.facts, give);
        match &self.body {
            Body::Base64(_) => blob.give(start, give),
            Body::Raw => blob.raw(&start, give),
        }
        self.stage = Stage::Open(blob);
        Next::Body
    }

    /// The body is not regular after all: the blob becomes the body as it stands, from its first byte.
    fn start_again(&mut self, encoder: Encoder, rest: Vec<u8>, give: &mut impl FnMut(Event)) -> Next {
        self.body = Body::Raw;
        let Stage::Open(blob) = &mut self.stage else { return Next::Body };
        let first = std::mem::take(blob);
        give(Event::BlobRestart { len: first.size });
        Next::Replay(Box::new(Replay {
            left: first.size,
            expected: first.hasher.finalize(),
            hasher: blake3::Hasher::new(),
            encoder,
            rest,
        }))
    }

    /// Takes back what was given out first. Gives whether all of it is there.
    pub(crate) fn replay(
        &mut self,
        replay: &mut Replay,
        piece: &[u8],
        give: &mut impl FnMut(Event),
    ) -> Result<bool, ReplayError> {
        let Stage::Open(blob) = &mut self.stage else { return Err(ReplayError::NotAsked) };
        replay.left = replay.left.checked_sub(piece.len() as u64).ok_or(ReplayError::TooLong)?;
        replay.hasher.update(piece);
        let mut body = Vec::new();
        for piece in piece.chunks(BLOCK_LEN) {
            replay.encoder.update(piece, &mut body);
            blob.raw(&body, give);
            body.clear();
        }
        if replay.left > 0 {
            return Ok(false);
        }
        if replay.hasher.finalize() != replay.expected {
            return Err(ReplayError::Differs);
        }
        replay.encoder.finish(&mut body);
        body.append(&mut replay.rest);
        blob.raw(&body, give);
        Ok(true)
    }
}

/// How a body ended.
enum Ending {
    Raw,
    Base64(Regular),
}

impl Ending {
    fn new(body: Body) -> Self {
        match body {
            Body::Raw => Self::Raw,
            Body::Base64(reader) => Self::Base64(reader.finish()),
        }
    }

    /// Bytes in the blob of a part that is still held.
    fn size(&self, raw: &[u8], decoded: &[u8]) -> usize {
        match self {
            Self::Raw => raw.len() - last_line_end(raw).len(),
            Self::Base64(regular) => decoded.len() + regular.last.len(),
        }
    }
}

impl Blob {
    fn open(facts: &PartFacts, give: &mut impl FnMut(Event)) -> Box<Self> {
        give(Event::BlobStart { name: facts.name.clone(), media_type: facts.media_type.clone() });
        Box::default()
    }

    fn give(&mut self, bytes: Vec<u8>, give: &mut impl FnMut(Event)) {
        if bytes.is_empty() {
            return;
        }
        self.hasher.update(&bytes);
        self.size += bytes.len() as u64;
        give(Event::BlobData(Bytes::from(bytes)));
    }

    /// Gives a raw body's bytes, all but a line end at their end.
    fn raw(&mut self, piece: &[u8], give: &mut impl FnMut(Event)) {
        let mut bytes = std::mem::take(&mut self.line_end);
        bytes.extend_from_slice(piece);
        let line_end = last_line_end(&bytes).len();
        self.line_end = bytes.split_off(bytes.len() - line_end);
        self.give(bytes, give);
    }
}

/// The line end, or the CR that may become one, at the end of `bytes`.
fn last_line_end(bytes: &[u8]) -> &[u8] {
    let len = match bytes {
        [.., b'\r', b'\n'] => 2,
        [.., b'\n' | b'\r'] => 1,
        _ => 0,
    };
    bytes.get(bytes.len() - len..).unwrap_or_default()
}
