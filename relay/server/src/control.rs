//! How `lighter-relay queue`, `array`, `catalog` and `ticket` speak to the relay that is running: a Unix socket in the
//! data folder, for its owner only (0600), one JSON line each way.
//!
//! The catalog's view belongs to one process; while the relay runs, whoever wants to know asks it. Not a network
//! protocol: whoever may open the socket may do everything, as whoever may read the data folder could.

use std::future::pending;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lighter_protocol::DeliveryId;
use lighter_shell::control::{Connection, Limits, Listener};
use serde::{Deserialize, Serialize};

use crate::limits::{CONTROL_ANSWER_LEN_MAX, CONTROL_CONNECTIONS_MAX, CONTROL_LINE_LEN_MAX, CONTROL_TIMEOUT};

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
/// [`is_nobody`](lighter_shell::control::is_nobody) tells where none runs; others where it fails.
pub async fn ask(data: &Path, question: &Question) -> io::Result<Reply> {
    Connection::open(&socket_path(data), CONTROL_ANSWER_LEN_MAX).await?.ask(question, CONTROL_TIMEOUT).await
}

/// Binds the socket in `data`; the lock on the catalog has made sure that no other relay runs there.
///
/// # Errors
/// Where the folder cannot be written to.
pub fn listen(data: &Path) -> io::Result<Listener> {
    Listener::bind(&socket_path(data))
}

/// Answers questions until dropped.
pub async fn serve(listener: Listener, answers: Arc<impl Answers>) {
    let limits = Limits {
        connections_max: CONTROL_CONNECTIONS_MAX,
        line_len_max: CONTROL_LINE_LEN_MAX,
        time_max: Some(CONTROL_TIMEOUT),
    };
    listener.serve(limits, pending(), |connection| converse(connection, Arc::clone(&answers))).await;
}

async fn converse(mut connection: Connection, answers: Arc<impl Answers>) -> io::Result<()> {
    let reply = match connection.read().await {
        Ok(Some(question)) => answers.answer(question).await,
        Ok(None) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Reply::Error("not a question that this version understands".to_owned())
        }
        Err(error) => return Err(error),
    };
    connection.write(&reply).await
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;

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
        let listener = listen(folder.path()).unwrap();
        let mode = std::fs::metadata(socket_path(folder.path())).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let task = tokio::spawn(serve(listener, Arc::new(Echo)));

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
