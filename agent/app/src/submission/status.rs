//! How things stand with what mail clients, or a mail server, send through the agent, for `status`.

use std::fmt;
use std::net::SocketAddr;

use lighter_shell::count;
use serde::{Deserialize, Serialize};

use crate::shared::Shared;

/// How things stand, since the agent started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubmissionStatus {
    /// Where mail clients, or mail servers, connect.
    pub address: SocketAddr,
    /// The domains for whose users a mail server sends; none of them: it is one user's mail clients that do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub domains: Vec<String>,
    /// The server that mail goes on to.
    pub server: String,
    /// Why the last connection to it failed; none: it did not.
    pub problem: Option<String>,
    /// Connections of mail clients.
    pub connections: usize,
    /// Connections from networks that mail is not taken from.
    #[serde(default)]
    pub turned_away: u64,
    /// Messages that went on untouched.
    pub untouched: u64,
    /// Messages whose attachments went to somebody's store.
    pub detached: u64,
    /// Recipients of those whose store takes the attachments.
    pub recipients_to_store: u64,
    /// Recipients of those whose attachments were left with a relay of their domain.
    #[serde(default)]
    pub recipients_left: u64,
    /// Recipients of those who got the message whole.
    pub recipients_whole: u64,
    /// Messages that were not sent.
    pub refused: u64,
}

impl SubmissionStatus {
    /// At the start.
    pub(super) fn new(address: SocketAddr, server: &str, domains: &[String]) -> Self {
        Self {
            address,
            domains: domains.to_vec(),
            server: server.to_owned(),
            problem: None,
            connections: 0,
            turned_away: 0,
            untouched: 0,
            detached: 0,
            recipients_to_store: 0,
            recipients_left: 0,
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
        if self.domains.is_empty() {
            writeln!(f, "submission {} to {}{problem}", self.address, self.server)?;
        } else {
            let domains = self.domains.join(", ");
            writeln!(f, "outgoing   {} to {}{problem}, for {domains}", self.address, self.server)?;
        }
        let left = match self.recipients_left {
            0 => String::new(),
            left => format!(", {left} left with {}", if left == 1 { "a relay" } else { "their relays" }),
        };
        writeln!(
            f,
            "           {} untouched, {} with attachments to stores ({} by store{left}, {} whole), {} not sent",
            count(self.untouched, "message", "messages"),
            self.detached,
            count(self.recipients_to_store, "recipient", "recipients"),
            self.recipients_whole,
            self.refused
        )?;
        if self.turned_away > 0 {
            let connections = count(self.turned_away, "connection", "connections");
            writeln!(f, "           {connections} from elsewhere turned away")?;
        }
        Ok(())
    }
}
