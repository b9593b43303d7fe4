use std::future::pending;
use std::sync::Arc;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::*;

const LIMITS: Limits = Limits { connections_max: 2, line_len_max: 64, time_max: None };
/// Nothing here takes so long.
const PATIENCE: Duration = Duration::from_secs(20);

/// A socket whose program says everything again.
struct Echo {
    folder: TempDir,
    stop: Arc<Notify>,
    serving: JoinHandle<()>,
}

impl Echo {
    fn start(limits: Limits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = Listener::bind(&folder.path().join("control")).unwrap();
        let stop = Arc::new(Notify::new());
        let stopping = Arc::clone(&stop).notified_owned();
        let serving = tokio::spawn(listener.serve(limits, stopping, |mut connection| async move {
            while let Some(said) = connection.read::<String>().await? {
                connection.write(&said).await?;
            }
            Ok(())
        }));
        Self { folder, stop, serving }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("control")
    }

    async fn connect(&self) -> Connection {
        Connection::open(&self.path(), LIMITS.line_len_max).await.unwrap()
    }

    async fn is_answering(&self) {
        assert_eq!(self.connect().await.ask::<String>(&"well?", PATIENCE).await.unwrap(), "well?");
    }
}

/// Writes and reads as they are, and not as our own end would.
async fn raw(echo: &Echo, bytes: &[u8]) -> Vec<u8> {
    let mut stream = UnixStream::connect(echo.path()).await.unwrap();
    // Broken off, it may not take everything.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("let go");
    answer
}

#[tokio::test]
async fn a_socket_is_for_its_owner_only_and_takes_the_place_of_one_that_was_left() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let listener = Listener::bind(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    drop(listener);
    assert!(!path.exists(), "nothing is left of it");
    // What is no file is nobody's left-over.
    std::fs::create_dir(&path).unwrap();
    assert!(Listener::bind(&path).is_err());
}

#[tokio::test]
async fn the_socket_of_a_successor_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control");
    let first = Listener::bind(&path).unwrap();
    let second = Listener::bind(&path).unwrap();
    drop(first);
    let _connected = Connection::open(&path, 64).await.unwrap();
    drop(second);
    assert!(is_nobody(&Connection::open(&path, 64).await.unwrap_err()));
}

#[tokio::test]
async fn a_socket_may_lie_deep() {
    let folder = tempfile::tempdir().unwrap();
    let deep = folder.path().join("d".repeat(120));
    let path = deep.join("control");
    assert!(is_nobody(&Connection::open(&path, 64).await.unwrap_err()));
    std::fs::create_dir(&deep).unwrap();
    assert!(is_nobody(&Connection::open(&path, 64).await.unwrap_err()));
    let _listener = Listener::bind(&path).unwrap();
    let _connected = Connection::open(&path, 64).await.unwrap();
    assert!(path.exists());
}

#[tokio::test]
async fn a_line_over_its_bound_ends_its_conversation_only() {
    let echo = Echo::start(LIMITS);
    let mut beside = echo.connect().await;
    assert!(raw(&echo, &[b'"'; 1_000_000]).await.is_empty());
    assert!(raw(&echo, b"not JSON\n").await.is_empty());
    let of_two = raw(&echo, b"\"one\"\n{}\n\"two\"\n").await;
    assert_eq!(of_two, b"\"one\"\n");
    beside.write(&"still there").await.unwrap();
    assert_eq!(beside.read::<String>().await.unwrap().as_deref(), Some("still there"));
}

#[tokio::test]
async fn no_more_connections_are_served_than_are_allowed() {
    let echo = Echo::start(LIMITS);
    let (mut first, mut second) = (echo.connect().await, echo.connect().await);
    for held in [&mut first, &mut second] {
        held.write(&"held").await.unwrap();
        assert_eq!(held.read::<String>().await.unwrap().as_deref(), Some("held"));
    }
    let mut third = echo.connect().await;
    third.write(&"third").await.unwrap();
    // What was said later over a connection that is served is answered first.
    for _ in 0..100 {
        first.write(&"later").await.unwrap();
        assert_eq!(first.read::<String>().await.unwrap().as_deref(), Some("later"));
    }
    let early = timeout(Duration::ZERO, third.read::<String>()).await;
    assert!(early.is_err(), "served over the limit: {early:?}");
    drop(second);
    let answer = timeout(PATIENCE, third.read::<String>()).await.expect("its turn comes").unwrap();
    assert_eq!(answer.as_deref(), Some("third"));
}

#[tokio::test]
async fn who_says_nothing_does_not_keep_the_place() {
    let limits = Limits { connections_max: 1, time_max: Some(Duration::from_millis(50)), ..LIMITS };
    let echo = Echo::start(limits);
    assert!(raw(&echo, b"").await.is_empty());
    // Nor does who never comes to the end of a line.
    assert!(raw(&echo, b"\"half").await.is_empty());
    echo.is_answering().await;
}

#[tokio::test]
async fn who_does_not_read_does_not_keep_the_place() {
    let limits = Limits {
        connections_max: 1,
        time_max: Some(Duration::from_millis(200)),
        line_len_max: 16 * 1024 * 1024,
    };
    let echo = Echo::start(limits);
    let mut deaf = echo.connect().await;
    let _ = deaf.write(&"a".repeat(8 * 1024 * 1024)).await;
    echo.is_answering().await;
}

#[tokio::test]
async fn conversations_under_way_are_waited_for_and_no_new_one_begins() {
    let echo = Echo::start(LIMITS);
    let mut connection = echo.connect().await;
    connection.write(&"one").await.unwrap();
    assert_eq!(connection.read::<String>().await.unwrap().as_deref(), Some("one"));
    echo.stop.notify_one();
    while echo.path().exists() {
        tokio::task::yield_now().await;
    }
    assert!(is_nobody(&Connection::open(&echo.path(), 64).await.unwrap_err()));
    connection.write(&"two").await.unwrap();
    assert_eq!(connection.read::<String>().await.unwrap().as_deref(), Some("two"));
    drop(connection);
    timeout(PATIENCE, echo.serving).await.expect("over").unwrap();
}

#[tokio::test]
async fn conversations_end_with_the_future() {
    let echo = Echo::start(LIMITS);
    let mut connection = echo.connect().await;
    connection.write(&"one").await.unwrap();
    assert_eq!(connection.read::<String>().await.unwrap().as_deref(), Some("one"));
    echo.serving.abort();
    let end = timeout(PATIENCE, connection.read::<String>()).await.expect("let go");
    assert!(end.is_ok_and(|line| line.is_none()));
    assert!(!echo.path().exists());
}

#[tokio::test]
async fn an_answer_is_waited_for_so_long_and_taken_so_big() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control");
    let listener = Listener::bind(&path).unwrap();
    let serving = tokio::spawn(listener.serve(LIMITS, pending(), |mut connection| async move {
        match connection.read::<String>().await?.as_deref() {
            Some("silence") => pending().await,
            Some("much") => connection.write(&"a".repeat(1_000_000)).await,
            _ => Ok(()),
        }
    }));
    let ask = async |question: &str, time_max| {
        let connection = Connection::open(&path, 64).await.unwrap();
        connection.ask::<String>(&question, time_max).await.unwrap_err().kind()
    };
    assert_eq!(ask("silence", Duration::from_millis(20)).await, io::ErrorKind::TimedOut);
    assert_eq!(ask("much", PATIENCE).await, io::ErrorKind::InvalidData);
    assert_eq!(ask("nothing", PATIENCE).await, io::ErrorKind::UnexpectedEof);
    serving.abort();
}
