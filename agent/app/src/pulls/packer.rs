//! Takes small blobs to the disk, as many at a time as have come meanwhile: one write for all of them, and no file for each.
//! Beside that, what waits is sealed whenever it is enough; the rest when the delivery is whole.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use lighter_protocol::{BlobId, UnixTime};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, spawn_blocking};

use crate::limits::{PACKER_BATCH_MAX, PULL_EVENTS_MAX};
use crate::shared::Handle;

/// The packer of one pull.
#[derive(Debug)]
pub(super) struct Packer {
    queue: mpsc::Sender<Work>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Work {
    blobs: Vec<(BlobId, Bytes)>,
    done: oneshot::Sender<io::Result<()>>,
}

/// A handle to a packer.
#[derive(Clone, Debug)]
pub(super) struct PackerQueue(mpsc::Sender<Work>);

impl Packer {
    pub(super) fn start(shared: &Handle) -> Self {
        let (queue, work) = mpsc::channel(PULL_EVENTS_MAX);
        Self { queue, task: tokio::spawn(run(shared.clone(), work)) }
    }

    /// Ends it: when this returns, it holds nothing any more.
    pub(super) async fn end(&mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }

    /// A way to hand blobs over.
    pub(super) fn queue(&self) -> PackerQueue {
        PackerQueue(self.queue.clone())
    }
}

impl Drop for Packer {
    fn drop(&mut self) {
        // What is being written is written; the next pull finds it.
        self.task.abort();
    }
}

impl PackerQueue {
    /// Hands whole, verified blobs over, and waits until they are written.
    ///
    /// # Errors
    /// What the disk says; `BrokenPipe` where the pull is over.
    pub(super) async fn keep(&self, blobs: Vec<(BlobId, Bytes)>) -> io::Result<()> {
        let (done, wait) = oneshot::channel();
        let sent = self.0.send(Work { blobs, done }).await;
        sent.map_err(|_| io::ErrorKind::BrokenPipe)?;
        wait.await.map_err(|_| io::ErrorKind::BrokenPipe)?
    }
}

async fn run(shared: Handle, mut work: mpsc::Receiver<Work>) {
    let is_sealing = Arc::new(AtomicBool::new(false));
    let mut gathered = Vec::new();
    while work.recv_many(&mut gathered, PACKER_BATCH_MAX).await > 0 {
        let (mut blobs, mut waiting) = (Vec::new(), Vec::new());
        for work in gathered.drain(..) {
            blobs.extend(work.blobs);
            waiting.push(work.done);
        }
        let kept = shared.blocking(move |store| store.keep(&blobs)).await;
        for done in waiting {
            let result = kept.as_ref().map(drop).map_err(|error| io::Error::other(error.to_string()));
            // Nobody waits where the stream was cut off.
            let _ = done.send(result);
        }
        if matches!(kept, Ok(true)) && !is_sealing.swap(true, Ordering::AcqRel) {
            let (store, is_sealing) = (shared.store.clone(), Arc::clone(&is_sealing));
            spawn_blocking(move || {
                if let Err(error) = store.seal(UnixTime::now()) {
                    tracing::warn!(%error, "small blobs did not get their place");
                }
                is_sealing.store(false, Ordering::Release);
            });
        }
    }
}
