//! Scrub, driven: reads what each unit hands out, at its pace, and waits where appends do.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lighter_protocol::UnixTime;
use tokio::time::{Instant, sleep};

use super::Shared;
use crate::disk::Disk;
use crate::limits::{OBJECT_SCRUB_RATE_MAX, SCRUB_IDLE, SCRUB_STORE_INTERVAL, SCRUB_YIELD_MAX};
use crate::unit::UnitError;
use crate::unit::scrub::{ScrubJob, Scrubbed, rate};
use crate::unit::worker::{Stopped, UnitHandle, off_reactor};

/// Scrubs a unit, round after round, until the server stops.
pub(super) async fn scrub_always<D: Disk>(shared: Arc<Shared<D>>, unit: UnitHandle<D>, days: u32) {
    let mut pace = Pace { days, rate: 0, until: None };
    loop {
        let now = (shared.clock)();
        let Ok(next) = unit.call(move |unit| unit.next_scrub(days, now)).await else { return };
        let scrubbed = match next {
            Some(job) => scrub(&shared, &unit, job, &mut pace).await,
            None => {
                tokio::select! { biased; () = sleep(SCRUB_IDLE) => {}, () = unit.shelf().suspected() => {} }
                Ok(())
            }
        };
        if scrubbed.is_err() {
            return;
        }
    }
}

/// Reads one segment whole.
async fn scrub<D: Disk>(
    shared: &Shared<D>,
    unit: &UnitHandle<D>,
    mut job: ScrubJob<D>,
    pace: &mut Pace,
) -> Result<(), Stopped> {
    loop {
        give_way(unit).await;
        let is_moved = job.moved().is_some();
        let step = if is_moved {
            let stepped;
            (job, stepped) = step_moved(shared, job).await?;
            let Some(step) = stepped else {
                return unit.call(move |unit| unit.skip_scrub(&job)).await;
            };
            step
        } else {
            let step;
            (job, step) = off_reactor(move || {
                let step = job.step();
                (job, step)
            })
            .await?;
            step
        };
        match step {
            Scrubbed::Piece(len) => {
                shared.counters.scrubbed_bytes.fetch_add(len, Ordering::Relaxed);
                let rate = pace.rate(unit, (shared.clock)()).await?;
                let rate = if is_moved { rate.min(OBJECT_SCRUB_RATE_MAX) } else { rate };
                sleep(Duration::from_micros(len.saturating_mul(1_000_000) / rate)).await;
            }
            Scrubbed::Whole(damaged) => {
                let now = (shared.clock)();
                return unit.call(move |unit| unit.finish_scrub(&job, damaged, now)).await;
            }
        }
    }
}

/// Reads the next piece of a segment whose records are in the object store; nothing where that cannot be reached.
async fn step_moved<D: Disk>(
    shared: &Shared<D>,
    mut job: ScrubJob<D>,
) -> Result<(ScrubJob<D>, Option<Scrubbed>), Stopped> {
    let (Some(piece), Some(shelved)) = (job.next_piece(), job.moved()) else {
        let damaged = job.finish();
        return Ok((job, Some(Scrubbed::Whole(damaged))));
    };
    match shared.read_of(shelved, piece.clone()).await? {
        Ok(bytes) => {
            off_reactor(move || {
                job.take_piece(&piece, &bytes);
                (job, Some(Scrubbed::Piece(bytes.len() as u64)))
            })
            .await
        }
        Err(UnitError::Away) => Ok((job, None)),
        Err(error) => {
            tracing::error!(segment = %shelved.header.segment, %error, "a moved segment cannot be read");
            Ok((job, Some(Scrubbed::Whole(1))))
        }
    }
}

/// Waits while appends do, but not for ever: a unit that is always busy is scrubbed, too.
pub(super) async fn give_way<D: Disk>(unit: &UnitHandle<D>) {
    let began = Instant::now();
    while unit.queue_len() > 0 && began.elapsed() < SCRUB_YIELD_MAX {
        sleep(Duration::from_millis(5)).await;
    }
}

/// Bytes per second, looked at anew once a minute: what there is changes slowly.
struct Pace {
    days: u32,
    rate: u64,
    until: Option<Instant>,
}

impl Pace {
    async fn rate<D: Disk>(&mut self, unit: &UnitHandle<D>, now: UnixTime) -> Result<u64, Stopped> {
        if self.until.is_none_or(|until| until <= Instant::now()) {
            let position = unit.call(|unit| unit.scrub_position()).await?;
            let shelf = Arc::clone(unit.shelf());
            let progress = off_reactor(move || position.progress(&shelf)).await?;
            self.rate = rate(progress.total.saturating_sub(progress.done), progress.begun, self.days, now);
            self.until = Some(Instant::now() + SCRUB_STORE_INTERVAL);
        }
        Ok(self.rate)
    }
}

impl<D: Disk> Shared<D> {
    /// A whole round in each unit, now and without pauses: for tests and simulations.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) async fn scrub_round(&self) -> Result<(), Stopped> {
        for unit in self.units.values() {
            let now = (self.clock)();
            unit.call(move |unit| unit.begin_round(now)).await?;
            while let Some(mut job) = unit.call(move |unit| unit.next_scrub(u32::MAX, now)).await? {
                let damaged = loop {
                    let step = if job.moved().is_some() {
                        let step;
                        (job, step) = step_moved(self, job).await?;
                        step
                    } else {
                        Some(job.step())
                    };
                    match step {
                        Some(Scrubbed::Piece(_)) => {}
                        Some(Scrubbed::Whole(damaged)) => break Some(damaged),
                        None => break None,
                    }
                };
                match damaged {
                    Some(damaged) => unit.call(move |unit| unit.finish_scrub(&job, damaged, now)).await?,
                    None => unit.call(move |unit| unit.skip_scrub(&job)).await?,
                }
            }
        }
        Ok(())
    }
}
