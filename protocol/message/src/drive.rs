//! The machines of this crate driven over `std::io`: what the commands, benchmarks and tests share. Servers drive the
//! machines themselves, over their own sockets and disks.

use std::collections::BTreeMap;
use std::io::{self, Cursor, Read, Write};

use lighter_protocol::BlobId;

use crate::detach::{Detacher, Event, Summary};
use crate::leaf::ReplayError;
use crate::limits::BLOCK_LEN;
use crate::manifest::{ManifestError, Totals};
use crate::original::{FromManifest, OriginalWriter};
use crate::policy::Policy;
use crate::rebuild::{FeedError, Rebuilt};
use crate::restore::{FromStub, Restorer};
use crate::stub::{StubContext, StubWriter};

/// Where blobs are put while a message is detached. One is open at a time.
pub trait BlobSink {
    /// A blob begins.
    fn start(&mut self) -> io::Result<()>;
    /// Its next bytes.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// The open blob is an orphan and a new one begins in its place. Gives the orphan's bytes, from the first.
    fn restart(&mut self) -> io::Result<Box<dyn Read>>;
    /// The open blob is whole, and this is its name.
    fn end(&mut self, id: BlobId, size: u64) -> io::Result<()>;
}

/// Why driving a machine ended early.
#[derive(Debug, thiserror::Error)]
pub enum DriveError {
    /// Reading or writing failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// What was read is no manifest.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A blob could not be read back as it was written.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// A blob is longer than it should be.
    #[error(transparent)]
    Feed(#[from] FeedError),
    /// A blob is shorter than it should be.
    #[error("blob {0} is cut off")]
    BlobCutOff(BlobId),
}

/// Detaches a message: its manifest goes to `manifest`, its attachments to `blobs`.
pub fn detach(
    policy: Policy,
    message: &mut dyn Read,
    manifest: &mut dyn Write,
    blobs: &mut dyn BlobSink,
) -> Result<Summary, DriveError> {
    let mut detacher = Detacher::new(policy);
    let mut buffer = vec![0; BLOCK_LEN];
    loop {
        let len = read(message, &mut buffer)?;
        match buffer.get(..len) {
            Some(piece) if len > 0 => detacher.push(piece),
            _ => detacher.finish(),
        }
        if let Some(summary) = drain(&mut detacher, manifest, blobs)? {
            return Ok(summary);
        }
    }
}

/// Stores what `detacher` gives, replays included, until it wants more of the message or has ended.
pub fn drain(
    detacher: &mut Detacher,
    manifest: &mut dyn Write,
    blobs: &mut dyn BlobSink,
) -> Result<Option<Summary>, DriveError> {
    let mut orphan: Option<Box<dyn Read>> = None;
    let mut buffer = Vec::new();
    loop {
        match detacher.poll_event() {
            Some(Event::Manifest(frames)) => manifest.write_all(&frames)?,
            Some(Event::BlobStart { .. }) => blobs.start()?,
            Some(Event::BlobData(bytes)) => blobs.write(&bytes)?,
            Some(Event::BlobRestart { .. }) => orphan = Some(blobs.restart()?),
            Some(Event::BlobEnd { id, size }) => blobs.end(id, size)?,
            Some(Event::End(summary)) => return Ok(Some(*summary)),
            None => {
                let Some(reader) = &mut orphan else { return Ok(None) };
                buffer.resize(BLOCK_LEN, 0);
                match read(reader.as_mut(), &mut buffer)? {
                    0 => orphan = None,
                    len => detacher.replay(buffer.get(..len).unwrap_or_default())?,
                }
            }
        }
    }
}

/// Writes the stub of a message from its manifest.
pub fn write_stub(
    manifest: &mut dyn Read,
    context: StubContext,
    totals: Totals,
    stub: &mut dyn Write,
) -> Result<(), DriveError> {
    let mut writer = StubWriter::new(context, totals);
    let mut buffer = vec![0; BLOCK_LEN];
    let mut text = Vec::new();
    loop {
        let len = read(manifest, &mut buffer)?;
        if len == 0 {
            return Ok(writer.finish()?);
        }
        writer.push(buffer.get(..len).unwrap_or_default(), &mut text)?;
        stub.write_all(&text)?;
        text.clear();
    }
}

/// Makes a message from its manifest and its blobs, which `open` opens. **What was written counts only when this gives
/// [`FromManifest::Verified`].**
pub fn write_original(
    manifest: &mut dyn Read,
    open: &mut dyn FnMut(BlobId) -> io::Result<Box<dyn Read>>,
    original: &mut dyn Write,
) -> Result<FromManifest, DriveError> {
    let mut writer = OriginalWriter::new();
    let mut buffer = vec![0; BLOCK_LEN];
    let mut blob = None;
    let mut end = None;
    loop {
        match writer.poll_event()? {
            Some(Rebuilt::Data(bytes)) => original.write_all(&bytes)?,
            Some(Rebuilt::NeedBlob { id, size }) => blob = OpenBlob::new(id, size, open)?,
            Some(Rebuilt::End(outcome)) => end = Some(outcome),
            None => match &mut blob {
                Some(open) => {
                    writer.feed(open.next(&mut buffer)?)?;
                    blob = blob.filter(|blob| blob.left > 0);
                }
                None => match read(manifest, &mut buffer)? {
                    0 => {
                        writer.finish()?;
                        return end.ok_or(DriveError::Manifest(ManifestError::CutOff));
                    }
                    len => writer.push(buffer.get(..len).unwrap_or_default()),
                },
            },
        }
    }
}

/// Makes a message from its stub and its blobs, which `open` opens. **What was written counts only when this gives
/// [`FromStub::Verified`]** (or [`FromStub::NotAStub`]: then it is what was read).
pub fn restore(
    stub: &mut dyn Read,
    open: &mut dyn FnMut(BlobId) -> io::Result<Box<dyn Read>>,
    original: &mut dyn Write,
) -> Result<FromStub, DriveError> {
    let mut restorer = Restorer::new();
    let mut buffer = vec![0; BLOCK_LEN];
    let mut blob = None;
    loop {
        match restorer.poll_event() {
            Some(Rebuilt::Data(bytes)) => original.write_all(&bytes)?,
            Some(Rebuilt::NeedBlob { id, size }) => blob = OpenBlob::new(id, size, open)?,
            Some(Rebuilt::End(outcome)) => return Ok(outcome),
            None => match &mut blob {
                Some(open) => {
                    restorer.feed(open.next(&mut buffer)?)?;
                    blob = blob.filter(|blob| blob.left > 0);
                }
                None => match read(stub, &mut buffer)? {
                    0 => restorer.finish(),
                    len => restorer.push(buffer.get(..len).unwrap_or_default()),
                },
            },
        }
    }
}

/// A blob on its way into a machine.
struct OpenBlob {
    id: BlobId,
    left: u64,
    reader: Box<dyn Read>,
}

impl OpenBlob {
    /// Opens a blob; `None` for an empty one, which no machine waits for.
    fn new(
        id: BlobId,
        size: u64,
        open: &mut dyn FnMut(BlobId) -> io::Result<Box<dyn Read>>,
    ) -> Result<Option<Self>, DriveError> {
        if size == 0 {
            return Ok(None);
        }
        Ok(Some(Self { id, left: size, reader: open(id)? }))
    }

