//! `lighter-agent`'s address books: whatever a file holds, groups in it end, and each member is there once.

use std::collections::HashSet;
use std::path::Path;

use lighter_agent::address_books::book::Gathering;
use lighter_agent::address_books::card::{CardKind, Cards};
use lighter_agent::address_books::carddav::multistatus;
use lighter_agent::address_books::expand::expand;
use lighter_agent::address_books::format::parse;
use lighter_agent::limits::{BOOK_PROBLEMS_MAX, CARD_VALUES_MAX, CARDDAV_RESOURCES_MAX, CARDS_MAX};

use crate::Target;

/// The formats' targets.
pub const TARGETS: &[Target] = &[
    Target { name: "book_vcard", run: book_vcard, seeds: vcard_seeds },
    Target { name: "book_ldif", run: book_ldif, seeds: ldif_seeds },
    Target { name: "book_csv", run: book_csv, seeds: csv_seeds },
    Target { name: "carddav_answer", run: carddav_answer, seeds: carddav_seeds },
];

/// A vCard file.
pub fn book_vcard(data: &[u8]) {
    check("a.vcf", data);
}

/// An LDIF file.
pub fn book_ldif(data: &[u8]) {
    check("a.ldif", data);
}

/// A CSV file.
pub fn book_csv(data: &[u8]) {
    check("a.csv", data);
}

/// A CardDAV server's answer: read or refused, and within its bounds.
pub fn carddav_answer(data: &[u8]) {
    let Ok(resources) = multistatus::parse(&String::from_utf8_lossy(data)) else { return };
    assert!(resources.len() <= CARDDAV_RESOURCES_MAX);
    // Nothing is there that was not in the answer: no entity makes more of it. What is no UTF-8 grows to three bytes.
    let texts = resources.iter().flat_map(|resource| {
        let texts =
            [&resource.display_name, &resource.etag, &resource.version, &resource.card, &resource.principal];
        texts.into_iter().flatten().chain(&resource.homes).chain([&resource.href]).map(String::len)
    });
    assert!(texts.sum::<usize>() <= 3 * data.len());
}

/// What is true of any file: the cards are within their bounds and on its lines, and every group expands.
fn check(name: &str, data: &[u8]) {
    let cards = parse(name, data);
    let lines = data.len() + 1;
    let is_within = |line: u32| usize::try_from(line).is_ok_and(|line| line <= lines);
    assert!(cards.cards.len() <= CARDS_MAX.min(lines) && cards.flaws.len() <= BOOK_PROBLEMS_MAX);
    assert!(cards.flaws.iter().all(|(line, _)| is_within(*line)), "a flaw on no line");
    for card in &cards.cards {
        assert!(card.line > 0 && is_within(card.line), "a card on no line");
        match &card.kind {
            CardKind::Person { addresses, labels } => {
                assert!(labels.len() <= CARD_VALUES_MAX && addresses.len() <= 2 * CARD_VALUES_MAX);
            }
            CardKind::Group { members } => assert!(members.iter().all(|member| is_within(member.line))),
        }
    }
    let lost = cards.flaws.iter().any(|(_, flaw)| flaw.loses());
    assert!(!lost || cards.is_incomplete, "what is missing is not said");
    expands(cards);
}

fn expands(cards: Cards) {
    let mut gathering = Gathering::new("a".to_owned(), "a".into());
    gathering.add(Path::new("a"), cards);
    let book = gathering.finish();
    for group in 0..book.groups.len().min(64) {
        let Ok(expansion) = expand(&book, group) else { continue };
        let once: HashSet<_> = expansion.mailboxes.iter().collect();
        assert!(once.len() == expansion.mailboxes.len(), "a member twice");
    }
}

// ---- seeds ----

