//! Decoding base64 and proving, in the same pass, that the decoded bytes give the same characters back.
//!
//! **The claim.** When [`Base64Body`] says that a body is regular, then the body is `encode(blob, recipe)`, byte for
//! byte. **Why no second encoding is needed to know it**: a decoder of whole groups of four characters without padding
//! that refuses every byte outside the alphabet is a bijection between groups of four characters and groups of three
//! bytes; so is one that takes a padded last group and refuses stray bits. Hence equal bytes mean equal characters, and
//! all that is left to check is where the lines are broken:
//!
//! - all lines but the last have exactly `length` characters and end with the same line end; this is looked at for
//!   each line, and a line that differs ends the regular part;
//! - what is read after the last whole group is kept as it came (`unsettled`) and becomes the recipe's tail, verbatim.
//!
//! What a tolerant decoder would still read as data may not hide in the tail: a further character of the alphabet
//! there makes the body irregular, and so does a tail that grows past its bound. The property tests below re-encode.

use base64_simd::{Out, STANDARD, STANDARD_NO_PAD, forgiving_decode_to_vec};

use super::encoder::Encoder;
use crate::limits::TAIL_LEN_MAX;
use crate::line_end::LineEnd;
use crate::recipe::{Encoding, Lines, Recipe};

/// Reads a base64 body in pieces, however they are cut.
#[derive(Debug)]
pub(crate) struct Base64Body {
    /// Known when the first line has ended.
    lines: Option<Lines>,
    /// Characters of the present line, settled or carried.
    column: u64,
    /// The characters of a group that is not whole yet.
    carry: [u8; 4],
    carried: usize,
    /// Every byte since the last whole group, as it came: at most a few characters and line ends, or the tail.
    unsettled: Vec<u8>,
    place: Place,
    /// Bytes decoded from whole groups.
    decoded: u64,
}

/// What is expected next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Characters of a line, or its end.
    Characters,
    /// The LF of a CR LF.
    LineFeed,
    /// Nothing but the tail. Once padding was seen (`closed`), every reader stops decoding.
    Tail { closed: bool },
}

/// The body is not regular base64. What came before `consumed` bytes of the piece is: decoded bytes, then `unsettled`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Irregular {
    /// Bytes of the piece that were taken in.
    pub(crate) consumed: usize,
}

/// A regular body has ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Regular {
    /// The blob's last bytes, at most two: those of a group that was padded, or should have been.
    pub(crate) last: Vec<u8>,
    /// How the whole becomes the body again.
    pub(crate) recipe: Recipe,
}

impl Base64Body {
    pub(crate) fn new() -> Self {
        Self {
            lines: None,
            column: 0,
            carry: [0; 4],
            carried: 0,
            unsettled: Vec::new(),
            place: Place::Characters,
            decoded: 0,
        }
    }

    /// Takes the body's next bytes and appends what they decode to.
    pub(crate) fn update(&mut self, piece: &[u8], decoded: &mut Vec<u8>) -> Result<(), Irregular> {
        let before = decoded.len();
        let mut at = 0;
        let mut result = Ok(());
        while let Some(rest) = piece.get(at..).filter(|rest| !rest.is_empty()) {
            at += match self.place {
                Place::Characters => match self.whole_lines(rest, decoded) {
                    0 => self.characters(rest, decoded),
                    taken => taken,
                },
                Place::LineFeed => self.line_feed(rest[0]),
                Place::Tail { closed } => match self.tail(rest, closed) {
                    Some(taken) => taken,
                    None => {
                        result = Err(Irregular { consumed: at });
                        break;
                    }
                },
            };
        }
        self.decoded += (decoded.len() - before) as u64;
        result
    }

    /// The body has ended: what is left of the blob, and the recipe.
    pub(crate) fn finish(self) -> Regular {
        let last = match self.carried {
            2 | 3 => forgiving_decode_to_vec(&self.carry[..self.carried]).unwrap_or_default(),
            _ => Vec::new(),
        };
        let size = self.decoded + last.len() as u64;
        // Padded as it should be, the last group is part of the encoding; otherwise it stays in the tail as it came.
        let canonical = self.canonical_end(&last);
        let (cut, tail) = match self.unsettled.strip_prefix(canonical.as_slice()) {
            Some(tail) => (0, tail.to_vec()),
            None => (last.len(), self.unsettled),
        };
        let recipe = Recipe {
            encoding: Encoding::Base64 { lines: self.lines, cut: u8::try_from(cut).unwrap_or(0) },
            tail,
        };
        debug_assert!(recipe.validate(size).is_ok());
        Regular { last, recipe }
    }

    /// Makes the body's regular part again from what was decoded so far, for a body that turned out irregular:
    /// `encode(decoded)`, then [`Self::unsettled`], is what came in.
    pub(crate) fn encoder_so_far(&self) -> Encoder {
        let encoding = Encoding::Base64 { lines: self.lines, cut: 0 };
        Encoder::new(&Recipe { encoding, tail: Vec::new() }, self.decoded)
    }

    /// The bytes since the last whole group, as they came.
    pub(crate) fn unsettled(&self) -> &[u8] {
        &self.unsettled
    }

    /// The fast path: as many whole lines of known length as `rest` holds, decoded in place, line by line.
    fn whole_lines(&mut self, rest: &[u8], decoded: &mut Vec<u8>) -> usize {
        let Some(Lines { len, end }) = self.lines else { return 0 };
        let (len, end) = (len as usize, end.as_bytes());
        let stride = len + end.len();
        if self.column != 0 || self.carried != 0 || !len.is_multiple_of(4) || rest.len() < stride {
            return 0;
        }
        let line_size = len / 4 * 3;
        let start = decoded.len();
        decoded.resize(start + rest.len() / stride * line_size, 0);
        let mut lines = 0;
        let targets = decoded.get_mut(start..).unwrap_or_default().chunks_exact_mut(line_size);
        for (line, target) in rest.chunks_exact(stride).zip(targets) {
            let (characters, line_end) = line.split_at(len);
            if line_end != end || STANDARD_NO_PAD.decode(characters, Out::from_slice(target)).is_err() {
                break;
            }
            lines += 1;
        }
        decoded.truncate(start + lines * line_size);
        if lines > 0 {
            self.unsettled.clear();
            self.unsettled.extend_from_slice(end);
        }
        lines * stride
    }