    /// Its next bytes, never none.
    fn next<'a>(&mut self, buffer: &'a mut [u8]) -> Result<&'a [u8], DriveError> {
        let len = read(self.reader.as_mut(), buffer)?;
        let piece =
            buffer.get(..len).filter(|piece| !piece.is_empty()).ok_or(DriveError::BlobCutOff(self.id))?;
        self.left = self.left.checked_sub(len as u64).ok_or(FeedError::TooLong)?;
        Ok(piece)
    }
}

/// Reads what there is, going on where a signal came between.
fn read(source: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match source.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Blobs in memory: for tests, benchmarks and small tools.
#[derive(Clone, Debug, Default)]
pub struct MemoryBlobs {
    blobs: BTreeMap<BlobId, Vec<u8>>,
    open: Vec<u8>,
}

impl MemoryBlobs {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A blob's bytes.
    pub fn get(&self, id: BlobId) -> Option<&[u8]> {
        self.blobs.get(&id).map(Vec::as_slice)
    }

    /// A reader over a blob.
    pub fn open(&self, id: BlobId) -> io::Result<Box<dyn Read>> {
        match self.blobs.get(&id) {
            Some(bytes) => Ok(Box::new(Cursor::new(bytes.clone()))),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

impl BlobSink for MemoryBlobs {
    fn start(&mut self) -> io::Result<()> {
        self.open.clear();
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.open.extend_from_slice(bytes);
        Ok(())
    }

    fn restart(&mut self) -> io::Result<Box<dyn Read>> {
        Ok(Box::new(Cursor::new(std::mem::take(&mut self.open))))
    }

    fn end(&mut self, id: BlobId, _size: u64) -> io::Result<()> {
        self.blobs.insert(id, std::mem::take(&mut self.open));
        Ok(())
    }
}

/// Throws blobs away: for measuring, and for asking what would be detached. A blob that has to start again is an error.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoBlobs;

impl BlobSink for NoBlobs {
    fn start(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn write(&mut self, _bytes: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn restart(&mut self) -> io::Result<Box<dyn Read>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn end(&mut self, _id: BlobId, _size: u64) -> io::Result<()> {
        Ok(())
    }
}
