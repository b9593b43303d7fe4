//! How much each benchmark does; the defaults are those of DESIGN §11.

use std::io;
use std::path::PathBuf;

use clap::Args;
use clap::builder::RangedU64ValueParser;
use tempfile::TempDir;

/// Bytes in a MiB.
pub(crate) const MIB: u64 = 1 << 20;

/// How much is done.
#[derive(Args, Clone, Debug)]
pub(crate) struct Settings {
    /// Rounds of each; the median counts.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) rounds: u32,
    /// Where files are written while it runs: a folder on a real disk. The system's temporary one by default.
    #[arg(long)]
    pub(crate) folder: Option<PathBuf>,
    /// pull: MiB of the blob.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u64).range(1..=65_536))]
    pub(crate) pull_mib: u64,
    /// many, wormhole: blobs of 16 KiB.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=200_000))]
    pub(crate) many_blobs: u32,
    /// lossy: MiB of the blob.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=4_096))]
    pub(crate) lossy_mib: u64,
    /// wormhole: MiB of the file.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u64).range(1..=65_536))]
    pub(crate) wormhole_mib: u64,
    /// dying: MiB of the blob.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u64).range(8..=65_536))]
    pub(crate) dying_mib: u64,
    /// detach: MiB of the message.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=2_048))]
    pub(crate) detach_mib: u64,
    /// appends: writers at once; several figures, with commas between them, are measured one after the other.
    #[arg(long, default_values_t = [1, 16], value_delimiter = ',', value_parser = writers())]
    pub(crate) append_writers: Vec<usize>,
    /// appends: of each writer, in a round.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=15_000))]
    pub(crate) appends: u32,
    /// rebuild: MiB that the lost server had.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    pub(crate) rebuild_mib: u64,
    /// opening: records in the unit.
    #[arg(long, default_value_t = 10_000_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub(crate) opened_records: u64,
    /// tickets: KiB of an attachment; several figures, with commas between them, are measured one after the other.
    #[arg(long, default_values_t = [256, 1024, 16_384], value_delimiter = ',', value_parser = RangedU64ValueParser::<u64>::new().range(1..=1_048_576))]
    pub(crate) ticket_kib: Vec<u64>,
    /// tickets: MiB that are downloaded in a round.
    #[arg(long, default_value_t = 2_048, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) downloads_mib: u64,
    /// lookups: stores that are registered.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..=4_000_000))]
    pub(crate) stores: u32,
    /// lookups, presence, tickets: connections that ask.
    #[arg(long, default_value_t = 16, value_parser = writers())]
    pub(crate) connections: usize,
    /// presence: stores that are registered.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=4_000_000))]
    pub(crate) presence_stores: u32,
    /// presence: changes in a round.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(2..=4_000_000))]
    pub(crate) presence_changes: u32,
    /// lookups: asked for one by one, in a round.
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) lookups: u32,
    /// lookups: requests for 1,000 at once, in a round.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) batches: u32,
}

/// 1 to 128.
fn writers() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=128)
}

impl Settings {
    /// A folder for a benchmark's files, removed when it is dropped.
    pub(crate) fn temporary(&self) -> io::Result<TempDir> {
        self.folder.as_ref().map_or_else(tempfile::tempdir, tempfile::tempdir_in)
    }
}

/// As a figure to divide: an amount needs no more digits than f64 has.
#[expect(clippy::cast_precision_loss, reason = "a rate needs no more digits than f64 has")]
pub(crate) fn amount(count: u64) -> f64 {
    count as f64
}
