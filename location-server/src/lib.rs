//! The location server: where users' stores are, and whether they can be reached now (SPEC A12 to A16).
//!
//! From the inside out: [`rows`] are durable, in an [`engine`]; [`directory`] is their view in memory and decides what
//! may change; [`writer`] makes changes durable in groups; [`presence`] and [`sessions`] live in memory only;
//! [`location`] is every call on all of that; [`api`] is those calls as HTTP, served by [`http`]; [`control`] lets the
//! admin's commands reach a server that runs; [`server`] puts it together.
//!
//! What is decided (directory, presence, rates, policy, addresses) is decided by values without I/O, which take `now`
//! and randomness as arguments.

pub mod api;
pub mod config;
pub mod control;
pub mod directory;
pub mod engine;
pub mod error;
pub mod helper;
pub mod hosted_files;
pub mod http;
pub mod keyring;
pub mod limits;
pub mod location;
mod lock;
pub mod metrics;
pub mod pins;
pub mod policy;
pub mod presence;
pub mod rate;
pub mod rows;
pub mod server;
pub mod sessions;
pub mod token;
pub mod writer;

pub use config::Config;
pub use lighter_transport::location::address;
pub use location::admin::{AdminAnswer, AdminCommand};
pub use server::{LocationServer, StartError};
