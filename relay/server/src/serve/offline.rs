//! The array without the relay: for commands that look at it, or work on it, while no relay runs.

use lighter_storage::{Array, ArrayKeys, StorageServer};
use lighter_transport::Identity;

use super::{Addresses, lock, mail, storage};
use crate::commands::CommandError;
use crate::config::{Config, Role};
use crate::layout;

/// The array, and the storage servers of this process that it needs; no relay can start meanwhile.
pub(crate) struct Offline {
    array: Array,
    identity: Identity,
    storage: Vec<StorageServer>,
    _lock: lock::Lock,
}

impl Offline {
    /// Takes the array over, as a start does, and no mail.
    pub(crate) async fn open(config: &Config) -> Result<Self, CommandError> {
        let data = config.data.display();
        let key = layout::array_key(&config.data);
        if !key.exists() {
            return Err(CommandError::Relay(format!("{data}: no relay was ever started on this folder")));
        }
        // A relay that is starting has no socket yet, but has the lock.
        let lock = lock::take(&config.data)?;
        let identity = Identity::load_or_create(&layout::identity(&config.data))
            .map_err(|error| CommandError::failed("the relay's key", error))?;
        let key = ArrayKeys::load_or_create(&key, &mut rand::rng())
            .map_err(|error| CommandError::failed("the array key", error))?;
        let has_storage = config.roles.contains(&Role::Storage);
        let mut addresses = Addresses::default();
        let storage =
            if has_storage { storage::start(config, &identity, &mut addresses).await? } else { Vec::new() };
        match mail::open_array(config, &identity, key, &addresses).await {
            Ok(array) => Ok(Self { array, identity, storage, _lock: lock }),
            Err(error) => {
                for server in storage {
                    server.stop().await;
                }
                Err(error)
            }
        }
    }

    /// The array.
    pub(crate) fn array(&self) -> &Array {
        &self.array
    }

    /// The relay's key.
    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Ends it cleanly.
    pub(crate) async fn close(self) {
        self.array.close().await;
        for server in self.storage {
            server.stop().await;
        }
    }
}
