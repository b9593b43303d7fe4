//! What the next hop gets, made from the stored manifest piece by piece: the stub, or the original.

use std::collections::VecDeque;
use std::io;

use bytes::Bytes;
use lighter_catalog::Message;
use lighter_message::{FromManifest, OriginalWriter, Rebuilt, StubContext, StubWriter};
use lighter_protocol::BlobId;
use lighter_storage::{Array, BlobReader, StoredBlob};

use crate::next_hop::Body;

/// The message for one recipient or several, with the fields on top that the relay adds.
pub(super) enum MessageBody {
    /// With placeholders where the detached parts stood.
    Stub(Box<StubBody>),
    /// As it came in.
    Whole(Box<WholeBody>),
}

impl Body for MessageBody {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        match self {
            Self::Stub(stub) => stub.next().await,
            Self::Whole(whole) => whole.next().await,
        }
    }
}

/// One recipient's stub.
pub(super) struct StubBody {
    trace: Option<Bytes>,
    manifest: BlobReader,
    writer: StubWriter,
    ended: bool,
}

impl StubBody {
    pub(super) fn new(array: &Array, message: &Message, context: StubContext) -> Self {
        Self {
            trace: Some(Bytes::from(message.trace.clone().into_bytes())),
            manifest: read_whole(array, &message.manifest),
            writer: StubWriter::new(context, message.original),
            ended: false,
        }
    }

    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        if let Some(trace) = self.trace.take() {
            return Ok(Some(trace));
        }
        let mut stub = Vec::new();
        while stub.is_empty() && !self.ended {
            match self.manifest.next().await? {
                Some(piece) => self.writer.push(&piece, &mut stub).map_err(damaged)?,
                None => {
                    self.writer.finish().map_err(damaged)?;
                    self.ended = true;
                }
            }
        }
        Ok((!stub.is_empty()).then(|| stub.into()))
    }
}

/// The original, proved against its hash before its last piece goes out: where it does not come back as it was, nothing
/// of it is delivered.
pub(super) struct WholeBody {
    trace: Option<Bytes>,
    array: Array,
    manifest: BlobReader,
    parts: Vec<StoredBlob>,
    writer: OriginalWriter,
    /// The part that is being put back.
    part: Option<BlobReader>,
    /// The piece that waits for the next one: it goes out only when that is there, or the proof.
    held: VecDeque<Bytes>,
    proved: bool,
}

impl WholeBody {
    pub(super) fn new(array: &Array, message: &Message) -> Self {
        Self {
            trace: Some(Bytes::from(message.trace.clone().into_bytes())),
            array: array.clone(),
            manifest: read_whole(array, &message.manifest),
            parts: message.parts.iter().map(|part| part.blob.clone()).collect(),
            writer: OriginalWriter::new(),
            part: None,
            held: VecDeque::new(),
            proved: false,
        }
    }

    pub(super) async fn next(&mut self) -> io::Result<Option<Bytes>> {
        if let Some(trace) = self.trace.take() {
            return Ok(Some(trace));
        }
        while !self.proved && self.held.len() < 2 {
            self.step().await?;
        }
        Ok(self.held.pop_front())
    }

    async fn step(&mut self) -> io::Result<()> {
        match self.writer.poll_event().map_err(damaged)? {
            Some(Rebuilt::Data(bytes)) => self.held.push_back(bytes),
            Some(Rebuilt::NeedBlob { id, size }) if size > 0 => self.part = Some(self.open(id)?),
            Some(Rebuilt::NeedBlob { .. }) => {}
            Some(Rebuilt::End(FromManifest::Verified(_))) => self.proved = true,
            Some(Rebuilt::End(_)) => return Err(damaged("the message does not come back as it was")),
            None => self.feed().await?,
        }
        Ok(())
    }

    async fn feed(&mut self) -> io::Result<()> {
        if let Some(part) = &mut self.part {
            match part.next().await? {
                Some(piece) => self.writer.feed(&piece).map_err(damaged)?,
                None => self.part = None,
            }
            return Ok(());
        }
        match self.manifest.next().await? {
            Some(piece) => self.writer.push(&piece),
            None => self.writer.finish().map_err(damaged)?,
        }
        Ok(())
    }

    fn open(&self, id: BlobId) -> io::Result<BlobReader> {
        let part = self.parts.iter().find(|part| part.id == id);
        part.map(|part| read_whole(&self.array, part))
            .ok_or_else(|| damaged("a part that the message does not name"))
    }
}

fn read_whole(array: &Array, blob: &StoredBlob) -> BlobReader {
    array.read_blob(blob, 0..blob.size)
}

/// What was stored is not what was written: a fault of ours, or of a disk that no check saw.
fn damaged(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
