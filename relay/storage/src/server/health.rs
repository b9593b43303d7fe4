//! How a unit is, for its writers: to choose among units by load (SPEC C6), and for whoever looks after it.

use std::sync::Arc;

use super::connection::{Answer, Session};
use crate::disk::Disk;
use crate::ids::UnitId;
use crate::limits::PAGE_MAX;
use crate::objects::Depot;
use crate::unit::Shelf;
use crate::unit::worker::off_reactor;
use crate::wire::{ObjectsHealth, Response, UnitHealth};

impl<D: Disk> Session<D> {
    pub(super) async fn health(&self, unit: UnitId) -> Answer {
        let handle = self.unit(unit)?;
        // Before this request waits there itself.
        let queue = u32::try_from(handle.queue_len()).unwrap_or(u32::MAX);
        let asked = handle.call(|unit| {
            let space = (unit.space(), unit.room_for_copies());
            (space, unit.incomplete(), unit.scrub_position(), unit.stray_count())
        });
        let ((space, free_for_copies), incomplete, scrub, strays) = asked.await?;
        let depot = self.shared.depot.clone();
        let (shelf, writer) = (Arc::clone(handle.shelf()), self.peer);
        let health = off_reactor(move || UnitHealth {
            total: space.total,
            free: space.free,
            free_for_copies,
            queue,
            sync_p99_us: shelf.sync_times().p99_us(),
            segments: shelf.len() as u64,
            set_aside: shelf.set_aside_count(),
            incomplete,
            damaged_segments: shelf.damaged_count(),
            damaged: shelf.damaged_of(&writer, PAGE_MAX),
            scrub: scrub.progress(&shelf),
            objects: objects_of(&shelf, strays, depot.as_deref()),
        });
        Ok((Response::Health(health.await?), Vec::new()))
    }
}

/// What of a unit is in the object store.
fn objects_of<D: Disk>(shelf: &Shelf<D>, strays: u64, depot: Option<&Depot>) -> ObjectsHealth {
    let (segments, bytes, local_bytes) = shelf.moved();
    let has_store = depot.is_some();
    let is_well = depot.is_some_and(|depot| depot.counters().is_well);
    ObjectsHealth { has_store, is_well, segments, bytes, local_bytes, strays }
}
