//! The one writer: changes are decided on the directory, committed in groups, and answered after the commit.
//!
//! # Sync
//! A group is everything that waits when the writer comes round, so that one sync answers many. Whoever asked is
//! answered only when the engine said that the group is durable (DESIGN §3 rule 1).
//!
//! # Recovery
//! A commit that fails is not tried again: the directory, which is ahead of the disk then, is not changed any more,
//! every further change is refused as unavailable, and `/healthz` says so. A restart reads what is durable.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::thread::JoinHandle;
use std::time::Instant;

use tokio::sync::{mpsc, oneshot};

use crate::directory::{Directory, Refusal};
use crate::engine::Engine;
use crate::limits::{CHANGES_PER_COMMIT_MAX, CHANGES_QUEUED_MAX};
use crate::lock::{lock, write};
use crate::metrics::Metrics;
use crate::rows::Change;

/// Why a change was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The directory's rules.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The disk failed, or the server stops.
    #[error("nothing can be written now")]
    Unavailable,
}

/// Hands changes to the writer; cheap to clone. When the last one is dropped, or at [`Writer::close`], the writer ends.
#[derive(Clone, Debug)]
pub struct Writer {
    jobs: mpsc::Sender<Job>,
    failed: Arc<AtomicBool>,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

enum Job {
    Change(Decide),
    /// Finish what came before, and end.
    Close,
}

/// Decides on the directory; gives what to do once it is known whether the group is durable.
type Decide = Box<dyn FnOnce(&mut Directory, &mut Vec<Change>) -> Answer + Send>;
type Answer = Box<dyn FnOnce(bool) + Send>;

impl Writer {
    /// Starts the writer's thread: commits block.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub fn start(
        engine: Box<dyn Engine>,
        directory: Arc<RwLock<Directory>>,
        metrics: Arc<Metrics>,
    ) -> std::io::Result<Self> {
        let (jobs, queue) = mpsc::channel(CHANGES_QUEUED_MAX);
        let failed = Arc::new(AtomicBool::new(false));
        let worker = Worker { engine, directory, metrics, failed: failed.clone() };
        let thread = std::thread::Builder::new()
            .name("location-writer".to_owned())
            .spawn(move || worker.run(queue))?;
        Ok(Self { jobs, failed, thread: Arc::new(Mutex::new(Some(thread))) })
    }

    /// Whether a commit failed: nothing is written any more.
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// Runs `decide` on the directory and answers when its changes are durable. Where it refuses, it must have changed
    /// nothing.
    ///
    /// # Errors
    /// [`WriteError`].
    pub async fn write<T: Send + 'static>(
        &self,
        decide: impl FnOnce(&mut Directory, &mut Vec<Change>) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, WriteError> {
        let (done, answer) = oneshot::channel();
        let decide: Decide = Box::new(move |directory, changes| {
            let decided = decide(directory, changes);
            Box::new(move |durable| {
                let answer =
                    if durable { decided.map_err(WriteError::from) } else { Err(WriteError::Unavailable) };
                // Who asked may have gone; the change stands all the same.
                let _ = done.send(answer);
            })
        });
        self.jobs.send(Job::Change(decide)).await.map_err(|_| WriteError::Unavailable)?;
        answer.await.map_err(|_| WriteError::Unavailable)?
    }
}

