//! Taking the attachments out of a message while it streams by.
//!
//! [`Detacher`] is a value: bytes go in, [`Event`]s come out, and whoever drives it stores them. It holds one block of
//! input, the header block at hand, a part until it passes the threshold, and one frame of the manifest; never more,
//! whatever the message's size ([`Detacher::held`]).

use std::collections::VecDeque;

use bytes::Bytes;
use lighter_protocol::BlobId;

use crate::header::Header;
use crate::leaf::{Ended, Leaf, Next, Replay, ReplayError};
use crate::limits::{BLOCK_LEN, FACT_LEN_MAX, PARTS_MAX};
use crate::manifest::{ManifestWriter, PartEntry, Totals};
use crate::name::{sanitize_media_type, sanitize_name};
use crate::policy::Policy;
use crate::recipe::Recipe;
use crate::scan::{Scanner, Token};

/// What a [`Detacher`] gives, in the order of the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The manifest's next bytes, whole frames.
    Manifest(Bytes),
    /// A blob begins. Until it ends, nothing is added to the manifest.
    BlobStart {
        /// The part's file name, made harmless.
        name: String,
        /// The part's media type, made harmless.
        media_type: String,
    },
    /// The blob's next bytes.
    BlobData(Bytes),
    /// The part turned out not to be what it seemed: the blob starts again, as the encoded body. Nothing more comes
    /// before the `len` bytes given out since [`Event::BlobStart`] have been read back and fed to
    /// [`Detacher::replay`]; then [`Event::BlobData`] comes for a **new** blob. The first copy is an orphan.
    BlobRestart {
        /// Bytes to feed.
        len: u64,
    },
    /// The blob is whole.
    BlobEnd {
        /// The BLAKE3 hash of its bytes.
        id: BlobId,
        /// Their number.
        size: u64,
    },
    /// The message is whole; nothing follows.
    End(Box<Summary>),
}

/// What is known of a message when it has gone by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Length and hash of the original: needed for every stub.
    pub totals: Totals,
    /// What was detached, in order.
    pub parts: Vec<PartSummary>,
    /// `Subject`, decoded, at most [`FACT_LEN_MAX`] bytes, without control characters; otherwise as the message has it.
    pub subject: Option<String>,
    /// `From`, likewise.
    pub from: Option<String>,
    /// `Message-ID`, likewise.
    pub message_id: Option<String>,
}

/// A part that was detached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartSummary {
    /// The blob.
    pub blob: BlobId,
    /// Its size in bytes.
    pub size: u64,
    /// How it becomes the part's body again.
    pub recipe: Recipe,
    /// What the header block says of it.
    pub facts: PartFacts,
}

/// What a part's header block says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartFacts {
    /// The file name, made harmless: never empty.
    pub name: String,
    /// The file name as the message gave it, decoded, at most [`FACT_LEN_MAX`] bytes: hostile.
    pub given_name: Option<String>,
    /// The media type, made harmless.
    pub media_type: String,
    /// `Content-ID`, at most [`FACT_LEN_MAX`] bytes: hostile.
    pub content_id: Option<String>,
}

impl PartFacts {
    pub(crate) fn of(header: &Header) -> Self {
        let given_name = header.file_name().map(|mut name| {
            name.truncate(name.floor_char_boundary(FACT_LEN_MAX));
            name
        });
        Self {
            name: sanitize_name(header.file_name().as_deref().unwrap_or_default()),
            given_name,
            media_type: sanitize_media_type(header.media_type()),
            content_id: header.content_id.clone(),
        }
    }
}

/// Takes the attachments out of one message.
///
/// [`push`](Self::push) pieces of any length (64 KiB and more are fastest) and drain [`poll_event`](Self::poll_event)
/// after each; call [`finish`](Self::finish) behind the last, and drain up to [`Event::End`]. What is held beside the
/// constants of [`crate::limits`] is what was pushed and not drained.
#[derive(Debug)]
pub struct Detacher {
    policy: Policy,
    input: Input,
    scanner: Scanner,
    leaf: Option<Leaf>,
    replay: Option<Box<Replay>>,
    out: Output,
    ended: bool,
}

