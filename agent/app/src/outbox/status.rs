//! How things stand in the outbox, for `status`.

use std::ffi::OsStr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::decide::Key;
use super::names::shown;
use crate::limits::OUTBOX_LISTED_MAX;

/// How things stand.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboxStatus {
    /// Where it is.
    pub folder: PathBuf,
    /// What is wrong with all of it.
    pub problem: Option<String>,
    /// What is in it and not sent, by folder and name.
    pub items: Vec<OutboxItem>,
    /// How many more there are.
    pub more: usize,
}

/// Something in the outbox. The names were made harmless.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboxItem {
    /// The recipient's folder.
    pub folder: String,
    /// Its name; empty: the folder itself.
    pub name: String,
    /// How far it is.
    pub state: ItemState,
    /// Why.
    pub reason: Option<String>,
}

/// How far something in the outbox is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ItemState {
    /// It is not complete yet, or waits for its turn.
    Waiting,
    /// It is being sent.
    Sending,
    /// It did not go, and is tried again.
    Retrying,
    /// It cannot be sent as it is.
    Failed,
}

impl std::fmt::Display for ItemState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Waiting => "waiting",
            Self::Sending => "sending",
            Self::Retrying => "retrying",
            Self::Failed => "failed",
        })
    }
}

impl OutboxItem {
    pub(crate) fn of(key: &Key, state: ItemState, reason: Option<String>) -> Self {
        Self { folder: shown(&key.folder), name: shown(&key.name), state, reason }
    }
}

impl OutboxStatus {
    /// Lists one more, or counts it.
    pub(crate) fn push(&mut self, item: OutboxItem) {
        if self.items.len() < OUTBOX_LISTED_MAX { self.items.push(item) } else { self.more += 1 }
    }

    pub(crate) fn wrong(&mut self, folder: &OsStr, name: &OsStr, why: &str) {
        let key = Key { folder: folder.to_owned(), name: name.to_owned() };
        self.push(OutboxItem::of(&key, ItemState::Failed, Some(why.to_owned())));
    }
}