impl Writer {
    /// Makes durable what waits, and closes the engine. Later changes are refused as unavailable.
    pub async fn close(&self) {
        // Closed already, where nobody receives.
        let _ = self.jobs.send(Job::Close).await;
        let thread = lock(&self.thread).take();
        if let Some(thread) = thread {
            // The thread ends by itself; what is waited for is a last commit.
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

struct Worker {
    engine: Box<dyn Engine>,
    directory: Arc<RwLock<Directory>>,
    metrics: Arc<Metrics>,
    failed: Arc<AtomicBool>,
}

impl Worker {
    fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        let mut group = Vec::with_capacity(CHANGES_PER_COMMIT_MAX);
        while queue.blocking_recv_many(&mut group, CHANGES_PER_COMMIT_MAX) > 0 {
            if self.failed.load(Ordering::Acquire) {
                // Dropping a job drops its answer: unavailable.
                group.retain(|job| matches!(job, Job::Close));
            }
            // What comes after a close is dropped: unavailable.
            let close = group.iter().position(|job| matches!(job, Job::Close));
            group.truncate(close.unwrap_or(group.len()));
            self.commit(&mut group);
            if close.is_some() {
                return;
            }
        }
    }

    fn commit(&mut self, group: &mut Vec<Job>) {
        let mut changes = Vec::new();
        let answers: Vec<Answer> = {
            let mut directory = write(&self.directory);
            let decided = group.drain(..).filter_map(|job| match job {
                Job::Change(decide) => Some(decide(&mut directory, &mut changes)),
                Job::Close => None,
            });
            decided.collect()
        };
        let durable = changes.is_empty() || self.make_durable(&changes);
        for answer in answers {
            answer(durable);
        }
    }

    fn make_durable(&mut self, changes: &[Change]) -> bool {
        let start = Instant::now();
        let result = self.engine.commit(changes);
        self.metrics.commit_seconds.observe(start.elapsed().as_secs_f64());
        if let Err(error) = result {
            self.failed.store(true, Ordering::Release);
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "the database failed: nothing is written any more; restart when the disk is mended"
            );
            return false;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use lighter_protocol::UnixTime;
    use lighter_transport::Identity;

    use super::*;
    use crate::engine::{EngineError, Loaded, MemoryEngine};
    use crate::rows::{InvitationRow, Row};

    /// An engine whose commits wait for a word, fail when told, and are counted.
    struct GatedEngine {
        inner: MemoryEngine,
        gate: std::sync::mpsc::Receiver<bool>,
        groups: std::sync::mpsc::Sender<usize>,
    }

    impl Engine for GatedEngine {
        fn load(&self, each: &mut dyn FnMut(Row)) -> Result<Loaded, EngineError> {
            self.inner.load(each)
        }

        fn commit(&mut self, changes: &[Change]) -> Result<(), EngineError> {
            self.groups.send(changes.len()).unwrap();
            if self.gate.recv().unwrap() { self.inner.commit(changes) } else { Err(EngineError::InUse) }
        }
    }

    type Gated = (Writer, std::sync::mpsc::Sender<bool>, std::sync::mpsc::Receiver<usize>);

    fn gated() -> Gated {
        let (open, gate) = std::sync::mpsc::channel();
        let (groups, seen) = std::sync::mpsc::channel();
        let engine = GatedEngine { inner: MemoryEngine::default(), gate, groups };
        let metrics = Arc::new(Metrics::new());
        let writer = Writer::start(Box::new(engine), Arc::default(), metrics).unwrap();
        (writer, open, seen)
    }

    fn invite(writer: &Writer, number: u8) -> tokio::task::JoinHandle<Result<(), WriteError>> {
        let writer = writer.clone();
        tokio::spawn(async move {
            let row = InvitationRow {
                mailbox: "a@x.org".parse().unwrap(),
                created: UnixTime(0),
                expires: UnixTime(1),
            };
            writer.write(move |directory, changes| directory.invite([number; 32], row, changes)).await
        })
    }

    #[tokio::test]
    async fn nobody_is_answered_before_the_commit_and_waiting_changes_share_one() {
        let (writer, open, groups) = gated();
        let first = invite(&writer, 0);
        let groups = tokio::task::spawn_blocking(move || {
            assert_eq!(groups.recv().unwrap(), 1);
            groups
        });
        let groups = groups.await.unwrap();
        let more: Vec<_> = (1..=5).map(|number| invite(&writer, number)).collect();
        // The queue holds them while the first commit waits.
        while writer.jobs.max_capacity() - writer.jobs.capacity() < 5 {
            tokio::task::yield_now().await;
        }
        assert!(!first.is_finished(), "answered before the commit");
        open.send(true).unwrap();
        open.send(true).unwrap();
        first.await.unwrap().unwrap();
        for one in more {
            one.await.unwrap().unwrap();
        }
        assert_eq!(groups.recv().unwrap(), 5, "one commit for all that waited");
    }

    #[tokio::test]
    async fn after_a_failed_commit_nothing_is_written_any_more() {
        // bad_input_31
        let (writer, open, _groups) = gated();
        open.send(false).unwrap();
        assert_eq!(invite(&writer, 0).await.unwrap(), Err(WriteError::Unavailable));
        assert!(writer.has_failed());
        open.send(true).unwrap();
        assert_eq!(
            invite(&writer, 1).await.unwrap(),
            Err(WriteError::Unavailable),
            "never retried into success"
        );
    }

    #[tokio::test]
    async fn closing_finishes_what_waits_and_refuses_what_comes_later() {
        let (writer, open, _groups) = gated();
        open.send(true).unwrap();
        let before = invite(&writer, 0);
        while writer.jobs.max_capacity() == writer.jobs.capacity() && !before.is_finished() {
            tokio::task::yield_now().await;
        }
        writer.close().await;
        before.await.unwrap().unwrap();
        assert_eq!(invite(&writer, 1).await.unwrap(), Err(WriteError::Unavailable));
        writer.close().await;
    }

    #[tokio::test]
    async fn a_refusal_is_told_and_needs_no_commit() {
        let (writer, _open, _groups) = gated();
        let peer = Identity::generate().peer();
        let refused = writer.write(move |directory, changes| directory.remove_relay(&peer, changes)).await;
        assert_eq!(refused, Err(WriteError::Refused(Refusal::Unknown)));
    }
}
