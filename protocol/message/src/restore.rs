//! From a stub and its blobs back to the original message, on the recipient's side.
//!
//! A [`Restorer`] does not read MIME: it knows a placeholder by the field that it begins with and the mark that it ends
//! with, both carrying the delivery's 128 random bits, drawn after the message was taken in: no message can hold them
//! beforehand. What a server on the way changed either does no harm (fields above `Lighter-Message`, folding, all line
//! ends changed alike), or the hash at the end says so: never wrong bytes that pass for right ones.

use bytes::{Buf, Bytes, BytesMut};
use memchr::memmem;

use crate::fields::{MESSAGE_FIELD, MessageField, PART_FIELD, PartField};
use crate::header::{split_field, strip_line_end};
use crate::limits::{ABOVE_LEN_MAX, BLOCK_LEN, FIELD_LEN_MAX, PLACEHOLDER_LEN_MAX};
use crate::line_end::{LineEnd, LineEnds};
use crate::placeholder::end_mark;
use crate::rebuild::{FeedError, Rebuild, Rebuilt};

/// How a message that was taken for a stub ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromStub {
    /// Every byte below what was added on the way is as it came in: length and hash say so.
    Verified(MessageField),
    /// It is not the original: the stub was rewritten on its way, or a blob was not the one asked for. The manifest
    /// restores it ([`crate::OriginalWriter`]), behind `above`.
    Mismatch {
        /// What the stub says it is.
        field: MessageField,
        /// What stood above `Lighter-Message`: what servers on the way added.
        above: Bytes,
    },
    /// It is no stub. What came out is what went in.
    NotAStub,
}

/// Makes the original message from a stub and its blobs: [`push`](Self::push) pieces of the stub, drain
/// [`poll_event`](Self::poll_event), [`feed`](Self::feed) the blobs that it asks for, [`finish`](Self::finish).
///
/// Ask [`field`](Self::field) as soon as the first event comes, and go on only where the own store lists that delivery
/// (DESIGN §4): a stub is not to be believed by itself.
#[derive(Debug)]
pub struct Restorer {
    buffer: BytesMut,
    /// Bytes that the buffer must hold before another look at what was cut off in it: a stub that comes byte by byte
    /// is not searched anew with each.
    wanted: usize,
    last: bool,
    state: State,
    above: Bytes,
    rebuild: Rebuild<FromStub>,
    line_ends: Conversion,
}

#[derive(Debug)]
enum State {
    /// Above `Lighter-Message`. `read` bytes of the buffer are whole lines that are not it.
    Above {
        read: usize,
    },
    /// Below it.
    Message(Box<MessageField>),
    NotAStub,
    Ended,
}

impl Default for Restorer {
    fn default() -> Self {
        Self::new()
    }
}

impl Restorer {
    /// At the beginning of what may be a stub.
    pub fn new() -> Self {
        Self {
            buffer: BytesMut::new(),
            wanted: 0,
            last: false,
            state: State::Above { read: 0 },
            above: Bytes::new(),
            rebuild: Rebuild::new(),
            line_ends: Conversion::default(),
        }
    }

    /// Takes the stub's next bytes. What is held is these, what stands above the stub's first field or a placeholder,
    /// and what was not drained.
    pub fn push(&mut self, piece: &[u8]) {
        self.buffer.extend_from_slice(piece);
    }

    /// The stub has ended.
    pub fn finish(&mut self) {
        self.last = true;
    }

    /// What the stub says it is, once that was read.
    pub fn field(&self) -> Option<&MessageField> {
        match &self.state {
            State::Message(field) => Some(field),
            State::Above { .. } | State::NotAStub | State::Ended => None,
        }
    }

    /// Takes the next bytes of the blob that [`Rebuilt::NeedBlob`] asked for; with the last of them the message goes on.
    /// Pieces of 64 KiB, drained after each, keep memory flat.
    pub fn feed(&mut self, piece: &[u8]) -> Result<(), FeedError> {
        self.rebuild.feed(piece)
    }

