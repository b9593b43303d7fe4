//! Lighter's own header fields, which make a stub restore by itself.
//!
//! `Lighter-Message` is the first field that whoever detached the message added; what stands above it came later. Its
//! lengths and hash are those of everything that stood below it before.
//!
//! ```text
//! Lighter-Message: v=1; delivery=HEX; length=N; parts=N; eol=crlf; hash=HEX
//! Lighter-Part: v=1; delivery=HEX; blob=HEX; size=N; recipe=RECIPE; header=BASE64
//! ```
//!
//! Both are folded; blanks and line ends within them mean nothing, so that a server that folds them anew does no harm.
//! They mean nothing by themselves: a stub is believed only as far as the own store or relay lists its delivery.

use std::str::FromStr;

use data_encoding::BASE64;
use lighter_protocol::{BlobId, DeliveryId};

use crate::limits::PART_HEADER_LEN_MAX;
use crate::line_end::{LineEnd, LineEnds};
use crate::manifest::{PartEntry, Totals};
use crate::recipe::Recipe;

/// The name of the field that a stub begins with.
pub const MESSAGE_FIELD: &str = "Lighter-Message";
/// The name of the field that a placeholder begins with.
pub const PART_FIELD: &str = "Lighter-Part";

/// Characters of one line of a folded field, its line end left out.
const LINE_LEN: usize = 76;

/// A field of ours that does not say what it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a field of Lighter's, version 1")]
pub struct NotAField;

/// What `Lighter-Message` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageField {
    /// The delivery that the stub was made for.
    pub delivery: DeliveryId,
    /// What the original is.
    pub totals: Totals,
}

/// What `Lighter-Part` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartField {
    /// The delivery that the stub was made for.
    pub delivery: DeliveryId,
    /// The blob.
    pub blob: BlobId,
    /// Its size in bytes.
    pub size: u64,
    /// How it becomes the part's body again.
    pub recipe: Recipe,
    /// The part's header block as it stood.
    pub header: Vec<u8>,
}

impl MessageField {
    /// The field, folded.
    pub(crate) fn write(&self, line_end: LineEnd, out: &mut Vec<u8>) {
        let Totals { length, hash, parts, line_ends } = self.totals;
        let eol = match line_ends {
            LineEnds::None => "none",
            LineEnds::CrLf => "crlf",
            LineEnds::Lf => "lf",
            LineEnds::Mixed => "mixed",
        };
        let items = [
            "v=1".to_owned(),
            format!("delivery={}", self.delivery),
            format!("length={length}"),
            format!("parts={parts}"),
            format!("eol={eol}"),
            format!("hash={}", BlobId(hash)),
        ];
        write_field(MESSAGE_FIELD, &items, line_end, out);
    }

    /// Reads the field's value, folded in whatever way.
    pub fn parse(value: &[u8]) -> Result<Self, NotAField> {
        let mut items = Items::of(value)?;
        let field = Self {
            delivery: items.take("delivery")?,
            totals: Totals {
                length: items.take("length")?,
                parts: items.take("parts")?,
                line_ends: match items.text("eol")? {
                    "none" => LineEnds::None,
                    "crlf" => LineEnds::CrLf,
                    "lf" => LineEnds::Lf,
                    "mixed" => LineEnds::Mixed,
                    _ => return Err(NotAField),
                },
                hash: items.take::<BlobId>("hash")?.0,
            },
        };
        items.end()?;
        Ok(field)
    }
}

impl PartField {
    /// The field for a part of a manifest, folded.
    pub(crate) fn write(delivery: DeliveryId, part: &PartEntry, line_end: LineEnd, out: &mut Vec<u8>) {
        let items = [
            "v=1".to_owned(),
            format!("delivery={delivery}"),
            format!("blob={}", part.blob),
            format!("size={}", part.size),
            format!("recipe={}", part.recipe),
            format!("header={}", BASE64.encode(&part.header)),
        ];
        write_field(PART_FIELD, &items, line_end, out);
    }

    /// Reads the field's value, folded in whatever way.
    pub fn parse(value: &[u8]) -> Result<Self, NotAField> {
        let mut items = Items::of(value)?;
        let field = Self {
            delivery: items.take("delivery")?,
            blob: items.take("blob")?,
            size: items.take("size")?,
            recipe: items.take("recipe")?,
            header: BASE64.decode(items.text("header")?.as_bytes()).map_err(|_| NotAField)?,
        };
        items.end()?;
        if field.recipe.validate(field.size).is_err() || field.header.len() > PART_HEADER_LEN_MAX {
            return Err(NotAField);
        }
        Ok(field)
    }
}

/// Writes `name: item; item; …`, no line longer than [`LINE_LEN`].
fn write_field(name: &str, items: &[String], line_end: LineEnd, out: &mut Vec<u8>) {
    let mut column = name.len() + 1;
    out.extend_from_slice(name.as_bytes());
    out.push(b':');
    for (number, item) in items.iter().enumerate() {
        let more = usize::from(number + 1 < items.len());
        if column + 1 + item.len() + more > LINE_LEN {
            out.extend_from_slice(line_end.as_bytes());
            column = 0;
        }
        out.push(b' ');
        column += 1;
        let mut rest = item.as_bytes();
        while !rest.is_empty() {
            if column == LINE_LEN - more {
                out.extend_from_slice(line_end.as_bytes());
                out.push(b' ');
                column = 1;
            }
            let (line, later) = rest.split_at(rest.len().min(LINE_LEN - more - column));
            out.extend_from_slice(line);
            column += line.len();
            rest = later;
        }
        if more == 1 {
            out.push(b';');
            column += 1;
        }
    }
    out.extend_from_slice(line_end.as_bytes());
}

