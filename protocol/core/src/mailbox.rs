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
    /// There is no `@`, nothing before or behind it, or a dot too many in the domain.
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
        // Octets and characters are judged in normal form: folding case can change how many there are.
        let text = text.to_lowercase();
        let (local, domain) = text.rsplit_once('@').ok_or(MailboxError::Shape)?;
        if local.is_empty() || domain.split('.').any(str::is_empty) {
            return Err(MailboxError::Shape);
        }
        if local.len() > LOCAL_PART_LEN_MAX || domain.len() > DOMAIN_LEN_MAX {
            return Err(MailboxError::TooLong);
        }
        if text.chars().any(|c| c != '@' && is_forbidden(c)) || local.contains('@') {
            return Err(MailboxError::Character);
        }
        Ok(Self(text))
    }
}

/// What would need quotes (RFC 5322 §3.2.3), or cannot be told apart when it is shown: controls, blanks, and the
/// invisible ones that join, split or turn the direction of text (RFC 8264 §9.11 disallows them).
fn is_forbidden(c: char) -> bool {
    let invisible =
        matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    invisible || c.is_control() || c.is_whitespace() || "<>()[]\\,;:\"@".contains(c)
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_mailbox_has_one_form() {
        let mailbox: Mailbox = "Alice.B+x@Example.ORG".parse().unwrap();
        assert_eq!((mailbox.local(), mailbox.domain()), ("alice.b+x", "example.org"));
        assert_eq!("ÜNAL@bücher.example".parse::<Mailbox>().unwrap().as_str(), "ünal@bücher.example");
    }

    #[test]
    fn bad_input_12_what_is_no_mailbox_is_refused() {
        use MailboxError::{Character, Shape, TooLong};
        let long_local = format!("{}@a.example", "a".repeat(65));
        let grows_when_folded = format!("{}@a.example", "İ".repeat(32)); // 64 octets in, 96 once folded
        let long_domain = format!("a@{}", "d".repeat(256));
        let cases = [
            ("", Shape),
            ("alice", Shape),
            ("@example.org", Shape),
            ("alice@", Shape),
            ("alice@.", Shape),
            ("alice@a..example", Shape),
            ("alice@example.org.", Shape),
            ("a b@example.org", Character),
            ("a@b@example.org", Character),
            ("<a@example.org>", Character),
            ("\"a\"@example.org", Character),
            ("a\r\n@example.org", Character),
            ("a\0@example.org", Character),
            ("a\u{202e}b@example.org", Character),
            ("a\u{200b}@example.org", Character),
            ("a@[192.0.2.1]", Character),
            ("@relay:a@example.org", Character),
            (long_local.as_str(), TooLong),
            (grows_when_folded.as_str(), TooLong),
            (long_domain.as_str(), TooLong),
        ];
        for (text, error) in cases {
            assert_eq!(text.parse::<Mailbox>(), Err(error), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn the_normal_form_is_its_own_normal_form(text in "\\PC{1,80}@\\PC{1,40}") {
            if let Ok(mailbox) = text.parse::<Mailbox>() {
                prop_assert_eq!(mailbox.as_str().parse::<Mailbox>(), Ok(mailbox.clone()));
                prop_assert!(mailbox.local().len() <= 64 && mailbox.domain().len() <= 255);
            }
        }
    }
}
