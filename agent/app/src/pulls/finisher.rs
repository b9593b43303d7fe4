//! Gives blobs that are whole their final place while others are still on their way: many beside each other, with one sync of
//! the folder and one transaction. Small ones wait until they are enough, or the last has come; a process that is killed
//! meanwhile finds them where they lie, and a bounded number of files is open for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lighter_protocol::UnixTime;
use lighter_store::Partial;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::limits::{FINISH_BATCH_LEN, FINISH_BATCH_MAX, FINISH_HELD_MAX, FINISH_WAIT_MAX, PULL_EVENTS_MAX};
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

    /// Ends it: when this returns, it holds nothing any more.
    pub(super) async fn end(&mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
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

/// What a pull's finisher keeps waiting.
struct Held<'a> {
    /// Those of all pulls.
    all: &'a AtomicUsize,
    own: usize,
}

impl Held<'_> {
    /// So many of this pull wait; whether there is room for that.
    fn set(&mut self, own: usize) -> bool {
        let others = self.all.load(Ordering::Relaxed).saturating_sub(self.own);
        self.all.fetch_sub(self.own, Ordering::Relaxed);
        self.all.fetch_add(own, Ordering::Relaxed);
        self.own = own;
        others + own <= FINISH_HELD_MAX
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.set(0);
    }
}

async fn run(shared: Handle, mut work: mpsc::Receiver<Work>) {
    let mut all_well = true;
    let (mut gathered, mut batch, mut flushes) = (Vec::new(), Vec::new(), Vec::new());
    let mut held = Held { all: &shared.pulls.held, own: 0 };
    loop {
        let wait = if batch.is_empty() { Duration::MAX } else { FINISH_WAIT_MAX };
        let is_quiet = match timeout(wait, work.recv_many(&mut gathered, FINISH_BATCH_MAX)).await {
            Ok(0) => return,
            Ok(_) => false,
            Err(_) => true,
        };
        for item in gathered.drain(..) {
            match item {
                Work::Finish(partial) => batch.push(partial),
                Work::Flush(done) => flushes.push(done),
            }
        }
        let len: u64 = batch.iter().map(|partial: &Arc<Partial>| partial.size()).sum();
        let is_little = batch.len() < FINISH_BATCH_MAX && len < FINISH_BATCH_LEN;
        if !is_quiet && flushes.is_empty() && is_little && held.set(batch.len()) {
            continue;
        }
        if !batch.is_empty() {
            let batch = std::mem::take(&mut batch);
            let finished = shared.blocking(move |store| store.finish(&batch, UnixTime::now())).await;
            if let Err(error) = finished {
                tracing::warn!(%error, "a blob did not get its place");
                all_well = false;
            }
        }
        held.set(0);
        if !flushes.is_empty()
            && let Err(error) = shared.blocking(|store| store.seal(UnixTime::now())).await
        {
            tracing::warn!(%error, "small blobs did not get their place");
            all_well = false;
        }
        for done in flushes.drain(..) {
            let _ = done.send(all_well);
        }
    }
}
