//! From a group to its members: groups within it are opened, whatever they contain; each member is there once.

use std::collections::HashSet;
use std::path::PathBuf;

use lighter_protocol::Mailbox;

use super::book::{Book, Fault, Group, LinkTo};
use crate::limits::GROUP_DEPTH_MAX;

/// A group's members, groups in it opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expansion {
    /// The mailboxes, each once, in the order in which they are met.
    pub mailboxes: Vec<Mailbox>,
    /// The members to whom nothing can be mailed.
    pub faults: Vec<MemberFault>,
}

/// A member to whom nothing can be mailed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("“{group}”: “{member}” {fault} ({}:{line})", path.display())]
pub struct MemberFault {
    /// The group that names it.
    pub group: String,
    /// Who.
    pub member: String,
    /// The file in which the group does so.
    pub path: PathBuf,
    /// The line.
    pub line: u32,
    /// Why.
    pub fault: Fault,
}

/// Groups within groups, deeper than any sensible ones.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("“{0}” holds groups within groups more than {GROUP_DEPTH_MAX} deep")]
pub struct TooDeep(pub String);

/// The members of a book's group, given by its number.
///
/// It ends, and its work is at most the book's members, because a group is opened once however often it is met: a group
/// that contains itself adds nothing to itself.
///
/// # Errors
/// [`TooDeep`].
pub fn expand(book: &Book, group: usize) -> Result<Expansion, TooDeep> {
    let mut expansion = Expansion::default();
    let mut taken = HashSet::new();
    let mut opened = HashSet::from([group]);
    // The groups that are open, outermost first, and what is still to be taken from each.
    let Some(outermost) = book.groups.get(group) else { return Ok(expansion) };
    let mut open = vec![(outermost, outermost.members.iter())];
    while let Some((within, members)) = open.last_mut() {
        let Some(member) = members.next() else {
            open.pop();
            continue;
        };
        let within: &Group = within;
        let found = match &member.to {
            LinkTo::Mailbox(mailbox) => Ok(mailbox),
            LinkTo::Nobody(fault) => Err(fault),
            LinkTo::Person(person) => match book.people.get(*person) {
                Some(person) => person.address.as_ref(),
                None => Err(&Fault::NotHere),
            },
            LinkTo::Group(inner) => match book.groups.get(*inner) {
                Some(next) => {
                    if opened.insert(*inner) {
                        if open.len() > GROUP_DEPTH_MAX {
                            return Err(TooDeep(outermost.name.clone()));
                        }
                        open.push((next, next.members.iter()));
                    }
                    continue;
                }
                None => Err(&Fault::NotHere),
            },
        };
        match found {
            Ok(mailbox) => {
                if taken.insert(mailbox) {
                    expansion.mailboxes.push(mailbox.clone());
                }
            }
            Err(fault) => expansion.faults.push(MemberFault {
                group: within.name.clone(),
                member: member_name(book, member),
                path: book.file(member.place).to_owned(),
                line: member.place.line,
                fault: fault.clone(),
            }),
        }
    }
    Ok(expansion)
}

/// What people call a member: the name on its card, where it has one.
pub(super) fn member_name(book: &Book, member: &super::book::Link) -> String {
    let named = match member.to {
        LinkTo::Person(person) => book.people.get(person).map(|person| &person.name),
        LinkTo::Group(group) => book.groups.get(group).map(|group| &group.name),
        LinkTo::Mailbox(_) | LinkTo::Nobody(_) => None,
    };
    named.filter(|name| !name.is_empty()).unwrap_or(&member.label).clone()
}
