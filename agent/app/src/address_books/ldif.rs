//! LDIF (RFC 2849) as address books are exported: people (`inetOrgPerson`, Thunderbird's `mozillaAbPerson`) and groups
//! (`groupOfNames`, `groupOfUniqueNames`) whose members are distinguished names. Thunderbird writes a member as
//! `cn=NAME,mail=ADDRESS`, whether or not that is an entry of the file.

use data_encoding::BASE64;

use super::card::{Card, CardKind, Cards, Flaw, Full, Member, Target};
use super::text::{Folding, Line, Unfolded};
use crate::limits::CARD_VALUES_MAX;

/// The cards of a file.
pub(super) fn parse(text: &str) -> Cards {
    let mut reader = Reader::default();
    for line in Unfolded::new(text, Folding::Ldif) {
        if reader.line(&line).is_err() {
            return reader.cards;
        }
    }
    // The last entry needs no empty line behind it (RFC 2849: `*SEP`).
    let _ = reader.end();
    reader.cards
}

/// What was read so far.
#[derive(Default)]
struct Reader {
    cards: Cards,
    open: Option<Entry>,
}

/// An entry whose end was not read yet.
#[derive(Default)]
struct Entry {
    line: u32,
    name: String,
    display_name: String,
    distinguished_name: String,
    nicknames: Vec<String>,
    mail: Vec<String>,
    second_mail: Vec<String>,
    classes: Vec<String>,
    members: Vec<Member>,
    change: Option<String>,
    is_too_large: bool,
}

/// Why a line says nothing.
enum Unread {
    Flaw(Flaw),
    Nothing,
}

impl Reader {
    fn line(&mut self, line: &Line<'_>) -> Result<(), Full> {
        if line.text.is_empty() {
            return self.end();
        }
        if line.text.starts_with('#') {
            return Ok(());
        }
        match attribute(line) {
            Ok((name, _)) if name == "version" && self.open.is_none() => Ok(()),
            Ok((name, value)) => self.take(&name, value, line.number),
            Err(Unread::Nothing) => Ok(()),
            Err(Unread::Flaw(flaw)) => {
                self.cards.flaw(line.number, flaw);
                self.cards.claim_member(line.number)?;
                let label = format!("line {}", line.number);
                let unreadable = Member { line: line.number, label, target: Target::Unreadable };
                self.entry(line.number).members.push(unreadable);
                Ok(())
            }
        }
    }

    fn entry(&mut self, line: u32) -> &mut Entry {
        self.open.get_or_insert_with(|| Entry { line, ..Entry::default() })
    }

    fn take(&mut self, name: &str, value: String, line: u32) -> Result<(), Full> {
        if is_member(name) {
            self.cards.claim_member(line)?;
        }
        // The empty line between two entries is missing.
        if name == "dn" && self.open.as_ref().is_some_and(|entry| !entry.distinguished_name.is_empty()) {
            self.end()?;
        }
        self.entry(line).take(name, value, line);
        Ok(())
    }

    fn end(&mut self) -> Result<(), Full> {
        let Some(entry) = self.open.take() else { return Ok(()) };
        if let Some(change) = entry.change.filter(|change| !change.eq_ignore_ascii_case("add")) {
            self.cards.flaw(entry.line, Flaw::Change(change));
            return Ok(());
        }
        if entry.is_too_large {
            self.cards.flaw(entry.line, Flaw::CardTooLarge);
            return Ok(());
        }
        self.cards.push(Entry { change: None, ..entry }.finish())
    }
}

impl Entry {
    fn take(&mut self, name: &str, value: String, line: u32) {
        match name {
            "dn" => self.distinguished_name = value,
            "cn" if self.name.is_empty() => self.name = value,
            // Further names of a person or group (RFC 4519 §2.3).
            "cn" | "mozillanickname" | "xmozillanickname" => self.nicknames.push(value),
            "displayname" => self.display_name = value,
            "mail" => self.mail.push(value),
            "mozillasecondemail" | "xmozsecondemail" => self.second_mail.push(value),
            "objectclass" => self.classes.push(value.to_ascii_lowercase()),
            "changetype" => self.change = Some(value),
            name if is_member(name) => self.members.push(member(value, line)),
            _ => {}
        }
        let values = [&self.nicknames, &self.mail, &self.second_mail, &self.classes];
        self.is_too_large |= values.iter().any(|values| values.len() > CARD_VALUES_MAX);
        if self.is_too_large {
            (self.nicknames, self.mail, self.second_mail) = Default::default();
            self.classes.clear();
        }
    }