impl Detacher {
    /// At the beginning of a message.
    pub fn new(policy: Policy) -> Self {
        Self::with_block_len(policy, BLOCK_LEN)
    }

    /// The same, with another amount gathered before work is done: only for tests, which want every cut.
    #[doc(hidden)]
    pub fn with_block_len(policy: Policy, block_len: usize) -> Self {
        Self {
            policy,
            input: Input::new(block_len),
            scanner: Scanner::new(policy),
            leaf: None,
            replay: None,
            out: Output::new(),
            ended: false,
        }
    }

    /// Takes the message's next bytes.
    pub fn push(&mut self, piece: &[u8]) {
        self.input.push(piece);
    }

    /// The message has ended.
    pub fn finish(&mut self) {
        self.input.last = true;
    }

    /// The next event, or `None` where bytes, or a replay, are needed.
    pub fn poll_event(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.out.events.pop_front() {
                return Some(event);
            }
            if self.replay.is_some() || self.ended || !self.step() {
                return None;
            }
        }
    }

    /// Feeds back bytes of the blob that was given out before [`Event::BlobRestart`], in order. With the last one, they
    /// are checked. Drain events after each piece.
    pub fn replay(&mut self, piece: &[u8]) -> Result<(), ReplayError> {
        let (Some(replay), Some(leaf)) = (&mut self.replay, &mut self.leaf) else {
            return Err(ReplayError::NotAsked);
        };
        if leaf.replay(replay, piece, &mut |event| self.out.events.push_back(event))? {
            self.replay = None;
        }
        Ok(())
    }

    /// Bytes held in buffers: for tests and budgets.
    pub fn held(&self) -> usize {
        let events = self.out.events.iter().map(|event| match event {
            Event::Manifest(bytes) | Event::BlobData(bytes) => bytes.len(),
            _ => 0,
        });
        self.input.bytes.capacity()
            + self.scanner.held()
            + self.leaf.as_ref().map_or(0, Leaf::held)
            + self.out.manifest.held()
            + events.sum::<usize>()
    }

    /// Reads one token, or ends the message; `false` where there are too few bytes.
    fn step(&mut self) -> bool {
        let Some((window, last)) = self.input.window() else { return false };
        let (consumed, token) = self.scanner.next(window, last);
        if consumed == 0 && token.is_none() {
            if last {
                self.end();
            } else {
                self.input.ready = false;
            }
            return last;
        }
        let give = &mut |event| self.out.events.push_back(event);
        let mut next = Next::Body;
        match (token, &mut self.leaf) {
            (None, _) => {}
            (Some(Token::Data(data)), Some(leaf)) => next = leaf.update(data, give),
            (Some(Token::Data(data)), None) => self.out.literal(data),
            (Some(Token::Header { block, header, is_root, may_go }), _) => {
                if is_root {
                    self.out.note_root(&header);
                }
                if may_go && self.out.parts.len() < PARTS_MAX {
                    self.leaf = Some(Leaf::new(block, &header, &self.policy));
                } else {
                    self.out.literal(&block);
                }
            }
            (Some(Token::Delimiter(line)), _) => {
                self.out.end_leaf(self.leaf.take());
                self.out.literal(line);
            }
            (Some(Token::Doubt), _) => {
                // Where the part ends is in doubt: what was not given out yet stays.
                let leaf = self.leaf.take();
                let leaf = leaf.and_then(|leaf| self.out.take_back(leaf));
                self.out.end_leaf(leaf);
            }
        }
        self.input.advance(consumed);
        match next {
            Next::Body => {}
            Next::Literal => self.leaf = self.leaf.take().and_then(|leaf| self.out.take_back(leaf)),
            Next::Replay(replay) => self.replay = Some(replay),
        }
        true
    }

    fn end(&mut self) {
        self.out.end_leaf(self.leaf.take());
        let (length, hash) = (self.input.length, *self.input.hasher.finalize().as_bytes());
        self.out.end(length, hash);
        self.ended = true;
    }
}

