//! The relay: the mail side of Lighter. It takes mail in, keeps it on mirrored storage servers, hands the text on to
//! the next hop, and hands the attachments over to stores.

mod check;
pub mod cli;
pub mod commands;
pub mod config;
pub mod control;
pub mod delivery;
mod detach;
mod files;
pub mod hand_over;
pub mod ingest;
pub mod intake;
pub mod layout;
pub mod limits;
pub mod next_hop;
pub mod retrieval;
mod serve;
pub mod smtp_in;
mod upkeep;
