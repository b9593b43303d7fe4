//! What a parser of any format finds in a file: cards, and what is wrong. A card is a person or a group; a group's
//! members are still names of something (an address, another card's id), which [`super::book`] looks up.

use crate::limits::{BOOK_PROBLEMS_MAX, CARD_VALUES_MAX, CARDS_MAX, GROUP_MEMBERS_MAX};

/// A file's cards, as they stand in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cards {
    /// The cards, in the file's order.
    pub cards: Vec<Card>,
    /// What is wrong, in the file's order; at most [`BOOK_PROBLEMS_MAX`].
    pub flaws: Vec<(u32, Flaw)>,
    /// Whether something that may have been a card, or a part of one, is missing here.
    pub is_incomplete: bool,
    members: usize,
}

/// A person or a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    /// The line on which it begins, from 1.
    pub line: u32,
    /// What others call it by: vCard's UID, LDIF's distinguished name, in normal form.
    pub id: Option<String>,
    /// Its name; may be empty.
    pub name: String,
    /// Its other names.
    pub nicknames: Vec<String>,
    /// Which of the two.
    pub kind: CardKind,
}

/// A person or a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CardKind {
    /// A person.
    Person {
        /// The addresses as they are written, the preferred one first.
        addresses: Vec<String>,
        /// The groups that the person is put into by name: categories, labels.
        labels: Vec<String>,
    },
    /// A group that names its members.
    Group {
        /// As they are written.
        members: Vec<Member>,
    },
}

/// One member of a group, as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The line on which it stands.
    pub line: u32,
    /// Who it is, for people.
    pub label: String,
    /// Who it is.
    pub target: Target,
}

/// Who a member is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// This address.
    Address(String),
    /// The card of this id; where there is none, the address, if there is one.
    Id {
        /// The id, in normal form.
        id: String,
        /// An address that stands beside it.
        address: Option<String>,
    },
    /// What stands there cannot be read.
    Unreadable,
}

/// What is wrong in an address book's file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// The system does not give it out.
    #[error("cannot be read: {0}")]
    Io(String),
    /// Neither UTF-8 nor UTF-16.
    #[error("is not text in UTF-8: export it again with that encoding")]
    NotText,
    /// Larger than any address book.
    #[error("is larger than {} MiB", crate::limits::BOOK_FILE_LEN_MAX / (1024 * 1024))]
    TooLarge,
    /// All books together are larger than they may be.
    #[error("not read: the address books together are larger than {} MiB", crate::limits::BOOKS_LEN_MAX / (1024 * 1024))]
    AllTooLarge,
    /// More cards than are looked at.
    #[error("more than {CARDS_MAX} cards: what follows is not looked at")]
    TooManyCards,
    /// More members than are looked at.
    #[error("more than {GROUP_MEMBERS_MAX} group members: what follows is not looked at")]
    TooManyMembers,
    /// A folder with more files than are looked at.
    #[error("more than {} files: the others are not looked at", crate::limits::BOOK_FILES_MAX)]
    TooManyFiles,
    /// More books than are looked at.
    #[error("more than {} address books: this one is not looked at", crate::limits::BOOKS_MAX)]
    TooManyBooks,
    /// Something else lies there.
    #[error("is no vCard, LDIF or CSV file")]
    UnknownFormat,
    /// No column of a CSV file is known to hold addresses.
    #[error("no column of addresses: call it E-mail")]
    NoAddressColumn,
    /// The file ends within a card, or the next one begins.
    #[error("a card that does not end: left out")]
    CardNotEnded,
    /// A card with more names, addresses or labels than any has.
    #[error("a card with more than {CARD_VALUES_MAX} names, addresses or labels: left out")]
    CardTooLarge,
    /// A line that is none of its format.
    #[error("a line that cannot be read")]
    BadLine,
    /// A value that is not what it says that it is.
    #[error("a value that cannot be decoded")]
    BadEncoding,
    /// A value that lies elsewhere, and is not fetched.
    #[error("a value at another place (`:<`), which is not fetched")]
    Reference,
    /// A change, not an entry.
    #[error("a change (changetype {0}), not an entry: left out")]
    Change(String),
    /// A book on a server that was never fetched.
    #[error("was not fetched yet: {0}")]
    NotFetched(String),
    /// A book on a server, which is the one of before.
    #[error("is as it was {}: {why}", crate::views::when(*since))]
    NotFetchedSince {
        /// When it was fetched last.
        since: lighter_protocol::UnixTime,
        /// Why not since.
        why: String,
    },
    /// Two cards of one id.
    #[error("has the same id as the card at {}:{line}: group members mean that one", path.display())]
    SameId {
        /// The other one's file.
        path: std::path::PathBuf,
        /// Its line.
        line: u32,
    },
}

impl Flaw {
    /// Whether cards, or parts of one, may be missing because of it.
    pub fn loses(&self) -> bool {
        !matches!(self, Self::SameId { .. } | Self::UnknownFormat | Self::NotFetchedSince { .. })
    }
}

/// There is no room for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

impl Cards {
    /// A file of which nothing is known but what is wrong with it.
    pub fn flawed(flaw: Flaw) -> Self {
        let mut cards = Self::default();
        cards.flaw(0, flaw);
        cards
    }

    /// Notes what is wrong on a line.
    pub(super) fn flaw(&mut self, line: u32, flaw: Flaw) {
        self.is_incomplete |= flaw.loses();
        if self.flaws.len() < BOOK_PROBLEMS_MAX {
            self.flaws.push((line, flaw));
        }
    }

    /// Room for one more member of a group, which is then to be kept.
    pub(super) fn claim_member(&mut self, line: u32) -> Result<(), Full> {
        if self.members == GROUP_MEMBERS_MAX {
            self.flaw(line, Flaw::TooManyMembers);
            return Err(Full);
        }
        self.members += 1;
        Ok(())
    }

    /// Keeps a card.
    pub(super) fn push(&mut self, card: Card) -> Result<(), Full> {
        if self.cards.len() == CARDS_MAX {
            self.flaw(card.line, Flaw::TooManyCards);
            return Err(Full);
        }
        if let CardKind::Person { labels, .. } = &card.kind {
            for _ in labels {
                self.claim_member(card.line)?;
            }
        }
        self.cards.push(card);
        Ok(())
    }
}
