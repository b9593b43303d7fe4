//! dnsmasq: a name server that knows what a test says of `.test` (RFC 6761), and that there is nothing else there.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use anyhow::{Context, Result};

use super::{As, Foreground};

/// What a name server says.
#[derive(Clone, Debug)]
pub enum Saying {
    /// A host has this address, and so have all names below it.
    Host(&'static str, IpAddr),
    /// A service is at a port of a host (RFC 2782).
    Service(&'static str, &'static str, u16),
}

/// A dnsmasq that runs until it is dropped.
#[derive(Debug)]
pub struct NameServer {
    _process: Foreground,
}

impl NameServer {
    /// Starts one at `address`, over UDP and TCP.
    ///
    /// # Errors
    /// Where it is not installed (tests/run installs it) or does not start: with its log.
    pub async fn start(folder: &Path, address: SocketAddr, says: &[Saying]) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let mut config = format!(
            "keep-in-foreground\nno-resolv\nno-hosts\nbind-interfaces\nuser=root\ngroup=root\npid-file={}/pid\nlog-queries\nlog-facility=-\n\
             listen-address={}\nport={}\nlocal=/test/\nlocal-ttl=300\n",
            folder.display(),
            address.ip(),
            address.port()
        );
        for saying in says {
            config += &match saying {
                Saying::Host(name, address) => format!("address=/{name}/{address}\n"),
                Saying::Service(name, host, port) => format!("srv-host={name},{host},{port}\n"),
            };
        }
        let file = folder.join("dnsmasq.conf");
        std::fs::write(&file, config)?;
        let file = format!("--conf-file={}", file.to_str().context("a folder whose name is no UTF-8")?);
        let command = ["dnsmasq", &file];
        let process =
            Foreground::start(As::Caller, &command, "kill $child", &folder.join("log"), address).await?;
        Ok(Self { _process: process })
    }
}
