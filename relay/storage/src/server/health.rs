//! How a unit is, for its writers: to choose among units by load (SPEC C6), and for whoever looks after it.

use std::sync::Arc;

use super::connection::{Answer, Session};
use crate::disk::Disk;
use crate::ids::UnitId;
use crate::limits::PAGE_MAX;
use crate::unit::worker::off_reactor;
use crate::wire::{Response, UnitHealth};

impl<D: Disk> Session<D> {
    pub(super) async fn health(&self, unit: UnitId) -> Answer {
        let handle = self.unit(unit)?;
        // Before this request waits there itself.
        let queue = u32::try_from(handle.queue_len()).unwrap_or(u32::MAX);
        let asked = handle
            .call(|unit| (unit.space(), unit.room_for_copies(), unit.incomplete(), unit.scrub_position()));
        let (space, free_for_copies, incomplete, scrub) = asked.await?;
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
        });
        Ok((Response::Health(health.await?), Vec::new()))
    }
}
