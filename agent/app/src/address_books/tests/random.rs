//! Any bytes, and any graph of groups.

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};

use lighter_protocol::Mailbox;
use proptest::prelude::*;

use crate::address_books::book::{Book, Gathering, Group, Link, LinkTo, Place};
use crate::address_books::expand::expand;
use crate::address_books::format::parse;
use crate::limits::GROUP_DEPTH_MAX;

/// Lines that mean something, so that chance gets beyond the first one.
const LINES: [&str; 30] = [
    "BEGIN:VCARD",
    "END:VCARD",
    "KIND:group",
    "X-ADDRESSBOOKSERVER-KIND:group",
    "FN;ENCODING=QUOTED-PRINTABLE:=C3=",
    "=BC",
    "N:a;b\\;c",
    "FN:a",
    "UID:a",
    "UID:urn:uuid:b",
    "MEMBER:urn:uuid:A",
    "MEMBER:mailto:a@b.c",
    "MEMBER:b",
    "EMAIL;PREF=2:a@b.c",
    "CATEGORIES:a,b",
    "AGENT:",
    " folded",
    "",
    "dn: cn=a",
    "dn:: Y249YQ==",
    "cn: a",
    "mail: a@b.c",
    "objectclass: groupOfNames",
    "member: cn=a",
    "member: cn=\"b,mail=x\\2c@b.c\\",
    "member:< x",
    "changetype: delete",
    "Name,E-mail,Groups",
    "a,a@b.c,a;b ::: c",
    "\"b,\"\",;\t",
];

fn any_file() -> impl Strategy<Value = (String, Vec<u8>)> {
    let line = prop_oneof![
        8 => (0..LINES.len()).prop_map(|at| LINES[at].as_bytes().to_vec()),
        1 => proptest::collection::vec(any::<u8>(), 0..40),
        1 => "\\PC{0,40}".prop_map(String::into_bytes),
    ];
    let lines = proptest::collection::vec(line, 0..60).prop_map(|lines| lines.join(&b"\r\n"[..]));
    let name = prop_oneof![Just("a.vcf"), Just("a.ldif"), Just("a.csv"), Just("a")];
    (name.prop_map(str::to_owned), lines)
}

/// Groups of persons' mailboxes and of each other, at random.
fn any_graph() -> impl Strategy<Value = Book> {
    let member = (any::<bool>(), 0_usize..12);
    let groups = proptest::collection::vec(proptest::collection::vec(member, 0..8), 1..12);
    groups.prop_map(|groups| {
        let place = Place { file: 0, line: 1 };
        let count = groups.len();
        let group = |members: Vec<(bool, usize)>| Group {
            name: "g".to_owned(),
            nicknames: Vec::new(),
            place,
            is_by_label: false,
            members: members
                .into_iter()
                .map(|(is_group, number)| Link {
                    label: String::new(),
                    place,
                    to: if is_group {
                        LinkTo::Group(number % count)
                    } else {
                        LinkTo::Mailbox(format!("m{number}@b.c").parse().unwrap())
                    },
                })
                .collect(),
        };
        Book {
            groups: groups.into_iter().map(group).collect(),
            ..Gathering::new("b".to_owned(), PathBuf::new()).finish()
        }
    })
}

/// The same by another way: what can be reached, until nothing new is.
fn reachable(book: &Book, from: usize) -> BTreeSet<Mailbox> {
    let mut groups = HashSet::from([from]);
    loop {
        let members =
            || groups.iter().flat_map(|group| &book.groups[*group].members).map(|member| &member.to);
        let more: HashSet<usize> = members()
            .filter_map(|to| if let LinkTo::Group(group) = to { Some(*group) } else { None })
            .chain(groups.iter().copied())
            .collect();
        if more.len() == groups.len() {
            return members()
                .filter_map(|to| if let LinkTo::Mailbox(mailbox) = to { Some(mailbox.clone()) } else { None })
                .collect();
        }
        groups = more;
    }
}

proptest! {
    #[test]
    fn any_bytes_give_a_book_whose_groups_expand((name, bytes) in any_file()) {
        let cards = parse(&name, &bytes);
        let lines = u32::try_from(bytes.iter().filter(|byte| **byte == b'\n').count()).unwrap() + 1;
        prop_assert!(cards.cards.iter().all(|card| (1..=lines).contains(&card.line)));
        prop_assert!(cards.flaws.iter().all(|(line, _)| *line <= lines));
        let mut gathering = Gathering::new("b".to_owned(), PathBuf::new());
        gathering.add(Path::new("a"), cards);
        let book = gathering.finish();
        for group in 0..book.groups.len() {
            if let Ok(expansion) = expand(&book, group) {
                let once: HashSet<&Mailbox> = expansion.mailboxes.iter().collect();
                prop_assert_eq!(once.len(), expansion.mailboxes.len());
            }
        }
    }

    // SPEC: A11
    #[test]
    fn bad_input_39_any_graph_of_groups_gives_each_member_once(book in any_graph()) {
        prop_assert!(book.groups.len() <= GROUP_DEPTH_MAX);
        for group in 0..book.groups.len() {
            let expansion = expand(&book, group).unwrap();
            let once: BTreeSet<Mailbox> = expansion.mailboxes.iter().cloned().collect();
            prop_assert_eq!(once.len(), expansion.mailboxes.len());
            prop_assert_eq!(once, reachable(&book, group));
        }
    }
}
