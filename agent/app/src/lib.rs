//! The agent: keeps the user's store, and everything that a user does with it as commands.
//!
//! ```text
//!   registration ─ location server (HTTP): registered, attested, pinged, offline
//!   finding ────── other domains' location servers; acceptance: who learns of this store
//!   sessions ───── own relays (QUIC, or what `carriers` finds where UDP is blocked): Waiting?, their offers
//!   serve ──────── every connection: offers to `pulls`, gets, receipts to `offers`
//!   pulls ──────── one task a delivery: the pull machine, the store, the receipt
//!   offers ─────── one task an outgoing delivery: the offer machine, until the receipt
//!   outbox ─────── what is put into a recipient's folder, sent and moved away
//!   submission ─── what mail clients send through here, offered and handed to the provider
//!   guest ──────── how much of line, battery and time all that may use
//!   control ────── commands, over a Unix socket
//! ```
//!
//! [`address_books`] makes mailboxes of the groups that `send` is given. [`agent`] starts and stops them; [`shared`] is what they share. `send`, `restore` and `get` are commands with work of
//! their own. Deciding is in `lighter_protocol`'s machines, storing in `lighter_store`, the wire in
//! `lighter_transport`: here are the loops around them.

pub mod acceptance;
pub mod access;
pub mod address_books;
pub mod agent;
pub mod carriers;
pub mod cli;
mod commands;
pub mod config;
pub mod control;
pub mod dial;
pub mod drops;
pub mod failure;
pub mod finding;
pub mod get;
pub mod guest;
pub mod hosted;
pub mod key;
pub mod limits;
pub mod links;
pub mod lookup;
pub mod offers;
pub mod outbox;
mod output;
pub mod port_mapping;
pub mod progress;
pub mod pulls;
pub mod registration;
pub mod remove;
pub mod restore;
pub mod send;
pub mod serve;
pub mod sessions;
pub mod setup;
pub mod shared;
pub mod sharing;
pub mod sources;
pub mod status;
pub mod submission;
pub mod views;
pub mod wake;
pub mod ways;

pub use commands::run;
