//! From names to mailboxes, and what stands in the way.

use std::path::PathBuf;

use lighter_protocol::Mailbox;

use super::book;
use crate::address_books::book::Book;
use crate::address_books::recipients::{Recipient, RecipientError, Recipients, Strictness, resolve};
use crate::limits::GROUP_DEPTH_MAX;

/// A vCard group whose members are mailboxes, or other groups by their names.
fn group(name: &str, members: &[&str]) -> String {
    let member = |member: &&str| match member.contains('@') {
        true => format!("MEMBER:mailto:{member}\n"),
        false => format!("MEMBER:urn:uuid:{member}\n"),
    };
    let members: String = members.iter().map(member).collect();
    format!("BEGIN:VCARD\nKIND:group\nFN:{name}\nUID:{name}\n{members}END:VCARD\n")
}

fn vcards(name: &str, cards: &[String]) -> Book {
    book(name, &[(&format!("{name}.vcf"), &cards.concat())])
}

fn to(books: &[Book], to: &[&str], cc: &[&str]) -> Result<Recipients, RecipientError> {
    let recipients =
        |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<Recipient>>();
    resolve(books, &recipients(to), &recipients(cc), Strictness::Strict)
}

fn mailboxes(texts: &[&str]) -> Vec<Mailbox> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

// SPEC: A11
#[test]
fn bad_input_39_a_group_that_contains_itself_ends_and_each_member_is_there_once() {
    let books = [vcards(
        "work",
        &[
            group("a", &["x@b.c", "b", "a", "y@b.c"]),
            group("b", &["X@B.C", "z@b.c", "c"]),
            group("c", &["a", "b", "c", "w@b.c"]),
        ],
    )];
    assert_eq!(to(&books, &["a"], &[]).unwrap().to, mailboxes(&["x@b.c", "z@b.c", "w@b.c", "y@b.c"]));
    assert_eq!(to(&books, &["C"], &[]).unwrap().to, mailboxes(&["x@b.c", "z@b.c", "y@b.c", "w@b.c"]));
    // Nothing but itself: nobody.
    let books = [vcards("work", &[group("a", &["a"])])];
    assert!(matches!(to(&books, &["a"], &[]), Err(RecipientError::Empty { .. })));
}

// SPEC: A11
#[test]
fn who_is_in_to_and_in_cc_counts_once_as_to() {
    let books = [vcards("work", &[group("a", &["x@b.c", "y@b.c"]), group("b", &["y@b.c", "z@b.c"])])];
    let recipients = to(&books, &["w@b.c", "a"], &["b", "X@b.c", "w@b.c"]).unwrap();
    assert_eq!(recipients.to, mailboxes(&["w@b.c", "x@b.c", "y@b.c"]));
    assert_eq!(recipients.cc, mailboxes(&["z@b.c"]));
    // Mailboxes need no book.
    assert_eq!(to(&[], &["w@b.c", "W@b.c"], &[]).unwrap().to, mailboxes(&["w@b.c"]));
}

#[test]
fn a_name_in_two_books_with_different_members_needs_its_book() {
    let same = [
        vcards("work", &[group("a", &["x@b.c", "y@b.c"])]),
        vcards("home", &[group("A", &["y@b.c", "x@b.c"])]),
    ];
    assert_eq!(to(&same, &["a"], &[]).unwrap().to.len(), 2);
    let books = [vcards("work", &[group("a", &["x@b.c"])]), vcards("home", &[group("A", &["y@b.c"])])];
    let error = to(&books, &["a"], &[]).unwrap_err().to_string();
    assert!(error.contains("“work/a” or “home/A”"), "{error}");
    assert_eq!(to(&books, &["Home/a"], &[]).unwrap().to, mailboxes(&["y@b.c"]));
    assert_eq!(to(&books, &["/books/work/a"], &[]).unwrap().to, mailboxes(&["x@b.c"]));
    // Within one book.
    let books = [vcards("work", &[group("a", &["x@b.c"]), group("A", &["y@b.c"])])];
    let error = to(&books, &["work/a"], &[]).unwrap_err().to_string();
    assert!(error.contains("/books/work.vcf:1 ") && error.contains("/books/work.vcf:7"), "{error}");
    // A group may have a slash in its name.
    let books = [vcards("work", &[group("R/D", &["x@b.c"])])];
    for name in ["r/d", "work/R/D"] {
        assert_eq!(to(&books, &[name], &[]).unwrap().to, mailboxes(&["x@b.c"]));
    }
}

