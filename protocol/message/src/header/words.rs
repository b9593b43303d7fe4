//! Encoded words (RFC 2047) and the charsets that names come in. UTF-8, ASCII and Latin-1 are read; what is in another
//! charset keeps its ASCII characters: names are for people to recognise, never for restoring.

use base64_simd::forgiving_decode_to_vec;

/// `text` in one line, with its encoded words decoded, at most `len_max` bytes.
pub(crate) fn decode_words(text: &[u8], len_max: usize) -> String {
    let mut decoded = String::new();
    let mut rest = text;
    let mut after_word = false;
    while !rest.is_empty() && decoded.len() <= len_max {
        let start = memchr::memmem::find(rest, b"=?").unwrap_or(rest.len());
        let (plain, word) = rest.split_at(start);
        match read_word(word) {
            Some((content, len)) => {
                // RFC 2047 §6.2: blanks between two encoded words are not shown.
                if !(after_word && plain.trim_ascii().is_empty()) {
                    decoded.push_str(&decode_charset(b"", plain));
                }
                decoded.push_str(&content);
                rest = word.get(len..).unwrap_or_default();
                after_word = true;
            }
            None => {
                let plain = rest.get(..start + 2).unwrap_or(rest);
                decoded.push_str(&decode_charset(b"", plain));
                rest = rest.get(plain.len()..).unwrap_or_default();
                after_word = false;
            }
        }
    }
    let line: String =
        decoded.chars().map(|c| if c == '\t' { ' ' } else { c }).filter(|c| !c.is_control()).collect();
    let line = line.trim();
    line[..line.floor_char_boundary(len_max)].to_owned()
}

/// `=?charset?encoding?text?=` at the start of `text`: what it says and how long it is.
fn read_word(text: &[u8]) -> Option<(String, usize)> {
    /// RFC 2047 §2 allows 75; senders write longer ones, and a search for their end must end.
    const WORD_LEN_MAX: usize = 1_000;
    let body = text.strip_prefix(b"=?")?;
    let body = body.get(..WORD_LEN_MAX).unwrap_or(body);
    let mut parts = body.splitn(3, |byte| *byte == b'?');
    let (charset, encoding, rest) = (parts.next()?, parts.next()?, parts.next()?);
    let end = memchr::memmem::find(rest, b"?=")?;
    let content = rest.get(..end)?;
    let bytes = match encoding {
        b"B" | b"b" => forgiving_decode_to_vec(content).ok()?,
        b"Q" | b"q" => decode_q(content),
        _ => return None,
    };
    let len = 2 + charset.len() + 1 + encoding.len() + 1 + end + 2;
    Some((decode_charset(charset, &bytes), len))
}

/// RFC 2047 §4.2.
fn decode_q(text: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        let octet = text
            .get(at + 1..at + 3)
            .filter(|_| byte == b'=')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        decoded.push(octet.unwrap_or(if byte == b'_' { b' ' } else { byte }));
        at += if octet.is_some() { 3 } else { 1 };
    }
    decoded
}

/// `bytes` in `charset` as text. Without a charset: UTF-8 where it is, otherwise Latin-1.
pub(crate) fn decode_charset(charset: &[u8], bytes: &[u8]) -> String {
    // RFC 2231 §5: a language may follow the charset.
    let charset = charset.split(|byte| *byte == b'*').next().unwrap_or_default().to_ascii_lowercase();
    if let Ok(text) = std::str::from_utf8(bytes)
        && !charset.starts_with(b"iso-2022")
    {
        return text.to_owned();
    }
    match charset.as_slice() {
        b"" | b"iso-8859-1" | b"iso-8859-15" | b"latin1" | b"windows-1252" | b"us-ascii" => {
            bytes.iter().map(|byte| char::from(*byte)).collect()
        }
        _ => bytes.iter().map(|byte| if byte.is_ascii() { char::from(*byte) } else { '_' }).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        assert_eq!(decode_words(text.as_bytes(), 200), expected, "{text:?}");
    }

    #[test]
    fn encoded_words_are_decoded_and_all_else_is_kept() {
        check("plain", "plain");
        check("  a =?utf-8?Q?=C3=BC_x?= b ", "a ü x b");
        check("=?utf-8?B?w7w=?= =?utf-8?B?w7w=?=", "üü");
        check("=?iso-8859-1*de?Q?=FC?=", "ü");
        check("=?koi8-r?Q?a=C1b?=", "a_b");
        check("=?utf-8?X?x?=", "=?utf-8?X?x?=");
        check("=?utf-8?B?*?=", "=?utf-8?B?*?=");
        check("=?", "=?");
        check("a=?b=?c", "a=?b=?c");
        check("line\r\n\tnext\0", "line next");
        check("=?utf-8?Q?=0D=0ABcc:_x?=", "Bcc: x");
    }

    #[test]
    fn long_text_is_cut_at_a_character() {
        let long = "ü".repeat(500);
        assert_eq!(decode_words(long.as_bytes(), 101).len(), 100);
    }

    #[test]
    fn many_beginnings_of_words_take_linear_time() {
        let text = "=?".repeat(60_000);
        assert_eq!(decode_words(text.as_bytes(), 512).len(), 512);
    }
}
