//! The way from a command to the store: through the agent that runs, or, where none does, by opening it.

use std::time::Duration;

use lighter_store::{OpenError, Store};
use tokio::time::sleep;

use crate::config::{Config, Paths};
use crate::control::Client;
use crate::failure::Failure;

/// How often, and how long apart, it is tried again while an agent starts or ends: it has the store and does not listen.
const TRIES: u32 = 20;
const TRY_AGAIN: Duration = Duration::from_millis(250);

/// Who has the store.
#[derive(Debug)]
pub enum Access {
    /// An agent that runs.
    Running(Client),
    /// This command.
    Alone(Store),
}

impl Access {
    /// Finds out.
    ///
    /// # Errors
    /// Where the store cannot be opened.
    pub async fn open(config: &Config, paths: &Paths) -> Result<Self, Failure> {
        let mut tries = 0;
        loop {
            let connected = Client::connect(&paths.control()).await;
            if let Some(client) =
                connected.map_err(|error| Failure::failed(error).when("the running agent"))?
            {
                return Ok(Self::Running(client));
            }
            let (folder, settings) = (paths.store(), config.store.settings());
            let opened = tokio::task::spawn_blocking(move || Store::open(&folder, settings)).await;
            match opened.map_err(Failure::failed)? {
                Ok(store) => return Ok(Self::Alone(store)),
                Err(OpenError::InUse) if tries < TRIES => {
                    tries += 1;
                    sleep(TRY_AGAIN).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The store, for who is to be the agent: a command that has it just now is waited for.
    ///
    /// # Errors
    /// Where an agent runs already, or the store cannot be opened.
    pub async fn take(config: &Config, paths: &Paths) -> Result<Store, Failure> {
        match Self::open(config, paths).await? {
            Self::Alone(store) => Ok(store),
            Self::Running(_) => {
                Err(Failure::failed("an agent runs here already: `lighter-agent status` shows it"))
            }
        }
    }
}
