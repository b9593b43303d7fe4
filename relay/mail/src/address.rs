//! The address in a path: `local@domain`, read from `<…>` as RFC 5321 §4.1.2 writes it.
//!
//! Sound against hostile input because what comes out can be written again between `<` and `>` as it stands: it holds
//! no control character, and `<`, `>`, blanks and `@` only inside a quoted local part.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::limits::{DOMAIN_LEN_MAX, LOCAL_PART_LEN_MAX};

/// An address of an envelope, as it was written, without source route and without needless quotes.
///
/// The case is kept. `postmaster` alone has no domain (RFC 5321 §4.1.1.3).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address {
    /// `local@domain`, or `postmaster`.
    text: Box<str>,
    /// Length of the local part. `text[local_len] == '@'`, or it is all of the text.
    local_len: usize,
}

/// Why a text is not an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not `<local@domain>`.
    #[error("an address is written <local@domain>")]
    Shape,
    /// The local part or the domain is too long.
    #[error("local part or domain too long")]
    TooLong,
    /// A character that may not stand there.
    #[error("a character that an address cannot hold")]
    Character,
}

impl Address {
    /// The address as text, without angle brackets.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The local part, with its quotes where it needs them.
    pub fn local(&self) -> &str {
        self.text.get(..self.local_len).unwrap_or_default()
    }

    /// The domain, or the address literal in its brackets; empty for `postmaster` alone.
    pub fn domain(&self) -> &str {
        self.text.get(self.local_len + 1..).unwrap_or_default()
    }

    /// Whether it can be sent without SMTPUTF8.
    pub fn is_ascii(&self) -> bool {
        self.text.is_ascii()
    }

    /// What tells one recipient from another: the domain's case does not, the local part's is the receiver's affair.
    pub fn key(&self) -> String {
        format!("{}@{}", self.local(), self.domain().to_ascii_lowercase())
    }

    /// Reads `local@domain`.
    fn read(text: &str) -> Result<Self, AddressError> {
        let (local, rest) = read_local(text)?;
        let Some(domain) = rest.strip_prefix('@') else {
            let alone = rest.is_empty() && local.eq_ignore_ascii_case("postmaster");
            return if alone {
                Ok(Self { local_len: local.len(), text: local.into() })
            } else {
                Err(AddressError::Shape)
            };
        };
        check_domain(domain)?;
        if local.len() > LOCAL_PART_LEN_MAX {
            return Err(AddressError::TooLong);
        }
        Ok(Self { local_len: local.len(), text: format!("{local}@{domain}").into() })
    }
}

/// Reads a path at the beginning of `text`: `<>`, `<local@domain>` or `<@route:local@domain>`, and says what follows it.
///
/// The source route is read and thrown away, as RFC 5321 §3.6.1 and appendix C ask.
pub(crate) fn read_path(text: &str) -> Result<(Option<Address>, &str), AddressError> {
    let inside = text.strip_prefix('<').ok_or(AddressError::Shape)?;
    let end = path_end(inside).ok_or(AddressError::Shape)?;
    let (path, rest) = (&inside[..end], &inside[end + 1..]);
    if path.is_empty() {
        return Ok((None, rest));
    }
    let address = match path.strip_prefix('@') {
        None => path,
        Some(route) => {
            let (hops, address) = route.split_once(':').ok_or(AddressError::Shape)?;
            for (n, hop) in hops.split(',').enumerate() {
                let domain = if n == 0 { Some(hop) } else { hop.strip_prefix('@') };
                check_domain(domain.ok_or(AddressError::Shape)?)?;
            }
            address
        }
    };
    Address::read(address).map(|address| (Some(address), rest))
}

/// Where the `>` stands that ends the path: the first that is not inside quotes.
fn path_end(inside: &str) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in inside.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'>' if !quoted => return Some(at),
            _ => {}
        }
    }
    None
}

/// Reads a local part: `Dot-string` or `Quoted-string` (RFC 5321 §4.1.2), or either with UTF-8 (RFC 6531 §3.3).
///
/// Dots are allowed anywhere: addresses with two in a row are in use, and refusing them would only lose mail.
fn read_local(text: &str) -> Result<(String, &str), AddressError> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find('@').unwrap_or(text.len());
        let local = &text[..end];
        return match local {
            "" => Err(AddressError::Shape),
            _ if local.chars().all(is_dot_string) => Ok((local.to_owned(), &text[end..])),
            _ => Err(AddressError::Character),
        };
    };
    let mut plain = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((requote(plain), &quoted[at + 1..])),
            '\\' => {
                let (_, escaped) = chars.next().ok_or(AddressError::Shape)?;
                plain.push(printable(escaped)?);
            }
            _ => plain.push(printable(c)?),
        }
    }
    Err(AddressError::Shape)
}

fn printable(c: char) -> Result<char, AddressError> {
    if c.is_control() { Err(AddressError::Character) } else { Ok(c) }
}

