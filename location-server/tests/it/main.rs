//! The location server over real sockets.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests: a failed unwrap is a failed test")]

mod commands;
mod foreign;
mod guesses;
mod helper;
mod hosted;
mod http;
mod kept;
mod none;
mod outgoing;
mod presence;
mod rotation;
mod stores;
mod world;
