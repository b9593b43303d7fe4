//! What is on record about everything that the outbox sends: one file each in the agent's data folder.
//!
//! **Format**: JSON, `DATA/outbox-records/ID.json`. **Sync**: written under another name, synced, renamed over the old
//! one, the folder synced: a record is the old or the new one, never a half. **Recovery**: what was not renamed is
//! removed; a record that cannot be read is set aside as `ID.json.damaged`, and what it was of is sent as if it had never
//! been seen: twice is better than not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use lighter_protocol::Mailbox;
use serde::{Deserialize, Serialize};

use super::decide::{Content, Key};
use crate::limits::OUTBOX_RECORD_LEN_MAX;
use crate::send::Identity;

/// The number of a record.
pub type RecordId = u128;

/// Something that was taken on to be sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Its number: the file's name.
    #[serde(skip)]
    pub id: RecordId,
    /// Where it lay.
    pub key: Key,
    /// What lay there.
    pub content: Content,
    /// Which message it is.
    pub identity: Identity,
    /// Who gets it.
    pub to: Vec<Mailbox>,
    /// The message's subject.
    pub subject: String,
    /// The message's text.
    pub body: String,
    /// What became of it for each recipient of whom that is known.
    pub fates: BTreeMap<Mailbox, Fate>,
    /// How far it is.
    pub state: State,
}

/// How far it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// To be sent, or to be sent on.
    Pending,
    /// Nobody can get it. It stays where it is until it is another one.
    Failed,
    /// Sent, to be moved there.
    Sent {
        /// Its name in `sent`.
        to: OsString,
    },
    /// Moved; kept to say when the stores have it.
    Closed {
        /// Its name in `sent`.
        to: OsString,
    },
}

/// What became of a message for one recipient.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// Mailed; their store is to take the attachments from here.
    ToStore,
    /// Mailed; their store has the attachments.
    InStore,
    /// Mailed whole.
    Whole {
        /// Why.
        why: String,
    },
    /// Mailed, and their store did not take the attachments after all.
    NotTaken {
        /// Why.
        why: String,
    },
    /// The mail server does not take it for them.
    Refused {
        /// Why.
        why: String,
    },
}

impl Record {
    /// Recipients who need nothing any more.
    pub fn done(&self) -> BTreeSet<Mailbox> {
        self.fates.keys().cloned().collect()
    }

    /// Whether it is known for everybody what became of it.
    pub fn is_decided(&self) -> bool {
        self.to.iter().all(|recipient| self.fates.contains_key(recipient))
    }

    /// Whether nobody can get it.
    pub fn is_refused(&self) -> bool {
        self.is_decided() && self.fates.values().all(|fate| matches!(fate, Fate::Refused { .. }))
    }

    /// Whether stores are still to take its attachments.
    pub fn waits_for_stores(&self) -> bool {
        self.fates.values().any(|fate| *fate == Fate::ToStore)
    }

    /// Its files, below `root`.
    pub fn files(&self, root: &Path) -> Vec<PathBuf> {
        paths(root, &self.key, &self.content)
    }
}

/// The files of something in the outbox.
pub(crate) fn paths(root: &Path, key: &Key, content: &Content) -> Vec<PathBuf> {
    let place = root.join(&key.folder).join(&key.name);
    let path = |name: &OsString| if content.is_folder { place.join(name) } else { place.clone() };
    content.files.iter().map(|(name, _)| path(name)).collect()
}

/// All records, in memory and on disk.
#[derive(Debug)]
pub struct Ledger {
    folder: PathBuf,
    records: Mutex<BTreeMap<RecordId, Record>>,
}

const ENDING: &str = ".json";

