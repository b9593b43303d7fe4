//! The outbox on disk: looks at it, takes the steps that `decide` says, one change each, and says what is to be sent.
//!
//! It blocks on the disk, and waits for nothing. What it did is in the ledger and in the folders: another keeper, in the
//! next process, goes on from there.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lighter_protocol::{Mailbox, UnixTime};

use super::decide::{Content, Facts, Key, Look, Settle, Settled, Settling, Step, next};
use super::names::{SENT, note_of, sent_as, shown};
use super::record::{Ledger, Record, RecordId, State};
use super::scan::{self, Folder, Items};
use super::status::{ItemState, OutboxItem, OutboxStatus};
use super::{message, notes, record, writers};
use crate::limits::{
    NAMES_TRIED_MAX, OUTBOX_RECORD_LIFE, OUTBOX_RESOLVED_FRESH, OUTBOX_RETRY_MAX, OUTBOX_RETRY_MIN,
    OUTBOX_SENDING_MAX, OUTBOX_STEPS_MAX, OUTBOX_SWEEP,
};
use crate::output::rename_to_new;
use crate::send::Identity;

/// Finds who gets what is in a folder of this name; else says what is wrong with it, in words for the user.
pub type Resolve = Arc<dyn Fn(&str) -> Result<Vec<Mailbox>, String> + Send + Sync>;

/// The outbox on disk.
pub struct Keeper {
    root: PathBuf,
    ledger: Arc<Ledger>,
    settling: Settling,
    resolve: Resolve,
    resolved: BTreeMap<OsString, Resolved>,
    sending: HashSet<RecordId>,
    retries: HashMap<RecordId, Retry>,
}

/// Who gets what is in a folder, as it was found out then.
#[derive(Debug)]
struct Resolved {
    to: Result<Vec<Mailbox>, String>,
    at: Instant,
}

/// Something that did not go.
#[derive(Debug)]
struct Retry {
    at: Instant,
    wait: Duration,
    why: String,
}

/// What came of one look.
#[derive(Debug, Default)]
pub struct Plan {
    /// To be sent now; each ends with [`Keeper::ended`].
    pub send: Vec<Record>,
    /// When to look again, if nothing happens before.
    pub look_at: Option<Instant>,
    /// How things stand.
    pub status: OutboxStatus,
    steps_left: usize,
}

impl Plan {
    fn look_again(&mut self, at: Instant) {
        self.look_at = Some(self.look_at.map_or(at, |before| before.min(at)));
    }
}

/// One look: when it is.
#[derive(Clone, Copy)]
struct Moment {
    now: Instant,
    wall: UnixTime,
}

impl Keeper {
    /// Looks after `root`, with what is on record.
    pub fn new(root: PathBuf, ledger: Arc<Ledger>, settle: Settle, resolve: Resolve) -> Self {
        let settling = Settling::new(settle);
        let resolved = BTreeMap::new();
        Self { root, ledger, settling, resolve, resolved, sending: HashSet::new(), retries: HashMap::new() }
    }

    /// A sending has ended; `retry` says why not for everybody, where that may pass. The record has the rest.
    pub fn ended(&mut self, id: RecordId, retry: Option<String>, now: Instant) {
        self.sending.remove(&id);
        let before = self.retries.remove(&id);
        if let Some(why) = retry {
            let wait = before.map_or(OUTBOX_RETRY_MIN, |before| (before.wait * 2).min(OUTBOX_RETRY_MAX));
            self.retries.insert(id, Retry { at: now + wait, wait, why });
        }
    }

    /// Whatever did not go is tried again at once: the machine woke up, or is on another network.
    pub fn retry_now(&mut self, now: Instant) {
        for retry in self.retries.values_mut() {
            (retry.at, retry.wait) = (now, OUTBOX_RETRY_MIN);
        }
    }

    /// Looks at everything, and takes what steps there are to take.
    pub fn look(&mut self, placed: &HashSet<Key>, now: Instant, wall: UnixTime) -> Plan {
        self.look_for(OUTBOX_STEPS_MAX, placed, now, wall)
    }

