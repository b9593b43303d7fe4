//! A unit's worker: one thread that owns the unit, and gathers appends into group commits.
//!
//! Order of its loop: take one command; while appends keep coming, within 4 MiB and 2 ms, take them, too; write and
//! sync the group; answer each; then do the command that ended the gathering, if one did. While it syncs, the next group
//! gathers in the queue by itself.
//!
//! On a runtime with one thread (tests, the simulation) the worker is a task of that runtime, so that a run is the same
//! each time; otherwise it is a thread of its own.

use std::sync::Arc;

use lighter_protocol::UnixTime;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::{CheckedAppend, SealReport, Shelf, Unit, UnitError};
use crate::array::Clock;
use crate::disk::Disk;
use crate::ids::{Epoch, SegmentId};
use crate::limits::{GROUP_LEN_MAX, GROUP_TIME_MAX, UNIT_QUEUE_MAX};
use crate::segment::footer::{Hole, Summary};

/// Asks a unit's worker. Clones ask the same one; it ends with the last of them.
pub struct UnitHandle<D: Disk> {
    commands: mpsc::Sender<Command<D>>,
    shelf: Arc<Shelf<D>>,
}

impl<D: Disk> Clone for UnitHandle<D> {
    fn clone(&self) -> Self {
        Self { commands: self.commands.clone(), shelf: Arc::clone(&self.shelf) }
    }
}

type Call<D> = Box<dyn FnOnce(&mut Unit<D>) + Send>;

enum Command<D: Disk> {
    Append(CheckedAppend, oneshot::Sender<Result<(), UnitError>>),
    Call(Call<D>),
}

/// The worker is gone: the server stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the unit has stopped")]
pub struct Stopped;

impl<D: Disk> UnitHandle<D> {
    /// Starts the worker of `unit`.
    pub fn start(unit: Unit<D>) -> Self {
        let (commands, queue) = mpsc::channel(UNIT_QUEUE_MAX);
        let shelf = Arc::clone(unit.shelf());
        if Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread {
            tokio::spawn(run_as_task(unit, queue));
        } else {
            std::thread::spawn(move || run_as_thread(unit, queue));
        }
        Self { commands, shelf }
    }

    /// What can be read without asking the worker.
    pub fn shelf(&self) -> &Arc<Shelf<D>> {
        &self.shelf
    }

    /// Puts an append into the queue and gives what will say how it went. Appends of one caller keep their order.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn append(
        &self,
        append: CheckedAppend,
    ) -> Result<oneshot::Receiver<Result<(), UnitError>>, Stopped> {
        let (answer, answered) = oneshot::channel();
        self.commands.send(Command::Append(append, answer)).await.map_err(|_| Stopped)?;
        Ok(answered)
    }

    /// Does something with the unit, in turn.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Unit<D>) -> T + Send + 'static,
    ) -> Result<T, Stopped> {
        let (answer, answered) = oneshot::channel();
        let command = Command::Call(Box::new(move |unit| {
            let _ = answer.send(work(unit));
        }));
        self.commands.send(command).await.map_err(|_| Stopped)?;
        answered.await.map_err(|_| Stopped)
    }

    /// Seals a segment; the unit goes on with others while it is read.
    ///
    /// # Errors
    /// [`Stopped`] outside, the unit's own inside.
    pub async fn seal(
        &self,
        segment: SegmentId,
        writer: lighter_protocol::PeerId,
        epoch: Epoch,
        length: u64,
    ) -> Result<Result<SealReport, UnitError>, Stopped> {
        // A task of its own: what was begun is finished, also where nobody waits for it any more.
        let handle = self.clone();
        let sealing = tokio::spawn(async move {
            let begun = handle.call(move |unit| unit.begin_seal(segment, &writer, epoch, length)).await?;
            let job = match begun {
                Ok(Ok(job)) => job,
                Ok(Err(report)) => return Ok(Ok(report)),
                Err(error) => return Ok(Err(error)),
            };
            let sealed = off_reactor(move || job.run()).await?;
            handle.call(move |unit| unit.finish_seal(segment, sealed)).await
        });
        sealing.await.map_err(|_| Stopped)?
    }
}

