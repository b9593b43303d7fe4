//! Control sockets: how a command speaks to the program of the same kind that runs on the same data folder, whose
//! databases only one process can open.
//!
//! A Unix socket in the data folder, for its owner only: who may open it may read the folder, too, so it needs no
//! token, and nothing of it is on the network. Lines of JSON each way; what they say belongs to the program. How many
//! connections there are at a time, how long a line and a conversation may be, is bounded ([`Limits`]).

mod lines;
mod path;

use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use serde::{Serialize, de::DeserializeOwned};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixSocket, UnixStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

pub use lines::Lines;
use path::ShortPath;

/// Connections that wait for their turn in the system (listen(2)).
const BACKLOG: u32 = 128;
/// After a connection that could not be taken: out of file descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// What a control socket bears.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at a time, at least 1; others wait until one ends.
    pub connections_max: usize,
    /// Bytes of one line that comes in, with the one that ends it.
    pub line_len_max: u64,
    /// How long one conversation may take, from the first byte to the last; none where a command may follow something
    /// that has no bound.
    pub time_max: Option<Duration>,
}

/// A control socket, listening.
#[derive(Debug)]
pub struct Listener {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the socket's file: tell it from one that took its place.
    file: (u64, u64),
}

impl Listener {
    /// Listens at `path`, which may be longer than the system's 107 bytes. Only the holder of the data folder's lock
    /// calls this: a socket that is there was left by a program that was killed, and is taken away.
    ///
    /// # Errors
    /// What the system says.
    pub fn bind(path: &Path) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let short = ShortPath::of(path)?;
        let socket = UnixSocket::new_stream()?;
        socket.bind(&short.path)?;
        // The folder was made for its owner only; this holds for one that somebody else made. Nobody gets in before:
        // the socket does not listen yet.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        let file = file_of(path)?;
        Ok(Self { listener: socket.listen(BACKLOG)?, path: path.to_owned(), file })
    }

    /// Has a `conversation` with each who connects, until `stopping`; those under way then are waited for. All end with
    /// the future.
    ///
    /// # Panics
    /// Where no connection is allowed at all.
    pub async fn serve<F, C>(self, limits: Limits, stopping: impl Future<Output = ()>, conversation: F)
    where
        F: Fn(Connection) -> C,
        C: Future<Output = io::Result<()>> + Send + 'static,
    {
        assert!(limits.connections_max > 0, "nobody could ever connect");
        let mut conversations = JoinSet::new();
        let mut stopping = pin!(stopping);
        loop {
            tokio::select! {
                () = &mut stopping => break,
                Some(_ended) = conversations.join_next(), if !conversations.is_empty() => {}
                stream = self.accept(), if conversations.len() < limits.connections_max => {
                    let conversation = conversation(Connection::new(stream, limits.line_len_max));
                    conversations.spawn(within(limits.time_max, conversation));
                }
            }
        }
        // Nobody else gets in.
        drop(self);
        while conversations.join_next().await.is_some() {}
    }

    async fn accept(&self) -> UnixStream {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => return stream,
                Err(error) => {
                    tracing::warn!(%error, "the control socket cannot accept now");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Closing does not end it while a process that is just being started has a copy of everything that is open: a
        // command would wait for a program that is gone.
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
        if file_of(&self.path).is_ok_and(|file| file == self.file) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn file_of(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = std::fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

async fn within(time_max: Option<Duration>, conversation: impl Future<Output = io::Result<()>>) {
    let ended = match time_max {
        Some(time_max) => timeout(time_max, conversation).await,
        None => Ok(conversation.await),
    };
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a command went away"),
        Err(_) => tracing::debug!("a command took too long"),
    }
}

/// One end of a connection over a control socket.
#[derive(Debug)]
pub struct Connection {
    lines: Lines<OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

impl Connection {
    fn new(stream: UnixStream, line_len_max: u64) -> Self {
        let (reader, writer) = stream.into_split();
        Self { lines: Lines::new(reader, line_len_max), writer }
    }

    /// Connects to who listens at `path`; lines of at most `line_len_max` bytes are taken from there.
    ///
    /// # Errors
    /// [`is_nobody`] tells where nobody listens; else what the system says.
    pub async fn open(path: &Path, line_len_max: u64) -> io::Result<Self> {
        let short = ShortPath::of(path)?;
        Ok(Self::new(UnixStream::connect(&short.path).await?, line_len_max))
    }

    /// The next line; none at the end.
    ///
    /// # Errors
    /// As [`Lines::read`].
    pub async fn read<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        self.lines.read().await
    }

    /// Writes a line.
    ///
    /// # Errors
    /// What the system says; [`io::ErrorKind::InvalidData`] where `value` has no form in JSON.
    pub async fn write(&mut self, value: &impl Serialize) -> io::Result<()> {
        lines::write(&mut self.writer, value).await
    }

    /// Asks a question and takes the one line that answers it.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`] after `time_max`, [`io::ErrorKind::UnexpectedEof`] where no answer comes, else as
    /// [`Connection::read`] and [`Connection::write`].
    pub async fn ask<T: DeserializeOwned>(
        mut self,
        question: &impl Serialize,
        time_max: Duration,
    ) -> io::Result<T> {
        let exchange = async {
            self.write(question).await?;
            self.read().await?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
        };
        timeout(time_max, exchange).await.map_err(|_| io::ErrorKind::TimedOut)?
    }
}

/// Whether `error` from [`Connection::open`] says that nobody listens: no program runs on the folder, or there is no
/// such folder.
pub fn is_nobody(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

#[cfg(test)]
mod tests;
