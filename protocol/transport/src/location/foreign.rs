//! What a store asks of another domain's location server (DESIGN §4): it shows its own domain's attestation, and signs the
//! question with the key that the attestation names.
//!
//! The question names the server and the time, and is what is signed, whole: shown to another server, later, or with other
//! names in it, it is none. Shown again to the same server within [`super::limits::FOREIGN_TIME_DIFFERENCE_MAX`], the answer
//! goes to whoever holds the connection; that is one who could read the first answer, too.

use lighter_protocol::{Attestation, Keypair, Mailbox, PeerId, Signed, SignedError, Statement, UnixTime};
use serde::{Deserialize, Serialize};

use super::limits::FOREIGN_NAMES_MAX;

/// A question to another domain's location server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForeignQuestion {
    /// The key of the server that is asked.
    pub server: PeerId,
    /// When.
    pub time: UnixTime,
    /// What.
    pub ask: ForeignAsk,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ForeignAsk {
    /// The stores of these mailboxes: at most [`FOREIGN_NAMES_MAX`].
    Lookup(Vec<Mailbox>),
    /// An introduction to this mailbox's store.
    Introduction {
        /// Whose store.
        recipient: Mailbox,
        /// Bytes that will be offered, all blobs together.
        bytes: u64,
    },
}

impl Statement for ForeignQuestion {
    const CONTEXT: &'static str = "lighter foreign question 1";

    fn within_limits(&self) -> bool {
        match &self.ask {
            ForeignAsk::Lookup(names) => names.len() <= FOREIGN_NAMES_MAX,
            ForeignAsk::Introduction { .. } => true,
        }
    }
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// The store's key.
    pub key: &'a Keypair,
    /// Its own domain's word that it acts for a mailbox.
    pub attestation: &'a Signed<Attestation>,
}

impl Asker<'_> {
    /// The question, signed.
    ///
    /// # Errors
    /// Where it is beyond its limits.
    pub fn sign(
        &self,
        server: PeerId,
        ask: ForeignAsk,
        now: UnixTime,
    ) -> Result<Signed<ForeignQuestion>, SignedError> {
        Signed::sign(&ForeignQuestion { server, time: now, ask }, self.key)
    }
}
