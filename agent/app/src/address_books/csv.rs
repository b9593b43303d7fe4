//! CSV with a row of headings, as Thunderbird, Outlook and Google export it, or as a person writes it: each row is a
//! person, a column of labels puts them into groups.
//!
//! The splitting (RFC 4180) is the `csv` crate's; commas, semicolons (spreadsheets of many countries) and tabs are told
//! apart by the first line. What the columns hold is told by their headings, in the languages that [`headings`] knows; where no
//! heading tells of addresses, the column that holds nothing else does.

mod headings;

use csv::{Reader, ReaderBuilder, StringRecord};
use lighter_protocol::Mailbox;

use self::headings::{Column, column};
use super::card::{Card, CardKind, Cards, Flaw};
use crate::limits::{CARD_VALUES_MAX, CSV_COLUMNS_MAX, CSV_ROWS_TRIED};

/// Between two values of one field: Google's.
const VALUE_SEPARATOR: &str = ":::";

/// The people of a file.
pub(super) fn parse(text: &str) -> Cards {
    let mut cards = Cards::default();
    let mut reader = reader(text);
    let mut columns: Option<Vec<(usize, Column)>> = None;
    let mut record = StringRecord::new();
    loop {
        match reader.read_record(&mut record) {
            Ok(false) => break,
            Ok(true) => {}
            // It is text, and rows may have any length: this does not happen.
            Err(_) => {
                cards.flaw(line(&record), Flaw::BadLine);
                break;
            }
        }
        let Some(columns) = &columns else {
            columns = Some(columns_of(&record, text));
            continue;
        };
        if !columns.iter().any(|(_, column)| matches!(column, Column::Address(_))) {
            break;
        }
        let pushed = match person(columns, &record) {
            None => Ok(()),
            Some(Ok(card)) => cards.push(card),
            Some(Err(flaw)) => {
                cards.flaw(line(&record), flaw);
                Ok(())
            }
        };
        if pushed.is_err() {
            return cards;
        }
    }
    if !columns.iter().flatten().any(|(_, column)| matches!(column, Column::Address(_))) {
        cards.flaw(1, Flaw::NoAddressColumn);
    }
    cards
}

fn line(record: &StringRecord) -> u32 {
    record.position().map_or(0, |position| u32::try_from(position.line()).unwrap_or(u32::MAX))
}

/// What separates the fields: whatever the first line has most of.
fn delimiter(text: &str) -> u8 {
    let headings = text.lines().next().unwrap_or_default();
    let count = |delimiter: &u8| headings.bytes().filter(|byte| byte == delimiter).count();
    // Of equally frequent ones, the last: a comma.
    *b"\t;,".iter().max_by_key(|delimiter| count(delimiter)).unwrap_or(&b',')
}

fn reader(text: &str) -> Reader<&[u8]> {
    ReaderBuilder::new()
        .delimiter(delimiter(text))
        .flexible(true)
        .has_headers(false)
        .from_reader(text.as_bytes())
}

/// What the columns hold, by their headings, or else by what is in them.
fn columns_of(headings: &StringRecord, text: &str) -> Vec<(usize, Column)> {
    let headings = headings.iter().take(CSV_COLUMNS_MAX).enumerate();
    let mut columns: Vec<_> = headings.filter_map(|(at, heading)| Some((at, column(heading)?))).collect();
    if !columns.iter().any(|(_, column)| matches!(column, Column::Address(_))) {
        let found = columns_of_addresses(text);
        columns.retain(|(at, _)| !found.contains(at));
        columns.extend(found.into_iter().zip((1..=u8::MAX).map(Column::Address)));
    }
    columns
}

/// The columns that hold addresses and nothing else, as far as the first rows show; their headings may be in any language.
fn columns_of_addresses(text: &str) -> Vec<usize> {
    let mut reader = reader(text);
    let mut record = StringRecord::new();
    // For each column, whether it has held an address, and nothing else.
    let mut are_addresses: Vec<Option<bool>> = Vec::new();
    // The first row is the headings.
    for row in 0..=CSV_ROWS_TRIED {
        if !matches!(reader.read_record(&mut record), Ok(true)) {
            break;
        }
        if row == 0 {
            continue;
        }
        for (at, field) in record.iter().take(CSV_COLUMNS_MAX).enumerate() {
            if are_addresses.len() == at {
                are_addresses.push(None);
            }
            let field = field.trim();
            if !field.is_empty()
                && let Some(so_far) = are_addresses.get_mut(at)
            {
                let is_address = field.contains('@') && field.parse::<Mailbox>().is_ok();
                *so_far = Some(so_far.unwrap_or(true) && is_address);
            }
        }
    }
    let found = are_addresses.into_iter().enumerate().filter(|(_, are)| *are == Some(true));
    found.map(|(at, _)| at).collect()
}

/// The person in a row; none in an empty one.
fn person(columns: &[(usize, Column)], record: &StringRecord) -> Option<Result<Card, Flaw>> {
    let fields = || {
        columns.iter().filter_map(|(at, column)| {
            let field = record.get(*at).map(str::trim).filter(|field| !field.is_empty())?;
            Some((*column, field))
        })
    };
    let first = |wanted: Column| fields().find(|(column, _)| *column == wanted).map(|(_, field)| field);
    let mut addresses: Vec<(u8, &str)> = Vec::new();
    let mut labels: Vec<&str> = Vec::new();
    for (column, field) in fields() {
        match column {
            Column::Address(number) => {
                let more = field.split(VALUE_SEPARATOR).take(CARD_VALUES_MAX + 1);
                addresses.extend(more.map(|address| (number, address.trim())));
            }
            Column::Labels => {
                let more = field.split(VALUE_SEPARATOR).flat_map(|some| some.split(';'));
                labels.extend(more.take(CARD_VALUES_MAX + 1));
            }
            Column::Name | Column::GivenName | Column::FamilyName => {}
        }
        if addresses.len().max(labels.len()) > CARD_VALUES_MAX {
            return Some(Err(Flaw::CardTooLarge));
        }
    }
    addresses.sort_by_key(|(number, _)| *number);
    let addresses: Vec<String> = addresses.into_iter().map(|(_, address)| address.to_owned()).collect();
    let name = match (first(Column::Name), first(Column::GivenName), first(Column::FamilyName)) {
        (Some(name), _, _) => name.to_owned(),
        (None, Some(given), Some(family)) => format!("{given} {family}"),
        (None, Some(name), None) | (None, None, Some(name)) => name.to_owned(),
        (None, None, None) => addresses.first()?.clone(),
    };
    // Google marks groups of its own, such as `* myContacts`.
    let labels = labels.into_iter().map(|label| label.trim().trim_start_matches("* ").to_owned());
    let labels = labels.filter(|label| !label.is_empty()).collect();
    let kind = CardKind::Person { addresses, labels };
    Some(Ok(Card { line: line(record), id: None, name, nicknames: Vec::new(), kind }))
}
