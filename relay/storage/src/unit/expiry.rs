//! Expiry: each unit deletes by itself what has had its day (SPEC C11), unless the clock is in doubt.
//!
//! The key goes first: the header block is overwritten in place with one that has none, and synced; only then is the
//! file removed. A crash between the two leaves a segment that nobody can read, removed at the next sweep. The day is
//! the header's; no file time is ever looked at.
//!
//! Of a segment whose records were moved, the key is in the stub: erased, it makes the object unreadable at once, wherever the
//! store keeps it. The object itself is removed as soon as the store takes it, which is remembered until then (`strays`).

use std::io;
use std::time::Duration;

use lighter_protocol::UnixTime;

use super::kept::Kept;
use super::leave::{aside_until, object_aside, part_of};
use super::{Shelved, Unit, gone_or_not_there};
use crate::disk::{Disk, DiskFile};
use crate::limits::{CLOCK_DOUBT, CLOCK_LEAP, CLOCK_PROBATION};
use crate::segment::file_name;
use crate::segment::header::SegmentHeader;
use crate::segment::stub::stub_name;

/// Watches a machine's clock against its own past, the monotonic clock, and what peers say.
///
/// It says whether the time can be believed: never whether it is right. One that begins far ahead of what was believed last
/// is on probation: either the machine was off for long, or its clock is wrong and will be set right in a moment.
#[derive(Clone, Copy, Debug)]
pub struct ClockWatch {
    /// The latest time believed, before and after restarts.
    latest: UnixTime,
    /// Wall and monotonic time at the start.
    anchor: (UnixTime, Duration),
    /// On probation until then, by the monotonic clock.
    probation: Option<Duration>,
    /// Whether the last peer that told its time disagreed.
    peer_disagrees: bool,
}

impl ClockWatch {
    /// A watch that starts at `wall` and `monotonic`; `latest` is what was believed before the restart.
    pub fn new(latest: UnixTime, wall: UnixTime, monotonic: Duration) -> Self {
        let mut watch = Self { latest, anchor: (wall, monotonic), probation: None, peer_disagrees: false };
        watch.begin(wall, monotonic);
        watch
    }

    fn begin(&mut self, wall: UnixTime, monotonic: Duration) {
        self.anchor = (wall, monotonic);
        let is_far_ahead = wall > self.latest.plus(CLOCK_LEAP);
        self.probation = is_far_ahead.then(|| monotonic.saturating_add(CLOCK_PROBATION));
    }

    /// A peer told its time.
    pub fn hear(&mut self, wall: UnixTime, peers: UnixTime) {
        self.peer_disagrees = wall.0.abs_diff(peers.0) > CLOCK_DOUBT.as_secs();
    }

    /// Whether `wall` can be believed. While it cannot, nothing expires.
    pub fn believes(&mut self, wall: UnixTime, monotonic: Duration) -> bool {
        if self.probation.is_some() && self.has_jumped(wall, monotonic) {
            self.begin(wall, monotonic); // it was set right, perhaps
        }
        if self.probation.is_some_and(|until| monotonic < until) {
            return false;
        }
        let has_jumped = self.has_jumped(wall, monotonic);
        let went_back = wall.plus(CLOCK_DOUBT) < self.latest;
        if has_jumped || went_back || self.peer_disagrees {
            return false;
        }
        self.latest = self.latest.max(wall);
        self.probation = None;
        true
    }

    fn has_jumped(&self, wall: UnixTime, monotonic: Duration) -> bool {
        let expected = self.anchor.0.plus(monotonic.saturating_sub(self.anchor.1));
        wall.0.abs_diff(expected.0) > CLOCK_DOUBT.as_secs()
    }
}

impl<D: Disk> Unit<D> {
    /// The latest time that was believed before this start.
    pub fn latest(&self) -> UnixTime {
        self.meta.latest
    }

    /// Deletes what has had its day, at a time that is believed: copies, what was set aside, what was being received;
    /// and what was received in vain. Gives how many copies went.
    ///
    /// # Errors
    /// The disk's; what is left goes at the next sweep.
    // SPEC: C11
    pub fn sweep(&mut self, now: UnixTime) -> io::Result<u64> {
        let (mut gone, mut failed) = (0, None);
        for shelved in self.shelf.all() {
            if shelved.header.deletion_day.end() <= now {
                match self.expire(&shelved) {
                    Ok(()) => gone += 1,
                    // One that cannot be removed does not keep the others.
                    Err(error) => failed = Some(error),
                }
            }
        }
        self.sweep_partials(now);
        let names = self.disk.list()?;
        failed = self.sweep_moved(&names).err().or(failed);
        for name in names {
            let wiped = if aside_until(&name).is_some_and(|day| day.end() <= now) {
                let wiped = match object_aside(&name) {
                    Some(object) => self.make_stray(&name, object).and_then(|()| self.wipe_stray(&object)),
                    None => self.wipe(&name),
                };
                wiped.map(|()| gone += 1)
            } else if let Some(segment) = part_of(&name).filter(|segment| !self.has_partial(*segment)) {
                self.wipe_part(segment)
            } else {
                Ok(())
            };
            failed = wiped.err().or(failed);
        }
        self.sweep_beside()?;
        self.disk.sync_dir()?;
        self.meta.incomplete.retain(|_, day| day.end() > now);
        if now > self.meta.latest {
            self.meta.latest = now;
            self.meta.store(&self.disk)?;
        }
        failed.map_or(Ok(gone), Err)
    }

