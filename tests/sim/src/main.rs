//! `cargo sim`: simulated clusters, drawn from seeds, against a reference model (`docs/SIMULATION.md`).
//!
//! A seed decides all: the story, what fails in it, and when. The same seed is the same run to the last step, so that
//! each failure can be seen again, as often as needed, with every log line.

mod campaign;
mod mutations;
mod one;
#[expect(clippy::unwrap_used, clippy::panic, reason = "a simulation fails by panicking, helpers included")]
mod queue;
#[expect(clippy::panic, reason = "a simulation fails by panicking, helpers included")]
mod storage;
mod trace;

use std::num::NonZeroUsize;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use crate::campaign::Campaign;
use crate::one::World;

/// Runs simulated clusters against a reference model, one for each seed.
///
/// Exits with 0 where all seeds were run and none failed, 1 otherwise, 2 on wrong use. Ctrl-C ends it after the seeds
/// that are being run, with the totals.
#[derive(Debug, Parser)]
#[command(name = "cargo sim", bin_name = "cargo sim", version)]
struct Options {
    /// How many seeds are run.
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, value_name = "S", default_value_t = 0)]
    from: u64,
    /// Only this world; where none is named, each seed picks one.
    #[arg(long)]
    world: Option<World>,
    /// Runs this seed alone.
    #[arg(long, value_name = "S", conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,
    /// Prints every step of it, and every log line.
    #[arg(long, requires = "seed", conflicts_with = "json")]
    trace: bool,
    /// Prints the outcome as JSON: `{seeds, failed, interrupted, seconds, failures: [{seed, world, what, replay}]}`.
    #[arg(long)]
    json: bool,
    /// Breaks a copy of the code in each way that is known, and prints which seed finds it, of so many at most.
    #[arg(long, conflicts_with_all = ["from", "world", "seed", "jobs"])]
    mutations: bool,
    /// How many run at the same time; as many as there are processors.
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
}

impl Options {
    fn campaign(&self) -> Campaign {
        let (from, count) = self.seed.map_or((self.from, self.seeds), |seed| (seed, 1));
        Campaign { from, count, world: self.world, jobs: self.jobs, trace: self.trace }
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    one::watch_panics();
    match if options.mutations { run_mutations(&options) } else { run(&options) } {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("sim: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all seeds were run, and none failed.
fn run(options: &Options) -> Result<bool> {
    let outcome = options.campaign().run(!options.json)?;
    if options.json {
        print(&serde_json::to_string_pretty(&outcome)?);
    } else {
        print(&outcome.last_line());
    }
    Ok(outcome.is_good())
}

/// Whether each way to break the code was found.
fn run_mutations(options: &Options) -> Result<bool> {
    if !options.json {
        print(mutations::HEAD);
    }
    let tell = |mutation: &mutations::Mutation| {
        if !options.json {
            print(&mutation.row());
        }
    };
    let mutations = mutations::run(options.seeds, tell)?;
    if options.json {
        print(&serde_json::to_string_pretty(&mutations)?);
    }
    Ok(mutations.iter().all(mutations::Mutation::is_found))
}

#[expect(clippy::print_stdout, reason = "the outcome is what the command is for")]
fn print(text: &str) {
    println!("{text}");
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_seed_alone_is_one_seed_and_goes_with_no_others() {
        let options = Options::try_parse_from(["sim", "--seed", "7", "--trace", "--world", "queue"]).unwrap();
        let Campaign { from, count, world, trace, .. } = options.campaign();
        assert_eq!((from, count, world, trace), (7, 1, Some(World::Queue), true));
        for wrong in [&["--seed", "7", "--seeds", "8"][..], &["--trace"], &["--world", "network"]] {
            assert!(Options::try_parse_from([&["sim"], wrong].concat()).is_err(), "{wrong:?}");
        }
    }

    /// Features of a crate are joined over all that are built together: what only simulations ask for must not end up in
    /// programs that are built by themselves, as they ship.
    #[test]
    fn the_programs_carry_nothing_of_it() {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        for program in ["lighter-relay", "lighter-location", "lighter-agent"] {
            let tree = Command::new(&cargo)
                .args([
                    "tree",
                    "--locked",
                    "--offline",
                    "--edges",
                    "normal,build,features",
                    "--package",
                    program,
                ])
                .output()
                .unwrap();
            let tree = String::from_utf8_lossy(&tree.stdout).into_owned();
            assert!(tree.contains("tokio feature \"rt\""), "{program}: features are listed");
            for feature in ["lighter-storage feature \"sim\"", "tokio feature \"test-util\""] {
                assert!(!tree.contains(feature), "{program} carries {feature}");
            }
        }
    }
}
