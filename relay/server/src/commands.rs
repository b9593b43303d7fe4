//! What each command of `lighter-relay` does, but for `serve`.

mod array;
mod ask;
mod catalog;
pub(crate) mod keys;

use std::path::PathBuf;

use lighter_shell::{Exit, logs};

use crate::cli::{CatalogCommand, Cli, Command, TicketCommand};
use crate::config::{Config, ConfigError};
use crate::control::Question;

/// Why a command did not do what it was asked for; what the person reads.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The relay does not run, and only it can answer.
    #[error("no relay runs on {0}: start it with `lighter-relay serve`")]
    NotRunning(PathBuf),
    /// The relay runs, and the command needs it to be stopped.
    #[error("a relay runs on {0}: stop it first")]
    Running(PathBuf),
    /// The relay said so.
    #[error("{0}")]
    Relay(String),
    /// It may go well the next time.
    #[error("{0}: try again")]
    TryAgain(String),
    /// Something on the way failed.
    #[error("{what}: {}", with_causes(&**source))]
    Failed {
        /// What was being done.
        what: String,
        /// Why it failed.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// An error and what caused it, down to what the system said: who operates the relay needs that.
fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

impl CommandError {
    /// `what` was being done when `source` happened.
    pub(crate) fn failed(
        what: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Failed { what: what.into(), source: source.into() }
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Config(_) => Exit::WrongUse,
            Self::NotRunning(_) | Self::Running(_) | Self::TryAgain(_) => Exit::TryAgain,
            Self::Relay(_) | Self::Failed { .. } => Exit::Failed,
        }
    }
}

/// Does what the command line says; errors go to standard error.
pub async fn run(cli: Cli) -> Exit {
    match cli.command {
        Command::Serve(_) => logs::init(),
        _ => logs::init_quiet(),
    }
    match dispatch(cli).await {
        Ok(()) => Exit::Done,
        Err(error) => {
            eprintln!("lighter-relay: {error}");
            error.exit()
        }
    }
}

async fn dispatch(cli: Cli) -> Result<(), CommandError> {
    let mut config = Config::load(cli.config.as_deref())?;
    if let Some(data) = cli.data {
        config.data = data;
    }
    let json = cli.json;
    match cli.command {
        Command::Serve(serve) => {
            if !serve.role.is_empty() {
                config.roles = serve.role;
            }
            crate::serve::run(config).await
        }
        Command::Queue => ask::show(&config.data, Question::Queue, json).await,
        Command::Array { command } => array::run(&config.data, command, json).await,
        Command::Catalog { command: CatalogCommand::Status } => {
            ask::show(&config.data, Question::Catalog, json).await
        }
        Command::Catalog { command: CatalogCommand::Rebuild } => catalog::rebuild(&config, json).await,
        Command::Catalog { command: CatalogCommand::Check { deep } } => {
            catalog::check(&config, deep, json).await
        }
        Command::Catalog { command: CatalogCommand::Orphans } => catalog::orphans(&config, json).await,
        Command::Catalog { command: CatalogCommand::Thin } => catalog::thin(&config, json).await,
        Command::Catalog { command: CatalogCommand::Import } => catalog::import(&config, json).await,
        Command::Ticket { command: TicketCommand::Show { delivery } } => {
            ask::show(&config.data, Question::Ticket { delivery }, json).await
        }
        Command::Ticket { command: TicketCommand::Revoke { delivery } } => {
            ask::show(&config.data, Question::Revoke { delivery }, json).await
        }
        Command::Keys { command } => keys::run(&config, &command, json).await,
        Command::Check => crate::check::run(&config, json).await,
        Command::Detach(detach) => crate::detach::run(&detach),
    }
}

/// Prints an answer: as JSON, or as `name: value` lines for a person.
#[expect(clippy::print_stdout, reason = "an answer is what a command is for")]
pub(crate) fn print(answer: &serde_json::Value, json: bool) {
    if json {
        println!("{answer:#}");
    } else {
        print!("{}", as_lines(answer, ""));
    }
}

/// `{"a": {"b": 1}}` as `a.b: 1`.
fn as_lines(value: &serde_json::Value, name: &str) -> String {
    use serde_json::Value;
    let below = |key: &str| if name.is_empty() { key.to_owned() } else { format!("{name}.{key}") };
    match value {
        Value::Object(fields) => fields.iter().map(|(key, value)| as_lines(value, &below(key))).collect(),
        Value::Array(items) => {
            let number = |(index, item): (usize, &Value)| as_lines(item, &below(&(index + 1).to_string()));
            items.iter().enumerate().map(number).collect()
        }
        Value::String(text) => format!("{name}: {text}\n"),
        other => format!("{name}: {other}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_for_people_are_lines_with_names() {
        let answer = serde_json::json!({ "a": 1, "b": { "c": "x" }, "d": [{ "e": true }] });
        assert_eq!(as_lines(&answer, ""), "a: 1\nb.c: x\nd.1.e: true\n");
    }
}