    /// The next event, or `None` where more of the stub, or a blob, is needed.
    pub fn poll_event(&mut self) -> Option<Rebuilt<FromStub>> {
        loop {
            if let Some(event) = self.rebuild.events.pop_front() {
                return Some(event);
            }
            if self.rebuild.waits_for_blob() || (self.buffer.len() < self.wanted && !self.last) {
                return None;
            }
            self.wanted = 0;
            let went_on = match &self.state {
                State::Above { read } => self.look_for_field(*read),
                State::Message(field) => {
                    let field = **field;
                    self.go_on(&field)
                }
                State::NotAStub => self.pass_on(),
                State::Ended => false,
            };
            if !went_on {
                let unread =
                    self.buffer.len() - if let State::Above { read } = self.state { read } else { 0 };
                self.wanted = self.buffer.len() + 1 + unread / 8;
                return None;
            }
        }
    }

    /// Looks at the next line above.
    fn look_for_field(&mut self, read: usize) -> bool {
        let rest = self.buffer.get(read..).unwrap_or_default();
        let Some(line) = memchr::memchr(b'\n', rest).and_then(|end| rest.get(..=end)) else {
            return self.not_a_stub_if(self.last || rest.len() > ABOVE_LEN_MAX);
        };
        if is_field(line, MESSAGE_FIELD) {
            let Some(len) = folded_len(rest, self.last) else {
                return self.not_a_stub_if(rest.len() > FIELD_LEN_MAX);
            };
            let value = rest.get(MESSAGE_FIELD.len() + 1..len).unwrap_or_default();
            let Ok(field) = MessageField::parse(value) else { return self.not_a_stub_if(true) };
            self.line_ends = Conversion::between(LineEnd::of(line), field.totals.line_ends);
            self.above = self.buffer.split_to(read).freeze();
            self.buffer.advance(len);
            if !self.above.is_empty() {
                // Not the original's: passed on, not counted.
                self.rebuild.events.push_back(Rebuilt::Data(self.above.clone()));
            }
            self.state = State::Message(Box::new(field));
            return true;
        }
        let next = read + line.len();
        if strip_line_end(line).is_empty() || next > ABOVE_LEN_MAX {
            return self.not_a_stub_if(true);
        }
        self.state = State::Above { read: next };
        true
    }

    fn not_a_stub_if(&mut self, certain: bool) -> bool {
        if certain {
            self.state = State::NotAStub;
        }
        certain
    }

    fn pass_on(&mut self) -> bool {
        if !self.buffer.is_empty() {
            self.rebuild.events.push_back(Rebuilt::Data(self.buffer.split().freeze()));
            return true;
        }
        if self.last {
            self.state = State::Ended;
            self.rebuild.events.push_back(Rebuilt::End(FromStub::NotAStub));
        }
        self.last
    }

    /// Passes text on up to the next placeholder, or takes that out.
    fn go_on(&mut self, field: &MessageField) -> bool {
        if self.buffer.is_empty() {
            if self.last {
                self.end(field);
            }
            return self.last;
        }
        let window = self.buffer.get(..self.buffer.len().min(2 * BLOCK_LEN)).unwrap_or_default();
        let found =
            memmem::find_iter(window, PART_FIELD).find(|at| *at == 0 || window.get(at - 1) == Some(&b'\n'));
        match found {
            Some(0) if self.line_ends.at_line_start => self.placeholder(field),
            Some(0) => self.text(1),
            Some(at) => self.text(at),
            // The field's name may be cut in two.
            None if self.last || window.len() > PART_FIELD.len() => {
                let keep = if self.last && window.len() == self.buffer.len() { 0 } else { PART_FIELD.len() };
                self.text(window.len() - keep)
            }
            None => false,
        }
    }

    /// The buffer begins with a line that begins as a placeholder does.
    fn placeholder(&mut self, field: &MessageField) -> bool {
        let Some(len) = folded_len(&self.buffer, self.last) else {
            return self.buffer.len() > FIELD_LEN_MAX && self.text(1);
        };
        let part = split_field(self.buffer.get(..len).unwrap_or_default())
            .filter(|(name, _)| name.eq_ignore_ascii_case(PART_FIELD.as_bytes()))
            .and_then(|(_, value)| PartField::parse(value).ok())
            .filter(|part| part.delivery == field.delivery);
        let Some(part) = part else { return self.text(1) };
        let rest = self.buffer.get(len..).unwrap_or_default();
        let mark = end_mark(field.delivery);
        let end = memmem::find(rest, mark.as_bytes()).map(|at| at + mark.len());
        let line_end = end.and_then(|end| memchr::memchr(b'\n', rest.get(end..)?).map(|at| end + at + 1));
        let placeholder_len = match (end, line_end) {
            (Some(_), Some(line_end)) => line_end,
            (Some(_), None) if self.last => rest.len(),
            _ if self.last || rest.len() > PLACEHOLDER_LEN_MAX => return self.text(1),
            _ => return false,
        };
        self.buffer.advance(len + placeholder_len);
        self.rebuild.begin_part(part.header, part.blob, part.size, &part.recipe);
        true
    }