#[test]
fn an_unknown_name_says_where_it_was_looked_for_and_what_is_near() {
    let person = "BEGIN:VCARD\nFN:Bob\nEMAIL:bob@b.c\nEND:VCARD\n".to_owned();
    let books = [vcards("work", &[group("Family", &["x@b.c"]), person]), vcards("home", &[])];
    let error = to(&books, &["famly"], &[]).unwrap_err().to_string();
    for part in ["“famly”", "“Family”", "/books/work", "/books/home"] {
        assert!(error.contains(part), "{error}");
    }
    let error = to(&books, &["bob"], &[]).unwrap_err().to_string();
    assert!(error.contains("a person: write bob@b.c"), "{error}");
    assert!(to(&[], &["a b@c"], &[]).unwrap_err().to_string().contains("no address books"));
}

#[test]
fn a_member_without_an_address_ends_it_unless_it_may_be_left_out() {
    let text = "Name,Email,Group\nAnn,ann@b.c,Family\nUncle Bob,,Family\nCarl,carl,Family\n";
    let books = [book("home", &[("home.csv", text)])];
    let error = to(&books, &["family"], &[]).unwrap_err();
    let said = error.to_string();
    for part in [
        "“Family”",
        "“Uncle Bob” has no e-mail address (/books/home.csv:3)",
        "“carl”, which is no",
        "home.csv:4",
    ] {
        assert!(said.contains(part), "{said}");
    }
    assert!(matches!(&error, RecipientError::Faults(faults) if faults.len() == 2));
    let family = [Recipient::Group("family".to_owned())];
    let recipients = resolve(&books, &family, &[], Strictness::LeaveOut).unwrap();
    assert_eq!((recipients.to, recipients.left_out.len()), (mailboxes(&["ann@b.c"]), 2));
}

#[test]
fn of_a_book_that_was_not_read_as_a_whole_labels_are_not_trusted_and_lists_are() {
    let whole = "BEGIN:VCARD\nFN:Ann\nEMAIL:ann@b.c\nCATEGORIES:Club\nEND:VCARD\n".to_owned();
    let cards = [group("Team", &["x@b.c"]), whole, "BEGIN:VCARD\nFN:Ben\nCATEGORIES:Cl".to_owned()];
    let books = [vcards("home", &cards)];
    assert_eq!(to(&books, &["team"], &[]).unwrap().to, mailboxes(&["x@b.c"]));
    let error = to(&books, &["club"], &[]).unwrap_err();
    assert_eq!(
        error,
        RecipientError::Incomplete { name: "club".to_owned(), path: PathBuf::from("/books/home") }
    );
    let club = [Recipient::Group("club".to_owned())];
    assert_eq!(resolve(&books, &club, &[], Strictness::LeaveOut).unwrap().to, mailboxes(&["ann@b.c"]));
}

#[test]
fn groups_within_groups_have_a_depth() {
    let chain = |depth: usize| {
        let link = |at: usize| match at {
            0 => group("g0", &["x@b.c"]),
            at => group(&format!("g{at}"), &[&format!("g{}", at - 1)]),
        };
        vcards("work", &(0..=depth).map(link).collect::<Vec<String>>())
    };
    let deepest = format!("g{GROUP_DEPTH_MAX}");
    assert_eq!(to(&[chain(GROUP_DEPTH_MAX)], &[&deepest], &[]).unwrap().to, mailboxes(&["x@b.c"]));
    let deeper = format!("g{}", GROUP_DEPTH_MAX + 1);
    let error = to(&[chain(GROUP_DEPTH_MAX + 1)], &[&deeper], &[]).unwrap_err();
    assert!(matches!(error, RecipientError::TooDeep(_)));
}
