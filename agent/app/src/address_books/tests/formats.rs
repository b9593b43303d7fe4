//! Each format, as the programs export it that people use.

use super::{book, problems};
use crate::address_books::book::{Book, Fault};
use crate::address_books::card::{CardKind, Cards, Flaw};
use crate::address_books::expand::expand;
use crate::address_books::format::parse;
use crate::limits::{CARD_VALUES_MAX, CARDS_MAX};

/// Each group of a book, with its recipients and the members that are none.
fn groups(book: &Book) -> Vec<(String, Vec<String>, Vec<String>)> {
    let groups = book.groups.iter().enumerate();
    groups
        .map(|(number, group)| {
            let expansion = expand(book, number).unwrap();
            let mailboxes = expansion.mailboxes.iter().map(ToString::to_string).collect();
            let faults = expansion.faults.iter().map(|fault| format!("{} {}", fault.member, fault.fault));
            (group.name.clone(), mailboxes, faults.collect())
        })
        .collect()
}

fn group(name: &str, mailboxes: &[&str]) -> (String, Vec<String>, Vec<String>) {
    (name.to_owned(), mailboxes.iter().map(|&text| text.to_owned()).collect(), Vec::new())
}

/// The preferred address of each person.
fn addresses(cards: &Cards) -> Vec<(&str, Option<&str>)> {
    let cards = cards.cards.iter().filter_map(|card| match &card.kind {
        CardKind::Person { addresses, .. } => {
            Some((card.name.as_str(), addresses.first().map(String::as_str)))
        }
        CardKind::Group { .. } => None,
    });
    cards.collect()
}

// SPEC: A11
#[test]
fn vcard_4_groups_name_members_by_uid_and_by_mailto() {
    let text = "BEGIN:VCARD\r\nVERSION:4.0\r\nKIND:group\r\nFN:Team Blue\r\nNICKNAME:blue,The Blues\r\n\
        UID:urn:uuid:G1\r\nMEMBER:urn:uuid:03a0e51f-d1aa-4385-8a53-e29025acd8af\r\n\
        MEMBER:mailto:eve%2Bx@example.org?subject=x\r\nMEMBER:b8767877-b4a1-4c70-9acc-505d3819e\r\n 519\r\n\
        END:VCARD\r\n\
        BEGIN:VCARD\r\nVERSION:4.0\r\nUID:urn:uuid:03A0E51F-d1aa-4385-8a53-e29025acd8af\r\nFN:Alice\\, A.\r\n\
        EMAIL;TYPE=home:old@example.org\r\nitem1.EMAIL;PREF=1;TYPE=\"a:b\":Alice@Example.org\r\nEND:VCARD\r\n\
        BEGIN:VCARD\r\nVERSION:4.0\r\nUID:b8767877-b4a1-4c70-9acc-505d3819e519\r\nN:Müller;Bob;;;\r\nFN:\r\n\
        EMAIL:bob@example.org\r\nEND:VCARD\r\n";
    let book = book("work", &[("work.vcf", text)]);
    assert_eq!(
        groups(&book),
        [group("Team Blue", &["alice@example.org", "eve+x@example.org", "bob@example.org"])]
    );
    assert!(["team blue", "blue", "the blues"].iter().all(|name| book.groups[0].is_called(name)));
    let names: Vec<&str> = book.people.iter().map(|person| person.name.as_str()).collect();
    assert_eq!((names, problems(&book)), (vec!["Alice, A.", "Bob Müller"], vec![]));
}

// SPEC: A11
#[test]
fn vcard_3_has_apples_groups_categories_and_a_preferred_type() {
    let text = "BEGIN:VCARD\nVERSION:3.0\nFN:Family\nX-ADDRESSBOOKSERVER-KIND:group\n\
        X-ADDRESSBOOKSERVER-MEMBER:urn:uuid:AAA\nUID:GGG\nEND:VCARD\n\
        BEGIN:VCARD\nVERSION:3.0\nFN:Ann\nUID:AAA\nCATEGORIES:Choir,Tennis\\, Sundays\n\
        item1.EMAIL;type=INTERNET:ann@work.example\nitem2.EMAIL;type=INTERNET;type=pref:ann@home.example\nEND:VCARD\n\
        BEGIN:VCARD\nVERSION:3.0\nFN:Ben\nCATEGORIES:choir\nEMAIL:ben@home.example\nEND:VCARD\n";
    let book = book("mac", &[("mac.vcf", text)]);
    let expected = [
        group("Family", &["ann@home.example"]),
        group("Choir", &["ann@home.example", "ben@home.example"]),
        group("Tennis, Sundays", &["ann@home.example"]),
    ];
    assert_eq!((groups(&book), problems(&book)), (expected.to_vec(), vec![]));
}

