//! Gives blobs that are whole their final place while others are still on their way: many with one sync of the folder
//! and one transaction, and no more open files than there are pulls of blobs.

use std::sync::Arc;

use lighter_protocol::UnixTime;
use lighter_store::Partial;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::limits::{FINISH_BATCH_MAX, PULL_EVENTS_MAX};
use crate::shared::Handle;

/// The finisher of one pull.
#[derive(Debug)]
pub(super) struct Finisher {
    queue: mpsc::Sender<Work>,
    task: JoinHandle<()>,
}

enum Work {
    Finish(Arc<Partial>),
    /// Everything before it is done: say whether all of it succeeded.
    Flush(oneshot::Sender<bool>),
}

impl Finisher {
    pub(super) fn start(shared: &Handle) -> Self {
        let (queue, work) = mpsc::channel(PULL_EVENTS_MAX);
        Self { queue, task: tokio::spawn(run(shared.clone(), work)) }
    }

    /// A way to hand blobs over.
    pub(super) fn queue(&self) -> FinisherQueue {
        FinisherQueue(self.queue.clone())
    }
}

impl Drop for Finisher {
    fn drop(&mut self) {
        // What is being written is finished by its blocking thread; the next pull finds it.
        self.task.abort();
    }
}

/// A handle to a finisher.
#[derive(Clone, Debug)]
pub(super) struct FinisherQueue(mpsc::Sender<Work>);

impl FinisherQueue {
    /// Hands over a blob that is whole.
    pub(super) async fn finish(&self, partial: Arc<Partial>) {
        // A finisher that is gone has been dropped with its pull.
        let _ = self.0.send(Work::Finish(partial)).await;
    }

    /// Waits for everything that was handed over; false where some of it failed.
    pub(super) async fn flush(&self) -> bool {
        let (done, wait) = oneshot::channel();
        let _ = self.0.send(Work::Flush(done)).await;
        wait.await.unwrap_or(false)
    }
}

async fn run(shared: Handle, mut work: mpsc::Receiver<Work>) {
    let mut all_well = true;
    let mut gathered = Vec::new();
    while work.recv_many(&mut gathered, FINISH_BATCH_MAX).await > 0 {
        let mut batch = Vec::new();
        let mut flushes = Vec::new();
        for item in gathered.drain(..) {
            match item {
                Work::Finish(partial) => batch.push(partial),
                Work::Flush(done) => flushes.push(done),
            }
        }
        if !batch.is_empty() {
            let finished = shared.blocking(move |store| store.finish(&batch, UnixTime::now())).await;
            if let Err(error) = finished {
                tracing::warn!(%error, "a blob did not get its place");
                all_well = false;
            }
        }
        for done in flushes {
            let _ = done.send(all_well);
        }
    }
}
