//! Fields of the form `value; name=value; …` (RFC 2045 §5.1, RFC 2183), with RFC 2231's continuations and charsets.

use super::words::{decode_charset, decode_words};
use crate::limits::{CONTINUATIONS_MAX, PARAMETER_LEN_MAX};

/// A structured field, read tolerantly.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Structured {
    /// What stands before the first semicolon, in lower case.
    pub(crate) value: String,
    /// Names in lower case, values unquoted, in the order in which they came.
    parameters: Vec<(String, Vec<u8>)>,
    /// Readers may take this differently: a comment, a quote that does not end, a boundary given twice or in pieces.
    pub(crate) odd: bool,
}

impl Structured {
    pub(crate) fn parse(text: &[u8]) -> Self {
        let mut cursor = Cursor { text, at: 0 };
        let head = cursor.until_semicolon();
        let mut field = Self { value: lower(head), parameters: Vec::new(), odd: false };
        field.odd |=
            field.value.contains(|c: char| c.is_whitespace() || "()\"".contains(c)) || field.value.is_empty();
        while cursor.skip(b';') {
            field.parameter_at(&mut cursor);
        }
        let boundaries = field.parameters.iter().filter(|(name, _)| name.starts_with("boundary"));
        field.odd |= boundaries.clone().count() > 1 || boundaries.clone().any(|(name, _)| name != "boundary");
        field
    }

    /// The raw value of the first parameter of that very name.
    pub(crate) fn raw(&self, name: &str) -> Option<&[u8]> {
        self.parameters.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_slice())
    }

    /// A parameter as text: its extended form (RFC 2231) where there is one, otherwise the plain one, with the encoded
    /// words that many senders put there.
    pub(crate) fn parameter(&self, name: &str) -> Option<String> {
        self.extended(name).or_else(|| self.raw(name).map(|value| decode_words(value, PARAMETER_LEN_MAX)))
    }

    /// RFC 2231 §3 and §4: `name*`, or `name*0`, `name*1*`, … put together, up to the first gap.
    fn extended(&self, name: &str) -> Option<String> {
        if let Some(value) = self.raw(&format!("{name}*")) {
            let (charset, text) = split_charset(value);
            return Some(decode_charset(charset, &percent_decode(text)));
        }
        let mut pieces: Vec<(usize, bool, &[u8])> = Vec::new();
        for (other, value) in &self.parameters {
            let Some(section) = other.strip_prefix(name).and_then(|rest| rest.strip_prefix('*')) else {
                continue;
            };
            let (number, encoded) =
                section.strip_suffix('*').map_or((section, false), |number| (number, true));
            if let Ok(number) = number.parse() {
                pieces.push((number, encoded, value));
            }
        }
        pieces.sort_by_key(|(number, ..)| *number);
        pieces.dedup_by_key(|(number, ..)| *number);
        let mut charset: &[u8] = b"";
        let mut text = Vec::new();
        for (expected, (number, encoded, value)) in pieces.into_iter().enumerate().take(CONTINUATIONS_MAX) {
            if number != expected || text.len() > PARAMETER_LEN_MAX {
                break;
            }
            let mut value = value;
            if number == 0 && encoded {
                (charset, value) = split_charset(value);
            }
            if encoded { text.extend(percent_decode(value)) } else { text.extend_from_slice(value) }
        }
        text.truncate(PARAMETER_LEN_MAX);
        (!text.is_empty()).then(|| decode_charset(charset, &text))
    }

    /// Reads `name=value` at the cursor.
    fn parameter_at(&mut self, cursor: &mut Cursor<'_>) {
        let name = cursor.until(b"=;");
        if !cursor.skip(b'=') {
            // A semicolon too many at the end is common and harmless; a name with no value is neither.
            self.odd |= !name.is_empty();
            return;
        }
        cursor.blanks();
        let value = if cursor.skip(b'"') {
            let (value, ended) = cursor.quoted();
            self.odd |= !ended || !cursor.until(b";").is_empty();
            value
        } else {
            cursor.until(b";").to_vec()
        };
        let name = lower(name);
        if name == "boundary" {
            // A quoted boundary may hold blanks, a bare one may not; comments are for no reader the same.
            self.odd |= value.iter().any(|byte| !byte.is_ascii_graphic() && *byte != b' ');
        }
        self.parameters.push((name, value));
    }
}

