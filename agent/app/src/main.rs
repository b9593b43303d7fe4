//! The agent's program: parse, build, run, stop.

use std::process::ExitCode;

use clap::Parser;
use lighter_agent::cli::Cli;

fn main() -> ExitCode {
    lighter_agent::run(Cli::parse()).into()
}
