//! `xtext` (RFC 3461 §4): how arbitrary printable text travels in a command's parameter.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Text in its encoded form, checked: `!` to `~`, with `+XX` for what is none of those, for `+` and for `=`.
///
/// What it decodes to is printable US-ASCII: neither form can end a line or begin a header field.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Xtext(Box<str>);

/// A text that is not xtext.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not xtext (RFC 3461 section 4), or not printable")]
pub struct XtextError;

impl Xtext {
    /// Checks text that is encoded already.
    pub fn from_encoded(text: &str) -> Result<Self, XtextError> {
        let mut rest = text.as_bytes();
        while let Some((&byte, tail)) = rest.split_first() {
            rest = match byte {
                b'+' => {
                    let ([high, low], tail) = tail.split_first_chunk().ok_or(XtextError)?;
                    let decoded = hex(*high)? << 4 | hex(*low)?;
                    if !matches!(decoded, b' '..=b'~') {
                        return Err(XtextError);
                    }
                    tail
                }
                b'=' => return Err(XtextError),
                b'!'..=b'~' => tail,
                _ => return Err(XtextError),
            };
        }
        Ok(Self(text.into()))
    }

    /// Encodes printable US-ASCII; `None` where the text is something else.
    pub fn encode(plain: &str) -> Option<Self> {
        let mut encoded = String::with_capacity(plain.len());
        for byte in plain.bytes() {
            match byte {
                b' ' | b'+' | b'=' => encoded.push_str(&format!("+{byte:02X}")),
                b'!'..=b'~' => encoded.push(byte.into()),
                _ => return None,
            }
        }
        Some(Self(encoded.into()))
    }

    /// The encoded form.
    pub fn as_encoded(&self) -> &str {
        &self.0
    }

    /// The text itself: printable US-ASCII.
    pub fn decode(&self) -> String {
        let mut plain = String::with_capacity(self.0.len());
        let mut rest = self.0.as_bytes();
        while let Some((&byte, tail)) = rest.split_first() {
            rest = match (byte, tail.split_first_chunk()) {
                (b'+', Some(([high, low], tail))) => {
                    plain.push((hex(*high).unwrap_or_default() << 4 | hex(*low).unwrap_or_default()).into());
                    tail
                }
                _ => {
                    plain.push(byte.into());
                    tail
                }
            };
        }
        plain
    }
}

/// A hexadecimal digit: upper case only, as `hexchar` demands.
fn hex(digit: u8) -> Result<u8, XtextError> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'A'..=b'F' => Ok(digit - b'A' + 10),
        _ => Err(XtextError),
    }
}

impl TryFrom<String> for Xtext {
    type Error = XtextError;

    fn try_from(text: String) -> Result<Self, XtextError> {
        Self::from_encoded(&text)
    }
}

impl From<Xtext> for String {
    fn from(text: Xtext) -> Self {
        text.0.into()
    }
}

impl fmt::Display for Xtext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xtext_decodes_to_what_was_encoded() {
        let text = Xtext::from_encoded("QQ314159+2B+3D+20x").unwrap();
        assert_eq!(text.decode(), "QQ314159+= x");
        assert_eq!(Xtext::encode("QQ314159+= x"), Some(text));
    }

    #[test]
    fn bad_input_13_bad_xtext_is_refused() {
        for bad in ["+", "+2", "+2b", "+GG", "a=b", "a b", "é", "+0D+0A", "+00", "+7F", "+FF", "a\r\nb"] {
            assert_eq!(Xtext::from_encoded(bad), Err(XtextError), "{bad:?}");
        }
        assert_eq!(Xtext::encode("a\r\nb"), None);
    }

    proptest::proptest! {
        #[test]
        fn any_printable_text_survives(plain in "[ -~]{0,100}") {
            let encoded = Xtext::encode(&plain).unwrap();
            proptest::prop_assert_eq!(Xtext::from_encoded(encoded.as_encoded()).unwrap().decode(), plain);
        }
    }
}