    /// As [`look`](Self::look), with so many steps at most.
    pub fn look_for(&mut self, steps: usize, placed: &HashSet<Key>, now: Instant, wall: UnixTime) -> Plan {
        let mut plan = Plan { steps_left: steps, ..Plan::default() };
        plan.status.folder = self.root.clone();
        let scan = match scan::scan(&self.root) {
            Ok(scan) => scan,
            Err(error) => {
                plan.status.problem = Some(format!("the outbox cannot be read: {error}"));
                return plan;
            }
        };
        plan.status.problem = scan.problem;
        let mut beside: BTreeMap<OsString, String> =
            scan.wrong.into_iter().map(|(name, why)| (name.clone(), notes::wrong(&name, &why))).collect();
        let moment = Moment { now, wall };
        let mut there = BTreeSet::new();
        let known = self.known();
        let folders: HashSet<OsString> = scan.folders.iter().map(|folder| folder.name.clone()).collect();
        for folder in scan.folders {
            let records = known.get(&folder.name).map_or(&[][..], Vec::as_slice);
            if let Err(why) = self.folder(&folder, records, placed, moment, &mut plan, &mut there) {
                plan.status.wrong(&folder.name, OsStr::new(""), &why);
                beside.insert(folder.name.clone(), notes::wrong(&folder.name, &why));
            }
        }
        self.settling.retain(|key| there.contains(key));
        self.resolved.retain(|name, _| folders.contains(name));
        self.retries.retain(|id, _| self.ledger.get(*id).is_some());
        write_notes(&self.root, &beside, &scan.notes);
        self.forget_lost(&known, wall);
        plan
    }

    /// What is on record, by folder.
    fn known(&self) -> BTreeMap<OsString, Vec<Key>> {
        let mut known: BTreeMap<OsString, Vec<Key>> = BTreeMap::new();
        for record in self.ledger.all() {
            if !matches!(record.state, State::Closed { .. }) {
                known.entry(record.key.folder.clone()).or_default().push(record.key);
            }
        }
        known
    }

    fn folder(
        &mut self,
        folder: &Folder,
        records: &[Key],
        placed: &HashSet<Key>,
        moment: Moment,
        plan: &mut Plan,
        there: &mut BTreeSet<Key>,
    ) -> Result<(), String> {
        let items = folder.items.as_ref().map_err(|error| format!("It cannot be read: {error}."))?;
        let is_new = |name: &OsString| {
            let key = Key { folder: folder.name.clone(), name: name.clone() };
            !records.contains(&key)
        };
        let begins = items.items.iter().any(|(name, look)| look.is_ok() && is_new(name));
        let to = self.recipients(&folder.name, begins, moment.now);
        let mut said = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for (name, look) in &items.items {
            let key = Key { folder: folder.name.clone(), name: name.clone() };
            match look {
                Ok(look) => {
                    let is_placed = placed.contains(&key);
                    let note = self.item(&key, Some((look, is_placed)), to.as_deref().ok(), moment, plan);
                    said.extend(note.map(|note| (name.clone(), note)));
                }
                Err(why) => {
                    plan.status.wrong(&key.folder, name, why);
                    said.insert(name.clone(), notes::wrong(name, why));
                }
            }
            seen.insert(key);
        }
        // What is on record and not here any more; unless not all of the folder was looked at.
        for key in records.iter().filter(|key| !seen.contains(key) && !items.is_cut) {
            self.item(key, None, None, moment, plan);
        }
        there.extend(seen);
        let path = self.root.join(&folder.name);
        write_notes(&path, &said, &items.notes);
        self.say_cut(items, plan);
        to.map(drop)
    }

    /// Who gets what is in this folder. A group's members can be many: they are looked up for something that may be
    /// sent, and else only to see whether what was wrong has been mended.
    fn recipients(&mut self, folder: &OsStr, begins: bool, now: Instant) -> Result<Vec<Mailbox>, String> {
        let known = self.resolved.get(folder).filter(|known| {
            let age = now.saturating_duration_since(known.at);
            age < OUTBOX_RESOLVED_FRESH || !begins && (known.to.is_ok() || age < OUTBOX_SWEEP / 2)
        });
        if let Some(known) = known {
            return known.to.clone();
        }
        let to = match folder.to_str() {
            Some(name) => (self.resolve)(name),
            None => Err("It is no recipient's name.".to_owned()),
        };
        self.resolved.insert(folder.to_owned(), Resolved { to: to.clone(), at: now });
        to
    }

    fn say_cut(&self, items: &Items, plan: &mut Plan) {
        if items.is_cut {
            let problem =
                "more lies in one folder than is looked at: the rest waits until some of it was sent";
            plan.status.problem = Some(problem.to_owned());
        }
    }

