//! How `lighter-relay queue`, `array`, `catalog` and `ticket` speak to the relay that is running: a Unix socket in the
//! data folder, for its owner only (0600), one JSON line each way.
//!
//! The catalog's view belongs to one process; while the relay runs, whoever wants to know asks it. Not a network
//! protocol: whoever may open the socket may do everything, as whoever may read the data folder could.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lighter_protocol::DeliveryId;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use crate::limits::{CONTROL_CONNECTIONS_MAX, CONTROL_LINE_LEN_MAX, CONTROL_TIMEOUT};

/// What can be asked of a running relay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "lowercase")]
pub enum Question {
    /// What waits.
    Queue,
    /// The storage array.
    Array,
    /// Changes which servers the array has.
    Change {
        /// How.
        change: Box<lighter_storage::Change>,
    },
    /// Counts of the catalog.
    Catalog,
    /// The array key: whether it is being changed.
    Keys,
    /// Changes the array key.
    Rotate,
    /// A delivery's link.
    Ticket {
        /// Which.
        delivery: DeliveryId,
    },
    /// Makes a delivery's link worthless.
    Revoke {
        /// Which.
        delivery: DeliveryId,
    },
    /// Begins a task that takes its time. The answer has its number (`job`).
    Begin {
        /// Which.
        task: Task,
    },
    /// How far a task is (`under_way`, a text), or what it brought (`done`, or `failed` with a text and `try_again`).
    Job {
        /// Its number.
        job: u64,
    },
}

/// What takes longer than a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// Holds the catalog's view against the log, and what it refers to against the array.
    Check {
        /// Also reads the last record of each blob that is referred to, from each copy.
        deep: bool,
    },
    /// Looks for what nothing refers to.
    Orphans,
    /// Give back the room of dead records in segments of which less than this is alive.
    Thin {
        /// In percent.
        below_percent: u8,
    },
}

/// What the relay says: an answer that stands for itself, or why there is none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reply {
    /// The answer; its shape belongs to the question.
    Answer(serde_json::Value),
    /// Chosen text for the person who asked.
    Error(String),
}

/// Whoever answers the questions.
pub trait Answers: Send + Sync + 'static {
    /// Answers one question.
    fn answer(&self, question: Question) -> impl Future<Output = Reply> + Send;
}

/// Where the socket lies.
pub fn socket_path(data: &Path) -> PathBuf {
    data.join("control.sock")
}

/// Asks the relay that runs on `data`.
///
/// # Errors
/// [`io::ErrorKind::NotFound`] or [`io::ErrorKind::ConnectionRefused`] where none runs; others where it fails.
pub async fn ask(data: &Path, question: &Question) -> io::Result<Reply> {
    let stream = UnixStream::connect(socket_path(data)).await?;
    let exchange = async move {
        let mut line = serde_json::to_vec(question)?;
        line.push(b'\n');
        let (reader, mut writer) = stream.into_split();
        writer.write_all(&line).await?;
        let mut reply = Vec::new();
        BufReader::new(reader).read_until(b'\n', &mut reply).await?;
        Ok(serde_json::from_slice(&reply)?)
    };
    tokio::time::timeout(CONTROL_TIMEOUT, exchange).await.map_err(|_| io::ErrorKind::TimedOut)?
}

/// The bound socket; dropped, its file is removed.
#[derive(Debug)]
pub struct Control {
    listener: UnixListener,
    path: PathBuf,
}

impl Control {
    /// Binds the socket in `data`; the lock on the catalog has made sure that no other relay runs there, so a file that
    /// is left is an old one.
    ///
    /// # Errors
    /// Where the folder cannot be written to.
    pub fn bind(data: &Path) -> io::Result<Self> {
        let path = socket_path(data);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Self { listener, path })
    }

    /// Answers questions until dropped.
    pub async fn serve(self, answers: Arc<impl Answers>) {
        let slots = Arc::new(Semaphore::new(CONTROL_CONNECTIONS_MAX));
        loop {
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "control socket: accept failed");
                    // Out of file descriptors, most likely: the next connection that ends frees one.
                    tokio::task::yield_now().await;
                    continue;
                }
            };
            let answers = Arc::clone(&answers);
            tokio::spawn(async move {
                match tokio::time::timeout(CONTROL_TIMEOUT, converse(stream, &*answers)).await {
                    Ok(Err(error)) => tracing::debug!(%error, "control socket: conversation failed"),
                    Err(_) => tracing::debug!("control socket: conversation took too long"),
                    Ok(Ok(())) => {}
                }
                drop(slot);
            });
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // Closing does not end it while a process that is just being started has a copy of everything that is open.
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn converse(stream: UnixStream, answers: &impl Answers) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut line = Vec::new();
    BufReader::new(reader.take(CONTROL_LINE_LEN_MAX)).read_until(b'\n', &mut line).await?;
    let reply = match serde_json::from_slice(&line) {
        Ok(question) => answers.answer(question).await,
        Err(_) => Reply::Error("not a question that this version understands".to_owned()),
    };
    let mut line = serde_json::to_vec(&reply)?;
    line.push(b'\n');
    writer.write_all(&line).await
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Echo;

    impl Answers for Echo {
        async fn answer(&self, question: Question) -> Reply {
            Reply::Answer(serde_json::to_value(question).unwrap())
        }
    }

    #[tokio::test]
    async fn a_question_is_answered_and_garbage_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let control = Control::bind(folder.path()).unwrap();
        let mode = std::fs::metadata(socket_path(folder.path())).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let task = tokio::spawn(control.serve(Arc::new(Echo)));

        let reply = ask(folder.path(), &Question::Queue).await.unwrap();
        assert_eq!(reply, Reply::Answer(serde_json::json!({"ask": "queue"})));

        let mut stream = UnixStream::connect(socket_path(folder.path())).await.unwrap();
        stream.write_all(b"{\"ask\": \"everything\"}\n").await.unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await.unwrap();
        assert!(reply.contains("not a question"), "{reply}");

        task.abort();
        assert!(task.await.is_err());
        assert!(!socket_path(folder.path()).exists());
    }
}
