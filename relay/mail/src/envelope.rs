//! The envelope: who a message is from, whom it is for, and what its sender asked of the hops on the way.

use serde::{Deserialize, Serialize};

use crate::address::Address;
use crate::limits::ORCPT_LEN_MAX;
use crate::xtext::Xtext;

/// One message's envelope: the sender and at least one recipient.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// What MAIL said.
    pub mail: MailFrom,
    /// What each accepted RCPT said, in order, no address twice.
    pub recipients: Vec<RcptTo>,
}

/// What a MAIL command says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MailFrom {
    /// The reverse-path; `None` is the null path `<>`: a report, which is never answered with a report.
    pub path: Option<Address>,
    /// How many octets the sender expects to send (RFC 1870): an estimate, and not to be believed.
    pub size: Option<u64>,
    /// Which octets the content may hold (RFC 6152).
    pub body: Body,
    /// Whether addresses or header may hold UTF-8 (RFC 6531).
    pub smtputf8: bool,
    /// How much of the message a failure report gives back (RFC 3461 §4.3).
    pub ret: Option<Return>,
    /// The sender's name for this transmission (RFC 3461 §4.4).
    pub envid: Option<Xtext>,
}

/// What a RCPT command says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RcptTo {
    /// The forward-path, without source route.
    pub address: Address,
    /// When to report to the sender (RFC 3461 §4.1); `None`: the sender did not say, which means on failure.
    pub notify: Option<Notify>,
    /// The recipient as the sender wrote it first (RFC 3461 §4.2).
    pub orcpt: Option<OriginalRecipient>,
}

impl RcptTo {
    /// A recipient about whom the sender asked nothing.
    pub fn new(address: Address) -> Self {
        Self { address, notify: None, orcpt: None }
    }
}

/// The BODY parameter (RFC 6152 §2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Body {
    /// Seven bits, or not said.
    #[default]
    SevenBit,
    /// Eight bits in lines.
    EightBitMime,
}

/// The RET parameter (RFC 3461 §4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Return {
    /// The whole message.
    Full,
    /// Its header only.
    Headers,
}

impl Return {
    /// The word that stands for it in a MAIL command.
    pub fn keyword(self) -> &'static str {
        match self {
            Self::Full => "FULL",
            Self::Headers => "HDRS",
        }
    }
}

/// The NOTIFY parameter (RFC 3461 §4.1): NEVER is none of the three.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Notify {
    /// Report a delivery.
    pub success: bool,
    /// Report a failure.
    pub failure: bool,
    /// Report a delay.
    pub delay: bool,
}

impl Notify {
    /// Reads the parameter's value.
    pub fn parse(value: &str) -> Option<Self> {
        if value.eq_ignore_ascii_case("NEVER") {
            return Some(Self::default());
        }
        let mut notify = Self::default();
        for word in value.split(',') {
            match word {
                _ if word.eq_ignore_ascii_case("SUCCESS") => notify.success = true,
                _ if word.eq_ignore_ascii_case("FAILURE") => notify.failure = true,
                _ if word.eq_ignore_ascii_case("DELAY") => notify.delay = true,
                _ => return None,
            }
        }
        Some(notify)
    }

    /// The parameter's value.
    pub fn value(self) -> String {
        let words = [(self.success, "SUCCESS"), (self.failure, "FAILURE"), (self.delay, "DELAY")];
        let said: Vec<_> = words.iter().filter(|(asked, _)| *asked).map(|(_, word)| *word).collect();
        if said.is_empty() { "NEVER".to_owned() } else { said.join(",") }
    }
}

/// The ORCPT parameter (RFC 3461 §4.2, RFC 6533 §3): kept as it was written, so that it is sent on unchanged.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct OriginalRecipient {
    /// `rfc822`, `utf-8` or another registered type, then `;`, then the address encoded.
    text: Box<str>,
    /// Where the `;` stands.
    type_len: usize,
}

/// A text that is not an ORCPT value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an original recipient (RFC 3461 section 4.2)")]
pub struct OriginalRecipientError;

impl OriginalRecipient {
    /// Reads the parameter's value. UTF-8 is let through only for the type `utf-8` (RFC 6533 §3).
    pub fn parse(value: &str) -> Result<Self, OriginalRecipientError> {
        let (kind, address) = value.split_once(';').ok_or(OriginalRecipientError)?;
        let is_type = !kind.is_empty() && kind.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if !is_type || address.is_empty() || value.len() > ORCPT_LEN_MAX {
            return Err(OriginalRecipientError);
        }
        if kind.eq_ignore_ascii_case("utf-8") {
            let allowed = |c: char| !c.is_control() && !c.is_whitespace() && c != '=';
            if !address.chars().all(allowed) {
                return Err(OriginalRecipientError);
            }
        } else {
            Xtext::from_encoded(address).map_err(|_| OriginalRecipientError)?;
        }
        Ok(Self { text: value.into(), type_len: kind.len() })
    }

    /// The value as it stands in the command.
    pub fn as_encoded(&self) -> &str {
        &self.text
    }

    /// The address type.
    pub fn address_type(&self) -> &str {
        self.text.get(..self.type_len).unwrap_or_default()
    }

    /// The address, decoded where it is xtext: free of control characters in any case.
    pub fn address(&self) -> String {
        let encoded = self.text.get(self.type_len + 1..).unwrap_or_default();
        Xtext::from_encoded(encoded).map_or_else(|_| encoded.to_owned(), |text| text.decode())
    }
}

impl TryFrom<String> for OriginalRecipient {
    type Error = OriginalRecipientError;

    fn try_from(text: String) -> Result<Self, OriginalRecipientError> {
        Self::parse(&text)
    }
}

impl From<OriginalRecipient> for String {
    fn from(recipient: OriginalRecipient) -> Self {
        recipient.text.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notify_is_read_and_written_the_same() {
        for value in ["NEVER", "SUCCESS", "SUCCESS,FAILURE,DELAY", "FAILURE,DELAY"] {
            assert_eq!(Notify::parse(value).unwrap().value(), value);
        }
        for bad in ["", "NEVER,SUCCESS", "SUCCESS,", "YES"] {
            assert_eq!(Notify::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_original_recipient_keeps_its_form_and_shows_its_address() {
        let orcpt = OriginalRecipient::parse("rfc822;a+2Bb@example.org").unwrap();
        assert_eq!(orcpt.as_encoded(), "rfc822;a+2Bb@example.org");
        assert_eq!(orcpt.address_type(), "rfc822");
        assert_eq!(orcpt.address(), "a+b@example.org");
        assert!(OriginalRecipient::parse("utf-8;jörg@example.org").is_ok());
    }

    #[test]
    fn bad_input_13_a_broken_orcpt_is_refused() {
        let long = format!("rfc822;{}", "a".repeat(10 * 1024));
        for bad in
            ["", "rfc822", "rfc822;", ";a@b", "rfc 822;a@b", "rfc822;a+0Db", "rfc822;a+", "rfc822;ä", &long]
        {
            assert!(OriginalRecipient::parse(bad).is_err(), "{bad}");
        }
    }
}
