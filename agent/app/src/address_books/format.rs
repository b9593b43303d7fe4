//! Which format a file has: its contents say it where they can, else its extension.

use super::card::{Cards, Flaw};
use super::{csv, ldif, text, vcard};
use crate::limits::BOOK_FILE_LEN_MAX;

/// A format of address books.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// vCard.
    VCard,
    /// LDIF.
    Ldif,
    /// Comma-separated values.
    Csv,
}

impl Format {
    fn of(file_name: &str, text: &str) -> Option<Self> {
        let begins = |word: &str| {
            text.trim_start().get(..word.len()).is_some_and(|text| text.eq_ignore_ascii_case(word))
        };
        if begins("BEGIN:VCARD") {
            return Some(Self::VCard);
        }
        if begins("dn:") || begins("version:") {
            return Some(Self::Ldif);
        }
        let extension = file_name.rsplit_once('.').map_or("", |(_, extension)| extension);
        match extension.to_ascii_lowercase().as_str() {
            "vcf" | "vcard" => Some(Self::VCard),
            "ldif" | "ldi" => Some(Self::Ldif),
            "csv" | "tsv" | "tab" => Some(Self::Csv),
            _ => None,
        }
    }
}

/// The cards in a file's bytes, and what is wrong there; any bytes give a value.
pub fn parse(file_name: &str, bytes: &[u8]) -> Cards {
    if bytes.len() as u64 > BOOK_FILE_LEN_MAX {
        return Cards::flawed(Flaw::TooLarge);
    }
    let text = match text::decode(bytes) {
        Ok(text) => text,
        Err(flaw) => return Cards::flawed(flaw),
    };
    match Format::of(file_name, &text) {
        Some(Format::VCard) => vcard::parse(&text),
        Some(Format::Ldif) => ldif::parse(&text),
        Some(Format::Csv) => csv::parse(&text),
        None => Cards::flawed(Flaw::UnknownFormat),
    }
}
