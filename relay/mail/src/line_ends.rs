//! Where lines begin in a stream that comes in pieces, and whether every line end was CR LF.
//!
//! RFC 5321 §2.3.8: a line ends with CR LF, and neither stands alone. Servers that saw it otherwise were tricked into
//! seeing an end of data where there was none (CVE-2023-51764 and its like). The scan is in bulk: its cost per line is
//! one `memchr`.

/// The position in a stream of lines. A stream begins at a line's start.
#[derive(Clone, Debug)]
pub(crate) struct LineEnds {
    at: At,
    bare: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// Nothing of the line was seen.
    Start,
    /// Within a line.
    Middle,
    /// Behind a CR that must be followed by LF.
    Cr,
}

impl LineEnds {
    pub(crate) fn new() -> Self {
        Self { at: At::Start, bare: false }
    }

    /// Whether a CR without LF, or an LF without CR, was seen.
    pub(crate) fn has_bare(&self) -> bool {
        self.bare
    }

    /// Whether the next byte is a line's first.
    pub(crate) fn at_start(&self) -> bool {
        self.at == At::Start
    }

    /// Whether the last byte was a CR: if the stream ends here, it stands alone.
    pub(crate) fn after_cr(&self) -> bool {
        self.at == At::Cr
    }

    /// Says that a byte other than CR and LF was taken elsewhere.
    pub(crate) fn enter_line(&mut self) {
        self.at = At::Middle;
    }

    /// Says that a CR which no LF followed was taken elsewhere.
    pub(crate) fn enter_line_after_bare_cr(&mut self) {
        self.at = At::Middle;
        self.bare = true;
    }

    /// Goes through `bytes` to the next line start that lies behind its first byte; `None`: there is none in it.
    ///
    /// The offset may be `bytes.len()`: the line begins with the next piece.
    pub(crate) fn next_start(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        loop {
            if self.at == At::Cr {
                let next = bytes.get(at)?;
                if *next == b'\n' {
                    self.at = At::Start;
                    return Some(at + 1);
                }
                self.bare = true;
            }
            self.at = At::Middle;
            let end = at + memchr::memchr2(b'\r', b'\n', &bytes[at..])?;
            at = end + 1;
            if bytes[end] == b'\r' {
                self.at = At::Cr;
            } else {
                self.bare = true;
            }
        }
    }

    /// Goes through all of `bytes`.
    pub(crate) fn skip(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match self.next_start(bytes) {
                Some(start) => bytes = &bytes[start..],
                None => return,
            }
        }
    }
}
