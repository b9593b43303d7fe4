//! The time, and what each party takes it for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lighter_protocol::{PeerId, UnixTime};
use tokio::time::Instant;

use super::{NOW, lock};
use crate::array::Clock;

/// One time that passes for all, and how far each party's clock is from it.
pub struct Clocks {
    started: Instant,
    set: Mutex<Settings>,
}

#[derive(Default)]
struct Settings {
    /// Time that passed while nothing ran.
    skipped: Duration,
    /// Seconds ahead, or, below zero, behind.
    offsets: BTreeMap<PeerId, i64>,
}

impl Clocks {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { started: Instant::now(), set: Mutex::default() })
    }

    /// The time as it is.
    pub fn now(&self) -> UnixTime {
        NOW.plus(self.started.elapsed()).plus(lock(&self.set).skipped)
    }

    /// The time passes, without anything of the simulation's own time: whoever runs meanwhile sees its clock jump.
    pub fn skip(&self, time: Duration) {
        lock(&self.set).skipped += time;
    }

    /// From now on, the clock of `party` is so many seconds ahead, or, below zero, behind.
    pub fn set(&self, party: PeerId, offset: i64) {
        lock(&self.set).offsets.insert(party, offset);
    }

    /// How far the clock of `party` is ahead.
    pub fn offset(&self, party: &PeerId) -> i64 {
        lock(&self.set).offsets.get(party).copied().unwrap_or_default()
    }

    /// All clocks are right again.
    pub fn heal(&self) {
        lock(&self.set).offsets.clear();
    }

    /// What `party` takes the time for.
    pub fn clock_of(self: &Arc<Self>, party: PeerId) -> Clock {
        let clocks = Arc::clone(self);
        Arc::new(move || UnixTime(clocks.now().0.saturating_add_signed(clocks.offset(&party))))
    }
}
