//! What the user says for a while: a pause, a limit. Kept in a file, so that a restart keeps it until its time.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use lighter_protocol::UnixTime;
use serde::{Deserialize, Serialize};

use super::amounts::ByteRate;
use crate::limits::BY_HAND_LEN_MAX;

/// What was said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ByHand {
    /// Nothing goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pause: Option<Pause>,
    /// It goes slower, or faster, than configuration and schedule say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<HandLimit>,
}

/// A pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// Until when; none: until it is ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<UnixTime>,
    /// What is small, and what somebody waits for, does not go either.
    #[serde(default)]
    pub everything: bool,
}

/// Limits that take the place of those of configuration and schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandLimit {
    /// Bytes a second that come; none: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub download: Option<ByteRate>,
    /// Bytes a second that go; none: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload: Option<ByteRate>,
    /// Until when; none: until it is lifted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<UnixTime>,
}

/// What the user says now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wish {
    /// Nothing: only how things stand.
    Show,
    /// Pause.
    Pause(Pause),
    /// Go on.
    Resume,
    /// Limit.
    Limit(HandLimit),
    /// No limits by hand any more.
    Unlimit,
}

impl ByHand {
    /// What holds once the user has said this.
    pub fn say(&mut self, wish: Wish) {
        match wish {
            Wish::Show => {}
            Wish::Pause(pause) => self.pause = Some(pause),
            Wish::Resume => self.pause = None,
            Wish::Limit(limit) => self.limit = Some(limit),
            Wish::Unlimit => self.limit = None,
        }
    }

    /// What is left of it at `now`.
    pub fn at(&self, now: UnixTime) -> Self {
        let holds = |until: Option<UnixTime>| until.is_none_or(|until| now < until);
        Self {
            pause: self.pause.filter(|pause| holds(pause.until)),
            limit: self.limit.filter(|limit| holds(limit.until)),
        }
    }

    /// Reads what was kept; a file that is not there, or cannot be read, says nothing.
    pub fn read(path: &Path) -> Self {
        let read = || -> io::Result<Self> {
            let mut text = String::new();
            fs::File::open(path)?.take(BY_HAND_LEN_MAX).read_to_string(&mut text)?;
            Ok(serde_json::from_str(&text)?)
        };
        match read() {
            Ok(by_hand) => by_hand,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::default(),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "what was set by hand is forgotten");
                Self::default()
            }
        }
    }

    /// Keeps it, durably; the file is replaced as a whole.
    ///
    /// # Errors
    /// What the system says.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let temporary = path.with_extension("new");
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(serde_json::to_string_pretty(self)?.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        match path.parent() {
            Some(folder) => fs::File::open(folder)?.sync_all(),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_is_kept_until_its_time_and_a_broken_file_says_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("guest.json");
        assert_eq!(ByHand::read(&path), ByHand::default());
        let mut by_hand = ByHand::default();
        by_hand.say(Wish::Pause(Pause { until: Some(UnixTime(100)), everything: true }));
        by_hand.say(Wish::Limit(HandLimit {
            download: Some("1M".parse().unwrap()),
            upload: None,
            until: None,
        }));
        by_hand.write(&path).unwrap();
        assert_eq!(ByHand::read(&path), by_hand);
        assert_eq!(by_hand.at(UnixTime(99)), by_hand);
        assert_eq!(by_hand.at(UnixTime(100)), ByHand { pause: None, ..by_hand.clone() });
        by_hand.say(Wish::Show);
        by_hand.say(Wish::Resume);
        by_hand.say(Wish::Unlimit);
        assert_eq!(by_hand, ByHand::default());
        fs::write(&path, "{\"pause\": 1}").unwrap();
        assert_eq!(ByHand::read(&path), ByHand::default());
    }
}
