//! The location server as its clients see it (DESIGN §7): the API's types, and a client for them.
//!
//! A store [enrols](LocationClient::enrol) once, [registers](LocationClient::register) whenever its addresses change
//! or it comes online, [pings](LocationClient::ping) while it is there, and says when it
//! [goes](LocationClient::offline). Senders and mail servers [look up](LocationClient::lookup) stores, or listen to
//! [presence](LocationClient::presence) rather than ask again.
//!
//! The location server of another domain is [found](finding), and asked with an [attestation](foreign) of the own one.

pub mod address;
pub mod api;
mod client;
mod connect;
mod encoding;
mod error;
pub mod finding;
pub mod foreign;
pub mod keys;
pub mod limits;
mod presence;
pub mod sse;

pub use api::{Presence, Revocation, Scope, Secret, SnapshotPage, StorePresence, StoreRecord};
pub use client::LocationClient;
pub(crate) use connect::web_tls;
pub use connect::{HttpClient, http_client, http_client_through};
pub use error::{LocationError, LocationSetupError};
pub use finding::{Finder, FindingConfig};
pub use foreign::{Asker, SpeaksFor};
pub use presence::{PresenceEvent, PresenceEvents};
