//! CSV with a row of headings, as Thunderbird, Outlook and Google export it, or as a person writes it: each row is a
//! person, a column of labels puts them into groups.
//!
//! The splitting (RFC 4180) is the `csv` crate's; commas, semicolons (spreadsheets of many countries) and tabs are told
//! apart by the first line.

use csv::{ReaderBuilder, StringRecord};

use super::card::{Card, CardKind, Cards, Flaw};
use crate::limits::CARD_VALUES_MAX;

/// Between two values of one field: Google's.
const VALUE_SEPARATOR: &str = ":::";

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    /// An address: of two, the one of the lower number is preferred.
    Address(u8),
    Name,
    GivenName,
    FamilyName,
    Labels,
}

/// The people of a file.
pub(super) fn parse(text: &str) -> Cards {
    let mut cards = Cards::default();
    let mut reader = ReaderBuilder::new()
        .delimiter(delimiter(text))
        .flexible(true)
        .has_headers(false)
        .from_reader(text.as_bytes());
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
            columns = Some(headings(&record));
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

fn headings(record: &StringRecord) -> Vec<(usize, Column)> {
    record.iter().enumerate().filter_map(|(at, heading)| Some((at, column(heading)?))).collect()
}

/// The columns' names in Thunderbird's, Outlook's and Google's exports (Google's of before and after 2024).
fn column(heading: &str) -> Option<Column> {
    let heading = heading.trim().to_lowercase().replace("e-mail", "email");
    match heading.as_str() {
        "email" | "mail" | "email address" | "primary email" => return Some(Column::Address(1)),
        "secondary email" => return Some(Column::Address(2)),
        "display name" | "name" | "full name" => return Some(Column::Name),
        "first name" | "given name" => return Some(Column::GivenName),
        "last name" | "family name" | "surname" => return Some(Column::FamilyName),
        "labels" | "label" | "group membership" | "categories" | "category" | "groups" | "group"
        | "lists" | "list" => return Some(Column::Labels),
        _ => {}
    }
    // `E-mail 1 - Value` (Google), `E-mail 2 Address` (Outlook), `Email 3`.
    let rest = heading.strip_prefix("email ")?;
    let (number, kind) = rest.split_once(' ').unwrap_or((rest, ""));
    let number = number.parse().ok()?;
    matches!(kind, "" | "address" | "- value").then_some(Column::Address(number))
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
