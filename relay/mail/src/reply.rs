//! The answer to a command: three digits, an enhanced status (RFC 3463) and a text that is safe to send.

use std::borrow::Cow;
use std::fmt;

use bytes::{BufMut, BytesMut};
use serde::{Deserialize, Serialize};

use crate::limits::REPLY_TEXT_LEN_MAX;

/// A reply, ours to a peer or a peer's to us.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// Three digits, 200 to 599 (RFC 5321 §4.2).
    pub code: u16,
    /// The enhanced status (RFC 2034); its class is the code's.
    pub status: Option<EnhancedStatus>,
    /// What a human reads. A line feed begins a further line; other control characters are never sent.
    pub text: Cow<'static, str>,
}

/// `class.subject.detail` of RFC 3463, without the class, which is the code's first digit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EnhancedStatus {
    /// 2 success, 4 persistent transient failure, 5 permanent failure.
    pub class: u8,
    /// What the status is about: 1 addressing, 2 mailbox, 3 system, 4 network, 5 protocol, 6 content, 7 policy.
    pub subject: u16,
    /// What exactly.
    pub detail: u16,
}

/// What a reply means for whoever gets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Class {
    /// 2xx: done.
    Done,
    /// 3xx: go on.
    GoOn,
    /// 4xx: not now, try again.
    Temporary,
    /// 5xx: no.
    Permanent,
}

impl Reply {
    /// A reply with a text chosen beforehand. `class` is the code's first digit.
    pub const fn fixed(code: u16, subject: u16, detail: u16, text: &'static str) -> Self {
        let class = if code >= 500 {
            5
        } else if code >= 400 {
            4
        } else {
            2
        };
        Self { code, status: Some(EnhancedStatus { class, subject, detail }), text: Cow::Borrowed(text) }
    }

    /// A reply without an enhanced status, for greetings, EHLO and `354` (RFC 2034 §4).
    pub const fn plain(code: u16, text: &'static str) -> Self {
        Self { code, status: None, text: Cow::Borrowed(text) }
    }

    /// The same reply with another text.
    #[must_use]
    pub fn with_text(self, text: impl Into<Cow<'static, str>>) -> Self {
        Self { text: text.into(), ..self }
    }

    /// What it means.
    pub fn class(&self) -> Class {
        match self.code {
            ..300 => Class::Done,
            300..400 => Class::GoOn,
            400..500 => Class::Temporary,
            500.. => Class::Permanent,
        }
    }

    /// Whether it says that the thing was done.
    pub fn is_done(&self) -> bool {
        self.class() == Class::Done
    }

    /// The enhanced status, or the one that says nothing but the class.
    pub fn status_or_class(&self) -> EnhancedStatus {
        let class = if self.code >= 500 {
            5
        } else if self.code >= 400 {
            4
        } else {
            2
        };
        self.status.unwrap_or(EnhancedStatus { class, subject: 0, detail: 0 })
    }

    /// Writes it as it goes over the wire, on as many lines as the text has.
    pub(crate) fn write_to(&self, out: &mut BytesMut) {
        let mut lines = self.text.split('\n').peekable();
        while let Some(line) = lines.next() {
            let more = lines.peek().is_some();
            out.put_slice(self.code.to_string().as_bytes());
            out.put_u8(if more { b'-' } else { b' ' });
            if let Some(status) = self.status {
                out.put_slice(status.to_string().as_bytes());
                out.put_u8(b' ');
            }
            for c in line.chars().take(REPLY_TEXT_LEN_MAX).filter(|c| !c.is_control()) {
                out.put_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
            out.put_slice(b"\r\n");
        }
    }
}

impl EnhancedStatus {
    /// Reads `5.1.1` at the beginning of a reply's text, where the class fits the code, and says what follows.
    pub(crate) fn read(code: u16, text: &str) -> Option<(Self, &str)> {
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        let mut numbers = word.splitn(3, '.');
        let mut number = |digits_max: usize| {
            let digits = numbers.next()?;
            let fits = (1..=digits_max).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
            if fits { digits.parse::<u16>().ok() } else { None }
        };
        let (class, subject, detail) = (number(1)?, number(3)?, number(3)?);
        if class != code / 100 || !matches!(class, 2 | 4 | 5) {
            return None;
        }
        Some((Self { class: u8::try_from(class).ok()?, subject, detail }, rest.trim_start()))
    }
}

impl fmt::Display for EnhancedStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.class, self.subject, self.detail)
    }
}

impl fmt::Display for Reply {
    /// On one line, for logs and reports.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if let Some(status) = self.status {
            write!(f, " {status}")?;
        }
        write!(f, " {}", self.text.replace(|c: char| c.is_control(), " "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(reply: &Reply) -> String {
        let mut out = BytesMut::new();
        reply.write_to(&mut out);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn a_reply_with_two_lines_repeats_code_and_status() {
        let reply = Reply::fixed(550, 1, 1, "one\ntwo");
        assert_eq!(wire(&reply), "550-5.1.1 one\r\n550 5.1.1 two\r\n");
    }

    #[test]
    fn control_characters_in_a_text_are_not_sent() {
        let reply = Reply::plain(250, "").with_text("a\r\u{7f}\0b".to_owned());
        assert_eq!(wire(&reply), "250 ab\r\n");
    }

    #[test]
    fn an_enhanced_status_is_read_only_where_it_fits_the_code() {
        let status = EnhancedStatus { class: 5, subject: 1, detail: 10 };
        assert_eq!(EnhancedStatus::read(550, "5.1.10 no"), Some((status, "no")));
        assert_eq!(EnhancedStatus::read(550, "5.1.10"), Some((status, "")));
        for text in ["4.1.1 no", "5.1 no", "5.1.1111 no", "5..1", "3.3.3", "", "x"] {
            assert_eq!(EnhancedStatus::read(550, text), None, "{text}");
        }
    }
}
