//! The server's own keys: the one that signs now, and, while a change is announced, the one that takes over.
//!
//! # Format
//! `location.key` is the first key, `location-after-PEER.key` the one that takes over from PEER (see `Identity`). Which of
//! them counts is decided by the changes on record, which say when: nothing is renamed, and a crash at any point leaves one
//! answer.
//!
//! # Sync
//! A new key's file is synced before its announcement is on record, and that before anybody is told.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lighter_protocol::{PeerId, Signed, SignedError, UnixTime};
use lighter_transport::location::keys::{KeyChange, follow};
use lighter_transport::{Identity, IdentityError};

/// Name of the first key's file in the data folder.
const KEY_FILE: &str = "location.key";

/// The keys. Invariant: `next` is none, or takes over from `present`.
#[derive(Clone, Debug)]
pub struct Keyring {
    present: Arc<Identity>,
    next: Option<(Arc<Identity>, UnixTime)>,
}

impl Keyring {
    /// One key, and no change.
    pub fn of(identity: Identity) -> Self {
        Self { present: Arc::new(identity), next: None }
    }

    /// The keys in `folder`; the first one is made where there is none.
    ///
    /// # Errors
    /// Where a key that is needed cannot be read.
    pub fn open(folder: &Path, changes: &[Signed<KeyChange>], now: UnixTime) -> Result<Self, IdentityError> {
        let claims: Vec<KeyChange> = changes.iter().filter_map(|signed| signed.claim().ok()).collect();
        let Some(first) = claims.first() else {
            return Ok(Self::of(Identity::load_or_create(&folder.join(KEY_FILE))?));
        };
        let present = follow(first.present, changes, now);
        let next = claims.iter().find(|change| change.present == present && change.from > now);
        let before = claims.iter().find(|change| change.next == present);
        let file = before.map_or_else(|| folder.join(KEY_FILE), |change| file_after(folder, change.present));
        let next = match next {
            Some(change) => {
                Some((Arc::new(Identity::load(&file_after(folder, change.present))?), change.from))
            }
            None => None,
        };
        Ok(Self { present: Arc::new(Identity::load(&file)?), next })
    }

    /// The key that signs at `now`.
    pub fn signing(&self, now: UnixTime) -> &Arc<Identity> {
        match &self.next {
            Some((next, from)) if *from <= now => next,
            _ => &self.present,
        }
    }

    /// Makes a key in `folder` that takes over at `from`, and the announcement of it. One that was announced before and has
    /// not taken over yet is the same key, at another time.
    ///
    /// # Errors
    /// Where the file cannot be written, or the change not be signed.
    pub fn announce(
        &self,
        folder: &Path,
        from: UnixTime,
        now: UnixTime,
    ) -> Result<(Self, Signed<KeyChange>), AnnounceError> {
        let present = self.signing(now).clone();
        let next = Identity::load_or_create(&file_after(folder, present.peer()))?;
        let change = KeyChange { present: present.peer(), next: next.peer(), from };
        let signed = Signed::sign(&change, present.keypair())?;
        Ok((Self { present, next: Some((Arc::new(next), from)) }, signed))
    }
}

/// Why a change cannot be announced.
#[derive(Debug, thiserror::Error)]
pub enum AnnounceError {
    /// The new key's file.
    #[error(transparent)]
    Key(#[from] IdentityError),
    /// The announcement.
    #[error(transparent)]
    Signed(#[from] SignedError),
}

/// The file of the key that takes over from `present`.
fn file_after(folder: &Path, present: PeerId) -> PathBuf {
    folder.join(format!("location-after-{present}.key"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime(1_800_000_000);
    const LATER: UnixTime = UnixTime(1_801_000_000);
    const LAST: UnixTime = UnixTime(1_802_000_000);

    #[test]
    fn a_key_takes_over_when_it_was_announced_to_and_a_restart_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let first = Keyring::open(folder.path(), &[], NOW).unwrap();
        let old = first.signing(LAST).peer();
        let (announced, change) = first.announce(folder.path(), LATER, NOW).unwrap();
        let claim = change.verify(&old).unwrap();
        let reopened =
            |changes: &[Signed<KeyChange>], now| Keyring::open(folder.path(), changes, now).unwrap();
        for keyring in [&announced, &reopened(std::slice::from_ref(&change), NOW)] {
            assert_eq!(keyring.signing(NOW).peer(), old);
            assert_eq!(keyring.signing(LATER).peer(), claim.next);
        }
        assert_eq!(reopened(std::slice::from_ref(&change), LATER).signing(LATER).peer(), claim.next);
        let (_, again) = announced.announce(folder.path(), LAST, LATER).unwrap();
        let last = again.verify(&claim.next).unwrap();
        let changes = [change, again];
        assert_eq!(reopened(&changes, LATER).signing(LATER).peer(), claim.next);
        assert_eq!(reopened(&changes, LAST).signing(LAST).peer(), last.next);
        assert_eq!(follow(old, &changes, LAST), last.next);
    }

    #[test]
    fn a_change_that_is_announced_again_is_of_the_same_key_at_another_time() {
        let folder = tempfile::tempdir().unwrap();
        let first = Keyring::open(folder.path(), &[], NOW).unwrap();
        let (announced, one) = first.announce(folder.path(), LATER, NOW).unwrap();
        let (_, other) = announced.announce(folder.path(), LAST, NOW).unwrap();
        let (one, other) = (one.claim().unwrap(), other.claim().unwrap());
        assert_eq!((one.next, one.from, other.from), (other.next, LATER, LAST));
    }
}
