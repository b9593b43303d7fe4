//! Which message it is: what makes every try of it the same message to whoever gets it twice.

use std::collections::BTreeSet;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

use lighter_protocol::{DeliveryId, Mailbox, UnixTime};
use rand::RngExt;
use serde::{Deserialize, Serialize};

/// A message's identity: from the same one, request and files, come the same bytes, Message-ID and deliveries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// 256 random bits. Not to be told: the Message-ID goes to every recipient, and must not tell them the deliveries of
    /// the others.
    seed: [u8; 32],
    /// The message's date.
    pub date: UnixTime,
}

impl Identity {
    /// A new message's.
    pub fn draw(date: UnixTime) -> Self {
        Self { seed: rand::rng().random(), date }
    }

    /// The Message-ID's and the boundary's bits.
    pub(super) fn unique(&self) -> u128 {
        u128::from_be_bytes(self.derive("lighter-agent 2026-11-22 Message-ID", b""))
    }

    /// One recipient's delivery.
    pub fn delivery(&self, recipient: &Mailbox) -> DeliveryId {
        DeliveryId(self.derive("lighter-agent 2026-11-22 delivery", recipient.as_str().as_bytes()))
    }

    /// The same where it is left with a relay: another number, since the store may know the first one with other contents
    /// from a try to give it to the store itself.
    pub fn dropped(&self, recipient: &Mailbox) -> DeliveryId {
        DeliveryId(self.derive("lighter-agent 2026-11-22 drop", recipient.as_str().as_bytes()))
    }

    fn derive(&self, context: &str, of: &[u8]) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new_derive_key(context);
        hasher.update(&self.seed).update(of);
        let mut derived = [0; 16];
        hasher.finalize_xof().fill(&mut derived);
        derived
    }
}

/// What a try has in common with those before it.
#[derive(Clone, Debug)]
pub struct Sameness {
    /// Which message it is.
    pub identity: Identity,
    /// Recipients who are not sent to: they have it, or cannot get it.
    pub done: BTreeSet<Mailbox>,
    /// What the request's files were at the first try, in their order; empty: whatever they are.
    pub files: Vec<FileFacts>,
}

impl Sameness {
    /// A message that was never tried.
    pub fn new(date: UnixTime) -> Self {
        Self { identity: Identity::draw(date), done: BTreeSet::new(), files: Vec::new() }
    }
}

/// What tells a file's content from another one's without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FileFacts {
    /// Bytes in it.
    pub size: u64,
    /// When it was last written, seconds since the epoch.
    pub modified_s: i64,
    /// And nanoseconds.
    pub modified_ns: u32,
    /// When it was last written, or given another time: nobody can set this one back. Not kept across moves.
    #[serde(skip)]
    changed: (i64, i64),
}

impl FileFacts {
    /// Those of an open or listed file.
    pub fn of(metadata: &Metadata) -> Self {
        Self {
            size: metadata.size(),
            modified_s: metadata.mtime(),
            modified_ns: u32::try_from(metadata.mtime_nsec()).unwrap_or_default(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether it is the same content, as far as can be told: a move keeps these.
    pub fn is_same(&self, other: &Self) -> bool {
        (self.size, self.modified_s, self.modified_ns) == (other.size, other.modified_s, other.modified_ns)
    }

    #[cfg(test)]
    pub(crate) fn example(size: u64, modified_s: i64) -> Self {
        Self { size, modified_s, modified_ns: 0, changed: (0, 0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_recipient_has_a_delivery_of_their_own_and_no_message_tells_it() {
        let identity = Identity::draw(UnixTime(1));
        let (alice, bob) = ("alice@example.org".parse().unwrap(), "bob@example.org".parse().unwrap());
        assert_eq!(identity.delivery(&alice), identity.delivery(&alice));
        assert_ne!(identity.delivery(&alice), identity.delivery(&bob));
        assert_ne!(identity.delivery(&alice), identity.dropped(&alice));
        assert_ne!(identity.delivery(&alice).0, identity.unique().to_be_bytes());
        assert_ne!(identity.delivery(&alice), Identity::draw(UnixTime(1)).delivery(&alice));
    }
}