/// Where we are in a value.
struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn rest(&self) -> &'a [u8] {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn skip(&mut self, byte: u8) -> bool {
        let found = self.rest().first() == Some(&byte);
        self.at += usize::from(found);
        found
    }

    fn blanks(&mut self) {
        self.at += self.rest().iter().take_while(|byte| byte.is_ascii_whitespace()).count();
    }

    fn until_semicolon(&mut self) -> &'a [u8] {
        self.until(b";")
    }

    /// Up to one of `ends` or the end, trimmed.
    fn until(&mut self, ends: &[u8]) -> &'a [u8] {
        let rest = self.rest();
        let len = rest.iter().position(|byte| ends.contains(byte)).unwrap_or(rest.len());
        self.at += len;
        rest.get(..len).unwrap_or_default().trim_ascii()
    }

    /// A quoted string after its opening quote (RFC 5322 §3.2.4), and whether it has a closing one.
    fn quoted(&mut self) -> (Vec<u8>, bool) {
        let mut value = Vec::new();
        let mut bytes = self.rest().iter();
        let mut ended = false;
        while let Some(&byte) = bytes.next() {
            self.at += 1;
            match byte {
                b'"' => {
                    ended = true;
                    break;
                }
                b'\\' => {
                    self.at += 1;
                    value.extend(bytes.next());
                }
                _ => value.push(byte),
            }
        }
        (value, ended)
    }
}

fn lower(text: &[u8]) -> String {
    String::from_utf8_lossy(text).to_ascii_lowercase()
}

/// RFC 2231 §4: `charset'language'text`.
fn split_charset(value: &[u8]) -> (&[u8], &[u8]) {
    let mut parts = value.splitn(3, |byte| *byte == b'\'');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(charset), Some(_), Some(text)) => (charset, text),
        _ => (b"", value),
    }
}

fn percent_decode(text: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        let octet = text
            .get(at + 1..at + 3)
            .filter(|_| byte == b'%')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        decoded.push(octet.unwrap_or(byte));
        at += if octet.is_some() { 3 } else { 1 };
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(field: &str) -> Option<String> {
        Structured::parse(field.as_bytes()).parameter("filename")
    }

    #[test]
    fn parameters_are_read_in_every_common_form() {
        assert_eq!(name("attachment; filename=a.pdf").unwrap(), "a.pdf");
        assert_eq!(name("attachment; FileName = \"a \\\"b\\\".pdf\" ; x=y").unwrap(), "a \"b\".pdf");
        assert_eq!(name("attachment; filename=my file.pdf").unwrap(), "my file.pdf");
        assert_eq!(name("attachment; filename*=utf-8''na%C3%AFve.txt").unwrap(), "naïve.txt");
        assert_eq!(name("attachment; filename*=iso-8859-1'fr'na%EFve.txt; filename=x").unwrap(), "naïve.txt");
        assert_eq!(name("attachment; filename=\"=?utf-8?B?w7wucGRm?=\"").unwrap(), "ü.pdf");
        assert_eq!(name("attachment; x=y"), None);
    }

    #[test]
    fn bad_input_19_continuations_are_put_together_within_bounds() {
        assert_eq!(name("attachment; filename*0=a; filename*1=b; filename*2=.pdf").unwrap(), "ab.pdf");
        assert_eq!(name("attachment; filename*1=b; filename*0=a").unwrap(), "ab", "out of order");
        assert_eq!(name("attachment; filename*0*=utf-8''%C3%BC; filename*1=x").unwrap(), "üx", "mixed");
        assert_eq!(name("attachment; filename*0=a; filename*2=c").unwrap(), "a", "a gap ends it");
        assert_eq!(name("attachment; filename*1=b").as_deref(), None, "no beginning");
        assert_eq!(
            name("attachment; filename*1=b; filename=plain").unwrap(),
            "plain",
            "mixed with a plain one"
        );
        assert_eq!(name("attachment; filename*0=a; filename*0=b").unwrap(), "a", "the same twice");
        assert_eq!(name("attachment; filename*=utf-8''%zz%4").unwrap(), "%zz%4", "not hexadecimal");
        let many: String = (0..1_000).map(|n| format!("; filename*{n}=abcdefghij")).collect();
        assert_eq!(name(&format!("attachment{many}")).unwrap().len(), PARAMETER_LEN_MAX);
    }

    #[test]
    fn what_readers_take_differently_is_odd() {
        for text in [
            "multipart/mixed; boundary=a; boundary=b",
            "multipart/mixed; boundary*=us-ascii''a",
            "multipart/mixed; boundary*0=a; boundary*1=b",
            "multipart/mixed; boundary=\"a",
            "multipart/mixed; boundary=\"a\"b",
            "multipart/mixed (comment); boundary=a",
            "multipart/mixed; boundary",
            "multipart/mixed; boundary=a\u{1}b",
            "text / plain",
            "",
        ] {
            assert!(Structured::parse(text.as_bytes()).odd, "{text:?}");
        }
        for text in ["multipart/mixed; boundary=\"a b\";", "text/plain", "x/y; name=\"(1).pdf\"", "x/y; a=;"]
        {
            assert!(!Structured::parse(text.as_bytes()).odd, "{text:?}");
        }
    }
}
