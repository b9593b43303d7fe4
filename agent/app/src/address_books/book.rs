//! One address book: the cards of its files put together, each member of a group looked up.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use lighter_protocol::Mailbox;
use lighter_protocol::mailbox::MailboxError;

use super::card::{Card, CardKind, Cards, Flaw, Member, Target};
use super::names::folded;
use crate::limits::{BOOK_PROBLEMS_MAX, CARDS_MAX, GROUP_MEMBERS_MAX};

/// An address book.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Book {
    /// What it is called: its file's or folder's name, without the extension.
    pub name: String,
    /// Its file or folder.
    pub path: PathBuf,
    /// Its files.
    pub files: Vec<PathBuf>,
    /// Its people.
    pub people: Vec<Person>,
    /// Its groups.
    pub groups: Vec<Group>,
    /// What is wrong; at most [`BOOK_PROBLEMS_MAX`].
    pub problems: Vec<Problem>,
    /// Whether a card, or a part of one, may be missing here.
    pub is_incomplete: bool,
}

/// A place in an address book.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which of its files.
    pub file: usize,
    /// The line, from 1; 0 is the whole file.
    pub line: u32,
}

/// A person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// Their name.
    pub name: String,
    /// Their other names.
    pub nicknames: Vec<String>,
    /// Their preferred address.
    pub address: Result<Mailbox, Fault>,
}

/// A group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Its other names.
    pub nicknames: Vec<String>,
    /// Where it stands first.
    pub place: Place,
    /// Its members, in the file's order.
    pub members: Vec<Link>,
    /// Whether it is made of all cards that name it: then a card that is missing is a member that is missing.
    pub is_by_label: bool,
}

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Who it is, for people.
    pub label: String,
    /// Where it stands.
    pub place: Place,
    /// Who it is.
    pub to: LinkTo,
}

/// Who a member is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkTo {
    /// A person of the same book.
    Person(usize),
    /// A group of the same book.
    Group(usize),
    /// A mailbox.
    Mailbox(Mailbox),
    /// Nobody.
    Nobody(Fault),
}

/// Why nothing can be mailed to a member.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The card has none.
    #[error("has no e-mail address")]
    NoAddress,
    /// It has one that is none.
    #[error("has “{text}”, which is no e-mail address: {why}")]
    NotAnAddress {
        /// As it is written.
        text: String,
        /// Why.
        why: MailboxError,
    },
    /// No card has that id.
    #[error("is not in this address book")]
    NotHere,
    /// The line is damaged.
    #[error("cannot be read")]
    Unreadable,
}

/// Something that is wrong in an address book.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Which file or folder.
    pub path: PathBuf,
    /// The line, from 1; 0 is the whole file.
    pub line: u32,
    /// What.
    pub flaw: Flaw,
}

/// An address book whose files are being read.
#[derive(Debug)]
pub struct Gathering {
    book: Book,
    cards: Vec<(usize, Card)>,
    members: usize,
}

impl Gathering {
    /// Begins with no file.
    pub fn new(name: String, path: PathBuf) -> Self {
        let book = Book {
            name,
            path,
            files: Vec::new(),
            people: Vec::new(),
            groups: Vec::new(),
            problems: Vec::new(),
            is_incomplete: false,
        };
        Self { book, cards: Vec::new(), members: 0 }
    }

    /// Adds what is in a file.
    pub fn add(&mut self, path: &Path, cards: Cards) {
        let file = self.book.files.len();
        self.book.files.push(path.to_owned());
        self.book.is_incomplete |= cards.is_incomplete;
        for (line, flaw) in cards.flaws {
            self.book.problem(path, line, flaw);
        }
        for card in cards.cards {
            let members = match &card.kind {
                CardKind::Person { labels, .. } => labels.len(),
                CardKind::Group { members } => members.len(),
            };
            if self.cards.len() == CARDS_MAX {
                return self.book.problem(path, card.line, Flaw::TooManyCards);
            }
            self.members += members;
            if self.members > GROUP_MEMBERS_MAX {
                return self.book.problem(path, card.line, Flaw::TooManyMembers);
            }
            self.cards.push((file, card));
        }
    }

    /// Notes what is wrong with the book as a whole.
    pub fn flaw(&mut self, path: &Path, flaw: Flaw) {
        self.book.problem(path, 0, flaw);
    }