    /// The careful path: characters up to the line's end, the piece's end, or whatever stands in their way.
    fn characters(&mut self, rest: &[u8], decoded: &mut Vec<u8>) -> usize {
        let room = self.lines.map_or(u64::MAX, |lines| u64::from(lines.len).saturating_sub(self.column));
        if room == 0 || matches!(rest.first(), Some(b'\r' | b'\n')) {
            return self.line_end(rest[0]);
        }
        let run = usize::try_from(room).map_or(rest, |room| rest.get(..room).unwrap_or(rest));
        let run = &run[..memchr::memchr2(b'\r', b'\n', run).unwrap_or(run.len())];
        let good = self.settle(run, decoded);
        self.column += good as u64;
        if good < run.len() {
            // Padding, or something foreign. The tail decides which.
            self.place = Place::Tail { closed: false };
        }
        good
    }

    /// Decodes the leading characters of `run` that are in the alphabet; gives their number.
    fn settle(&mut self, run: &[u8], decoded: &mut Vec<u8>) -> usize {
        let mut at = 0;
        // A group that began in an earlier piece or line.
        while self.carried > 0 {
            match run.get(at) {
                Some(&byte) if is_base64(byte) => self.carry_on(byte, decoded),
                _ => return at,
            }
            at += 1;
        }
        let groups = &run[at..at + (run.len() - at) / 4 * 4];
        let good = if STANDARD_NO_PAD.decode_append(groups, decoded).is_ok() {
            groups.len()
        } else {
            let valid = groups.iter().take_while(|byte| is_base64(**byte)).count() / 4 * 4;
            // Cannot fail: all characters were looked at.
            let _ = STANDARD_NO_PAD.decode_append(&groups[..valid], decoded);
            valid
        };
        if good > 0 {
            self.unsettled.clear();
        }
        at += good;
        for &byte in run[at..].iter().take_while(|byte| is_base64(**byte)).take(3) {
            self.carry_on(byte, decoded);
            at += 1;
        }
        at
    }

    /// One more character of a group that is not whole.
    fn carry_on(&mut self, byte: u8, decoded: &mut Vec<u8>) {
        self.unsettled.push(byte);
        self.carry[self.carried] = byte;
        self.carried += 1;
        if self.carried == 4 {
            // Cannot fail: all characters were looked at.
            let _ = STANDARD_NO_PAD.decode_append(self.carry, decoded);
            self.carried = 0;
            self.unsettled.clear();
        }
    }

    /// The first byte after a line's characters. A line that is shorter than the first one is the last.
    fn line_end(&mut self, byte: u8) -> usize {
        let expected = match self.lines {
            Some(Lines { len, end }) => (self.column == u64::from(len)).then_some(end),
            None => u32::try_from(self.column).ok().filter(|len| *len > 0).map(|len| {
                let end = if byte == b'\r' { LineEnd::CrLf } else { LineEnd::Lf };
                // Known for good only once the LF was seen; a CR alone leads to the tail, where nothing is left to break.
                self.lines = Some(Lines { len, end });
                end
            }),
        };
        match (expected, byte) {
            (Some(LineEnd::CrLf), b'\r') => self.take_line_end(byte, Place::LineFeed),
            (Some(LineEnd::Lf), b'\n') => {
                self.column = 0;
                self.take_line_end(byte, Place::Characters)
            }
            _ => {
                self.place = Place::Tail { closed: false };
                0
            }
        }
    }

    fn line_feed(&mut self, byte: u8) -> usize {
        if byte == b'\n' {
            self.column = 0;
            self.take_line_end(byte, Place::Characters)
        } else {
            self.place = Place::Tail { closed: false };
            0
        }
    }

    fn take_line_end(&mut self, byte: u8, next: Place) -> usize {
        self.unsettled.push(byte);
        self.place = next;
        1
    }

    /// Takes bytes verbatim; `None` where one of them is data, or there are too many.
    fn tail(&mut self, rest: &[u8], closed: bool) -> Option<usize> {
        let open = if closed { 0 } else { rest.iter().position(|byte| *byte == b'=').unwrap_or(rest.len()) };
        let too_long = self.unsettled.len() + rest.len() > TAIL_LEN_MAX;
        if too_long || rest[..open].iter().any(|byte| is_base64(*byte)) {
            return None;
        }
        self.unsettled.extend_from_slice(rest);
        self.place = Place::Tail { closed: open < rest.len() };
        Some(rest.len())
    }

    /// What the encoder writes for `last` behind everything decoded so far: a line end where one is due, four
    /// characters.
    fn canonical_end(&self, last: &[u8]) -> Vec<u8> {
        let mut encoded = Vec::new();
        if last.is_empty() {
            return encoded;
        }
        let group = STANDARD.encode_to_string(last);
        let Some(Lines { len, end }) = self.lines else { return group.into_bytes() };
        let before = self.decoded / 3 * 4;
        for (position, character) in (before..).zip(group.bytes()) {
            if position > 0 && position.is_multiple_of(u64::from(len)) {
                encoded.extend_from_slice(end.as_bytes());
            }
            encoded.push(character);
        }
        encoded
    }
}

fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/'
}

#[cfg(test)]
mod tests;
