//! Content as DATA carries it: a dot before each line that begins with one, and CR LF . CR LF at the end
//! (RFC 5321 §4.5.2).
//!
//! Both directions work in bulk: a piece in which no line begins with a dot is passed on without being copied.

use bytes::{BufMut, Bytes, BytesMut};

use crate::line_ends::LineEnds;

/// Takes the content out of what follows DATA.
#[derive(Clone, Debug)]
pub struct Decoder {
    lines: LineEnds,
    dot: Dot,
}

/// What was seen of a line that may be the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dot {
    /// The line did not begin with a dot, or has gone on since.
    No,
    /// `.` at the beginning of a line: held back.
    Seen,
    /// `.` CR at the beginning of a line: held back.
    SeenCr,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    /// A decoder at the beginning of the content.
    pub fn new() -> Self {
        Self { lines: LineEnds::new(), dot: Dot::No }
    }

    /// Whether a CR or LF stood alone so far. Such content is to be refused: what is behind a bare CR at the
    /// beginning of a line may then be incomplete.
    pub fn has_bare_line_end(&self) -> bool {
        self.lines.has_bare()
    }

    /// Takes the content from `input` and says whether its end was there. What follows the end stays in `input`;
    /// without an end, `input` is used up.
    pub fn decode(&mut self, input: &mut Bytes) -> (Bytes, bool) {
        let mut content = Pieces::new();
        let mut from = 0; // Content from here on was not yet put into `content`.
        let mut at = 0;
        let mut ended = false;
        while at < input.len() {
            match self.dot {
                Dot::Seen if input[at] == b'\r' => {
                    self.dot = Dot::SeenCr;
                    at += 1;
                    from = at;
                    continue;
                }
                Dot::SeenCr if input[at] == b'\n' => {
                    at += 1;
                    from = at;
                    ended = true;
                    break;
                }
                Dot::Seen => self.lines.enter_line(),
                Dot::SeenCr => self.lines.enter_line_after_bare_cr(),
                Dot::No if self.lines.at_start() && input[at] == b'.' => {
                    content.put(input, from, at);
                    self.dot = Dot::Seen;
                    at += 1;
                    from = at;
                    continue;
                }
                Dot::No => {}
            }
            self.dot = Dot::No;
            at = self.lines.next_start(&input[at..]).map_or(input.len(), |start| at + start);
        }
        content.put(input, from, at);
        let content = content.join(input);
        let _ = input.split_to(at);
        (content, ended)
    }
}

/// Writes content as DATA carries it.
#[derive(Clone, Debug)]
pub struct Encoder {
    lines: LineEnds,
}

impl Default for Encoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Encoder {
    /// An encoder at the beginning of the content.
    pub fn new() -> Self {
        Self { lines: LineEnds::new() }
    }

    /// Whether a CR or LF stood alone so far. Such content must not be sent: the next hop could see an end of data,
    /// and commands behind it, where there are none.
    pub fn has_bare_line_end(&self) -> bool {
        self.lines.has_bare()
    }

    /// The next piece of the content, encoded.
    pub fn encode(&mut self, content: Bytes) -> Bytes {
        let mut encoded: Option<BytesMut> = None;
        let mut from = 0;
        let mut at = 0;
        while at < content.len() {
            if self.lines.at_start() && content[at] == b'.' {
                let out = encoded.get_or_insert_with(|| BytesMut::with_capacity(content.len() + 64));
                out.put_slice(&content[from..at]);
                out.put_u8(b'.');
                from = at;
            }
            at = self.lines.next_start(&content[at..]).map_or(content.len(), |start| at + start);
        }
        match encoded {
            None => content,
            Some(mut out) => {
                out.put_slice(&content[from..]);
                out.freeze()
            }
        }
    }

    /// What ends the content: it completes the last line where that has no end. (A CR at the very end is bare.)
    pub fn finish(&mut self) -> &'static [u8] {
        if self.lines.after_cr() {
            self.lines.enter_line_after_bare_cr();
        }
        if self.lines.at_start() { b".\r\n" } else { b"\r\n.\r\n" }
    }
}

/// Ranges of one input, joined without copying where there is but one.
struct Pieces {
    first: Option<(usize, usize)>,
    joined: Option<BytesMut>,
}

impl Pieces {
    fn new() -> Self {
        Self { first: None, joined: None }
    }

    fn put(&mut self, input: &Bytes, from: usize, to: usize) {
        if from == to {
            return;
        }
        match (self.first, &mut self.joined) {
            (None, _) => self.first = Some((from, to)),
            (Some(_), Some(joined)) => joined.put_slice(&input[from..to]),
            (Some((first_from, first_to)), none) => {
                let mut joined = BytesMut::with_capacity(input.len());
                joined.put_slice(&input[first_from..first_to]);
                joined.put_slice(&input[from..to]);
                *none = Some(joined);
            }
        }
    }

