//! `lighter-relay`, the real program as a process: its commands, its roles, what it takes and what it hands on, and what
//! is there again after it was stopped, killed, or lost its view.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests: what fails to unwrap fails the test")]

mod commands;
mod keys;
mod recovery;
mod roles;
mod sink;
mod smtp;
mod world;
