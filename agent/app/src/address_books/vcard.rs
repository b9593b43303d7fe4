//! vCard 4.0 (RFC 6350), 3.0 (RFC 2426) and the widespread part of 2.1, as groups need them: who is it, and which
//! address. Groups are cards of `KIND:group` with `MEMBER`s (RFC 6350 §6.6.5), or Apple's form of the same before 4.0.

use percent_encoding::percent_decode_str;

use super::card::{Card, CardKind, Cards, Flaw, Full, Member, Target};
use super::text::{Folding, Line, Unfolded};
use crate::limits::CARD_VALUES_MAX;

/// The cards of a file.
pub(super) fn parse(text: &str) -> Cards {
    let mut reader = Reader::default();
    for line in Unfolded::new(text, Folding::VCard) {
        if reader.line(&line).is_err() {
            return reader.cards;
        }
    }
    reader.drop_open();
    reader.cards
}

/// What was read so far.
#[derive(Default)]
struct Reader {
    cards: Cards,
    open: Option<Open>,
    /// Cards within the open one (vCard 2.1's AGENT): passed over.
    inner: usize,
}

/// A card whose end was not read yet.
#[derive(Default)]
struct Open {
    line: u32,
    is_group: bool,
    id: Option<String>,
    formatted_name: String,
    structured_name: String,
    nicknames: Vec<String>,
    labels: Vec<String>,
    addresses: Vec<Address>,
    members: Vec<Member>,
    is_too_large: bool,
    /// The last line was an AGENT whose card begins on the next one.
    agent_follows: bool,
}

struct Address {
    text: String,
    /// RFC 6350 §5.3: 1 is the most preferred, 100 the least; 3.0's and 2.1's `pref` is a 1.
    preference: u8,
}

/// A line of a card, taken apart: `group.NAME;PARAMETER=VALUE:value`.
struct Property<'a> {
    name: &'a str,
    parameters: &'a str,
    value: &'a str,
}

impl Reader {
    fn line(&mut self, line: &Line<'_>) -> Result<(), Full> {
        if line.text.trim().is_empty() {
            return Ok(());
        }
        let Some(property) = Property::of(&line.text) else {
            self.unreadable(line.number, Flaw::BadLine);
            return Ok(());
        };
        let is_card = property.value.trim().eq_ignore_ascii_case("vcard");
        if property.is("BEGIN") && is_card {
            // A card in a card follows an AGENT; where none does, the end of the open one is missing.
            self.begin(line.number);
            return Ok(());
        }
        if self.inner > 0 {
            self.inner -= usize::from(property.is("END") && is_card);
            return Ok(());
        }
        match &mut self.open {
            Some(_) if property.is("END") && is_card => self.end(),
            Some(open) => {
                if line.is_cut && open.wants(&property) {
                    self.unreadable(line.number, Flaw::BadLine);
                    return Ok(());
                }
                self.take(&property, line.number)
            }
            None => Ok(()),
        }
    }

    fn begin(&mut self, line: u32) {
        match &self.open {
            Some(_) if self.inner > 0 => self.inner += 1,
            Some(open) if open.agent_follows => self.inner = 1,
            _ => {
                self.drop_open();
                self.open = Some(Open { line, ..Open::default() });
            }
        }
    }

    /// Half a card is none: half a group would be mailed as if it were the whole.
    fn drop_open(&mut self) {
        if let Some(open) = self.open.take() {
            self.cards.flaw(open.line, Flaw::CardNotEnded);
        }
        self.inner = 0;
    }

    fn end(&mut self) -> Result<(), Full> {
        let Some(open) = self.open.take() else { return Ok(()) };
        if open.is_too_large {
            self.cards.flaw(open.line, Flaw::CardTooLarge);
            return Ok(());
        }
        self.cards.push(open.finish())
    }

    /// A line that cannot be read may have been a group's member.
    fn unreadable(&mut self, line: u32, flaw: Flaw) {
        self.cards.flaw(line, flaw);
        if let Some(open) = &mut self.open
            && self.inner == 0
        {
            let label = format!("line {line}");
            open.members.push(Member { line, label, target: Target::Unreadable });
            open.is_too_large |= open.members.len() > crate::limits::GROUP_MEMBERS_MAX;
        }
    }

