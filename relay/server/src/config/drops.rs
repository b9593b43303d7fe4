//! What senders may leave, sealed, for stores that are not there.

use serde::{Deserialize, Serialize};

use super::{ConfigError, RETENTION_DAYS_MAX};

/// Drops (DESIGN §6): whether they are taken, and how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DropsConfig {
    /// Whether any are taken.
    pub accept: bool,
    /// Days that one is kept at most, where its sender does not ask for less; 1 to 365.
    pub days: u32,
    /// Bytes of one drop.
    pub bytes_max: u64,
    /// Bytes that wait for one recipient.
    pub recipient_bytes_max: u64,
    /// Drops that wait for one recipient.
    pub recipient_count_max: u64,
    /// Bytes that wait from one sending domain.
    pub domain_bytes_max: u64,
    /// Drops that wait from one sending domain.
    pub domain_count_max: u64,
}

impl Default for DropsConfig {
    fn default() -> Self {
        Self {
            accept: true,
            days: 30,
            bytes_max: 20 << 30,
            recipient_bytes_max: 50 << 30,
            recipient_count_max: 1_000,
            domain_bytes_max: 500 << 30,
            domain_count_max: 10_000,
        }
    }
}

impl DropsConfig {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if self.days == 0 || self.days > RETENTION_DAYS_MAX {
            return Err(ConfigError::Value("drops.days: 1 to 365"));
        }
        if self.bytes_max > self.recipient_bytes_max || self.recipient_bytes_max > self.domain_bytes_max {
            return Err(ConfigError::Value(
                "drops: bytes_max is at most recipient_bytes_max, and that at most domain_bytes_max",
            ));
        }
        Ok(())
    }
}
