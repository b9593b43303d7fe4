//! `catalog check`, `orphans`, `thin`, `rebuild` and `import`: by the relay that runs, or, while none does, here.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lighter_catalog::{Imported, Ledger};
use lighter_shell::control::is_nobody;
use lighter_shell::count;
use lighter_storage::wall_clock;
use serde_json::{Value, json};

use super::{CommandError, print};
use crate::config::{CatalogEngine, Config};
use crate::control::{self, Question, Reply, Task};
use crate::layout;
use crate::limits::JOB_ASK_INTERVAL;
use crate::serve::catalog;
use crate::serve::offline::Offline;
use crate::upkeep::{self, Progress, UpkeepError};

/// Finds every disagreement between view, log and array.
pub(super) async fn check(config: &Config, deep: bool, json: bool) -> Result<(), CommandError> {
    let found = look(config, Task::Check { deep }).await?;
    print(&found, json);
    let number = |name: &str| found[name].as_u64().unwrap_or_default();
    if found["sound"] != Value::Bool(true) {
        let faults = number("blobs_nowhere") + number("copies_damaged") + number("copies_missing");
        return Err(CommandError::Relay(format!(
            "not sound: {} between view and log, {} missing from the log, {} of copies. A view is made anew by \
             `lighter-relay catalog rebuild`.",
            count(number("disagreements"), "disagreement", "disagreements"),
            count(number("log_gaps") + number("log_unreadable"), "record", "records"),
            count(faults, "fault", "faults"),
        )));
    }
    match number("copies_away") + number("blobs_on_too_few_copies") {
        0 => Ok(()),
        away => Err(CommandError::TryAgain(format!(
            "sound as far as it could be looked at; {} on servers that are away",
            count(away, "copy or blob is", "copies or blobs are")
        ))),
    }
}

/// Says what nothing refers to.
pub(super) async fn orphans(config: &Config, json: bool) -> Result<(), CommandError> {
    let found = look(config, Task::Orphans).await?;
    print(&found, json);
    Ok(())
}

/// Gives back the room of what nothing refers to.
pub(super) async fn thin(config: &Config, json: bool) -> Result<(), CommandError> {
    let below_percent = match config.array.thin_below_percent {
        0 => {
            return Err(CommandError::Relay(
                "array.thin_below_percent is 0: nothing is given back".to_owned(),
            ));
        }
        percent => percent,
    };
    let done = look(config, Task::Thin { below_percent }).await?;
    print(&done, json);
    match done["segments_put_off"].as_u64() {
        Some(0) | None => Ok(()),
        Some(put_off) => Err(CommandError::TryAgain(format!(
            "{} could not be thinned now: `lighter-relay array status` says which copies are away, its log whose clock differs",
            count(put_off, "segment", "segments")
        ))),
    }
}

/// What the relay finds, or, where none runs, this process.
async fn look(config: &Config, task: Task) -> Result<Value, CommandError> {
    match ask_relay(&config.data, task).await? {
        Some(found) => Ok(found),
        None => look_here(config, task).await,
    }
}

/// What the relay on `data` finds; None where none runs.
async fn ask_relay(data: &Path, task: Task) -> Result<Option<Value>, CommandError> {
    let mut line = Line::new();
    let mut question = Question::Begin { task };
    loop {
        let answer = match control::ask(data, &question).await {
            Ok(Reply::Answer(answer)) => answer,
            Ok(Reply::Error(text)) => return Err(CommandError::Relay(text)),
            Err(error) if is_nobody(&error) && matches!(question, Question::Begin { .. }) => {
                return Ok(None);
            }
            Err(error) if is_nobody(&error) => {
                return Err(CommandError::TryAgain("the relay stopped meanwhile".to_owned()));
            }
            Err(error) => return Err(CommandError::failed("asking the relay", error)),
        };
        if let Some(found) = answer.get("done") {
            return Ok(Some(found.clone()));
        }
        if let Some(why) = answer.get("failed").and_then(Value::as_str) {
            let is_temporary = answer["try_again"] == Value::Bool(true);
            let why = why.to_owned();
            return Err(if is_temporary { CommandError::TryAgain(why) } else { CommandError::Relay(why) });
        }
        if let Some(job) = answer.get("job").and_then(Value::as_u64) {
            question = Question::Job { job };
        } else {
            line.show(answer["under_way"].as_str().unwrap_or_default());
            tokio::time::sleep(JOB_ASK_INTERVAL).await;
        }
    }
}

/// Looks at the array and the view of a relay that does not run.
async fn look_here(config: &Config, task: Task) -> Result<Value, CommandError> {
    let offline = Offline::open(config).await?;
    let array = offline.array().clone();
    // As a start does, this brings the view up to the log's end; a view that does not fit the log is made anew.
    let ledger = match catalog::open(config, offline.identity(), &array, Box::new(|_| {})).await {
        Ok(ledger) => ledger,
        Err(error) => {
            offline.close().await;
            return Err(error);
        }
    };
    let progress = Progress::default();
    let work = async {
        match task {
            Task::Check { deep } => upkeep::check(&array, &ledger, &config.data, deep, &progress).await,
            Task::Orphans => upkeep::orphans(&array, &ledger, &progress).await,
            Task::Thin { below_percent } => {
                upkeep::thin(&array, &ledger, below_percent, wall_clock()().day(), &progress).await
            }
        }
    };
    let found = showing(work, || progress.text()).await;
    drop(ledger);
    offline.close().await;
    found.map_err(|error: UpkeepError| {
        let is_temporary = error.is_temporary();
        let why = error.to_string();
        if is_temporary { CommandError::TryAgain(why) } else { CommandError::Relay(why) }
    })
}

