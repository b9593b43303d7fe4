//! The name of a user: a mailbox address in one normal form.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::limits::{DOMAIN_LEN_MAX, LOCAL_PART_LEN_MAX};

/// A mailbox, `local@domain`, in normal form: lower case, no quotes, no source route, no comment.
///
/// The local part is at most 64 octets and the domain at most 255 (RFC 5321 §4.5.3.1); UTF-8 is allowed in both
/// (RFC 6531). Case is folded in the local part as well: RFC 5321 §2.4 lets the receiving domain say, and every
/// domain that Lighter serves says so.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mailbox(String);

/// Why a text is not a mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MailboxError {
    /// There is no `@`, or nothing before or behind it.
    #[error("a mailbox is written local@domain")]
    Shape,
    /// The local part or the domain is longer than RFC 5321 §4.5.3.1 allows.
    #[error("local part over 64 octets, or domain over 255")]
    TooLong,
    /// A control character, blank, quote, angle bracket or the like.
    #[error("a character that a mailbox cannot hold")]
    Character,
}

impl Mailbox {
    /// The mailbox as text, in normal form.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What stands before the last `@`.
    pub fn local(&self) -> &str {
        self.0.rsplit_once('@').map_or("", |(local, _)| local)
    }

    /// What stands behind the last `@`.
    pub fn domain(&self) -> &str {
        self.0.rsplit_once('@').map_or("", |(_, domain)| domain)
    }
}

impl FromStr for Mailbox {
    type Err = MailboxError;

    fn from_str(text: &str) -> Result<Self, MailboxError> {
        let (local, domain) = text.rsplit_once('@').ok_or(MailboxError::Shape)?;
        if local.is_empty() || domain.is_empty() {
            return Err(MailboxError::Shape);
        }
        if local.len() > LOCAL_PART_LEN_MAX || domain.len() > DOMAIN_LEN_MAX {
            return Err(MailboxError::TooLong);
        }
        let forbidden = |c: char| c.is_control() || c.is_whitespace() || "<>()[]\\,;:\"@".contains(c);
        if local.contains(forbidden) || domain.contains(forbidden) {
            return Err(MailboxError::Character);
        }
        Ok(Self(text.to_lowercase()))
    }
}

impl TryFrom<String> for Mailbox {
    type Error = MailboxError;

    fn try_from(text: String) -> Result<Self, MailboxError> {
        text.parse()
    }
}

impl From<Mailbox> for String {
    fn from(mailbox: Mailbox) -> Self {
        mailbox.0
    }
}

impl fmt::Display for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
