//! Where the agent's files are: its configuration, and all that lies in its data folder.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use etcetera::{BaseStrategy, choose_base_strategy};

use super::{ConfigError, OutboxConfig};
use crate::outbox::{self, Outbox};

/// The agent's folder in each of the user's base folders.
const FOLDER: &str = "lighter-agent";

/// Where things are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// The configuration file.
    pub config: PathBuf,
    /// The data folder: store, key file, control socket.
    pub data: PathBuf,
}

impl Paths {
    /// The folders given, or those of the XDG base directory specification.
    ///
    /// # Errors
    /// [`ConfigError::NoHome`].
    pub fn find(config: Option<&Path>, data: Option<&Path>) -> Result<Self, ConfigError> {
        let base = || choose_base_strategy().map_err(|_| ConfigError::NoHome);
        Ok(Self {
            config: match config {
                Some(path) => path.to_owned(),
                None => base()?.config_dir().join(FOLDER).join("agent.toml"),
            },
            data: match data {
                Some(path) => path.to_owned(),
                None => base()?.data_dir().join(FOLDER),
            },
        })
    }

    /// The attachment storage.
    pub fn store(&self) -> PathBuf {
        self.data.join("store")
    }

    /// The key file.
    pub fn key(&self) -> PathBuf {
        self.data.join("key")
    }

    /// The outbox, if there is one.
    pub fn outbox(&self, config: &OutboxConfig) -> Option<Outbox> {
        let base = choose_base_strategy().ok();
        let usual = base.as_ref().map(|base| base.data_dir().join(FOLDER));
        let home = base.as_ref().map(BaseStrategy::home_dir);
        let folder = config.folder.clone();
        config.enabled.then(|| Outbox {
            paths: self.clone(),
            folder: folder.unwrap_or_else(|| outbox::default_folder(&self.data, usual.as_deref(), home)),
            records: self.data.join("outbox-records"),
            settle: Duration::from_secs(config.settle_s.into()),
            settle_folder: Duration::from_secs(config.settle_folder_s.into()),
        })
    }

    /// The folder in which each file, and each folder of files, is an address book.
    pub fn address_books(&self) -> PathBuf {
        self.data.join("address-books")
    }

    /// What was fetched from CardDAV servers.
    pub fn carddav(&self) -> PathBuf {
        self.data.join("carddav")
    }

    /// A path in the configuration: a relative one starts at the configuration's folder.
    pub fn beside_config(&self, path: &Path) -> PathBuf {
        self.config.parent().unwrap_or(Path::new("")).join(path)
    }

    /// What is on record about messages of mail clients.
    pub fn submissions(&self) -> PathBuf {
        self.data.join("submissions")
    }

    /// The same for messages of mail servers.
    pub fn outgoing(&self) -> PathBuf {
        self.data.join("outgoing")
    }

    /// The socket of a running agent.
    pub fn control(&self) -> PathBuf {
        self.data.join("control")
    }

    /// Makes the data folder, for its owner only.
    ///
    /// # Errors
    /// [`ConfigError::Io`].
    pub fn make_data(&self) -> Result<(), ConfigError> {
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.data);
        made.map_err(|source| ConfigError::Io { path: self.data.clone(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outbox_is_where_its_user_finds_it_and_can_be_elsewhere_or_off() {
        let paths = Paths { config: "x".into(), data: "/data/agent".into() };
        let outbox = paths.outbox(&OutboxConfig::default()).unwrap();
        assert_eq!(outbox.folder, Path::new("/data/agent/outbox"));
        let usual = outbox::default_folder(&paths.data, Some(&paths.data), Some(Path::new("/home/bob")));
        assert_eq!(usual, Path::new("/home/bob/Lighter Outbox"));
        let elsewhere = OutboxConfig { folder: Some("/srv/outbox".into()), ..OutboxConfig::default() };
        assert_eq!(paths.outbox(&elsewhere).unwrap().folder, Path::new("/srv/outbox"));
        assert_eq!(paths.outbox(&OutboxConfig { enabled: false, ..elsewhere }), None);
    }
}
