//! How things stand with what mail clients send through the agent, for `status`.

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::shared::Shared;

/// How things stand, since the agent started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubmissionStatus {
    /// Where mail clients connect.
    pub address: SocketAddr,
    /// The provider's server.
    pub server: String,
    /// Why the last connection to it failed; none: it did not.
    pub problem: Option<String>,
    /// Connections of mail clients.
    pub connections: usize,
    /// Messages that went on untouched.
    pub untouched: u64,
    /// Messages whose attachments went to somebody's store.
    pub detached: u64,
    /// Recipients of those whose store takes the attachments.
    pub recipients_to_store: u64,
    /// Recipients of those who got the message whole.
    pub recipients_whole: u64,
    /// Messages that were not sent.
    pub refused: u64,
}

impl SubmissionStatus {
    /// At the start.
    pub(super) fn new(address: SocketAddr, server: &str) -> Self {
        Self {
            address,
            server: server.to_owned(),
            problem: None,
            connections: 0,
            untouched: 0,
            detached: 0,
            recipients_to_store: 0,
            recipients_whole: 0,
            refused: 0,
        }
    }
}

impl Shared {
    /// Counts something.
    pub(super) fn count_submission(&self, count: impl FnOnce(&mut SubmissionStatus)) {
        self.submission.send_if_modified(|status| {
            if let Some(status) = status {
                count(status);
            }
            status.is_some()
        });
    }
}

impl fmt::Display for SubmissionStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let problem = self.problem.as_ref().map_or(String::new(), |problem| format!(" ({problem})"));
        writeln!(f, "submission {} to {}{problem}", self.address, self.server)?;
        writeln!(
            f,
            "           {} messages untouched, {} with attachments to stores ({} recipients by store, {} whole), {} not sent",
            self.untouched, self.detached, self.recipients_to_store, self.recipients_whole, self.refused
        )
    }
}
