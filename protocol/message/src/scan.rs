//! The structure of a message, read as it streams by: where header blocks, bodies and delimiters are.
//!
//! Nothing is kept but the header block at hand and the boundaries that are open. Where two readings of the same bytes
//! are possible, the scanner says [`Token::Doubt`] and from there on takes everything as data (unless policy has it
//! choose a reading): what a stub shows must not depend on who reads it.

use crate::header::{Header, strip_line_end};
use crate::limits::{
    BOUNDARY_LEN_MAX, DELIMITER_LINE_LEN_MAX, DEPTH_MAX, ENTITIES_MAX, HEADER_BLOCK_LEN_MAX,
    PART_HEADER_LEN_MAX,
};
use crate::line_end::LineEnd;
use crate::policy::{Parent, Policy, Standing};

/// What comes next in the message.
#[derive(Debug)]
pub(crate) enum Token<'a> {
    /// A header block has ended (or was given up: then `header` says nothing).
    Header {
        /// The bytes, the blank line included.
        block: Vec<u8>,
        /// What they say.
        header: Box<Header>,
        /// Whether it is the message's own.
        is_root: bool,
        /// Whether a leaf part's body follows that policy lets go.
        may_go: bool,
    },
    /// Bytes of a body, a preamble, an epilogue.
    Data(&'a [u8]),
    /// A delimiter line: what came before it has ended.
    Delimiter(&'a [u8]),
    /// From here on readers differ: what came before has ended, as far as anyone can tell. Only data follows.
    Doubt,
}

/// Reads a message's structure.
#[derive(Debug)]
pub(crate) struct Scanner {
    policy: Policy,
    /// The multiparts that we are in, the outermost first.
    levels: Vec<Level>,
    state: State,
    /// Header blocks begun.
    entities: usize,
    /// How lines end that make up the structure: header lines and delimiters.
    line_end: Option<LineEnd>,
}

#[derive(Debug)]
enum State {
    Header(Gathering),
    /// In data. `before` is the byte before the next one.
    Data {
        before: u8,
    },
    /// Behind what is read: all the rest is data.
    Rest,
}

/// A header block on its way.
#[derive(Debug)]
struct Gathering {
    block: Vec<u8>,
    /// Whether the next byte begins a line.
    at_line_start: bool,
    standing: Standing,
    depth: usize,
}

#[derive(Debug)]
struct Level {
    boundary: Vec<u8>,
    /// Its close delimiter was seen: this is its epilogue.
    closed: bool,
    /// Where its parts stand.
    standing: Standing,
    depth: usize,
}

/// What a line that begins with two dashes is.
enum Line {
    /// More bytes are needed to tell.
    Unknown,
    Text,
    Delimiter {
        level: usize,
        close: bool,
        len: usize,
    },
    /// A delimiter to some readers.
    Doubtful,
}

impl Gathering {
    fn new(standing: Standing, depth: usize) -> Self {
        Self { block: Vec::new(), at_line_start: true, standing, depth }
    }
}

impl Scanner {
    pub(crate) fn new(policy: Policy) -> Self {
        Self {
            policy,
            levels: Vec::new(),
            state: State::Header(Gathering::new(Standing::default(), 0)),
            entities: 1,
            line_end: None,
        }
    }

    /// Reads on in `rest`, what follows everything consumed so far; `last` says that nothing will follow it. Gives the
    /// number of bytes consumed and what they are; nothing consumed and no token means that more bytes are needed.
    ///
    /// With [`DELIMITER_LINE_LEN_MAX`] bytes at hand it always gets on.
    pub(crate) fn next<'a>(&mut self, rest: &'a [u8], last: bool) -> (usize, Option<Token<'a>>) {
        match self.state {
            State::Header(_) => self.next_in_header(rest, last),
            State::Data { before } => self.next_in_data(rest, last, before),
            State::Rest if rest.is_empty() => (0, None),
            State::Rest => (rest.len(), Some(Token::Data(rest))),
        }
    }

    /// Bytes held of the header block at hand.
    pub(crate) fn held(&self) -> usize {
        match &self.state {
            State::Header(gathering) => gathering.block.capacity(),
            State::Data { .. } | State::Rest => 0,
        }
    }

    fn next_in_header<'a>(&mut self, rest: &'a [u8], last: bool) -> (usize, Option<Token<'a>>) {
        let mut consumed = 0;
        loop {
            let rest = rest.get(consumed..).unwrap_or_default();
            let State::Header(gathering) = &self.state else { return (consumed, None) };
            if rest.is_empty() {
                let cut_off = last && !gathering.block.is_empty();
                return (consumed, if cut_off { self.give_up_header(State::Rest) } else { None });
            }
            if gathering.at_line_start && rest.first() == Some(&b'-') {
                match self.line(rest, last) {
                    Line::Unknown => return (consumed, None),
                    Line::Text => {}
                    // A header block that ends in a delimiter: an empty body to some readers, a bad field to others.
                    Line::Delimiter { .. } if self.policy.ambiguous => {
                        return (consumed, self.give_up_header(State::Data { before: b'\n' }));
                    }
                    Line::Delimiter { .. } | Line::Doubtful => {
                        return (consumed, self.give_up_header(State::Rest));
                    }
                }
            }
            let State::Header(gathering) = &mut self.state else { return (consumed, None) };
            let end = memchr::memchr(b'\n', rest).map_or(rest.len(), |at| at + 1);
            let (line, _) = rest.split_at(end);
            if gathering.block.len() + line.len() > HEADER_BLOCK_LEN_MAX {
                return (consumed, self.give_up_header(State::Rest));
            }
            gathering.block.extend_from_slice(line);
            consumed += line.len();
            let is_blank = gathering.at_line_start && matches!(line, b"\n" | b"\r\n");
            // A CR LF may come in two pieces.
            let is_blank = is_blank || (line == b"\n" && is_blank_line_at_end(&gathering.block));
            gathering.at_line_start = line.ends_with(b"\n");
            if is_blank {
                return (consumed, self.header_ended());
            }
        }
    }

    /// The block at hand is nothing that we read; on with `state`.
    fn give_up_header(&mut self, state: State) -> Option<Token<'static>> {
        let is_root = self.entities == 1;
        match std::mem::replace(&mut self.state, state) {
            State::Header(Gathering { block, .. }) => {
                Some(Token::Header { block, header: Box::default(), is_root, may_go: false })
            }
            State::Data { .. } | State::Rest => None,
        }
    }

    /// The blank line was read: decides what follows.
    fn header_ended(&mut self) -> Option<Token<'static>> {
        let is_root = self.entities == 1;
        let State::Header(Gathering { block, standing, depth, .. }) =
            std::mem::replace(&mut self.state, State::Data { before: b'\n' })
        else {
            return None;
        };
        let mut header = Header::parse(&block);
        // Line ends that change within the structure: to a strict reader these lines are no lines.
        let expected = *self.line_end.get_or_insert(header.line_end.unwrap_or(LineEnd::CrLf));
        header.odd |= header.line_end != Some(expected);
        let may_go = self.enter(&header, block.len(), standing, depth, is_root);
        Some(Token::Header { block, header: Box::new(header), is_root, may_go })
    }

    /// Goes on behind a header block: into the children of a multipart or message, or through a leaf's body. Says
    /// whether the body that follows is a leaf that may go.
    fn enter(
        &mut self,
        header: &Header,
        block_len: usize,
        standing: Standing,
        depth: usize,
        is_root: bool,
    ) -> bool {
        if header.has_lighter_field || (is_root && header.begins_folded) {
            // A stub already (DESIGN §4), or somebody who would like it to be taken for one; or a message that would
            // change with the field above it.
            if is_root {
                self.state = State::Rest;
            }
            return false;
        }
        let media_type = match (&header.content_type, standing.parent) {
            (None, Parent::Digest) => "message/rfc822",
            _ => header.media_type(),
        };
        // RFC 2045 §6.4: nothing that encodes may stand on a multipart or a message.
        let plain = matches!(header.transfer_encoding.as_deref(), None | Some("7bit" | "8bit" | "binary"));
        let readable = self.policy.ambiguous || (plain && !header.odd);
        let is_message = matches!(media_type, "message/rfc822" | "message/global");
        let boundary = boundary_of(header).filter(|_| media_type.starts_with("multipart/"));
        if depth == DEPTH_MAX && (is_message || boundary.is_some()) {
            self.state = State::Rest;
            return false;
        }
        match boundary {
            Some(boundary) if readable => {
                let related = |level: &Level| {
                    level.boundary.starts_with(boundary) || boundary.starts_with(&level.boundary)
                };
                if !self.policy.ambiguous && self.levels.iter().any(related) {
                    self.state = State::Rest;
                    return false;
                }
                let standing = standing.below(media_type);
                self.levels.push(Level {
                    boundary: boundary.to_vec(),
                    closed: false,
                    standing,
                    depth: depth + 1,
                });
                return false;
            }
            _ => {}
        }
        if is_message && plain && readable {
            self.begin_entity(standing.below(media_type), depth + 1);
            return false;
        }
        self.policy.lets_go(header, standing) && block_len <= PART_HEADER_LEN_MAX
    }

    fn begin_entity(&mut self, standing: Standing, depth: usize) {
        self.entities += 1;
        self.state = if self.entities > ENTITIES_MAX {
            State::Rest
        } else {
            State::Header(Gathering::new(standing, depth))
        };
    }

    fn next_in_data<'a>(&mut self, rest: &'a [u8], last: bool, before: u8) -> (usize, Option<Token<'a>>) {
        let mut from = if self.levels.is_empty() { rest.len() } else { 0 };
        while let Some(dashes) = rest.get(from..).and_then(|tail| memchr::memmem::find(tail, b"--")) {
            let at = from + dashes;
            let ahead = rest.get(at..).unwrap_or_default();
            let previous = at.checked_sub(1).map_or(Some(&before), |at| rest.get(at));
            // A line may begin behind a CR alone, to some readers.
            if matches!(previous, Some(b'\n' | b'\r')) {
                let after_cr = previous == Some(&b'\r');
                match self.line(ahead, last) {
                    Line::Text => {}
                    Line::Delimiter { .. } | Line::Doubtful if after_cr && self.policy.ambiguous => {}
                    _ if at > 0 => return self.data(rest, at),
                    Line::Unknown => return (0, None),
                    Line::Delimiter { level, close, len } if !after_cr => {
                        return self.delimiter(rest.get(..len).unwrap_or(rest), level, close);
                    }
                    Line::Delimiter { .. } | Line::Doubtful => return self.doubt(),
                }
            }
            from = at + ahead.iter().take_while(|byte| **byte == b'-').count();
        }
        // One dash at the end may be the first of two.
        let begins_line =
            |at: Option<usize>| matches!(at.map_or(Some(&before), |at| rest.get(at)), Some(b'\n' | b'\r'));
        let keep = usize::from(!last && rest.last() == Some(&b'-') && begins_line(rest.len().checked_sub(2)));
        self.data(rest, rest.len() - keep)
    }

    fn data<'a>(&mut self, rest: &'a [u8], len: usize) -> (usize, Option<Token<'a>>) {
        let Some((data, before)) = rest.get(..len).and_then(|data| Some((data, *data.last()?))) else {
            return (0, None);
        };
        self.state = State::Data { before };
        (len, Some(Token::Data(data)))
    }

    fn doubt<'a>(&mut self) -> (usize, Option<Token<'a>>) {
        self.state = State::Rest;
        (0, Some(Token::Doubt))
    }

    /// A delimiter of `level`: it ends every multipart within (RFC 2046 §5.1.2).
    fn delimiter<'a>(&mut self, line: &'a [u8], level: usize, close: bool) -> (usize, Option<Token<'a>>) {
        let unended = self.levels.iter().skip(level + 1).any(|inner| !inner.closed);
        let in_epilogue = self.levels.get(level).is_some_and(|level| level.closed);
        if (unended || in_epilogue) && !self.policy.ambiguous {
            return self.doubt();
        }
        self.levels.truncate(level + 1);
        let Some(level) = self.levels.last_mut() else { return (0, None) };
        level.closed = close;
        let (standing, depth) = (level.standing, level.depth);
        if close {
            self.state = State::Data { before: b'\n' };
        } else {
            self.begin_entity(standing, depth);
        }
        (line.len(), Some(Token::Delimiter(line)))
    }

    /// Tells what the line is that begins `rest`.
    fn line(&self, rest: &[u8], last: bool) -> Line {
        if !rest.starts_with(b"--") {
            return if !last && b"--".starts_with(rest) { Line::Unknown } else { Line::Text };
        }
        let window = rest.get(..DELIMITER_LINE_LEN_MAX).unwrap_or(rest);
        let end = memchr::memchr(b'\n', window).map(|at| at + 1);
        if end.is_none() && !last && window.len() < DELIMITER_LINE_LEN_MAX {
            return Line::Unknown;
        }
        let line = window.get(..end.unwrap_or(window.len())).unwrap_or(window);
        // The whole line is at hand, and it is one for every reader.
        let is_whole = end.is_some() || (last && window.len() == rest.len());
        let is_strict = is_whole && LineEnd::of(line).is_none_or(|end| self.line_end == Some(end));
        let text = strip_line_end(line).get(2..).unwrap_or_default();
        for (level, open) in self.levels.iter().enumerate().rev() {
            let Some(after) = text.strip_prefix(open.boundary.as_slice()) else { continue };
            // RFC 2046 §5.1.1 allows blanks behind a delimiter, and has readers take any line that begins with one for
            // one. Not all of them do.
            let after = if self.policy.ambiguous { after.trim_ascii_end() } else { after };
            match after {
                b"" | b"--" if is_strict || (is_whole && self.policy.ambiguous) => {
                    return Line::Delimiter { level, close: !after.is_empty(), len: line.len() };
                }
                _ if !self.policy.ambiguous => return Line::Doubtful,
                _ => {}
            }
        }
        Line::Text
    }
}

/// The boundary that every reader takes: 1 to 70 characters, no blank at the end (RFC 2046 §5.1.1).
fn boundary_of(header: &Header) -> Option<&[u8]> {
    let boundary = header.content_type.as_ref()?.raw("boundary")?;
    let valid = (1..=BOUNDARY_LEN_MAX).contains(&boundary.len())
        && !boundary.ends_with(b" ")
        && boundary.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ');
    valid.then_some(boundary)
}

fn is_blank_line_at_end(block: &[u8]) -> bool {
    block == b"\r\n" || block.ends_with(b"\n\r\n")
}
