//! The agent's key: in the OS keyring, or, where there is none, in a file that only its owner can read. Which of the
//! two it is is said plainly, by `setup` and by `status`. [`rotation`] changes it; [`former`] keeps what is needed of those
//! of before.
//!
//! The keyring's library runs a small loop of its own and panics on a thread of the async runtime, so it is always
//! called on a blocking thread.

pub mod former;
pub mod rotation;

use std::fmt;
use std::path::PathBuf;

use lighter_shell::files;
use lighter_transport::{Identity, IdentityError};
use zeroize::Zeroizing;

use crate::config::{KeyConfig, Paths};

pub use former::FormerKeys;
pub use rotation::KeyView;

/// The name under which desktop keyrings list the entry.
const SERVICE: &str = "lighter-agent";

/// Why the key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The key file.
    #[error(transparent)]
    File(#[from] IdentityError),
    /// The keyring that holds the key does not give it: locked, gone, or not running.
    #[error("the keyring does not give the key ({0}): unlock it and try again")]
    Keyring(String),
    /// What the keyring gave is no key.
    #[error("the keyring's entry {0:?} holds no key")]
    NoKey(String),
    /// A file of the data folder that tells of keys.
    #[error("{} is damaged", .0.display())]
    Damaged(PathBuf),
    /// The disk or the system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// This store's key, and those of before.
#[derive(Clone, Debug)]
pub struct Keys {
    /// The key.
    pub identity: Identity,
    /// Those of before.
    pub former: FormerKeys,
    /// Where they are kept; none where they are not, and cannot be changed.
    pub place: Option<KeyPlace>,
}

impl Keys {
    /// Those that are kept where the configuration says.
    ///
    /// # Errors
    /// As [`load`].
    pub async fn load(config: &KeyConfig, paths: &Paths) -> Result<Self, KeyError> {
        let place = KeyPlace::of(config, paths);
        let identity = place.load(Slot::Present).await?;
        rotation::tidy(&place, &identity).await?;
        let former = FormerKeys::load(&place).await?;
        Ok(Self { identity, former, place: Some(place) })
    }
}

impl From<Identity> for Keys {
    fn from(identity: Identity) -> Self {
        Self { identity, former: FormerKeys::default(), place: None }
    }
}

/// Where keys are kept.
#[derive(Clone, Debug)]
pub struct KeyPlace {
    config: KeyConfig,
    data: PathBuf,
}

/// Which key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    /// The store's.
    Present,
    /// The one that is to take its place.
    Next,
}

impl KeyPlace {
    /// Where the configuration says.
    pub fn of(config: &KeyConfig, paths: &Paths) -> Self {
        Self { config: config.clone(), data: paths.data.clone() }
    }

    fn file(&self, slot: Slot) -> PathBuf {
        self.data.join(match slot {
            Slot::Present => "key",
            Slot::Next => "key.next",
        })
    }

    fn entry(entry: &str, slot: Slot) -> String {
        match slot {
            Slot::Present => entry.to_owned(),
            Slot::Next => format!("{entry} next"),
        }
    }

    async fn load(&self, slot: Slot) -> Result<Identity, KeyError> {
        match &self.config {
            KeyConfig::File => Ok(Identity::load(&self.file(slot))?),
            KeyConfig::Keyring { entry } => {
                let name = Self::entry(entry, slot);
                let secret = in_keyring(&name, |entry| entry.get_secret()).await?;
                let secret = Zeroizing::new(secret);
                let secret: [u8; 32] = secret[..].try_into().map_err(|_| KeyError::NoKey(name))?;
                Ok(Identity::from_secret_bytes(Zeroizing::new(secret))?)
            }
        }
    }

    /// Keeps a key where there is none; durable when this returns.
    async fn keep(&self, slot: Slot, identity: &Identity) -> Result<(), KeyError> {
        match &self.config {
            KeyConfig::File => Ok(identity.create(&self.file(slot))?),
            KeyConfig::Keyring { entry } => {
                let secret = identity.secret_bytes();
                in_keyring(&Self::entry(entry, slot), move |entry| entry.set_secret(&secret[..])).await
            }
        }
    }