    fn join(self, input: &Bytes) -> Bytes {
        match (self.joined, self.first) {
            (Some(joined), _) => joined.freeze(),
            (None, Some((from, to))) => input.slice(from..to),
            (None, None) => Bytes::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a decoder makes of `wire` in pieces of `piece_len`: content, whether it ended, what is left, bare line ends.
    fn decode(wire: &[u8], piece_len: usize) -> (Vec<u8>, bool, usize, bool) {
        let mut decoder = Decoder::new();
        let mut content = Vec::new();
        let mut taken = 0;
        for piece in wire.chunks(piece_len) {
            let mut input = Bytes::copy_from_slice(piece);
            let (bytes, ended) = decoder.decode(&mut input);
            content.extend_from_slice(&bytes);
            taken += piece.len() - input.len();
            if ended {
                return (content, true, wire.len() - taken, decoder.has_bare_line_end());
            }
        }
        (content, false, wire.len() - taken, decoder.has_bare_line_end())
    }

    #[test]
    fn bad_input_01_only_cr_lf_dot_cr_lf_ends_the_data() {
        for not_an_end in [
            "a\n.\nb",
            "a\n.\r\nb",
            "a\r\n.\nb",
            "a\r.\rb",
            "a\r\n.\r\r\nb",
            "a\r\n\0.\r\nb",
            "a\r\n.\0\r\nb",
            "a\r.\r\nb",
            "a\r\n.\rb",
            "a\n\r.\r\nb",
            "a\r\n..\r\nb",
            "a\r\n. \r\nb",
            "a\r\n .\r\nb",
            ".\nb",
            ".\rb",
        ] {
            for piece_len in 1..=not_an_end.len() {
                let (_, ended, left, bare) = decode(not_an_end.as_bytes(), piece_len);
                assert!(!ended, "{not_an_end:?} by {piece_len}");
                assert_eq!(left, 0);
                let well_formed = not_an_end.replace("\r\n", "");
                assert_eq!(bare, well_formed.contains(['\r', '\n']), "{not_an_end:?} by {piece_len}");
            }
        }
    }

    #[test]
    fn bad_input_02_the_end_is_found_however_the_stream_is_cut() {
        let wire = b"one\r\n..two\r\n...\r\n\r\n.three\r\n.\r\nQUIT\r\n";
        for piece_len in 1..=wire.len() {
            let (content, ended, left, bare) = decode(wire, piece_len);
            assert_eq!(content, b"one\r\n.two\r\n..\r\n\r\nthree\r\n", "by {piece_len}");
            assert!(ended && !bare);
            assert!(left <= b"QUIT\r\n".len());
        }
        assert_eq!(decode(b".\r\n", 1), (vec![], true, 0, false));
    }

    #[test]
    fn a_piece_without_dots_is_not_copied() {
        let mut input = Bytes::from_static(b"one\r\ntwo\r\n");
        let start = input.as_ptr();
        assert_eq!(Decoder::new().decode(&mut input).0.as_ptr(), start);
        let content = Bytes::from_static(b"one\r\ntwo\r\n");
        let start = content.as_ptr();
        assert_eq!(Encoder::new().encode(content).as_ptr(), start);
    }

    /// Text of lines that begin with dots, with bare line ends where `bare`.
    fn content(bare: bool) -> impl Strategy<Value = Vec<u8>> {
        let words: &[&[u8]] = &[b".", b"..", b"\r\n", b"a", b"\0", b"\xff", b"\r\n.\r\n"];
        let bare_words: &[&[u8]] = if bare { &[b"\r", b"\n"] } else { &[] };
        let words: Vec<Vec<u8>> = words.iter().chain(bare_words).map(|word| word.to_vec()).collect();
        prop::collection::vec(prop::sample::select(words), 0..60).prop_map(|words| words.concat())
    }

    /// What an encoder makes of `content` in pieces of `piece_len`.
    fn encode(content: &[u8], piece_len: usize) -> (Vec<u8>, bool) {
        let mut encoder = Encoder::new();
        let mut wire = Vec::new();
        for piece in content.chunks(piece_len) {
            wire.extend_from_slice(&encoder.encode(Bytes::copy_from_slice(piece)));
        }
        wire.extend_from_slice(encoder.finish());
        (wire, encoder.has_bare_line_end())
    }

    proptest! {
        #[test]
        fn content_survives_encoding_and_decoding(
            mut content in content(false), by in 1usize..40, then_by in 1usize..40,
        ) {
            let (wire, bare) = encode(&content, by);
            prop_assert!(!bare);
            let (decoded, ended, left, bare) = decode(&wire, then_by);
            if !content.is_empty() && !content.ends_with(b"\r\n") {
                content.extend_from_slice(b"\r\n"); // DATA carries whole lines only.
            }
            prop_assert_eq!(decoded, content);
            prop_assert!(ended && left == 0 && !bare);
        }

        #[test]
        fn any_cut_gives_the_same(wire in content(true), by in 1usize..20) {
            let whole = decode(&wire, wire.len().max(1));
            let cut = decode(&wire, by);
            prop_assert_eq!(whole.1, cut.1);
            prop_assert_eq!(whole.3, cut.3);
            if !whole.3 {
                prop_assert_eq!(whole.0, cut.0);
            }
        }

        #[test]
        fn a_bare_line_end_is_seen_wherever_it_stands(content in content(true), by in 1usize..20) {
            let text: String = content.iter().map(|&b| char::from(b)).collect();
            let bare = text.replace("\r\n", "").contains(['\r', '\n']);
            prop_assert_eq!(encode(&content, by).1, bare);
        }
    }
}