/// The local part as it is written: in quotes only where it needs them.
fn requote(plain: String) -> String {
    if !plain.is_empty() && plain.chars().all(is_dot_string) {
        return plain;
    }
    let mut quoted = String::with_capacity(plain.len() + 2);
    quoted.push('"');
    for c in plain.chars() {
        if matches!(c, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('"');
    quoted
}

/// `atext` of RFC 5322 §3.2.3, a dot, or a character beyond ASCII that is neither control nor blank.
fn is_dot_string(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.".contains(c) || is_wide(c)
}

/// UTF8-non-ascii of RFC 6531, without what could turn text around or hide in it.
fn is_wide(c: char) -> bool {
    !c.is_ascii() && !c.is_control() && !c.is_whitespace()
}

/// Checks a domain (letters, digits, hyphen, underscore, dots; UTF-8) or an address literal in brackets.
fn check_domain(domain: &str) -> Result<(), AddressError> {
    if domain.len() > DOMAIN_LEN_MAX {
        return Err(AddressError::TooLong);
    }
    let literal = domain.strip_prefix('[').and_then(|inner| inner.strip_suffix(']'));
    if let Some(inner) = literal {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-.:_".contains(c);
        return if !inner.is_empty() && inner.chars().all(allowed) {
            Ok(())
        } else {
            Err(AddressError::Character)
        };
    }
    let name = domain.strip_suffix('.').unwrap_or(domain);
    if name.is_empty() || name.split('.').any(str::is_empty) {
        return Err(AddressError::Shape);
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c) || is_wide(c);
    if name.chars().all(allowed) { Ok(()) } else { Err(AddressError::Character) }
}

impl FromStr for Address {
    type Err = AddressError;

    /// Reads `local@domain`, without angle brackets.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        Self::read(text)
    }
}

impl TryFrom<String> for Address {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        Self::read(&text)
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.text.into()
    }
}

impl From<&lighter_protocol::Mailbox> for Address {
    /// A mailbox is an address in normal form: nothing in it needs quotes.
    fn from(mailbox: &lighter_protocol::Mailbox) -> Self {
        Self { local_len: mailbox.local().len(), text: mailbox.as_str().into() }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, expected: Result<Option<&str>, AddressError>) {
        let read = read_path(path).map(|(address, _)| address.map(String::from));
        assert_eq!(read, expected.map(|text| text.map(str::to_owned)), "{path}");
    }

    #[test]
    fn a_path_is_read_as_rfc_5321_writes_it() {
        check("<>", Ok(None));
        check("<alice@example.org>", Ok(Some("alice@example.org")));
        check("<Alice.B+tag@Example.ORG> SIZE=1", Ok(Some("Alice.B+tag@Example.ORG")));
        check("<postmaster>", Ok(Some("postmaster")));
        check("<\"alice\"@example.org>", Ok(Some("alice@example.org")));
        check("<\"a b>\\\"@\"@example.org>", Ok(Some("\"a b>\\\"@\"@example.org")));
        check("<\"\"@example.org>", Ok(Some("\"\"@example.org")));
        check("<alice@[192.0.2.1]>", Ok(Some("alice@[192.0.2.1]")));
        check("<alice@[IPv6:2001:db8::1]>", Ok(Some("alice@[IPv6:2001:db8::1]")));
        check("<jörg@bücher.example>", Ok(Some("jörg@bücher.example")));
    }

    #[test]
    fn bad_input_12_a_source_route_is_dropped_and_broken_addresses_are_refused() {
        use AddressError::{Character, Shape, TooLong};
        check("<@one.example,@two.example:alice@example.org>", Ok(Some("alice@example.org")));
        check("<@one.example:>", Err(Shape));
        check("<@one.example,two.example:alice@example.org>", Err(Shape));
        check("<@:alice@example.org>", Err(Shape));
        for (path, error) in [
            ("alice@example.org", Shape),
            ("<alice@example.org", Shape),
            ("<alice>", Shape),
            ("<@example.org>", Shape),
            ("<alice@>", Shape),
            ("<alice@a..b>", Shape),
            ("<alice@b@c>", Character),
            ("<a<b@c>", Character),
            ("<a b@c>", Character),
            ("<a\"b\"@c>", Character),
            ("<\"a\"b@c>", Shape),
            ("<\"a@c>", Shape),
            ("<\"a\\", Shape),
            ("<a\rb@c>", Character),
            ("<a\nb@c>", Character),
            ("<\"a\r\nb\"@c>", Character),
            ("<a@c\r\nd>", Character),
            ("<a\0@c>", Character),
            ("<a@[1.2.3.4>", Character),
            ("<a@[]>", Character),
            ("<a\u{2028}b@c>", Character),
        ] {
            check(path, Err(error));
        }
        check(&format!("<{}@example.org>", "a".repeat(65_536)), Err(TooLong));
        check(&format!("<a@{}>", "b.".repeat(1_000)), Err(TooLong));
    }

    proptest::proptest! {
        #[test]
        fn what_was_read_is_read_again_as_the_same(text in "[ -~é\\\\\"@<>.]{0,40}") {
            if let Ok((Some(address), _)) = read_path(&format!("<{text}>")) {
                let written = format!("<{address}>");
                let (again, rest) = read_path(&written).unwrap();
                proptest::prop_assert_eq!(again, Some(address));
                proptest::prop_assert_eq!(rest, "");
            }
        }
    }
}
