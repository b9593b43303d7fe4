//! What a transfer costs the machine: processor time, and memory at its peak, of the processes that do it.
//!
//! Read from `/proc` (proc(5)): a process's peak (`VmHWM`) is set back when the work begins, and read many times a second until it
//! ends, since it is gone with the process; its processor time can still be read when it has ended and nobody has waited for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::Serialize;

/// How often memory is looked at.
const INTERVAL: Duration = Duration::from_millis(5);
/// Of processor time in `/proc/PID/stat`, in a second: the same on every Linux for programs (`USER_HZ`, time(7)).
const TICKS_PER_S: u64 = 100;

/// What some work took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Cost {
    /// Seconds of processor time, of all its processes together.
    pub(crate) cpu_s: f64,
    /// MiB of memory at its peak, of the process that took most.
    pub(crate) peak_mib: f64,
}

/// A look at processes while they work.
#[derive(Debug)]
pub(crate) struct Watch {
    processes: Vec<Watched>,
    ended: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Watched {
    pid: u32,
    /// Ticks before the work.
    before: u64,
    /// KiB.
    peak: JoinHandle<u64>,
}

impl Watch {
    /// From now on.
    pub(crate) fn start(pids: &[u32]) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let watched = |pid: &u32| Watched::start(*pid, &ended);
        Self { processes: pids.iter().map(watched).collect(), ended }
    }

    /// Until now; processes that have ended may not have been waited for yet.
    pub(crate) fn end(self) -> Cost {
        self.ended.store(true, Ordering::Relaxed);
        let mut cost = (0, 0);
        for Watched { pid, before, peak } in self.processes {
            cost.0 += ticks(pid).unwrap_or(before).saturating_sub(before);
            cost.1 = peak.join().unwrap_or(0).max(cost.1);
        }
        let (ticks, kib) = cost;
        Cost { cpu_s: figure(ticks) / figure(TICKS_PER_S), peak_mib: figure(kib) / 1024.0 }
    }
}

impl Watched {
    fn start(pid: u32, ended: &Arc<AtomicBool>) -> Self {
        // 5: the peak (proc(5)). Where it is not ours to set back, the peak is that of its whole life.
        let _ = std::fs::write(format!("/proc/{pid}/clear_refs"), "5");
        let before = ticks(pid).unwrap_or(0);
        let ended = Arc::clone(ended);
        let peak = std::thread::spawn(move || {
            let mut peak = 0;
            while let Some(now) = peak_kib(pid) {
                peak = peak.max(now);
                if ended.load(Ordering::Relaxed) {
                    break;
                }
                std::thread::sleep(INTERVAL);
            }
            peak
        });
        Self { pid, before, peak }
    }
}

/// Ticks of processor time, its own and the system's for it.
fn ticks(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Its name is in brackets, and may have blanks and brackets in it.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11);
    Some(times.next()?.parse::<u64>().ok()? + times.next()?.parse::<u64>().ok()?)
}

/// None where it has ended.
fn peak_kib(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn figure(count: u64) -> f64 {
    crate::settings::amount(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_costs_is_seen() {
        let watch = Watch::start(&[std::process::id()]);
        let bytes = std::hint::black_box(vec![1_u8; 64 << 20]);
        let mut sum = 0_u64;
        let began = std::time::Instant::now();
        while began.elapsed() < Duration::from_millis(100) {
            sum += bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>();
        }
        std::hint::black_box(sum);
        let cost = watch.end();
        assert!(cost.cpu_s > 0.02 && cost.peak_mib > 64.0, "{cost:?}");
    }
}