fn vcard_seeds() -> Vec<Vec<u8>> {
    let four = "BEGIN:VCARD\r\nVERSION:4.0\r\nKIND:group\r\nFN:Team\r\nNICKNAME:t,u\r\nUID:urn:uuid:1\r\n\
        MEMBER:urn:uuid:2\r\nMEMBER:mailto:a%2Bb@example.org?x\r\nMEMBER:urn:uu\r\n id:1\r\nEND:VCARD\r\n\
        BEGIN:VCARD\r\nFN:Ann\\, A\r\nUID:2\r\nitem1.EMAIL;PREF=1;TYPE=\"a:b\":ann@example.org\r\nEND:VCARD\r\n";
    let three = "BEGIN:VCARD\nX-ADDRESSBOOKSERVER-KIND:group\nFN:F\nX-ADDRESSBOOKSERVER-MEMBER:urn:uuid:A\nUID:F\n\
        END:VCARD\nBEGIN:VCARD\nN:Ann;B\nUID:A\nCATEGORIES:X,Y\nEMAIL;type=pref:a@b.c\nEND:VCARD\n";
    let two = "BEGIN:VCARD\r\nVERSION:2.1\r\nFN;ENCODING=QUOTED-PRINTABLE:J=C3=B6=\r\n=20M\r\nAGENT:\r\nBEGIN:VCARD\r\n\
        END:VCARD\r\nEMAIL;PREF;INTERNET:a@b.c\r\nEND:VCARD\r\n";
    [four, three, two].map(|text| text.as_bytes().to_vec()).into()
}

fn ldif_seeds() -> Vec<Vec<u8>> {
    let text = "version: 1\n# comment\ndn: cn=Ann,mail=a@b.c\nobjectclass: inetOrgPerson\ncn;lang-de: Ann\nmail: a@b.c\n\n\
        dn:: Y249VGVhbQ==\nobjectclass: groupOfNames\ncn: Team\nmozillaNickname: t\nmember: cn=Ann,mail=a@\n b.c\n\
        member: cn=\"x,y\"+sn=\\2c\\,z,mail=d@e.f\nmember: cn=Team\nmember:< file:///x\n\ndn: cn=x\nchangetype: delete\n";
    let utf16: Vec<u8> = format!("\u{feff}{text}").encode_utf16().flat_map(u16::to_le_bytes).collect();
    vec![text.as_bytes().to_vec(), utf16]
}

fn csv_seeds() -> Vec<Vec<u8>> {
    let google = "First Name,Last Name,Labels,E-mail 1 - Value,E-mail 2 - Value\r\nAnn,E,F ::: * my,a@b.c ::: d@e.f,\r\n";
    let outlook = "Name;E-Mail;Categories\n\"A;\"\"nn\n\";a@b.c;x;y\n;;\n";
    [google, outlook, "Mail\tList\na@b.c\tF\n"].map(|text| text.as_bytes().to_vec()).into()
}

fn carddav_seeds() -> Vec<Vec<u8>> {
    let book = "<?xml version='1.0'?><D:multistatus xmlns:D='DAV:' xmlns:c='urn:ietf:params:xml:ns:carddav' \
        xmlns:s='http://calendarserver.org/ns/'><D:response><D:href>/a/</D:href><D:propstat><D:prop><D:resourcetype>\
        <D:collection/><c:addressbook/></D:resourcetype><D:displayname>A &amp; B</D:displayname><s:getctag>1</s:getctag>\
        <c:addressbook-home-set><D:href>/a/</D:href></c:addressbook-home-set></D:prop><D:status>HTTP/1.1 200 OK</D:status>\
        </D:propstat></D:response></D:multistatus>";
    let card = "<multistatus xmlns='DAV:'><response><href>/a/1.vcf</href><propstat><prop><getetag>\"1\"</getetag>\
        <address-data xmlns='urn:ietf:params:xml:ns:carddav'>BEGIN:VCARD&#13;\nEND:VCARD<![CDATA[\n]]></address-data></prop>\
        <status>HTTP/1.1 200 OK</status></propstat></response><response><href>/a/2.vcf</href>\
        <status>HTTP/1.1 404 Not Found</status></response><sync-token>data:,1</sync-token></multistatus>";
    [book, card].map(|text| text.as_bytes().to_vec()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_have_cards() {
        for (name, seeds) in [("a.vcf", vcard_seeds()), ("a.ldif", ldif_seeds()), ("a.csv", csv_seeds())] {
            assert!(seeds.iter().all(|seed| !parse(name, seed).cards.is_empty()), "{name}");
        }
        for seed in carddav_seeds() {
            assert!(!multistatus::parse(std::str::from_utf8(&seed).unwrap()).unwrap().is_empty());
        }
    }
}
