//! What the store keeps: quota, retention, whom it shares with; and whose it is, where it is the store of many.

use std::collections::BTreeMap;
use std::time::Duration;

use lighter_protocol::Mailbox;
use lighter_store::Settings;
use serde::{Deserialize, Serialize};

use super::MIB;
use crate::sharing::Share;

const DAY: Duration = Duration::from_hours(24);

/// What is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StoreConfig {
    /// MiB that attachments may take; absent: as much as the disk has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota_mib: Option<u64>,
    /// Days that attachments are kept; absent: until they are removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention_days: Option<u32>,
    /// MiB of the largest attachment that is taken; absent: 1 TiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blob_mib_max: Option<u64>,
    /// Whether holders that would push may. What they push is what would be pulled from them, and only then.
    pub accept_push: bool,
    /// With which other recipients of a message its attachments are shared: given to them, and taken from them (SPEC D3).
    pub share: Share,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            quota_mib: None,
            retention_days: None,
            blob_mib_max: None,
            accept_push: true,
            share: Share::default(),
        }
    }
}

impl StoreConfig {
    /// The same, as the store takes it.
    pub fn settings(&self) -> Settings {
        let default = Settings::default();
        Settings {
            quota: self.quota_mib.map(|mib| mib.saturating_mul(MIB)),
            retention: self.retention_days.map(|days| DAY * days),
            blob_size_max: self
                .blob_mib_max
                .map_or(default.blob_size_max, |mib| mib.saturating_mul(MIB).min(default.blob_size_max)),
        }
    }
}

/// The store of many (SPEC A29): whose it is, the location server says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HostedConfig {
    /// MiB that the attachments of one mailbox may take; absent: any. All together: `store.quota_mib`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota_mib: Option<u64>,
    /// The same for single mailboxes.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub quotas_mib: BTreeMap<Mailbox, u64>,
}

impl HostedConfig {
    /// Bytes that the attachments of `mailbox` may take; none: any.
    pub fn quota_of(&self, mailbox: &Mailbox) -> Option<u64> {
        self.quotas_mib.get(mailbox).copied().or(self.quota_mib).map(|mib| mib.saturating_mul(MIB))
    }
}
