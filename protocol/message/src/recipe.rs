//! How a blob becomes a part's body again.
//!
//! A body is its blob in one encoding, and then a few bytes verbatim, the *tail*: the last line end, usually.
//!
//! Text form, in a stub's `Lighter-Part` field; one way to write each recipe, and no other is read:
//!
//! ```text
//! recipe   = encoding ":" tail
//! encoding = "raw"                                    the blob as it is (7bit, 8bit, binary, quoted-printable)
//!          / "b64" [":" length ":" end] [":cut=" n]   base64 (RFC 4648 §4); without a length, on one line
//! end      = "crlf" / "lf"
//! tail     = "none" / "crlf" / "lf" / "=" base64url
//! ```
//!
//! `cut` says how many bytes at the blob's end the encoding leaves out because the tail brings them: where the last
//! group of a body lacks its padding, or has stray bits, the file decodes all the same, and those few characters
//! stand in the tail as they came.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE64URL_NOPAD;
use lighter_protocol::limits::BLOB_SIZE_MAX;
use serde::{Deserialize, Serialize};

use crate::limits::TAIL_LEN_MAX;
use crate::line_end::LineEnd;

/// How a blob becomes a part's body again: bytes equal to what came in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipe {
    /// The encoding of all but the tail.
    pub encoding: Encoding,
    /// Bytes that follow it verbatim.
    pub tail: Vec<u8>,
}

/// The encoding of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Encoding {
    /// The blob is the body.
    Raw,
    /// The blob is what the body decodes to.
    Base64 {
        /// How its lines are broken.
        lines: Option<Lines>,
        /// Bytes at the blob's end, at most 2, that the tail brings.
        cut: u8,
    },
}

/// Where base64 is broken into lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lines {
    /// Characters in each line but the last.
    pub len: u32,
    /// What stands between lines.
    pub end: LineEnd,
}

/// A text or a form that is not a recipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a recipe")]
pub struct NotARecipe;

impl Recipe {
    /// Checks what the types leave open, for a blob of `size` bytes. A recipe from outside is used only after this.
    pub fn validate(&self, size: u64) -> Result<(), NotARecipe> {
        let encoding_holds = match self.encoding {
            Encoding::Raw => true,
            Encoding::Base64 { lines, cut } => {
                cut <= 2
                    && u64::from(cut) <= size
                    && (cut == 0 || (size - u64::from(cut)).is_multiple_of(3))
                    && lines.is_none_or(|lines| lines.len > 0)
            }
        };
        let sizes_hold = size <= BLOB_SIZE_MAX && self.tail.len() <= TAIL_LEN_MAX;
        if encoding_holds && sizes_hold { Ok(()) } else { Err(NotARecipe) }
    }

    /// Bytes in the body that a blob of `size` bytes becomes; `None` where the recipe does not hold for that size.
    pub fn body_len(&self, size: u64) -> Option<u64> {
        self.validate(size).ok()?;
        let encoded = match self.encoding {
            Encoding::Raw => size,
            Encoding::Base64 { lines, cut } => {
                let characters = (size - u64::from(cut)).div_ceil(3) * 4;
                let breaks = lines.map_or(0, |lines| {
                    characters.saturating_sub(1) / u64::from(lines.len) * lines.end.as_bytes().len() as u64
                });
                characters + breaks
            }
        };
        Some(encoded + self.tail.len() as u64)
    }
}

impl fmt::Display for LineEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CrLf => "crlf",
            Self::Lf => "lf",
        })
    }
}

impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.encoding {
            Encoding::Raw => f.write_str("raw")?,
            Encoding::Base64 { lines, cut } => {
                f.write_str("b64")?;
                if let Some(Lines { len, end }) = lines {
                    write!(f, ":{len}:{end}")?;
                }
                if cut > 0 {
                    write!(f, ":cut={cut}")?;
                }
            }
        }
        match self.tail.as_slice() {
            b"" => f.write_str(":none"),
            b"\r\n" => f.write_str(":crlf"),
            b"\n" => f.write_str(":lf"),
            tail => write!(f, ":={}", BASE64URL_NOPAD.encode(tail)),
        }
    }
}

impl FromStr for Recipe {
    type Err = NotARecipe;

