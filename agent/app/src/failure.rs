//! Why a command failed, as its user is told, and which exit code says so (DESIGN §12).

use std::fmt;

use lighter_shell::Exit;
use lighter_store::{OpenError, StoreError};
use lighter_transport::location::LocationError;

use crate::config::ConfigError;
use crate::finding::AskError;

/// A command's failure.
#[derive(Debug)]
pub struct Failure {
    message: String,
    exit: Exit,
}

impl Failure {
    /// Trying again in the same way will fail again.
    pub fn failed(message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), exit: Exit::Failed }
    }

    /// Something that is needed is not there now.
    pub fn temporary(message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), exit: Exit::TryAgain }
    }

    /// The command line or the configuration is wrong.
    pub fn wrong_use(message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), exit: Exit::WrongUse }
    }

    /// Whether trying again may help.
    pub fn is_temporary(&self) -> bool {
        self.exit == Exit::TryAgain
    }

    /// The exit code.
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// The same, with what was being done in front.
    #[must_use]
    pub fn when(self, doing: impl fmt::Display) -> Self {
        Self { message: format!("{doing}: {}", self.message), exit: self.exit }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        match error {
            ConfigError::Io { .. } => Self::failed(error),
            _ => Self::wrong_use(error),
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        if error.is_full() { Self::temporary(error) } else { Self::failed(error) }
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::InUse => Self::temporary("the store is in use by an agent that does not answer yet"),
            error => Self::failed(error),
        }
    }
}

impl From<LocationError> for Failure {
    fn from(error: LocationError) -> Self {
        if error.is_temporary() { Self::temporary(error) } else { Self::failed(error) }
    }
}

impl From<AskError> for Failure {
    fn from(error: AskError) -> Self {
        match &error {
            AskError::Location(source) | AskError::Foreign { source, .. } if !source.is_temporary() => {
                Self::failed(error)
            }
            _ => Self::temporary(error),
        }
    }
}

impl From<crate::key::KeyError> for Failure {
    fn from(error: crate::key::KeyError) -> Self {
        match error {
            crate::key::KeyError::Keyring(_) => Self::temporary(error),
            error => Self::failed(error),
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::failed(error)
    }
}