#[test]
fn vcard_2_1_with_quoted_printable_and_a_card_in_a_card_is_read() {
    let text = "BEGIN:VCARD\r\nVERSION:2.1\r\nFN;CHARSET=UTF-8;ENCODING=QUOTED-PRINTABLE:J=C3=B6rg=20=\r\n\
        M=C3=BCller\r\nAGENT:\r\nBEGIN:VCARD\r\nFN:Secretary\r\nEMAIL:s@example.org\r\nEND:VCARD\r\n\
        EMAIL;INTERNET:a@example.org\r\nEMAIL;PREF;INTERNET:joerg@example.org\r\n\
        PHOTO;BASE64;JPEG:\r\n AAAA\r\n BBBB\r\n\r\nEND:VCARD\r\n";
    let cards = parse("old.vcf", text.as_bytes());
    assert_eq!(addresses(&cards), [("Jörg Müller", Some("joerg@example.org"))]);
    assert_eq!(cards.flaws, []);
    // Bytes of another character set are not guessed.
    let cards = parse("old.vcf", b"BEGIN:VCARD\nFN;QUOTED-PRINTABLE:J=F6rg\nEMAIL:j@b.c\nEND:VCARD\n");
    assert_eq!(
        (addresses(&cards), &cards.flaws[..]),
        (vec![("j@b.c", Some("j@b.c"))], &[(2, Flaw::BadEncoding)][..])
    );
}

#[test]
fn half_a_card_is_none_and_the_rest_of_the_file_is_there() {
    let text = "BEGIN:VCARD\nKIND:group\nFN:Cut\nMEMBER:mailto:a@b.c\nBEGIN:VCARD\nFN:Bob\nEMAIL:bob@b.c\nEND:VCARD\n\
        BEGIN:VCARD\nKIND:group\nFN:End\nMEMBER:mailto:a@b.c\n";
    let book = book("cut", &[("cut.vcf", text)]);
    assert!(book.groups.is_empty() && book.is_incomplete);
    assert_eq!(book.people.len(), 1);
    let lines: Vec<u32> = problems(&book).iter().map(|(line, _)| *line).collect();
    assert_eq!(lines, [1, 9]);
}

#[test]
fn a_line_of_a_group_that_cannot_be_read_is_a_member_that_cannot() {
    let text = "BEGIN:VCARD\nKIND:group\nFN:Team\nMEMBER:mailto:a@b.c\nMEMBERmailto\nMEMBER:tel:+1-555\n\
        MEMBER:mailto:%ff@b.c\nEND:VCARD\n";
    let book = book("bad", &[("bad.vcf", text)]);
    let (_, mailboxes, faults) = groups(&book).remove(0);
    assert_eq!(mailboxes, ["a@b.c"]);
    let faults: Vec<&str> = faults.iter().map(String::as_str).collect();
    assert_eq!(
        faults,
        ["line 5 cannot be read", "tel:+1-555 is not in this address book", "mailto:%ff@b.c cannot be read"]
    );
    assert_eq!(problems(&book)[0].0, 5);
}

// SPEC: A11
#[test]
fn thunderbirds_ldif_has_lists_of_people_and_of_lists() {
    let text = "dn: cn=Ann Example,mail=ann@example.org\r\nobjectclass: top\r\nobjectclass: person\r\n\
        objectclass: inetOrgPerson\r\nobjectclass: mozillaAbPersonAlpha\r\ncn: Ann Example\r\nmail: ann@new.example\r\n\r\n\
        dn:: Y249SsO2cmcsbWFpbD1qb2VyZ0BleGFtcGxlLm9yZw==\r\nobjectclass: inetOrgPerson\r\ncn:: SsO2cmc=\r\n\
        mail: joerg@example.org\r\n\r\n\
        dn: cn=Friends\r\nobjectclass: top\r\nobjectclass: groupOfNames\r\ncn: Friends\r\nmozillaNickname: fr\r\n\
        description: a comment\r\n  that goes on\r\nmember: cn=Ann Example,mail=ann@example.org\r\n\
        member:: Y249SsO2cmcsbWFpbD1qb2VyZ0BleGFtcGxlLm9yZw==\r\nmember: cn=Not\\, Here,mail=not.here@ex\r\n ample.org\r\n\r\n\
        dn: cn=All\r\nobjectclass: groupOfNames\r\ncn: All\r\nmember: CN=Friends\r\nmember: cn=No Address\r\n";
    let book = book("thunderbird", &[("book.ldif", text)]);
    let friends = ["ann@new.example", "joerg@example.org", "not.here@example.org"];
    let mut all = group("All", &friends);
    all.2.push("No Address is not in this address book".to_owned());
    assert_eq!(groups(&book), [group("Friends", &friends), all]);
    assert!(book.groups[0].is_called("fr") && problems(&book).is_empty(), "{:?}", problems(&book));
    assert_eq!(book.groups[0].members[2].label, "Not, Here");
}

