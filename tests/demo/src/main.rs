//! `cargo demo`: the main job on this machine, everything real, nothing to set up.
//!
//! Starts a location server, two storage servers, a relay and two agents in a temporary folder, on ports from the
//! kernel; mails a large attachment to somebody whose agent is off, then starts it; then sends from agent to agent.
//! Every step is verified, and the exit code is 0 only if every one was.

mod steps;
mod table;

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Parser;

/// Runs Lighter's main job on this machine: everything real, nothing to set up.
#[derive(Debug, Parser)]
#[command(name = "cargo demo", bin_name = "cargo demo", version)]
struct Options {
    /// Leaves everything running at the end, and prints commands to try; Ctrl-C ends it.
    #[arg(long)]
    keep: bool,
    /// Prints the table of what happened as JSON.
    #[arg(long)]
    json: bool,
    /// Size of the attachment, in megabytes.
    #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    size: u64,
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    match demonstrate(&options).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn demonstrate(options: &Options) -> Result<bool> {
    build_programs()?;
    let mut table = table::Table::new(options.json);
    let run = steps::run(&mut table, options.size * 1_000_000).await;
    table.print()?;
    let mut world = run?;
    if options.keep {
        keep(&mut world, options.json).await?;
    }
    Ok(table.all_verified())
}

/// Builds the three programs with the cargo and the profile that this one was built with; where `LIGHTER_BIN_DIR` names
/// a folder, those in it are taken as they are.
fn build_programs() -> Result<()> {
    if std::env::var_os("LIGHTER_BIN_DIR").is_some() {
        return Ok(());
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = std::process::Command::new(cargo);
    build.args(["build", "--quiet", "-p", "lighter-location", "-p", "lighter-relay", "-p", "lighter-agent"]);
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    eprintln!("building the programs (the first time takes a few minutes) …");
    if !build.status().context("run cargo")?.success() {
        bail!("the programs do not build");
    }
    Ok(())
}

/// Leaves everything running until Ctrl-C.
#[expect(clippy::print_stdout, reason = "the commands are what was asked for")]
async fn keep(world: &mut steps::Shown, json: bool) -> Result<()> {
    let commands = world.commands()?;
    if json {
        eprintln!("{commands}");
    } else {
        println!("{commands}");
    }
    tokio::signal::ctrl_c().await?;
    world.stop().await
}
