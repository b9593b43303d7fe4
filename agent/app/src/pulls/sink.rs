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

/// One stream's way into a partial blob.
#[derive(Debug)]
pub(super) struct Sink {
    pub(super) stream: StreamId,
    pub(super) partial: Arc<Partial>,
    /// Set while a checkpoint runs; shared by the streams of one blob.
    pub(super) checkpointing: Arc<AtomicBool>,
    pub(super) events: mpsc::Sender<Event>,
}

impl VerifiedSink for Sink {
    async fn write(&self, piece: Piece) -> io::Result<()> {
        let range = piece.offset..piece.offset + piece.bytes.len() as u64;
        let partial = Arc::clone(&self.partial);
        let written = spawn_blocking(move || {
            partial.write_pairs(piece.parents.iter().map(|parent| (parent.node, parent.pair)))?;
            partial.write_data(piece.offset, &piece.bytes)
        });
        let is_due = written.await.map_err(io::Error::other)?.map_err(io::Error::other)?;
        if is_due {
            self.checkpoint();
        }
        // Where the pull's task is gone, so is the need for this stream.
        let told = self.events.send(Event::Verified { stream: self.stream, range }).await;
        told.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// One stream's way into a small blob that nothing is here of: its files are made with its first bytes, in one go.
#[derive(Debug)]
pub(super) struct SmallSink {
    pub(super) stream: StreamId,
    pub(super) store: Store,
    pub(super) blob: BlobId,
    pub(super) size: u64,
    /// What was made.
    pub(super) made: Arc<OnceLock<Arc<Partial>>>,
    pub(super) events: mpsc::Sender<Event>,
}

impl VerifiedSink for SmallSink {
    async fn write(&self, piece: Piece) -> io::Result<()> {
        let range = piece.offset..piece.offset + piece.bytes.len() as u64;
        let (store, blob, size, made) = (self.store.clone(), self.blob, self.size, Arc::clone(&self.made));
        let written = spawn_blocking(move || {
            let partial = match made.get() {
                Some(partial) => partial,
                None => match store.want(blob, size, UnixTime::now())? {
                    Wanted::Partial(partial) => made.get_or_init(|| partial),
                    // Another delivery brought it in the meantime.
                    Wanted::Held => return Ok(()),
                },
            };
            partial.write_pairs(piece.parents.iter().map(|parent| (parent.node, parent.pair)))?;
            partial.write_data(piece.offset, &piece.bytes).map(drop)
        });
        written.await.map_err(io::Error::other)?.map_err(|error: StoreError| io::Error::other(error))?;
        let told = self.events.send(Event::Verified { stream: self.stream, range }).await;
        told.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// The stream's way of a blob that comes in one piece, and lies in a file with others.
#[derive(Debug)]
pub(super) struct PackSink {
    pub(super) stream: StreamId,
    pub(super) blob: BlobId,
    pub(super) packer: PackerQueue,
    pub(super) events: mpsc::Sender<Event>,
}

impl VerifiedSink for PackSink {
    async fn write(&self, piece: Piece) -> io::Result<()> {
        let range = piece.offset..piece.offset + piece.bytes.len() as u64;
        // A group is a piece: there is nothing before or behind it.
        self.packer.keep(vec![(self.blob, piece.bytes)]).await?;
        let told = self.events.send(Event::Verified { stream: self.stream, range }).await;
        told.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// Where the pieces of a blob go that is here already, for another user of a hosted store: they are verified and told of,
/// and of no further use.
#[derive(Debug)]
pub(super) struct Discard {
    pub(super) stream: StreamId,
    pub(super) events: mpsc::Sender<Event>,
}

impl VerifiedSink for Discard {
    async fn write(&self, piece: Piece) -> io::Result<()> {
        let range = piece.offset..piece.offset + piece.bytes.len() as u64;
        let told = self.events.send(Event::Verified { stream: self.stream, range }).await;
        told.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Sink {
    /// Starts a checkpoint beside the stream, unless one runs.
    fn checkpoint(&self) {
        if self.checkpointing.swap(true, Ordering::AcqRel) {
            return;
        }
        let (partial, checkpointing) = (Arc::clone(&self.partial), Arc::clone(&self.checkpointing));
        spawn_blocking(move || {
            if let Err(error) = partial.checkpoint() {
                tracing::warn!(blob = %partial.blob(), %error, "a checkpoint failed");
            }
            checkpointing.store(false, Ordering::Release);
        });
    }
}
