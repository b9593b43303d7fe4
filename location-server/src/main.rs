//! `lighter-location`: see `--help`.

mod cli;
mod export;
mod show;

use std::process::ExitCode;

use clap::Parser;
use lighter_shell::Exit;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    // The one provider, for whatever asks for the default. An error means that it is installed already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("lighter-location: {error}");
            return Exit::Failed.into();
        }
    };
    match runtime.block_on(cli.run()) {
        Ok(()) => Exit::Done.into(),
        Err(failure) => {
            eprintln!("lighter-location: {:#}", failure.error);
            failure.exit.into()
        }
    }
}
