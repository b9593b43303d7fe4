//! `lighter-relay`: parses the command line, does what it says, ends with an exit code that says how it went.

use std::process::ExitCode;

use clap::Parser;
use lighter_relay::cli::Cli;

#[tokio::main]
async fn main() -> ExitCode {
    // One TLS provider for the whole process; a second call would find it in place.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    lighter_relay::commands::run(Cli::parse()).await.into()
}