#[test]
fn ldif_of_a_directory_is_read_and_what_is_no_entry_is_said() {
    let text = "version: 1\n# a comment\n# and: another\n that is folded\ndn: ou=people,dc=example,dc=org\nou: people\n\n\
        dn: uid=bob,ou=people,dc=example,dc=org\nuid: bob\ncn: Bob\ncn;lang-de: Robert\nmail: bob@example.org\n\
        jpegPhoto:< file:///etc/passwd\n\n\n\
        dn: cn=staff,dc=example,dc=org\nobjectClass: groupOfUniqueNames\ncn: staff\n\
        uniqueMember: UID=Bob, OU=people, DC=example, DC=org\n\n\
        dn: cn=gone,dc=example,dc=org\nchangetype: delete\n\n\
        dn: cn=broken\ncn: broken\nmember:: !!!\nmember:< file:///etc/passwd\nmember: mail=a@b.c\n";
    let book = book("ldap", &[("ldap.ldif", text)]);
    let (_, mailboxes, faults) = groups(&book).remove(1);
    assert_eq!(groups(&book)[0], group("staff", &["bob@example.org"]));
    assert_eq!((mailboxes, faults.len()), (vec!["a@b.c".to_owned()], 2));
    let lines: Vec<u32> = problems(&book).iter().map(|(line, _)| *line).collect();
    assert_eq!(lines, [21, 26, 27], "{:?}", problems(&book));
}

// SPEC: A11
#[test]
fn csv_of_google_outlook_thunderbird_and_by_hand_has_people_and_groups() {
    let files = [
        (
            "google.csv",
            "First Name,Middle Name,Last Name,Labels,E-mail 1 - Label,E-mail 1 - Value,E-mail 2 - Value\r\n\
             Ann,,Example,Family ::: * myContacts,* Home,ann@example.org ::: ann2@example.org,x@example.org\r\n\
             Ben,,,Family,,\"ben@example.org\",\r\n,,,,,,\r\n",
        ),
        (
            "google-old.csv",
            "Name,Group Membership,E-mail 1 - Type,E-mail 1 - Value\nAnn Example,* My Contacts ::: Family,* ,ann@example.org\nBen,Family,,ben@example.org\n",
        ),
        (
            "outlook.csv",
            "First Name,Last Name,Categories,E-mail Address,E-mail Type,E-mail Display Name,E-mail 2 Address\n\
             Ann,Example,Family;Work,ann@example.org,SMTP,Ann (ann@example.org),\n\"B\nen\",,Family,,,,ben@example.org\n",
        ),
        (
            "thunderbird.csv",
            "First Name,Last Name,Display Name,Nickname,Primary Email,Secondary Email,Group\n\
             A,E,Ann Example,,ann@example.org,a2@example.org,family\n,,Ben,,,ben@example.org,FAMILY\n",
        ),
        (
            "hand.csv",
            "Name;E-Mail;Group\r\nAnn Example;ann@example.org;Family\r\nBen;ben@example.org;Family\r\n",
        ),
        (
            "outlook-de.csv",
            "Anrede;Vorname;Nachname;E-Mail-Adresse;E-Mail: Angezeigter Name;E-Mail 2: Adresse;Kategorien\r\n\
             Frau;Ann;Example;ann@example.org;Ann (ann@example.org);;Family\r\n;Ben;;;;ben@example.org;Family\r\n",
        ),
        (
            "outlook-fr.csv",
            "Prénom,Nom,Adresse de messagerie,Adresse de messagerie 2,Catégories\nAnn,Example,ann@example.org,,Family\nBen,,,ben@example.org,Family\n",
        ),
        // In a language that is not known: the first column of addresses is preferred, whatever it is called.
        (
            "hungarian.csv",
            "Megnevezés,Villámposta,Másik,Web,Group\nAnn,ann@example.org,x@example.org,@ann,Family\nBen,,ben@example.org,,Family\n",
        ),
        ("tabs.tsv", "Mail\tList\nann@example.org\tFamily\nben@example.org\tFamily\n"),
    ];
    for file in files {
        let book = book("csv", &[file]);
        let family = groups(&book).into_iter().find(|(name, ..)| name.eq_ignore_ascii_case("family"));
        let (_, mailboxes, faults) = family.unwrap_or_else(|| panic!("{}: {:?}", file.0, book.groups));
        assert_eq!(mailboxes, ["ann@example.org", "ben@example.org"], "{}", file.0);
        assert!(faults.is_empty() && problems(&book).is_empty(), "{}: {:?}", file.0, problems(&book));
        assert!(book.people.len() == 2 && book.groups.iter().all(|group| !group.name.starts_with('*')));
    }
}

