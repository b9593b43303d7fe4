//! What is to be sent, whether it can be, and what is told of it on its way.

use std::collections::BTreeSet;
use std::path::PathBuf;

use lighter_protocol::{Mailbox, UnixTime};
use serde::{Deserialize, Serialize};

use super::unreachable::Wanted;
use crate::failure::Failure;
use crate::limits::{BODY_LEN_MAX, FILES_MAX, RECIPIENTS_MAX, SUBJECT_CHARS_MAX};

/// Events that wait for the command to show them.
pub const EVENTS_MAX: usize = 64;

/// What is to be sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SendRequest {
    /// To whom.
    pub to: Vec<Mailbox>,
    /// To whom besides.
    pub cc: Vec<Mailbox>,
    /// What it is about.
    pub subject: String,
    /// Its text.
    pub body: String,
    /// Its attachments: absolute paths.
    pub files: Vec<PathBuf>,
    /// What happens where a recipient's store cannot be reached, if not what is configured.
    #[serde(default)]
    pub wanted: Wanted,
}

/// What happens to a message on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "event")]
pub enum SendEvent {
    /// The attachments are being read.
    Reading,
    /// The recipient's store takes the attachments: their message goes with placeholders.
    ToStore {
        /// Who.
        recipient: Mailbox,
        /// Bytes of the attachments.
        bytes: u64,
    },
    /// The recipient's store cannot be reached now: the attachments wait here, their message goes with placeholders.
    Kept {
        /// Who.
        recipient: Mailbox,
        /// Bytes of the attachments.
        bytes: u64,
        /// What is not taken until then goes whole by mail.
        until: UnixTime,
        /// Why it cannot be reached.
        why: String,
    },
    /// The recipient's store cannot be reached now: the attachments are left, sealed, with a relay of its domain, and the
    /// message goes with placeholders.
    Dropped {
        /// Who.
        recipient: Mailbox,
        /// Bytes of the attachments.
        bytes: u64,
        /// The relay keeps them until then.
        until: UnixTime,
    },
    /// All of it goes by mail.
    Whole {
        /// Who.
        recipient: Mailbox,
        /// Why.
        why: String,
    },
    /// The mail server took the message.
    Mailed {
        /// For whom.
        recipient: Mailbox,
    },
    /// The store pulled so much.
    Pulled {
        /// Whose store.
        recipient: Mailbox,
        /// Bytes served.
        bytes: u64,
    },
    /// The store has everything, durable; nothing is kept here any more.
    Receipted {
        /// Whose store.
        recipient: Mailbox,
    },
    /// The store went away before it had everything: a running agent goes on.
    Waiting {
        /// Whose store.
        recipient: Mailbox,
        /// Why.
        why: String,
    },
    /// The message did not go.
    Failed {
        /// For whom.
        recipient: Mailbox,
        /// Why.
        why: String,
        /// Whether trying again may help.
        temporary: bool,
    },
}

impl SendRequest {
    /// The recipients, each once.
    pub(super) fn recipients(&self) -> Vec<Mailbox> {
        let mut seen = BTreeSet::new();
        self.to.iter().chain(&self.cc).filter(|mailbox| seen.insert(*mailbox)).cloned().collect()
    }

    pub(super) fn check(&self) -> Result<(), Failure> {
        if self.to.is_empty() && self.cc.is_empty() {
            return Err(Failure::wrong_use("nobody to send it to"));
        }
        let recipients = self.recipients().len();
        if recipients > RECIPIENTS_MAX {
            return Err(Failure::wrong_use(format!(
                "{recipients} recipients, the members of groups among them: more than {RECIPIENTS_MAX}"
            )));
        }
        if self.files.len() > FILES_MAX {
            return Err(Failure::wrong_use(format!("more than {FILES_MAX} files")));
        }
        if self.body.len() as u64 > BODY_LEN_MAX {
            return Err(Failure::wrong_use(format!("a text of more than {BODY_LEN_MAX} bytes: attach it")));
        }
        if self.subject.chars().count() > SUBJECT_CHARS_MAX || self.subject.chars().any(char::is_control) {
            return Err(Failure::wrong_use("a subject is one line, not too long"));
        }
        for path in &self.files {
            let metadata = std::fs::metadata(path)
                .map_err(|error| Failure::failed(format!("{}: {error}", path.display())))?;
            if !metadata.is_file() {
                return Err(Failure::failed(format!("{} is not a file", path.display())));
            }
        }
        Ok(())
    }
}
