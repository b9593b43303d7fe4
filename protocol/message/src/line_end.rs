//! Line ends: CR LF on the wire, LF in files, and mixtures that must come back as they were.

use serde::{Deserialize, Serialize};

/// How a line ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LineEnd {
    /// CR LF: RFC 5322, and every message on the wire.
    CrLf,
    /// LF alone: messages in files.
    Lf,
}

impl LineEnd {
    /// The bytes.
    pub fn as_bytes(self) -> &'static [u8] {
        match self {
            Self::CrLf => b"\r\n",
            Self::Lf => b"\n",
        }
    }

    /// The line end that `line` ends with.
    pub fn of(line: &[u8]) -> Option<Self> {
        match line {
            [.., b'\r', b'\n'] => Some(Self::CrLf),
            [.., b'\n'] => Some(Self::Lf),
            _ => None,
        }
    }
}

/// How all lines of a text end. It lets a stub whose line ends were changed as a whole (by a mailbox that keeps LF, or
/// a transport that wants CR LF) be restored all the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LineEnds {
    /// There was no line end.
    #[default]
    None,
    /// Every line ends with CR LF.
    CrLf,
    /// Every line ends with LF, none with CR LF.
    Lf,
    /// Both occur.
    Mixed,
}

impl LineEnds {
    /// The line end for lines that are written anew.
    pub fn written(self) -> LineEnd {
        match self {
            Self::Lf => LineEnd::Lf,
            Self::None | Self::CrLf | Self::Mixed => LineEnd::CrLf,
        }
    }
}

/// Watches a text go by, in pieces, and says how its lines end.
#[derive(Debug, Default)]
pub(crate) struct LineEndCensus {
    seen: LineEnds,
    /// Whether the last byte was a CR: a line end may lie across two pieces.
    after_cr: bool,
}

impl LineEndCensus {
    pub(crate) fn update(&mut self, text: &[u8]) {
        if self.seen == LineEnds::Mixed || text.is_empty() {
            return;
        }
        for at in memchr::memchr_iter(b'\n', text) {
            let cr = if at == 0 { self.after_cr } else { text.get(at - 1) == Some(&b'\r') };
            self.seen = match (self.seen, cr) {
                (LineEnds::None | LineEnds::CrLf, true) => LineEnds::CrLf,
                (LineEnds::None | LineEnds::Lf, false) => LineEnds::Lf,
                _ => LineEnds::Mixed,
            };
            if self.seen == LineEnds::Mixed {
                return;
            }
        }
        self.after_cr = text.last() == Some(&b'\r');
    }

    pub(crate) fn seen(&self) -> LineEnds {
        self.seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pieces: &[&str], expected: LineEnds) {
        let mut census = LineEndCensus::default();
        for piece in pieces {
            census.update(piece.as_bytes());
        }
        assert_eq!(census.seen(), expected, "{pieces:?}");
    }

    #[test]
    fn a_text_tells_how_its_lines_end_wherever_it_is_cut() {
        check(&["none"], LineEnds::None);
        check(&["a\r\nb\r\n"], LineEnds::CrLf);
        check(&["a\r", "\nb\r\n"], LineEnds::CrLf);
        check(&["a\r", "", "\nb\r\n"], LineEnds::CrLf);
        check(&["a\n", "b\n"], LineEnds::Lf);
        check(&["a\n", "b\r", "\n"], LineEnds::Mixed);
        check(&["a\r\n", "b\n"], LineEnds::Mixed);
        check(&["a\rb\r\n"], LineEnds::CrLf);
    }
}
