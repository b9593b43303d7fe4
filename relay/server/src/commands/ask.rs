//! Commands that the running relay answers.

use std::path::Path;

use lighter_shell::control::is_nobody;

use super::{CommandError, print};
use crate::control::{self, Question, Reply};

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
        Err(error) if is_nobody(&error) => Err(CommandError::NotRunning(data.to_owned())),
        Err(error) => Err(CommandError::failed("asking the relay", error)),
    }
}