/// Makes the view anew from the log, beside the old one, and puts it in its place.
pub(super) async fn rebuild(config: &Config, json: bool) -> Result<(), CommandError> {
    if config.catalog.engine == CatalogEngine::PostgreSql {
        return Err(CommandError::Relay(
            "the catalog is in a database, which is the truth of it: the log holds bytes only, and it cannot be made \
             from that. Bring the database back from its standby or its backup."
                .to_owned(),
        ));
    }
    let offline = Offline::open(config).await?;
    let next = layout::catalog_next(&config.data);
    let made = make(&offline, &next).await;
    offline.close().await;
    let (made, alarms) = made?;
    let view = layout::catalog(&config.data);
    let swap = || -> io::Result<()> {
        remove(&view)?;
        std::fs::rename(&next, &view)?;
        std::fs::File::open(&config.data)?.sync_all()
    };
    swap().map_err(|error| CommandError::failed(format!("putting {} in place", view.display()), error))?;
    print(&made, json);
    if alarms > 0 {
        return Err(CommandError::Relay(format!(
            "the view was made anew, but {} missing from the log, and what was told there is lost",
            count(alarms, "record is", "records are")
        )));
    }
    Ok(())
}

/// Moves the catalog from the relay's file, brought up to the log's end, into the database.
pub(super) async fn import(config: &Config, json: bool) -> Result<(), CommandError> {
    let offline = Offline::open(config).await?;
    let imported = import_from(config, &offline).await;
    offline.close().await;
    let Imported { messages, deliveries, moved, verified } = imported?;
    let told =
        json!({ "messages": messages, "deliveries": deliveries, "moved": moved, "verified": verified });
    print(&told, json);
    Ok(())
}

async fn import_from(config: &Config, offline: &Offline) -> Result<Imported, CommandError> {
    let database =
        config.catalog.database(offline.identity().peer(), &config.hostname)?.ok_or_else(|| {
            CommandError::Relay("catalog.engine: name the database to move it to first".to_owned())
        })?;
    let database = catalog::reach(&database).await?;
    // The log is the truth of it until this is done.
    let view = layout::catalog(&config.data);
    let ledger = Ledger::open_embedded(offline.array().clone(), &view, Box::new(|_| {}))
        .await
        .map_err(|error| CommandError::failed("opening the catalog in the file", error))?;
    let moved = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&moved);
    let moving =
        ledger.read(move |from| database.import(from, &|moved| counter.store(moved, Ordering::Relaxed)));
    let text = || format!("{} moved", count(moved.load(Ordering::Relaxed), "message", "messages"));
    showing(moving, text).await.map_err(|error| CommandError::failed("moving the catalog", error))
}

async fn make(offline: &Offline, next: &Path) -> Result<(Value, u64), CommandError> {
    remove(next).map_err(|error| CommandError::failed(format!("removing {}", next.display()), error))?;
    let changes = AtomicU64::new(0);
    let replayed = |_| {
        changes.fetch_add(1, Ordering::Relaxed);
    };
    let text = || format!("{} replayed", count(changes.load(Ordering::Relaxed), "change", "changes"));
    let (counts, alarms) = showing(lighter_catalog::rebuild(offline.array(), next, &replayed), text)
        .await
        .map_err(|error| CommandError::failed("making the view", error))?;
    let told = json!({
        "changes": changes.load(Ordering::Relaxed),
        "messages": counts.messages,
        "deliveries_waiting": counts.waiting,
        "deliveries_receipted": counts.receipted,
        "deliveries_released": counts.released,
        "hand_overs_waiting": counts.hand_overs,
        "attachments_referred": counts.references,
        "attachments_kept": counts.copies,
        "log_gaps": alarms.gaps,
        "log_unreadable": alarms.unreadable,
    });
    Ok((told, alarms.gaps + alarms.unreadable))
}

fn remove(folder: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Does `work`, and says now and then how far it is.
async fn showing<T>(work: impl Future<Output = T>, text: impl Fn() -> String) -> T {
    let mut line = Line::new();
    tokio::pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            () = tokio::time::sleep(JOB_ASK_INTERVAL) => line.show(&text()),
        }
    }
}

/// One line on a terminal that is written over; nothing where standard error is none.
struct Line {
    is_terminal: bool,
    is_used: bool,
}

impl Line {
    fn new() -> Self {
        Self { is_terminal: io::stderr().is_terminal(), is_used: false }
    }

    fn show(&mut self, text: &str) {
        if self.is_terminal {
            self.is_used = true;
            let _ = write!(io::stderr(), "\r\x1b[K{text}");
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.is_used {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
