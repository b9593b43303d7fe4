//! The agent, driven over real sockets and disks: with a location server, relays, web and mail servers of the tests' own.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod across;
mod commands;
mod gets;
mod groups;
mod guest;
mod hosted;
mod hostile;
mod outbox;
mod outgoing;
mod pulls;
mod pushes;
mod rotation;
mod sends;
mod sharing;
mod small;
mod sources;
mod stops;
mod submissions;
mod support;
mod unreachable;
