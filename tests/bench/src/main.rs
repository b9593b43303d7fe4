//! `cargo peers`: Lighter's benchmarks, each beside its peer in the same run (DESIGN §11).
//!
//! Ours and the peer's run in turn, so that a machine that grows slower or faster meanwhile does so to both; the figure
//! is the median of the rounds, and what counts is the ratio.

mod detach;
mod measure;

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Parser;

use crate::measure::{Comparison, Settings};

/// Benchmarks, each beside its peer in the same run.
#[derive(Debug, Parser)]
#[command(name = "cargo peers", bin_name = "cargo peers", version)]
struct Options {
    /// Only these; all of them where none is named.
    names: Vec<String>,
    /// Prints JSON: `[{name, ours, peer, unit, ratio, aim, met}]`.
    #[arg(long)]
    json: bool,
    /// Rounds of each; the median counts.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Prints the names, and runs nothing.
    #[arg(long)]
    list: bool,
}

/// A benchmark by its name.
struct Benchmark {
    name: &'static str,
    run: fn(&Settings) -> Result<Vec<Comparison>>,
}

/// In the order of DESIGN §11.
const BENCHMARKS: &[Benchmark] = &[Benchmark { name: "detach", run: detach::run }];

fn main() -> ExitCode {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match run(&Options::parse()) {
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
    let settings = Settings { rounds: options.rounds };
    let mut comparisons = Vec::new();
    for benchmark in BENCHMARKS {
        if options.names.is_empty() || options.names.iter().any(|name| name == benchmark.name) {
            eprintln!("… {}", benchmark.name);
            comparisons.extend((benchmark.run)(&settings)?);
        }
    }
    if options.json {
        return print(&serde_json::to_string_pretty(&comparisons)?);
    }
    print(&measure::table(&comparisons))
}

#[expect(clippy::print_stdout, reason = "the figures are what the command is for")]
fn print(text: &str) -> Result<()> {
    println!("{text}");
    Ok(())
}
