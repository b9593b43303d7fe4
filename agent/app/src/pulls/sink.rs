//! Where a pull's verified pieces go: into the store's partial blob, with a checkpoint every few MiB beside the stream; or, where
//! the blob is one piece, into a file with others.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use lighter_protocol::pull::StreamId;
use lighter_protocol::{BlobId, UnixTime};
use lighter_store::{Partial, Store, StoreError, Wanted};
use lighter_transport::pull::{Piece, VerifiedSink};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::driver::Event;
use super::packer::PackerQueue;

/// Takes what one stream brings, and tells of it.
#[derive(Debug)]
pub(super) struct Sink {
    pub(super) stream: StreamId,
    pub(super) way: Way,
    pub(super) events: mpsc::Sender<Event>,
}

/// Where it goes.
#[derive(Debug)]
pub(super) enum Way {
    /// Into its blob's files. The flag is set while a checkpoint runs, and shared by the streams of one blob.
    Partial(Arc<Partial>, Arc<AtomicBool>),
    /// Nothing of the blob is here, and it is small: its files are made with its first bytes, in one go.
    Unmade {
        store: Store,
        blob: BlobId,
        size: u64,
        /// What was made.
        made: Arc<OnceLock<Arc<Partial>>>,
    },
    /// The blob comes in one piece, and lies in a file with others.
    Packed(BlobId, PackerQueue),
    /// Nowhere: another user of this hosted store has the blob here already, and whoever sends it is not to notice.
    Nowhere,
}

impl VerifiedSink for Sink {
    async fn write(&self, piece: Piece) -> io::Result<()> {
        let range = piece.offset..piece.offset + piece.bytes.len() as u64;
        match &self.way {
            Way::Partial(partial, checkpointing) => {
                let to = Arc::clone(partial);
                if blocking(move || write_to(&to, &piece)).await? {
                    checkpoint(partial, checkpointing);
                }
            }
            Way::Unmade { store, blob, size, made } => {
                let (store, blob, size, made) = (store.clone(), *blob, *size, Arc::clone(made));
                let written = blocking(move || {
                    let partial = match made.get() {
                        Some(partial) => partial,
                        None => match store.want(blob, size, UnixTime::now())? {
                            Wanted::Partial(partial) => made.get_or_init(|| partial),
                            // Another delivery brought it in the meantime.
                            Wanted::Held => return Ok(()),
                        },
                    };
                    write_to(partial, &piece).map(drop)
                });
                written.await?;
            }
            // A group is a piece: there is nothing before or behind it.
            Way::Packed(blob, packer) => packer.keep(vec![(*blob, piece.bytes)]).await?,
            Way::Nowhere => {}
        }
        // Where the pull's task is gone, so is the need for this stream.
        let told = self.events.send(Event::Verified { stream: self.stream, range }).await;
        told.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// Writes a piece; whether a checkpoint is due.
fn write_to(partial: &Partial, piece: &Piece) -> Result<bool, StoreError> {
    partial.write_pairs(piece.parents.iter().map(|parent| (parent.node, parent.pair)))?;
    partial.write_data(piece.offset, &piece.bytes)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> io::Result<T> {
    spawn_blocking(work).await.map_err(io::Error::other)?.map_err(io::Error::other)
}

/// Starts a checkpoint beside the stream, unless one runs.
fn checkpoint(partial: &Arc<Partial>, checkpointing: &Arc<AtomicBool>) {
    if checkpointing.swap(true, Ordering::AcqRel) {
        return;
    }
    let (partial, checkpointing) = (Arc::clone(partial), Arc::clone(checkpointing));
    spawn_blocking(move || {
        if let Err(error) = partial.checkpoint() {
            tracing::warn!(blob = %partial.blob(), %error, "a checkpoint failed");
        }
        checkpointing.store(false, Ordering::Release);
    });
}