/// The items of a field, in order.
struct Items {
    items: std::vec::IntoIter<String>,
    present: String,
}

impl Items {
    /// Cuts a value, blanks and line ends removed, at its semicolons. The first item is the version.
    fn of(value: &[u8]) -> Result<Self, NotAField> {
        let bytes: Vec<u8> = value.iter().copied().filter(|byte| !b" \t\r\n".contains(byte)).collect();
        let text = String::from_utf8(bytes).map_err(|_| NotAField)?;
        let items: Vec<String> = text.split(';').map(str::to_owned).collect();
        let mut items = Self { items: items.into_iter(), present: String::new() };
        if items.text("v")? == "1" { Ok(items) } else { Err(NotAField) }
    }

    /// The next item, which must be `name=…`.
    fn text(&mut self, name: &str) -> Result<&str, NotAField> {
        self.present = self.items.next().ok_or(NotAField)?;
        self.present.strip_prefix(name).and_then(|rest| rest.strip_prefix('=')).ok_or(NotAField)
    }

    fn take<T: FromStr>(&mut self, name: &str) -> Result<T, NotAField> {
        self.text(name)?.parse().map_err(|_| NotAField)
    }

    fn end(mut self) -> Result<(), NotAField> {
        if self.items.next().is_none() { Ok(()) } else { Err(NotAField) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> MessageField {
        MessageField {
            delivery: DeliveryId([0xab; 16]),
            totals: Totals { length: 1_234_567, hash: [0x11; 32], parts: 2, line_ends: LineEnds::CrLf },
        }
    }

    fn part(header: &[u8]) -> PartEntry {
        PartEntry {
            blob: BlobId([0x22; 32]),
            size: 99,
            recipe: "b64:76:crlf:crlf".parse().unwrap(),
            name: "a.pdf".to_owned(),
            media_type: "application/pdf".to_owned(),
            header: header.to_vec(),
        }
    }

    fn value<'a>(field: &'a [u8], name: &str) -> &'a [u8] {
        field.strip_prefix(name.as_bytes()).unwrap().strip_prefix(b":").unwrap()
    }

    #[test]
    fn the_fields_are_written_like_this() {
        let mut out = Vec::new();
        message().write(LineEnd::CrLf, &mut out);
        let expected = "Lighter-Message: v=1; delivery=abababababababababababababababab;\r\n \
                        length=1234567; parts=2; eol=crlf;\r\n \
                        hash=1111111111111111111111111111111111111111111111111111111111111111\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
        let mut out = Vec::new();
        PartField::write(
            DeliveryId([0xcd; 16]),
            &part(b"Content-Type: application/pdf\r\n\r\n"),
            LineEnd::Lf,
            &mut out,
        );
        let expected = "Lighter-Part: v=1; delivery=cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd;\n \
                        blob=2222222222222222222222222222222222222222222222222222222222222222;\n \
                        size=99; recipe=b64:76:crlf:crlf;\n \
                        header=Q29udGVudC1UeXBlOiBhcHBsaWNhdGlvbi9wZGYNCg0K\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn fields_come_back_however_they_are_folded() {
        for len in [0, 1, 50, 57, 58, 500, PART_HEADER_LEN_MAX] {
            let entry = part(&vec![b'x'; len]);
            let mut out = Vec::new();
            PartField::write(DeliveryId([7; 16]), &entry, LineEnd::CrLf, &mut out);
            assert!(
                out.split(|byte| *byte == b'\n').all(|line| line.len() <= LINE_LEN + 1),
                "a line is too long"
            );
            let folded = String::from_utf8(out).unwrap();
            let unfolded = folded.replace("\r\n", "");
            let folded_anew = folded.replace("\r\n ", "\n\t");
            for text in [&folded, &unfolded, &folded_anew] {
                let field = PartField::parse(value(text.as_bytes(), PART_FIELD)).unwrap();
                assert_eq!((field.blob, field.size, &field.recipe), (entry.blob, 99, &entry.recipe));
                assert_eq!(field.header, entry.header);
            }
        }
    }

    #[test]
    fn bad_input_22_what_is_not_a_field_of_ours_is_refused() {
        let mut out = Vec::new();
        message().write(LineEnd::CrLf, &mut out);
        let good = String::from_utf8(value(&out, MESSAGE_FIELD).to_vec()).unwrap();
        assert_eq!(MessageField::parse(good.as_bytes()), Ok(message()));
        for (from, to) in [
            ("v=1", "v=2"),
            ("v=1", "v=01"),
            ("delivery=ab", "delivery=a"),
            ("length=1234567", "length=-1"),
            ("length=1234567", "length=18446744073709551616"),
            ("parts=2;", ""),
            ("eol=crlf", "eol=cr"),
            ("hash=11", "hash=gg"),
            ("hash=", "x=1; hash="),
            ("\r\n hash", "\0hash"),
        ] {
            let bad = good.replacen(from, to, 1);
            assert_ne!(bad, good);
            assert_eq!(MessageField::parse(bad.as_bytes()), Err(NotAField), "{bad}");
        }
        for bad in ["", ";", "v=1", "v=1;", "\u{fffd}"] {
            assert_eq!(MessageField::parse(bad.as_bytes()), Err(NotAField), "{bad}");
            assert_eq!(PartField::parse(bad.as_bytes()), Err(NotAField), "{bad}");
        }
        let bad = good.trim_end().to_owned() + "; more=1";
        assert_eq!(MessageField::parse(bad.as_bytes()), Err(NotAField));
    }
}
