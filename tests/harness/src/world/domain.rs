//! A domain with a location server and agents, and no relay (SPEC A27).

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::{Value, json};

use super::{Agent, Member, invite_and_set_up, merge, write_config};
use crate::ports;

/// A location server for one domain.
#[derive(Debug)]
pub struct Domain {
    /// The location server.
    pub location: Member,
    /// Where it listens.
    pub location_url: String,
    name: String,
    folder: PathBuf,
}

impl Domain {
    /// Starts the location server of the domain `name`, in a folder below `root`, with `more` of its configuration.
    ///
    /// # Errors
    /// Where it does not start.
    pub async fn start(root: &Path, name: &str, more: &Value) -> Result<Self> {
        let folder = root.join(name);
        std::fs::create_dir_all(&folder)?;
        let mut location = Member::new("location", "lighter-location", &folder, ["serve"])?;
        let listen = ports::reserve(Ipv4Addr::LOCALHOST.into())?;
        let mut config = json!({ "listen": listen, "domains": [name] });
        merge(&mut config, Some(more));
        write_config(&folder.join("location.toml"), &config)?;
        location.start().await?;
        let location_url = format!("http://{}", location.address("/http")?);
        Ok(Self { location, location_url, name: name.to_owned(), folder })
    }

    /// Invites `name` of this domain and sets up an agent for them, not yet running, which hands mail to `smtp`.
    ///
    /// # Errors
    /// Where either is refused.
    pub async fn agent(&self, name: &str, smtp: &str) -> Result<Agent> {
        let mailbox = format!("{name}@{}", self.name);
        invite_and_set_up(&self.folder, self.location.data(), &self.location_url, &mailbox, smtp).await
    }
}
