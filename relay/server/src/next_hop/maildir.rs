//! Mail into Maildirs: `PATH/DOMAIN/LOCAL/{tmp,new,cur}`, one for each mailbox.
//!
//! **Format**: a file is the message, byte for byte. Its name is `TIME.ID.HOST`, made from the hand-over alone: the same
//! hand-over makes the same name.
//!
//! **Sync**: written to `tmp` and synced, renamed to `new`, both folders synced; a folder made on the way is synced in
//! its parent. Only then is the message delivered.
//!
//! **Recovery**: a crash leaves a file in `tmp`, which the next try overwrites, or a delivered message, which the next
//! try finds in `new` or `cur` by its name and delivers no second time, but syncs its name. (One that its reader has
//! deleted since is delivered again.) What could not be synced is taken away again: a sync that failed is not repeated.
//!
//! **Names** are hostile: what is not a letter, a digit or one of `-_+=@` and inner dots is written `%XX`; a name over
//! [`MAILDIR_NAME_LEN_MAX`] bytes becomes its hash.

use std::io;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use lighter_mail::client::Outcome;
use lighter_mail::{Address, Reply};
use tokio::fs;
use tokio::io::AsyncWriteExt;

use super::{Body, HandOver};
use crate::limits::MAILDIR_NAME_LEN_MAX;

const DELIVERED: Reply = Reply::fixed(250, 0, 0, "Delivered to the mailbox");
const FULL: Reply = Reply::fixed(452, 3, 1, "No room for the mailbox");
const FAILED: Reply = Reply::fixed(451, 3, 0, "The mailbox could not be written");
const SOURCE_FAILED: Reply = Reply::fixed(451, 3, 0, "The message could not be read");

/// A folder of Maildirs.
#[derive(Clone, Debug)]
pub struct Maildir {
    root: PathBuf,
    host_name: String,
}

/// Why a message is not in a mailbox.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("reading the message: {0}")]
    Source(io::Error),
    #[error("writing the mailbox: {0}")]
    Mailbox(#[from] io::Error),
}

impl Maildir {
    /// The Maildirs below `root`.
    pub fn new(root: PathBuf, host_name: &str) -> Self {
        Self { root, host_name: safe_name(host_name) }
    }

    /// The Maildir of an address.
    pub fn folder(&self, address: &Address) -> PathBuf {
        self.root.join(safe_name(address.domain())).join(safe_name(address.local()))
    }

    /// Delivers to each recipient's Maildir. The body is read once, for the first mailbox that has not got it yet; the
    /// others get a copy of that file.
    pub(super) async fn deliver(&self, message: &HandOver, body: impl Body) -> Vec<Outcome> {
        let name = format!("{}.{}.{}", message.accepted, HEXLOWER.encode(&message.id), self.host_name);
        let mut source = Source::Body(body);
        let mut outcomes = Vec::with_capacity(message.envelope.recipients.len());
        for rcpt in &message.envelope.recipients {
            let mailbox = Mailbox { folder: self.folder(&rcpt.address), name: &name };
            let reply = match mailbox.deliver(&mut source).await {
                Ok(()) => DELIVERED,
                Err(error) => {
                    tracing::warn!(%error, "next hop: not delivered to a Maildir");
                    error.reply()
                }
            };
            outcomes.push(Outcome::here(reply));
        }
        outcomes
    }
}

impl Failure {
    fn reply(&self) -> Reply {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        match self {
            Self::Source(_) => SOURCE_FAILED,
            Self::Mailbox(error) if matches!(error.kind(), StorageFull | QuotaExceeded) => FULL,
            Self::Mailbox(_) => FAILED,
        }
    }
}

/// Where the message's bytes are to be had.
enum Source<B> {
    /// Not read yet.
    Body(B),
    /// In this file, complete and synced.
    File(PathBuf),
    /// Nowhere any more: reading failed, or what was read could not be written.
    Spent,
}

/// One recipient's Maildir, and the file that is to be in it.
struct Mailbox<'a> {
    folder: PathBuf,
    name: &'a str,
}