    /// Removes a key, where there is one.
    async fn remove(&self, slot: Slot) -> Result<(), KeyError> {
        match &self.config {
            KeyConfig::File => {
                let path = self.file(slot);
                files::remove(&path).map_err(|source| KeyError::Io { path, source })
            }
            KeyConfig::Keyring { entry } => {
                in_keyring(&Self::entry(entry, slot), |entry| match entry.delete_credential() {
                    Err(keyring::Error::NoEntry) => Ok(()),
                    done => done,
                })
                .await
            }
        }
    }

    /// The next key takes the place of the present one, which is gone then; durable when this returns.
    async fn change(&self) -> Result<(), KeyError> {
        if self.config == KeyConfig::File {
            let path = self.file(Slot::Present);
            let changed =
                std::fs::rename(self.file(Slot::Next), &path).and_then(|()| files::sync_folder_of(&path));
            return changed.map_err(|source| KeyError::Io { path, source });
        }
        let next = self.load(Slot::Next).await?;
        self.keep(Slot::Present, &next).await?;
        self.remove(Slot::Next).await
    }
}

impl fmt::Display for KeyConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File => f.write_str("in a file that only you can read"),
            Self::Keyring { .. } => f.write_str("in the keyring"),
        }
    }
}

/// Loads the key from where the configuration says that it is.
///
/// # Errors
/// [`KeyError`]; a key that is not there is never made anew silently: the location server knows the old one.
pub async fn load(config: &KeyConfig, paths: &Paths) -> Result<Identity, KeyError> {
    KeyPlace::of(config, paths).load(Slot::Present).await
}

/// Makes a key, or takes the one that is in the key file already; puts a new one into the keyring where there is one.
///
/// # Errors
/// [`KeyError::File`]: without a keyring, the file must do.
pub async fn create(
    entry: String,
    paths: &Paths,
    use_keyring: bool,
) -> Result<(Identity, KeyConfig), KeyError> {
    if use_keyring && !paths.key().exists() {
        let identity = Identity::generate();
        let secret = identity.secret_bytes();
        let kept = in_keyring(&entry, move |entry| entry.set_secret(&secret[..])).await;
        match kept {
            Ok(()) => return Ok((identity, KeyConfig::Keyring { entry })),
            Err(error) => tracing::info!(%error, "no keyring: the key goes into a file"),
        }
    }
    Ok((Identity::load_or_create(&paths.key())?, KeyConfig::File))
}

/// A password of the user's for another server, where the keyring has one under this name.
///
/// # Errors
/// [`KeyError::Keyring`]: locked, gone, or not running.
pub async fn password(name: &str) -> Result<Option<Zeroizing<String>>, KeyError> {
    in_keyring(name, |entry| match entry.get_password() {
        Ok(password) => Ok(Some(Zeroizing::new(password))),
        Err(keyring::Error::NoEntry) => Ok(None),
        Err(error) => Err(error),
    })
    .await
}

/// Puts such a password into the keyring, in the place of one of before.
///
/// # Errors
/// [`KeyError::Keyring`].
pub async fn keep_password(name: &str, password: &Zeroizing<String>) -> Result<(), KeyError> {
    let password = password.clone();
    in_keyring(name, move |entry| entry.set_password(&password)).await
}

/// Does something with the entry of this name.
async fn in_keyring<T: Send + 'static>(
    name: &str,
    work: impl FnOnce(&keyring::Entry) -> keyring::Result<T> + Send + 'static,
) -> Result<T, KeyError> {
    let name = name.to_owned();
    let done = tokio::task::spawn_blocking(move || work(&keyring::Entry::new(SERVICE, &name)?)).await;
    done.map_err(|error| KeyError::Keyring(error.to_string()))?
        .map_err(|error| KeyError::Keyring(error.to_string()))
}
