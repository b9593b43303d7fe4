//! Starts the real programs, for end-to-end tests, the demo and benchmarks.
//!
//! Everything runs in one temporary folder, on ports of its own ([`ports`]); everything that was started is ended when its
//! handle is dropped. Nothing here sleeps and hopes: a program is up when it says so (the `READY=1` of `sd_notify`),
//! and what a program does later is waited for by the event that shows it.

pub mod homes;
pub mod imap;
pub mod isolated;
pub mod line;
pub mod mail;
pub mod network;
pub mod peers;
pub mod ports;
pub mod process;
pub mod programs;
pub mod small_disk;
pub mod strace;
pub mod watch;
pub mod wire;
pub mod world;

pub use process::Process;
pub use world::{Agent, World};
