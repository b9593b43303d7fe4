//! What is to be done next about one thing in the outbox: a pure function of what lies there, what is on record and the
//! time, asked again after each step. It makes the order: on record before it is sent, its place in `sent` on record
//! before it is moved, forgotten last. After a crash between any two steps the same question has the same answer.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::record::{Record, State};
use crate::send::FileFacts;

/// Where something lies: in whose folder, under which name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    /// The recipient's folder.
    pub folder: OsString,
    /// The file's or folder's name in it.
    pub name: OsString,
}

/// What lies there: a file, or a folder with files, as far as can be told without reading them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// Whether it is a folder: one message with all its files.
    pub is_folder: bool,
    /// Each file by its path within the folder (of a file: empty), in order.
    pub files: Vec<(OsString, FileFacts)>,
}

impl Content {
    /// Whether both are the same to be sent.
    pub fn is_same(&self, other: &Self) -> bool {
        self.is_folder == other.is_folder
            && self.files.len() == other.files.len()
            && self
                .files
                .iter()
                .zip(&other.files)
                .all(|((name, facts), (other_name, other))| name == other_name && facts.is_same(other))
    }
}

/// One look at something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// What lies there.
    pub content: Content,
    /// Something that is not finished, and has to go before it can be complete.
    pub unfinished: Option<OsString>,
}

/// How long something stays as it is before it counts as complete.
#[derive(Clone, Copy, Debug)]
pub struct Settle {
    /// A file.
    pub file: Duration,
    /// A folder: its files are put there one after the other.
    pub folder: Duration,
}

/// Whether something is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It is.
    Yes,
    /// It will be then, unless it changes.
    At(Instant),
    /// Something has to happen first.
    Not,
}

/// Since when everything is as it is.
#[derive(Debug)]
pub struct Settling {
    settle: Settle,
    seen: BTreeMap<Key, Seen>,
}

#[derive(Debug)]
struct Seen {
    look: Look,
    since: Instant,
    /// It was renamed into place, as it is: whoever does that has finished it.
    placed: bool,
}

impl Settling {
    /// Nothing was seen yet.
    pub fn new(settle: Settle) -> Self {
        Self { settle, seen: BTreeMap::new() }
    }

    /// Takes note of a look; `placed` says that it was renamed into place since the one before.
    pub fn look(&mut self, key: &Key, look: &Look, placed: bool, now: Instant) -> Settled {
        let seen = match self.seen.get_mut(key) {
            Some(seen) if seen.look == *look => seen,
            _ => {
                let seen = Seen { look: look.clone(), since: now, placed: false };
                self.seen.entry(key.clone()).insert_entry(seen).into_mut()
            }
        };
        seen.placed |= placed;
        // Browsers put an empty file where the finished one will be.
        let is_empty = match look.content.files.as_slice() {
            [] => true,
            [(_, only)] => !look.content.is_folder && only.size == 0,
            _ => false,
        };
        if look.unfinished.is_some() || is_empty {
            return Settled::Not;
        }
        let wait = match (seen.placed, look.content.is_folder) {
            (true, _) => Duration::ZERO,
            (false, false) => self.settle.file,
            (false, true) => self.settle.folder,
        };
        let at = seen.since + wait;
        if now >= at { Settled::Yes } else { Settled::At(at) }
    }

    /// How long a file settles.
    pub fn file(&self) -> Duration {
        self.settle.file
    }

    /// Somebody has it open for writing: it settles anew.
    pub fn unsettle(&mut self, key: &Key, now: Instant) {
        if let Some(seen) = self.seen.get_mut(key) {
            (seen.since, seen.placed) = (now, false);
        }
    }

    /// Forgets what is not there any more.
    pub fn retain(&mut self, is_there: impl Fn(&Key) -> bool) {
        self.seen.retain(|key, _| is_there(key));
    }
}

