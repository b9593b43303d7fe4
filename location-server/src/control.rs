//! The control socket: how `lighter-location token`, `user` and `export` reach a server that runs on the same data
//! folder, whose database only one process can open.
//!
//! A Unix socket in the data folder, for its owner only: who may open it may read the database, too, so it needs no
//! token, and nothing of it is on the network. One connection, one command: a line of JSON each way.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lighter_protocol::Now;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::limits::{
    CONTROL_ANSWER_LEN_MAX, CONTROL_COMMAND_LEN_MAX, CONTROL_CONNECTIONS_MAX, CONTROL_TIME_MAX,
};
use crate::location::Location;
use crate::location::admin::{AdminAnswer, AdminCommand};

/// Name of the socket in the data folder.
const SOCKET_FILE: &str = "control.sock";

/// An answer on the socket.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Reply {
    Done(AdminAnswer),
    Failed(String),
}

/// Why a command over the socket gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// No server listens there.
    #[error("no location server answers on {}", path.display())]
    NoServer {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The connection broke, or what came is no answer.
    #[error("the location server broke off")]
    Broken(#[source] io::Error),
    /// The server said no.
    #[error("{0}")]
    Refused(String),
}

/// The control socket, listening.
#[derive(Debug)]
pub struct Listener(UnixListener);

impl Drop for Listener {
    fn drop(&mut self) {
        // Closing does not end it while a process that is just being started has a copy of everything that is open: a
        // command would wait for a server that is gone.
        let _ = rustix::net::shutdown(&self.0, rustix::net::Shutdown::Both);
    }
}

/// Opens the socket in `data`. Only the holder of the database calls this, so one that is there is a left-over.
///
/// # Errors
/// Where it cannot be made: a path over 107 bytes, for one.
pub fn listen(data: &Path) -> io::Result<Listener> {
    let path = data.join(SOCKET_FILE);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    // The folder was made for its owner only; this holds for one that somebody else made.
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(Listener(listener))
}

/// Answers commands until `stopping`.
pub async fn serve(listener: Listener, location: Arc<Location>, stopping: CancellationToken) {
    let slots = Arc::new(Semaphore::new(CONTROL_CONNECTIONS_MAX));
    loop {
        let accept = async {
            // Never closed.
            let slot = slots.clone().acquire_owned().await;
            (slot, listener.0.accept().await)
        };
        let (slot, accepted) = tokio::select! {
            accepted = accept => accepted,
            () = stopping.cancelled() => return,
        };
        let Ok((stream, _)) = accepted else { continue };
        let location = location.clone();
        tokio::spawn(async move {
            match tokio::time::timeout(CONTROL_TIME_MAX, answer(stream, &location)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "control connection broken off"),
                Err(_) => tracing::debug!("control connection took too long"),
            }
            drop(slot);
        });
    }
}

async fn answer(mut stream: UnixStream, location: &Location) -> io::Result<()> {
    let line = read_line(&mut stream, CONTROL_COMMAND_LEN_MAX).await?;
    let reply = match serde_json::from_slice::<AdminCommand>(&line) {
        Ok(command) => match location.administer(command, Now::read()).await {
            Ok(answer) => Reply::Done(answer),
            Err(error) => Reply::Failed(error.to_string()),
        },
        Err(_) => Reply::Failed("not a command that this server knows".to_owned()),
    };
    write_line(&mut stream, &reply).await
}

/// Asks the server that runs on the data folder `data`.
///
/// # Errors
/// [`ControlError`].
pub async fn ask(data: &Path, command: &AdminCommand) -> Result<AdminAnswer, ControlError> {
    let path = data.join(SOCKET_FILE);
    let mut stream =
        UnixStream::connect(&path).await.map_err(|source| ControlError::NoServer { path, source })?;
    let exchange = async {
        write_line(&mut stream, command).await?;
        read_line(&mut stream, CONTROL_ANSWER_LEN_MAX).await
    };
    let line = match tokio::time::timeout(CONTROL_TIME_MAX, exchange).await {
        Ok(line) => line.map_err(ControlError::Broken)?,
        Err(_) => return Err(ControlError::Broken(io::ErrorKind::TimedOut.into())),
    };
    match serde_json::from_slice(&line) {
        Ok(Reply::Done(answer)) => Ok(answer),
        Ok(Reply::Failed(why)) => Err(ControlError::Refused(why)),
        Err(error) => Err(ControlError::Broken(error.into())),
    }
}

async fn read_line(stream: &mut UnixStream, len_max: usize) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    BufReader::new(stream.take(len_max as u64)).read_until(b'\n', &mut line).await?;
    if line.ends_with(b"\n") { Ok(line) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

async fn write_line(stream: &mut UnixStream, value: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    stream.write_all(&line).await
}
