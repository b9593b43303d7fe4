//! Moving sealed segments to the object store, and removing there what is no copy any more: one task for each unit.
//!
//! Order of a turn: see that the store is the right one; remove what is to be removed; once a day, compare what the store
//! lists with what the unit has there (also at the start, and after a move that failed); move one segment. Where the store fails, the turn ends, and the next one comes
//! later each time. Nothing is lost by waiting: a segment that was not moved is where it was.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use tokio::time::{Instant, sleep, timeout};

use super::Shared;
use super::scrub::give_way;
use crate::disk::Disk;
use crate::ids::{ObjectId, SegmentId, UnitId};
use crate::limits::{MOVE_INTERVAL, MOVE_PAUSE_MAX, OBJECT_PART_LEN, ORPHAN_INTERVAL, PAGE_MAX};
use crate::objects::{Depot, ObjectError, ObjectName, ReadFault};
use crate::unit::worker::{Stopped, UnitHandle, off_reactor};
use crate::unit::{MoveJob, UnitError};

/// Why a turn ended.
#[derive(Debug, thiserror::Error)]
enum MoveError {
    /// The server stops.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// The store did not do it.
    #[error(transparent)]
    Store(#[from] ObjectError),
    /// What came back from the store is not what went there.
    #[error("the store gave back other bytes than it was given")]
    NotKept,
    /// The unit's disk, or the segment has changed.
    #[error(transparent)]
    Unit(#[from] UnitError),
}

impl From<std::io::Error> for MoveError {
    fn from(error: std::io::Error) -> Self {
        Self::Unit(error.into())
    }
}

impl From<ReadFault> for MoveError {
    fn from(fault: ReadFault) -> Self {
        match fault {
            ReadFault::Lost => Self::NotKept,
            ReadFault::Away(error) => Self::Store(error),
        }
    }
}

/// Moves what is to be moved of a unit, and removes what is to be removed, until the server stops.
pub(super) async fn move_always<D: Disk>(shared: Arc<Shared<D>>, handle: UnitHandle<D>, depot: Arc<Depot>) {
    let mut mover = Mover::new(shared, handle, depot);
    let mut pause = PAUSE_MIN;
    loop {
        match mover.turn().await {
            Ok(true) => pause = PAUSE_MIN,
            Ok(false) => {
                pause = PAUSE_MIN;
                let _ = timeout(MOVE_INTERVAL, mover.handle.shelf().stirs()).await;
            }
            Err(MoveError::Stopped(_)) => return,
            Err(error) => {
                let (unit, place) = (mover.unit, mover.depot.place());
                tracing::warn!(%unit, place, %error, "the object store: trying again later; data stays where it is");
                sleep(pause).await;
                pause = (pause * 2).min(MOVE_PAUSE_MAX);
            }
        }
    }
}

/// The first pause after a failure.
const PAUSE_MIN: Duration = Duration::from_secs(1);

struct Mover<D: Disk> {
    shared: Arc<Shared<D>>,
    handle: UnitHandle<D>,
    depot: Arc<Depot>,
    unit: UnitId,
    chance: StdRng,
    /// The store was seen to be the right one.
    is_settled: bool,
    /// When what it lists was compared.
    compared: Option<Instant>,
    /// Segments that could not be moved for a reason of their own: another day.
    skipped: BTreeSet<SegmentId>,
}

impl<D: Disk> Mover<D> {
    fn new(shared: Arc<Shared<D>>, handle: UnitHandle<D>, depot: Arc<Depot>) -> Self {
        let unit = handle.shelf().unit();
        let chance = rand::make_rng();
        Self {
            shared,
            handle,
            depot,
            unit,
            chance,
            is_settled: false,
            compared: None,
            skipped: BTreeSet::new(),
        }
    }

    /// One turn; whether there may be more to do at once.
    async fn turn(&mut self) -> Result<bool, MoveError> {
        let strays = self.handle.call(|unit| unit.strays(PAGE_MAX)).await?;
        let has_objects = !strays.is_empty() || self.handle.shelf().moved().0 > 0;
        if has_objects {
            self.settle(true).await?;
        }
        self.depot.look(self.unit).await?;
        let is_more = !strays.is_empty();
        for stray in strays {
            self.depot.remove(&stray.name.key(self.unit), stray.upload.as_deref()).await?;
            self.handle.call(move |unit| unit.forget_stray(stray.name)).await??;
        }
        let is_day_over = self.compared.is_some_and(|at| at.elapsed() >= ORPHAN_INTERVAL);
        if is_day_over {
            self.skipped.clear();
        }
        if self.is_settled && (is_day_over || self.compared.is_none()) {
            self.compare().await?;
            self.compared = Some(Instant::now());
        }
        Ok(self.move_one().await? || is_more)
    }

    async fn settle(&mut self, has_objects: bool) -> Result<(), MoveError> {
        if !self.is_settled {
            self.depot.settle(self.unit, has_objects).await?;
            self.is_settled = true;
        }
        Ok(())
    }

    /// Removes what the store has of this unit and the unit knows nothing of: nothing, unless a folder was put back from a
    /// backup.
    async fn compare(&self) -> Result<(), MoveError> {
        // An upload of which a crash came before its name was written down, or whose beginning was not answered. Nobody
        // else uploads for this unit.
        for (key, upload) in self.depot.uploads(self.unit).await? {
            if ObjectName::of_key(self.unit, &key).is_some() {
                tracing::warn!(unit = %self.unit, key, "an upload that was cut is given up");
                self.depot.abort(&key, &upload).await?;
                self.depot.count_orphan();
            }
        }
        let mut after: Option<String> = None;
        loop {
            let keys = self.depot.list(self.unit, after.as_deref()).await?;
            let Some(last) = keys.last().cloned() else { return Ok(()) };
            let names: Vec<_> = keys.iter().filter_map(|key| ObjectName::of_key(self.unit, key)).collect();
            for name in self.handle.call(move |unit| unit.unaccounted(names)).await?? {
                tracing::warn!(unit = %self.unit, object = %name, "an object that no segment has is removed");
                self.depot.remove(&name.key(self.unit), None).await?;
                self.depot.count_orphan();
            }
            after = Some(last);
        }
    }

    /// Moves one segment, if one is to be moved.
    async fn move_one(&mut self) -> Result<bool, MoveError> {
        let (rules, now) = (self.depot.rules(), (self.shared.clock)());
        let skipped = self.skipped.clone();
        if !self.handle.call(move |unit| unit.is_move_due(rules, &skipped, now)).await? {
            return Ok(false);
        }
        // Before the first object, so that where there is one, or may be, there is the marker.
        self.settle(false).await?;
        let (object, skipped) = (ObjectId::draw(&mut self.chance), self.skipped.clone());
        let begun = self.handle.call(move |unit| unit.begin_move(rules, object, &skipped, now)).await??;
        let Some(job) = begun.map(Arc::new) else { return Ok(false) };
        let moved = self.carry(&job).await;
        let (segment, len) = (job.name().segment, job.len());
        match moved {
            Ok(()) => {
                let now = (self.shared.clock)();
                if let Err(error) = self.handle.call(move |unit| unit.finish_move(&job, now)).await? {
                    self.depot.count_move(None);
                    self.skipped.insert(segment);
                    return Err(error.into());
                }
                self.depot.count_move(Some(len));
                tracing::info!(unit = %self.unit, %segment, len, place = self.depot.place(), "a segment was moved");
                Ok(true)
            }
            Err(error) => {
                self.handle.call(move |unit| unit.give_up_move(&job)).await?;
                self.depot.count_move(None);
                self.compared = None;
                if matches!(error, MoveError::Unit(_)) {
                    self.skipped.insert(segment);
                    self.handle.shelf().suspect(segment);
                }
                Err(error)
            }
        }
    }

    async fn carry(&self, job: &Arc<MoveJob<D>>) -> Result<(), MoveError> {
        self.upload(job).await?;
        self.read_back(job).await
    }

    /// Uploads the records, a part in memory at a time; not completed where they are not what was sealed.
    async fn upload(&self, job: &Arc<MoveJob<D>>) -> Result<(), MoveError> {
        let (key, len) = (job.key(), job.len());
        let mut hasher = blake3::Hasher::new();
        if len <= OBJECT_PART_LEN as u64 {
            let bytes;
            (bytes, hasher) = self.read_part(job, 0..len, hasher).await?;
            check_root(&hasher, job)?;
            return Ok(self.depot.put(&key, bytes).await?);
        }
        let upload = self.depot.begin(&key).await?;
        let (noting, name) = (Arc::clone(job), upload.clone());
        off_reactor(move || noting.note_upload(&name)).await??;
        let mut parts = Vec::new();
        for part in job.parts() {
            give_way(&self.handle).await;
            let bytes;
            (bytes, hasher) = self.read_part(job, part, hasher).await?;
            parts.push(self.depot.put_part(&key, &upload, parts.len(), bytes).await?);
        }
        check_root(&hasher, job)?;
        Ok(self.depot.complete(&key, &upload, parts).await?)
    }

    async fn read_part(
        &self,
        job: &Arc<MoveJob<D>>,
        part: Range<u64>,
        mut hasher: blake3::Hasher,
    ) -> Result<(bytes::Bytes, blake3::Hasher), MoveError> {
        let job = Arc::clone(job);
        let read = off_reactor(move || {
            let bytes = job.read(&part)?;
            hasher.update(&bytes);
            Ok::<_, std::io::Error>((bytes.into(), hasher))
        });
        Ok(read.await??)
    }

    /// Reads all of the object: what the store says that it took is not enough.
    async fn read_back(&self, job: &Arc<MoveJob<D>>) -> Result<(), MoveError> {
        if self.depot.size(&job.key()).await? != job.len() {
            return Err(MoveError::NotKept);
        }
        let mut hasher = blake3::Hasher::new();
        for part in job.parts() {
            give_way(&self.handle).await;
            let bytes = self.depot.read(self.unit, &job.name(), part).await?;
            hasher = off_reactor(move || {
                hasher.update(&bytes);
                hasher
            })
            .await?;
        }
        if *hasher.finalize().as_bytes() == job.root() { Ok(()) } else { Err(MoveError::NotKept) }
    }
}

fn check_root<D: Disk>(hasher: &blake3::Hasher, job: &MoveJob<D>) -> Result<(), MoveError> {
    if *hasher.finalize().as_bytes() == job.root() {
        return Ok(());
    }
    Err(UnitError::Unsound("not what was sealed").into())
}

#[cfg(test)]
impl<D: Disk> Shared<D> {
    /// Turns in each unit until there is nothing more to do. Whether all went well.
    pub(crate) async fn move_now(self: &Arc<Self>) -> bool {
        let Some(depot) = &self.depot else { return false };
        for handle in self.units.values() {
            let mut mover = Mover::new(Arc::clone(self), handle.clone(), Arc::clone(depot));
            loop {
                match mover.turn().await {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(error) => {
                        tracing::info!(%error, "a turn ended early");
                        return false;
                    }
                }
            }
        }
        true
    }
}
