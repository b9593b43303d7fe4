//! What is on record about submitted messages whose attachments go to stores: which message it is, and who has it. It
//! makes a client's second try the same message, after a crash of this program, too.
//!
//! **Format**: JSON, `DATA/submissions/KEY.json`, KEY the BLAKE3 hash of envelope and content. **Sync**: written under
//! another name, synced, renamed over the old one, the folder synced: a record is the old or the new one, never a half.
//! **Pruning**: after its life (a day; with a mail server, longer than that tries), the same bytes are another message. **Recovery**: what was not renamed is removed; a record
//! that cannot be read is removed, and what it was of is sent as if it had never been seen: twice is better than not at
//! all.

use std::collections::{BTreeSet, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lighter_mail::{Address, Envelope};
use lighter_protocol::UnixTime;
use serde::{Deserialize, Serialize};

use crate::limits::SUBMISSION_RECORD_LEN_MAX;
use crate::send::Identity;

/// Which message it is: envelope and content.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key(blake3::Hash);

impl Key {
    /// The key of a message with this content.
    pub(super) fn of(envelope: &Envelope, content: &blake3::Hash) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("lighter-agent 2026-11-22 submitted message");
        let sender = envelope.mail.path.as_ref().map_or_else(String::new, Address::key);
        let recipients: BTreeSet<String> =
            envelope.recipients.iter().map(|rcpt| rcpt.address.key()).collect();
        // No address has a line end in it.
        for text in [sender].into_iter().chain(recipients) {
            hasher.update(text.as_bytes()).update(b"\n");
        }
        Self(hasher.update(content.as_bytes()).finalize())
    }
}

/// What is known of one message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    /// What every try of it has in common.
    pub(super) identity: Identity,
    /// Keys of the recipients for whom the provider has taken it.
    pub(super) done: BTreeSet<String>,
}

impl Record {
    /// That of a message that was never seen.
    pub(super) fn new(now: UnixTime) -> Self {
        Self { identity: Identity::draw(now), done: BTreeSet::new() }
    }
}

/// All records. A clone speaks of the same ones.
#[derive(Clone, Debug)]
pub(super) struct Records {
    folder: Arc<Path>,
    /// How long a record counts.
    life: Duration,
    /// Messages that are being sent.
    claimed: Arc<Mutex<HashSet<Key>>>,
}

/// The right to send one message: nobody else sends it meanwhile.
#[derive(Debug)]
pub(super) struct Claim {
    key: Key,
    records: Records,
}

const ENDING: &str = "json";

impl Records {
    /// Looks after the records in `folder`, each of which counts for `life`. Blocks on the disk.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn open(folder: &Path, life: Duration) -> io::Result<Self> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.extension().is_none_or(|ending| ending != ENDING) {
                std::fs::remove_file(&path)?;
            }
        }
        let records = Self { folder: folder.into(), life, claimed: Arc::default() };
        records.prune(UnixTime::now())?;
        Ok(records)
    }

    /// The right to send a message; none while somebody else has it.
    pub(super) fn claim(&self, key: Key) -> Option<Claim> {
        let mut claimed = self.claimed.lock().unwrap_or_else(PoisonError::into_inner);
        claimed.insert(key.clone()).then(|| Claim { key, records: self.clone() })
    }

    /// Removes what is over, and what is of no use. Blocks on the disk.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn prune(&self, now: UnixTime) -> io::Result<()> {
        for entry in std::fs::read_dir(&self.folder)? {
            let path = entry?.path();
            let is_record = path.extension().is_some_and(|ending| ending == ENDING);
            if is_record && read(&path).is_none_or(|record| is_over(&record, self.life, now)) {
                std::fs::remove_file(&path)?;
            }
        }
        Ok(())
    }
}

impl Claim {
    /// What is known of the message. Blocks on the disk.
    pub(super) fn read(&self, now: UnixTime) -> Option<Record> {
        read(&self.path()).filter(|record| !is_over(record, self.records.life, now))
    }

    /// Puts it on record: durable when this returns. Blocks on the disk.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn write(&self, record: &Record) -> io::Result<()> {
        let path = self.path();
        let new = path.with_extension("new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(&serde_json::to_vec(record)?)?;
        file.sync_all()?;
        std::fs::rename(&new, &path)?;
        File::open(&self.records.folder)?.sync_all()
    }

    /// Nothing of the message was sent. Blocks on the disk.
    pub(super) fn forget(&self) {
        match std::fs::remove_file(self.path()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, "a record of a submitted message stays for a day");
            }
            _ => {}
        }
    }

    fn path(&self) -> PathBuf {
        self.records.folder.join(format!("{}.{ENDING}", self.key.0.to_hex()))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.records.claimed.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

fn is_over(record: &Record, life: Duration, now: UnixTime) -> bool {
    record.identity.date.plus(life) < now
}

fn read(path: &Path) -> Option<Record> {
    let mut text = Vec::new();
    File::open(path).ok()?.take(SUBMISSION_RECORD_LEN_MAX).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use lighter_mail::{MailFrom, RcptTo};

    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    fn envelope(to: &[&str]) -> Envelope {
        let mail = MailFrom { path: Some("sam@example.org".parse().unwrap()), ..MailFrom::default() };
        let recipients = to.iter().map(|to| RcptTo::new(to.parse().unwrap())).collect();
        Envelope { mail, recipients }
    }

    #[test]
    fn the_same_bytes_in_the_same_envelope_are_the_same_message() {
        let hash = blake3::hash(b"content");
        let key = Key::of(&envelope(&["a@example.org", "b@example.org"]), &hash);
        assert_eq!(key, Key::of(&envelope(&["b@example.org", "a@EXAMPLE.org"]), &hash));
        assert_ne!(key, Key::of(&envelope(&["a@example.org"]), &hash));
        assert_ne!(key, Key::of(&envelope(&["a@example.org", "b@example.org"]), &blake3::hash(b"other")));
    }

    #[test]
    fn what_was_put_on_record_is_there_again_for_a_day_and_half_of_it_never() {
        let folder = tempfile::tempdir().unwrap();
        let key = |text: &[u8]| Key(blake3::hash(text));
        let now = UnixTime::now();
        let mut record = Record::new(now);
        record.done.insert("a@example.org".to_owned());
        Records::open(folder.path(), DAY).unwrap().claim(key(b"1")).unwrap().write(&record).unwrap();
        for name in ["x.new", "y.json"] {
            std::fs::write(folder.path().join(name), "{").unwrap();
        }
        let records = Records::open(folder.path(), DAY).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        let claim = records.claim(key(b"1")).unwrap();
        assert_eq!(claim.read(now), Some(record));
        assert_eq!(records.claim(key(b"2")).unwrap().read(now), None);
        let tomorrow = now.plus(DAY).plus(Duration::from_secs(1));
        assert_eq!(claim.read(tomorrow), None, "the same words again are another message");
        records.prune(tomorrow).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_message_is_sent_by_one_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let records = Records::open(folder.path(), DAY).unwrap();
        let key = Key(blake3::hash(b"1"));
        let claim = records.claim(key.clone()).unwrap();
        assert!(records.claim(key.clone()).is_none());
        drop(claim);
        assert!(records.claim(key).is_some());
    }
}
