//! Takes a draft's attachments into the store, by the same detacher that a relay uses: manifest, stub and restore agree
//! to the byte.

use std::io::{self, Read, Write};
use std::sync::Arc;

use lighter_message::drive::{self, BlobSink, DriveError};
use lighter_message::{FromManifest, Policy, StubContext, Summary};
use lighter_protocol::wire::OfferedBlob;
use lighter_protocol::{BlobId, DeliveryId, UnixTime};
use lighter_store::{Hold, Import, Outgoing, Store, StoreError};

use super::compose::Draft;

/// A message whose attachments are in the store.
#[derive(Clone, Debug)]
pub(super) struct Spooled {
    pub(super) manifest: OfferedBlob,
    pub(super) blobs: Vec<OfferedBlob>,
    pub(super) summary: Summary,
    /// The first store may receipt everything before the last message is mailed: until then, nothing goes.
    _hold: Arc<Hold>,
}

impl Spooled {
    /// Bytes of its attachments.
    pub(super) fn bytes(&self) -> u64 {
        self.blobs.iter().fold(0, |sum, blob| sum.saturating_add(blob.size))
    }

    /// Whether a delivery is of this very message.
    pub(super) fn is_of(&self, outgoing: &Outgoing) -> bool {
        outgoing.manifest == self.manifest && outgoing.blobs == self.blobs
    }
}

/// Why a draft was not taken in.
#[derive(Debug, thiserror::Error)]
pub(super) enum SpoolError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Drive(#[from] DriveError),
}

/// Reads the draft once. Blocks on the disk.
pub(super) fn spool(store: &Store, draft: &Draft, policy: Policy) -> Result<Spooled, SpoolError> {
    let mut manifest = store.import()?;
    let hold = Arc::new(store.hold());
    let mut blobs = Blobs { store, hold: &hold, open: None };
    let summary = drive::detach(policy, &mut draft.reader(), &mut manifest, &mut blobs)?;
    let (id, size) = manifest.finish(&hold, UnixTime::now())?;
    let manifest = OfferedBlob { id, size, name: String::new(), media_type: String::new() };
    let blobs = summary
        .parts
        .iter()
        .map(|part| OfferedBlob {
            id: part.blob,
            size: part.size,
            name: part.facts.name.clone(),
            media_type: part.facts.media_type.clone(),
        })
        .collect();
    Ok(Spooled { manifest, blobs, summary, _hold: hold })
}

/// Writes one recipient's stub. Blocks on the disk.
pub(super) fn write_stub(
    store: &Store,
    spooled: &Spooled,
    delivery: DeliveryId,
    stub: &mut dyn Write,
) -> io::Result<()> {
    let mut manifest = store.open_blob(spooled.manifest.id).map_err(io::Error::other)?.reader();
    let context = StubContext { delivery, landing: None, expires: None };
    drive::write_stub(&mut manifest, context, spooled.summary.totals, stub).map_err(io::Error::other)
}

/// Writes the whole message of a manifest, from the blobs that are kept for it. Blocks on the disk.
///
/// # Errors
/// Also where it is not the message that was taken in: what was written then is none.
pub(crate) fn write_original(store: &Store, manifest: BlobId, original: &mut dyn Write) -> io::Result<()> {
    let mut manifest = store.open_blob(manifest).map_err(io::Error::other)?.reader();
    let mut open = |blob: BlobId| -> io::Result<Box<dyn Read>> {
        Ok(Box::new(store.open_blob(blob).map_err(io::Error::other)?.reader()))
    };
    match drive::write_original(&mut manifest, &mut open, original).map_err(io::Error::other)? {
        FromManifest::Verified { .. } => Ok(()),
        other => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("not the message that was taken in: {other:?}"),
        )),
    }
}

/// Takes attachments as the detacher gives them.
struct Blobs<'a> {
    store: &'a Store,
    hold: &'a Hold,
    open: Option<Import>,
}

impl BlobSink for Blobs<'_> {
    fn start(&mut self) -> io::Result<()> {
        self.open = Some(self.store.import().map_err(io::Error::other)?);
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.open.as_mut().ok_or(io::ErrorKind::BrokenPipe)?.write_all(bytes)
    }

    fn restart(&mut self) -> io::Result<Box<dyn Read>> {
        let first = self.open.replace(self.store.import().map_err(io::Error::other)?);
        Ok(Box::new(first.ok_or(io::ErrorKind::BrokenPipe)?.into_reader()))
    }

    fn end(&mut self, id: BlobId, _size: u64) -> io::Result<()> {
        let import = self.open.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let (stored, _) = import.finish(self.hold, UnixTime::now()).map_err(io::Error::other)?;
        if stored == id {
            Ok(())
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidData, "a blob of another id"))
        }
    }
}