#[test]
fn a_csv_file_without_addresses_says_what_is_missing() {
    // Of a column that holds something else as well, nobody knows what it is.
    for text in ["", "Name,Phone\nAnn,1\n", "Ki,Posta\nAnn,ann@example.org\nBen,otthon\n"] {
        assert_eq!(parse("a.csv", text.as_bytes()).flaws, [(1, Flaw::NoAddressColumn)], "{text}");
    }
    let book = book("a", &[("a.csv", "Name,Email,Group\nAnn,,Family\nBen,ben at home,Family\n")]);
    let faults: Vec<Fault> = book.people.iter().map(|person| person.address.clone().unwrap_err()).collect();
    assert!(
        matches!(&faults[..], [Fault::NoAddress, Fault::NotAnAddress { text, .. }] if text == "ben at home")
    );
    assert_eq!(book.groups[0].members[1].place.line, 3);
}

#[test]
fn labels_make_one_group_of_all_files_of_a_book() {
    let card = |name: &str| {
        format!("BEGIN:VCARD\nUID:{name}\nFN:{name}\nEMAIL:{name}@b.c\nCATEGORIES:Club\nEND:VCARD\n")
    };
    let (ann, ben) = (card("ann"), card("ben"));
    let book =
        book("folder", &[("1.vcf", &ann), ("2.vcf", &ben), ("ben (2).vcf", &ben), ("notes.txt", "hello")]);
    assert_eq!(groups(&book), [group("Club", &["ann@b.c", "ben@b.c"])]);
    let problems = problems(&book);
    assert!(
        problems.len() == 2 && problems[1].1.contains("same id as the card at /books/2.vcf:1"),
        "{problems:?}"
    );
    assert!(!book.is_incomplete, "neither loses a card");
}

#[test]
fn contents_say_which_format_it_is_and_then_the_extension() {
    let vcard = "\u{feff}\n BEGIN:vcard\nFN:Ann\nEND:VCARD\n";
    let ldif = "dn: cn=Ann\ncn: Ann\n";
    for (name, text) in
        [("a.csv", vcard), ("a", vcard), ("a.vcf", ldif), ("a.txt", ldif), ("a.CSV", "Name,Mail\nAnn,\n")]
    {
        assert_eq!(addresses(&parse(name, text.as_bytes())), [("Ann", None)], "{name}: {text}");
    }
    assert_eq!(parse("a.txt", b"hello").flaws, [(0, Flaw::UnknownFormat)]);
    assert_eq!(parse("a.vcf", b"BEGIN:VCARD\nFN:J\xf6rg\n").flaws, [(0, Flaw::NotText)]);
}

#[test]
fn what_is_more_than_any_book_has_ends_reading_and_is_said() {
    let many = "BEGIN:VCARD\nEND:VCARD\n".repeat(CARDS_MAX + 10);
    let cards = parse("a.vcf", many.as_bytes());
    assert_eq!((cards.cards.len(), cards.flaws.len()), (CARDS_MAX, 1));
    assert_eq!(cards.flaws[0].1, Flaw::TooManyCards);
    let large = format!("BEGIN:VCARD\n{}END:VCARD\n", "EMAIL:a@b.c\n".repeat(CARD_VALUES_MAX + 1));
    assert_eq!(parse("a.vcf", large.as_bytes()).flaws, [(1, Flaw::CardTooLarge)]);
    let large = format!("dn: cn=a\n{}", "mail: a@b.c\n".repeat(CARD_VALUES_MAX + 1));
    assert_eq!(parse("a.ldif", large.as_bytes()).flaws, [(1, Flaw::CardTooLarge)]);
    let large = format!("mail,group\na@b.c,{}\n", "a;".repeat(CARD_VALUES_MAX + 1));
    assert_eq!(parse("a.csv", large.as_bytes()).flaws, [(2, Flaw::CardTooLarge)]);
}
