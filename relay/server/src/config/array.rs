//! The storage array: servers that this process runs, and the array as this relay's writer sees it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;

use lighter_protocol::PeerId;
use lighter_storage::{Label, Policy, ServerEntry, Shared};
use serde::{Deserialize, Serialize};

use super::ObjectStoreConfig;

/// Storage servers that this process runs: at least two on a relay that keeps everything itself.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StorageConfig {
    /// Each with its own key, port and units. Empty: two, below the data folder, on loopback ports from the kernel.
    pub servers: Vec<StorageServerConfig>,
    /// Relays that may write. Empty: the relay in this process.
    pub writers: Vec<PeerId>,
    /// Days within which each server re-reads what it has. None: 30.
    pub scrub_days: Option<u32>,
    /// Where sealed segments are moved, of servers that name no object store of their own. None: they stay on the units.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object_store: Option<ObjectStoreConfig>,
}

/// One storage server.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StorageServerConfig {
    /// Where its key lies, and its units where none are named.
    pub path: PathBuf,
    /// Its TCP address.
    pub listen: SocketAddr,
    /// Its units: a folder, or disk, each. Empty: `unit-0` below `path`.
    #[serde(default)]
    pub units: Vec<PathBuf>,
    /// The machine that it runs on. None: the one of its IP address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<Label>,
    /// The disk below its units, where others may have the same: a NAS. None: its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<Label>,
    /// The network path to it, where others have the same: a switch, a line, a room. None: its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<Label>,
    /// Its group: a later one takes writes that the earlier ones do not. None: the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<u8>,
    /// Where its sealed segments are moved. None: as `storage.object_store` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object_store: Option<ObjectStoreConfig>,
}

/// The storage array as this relay's writer sees it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ArrayConfig {
    /// The storage servers. Empty: those in this process.
    pub servers: Vec<ArrayServerConfig>,
    /// Copies of everything, on as many servers.
    pub copies: usize,
    /// A message is acknowledged once so many copies of it are on stable storage; the others follow in the background, at
    /// once (SPEC B12). None: all of them. With less, mail that was acknowledged can be lost with one disk, and a start of
    /// the relay may have to wait for a certain server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledge_after: Option<usize>,
    /// Servers that are given up, for a start that would wait for one of them: what only they had is lost. Once the relay
    /// runs, take them out with `array remove --lost`.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub given_up: BTreeSet<PeerId>,
    /// In which order servers are chosen for new segments: `load`, `random` or `round-robin`.
    pub placing: Policy,
    /// What two copies of the same may share: `host:NAME`, `disk:NAME`, `zone:NAME`. Servers on loopback are one
    /// machine, which may have all copies; everything else has to be named here.
    pub allowed_together: BTreeSet<Shared>,
    /// Minutes after which a server that is away is taken for lost: what it had is copied to others.
    pub rebuild_after_minutes: u32,
    /// MiB a second that are copied at most to make up for lost copies; 0: as fast as it goes.
    pub rebuild_mib_per_second: u32,
    /// Sealed segments of which less than this is alive, in percent, give the room of the rest back, once a day; 0: none.
    pub thin_below_percent: u8,
}

impl Default for ArrayConfig {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            copies: 2,
            acknowledge_after: None,
            given_up: BTreeSet::new(),
            placing: Policy::default(),
            allowed_together: BTreeSet::new(),
            rebuild_after_minutes: 30,
            rebuild_mib_per_second: 64,
            thin_below_percent: 50,
        }
    }
}

/// One server of the array.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArrayServerConfig {
    /// Its key.
    pub peer: PeerId,
    /// Its TCP address.
    pub address: SocketAddr,
    /// The machine that it runs on. None: the one of its IP address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<Label>,
    /// The disk below its units, where others may have the same: a NAS. None: its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<Label>,
    /// The network path to it, where others have the same: a switch, a line, a room. None: its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<Label>,
    /// Its group: a later one takes writes that the earlier ones do not. None: the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<u8>,
}

impl StorageServerConfig {
    /// The server as the array's table has it, where it listens at `address`.
    pub fn entry(&self, peer: PeerId, address: SocketAddr) -> ServerEntry {
        entry(peer, address, (&self.host, &self.disk, &self.zone, self.group))
    }
}

impl ArrayServerConfig {
    /// The server as the array's table has it.
    pub fn entry(&self) -> ServerEntry {
        entry(self.peer, self.address, (&self.host, &self.disk, &self.zone, self.group))
    }
}

type At<'a> = (&'a Option<Label>, &'a Option<Label>, &'a Option<Label>, Option<u8>);

fn entry(peer: PeerId, address: SocketAddr, (host, disk, zone, group): At<'_>) -> ServerEntry {
    let entry = ServerEntry::new(peer, address);
    ServerEntry {
        host: host.clone().unwrap_or(entry.host),
        disk: disk.clone(),
        zone: zone.clone(),
        group: group.unwrap_or(entry.group),
        ..entry
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_where_the_configuration_says_or_where_their_address_is() {
        let peer = lighter_transport::Identity::generate().peer();
        let config: ArrayConfig = toml::from_str(&format!(
            "placing = \"round-robin\"\nallowed_together = [\"zone:room-1\"]\n\
             [[servers]]\npeer = \"{peer}\"\naddress = \"10.0.0.1:7000\"\n\
             [[servers]]\npeer = \"{peer}\"\naddress = \"10.0.0.2:7000\"\nhost = \"b\"\nzone = \"room-1\"\ngroup = 2\n"
        ))
        .unwrap();
        assert_eq!(config.placing, Policy::RoundRobin);
        let entries: Vec<_> = config.servers.iter().map(ArrayServerConfig::entry).collect();
        assert_eq!((entries[0].host.as_str(), entries[0].group), ("10.0.0.1", 1));
        assert_eq!((entries[1].host.as_str(), entries[1].group), ("b", 2));
        assert!(toml::from_str::<ArrayConfig>("allowed_together = [\"room-1\"]").is_err());
        assert!(toml::from_str::<ArrayConfig>("placing = \"best\"").is_err());
    }
}