    fn finish(mut self) -> Card {
        const GROUPS: [&str; 3] = ["groupofnames", "groupofuniquenames", "mozillaablist"];
        let is_group = self.classes.iter().any(|class| GROUPS.contains(&class.as_str()))
            || self.members.iter().any(|member| member.target != Target::Unreadable);
        self.mail.append(&mut self.second_mail);
        let names = [self.name, self.display_name];
        let name = names.into_iter().find(|name| !name.is_empty());
        let name = name.or_else(|| self.mail.first().cloned()).unwrap_or_default();
        let kind = if is_group {
            CardKind::Group { members: self.members }
        } else {
            CardKind::Person { addresses: self.mail, labels: Vec::new() }
        };
        let id = normal_name(&parts(&self.distinguished_name));
        let id = Some(id).filter(|id| !id.is_empty());
        Card { line: self.line, id, name, nicknames: self.nicknames, kind }
    }
}

fn is_member(name: &str) -> bool {
    matches!(name, "member" | "uniquemember")
}

/// A line's attribute, its options left out, and value.
fn attribute(line: &Line<'_>) -> Result<(String, String), Unread> {
    let (name, value) = line.text.split_once(':').ok_or(Unread::Flaw(Flaw::BadLine))?;
    let name = name.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    const WANTED: [&str; 13] = [
        "dn",
        "cn",
        "displayname",
        "mail",
        "mozillasecondemail",
        "xmozsecondemail",
        "mozillanickname",
        "xmozillanickname",
        "objectclass",
        "changetype",
        "member",
        "uniquemember",
        "version",
    ];
    if !WANTED.contains(&name.as_str()) {
        return Err(Unread::Nothing);
    }
    if line.is_cut {
        return Err(Unread::Flaw(Flaw::BadLine));
    }
    let value = if let Some(encoded) = value.strip_prefix(':') {
        let bytes = BASE64.decode(encoded.trim().as_bytes()).ok();
        let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
        text.ok_or(Unread::Flaw(Flaw::BadEncoding))?
    } else if value.starts_with('<') {
        return Err(Unread::Flaw(Flaw::Reference));
    } else {
        value.to_owned()
    };
    Ok((name, value.trim().to_owned()))
}

/// A member: an entry of the file, or, where there is none of that name, the address in it.
fn member(value: String, line: u32) -> Member {
    let parts = parts(&value);
    let part = |name: &str| parts.iter().find(|(kind, _)| kind == name).map(|(_, value)| value.clone());
    let target = match normal_name(&parts) {
        id if id.is_empty() => Target::Unreadable,
        id => Target::Id { id, address: part("mail") },
    };
    Member { line, label: part("cn").unwrap_or(value), target }
}

/// A distinguished name's parts, attribute and value (RFC 4514 §2), in their order; attributes in lower case. What is
/// no part is left out.
fn parts(name: &str) -> Vec<(String, String)> {
    let mut parts = Vec::new();
    let (mut part, mut attribute, mut is_quoted) = (Vec::new(), None, false);
    let mut bytes = name.bytes().peekable();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    let mut close = |attribute: Option<String>, part: &[u8]| {
        if let Some(attribute) = attribute {
            parts.push((attribute, text(part)));
        }
    };
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => {
                let hex = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                let Some(first) = bytes.next() else { break };
                match (hex(first), bytes.peek().copied().and_then(hex)) {
                    (Some(high), Some(low)) => {
                        bytes.next();
                        part.push(high << 4 | low);
                    }
                    _ => part.push(first),
                }
            }
            // RFC 2253 §4 and before: a value in quotes.
            b'"' => is_quoted = !is_quoted,
            b'=' if attribute.is_none() && !is_quoted => {
                attribute = Some(text(&part).to_ascii_lowercase());
                part.clear();
            }
            b',' | b'+' | b';' if !is_quoted => {
                close(attribute.take(), &part);
                part.clear();
            }
            byte => part.push(byte),
        }
    }
    close(attribute, &part);
    parts
}

/// A distinguished name in one form, for comparing: case and blanks around do not tell two apart.
fn normal_name(parts: &[(String, String)]) -> String {
    let parts = parts.iter().map(|(name, value)| format!("{name}={}", value.to_lowercase()));
    parts.collect::<Vec<String>>().join("\n")
}
