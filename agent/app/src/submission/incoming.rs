//! The content of one message while it comes in: written to a file without a name, hashed on the way.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use bytes::Bytes;
use lighter_mail::Reply;
use lighter_store::limits::DISK_RESERVE;
use tokio::fs::File;
use tokio::io::AsyncWriteExt;

use crate::send::made::Made;
use crate::shared::Handle;

const NO_ROOM: Reply = Reply::fixed(452, 3, 1, "The disk is full here; nothing was sent");
const NOT_KEPT: Reply = Reply::fixed(451, 3, 0, "The message could not be kept here; nothing was sent");

/// A message that is coming in. Dropped, nothing of it is left.
#[derive(Debug)]
pub(super) struct Incoming {
    file: File,
    hasher: blake3::Hasher,
    len: u64,
}

impl Incoming {
    /// Begins; `expected` octets are said to come.
    ///
    /// # Errors
    /// What the client is told.
    pub(super) async fn begin(shared: &Handle, folder: &Path, expected: u64) -> Result<Self, Reply> {
        let folder = folder.to_owned();
        let opened = shared.blocking(move |store| {
            let free = store.disk_free().map_err(|error| failed(&error))?;
            if free <= DISK_RESERVE.saturating_add(expected) {
                return Err(NO_ROOM);
            }
            unnamed(&folder).map_err(|error| failed(&error))
        });
        Ok(Self { file: File::from_std(opened.await?), hasher: blake3::Hasher::new(), len: 0 })
    }

    /// Takes a piece.
    ///
    /// # Errors
    /// What the client is told.
    pub(super) async fn content(&mut self, piece: Bytes) -> Result<(), Reply> {
        self.hasher.update(&piece);
        self.len += piece.len() as u64;
        self.file.write_all(&piece).await.map_err(|error| not_written(&error))
    }

    /// All of it is there: the message, and the hash of its bytes.
    ///
    /// # Errors
    /// What the client is told.
    pub(super) async fn end(mut self) -> Result<(Made, blake3::Hash), Reply> {
        self.file.flush().await.map_err(|error| not_written(&error))?;
        let file = self.file.into_std().await;
        Ok((Made::new(file, self.len), self.hasher.finalize()))
    }
}

fn not_written(error: &io::Error) -> Reply {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => NO_ROOM,
        _ => failed(error),
    }
}

fn failed(error: &dyn std::fmt::Display) -> Reply {
    tracing::warn!(%error, "a submitted message could not be kept");
    NOT_KEPT
}

/// A file that nobody else can open, and that is gone with its last handle.
fn unnamed(folder: &Path) -> io::Result<std::fs::File> {
    let path = folder.join(format!(".submission-{:032x}", rand::random::<u128>()));
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}
