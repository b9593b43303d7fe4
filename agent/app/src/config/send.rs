//! What is sent, and to whom: how `send` decides, the watched folder, the address books that groups are looked up in.

use std::collections::BTreeMap;
use std::path::PathBuf;

use lighter_protocol::Mailbox;
use serde::{Deserialize, Serialize};

use super::MIB;
use crate::address_books::carddav::{self, CardDavConfig};
use crate::limits::{RETRY_HOURS_DEFAULT, RETRY_HOURS_MAX};
use crate::send::unreachable::{Rules, Unreachable};
use crate::sharing::Share;

/// How `send` decides what goes to a recipient's store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SendConfig {
    /// Smaller attachments stay in the message.
    pub size_bytes_min: usize,
    /// Whether the location server's word that a store is online is enough; otherwise the store itself is pinged first
    /// (SPEC A4).
    pub trust_presence: bool,
    /// Whether attachments are pushed to stores that take that, instead of waiting to be asked for them (SPEC A6).
    pub push: bool,
    /// Between which recipients of a message, of those whom its header shows, its attachments may be shared (SPEC D3).
    pub share: Share,
    /// MiB of a message's attachments up to which they are pushed; absent: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub push_mib_max: Option<u64>,
    /// What happens to attachments whose recipient has a store that cannot be reached now (SPEC A7, A8).
    pub unreachable: Unreachable,
    /// How many hours such attachments wait here; then the message goes whole by mail. At most [`RETRY_HOURS_MAX`].
    #[serde(deserialize_with = "retry_hours")]
    pub retry_hours: u32,
    /// Bytes of one message's attachments that may wait here; with more, the message goes whole at once. Absent: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_bytes_max: Option<u64>,
    /// `unreachable` for single recipients.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub to: BTreeMap<Mailbox, Unreachable>,
}

impl Default for SendConfig {
    fn default() -> Self {
        Self {
            size_bytes_min: lighter_message::Policy::default().min_size,
            trust_presence: false,
            share: Share::default(),
            push: false,
            push_mib_max: None,
            unreachable: Unreachable::default(),
            retry_hours: RETRY_HOURS_DEFAULT,
            retry_bytes_max: None,
            to: BTreeMap::new(),
        }
    }
}

impl SendConfig {
    /// Bytes of a delivery up to which it is pushed; none: nothing is.
    pub fn push_bytes_max(&self) -> Option<u64> {
        self.push.then(|| self.push_mib_max.map_or(u64::MAX, |mib| mib.saturating_mul(MIB)))
    }

    /// What it says of recipients whose store cannot be reached.
    pub fn rules(&self) -> Rules<'_> {
        Rules {
            general: self.unreachable,
            to: &self.to,
            retry_hours: self.retry_hours,
            retry_bytes_max: self.retry_bytes_max.unwrap_or(u64::MAX),
        }
    }
}

fn retry_hours<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let hours = u32::deserialize(deserializer)?;
    if (1..=RETRY_HOURS_MAX).contains(&hours) {
        Ok(hours)
    } else {
        Err(serde::de::Error::custom(format!("retry_hours is 1 to {RETRY_HOURS_MAX}, not {hours}")))
    }
}

/// The folder that is watched for what is to be sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OutboxConfig {
    /// Whether there is one.
    pub enabled: bool,
    /// Where; absent: `Lighter Outbox` in the home folder, or, with a data folder of its own, `outbox` in that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub folder: Option<PathBuf>,
    /// Seconds that a file stays as it is before it counts as complete.
    pub settle_s: u16,
    /// The same for a folder that is sent as one message.
    pub settle_folder_s: u16,
}

impl Default for OutboxConfig {
    fn default() -> Self {
        Self { enabled: true, folder: None, settle_s: 2, settle_folder_s: 10 }
    }
}

impl OutboxConfig {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Where groups are looked up, besides `DATA/address-books`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AddressBooksConfig {
    /// Files, and folders of files: each is one address book. A relative path starts at the configuration's folder.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<PathBuf>,
    /// CardDAV servers, whose address books are fetched.
    #[serde(deserialize_with = "carddav::servers", skip_serializing_if = "Vec::is_empty")]
    pub carddav: Vec<CardDavConfig>,
}

impl AddressBooksConfig {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}
