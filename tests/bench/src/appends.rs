//! Durable appends of 64 KiB: into one unit of the storage array, and through the whole array (encrypted, over TLS, to two
//! storage servers with a folder each); beside the same writes and syncs into plain files with no format,
//! and beside its own parts.

mod array;
mod parts;
mod plain;
mod unit;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use array::Way;

use crate::measure::{Comparison, Pair, Side, Work, compare};
use crate::settings::{Settings, amount};

/// Bytes of one append.
const APPEND_LEN: usize = 64 * 1024;
/// Of appends that fit into one segment of 1 GiB, with what stands around them.
const ROUND_MAX: u64 = 15_000;

pub(crate) fn run(settings: &Settings) -> Result<Vec<Comparison>> {
    let runtime = Runtime::new()?;
    let mut comparisons = Vec::new();
    for &writers in &settings.append_writers {
        let load = Load { writers, appends: settings.appends };
        ensure!(load.total() <= ROUND_MAX, "at most {ROUND_MAX} appends in a round: lower --appends");
        comparisons.extend(with(&runtime, settings, load)?);
    }
    Ok(comparisons)
}

fn with(runtime: &Runtime, settings: &Settings, load: Load) -> Result<Vec<Comparison>> {
    let named = |name: &str| match load.writers {
        1 => format!("{name}, 1 writer"),
        writers => format!("{name}, {writers} writers"),
    };
    let sides = vec![
        Side::new(named("append 64 KiB, one unit"), || {
            let folder = settings.temporary()?;
            runtime.block_on(unit::run(folder.path(), load, Room::Filled))
        }),
        Side::new("a plain file", || {
            let folder = settings.temporary()?;
            runtime.block_on(plain::run(folder.path(), 1, load, Room::Filled))
        }),
        Side::new(named("append 64 KiB, array, 2 copies"), || {
            let folder = settings.temporary()?;
            runtime.block_on(array::run(folder.path(), load, Way::Tls))
        }),
        Side::new("two plain files", || {
            let folder = settings.temporary()?;
            runtime.block_on(plain::run(folder.path(), 2, load, Room::Filled))
        }),
        Side::new(named("append 64 KiB, one unit, extending"), || {
            let folder = settings.temporary()?;
            runtime.block_on(unit::run(folder.path(), load, Room::Extending))
        }),
        Side::new("a plain file, extending", || {
            let folder = settings.temporary()?;
            runtime.block_on(plain::run(folder.path(), 1, load, Room::Extending))
        }),
        Side::new("its hashing and encryption alone", || runtime.block_on(parts::encryption(load))),
        Side::new("its way over TLS alone", || runtime.block_on(parts::network(load))),
        Side::new("its two units alone", || {
            let folder = settings.temporary()?;
            runtime.block_on(parts::disk(folder.path(), load))
        }),
        Side::new(named("append 64 KiB, array within the process"), || {
            let folder = settings.temporary()?;
            runtime.block_on(array::run(folder.path(), load, Way::Inside))
        }),
    ];
    let pairs = [
        Pair { ours: 0, peer: 1, aim: Some(0.8) },
        Pair { ours: 4, peer: 5, aim: Some(0.8) },
        Pair { ours: 2, peer: 3, aim: None },
        Pair { ours: 9, peer: 3, aim: None },
        // Each ratio is the part's share of an append's time.
        Pair { ours: 2, peer: 6, aim: None },
        Pair { ours: 2, peer: 7, aim: None },
        Pair { ours: 2, peer: 8, aim: None },
    ];
    compare(settings.rounds, Work { amount: amount(load.total()), unit: "/s" }, sides, &pairs)
}

/// What a file is before it is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Room {
    /// Zeros were written ahead, as a unit does: a sync need not change the file's length.
    Filled,
    /// It grows with each append.
    Extending,
}

/// Who appends how much.
#[derive(Clone, Copy, Debug)]
struct Load {
    writers: usize,
    /// Of each.
    appends: u32,
}

impl Load {
    fn total(self) -> u64 {
        self.writers as u64 * u64::from(self.appends)
    }

    /// Each writer appends, waits until it is durable, and appends the next. Gives the time of all of it.
    async fn run<T: Send + Sync + 'static, F: Future<Output = Result<()>> + Send>(
        self,
        to: T,
        append: impl Fn(Arc<T>) -> F + Copy + Send + 'static,
    ) -> Result<Duration> {
        let to = Arc::new(to);
        let mut writers = JoinSet::new();
        let began = std::time::Instant::now();
        for _ in 0..self.writers {
            let to = Arc::clone(&to);
            writers.spawn(async move {
                for _ in 0..self.appends {
                    append(Arc::clone(&to)).await?;
                }
                Ok::<_, anyhow::Error>(())
            });
        }
        while let Some(ended) = writers.join_next().await {
            ended??;
        }
        Ok(began.elapsed())
    }
}

/// What is appended.
fn data() -> Vec<u8> {
    vec![0x5a; APPEND_LEN]
}
