//! Input that came and was not looked at yet, cut into command lines of bounded length.

use bytes::{Bytes, BytesMut};

use crate::limits::{COMMAND_LINE_LEN_MAX, LINE_DISCARD_MAX};

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
/// Invariant: `begun.len() ≤ COMMAND_LINE_LEN_MAX`, and `begun` holds no LF.
#[derive(Debug, Default)]
pub(super) struct Input {
    pending: Bytes,
    /// A line that began in an earlier piece.
    begun: BytesMut,
    /// Octets of an over-long line that were thrown away already.
    discarded: usize,
}

impl Input {
    /// Adds a piece. The shell does so when the last one is used up: then nothing is copied.
    pub(super) fn push(&mut self, piece: Bytes) {
        if self.pending.is_empty() {
            self.pending = piece;
        } else {
            let mut joined = BytesMut::with_capacity(self.pending.len() + piece.len());
            joined.extend_from_slice(&self.pending);
            joined.extend_from_slice(&piece);
            self.pending = joined.freeze();
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
        *self = Self::default();
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
            if len > COMMAND_LINE_LEN_MAX {
                self.begun.clear();
                self.discarded = len;
            } else {
                self.begun.extend_from_slice(&self.pending);
            }
            self.pending.clear();
            return None;
        };
        let tail = self.pending.split_to(end + 1);
        let begun = std::mem::take(&mut self.begun);
        if std::mem::take(&mut self.discarded) > 0 || len > COMMAND_LINE_LEN_MAX {
            return Some(Line::TooLong);
        }
        let mut line = if begun.is_empty() {
            tail
        } else {
            let mut begun = begun;
            begun.extend_from_slice(&tail);
            begun.freeze()
        };
        if !line.ends_with(b"\r\n") {
            return Some(Line::Bare);
        }
        line.truncate(line.len() - 2);
        Some(Line::Text(line))
    }
}
