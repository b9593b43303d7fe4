//! The agent's key: in the OS keyring, or, where there is none, in a file that only its owner can read. Which of the
//! two it is is said plainly, by `setup` and by `status`.
//!
//! The keyring's library runs a small loop of its own and panics on a thread of the async runtime, so it is always
//! called on a blocking thread.

use std::fmt;

use lighter_transport::{Identity, IdentityError};
use zeroize::Zeroizing;

use crate::config::{KeyConfig, Paths};

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
    match config {
        KeyConfig::File => Ok(Identity::load(&paths.key())?),
        KeyConfig::Keyring { entry } => {
            let name = entry.clone();
            let secret = in_keyring(move || keyring::Entry::new(SERVICE, &name)?.get_secret()).await?;
            let secret = Zeroizing::new(secret);
            let secret: [u8; 32] = secret[..].try_into().map_err(|_| KeyError::NoKey(entry.clone()))?;
            Ok(Identity::from_secret_bytes(Zeroizing::new(secret))?)
        }
    }
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
        let (name, secret) = (entry.clone(), identity.secret_bytes());
        let kept = in_keyring(move || keyring::Entry::new(SERVICE, &name)?.set_secret(&secret[..])).await;
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
    let name = name.to_owned();
    in_keyring(move || match keyring::Entry::new(SERVICE, &name)?.get_password() {
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
    let (name, password) = (name.to_owned(), password.clone());
    in_keyring(move || keyring::Entry::new(SERVICE, &name)?.set_password(&password)).await
}

async fn in_keyring<T: Send + 'static>(
    work: impl FnOnce() -> keyring::Result<T> + Send + 'static,
) -> Result<T, KeyError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| KeyError::Keyring(error.to_string()))?
        .map_err(|error| KeyError::Keyring(error.to_string()))
}