impl<D: Disk> UnitHandle<D> {
    /// Commands that wait for the worker.
    pub fn queue_len(&self) -> usize {
        self.commands.max_capacity() - self.commands.capacity()
    }

    /// Gives back what is dead of a sealed segment; the unit goes on with others meanwhile.
    ///
    /// # Errors
    /// [`Stopped`] outside, the unit's own inside.
    pub async fn thin(
        &self,
        segment: SegmentId,
        writer: lighter_protocol::PeerId,
        epoch: Epoch,
        holes: Vec<Hole>,
        now: UnixTime,
    ) -> Result<Result<SealReport, UnitError>, Stopped> {
        let handle = self.clone();
        let thinning = tokio::spawn(async move {
            let begun = handle.call(move |unit| unit.begin_thin(segment, &writer, epoch, holes, now)).await?;
            let job = match begun {
                Ok(Ok(job)) => job,
                Ok(Err(report)) => return Ok(Ok(report)),
                Err(error) => return Ok(Err(error)),
            };
            let number = job.number();
            let thinned = off_reactor(move || job.run()).await?;
            handle.call(move |unit| unit.finish_thin(segment, number, epoch, thinned)).await
        });
        thinning.await.map_err(|_| Stopped)?
    }

    /// Checks what was received of a segment and makes it a copy; the unit goes on with others meanwhile.
    ///
    /// # Errors
    /// [`Stopped`] outside, the unit's own inside.
    pub async fn adopt(
        &self,
        segment: SegmentId,
        writer: lighter_protocol::PeerId,
        epoch: Epoch,
        summary: Summary,
        clock: Clock,
    ) -> Result<Result<SealReport, UnitError>, Stopped> {
        let handle = self.clone();
        let adopting = tokio::spawn(async move {
            let begun = handle.call(move |unit| unit.begin_adopt(segment, &writer, epoch, summary)).await?;
            let job = match begun {
                Ok(Ok(job)) => job,
                Ok(Err(report)) => return Ok(Ok(report)),
                Err(error) => return Ok(Err(error)),
            };
            let number = job.number();
            let checked = off_reactor(move || job.run()).await?;
            let now = clock();
            handle.call(move |unit| unit.finish_adopt(segment, number, epoch, checked, now)).await
        });
        adopting.await.map_err(|_| Stopped)?
    }
}

/// Runs what blocks or computes for long: on a blocking thread, or, on a runtime with one thread, here.
///
/// # Errors
/// [`Stopped`] where the runtime stops.
pub async fn off_reactor<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Stopped> {
    if Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await.map_err(|_| Stopped)
}

fn run_as_thread<D: Disk>(mut unit: Unit<D>, mut queue: mpsc::Receiver<Command<D>>) {
    while let Some(first) = queue.blocking_recv() {
        turn(&mut unit, first, &mut queue);
    }
}

async fn run_as_task<D: Disk>(mut unit: Unit<D>, mut queue: mpsc::Receiver<Command<D>>) {
    while let Some(first) = queue.recv().await {
        turn(&mut unit, first, &mut queue);
    }
}

/// One turn of the loop.
// SPEC: C10
fn turn<D: Disk>(unit: &mut Unit<D>, first: Command<D>, queue: &mut mpsc::Receiver<Command<D>>) {
    let (mut group, mut answers) = (Vec::new(), Vec::new());
    let (mut len, mut next) = (0, Some(first));
    let started = Instant::now();
    let mut call = None;
    while let Some(command) = next.take() {
        match command {
            Command::Append(append, answer) => {
                len += append.len();
                group.push(append);
                answers.push(answer);
            }
            Command::Call(work) => {
                call = Some(work);
                break;
            }
        }
        if len < GROUP_LEN_MAX && started.elapsed() < GROUP_TIME_MAX {
            next = queue.try_recv().ok();
        }
    }
    for (answer, result) in answers.into_iter().zip(unit.commit(&group)) {
        let _ = answer.send(result);
    }
    if let Some(work) = call {
        work(unit);
    }
}
