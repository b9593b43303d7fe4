//! Many seeds, on all processors.

use std::io::IsTerminal;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tokio::sync::mpsc;

use crate::one::{Seed, World};
use crate::trace::Trace;

/// Which seeds, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Campaign {
    pub(crate) from: u64,
    pub(crate) count: u64,
    pub(crate) world: Option<World>,
    pub(crate) jobs: Option<NonZeroUsize>,
    pub(crate) trace: bool,
}

/// What became of them.
#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    /// How many were run.
    seeds: u64,
    failed: usize,
    /// Not all of them were run.
    interrupted: bool,
    seconds: f64,
    pub(crate) failures: Vec<Failure>,
}

/// A seed that failed.
#[derive(Debug, Serialize)]
pub(crate) struct Failure {
    pub(crate) seed: u64,
    world: World,
    /// What went wrong.
    pub(crate) what: String,
    /// The command that shows it again.
    replay: String,
}

impl Outcome {
    pub(crate) fn is_good(&self) -> bool {
        self.failed == 0 && !self.interrupted
    }

    pub(crate) fn last_line(&self) -> String {
        format!("{} seeds, {} failed", self.seeds, self.failed)
    }
}

/// A run that takes so long, by the machine's clock, neither works nor waits: it computes for ever, and nothing can end
/// it but the end of the process. Most take some milliseconds.
const RUN_TIME_MAX: Duration = Duration::from_secs(300);

/// What the workers share.
struct Work {
    campaign: Campaign,
    next: AtomicU64,
    is_over: AtomicBool,
    /// What each worker runs, and since when.
    running: Vec<Mutex<Option<(Seed, Instant)>>>,
}

type Report = (Seed, Result<(), String>);

impl Campaign {
    /// Runs them; failures are told as they come, on stdout, if so wished.
    pub(crate) fn run(self, is_told: bool) -> Result<Outcome> {
        let started = Instant::now();
        let processors = || thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let jobs = self.jobs.map_or_else(processors, NonZeroUsize::get);
        let work = Arc::new(Work {
            campaign: self,
            next: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
            running: (0..jobs).map(|_| Mutex::default()).collect(),
        });
        let (reports, mut reported) = mpsc::unbounded_channel();
        for index in 0..jobs {
            let (work, reports) = (Arc::clone(&work), reports.clone());
            let named = thread::Builder::new().name(format!("sim-{index}"));
            named.spawn(move || work.run_seeds(index, &reports)).context("start a thread")?;
        }
        drop(reports);
        let bar = bar(self.count);
        let mut outcome =
            Outcome { seeds: 0, failed: 0, interrupted: false, seconds: 0.0, failures: Vec::new() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut ticks = tokio::time::interval(Duration::from_secs(1));
            loop {
                tokio::select! {
                    report = reported.recv() => match report {
                        Some(report) => outcome.take(report, is_told, &bar),
                        None => break,
                    },
                    _ = tokio::signal::ctrl_c() => {
                        // A second one ends at once what does not end by itself.
                        if std::mem::replace(&mut outcome.interrupted, true) {
                            break;
                        }
                        work.is_over.store(true, Ordering::Relaxed);
                    }
                    _ = ticks.tick() => {
                        bar.tick();
                        if let Some(seed) = work.stalled() {
                            let what = format!("does not end: it has computed for over {RUN_TIME_MAX:?}");
                            outcome.take((seed, Err(what)), is_told, &bar);
                            outcome.interrupted = outcome.seeds < self.count;
                            break;
                        }
                    }
                }
            }
        });
        bar.finish_and_clear();
        outcome.interrupted &= outcome.seeds < self.count;
        outcome.failures.sort_by_key(|failure| failure.seed);
        outcome.seconds = started.elapsed().as_secs_f64();
        Ok(outcome)
    }
}

impl Work {
    fn run_seeds(&self, index: usize, reports: &mpsc::UnboundedSender<Report>) {
        while !self.is_over.load(Ordering::Relaxed) {
            let nth = self.next.fetch_add(1, Ordering::Relaxed);
            if nth >= self.campaign.count {
                return;
            }
            let seed = Seed::new(self.campaign.world, self.campaign.from.saturating_add(nth));
            *self.running(index) = Some((seed, Instant::now()));
            let ran = if self.campaign.trace { run_printed(seed) } else { seed.run() };
            *self.running(index) = None;
            if reports.send((seed, ran)).is_err() {
                return;
            }
        }
    }

    fn running(&self, index: usize) -> MutexGuard<'_, Option<(Seed, Instant)>> {
        self.running[index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A seed that has been run for far too long.
    fn stalled(&self) -> Option<Seed> {
        let running = (0..self.running.len()).filter_map(|index| *self.running(index));
        running.into_iter().find(|(_, since)| since.elapsed() > RUN_TIME_MAX).map(|(seed, _)| seed)
    }
}

impl Outcome {
    fn take(&mut self, (seed, ran): Report, is_told: bool, bar: &ProgressBar) {
        self.seeds += 1;
        if let Err(what) = ran {
            self.failed += 1;
            let failure = Failure { seed: seed.number, world: seed.world, what, replay: seed.replay() };
            if is_told {
                let Failure { seed, world, what, replay } = &failure;
                bar.suspend(|| crate::print(&format!("seed {seed} of {world} failed: {what}\n    {replay}")));
            }
            self.failures.push(failure);
        }
        bar.set_message(format!("{} failed", self.failed));
        bar.inc(1);
    }
}

/// With every step of it on stdout.
fn run_printed(seed: Seed) -> Result<(), String> {
    let trace = Trace::default();
    let ran = seed.run_traced(&trace);
    crate::print(&format!("trace {}", trace.digest()));
    ran
}

/// On stderr, where that is a terminal.
fn bar(count: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() || count < 2 {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} seeds, {msg}, {eta} left");
    let bar = ProgressBar::new(count);
    if let Ok(style) = style { bar.with_style(style) } else { bar }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_seed_is_run_once_and_counted() {
        let campaign = Campaign { from: 20, count: 9, world: None, jobs: NonZeroUsize::new(3), trace: false };
        let outcome = campaign.run(false).unwrap();
        assert!(outcome.is_good(), "{outcome:?}");
        assert_eq!(outcome.last_line(), "9 seeds, 0 failed");
    }
}
