//! What stands behind `--to` and `--cc`: mailboxes, and groups, of which only their members are left (SPEC A11).

use std::collections::{BTreeSet, HashSet};
use std::convert::Infallible;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use lighter_protocol::Mailbox;

use super::book::{Book, Group};
use super::expand::{Expansion, MemberFault, TooDeep, expand};
use super::names::{folded, near};
use crate::limits::FAULTS_SAID_MAX;

/// A recipient as the user gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recipient {
    /// A mailbox.
    Mailbox(Mailbox),
    /// A group's name or nickname, perhaps with its book's name and `/` in front.
    Group(String),
}

impl FromStr for Recipient {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(text.parse().map_or_else(|_| Self::Group(text.to_owned()), Self::Mailbox))
    }
}

/// A message's recipients, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recipients {
    /// To whom.
    pub to: Vec<Mailbox>,
    /// To whom besides; nobody of `to`.
    pub cc: Vec<Mailbox>,
    /// Members that were left out, since nothing can be mailed to them.
    pub left_out: Vec<MemberFault>,
}

/// What becomes of a group that is not in order: a member without an address, a book that could not be read as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strictness {
    /// Nothing is sent.
    #[default]
    Strict,
    /// It goes to the others.
    LeaveOut,
}

/// Why a name does not give mailboxes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecipientError {
    /// No book has a group of that name.
    #[error("“{name}” is neither a mailbox nor a group{}{}{}", hint(person), offer(near), books_said(books))]
    Unknown {
        /// The name.
        name: String,
        /// The address of a person of that name.
        person: Option<Mailbox>,
        /// Names that are like it.
        near: Vec<String>,
        /// The books that were looked at, and whether each could be read as a whole.
        books: Vec<(PathBuf, bool)>,
    },
    /// Several groups of that name have different members.
    #[error("“{name}” is the name of several groups with different members: write {}", places.join(" or "))]
    Ambiguous {
        /// The name.
        name: String,
        /// What tells them apart.
        places: Vec<String>,
    },
    /// Members to whom nothing can be mailed.
    #[error("nothing is sent: {}; mend it, or leave such members out with --skip-broken", said(.0))]
    Faults(Vec<MemberFault>),
    /// The group is made of cards, of which some may be missing.
    #[error(
        "nothing is sent: “{name}” may have more members than could be read in {}: see `lighter-agent groups`; mend it, or send to the others with --skip-broken",
        path.display()
    )]
    Incomplete {
        /// The name.
        name: String,
        /// The book.
        path: PathBuf,
    },
    /// There is nobody in it.
    #[error("the group “{name}” in {} has no members that mail can be sent to", path.display())]
    Empty {
        /// The name.
        name: String,
        /// The book.
        path: PathBuf,
    },
    /// Groups within groups without end.
    #[error(transparent)]
    TooDeep(#[from] TooDeep),
}

/// The mailboxes of all recipients; who is in both lists is in `to`.
///
/// # Errors
/// [`RecipientError`] for the first recipient, and then nothing is to be sent to anybody.
pub fn resolve(
    books: &[Book],
    to: &[Recipient],
    cc: &[Recipient],
    strictness: Strictness,
) -> Result<Recipients, RecipientError> {
    let mut recipients = Recipients::default();
    let mut taken = HashSet::new();
    for (given, is_to) in to.iter().map(|given| (given, true)).chain(cc.iter().map(|given| (given, false))) {
        let mailboxes = match given {
            Recipient::Mailbox(mailbox) => vec![mailbox.clone()],
            Recipient::Group(name) => {
                let expansion = resolve_group(books, name, strictness)?;
                recipients.left_out.extend(expansion.faults);
                expansion.mailboxes
            }
        };
        let list = if is_to { &mut recipients.to } else { &mut recipients.cc };
        list.extend(mailboxes.into_iter().filter(|mailbox| taken.insert(mailbox.clone())));
    }
    Ok(recipients)
}

/// The members of a group given by its name.
fn resolve_group(books: &[Book], name: &str, strictness: Strictness) -> Result<Expansion, RecipientError> {
    let found = find(books, name);
    let Some(&(book, group)) = found.first() else { return Err(unknown(books, name)) };
    let mut expansions = Vec::with_capacity(found.len());
    for (book, group) in &found {
        expansions.push(expand(book, *group)?);
    }
    let members = |expansion: &Expansion| expansion.mailboxes.iter().cloned().collect::<BTreeSet<Mailbox>>();
    let mut sets = expansions.iter().map(members);
    let first = sets.next();
    if sets.any(|set| Some(set) != first) {
        return Err(ambiguous(&found, name));
    }
    drop(sets);
    let mut expansion = expansions.swap_remove(0);
    expansion.faults.extend(expansions.into_iter().flat_map(|other| other.faults));
    let path = || book.path.clone();
    if strictness == Strictness::Strict {
        if !expansion.faults.is_empty() {
            return Err(RecipientError::Faults(expansion.faults));
        }
        let is_by_label = |(book, group): &&(&Book, usize)| {
            book.is_incomplete && book.groups.get(*group).is_some_and(|group| group.is_by_label)
        };
        if let Some((book, _)) = found.iter().find(is_by_label) {
            return Err(RecipientError::Incomplete { name: name.to_owned(), path: book.path.clone() });
        }
    }
    if expansion.mailboxes.is_empty() {
        let name = book.groups.get(group).map_or(name, |group| &group.name).to_owned();
        return Err(RecipientError::Empty { name, path: path() });
    }
    Ok(expansion)
}

