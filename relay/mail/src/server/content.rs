//! The content of one message as it comes in: by DATA or in BDAT chunks, taken or thrown away.

use bytes::Bytes;

use crate::dot::Decoder;
use crate::line_ends::LineEnds;
use crate::reply::Reply;
use crate::server::{Summary, replies};
use crate::trace::HopCounter;

/// What is coming in, and what has become of it so far.
#[derive(Debug)]
pub(super) struct Content {
    form: Form,
    fate: Fate,
    len: u64,
    len_max: u64,
    eight_bit: bool,
    hops: HopCounter,
    /// An end that was reached together with a last piece, and is told at the next step.
    reached: Option<Step>,
    /// Whether it is a chunk that belongs to no message.
    stray: bool,
}

/// How the content is framed.
#[derive(Debug)]
enum Form {
    /// Lines, with the end marked (RFC 5321 §4.1.1.4).
    Data(Decoder),
    /// Chunks of known length (RFC 3030).
    Chunks {
        lines: LineEnds,
        /// Octets of the present chunk that are still to come.
        left: u64,
        /// Whether the present chunk is the last.
        last: bool,
    },
}

/// Whether the content goes to the shell.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    Taken,
    /// Read to its end only to keep in step with the peer, who is then told this.
    Refused(Reply),
}

/// What a step through the input brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Content for the shell.
    Piece(Bytes),
    /// Nothing for the shell: the input is used up, or was thrown away.
    Nothing,
    /// What was taken has just become void, for a reason of the session's.
    Void,
    /// The present chunk, not the last, is complete.
    ChunkEnd,
    /// The content is complete.
    End,
}

impl Content {
    pub(super) fn data(len_max: u64) -> Self {
        Self::new(Form::Data(Decoder::new()), len_max)
    }

    /// Content in chunks, of which the first has been announced.
    pub(super) fn chunks(len_max: u64, left: u64, last: bool) -> Self {
        Self::new(Form::Chunks { lines: LineEnds::new(), left, last }, len_max)
    }

    /// A chunk that came where none may: it is read, and answered with `reply`.
    pub(super) fn stray_chunk(len_max: u64, left: u64, last: bool, reply: Reply) -> Self {
        Self { fate: Fate::Refused(reply), stray: true, ..Self::chunks(len_max, left, last) }
    }

    fn new(form: Form, len_max: u64) -> Self {
        Self {
            form,
            fate: Fate::Taken,
            len: 0,
            len_max,
            eight_bit: false,
            hops: HopCounter::new(),
            reached: None,
            stray: false,
        }
    }

    /// Whether it comes by BDAT.
    pub(super) fn is_chunks(&self) -> bool {
        matches!(self.form, Form::Chunks { .. })
    }

    /// Whether it is a chunk that came where none may.
    pub(super) fn is_stray(&self) -> bool {
        self.stray
    }

    /// Announces a further chunk.
    pub(super) fn next_chunk(&mut self, chunk_len: u64, is_last: bool) {
        if let Form::Chunks { left, last, .. } = &mut self.form {
            (*left, *last) = (chunk_len, is_last);
        }
    }

    /// From now on the content is thrown away. Whether it was taken until now.
    pub(super) fn refuse(&mut self, reply: Reply) -> bool {
        let was_taken = self.fate == Fate::Taken;
        if was_taken {
            self.fate = Fate::Refused(reply);
        }
        was_taken
    }

    /// What the peer is to be told at the end, where the content was refused.
    pub(super) fn refusal(&self) -> Option<&Reply> {
        match &self.fate {
            Fate::Taken => None,
            Fate::Refused(reply) => Some(reply),
        }
    }

    pub(super) fn summary(&self) -> Summary {
        Summary { len: self.len, eight_bit: self.eight_bit }
    }

    /// Whether so much came beyond the limit that its end is not waited for.
    pub(super) fn is_endless(&self) -> bool {
        self.len > self.len_max.saturating_mul(2)
    }

    /// Takes what it can from `input`. To be called until it says `Nothing`, also without input.
    pub(super) fn step(&mut self, input: &mut Bytes) -> Step {
        if let Some(end) = self.reached.take() {
            return end;
        }
        let (piece, end) = self.unframe(input);
        self.len = self.len.saturating_add(piece.len() as u64);
        self.eight_bit |= !piece.is_ascii();
        if self.fate == Fate::Taken {
            self.hops.count(&piece);
            let objection = if self.has_bare_line_end(end == Some(Step::End)) {
                Some(replies::CONTENT_LINE_ENDS)
            } else if self.len > self.len_max {
                Some(replies::TOO_BIG)
            } else if self.hops.is_loop() {
                Some(replies::MAIL_LOOP)
            } else {
                None
            };
            if let Some(reply) = objection {
                self.fate = Fate::Refused(reply);
                self.reached = end;
                return Step::Void;
            }
        }
        if self.fate == Fate::Taken && !piece.is_empty() {
            self.reached = end;
            return Step::Piece(piece);
        }
        end.unwrap_or(Step::Nothing)
    }

    /// The content in `input` without its framing, and the end that was reached with it.
    fn unframe(&mut self, input: &mut Bytes) -> (Bytes, Option<Step>) {
        match &mut self.form {
            Form::Data(decoder) => {
                let (piece, ended) = decoder.decode(input);
                (piece, ended.then_some(Step::End))
            }
            Form::Chunks { lines, left, last } => {
                let here = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                let piece = input.split_to(here);
                lines.skip(&piece);
                *left -= here as u64;
                let end = if *last { Step::End } else { Step::ChunkEnd };
                (piece, (*left == 0).then_some(end))
            }
        }
    }

    fn has_bare_line_end(&self, at_end: bool) -> bool {
        match &self.form {
            Form::Data(decoder) => decoder.has_bare_line_end(),
            Form::Chunks { lines, .. } => lines.has_bare() || at_end && lines.after_cr(),
        }
    }
}