    fn from_str(text: &str) -> Result<Self, NotARecipe> {
        let (encoding, tail) = text.rsplit_once(':').ok_or(NotARecipe)?;
        let recipe = Self { encoding: parse_encoding(encoding)?, tail: parse_tail(tail)? };
        // One way to write each recipe: `b64:076:crlf:crlf` or a needless `cut=0` is not it.
        if recipe.to_string() == text { Ok(recipe) } else { Err(NotARecipe) }
    }
}

fn parse_encoding(text: &str) -> Result<Encoding, NotARecipe> {
    let mut words = text.split(':').peekable();
    match words.next() {
        Some("raw") if words.peek().is_none() => Ok(Encoding::Raw),
        Some("b64") => {
            let mut lines = None;
            if let Some(word) = words.next_if(|word| !word.starts_with("cut=")) {
                let len = word.parse().map_err(|_| NotARecipe)?;
                lines = Some(Lines { len, end: parse_line_end(words.next().ok_or(NotARecipe)?)? });
            }
            let cut = match words.next() {
                Some(word) => word.strip_prefix("cut=").and_then(|n| n.parse().ok()).ok_or(NotARecipe)?,
                None => 0,
            };
            if words.next().is_some() {
                return Err(NotARecipe);
            }
            Ok(Encoding::Base64 { lines, cut })
        }
        _ => Err(NotARecipe),
    }
}

fn parse_line_end(text: &str) -> Result<LineEnd, NotARecipe> {
    match text {
        "crlf" => Ok(LineEnd::CrLf),
        "lf" => Ok(LineEnd::Lf),
        _ => Err(NotARecipe),
    }
}

fn parse_tail(text: &str) -> Result<Vec<u8>, NotARecipe> {
    if text == "none" {
        return Ok(Vec::new());
    }
    match text.strip_prefix('=') {
        Some(_) if text.len() > TAIL_LEN_MAX * 2 => Err(NotARecipe),
        Some(encoded) => BASE64URL_NOPAD.decode(encoded.as_bytes()).map_err(|_| NotARecipe),
        None => Ok(parse_line_end(text)?.as_bytes().to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reads_back(text: &str) {
        let recipe: Recipe = text.parse().unwrap();
        assert_eq!(recipe.to_string(), text);
    }

    fn is_refused(text: &str) {
        assert_eq!(text.parse::<Recipe>(), Err(NotARecipe), "{text}");
    }

    #[test]
    fn a_recipe_is_written_and_read_in_one_way() {
        for text in [
            "raw:none",
            "raw:crlf",
            "raw:=DQ",
            "b64:76:crlf:crlf",
            "b64:60:lf:none",
            "b64:lf",
            "b64:cut=1:=WUE",
            "b64:4:lf:cut=2:=WUEK",
        ] {
            reads_back(text);
        }
    }

    #[test]
    fn what_is_not_a_recipe_is_refused() {
        for text in [
            "",
            ":",
            "raw",
            "raw:",
            "raw:76:crlf:crlf",
            "b64",
            "b64:076:crlf:crlf",
            "b64:76:cr:crlf",
            "b64:76:crlf",
            "b64:-1:crlf:crlf",
            "b64:4294967296:crlf:crlf",
            "b64:76:crlf:cut=0:crlf",
            "b64:76:crlf:cut=x:crlf",
            "b64:76:crlf:cut=1:cut=1:crlf",
            "b64:76:crlf:=",
            "b64:76:crlf:=DQo",
            "b64:76:crlf:=*",
            "B64:76:crlf:crlf",
            " b64:76:crlf:crlf",
        ] {
            is_refused(text);
        }
    }

    #[test]
    fn a_recipe_that_cannot_hold_is_refused() {
        let base64 = |len, cut| Recipe {
            encoding: Encoding::Base64 { lines: Some(Lines { len, end: LineEnd::Lf }), cut },
            tail: Vec::new(),
        };
        assert_eq!(base64(76, 0).validate(100), Ok(()));
        assert_eq!(base64(0, 0).validate(100), Err(NotARecipe), "endless line ends");
        assert_eq!(base64(76, 3).validate(100), Err(NotARecipe));
        assert_eq!(base64(76, 2).validate(1), Err(NotARecipe), "cut more than there is");
        assert_eq!(base64(76, 0).validate(BLOB_SIZE_MAX + 1), Err(NotARecipe));
        let long = Recipe { encoding: Encoding::Raw, tail: vec![b'x'; TAIL_LEN_MAX + 1] };
        assert_eq!(long.validate(1), Err(NotARecipe));
    }
}
