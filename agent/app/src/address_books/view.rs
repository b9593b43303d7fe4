//! What `lighter-agent groups` shows: for scripts as JSON, for people as an indented list.

use std::fmt;
use std::path::PathBuf;

use lighter_protocol::Mailbox;
use lighter_shell::count;
use serde::Serialize;

use super::book::{Book, Link, LinkTo};
use super::expand::{expand, member_name};
use super::recipients::{RecipientError, find, unknown};

/// The address books.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BooksView {
    /// The folder in which each file, and each folder of files, is one.
    folder: PathBuf,
    /// Them.
    books: Vec<BookView>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct BookView {
    name: String,
    path: PathBuf,
    people: usize,
    groups: Vec<GroupView>,
    problems: Vec<ProblemView>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct GroupView {
    name: String,
    nicknames: Vec<String>,
    path: PathBuf,
    line: u32,
    /// As they stand in the book.
    members: Vec<MemberView>,
    /// Those to whom a message to the group goes, groups in it opened.
    recipients: Vec<Mailbox>,
    /// What keeps messages from being sent to it.
    problem: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct MemberView {
    name: String,
    line: u32,
    /// A mailbox, or none where it is a group or not in order.
    mailbox: Option<Mailbox>,
    is_group: bool,
    problem: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct ProblemView {
    path: PathBuf,
    /// None where it is the whole file.
    line: Option<u32>,
    what: String,
}

impl BooksView {
    /// All books, or what the groups of one name are in them.
    ///
    /// # Errors
    /// [`RecipientError::Unknown`] where no group has the name.
    pub fn of(folder: PathBuf, books: &[Book], name: Option<&str>) -> Result<Self, RecipientError> {
        let found = name.map(|name| (name, find(books, name)));
        if let Some((name, found)) = &found
            && found.is_empty()
        {
            return Err(unknown(books, name));
        }
        let mut views = Vec::new();
        for book in books {
            let is_shown = |group: usize| match &found {
                None => true,
                Some((_, found)) => found.iter().any(|(of, number)| of.path == book.path && *number == group),
            };
            let shown = (0..book.groups.len()).filter(|group| is_shown(*group));
            let groups: Vec<GroupView> = shown.filter_map(|group| GroupView::of(book, group)).collect();
            if found.is_none() || !groups.is_empty() {
                views.push(BookView::of(book, groups));
            }
        }
        Ok(Self { folder, books: views })
    }
}

impl BookView {
    fn of(book: &Book, groups: Vec<GroupView>) -> Self {
        let problems = book.problems.iter().map(|problem| ProblemView {
            path: problem.path.clone(),
            line: Some(problem.line).filter(|line| *line > 0),
            what: problem.flaw.to_string(),
        });
        Self {
            name: book.name.clone(),
            path: book.path.clone(),
            people: book.people.len(),
            groups,
            problems: problems.collect(),
        }
    }
}

impl GroupView {
    fn of(book: &Book, number: usize) -> Option<Self> {
        let group = book.groups.get(number)?;
        let (recipients, problem) = match expand(book, number) {
            Err(error) => (Vec::new(), Some(error.to_string())),
            Ok(expansion) => {
                let problem = if !expansion.faults.is_empty() {
                    let count = expansion.faults.len();
                    Some(format!("members without a usable address: {count}"))
                } else if group.is_by_label && book.is_incomplete {
                    Some("the book could not be read as a whole: members may be missing".to_owned())
                } else if expansion.mailboxes.is_empty() {
                    Some("has no members".to_owned())
                } else {
                    None
                };
                (expansion.mailboxes, problem)
            }
        };
        Some(Self {
            name: group.name.clone(),
            nicknames: group.nicknames.clone(),
            path: book.file(group.place).to_owned(),
            line: group.place.line,
            members: group.members.iter().map(|member| MemberView::of(book, member)).collect(),
            recipients,
            problem,
        })
    }
}

impl MemberView {
    fn of(book: &Book, member: &Link) -> Self {
        let (mailbox, problem) = match &member.to {
            LinkTo::Group(_) => (None, None),
            LinkTo::Mailbox(mailbox) => (Some(mailbox.clone()), None),
            LinkTo::Nobody(fault) => (None, Some(fault.to_string())),
            LinkTo::Person(person) => match book.people.get(*person).map(|person| &person.address) {
                Some(Ok(mailbox)) => (Some(mailbox.clone()), None),
                Some(Err(fault)) => (None, Some(fault.to_string())),
                None => (None, None),
            },
        };
        Self {
            name: member_name(book, member),
            line: member.place.line,
            mailbox,
            is_group: matches!(member.to, LinkTo::Group(_)),
            problem,
        }
    }
}

impl fmt::Display for BooksView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.books.is_empty() {
            let folder = self.folder.display();
            return writeln!(f, "No address books: put vCard, LDIF or CSV files into {folder}.");
        }
        for book in &self.books {
            writeln!(f, "{}  {} people  {}", one_line(&book.name), book.people, book.path.display())?;
            for group in &book.groups {
                write!(f, "{group}")?;
            }
            for problem in &book.problems {
                let line = problem.line.map_or(String::new(), |line| format!(":{line}"));
                writeln!(f, "    problem: {}{line}: {}", problem.path.display(), one_line(&problem.what))?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for GroupView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nicknames = match self.nicknames.as_slice() {
            [] => String::new(),
            names => format!(" ({})", one_line(&names.join(", "))),
        };
        let recipients = count(self.recipients.len(), "recipient", "recipients");
        writeln!(f, "    {}{nicknames}  {recipients}", one_line(&self.name))?;
        if let Some(problem) = &self.problem {
            writeln!(f, "        problem: {problem}")?;
        }
        for member in &self.members {
            let name = one_line(&member.name);
            match (&member.mailbox, &member.problem) {
                (Some(mailbox), _) if name == mailbox.as_str() => writeln!(f, "        {mailbox}")?,
                (Some(mailbox), _) => writeln!(f, "        {mailbox}  {name}")?,
                (None, Some(problem)) => {
                    writeln!(f, "        problem: “{name}” (line {}) {}", member.line, one_line(problem))?;
                }
                (None, None) => writeln!(f, "        group {name}")?,
            }
        }
        Ok(())
    }
}

/// Text from a book that breaks no line.
fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}