/// The groups of a name: as it is, and, where none is called so, with a book's name or path before one of its slashes.
pub fn find<'a>(books: &'a [Book], name: &str) -> Vec<(&'a Book, usize)> {
    let called = |book: &'a Book, name: &str| {
        let name = folded(name);
        let groups = book.groups.iter().enumerate();
        let groups = groups.filter(move |(_, group)| group.is_called(&name));
        groups.map(move |(number, _)| (book, number)).collect::<Vec<_>>()
    };
    let found: Vec<_> = books.iter().flat_map(|book| called(book, name)).collect();
    if !found.is_empty() {
        return found;
    }
    let split = |at: usize| {
        let (book_name, group_name) = (name.get(..at)?, name.get(at + 1..)?);
        Some((book_name, group_name))
    };
    let splits = name.match_indices('/').filter_map(|(at, _)| split(at));
    splits
        .flat_map(|(book_name, group_name)| {
            let is_meant = move |book: &&Book| {
                folded(&book.name) == folded(book_name) || book.path.as_os_str() == book_name
            };
            books.iter().filter(is_meant).flat_map(move |book| called(book, group_name))
        })
        .collect()
}

/// The error for a name that no group has.
pub fn unknown(books: &[Book], name: &str) -> RecipientError {
    let groups = || books.iter().flat_map(|book| book.groups.iter().flat_map(Group::names));
    let wanted = folded(name);
    let mut people = books.iter().flat_map(|book| &book.people);
    let person = people.find(|person| {
        std::iter::once(&person.name).chain(&person.nicknames).any(|name| folded(name) == wanted)
    });
    RecipientError::Unknown {
        name: name.to_owned(),
        person: person.and_then(|person| person.address.clone().ok()),
        near: near(name, groups()),
        books: books.iter().map(|book| (book.path.clone(), !book.is_incomplete)).collect(),
    }
}

fn ambiguous(found: &[(&Book, usize)], name: &str) -> RecipientError {
    let mut places: Vec<String> = Vec::new();
    for (book, group) in found {
        let Some(group) = book.groups.get(*group) else { continue };
        let is_one_book = |other: &&(&Book, usize)| folded(&other.0.name) == folded(&book.name);
        let same_book = found.iter().filter(is_one_book).count();
        let same_path = found.iter().filter(|(other, _)| other.path == book.path).count();
        places.push(match (same_book, same_path) {
            (1, _) => format!("“{}/{}”", book.name, group.name),
            (_, 1) => format!("“{}/{}”", book.path.display(), group.name),
            // Nothing but another name in the file tells these apart.
            _ => format!("another name for one in {}:{}", book.file(group.place).display(), group.place.line),
        });
    }
    RecipientError::Ambiguous { name: name.to_owned(), places }
}

fn said(faults: &[MemberFault]) -> String {
    let mut said: Vec<String> = faults.iter().take(FAULTS_SAID_MAX).map(ToString::to_string).collect();
    if faults.len() > FAULTS_SAID_MAX {
        said.push(format!("and {} more", faults.len() - FAULTS_SAID_MAX));
    }
    said.join("; ")
}

fn hint(person: &Option<Mailbox>) -> String {
    person.as_ref().map_or(String::new(), |mailbox| format!(" (it is a person: write {mailbox})"))
}

fn offer(near: &[String]) -> String {
    match near {
        [] => String::new(),
        near => format!("; did you mean “{}”?", near.join("” or “")),
    }
}

fn books_said(books: &[(PathBuf, bool)]) -> impl fmt::Display {
    if books.is_empty() {
        return "; there are no address books (see `lighter-agent groups`)".to_owned();
    }
    let one = |(path, is_whole): &(PathBuf, bool)| {
        let note = if *is_whole { "" } else { " (not read as a whole: see `lighter-agent groups`)" };
        format!("{}{note}", path.display())
    };
    format!("; looked in {}", books.iter().map(one).collect::<Vec<String>>().join(", "))
}
