//! `cargo peers`: Lighter's benchmarks, each beside its peers in the same run (DESIGN §11).
//!
//! Ours and the peers' run in turn, so that a machine that grows slower or faster meanwhile does so to all; the figure
//! is the median of the rounds, and what counts is the ratio. What is measured, and what was found: `docs/performance.md`.

mod appends;
mod cost;
mod detach;
mod dying;
mod http_client;
mod lookups;
mod lossy;
mod measure;
mod opening;
mod presence;
mod pull;
mod rebuild;
mod settings;
mod tickets;
mod worker;
mod wormhole;

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Parser;

use crate::measure::Comparison;
use crate::settings::Settings;

/// Benchmarks, each beside its peers in the same run.
#[derive(Debug, Parser)]
#[command(name = "cargo peers", bin_name = "cargo peers", version)]
struct Options {
    /// Only these; all of them where none is named.
    names: Vec<String>,
    /// Prints JSON: `[{name, ours, peer, unit, ratio, aim, met, our_cost, peer_cost}]`; what there is none of is null.
    #[arg(long)]
    json: bool,
    /// Prints the names, and runs nothing.
    #[arg(long)]
    list: bool,
    #[command(flatten)]
    settings: Settings,
}

/// A benchmark by its name.
struct Benchmark {
    name: &'static str,
    run: fn(&Settings) -> Result<Vec<Comparison>>,
}

/// In the order of DESIGN §11.
const BENCHMARKS: &[Benchmark] = &[
    Benchmark { name: "pull", run: pull::run },
    Benchmark { name: "many", run: pull::many },
    Benchmark { name: "lossy", run: lossy::run },
    Benchmark { name: "wormhole", run: wormhole::run },
    Benchmark { name: "dying", run: dying::run },
    Benchmark { name: "detach", run: detach::run },
    Benchmark { name: "appends", run: appends::run },
    Benchmark { name: "rebuild", run: rebuild::run },
    Benchmark { name: "opening", run: opening::run },
    Benchmark { name: "tickets", run: tickets::run },
    Benchmark { name: "lookups", run: lookups::run },
    Benchmark { name: "presence", run: presence::run },
];

fn main() -> ExitCode {
    match worker::run_if_started_as_one().unwrap_or_else(|| run(&Options::parse())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("peers: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    let known: Vec<&str> = BENCHMARKS.iter().map(|benchmark| benchmark.name).collect();
    if let Some(unknown) = options.names.iter().find(|name| !known.contains(&name.as_str())) {
        bail!("no benchmark {unknown}: there are {}", known.join(", "));
    }
    if options.list {
        return print(&known.join("\n"));
    }
    if cfg!(debug_assertions) {
        eprintln!("built without optimisation: the figures say nothing. Run it as `cargo peers`.");
    }
    let comparisons = measured(&options.names, &options.settings)?;
    if options.json {
        return print(&serde_json::to_string_pretty(&comparisons)?);
    }
    print(&measure::table(&comparisons))
}

/// The benchmarks of these names, or all.
fn measured(names: &[String], settings: &Settings) -> Result<Vec<Comparison>> {
    // Ignored where another test of this process has done it.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut comparisons = Vec::new();
    for benchmark in BENCHMARKS {
        if names.is_empty() || names.iter().any(|name| name == benchmark.name) {
            eprintln!("… {}", benchmark.name);
            comparisons.extend((benchmark.run)(settings).context(benchmark.name)?);
        }
    }
    Ok(comparisons)
}

#[expect(clippy::print_stdout, reason = "the figures are what the command is for")]
fn print(text: &str) -> Result<()> {
    println!("{text}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The other process of a benchmark, where this is one: see [`worker`].
    #[test]
    fn a_worker() {
        if let Some(ended) = worker::run_if_started_as_one() {
            ended.unwrap();
        }
    }

    #[test]
    fn every_benchmark_runs_and_no_side_stands_still() {
        let small = "peers --rounds 1 --pull-mib 3 --many-blobs 30 --detach-mib 1 --append-writers 1,3 --appends 5 --stores 2000 \
             --connections 3 --lookups 30 --batches 4 --ticket-kib 64,1500 --downloads-mib 4 --rebuild-mib 3 --opened-records 1000 \
             --lossy-mib 1 --dying-mib 48 --wormhole-mib 3 --presence-stores 500 --presence-changes 200";
        let options = Options::try_parse_from(small.split_whitespace()).unwrap();
        let comparisons = measured(&[], &options.settings).unwrap();
        assert!(comparisons.len() >= 14, "where a peer is not installed, its comparisons are left out");
        for Comparison { name, ours, peer, ratio, .. } in comparisons {
            assert!([ours, peer, ratio].iter().all(|rate| rate.is_finite() && *rate > 0.0), "{name}");
        }
    }

    #[test]
    fn an_unknown_name_is_said_before_anything_runs() {
        let options = Options::try_parse_from(["peers", "pull", "puls"]).unwrap();
        assert!(run(&options).unwrap_err().to_string().contains("puls"));
    }
}