    /// All is there: looks up the members.
    pub fn finish(self) -> Book {
        let Self { mut book, cards, .. } = self;
        let index = book.index(&cards);
        // By their names in one form, and so in one order.
        let mut labelled: BTreeMap<String, Group> = BTreeMap::new();
        for (file, card) in cards {
            let place = Place { file, line: card.line };
            match card.kind {
                CardKind::Person { addresses, labels } => {
                    let person = book.people.len();
                    for label in labels {
                        let link = Link { label: card.name.clone(), place, to: LinkTo::Person(person) };
                        let group = labelled.entry(folded(&label));
                        group.or_insert_with(|| Group::of_label(label, place)).members.push(link);
                    }
                    let address = addresses.into_iter().next().ok_or(Fault::NoAddress);
                    let address = address.and_then(mailbox);
                    book.people.push(Person { name: card.name, nicknames: card.nicknames, address });
                }
                CardKind::Group { members } => {
                    let members = members.into_iter().map(|member| link(member, file, &index)).collect();
                    let nicknames = card.nicknames;
                    book.groups.push(Group {
                        name: card.name,
                        nicknames,
                        place,
                        members,
                        is_by_label: false,
                    });
                }
            }
        }
        book.groups.extend(labelled.into_values());
        book
    }
}

impl Group {
    fn of_label(name: String, place: Place) -> Self {
        Self { name, nicknames: Vec::new(), place, members: Vec::new(), is_by_label: true }
    }

    /// Whether it is called so, in any of its names.
    pub fn is_called(&self, folded_name: &str) -> bool {
        self.names().any(|name| folded(name) == folded_name)
    }

    /// All its names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.name).chain(&self.nicknames).map(String::as_str)
    }
}

impl Book {
    fn problem(&mut self, path: &Path, line: u32, flaw: Flaw) {
        self.is_incomplete |= flaw.loses();
        if self.problems.len() < BOOK_PROBLEMS_MAX {
            self.problems.push(Problem { path: path.to_owned(), line, flaw });
        }
    }

    /// The file of a place.
    pub fn file(&self, place: Place) -> &Path {
        self.files.get(place.file).unwrap_or(&self.path)
    }

    /// What each id means: the first card that has it. People and groups get their numbers in the cards' order.
    fn index(&mut self, cards: &[(usize, Card)]) -> HashMap<String, LinkTo> {
        let mut index: HashMap<String, (Place, LinkTo)> = HashMap::new();
        let (mut people, mut groups) = (0, 0);
        for (file, card) in cards {
            let count = match card.kind {
                CardKind::Person { .. } => &mut people,
                CardKind::Group { .. } => &mut groups,
            };
            let number = *count;
            *count += 1;
            let Some(id) = &card.id else { continue };
            let place = Place { file: *file, line: card.line };
            match index.get(id) {
                Some((first, _)) => {
                    let flaw = Flaw::SameId { path: self.file(*first).to_owned(), line: first.line };
                    let path = self.file(place).to_owned();
                    self.problem(&path, card.line, flaw);
                }
                None => {
                    let to = match card.kind {
                        CardKind::Person { .. } => LinkTo::Person(number),
                        CardKind::Group { .. } => LinkTo::Group(number),
                    };
                    index.insert(id.clone(), (place, to));
                }
            }
        }
        index.into_iter().map(|(id, (_, to))| (id, to)).collect()
    }
}

fn link(member: Member, file: usize, index: &HashMap<String, LinkTo>) -> Link {
    let of_address = |text| match mailbox(text) {
        Ok(mailbox) => LinkTo::Mailbox(mailbox),
        Err(fault) => LinkTo::Nobody(fault),
    };
    let to = match member.target {
        Target::Address(text) => of_address(text),
        Target::Unreadable => LinkTo::Nobody(Fault::Unreadable),
        Target::Id { id, address } => match (index.get(&id), address) {
            (Some(to), _) => to.clone(),
            (None, Some(text)) => of_address(text),
            (None, None) => LinkTo::Nobody(Fault::NotHere),
        },
    };
    Link { label: member.label, place: Place { file, line: member.line }, to }
}

/// An address as it is written.
fn mailbox(text: String) -> Result<Mailbox, Fault> {
    if text.is_empty() {
        return Err(Fault::NoAddress);
    }
    text.parse().map_err(|why| Fault::NotAnAddress { text, why })
}
