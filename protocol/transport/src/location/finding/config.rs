//! How location servers are found: a part of the configurations of agent and location server.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::super::address::Network;

/// How location servers of other domains are found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FindingConfig {
    /// Domains whose location servers are known: `"example.org" = "https://location.example.org"`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub domains: BTreeMap<String, String>,
    /// Name servers to ask instead of the system's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub name_servers: Vec<SocketAddr>,
    /// Networks in which a server that a domain names may be although not everybody can route to them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed_networks: Vec<Network>,
    /// Certificates (PEM) to trust instead of the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
}

impl FindingConfig {
    /// Whether it says nothing.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}
