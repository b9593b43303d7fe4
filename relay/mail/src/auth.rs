//! What is said in an authentication exchange (RFC 4954), on its way from a client to the server that knows it.
//!
//! Nothing here knows a mechanism or a password: the lines are checked for their form, bounded, passed on, and wiped
//! from memory. They are never shown: [`AuthText`]'s `Debug` says nothing of what it holds.

use std::fmt;

use bytes::Bytes;
use zeroize::Zeroizing;

use crate::limits::AUTH_LINE_LEN_MAX;

/// What cancels an exchange (RFC 4954 §4).
const CANCEL: &str = "*";
/// Characters in a mechanism's name (RFC 4422 §3.1).
const MECHANISM_LEN_MAX: usize = 20;

/// One line of a client's, in base64, or what cancels the exchange. Wiped when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct AuthText(Zeroizing<String>);

impl AuthText {
    /// What cancels the exchange.
    pub fn cancel() -> Self {
        Self(Zeroizing::new(CANCEL.to_owned()))
    }

    /// Reads a line, its CR LF taken off. Whether its base64 is any is for the server that decodes it; nothing but
    /// base64's characters goes on to it.
    pub(crate) fn read(line: &[u8]) -> Option<Self> {
        if line.len() + "\r\n".len() > AUTH_LINE_LEN_MAX {
            return None;
        }
        let text = std::str::from_utf8(line).ok()?;
        let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=');
        let is_text = text == CANCEL || text.bytes().all(is_base64);
        is_text.then(|| Self(Zeroizing::new(text.to_owned())))
    }

    /// The line.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it cancels the exchange.
    pub fn is_cancel(&self) -> bool {
        *self.0 == CANCEL
    }
}

impl fmt::Debug for AuthText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthText(..)")
    }
}

/// A mechanism's name, in capitals: `PLAIN`, `XOAUTH2` (RFC 4422 §3.1).
pub(crate) fn mechanism(name: &str) -> Option<String> {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let is_name = (1..=MECHANISM_LEN_MAX).contains(&name.len()) && name.bytes().all(is_part);
    is_name.then(|| name.to_ascii_uppercase())
}

/// A line to be written, wiped once it was.
pub(crate) fn secret_line(words: &[&str]) -> Bytes {
    let len = words.iter().map(|word| word.len()).sum::<usize>() + "\r\n".len();
    // As large as it gets: a vector that grows leaves copies behind.
    let mut line = Zeroizing::new(Vec::with_capacity(len));
    for word in words {
        line.extend_from_slice(word.as_bytes());
    }
    line.extend_from_slice(b"\r\n");
    Bytes::from_owner(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_base64_is_a_line_and_nothing_of_it_is_shown() {
        for text in ["", "=", "*", "AGFsaWNlAHNlY3JldA==", "+/"] {
            assert_eq!(AuthText::read(text.as_bytes()).unwrap().as_str(), text);
        }
        for bad in ["a b", "a\rb", "**", "a*", "ä", "a\0"] {
            assert_eq!(AuthText::read(bad.as_bytes()), None, "{bad:?}");
        }
        assert!(AuthText::read(&vec![b'A'; AUTH_LINE_LEN_MAX - 2]).is_some());
        assert!(AuthText::read(&vec![b'A'; AUTH_LINE_LEN_MAX - 1]).is_none());
        assert_eq!(format!("{:?}", AuthText::read(b"c2VjcmV0")), "Some(AuthText(..))");
    }

    #[test]
    fn a_mechanism_is_a_short_word() {
        assert_eq!(mechanism("plain").as_deref(), Some("PLAIN"));
        assert_eq!(mechanism("SCRAM-SHA-256-PLUS").as_deref(), Some("SCRAM-SHA-256-PLUS"));
        for bad in ["", "PLAIN LOGIN", "A\r\nB", "é", &"A".repeat(21)] {
            assert_eq!(mechanism(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_secret_line_is_the_words_and_a_line_end() {
        assert_eq!(secret_line(&["AUTH ", "PLAIN", " ", "AA=="]), "AUTH PLAIN AA==\r\n");
    }
}
