//! How this agent is known, and how others are reached: the location server, the key, the endpoint, ways through networks.

use std::net::SocketAddr;
use std::path::PathBuf;

use lighter_protocol::PeerId;
use serde::{Deserialize, Serialize};

/// The location server, as enrolment found it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocationConfig {
    /// `https://host[:port]` or `http://host[:port]`.
    pub url: String,
    /// Its key: only what it signed is believed.
    pub peer: PeerId,
    /// Certificates to trust instead of the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
}

/// Where the key is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "storage", rename_all = "lowercase", deny_unknown_fields)]
pub enum KeyConfig {
    /// In `DATA/key`, which only its owner can read.
    #[default]
    File,
    /// In the OS keyring, under this name.
    Keyring {
        /// The entry's user name.
        entry: String,
    },
}

/// The endpoint for other peers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QuicConfig {
    /// UDP address to listen on; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// What to register instead of the address that is found: behind a router that forwards a port.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub advertise: Vec<SocketAddr>,
}

impl Default for QuicConfig {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([0_u16; 8], 0)), advertise: Vec::new() }
    }
}

/// Ways to other peers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NetworkConfig {
    /// Whether peers on the local network are found by multicast DNS, and find this one.
    pub mdns: bool,
    /// Whether a home router is asked (PCP, NAT-PMP, UPnP) for a port that leads to this store. Not where `quic.advertise`
    /// says which addresses do.
    pub port_mapping: bool,
    /// The HTTP proxy that web servers are reached through, the location server and relays among them:
    /// `http://[NAME:PASSWORD@]HOST:PORT`. Absent: what `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` say; empty: none at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy: Option<String>,
    /// What is reached without `proxy`: names, addresses and networks, with commas between.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub no_proxy: String,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self { mdns: true, port_mapping: true, proxy: None, no_proxy: String::new() }
    }
}

impl NetworkConfig {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}
