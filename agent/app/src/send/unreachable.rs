//! What happens to attachments whose recipient has a store that cannot be reached now (SPEC A7, A8).
//!
//! Who says so, the nearest first: the message (`send --unreachable`), the recipient (`[send.to]`), the configuration
//! (`[send] unreachable`). Whatever waits and is not taken in its time goes whole by mail in the end: nobody is left with
//! placeholders for good (`offers`).

use std::collections::BTreeMap;
use std::time::Duration;

use lighter_protocol::Mailbox;
use serde::{Deserialize, Serialize};

use crate::limits::{OUTGOING_LIFE, RETRY_HOURS_DEFAULT};

/// What happens to attachments whose recipient has a store that cannot be reached now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Unreachable {
    /// The message goes now, with placeholders, and the attachments are left, sealed, with a relay of the recipient's domain;
    /// where there is none, or it does not take them, all of the message goes by mail.
    #[default]
    Drop,
    /// All of the message goes by mail (SPEC A8).
    Whole,
    /// The message goes now, with placeholders; the attachments wait here, and are offered again and again until their time
    /// is over (SPEC A7).
    Retry,
}

/// What the configuration says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules<'a> {
    /// For who is not named.
    pub general: Unreachable,
    /// By recipient.
    pub to: &'a BTreeMap<Mailbox, Unreachable>,
    /// How long attachments wait here.
    pub retry_hours: u32,
    /// Bytes of one message's attachments that may wait here; more goes whole.
    pub retry_bytes_max: u64,
}

/// What one message says of it, before all rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Wanted {
    /// For all its recipients.
    pub unreachable: Option<Unreachable>,
    /// How long its attachments wait here.
    pub retry_hours: Option<u32>,
}

impl Wanted {
    /// How long attachments wait here that wait.
    pub fn time(self, rules: &Rules<'_>) -> Duration {
        let hours = self.retry_hours.unwrap_or(rules.retry_hours);
        Duration::from_hours(hours.into()).min(OUTGOING_LIFE)
    }
}

/// What is done for one recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// All of it goes by mail; `too_large`: it was to wait, and is larger than may.
    Whole {
        /// More bytes than may wait.
        too_large: bool,
    },
    /// The attachments wait here for so long.
    Retry(Duration),
    /// The attachments are left with a relay of the recipient's domain, if it takes them.
    Drop,
}

/// Decides for one recipient and attachments of `bytes` bytes.
// SPEC: A7, A8
pub fn decide(rules: &Rules<'_>, wanted: Wanted, recipient: &Mailbox, bytes: u64) -> Next {
    let policy = wanted.unreachable.or_else(|| rules.to.get(recipient).copied()).unwrap_or(rules.general);
    match policy {
        Unreachable::Whole => Next::Whole { too_large: false },
        Unreachable::Drop => Next::Drop,
        Unreachable::Retry if bytes > rules.retry_bytes_max => Next::Whole { too_large: true },
        Unreachable::Retry => Next::Retry(wanted.time(rules)),
    }
}

impl Default for Rules<'_> {
    fn default() -> Self {
        static NOBODY: BTreeMap<Mailbox, Unreachable> = BTreeMap::new();
        let general = Unreachable::default();
        Self { general, to: &NOBODY, retry_hours: RETRY_HOURS_DEFAULT, retry_bytes_max: u64::MAX }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn policy() -> impl Strategy<Value = Unreachable> {
        prop_oneof![Just(Unreachable::Drop), Just(Unreachable::Whole), Just(Unreachable::Retry)]
    }

    proptest! {
        // SPEC: A7, A8
        #[test]
        fn the_nearest_word_counts_and_no_limit_is_passed(
            general in policy(),
            own in proptest::option::of(policy()),
            other in policy(),
            unreachable in proptest::option::of(policy()),
            retry_hours in proptest::option::of(any::<u32>()),
            hours in any::<u32>(),
            bytes in any::<u64>(),
            retry_bytes_max in any::<u64>(),
        ) {
            let [alice, bob] = ["alice", "bob"].map(|name| format!("{name}@example.org").parse::<Mailbox>().unwrap());
            let mut to = BTreeMap::from([(bob, other)]);
            to.extend(own.map(|own| (alice.clone(), own)));
            let rules = Rules { general, to: &to, retry_hours: hours, retry_bytes_max };
            let next = decide(&rules, Wanted { unreachable, retry_hours }, &alice, bytes);
            let policy = unreachable.or(own).unwrap_or(general);
            let is_retry = policy == Unreachable::Retry;
            match next {
                Next::Drop => prop_assert_eq!(policy, Unreachable::Drop),
                Next::Retry(time) => {
                    prop_assert!(is_retry && bytes <= retry_bytes_max && time <= OUTGOING_LIFE);
                    let asked = Duration::from_hours(retry_hours.unwrap_or(hours).into());
                    prop_assert_eq!(time, asked.min(OUTGOING_LIFE));
                }
                Next::Whole { too_large } => {
                    prop_assert_eq!(too_large, is_retry);
                    prop_assert!(!too_large || bytes > retry_bytes_max);
                }
            }
        }
    }
}
