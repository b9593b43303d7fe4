//! Running a simulation: one thread, virtual time, and an end also where nothing would end by itself.

use std::cell::RefCell;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::timeout;

/// How much a simulation may do before it is taken for one that never ends.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Operations of its disks and connections.
    pub steps: u64,
    /// Time that passes in it.
    pub time: Duration,
}

impl Default for Limits {
    /// Far more than any of our stories needs.
    fn default() -> Self {
        Self { steps: 20_000_000, time: Duration::from_secs(60 * 86_400) }
    }
}

/// A simulation did not come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stuck {
    /// Something works on and on.
    #[error("more than {0} operations of disks and connections: something goes round in circles")]
    Steps(u64),
    /// Something waits for what does not come.
    #[error("more than {0:?} of simulated time: something waits for what does not come")]
    Time(Duration),
}

/// Counts what a simulation does. All of one runs in one thread, so each thread has one.
#[derive(Default)]
struct Meter {
    steps: u64,
    max: u64,
    waker: Option<Waker>,
}

thread_local! {
    static METER: RefCell<Meter> = RefCell::default();
}

/// An operation of a disk or a connection.
pub(crate) fn count_step() {
    METER.with_borrow_mut(|meter| {
        meter.steps += 1;
        if meter.steps > meter.max
            && let Some(waker) = meter.waker.take()
        {
            waker.wake();
        }
    });
}

/// Operations of disks and connections in this thread's simulation so far.
pub fn steps() -> u64 {
    METER.with_borrow(|meter| meter.steps)
}

/// Runs a simulation: one thread, and time passes when nothing else is to be done.
///
/// # Panics
/// Where it does not come to its end.
pub fn run<F: Future<Output = ()>>(what: F) {
    run_within(Limits::default(), what).expect("the simulation comes to its end");
}

/// As [`run`], within limits.
///
/// # Errors
/// [`Stuck`] where it does not come to its end.
///
/// # Panics
/// Where the runtime cannot be made.
pub fn run_within<T>(limits: Limits, what: impl Future<Output = T>) -> Result<T, Stuck> {
    METER.set(Meter { max: limits.steps, ..Meter::default() });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime without I/O").block_on(async {
        // On the heap: a story's future is large.
        let mut what = Box::pin(what);
        let bounded = std::future::poll_fn(|context| poll_bounded(what.as_mut(), context));
        timeout(limits.time, bounded).await.map_err(|_| Stuck::Time(limits.time))?
    })
}

fn poll_bounded<F: Future>(what: Pin<&mut F>, context: &mut Context<'_>) -> Poll<Result<F::Output, Stuck>> {
    let stuck = METER.with_borrow_mut(|meter| {
        meter.waker = Some(context.waker().clone());
        (meter.steps > meter.max).then_some(Stuck::Steps(meter.max))
    });
    match stuck {
        Some(stuck) => Poll::Ready(Err(stuck)),
        None => what.poll(context).map(Ok),
    }
}

/// Runs `world` for `count` seeds from 0 on (`LIGHTER_SEEDS`: another number), or for `LIGHTER_SEED` alone; says which
/// seed failed.
pub fn seeds(count: u64, mut world: impl FnMut(u64)) {
    let number = |name: &str| std::env::var(name).ok()?.parse().ok();
    let range = match number("LIGHTER_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("LIGHTER_SEEDS").unwrap_or(count),
    };
    for seed in range {
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world(seed)));
        if let Err(panic) = ran {
            eprintln!("LIGHTER_SEED={seed} runs this one again");
            std::panic::resume_unwind(panic);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Disk;
    use crate::disk::sim::SimDisk;

    #[test]
    fn what_goes_round_in_circles_and_what_waits_for_ever_is_ended() {
        let limits = Limits { steps: 1000, time: Duration::from_secs(60) };
        let round = run_within(limits, async {
            let disk = SimDisk::new(1);
            // Beside the story, as a task of the code under test would.
            tokio::spawn(async move {
                loop {
                    let _ = disk.sync_dir();
                    tokio::task::yield_now().await;
                }
            });
            std::future::pending::<()>().await;
        });
        assert_eq!(round, Err(Stuck::Steps(1000)));
        let sleeping = |seconds| async move { tokio::time::sleep(Duration::from_secs(seconds)).await };
        let waits = run_within(limits, sleeping(61));
        assert_eq!(waits, Err(Stuck::Time(limits.time)));
        assert_eq!(run_within(limits, sleeping(59)), Ok(()));
    }
}