    /// Goes on with one thing as far as it goes now; gives the note that is to stand beside it.
    fn item(
        &mut self,
        key: &Key,
        look: Option<(&Look, bool)>,
        to: Option<&[Mailbox]>,
        moment: Moment,
        plan: &mut Plan,
    ) -> Option<String> {
        let settled = match look {
            Some((look, placed)) => self.settling.look(key, look, placed, moment.now),
            None => Settled::Not,
        };
        let mut here = look.map(|(look, _)| look.content.clone());
        let mut settled = settled;
        loop {
            let record = self.ledger.open_at(key);
            let step = next(&self.facts(here.as_ref(), settled, record.as_ref()), moment.now);
            match step {
                Step::Wait => break,
                Step::WaitUntil(at) => {
                    plan.look_again(at);
                    break;
                }
                Step::Begin if to.is_none() => break,
                Step::Send if self.sending.len() >= OUTBOX_SENDING_MAX => break,
                _ => {}
            }
            if plan.steps_left == 0 {
                plan.look_again(moment.now);
                break;
            }
            plan.steps_left -= 1;
            let taken = match (step, record) {
                (Step::Begin, _) => {
                    self.begin(key, here.as_ref(), to.unwrap_or_default(), moment, &mut settled)
                }
                (Step::Send, Some(record)) => {
                    self.sending.insert(record.id);
                    plan.send.push(record);
                    Ok(())
                }
                (Step::Finish, Some(record)) => self.finish(record, moment.wall),
                (Step::Move, Some(record)) => self.move_away(&record).map(|()| here = None),
                (Step::Close, Some(record)) => self.close(&record, &mut here),
                (Step::Forget, Some(record)) => self.ledger.remove(record.id).map_err(in_words),
                (_, _) => Ok(()),
            };
            if let Err(why) = taken {
                plan.look_again(moment.now + OUTBOX_RETRY_MIN);
                plan.status.wrong(&key.folder, &key.name, &why);
                return here.map(|_| notes::wrong(&key.name, &why));
            }
        }
        let unfinished = look.and_then(|(look, _)| look.unfinished.as_deref());
        self.say(key, here.as_ref(), unfinished, plan)
    }

