//! Text as it travels in messages: subjects, file names, bodies.

use std::fmt::Write as _;

use data_encoding::BASE64;

/// Bytes of text in one encoded word: 45 become 60 characters, 72 with what is around them (RFC 2047 §2: at most 75).
const WORD_LEN: usize = 45;
/// Characters in a line of quoted-printable, the soft line break left out (RFC 2045 §6.7: at most 76 with it).
const QUOTED_LINE_LEN: usize = 75;
/// A header line that is left as it is (RFC 5322 §2.1.1).
const HEADER_LINE_LEN: usize = 60;
/// A piece of a parameter in RFC 2231's form: with ` filename*99*=utf-8''` in front and `;` behind it, still a line of
/// 78 characters.
const PIECE_LEN: usize = 54;

/// A subject: as it is where that is plain and short, else as encoded words (RFC 2047).
pub(super) fn encoded_words(text: &str) -> String {
    let is_plain = text.bytes().all(|byte| (0x20..0x7f).contains(&byte)) && !text.contains("=?");
    if is_plain && text.len() <= HEADER_LINE_LEN {
        return text.to_owned();
    }
    let mut words = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (word, left) = rest.split_at(rest.floor_char_boundary(WORD_LEN));
        words.push(format!("=?utf-8?B?{}?=", BASE64.encode(word.as_bytes())));
        rest = left;
    }
    words.join("\r\n ")
}

/// A parameter of a header field: quoted where it is plain, else in RFC 2231's form, in pieces.
pub(super) fn parameter(name: &str, value: &str) -> String {
    let is_plain = value.bytes().all(|byte| (0x20..0x7f).contains(&byte) && byte != b'"' && byte != b'\\');
    if is_plain && value.len() <= HEADER_LINE_LEN {
        return format!("{name}=\"{value}\"");
    }
    let mut encoded = String::new();
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    if encoded.len() <= HEADER_LINE_LEN {
        return format!("{name}*=utf-8''{encoded}");
    }
    let mut pieces = Vec::new();
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let mut end = rest.len().min(PIECE_LEN);
        // Not within a `%XX`.
        while end < rest.len() && rest.as_bytes()[..end].iter().rev().take(2).any(|byte| *byte == b'%') {
            end -= 1;
        }
        let (piece, left) = rest.split_at(end);
        let charset = if pieces.is_empty() { "utf-8''" } else { "" };
        pieces.push(format!("{name}*{}*={charset}{piece}", pieces.len()));
        rest = left;
    }
    pieces.join(";\r\n ")
}

/// A body in quoted-printable (RFC 2045 §6.7), ending with a line end; any line ends in it become CR LF.
pub(super) fn quoted_printable(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + text.len() / 8 + 2);
    for line in text.lines() {
        quote_line(line.trim_end_matches('\r').as_bytes(), &mut quoted);
        quoted.push_str("\r\n");
    }
    if quoted.is_empty() {
        quoted.push_str("\r\n");
    }
    quoted
}

fn quote_line(line: &[u8], quoted: &mut String) {
    let mut len = 0;
    for (at, byte) in line.iter().enumerate() {
        let is_last = at + 1 == line.len();
        let as_it_is = match byte {
            b'=' => false,
            // A blank at a line's end is lost on the way.
            b' ' | b'\t' => !is_last,
            byte => (0x21..0x7f).contains(byte),
        };
        let width = if as_it_is { 1 } else { 3 };
        if len + width > QUOTED_LINE_LEN {
            quoted.push_str("=\r\n");
            len = 0;
        }
        if as_it_is {
            quoted.push(char::from(*byte));
        } else {
            let _ = write!(quoted, "={byte:02X}");
        }
        len += width;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_are_plain_or_encoded_words() {
        assert_eq!(encoded_words("Report"), "Report");
        assert_eq!(encoded_words("=?x?="), "=?utf-8?B?PT94Pz0=?=");
        assert_eq!(encoded_words("Grüße"), "=?utf-8?B?R3LDvMOfZQ==?=");
        let long = encoded_words(&"ü".repeat(100));
        assert!(long.lines().all(|line| line.len() <= 76) && long.lines().count() == 5, "{long}");
    }

    #[test]
    fn parameters_are_quoted_or_in_pieces() {
        assert_eq!(parameter("name", "a b.pdf"), "name=\"a b.pdf\"");
        assert_eq!(parameter("name", "ü.pdf"), "name*=utf-8''%C3%BC.pdf");
        let long = parameter("filename", &"ü".repeat(60));
        assert!(long.lines().all(|line| line.len() <= 78), "{long}");
        let joined: String = long
            .split(";\r\n ")
            .map(|piece| piece.split_once("*=").unwrap().1.trim_start_matches("utf-8''"))
            .collect();
        assert_eq!(joined, "%C3%BC".repeat(60));
    }

    #[test]
    fn bodies_keep_blanks_and_long_lines() {
        assert_eq!(quoted_printable(""), "\r\n");
        assert_eq!(quoted_printable("a=b \nc\td\r\n"), "a=3Db=20\r\nc\td\r\n");
        let long = quoted_printable(&"x".repeat(200));
        assert!(long.lines().all(|line| line.len() <= 76));
        assert_eq!(long.replace("=\r\n", ""), format!("{}\r\n", "x".repeat(200)));
    }
}