impl Mailbox<'_> {
    async fn deliver<B: Body>(&self, source: &mut Source<B>) -> Result<(), Failure> {
        for sub in ["tmp", "new", "cur"] {
            make_folder(&self.folder.join(sub)).await?;
        }
        if let Some(file) = self.find().await? {
            sync_folder(file.parent().unwrap_or(&self.folder)).await?;
            if matches!(source, Source::Spent) {
                *source = Source::File(file);
            }
            return Ok(());
        }
        let (tmp, new) = (self.folder.join("tmp").join(self.name), self.folder.join("new").join(self.name));
        let put = self.put(source, &tmp, &new).await;
        if put.is_err() {
            for path in [&tmp, &new] {
                let _ = fs::remove_file(path).await; // Mostly there is only one of the two.
            }
        }
        put
    }

    /// Writes the message to `tmp` and moves it to `new`, durably.
    async fn put<B: Body>(&self, source: &mut Source<B>, tmp: &Path, new: &Path) -> Result<(), Failure> {
        match std::mem::replace(source, Source::Spent) {
            Source::Body(body) => write(tmp, body).await?,
            Source::File(file) => {
                let copied = copy(&file, tmp).await;
                *source = Source::File(file);
                copied?;
            }
            Source::Spent => return Err(Failure::Source(io::Error::other("it was read already, in vain"))),
        }
        fs::rename(tmp, new).await?;
        sync_folder(&self.folder.join("new")).await?;
        sync_folder(&self.folder.join("tmp")).await?;
        if matches!(source, Source::Spent) {
            *source = Source::File(new.to_owned());
        }
        Ok(())
    }

    /// The message, where an earlier try has delivered it: new, or in `cur` with the flags that a reader gave it.
    async fn find(&self) -> io::Result<Option<PathBuf>> {
        let new = self.folder.join("new").join(self.name);
        if fs::try_exists(&new).await? {
            return Ok(Some(new));
        }
        let mut entries = fs::read_dir(self.folder.join("cur")).await?;
        while let Some(entry) = entries.next_entry().await? {
            let file_name = entry.file_name();
            let same = file_name.to_str().and_then(|found| found.strip_prefix(self.name));
            if same.is_some_and(|rest| rest.is_empty() || rest.starts_with(':')) {
                return Ok(Some(entry.path()));
            }
        }
        Ok(None)
    }
}

/// Writes and syncs `body` to `path`, over what a try before has left there.
async fn write(path: &Path, mut body: impl Body) -> Result<(), Failure> {
    let mut file = create(path).await?;
    while let Some(piece) = body.next().await.map_err(Failure::Source)? {
        file.write_all(&piece).await?;
    }
    file.flush().await?;
    file.sync_all().await?;
    Ok(())
}

/// Copies and syncs a file, its mode included.
async fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::copy(from, to).await?;
    fs::File::open(to).await?.sync_all().await
}

/// An empty file that only its owner reads.
async fn create(path: &Path) -> io::Result<fs::File> {
    fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path).await
}

/// Makes a folder and those above it, each synced in its parent.
async fn make_folder(folder: &Path) -> io::Result<()> {
    if fs::try_exists(folder).await? {
        return Ok(());
    }
    if let Some(parent) = folder.parent() {
        Box::pin(make_folder(parent)).await?;
        match fs::DirBuilder::new().mode(0o700).create(folder).await {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made?,
        }
        sync_folder(parent).await?;
    }
    Ok(())
}

async fn sync_folder(folder: &Path) -> io::Result<()> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    fs::File::open(folder).await?.sync_all().await
}

/// A name that is a file name on any file system and nothing else.
fn safe_name(text: &str) -> String {
    let text = text.to_lowercase();
    let mut name = String::with_capacity(text.len());
    for (at, byte) in text.bytes().enumerate() {
        let safe = byte.is_ascii_alphanumeric() || b"-_+=@".contains(&byte) || byte == b'.' && at > 0;
        if safe {
            name.push(byte.into());
        } else {
            name.push_str(&format!("%{byte:02X}"));
        }
    }
    match name.len() {
        0 => "%".to_owned(),
        1..=MAILDIR_NAME_LEN_MAX => name,
        _ => format!("%{}", blake3::hash(text.as_bytes()).to_hex()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_input_12_hostile_addresses_become_harmless_names() {
        assert_eq!(safe_name("Alice.B+tag"), "alice.b+tag");
        assert_eq!(safe_name(".."), "%2E.");
        assert_eq!(safe_name("."), "%2E");
        assert_eq!(safe_name("\"../../etc\""), "%22..%2F..%2Fetc%22");
        assert_eq!(safe_name("a:2,S"), "a%3A2%2Cs");
        assert_eq!(safe_name("%2e"), "%252e");
        assert_eq!(safe_name(""), "%");
        let long = safe_name(&"ö".repeat(200));
        assert!(long.len() <= MAILDIR_NAME_LEN_MAX && long.starts_with('%'));
    }

    #[test]
    fn different_addresses_have_different_folders() {
        let maildir = Maildir::new("/m".into(), "relay.example");
        let folder = |text: &str| maildir.folder(&text.parse().unwrap());
        assert_eq!(folder("a@b.example"), Path::new("/m/b.example/a"));
        assert_eq!(folder("A@B.Example"), folder("a@b.example"));
        assert_ne!(folder("\"a/b\"@c"), folder("a%2fb@c"));
    }
}
