//! What worked in which network, so that the next start begins with it: a file of a few lines in the data folder.
//!
//! A network is told by the addresses that this machine has in it, their last parts left out. Two homes may look the same;
//! then the wrong carrier is tried first, and nothing else happens. Only networks where QUIC does not work have a line.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv6Addr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use lighter_protocol::UnixTime;
use lighter_transport::Carrier;
use serde::{Deserialize, Serialize};

use crate::limits::{NETWORKS_FILE_LEN_MAX, NETWORKS_REMEMBERED_MAX};

/// What is remembered, and where it is kept.
#[derive(Debug, Default)]
pub struct Remembered {
    networks: BTreeMap<String, Line>,
    file: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Line {
    carrier: Carrier,
    /// Since when.
    at: UnixTime,
}

/// The networks that these addresses are in, as text: the same however they are ordered.
pub fn network_of(addresses: &[IpAddr]) -> String {
    let mut networks: Vec<_> = addresses
        .iter()
        .map(|ip| match ip.to_canonical() {
            IpAddr::V4(v4) => {
                let [a, b, c, _] = v4.octets();
                format!("{a}.{b}.{c}.0/24")
            }
            IpAddr::V6(v6) => format!("{}/64", Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        })
        .collect();
    networks.sort();
    networks.dedup();
    networks.join(" ")
}

impl Remembered {
    /// What is in `file`: nothing where there is none, or nothing that makes sense in it.
    pub fn load(file: Option<PathBuf>) -> Self {
        let read = file.as_deref().map(read);
        let networks = match read {
            Some(Ok(networks)) => networks,
            Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => {
                tracing::info!(%error, "what worked in which network is forgotten");
                BTreeMap::new()
            }
            _ => BTreeMap::new(),
        };
        Self { networks, file }
    }

    /// What worked in `network`; none where QUIC does, or nothing is known.
    pub fn get(&self, network: &str) -> Option<Carrier> {
        self.networks.get(network).map(|line| line.carrier)
    }

    /// `carrier` works in `network`.
    pub fn note(&mut self, network: String, carrier: Carrier, now: UnixTime) {
        let changed = if carrier == Carrier::Quic {
            self.networks.remove(&network).is_some()
        } else {
            let before = self.networks.insert(network, Line { carrier, at: now });
            before.is_none_or(|before| before.carrier != carrier)
        };
        while self.networks.len() > NETWORKS_REMEMBERED_MAX {
            let oldest = self.networks.iter().min_by_key(|(_, line)| line.at).map(|(name, _)| name.clone());
            oldest.map(|name| self.networks.remove(&name));
        }
        if let (true, Some(file)) = (changed, &self.file)
            && let Err(error) = write(file, &self.networks)
        {
            tracing::info!(%error, "what works in this network is not remembered");
        }
    }
}

fn read(file: &Path) -> io::Result<BTreeMap<String, Line>> {
    let mut text = String::new();
    fs::File::open(file)?.take(NETWORKS_FILE_LEN_MAX).read_to_string(&mut text)?;
    let mut networks: BTreeMap<String, Line> = serde_json::from_str(&text)?;
    while networks.len() > NETWORKS_REMEMBERED_MAX {
        networks.pop_last();
    }
    Ok(networks)
}

/// Whole, or not at all; a crash may lose it, and what worked is found out again then.
fn write(file: &Path, networks: &BTreeMap<String, Line>) -> io::Result<()> {
    let new = file.with_extension("new");
    let mut out = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    out.write_all(&serde_json::to_vec_pretty(networks)?)?;
    drop(out);
    fs::rename(new, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: usize) -> String {
        network_of(&[format!("10.0.{number}.7").parse().unwrap()])
    }

    #[test]
    fn what_worked_is_known_after_a_restart_and_quic_needs_no_line() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("networks.json");
        let mut remembered = Remembered::load(Some(file.clone()));
        remembered.note(name(1), Carrier::Tcp, UnixTime(5));
        remembered.note(name(2), Carrier::WebSocket, UnixTime(6));
        let mut again = Remembered::load(Some(file.clone()));
        assert_eq!(
            (again.get(&name(1)), again.get(&name(2))),
            (Some(Carrier::Tcp), Some(Carrier::WebSocket))
        );
        assert_eq!(again.get(&name(3)), None);
        again.note(name(1), Carrier::Quic, UnixTime(7));
        assert_eq!(Remembered::load(Some(file)).get(&name(1)), None);
    }

    #[test]
    fn it_does_not_grow_and_damage_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("networks.json");
        let mut remembered = Remembered::load(Some(file.clone()));
        for number in 0..NETWORKS_REMEMBERED_MAX + 3 {
            remembered.note(name(number), Carrier::Tcp, UnixTime(number as u64));
        }
        assert_eq!(remembered.networks.len(), NETWORKS_REMEMBERED_MAX);
        assert_eq!(remembered.get(&name(2)), None);
        assert_eq!(remembered.get(&name(3)), Some(Carrier::Tcp));
        assert!(fs::metadata(&file).unwrap().len() < NETWORKS_FILE_LEN_MAX);
        for damage in ["", "{", r#"{"a":{"carrier":"pigeon","at":1}}"#] {
            fs::write(&file, damage).unwrap();
            assert!(Remembered::load(Some(file.clone())).networks.is_empty(), "{damage}");
        }
    }

    #[test]
    fn a_network_is_told_by_the_first_parts_of_its_addresses() {
        let of = |addresses: &[&str]| {
            network_of(&addresses.iter().map(|ip| ip.parse().unwrap()).collect::<Vec<_>>())
        };
        assert_eq!(of(&["2001:db8:1:2::7", "192.0.2.9"]), of(&["192.0.2.77", "2001:db8:1:2:3::1"]));
        assert_ne!(of(&["192.0.2.9"]), of(&["192.0.3.9"]));
    }
}
