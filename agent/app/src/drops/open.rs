//! Opening a drop that was pulled as a whole: its own blobs are taken into the store beside the sealed ones, each proved
//! by hash and size. It blocks on the disk.

use std::io::{self, Read};

use lighter_protocol::UnixTime;
use lighter_protocol::wire::OfferedBlob;
use lighter_sealing::{ENVELOPE_LEN_MAX, Envelope, OpenError, Opened, Part, SealingSecret, frames};
use lighter_store::{Hold, Incoming, Store, StoreError};

/// A drop that was opened; its blobs are durable as long as `hold` lives, and from then on as the delivery's.
#[derive(Debug)]
pub struct OpenedDrop {
    /// The message's manifest.
    pub manifest: OfferedBlob,
    /// Its attachments.
    pub blobs: Vec<OfferedBlob>,
    /// Keeps them until the delivery does.
    pub hold: Hold,
}

/// Why a drop was not opened.
#[derive(Debug, thiserror::Error)]
pub enum NotOpened {
    /// It never will be: told to the user.
    #[error("{0}")]
    Never(String),
    /// The disk did not let us; later it may.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Likewise.
    #[error("a drop's blobs cannot be read or written: {0}")]
    Io(io::Error),
}

impl From<OpenError> for NotOpened {
    fn from(error: OpenError) -> Self {
        Self::Never(format!("it cannot be opened: {error}"))
    }
}

fn changed() -> NotOpened {
    NotOpened::Never("it cannot be opened: what is in it is not what its sender sealed".to_owned())
}

/// Opens a drop whose sealed blobs are all here, with the first of the store's `secrets` that it was sealed to.
///
/// # Errors
/// [`NotOpened::Never`] where it is not for this store, or not what was sealed; else what the disk says, and nothing is
/// left behind.
pub fn open(store: &Store, secrets: &[&SealingSecret], incoming: &Incoming) -> Result<OpenedDrop, NotOpened> {
    let envelope = Envelope::parse(envelope_bytes(store, incoming)?)?;
    let open = |secret: &&SealingSecret| envelope.open(secret, &incoming.delivery, &incoming.mailbox);
    let not_others = |opened: &Result<_, OpenError>| !matches!(opened, Err(OpenError::NotForUs));
    let opened = secrets.iter().map(open).find(not_others).unwrap_or(Err(OpenError::NotForUs))?;
    let parts = &opened.table.parts;
    let fits = |(part, sealed): (&Part, &OfferedBlob)| {
        part.sealed == sealed.id && frames::sealed_size(part.size) == sealed.size
    };
    if parts.len() != incoming.blobs.len() || !parts.iter().zip(&incoming.blobs).all(fits) {
        return Err(changed());
    }
    let hold = store.hold();
    for (part, index) in parts.iter().zip(0..) {
        open_blob(store, &opened, incoming, part, index, &hold)?;
    }
    let mut blobs = opened
        .table
        .parts
        .into_iter()
        .map(|Part { id, size, name, media_type, .. }| OfferedBlob { id, size, name, media_type });
    let manifest = blobs.next().ok_or_else(changed)?;
    Ok(OpenedDrop { manifest, blobs: blobs.collect(), hold })
}

fn envelope_bytes(store: &Store, incoming: &Incoming) -> Result<Vec<u8>, NotOpened> {
    let len_max = ENVELOPE_LEN_MAX as u64;
    if incoming.manifest.size > len_max {
        return Err(OpenError::Malformed.into());
    }
    let mut bytes = Vec::new();
    let mut reader = store.open_blob(incoming.manifest.id)?.reader().take(len_max);
    reader.read_to_end(&mut bytes).map_err(NotOpened::Io)?;
    Ok(bytes)
}

/// Takes one blob into the store, opened frame by frame.
fn open_blob(
    store: &Store,
    opened: &Opened,
    incoming: &Incoming,
    part: &Part,
    index: u32,
    hold: &Hold,
) -> Result<(), NotOpened> {
    let sealed = store.open_blob(part.sealed)?.reader();
    let mut plain = frames::Opener::new(&opened.key, &incoming.delivery, index, part.size, sealed)
        .map_err(|_| changed())?;
    let mut import = store.import()?;
    // The sealed bytes were proved when they came, so what does not open was never what it is said to be.
    io::copy(&mut plain, &mut import).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => changed(),
        _ => NotOpened::Io(error),
    })?;
    let stored = import.finish(hold, UnixTime::now())?;
    if stored == (part.id, part.size) { Ok(()) } else { Err(changed()) }
}
