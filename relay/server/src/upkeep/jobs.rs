//! Tasks of a running relay: begun by one question over the control socket, asked for by others until they are done.
//! One at a time: each walks over the whole catalog.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lighter_catalog::Ledger;
use lighter_storage::{Array, wall_clock};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{Progress, UpkeepError, check, orphans, thin};
use crate::control::Task;
use crate::limits::{THIN_FIRST_PAUSE, THIN_INTERVAL};

/// The task that is under way, or the last one. Clones show the same.
#[derive(Clone)]
pub(crate) struct Jobs {
    array: Array,
    ledger: Ledger<Array>,
    data: PathBuf,
    last: Arc<Mutex<Option<Job>>>,
}

struct Job {
    number: u64,
    task: Task,
    progress: Progress,
    outcome: Option<Result<Value, UpkeepError>>,
}

impl Jobs {
    /// None yet.
    pub(crate) fn new(array: Array, ledger: Ledger<Array>, data: PathBuf) -> Self {
        Self { array, ledger, data, last: Arc::default() }
    }

    /// Begins a task, and gives its number; where the same one is under way, that one's. None: another one is.
    pub(crate) fn begin(&self, task: Task) -> Option<u64> {
        let mut last = self.last();
        if let Some(job) = last.as_ref().filter(|job| job.outcome.is_none()) {
            return (job.task == task).then_some(job.number);
        }
        let number = last.as_ref().map_or(1, |job| job.number + 1);
        let progress = Progress::default();
        *last = Some(Job { number, task, progress: progress.clone(), outcome: None });
        drop(last);
        let this = self.clone();
        tokio::spawn(async move {
            let outcome = match task {
                Task::Check { deep } => check(&this.array, &this.ledger, &this.data, deep, &progress).await,
                Task::Orphans => orphans(&this.array, &this.ledger, &progress).await,
                Task::Thin { below_percent } => {
                    thin(&this.array, &this.ledger, below_percent, wall_clock()().day(), &progress).await
                }
            };
            match &outcome {
                Ok(found) if matches!(task, Task::Thin { .. }) => {
                    tracing::info!(%found, "dead records were looked for");
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(?task, %error, "a look at the catalog failed"),
            }
            if let Some(job) = this.last().as_mut().filter(|job| job.number == number) {
                job.outcome = Some(outcome);
            }
        });
        Some(number)
    }

    /// How far a task is, or what it brought.
    pub(crate) fn look(&self, number: u64) -> Value {
        let last = self.last();
        let Some(job) = last.as_ref().filter(|job| job.number == number) else {
            return json!({ "failed": "another one was begun meanwhile", "try_again": true });
        };
        match &job.outcome {
            None => json!({ "under_way": job.progress.text() }),
            Some(Ok(answer)) => json!({ "done": answer }),
            Some(Err(error)) => json!({ "failed": error.to_string(), "try_again": error.is_temporary() }),
        }
    }

    /// Gives back the room of dead records, once a day, until `stopping`: of segments of which less than `below_percent`
    /// is alive; 0: never.
    pub(crate) async fn thin_daily(self, below_percent: u8, stopping: CancellationToken) {
        if below_percent == 0 {
            return;
        }
        let mut pause = THIN_FIRST_PAUSE;
        while stopping.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
            // Where another task is under way, it has its turn a little later.
            let begun = self.begin(Task::Thin { below_percent });
            pause = if begun.is_some() { THIN_INTERVAL } else { THIN_FIRST_PAUSE };
        }
    }

    fn last(&self) -> MutexGuard<'_, Option<Job>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
