//! Input that came and was not looked at yet, cut into command lines of bounded length.

use bytes::Bytes;
use zeroize::Zeroizing;

use crate::limits::LINE_DISCARD_MAX;

/// One command line, or what came instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// A line, its CR LF taken off.
    Text(Bytes),
    /// A line that ended with an LF alone.
    Bare,
    /// A line longer than any command: it was thrown away up to its end.
    TooLong,
    /// So long that its end is not waited for.
    Endless,
}

/// The bytes between the socket and the session: one piece, and the beginning of a line.
///
/// Invariant: `begun.len() ≤ line_len_max`, and `begun` holds no LF.
///
/// A line may be a password: what is copied here is wiped when it is let go of. (What the shell hands in is its own.)
pub(super) struct Input {
    pending: Bytes,
    /// A line that began in an earlier piece; it never grows out of its place, which would leave a copy behind.
    begun: Zeroizing<Vec<u8>>,
    /// Octets of an over-long line that were thrown away already.
    discarded: usize,
    /// Octets in the longest line, its end included.
    line_len_max: usize,
}

impl std::fmt::Debug for Input {
    /// Without the bytes, which may be a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let lens = (self.pending.len(), self.begun.len(), self.discarded);
        f.debug_tuple("Input").field(&lens).finish()
    }
}

impl Input {
    /// Nothing came yet.
    pub(super) fn new(line_len_max: usize) -> Self {
        Self { pending: Bytes::new(), begun: Zeroizing::default(), discarded: 0, line_len_max }
    }

    /// Adds a piece. The shell does so when the last one is used up: then nothing is copied.
    pub(super) fn push(&mut self, piece: Bytes) {
        if self.pending.is_empty() {
            self.pending = piece;
        } else {
            let mut joined = Zeroizing::new(Vec::with_capacity(self.pending.len() + piece.len()));
            joined.extend_from_slice(&self.pending);
            joined.extend_from_slice(&piece);
            self.pending = Bytes::from_owner(joined);
        }
    }

    /// The bytes that wait, for who reads content.
    pub(super) fn pending(&mut self) -> &mut Bytes {
        &mut self.pending
    }

    /// Whether nothing waits, not even the beginning of a line.
    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.begun.is_empty() && self.discarded == 0
    }

    /// Whether a further piece is needed.
    pub(super) fn is_used_up(&self) -> bool {
        self.pending.is_empty()
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        *self = Self::new(self.line_len_max);
    }

    /// The next line, if all of it is there.
    pub(super) fn next_line(&mut self) -> Option<Line> {
        let end = memchr::memchr(b'\n', &self.pending);
        let len = self.discarded + self.begun.len() + end.map_or(self.pending.len(), |at| at + 1);
        if len > LINE_DISCARD_MAX {
            self.clear();
            return Some(Line::Endless);
        }
        let Some(end) = end else {
            if len > self.line_len_max {
                self.begun = Zeroizing::default();
                self.discarded = len;
            } else if !self.pending.is_empty() {
                if self.begun.capacity() == 0 {
                    self.begun.reserve_exact(self.line_len_max);
                }
                self.begun.extend_from_slice(&self.pending);
            }
            self.pending.clear();
            return None;
        };
        let tail = self.pending.split_to(end + 1);
        let begun = std::mem::take(&mut self.begun);
        if std::mem::take(&mut self.discarded) > 0 || len > self.line_len_max {
            return Some(Line::TooLong);
        }
        let mut line = if begun.is_empty() {
            tail
        } else {
            let mut begun = begun;
            begun.extend_from_slice(&tail);
            Bytes::from_owner(begun)
        };
        if !line.ends_with(b"\r\n") {
            return Some(Line::Bare);
        }
        line.truncate(line.len() - 2);
        Some(Line::Text(line))
    }
}