    fn facts<'a>(
        &self,
        here: Option<&'a Content>,
        settled: Settled,
        record: Option<&'a Record>,
    ) -> Facts<'a> {
        Facts {
            here,
            settled,
            record,
            is_moved: record.is_some_and(|record| self.is_moved(record)),
            is_sending: record.is_some_and(|record| self.sending.contains(&record.id)),
            retry_at: record.and_then(|record| self.retries.get(&record.id)).map(|retry| retry.at),
        }
    }

    /// What stands beside it, and in `status`.
    fn say(
        &self,
        key: &Key,
        here: Option<&Content>,
        unfinished: Option<&OsStr>,
        plan: &mut Plan,
    ) -> Option<String> {
        here?;
        let Some(record) = self.ledger.open_at(key) else {
            let reason = unfinished.map(|name| format!("“{}” in it is not finished", shown(name)));
            plan.status.push(OutboxItem::of(key, ItemState::Waiting, reason));
            return None;
        };
        let retry = self.retries.get(&record.id);
        let (state, reason, note) = if self.sending.contains(&record.id) {
            (ItemState::Sending, None, notes::sending(&record))
        } else if record.state == State::Failed {
            let reason = record.fates.values().find_map(|fate| match fate {
                record::Fate::Refused { why } => Some(why.clone()),
                _ => None,
            });
            (ItemState::Failed, reason, notes::failed(&record))
        } else if let Some(retry) = retry {
            (ItemState::Retrying, Some(retry.why.clone()), notes::retrying(&record, &retry.why))
        } else {
            (ItemState::Waiting, None, notes::waiting(&record))
        };
        plan.status.push(OutboxItem::of(key, state, reason));
        Some(note)
    }

    /// Puts it on record, unless somebody still writes to it.
    fn begin(
        &mut self,
        key: &Key,
        here: Option<&Content>,
        to: &[Mailbox],
        moment: Moment,
        settled: &mut Settled,
    ) -> Result<(), String> {
        let Some(content) = here else { return Ok(()) };
        if writers::are_open(&record::paths(&self.root, key, content)) {
            self.settling.unsettle(key, moment.now);
            *settled = Settled::At(moment.now + self.settling.file());
            return Ok(());
        }
        let words = message::words(&self.root, key, content)?;
        let record = Record {
            id: rand::random(),
            key: key.clone(),
            content: content.clone(),
            identity: Identity::draw(moment.wall),
            to: to.to_vec(),
            subject: words.subject,
            body: words.body,
            fates: BTreeMap::new(),
            state: State::Pending,
        };
        self.ledger.begin(&record).map_err(in_words)
    }

    /// Chooses its place in `sent`, where it was sent; where nobody can get it, it stays.
    fn finish(&self, mut record: Record, wall: UnixTime) -> Result<(), String> {
        if record.is_refused() {
            record.state = State::Failed;
            return self.ledger.put(&record).map_err(in_words);
        }
        let sent = self.sent(&record.key)?;
        let day = notes::day(wall);
        let is_free = |name: &OsString| {
            [name.clone(), note_of(name)].iter().all(|name| {
                std::fs::symlink_metadata(sent.join(name))
                    .is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
            })
        };
        let mut names = (1..=NAMES_TRIED_MAX).map(|number| sent_as(&day, &record.key.name, number));
        let to = names.find(is_free).ok_or_else(|| format!("{} is full of this name", sent.display()))?;
        record.state = State::Sent { to };
        self.ledger.put(&record).map_err(in_words)
    }

    /// The folder for what was sent, made where it is not there.
    fn sent(&self, key: &Key) -> Result<PathBuf, String> {
        let sent = self.root.join(&key.folder).join(SENT);
        match std::fs::DirBuilder::new().mode(0o700).create(&sent) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(format!("{}: {error}", sent.display()));
            }
            _ => {}
        }
        let is_folder = std::fs::symlink_metadata(&sent).is_ok_and(|metadata| metadata.is_dir());
        if is_folder { Ok(sent) } else { Err(format!("{} is not a folder: remove it", sent.display())) }
    }

    fn move_away(&self, record: &Record) -> Result<(), String> {
        let State::Sent { to } = &record.state else { return Ok(()) };
        let (from, sent) = (self.root.join(&record.key.folder), self.sent(&record.key)?);
        let (here, there) = (from.join(&record.key.name), sent.join(to));
        match rename_to_new(&here, &there) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // Something else has the name by now: another one is found.
                let again = Record { state: State::Pending, ..record.clone() };
                return self.ledger.put(&again).map_err(in_words);
            }
            moved => moved.map_err(in_words)?,
        }
        for folder in [&sent, &from] {
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(in_words)?;
        }
        // What was put in its place in that very moment is not what was sent: it goes back, and is sent as well.
        if !self.is_moved(record) {
            rename_to_new(&there, &here).map_err(in_words)?;
        }
        Ok(())
    }

    /// Whether what the record is of lies at its place in `sent`.
    fn is_moved(&self, record: &Record) -> bool {
        let State::Sent { to } = &record.state else { return false };
        let path = self.root.join(&record.key.folder).join(SENT).join(to);
        matches!(scan::look(&path), Some(Ok(look)) if look.content.is_same(&record.content))
    }

    /// Writes the last note, and lets go of the record; it is kept where a store is still to take something.
    fn close(&self, record: &Record, here: &mut Option<Content>) -> Result<(), String> {
        let State::Sent { to } = &record.state else { return Ok(()) };
        let is_moved = self.is_moved(record);
        let place = self.root.join(&record.key.folder);
        notes::put(&place.join(SENT), to, &notes::sent(record, is_moved)).map_err(in_words)?;
        // Where a move is a second name and then the removal of the first (file systems without a rename that never
        // replaces), a crash leaves both.
        let name = place.join(&record.key.name);
        if is_moved && is_one_file(&name, &place.join(SENT).join(to)) {
            std::fs::remove_file(&name).map_err(in_words)?;
            *here = None;
        }
        if record.waits_for_stores() {
            let closed = Record { state: State::Closed { to: to.clone() }, ..record.clone() };
            return self.ledger.put(&closed).map_err(in_words);
        }
        self.ledger.remove(record.id).map_err(in_words)
    }

    /// A record whose folder is gone is kept for a while, since a drive comes back; then it goes, too.
    fn forget_lost(&self, known: &BTreeMap<OsString, Vec<Key>>, wall: UnixTime) {
        for key in known.values().flatten() {
            let Some(record) = self.ledger.open_at(key) else { continue };
            let is_old = record.identity.date.plus(OUTBOX_RECORD_LIFE) < wall;
            if is_old && !self.sending.contains(&record.id) && !self.root.join(&key.folder).exists() {
                tracing::info!(folder = %shown(&key.folder), "the outbox forgets what was in a folder that is gone");
                let _ = self.ledger.remove(record.id);
            }
        }
    }
}

/// Whether both are names of one file.
fn is_one_file(one: &Path, other: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let of = |path: &Path| std::fs::symlink_metadata(path).ok().filter(std::fs::Metadata::is_file);
    match (of(one), of(other)) {
        (Some(one), Some(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => false,
    }
}

/// Writes those notes, and removes the others.
fn write_notes(folder: &Path, said: &BTreeMap<OsString, String>, there: &[OsString]) {
    let mut kept = HashSet::new();
    for (name, text) in said {
        if let Err(error) = notes::put(folder, name, text) {
            tracing::warn!(%error, "a note in the outbox could not be written");
        }
        kept.insert(note_of(name));
    }
    for note in there.iter().filter(|note| !kept.contains(*note)) {
        notes::remove(folder, note);
    }
}

#[expect(clippy::needless_pass_by_value, reason = "given to map_err")]
fn in_words(error: io::Error) -> String {
    format!("The agent could not go on: {error}.")
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper")
            .field("root", &self.root)
            .field("sending", &self.sending)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
