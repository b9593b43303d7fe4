//! `key rotate`: another key for this store, while everything else stays.
//!
//! ```text
//!   1  a new key is drawn and kept as the next one; what is being done is on record
//!   2  the location server is told, with both keys' signatures: from then on the next one is the store's
//!   3  what is kept of the former key is durable
//!   4  the next key takes its place where it is kept; the record goes
//! ```
//! Sound because the record stands from before the location server is told until the key has changed here: whoever is
//! interrupted in between says the same again, with the same key, and is answered the same. Until 4 the former key is still
//! here; after 2 it is good for nothing but this.

use std::fmt;
use std::path::PathBuf;

use lighter_protocol::{PeerId, UnixTime};
use lighter_shell::files;
use lighter_transport::Identity;
use lighter_transport::location::LocationError;
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use super::{FormerKeys, KeyError, KeyPlace, Slot, former};
use crate::drops;
use crate::failure::Failure;
use crate::limits::{RECONNECT_MAX, RECONNECT_MIN};
use crate::outbox::notes::day;
use crate::shared::Handle;

/// What is being done, in `key-rotation.json` in the data folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pending {
    /// The key that goes.
    former: PeerId,
    /// The key that comes.
    next: PeerId,
}

/// The key, and those of before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyView {
    /// This store's key.
    pub peer: PeerId,
    /// Where it is, in words.
    pub key: String,
    /// Those of before, newest first.
    pub former: Vec<FormerView>,
    /// Whether it was just changed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rotated: bool,
    /// A rotation that was begun and is not done: the location server has not answered yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pending: bool,
}

/// A key of before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormerView {
    /// Which.
    pub peer: PeerId,
    /// Since when it is a former one.
    pub at: UnixTime,
}

impl KeyView {
    /// The key, as it is kept.
    ///
    /// # Errors
    /// What the keyring or the disk says.
    pub async fn of(place: &KeyPlace) -> Result<Self, KeyError> {
        let (identity, former) = (place.load(Slot::Present).await?, FormerKeys::load(place).await?);
        let view = |key: &former::FormerKey| FormerView { peer: key.peer, at: key.at };
        let mut former: Vec<_> = former.iter().map(view).collect();
        former.reverse();
        let (peer, key) = (identity.peer(), place.config.to_string());
        let pending = Pending::read(place)?.is_some_and(|pending| pending.next != peer);
        Ok(Self { peer, key, former, rotated: false, pending })
    }
}

impl fmt::Display for KeyView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.rotated {
            writeln!(f, "The key was changed: from now on this store is {}.", self.peer)?;
        } else {
            writeln!(f, "This store is {}.", self.peer)?;
        }
        writeln!(f, "Its key is {}.", self.key)?;
        for former in &self.former {
            writeln!(f, "Until {} it was {}.", day(former.at), former.peer)?;
        }
        if self.pending {
            writeln!(f, "Another key is on its way: `lighter-agent key rotate` goes on with it.")?;
        }
        Ok(())
    }
}

impl Pending {
    fn file(place: &KeyPlace) -> PathBuf {
        place.data.join("key-rotation.json")
    }

    fn read(place: &KeyPlace) -> Result<Option<Self>, KeyError> {
        let path = Self::file(place);
        match files::read(&path, 4096) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|_| KeyError::Damaged(path)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(KeyError::Io { path, source }),
        }
    }

    fn write(&self, place: &KeyPlace) -> Result<(), KeyError> {
        let path = Self::file(place);
        let text = serde_json::to_vec(self).map_err(|_| KeyError::Damaged(path.clone()))?;
        files::replace(&path, &text).map_err(|source| KeyError::Io { path, source })
    }

    fn remove(place: &KeyPlace) -> Result<(), KeyError> {
        let path = Self::file(place);
        files::remove(&path).map_err(|source| KeyError::Io { path, source })
    }
}

/// The key of the agent that runs, and those of before.
///
/// # Errors
/// What the keyring or the disk says.
pub async fn show(shared: &Handle) -> Result<KeyView, Failure> {
    let place = shared.key_place.as_ref().ok_or_else(|| Failure::failed("this agent keeps no key"))?;
    Ok(KeyView::of(place).await?)
}

