//! From a blob back to a body: the other direction of [`super::base64`].

use base64_simd::STANDARD;

use crate::recipe::{Encoding, Lines, Recipe};

/// Turns a blob, in pieces, into the body that its recipe describes.
#[derive(Debug)]
pub(crate) struct Encoder {
    encoding: Encoding,
    tail: Vec<u8>,
    /// Bytes of the blob that are still to be encoded: its size, less what `cut` leaves to the tail.
    left: u64,
    /// The bytes of a group that lies across two pieces.
    carry: [u8; 3],
    carried: usize,
    breaker: LineBreaker,
}

impl Encoder {
    /// For a blob of `size` bytes. The recipe has been validated for that size.
    pub(crate) fn new(recipe: &Recipe, size: u64) -> Self {
        let (cut, lines) = match recipe.encoding {
            Encoding::Raw => (0, None),
            Encoding::Base64 { lines, cut } => (cut, lines),
        };
        Self {
            encoding: recipe.encoding,
            tail: recipe.tail.clone(),
            left: size.saturating_sub(u64::from(cut)),
            carry: [0; 3],
            carried: 0,
            breaker: LineBreaker::new(lines),
        }
    }

    /// Appends to `body` what the blob's next bytes become.
    pub(crate) fn update(&mut self, piece: &[u8], body: &mut Vec<u8>) {
        let take = usize::try_from(self.left).map_or(piece.len(), |left| left.min(piece.len()));
        let piece = piece.get(..take).unwrap_or_default();
        self.left -= take as u64;
        match self.encoding {
            Encoding::Raw => body.extend_from_slice(piece),
            Encoding::Base64 { .. } => self.encode(piece, body),
        }
    }

    /// Appends to `body` what stands behind the blob's last byte.
    pub(crate) fn finish(&mut self, body: &mut Vec<u8>) {
        self.breaker.encode(&self.carry[..self.carried], body);
        body.append(&mut self.tail);
    }

    fn encode(&mut self, mut piece: &[u8], body: &mut Vec<u8>) {
        while self.carried > 0 && self.carried < 3 {
            let Some((first, rest)) = piece.split_first() else { return };
            self.carry[self.carried] = *first;
            self.carried += 1;
            piece = rest;
        }
        if self.carried == 3 {
            self.breaker.encode(&self.carry, body);
            self.carried = 0;
        }
        let (groups, rest) = piece.split_at(piece.len() / 3 * 3);
        self.breaker.encode(groups, body);
        self.carry[..rest.len()].copy_from_slice(rest);
        self.carried = rest.len();
    }
}

/// Writes base64 in lines. A line end is written before the character that needs it, never after the last one.
#[derive(Debug)]
struct LineBreaker {
    lines: Option<Lines>,
    /// Characters in the present line.
    column: usize,
    scratch: Vec<u8>,
}

impl LineBreaker {
    fn new(lines: Option<Lines>) -> Self {
        Self { lines, column: 0, scratch: Vec::new() }
    }

    fn encode(&mut self, bytes: &[u8], body: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let Some(Lines { len, end }) = self.lines else {
            STANDARD.encode_append(bytes, body);
            return;
        };
        let len = len as usize;
        self.scratch.clear();
        STANDARD.encode_append(bytes, &mut self.scratch);
        body.reserve(self.scratch.len() + (self.scratch.len() / len + 1) * 2);
        let mut characters = self.scratch.as_slice();
        while !characters.is_empty() {
            if self.column == len {
                body.extend_from_slice(end.as_bytes());
                self.column = 0;
            }
            let (line, rest) = characters.split_at(characters.len().min(len - self.column));
            body.extend_from_slice(line);
            self.column += line.len();
            characters = rest;
        }
    }
}
