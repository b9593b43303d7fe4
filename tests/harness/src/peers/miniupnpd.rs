//! MiniUPnPd: what home routers run to map ports where a host asks for one.

use std::path::Path;

use anyhow::{Context, Result};

use super::{As, Foreground};

/// What a router answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    /// PCP (RFC 6887), and NAT-PMP.
    Pcp,
    /// NAT-PMP (RFC 6886) only: whoever asks by PCP hears nothing.
    NatPmp,
    /// UPnP only.
    Upnp,
}

/// A router's daemon.
#[derive(Debug)]
pub struct Miniupnpd {
    _process: Foreground,
}

impl Miniupnpd {
    /// The nftables table that it maps ports in.
    pub const TABLE: &str = "ports";
    /// Its chain of mapped ports.
    pub const CHAIN: &str = "mapped";

    /// Starts it in `folder`, by a command that begins with `through`: on a router with the devices `wan` and `lan` and the
    /// table for its rules (`homes::Router::PortMapping`).
    ///
    /// # Errors
    /// Where it is not installed (tests/run installs it) or does not start: with its log.
    pub async fn start(folder: &Path, through: &[String], answers: Answers) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let yes = |is_so: bool| if is_so { "yes" } else { "no" };
        let (upnp, config) = (answers == Answers::Upnp, folder.join("miniupnpd.conf"));
        let conf = format!(
            "ext_ifname=wan\nlistening_ip=lan\nport=5000\nenable_natpmp={}\nenable_upnp={}\nsecure_mode=yes\n\
             uuid=00000000-0000-0000-0000-000000000001\n\
             upnp_table_name={table}\nupnp_nat_table_name={table}\nupnp_forward_chain=forward\n\
             upnp_nat_chain={}\nupnp_nat_postrouting_chain=behind\n\
             allow 1024-65535 192.168.1.0/24 1024-65535\ndeny 0-65535 0.0.0.0/0 0-65535\n",
            yes(!upnp),
            yes(upnp),
            Self::CHAIN,
            table = Self::TABLE,
        );
        std::fs::write(&config, conf)?;
        let text = |path: &Path| path.to_str().map(ToOwned::to_owned).context("a path that is no UTF-8");
        let (config, pid, log) = (text(&config)?, text(&folder.join("pid"))?, folder.join("miniupnpd.log"));
        let mut command: Vec<&str> = through.iter().map(String::as_str).collect();
        command.extend(["miniupnpd", "-d", "-f", &config, "-P", &pid]);
        let ready = if upnp { "HTTP listening on port" } else { "Listening for NAT-PMP/PCP traffic" };
        let process = Foreground::start(As::Caller, &command, "kill $child", &log, ready).await?;
        Ok(Self { _process: process })
    }
}
