//! A store as a server works with it: each request has its time, reads are bounded in number, and what happens is counted.
//!
//! While the store fails, one read at a time finds out whether it still does, and the others are refused at once: they have
//! another copy to go to, and would wait for nothing.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::{Asking, ObjectError, ObjectName, Objects, marker_key};
use crate::ids::UnitId;
use crate::limits::{OBJECT_AWAY_PAUSE, OBJECT_READ_TIME_MAX, OBJECT_READS_MAX, OBJECT_WRITE_TIME_MAX};

/// Which segments are moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DepotRules {
    /// Whole days that must have gone by since a segment's storage day; 0: as soon as it is sealed.
    pub after_days: u32,
    /// Bytes of sealed segments that each unit keeps on its disk: the newest ones.
    pub keep_local_bytes: u64,
}

/// A store, and how it is used.
pub struct Depot {
    objects: Arc<dyn Objects>,
    /// Where it is, for logs.
    place: String,
    rules: DepotRules,
    reads: Semaphore,
    counters: Counters,
    /// Whether the last request reached it.
    is_well: AtomicBool,
    /// While it fails, when the next read is tried.
    next_try: Mutex<Option<Instant>>,
}

#[derive(Default)]
struct Counters {
    reads: AtomicU64,
    read_bytes: AtomicU64,
    failed_reads: AtomicU64,
    moved: AtomicU64,
    moved_bytes: AtomicU64,
    failed_moves: AtomicU64,
    removed: AtomicU64,
    orphans: AtomicU64,
}

/// Figures of a depot since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DepotCounters {
    /// Ranges read.
    pub reads: u64,
    /// Their bytes.
    pub read_bytes: u64,
    /// Reads that did not get what they asked for.
    pub failed_reads: u64,
    /// Segments moved.
    pub moved: u64,
    /// Their bytes.
    pub moved_bytes: u64,
    /// Moves that came to nothing, and are tried again.
    pub failed_moves: u64,
    /// Objects removed because their segment went, or their upload was cut.
    pub removed: u64,
    /// Objects found by a sweep that no segment has, and removed.
    pub orphans: u64,
    /// Whether the last request reached the store.
    pub is_well: bool,
}

/// Why a range was not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReadFault {
    /// The object is not there, or ends before, in a store that has the unit's marker: it is lost.
    #[error("the object is gone, or too short")]
    Lost,
    /// Nothing is known of the object.
    #[error(transparent)]
    Away(ObjectError),
}

impl Depot {
    /// A depot in `objects`, called `place` in logs.
    pub fn new(objects: Arc<dyn Objects>, place: String, rules: DepotRules) -> Self {
        let reads = Semaphore::new(OBJECT_READS_MAX);
        Self {
            objects,
            place,
            rules,
            reads,
            counters: Counters::default(),
            is_well: AtomicBool::new(true),
            next_try: Mutex::default(),
        }
    }

    /// Where it is, for logs.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Which segments are moved.
    pub fn rules(&self) -> DepotRules {
        self.rules
    }