/// The message's bytes that are not read yet.
#[derive(Debug)]
struct Input {
    bytes: Vec<u8>,
    /// Where the first unread byte stands in `bytes`.
    start: usize,
    /// Where the first byte stands that was not hashed.
    unhashed: usize,
    block_len: usize,
    /// Nothing will follow.
    last: bool,
    /// Enough was gathered, and not all of it was read.
    ready: bool,
    hasher: blake3::Hasher,
    length: u64,
}

impl Input {
    fn new(block_len: usize) -> Self {
        Self {
            bytes: Vec::new(),
            start: 0,
            unhashed: 0,
            block_len: block_len.max(1),
            last: false,
            ready: false,
            hasher: blake3::Hasher::new(),
            length: 0,
        }
    }

    fn push(&mut self, piece: &[u8]) {
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.unhashed -= self.start;
            self.start = 0;
        }
        self.bytes.extend_from_slice(piece);
    }

    /// The unread bytes, at most a block of them, and whether they are the message's last; nothing where it is worth
    /// waiting for more.
    fn window(&mut self) -> Option<(&[u8], bool)> {
        self.ready |= self.last || self.bytes.len() - self.start >= self.block_len;
        if !self.ready {
            return None;
        }
        if self.unhashed < self.bytes.len() {
            let fresh = self.bytes.get(self.unhashed..).unwrap_or_default();
            self.hasher.update(fresh);
            self.length += fresh.len() as u64;
            self.unhashed = self.bytes.len();
        }
        let rest = self.bytes.get(self.start..).unwrap_or_default();
        match rest.get(..BLOCK_LEN) {
            Some(window) if rest.len() > BLOCK_LEN => Some((window, false)),
            _ => Some((rest, self.last)),
        }
    }

    fn advance(&mut self, consumed: usize) {
        self.start += consumed;
    }
}

/// What has been made of the message so far.
#[derive(Debug)]
struct Output {
    events: VecDeque<Event>,
    manifest: ManifestWriter,
    parts: Vec<PartSummary>,
    subject: Option<String>,
    from: Option<String>,
    message_id: Option<String>,
}

impl Output {
    fn new() -> Self {
        Self {
            events: VecDeque::new(),
            manifest: ManifestWriter::new(),
            parts: Vec::new(),
            subject: None,
            from: None,
            message_id: None,
        }
    }

    fn note_root(&mut self, header: &Header) {
        self.subject.clone_from(&header.subject);
        self.from.clone_from(&header.from);
        self.message_id.clone_from(&header.message_id);
    }

    fn literal(&mut self, bytes: &[u8]) {
        self.manifest.literal(bytes, |frame| self.events.push_back(Event::Manifest(frame)));
    }

    /// Puts a part that is still held back into the message; gives back one that is being given out.
    fn take_back(&mut self, leaf: Leaf) -> Option<Leaf> {
        match leaf.into_literal() {
            Ok((block, raw)) => {
                self.literal(&block);
                self.literal(&raw);
                None
            }
            Err(leaf) => Some(*leaf),
        }
    }

    fn end_leaf(&mut self, leaf: Option<Leaf>) {
        let Some(leaf) = leaf else { return };
        match leaf.finish(&mut |event| self.events.push_back(event)) {
            Ended::Literal { block, raw } => {
                self.literal(&block);
                self.literal(&raw);
            }
            Ended::Part { block, facts, blob, size, recipe } => {
                let entry = PartEntry {
                    blob,
                    size,
                    recipe: recipe.clone(),
                    name: facts.name.clone(),
                    media_type: facts.media_type.clone(),
                    header: block,
                };
                self.manifest.part(&entry, |frame| self.events.push_back(Event::Manifest(frame)));
                self.parts.push(PartSummary { blob, size, recipe, facts });
            }
        }
    }

    fn end(&mut self, length: u64, hash: [u8; 32]) {
        let parts = u32::try_from(self.parts.len()).unwrap_or(u32::MAX);
        let totals = Totals { length, hash, parts, line_ends: self.manifest.line_ends() };
        self.manifest.end(&totals, |frame| self.events.push_back(Event::Manifest(frame)));
        self.events.push_back(Event::End(Box::new(Summary {
            totals,
            parts: std::mem::take(&mut self.parts),
            subject: self.subject.take(),
            from: self.from.take(),
            message_id: self.message_id.take(),
        })));
    }
}
