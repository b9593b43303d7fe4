//! Mail servers: the one that mail is handed to, and those that this agent is itself, for mail clients and for mail servers.

use std::net::SocketAddr;
use std::path::PathBuf;

use lighter_protocol::Mailbox;
use lighter_transport::location::address::Network;
use serde::{Deserialize, Serialize};

/// Where `send` hands mail to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SmtpConfig {
    /// `host:port`.
    pub server: String,
    /// Whether the connection is encrypted.
    #[serde(default)]
    pub tls: SmtpTls,
    /// Certificates to trust instead of the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
}

impl SmtpConfig {
    /// A mail server with the defaults: encrypted if it offers that, or, at the port of "submissions", from the first
    /// byte on (RFC 8314 §3.3).
    pub fn new(server: String) -> Self {
        let tls = if server.ends_with(":465") { SmtpTls::Implicit } else { SmtpTls::default() };
        Self { server, tls, ca_file: None }
    }
}

/// Whether the connection to the mail server is encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SmtpTls {
    /// Never.
    Off,
    /// If the server offers it.
    #[default]
    IfOffered,
    /// Or nothing is sent.
    Required,
    /// From the first byte on: port 465.
    Implicit,
}

/// The mail server on this machine that mail clients send through (RFC 6409).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SubmissionConfig {
    /// Loopback address to listen on; port 0 lets the system choose; absent: there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
    /// Further senders whose attachments go to stores; other senders' messages go on untouched.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub senders: Vec<Mailbox>,
}

impl SubmissionConfig {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Sending for all users of domains: mail servers hand their users' mail in, and it goes on to `[smtp]` (SPEC A26).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OutgoingConfig {
    /// Address to listen on; port 0 lets the system choose; absent: there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
    /// Networks that mail is taken from; nobody else is let in.
    pub clients: Vec<Network>,
    /// The domains whose users' attachments go to stores; other senders' messages go on untouched. Empty: that of `mailbox`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub domains: Vec<String>,
}

impl Default for OutgoingConfig {
    fn default() -> Self {
        Self { listen: None, clients: Network::loopback().into(), domains: Vec::new() }
    }
}

impl OutgoingConfig {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mail_server_at_the_port_of_submissions_is_encrypted_from_the_first_byte_on() {
        assert_eq!(SmtpConfig::new("smtp.example.org:465".to_owned()).tls, SmtpTls::Implicit);
        assert_eq!(SmtpConfig::new("smtp.example.org:587".to_owned()).tls, SmtpTls::IfOffered);
        let text = "server = \"smtp.example.org:1465\"\ntls = \"implicit\"\n";
        assert_eq!(toml::from_str::<SmtpConfig>(text).unwrap().tls, SmtpTls::Implicit);
    }
}