    /// Figures since the start.
    pub fn counters(&self) -> DepotCounters {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Counters { reads, read_bytes, failed_reads, moved, moved_bytes, failed_moves, removed, orphans } =
            &self.counters;
        DepotCounters {
            reads: get(reads),
            read_bytes: get(read_bytes),
            failed_reads: get(failed_reads),
            moved: get(moved),
            moved_bytes: get(moved_bytes),
            failed_moves: get(failed_moves),
            removed: get(removed),
            orphans: get(orphans),
            is_well: self.is_well.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn count_move(&self, bytes: Option<u64>) {
        match bytes {
            Some(bytes) => {
                self.counters.moved.fetch_add(1, Ordering::Relaxed);
                self.counters.moved_bytes.fetch_add(bytes, Ordering::Relaxed);
            }
            None => {
                self.counters.failed_moves.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    pub(crate) fn count_orphan(&self) {
        self.counters.orphans.fetch_add(1, Ordering::Relaxed);
    }

    /// One request, within `time`.
    async fn ask<T>(&self, time: Duration, asking: Asking<'_, T>) -> Result<T, ObjectError> {
        let answer = timeout(time, asking)
            .await
            .unwrap_or_else(|_| Err(ObjectError::Away("no answer in time".to_owned())));
        self.is_well.store(matches!(answer, Ok(_) | Err(ObjectError::NotFound)), Ordering::Relaxed);
        answer
    }

    /// Reads `range` of an object, all of it.
    pub(crate) async fn read(
        &self,
        unit: UnitId,
        name: &ObjectName,
        range: Range<u64>,
    ) -> Result<Bytes, ReadFault> {
        if !self.may_try(Instant::now()) {
            self.counters.failed_reads.fetch_add(1, Ordering::Relaxed);
            return Err(ReadFault::Away(ObjectError::Away("it was away a moment ago".to_owned())));
        }
        let read = self.read_range(unit, name, range).await;
        let is_away = matches!(read, Err(ReadFault::Away(_)));
        self.set_next_try(is_away.then(|| Instant::now() + OBJECT_AWAY_PAUSE));
        match &read {
            Ok(bytes) => {
                self.counters.reads.fetch_add(1, Ordering::Relaxed);
                self.counters.read_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            }
            Err(fault) => {
                self.counters.failed_reads.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(%unit, %name, %fault, place = self.place, "a moved segment could not be read");
            }
        }
        read
    }

    /// Whether a read may be tried now.
    fn may_try(&self, now: Instant) -> bool {
        let mut next_try = self.next_try.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *next_try {
            None => true,
            Some(at) if *at > now => false,
            Some(at) => {
                // This one finds out; the others wait for what it finds.
                *at = now + OBJECT_READ_TIME_MAX;
                true
            }
        }
    }

    fn set_next_try(&self, at: Option<Instant>) {
        *self.next_try.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }

    async fn read_range(
        &self,
        unit: UnitId,
        name: &ObjectName,
        range: Range<u64>,
    ) -> Result<Bytes, ReadFault> {
        let away = |error| ReadFault::Away(error);
        // The place is waited for within the time of the read: one who cannot be served soon takes another copy.
        let reading = async {
            let _turn = self.reads.acquire().await.map_err(|error| ObjectError::Away(error.to_string()))?;
            self.objects.read(&name.key(unit), range.clone()).await
        };
        match self.ask(OBJECT_READ_TIME_MAX, Box::pin(reading)).await {
            Ok(bytes) if bytes.len() as u64 == range.end.saturating_sub(range.start) => Ok(bytes),
            Ok(_) => Err(ReadFault::Lost),
            Err(ObjectError::NotFound) if self.has_marker(unit).await.map_err(away)? => Err(ReadFault::Lost),
            Err(ObjectError::NotFound) => {
                self.is_well.store(false, Ordering::Relaxed);
                Err(away(ObjectError::Refused(
                    "the unit's marker is not in this bucket either: is it another one, or was it emptied?"
                        .to_owned(),
                )))
            }
            Err(error) => Err(away(error)),
        }
    }

    async fn has_marker(&self, unit: UnitId) -> Result<bool, ObjectError> {
        match self.ask(OBJECT_READ_TIME_MAX, self.objects.size(&marker_key(unit))).await {
            Ok(_) => Ok(true),
            Err(ObjectError::NotFound) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Finds out whether a store that was away is back, where nothing else is asked of it.
    pub(crate) async fn look(&self, unit: UnitId) -> Result<(), ObjectError> {
        if self.is_well.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.has_marker(unit).await.map(drop)
    }

    /// Makes sure that this is the store that the unit's objects are in. A unit that `has_objects` does not get a new
    /// marker: where its own is missing, so are they.
    pub(crate) async fn settle(&self, unit: UnitId, has_objects: bool) -> Result<(), ObjectError> {
        if self.has_marker(unit).await? {
            return Ok(());
        }
        if has_objects {
            self.is_well.store(false, Ordering::Relaxed);
            return Err(ObjectError::Refused(format!(
                "unit {unit} has moved segments, and its marker {} is not there: another bucket or prefix than before, or \
                 an emptied one. Set back what was changed; if the objects are lost for good, put an empty object of \
                 that name there, and the copies are made anew from the other servers",
                marker_key(unit)
            )));
        }
        self.write(self.objects.put(&marker_key(unit), Bytes::from_static(MARKER))).await
    }

    /// Writes a small object, reads it, removes it: for whoever looks at a configuration.
    ///
    /// # Errors
    /// What the store did not do.
    pub async fn probe(&self) -> Result<(), ObjectError> {
        let key = format!("probe-{:032x}", rand::random::<u128>());
        self.put(&key, Bytes::from_static(MARKER)).await?;
        let read = self.ask(OBJECT_READ_TIME_MAX, self.objects.read(&key, 0..MARKER.len() as u64)).await;
        self.remove(&key, None).await?;
        match read? {
            bytes if bytes == MARKER => Ok(()),
            _ => Err(ObjectError::Away("it gave back other bytes than it was given".to_owned())),
        }
    }

    async fn write<T>(&self, asking: Asking<'_, T>) -> Result<T, ObjectError> {
        self.ask(OBJECT_WRITE_TIME_MAX, asking).await
    }

    pub(crate) async fn put(&self, key: &str, bytes: Bytes) -> Result<(), ObjectError> {
        self.write(self.objects.put(key, bytes)).await
    }

    pub(crate) async fn begin(&self, key: &str) -> Result<String, ObjectError> {
        self.write(self.objects.begin(key)).await
    }

    pub(crate) async fn put_part(
        &self,
        key: &str,
        upload: &str,
        index: usize,
        bytes: Bytes,
    ) -> Result<String, ObjectError> {
        self.write(self.objects.put_part(key, upload, index, bytes)).await
    }

    pub(crate) async fn complete(
        &self,
        key: &str,
        upload: &str,
        parts: Vec<String>,
    ) -> Result<(), ObjectError> {
        self.write(self.objects.complete(key, upload, parts)).await
    }

    /// Bytes of an object, as the store says.
    pub(crate) async fn size(&self, key: &str) -> Result<u64, ObjectError> {
        self.write(self.objects.size(key)).await
    }

    /// Removes an object, and the parts of an upload of it where one is known.
    pub(crate) async fn remove(&self, key: &str, upload: Option<&str>) -> Result<(), ObjectError> {
        if let Some(upload) = upload {
            self.write(self.objects.abort(key, upload)).await?;
        }
        self.write(self.objects.remove(key)).await?;
        self.counters.removed.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// A page of a unit's uploads that are neither completed nor given up.
    pub(crate) async fn uploads(&self, unit: UnitId) -> Result<Vec<(String, String)>, ObjectError> {
        self.write(self.objects.uploads(unit)).await
    }

    /// Gives an upload up.
    pub(crate) async fn abort(&self, key: &str, upload: &str) -> Result<(), ObjectError> {
        self.write(self.objects.abort(key, upload)).await
    }

    /// A page of a unit's keys behind `after`.
    pub(crate) async fn list(&self, unit: UnitId, after: Option<&str>) -> Result<Vec<String>, ObjectError> {
        self.write(self.objects.list(unit, after)).await
    }
}

/// What stands in the marker, for whoever finds it.
const MARKER: &[u8] =
    b"A Lighter storage server keeps segments of this unit here. Docs: STORAGE.md, object store.\n";
