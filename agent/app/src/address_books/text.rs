//! An address book's file as text, and its lines with their folds undone.

use std::borrow::Cow;

use super::card::Flaw;
use crate::limits::BOOK_LINE_LEN_MAX;

/// The text of a file: UTF-8, with or without its mark, or UTF-16 with it (older exports of Google's and Outlook's).
///
/// # Errors
/// [`Flaw::NotText`].
pub(super) fn decode(bytes: &[u8]) -> Result<Cow<'_, str>, Flaw> {
    let utf16 = |rest: &[u8], unit: fn([u8; 2]) -> u16| {
        let (pairs, rest) = rest.as_chunks::<2>();
        let units: Vec<u16> = pairs.iter().map(|pair| unit(*pair)).collect();
        let text = String::from_utf16(&units).ok().filter(|_| rest.is_empty());
        text.map(Cow::Owned).ok_or(Flaw::NotText)
    };
    match bytes {
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes),
        [0xef, 0xbb, 0xbf, rest @ ..] | rest => {
            std::str::from_utf8(rest).map(Cow::Borrowed).map_err(|_| Flaw::NotText)
        }
    }
}

/// How a format goes on with a line on the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Folding {
    /// vCard: a blank or tab before the rest (RFC 6350 §3.2); a line of quoted-printable (vCard 2.1) that ends with
    /// `=` goes on as well.
    VCard,
    /// LDIF: a blank before the rest (RFC 2849, note 2).
    Ldif,
}

/// A line with its folds undone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line<'a> {
    /// Where it begins, from 1.
    pub(super) number: u32,
    /// Its text, at most [`BOOK_LINE_LEN_MAX`] bytes of it.
    pub(super) text: Cow<'a, str>,
    /// Whether it was longer.
    pub(super) is_cut: bool,
}

/// The lines of a text, folds undone.
#[derive(Clone, Debug)]
pub(super) struct Unfolded<'a> {
    lines: std::iter::Peekable<std::str::Lines<'a>>,
    number: u32,
    folding: Folding,
}

impl<'a> Unfolded<'a> {
    /// Begins.
    pub(super) fn new(text: &'a str, folding: Folding) -> Self {
        Self { lines: text.lines().peekable(), number: 0, folding }
    }

    fn next_physical(&mut self) -> Option<&'a str> {
        self.number = self.number.saturating_add(1);
        self.lines.next()
    }

    /// The rest of a line that stands on the next one.
    fn continuation(&mut self, goes_on: bool) -> Option<&'a str> {
        let next = *self.lines.peek()?;
        let rest = match (next.strip_prefix(' '), self.folding) {
            (Some(rest), _) => Some(rest),
            (None, Folding::VCard) => next.strip_prefix('\t').or(goes_on.then_some(next)),
            (None, Folding::Ldif) => None,
        }?;
        self.next_physical();
        Some(rest)
    }
}

impl<'a> Iterator for Unfolded<'a> {
    type Item = Line<'a>;

    fn next(&mut self) -> Option<Line<'a>> {
        let first = self.next_physical()?;
        let mut line = Line { number: self.number, text: Cow::Borrowed(""), is_cut: false };
        let is_quoted = self.folding == Folding::VCard && is_quoted_printable(first);
        line.push(first);
        let mut last = first;
        loop {
            let goes_on = is_quoted && last.ends_with('=');
            let Some(rest) = self.continuation(goes_on) else { return Some(line) };
            if goes_on {
                line.drop_soft_break();
            }
            line.push(rest);
            last = rest;
        }
    }
}

impl<'a> Line<'a> {
    fn push(&mut self, more: &'a str) {
        let room = BOOK_LINE_LEN_MAX.saturating_sub(self.text.len());
        let kept = more.split_at(more.floor_char_boundary(room)).0;
        self.is_cut |= kept.len() < more.len();
        match &mut self.text {
            Cow::Borrowed("") => self.text = Cow::Borrowed(kept),
            text => text.to_mut().push_str(kept),
        }
    }

    fn drop_soft_break(&mut self) {
        if let Some(text) = self.text.strip_suffix('=') {
            self.text = Cow::Owned(text.to_owned());
        }
    }
}

/// Whether a vCard's line says, before its value, that it is quoted-printable.
fn is_quoted_printable(line: &str) -> bool {
    let head = line.split(':').next().unwrap_or_default();
    head.split(';').any(|parameter| {
        let value = parameter.rsplit('=').next().unwrap_or_default();
        value.eq_ignore_ascii_case("quoted-printable")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unfolded(text: &str, folding: Folding) -> Vec<(u32, String)> {
        Unfolded::new(text, folding).map(|line| (line.number, line.text.into_owned())).collect()
    }

    #[test]
    fn text_is_utf_8_or_marked_utf_16_or_none() {
        let utf16: Vec<u8> = "\u{feff}Grüße".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let big: Vec<u8> = "\u{feff}Grüße".encode_utf16().flat_map(u16::to_be_bytes).collect();
        for bytes in ["Grüße".as_bytes(), "\u{feff}Grüße".as_bytes(), &utf16, &big] {
            assert_eq!(decode(bytes).unwrap(), "Grüße");
        }
        for bytes in [&b"Gr\xfc\xdfe"[..], &[0xff, 0xfe, 0x41], &[0xff, 0xfe, 0x00, 0xd8]] {
            assert_eq!(decode(bytes), Err(Flaw::NotText));
        }
    }

    #[test]
    fn folds_are_undone_and_lines_keep_their_numbers() {
        let text = "a:1\r\n 2\r\n\t3\r\n\r\nb:4\n";
        let vcard = [(1, "a:123"), (4, ""), (5, "b:4")].map(|(at, text)| (at, text.to_owned()));
        assert_eq!(unfolded(text, Folding::VCard), vcard);
        let ldif = [(1, "a:12"), (3, "\t3"), (4, ""), (5, "b:4")].map(|(at, text)| (at, text.to_owned()));
        assert_eq!(unfolded(text, Folding::Ldif), ldif);
        let soft = "FN;ENCODING=QUOTED-PRINTABLE:J=C3=\n=BC\nN:x=\ny\n";
        let lines = [(1, "FN;ENCODING=QUOTED-PRINTABLE:J=C3=BC"), (3, "N:x="), (4, "y")];
        assert_eq!(unfolded(soft, Folding::VCard), lines.map(|(at, text)| (at, text.to_owned())));
    }

    #[test]
    fn of_a_line_without_end_only_the_beginning_is_kept() {
        let text = format!("PHOTO:ü{}\nEND:VCARD\n", format!("{}\n ", "ü".repeat(40)).repeat(1_000));
        let lines: Vec<Line<'_>> = Unfolded::new(&text, Folding::VCard).collect();
        assert!(lines[0].is_cut && lines[0].text.len() <= BOOK_LINE_LEN_MAX);
        assert!(lines[0].text.len() > BOOK_LINE_LEN_MAX - 4);
        assert_eq!((lines[1].number, &*lines[1].text, lines[1].is_cut), (1_002, "END:VCARD", false));
    }
}
