//! Keys that were this store's before (`key rotate`): what is kept of them, and for how long.
//!
//! Nothing is signed or said with a former key any more. What is kept is what opens drops that were sealed to it, and its
//! word that another key took its place, which shows others that what it left with them is this store's.
//!
//! # Format
//! `former-keys.json` in the data folder, readable by its owner only: a list, oldest first, each with the PeerId, since when
//! it is a former one, the succession (base64url of the signed statement), and, where keys are kept in files, the X25519
//! secret (base64url); where they are in the keyring, that is an entry of its own.
//!
//! # Sync
//! The file is replaced as a whole, and is durable before the key itself goes.

use std::path::PathBuf;
use std::sync::Arc;

use data_encoding::BASE64URL_NOPAD;
use lighter_protocol::limits::SUCCESSIONS_MAX;
use lighter_protocol::{PeerId, Signed, Succession, UnixTime};
use lighter_sealing::SealingSecret;
use lighter_shell::files;
use lighter_transport::Identity;
use lighter_transport::location::Secret;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{KeyError, KeyPlace, in_keyring};
use crate::config::KeyConfig;
use crate::limits::{FORMER_KEY_LIFE, FORMER_KEYS_LEN_MAX};

/// A key of before.
#[derive(Clone, Debug)]
pub struct FormerKey {
    /// Who this store was.
    pub peer: PeerId,
    /// Since when it is not.
    pub at: UnixTime,
    /// By the former key's own word.
    pub succession: Signed<Succession>,
    /// None: it is not in the keyring any more.
    sealing: Option<Arc<SealingSecret>>,
}

/// All of them, oldest first.
#[derive(Clone, Debug, Default)]
pub struct FormerKeys(Vec<FormerKey>);

/// One, as it is in the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    peer: PeerId,
    at: UnixTime,
    succession: String,
    /// Absent: in the keyring.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sealing: Option<Secret>,
}

impl FormerKeys {
    /// Those that are kept at `place`.
    ///
    /// # Errors
    /// [`KeyError`]: without one of them, what was sealed to it would be taken for somebody else's.
    pub async fn load(place: &KeyPlace) -> Result<Self, KeyError> {
        let mut keys = Vec::new();
        for line in read(place)? {
            let damaged = || KeyError::Damaged(file(place));
            let succession = BASE64URL_NOPAD.decode(line.succession.as_bytes()).map_err(|_| damaged())?;
            let succession = Signed::from_bytes(&succession).map_err(|_| damaged())?;
            let secret = match (&line.sealing, &place.config) {
                (Some(text), _) => {
                    let secret = BASE64URL_NOPAD.decode(text.expose().as_bytes());
                    Some(Zeroizing::new(secret.map_err(|_| damaged())?))
                }
                (None, KeyConfig::Keyring { entry }) => {
                    let name = entry_of(entry, &line.peer);
                    let secret = in_keyring(&name, |entry| match entry.get_secret() {
                        Err(keyring::Error::NoEntry) => Ok(None),
                        secret => secret.map(Some),
                    });
                    let secret = secret.await?.map(Zeroizing::new);
                    if secret.is_none() {
                        tracing::warn!(peer = %line.peer, "a former key is not in the keyring any more: what waits for it is lost");
                    }
                    secret
                }
                (None, KeyConfig::File) => return Err(damaged()),
            };
            let sealing = |secret: Zeroizing<Vec<u8>>| {
                let private = Zeroizing::new(secret[..].try_into().ok()?);
                SealingSecret::from_private(private).ok().map(Arc::new)
            };
            let sealing = secret.map(|secret| sealing(secret).ok_or_else(damaged)).transpose()?;
            let (peer, at) = (line.peer, line.at);
            keys.push(FormerKey { peer, at, succession, sealing });
        }
        Ok(Self(keys))
    }

    /// All, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &FormerKey> {
        self.0.iter()
    }

    /// What opens drops that were sealed to them, the latest key's first.
    pub fn sealing_secrets(&self) -> impl Iterator<Item = &SealingSecret> {
        self.0.iter().rev().filter_map(|key| key.sealing.as_deref())
    }

    /// By what word this store's key took their place.
    pub fn successions(&self) -> Vec<Signed<Succession>> {
        self.0.iter().map(|key| key.succession.clone()).collect()
    }
}

/// Keeps what is needed of `identity`, whose key goes; durable when this returns. Those whose time is over are let go of.
pub(super) async fn keep(
    place: &KeyPlace,
    identity: &Identity,
    succession: &Signed<Succession>,
    now: UnixTime,
) -> Result<(), KeyError> {
    let mut lines = read(place)?;
    let failed = |_| KeyError::NoKey(identity.peer().to_string());
    let private = SealingSecret::derive(&identity.secret_bytes()).map_err(failed)?.to_private();
    let sealing = match &place.config {
        KeyConfig::File => Some(Secret::new(BASE64URL_NOPAD.encode(&private[..]))),
        KeyConfig::Keyring { entry } => {
            let name = entry_of(entry, &identity.peer());
            in_keyring(&name, move |entry| entry.set_secret(&private[..])).await?;
            None
        }
    };
    lines.retain(|line| line.peer != identity.peer());
    let succession = BASE64URL_NOPAD.encode(&succession.to_bytes());
    lines.push(Line { peer: identity.peer(), at: now, succession, sealing });
    let surplus = lines.len().saturating_sub(SUCCESSIONS_MAX);
    let over = |line: &Line| line.at.plus(FORMER_KEY_LIFE) < now;
    let (gone, kept): (Vec<_>, Vec<_>) =
        lines.into_iter().enumerate().partition(|(number, line)| *number < surplus || over(line));
    let kept: Vec<_> = kept.into_iter().map(|(_, line)| line).collect();
    let text = Zeroizing::new(serde_json::to_vec_pretty(&kept).map_err(|_| KeyError::Damaged(file(place)))?);
    files::replace(&file(place), &text).map_err(|source| KeyError::Io { path: file(place), source })?;
    if let KeyConfig::Keyring { entry } = &place.config {
        for (_, line) in gone {
            let removed = in_keyring(&entry_of(entry, &line.peer), |entry| entry.delete_credential()).await;
            if let Err(error) = removed {
                tracing::warn!(peer = %line.peer, %error, "a former key stays in the keyring");
            }
        }
    }
    Ok(())
}

fn read(place: &KeyPlace) -> Result<Vec<Line>, KeyError> {
    let path = file(place);
    let bytes = match files::read(&path, FORMER_KEYS_LEN_MAX) {
        Ok(bytes) => Zeroizing::new(bytes),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(KeyError::Io { path, source }),
    };
    serde_json::from_slice(&bytes).map_err(|_| KeyError::Damaged(path))
}

fn file(place: &KeyPlace) -> PathBuf {
    place.data.join("former-keys.json")
}

/// The name of the keyring's entry, beside that of the key.
fn entry_of(entry: &str, peer: &PeerId) -> String {
    format!("{entry} former {peer}")
}
