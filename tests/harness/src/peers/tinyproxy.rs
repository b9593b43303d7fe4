//! Tinyproxy: the HTTP proxy of an office that lets nothing else out.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{As, Foreground, folders};

/// A proxy that lets everybody who knows the password CONNECT to port 443, and nothing else.
#[derive(Debug)]
pub struct Tinyproxy {
    log: PathBuf,
    _process: Foreground,
}

impl Tinyproxy {
    /// Name and password, as they stand in its address.
    pub const USER: &str = "office:secret";

    /// Starts it in `folder`, by a command that begins with `through`; `address`: where it can be seen from here.
    ///
    /// # Errors
    /// Where it is not installed (tests/run installs it) or does not start: with its log.
    pub async fn start(folder: &Path, through: &[String], address: SocketAddr) -> Result<Self> {
        folders(folder, &["run"])?;
        let text = |path: &Path| path.to_str().map(ToOwned::to_owned).context("a path that is no UTF-8");
        let (config, log) = (folder.join("tinyproxy.conf"), folder.join("connections.log"));
        let user = Self::USER.replace(':', " ");
        let conf = format!(
            "Port {}\nListen 0.0.0.0\nTimeout 600\nMaxClients 100\nLogFile \"{}\"\nLogLevel Connect\n\
             ConnectPort 443\nBasicAuth {user}\n",
            address.port(),
            text(&log)?
        );
        std::fs::write(&config, conf)?;
        let config = text(&config)?;
        let mut command: Vec<&str> = through.iter().map(String::as_str).collect();
        command.extend(["tinyproxy", "-d", "-c", &config]);
        let output = folder.join("tinyproxy.log");
        let process = Foreground::start(As::Caller, &command, "kill $child", &output, address).await?;
        Ok(Self { log, _process: process })
    }

    /// What it did.
    ///
    /// # Errors
    /// Where the log cannot be read.
    pub fn log(&self) -> Result<String> {
        Ok(std::fs::read_to_string(&self.log)?)
    }
}