    fn expire(&mut self, shelved: &Shelved<D>) -> io::Result<()> {
        let segment = shelved.header.segment;
        erase_key(&shelved.file, &shelved.header)?;
        if let Some(place) = shelved.moved() {
            // What a move may have left; the object goes when the store is there, and is unreadable from now on.
            self.wipe(&file_name(segment))?;
            self.make_stray(&stub_name(segment), place.name)?;
        } else {
            gone_or_not_there(self.disk.remove(&file_name(segment)))?;
        }
        self.forget(segment);
        Ok(())
    }
}

fn erase_key<F: DiskFile>(file: &F, header: &SegmentHeader) -> io::Result<()> {
    if header.day_key.is_some() {
        let erased = SegmentHeader { day_key: None, ..header.clone() };
        file.write_at(0, &erased.encode())?;
        file.sync_data()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3600;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn bad_input_37_a_clock_that_jumps_is_not_believed() {
        let start = UnixTime(1_000_000);
        let mut watch = ClockWatch::new(start, start, at(50));
        assert!(watch.believes(UnixTime(1_000_000 + HOUR), at(50 + HOUR)));
        assert!(!watch.believes(UnixTime(1_000_000 + 26 * HOUR), at(50 + 2 * HOUR)), "a day ahead");
        assert!(!watch.believes(UnixTime(1_000_000 - 22 * HOUR), at(50 + 2 * HOUR)), "a day back");
        assert!(watch.believes(UnixTime(1_000_000 + 2 * HOUR), at(50 + 2 * HOUR)), "right again");
        watch.hear(UnixTime(1_000_000 + 2 * HOUR), UnixTime(1_000_000));
        assert!(!watch.believes(UnixTime(1_000_000 + 2 * HOUR), at(50 + 2 * HOUR)), "a peer disagrees");
        watch.hear(UnixTime(1_000_000 + 2 * HOUR), UnixTime(1_000_000 + 2 * HOUR + 3));
        assert!(watch.believes(UnixTime(1_000_000 + 2 * HOUR), at(50 + 2 * HOUR)));
    }

    #[test]
    fn bad_input_37_a_clock_that_was_set_back_before_a_restart_is_not_believed() {
        let mut watch = ClockWatch::new(UnixTime(1_000_000), UnixTime(1_000_000 - 2 * HOUR), at(0));
        assert!(!watch.believes(UnixTime(1_000_000 - 2 * HOUR), at(0)));
        assert!(watch.believes(UnixTime(1_000_000 - HOUR), at(HOUR)));
    }

    #[test]
    fn bad_input_37_a_start_far_ahead_of_the_last_time_waits_until_the_clock_was_set_right_or_an_hour_has_gone()
     {
        let (latest, start) = (UnixTime(1_000_000), UnixTime(1_000_000 + 31 * 24 * HOUR));
        let mut watch = ClockWatch::new(latest, start, at(5));
        assert!(!watch.believes(start, at(5)));
        assert!(!watch.believes(start.plus(at(HOUR - 1)), at(5 + HOUR - 1)));
        let mut right = watch;
        assert!(right.believes(latest.plus(at(HOUR)), at(5 + HOUR - 1)), "it was set right");
        assert!(!right.believes(start.plus(at(HOUR)), at(5 + HOUR)), "and jumps as any that was believed");
        let mut again = watch;
        let elsewhere = start.plus(at(100 * 24 * HOUR));
        assert!(!again.believes(elsewhere, at(5 + HOUR)), "its hour begins anew where it jumps elsewhere");
        assert!(again.believes(elsewhere.plus(at(HOUR)), at(5 + 2 * HOUR)));
        watch.hear(start, latest);
        assert!(!watch.believes(start.plus(at(2 * HOUR)), at(5 + 2 * HOUR)), "the relay disagrees");
        watch.hear(start, start);
        assert!(watch.believes(start.plus(at(2 * HOUR)), at(5 + 2 * HOUR)), "the machine was off for long");
        let mut near = ClockWatch::new(latest, UnixTime(1_000_000 + 7 * 24 * HOUR), at(0));
        assert!(near.believes(UnixTime(1_000_000 + 7 * 24 * HOUR), at(0)), "within the grace of each day");
    }
}
