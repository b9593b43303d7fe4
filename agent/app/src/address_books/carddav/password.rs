//! The password for a CardDAV server: in the file that the configuration names, or in the OS keyring, or, where there is
//! none, in a file of the user's alone. The configuration itself never has it.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use zeroize::Zeroizing;

use super::CardDavConfig;
use super::client::CardDavError;
use super::copy::Place;
use crate::config::{KeyConfig, Paths};
use crate::key::{self, KeyError};
use crate::limits::PASSWORD_LEN_MAX;

/// The password.
///
/// # Errors
/// [`CardDavError::NoPassword`] where there is none; [`CardDavError::Password`] where it cannot be had, or others can read it.
pub(super) async fn load(
    server: &CardDavConfig,
    place: &Place,
    paths: &Paths,
    keys: &KeyConfig,
) -> Result<Zeroizing<String>, CardDavError> {
    if let Some(path) = &server.password_file {
        return read(&paths.beside_config(path)).map_err(|error| unreadable(path, &error));
    }
    let path = place.password();
    match read(&path) {
        Ok(password) => return Ok(password),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(unreadable(&path, &error)),
    }
    if *keys == KeyConfig::File {
        return Err(CardDavError::NoPassword(server.name.clone()));
    }
    match key::password(&entry(server)).await {
        Ok(Some(password)) => Ok(password),
        Ok(None) => Err(CardDavError::NoPassword(server.name.clone())),
        Err(error) => Err(CardDavError::Password(error.to_string())),
    }
}

/// Keeps the password: in the keyring where the agent's key is in one, else in a file. Says which.
///
/// # Errors
/// What the system says of the file.
pub(super) async fn keep(
    server: &CardDavConfig,
    place: &Place,
    keys: &KeyConfig,
    password: &Zeroizing<String>,
) -> io::Result<Kept> {
    if matches!(keys, KeyConfig::Keyring { .. }) {
        match key::keep_password(&entry(server), password).await {
            Ok(()) => {
                // One of before would be read first.
                match std::fs::remove_file(place.password()) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => return Ok(Kept::Keyring),
                }
            }
            Err(KeyError::Keyring(why)) => tracing::info!(%why, "no keyring: the password goes into a file"),
            Err(error) => tracing::info!(%error, "the password goes into a file"),
        }
    }
    place.write_password(password)?;
    Ok(Kept::File)
}

/// Where a password is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// In the keyring.
    Keyring,
    /// In a file that only its owner can read.
    File,
}

/// What the keyring calls it.
fn entry(server: &CardDavConfig) -> String {
    format!("carddav {} {}", server.username, server.url)
}

/// A file's first line; a file that others can read is not taken.
fn read(path: &Path) -> io::Result<Zeroizing<String>> {
    let file = File::open(path)?;
    let mode = file.metadata()?.mode();
    if mode & 0o077 != 0 {
        let why = format!("others can read it (mode {:o}): `chmod 600` it", mode & 0o777);
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    let mut text = Zeroizing::new(String::new());
    file.take(PASSWORD_LEN_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > PASSWORD_LEN_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is longer than any password"));
    }
    Ok(Zeroizing::new(text.lines().next().unwrap_or_default().to_owned()))
}

fn unreadable(path: &Path, error: &io::Error) -> CardDavError {
    CardDavError::Password(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_password_that_others_can_read_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        std::fs::write(&path, "s e c r e t\nmore\n").unwrap();
        for (mode, is_taken) in [(0o644, false), (0o640, false), (0o604, false), (0o600, true), (0o400, true)]
        {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let read = read(&path).map(|password| password.to_string());
            assert_eq!(read.ok().as_deref(), is_taken.then_some("s e c r e t"), "{mode:o}");
        }
        std::fs::write(&path, vec![b'x'; usize::try_from(PASSWORD_LEN_MAX).unwrap() + 1]).unwrap();
        assert_eq!(read(&path).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