/// What is known about one thing.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// What lies there.
    pub here: Option<&'a Content>,
    /// Whether that is complete.
    pub settled: Settled,
    /// What is on record under its name.
    pub record: Option<&'a Record>,
    /// Whether what the record is of lies where it was to be moved to.
    pub is_moved: bool,
    /// Whether it is being sent now.
    pub is_sending: bool,
    /// When it may be tried again.
    pub retry_at: Option<Instant>,
}

/// The next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing, until something happens.
    Wait,
    /// Nothing until then.
    WaitUntil(Instant),
    /// Put it on record: who gets it, which message it is.
    Begin,
    /// Send it, or what is left of it.
    Send,
    /// Everybody has it or cannot get it: put its place in `sent` on record.
    Finish,
    /// Move it there.
    Move,
    /// Say what became of it, and let go of the record.
    Close,
    /// Let go of the record: what it was of is not there any more.
    Forget,
}

/// Decides it.
pub fn next(facts: &Facts<'_>, now: Instant) -> Step {
    if facts.is_sending {
        return Step::Wait;
    }
    let Some(record) = facts.record else {
        return match (facts.here, facts.settled) {
            (None, _) | (_, Settled::Not) => Step::Wait,
            (_, Settled::At(at)) => Step::WaitUntil(at),
            (_, Settled::Yes) => Step::Begin,
        };
    };
    let is_same = facts.here.is_some_and(|here| here.is_same(&record.content));
    match &record.state {
        // Whatever lies there now: this one was sent.
        State::Pending if record.is_decided() => Step::Finish,
        State::Pending if !is_same => Step::Forget,
        State::Pending => match facts.retry_at {
            Some(at) if at > now => Step::WaitUntil(at),
            _ => Step::Send,
        },
        State::Failed if is_same => Step::Wait,
        State::Failed => Step::Forget,
        State::Sent { .. } if is_same && !facts.is_moved => Step::Move,
        State::Sent { .. } => Step::Close,
        // Not under its name any more.
        State::Closed { .. } => Step::Wait,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTLE: Settle = Settle { file: Duration::from_secs(2), folder: Duration::from_secs(10) };

    fn look(is_folder: bool, files: &[(&str, u64)]) -> Look {
        let files = files.iter().map(|(name, size)| (OsString::from(name), FileFacts::example(*size, 1)));
        Look { content: Content { is_folder, files: files.collect() }, unfinished: None }
    }

    #[test]
    fn a_file_is_complete_when_it_stays_as_it_is_and_at_once_when_it_was_renamed_into_place() {
        let key = Key { folder: "bob@example.org".into(), name: "a".into() };
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut settling = Settling::new(SETTLE);
        let mut seen = |look: &Look, placed, now| settling.look(&key, look, placed, at(now));
        assert_eq!(seen(&look(false, &[("", 1)]), false, 0), Settled::At(at(2)));
        assert_eq!(seen(&look(false, &[("", 2)]), false, 1), Settled::At(at(3)), "it grew");
        assert_eq!(seen(&look(false, &[("", 2)]), false, 2), Settled::At(at(3)));
        assert_eq!(seen(&look(false, &[("", 2)]), false, 3), Settled::Yes);
        assert_eq!(seen(&look(false, &[("", 3)]), true, 4), Settled::Yes, "renamed into place");
        assert_eq!(seen(&look(false, &[("", 4)]), false, 5), Settled::At(at(7)), "and written to");
        assert_eq!(seen(&look(false, &[("", 0)]), true, 6), Settled::Not, "a browser's placeholder");
        assert_eq!(seen(&look(true, &[]), true, 7), Settled::Not);
        assert_eq!(seen(&look(true, &[("x", 1)]), false, 8), Settled::At(at(18)));
        assert_eq!(seen(&look(true, &[("x", 1), ("y", 1)]), false, 10), Settled::At(at(20)), "one more");
        let unfinished = Look { unfinished: Some("z.part".into()), ..look(true, &[("x", 1), ("y", 1)]) };
        assert_eq!(seen(&unfinished, false, 40), Settled::Not);
        assert_eq!(seen(&look(true, &[("x", 1), ("y", 1)]), false, 50), Settled::At(at(60)));
    }
}
