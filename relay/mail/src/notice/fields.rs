//! Header fields, and the groups of fields in a delivery status: folded, ASCII, one line end where one is meant.

use std::fmt::Write;

use data_encoding::BASE64;

use crate::address::Address;
use crate::limits::NOTICE_TEXT_LEN_MAX;

/// Octets in a line before the next word begins a new one (RFC 5322 §2.1.1).
const LINE_LEN: usize = 76;
/// Octets in one word, beyond which it is cut: a line may have 998.
const WORD_LEN_MAX: usize = 900;
/// Octets of UTF-8 in one encoded word of at most 75 characters: `=?utf-8?B?` … `?=` around 4 for each 3.
const ENCODED_WORD_BYTES: usize = 45;

/// Fields, each ended with CR LF.
#[derive(Clone, Debug, Default)]
pub(super) struct Fields(String);

/// A piece of a field's body.
#[derive(Clone, Copy, Debug)]
pub(super) enum Line<'a> {
    /// Words that stand as they are, UTF-8 included (an internationalized address in a header, RFC 6532).
    Word(&'a str),
    /// A stranger's words: encoded where they are not ASCII (RFC 2047).
    Text(&'a str),
    /// Words in a place that takes nothing but ASCII and knows no encoded words: others are written `\x{…}` (RFC 6533 §3).
    Status(&'a str),
}

impl Fields {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Adds a field, folded between its words.
    pub(super) fn field(&mut self, name: &str, body: &[Line<'_>]) {
        let mut len = name.len() + 1;
        self.0.push_str(name);
        self.0.push(':');
        for piece in body {
            for word in piece.words() {
                if len + 1 + word.len() > LINE_LEN && len > name.len() + 1 {
                    self.0.push_str("\r\n");
                    len = 0;
                }
                self.0.push(' ');
                self.0.push_str(&word);
                len += 1 + word.len();
            }
        }
        self.0.push_str("\r\n");
    }

    /// Adds an empty line: the end of a header, or of a group of fields.
    pub(super) fn blank(&mut self) {
        self.0.push_str("\r\n");
    }

    pub(super) fn into_string(self) -> String {
        self.0
    }
}

impl Line<'_> {
    fn words(self) -> Vec<String> {
        match self {
            Self::Word(text) => cut(&without_controls(text)),
            Self::Status(text) => cut(&escaped(&without_controls(text))),
            Self::Text(text) => {
                let text = shown(text);
                // Text that looks like an encoded word would be read as one.
                if text.is_ascii() && !text.contains("=?") { cut(&text) } else { encoded(&text) }
            }
        }
    }
}

/// An address for a delivery status: `rfc822; a@b`, or `utf-8; …` (RFC 6533 §3).
pub(super) fn typed_address(address: &Address) -> String {
    let kind = if address.is_ascii() { "rfc822" } else { "utf-8" };
    format!("{kind}; {address}")
}

/// A stranger's text for people: on one line, bounded, nothing in it that hides or turns text around.
pub(super) fn shown(text: &str) -> String {
    let mut shown: String = text
        .chars()
        .map(|c| if c.is_control() || c.is_whitespace() { ' ' } else { c })
        .filter(|c| !is_invisible(*c))
        .take(NOTICE_TEXT_LEN_MAX)
        .collect();
    shown.truncate(shown.trim_end().len());
    shown
}

/// Direction marks and overrides, zero-width characters, byte order marks, tags.
fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
    )
}

fn without_controls(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn escaped(text: &str) -> String {
    let mut ascii = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii() {
            ascii.push(c);
        } else {
            let _ = write!(ascii, "\\x{{{:X}}}", u32::from(c)); // Writing to a String cannot fail.
        }
    }
    ascii
}

/// Words, none of them longer than a line can be.
fn cut(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    for mut word in text.split_ascii_whitespace() {
        while word.len() > WORD_LEN_MAX {
            let (head, tail) = word.split_at(word.floor_char_boundary(WORD_LEN_MAX));
            words.push(head.to_owned());
            word = tail;
        }
        words.push(word.to_owned());
    }
    words
}

/// Encoded words (RFC 2047): a blank between two of them is not part of the text.
fn encoded(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (head, tail) = rest.split_at(rest.floor_char_boundary(ENCODED_WORD_BYTES));
        words.push(format!("=?utf-8?B?{}?=", BASE64.encode(head.as_bytes())));
        rest = tail;
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(line: Line<'_>) -> String {
        let mut fields = Fields::new();
        fields.field("Subject", &[line]);
        fields.into_string()
    }

    #[test]
    fn bad_input_21_a_hostile_text_stays_in_its_field() {
        let hostile = "x\r\nBcc: victim@example.org\r\n\r\n<script>\0\u{202e}gpj.exe";
        assert_eq!(field(Line::Text(hostile)), "Subject: x Bcc: victim@example.org <script> gpj.exe\r\n");
        assert_eq!(field(Line::Word("a\r\nb")), "Subject: a b\r\n");
        assert_eq!(field(Line::Status("a\r\n\r\nö")), "Subject: a \\x{F6}\r\n");
        assert_eq!(field(Line::Text("=?utf-8?Q?x?=")), "Subject: =?utf-8?B?PT91dGYtOD9RP3g/PQ==?=\r\n");
    }

    #[test]
    fn long_text_is_folded_cut_and_bounded() {
        let lines = field(Line::Text(&"word ".repeat(1_000)));
        assert!(lines.split("\r\n").all(|line| line.len() <= LINE_LEN));
        assert!(lines.len() < 2 * NOTICE_TEXT_LEN_MAX);
        let lines = field(Line::Status(&"x".repeat(5_000)));
        assert!(lines.split("\r\n").all(|line| line.len() < 998));
        let lines = field(Line::Text(&"ü".repeat(1_000)));
        assert!(lines.is_ascii() && lines.split("\r\n").all(|line| line.len() <= LINE_LEN + 10));
    }
}
