//! Logs, on standard error: text, or JSON where `LIGHTER_LOG_FORMAT=json`; levels by `RUST_LOG`, `info` by default.
//!
//! WARN means that somebody should look; nothing personal is logged above DEBUG.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Starts logging for a program that serves. Called once, first thing.
pub fn init() {
    init_with("info");
}

/// Starts logging for a command that a person waits for: warnings only.
pub fn init_quiet() {
    init_with("warn");
}

fn init_with(default: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let is_json = std::env::var("LIGHTER_LOG_FORMAT").is_ok_and(|format| format == "json");
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second call (tests that run two programs in one process) changes nothing.
    let _ = if is_json {
        builder.json().try_init()
    } else {
        builder.with_ansi(std::io::stderr().is_terminal()).try_init()
    };
}