    fn take(&mut self, property: &Property<'_>, line: u32) -> Result<(), Full> {
        if property.is("MEMBER") || property.is("X-ADDRESSBOOKSERVER-MEMBER") {
            self.cards.claim_member(line)?;
        }
        let Some(open) = &mut self.open else { return Ok(()) };
        let Some(value) = property.decoded() else {
            if open.wants(property) {
                self.unreadable(line, Flaw::BadEncoding);
            }
            return Ok(());
        };
        open.take(property, &value, line);
        Ok(())
    }
}

impl Open {
    /// Whether a property says something that a group needs.
    fn wants(&self, property: &Property<'_>) -> bool {
        const WANTED: [&str; 10] = [
            "FN",
            "N",
            "NICKNAME",
            "UID",
            "EMAIL",
            "CATEGORIES",
            "KIND",
            "X-ADDRESSBOOKSERVER-KIND",
            "MEMBER",
            "X-ADDRESSBOOKSERVER-MEMBER",
        ];
        WANTED.iter().any(|name| property.is(name))
    }

    fn take(&mut self, property: &Property<'_>, value: &str, line: u32) {
        match property.name.to_ascii_uppercase().as_str() {
            "FN" if self.formatted_name.is_empty() => self.formatted_name = unescaped(value),
            "N" => self.structured_name = given_and_family(value),
            "NICKNAME" => self.nicknames.extend(list(value)),
            "CATEGORIES" => self.labels.extend(list(value)),
            "UID" => self.id = Some(normal_id(value)),
            "EMAIL" => self.addresses.push(Address {
                text: unescaped(value).trim().to_owned(),
                preference: property.preference(),
            }),
            "KIND" | "X-ADDRESSBOOKSERVER-KIND" => {
                self.is_group |= value.trim().eq_ignore_ascii_case("group");
            }
            "MEMBER" | "X-ADDRESSBOOKSERVER-MEMBER" => self.members.push(member(value, line)),
            _ => {}
        }
        self.agent_follows = property.is("AGENT") && value.trim().is_empty();
        let values = [self.nicknames.len(), self.labels.len(), self.addresses.len()];
        self.is_too_large |= values.into_iter().any(|count| count > CARD_VALUES_MAX);
        if self.is_too_large {
            (self.nicknames, self.labels, self.addresses) = Default::default();
        }
    }

    fn finish(mut self) -> Card {
        // Stable: of equally preferred ones, the first.
        self.addresses.sort_by_key(|address| address.preference);
        let addresses: Vec<String> = self.addresses.into_iter().map(|address| address.text).collect();
        let names = [self.formatted_name, self.structured_name];
        let name = names.into_iter().map(|name| name.trim().to_owned()).find(|name| !name.is_empty());
        let name = name.or_else(|| addresses.first().cloned()).unwrap_or_default();
        let kind = if self.is_group {
            CardKind::Group { members: self.members }
        } else {
            CardKind::Person { addresses, labels: self.labels }
        };
        Card { line: self.line, id: self.id, name, nicknames: self.nicknames, kind }
    }
}

impl<'a> Property<'a> {
    fn of(line: &'a str) -> Option<Self> {
        let mut is_quoted = false;
        let colon = line.bytes().position(|byte| {
            is_quoted ^= byte == b'"';
            byte == b':' && !is_quoted
        });
        // A quote that is not closed: what a person would read.
        let (head, value) = line.split_at_checked(colon.or_else(|| line.find(':'))?)?;
        let (name, parameters) = head.split_once(';').unwrap_or((head, ""));
        // `item1.EMAIL`: the group of properties says nothing here (RFC 6350 §3.3).
        let name = name.rsplit('.').next().unwrap_or(name).trim();
        Some(Self { name, parameters, value: value.get(1..)? })
    }

    fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    /// The parameters, as names and values; 2.1 has values without a name.
    fn parameters(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.parameters.split(';').map(|parameter| match parameter.split_once('=') {
            Some((name, value)) => (name.trim(), value.trim().trim_matches('"')),
            None => ("", parameter.trim()),
        })
    }

    /// How much an address is preferred: the less, the more.
    fn preference(&self) -> u8 {
        const LAST: u8 = 101;
        let preferences = self.parameters().filter_map(|(name, value)| {
            if name.eq_ignore_ascii_case("pref") {
                return value.parse().ok().filter(|preference| (1..LAST).contains(preference));
            }
            let is_type = name.is_empty() || name.eq_ignore_ascii_case("type");
            let says_pref = || value.split(',').any(|kind| kind.trim().eq_ignore_ascii_case("pref"));
            (is_type && says_pref()).then_some(1)
        });
        preferences.min().unwrap_or(LAST)
    }

    /// The value; quoted-printable (2.1) undone, none where it is not UTF-8 then. Of other encodings there is nothing
    /// that groups need.
    fn decoded(&self) -> Option<std::borrow::Cow<'a, str>> {
        let is_quoted = self.parameters().any(|(name, value)| {
            (name.is_empty() || name.eq_ignore_ascii_case("encoding"))
                && value.eq_ignore_ascii_case("quoted-printable")
        });
        if !is_quoted {
            return Some(self.value.into());
        }
        String::from_utf8(unquoted(self.value)).ok().map(Into::into)
    }
}

/// Quoted-printable undone (RFC 2045 §6.7); what is not of it stays.
fn unquoted(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let pair = after.first_chunk::<2>().filter(|_| *first == b'=');
        let decoded = pair.and_then(|pair| data_encoding::HEXUPPER_PERMISSIVE.decode(pair).ok());
        match decoded.as_deref() {
            Some(&[byte]) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    bytes
}

/// A text value (RFC 6350 §3.4): `\n` is a line end, `\x` is x.
fn unescaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    let mut characters = value.chars();
    while let Some(character) = characters.next() {
        match (character, character == '\\') {
            (_, false) => text.push(character),
            (_, true) => match characters.next() {
                Some('n' | 'N') => text.push('\n'),
                Some(escaped) => text.push(escaped),
                None => text.push('\\'),
            },
        }
    }
    text
}

/// The parts of a value between separators that are not escaped.
fn split(value: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut is_escaped = false;
    value.split(move |character| {
        let is_separator = character == separator && !is_escaped;
        is_escaped = character == '\\' && !is_escaped;
        is_separator
    })
}

/// A list of texts, those with nothing in them left out.
fn list(value: &str) -> impl Iterator<Item = String> {
    split(value, ',').map(|text| unescaped(text).trim().to_owned()).filter(|text| !text.is_empty())
}

/// `Family;Given;…` as people say it (RFC 6350 §6.2.2).
fn given_and_family(value: &str) -> String {
    let mut parts = split(value, ';').map(unescaped);
    let (family, given) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    format!("{} {}", given.trim(), family.trim()).trim().to_owned()
}

/// A UID in one form: with `urn:uuid:` in front in one place and without it in the other, it is the same.
fn normal_id(value: &str) -> String {
    let id = value.trim().to_lowercase();
    id.strip_prefix("urn:uuid:").map(str::to_owned).unwrap_or(id)
}

/// A member: a URI (RFC 6350 §6.6.5), of which `mailto:` says the address itself; some programs write just that.
fn member(value: &str, line: u32) -> Member {
    let value = value.trim();
    let scheme = value.split_once(':').filter(|(scheme, _)| !scheme.contains('@'));
    let target = match scheme {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("mailto") => {
            let address = rest.split('?').next().unwrap_or_default();
            match percent_decode_str(address).decode_utf8() {
                Ok(address) => Target::Address(address.trim().to_owned()),
                Err(_) => Target::Unreadable,
            }
        }
        None if value.contains('@') => Target::Address(value.to_owned()),
        _ => Target::Id { id: normal_id(value), address: None },
    };
    Member { line, label: value.to_owned(), target }
}
