//! Commands that the running relay answers.

use std::io;
use std::path::Path;

use super::{CommandError, print};
use crate::control::{self, Question, Reply};
use crate::layout;
use crate::serve::lock;

/// Asks the relay on `data`, and prints what it says.
pub(super) async fn show(data: &Path, question: Question, json: bool) -> Result<(), CommandError> {
    print(&ask(data, question).await?, json);
    Ok(())
}

/// Asks the relay on `data`.
pub(super) async fn ask(data: &Path, question: Question) -> Result<serde_json::Value, CommandError> {
    match control::ask(data, &question).await {
        Ok(Reply::Answer(answer)) => Ok(answer),
        Ok(Reply::Error(text)) => Err(CommandError::Relay(text)),
        Err(error) if is_not_running(&error) => Err(CommandError::NotRunning(data.to_owned())),
        Err(error) => Err(CommandError::failed("asking the relay", error)),
    }
}

/// Throws the catalog's view away: the next start makes it again from the log.
pub(super) fn forget_view(data: &Path, json: bool) -> Result<(), CommandError> {
    if !data.exists() {
        return Err(CommandError::Relay(format!("{}: there is no such data folder", data.display())));
    }
    // A relay that is starting has no socket yet, but has the lock.
    let _lock = lock::take(data)?;
    let folder = layout::catalog(data);
    match std::fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(CommandError::failed(format!("removing {}", folder.display()), error))
        }
        _ => {
            print(
                &serde_json::json!({ "catalog": "the next start makes the view again from the log" }),
                json,
            );
            Ok(())
        }
    }
}

fn is_not_running(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}
