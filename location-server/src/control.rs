//! The control socket: how `lighter-location token`, `user` and `export` reach a server that runs on the same data
//! folder. One connection, one command: a line of JSON each way.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lighter_protocol::Now;
use lighter_shell::control::{Connection, Limits, Listener};
use serde::{Deserialize, Serialize};
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

/// Opens the socket in `data`. Only the holder of the database calls this.
///
/// # Errors
/// Where it cannot be made.
pub fn listen(data: &Path) -> io::Result<Listener> {
    Listener::bind(&data.join(SOCKET_FILE))
}

/// Answers commands until `stopping`; those that were heard by then are answered.
pub async fn serve(listener: Listener, location: Arc<Location>, stopping: CancellationToken) {
    let limits = Limits {
        connections_max: CONTROL_CONNECTIONS_MAX,
        line_len_max: CONTROL_COMMAND_LEN_MAX,
        time_max: Some(CONTROL_TIME_MAX),
    };
    let stopped = stopping.clone();
    let conversation = move |connection| answer(connection, Arc::clone(&location), stopping.clone());
    listener.serve(limits, stopped.cancelled_owned(), conversation).await;
}

async fn answer(
    mut connection: Connection,
    location: Arc<Location>,
    stopping: CancellationToken,
) -> io::Result<()> {
    let command = tokio::select! {
        command = connection.read::<AdminCommand>() => command,
        () = stopping.cancelled() => return Ok(()),
    };
    let reply = match command {
        Ok(Some(command)) => match location.administer(command, Now::read()).await {
            Ok(answer) => Reply::Done(answer),
            Err(error) => Reply::Failed(error.to_string()),
        },
        Ok(None) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Reply::Failed("not a command that this server knows".to_owned())
        }
        Err(error) => return Err(error),
    };
    connection.write(&reply).await
}

/// Asks the server that runs on the data folder `data`.
///
/// # Errors
/// [`ControlError`].
pub async fn ask(data: &Path, command: &AdminCommand) -> Result<AdminAnswer, ControlError> {
    let path = data.join(SOCKET_FILE);
    let connection = Connection::open(&path, CONTROL_ANSWER_LEN_MAX).await;
    let connection = connection.map_err(|source| ControlError::NoServer { path, source })?;
    match connection.ask(command, CONTROL_TIME_MAX).await.map_err(ControlError::Broken)? {
        Reply::Done(answer) => Ok(answer),
        Reply::Failed(why) => Err(ControlError::Refused(why)),
    }
}