    /// Passes on that many bytes of the original's text.
    fn text(&mut self, len: usize) -> bool {
        let text = self.buffer.split_to(len).freeze();
        let text = self.line_ends.convert(text);
        self.rebuild.give(text);
        len > 0
    }

    fn end(&mut self, field: &MessageField) {
        let text = self.line_ends.finish();
        self.rebuild.give(text);
        let end = if self.rebuild.is(&field.totals) {
            FromStub::Verified(*field)
        } else {
            FromStub::Mismatch { field: *field, above: std::mem::take(&mut self.above) }
        };
        self.rebuild.events.push_back(Rebuilt::End(end));
        self.state = State::Ended;
    }
}

/// Gives text back the line ends that it had, where a server changed all of them alike.
#[derive(Debug, Default)]
struct Conversion {
    change: Change,
    at_line_start: bool,
    after_cr: bool,
}

#[derive(Debug, Default)]
enum Change {
    #[default]
    None,
    ToCrLf,
    ToLf,
}

impl Conversion {
    /// From what the stub's first line ends with to what the original's lines ended with.
    fn between(stub: Option<LineEnd>, original: LineEnds) -> Self {
        let change = match (stub, original) {
            (Some(LineEnd::Lf), LineEnds::CrLf) => Change::ToCrLf,
            (Some(LineEnd::CrLf), LineEnds::Lf) => Change::ToLf,
            _ => Change::None,
        };
        Self { change, at_line_start: true, after_cr: false }
    }

    fn convert(&mut self, text: Bytes) -> Bytes {
        let Some(last) = text.last() else { return text };
        self.at_line_start = *last == b'\n';
        let mut converted = Vec::new();
        match self.change {
            Change::None => return text,
            Change::ToCrLf => {
                for line in text.split_inclusive(|byte| *byte == b'\n') {
                    match line.strip_suffix(b"\n") {
                        Some(b"") if self.after_cr => converted.push(b'\n'),
                        Some(content) if !content.ends_with(b"\r") => {
                            converted.extend_from_slice(content);
                            converted.extend_from_slice(b"\r\n");
                        }
                        _ => converted.extend_from_slice(line),
                    }
                    self.after_cr = line.ends_with(b"\r");
                }
            }
            Change::ToLf => {
                for line in text.split_inclusive(|byte| *byte == b'\n') {
                    // A CR at the end of a piece waits for what follows it.
                    if self.after_cr && line != b"\n" {
                        converted.push(b'\r');
                    }
                    let content = strip_line_end(line);
                    converted.extend_from_slice(content);
                    if line.ends_with(b"\n") {
                        converted.push(b'\n');
                    }
                    self.after_cr = !line.ends_with(b"\n") && line.ends_with(b"\r");
                }
            }
        }
        Bytes::from(converted)
    }

    /// What still waited.
    fn finish(&mut self) -> Bytes {
        let waits = matches!(self.change, Change::ToLf) && std::mem::take(&mut self.after_cr);
        Bytes::from_static(if waits { b"\r" } else { b"" })
    }
}

/// Whether `line` begins with that field's name and a colon.
fn is_field(line: &[u8], name: &str) -> bool {
    line.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name.as_bytes()))
        && line.get(name.len()) == Some(&b':')
}

/// Bytes in the field at the start of `text`, its continuations included; `None` where that cannot be told yet.
fn folded_len(text: &[u8], last: bool) -> Option<usize> {
    for end in memchr::memchr_iter(b'\n', text) {
        match text.get(end + 1) {
            Some(b' ' | b'\t') => {}
            Some(_) => return Some(end + 1),
            None if last => return Some(end + 1),
            None => return None,
        }
    }
    last.then_some(text.len())
}