impl Ledger {
    /// Reads what is there. Blocks on the disk.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(folder: &Path) -> io::Result<Self> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let mut records = BTreeMap::new();
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            let Some(id) = name.strip_suffix(ENDING) else {
                if name.ends_with(".new") {
                    std::fs::remove_file(&path)?;
                }
                continue;
            };
            match (RecordId::from_str_radix(id, 16), read(&path)) {
                (Ok(id), Ok(record)) => {
                    records.insert(id, Record { id, ..record });
                }
                (_, read) => {
                    let why =
                        read.err().map_or_else(|| "not a record's name".to_owned(), |why| why.to_string());
                    tracing::warn!(path = %path.display(), %why, "a record of the outbox is set aside");
                    std::fs::rename(&path, folder.join(format!("{name}.damaged")))?;
                }
            }
        }
        Ok(Self { folder: folder.to_owned(), records: Mutex::new(records) })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<RecordId, Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All of them.
    pub fn all(&self) -> Vec<Record> {
        self.lock().values().cloned().collect()
    }

    /// One of them.
    pub fn get(&self, id: RecordId) -> Option<Record> {
        self.lock().get(&id).cloned()
    }

    /// The one for what lies at `key`, if there is one.
    pub fn open_at(&self, key: &Key) -> Option<Record> {
        let records = self.lock();
        let is_open = |record: &&Record| record.key == *key && !matches!(record.state, State::Closed { .. });
        records.values().find(is_open).cloned()
    }

    /// Puts a record, or its new state, on disk: durable when this returns. Where the disk fails, what is in memory is
    /// the new state all the same: this process does not forget what it did.
    ///
    /// # Errors
    /// What the system says.
    pub fn put(&self, record: &Record) -> io::Result<()> {
        let mut records = self.lock();
        records.insert(record.id, record.clone());
        let path = self.path(record.id);
        let new = path.with_extension("new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(&serde_json::to_vec(record)?)?;
        file.sync_all()?;
        std::fs::rename(&new, &path)?;
        File::open(&self.folder)?.sync_all()
    }

    /// Puts a new record on disk; where that fails, there is none.
    ///
    /// # Errors
    /// What the system says.
    pub fn begin(&self, record: &Record) -> io::Result<()> {
        self.put(record).inspect_err(|_| {
            self.lock().remove(&record.id);
            let _ = std::fs::remove_file(self.path(record.id));
        })
    }

    /// Removes a record.
    ///
    /// # Errors
    /// What the system says.
    pub fn remove(&self, id: RecordId) -> io::Result<()> {
        let mut records = self.lock();
        match std::fs::remove_file(self.path(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        File::open(&self.folder)?.sync_all()?;
        records.remove(&id);
        Ok(())
    }

    fn path(&self, id: RecordId) -> PathBuf {
        self.folder.join(format!("{id:032x}{ENDING}"))
    }
}

fn read(path: &Path) -> io::Result<Record> {
    let mut text = Vec::new();
    File::open(path)?.take(OUTBOX_RECORD_LEN_MAX).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use lighter_protocol::UnixTime;

    use super::*;
    use crate::send::FileFacts;

    fn record(id: RecordId) -> Record {
        let recipient: Mailbox = "bob@example.org".parse().unwrap();
        Record {
            id,
            key: Key { folder: "bob@example.org".into(), name: OsString::from_vec(b"\xff\n".to_vec()) },
            content: Content { is_folder: false, files: vec![("".into(), FileFacts::example(1, 2))] },
            identity: Identity::draw(UnixTime(3)),
            to: vec![recipient.clone()],
            subject: "s".to_owned(),
            body: "b".to_owned(),
            fates: BTreeMap::from([(recipient, Fate::Whole { why: "w".to_owned() })]),
            state: State::Sent { to: "x".into() },
        }
    }

    #[test]
    fn bad_input_32_what_was_put_is_there_again_and_half_of_it_never() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(folder.path()).unwrap();
        ledger.put(&record(1)).unwrap();
        ledger.put(&record(2)).unwrap();
        ledger.put(&record(3)).unwrap();
        ledger.remove(3).unwrap();
        let (one, two) = (ledger.get(1).unwrap(), ledger.get(2).unwrap());
        std::fs::write(folder.path().join(format!("{:032x}.new", 9)), "{").unwrap();
        std::fs::write(folder.path().join(format!("{:032x}.json", 8)), "{").unwrap();
        let ledger = Ledger::open(folder.path()).unwrap();
        assert_eq!(ledger.all(), [one, two]);
        let mut names: Vec<_> =
            std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names.len(), 3);
        assert_eq!(names[2], format!("{:032x}.json.damaged", 8).as_str());
    }
}