/// Changes the key of the agent that runs, or goes on with a change that was interrupted. From then on this agent is nobody,
/// and is to be started anew: whoever called this says so (`shared.key_changed`), once that was told to who asked.
///
/// # Errors
/// Where the location server refuses, nothing has changed; where it does not answer, it may have: the next key is kept, and
/// the same is done again by the next `key rotate`, or by the agent that runs.
pub async fn rotate(shared: &Handle) -> Result<KeyView, Failure> {
    if shared.hosted.is_on() {
        return Err(Failure::wrong_use(
            "a hosted store is named by its key in the location server's configuration (`[[hosted]]`): its key cannot be \
             rotated from here",
        ));
    }
    let place = shared.key_place.as_ref().ok_or_else(|| Failure::failed("this agent keeps no key"))?;
    let _turn = shared.rotating.lock().await;
    let former = &shared.identity;
    if place.load(Slot::Present).await?.peer() != former.peer() {
        // By somebody who asked just before.
        return Ok(KeyView { rotated: true, ..KeyView::of(place).await? });
    }
    let known = Pending::read(place)?.filter(|pending| pending.former == former.peer());
    let next = match &known {
        Some(pending) => {
            let kept = place.load(Slot::Next).await?;
            if kept.peer() != pending.next {
                return Err(KeyError::NoKey(pending.next.to_string()).into());
            }
            kept
        }
        None => begin(place, former).await?,
    };
    let sealing_key = drops::sealing_key(&next, shared.mailbox());
    let told = shared
        .location
        .succeed(former.keypair(), next.keypair(), shared.mailbox(), sealing_key.as_ref())
        .await;
    let succession = match told {
        Ok((_, succession)) => succession,
        Err(error) => {
            let failure = not_told(place, error, known.is_some()).await;
            shared.rotation_begun.notify_one();
            return Err(failure);
        }
    };
    let changed = async {
        former::keep(place, former, &succession, UnixTime::now()).await?;
        place.change().await?;
        Pending::remove(place)
    };
    if let Err(error) = changed.await {
        shared.rotation_begun.notify_one();
        return Err(error.into());
    }
    tracing::info!(former = %former.peer(), next = %next.peer(), "this store has another key");
    Ok(KeyView { rotated: true, ..KeyView::of(place).await? })
}

/// Draws the next key; durable, with what is being done, when this returns.
async fn begin(place: &KeyPlace, former: &Identity) -> Result<Identity, KeyError> {
    // One that was drawn before and of which nobody heard.
    place.remove(Slot::Next).await?;
    let next = Identity::generate();
    place.keep(Slot::Next, &next).await?;
    Pending { former: former.peer(), next: next.peer() }.write(place)?;
    Ok(next)
}

/// The location server did not say yes. `was_begun`: it may have heard of it before.
async fn not_told(place: &KeyPlace, error: LocationError, was_begun: bool) -> Failure {
    // Whatever else it says, it may have done it.
    let is_certain = matches!(
        error,
        LocationError::Refused
            | LocationError::NotUnderstood
            | LocationError::Full
            | LocationError::TooMany { .. }
    );
    let why = match &error {
        LocationError::Refused => {
            "the location server refused: this key is no store's there, or one of the clocks is wrong \
            by more than an hour"
                .to_owned()
        }
        LocationError::Full => "keys of this mailbox were changed too often since yesterday".to_owned(),
        LocationError::NotUnderstood => {
            "the location server cannot do that: it is of an older version".to_owned()
        }
        error => error.to_string(),
    };
    if is_certain && !was_begun {
        let removed = match Pending::remove(place) {
            Ok(()) => place.remove(Slot::Next).await,
            Err(error) => Err(error),
        };
        let why = format!("the key was not changed: {why}");
        return match removed {
            Ok(()) if error.is_temporary() => Failure::temporary(why),
            Ok(()) => Failure::failed(why),
            Err(error) => error.into(),
        };
    }
    Failure::temporary(format!(
        "the key may have been changed, and is not here yet: {why}; `lighter-agent key rotate` goes on"
    ))
}

/// Goes on with a rotation that was interrupted, in an earlier run or in this one, until the agent stops.
pub async fn run(shared: Handle) {
    let Some(place) = &shared.key_place else { return };
    let mut pause = RECONNECT_MIN;
    loop {
        let mut wakes = shared.wakes.subscribe();
        match Pending::read(place) {
            Ok(None) => {
                shared.rotation_begun.notified().await;
                pause = RECONNECT_MIN;
            }
            Ok(Some(_)) => match rotate(&shared).await {
                Ok(_) => return shared.key_changed.cancel(),
                Err(failure) => tracing::warn!(%failure, "a change of the key is not done yet"),
            },
            Err(error) => {
                tracing::warn!(%error, "whether the key was to be changed is not known");
                return;
            }
        }
        tokio::select! {
            () = sleep(pause) => pause = (pause * 2).min(RECONNECT_MAX),
            _ = wakes.changed() => pause = RECONNECT_MIN,
        }
    }
}

/// What was interrupted between the change of the key and the end of the record: nothing is left to be done.
///
/// # Errors
/// What the disk says.
pub(super) async fn tidy(place: &KeyPlace, present: &Identity) -> Result<(), KeyError> {
    match Pending::read(place)? {
        Some(pending) if pending.next == present.peer() => {
            place.remove(Slot::Next).await?;
            Pending::remove(place)
        }
        _ => Ok(()),
    }
}
